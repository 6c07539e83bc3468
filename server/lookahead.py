"""Lookahead: ask a question early when it is the same whatever the answers before it will be.

Where people carry every exchange, exchanges are what a study costs. Before each one, the study is driven to its end
several times in this process, with the totals that are known so far and with those of invented patients for the rest.
A question that comes up in every one of these futures does not depend on the answers that are still missing, and
travels at once. Where the next evaluation of a Cox fit will be its last (see ``convergence``), what follows the fit is
asked beside it; and a search for medians and quantiles is asked several steps at once (see ``searches``). The study
gets the totals that it would have got, in fewer exchanges, and its result has the same bits.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ctfed.federation.algorithm import Algorithm, Bundle, answer_bytes, queries_of, reply_to
from ctfed.federation.bits import one_blas_thread
from ctfed.federation.census import MISSING
from ctfed.federation.codec import digest
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.fixedpoint import add_limbs
from ctfed.federation.query import Query
from ctfed.federation.summary import Total
from ctfed.federation.view import View
from ctfed.federation.wire import Question, decode_question, encode_question, read_totals, summary_limbs
from ctfed.study import Study, census_of
from server.assembly import opened_census, read_assembly
from server.convergence import Fits
from server.searches import Told, ahead
from server.synthetic import synthetic_cohorts

R = TypeVar("R")

GUESSES = 3
PATIENTS = 120  # of each invented site
BUDGET = 64 * 2**20  # bytes that a site sends in one exchange


class _Record:
    """The totals so far, and what follows from them."""

    def __init__(self, *, private: bool) -> None:
        """``private``: every question costs privacy, so that none may be asked in vain."""
        self._private = private
        self.told = Told()
        self.fits = Fits()
        self._totals: dict[str, Total] = {}

    def learn(self, queries: Sequence[Query], totals: Sequence[Total]) -> None:
        """Add a round."""
        for query, total in zip(queries, totals, strict=True):
            self._totals[digest(query)] = total
            self.told.learn(query, total)
            if not self._private:
                self.fits.learn(query, total)

    def total(self, query: Query) -> Total | None:
        """The total of a question, None where it must be asked."""
        found = self._totals.get(digest(query))
        return self.told.total(query) if found is None else found


def foresees(study: Study) -> bool:
    """Whether the futures of a study are run before each exchange: those of a study of many models take minutes to
    hours, so that there only the steps of searches and the ends of fits are foreseen."""
    return study.model is not None


class Lookahead:
    """The algorithm that asks early, and what it has asked, which is kept so that no future is computed twice."""

    def __init__(self, study: Study, sites: int, folder: Path | None) -> None:
        """``folder`` holds the study's journal; without one nothing is kept (a study in this process)."""
        self._study = study
        self._sites = sites
        self._folder = folder
        self._futures: list[tuple[Cohort, ...]] = []

    def around(self, make: Callable[[], Algorithm[R]]) -> Algorithm[R]:
        """The algorithm that ``make`` begins, with the same result in fewer rounds.

        Args:
            make: begins the algorithm; every call must ask the same when it is answered the same.
        """
        known = _Record(private=self._study.differential_privacy is not None)
        algorithm, reply, number = make(), None, 0
        while True:
            try:
                asked = algorithm.send(reply)
            except StopIteration as stop:
                result: R = stop.value
                return result
            queries = queries_of(asked)
            if any(known.total(query) is None for query in queries):
                together = self._together(make, known, queries, number)
                totals = yield Bundle(together)
                known.learn(together, totals)
                number += 1
            reply = _reply(asked, known.total)

    def _together(
        self, make: Callable[[], Algorithm[Any]], known: _Record, queries: Sequence[Query], number: int
    ) -> tuple[Query, ...]:
        """What one exchange asks: what the algorithm waits for, what it will ask in any case, and steps of searches."""
        path = None if self._folder is None else self._folder / "asked" / f"{number:03d}"
        if path is not None and (kept := _read(path)):
            return kept
        now = {digest(query): query for query in queries if known.total(query) is None}
        about = {_about(query) for query in now.values()}
        used = sum(map(answer_bytes, now.values()))
        for key, query in self._certain(make, known, tuple(now.values())).items():
            if key in now or _about(query) in about:
                continue  # a second one of the kind would be a search, and each of its steps depends on the last
            used += answer_bytes(query)
            if used > BUDGET:
                break
            now[key] = query
            about.add(_about(query))
        finer = [one for query in now.values() for one in ahead(self._study, query, known.total, known.told)]
        together = tuple({digest(query): query for query in finer}.values())
        if path is not None:
            _write(path, together)
        return together

    def _certain(
        self, make: Callable[[], Algorithm[Any]], known: _Record, waiting: Sequence[Query]
    ) -> dict[str, Query]:
        """What is asked in every future, in the order of the first."""
        if foresees(self._study):
            futures = [dict(self._future(make, known, cohorts)) for cohorts in self._guesses()]
        elif any(known.fits.last(query) is not None for query in waiting):
            futures = [dict(self._future(make, known, ()))]
        else:
            return {}
        return {key: query for key, query in futures[0].items() if all(key in other for other in futures[1:])}

    def _future(
        self, make: Callable[[], Algorithm[Any]], known: _Record, cohorts: Sequence[Cohort]
    ) -> Iterator[tuple[str, Query]]:
        """What would be asked from here on, if the patients were these, and if fits end where that is to be expected.

        It ends where a search that has begun on real patients would go on with invented ones: nothing good follows.
        Without patients it ends where anything but the end of a fit is asked.
        """
        answered: dict[str, Total] = {}
        algorithm, reply, expecting = make(), None, False
        real: set[tuple[object, ...]] = set()

        def total(query: Query) -> Total | None:
            found = known.total(query)
            return answered.get(digest(query)) if found is None else found

        with one_blas_thread(), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            while True:
                try:
                    asked = algorithm.send(reply)
                    queries = queries_of(asked)
                    unknown = {digest(query): query for query in queries if total(query) is None}
                    yield from (item for item in unknown.items() if not expecting or _is_harmless(item[1]))
                    ends = {key: end for key, query in unknown.items() if (end := known.fits.last(query)) is not None}
                    expecting = expecting or bool(ends)
                    invented = [query for key, query in unknown.items() if key not in ends]
                    if any(_about(query) in real for query in invented) or (invented and not cohorts):
                        return
                    real |= {_about(query) for query in queries if known.total(query) is not None}
                    answered |= ends | {digest(query): _total(query, cohorts) for query in invented}
                    reply = _reply(asked, total)
                # Invented totals beside real ones need not fit together; this future ends where they do not.
                except (StopIteration, CtfedError, ArithmeticError, ValueError, LookupError):
                    return

    def _guesses(self) -> list[tuple[Cohort, ...]]:
        if not self._futures:
            rare = self._rare()
            self._futures = [
                synthetic_cohorts(self._study, min(self._sites, 3), PATIENTS, guess, rare) for guess in range(GUESSES)
            ]
        return self._futures

    def _rare(self) -> frozenset[str]:
        """The two-valued features, and the levels of nominal ones, that the census has found too rare: no future may
        ask about them as if they were not.

        Without a census (no journal yet, or none at all) none is.
        """
        body = None if self._folder is None else assembly_in(self._folder)
        if body is None:
            return frozenset()
        study, plan = self._study, census_of(self._study)
        census = opened_census(read_assembly(body), plan)
        train = View(study.features, split="train")
        views = [train] + [train.training_fold(fold) for fold in range(study.folds) if study.folds > 1]
        names = [*plan.binary, *(f"{name}{MISSING}" for name in plan.missing)]
        held = {name: [census.carriers(view, name) or 0 for view in views] for name in names}
        minimum = study.evaluation.min_cell
        found = {name for name, counts in held.items() if any(0 < count < minimum for count in counts)}
        return frozenset(found | {name for view in views for name in census.rare_indicators(view, minimum)})


