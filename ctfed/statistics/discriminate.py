"""Discrimination over all pairs of patients, also of different sites, from one table of totals.

The table counts patients by time bin, score bin and event or censored (``EvaluationTable``), so the order of two
patients is known unless they share a time bin or a score bin. From it come Harrell's C, Uno's C and the
cumulative/dynamic AUC, each as

* an estimate: the statistic of the data with times and scores moved to their bins, which is scikit-survival's value on
  such data (an event precedes a censoring in its bin, two events of one bin do not compare, equal scores count 1/2);
* certified limits: the smallest and the largest value that any patients with this table can have, whatever the true
  order inside the bins and whatever the conventions on ties. They are limits of arithmetic, not of chance;
* an interval of chance: percentiles of a Poisson bootstrap of the table, which asks nothing (``bootstrap_intervals``).

All functions take counts of shape (..., T, B, 2) and work on any leading axes (models, replicates).

Limits. Each statistic is sum w N / sum w D over events, N the concordant and D the comparable pairs of an event.
Numerator and denominator move together: a pair of unknown order that may be concordant raises the ratio when it is
taken in as (1, 1), and one that may only be discordant when it is left out as (0, 0); hence for Harrell's C

    upper = (conc + tied + U) / (known + U),   lower = conc / (known + L),

with known = pairs in different time bins, conc and tied of them in a lower and in the same score bin, and U and L the
pairs of one time bin that can be concordant and discordant: all pairs of events, and an event with the censored of
score bins <= (>=) its own. No bound from the table can be tighter, because both are attained: in each time bin let the
events happen in descending (ascending) order of score, put every censored patient of score bin b behind the events of
bins >= b (<= b) and before the others, and inside a score bin let scores fall (rise) with time.

References: Harrell 1996 (see ``concordance``); Uno, Cai, Pencina, D'Agostino, Wei 2011, Statistics in Medicine
30:1105; Uno, Cai, Tian, Wei 2007, JASA 102:527; Hung, Chiang 2010, Canadian Journal of Statistics 38:8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.statistics.concordance import Concordance, Difference, WithinSitePairs, within_site_concordance
from ctfed.statistics.evaluation_tables import EvaluationTable, ScoreTable, evaluation_table
from ctfed.statistics.timegrid import TimeGrid

__all__ = [
    "Bounded",
    "CensoringCurve",
    "Concordance",
    "Difference",
    "EvaluationTable",
    "ScoreTable",
    "WithinSitePairs",
    "auc_value",
    "bootstrap_intervals",
    "censoring_curve",
    "cumulative_dynamic_auc",
    "evaluation_table",
    "harrell_concordance",
    "harrell_value",
    "uno_concordance",
    "uno_value",
    "within_site_concordance",
]

CHUNK = 2**21  # cells of replicates held at once: 16 MB


@dataclass(frozen=True, eq=False)
class Bounded:
    """An estimate (...,) between certified limits; NaN where the table leaves no pair to compare."""

    value: FloatArray
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True, eq=False)
class _BinnedPairs:
    """Pairs of every cell's events, (..., T, B) each; ``events`` are pairs of two events of one time bin, (..., T).

    Attributes:
        known: with who leaves in a later time bin; conc, tied: those in a lower and in the same score bin.
        same: with the censored of the same time bin; same_conc, same_tied: as above.
    """

    known: FloatArray
    conc: FloatArray
    tied: FloatArray
    same: FloatArray
    same_conc: FloatArray
    same_tied: FloatArray
    events: FloatArray

    @classmethod
    def of(cls, counts: FloatArray) -> _BinnedPairs:
        events, censored = counts[..., 0], counts[..., 1]
        leaving = events + censored
        later = leaving.sum(axis=-2, keepdims=True) - np.cumsum(leaving, axis=-2)
        lower = np.cumsum(later, axis=-1) - later
        lower_censored = np.cumsum(censored, axis=-1) - censored
        deaths = events.sum(axis=-1)
        return cls(
            known=events * later.sum(axis=-1, keepdims=True),
            conc=events * lower,
            tied=events * later,
            same=events * censored.sum(axis=-1, keepdims=True),
            same_conc=events * lower_censored,
            same_tied=events * censored,
            events=deaths * (deaths - 1) / 2,
        )

    def largest(self) -> tuple[FloatArray, FloatArray]:
        """N and D that make the ratio largest, (..., T, B + 1); the last column holds pairs of events."""
        unknown = self.same_conc + self.same_tied
        return _beside(self.conc + self.tied + unknown, self.events), _beside(self.known + unknown, self.events)

    def smallest(self) -> tuple[FloatArray, FloatArray]:
        """N and D that make the ratio smallest, (..., T, B + 1)."""
        unknown = self.same - self.same_conc
        return _beside(self.conc, 0.0 * self.events), _beside(self.known + unknown, self.events)


def _beside(cells: FloatArray, events: FloatArray) -> FloatArray:
    return np.concatenate([cells, events[..., None]], axis=-1)


def harrell_concordance(counts: FloatArray) -> Bounded:
    """Harrell's C over all pairs, with the sharpest limits that the table allows.

    Args:
        counts: (..., T, B, 2).
    """
    pairs = _BinnedPairs.of(counts)
    upper = _ratio(*(part.sum(axis=(-2, -1)) for part in pairs.largest()))
    lower = _ratio(*(part.sum(axis=(-2, -1)) for part in pairs.smallest()))
    return _settled(harrell_value(counts), lower, upper)


def harrell_value(counts: FloatArray) -> FloatArray:
    """The estimate of ``harrell_concordance`` alone: (...,)."""
    concordant, comparable = _binned_pairs(counts)
    return _ratio(concordant.sum(axis=-1), comparable.sum(axis=-1))


def _binned_pairs(counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Concordant (ties 1/2) and comparable pairs of the binned data, by time bin of the event: (..., T) each."""
    events, censored = counts[..., 0], counts[..., 1]
    leaving = events + censored
    compared = leaving.sum(axis=-2, keepdims=True) - np.cumsum(leaving, axis=-2) + censored
    lower = np.cumsum(compared, axis=-1) - compared / 2
    return (events * lower).sum(axis=-1), events.sum(axis=-1) * compared.sum(axis=-1)


