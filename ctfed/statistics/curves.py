"""Kaplan-Meier curves and log-rank tests of two risk groups, from totals.

Group 0 has score <= threshold ('low risk'), group 1 score > threshold ('high risk'). Curves are those of the binned
times: exact when every time is an edge, and otherwise slightly high, since who is censored in a bin counts as at risk
for all of its events.

References: Kaplan, Meier 1958, JASA 53:457; Greenwood 1926; Brookmeyer, Crowley 1982, Biometrics 38:29 (interval of the
median); Mantel 1966, Cancer Chemotherapy Reports 50:163 (log-rank).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm, Bundle
from ctfed.federation.arrays import BoolArray, FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import View
from ctfed.statistics.scores import ThresholdGroup, require_scores, score_medians
from ctfed.statistics.tails import chi2_sf, normal_isf
from ctfed.statistics.timegrid import TimeGrid
from ctfed.statistics.timegrid_merge import TimeCounts, merge_edges

__all__ = [
    "GroupCounts",
    "GroupCurves",
    "LogRank",
    "StratifiedLogRank",
    "ThresholdGroup",
    "TimeCounts",
    "group_curves",
    "kaplan_meier",
    "log_rank",
    "merge_edges",
    "score_medians",
]

GROUPS = 2
LOGRANK_EXPONENT = 4  # expected events and variances: below 2**40, with 64 bits after the point
BANDS = ("log-log", "log")


@register("group-counts")
@dataclass(frozen=True, eq=False)
class GroupCounts(Query):
    """For each of the m scores: patients by time bin, risk group and event or censored.

    Its total discloses these 4 m T counts. ``group_curves`` merges time bins beforehand.

    Attributes:
        view: rows and scores.
        grid: T - 1 edges, T bins.
        thresholds: (m,); group 1 has score > threshold.
    """

    view: View
    grid: TimeGrid
    thresholds: FloatArray

    def __post_init__(self) -> None:
        _check_thresholds(self.thresholds, self.view)

    @property
    def layout(self) -> Layout:
        """counts (m, T, 2, 2): low and high risk by events and censored."""
        return {"counts": Entry((self.thresholds.size, self.grid.bins, GROUPS, 2))}

    @property
    def exposure(self) -> Exposure:
        """Cells of one score's table by time and group; of the time bins, the open last one may hold nobody (see
        ``merge_edges``) and does not count."""
        edges = self.grid.edges
        return Exposure(cells=GROUPS * edges.size, cuts=_cuts(self.view, self.thresholds), times=edges)

    @property
    def sensitivity(self) -> float:
        """A patient is in one cell of each score's table."""
        return float(np.sqrt(self.thresholds.size))

    def answer(self, cohort: Cohort) -> Summary:
        """This site's counts."""
        table = self.view.table(cohort)
        require_scores(table)
        shape = self.layout["counts"].shape
        cells = shape[1] * GROUPS * 2
        cell = (self.grid.bin_of(table.time)[:, None] * GROUPS + (table.values > self.thresholds)) * 2
        cell = cell + ~table.event[:, None] + cells * np.arange(self.thresholds.size)
        counts = np.bincount(cell.ravel(), minlength=shape[0] * cells)
        return Summary(self.layout, {"counts": counts.reshape(shape)})


@register("stratified-log-rank")
@dataclass(frozen=True, eq=False)
class StratifiedLogRank(Query):
    """Observed and expected events of the high-risk group and their variance, inside each stratum, at exact times.

    With d events among n at risk, of whom n1 have high risk, at each event time of each stratum: observed = sum d1,
    expected = sum d n1 / n, variance = sum d (n1 / n) (1 - n1 / n) (n - d) / (n - 1), for each of the m scores.

    Its total discloses those 3 m sums over all event times of all sites: no time leaves a site.

    Attributes:
        view: rows and scores.
        thresholds: (m,).
    """

    view: View
    thresholds: FloatArray

    def __post_init__(self) -> None:
        _check_thresholds(self.thresholds, self.view)

    @property
    def layout(self) -> Layout:
        """observed, expected, variance (m,)."""
        entry = Entry((self.thresholds.size,), LOGRANK_EXPONENT)
        return {"observed": entry, "expected": entry, "variance": entry}

    @property
    def exposure(self) -> Exposure:
        """The sizes of the groups, by their sums over risk sets."""
        return Exposure(cuts=_cuts(self.view, self.thresholds))

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        table = self.view.table(cohort)
        require_scores(table)
        high = table.values > self.thresholds
        sums = np.zeros((3, self.thresholds.size))
        for label in np.unique(table.stratum):
            rows = table.stratum == label
            time, event = table.time[rows], table.event[rows]
            for model in range(self.thresholds.size):
                sums[:, model] += _log_rank_sums(_exact_counts(time, event, high[rows, model]))
        return Summary(self.layout, dict(zip(("observed", "expected", "variance"), sums, strict=True)))


