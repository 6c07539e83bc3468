"""Levels: one exact number about one patient, and a data dictionary of whole numbers, can be the patient's row.

Where subtraction leaves a single patient's risk score x beta to the last digits, and every column takes one of a few
thousand values (a sex, a grade, an age in years), the combinations can be listed. Two halves of the columns are listed
apart and matched (meet in the middle), so that 10**12 combinations take 10**6 steps.

Reference: Horowitz, Sahni 1974, Journal of the ACM 21:277 (two-list search).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray
from server.audit.patients import Candidate
from server.audit.statements import affine, applied
from server.audit.timebins import Group

TOLERANCE = 5e-14  # of a score, from the rounding of the totals
LARGEST_HALF = 4_000_000


@dataclass(frozen=True, eq=False)
class Read:
    """What the levels of the columns made of the scores.

    Attributes:
        candidates: whole rows.
        partial: how many patients have all columns determined whose coefficient is not zero, but not the others.
        ambiguous: scores that more than one combination (or none) explains.
        unread: scores with too many combinations, or without levels for a column.
    """

    candidates: tuple[Candidate, ...]
    partial: int
    ambiguous: int
    unread: int


def read_levels(groups: Sequence[Group], levels: Mapping[str, FloatArray], folds: int) -> Read:
    """Rows of single patients from their scores.

    Args:
        groups: of one patient each, with the totals that are the patient's exp(x beta).
        levels: raw column -> its possible values; a column that is not named can take any.
        folds: of the study.
    """
    candidates = []
    partial = ambiguous = unread = 0
    for group in groups:
        halves = _halves(group, levels)
        if halves is None:
            unread += 1
            continue
        found = _match(halves, group)
        if len(found) != 1:
            ambiguous += 1
        elif halves.silent:
            partial += 1
        else:
            where = f"the only one of {group.label(folds)}, whose score has one explanation"
            candidates.append(Candidate(group.view, found[0], where))
    return Read(tuple(candidates), partial, ambiguous, unread)


@dataclass(frozen=True, eq=False)
class _Half:
    """All combinations of some columns: (c, p) values in the view's columns (0 elsewhere) and (c,) their score."""

    values: FloatArray
    score: FloatArray


@dataclass(frozen=True, eq=False)
class _Halves:
    """Two lists of combinations, and whether a column of the view does not move the score."""

    left: _Half
    right: _Half
    silent: bool


def _halves(group: Group, levels: Mapping[str, FloatArray]) -> _Halves | None:
    seen = next(one for one in group.seen if one.beta.any() and one.amount > 0)
    options: list[FloatArray] = []
    silent = False
    for index, feature in enumerate(group.view.columns):
        if feature.name not in levels:
            return None
        found = _options(group, index, levels[feature.name])
        if found is None:
            return None
        if (found @ seen.beta == 0).all():
            silent = True
            continue
        options.append(found)
    left: list[FloatArray] = []
    right: list[FloatArray] = []
    for option in sorted(options, key=len, reverse=True):
        (left if _size(left) <= _size(right) else right).append(option)
    if not options or max(_size(left), _size(right)) > LARGEST_HALF:
        return None
    return _Halves(_listed(left, seen.beta), _listed(right, seen.beta), silent)


def _options(group: Group, index: int, levels: FloatArray) -> FloatArray | None:
    """(o, p) what the view's columns become for each level of one raw column, and for a missing value.

    None when the view mixes columns, so that other columns move too.
    """
    step = affine(group.view)
    if step is None:
        return None
    name = group.view.columns[index].name
    missing = [] if np.isnan(step.fill[index]) else [np.nan]
    tried = np.zeros((len(levels) + len(missing), len(group.view.columns)))
    tried[:, index] = [*levels, *missing]
    own = [at for at, column in enumerate(group.view.names) if column in (name, f"{name} missing")]
    rows = np.zeros((tried.shape[0], group.view.width))
    rows[:, own] = applied(group.view, tried)[:, own]
    return np.unique(rows, axis=0)  # a missing value can become one of the levels


def _size(options: Sequence[FloatArray]) -> int:
    return int(np.prod([len(option) for option in options], dtype=np.float64)) if options else 1


def _listed(options: Sequence[FloatArray], beta: FloatArray) -> _Half:
    values = np.zeros((1, beta.size))
    for option in options:
        values = (values[:, None, :] + option[None, :, :]).reshape(-1, beta.size)
    return _Half(values, values @ beta)


def _match(halves: _Halves, group: Group) -> list[FloatArray]:
    """At most two different rows that explain every total that is told of the patient."""
    told = [(seen.beta, float(np.log(seen.amount))) for seen in group.seen if seen.beta.any() and seen.amount > 0]
    first = next(score for beta, score in told)
    order = np.argsort(halves.right.score, kind="stable")
    ranked = halves.right.score[order]
    reach = TOLERANCE * max(1.0, abs(first))
    low = np.searchsorted(ranked, first - halves.left.score - reach, side="left")
    high = np.searchsorted(ranked, first - halves.left.score + reach, side="right")
    found: list[FloatArray] = []
    for index in np.flatnonzero(high > low):
        for place in range(low[index], high[index]):
            row = halves.left.values[index] + halves.right.values[order[place]]
            if all(abs(row @ beta - score) <= reach for beta, score in told):
                found.append(row)
                if len(found) > 1:
                    return found
    return found
