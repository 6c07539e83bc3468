"""The (time bin x score bin) table of events and censored patients: what every cross-site pair statistic rests on.

A fine table of a small cohort is a list of patients. By default the bins are merged, on marginal totals, until the
table's cells hold at least ``min_cell`` patients on average over each row and column; the full grid is the named
exception ``fine_evaluation_tables`` of the study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm, Bundle
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import View
from ctfed.statistics.scores import require_scores, score_moments, score_quantiles
from ctfed.statistics.timegrid import TimeGrid
from ctfed.statistics.timegrid_merge import TimeCounts, merge_indices, separable

FINE_SCORE_BINS = 50
FEWEST_SCORE_BINS = 2


@register("evaluation-table")
@dataclass(frozen=True, eq=False)
class EvaluationTable(Query):
    """For each of the m scores: patients by time bin, score bin and event or censored.

    Its total discloses these 2 m T B counts. Where a cell holds one patient, the total says of somebody in the
    federation, though not at which site, about when they left, how, and about which risk the model gave them; hence
    the merging in ``evaluation_table``.

    Attributes:
        view: rows and scores.
        grid: T - 1 edges, T bins.
        score_edges: (m, B - 1), not decreasing along B; score bins are right-closed as the time bins are.
    """

    view: View
    grid: TimeGrid
    score_edges: FloatArray

    def __post_init__(self) -> None:
        if self.score_edges.ndim != 2 or self.score_edges.shape[0] != self.view.width:
            raise ValueError(f"score edges must be ({self.view.width}, B - 1), found {self.score_edges.shape}")
        if not (np.diff(self.score_edges, axis=1) >= 0).all():
            raise ValueError("the score edges of a model must not decrease")

    @property
    def layout(self) -> Layout:
        """counts (m, T, B, 2): events, censored."""
        models, edges = self.score_edges.shape
        return {"counts": Entry((models, self.grid.bins, edges + 1, 2))}

    @property
    def exposure(self) -> Exposure:
        """Cells of one score's table by time and score; of three time bins or more the open last one may hold nobody
        (see ``choose_bins``) and does not count."""
        edges = self.grid.edges
        cells = max(2, edges.size) * (self.score_edges.shape[1] + 1)
        return Exposure(cells=cells, cuts=dict(zip(self.view.names, self.score_edges, strict=True)), times=edges)

    @property
    def sensitivity(self) -> float:
        """A patient is in one cell of each score's table."""
        return float(np.sqrt(self.score_edges.shape[0]))

    def answer(self, cohort: Cohort) -> Summary:
        """This site's counts."""
        table = self.view.table(cohort)
        require_scores(table)
        models, times, bins, _ = shape = self.layout["counts"].shape
        counts = np.zeros((models, times * bins * 2))
        when = self.grid.bin_of(table.time)
        for model, edges in enumerate(self.score_edges):
            score = np.searchsorted(edges, table.values[:, model], side="left")
            counts[model] = np.bincount((when * bins + score) * 2 + ~table.event, minlength=counts.shape[1])
        return Summary(self.layout, {"counts": counts.reshape(shape)})


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """A total of ``EvaluationTable`` and how it was cut.

    Attributes:
        grid: the time bins in use.
        score_edges: (m, B - 1).
        counts: (m, T, B, 2) events and censored.
        dropped: horizons that are not edges, because too few patients leave around them.
        fine: True when the bins are those asked for, unmerged.
    """

    grid: TimeGrid
    score_edges: FloatArray
    counts: FloatArray
    dropped: tuple[float, ...] = ()
    fine: bool = False

    @property
    def models(self) -> int:
        """Number of scores."""
        return int(self.counts.shape[0])

    @property
    def patients(self) -> int:
        """Number of patients, the same for every score."""
        return round(float(self.counts[0].sum()))


