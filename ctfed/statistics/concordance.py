"""Harrell's C over pairs of patients of the same stratum: exact, from sums, with its standard error in the same round.

With h_ij = 1 for a comparable pair and g_ij = 1, 1/2 or 0 for a concordant, tied or discordant one, C = N / D with
N = sum g_ij and D = sum h_ij over unordered pairs. Patient i has a_i = sum_j g_ij and b_i = sum_j h_ij. Giving patient
i the weight w_i makes N = sum w_i w_j g_ij, so dC/dw_i = (a_i - C b_i) / D at w = 1: the influence of patient i, and

    Var C = sum_i (a_i - C b_i)^2 / D^2 = (sum a^2 - 2 C sum a b + C^2 sum b^2) / D^2,

the infinitesimal jackknife, which is also the first-order variance of a ratio of U-statistics. Only sums over patients
are needed, also for the covariance of two models' C: sum_i (a_i - C b_i) (a'_i - C' b_i) / D^2.

Which pairs compare is scikit-survival's rule, lifelines' and R's alike: an event with everybody who is observed longer
and with who is censored at the same time; two events at the same time do not compare. Equal scores count 1/2; scores
are equal when their bits are (``LinearPredictor`` rounds them to ten decimals).

References: Harrell, Lee, Mark 1996, Statistics in Medicine 15:361; Hoeffding 1948, Annals of Mathematical Statistics
19:293 (U-statistics); Jaeckel 1972, Bell Laboratories memorandum 72-1215-11 (infinitesimal jackknife); Therneau and
Atkinson, vignette "concordance" of the R package survival (same estimator).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import BoolArray, FloatArray, IntArray
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import View
from ctfed.statistics.scores import require_scores
from ctfed.statistics.tails import normal_isf, normal_sf

# All sums are multiples of 1/4 and travel exactly: pairs of up to 2**26 patients per site, their squares up to 2**20.
PAIRS_EXPONENT = 16
SQUARES_EXPONENT = 24
BLOCK = 2**18  # comparisons held at once, in float32: 1 MB, which stays in a core's cache

Float32Array = npt.NDArray[np.float32]


@register("within-site-pairs")
@dataclass(frozen=True, eq=False)
class WithinSitePairs(Query):
    """Counts of comparable, concordant and tied-score pairs inside each stratum, and sums of squares for their errors.

    With a_i, b_i of patient i as in this module's text: comparable = sum h, concordant = sum [score of the one who
    dies first is higher], tied = sum [scores are equal], comparable_squares = sum b_i^2, products = sum a_i b_i and
    squares = sum a_i^2, per model; with ``covariance`` the sums a_i a'_i of every two models.

    The total discloses 2 + 4 m numbers (or 2 + 3 m + m (m + 1) / 2), each over all pairs or patients of all sites: no
    time, no score and no order of two patients.

    Attributes:
        view: rows and the m scores.
        covariance: ask what the error of a difference between two models needs.
    """

    view: View
    covariance: bool = False

    @property
    def layout(self) -> Layout:
        """comparable (), comparable_squares (), concordant, tied, products (m,), squares (m,) or upper triangle."""
        models = self.view.width
        squares = models * (models + 1) // 2 if self.covariance else models
        return {
            "comparable": Entry((), PAIRS_EXPONENT),
            "comparable_squares": Entry((), SQUARES_EXPONENT),
            "concordant": Entry((models,), PAIRS_EXPONENT),
            "tied": Entry((models,), PAIRS_EXPONENT),
            "products": Entry((models,), SQUARES_EXPONENT),
            "squares": Entry((squares,), SQUARES_EXPONENT),
        }

    @property
    def exposure(self) -> Exposure:
        """Counts of pairs over all rows alone."""
        return Exposure()

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        table = self.view.table(cohort)
        require_scores(table)
        sums = {name: np.zeros(entry.shape) for name, entry in self.layout.items()}
        for label in np.unique(table.stratum):
            rows = table.stratum == label
            pairs = count_pairs(table.time[rows], table.event[rows], table.values[rows])
            sums["comparable"] += pairs.comparable.sum() / 2
            sums["comparable_squares"] += pairs.comparable @ pairs.comparable
            sums["concordant"] += (pairs.concordance.sum(axis=1) - pairs.tied) / 2
            sums["tied"] += pairs.tied
            sums["products"] += pairs.concordance @ pairs.comparable
            sums["squares"] += self._squares(pairs.concordance)
        return Summary(self.layout, sums)

    def _squares(self, concordance: FloatArray) -> FloatArray:
        if not self.covariance:
            return np.asarray((concordance * concordance).sum(axis=1))
        return np.asarray((concordance @ concordance.T)[np.triu_indices(concordance.shape[0])])


@dataclass(frozen=True, eq=False)
class Pairs:
    """What each of n patients contributes; held inside the site.

    Attributes:
        comparable: (n,) b_i.
        concordance: (m, n) a_i.
        tied: (m,) comparable pairs with equal scores.
    """

    comparable: FloatArray
    concordance: FloatArray
    tied: FloatArray


def _dense_ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, equal values sharing one; all NaN when any value is (as scipy's ``rankdata``, method 'dense')."""
    if np.isnan(values).any():
        return np.full(values.size, np.nan)
    return np.asarray(np.unique(values, return_inverse=True)[1] + 1, dtype=np.float64)