def _settled(value: FloatArray, lower: FloatArray, upper: FloatArray) -> Bounded:
    """Where every pair is of unknown order and can only be discordant (concordant), C is 0 (1) if it exists at all."""
    upper, lower = np.where(np.isnan(upper), lower, upper), np.where(np.isnan(lower), upper, lower)
    return Bounded(value, lower, upper)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """numerator / denominator, NaN where the denominator is 0."""
    known = denominator > 0
    return np.where(known, numerator / np.where(known, denominator, 1.0), np.nan)


@dataclass(frozen=True, eq=False)
class CensoringCurve:
    """G(t), the probability to be still uncensored, for the events of each time bin.

    Attributes:
        low: (..., T) scikit-survival's estimate on the binned times: all events of a bin before its censorings.
        high: (..., T); G at a bin's events lies in [low, high], whatever the order inside the bins.
    """

    low: FloatArray
    high: FloatArray


def censoring_curve(counts: FloatArray) -> CensoringCurve:
    """Kaplan-Meier of censoring from (..., T, B, 2) counts.

    In a bin with n at risk, d events and c censored, each of the c censorings multiplies G by 1 - 1 / r. Its r is
    smallest when all events precede and largest when none does; either product telescopes:

        (n - d - c) / (n - d)  <=  the bin's factor  <=  (n - c) / n.
    """
    events, censored = counts[..., 0].sum(axis=-1), counts[..., 1].sum(axis=-1)
    leaving = events + censored
    at_risk = leaving.sum(axis=-1, keepdims=True) - np.cumsum(leaving, axis=-1) + leaving
    after = at_risk - events
    low: FloatArray = np.cumprod(1 - censored / np.maximum(after, 1.0), axis=-1)
    high: FloatArray = np.cumprod(1 - censored / np.maximum(at_risk, 1.0), axis=-1)
    before = np.concatenate([np.ones_like(high[..., :1]), high[..., :-1]], axis=-1)
    return CensoringCurve(low, before)


