"""Time bins that hold enough patients: how many leave in each bin, and the grid with neighbours merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary
from ctfed.federation.view import View
from ctfed.statistics.timegrid import TimeGrid


@register("time-counts")
@dataclass(frozen=True, eq=False)
class TimeCounts(Query):
    """Number of patients with an event, and of patients censored, in each of the T time bins.

    Its total discloses those 2 T counts: the marginal survival table of the view.

    Attributes:
        view: the patients; its columns are not used.
        grid: T - 1 edges, T bins.
    """

    view: View
    grid: TimeGrid

    @property
    def layout(self) -> Layout:
        """counts (T, 2): events, censored."""
        return {"counts": Entry((self.grid.bins, 2))}

    @property
    def exposure(self) -> Exposure:
        """When patients leave, and nothing else of them."""
        return Exposure(times=self.grid.edges)

    def answer(self, cohort: Cohort) -> Summary:
        """This site's counts."""
        table = self.view.table(cohort)
        cell = 2 * self.grid.bin_of(table.time) + ~table.event
        counts = np.bincount(cell, minlength=2 * self.grid.bins)
        return Summary(self.layout, {"counts": counts.reshape(self.grid.bins, 2)})


def merge_edges(grid: TimeGrid, leavers: FloatArray, minimum: int, keep: Sequence[float] = ()) -> TimeGrid:
    """The grid with neighbouring bins merged until each holds nobody or at least ``minimum`` leavers.

    From early to late a bin is closed as soon as it holds ``minimum``; a remainder that holds fewer (but somebody)
    joins the bin before it, which then ends with the grid if nobody stays beyond. The edges in ``keep`` stay whatever
    lies between them, so a bin between two of them, or beyond the last, can hold fewer. Which edges remain is a
    function of the arguments alone, the same on any machine.

    Args:
        grid: the bins wished for.
        leavers: (grid.bins,) patients who leave, by event or censoring, in each bin; a total.
        minimum: 0 or less keeps every edge.
        keep: edges of ``grid`` that stay (horizons).

    Raises:
        ValueError: when ``leavers`` has another shape, or a time in ``keep`` is not an edge.
        CtfedError: when no edge can stay because too few patients leave.
    """
    chosen = merge_indices(grid, leavers, minimum, keep)
    if not chosen:
        raise CtfedError(
            f"{leavers.sum():.0f} patients leave in all, too few for two time bins of {minimum}; "
            "lengthen the time grid or lower the smallest cell"
        )
    return TimeGrid(frozen(grid.edges[chosen]))


def separable(grid: TimeGrid, leavers: FloatArray, horizons: Sequence[float], minimum: int) -> list[float]:
    """The horizons, early to late, between which and beyond which at least ``minimum`` patients leave."""
    until = np.cumsum(leavers)
    kept: list[float] = []
    before = 0.0
    for horizon in sorted(horizons):
        held = float(until[grid.edge_index(horizon)])
        if held - before >= minimum and until[-1] - held >= minimum:
            kept.append(horizon)
            before = held
    return kept


def without_small(grid: TimeGrid, merged: TimeGrid, counts: FloatArray, minimum: int) -> TimeGrid:
    """``merged`` without the edges beside bins in which some patients, but fewer than ``minimum``, die or are censored.

    Args:
        grid: of the counts.
        merged: some of its edges.
        counts: (grid.bins, 2) events and censored; totals.
        minimum: the fewest of either kind in a bin that holds any of the kind.

    Raises:
        CtfedError: when no edge can stay.
    """
    chosen = [grid.edge_index(float(edge)) for edge in merged.edges]
    while chosen:
        held = np.add.reduceat(counts, [0, *(index + 1 for index in chosen)], axis=0)
        small = np.flatnonzero(((held > 0) & (held < minimum)).any(axis=1))
        if small.size == 0:
            return TimeGrid(frozen(grid.edges[chosen]))
        del chosen[max(0, int(small[-1]) - 1)]  # joins the bin before it, the first one the bin behind it
    raise CtfedError(
        f"too few patients die or are censored for two time bins with {minimum} of each; lengthen the time grid, lower "
        "the smallest cell, or use Breslow's ties"
    )


def merge_indices(grid: TimeGrid, leavers: FloatArray, minimum: int, keep: Sequence[float] = ()) -> list[int]:
    """Indices of the edges that ``merge_edges`` keeps; none when too few patients leave for two bins."""
    if leavers.shape != (grid.bins,):
        raise ValueError(f"leavers has shape {leavers.shape}, the grid has {grid.bins} bins")
    fixed = sorted({grid.edge_index(time) for time in keep})
    if minimum <= 0:
        return list(range(grid.edges.size))
    chosen: list[int] = []
    start = 0
    for end in [*fixed, grid.bins - 1]:
        chosen += _segment(leavers[start : end + 1], minimum, start)
        chosen += [end] if end in fixed else []
        start = end + 1
    last = grid.edges.size - 1
    if leavers[-1] == 0 and leavers[(chosen[-1] + 1 if chosen else 0) :].sum() >= max(1, minimum):
        chosen.append(last)
    return chosen


def _segment(leavers: FloatArray, minimum: int, first: int) -> list[int]:
    """Indices of the edges kept inside one run of bins whose last bin ends at an edge that is not up for choice."""
    kept: list[int] = []
    held = 0.0
    for index, count in enumerate(leavers[:-1]):
        held += count
        if held >= minimum:
            kept.append(first + index)
            held = 0.0
    rest = held + leavers[-1]
    return kept[:-1] if 0 < rest < minimum else kept
