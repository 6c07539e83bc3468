"""Responder: one site's side of every transport. Decode, answer, encode; nothing else leaves a site.

The order of the steps is the seam where the site's gate (before a query is answered), the masks (after the limbs are
made) and the ledger (before an answer is returned) take their places.
"""

from __future__ import annotations

from ctfed.federation.bits import one_blas_thread
from ctfed.federation.codec import digest
from ctfed.federation.cohort import Cohort
from ctfed.federation.summary import Summary
from ctfed.federation.view import View
from ctfed.federation.wire import Answer, Question, decode_question, encode_answer, missing_views

MOST_VIEWS = 4096  # held at once; a server names views that were dropped again, and is asked for their bodies

MASKED = False  # answers are sums over one site's patients in clear fixed point until secure summation masks them


class Responder:
    """Answers questions from one site's cohort. Keeps views (global parameters) and cached matrices, no more."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self._views: dict[str, View] = {}

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
        while len(self._views) > MOST_VIEWS:
            self._views.pop(next(iter(self._views)))
        decoded = decode_question(question, self._views)
        if decoded.missing:
            return missing_views(question, decoded.missing)
        answered: dict[str, Summary] = {}
        summaries = []
        with one_blas_thread():
            for query in decoded.queries:
                key = digest(query)
                if key not in answered:
                    answered[key] = query.answer(self.cohort)
                summaries.append(answered[key])
        return encode_answer(question, decoded.queries, summaries)
