"""Risk scores as the columns of a view: their quantiles from counts, and the groups that a threshold makes.

A view whose last transform is ``LinearPredictor`` has one column per model; everything here works on all m at once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError, Refusal
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import Feature, Table, Transform, View
from ctfed.statistics.describe import Moments

SECTIONS = 3  # into which a bracket is cut in one round; more take fewer rounds and tell more thresholds
MAX_ROUNDS = 16
PATIENCE = 2  # rounds in a row in which a nearly finished bracket may shed less than a quarter, as around tied scores
RESOLUTION = 2.0**-16  # of the first bracket, at which a bracket is fine enough: scores with few distinct values
SLACK = 2.0**-20  # of the root mean square, by which rounding may make a spread too small


def require_scores(table: Table) -> None:
    """Refuse rows without a score, because every comparison with one would be false.

    Raises:
        Refusal: rule 'missing-value'.
    """
    lacking = int(np.isnan(table.values).any(axis=1).sum())
    if lacking:
        raise Refusal("missing-value", f"{lacking} patients have no risk score, because a feature is not imputed")


@register("scores-below")
@dataclass(frozen=True, eq=False)
class ScoresBelow(Query):
    """For each of the m scores and q thresholds, the number of patients with score <= threshold.

    Its total discloses those m q counts. ``score_quantiles`` asks no threshold inside a bracket that holds fewer than
    twice its smallest number of patients.

    Attributes:
        view: rows and scores.
        thresholds: (m, q).
    """

    view: View
    thresholds: FloatArray

    def __post_init__(self) -> None:
        if self.thresholds.ndim != 2 or self.thresholds.shape[0] != self.view.width:
            raise ValueError(f"thresholds must be ({self.view.width}, q), found {self.thresholds.shape}")

    @property
    def layout(self) -> Layout:
        """below (m, q)."""
        return {"below": Entry(self.thresholds.shape)}

    @property
    def exposure(self) -> Exposure:
        """q thresholds of each score."""
        return Exposure(cuts=dict(zip(self.view.names, self.thresholds, strict=True)))

    def answer(self, cohort: Cohort) -> Summary:
        """This site's counts."""
        table = self.view.table(cohort)
        require_scores(table)
        ordered = np.sort(table.values, axis=0)
        below = [np.searchsorted(ordered[:, k], row, side="right") for k, row in enumerate(self.thresholds)]
        return Summary(self.layout, {"below": np.reshape(below, self.thresholds.shape)})


@dataclass(frozen=True, eq=False)
class ScoreQuantiles:
    """Quantiles of m scores, found by counting.

    Attributes:
        patients: of the view.
        value: (m, q), not decreasing along q.
        low, high: (m, q) the bracket: the pooled quantile lies in [low, high]; equal where a cut met it exactly.
        held: (m, q) patients in (low, high].
    """

    patients: int
    value: FloatArray
    low: FloatArray
    high: FloatArray
    held: FloatArray


def score_moments(view: View) -> Moments:
    """The query from which ``score_quantiles`` starts."""
    return Moments(view, frozen(np.zeros(view.width)))