def _cuts(view: View, thresholds: FloatArray) -> dict[str, FloatArray]:
    return {name: thresholds[k : k + 1] for k, name in enumerate(view.names)}


def _check_thresholds(thresholds: FloatArray, view: View) -> None:
    if thresholds.shape != (view.width,):
        raise ValueError(f"thresholds must be ({view.width},), found {thresholds.shape}")


def _exact_counts(time: FloatArray, event: BoolArray, high: BoolArray) -> FloatArray:
    """(distinct times, 2, 2) counts of one stratum; held inside the site."""
    distinct, place = np.unique(time, return_inverse=True)
    cell = (place * GROUPS + high) * 2 + ~event
    return np.bincount(cell, minlength=4 * distinct.size).reshape(-1, GROUPS, 2).astype(np.float64)


def _at_risk(counts: FloatArray) -> FloatArray:
    """(..., T, 2) patients of each group who leave in this bin or later."""
    leaving = counts.sum(axis=-1)
    behind: FloatArray = np.flip(np.cumsum(np.flip(leaving, axis=-2), axis=-2), axis=-2)
    return behind


def _log_rank_sums(counts: FloatArray) -> FloatArray:
    """(3, ...) observed, expected and variance of group 1 from (..., T, 2, 2) counts."""
    deaths = counts[..., 0]
    risk = _at_risk(counts)
    d, n = deaths.sum(axis=-1), np.maximum(risk.sum(axis=-1), 1.0)
    share = risk[..., 1] / n
    variance = d * share * (1 - share) * (n - d) / np.maximum(n - 1, 1.0)
    return np.stack([part.sum(axis=-1) for part in (deaths[..., 1], d * share, variance)])


@dataclass(frozen=True, eq=False)
class LogRank:
    """Log-rank test of high against low risk for m scores, one degree of freedom.

    Attributes:
        observed, expected, variance: (m,) of the high-risk group's events.
        stratified: True when risk sets are those of each site.
    """

    observed: FloatArray
    expected: FloatArray
    variance: FloatArray
    stratified: bool

    @property
    def statistic(self) -> FloatArray:
        """(m,) (observed - expected)^2 / variance; NaN where the groups are never at risk together."""
        known = self.variance > 0
        return np.where(known, (self.observed - self.expected) ** 2 / np.where(known, self.variance, 1.0), np.nan)

    @property
    def p(self) -> FloatArray:
        """(m,) upper tail of chi-squared with one degree of freedom."""
        return chi2_sf(self.statistic, 1)


def log_rank(counts: FloatArray) -> LogRank:
    """The test over pooled risk sets on the binned times, the open last bin included.

    Args:
        counts: (m, T, 2, 2) of ``GroupCounts``.
    """
    observed, expected, variance = _log_rank_sums(counts)
    return LogRank(observed, expected, variance, stratified=False)


@dataclass(frozen=True, eq=False)
class GroupCurves:
    """Kaplan-Meier survival of the groups at the edges of the grid.

    Attributes:
        time: (E,) edges; the open last bin has none.
        survival: (..., G, E) S(t) at each edge.
        standard_error: (..., G, E) by Greenwood.
        lower, upper: (..., G, E) pointwise limits; NaN where S is 0 (or unknown because nobody is left).
        patients, events: (..., G).
        remaining: (..., G, E) patients observed beyond each edge: the numbers at risk just after it.
    """

    time: FloatArray
    survival: FloatArray
    standard_error: FloatArray
    lower: FloatArray
    upper: FloatArray
    patients: FloatArray
    events: FloatArray
    remaining: FloatArray

    def at_risk(self, times: Sequence[float]) -> FloatArray:
        """(..., G, len(times)) patients observed beyond each time, which is 0 or an edge.

        Raises:
            ValueError: when a time is neither.
        """
        grid = TimeGrid(self.time)
        columns = [self.patients if time == 0 else self.remaining[..., grid.edge_index(time)] for time in times]
        return np.stack(columns, axis=-1)

    def at(self, time: float) -> FloatArray:
        """(..., G, 3) survival, lower and upper limit at an edge.

        Raises:
            ValueError: when ``time`` is not an edge.
        """
        index = TimeGrid(self.time).edge_index(time)
        return np.stack([part[..., index] for part in (self.survival, self.lower, self.upper)], axis=-1)

    @property
    def median(self) -> FloatArray:
        """(..., G, 3) median survival and the limits that its band gives: the first edge with S <= 1/2, NaN if none."""
        halved = [part <= 0.5 for part in (self.survival, self.lower, self.upper)]
        halved[1] |= self.survival == 0  # where the band is unknown
        first = [np.where(part.any(axis=-1), self.time[part.argmax(axis=-1)], np.nan) for part in halved]
        return np.stack(first, axis=-1)


