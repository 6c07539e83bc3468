"""Who has died by a horizon, who has not, and what each of them weighs for those whose follow-up ended before.

Phase one asks when patients leave (``TimeCounts``). From it follow the censoring curve G, the survival S at the
horizons, and the inverse-probability weights: 1 / G(t) for a death at t, 1 / G(h) for who is observed beyond the
horizon h, 0 for who is censored before it. Phase two sends these weights with a question, and every statistic that is
a sum over patients is then exact given G: no score is binned. G is scikit-survival's (deaths of a bin before its
censorings), right-continuous, on the time bins.

The weights of neighbouring bins are merged until enough patients die in each: whoever chose weights freely could single
out one bin by asking twice, so a bin must not be one patient. A merged bin weighs its deaths by their mean 1 / G, so
that sums of weights alone stay what the unmerged bins give.

References: Graf, Schmoor, Sauerbrei, Schumacher 1999, Statistics in Medicine 18:2529; Uno, Cai, Tian, Wei 2007, JASA
102:527.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import BoolArray, FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.errors import CtfedError
from ctfed.federation.summary import Total
from ctfed.federation.view import Table, View
from ctfed.statistics.baseline import Baseline
from ctfed.statistics.curves import kaplan_meier
from ctfed.statistics.discriminate import censoring_curve
from ctfed.statistics.scores import require_scores
from ctfed.statistics.timegrid import TimeGrid
from ctfed.statistics.timegrid_merge import TimeCounts, merge_edges

MOST_WEIGHT = 100.0  # of one patient: beyond it fewer than one in a hundred are still followed
WIDEST_SCORES = 40.0  # of a site's scores of one model; a wider range turns a mean risk into one patient's step


@register("horizon-weights")
@dataclass(frozen=True, eq=False)
class HorizonWeights:
    """Weights of deaths and survivors at H horizons, as step functions of time.

    Attributes:
        edges: (E,) of time bins; the open bin beyond the last one holds no death before a horizon.
        horizons: (H,) increasing indices of edges.
        case: (E,) weight of a death in each bin, not decreasing, in [1, 100].
        control: (H,) weight of whoever is observed beyond each horizon, in [1, 100].
    """

    edges: FloatArray
    horizons: tuple[int, ...]
    case: FloatArray
    control: FloatArray

    def __post_init__(self) -> None:
        edges = self.grid.edges.size  # raises here when they are no edges
        if not self.horizons or list(self.horizons) != sorted({*self.horizons}):
            raise ValueError("horizons are increasing indices of edges, at least one")
        if not 0 <= self.horizons[0] <= self.horizons[-1] < edges:
            raise ValueError(f"a horizon is not among the {edges} edges")
        if self.case.shape != (edges,) or self.control.shape != (len(self.horizons),):
            raise ValueError(f"{edges} edges and {len(self.horizons)} horizons, but other numbers of weights")
        for weights in (self.case, self.control):
            if not ((weights >= 1).all() and (weights <= MOST_WEIGHT).all() and (np.diff(weights) >= 0).all()):
                raise ValueError(f"weights lie in [1, {MOST_WEIGHT:g}] and do not decrease")

    @classmethod
    def plain(cls, horizons: Sequence[float]) -> HorizonWeights:
        """Weight 1 for everybody whose state at the horizon is known, 0 for the others ("valid patients")."""
        times = frozen(sorted(horizons))
        return cls(times, tuple(range(times.size)), frozen(np.ones(times.size)), frozen(np.ones(times.size)))

    @property
    def grid(self) -> TimeGrid:
        """The time bins."""
        return TimeGrid(self.edges)

    @property
    def times(self) -> FloatArray:
        """(H,) the horizons, in the study's time unit."""
        return self.edges[list(self.horizons)]

    @property
    def cells(self) -> int:
        """Time bins that questions with different weights tell apart; the open last one has no weight of its own."""
        return int(self.edges.size)

    def at(self, horizon: float) -> HorizonWeights:
        """The weights of one horizon alone, over the bins until it.

        Raises:
            ValueError: when it is not among the horizons.
        """
        place = [index for index, time in enumerate(self.times) if abs(time - horizon) <= 1e-9 * abs(horizon)]
        if not place:
            raise ValueError(f"{horizon:g} is not among the horizons {self.times.tolist()}")
        last = self.horizons[place[0]]
        return HorizonWeights(
            frozen(self.edges[: last + 1]), (last,), frozen(self.case[: last + 1]), frozen(self.control[place])
        )

    def of(self, table: Table) -> tuple[FloatArray, FloatArray]:
        """(H, n) weight of each patient as a case and as a control at each horizon; held inside the site."""
        place = self.grid.bin_of(table.time)
        last = np.array(self.horizons)[:, None]
        weight = np.where(table.event, self.case[np.minimum(place, self.case.size - 1)], 0.0)
        case = np.where(place <= last, weight, 0.0)
        return case, np.where(place > last, self.control[:, None], 0.0)


