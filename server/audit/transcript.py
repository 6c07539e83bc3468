"""Transcript: everything that a server holds of a run, every question in clear and its total.

An honest-but-curious server follows the protocol and then looks at what it has. It knows no site's sums; a server that
colludes with some sites knows those sites' sums too and can take them away from the totals (``Transcript.minus``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ctfed import __version__
from ctfed.federation.algorithm import Algorithm, Bundle, queries_of
from ctfed.federation.bits import one_blas_thread
from ctfed.federation.codec import digest
from ctfed.federation.cohort import Cohort
from ctfed.federation.pooled import drive, run_pooled
from ctfed.federation.query import Query
from ctfed.federation.session import Session
from ctfed.federation.summary import Total
from ctfed.federation.view import View
from ctfed.federation.wire import bundle_digest, read_totals
from ctfed.study import Study
from server.assembly import read_assembly
from server.journal import Journal, JournalError
from server.study_algorithm import study_algorithm

R = TypeVar("R")
Contributes = Callable[[Cohort, View], bool]


@dataclass(frozen=True, eq=False)
class Exchange:
    """One question and what came back for it.

    Attributes:
        round: from 0.
        query: the question.
        total: the sum of all sites.
    """

    round: int
    query: Query
    total: Total


@dataclass(frozen=True, eq=False)
class Transcript:
    """All exchanges of a run, in their order.

    Attributes:
        exchanges: what was asked and told.
        folds: number of the study's cross-validation folds; every training patient is in one of them.
        rounds: round trips.
        complete: False when the run had not ended.
        session: what the sites said when the run began; None without masks.
    """

    exchanges: tuple[Exchange, ...]
    folds: int
    rounds: int
    complete: bool = True
    session: Session | None = None

    @property
    def distinct(self) -> tuple[Exchange, ...]:
        """The exchanges without repetitions of the same question, whose totals are the same."""
        found: dict[str, Exchange] = {}
        for exchange in self.exchanges:
            found.setdefault(digest(exchange.query), exchange)
        return tuple(found.values())

    def minus(self, cohorts: Sequence[Cohort], contributes: Contributes | None = None) -> Transcript:
        """What the server holds of the other sites when the sites of ``cohorts`` hand it their sums.

        Args:
            cohorts: of the colluding sites.
            contributes: whether a site added to totals over a view; by default the session decides, without one all
                did.
        """
        decide = contributes or self._contributed
        with one_blas_thread():
            return replace(self, exchanges=tuple(_minus(exchange, cohorts, decide) for exchange in self.exchanges))

    def _contributed(self, cohort: Cohort, view: View) -> bool:
        return self.session is None or cohort.site in self.session.contributors(view)


def _minus(exchange: Exchange, cohorts: Sequence[Cohort], contributes: Contributes) -> Exchange:
    query = exchange.query
    own = [query.answer(cohort) for cohort in cohorts if contributes(cohort, query.view)]
    rest = {name: array - sum(one[name] for one in own) for name, array in exchange.total.items()}
    return replace(exchange, total=Total(rest, exchange.total.sites - len(own)))


def recording(algorithm: Algorithm[R], exchanges: list[Exchange]) -> Algorithm[R]:
    """The same algorithm, which writes every question and its total into ``exchanges``."""
    reply: Any = None
    number = 0
    while True:
        try:
            asked = algorithm.send(reply)
        except StopIteration as stop:
            result: R = stop.value
            return result
        reply = yield asked
        totals = reply if isinstance(asked, Bundle) else (reply,)
        queries = queries_of(asked)
        exchanges += [Exchange(number, query, total) for query, total in zip(queries, totals, strict=True)]
        number += bool(queries)


def record(algorithm: Algorithm[R], cohorts: Sequence[Cohort], folds: int = 1) -> tuple[R, Transcript]:
    """Run an algorithm in this process; its result and the server's transcript."""
    exchanges: list[Exchange] = []
    result = run_pooled(recording(algorithm, exchanges), cohorts)
    rounds = 1 + max((exchange.round for exchange in exchanges), default=-1)
    return result, Transcript(tuple(exchanges), folds, rounds)


class _Ended(Exception):
    """The journal holds no further round."""


def replay(folder: Path, study: Study) -> Transcript:
    """The transcript of the run whose results are in ``folder``: the study's questions, the journal's totals.

    Raises:
        JournalError: when there is no journal, or it belongs to another study or another version of ctfed.
    """
    path = folder / "journal" / "journal.jsonl"
    journal = Journal(path, _header(path, study))
    exchanges: list[Exchange] = []
    asked = 0

    def ask(queries: tuple[Query, ...]) -> tuple[Total, ...]:
        nonlocal asked
        limbs = journal.replay(asked, bundle_digest(queries))
        if limbs is None:
            raise _Ended
        asked += 1
        return read_totals(limbs, queries)

    complete = True
    try:
        with one_blas_thread():
            drive(recording(study_algorithm(study), exchanges), ask)
    except _Ended:
        complete = False
    session = None if journal.assembly is None else read_assembly(journal.assembly).session
    return Transcript(tuple(exchanges), study.folds, asked, complete, session)


def _header(path: Path, study: Study) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            written = json.loads(file.readline())
    except OSError as error:
        raise JournalError(f"{path}: there is no journal of a run ({error.strerror}); name a run's folder") from error
    except ValueError as error:
        raise JournalError(f"{path}: the first line is not the header of a journal") from error
    if not isinstance(written, dict):
        raise JournalError(f"{path}: the first line is not the header of a journal")
    return {"study": study.sha256, "sites": written.get("sites"), "ctfed": __version__}