def kaplan_meier(counts: FloatArray, grid: TimeGrid, *, level: float = 0.95, band: str = "log-log") -> GroupCurves:
    """Kaplan-Meier with Greenwood's variance and a pointwise band.

    S = prod (1 - d / n), Var log S = sum d / (n (n - d)); the band is symmetric for log(-log S) or for log S.

    Args:
        counts: (..., T, G, 2) events and censored by bin and group.
        grid: of the counts.
        level: of the band.
        band: 'log-log' (stays in [0, 1]) or 'log' (cut at 1).
    """
    if band not in BANDS:
        raise ValueError(f"band must be one of {BANDS}, found {band!r}")
    if counts.shape[-3] != grid.bins:
        raise ValueError(f"counts have {counts.shape[-3]} time bins, the grid has {grid.bins}")
    risk = np.moveaxis(_at_risk(counts), -2, -1)
    deaths = np.moveaxis(counts[..., 0], -2, -1)
    d: FloatArray = deaths[..., :-1]
    n: FloatArray = np.where(risk[..., :-1] > 0, risk[..., :-1], 1.0)
    survival = np.asarray(np.cumprod(1 - d / n, axis=-1), dtype=np.float64)
    log_variance: FloatArray = np.cumsum(d / (n * np.where(n > d, n - d, 1.0)), axis=-1)
    sigma = np.sqrt(log_variance)
    known: FloatArray = np.where(survival > 0, survival, np.nan)
    half: FloatArray = normal_isf((1 - level) / 2) * sigma
    lower, upper = _log_log_band(known, half) if band == "log-log" else _log_band(known, half)
    return GroupCurves(
        time=grid.edges,
        survival=survival,
        standard_error=survival * sigma,
        lower=lower,
        upper=upper,
        patients=risk[..., 0],
        events=deaths.sum(axis=-1),
        remaining=risk[..., 1:],
    )


def _log_log_band(survival: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray]:
    """exp(log S exp(+- half / log S)); at S = 1 nothing has happened, and the band is S itself."""
    log = np.log(survival)
    theta = np.where(log < 0, half / np.where(log < 0, -log, 1.0), 0.0)
    return np.exp(log * np.exp(theta)), np.exp(log * np.exp(-theta))


def _log_band(survival: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray]:
    return survival * np.exp(-half), np.minimum(survival * np.exp(half), 1.0)


def group_curves(
    view: View,
    grid: TimeGrid,
    thresholds: FloatArray,
    *,
    minimum: int = 10,
    keep: Sequence[float] = (),
    stratified: bool = False,
    level: float = 0.95,
    band: str = "log-log",
) -> Algorithm[tuple[GroupCurves, LogRank]]:
    """Curves and log-rank test of the groups that ``thresholds`` make, in two rounds (one if ``minimum`` is 0).

    Args:
        view: rows (the test split) and m scores.
        grid: time bins wished for.
        thresholds: (m,), such as the ``score_medians`` of the training split.
        minimum: time bins are merged until 2 minimum patients leave in each: ``minimum`` per group on average.
        keep: edges that stay (horizons, times of numbers at risk).
        stratified: test inside each site at exact times instead of over pooled risk sets on the time bins.
        level, band: see ``kaplan_meier``.

    Raises:
        CtfedError: when too few patients leave for two time bins and no edge is to be kept.
    """
    thresholds, bins = frozen(thresholds), grid
    if minimum > 0:
        marginal: Total = yield TimeCounts(view, grid)
        bins = merge_edges(grid, marginal["counts"].sum(axis=1), GROUPS * minimum, keep)
    test = (StratifiedLogRank(view, thresholds),) if stratified else ()
    total, *inside = yield Bundle((GroupCounts(view, bins, thresholds), *test))
    counts: FloatArray = np.maximum(total["counts"], 0.0)  # noise can make a count negative
    curves = kaplan_meier(counts, bins, level=level, band=band)
    if not stratified:
        return curves, log_rank(counts)
    (sums,) = inside
    return curves, LogRank(sums["observed"], sums["expected"], sums["variance"], stratified=True)
