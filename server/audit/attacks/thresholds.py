"""Thresholds: counts below many cuts of a column or score, until a single patient stands between two of them.

Two cuts with one patient between them bound that patient's value; cuts that are close enough are the value. For a
score whose coefficients the server chose, an exact value can be the whole row: with weights 1, 100, 10000 ... the
digits of the score are the columns (see ``levels`` for scores that nobody chose).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.codec import digest
from ctfed.statistics.predict import LinearPredictor
from server.audit.patients import TOLERANCE, Candidate
from server.audit.rows import Rows
from server.audit.statements import Statement, everybody

MOST_COMBINATIONS = 2_000_000


@dataclass(frozen=True)
class Narrow:
    """One patient between two cuts.

    Attributes:
        rows: which rows.
        column: of the view.
        low, high: the value lies in (low, high].
        statement: one that told a cut of it.
    """

    rows: Rows
    column: str
    low: float
    high: float
    statement: Statement

    @property
    def exact(self) -> bool:
        """Whether the cuts are as close as a value is known."""
        return self.high - self.low <= TOLERANCE * max(abs(self.low), abs(self.high))


@dataclass(frozen=True, eq=False)
class Cut:
    """What the cuts tell.

    Attributes:
        candidates: rows whose only column, or whose digits, are known.
        narrow: single patients between finite cuts.
        cuts: how many different cuts there were.
    """

    candidates: tuple[Candidate, ...]
    narrow: tuple[Narrow, ...]
    cuts: int


def cut_apart(given: Sequence[Statement], levels: Mapping[str, FloatArray], folds: int) -> Cut:
    """Patients who stand alone between two cuts.

    Args:
        given: statements.
        levels: raw column -> its possible values.
        folds: of the study.
    """
    told: dict[tuple[Rows, str, str], dict[float, tuple[int, Statement]]] = defaultdict(dict)
    for one in given:
        for column, cut, count in _cuts(one):
            told[one.rows, digest(everybody(one.query.view)), column][cut] = (count, one)
    narrow = []
    for (rows, _, column), cuts in told.items():
        edges = sorted(cuts)
        for low, high in itertools.pairwise(edges):
            if cuts[high][0] - cuts[low][0] == 1:
                narrow.append(Narrow(rows, column, low, high, cuts[high][1]))
    candidates = [found for one in narrow if (found := _decoded(one, levels, folds)) is not None]
    return Cut(tuple(candidates), tuple(narrow), sum(len(cuts) for cuts in told.values()))


def _cuts(one: Statement) -> list[tuple[str, float, int]]:
    query = one.query
    if one.kind == "counts-below":
        pairs = zip(query.columns, query.thresholds, one.arrays["below"], strict=True)  # type: ignore[attr-defined]
        return [(name, float(cut), round(float(below))) for name, cut, below in pairs]
    if one.kind == "section-counts":
        cuts = [(name, cut) for name, row in zip(query.columns, query.thresholds, strict=True) for cut in row]  # type: ignore[attr-defined]
        return [(name, float(cut), round(float(n))) for (name, cut), n in zip(cuts, one.arrays["below"], strict=True)]
    if one.kind == "scores-below":
        thresholds: FloatArray = query.thresholds  # type: ignore[attr-defined]
        return [
            (query.view.names[model], float(cut), round(float(below)))
            for model, cuts in enumerate(thresholds)
            for cut, below in zip(cuts, one.arrays["below"][model], strict=True)
        ]
    return []


def _decoded(one: Narrow, levels: Mapping[str, FloatArray], folds: int) -> Candidate | None:
    """The only row of listed levels whose score lies between the cuts."""
    view = one.statement.query.view
    where = f"alone in ({one.low:.9g}, {one.high:.9g}] of {one.column!r} among the {one.rows.label(folds)}"
    if len(view.columns) == 1 and not view.transforms:
        return Candidate(everybody(view), np.array([one.high]), where) if one.exact else None
    if len(view.transforms) != 1 or not isinstance(view.transforms[0], LinearPredictor):
        return None
    weights = view.transforms[0].coefficients[view.names.index(one.column)]
    lists = [levels.get(feature.name) for feature in view.columns]
    known = [values for values in lists if values is not None]
    if len(known) < len(lists) or np.prod([len(v) for v in known], dtype=np.float64) > MOST_COMBINATIONS:
        return None
    rows = np.stack([part.ravel() for part in np.meshgrid(*known, indexing="ij")], axis=1)
    score = rows @ weights
    fitting = np.flatnonzero((score > one.low) & (score <= one.high))
    plain = everybody(view)
    return Candidate(type(view)(plain.columns, split="all"), rows[fitting[0]], where) if fitting.size == 1 else None