def score_quantiles(
    view: View, levels: Sequence[float], minimum: int, moments: Total | None = None
) -> Algorithm[ScoreQuantiles]:
    """Quantiles of every score by secure counts in narrowing brackets; no minimum or maximum is ever asked.

    The first bracket follows from mean and standard deviation alone: by Cantelli's inequality the quantile of level q
    lies in [mean - sd sqrt((1 - q) / q), mean + sd sqrt(q / (1 - q))] whatever the distribution.

    Args:
        view: rows and scores.
        levels: (q,) increasing, inside (0, 1).
        minimum: patients that a bracket must hold, >= 1. A bracket is cut into up to eight sections, so few that each
            would hold twice as many on average, and not at all when it holds fewer than twice as many; a section
            that holds fewer nevertheless is joined with its neighbours for good. The value is interpolated inside.
        moments: the total of ``score_moments``, where the caller has asked it already.

    Raises:
        CtfedError: when the view holds no patient.
    """
    q = np.asarray(levels, dtype=np.float64)
    if q.ndim != 1 or not ((q > 0).all() and (q < 1).all() and (np.diff(q) > 0).all()):
        raise ValueError(f"levels must increase inside (0, 1), found {list(levels)}")
    if minimum < 1:
        raise ValueError(f"the smallest number of patients in a bracket must be >= 1, found {minimum}")
    found: Total = moments if moments is not None else (yield score_moments(view))
    n = found.number("patients")
    if n == 0:
        raise CtfedError("the view holds no patient, so its scores have no quantiles")
    brackets = [
        _Bracket(low, high, 0.0, n, n * level, (high - low) * RESOLUTION) for low, high, level in _first(found, q)
    ]
    for _ in range(MAX_ROUNDS):
        cuts = [bracket.cuts(minimum) for bracket in brackets]
        if not any(cuts):
            break
        # A closed bracket is asked at an end that it already has, so that it tells nothing more.
        padded = [cut + [b.low] * (SECTIONS - 1 - len(cut)) for b, cut in zip(brackets, cuts, strict=True)]
        query = ScoresBelow(view, frozen(np.reshape(padded, (view.width, -1))))
        total: Total = yield query
        known = [_Known.of(*asked) for asked in zip(query.thresholds, total["below"], strict=True)]
        brackets = [
            bracket.after(known[index // q.size], minimum) if cut else bracket
            for index, (bracket, cut) in enumerate(zip(brackets, cuts, strict=True))
        ]
    value, low, high, held = (
        np.array([getattr(b, name) for b in brackets]).reshape(view.width, -1)
        for name in ("value", "low", "high", "held")
    )
    return ScoreQuantiles(round(n), np.maximum.accumulate(value, axis=1), low, high, held)


def _first(found: Total, q: FloatArray) -> list[tuple[float, float, float]]:
    """Cantelli's bracket of every score's quantiles and their level, score after score."""
    n = found.number("patients")
    mean, square = found["sum"][:, None] / n, found["squares"][:, None] / n
    sd = np.sqrt(np.maximum(square - mean**2, 0.0)) + SLACK * np.sqrt(square)
    low, high = mean - sd * np.sqrt((1 - q) / q), mean + sd * np.sqrt(q / (1 - q))
    levels = np.broadcast_to(q, low.shape)
    return list(zip(low.ravel().tolist(), high.ravel().tolist(), levels.ravel().tolist(), strict=True))


@dataclass(frozen=True)
class _Known:
    """What one round told of one score: ascending thresholds, and how many scores are <= each."""

    thresholds: list[float]
    below: list[float]

    @classmethod
    def of(cls, thresholds: FloatArray, below: FloatArray) -> _Known:
        distinct, first = np.unique(thresholds, return_index=True)
        return cls(distinct.tolist(), below[first].tolist())


@dataclass(frozen=True)
class _Bracket:
    """(low, high] around one quantile, and how many scores are <= each end."""

    low: float
    high: float
    below: float
    until: float
    target: float
    tolerance: float
    final: bool = False
    stuck: int = 0

    @property
    def held(self) -> float:
        return self.until - self.below

    @property
    def value(self) -> float:
        """The quantile if scores spread evenly inside the bracket."""
        share = (self.target - self.below) / self.held if self.held else 0.0
        return self.low + (self.high - self.low) * share

    def cuts(self, minimum: int) -> list[float]:
        """Where to cut next: into as many sections as may hold ``2 minimum`` patients each on average."""
        if self.final or self.held < 2 * minimum or self.high - self.low <= self.tolerance:
            return []
        sections = min(SECTIONS, max(2, int(self.held / (2 * minimum))))
        return [self.low + (self.high - self.low) * i / sections for i in range(1, sections)]

    def after(self, known: _Known, minimum: int) -> _Bracket:
        """The section that holds the quantile, with neighbours added until it holds ``minimum`` patients.

        Sections are made by all thresholds inside the bracket, also those that were asked for other quantiles.
        """
        inside = slice(bisect_right(known.thresholds, self.low), bisect_left(known.thresholds, self.high))
        cuts, counted = known.thresholds[inside], known.below[inside]
        for cut, count in zip(cuts, counted, strict=True):
            if count == self.target:
                return replace(self, low=cut, high=cut, below=count, until=count, final=True)
        ends, counts = [self.low, *cuts, self.high], [self.below, *counted, self.until]
        right = next(i for i, count in enumerate(counts) if count > self.target)
        left = right - 1
        while counts[right] - counts[left] < minimum:
            more_left = counts[left] - counts[left - 1] if left > 0 else np.inf
            more_right = counts[right + 1] - counts[right] if right + 1 < len(counts) else np.inf
            left, right = (left - 1, right) if more_left <= more_right else (left, right + 1)
        held = counts[right] - counts[left]
        stuck = self.stuck + 1 if 0.75 * self.held < held < 4 * minimum else 0
        final = right - left > 1 or stuck == PATIENCE
        narrow = replace(self, low=ends[left], high=ends[right], below=counts[left], until=counts[right])
        return replace(narrow, final=final, stuck=stuck)


def score_medians(view: View, minimum: int) -> Algorithm[FloatArray]:
    """(m,) median of every score over the view, see ``score_quantiles``; the threshold between low and high risk."""
    found = yield from score_quantiles(view, (0.5,), minimum)
    return found.value[:, 0]


@register("threshold-group")
@dataclass(frozen=True, eq=False)
class ThresholdGroup(Transform):
    """From m scores to m columns 'high-risk-0', ...: 1 where score > threshold, else 0.

    A Cox model of one of these columns gives the hazard ratio between the groups.

    Attributes:
        thresholds: (m,).
    """

    thresholds: FloatArray

    def __post_init__(self) -> None:
        if self.thresholds.ndim != 1 or self.thresholds.size == 0:
            raise ValueError(f"thresholds must be a flat array, found shape {self.thresholds.shape}")

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """One 0/1 column per score."""
        if len(features) != self.thresholds.size:
            raise ValueError(f"{self.thresholds.size} thresholds for {len(features)} scores")
        return tuple(Feature(f"high-risk-{index}") for index in range(self.thresholds.size))

    def apply(self, table: Table) -> FloatArray:
        """(n, m) of 0 and 1."""
        require_scores(table)
        return (table.values > self.thresholds).astype(np.float64)
