"""Searches for medians and quantiles, several steps in one exchange.

Such a search asks how many patients lie below a threshold, and each step's thresholds depend on the counts before. The
thresholds that the next steps can ask are few, and are known beforehand; counts below all of them answer these steps,
whichever they will be. What is told more are counts at thresholds that the search passes by: so many that the sections
of a bracket hold a cell's patients on average (more only where all of a bracket's patients seem to have one value, at
which the search arrives anyway), and at most a share of what a site allows.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctfed.federation.algorithm import Algorithm, queries_of, reply_to
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import digest
from ctfed.federation.errors import CtfedError
from ctfed.federation.policy import Policy
from ctfed.federation.query import Query
from ctfed.federation.summary import Total
from ctfed.statistics.describe import Counts, Moments
from ctfed.statistics.impute import CountsBelow
from ctfed.statistics.scores import SECTIONS, ScoresBelow, score_medians
from ctfed.study import Study
from server.clinical import impute_variables
from server.evaluation import study_table

SHARE = 0.75  # of the thresholds that a site allows by default, which searches several steps at once may use up
TIED = 9  # sections into which a bracket of patients who seem to have one and the same value may be cut
STEEPNESS = (1.0, 2.0, 4.0)  # of invented distributions inside a bracket: even, and more and more narrow
AT_ONE_POINT = 1e3
PLACES = 4  # of them for each section that might be reached

Below = ScoresBelow | CountsBelow
Known = Callable[[Query], Total | None]
Column = tuple[str, str]  # digest of a view, name of a column


class Told:
    """What totals have told of how many patients lie below which threshold; it answers questions without asking."""

    def __init__(self) -> None:
        self._below: dict[Column, dict[float, float]] = defaultdict(dict)
        self._patients: dict[str, float] = {}
        self._sites: dict[str, int] = {}

    def learn(self, query: Query, total: Total) -> None:
        """Remember what a total tells of thresholds, or of how many patients there are."""
        view = digest(query.view)
        if isinstance(query, ScoresBelow | CountsBelow):
            self._sites[view] = total.sites
            for column, thresholds, below in zip(_columns(query), _rows(query), _counts(query, total), strict=True):
                self._below[view, column] |= dict(zip(thresholds.tolist(), below.tolist(), strict=True))
        elif isinstance(query, Counts | Moments):
            self._patients[view] = total.number("patients")

    def total(self, query: Query) -> Total | None:
        """The total of a question all of whose counts are known, else None."""
        if not isinstance(query, ScoresBelow | CountsBelow):
            return None
        view = digest(query.view)
        rows = [
            [self._below.get((view, column), {}).get(threshold) for threshold in thresholds.tolist()]
            for column, thresholds in zip(_columns(query), _rows(query), strict=True)
        ]
        if view not in self._sites or any(count is None for row in rows for count in row):
            return None
        return Total({"below": np.array(rows, dtype=np.float64).reshape(query.thresholds.shape)}, self._sites[view])

    def patients(self, query: Query) -> float | None:
        """How many there are in a question's rows, None where no total has told."""
        return self._patients.get(digest(query.view))

    def below(self, query: Below, column: str) -> Mapping[float, float]:
        """Threshold -> count of one column."""
        return self._below.get((digest(query.view), column), {})


def _columns(query: Below) -> tuple[str, ...]:
    return query.view.names if isinstance(query, ScoresBelow) else query.columns


def _rows(query: Below) -> FloatArray:
    """(columns, q) thresholds."""
    return query.thresholds.reshape(len(_columns(query)), -1)


def _counts(query: Below, total: Total) -> FloatArray:
    return total["below"].reshape(len(_columns(query)), -1)


