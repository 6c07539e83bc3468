"""Robust standard errors of unpenalised Cox fits: the sandwich of Lin & Wei, from one total of score residuals.

The score residual of patient i is what the patient adds to the gradient of the log-likelihood. With z the mean
covariate vector of the risk set that an event was drawn from, at Breslow's ties

    r_i = delta_i (x_i - z(t_i)) - exp(x_i beta) sum_{events at t <= t_i} (x_i - z(t)) / S0(t)

At Efron's ties the l-th of the d events of one time (l = 0 ... d - 1) has the risk set in which the d who die count
1 - l/d each: S0 - l/d T0 and z_l = (S1 - l/d T1) / (S0 - l/d T0). Whoever dies there is compared with the mean of
z_0 ... z_{d-1}, and carries each of the d hazards 1 / (S0 - l/d T0) with the same weight 1 - l/d; everybody else at
risk, who is censored at that time or observed longer, carries them whole. The residuals of all patients then sum to
the gradient, whichever the ties, and they are R's ``residuals(coxph(...), type="score")``.

    V = I^-1 (sum_i r_i r_i') I^-1

which is R's ``coxph(..., robust = TRUE)`` with one record per patient. lifelines' ``robust=True`` is the same where no
two patients share a time; of one time it takes patient after patient, those without an event first, whatever the ties
of its fit.

References: Lin & Wei 1989, Journal of the American Statistical Association 84:1074; Therneau & Grambsch 2000,
sections 4.6, 7.1 and appendix E; the R package survival (coxscore2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, IntArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import View
from ctfed.statistics.cox.fit import CoxFit
from ctfed.statistics.cox.likelihood import Stratum, Weights, prefix_sums, risk_set_means, row_blocks, weights
from ctfed.statistics.cox.stratified import (
    check_ties,
    pack_triangles,
    site_strata,
    triangle_exponents,
    triangle_size,
    unpack_triangles,
)


@register("cox-score-products")
@dataclass(frozen=True, eq=False)
class CoxScoreProducts(Query):
    """Sum over patients of r r', r (p,) a patient's score residual under stratified risk sets (this module's text).

    The total discloses p (p + 1) / 2 numbers, each a sum over all patients of all sites; no residual leaves a site. A
    site whose linear predictors span too wide a range at the coefficients declines: it adds nothing, and the total
    says how many sites did.

    Attributes:
        view: rows and features.
        coefficients: (p,).
        ties: 'efron' or 'breslow'.
    """

    view: View
    coefficients: FloatArray
    ties: str = "efron"

    def __post_init__(self) -> None:
        if self.coefficients.shape != (self.view.width,):
            raise ValueError(f"coefficients must be ({self.view.width},), found {self.coefficients.shape}")
        check_ties(self.ties)

    @property
    def layout(self) -> Layout:
        """declined () and products (p (p + 1) / 2,): the upper triangle."""
        return {
            "declined": Entry(()),
            "products": Entry((triangle_size(self.view.width),), triangle_exponents(self.view)),
        }

    @property
    def exposure(self) -> Exposure:
        """The p coefficients whose errors are estimated."""
        return Exposure(parameters=self.view.width)

    def answer(self, cohort: Cohort) -> Summary:
        """Sums over this site's strata."""
        width = self.view.width
        products, inside = np.zeros((width, width)), True
        for stratum in site_strata(self.view, cohort, self.ties):
            shared = weights(stratum, self.coefficients[None, :])
            inside = inside and bool(shared.inside[0])
            if not inside:
                products[:] = 0.0
                break
            for residuals in score_residuals(stratum, shared):
                products += residuals.T @ residuals
        return Summary(self.layout, {"declined": not inside, "products": pack_triangles(products[None])[0]})


def score_residuals(stratum: Stratum, shared: Weights) -> Iterator[FloatArray]:
    """The (n, p) score residuals of a stratum's patients, block by block of its rows.

    Args:
        stratum: its patients.
        shared: ``weights`` of the stratum at one coefficient vector.
    """
    if stratum.died.size == 0:
        return
    risk, expected = shared.risk, shared.weight  # (n, 1): exp(x beta), and that times the hazard which i lives to see
    ties = _tie_sums(stratum, shared)
    for rows in row_blocks(stratum.x.shape[0]):
        x = stratum.x[rows]
        met = ties.seen[np.searchsorted(stratum.last, np.arange(rows.start, rows.stop), side="left")]
        residuals = risk[rows] * met - expected[rows] * x
        events = slice(*np.searchsorted(stratum.died, [rows.start, rows.stop]))
        died, tie = stratum.died[events], ties.of_event[events]
        residuals[died - rows.start] += stratum.x[died] - ties.mean[tie] - risk[died] * ties.spared[tie]
        yield residuals


@dataclass(frozen=True, eq=False)
class _TieSums:
    """Sums over the events of each of a stratum's K distinct times, which descend.

    Attributes:
        seen: (K + 1, p) sum of z / (S0 - l/d T0) over the events of this and all earlier times; zero for none.
        spared: (K, p) sum of l/d z / (S0 - l/d T0): what whoever dies at this time does not carry of it.
        mean: (K, p) mean of z.
        of_event: (E,) index of the time of each event.
    """

    seen: FloatArray
    spared: FloatArray
    mean: FloatArray
    of_event: IntArray


def _tie_sums(stratum: Stratum, shared: Weights) -> _TieSums:
    shape = (stratum.deaths.size, stratum.x.shape[1])
    seen, spared, mean = np.zeros((shape[0] + 1, shape[1])), np.zeros(shape), np.zeros(shape)
    for _, risk_sums, times in prefix_sums(stratum, shared.risk[:, 0]):
        if times.start == times.stop:
            continue
        z = risk_set_means(stratum, shared, risk_sums, times)
        begin = int(stratum.first[times.start])
        first, events = stratum.first[times] - begin, slice(begin, begin + z.shape[0])
        mean[times] = np.add.reduceat(z, first, axis=0) / stratum.deaths[times, None]
        z *= shared.inverse[events]
        seen[times] = np.add.reduceat(z, first, axis=0)
        z *= stratum.rank[events, None]
        spared[times] = np.add.reduceat(z, first, axis=0)
    np.cumsum(seen[::-1], axis=0, out=seen[::-1])
    return _TieSums(seen, spared, mean, stratum.tie_of_event)


def robust_covariance(fit: CoxFit) -> Algorithm[FloatArray]:
    """The (p, p) sandwich covariance of an unpenalised fit's coefficients, in one round.

    It stays right where hazards are not proportional or the model lacks something, as long as patients are independent
    and events are many; with few it comes out too small. ``dataclasses.replace(fit, covariance=...)`` has its standard
    errors, tests and intervals.

    Raises:
        CtfedError: when the fit is penalised, has pooled risk sets or has no covariance, or when a site declines.
    """
    if fit.penalty.penalizer > 0:
        raise CtfedError(
            f"no robust standard errors: the fit is penalised (penalizer {fit.penalty.penalizer:g}), and a penalised "
            "fit has no standard errors"
        )
    if fit.risk_sets != "stratified":
        raise CtfedError(
            f"no robust standard errors: they are computed for stratified risk sets, and the fit's are {fit.risk_sets}"
        )
    if fit.covariance is None:
        reasons = "; ".join(fit.warnings) or "the fit has no covariance"
        raise CtfedError(f"no robust standard errors: they start from the inverse information, and {reasons}")
    total: Total = yield CoxScoreProducts(fit.view, frozen(fit.coefficients), fit.ties)
    if total["declined"] > 0:
        raise CtfedError(
            f"no robust standard errors: at {round(total.number('declined'))} of {total.sites} sites the linear "
            "predictors of the fit span too wide a range"
        )
    (products,) = unpack_triangles(total["products"][None], fit.view.width)
    return np.asarray(fit.covariance @ products @ fit.covariance)
