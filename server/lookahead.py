"""Lookahead: ask a question early when it is the same whatever the answers before it will be.

Where people carry every exchange, exchanges are what a study costs. Before each one, the study is driven to its end
several times in this process, with the totals that are known so far and with those of invented patients for the rest.
A question that comes up in every one of these futures does not depend on the answers that are still missing, and
travels at once. The study asks what it would have asked, in fewer exchanges, and its result has the same bits.
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
from server.synthetic import synthetic_cohorts

R = TypeVar("R")

GUESSES = 3
PATIENTS = 120  # of each invented site
BUDGET = 64 * 2**20  # bytes that a site sends in one exchange


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
        known: dict[str, Total] = {}
        algorithm, reply, number = make(), None, 0
        while True:
            try:
                asked = algorithm.send(reply)
            except StopIteration as stop:
                result: R = stop.value
                return result
            queries = queries_of(asked)
            if any(digest(query) not in known for query in queries):
                together = self._together(make, known, queries, number)
                totals = yield Bundle(together)
                known.update(zip(map(digest, together), totals, strict=True))
                number += 1
            reply = reply_to(asked, [known[digest(query)] for query in queries]) if queries else ()

    def _together(
        self, make: Callable[[], Algorithm[Any]], known: dict[str, Total], queries: Sequence[Query], number: int
    ) -> tuple[Query, ...]:
        """What one exchange asks: what the algorithm waits for, and what it will ask in any case."""
        path = None if self._folder is None else self._folder / "asked" / f"{number:03d}"
        if path is not None and (kept := _read(path)):
            return kept
        now = {digest(query): query for query in queries if digest(query) not in known}
        futures = [dict(self._future(make, known, cohorts)) for cohorts in self._guesses()]
        about = {_about(query) for query in now.values()}
        used = sum(map(answer_bytes, now.values()))
        for key, query in futures[0].items():
            if key in now or _about(query) in about or not all(key in other for other in futures[1:]):
                continue
            used += answer_bytes(query)
            if used > BUDGET:
                break
            now[key] = query
            about.add(
                _about(query)
            )  # a second one of the kind would be a search, and each of its steps depends on the last
        together = tuple(now.values())
        if path is not None:
            _write(path, together)
        return together

    def _future(
        self, make: Callable[[], Algorithm[Any]], known: dict[str, Total], cohorts: Sequence[Cohort]
    ) -> Iterator[tuple[str, Query]]:
        """What would be asked from here on, if the patients were these.

        It ends where a search that has begun on real patients would go on with invented ones: nothing good follows.
        """
        answered, algorithm, reply = dict(known), make(), None
        real: set[tuple[object, ...]] = set()
        with one_blas_thread(), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            while True:
                try:
                    asked = algorithm.send(reply)
                    queries = queries_of(asked)
                    unknown = {digest(query): query for query in queries if digest(query) not in answered}
                    yield from unknown.items()
                    if any(_about(query) in real for query in unknown.values()):
                        return
                    real |= {_about(query) for query in queries if digest(query) in known}
                    answered |= {key: _total(query, cohorts) for key, query in unknown.items()}
                    reply = reply_to(asked, [answered[digest(query)] for query in queries]) if queries else ()
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
        """The two-valued features that the census has found too rare: no future may ask about them as if they were not.

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
        return frozenset(
            name for name, counts in held.items() if any(0 < count < study.evaluation.min_cell for count in counts)
        )


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