def ahead(study: Study, query: Query, known: Known, told: Told) -> tuple[Query, ...]:
    """The questions to ask in place of one: with the thresholds of the next steps, where it is a step of a search.

    Args:
        study: its searches are known from it.
        query: what is to be asked.
        known: the totals so far.
        told: what they have told of thresholds.
    """
    patients = told.patients(query)
    if not isinstance(query, ScoresBelow | CountsBelow) or study.differential_privacy is not None or patients is None:
        return (query,)
    brackets = [_Brackets.of(study, query, told, column, patients) for column in range(len(_columns(query)))]
    search, sections = _search(study, query), _sections(query)
    depth = max(one.depth(sections) for one in brackets)
    waiting = _drive(search, known)
    if depth < 2 or not any(digest(one) == digest(query) for one in waiting):
        return (query,)
    for step in _steps(search, query, known, brackets, depth):
        for one, thresholds in zip(brackets, step, strict=True):
            one.add(thresholds)
    return _together(query, [one.asked for one in brackets])


def _search(study: Study, query: Below) -> Callable[[], Algorithm[Any]]:
    """The search of a study of which a question about these rows is a step, if it is one of a search at all."""
    if isinstance(query, CountsBelow):
        return lambda: impute_variables(study, query.view, ())
    if query.view.split == "train":
        return lambda: score_medians(query.view, study.evaluation.min_cell)
    return lambda: study_table(study, query.view)


def _sections(query: Below) -> int:
    """Into how many sections one step cuts a bracket, at most."""
    return SECTIONS if isinstance(query, ScoresBelow) else 2


def _drive(search: Callable[[], Algorithm[Any]], answer: Known) -> list[Query]:
    """The questions of the first round that ``answer`` does not know the totals of; none at the search's end."""
    algorithm, reply = search(), None
    while True:
        try:
            queries = queries_of(asked := algorithm.send(reply))
        except (StopIteration, CtfedError):
            return []
        totals = [answer(query) for query in queries]
        missing = [query for query, total in zip(queries, totals, strict=True) if total is None]
        if missing:
            return missing
        reply = reply_to(asked, [total for total in totals if total is not None]) if queries else ()


@dataclass
class _Brackets:
    """Between which thresholds a column's counts are known, and which thresholds are asked now.

    Attributes:
        edges, counts: ascending thresholds with their known counts, and the ends of what is searched.
        asked: the thresholds to ask, the question's own first.
        own: how many of them are the question's own.
        minimum: patients of a section, on average.
        left: thresholds that may still be told.
    """

    edges: list[float]
    counts: list[float]
    asked: list[float]
    own: int
    minimum: int
    left: float

    @classmethod
    def of(cls, study: Study, query: Below, told: Told, column: int, patients: float) -> _Brackets:
        """What is known before a question."""
        name, own = _columns(query)[column], sorted(set(_rows(query)[column].tolist()))
        below = dict(told.below(query, name))
        if isinstance(query, CountsBelow):
            low, high = study.columns[name].range
        else:
            reach = own[-1] - own[0]
            low, high = own[0] - reach, own[-1] + reach
        ends = {min(low, *below, *own): 0.0, max(high, *below, *own): patients}
        known = sorted((ends | below).items())
        left = SHARE * Policy().cuts_per_patient * patients - len(below)
        edges, counts = [edge for edge, _ in known], [count for _, count in known]
        return cls(edges, counts, own, len(own), study.evaluation.min_cell, left)

    def depth(self, sections: int) -> int:
        """How many steps the fullest bracket that is cut now has patients for."""
        most = min(self.left + 1, max(self._most(self._place(threshold)) for threshold in self.asked))
        return int(np.log(max(1.0, most)) / np.log(sections) + 1e-9)

    def _place(self, threshold: float) -> int:
        """The bracket (edges[i], edges[i + 1]] that holds a threshold."""
        return min(max(bisect_left(self.edges, threshold) - 1, 0), len(self.edges) - 2)

    def _most(self, place: int) -> float:
        """Into how many sections a bracket may be cut: of a cell's patients each, on average; into more where its
        patients are tied, because then most sections are empty."""
        held = self.counts[place + 1] - self.counts[place]
        return max(TIED if self._is_tied(place) else 0.0, held / self.minimum)

    def _is_tied(self, place: int) -> bool:
        """Whether a bracket's patients seem to have one value: the bracket beside it is as wide, and empty."""
        held, width = np.diff(self.counts), np.diff(self.edges)
        beside = [other for other in (place - 1, place + 1) if 0 <= other < held.size]
        return any(held[other] == 0 and width[other] >= width[place] * (1 - 1e-9) for other in beside)

    def add(self, thresholds: set[float]) -> None:
        """Ask these too, inside each bracket where they leave sections enough patients on average."""
        new = thresholds.difference(self.asked, self.edges)
        for place in sorted({self._place(threshold) for threshold in new}):
            inside = sorted(one for one in new if self._place(one) == place)
            already = sum(self._place(one) == place for one in self.asked)
            sections = already + len(inside) + 1
            if sections <= self._most(place) and len(self.asked) + len(inside) <= self.left:
                self.asked += inside

    def imagined(self, thresholds: FloatArray, place: float, steepness: float) -> list[float]:
        """Counts below thresholds, if the patients of each bracket were spread around ``place`` of its width."""
        found = []
        for threshold in thresholds.tolist():
            i = self._place(threshold)
            low, high = self.edges[i], self.edges[i + 1]
            share = (threshold - low) / (high - low) if high > low else 1.0
            slope = AT_ONE_POINT if self._is_tied(i) else steepness
            part = min(max(0.5 + (share - place) * slope, 0.0), 1.0)
            found.append(self.counts[i] + round((self.counts[i + 1] - self.counts[i]) * part))
        return found


