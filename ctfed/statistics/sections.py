"""Sections of a column's range with the patients in them: medians and rank sums from counts, within known limits.

A section is cut further as long as every group holds enough patients in it. In the end small sections are joined with
neighbours, so that what is reported of a group rests on sections without a patient or with ``minimum`` and more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from ctfed.federation.algorithm import Algorithm, Bundle
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import View, check_cells

FINEST = 2**16  # cells of a range without a known step
MOST_PARTS = 8  # into which a section is cut in one round
LUMP = 0.9  # of a section's patients who stay together when it is cut: values so alike that finer cuts part few of them
LUMP_PARTS = 4
CUTS_PER_PATIENT = 0.25  # of one column and group, below the 0.33 that a site allows unless its policy says otherwise
MAX_ROUNDS = 16


@register("section-counts")
@dataclass(frozen=True, eq=False)
class SectionCounts(Query):
    """Number of patients with x <= threshold, for several thresholds of each of q columns; missing values do not count.

    Its total discloses these counts: together with those of earlier rounds a histogram of each column.
    ``section_tables`` cuts no section that holds fewer than twice its smallest number of patients; what a cut splits
    off may be smaller, and is joined with its neighbours before anything is reported.

    Attributes:
        columns: q names of columns of the view.
        thresholds: for each column its rising thresholds.
    """

    view: View
    columns: tuple[str, ...]
    thresholds: tuple[FloatArray, ...]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.columns) - set(self.view.names))
        if unknown:
            raise ValueError(f"the view has no column {unknown[0]!r}")
        if len(set(self.columns)) != len(self.columns) or len(self.thresholds) != len(self.columns):
            raise ValueError(f"{len(self.columns)} columns, each once, but thresholds for {len(self.thresholds)}")
        for name, thresholds in zip(self.columns, self.thresholds, strict=True):
            if thresholds.ndim != 1 or thresholds.size == 0 or not (np.diff(thresholds) > 0).all():
                raise ValueError(f"the thresholds of column {name!r} must rise in a flat array")

    @property
    def layout(self) -> Layout:
        """One flat array of counts, column after column."""
        return {"below": Entry((sum(thresholds.size for thresholds in self.thresholds),))}

    @property
    def exposure(self) -> Exposure:
        """The thresholds of each column."""
        return Exposure(cuts=dict(zip(self.columns, self.thresholds, strict=True)))

    def answer(self, cohort: Cohort) -> Summary:
        """This site's counts."""
        place = {name: index for index, name in enumerate(self.view.names)}
        values = self.view.table(cohort).values
        check_cells(values.shape[0], max((thresholds.size for thresholds in self.thresholds), default=0))
        counts = [
            (values[:, place[name], None] <= thresholds).sum(axis=0)
            for name, thresholds in zip(self.columns, self.thresholds, strict=True)
        ]
        return Summary(self.layout, {"below": np.concatenate([np.zeros(0), *counts])})


@dataclass(frozen=True)
class Scale:
    """The range of a column as a row of cells, between which it can be cut.

    Attributes:
        name: of the column.
        low, high: its lowest and highest possible value, from the study's data dictionary.
        step: the distance of neighbouring values, if all are low + a multiple of it; 0 for a continuous column.
    """

    name: str
    low: float
    high: float
    step: float = 0.0

    def __post_init__(self) -> None:
        if not (self.low < self.high and np.isfinite(self.high - self.low)):
            raise ValueError(f"column {self.name!r}: [{self.low}, {self.high}] is not a finite range")
        if self.step < 0 or (self.step > 0 and abs(self._steps - round(self._steps)) > 1e-6):
            raise ValueError(f"column {self.name!r}: its range is no multiple of the step {self.step}")

    @property
    def _steps(self) -> float:
        return (self.high - self.low) / self.step

    @property
    def cells(self) -> int:
        """How many cells there are; one for each value of a column with a step."""
        return round(self._steps) + 1 if self.step else FINEST

    def threshold(self, cell: int) -> float:
        """The upper end of all cells before ``cell``."""
        if self.step:
            return self.low + self.step * (cell - 0.5)
        return self.low + (self.high - self.low) * cell / FINEST

    def ends(self, first: int, last: int) -> tuple[float, float]:
        """Lowest and highest value of the cells first ... last - 1."""
        if self.step:
            return self.low + self.step * first, self.low + self.step * (last - 1)
        return self.threshold(first), self.threshold(last)


@dataclass(frozen=True)
class Section:
    """Cells first ... last - 1, and the patients of each group in them; a lump stayed together when it was cut."""

    first: int
    last: int
    counts: tuple[int, ...]
    lump: bool = False

    def joined(self, other: Section) -> Section:
        """With its right neighbour."""
        return Section(self.first, other.last, tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))


@dataclass(frozen=True)
class Quantile:
    """A median from counts.

    Attributes:
        value: interpolated inside the bracket.
        low, high: the bracket, in which the exact median lies.
        held: patients inside it.
    """

    value: float
    low: float
    high: float
    held: int


