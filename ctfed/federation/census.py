"""The census of a run: how many patients the contributing sites hold together, counted before the first question.

Each site gives its counts masked, and sealed for every other site, so that each site computes the federation's totals
itself. A gate judges small cells on them: bins of the time grid, the carriers of two-valued features, and the levels
of nominal ones.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray, IntArray
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import MalformedMessage, Refusal
from ctfed.federation.fixedpoint import add_limbs, from_limbs, to_limbs
from ctfed.federation.masking import Masks
from ctfed.federation.nominal import Nominal, rare_indicators
from ctfed.federation.session import CENSUS, Assembly, Opening, SealedCount, added_seals
from ctfed.federation.view import RowFilter, View

MISSING = " missing"  # what an imputed feature's indicator adds to its name


@dataclass(frozen=True)
class CensusPlan:
    """What is counted in every fold of the training split and in the test split, beside patients and events.

    Attributes:
        folds: number of cross-validation folds; 1 for none.
        edges: right-closed edges of the study's time grid; deaths and censored patients are counted in its bins.
        binary: columns of zeros and ones; their ones and zeros are counted.
        missing: columns whose missing values are counted, because the study makes indicators of them.
        subgroups: row filters of the study; everything is counted again in the rows of each.
        nominal: columns of codes; the patients at each of their levels are counted.
    """

    folds: int
    edges: tuple[float, ...] = ()
    binary: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    subgroups: tuple[RowFilter, ...] = ()
    nominal: tuple[Nominal, ...] = ()

    @property
    def bins(self) -> int:
        """Bins of the time grid, the open last one included; 0 without a grid."""
        return len(self.edges) + 1 if self.edges else 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """All rows and those of each subgroup; the folds of the training split and the test split; counts."""
        return 1 + len(self.subgroups), self.folds + 1, self.width

    @property
    def width(self) -> int:
        """Counts of one fold."""
        return self._levels_start + sum(len(column.levels) for column in self.nominal)

    @property
    def _levels_start(self) -> int:
        return 2 + 2 * self.bins + 2 * len(self.binary) + len(self.missing)

    @cached_property
    def counted(self) -> frozenset[str]:
        """Names of the columns whose values are counted."""
        return frozenset((*self.binary, *self.missing, *(column.name for column in self.nominal)))

    @cached_property
    def two_valued(self) -> frozenset[str]:
        """Names of the columns of two values, those that are made of others included."""
        made = (name for column in self.nominal for name in column.indicators)
        return frozenset((*self.binary, *(f"{name}{MISSING}" for name in self.missing), *made))

    def levels_of(self, counts: FloatArray) -> Iterator[tuple[Nominal, FloatArray]]:
        """Each nominal column with the (L,) patients at its levels, from the (width,) counts of some rows."""
        start = self._levels_start
        for column in self.nominal:
            yield column, counts[start : start + len(column.levels)]
            start += len(column.levels)

    @property
    def limbs(self) -> int:
        """Limbs of one site's census."""
        return 2 * math.prod(self.shape)

    def count(self, cohort: Cohort, rows: BoolArray) -> FloatArray:
        """(width,) counts of some rows (n,): patients, events, bins, ones and zeros, missing values, levels."""
        time, event = cohort.time[rows], cohort.event[rows].astype(bool)
        parts: list[FloatArray] = [np.array([time.size, event.sum()], dtype=np.float64)]
        if self.edges:
            bins = np.searchsorted(np.array(self.edges), time, side="left")
            cells = np.bincount(2 * bins + ~event, minlength=2 * self.bins)
            parts.append(cells.astype(np.float64))
        for name in self.binary:
            values = self._column(cohort, name)[rows]
            parts.append(np.array([(values == 1).sum(), (values == 0).sum()], dtype=np.float64))
        for name in self.missing:
            parts.append(np.array([np.isnan(self._column(cohort, name)[rows]).sum()], dtype=np.float64))
        for column in self.nominal:
            codes = self._column(cohort, column.name)[rows]
            parts.append((codes[:, None] == np.array(column.levels)).sum(axis=0).astype(np.float64))
        return np.concatenate(parts)

    @staticmethod
    def _column(cohort: Cohort, name: str) -> FloatArray:
        column = cohort.columns.get(name)
        if column is None:
            raise Refusal("unknown-column", f"this site's table has no column {name!r}, which the study counts")
        return column


