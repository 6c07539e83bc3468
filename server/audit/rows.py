"""Rows: which patients a total is over, as far as its question says, and which of these sets lie inside which."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ctfed.federation.arrays import BoolArray
from ctfed.federation.cohort import Cohort
from ctfed.federation.view import RowFilter, View, Within

TEST = -1


@dataclass(frozen=True)
class Rows:
    """A set of patients in the server's terms.

    Attributes:
        atoms: folds of the training rows, and TEST; every patient is in exactly one.
        filters: all of which a patient passes.
        but: patients taken out again: these rows are a difference of two totals.
        run: tells runs on different cohorts apart.
    """

    atoms: frozenset[int]
    filters: tuple[RowFilter, ...] = ()
    but: Rows | None = None
    run: str = ""

    @classmethod
    def of(cls, view: View, folds: int, run: str = "") -> Rows:
        """The rows of a view in a study with so many folds."""
        train = frozenset(range(folds))
        if view.fold is not None:
            atoms = frozenset({view.fold}) if view.held_out else train - {view.fold}
        else:
            atoms = {"train": train, "test": frozenset({TEST}), "all": train | {TEST}}[view.split]
        return cls(atoms, tuple(sorted(set(view.rows), key=repr)), None, run)

    def inside(self, other: Rows) -> bool:
        """True when every patient of these rows is in ``other``, and the two are not the same set of questions."""
        if self == other or self.run != other.run or self.but is not None or other.but is not None:
            return False
        return self.atoms <= other.atoms and all(
            any(_implies(own, wanted) for own in self.filters) for wanted in other.filters
        )

    def minus(self, part: Rows) -> Rows:
        """These rows without ``part``, which lies inside them."""
        if self.run == part.run and self.filters == part.filters and self.but is None and part.but is None:
            return replace(self, atoms=self.atoms - part.atoms)
        return replace(self, but=part)

    def chosen(self, cohort: Cohort) -> BoolArray:
        """(n,) True for the cohort's patients in these rows, whichever run they belong to."""
        atom = np.where(cohort.split == "train", cohort.fold, TEST)
        keep = np.isin(atom, sorted(self.atoms))
        for rule in self.filters:
            keep &= rule.keep(cohort)
        return keep if self.but is None else keep & ~self.but.chosen(cohort)

    def label(self, folds: int) -> str:
        """Words for a report."""
        train = frozenset(range(folds))
        missing = sorted(train - self.atoms)
        named = {train: "training rows", frozenset({TEST}): "test rows", train | {TEST}: "all rows"}
        if self.atoms in named:
            words = named[self.atoms]
        elif TEST not in self.atoms and len(missing) < len(train) / 2:
            words = f"training rows without fold {', '.join(map(str, missing))}"
        else:
            parts = ["test rows" if atom == TEST else f"fold {atom}" for atom in sorted(self.atoms)]
            words = " and ".join(parts) if parts else "no rows"
        for rule in self.filters:
            words += f", {rule}"
        if self.run:
            words += f" of {self.run}"
        return words if self.but is None else f"{words} but not {self.but.label(folds)}"


def _implies(own: RowFilter, wanted: RowFilter) -> bool:
    """True when whoever passes ``own`` passes ``wanted``."""
    if own == wanted:
        return True
    if not (isinstance(own, Within) and isinstance(wanted, Within)):
        return False
    return own.column == wanted.column and own.low >= wanted.low and own.high <= wanted.high
