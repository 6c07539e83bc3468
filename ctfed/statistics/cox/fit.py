"""fit_cox: elastic-net Cox models from sums, exact to the pooled fit on the same strata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray
from ctfed.federation.errors import CtfedError
from ctfed.federation.summary import Total
from ctfed.federation.view import View
from ctfed.statistics.cox.penalty import ElasticNet, PenaltyStack
from ctfed.statistics.cox.pooled import pooled_oracle
from ctfed.statistics.cox.solver import Curvatures, Oracle, Settings, Solution, minimise
from ctfed.statistics.cox.stratified import CoxDerivatives, stratified_oracle
from ctfed.statistics.tails import normal_ppf, normal_sf
from ctfed.statistics.timegrid import TimeGrid

LARGE_COEFFICIENT = 8.0  # a log hazard ratio per standard deviation beyond which separation is the likelier cause
COLLINEAR = 1e-10  # smallest eigenvalue of the scaled information relative to the largest


@dataclass(frozen=True, eq=False)
class CoxFit:
    """A fitted Cox model.

    Attributes:
        view: what it was fitted on; coefficients are per unit of the view's features.
        coefficients: (p,) with true zeros.
        penalty: its elastic net.
        ties, risk_sets: as fitted.
        loglik: partial log-likelihood at the coefficients.
        residual: KKT residual, on the scale of the log-likelihood per patient and of each feature's spread.
        patients, events: of the view, over all sites.
        rounds: questions to the sites that the fit (its whole stack) took.
        converged: whether the residual reached the tolerance.
        covariance: (p, p) inverse information of an unpenalised fit, else None: a penalised fit has no standard errors.
        warnings: sentences for the reader of the model.
    """

    view: View
    coefficients: FloatArray
    penalty: ElasticNet
    ties: str
    risk_sets: str
    loglik: float
    residual: float
    patients: int
    events: int
    rounds: int
    converged: bool
    covariance: FloatArray | None
    warnings: tuple[str, ...]

    @property
    def standard_errors(self) -> FloatArray | None:
        """(p,) from the inverse information, None for a penalised fit."""
        return None if self.covariance is None else np.sqrt(np.diag(self.covariance))

    @property
    def z(self) -> FloatArray | None:
        """(p,) Wald statistics."""
        errors = self.standard_errors
        return None if errors is None else self.coefficients / errors

    @property
    def p_values(self) -> FloatArray | None:
        """(p,) two-sided Wald p-values."""
        return None if self.z is None else 2 * normal_sf(np.abs(self.z))

    def intervals(self, level: float = 0.95) -> FloatArray | None:
        """(p, 2) Wald confidence limits of the coefficients."""
        errors = self.standard_errors
        if errors is None:
            return None
        reach = normal_ppf(0.5 + level / 2) * errors
        return np.stack([self.coefficients - reach, self.coefficients + reach], axis=1)


def fit_cox(
    view: View,
    penalty: ElasticNet | None = None,
    *,
    ties: str = "efron",
    grid: TimeGrid | None = None,
    settings: Settings | None = None,
) -> Algorithm[CoxFit]:
    """One Cox model; see ``fit_cox_stack``. Without ``penalty`` the fit is unpenalised and has standard errors."""
    fits = yield from fit_cox_stack(view, (penalty or ElasticNet(),), ties=ties, grid=grid, settings=settings)
    return fits[0]


def fit_cox_stack(
    view: View,
    penalties: Sequence[ElasticNet],
    *,
    ties: str = "efron",
    grid: TimeGrid | None = None,
    settings: Settings | None = None,
    start: FloatArray | None = None,
    curvatures: Curvatures | None = None,
) -> Algorithm[tuple[CoxFit, ...]]:
    """Cox models of one view under many penalties, solved in lock-step.

    Args:
        view: rows and features, imputed and usually standardised.
        penalties: one elastic net per model.
        ties: 'efron' (default) or 'breslow'.
        grid: None for stratified risk sets (one baseline hazard per stratum, one round per step); a TimeGrid for pooled
            risk sets on that grid (one baseline hazard, two rounds per step).
        settings: tolerance, updates, rounds; the default is proximal Newton to a KKT residual of 1e-9.
        start: (K, p) warm starts, default zero.
        curvatures: Hessians of earlier stacks on this view, see ``Curvatures``.

    Raises:
        CtfedError: when the view has no event anywhere.
    """
    chosen = settings or Settings()
    oracle = stratified_oracle(view, ties) if grid is None else pooled_oracle(view, ties, grid)
    stack = PenaltyStack.of(tuple(penalties), view.width)
    origin = np.zeros((len(penalties), view.width)) if start is None else start
    solution = yield from minimise(_checked(oracle), stack, origin, chosen, curvatures)
    risk_sets = "stratified" if grid is None else "pooled"
    return tuple(_fit(view, penalty, ties, risk_sets, solution, k) for k, penalty in enumerate(penalties))


def _checked(oracle: Oracle) -> Oracle:
    def ask(points: FloatArray, hessians: tuple[int, ...]):  # type: ignore[no-untyped-def]
        found = yield from oracle(points, hessians)
        if found.events == 0:
            raise CtfedError(f"no event among the {found.patients} patients of the view: a Cox model needs events")
        return found

    return ask


def _fit(view: View, penalty: ElasticNet, ties: str, risk_sets: str, solution: Solution, k: int) -> CoxFit:
    warnings = _divergence(view, solution, k)
    covariance = None
    if penalty.penalizer == 0 and solution.exact[k]:
        covariance, words = _covariance(view, solution.information[k] * solution.patients)
        warnings += words
    elif penalty.penalizer == 0:
        warnings.append("no standard errors: they need the Hessian, which this study does not ask for")
    return CoxFit(
        view=view,
        coefficients=solution.beta[k],
        penalty=penalty,
        ties=ties,
        risk_sets=risk_sets,
        loglik=float(solution.loglik[k]),
        residual=float(solution.residual[k]),
        patients=solution.patients,
        events=solution.events,
        rounds=solution.rounds,
        converged=bool(solution.converged[k]),
        covariance=covariance,
        warnings=tuple(warnings),
    )


def _divergence(view: View, solution: Solution, k: int) -> list[str]:
    """What to say of a fit that did not arrive, or arrived where no data could have led it."""
    beta = solution.beta[k]
    large = np.abs(beta) * solution.unit > LARGE_COEFFICIENT
    found = [
        f"the coefficient of {view.names[j]} ran to {beta[j]:.3g}: the data separate perfectly along it (or it is "
        "collinear), and its maximum likelihood estimate is infinite; use a penalizer > 0"
        for j in np.flatnonzero(large)
    ]
    if solution.declined[k]:
        found.append(
            "the fit stopped where sites declined larger steps, because their linear predictors would span too wide a "
            "range: the data separate perfectly, or features are far from standardised; standardise them, or use a "
            "penalizer > 0"
        )
    if not solution.converged[k]:
        found.append(
            f"not converged after {solution.rounds} rounds: KKT residual {solution.residual[k]:.1e}; "
            "the coefficients are those of the last accepted step"
        )
    return found


def _covariance(view: View, information: FloatArray) -> tuple[FloatArray | None, list[str]]:
    """Inverse information, and what to say when it cannot be had."""
    names = view.names
    diagonal = np.diag(information)
    constant = [names[j] for j in np.flatnonzero(diagonal <= 0)]
    if constant:
        return None, [f"no standard errors: {', '.join(constant)} does not vary within any stratum"]
    scale = 1.0 / np.sqrt(diagonal)
    values, vectors = np.linalg.eigh(information * scale[:, None] * scale)
    if names and values[0] <= COLLINEAR * values[-1]:
        involved = [names[j] for j in np.flatnonzero(np.abs(vectors[:, 0]) > 0.1)]
        return None, [f"no standard errors: {', '.join(involved)} are collinear or separate the events"]
    inverse = (vectors / values) @ vectors.T
    return inverse * scale[:, None] * scale, []


def penalizer_path(
    view: View,
    l1_ratio: float,
    *,
    count: int = 30,
    smallest_ratio: float = 0.01,
    factors: tuple[float, ...] | None = None,
    ties: str = "efron",
) -> Algorithm[FloatArray]:
    """A decreasing path of penalizers (count,), log-spaced, from the smallest one that keeps every penalised
    coefficient at zero (for l1_ratio < 0.001: that of l1_ratio = 0.001, as glmnet does), in one round.

    The start ignores unpenalised features' own fit; with ``factors`` of 0 it is therefore approximate, and only a
    little too large or too small as a place to start.
    """
    total: Total = yield CoxDerivatives(view, np.zeros((1, view.width)), (), ties)
    slope = np.abs(total["gradient"][0]) / total.number("patients")
    weight = np.ones(view.width) if factors is None else np.array(factors)
    ratio = slope[weight > 0] / weight[weight > 0]
    largest = float(ratio.max(initial=0.0)) / max(l1_ratio, 1e-3)
    if largest <= 0:
        raise CtfedError("no feature of the view has any association to penalise: all gradients at zero are zero")
    return np.asarray(largest * smallest_ratio ** (np.arange(count) / max(1, count - 1)))


def cox_path(
    view: View,
    penalizers: Sequence[float],
    l1_ratio: float,
    *,
    factors: tuple[float, ...] | None = None,
    ties: str = "efron",
    grid: TimeGrid | None = None,
    settings: Settings | None = None,
) -> Algorithm[tuple[CoxFit, ...]]:
    """The models of a whole path of penalizers, in their order."""
    penalties = tuple(ElasticNet(float(value), l1_ratio, factors) for value in penalizers)
    fits = yield from fit_cox_stack(view, penalties, ties=ties, grid=grid, settings=settings)
    return fits