def count_pairs(time: FloatArray, event: BoolArray, scores: FloatArray) -> Pairs:
    """Compare all pairs of one stratum: O(m n^2) in blocks of bounded memory.

    Args:
        time, event: (n,).
        scores: (n, m).
    """
    order = np.lexsort((~event, time))  # events before those censored at the same time
    n, models = scores.shape
    deaths = np.flatnonzero(event[order])
    # Whoever stands behind the last event of its time is comparable with an event.
    first = _behind(time[order], event[order])[deaths]
    comparable = np.zeros(n)
    comparable[deaths] += n - first
    comparable += np.searchsorted(first, np.arange(n), side="right")
    ranks: Float32Array = np.zeros((models, n), dtype=np.float32)
    if n:
        for model, column in enumerate(scores[order].T):
            ranks[model] = _dense_ranks(column)
    signs = np.zeros((models, n))
    unequal = np.zeros(models)
    for some, part in _blocks(models, first, n):
        begin = int(first[part.start])
        signs_of = _compare(ranks[some][:, deaths[part]], ranks[some][:, begin:], first[part] - begin)
        signs[some, deaths[part]] += signs_of.sum(axis=2, dtype=np.float32)
        signs[some, begin:] += np.ones(signs_of.shape[1], dtype=np.float32) @ signs_of
        unequal[some] += [np.count_nonzero(model) for model in signs_of]
    concordance, unsorted = np.empty_like(signs), np.empty_like(comparable)
    concordance[:, order], unsorted[order] = (signs + comparable) / 2, comparable
    return Pairs(unsorted, concordance, comparable.sum() / 2 - unequal)


def _behind(time: FloatArray, event: BoolArray) -> IntArray:
    """For each position in (time, events first) order: the first position behind the events of the same time."""
    start = np.searchsorted(time, time, side="left")
    deaths = np.concatenate([[0], np.cumsum(event)])
    end = np.searchsorted(time, time, side="right")
    return np.asarray(start + deaths[end] - deaths[start], dtype=np.int64)


