"""What an attack claims, and whether it is true: candidate rows compared with the patients themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.codec import digest
from ctfed.federation.cohort import Cohort
from ctfed.federation.view import View
from server.audit.statements import everybody

TOLERANCE = 1e-6  # of a value, or of the column's root mean square where a value is near zero


@dataclass(frozen=True, eq=False)
class Candidate:
    """One patient's row, as an attack has worked it out.

    Attributes:
        view: whose columns and transforms the values are in; its choice of rows is not looked at.
        values: (p,).
        where: how it was found, in words.
    """

    view: View
    values: FloatArray
    where: str

    @property
    def row(self) -> dict[str, float]:
        """Column -> value."""
        return dict(zip(self.view.names, self.values.tolist(), strict=True))


class Truth:
    """Patients of some sites, against which candidates are checked. Never an input of an attack."""

    def __init__(self, cohorts: Sequence[Cohort]) -> None:
        self._cohorts = tuple(cohorts)
        self._tables: dict[str, FloatArray] = {}

    @property
    def patients(self) -> int:
        """How many."""
        return sum(cohort.patients for cohort in self._cohorts)

    def matches(self, candidate: Candidate) -> frozenset[int]:
        """Patients whose values equal the candidate's to a millionth, in every column where they have one."""
        table = self._table(candidate.view)
        size = np.sqrt(np.nanmean(table**2, axis=0)) if table.shape[0] else np.ones(table.shape[1])
        reach = TOLERANCE * np.maximum(np.abs(table), size)
        near = np.isnan(table) | (np.abs(table - candidate.values) <= reach)
        found = near.all(axis=1) & ~np.isnan(table).all(axis=1)
        return frozenset(np.flatnonzero(found).tolist())

    def determined(self, *lists: Iterable[Candidate]) -> frozenset[int]:
        """Patients that lists of candidates, one per attack, get right.

        Candidates of one list that were found in different places are different patients, also where these are alike in
        every column; candidates of different lists may be the same ones.
        """
        total: set[int] = set()
        for candidates in lists:
            mine: dict[str, int] = {}
            for candidate in candidates:
                free = self.matches(candidate).difference(mine.values())
                if candidate.where not in mine and free:
                    mine[candidate.where] = min(free & total or free)
            total.update(mine.values())
        return frozenset(total)

    def _table(self, view: View) -> FloatArray:
        whole = everybody(view)
        key = digest(whole)
        if key not in self._tables:
            self._tables[key] = np.vstack([whole.build(cohort).values for cohort in self._cohorts])
        return self._tables[key]