def evaluation_table(
    view: View,
    grid: TimeGrid,
    *,
    horizons: Sequence[float] = (),
    min_cell: int = 10,
    score_bins: int | None = None,
    fine: bool = False,
) -> Algorithm[ScoreTable]:
    """Choose the bins from marginal totals, then ask the table.

    With n patients and B score bins of about equal count, B is at most sqrt(n / min_cell) (which splits the loss of
    information between the axes), and time bins are merged until each holds min_cell * B leavers: under independence
    every (time x score) cell then holds min_cell patients. Horizons stay edges where they can.

    Args:
        view: rows and scores.
        grid: the time bins wished for, with an edge at every horizon.
        horizons: times at which an AUC is wanted.
        min_cell: smallest number of patients that a cell should hold.
        score_bins: most score bins; 50 where None.
        fine: use the full grid and all score bins (the exception ``fine_evaluation_tables``).

    Raises:
        CtfedError: when the view holds too few patients for a table of 2 x 2 cells.
    """
    most = FINE_SCORE_BINS if score_bins is None else score_bins
    if most < FEWEST_SCORE_BINS:
        raise ValueError(f"a table needs at least {FEWEST_SCORE_BINS} score bins, found {most}")
    for horizon in horizons:
        grid.edge_index(horizon)
    dropped: tuple[float, ...] = ()
    bins, merged = most, grid
    marginal, moments = yield Bundle((TimeCounts(view, grid), score_moments(view)))
    leavers: FloatArray = marginal["counts"].sum(axis=1)
    if not fine:
        bins, merged, dropped = choose_bins(grid, leavers, horizons, min_cell, most)
    levels = np.arange(1, bins) / bins
    # An edge may lie half a bin off: equal counts are a convenience, not an assumption.
    minimum = max(1 if fine else min_cell, int(leavers.sum() / (2 * bins)))
    found = yield from score_quantiles(view, levels.tolist(), minimum, moments)
    edges = frozen(found.value)
    total: Total = yield EvaluationTable(view, merged, edges)
    return ScoreTable(merged, edges, np.maximum(total["counts"], 0.0), dropped, fine)


def choose_bins(
    grid: TimeGrid, leavers: FloatArray, horizons: Sequence[float], min_cell: int, most: int
) -> tuple[int, TimeGrid, tuple[float, ...]]:
    """Number of score bins, merged time grid, and the horizons that could not stay edges.

    Raises:
        CtfedError: when there are fewer than 4 * min_cell patients, or nearly all leave in one bin.
    """
    patients = float(leavers.sum())
    if patients < 4 * min_cell:
        raise CtfedError(f"{patients:.0f} patients are too few for a table with {min_cell} in each of 2 x 2 cells")
    kept = separable(grid, leavers, horizons, min_cell * FEWEST_SCORE_BINS)
    dropped = tuple(float(time) for time in horizons if time not in kept)
    largest = max(FEWEST_SCORE_BINS, min(most, int(np.sqrt(patients / max(1, min_cell)))))
    for bins in range(largest, FEWEST_SCORE_BINS - 1, -1):
        chosen = _without_empty(merge_indices(grid, leavers, min_cell * bins, kept), leavers)
        if chosen and _smallest(leavers, chosen) >= min_cell * bins:
            return bins, TimeGrid(frozen(grid.edges[chosen])), dropped
    raise CtfedError(
        f"the {patients:.0f} patients leave at too few different times for two bins of {FEWEST_SCORE_BINS * min_cell}; "
        "use a finer time grid or a smaller cell"
    )


def _without_empty(chosen: Sequence[int], leavers: FloatArray) -> list[int]:
    """The edges without each that only begins a bin in which nobody leaves, and that is not the last one."""
    return [
        index
        for index, following in zip(chosen, [*chosen[1:], None], strict=True)
        if following is None or leavers[index + 1 : following + 1].any()
    ]


def _smallest(leavers: FloatArray, chosen: Sequence[int]) -> float:
    """The fewest leavers of a bin between the chosen edges that holds anybody."""
    held = np.add.reduceat(leavers, [0, *(index + 1 for index in chosen)])
    return float(held[held > 0].min())
