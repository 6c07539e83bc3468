"""Bins: the rows of a few patients from the sums of exp(x beta) and x exp(x beta) that a time bin told at many beta.

For k patients with p values each, every coefficient vector gives one equation, or 1 + p where the weighted means are
asked as well: sum_i exp(x_i beta) = a, sum_i x_i exp(x_i beta) = b. With as many equations as the k p unknowns the
rows follow, up to their order, by non-linear least squares from random starts. No knowledge of any patient is needed:
the same totals say how many patients a bin holds. It is the multivariate form of finding numbers from their power
sums (Newton, Prony).

References: Levenberg 1944; Marquardt 1963 (the solver).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray
from server.audit.attacks.least_squares import Solution, minimise
from server.audit.patients import Candidate
from server.audit.statements import Statement
from server.audit.timebins import Group, disjoint, time_groups

LARGEST_GROUP = 12
STARTS = 8
NOISE = 1e-14  # of a total, relative: what rounding leaves
SOLVED = 1e-10  # relative residual at which the equations hold

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """What the equations of the bins gave.

    Attributes:
        candidates: rows that they determine.
        groups: how many groups of 2 to LARGEST_GROUP patients there were.
        underdetermined: groups with fewer equations than unknown values.
        unsolved: groups with enough equations that no start solved, or that were solved by more than one set of rows.
    """

    candidates: tuple[Candidate, ...]
    groups: int
    underdetermined: int
    unsolved: int


def rebuild_bins(
    given: Sequence[Statement], folds: int, seed: int = 0, tell: Progress = lambda _: None, starts: int = STARTS
) -> Rebuilt:
    """Rows of the patients in small bins, wherever a transcript tells enough of the bin."""
    rng = np.random.default_rng(seed)
    groups = [group for group in disjoint(time_groups(given)) if 2 <= group.count <= LARGEST_GROUP]
    candidates: list[Candidate] = []
    poor = failed = 0
    for number, group in enumerate(groups):
        width = group.view.width
        equations = sum(1 if seen.weighted is None else 1 + width for seen in group.seen)
        if equations < group.count * width:
            poor += 1
            continue
        tell(f"bins: group {number + 1} of {len(groups)}, {group.count} patients")
        rows = _solve(group, rng, starts)
        if rows is None:
            failed += 1
            continue
        for place, row in enumerate(rows):
            where = f"{place + 1} of the {group.count} of {group.label(folds)}"
            candidates.append(Candidate(group.view, row, where))
    return Rebuilt(tuple(candidates), len(groups), poor, failed)


def _solve(group: Group, rng: np.random.Generator, starts: int) -> FloatArray | None:
    """(k, p) rows in rising order of their first column; None unless the equations determine them."""
    shape = (group.count, group.view.width)
    equations = _Equations(group)
    for _ in range(starts):
        found = minimise(equations, rng.normal(size=shape).ravel(), iterations=200, enough=SOLVED**2 / 100)
        if found.loss < SOLVED**2 * equations.size and _precise(found):
            rows = found.x.reshape(shape)
            return np.asarray(rows[np.lexsort(rows.T[::-1])])
    return None


def _precise(found: Solution) -> bool:
    """Whether rounding of the totals moves no value by more than a millionth."""
    singular = np.linalg.svd(found.jacobian, compute_uv=False)
    return singular.size == found.x.size and bool(NOISE / max(singular[-1], 1e-300) < 1e-6)


class _Equations:
    """Relative residuals of a group's totals, and their derivatives."""

    def __init__(self, group: Group) -> None:
        self._shape = (group.count, group.view.width)
        self._beta = np.stack([seen.beta for seen in group.seen])
        self._amount = np.array([seen.amount for seen in group.seen])
        self._asked = [(m, seen.weighted) for m, seen in enumerate(group.seen) if seen.weighted is not None]
        self.size = len(group.seen) + len(self._asked) * self._shape[1]

    def __call__(self, flat: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(e,) residuals and (e, k p) Jacobian at (k p,) values."""
        x = flat.reshape(self._shape)
        risk = np.exp(np.clip(x @ self._beta.T, -700, 700))
        residual = [risk.sum(axis=0) / self._amount - 1]
        jacobian = [np.einsum("im,mj->mij", risk, self._beta).reshape(len(self._beta), -1) / self._amount[:, None]]
        for m, weighted in self._asked:
            size = np.maximum(np.abs(weighted), self._amount[m])
            residual.append((risk[:, m] @ x - weighted) / size)
            slope = np.einsum("i,ij,k->jik", risk[:, m], x, self._beta[m])
            slope[np.arange(x.shape[1]), :, np.arange(x.shape[1])] += risk[:, m]
            jacobian.append(slope.reshape(x.shape[1], -1) / size[:, None])
        return np.concatenate(residual), np.vstack(jacobian)