def _blocks(models: int, first: IntArray, n: int) -> Iterator[tuple[slice, slice]]:
    """Slices of the models and of the events whose comparisons fit into one block; events without any are left out."""
    events = int(np.searchsorted(first, n, side="left"))
    start = 0
    while start < events:
        width = n - int(first[start])
        stop = min(events, start + max(1, BLOCK // width))
        stack = max(1, BLOCK // (width * (stop - start)))
        for model in range(0, models, stack):
            yield slice(model, min(models, model + stack)), slice(start, stop)
        start = stop


def _compare(early: Float32Array, late: Float32Array, first: IntArray) -> Float32Array:
    """(m, e, k) +1 where the earlier score is higher, -1 where it is lower, 0 where equal or not comparable."""
    signs = early[:, :, None] - late[:, None, :]
    np.clip(signs, -1, 1, out=signs)
    signs *= np.arange(late.shape[1]) >= first[:, None]
    return signs


@dataclass(frozen=True, eq=False)
class Difference:
    """C of one model minus C of another, on the same pairs of patients."""

    value: float
    standard_error: float
    lower: float
    upper: float
    z: float
    p: float


@dataclass(frozen=True, eq=False)
class Concordance:
    """Harrell's C of m models.

    Attributes:
        value: (m,); NaN when no pair is comparable.
        standard_error: (m,), by the infinitesimal jackknife.
        comparable: pairs, the same for all models.
        concordant: (m,) pairs.
        tied: (m,) pairs with equal scores, which count 1/2.
        covariance: (m, m) of the values, or None when it was not asked.
    """

    value: FloatArray
    standard_error: FloatArray
    comparable: float
    concordant: FloatArray
    tied: FloatArray
    covariance: FloatArray | None = None

    def intervals(self, level: float = 0.95) -> FloatArray:
        """(m, 2) limits, symmetric for log(C / (1 - C)); NaN where C is 0 or 1 or undefined: it has no error then."""
        with np.errstate(divide="ignore", invalid="ignore"):
            centre = np.log(self.value / (1 - self.value))
            half = normal_isf((1 - level) / 2) * self.standard_error / (self.value * (1 - self.value))
            limits = 1 / (1 + np.exp(-np.stack([centre - half, centre + half], axis=1)))
        return np.where(np.isfinite(centre)[:, None], limits, np.nan)

    def difference(self, model: int, other: int, level: float = 0.95) -> Difference:
        """C of ``model`` minus C of ``other`` with a normal interval and test.

        Raises:
            ValueError: when the covariance was not asked.
        """
        if self.covariance is None:
            raise ValueError("a difference needs the covariance; ask with covariance=True")
        value = float(self.value[model] - self.value[other])
        v = self.covariance
        error = float(np.sqrt(max(0.0, v[model, model] + v[other, other] - 2 * v[model, other])))
        half = normal_isf((1 - level) / 2) * error
        z = value / error if error > 0 else float("nan")
        return Difference(value, error, value - half, value + half, z, float(2 * normal_sf(abs(z))))


def within_site_concordance(view: View, *, covariance: bool = False) -> Algorithm[Concordance]:
    """Exact C over pairs of patients of the same stratum (site), with standard errors, in one round."""
    total: Total = yield WithinSitePairs(view, covariance)
    return concordance_of(total, covariance=covariance)


def concordance_of(total: Total, *, covariance: bool = False) -> Concordance:
    """The estimate that a total of ``WithinSitePairs`` stands for."""
    pairs = total.number("comparable")
    concordant, tied = total["concordant"], total["tied"]
    models = concordant.size
    if pairs == 0:
        unknown = np.full(models, np.nan)
        return Concordance(unknown, unknown, 0.0, concordant, tied, np.outer(unknown, unknown) if covariance else None)
    value = (concordant + tied / 2) / pairs
    squares = total["squares"]
    if not covariance:
        variance = (squares - 2 * value * total["products"] + value**2 * total.number("comparable_squares")) / pairs**2
        return Concordance(value, np.sqrt(np.maximum(variance, 0.0)), pairs, concordant, tied)
    matrix = np.zeros((models, models))
    matrix[np.triu_indices(models)] = squares
    matrix = matrix + np.triu(matrix, 1).T
    cross = np.outer(value, total["products"])
    matrix = (matrix - cross - cross.T + np.outer(value, value) * total.number("comparable_squares")) / pairs**2
    return Concordance(value, np.sqrt(np.maximum(np.diag(matrix), 0.0)), pairs, concordant, tied, matrix)