def uno_concordance(counts: FloatArray, grid: TimeGrid, horizon: float) -> Bounded:
    """Uno's C: pairs weighted by 1 / G(t)^2 of the earlier one's event, for events at t <= ``horizon``.

    Equal to scikit-survival's ``concordance_index_ipcw`` on the binned data with a ``tau`` just beyond the horizon
    (there events at tau itself are left out). The limits also cover that G is known up to its bins only.

    Args:
        counts: (..., T, B, 2).
        grid: of the counts.
        horizon: an edge of the grid.

    Raises:
        ValueError: when the horizon is not an edge.
    """
    last = grid.edge_index(horizon) + 1
    pairs = _BinnedPairs.of(counts)
    curve = censoring_curve(counts)
    light, heavy = _weight(curve.high[..., :last]) ** 2, _weight(curve.low[..., :last]) ** 2
    concordant, most = (part[..., :last, :] for part in pairs.largest())
    certain, fewest = (part[..., :last, :] for part in pairs.smallest())
    lower = 1 - _extreme(fewest - certain, fewest, light, heavy)
    return _settled(uno_value(counts, grid, horizon), lower, _extreme(concordant, most, light, heavy))


def uno_value(counts: FloatArray, grid: TimeGrid, horizon: float) -> FloatArray:
    """The estimate of ``uno_concordance`` alone: (...,)."""
    last = grid.edge_index(horizon) + 1
    concordant, comparable = (part[..., :last] for part in _binned_pairs(counts))
    weight = _weight(censoring_curve(counts).low[..., :last]) ** 2
    return _ratio(_weighted(weight, concordant), _weighted(weight, comparable))


def cumulative_dynamic_auc(counts: FloatArray, grid: TimeGrid, horizon: float) -> Bounded:
    """AUC(t) between events at or before t, weighted by 1 / G, and patients observed beyond t.

    Equal to scikit-survival's ``cumulative_dynamic_auc`` on the binned data. The limits cover pairs in one score bin
    and G known up to its bins only; who is a case and who a control is known, because t is an edge.

    Args:
        counts: (..., T, B, 2).
        grid: of the counts.
        horizon: t, an edge of the grid.

    Raises:
        ValueError: when the horizon is not an edge.
    """
    cases, below, controls = _cases_and_controls(counts, grid, horizon)
    pairs = cases * controls.sum(axis=-1, keepdims=True)
    curve = censoring_curve(counts)
    light, heavy = (_weight(g[..., : cases.shape[-2]]) for g in (curve.high, curve.low))
    upper = _extreme(cases * (below + controls), pairs, light, heavy)
    lower = 1 - _extreme(pairs - cases * below, pairs, light, heavy)
    return _settled(auc_value(counts, grid, horizon), lower, upper)


def auc_value(counts: FloatArray, grid: TimeGrid, horizon: float) -> FloatArray:
    """The estimate of ``cumulative_dynamic_auc`` alone: (...,)."""
    cases, below, controls = _cases_and_controls(counts, grid, horizon)
    weight = _weight(censoring_curve(counts).low[..., : cases.shape[-2]])
    won = (cases * (below + controls / 2)).sum(axis=-1)
    return _ratio(_weighted(weight, won), _weighted(weight, cases.sum(axis=-1) * controls.sum(axis=-1)))