@dataclass(frozen=True, eq=False)
class Census:
    """Counts of the federation's contributing sites.

    Attributes:
        plan: what was counted.
        table: (1 + subgroups, folds + 1, width) counts of the training rows of each fold, and of the test rows.
    """

    plan: CensusPlan
    table: FloatArray

    def of(self, view: View) -> tuple[int, int]:
        """Patients and events of a view's rows; none for a row filter that was not counted."""
        patients, events = self._rows(view)[:2]
        return round(float(patients)), round(float(events))

    def leavers(self, view: View, edges: FloatArray) -> FloatArray | None:
        """(bins, 2) deaths and censored patients of a view's rows between some edges; None when one is not counted."""
        plan = self.plan
        places = np.searchsorted(plan.edges, edges)
        counted = np.append(plan.edges, np.inf)[places]
        if not (counted == edges).all():
            return None
        fine = self._rows(view)[2 : 2 + 2 * plan.bins].reshape(plan.bins, 2)
        return np.asarray(np.add.reduceat(fine, [0, *(places + 1)], axis=0))

    def carriers(self, view: View, feature: str) -> int | None:
        """The fewer of a two-valued feature's patients with and without it; None when the feature is not counted.

        A column's missing values belong to neither. Of the codes of a nominal column, the patients at the level that
        fewest are at.
        """
        counts, patients = self._rows(view), self.of(view)[0]
        start = 2 + 2 * self.plan.bins
        if feature in self.plan.binary:
            place = start + 2 * self.plan.binary.index(feature)
            return round(float(min(counts[place], counts[place + 1])))
        for column, levels in self.plan.levels_of(counts):
            if feature == column.name:
                return round(float(levels[levels > 0].min(initial=float(patients))))
        name = feature.removesuffix(MISSING)
        if name == feature or name not in self.plan.missing:
            return None
        missing = round(float(counts[start + 2 * len(self.plan.binary) + self.plan.missing.index(name)]))
        return min(missing, patients - missing)

    def rare_indicators(self, view: View, minimum: int) -> dict[str, int]:
        """The indicators of nominal columns that must not stand in sums of products of a view's rows.

        With each, the patients that it would tell from all others: those at its level, or at the reference.
        """
        found: dict[str, int] = {}
        for column, levels in self.plan.levels_of(self._rows(view)):
            found |= {name: one.held for name, one in rare_indicators(column, levels, minimum).items()}
        return found

    def remainders(self, view: View) -> list[int]:
        """How many patients of a view's rows are outside its subgroup, and outside it and another one that it excludes.

        Totals over all rows and over the subgroups tell of these by subtraction.
        """
        if not view.rows:
            return []
        whole, own = self.of(replace(view, rows=(), transforms=(), beside=()))[0], self.of(view)[0]
        rest = [whole - own]
        for rule in self.plan.subgroups:
            if (rule,) != view.rows:
                other = self.of(replace(view, rows=(rule,), transforms=(), beside=()))[0]
                rest += [whole - own - other] if own + other <= whole else []
        return rest

    def _rows(self, view: View) -> FloatArray:
        counted = ((), *((rule,) for rule in self.plan.subgroups))
        if view.rows not in counted:
            return np.zeros(self.plan.width)
        chosen = [
            part
            for split, fold, part in self._parts[counted.index(view.rows)]
            if view.split in (split, "all") and (view.fold is None or (fold == view.fold) == view.held_out)
        ]
        return np.asarray(np.sum(chosen, axis=0)) if chosen else np.zeros(self.plan.width)

    @cached_property
    def _parts(self) -> list[list[tuple[str, int, FloatArray]]]:
        """Split, fold (-1 of test rows, as in a Cohort) and the counts there: of all rows, then of each subgroup."""
        return [
            [*(("train", fold, part) for fold, part in enumerate(table[:-1])), ("test", -1, table[-1])]
            for table in self.table
        ]


def _counted(cohort: Cohort, splits: Sequence[str], plan: CensusPlan) -> FloatArray:
    parts = []
    for kept in (np.ones(cohort.patients, dtype=bool), *(rule.keep(cohort) for rule in plan.subgroups)):
        train = kept & (cohort.split == "train") & ("train" in splits)
        parts += [plan.count(cohort, train & (cohort.fold == fold)) for fold in range(plan.folds)]
        parts.append(plan.count(cohort, kept & (cohort.split == "test") & ("test" in splits)))
    return np.concatenate(parts)


def sealed_count(cohort: Cohort, opening: Opening, plan: CensusPlan, masks: Masks, session: str) -> SealedCount:
    """This site's census, masked, with a seal for every other site.

    Raises:
        Refusal: rule 'unknown-column' when the table lacks a column that the study counts.
    """
    values = _counted(cohort, opening.splits, plan)
    masked = masks.mask(to_limbs(values, np.zeros(values.size, dtype=np.int64)), CENSUS)
    data = masked.astype("<i8").tobytes()
    message = session.encode() + data
    return SealedCount(
        masks.site, data.hex(), tuple(masks.seal(peer, masks.site, message) for peer in sorted(masks.peers))
    )


def open_census(assembly: Assembly, masks: Masks, plan: CensusPlan, own: SealedCount) -> Census:
    """The federation's counts, from what all other sites sealed for this one, and from its ``own``.

    Raises:
        Refusal: rule 'census-seal' when a count is not what its site sent; 'census-sum' when the counts do not add up.
    """
    expected = []
    for count in assembly.counts:
        if count.site != masks.site:
            expected.append(masks.seal(count.site, count.site, assembly.session_digest.encode() + count.data))
        elif count.limbs != own.limbs:  # or the server could add patients that nobody holds
            raise Refusal("census-seal", "the census in this site's own name is not the one that it gave")
    seal = assembly.seals[assembly.session.sites.index(masks.site)]
    if not hmac.compare_digest(added_seals(expected), seal):
        raise Refusal(
            "census-seal", "the census of another site is not what that site sent to this one, or it has another key"
        )
    return add_census([count.numbers for count in assembly.counts], plan)


def add_census(counts: Sequence[IntArray], plan: CensusPlan) -> Census:
    """The counts of all sites added up.

    Raises:
        Refusal: rule 'census-sum' when they do not open: a site took part in another session.
        MalformedMessage: when their sizes are not those of the plan.
    """
    if any(count.shape != (plan.limbs,) for count in counts):
        raise MalformedMessage(f"the census of this study has {plan.limbs} limbs")
    total = counts[0]
    for count in counts[1:]:
        total = add_limbs(total, count)
    values = from_limbs(total, np.zeros(plan.limbs // 2, dtype=np.int64))
    if not ((values >= 0).all() and (values == np.rint(values)).all() and (values < 1e9).all()):
        raise Refusal("census-sum", "the masked counts of the sites do not add up to counts: their sessions differ")
    return Census(plan, values.reshape(plan.shape))
