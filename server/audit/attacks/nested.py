"""Nested rows: differences of totals over sets of patients of which one lies inside the other.

Where two sets differ by one patient, the difference of their column sums is that patient's row. Where they differ by
two, sum and sum of squares give both values of every column: mean +- sqrt(squares / 2). More than two sets are
combined by linear algebra over the parts into which they cut the patients (folds and test rows).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ctfed.federation.arrays import FloatArray
from server.audit.patients import Candidate
from server.audit.rows import Rows
from server.audit.statements import SUMS, Statement, raw, with_differences

EXACT = 1e-9


@dataclass(frozen=True, eq=False)
class Few:
    """What differences tell of very small sets of rows.

    Attributes:
        candidates: rows of sets of one patient, and of two where there is one column.
        pairs: (2, p) both values of every column, for every set of two patients; which belong together is not known.
        smallest: the fewest patients of any set of rows whose column sums are known; 0 where none is.
        sets: how many sets of rows with known column sums there are.
    """

    candidates: tuple[Candidate, ...]
    pairs: tuple[FloatArray, ...]
    smallest: int
    sets: int


def small_sets(given: Sequence[Statement], folds: int) -> Few:
    """Patients in sets of one or two, among all sets whose column sums a transcript tells."""
    told = combined(with_differences([one for one in given if one.kind == SUMS]))
    candidates: list[Candidate] = []
    pairs, heads = [], []
    for one in told:
        count = np.rint(one.arrays["count"])
        held = int(count.max(initial=0))
        if held > 0:
            heads.append(held)
        view, where = raw(one.query.view), f"the {one.rows.label(folds)}: {one.source}"
        if held == 1:
            values = np.where(count == 1, one.arrays["sum"], np.nan)
            candidates.append(Candidate(view, values, where))
        elif held == 2 and (count == 2).all():
            values = _both(one)
            pairs.append(values)
            if values.shape[1] == 1:
                candidates += [Candidate(view, value, where) for value in values]
    return Few(tuple(candidates), tuple(pairs), min(heads, default=0), len(heads))


def _both(one: Statement) -> FloatArray:
    mean = one.arrays["sum"] / 2
    half = np.sqrt(np.maximum(one.arrays["squares"] / 2 - mean**2, 0.0))
    return np.stack([mean - half, mean + half])


def combined(given: Sequence[Statement]) -> list[Statement]:
    """The statements, and one for every part of the patients that all of them together tell apart.

    Statements of one key over plain sets of folds are linear equations for the sums over each fold; a fold whose sum
    they determine gets a statement of its own.
    """
    groups: dict[tuple[str, str], list[Statement]] = defaultdict(list)
    for one in given:
        if one.rows.but is None and not one.rows.filters:
            groups[one.key, one.rows.run].append(one)
    found = {(one.rows, one.key): one for one in given}
    for members in groups.values():
        atoms = sorted(set().union(*(one.rows.atoms for one in members)))
        design = np.array([[atom in one.rows.atoms for atom in atoms] for one in members], dtype=np.float64)
        inverse = np.linalg.pinv(design)
        for index in np.flatnonzero(np.abs(np.diag(inverse @ design) - 1) < EXACT):
            rows = Rows(frozenset({atoms[index]}), run=members[0].rows.run)
            arrays = {
                name: np.tensordot(inverse[index], np.stack([one.arrays[name] for one in members]), axes=1)
                for name in members[0].arrays
            }
            source = f"{len(members)} totals solved for one part"
            found.setdefault((rows, members[0].key), replace(members[0], rows=rows, arrays=arrays, source=source))
    return list(found.values())