def _cases_and_controls(
    counts: FloatArray, grid: TimeGrid, horizon: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Cases (..., t, B) of the t bins until the horizon, controls below each score bin and in it (..., 1, B)."""
    last = grid.edge_index(horizon) + 1
    controls = counts[..., last:, :, :].sum(axis=(-3, -1))[..., None, :]
    return counts[..., :last, :, 0], np.cumsum(controls, axis=-1) - controls, controls


def _weight(curve: FloatArray) -> FloatArray:
    """1 / G; infinite where nobody is left uncensored."""
    with np.errstate(divide="ignore"):
        weight: FloatArray = 1 / curve
    return weight


def _weighted(weight: FloatArray, pairs: FloatArray) -> FloatArray:
    """sum over time bins of weight * pairs; a bin without pairs takes no part, whatever its weight."""
    total: FloatArray = (np.where(pairs > 0, weight, 0.0) * pairs).sum(axis=-1)
    return total


def _extreme(numerator: FloatArray, denominator: FloatArray, light: FloatArray, heavy: FloatArray) -> FloatArray:
    """The largest sum w N / sum w D over weights w in [light, heavy] of every cell.

    A fraction of linear functions is largest where every cell above a certain ratio N / D weighs ``heavy`` and every
    other one ``light``, so sorting the cells by their ratio and trying each place for the cut finds it.

    Args:
        numerator, denominator: (..., T, K), 0 <= N <= D.
        light, heavy: (..., T), 0 < light <= heavy.
    """
    shape = denominator.shape[:-2] + (-1,)
    flat_n, flat_d = numerator.reshape(shape), denominator.reshape(shape)
    # A weight without limit (nobody left uncensored) can move the ratio anywhere.
    bounded = np.isfinite(heavy) | (denominator.sum(axis=-1) == 0)
    low_weight, high_weight = (np.where(np.isfinite(w), w, 1.0)[..., None] + 0 * denominator for w in (light, heavy))
    ratio = np.where(flat_d > 0, flat_n / np.where(flat_d > 0, flat_d, 1.0), -1.0)
    order = np.argsort(-ratio, axis=-1, kind="stable")
    n, d, low, high = (
        np.take_along_axis(part.reshape(shape), order, axis=-1) for part in (flat_n, flat_d, low_weight, high_weight)
    )

    def swept(part: FloatArray) -> FloatArray:
        gained = np.cumsum((high - low) * part, axis=-1)
        base = (low * part).sum(axis=-1, keepdims=True)
        ends: FloatArray = np.concatenate([base, base + gained], axis=-1)
        return ends

    best = _ratio(swept(n), swept(d)).max(axis=-1)
    extreme: FloatArray = np.where(bounded.all(axis=-1) | np.isnan(best), best, 1.0)
    return extreme


def bootstrap_intervals(
    counts: FloatArray,
    statistics: Mapping[str, Callable[[FloatArray], FloatArray]],
    *,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, FloatArray]:
    """Percentile intervals from tables whose cells are drawn from Poisson(count): no query, no resampled patient.

    Resampling patients with Poisson(1) weights gives every cell a Poisson(count) sum, so this is the bootstrap of
    patients itself for whatever is a function of the table. Each statistic sees the same replicates.

    Args:
        counts: (m, T, B, 2).
        statistics: from counts (R, T, B, 2) to (R,) values; replicates without a value (NaN) are left out, and where
            they are more than one in twenty the interval is NaN.
        replicates: R in all.
        level: of the interval.
        seed: of the draws; equal seeds give equal intervals.

    Returns:
        (m, 2) limits for every statistic.
    """
    drawn = bootstrap_draws(counts, statistics, replicates=replicates, seed=seed)
    return {name: percentile_limits(values, level) for name, values in drawn.items()}


def bootstrap_draws(
    counts: FloatArray,
    statistics: Mapping[str, Callable[[FloatArray], FloatArray]],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, FloatArray]:
    """(m, R) replicates of every statistic, see ``bootstrap_intervals``."""
    rng = np.random.default_rng(seed)
    drawn = [_replicated(table, statistics, replicates, rng) for table in counts]
    return {name: np.stack([one[name] for one in drawn]) for name in statistics}


def percentile_limits(values: FloatArray, level: float = 0.95) -> FloatArray:
    """(m, 2) percentile limits of (m, R) replicates; NaN where more than one in twenty has no value."""
    tail = (1 - level) / 2
    limits = np.full((values.shape[0], 2), np.nan)
    for limit, row in zip(limits, values, strict=True):
        if np.isnan(row).mean() <= 0.05:
            limit[:] = np.nanquantile(row, [tail, 1 - tail])
    return limits


def _replicated(
    table: FloatArray,
    statistics: Mapping[str, Callable[[FloatArray], FloatArray]],
    replicates: int,
    rng: np.random.Generator,
) -> dict[str, FloatArray]:
    cells = table.reshape(-1)
    held = np.flatnonzero(cells)
    values: dict[str, list[FloatArray]] = {name: [] for name in statistics}
    size = max(1, CHUNK // table.size)
    for start in range(0, replicates, size):
        drawn = np.zeros((min(size, replicates - start), cells.size))
        drawn[:, held] = rng.poisson(cells[held], (drawn.shape[0], held.size))
        for name, statistic in statistics.items():
            values[name].append(statistic(drawn.reshape(-1, *table.shape)))
    return {name: np.concatenate(parts) for name, parts in values.items()}