def _steps(
    search: Callable[[], Algorithm[Any]], query: Below, known: Known, brackets: Sequence[_Brackets], depth: int
) -> list[list[set[float]]]:
    """The thresholds of each column that can be asked later: the next step's first, and of each step those first that
    are asked when patients are spread evenly."""
    columns = _columns(query)
    found: list[list[set[float]]] = [[set() for _ in columns] for _ in range((depth - 1) * len(STEEPNESS))]
    places = np.linspace(-0.5, 1.5, PLACES * _sections(query) ** depth)
    for (order, steepness), place in itertools.product(enumerate(STEEPNESS), places.tolist()):
        asked = _imagined(search, query, known, brackets, (place, steepness), depth)
        for step, one in enumerate(asked[1:]):
            held = found[step * len(STEEPNESS) + order]
            for name, thresholds in zip(_columns(one), _rows(one), strict=True):
                held[columns.index(name)].update(thresholds.tolist())
    return found


def _imagined(
    search: Callable[[], Algorithm[Any]],
    query: Below,
    known: Known,
    brackets: Sequence[_Brackets],
    spread: tuple[float, float],
    depth: int,
) -> list[Below]:
    """The steps of a search from a question on, if patients were spread so."""
    columns = _columns(query)
    asked: list[Below] = []

    def answer(one: Query) -> Total | None:
        total = known(one)
        if total is not None or not isinstance(one, ScoresBelow | CountsBelow) or len(asked) == depth:
            return total
        asked.append(one)
        below = [
            brackets[columns.index(name)].imagined(thresholds, *spread)
            for name, thresholds in zip(_columns(one), _rows(one), strict=True)
        ]
        return Total({"below": np.array(below, dtype=np.float64).reshape(one.thresholds.shape)}, 1)

    _drive(search, answer)
    return asked


def _together(query: Below, asked: Sequence[Sequence[float]]) -> tuple[Query, ...]:
    """Questions for all thresholds: one about scores, and one for each further threshold of columns."""
    if isinstance(query, ScoresBelow):
        most = max(map(len, asked))
        padded = [[*thresholds, *[thresholds[0]] * (most - len(thresholds))] for thresholds in asked]
        return (ScoresBelow(query.view, frozen(padded)),)
    more = []
    for k in range(1, max(map(len, asked))):
        held = [
            (name, thresholds[k]) for name, thresholds in zip(query.columns, asked, strict=True) if len(thresholds) > k
        ]
        more.append(CountsBelow(query.view, tuple(name for name, _ in held), frozen([value for _, value in held])))
    return (query, *more)