def _reply(asked: Query | Bundle, total: Callable[[Query], Total | None]) -> Total | tuple[Total, ...]:
    """The reply to what was asked, all of whose totals are known."""
    queries = queries_of(asked)
    found = [one for query in queries if (one := total(query)) is not None]
    return reply_to(asked, found) if queries else ()


def assembly_in(folder: Path) -> object:
    """What the journal in a folder has of the run's beginning, None before it."""
    path = folder / "journal.jsonl"
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.readline()
        line = file.readline()
    body = json.loads(line) if line.endswith(b"\n") else {}
    return body.get("assembly")


def _about(query: Query) -> tuple[object, ...]:
    """What a question is and of which rows and columns; further ones of the same are steps of a search."""
    return query.kind, digest(query.view), getattr(query, "columns", ())


def _is_harmless(query: Query) -> bool:
    """Whether a question may be asked although its fit might not have ended: sites count no table and no sum by time
    bin of which a study has few, and no threshold."""
    exposure = query.exposure
    return exposure is not None and not (exposure.cells or exposure.cuts or exposure.points or exposure.means)


def _total(query: Query, cohorts: Sequence[Cohort]) -> Total:
    limbs = None
    for cohort in cohorts:
        own = summary_limbs(query, query.answer(cohort))
        limbs = own if limbs is None else add_limbs(limbs, own)
    assert limbs is not None
    return read_totals(limbs, (query,))[0]


def _write(path: Path, queries: tuple[Query, ...]) -> None:
    """Keep what was asked: a study that goes on must ask it again, and need not find it out again."""
    question = encode_question("asked", 0, queries, frozenset())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".f8").write_bytes(question.values.astype("<f8").tobytes())
    partial = path.with_suffix(".part")
    partial.write_text(question.header, encoding="ascii")
    partial.replace(path.with_suffix(".json"))


def _read(path: Path) -> tuple[Query, ...] | None:
    header = path.with_suffix(".json")
    if not header.exists():
        return None
    values = np.frombuffer(path.with_suffix(".f8").read_bytes(), dtype="<f8").astype(np.float64)
    asked = decode_question(Question(header.read_text(encoding="ascii"), values), {})
    return getattr(asked, "queries", None)
