"""The conductor: drives an algorithm over a transport, adds the sites' integers, and journals every total."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import IntArray
from ctfed.federation.bits import one_blas_thread
from ctfed.federation.errors import CtfedError, MalformedMessage
from ctfed.federation.fixedpoint import add_limbs, check_sites
from ctfed.federation.pooled import drive
from ctfed.federation.query import Query
from ctfed.federation.session import Assembly
from ctfed.federation.summary import Total
from ctfed.federation.wire import (
    Answer,
    Question,
    answer_of,
    bundle_digest,
    check_clear,
    encode_question,
    read_answer,
    read_totals,
)
from server.assembly import FEWEST_SITES, Agreement, assemble, assembly_body, read_assembly
from server.journal import Journal, RoundRecord

FORGETFUL = 3  # times that a site may ask for views again before they are always sent to it

R = TypeVar("R")
Progress = Callable[[RoundRecord, bool], None]


class Transport(Protocol):
    """A way to ask all sites of the roster. Returns only when every one of them has answered."""

    sites: tuple[str, ...]
    runner: str

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        """The answers of exactly the sites in ``questions``."""
        ...


def silent(record: RoundRecord, replayed: bool) -> None:
    """A progress callback that says nothing."""


class Conductor:
    """Runs one study's algorithm from its first round to its result."""

    def __init__(
        self,
        transport: Transport,
        journal: Journal,
        progress: Progress = silent,
        *,
        agreement: Agreement | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        """With an ``agreement`` the sites mask their answers; without, this server sees each site's sums."""
        check_sites(len(transport.sites))
        self.transport = transport
        self.journal = journal
        self.assembly: Assembly | None = None
        self._agreement = agreement
        self._tell = tell
        self._progress = progress
        self._round = 0
        self._known: dict[str, set[str]] = {site: set() for site in transport.sites}
        # Sites that start a process per message forget every view; they are sent the bodies without being asked first.
        self._forgetful: Counter[str] = Counter()

    def run(self, algorithm: Algorithm[R]) -> R:
        """The algorithm's result.

        Raises:
            JournalError: when the journal was written by another study or version.
            MalformedMessage: when a site's answer does not fit its question.
        """
        self._begin()
        with one_blas_thread():
            return drive(algorithm, self._ask)

    def _begin(self) -> None:
        if self._agreement is None or self.assembly is not None:
            return
        if self.journal.assembly is not None:
            self.assembly = read_assembly(self.journal.assembly)
            return
        self.assembly = assemble(self.transport, self.journal.run, self._agreement, self._tell)
        self.journal.begin(assembly_body(self.assembly))

    def _ask(self, queries: tuple[Query, ...]) -> tuple[Total, ...]:
        bundle = bundle_digest(queries)
        limbs = self.journal.replay(self._round, bundle)
        replayed = limbs is not None
        expected = [self._contributors(query) for query in queries]
        if limbs is not None:
            totals = _totals(limbs, queries, expected)
        else:
            started = time.perf_counter()
            limbs, up, down = self._collect(queries)
            totals = _totals(limbs, queries, expected)  # before it is journalled: no restart gets past what is no sum
            kinds = dict(Counter(query.kind for query in queries))
            record = RoundRecord(self._round, bundle, kinds, up, down, round(time.perf_counter() - started, 4))
            self.journal.record(record, limbs)
        self._progress(self.journal.rounds[self._round], replayed)
        self._round += 1
        return totals

    def _contributors(self, query: Query) -> int:
        """How many sites add to a query's total.

        Raises:
            CtfedError: when they are too few for a sum that tells nothing of one of them.
        """
        if self.assembly is None:
            return len(self.transport.sites)
        count = len(self.assembly.session.contributors(query.view))
        if count < FEWEST_SITES:
            raise CtfedError(
                f"{query.kind} asks about the {query.view.split} split, to which {count} sites contribute; a sum needs "
                f"at least {FEWEST_SITES} (a site with fewer patients than its own minimum sends zeros)"
            )
        return count

    def _collect(self, queries: tuple[Query, ...]) -> tuple[IntArray, int, int]:
        """The summed limbs of all sites, and the most bytes that any site sent and received."""
        up: Counter[str] = Counter()
        down: Counter[str] = Counter()
        limbs: dict[str, IntArray] = {}
        waiting = set(self.transport.sites)
        for _ in range(2):  # a site that restarted has forgotten its views, and is asked once more with their bodies
            questions = self._questions(queries, waiting)
            for site, answer in self.transport.ask(self._round, questions).items():
                down[site] += questions[site].size
                up[site] += answer.size
                with answer_of(site):
                    missing = read_answer(answer, questions[site], queries)
                    if self.assembly is None and not missing:
                        check_clear(answer.limbs, queries)
                if missing:
                    self._known[site].clear()
                    self._forgetful[site] += 1
                    continue
                if self._forgetful[site] < FORGETFUL:
                    self._known[site] |= questions[site].views
                limbs[site] = answer.limbs
            waiting = set(self.transport.sites) - set(limbs)
            if not waiting:
                break
        if waiting:
            raise MalformedMessage(f"site {min(waiting)!r} did not understand the views that were sent to it in full")
        total = limbs[self.transport.sites[0]]
        for site in self.transport.sites[1:]:
            total = add_limbs(total, limbs[site])
        # The most of any site; the answers themselves are not kept.
        return total, max(up.values()), max(down.values())

    def _questions(self, queries: tuple[Query, ...], sites: set[str]) -> dict[str, Question]:
        """One question per site; sites that know the same views share one object and its hash."""
        made: dict[frozenset[str], Question] = {}
        questions = {}
        for site in sorted(sites):
            known = frozenset(self._known[site])
            if known not in made:
                made[known] = encode_question(self.journal.run, self._round, queries, known, self.assembly)
            questions[site] = made[known]
        return questions


def _totals(limbs: IntArray, queries: tuple[Query, ...], expected: Sequence[int]) -> tuple[Total, ...]:
    """The totals of a round, each of as many sites as add to it.

    Raises:
        MalformedMessage: when they are not.
    """
    totals = read_totals(limbs, queries)
    for query, total, count in zip(queries, totals, expected, strict=True):
        if total.sites != count:
            raise MalformedMessage(
                f"the total of {query.kind} counts {total.sites} sites, expected {count}: a site answered in "
                "another session, or its answer was damaged"
            )
    return totals
