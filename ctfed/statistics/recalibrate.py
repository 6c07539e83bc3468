"""Calibration slope and intercept at a horizon: weighted logistic regression of the state on the predicted risk.

    logit P(event by h) = alpha + gamma logit F(h)

with the inverse-probability weights of ``horizons``. gamma = 1 and alpha = 0 for a calibrated model; gamma < 1 is
overfitting; alpha at gamma = 1 says by how much risks are too low. Both fits, of all models and horizons, advance
together by Newton's method, one round per step, with shorter steps tried in the same round. Standard errors are the
sandwich's, because weights are not counts (the weights taken as known).

References: Cox 1958, Biometrika 45:562; Van Calster et al. 2016, J Clin Epidemiol 74:167; Austin, Harrell, van Klaveren
2020, Statistics in Medicine 39:2714 (ICI); Binder 1983, International Statistical Review 51:279 (sandwich).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ctfed.federation.algorithm import Algorithm, Bundle
from ctfed.federation.arrays import BoolArray, FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import View
from ctfed.statistics.horizons import FollowUp, HorizonWeights, check_hazard, log_hazards
from ctfed.statistics.tails import normal_isf

LARGEST_LOGIT = 30.0  # risks closer than 1e-13 to 0 or 1 count as that close
STEEPEST = 10.0  # slope beyond which a regression would count scores above a threshold
FARTHEST = 60.0  # intercept
MAX_ROUNDS = 12
LENGTHS = (1.0, 0.5, 0.125)  # of a step, tried in one round
TOLERANCE = 1e-18  # of Newton's decrement per patient: parameters to about 1e-9


@register("recalibration-derivatives")
@dataclass(frozen=True, eq=False)
class RecalibrationDerivatives(Query):
    """Derivatives of the weighted log-likelihood at one (alpha, gamma) for each of m models and H horizons.

    With z = alpha + gamma logit F, p = expit(z), w = a + b and r = a - w p: loglik = sum a z - w log(1 + e^z); gradient
    = sum r (1, x); information = sum w p (1 - p) (1, x, x^2); squares = sum r^2 (1, x, x^2), x = logit F; gap = sum
    over all patients of |F - p|. The total discloses those 10 m H numbers and m counts. A site where a model's scores
    span more than 40 declines that model.

    Attributes:
        view: rows and scores.
        weights: of cases and controls.
        hazard: (m, H) cumulative baseline hazard, > 0.
        intercepts, slopes: (m, H).
    """

    view: View
    weights: HorizonWeights
    hazard: FloatArray
    intercepts: FloatArray
    slopes: FloatArray

    def __post_init__(self) -> None:
        check_hazard(self.hazard, self.view, len(self.weights.horizons))
        if self.intercepts.shape != self.hazard.shape or self.slopes.shape != self.hazard.shape:
            raise ValueError(f"intercepts and slopes must be {self.hazard.shape}")
        if (np.abs(self.slopes) > STEEPEST).any() or (np.abs(self.intercepts) > FARTHEST).any():
            raise ValueError(f"slopes lie within {STEEPEST:g} of 0 and intercepts within {FARTHEST:g}")

    @property
    def layout(self) -> Layout:
        """declined (m,), loglik and gap (m, H), gradient (m, H, 2), information and squares (m, H, 3)."""
        shape = self.hazard.shape
        return {
            "declined": Entry(shape[:1]),
            "loglik": Entry(shape),
            "gap": Entry(shape),
            "gradient": Entry((*shape, 2)),
            "information": Entry((*shape, 3)),
            "squares": Entry((*shape, 3)),
        }

    @property
    def exposure(self) -> Exposure:
        """Two parameters, from sums by time bin if asked with enough different weights."""
        return Exposure(parameters=2, cells=self.weights.cells, times=self.weights.edges)

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        table = self.view.table(cohort)
        scores, inside = log_hazards(table)
        case, control = self.weights.of(table)
        sums = {name: np.zeros(entry.shape) for name, entry in self.layout.items()}
        sums["declined"] = (~inside).astype(np.float64)
        for h in range(self.hazard.shape[1]):
            x = _logit(np.log(self.hazard[:, h])[:, None] + scores)
            z = self.intercepts[:, h, None] + self.slopes[:, h, None] * x
            p, weight = expit(z), case[h] + control[h]
            rest = case[h] - weight * p
            found = {
                "loglik": (case[h] * z - weight * np.logaddexp(0.0, z)).sum(axis=1),
                "gap": np.abs(expit(x) - p).sum(axis=1),
                "gradient": _powers(rest, x, 2),
                "information": _powers(weight * p * (1 - p), x, 3),
                "squares": _powers(rest**2, x, 3),
            }
            for name, values in found.items():
                sums[name][inside, h] = values[inside]
        return Summary(self.layout, sums)


def _logit(log_cumulative: FloatArray) -> FloatArray:
    """logit(1 - exp(-u)) = log(e^u - 1) for u = exp(log_cumulative), within +- 30."""
    u = np.exp(np.minimum(log_cumulative, 10.0))
    small = np.minimum(u, 1.0)
    found = np.where(u > 1.0, u + np.log1p(-np.exp(-np.maximum(u, 1.0))), np.log(np.maximum(np.expm1(small), 1e-300)))
    return np.clip(found, -LARGEST_LOGIT, LARGEST_LOGIT)


def _powers(weights: FloatArray, x: FloatArray, count: int) -> FloatArray:
    """(m, count) sums of weights x^k."""
    return np.stack([(weights * x**k).sum(axis=1) for k in range(count)], axis=1)


@dataclass(frozen=True, eq=False)
class Recalibration:
    """Calibration of m models at H horizons; NaN where a site declined or the fit has no finite optimum.

    Attributes:
        times: (H,).
        intercept, intercept_error: (m, H) calibration in the large: alpha with gamma = 1; 0 when calibrated.
        slope, slope_error: (m, H) gamma with its own alpha; 1 when calibrated.
        slope_intercept: (m, H) that alpha.
        ici: (m, H) mean |F - recalibrated F| over all patients.
    """

    times: FloatArray
    intercept: FloatArray
    intercept_error: FloatArray
    slope: FloatArray
    slope_error: FloatArray
    slope_intercept: FloatArray
    ici: FloatArray

    def slope_intervals(self, level: float = 0.95) -> FloatArray:
        """(m, H, 2) normal limits of the slope."""
        half = normal_isf((1 - level) / 2) * self.slope_error
        return np.stack([self.slope - half, self.slope + half], axis=-1)

    def intercept_intervals(self, level: float = 0.95) -> FloatArray:
        """(m, H, 2) normal limits of the calibration in the large."""
        half = normal_isf((1 - level) / 2) * self.intercept_error
        return np.stack([self.intercept - half, self.intercept + half], axis=-1)


def recalibrate(view: View, followed: FollowUp, hazard: FloatArray) -> Algorithm[Recalibration]:
    """Slope and intercept of all models and horizons, in about seven rounds.

    Args:
        view: rows and m scores.
        followed: of the same rows, see ``horizons.follow_up``.
        hazard: (m, H), see ``horizons.hazards_at``.
    """
    both = _Search(view, followed, frozen(hazard))
    point = np.zeros((2, *hazard.shape, 2))  # fit (in the large, slope), model, horizon, (alpha, gamma)
    point[..., 1] = 1.0
    (state,) = yield from both.ask([point])
    step = both.step(state)
    for _ in range(MAX_ROUNDS):
        moving = state.decrement(step) > TOLERANCE * followed.patients
        if not moving.any():
            break
        step = np.where(moving[..., None], step, 0.0)
        trial, *shorter = yield from both.ask([both.within(state.point + length * step) for length in LENGTHS])
        for other in shorter:
            trial = trial.taking(other, other.loglik > trial.loglik + 1e-13 * np.abs(trial.loglik))
        better = trial.loglik >= state.loglik - 1e-13 * np.abs(state.loglik)
        fresh = both.step(trial)
        step = np.where(better[..., None], fresh, step * LENGTHS[-1])
        state = state.taking(trial, better)
    return both.result(state, state.decrement(step) <= 1e4 * TOLERANCE * followed.patients)


_FIELDS = ("loglik", "gradient", "information", "squares", "gap")


@dataclass(frozen=True, eq=False)
class _State:
    """Derivatives at a point of every fit: (2, m, H, ...)."""

    point: FloatArray
    loglik: FloatArray
    gradient: FloatArray
    information: FloatArray
    squares: FloatArray
    gap: FloatArray
    declined: FloatArray

    def decrement(self, step: FloatArray) -> FloatArray:
        return np.asarray(np.abs((self.gradient * step).sum(axis=-1)))

    def taking(self, other: _State, where: BoolArray) -> _State:
        fields = {}
        for name in ("point", *_FIELDS):
            mine, new = getattr(self, name), getattr(other, name)
            fields[name] = np.where(where.reshape(where.shape + (1,) * (mine.ndim - 3)), new, mine)
        return _State(**fields, declined=other.declined)


@dataclass(frozen=True, eq=False)
class _Search:
    view: View
    followed: FollowUp
    hazard: FloatArray

    def ask(self, points: Sequence[FloatArray]) -> Algorithm[list[_State]]:
        """Derivatives of both fits at each of the points, (2, m, H, 2), in one round."""
        w, hazard = self.followed.weights, self.hazard
        queries = tuple(
            RecalibrationDerivatives(self.view, w, hazard, frozen(one[..., 0]), frozen(one[..., 1]))
            for point in points
            for one in point
        )
        totals: tuple[Total, ...] = yield Bundle(queries)
        states = []
        for point, pair in zip(points, zip(totals[::2], totals[1::2], strict=True), strict=True):
            fields = {name: np.stack([total[name] for total in pair]) for name in _FIELDS}
            states.append(_State(point, **fields, declined=pair[0]["declined"]))
        return states

    def step(self, state: _State) -> FloatArray:
        """Newton's step; the first fit moves its intercept alone."""
        one, x, xx = np.moveaxis(state.information, -1, 0)
        first, second = np.moveaxis(state.gradient, -1, 0)
        determinant = one * xx - x * x
        step = np.zeros_like(state.point)
        safe = determinant[1] > 1e-12 * np.maximum(one[1] * xx[1], 1e-300)
        scale = np.where(safe, determinant[1], 1.0)
        step[1, ..., 0] = np.where(safe, (xx[1] * first[1] - x[1] * second[1]) / scale, 0.0)
        step[1, ..., 1] = np.where(safe, (one[1] * second[1] - x[1] * first[1]) / scale, 0.0)
        step[0, ..., 0] = first[0] / np.where(one[0] > 0, one[0], np.inf)
        return step

    def within(self, point: FloatArray) -> FloatArray:
        """Points that a site answers."""
        return np.clip(point, [-FARTHEST, -STEEPEST], [FARTHEST, STEEPEST])

    def result(self, state: _State, converged: BoolArray) -> Recalibration:
        one, x, xx = np.moveaxis(state.information, -1, 0)
        determinant = one * xx - x * x
        edge = (np.abs(state.point) >= [FARTHEST, STEEPEST]).any(axis=-1)
        lost = (state.declined > 0)[None, :, None] | ~converged | edge | (one <= 0)
        lost[1] |= determinant[1] <= 1e-12 * one[1] * xx[1]
        known = np.where(lost, np.nan, 1.0)
        s0, s1, s2 = np.moveaxis(state.squares, -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            large = known[0] * np.sqrt(s0[0]) / one[0]
            slope = (x**2 * s0 - 2 * x * one * s1 + one**2 * s2)[1] / determinant[1] ** 2
        return Recalibration(
            self.followed.times,
            known[0] * state.point[0, ..., 0],
            large,
            known[1] * state.point[1, ..., 1],
            known[1] * np.sqrt(np.maximum(slope, 0.0)),
            known[1] * state.point[1, ..., 0],
            known[1] * state.gap[1] / self.followed.patients,
        )
