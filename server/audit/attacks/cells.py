"""Cells: counts of one, in tables that a transcript holds and in differences of such tables.

A cell of one says that somebody exists with what the cell's edges say: a level of a column, a month of death, a range
of a risk score. It determines no row, but whoever knows that somebody takes part learns the rest of the cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.audit.statements import Statement

TABLES: Mapping[str, tuple[str, str]] = {  # kind -> array, what a cell says
    "time-counts": ("counts", "when somebody left, and whether by an event"),
    "group-counts": ("counts", "when, by an event or not, and in which risk group"),
    "evaluation-table": ("counts", "when, by an event or not, and which range of the score"),
    "level-counts": ("level", "that somebody has a level of one column"),
}


@dataclass(frozen=True)
class Single:
    """Cells of one patient in tables of one kind.

    Attributes:
        kind: of the query.
        says: what such a cell tells.
        cells: how many, each table's own.
        occupied: cells that hold anybody.
        derived: those of ``cells`` that only a difference of two tables shows.
    """

    kind: str
    says: str
    cells: int
    occupied: int
    derived: int


def single_cells(asked: Sequence[Statement], derived: Sequence[Statement]) -> tuple[Single, ...]:
    """Cells of one, by kind of table.

    Args:
        asked: the statements of the transcript itself.
        derived: those that differences add.
    """
    singles: Counter[str] = Counter()
    occupied: Counter[str] = Counter()
    extra: Counter[str] = Counter()
    for group, is_derived in ((asked, False), (derived, True)):
        for one in group:
            if one.kind not in TABLES:
                continue
            counts = np.rint(one.arrays[TABLES[one.kind][0]])
            found = int((counts == 1).sum())
            singles[one.kind] += found
            occupied[one.kind] += int((counts > 0).sum())
            extra[one.kind] += found if is_derived else 0
    return tuple(
        Single(kind, says, singles[kind], occupied[kind], extra[kind])
        for kind, (_, says) in TABLES.items()
        if occupied[kind]
    )
