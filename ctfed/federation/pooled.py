"""run_pooled: drive an algorithm in this process, through the same wire format and integers as every other runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ctfed.federation.algorithm import Algorithm, queries_of, reply_to
from ctfed.federation.bits import one_blas_thread
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import MalformedMessage
from ctfed.federation.fixedpoint import add_limbs, check_sites
from ctfed.federation.query import Query
from ctfed.federation.responder import Responder
from ctfed.federation.summary import Total
from ctfed.federation.wire import Answer, Question, encode_question, read_answer, read_totals

R = TypeVar("R")
Ask = Callable[[tuple[Query, ...]], tuple[Total, ...]]


@dataclass
class Traffic:
    """What a run cost: rounds, and bytes per site."""

    rounds: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    kinds: list[tuple[str, ...]] = field(default_factory=list)


def drive(algorithm: Algorithm[R], ask: Ask) -> R:
    """Advance an algorithm to its result; ``ask`` answers each round's queries with their totals."""
    reply = None
    while True:
        try:
            asked = algorithm.send(reply)
        except StopIteration as stop:
            result: R = stop.value
            return result
        queries = queries_of(asked)
        reply = reply_to(asked, ask(queries) if queries else ())


def run_pooled(algorithm: Algorithm[R], cohorts: Sequence[Cohort], traffic: Traffic | None = None) -> R:
    """The result of ``algorithm`` over the cohorts, all held in this process (tests, notebooks, oracles).

    Raises:
        CtfedError: when there is no cohort, or there are more than fixed-point sums allow.
        MalformedMessage: when a query or a summary cannot travel; the same checks as over a network.
        Refusal: when a site declines.
    """
    check_sites(len(cohorts))
    responders = [Responder(cohort) for cohort in cohorts]
    counted = traffic if traffic is not None else Traffic()
    known: set[str] = set()

    def answered(responder: Responder, question: Question, queries: tuple[Query, ...]) -> Answer:
        answer = responder.answer(question)
        if missing := read_answer(answer, question, queries):  # a site keeps so many views and no more
            known.difference_update(missing)
            whole = encode_question("in-process", counted.rounds, queries, frozenset(known))
            answer = responder.answer(whole)
            if read_answer(answer, whole, queries):
                raise MalformedMessage("a site in this process forgets views between two questions")
        return answer

    def ask(queries: tuple[Query, ...]) -> tuple[Total, ...]:
        question = encode_question("in-process", counted.rounds, queries, frozenset(known))
        limbs = None
        for responder in responders:
            answer = answered(responder, question, queries)
            limbs = answer.limbs if limbs is None else add_limbs(limbs, answer.limbs)
        known.update(question.views)
        counted.rounds += 1
        counted.bytes_down += question.size
        counted.bytes_up += answer.size
        counted.kinds.append(tuple(query.kind for query in queries))
        assert limbs is not None
        return read_totals(limbs, queries)

    with one_blas_thread():
        return drive(algorithm, ask)
