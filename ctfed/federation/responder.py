"""Responder: one site's side of every transport. Decode, answer, encode; nothing else leaves a site.

With a guard the site answers nothing that its gate does not let through, and nothing that is not masked. Without one
it answers in clear fixed point: for tests, notebooks and simulations on data that may be shared.
"""

from __future__ import annotations

import numpy as np

from ctfed.federation.arrays import IntArray
from ctfed.federation.bits import one_blas_thread
from ctfed.federation.codec import digest
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError, Refusal
from ctfed.federation.guard import Guard
from ctfed.federation.query import Query
from ctfed.federation.session import Session
from ctfed.federation.summary import Summary
from ctfed.federation.wire import (
    Answer,
    Asked,
    Invitation,
    Question,
    bundle_digest,
    decode_question,
    encode_answer,
    encode_census,
    encode_opening,
    missing_views,
    summary_limbs,
)

# Objects held at once, and bytes of the questions that brought them; a server names those that were dropped again, and
# is asked for their bodies.
MOST_SHARED = 20_000
MOST_SHARED_BYTES = 2**30


class Responder:
    """Answers questions from one site's cohort. Keeps views (global parameters) and cached matrices, no more."""

    def __init__(self, cohort: Cohort, guard: Guard | None = None) -> None:
        self.cohort = cohort
        self.guard = guard
        self._shared: dict[str, object] = {}
        self._shared_bytes = 0

    @property
    def site(self) -> str:
        """The site's name in the roster."""
        return self.cohort.site

    def answer(self, question: Question) -> Answer:
        """The site's answer; asked the same question again, it gives the same bits.

        Raises:
            MalformedMessage: when the question is not what the wire format allows.
            Refusal: when the site declines; only its rule's name may be told to the server.
        """
        decoded = self._decode(question)
        run = decoded.run
        try:
            if isinstance(decoded, Invitation | Session):
                return self._begin(question, decoded)
            if decoded.missing:
                return missing_views(question, decoded.missing)
            return self._round(question, decoded)
        except Refusal as refusal:
            if self.guard is not None:
                facts: dict[str, object] = {"round": None}
                if isinstance(decoded, Asked):
                    facts["round"] = decoded.round_number
                    if refusal.of_data:
                        facts["question"] = bundle_digest(decoded.queries)
                self.guard.ledger.refuse(run, refusal.rule, refusal.sentence, facts)
            raise

    def _decode(self, question: Question) -> Asked | Invitation | Session:
        if self._shared_bytes > MOST_SHARED_BYTES:
            self._shared.clear()
            self._shared_bytes = 0
        while len(self._shared) > MOST_SHARED:
            self._shared.pop(next(iter(self._shared)))
        known = len(self._shared)
        try:
            return decode_question(question, self._shared)
        finally:
            self._shared_bytes += question.size if len(self._shared) > known else 0

    def _begin(self, question: Question, decoded: Invitation | Session) -> Answer:
        if self.guard is None:
            raise Refusal("no-keys", "this site was started without keys and a roster, so it cannot mask its answers")
        if isinstance(decoded, Invitation):
            return encode_opening(question, self.guard.open(decoded, self.cohort))
        return encode_census(question, self.guard.census(decoded, self.cohort))

    def _round(self, question: Question, asked: Asked) -> Answer:
        if self.guard is None:
            if asked.assembly is not None:
                raise Refusal("no-keys", "this site was started without keys and a roster, so it cannot mask")
            return encode_answer(question, _limbs(asked, self._summaries(asked)))
        stored = self.guard.replay(asked)
        if stored is None:
            spent = self.guard.admit(asked, self.cohort)
            summaries, limbs = self._computed(asked)
            stored = self.guard.send(asked, summaries, limbs, spent)
        return encode_answer(question, stored)

    def _computed(self, asked: Asked) -> tuple[list[Summary | None], IntArray]:
        """The site's sums and their limbs; what the data do not allow is marked, because the guard counts it."""
        try:
            summaries = self._summaries(asked)
            return summaries, _limbs(asked, summaries)
        except CtfedError as error:
            refusal = error if isinstance(error, Refusal) else Refusal("not-answerable", str(error))
            refusal.of_data = True
            raise refusal from error

    def _summaries(self, asked: Asked) -> list[Summary | None]:
        """The site's sums, query by query; None where it does not contribute. Equal queries are answered once."""
        answered: dict[str, Summary | None] = {}
        with one_blas_thread():
            for query in asked.queries:
                key = digest(query)
                if key not in answered:
                    answered[key] = self._summary(asked, query) if self._contributes(asked, query) else None
        return [answered[digest(query)] for query in asked.queries]

    def _summary(self, asked: Asked, query: Query) -> Summary:
        summary = query.answer(self.cohort)
        return summary if self.guard is None else self.guard.with_noise(asked, query, summary)

    def _contributes(self, asked: Asked, query: Query) -> bool:
        return self.guard is None or self.guard.contributes(asked, query, self.site)


def _limbs(asked: Asked, summaries: list[Summary | None]) -> IntArray:
    return np.concatenate([summary_limbs(*pair) for pair in zip(asked.queries, summaries, strict=True)])
