"""Groups of patients that a total over time bins tells apart: who leaves in an interval, who dies, who is censored.

``RiskSetSums`` gives the sum of exp(x beta) over each bin's leavers and over those of them who die, and at some points
the sums of x exp(x beta) as well. What does not die is censored. Two questions on different grids make finer intervals
together than either, wherever their edges and coefficients meet.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.codec import digest
from ctfed.federation.view import View
from ctfed.statistics.cox.pooled import RiskSetSums
from server.audit.rows import Rows
from server.audit.statements import Statement, everybody

POPULATIONS = ("leave", "die", "are censored")
OPEN = float("inf")


@dataclass(frozen=True, eq=False)
class Seen:
    """What a group's total was at one coefficient vector.

    Attributes:
        beta: (p,).
        amount: sum of exp(x beta) over the group.
        weighted: (p,) sum of x exp(x beta), None where it was not asked.
    """

    beta: FloatArray
    amount: float
    weighted: FloatArray | None


@dataclass(eq=False)
class Group:
    """Patients of some rows who leave in one interval in one way.

    Attributes:
        rows: the rows.
        view: columns and transforms of x.
        low, high: the interval (low, high].
        population: 'leave', 'die' or 'are censored'.
        count: how many, -1 where nothing tells it.
        seen: totals at different coefficient vectors.
    """

    rows: Rows
    view: View
    low: float
    high: float
    population: str
    count: int = -1
    seen: list[Seen] = field(default_factory=list)

    def label(self, folds: int) -> str:
        """Words for a report."""
        return f"those of the {self.rows.label(folds)} who {self.population} in ({self.low:g}, {self.high:g}]"


def disjoint(groups: Sequence[Group]) -> list[Group]:
    """The groups without leavers where deaths and censored patients are told apart: these are the same people."""
    apart = {(group.rows, group.low, group.high) for group in groups if group.population == "die"}
    return [g for g in groups if g.population != "leave" or (g.rows, g.low, g.high) not in apart]


@dataclass(eq=False)
class _Curve:
    """Cumulative sums up to each edge, of one quantity: edge -> (k,) array."""

    until: dict[float, FloatArray] = field(default_factory=dict)

    def add(self, edges: FloatArray, per_bin: FloatArray) -> None:
        """Take in (bins, k) sums."""
        for edge, value in zip([*edges.tolist(), OPEN], np.cumsum(per_bin, axis=0), strict=True):
            self.until.setdefault(edge, value)
        self.until.setdefault(0.0, np.zeros(per_bin.shape[1]))

    def intervals(self) -> list[tuple[float, float]]:
        edges = sorted(self.until)
        return list(itertools.pairwise(edges))

    def between(self, low: float, high: float) -> FloatArray | None:
        if low not in self.until or high not in self.until:
            return None
        return np.asarray(self.until[high] - self.until[low])


def head_counts(given: Iterable[Statement]) -> dict[Rows, _Curve]:
    """Rows -> curve of (events, censored), from every table that has a time axis."""
    curves: dict[Rows, _Curve] = defaultdict(_Curve)
    for one in given:
        if one.kind in ("time-counts", "group-counts", "evaluation-table"):
            counts = one.arrays["counts"]
            if one.kind != "time-counts":  # (m, T, groups, 2): the same patients for every model
                counts = counts[0].sum(axis=1)
            curves[one.rows].add(one.query.grid.edges, counts)  # type: ignore[attr-defined]
        elif one.kind == "risk-set-sums":
            query = one.query
            assert isinstance(query, RiskSetSums)
            zero = np.flatnonzero((query.coefficients == 0).all(axis=1) & (one.arrays["declined"] == 0))
            if zero.size:
                deaths = one.arrays["deaths"]
                leavers = np.rint(one.arrays["leaving"][:, zero[0]])
                curves[one.rows].add(query.grid.edges, np.stack([deaths, leavers - deaths], axis=1))
    return dict(curves)


def time_groups(given: Sequence[Statement]) -> list[Group]:
    """Every group that the risk sums of a transcript tell apart, with all that is told of it."""
    counts = head_counts(given)
    sums: dict[tuple[Rows, str], list[Statement]] = defaultdict(list)
    for one in given:
        if one.kind == "risk-set-sums":
            sums[one.rows, digest(everybody(one.query.view))].append(one)
    groups: dict[tuple[Rows, str, float, float, str], Group] = {}
    for (rows, chain), members in sums.items():
        view = everybody(members[0].query.view)
        for beta, population, curve, weighted in _curves(members):
            for low, high in curve.intervals():
                key = (rows, chain, low, high, population)
                if key not in groups:
                    count = _count(counts.get(rows), low, high, population)
                    groups[key] = Group(rows, view, low, high, population, count)
                amount, means = curve.between(low, high), weighted.between(low, high)
                assert amount is not None
                groups[key].seen.append(Seen(beta, float(amount[0]), means))
    return list(groups.values())


def _curves(members: Sequence[Statement]) -> list[tuple[FloatArray, str, _Curve, _Curve]]:
    """Curves of the amounts (1,) and of the weighted x (p,), by population and coefficients that no site declined."""
    found: dict[tuple[bytes, str], tuple[FloatArray, str, _Curve, _Curve]] = {}
    for one in members:
        query, total = one.query, one.arrays
        assert isinstance(query, RiskSetSums)
        for index, beta in enumerate(query.coefficients):
            if total["declined"][index] > 0:
                continue
            amounts = _apart(total, "", index)
            means = _apart(total, "_x", query.means.index(index)) if index in query.means else []
            for place, amount in enumerate(amounts):
                key = (beta.tobytes(), POPULATIONS[place])
                _, _, curve, weighted = found.setdefault(key, (beta, POPULATIONS[place], _Curve(), _Curve()))
                curve.add(query.grid.edges, amount[:, None])
                if means:
                    weighted.add(query.grid.edges, means[place])
    return list(found.values())


def _apart(total: Mapping[str, FloatArray], name: str, index: int) -> list[FloatArray]:
    """Per bin, the sums over all leavers, and where deaths are told apart over these and over the censored."""
    at = (index,) if name else (slice(None), index)
    leaving = np.asarray(total[f"leaving{name}"][at])
    if f"dying{name}" not in total:
        return [leaving]
    dying = np.asarray(total[f"dying{name}"][at])
    return [leaving, dying, leaving - dying]


def _count(curve: _Curve | None, low: float, high: float, population: str) -> int:
    if curve is None:
        return -1
    found = curve.between(low, high)
    if found is None:
        return -1
    deaths, censored = np.rint(found)
    return int(dict(zip(POPULATIONS, (deaths + censored, deaths, censored), strict=True))[population])