@dataclass(frozen=True, eq=False)
class FollowUp:
    """What phase one tells.

    Attributes:
        grid: asked.
        counts: (T, 2) events and censored by bin of the grid.
        weights: for phase two.
        survival, standard_error: (H,) Kaplan-Meier with Greenwood at the horizons, on the grid asked.
        largest_weight: of a case or control; large values mean that few patients stand for many.
    """

    grid: TimeGrid
    counts: FloatArray
    weights: HorizonWeights
    survival: FloatArray
    standard_error: FloatArray
    largest_weight: float

    @property
    def patients(self) -> float:
        """Number of patients."""
        return float(self.counts.sum())

    @property
    def times(self) -> FloatArray:
        """(H,) the horizons."""
        return self.weights.times

    def coarser(self, minimum: int, horizons: Sequence[float] | None = None) -> FollowUp:
        """The same with at least ``minimum`` deaths in a bin of the weights: for tables by time and something else."""
        return follow_up_of(self.counts, self.grid, horizons or self.times.tolist(), minimum=minimum)


def follow_up(view: View, grid: TimeGrid, horizons: Sequence[float], *, minimum: int = 10) -> Algorithm[FollowUp]:
    """Phase one, in one round: when patients of the view leave.

    Args:
        view: the patients (its columns are not used).
        grid: time bins, with an edge at every horizon.
        horizons: at least one time.
        minimum: bins of the weights are merged until as many die in each; 0 keeps every bin. Bins between two
            horizons can hold fewer.

    Raises:
        ValueError: when a horizon is not an edge.
        CtfedError: when nearly nobody is followed until the last horizon.
    """
    total: Total = yield TimeCounts(view, grid)
    return follow_up_of(total["counts"], grid, horizons, minimum=minimum)


def follow_up_of(counts: FloatArray, grid: TimeGrid, horizons: Sequence[float], *, minimum: int = 10) -> FollowUp:
    """``follow_up`` from a total of ``TimeCounts`` that the caller has."""
    places = sorted({grid.edge_index(time) for time in horizons})
    last = places[-1]
    curve = censoring_curve(counts[:, None, :]).low
    if curve[last] * MOST_WEIGHT < 1:
        raise CtfedError(
            f"fewer than 1 in {MOST_WEIGHT:g} patients would be followed until {grid.edges[last]:g}; "
            "choose an earlier horizon"
        )
    deaths = counts[: last + 1, 0]
    until = TimeGrid(frozen(grid.edges[: last + 1]))
    times = [float(grid.edges[place]) for place in places]
    bins = merge_edges(until, np.append(deaths, 0.0), minimum, times)
    ends = [until.edge_index(float(edge)) for edge in bins.edges]
    starts = [0, *(end + 1 for end in ends[:-1])]
    held = np.add.reduceat(deaths, starts)
    weighted = np.add.reduceat(deaths / curve[: last + 1], starts)
    case = np.where(held > 0, weighted / np.where(held > 0, held, 1.0), 1 / curve[ends])
    curves = kaplan_meier(counts[:, None, :], grid)
    weights = HorizonWeights(
        bins.edges,
        tuple(bins.edge_index(time) for time in times),
        frozen(np.clip(np.maximum.accumulate(case), 1.0, MOST_WEIGHT)),
        frozen(1 / curve[places]),
    )
    largest = float(max(weights.case.max(), weights.control.max()))
    return FollowUp(grid, counts, weights, curves.survival[0, places], curves.standard_error[0, places], largest)


def hazards_at(baselines: Sequence[Baseline], horizons: Sequence[float] | FloatArray) -> FloatArray:
    """(m, H) cumulative baseline hazard of each model at each horizon: the last step at or before it."""
    times = np.asarray(horizons, dtype=np.float64)
    found = np.zeros((len(baselines), times.size))
    for row, baseline in zip(found, baselines, strict=True):
        steps = np.concatenate([[0.0], baseline.cumulative_hazard])
        row[:] = steps[np.searchsorted(baseline.time, times * (1 + 1e-12), side="right")]
    return found


def check_hazard(hazard: FloatArray, view: View, horizons: int) -> None:
    """Raise ValueError unless there is a hazard > 0 for every model and horizon."""
    if hazard.shape != (view.width, horizons):
        raise ValueError(f"the hazard must be ({view.width}, {horizons}), found {hazard.shape}")
    if not (hazard > 0).all():
        raise ValueError("a cumulative hazard at a horizon must be > 0")


def log_hazards(table: Table) -> tuple[FloatArray, BoolArray]:
    """(m, n) scores by model, and (m,) which of them this site answers for; the others are set to 0.

    Raises:
        Refusal: rule 'missing-value'.
    """
    require_scores(table)
    scores = np.ascontiguousarray(table.values.T)
    spread = np.ptp(scores, axis=1) if table.rows else np.zeros(scores.shape[0])
    inside = spread <= WIDEST_SCORES
    scores[~inside] = 0.0
    return scores, np.asarray(inside)


def risk_at(scores: FloatArray, hazard: FloatArray) -> FloatArray:
    """(m, n) probability of the event by one horizon: 1 - exp(-hazard exp(score)), for (m,) hazards."""
    return -np.expm1(-np.exp(np.minimum(np.log(hazard)[:, None] + scores, 700.0)))