@dataclass(frozen=True)
class SectionTable:
    """One column's sections, which cover its range without a gap; values outside it are counted at its ends.

    Attributes:
        scale: the column.
        sections: in rising order.
    """

    scale: Scale
    sections: tuple[Section, ...]

    @classmethod
    def whole(cls, scale: Scale, counts: Sequence[int]) -> SectionTable:
        """A single section with everybody in it."""
        return cls(scale, (Section(0, scale.cells, tuple(counts)),))

    def cuts(self, minimum: int, medians_only: bool) -> list[int]:
        """Cells before which to cut next: sections in which every group holds at least 2 minimum patients."""
        found: list[int] = []
        below = [0] * len(self.sections[0].counts)
        for section in self.sections:
            fewest = min(section.counts)
            if (
                fewest >= 2 * minimum
                and section.last - section.first > 1
                and (not medians_only or self._holds_a_median(section, below))
            ):
                length = section.last - section.first
                wanted = LUMP_PARTS if section.lump else max(2, fewest // (2 * minimum))
                parts = min(MOST_PARTS, wanted, length)
                found += [section.first + length * part // parts for part in range(1, parts)]
            below = [a + b for a, b in zip(below, section.counts, strict=True)]
        return found

    def _holds_a_median(self, section: Section, below: Sequence[int]) -> bool:
        totals = np.sum([one.counts for one in self.sections], axis=0)
        lower, upper = (totals + 1) // 2, totals // 2 + 1  # positions of the one or two middle patients
        after = np.add(below, section.counts)
        return bool(((below < upper) & (lower <= after)).any())

    def refined(self, cuts: Sequence[int], below: Sequence[Sequence[int]]) -> SectionTable:
        """Cut before the given cells; ``below`` has for each cut the patients before it, by group."""
        at_cut = dict(zip(cuts, below, strict=True))
        done: Sequence[int] = (0,) * len(self.sections[0].counts)
        found: list[Section] = []
        for section in self.sections:
            ends = [section.first, *(cut for cut in cuts if section.first < cut < section.last), section.last]
            until = np.add(done, section.counts).tolist()
            known = [done, *(at_cut[cut] for cut in ends[1:-1]), until]
            for (first, last), (a, b) in zip(pairwise(ends), pairwise(known), strict=True):
                counts = tuple(y - x for x, y in zip(a, b, strict=True))
                together = section.lump if len(ends) == 2 else sum(counts) >= LUMP * sum(section.counts)
                found.append(Section(first, last, counts, together))
            done = until
        return SectionTable(self.scale, tuple(found))

    def joined(self, minimum: int) -> SectionTable:
        """Sections that hold fewer patients of a group than ``minimum``, but some, joined with neighbours.

        Each goes, smallest first, to the side where the two make the smaller section.
        """
        sections = list(self.sections)
        while len(sections) > 1:
            small = [i for i, section in enumerate(sections) if any(0 < count < minimum for count in section.counts)]
            if not small:
                break
            i = min(small, key=lambda index: (sum(sections[index].counts), index))
            left = i - 1 if i == len(sections) - 1 else i
            if 0 < i < len(sections) - 1 and _weight(sections[i - 1]) <= _weight(sections[i + 1]):
                left = i - 1
            sections[left : left + 2] = [sections[left].joined(sections[left + 1])]
        return SectionTable(self.scale, tuple(sections))

    def median(self, group: int) -> Quantile | None:
        """The median of one group; None when nobody has a value."""
        counts = [section.counts[group] for section in self.sections]
        until = list(accumulate(counts))
        n = until[-1]
        if n == 0:
            return None
        a = bisect_left(until, (n + 1) // 2)
        b = bisect_left(until, n // 2 + 1)
        low, below_end = self.scale.ends(self.sections[a].first, self.sections[a].last)
        above_start, high = self.scale.ends(self.sections[b].first, self.sections[b].last)
        if a == b:
            share = (n / 2 - (until[a] - counts[a])) / counts[a]
            return Quantile(low + (high - low) * share, low, high, counts[a])
        return Quantile((below_end + above_start) / 2, low, high, counts[a] + counts[b])


def _weight(section: Section) -> tuple[float, int]:
    """What a section adds to the uncertainty of a rank sum when something is joined to it."""
    return float(np.prod(np.array(section.counts, dtype=np.float64))), sum(section.counts)


def section_tables(
    views: Sequence[View],
    scales: Sequence[Scale],
    counts: Sequence[Sequence[int]],
    minimum: int,
    medians_only: bool = False,
) -> Algorithm[tuple[SectionTable, ...]]:
    """Sections of several columns, shared by all groups; 4 to 10 rounds.

    Args:
        views: one per group.
        scales: the q columns.
        counts: for each group its (q,) patients with a value.
        minimum: patients that a section must hold of every group, >= 1. A column is told at no more thresholds than a
            quarter of the patients of the smallest group, however its values lie.
        medians_only: cut only where a group's median is.
    """
    if minimum < 1:
        raise CtfedError(f"the smallest number of patients in a section must be >= 1, found {minimum}")
    tables = [
        SectionTable.whole(scale, column) for scale, column in zip(scales, zip(*counts, strict=True), strict=True)
    ]
    left = [int(CUTS_PER_PATIENT * min(table.sections[0].counts)) for table in tables]
    for _ in range(MAX_ROUNDS):
        cuts = [table.cuts(minimum, medians_only) for table in tables]
        cuts = [cut if len(cut) <= rest else [] for cut, rest in zip(cuts, left, strict=True)]
        left = [rest - len(cut) for cut, rest in zip(cuts, left, strict=True)]
        asked = [index for index, cut in enumerate(cuts) if cut]
        if not asked:
            break
        names = tuple(scales[index].name for index in asked)
        edges = tuple(frozen([scales[index].threshold(cell) for cell in cuts[index]]) for index in asked)
        totals: tuple[Total, ...] = yield Bundle(tuple(SectionCounts(view, names, edges) for view in views))
        ends = np.cumsum([edge.size for edge in edges])[:-1]
        below = [np.split(np.rint(total["below"]).astype(np.int64), ends) for total in totals]
        for position, index in enumerate(asked):
            by_cut = np.stack([group[position] for group in below], axis=1).tolist()
            tables[index] = tables[index].refined(cuts[index], by_cut)
    return tuple(table.joined(minimum) for table in tables)
