"""The borders between sites and server: questions as a site takes them in, answers as the server does."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

import border
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from mutations import asked_part, damaged_json, damaged_numbers, damaged_text, repaired
from target import Target

from ctfed.federation import CtfedError, FloatArray
from ctfed.federation.arrays import IntArray
from ctfed.federation.codec import canonical_json
from ctfed.federation.fixedpoint import add_limbs
from ctfed.federation.flower.records import pack_answer, unpack_answer, unpack_hello, unpack_question
from ctfed.federation.responder import Responder
from ctfed.federation.wire import (
    Answer,
    Asked,
    Invitation,
    Question,
    decode_question,
    encode_answer,
    encode_invitation,
    encode_question,
    encode_session,
    read_answer,
    read_census,
    read_opening,
    read_totals,
    summary_limbs,
)


def packed(text: str, numbers: FloatArray | IntArray) -> bytes:
    """A header and its numbers as one input: the text, a zero byte, the numbers."""
    return text.encode("utf-8", "surrogatepass") + b"\0" + np.ascontiguousarray(numbers).tobytes()


def unpacked(data: bytes, dtype: str) -> tuple[str, Any]:
    """The reverse; bytes that are not UTF-8 become characters that are not ASCII."""
    head, _, tail = data.partition(b"\0")
    return head.decode("utf-8", "replace"), np.frombuffer(tail[: len(tail) // 8 * 8], dtype=dtype)


class Questions(Target):
    """What a server sends to a site: decoded, judged by the guard, answered from the table."""

    name = "question"

    def seeds(self) -> list[bytes]:
        return [packed(question.header, question.values) for question in border.seed_questions(250)]

    def run(self, data: bytes) -> bool:
        question = Question(*unpacked(data, "<f8"))
        try:
            decoded = decode_question(question, {})
        except CtfedError:
            return False
        site = border.fresh(lenient=len(data) % 2 == 0)
        with suppress(CtfedError):
            site.answer(question)
        if isinstance(decoded, Asked) and len(data) % 2:
            self._answer(decoded, site)
        return True

    @staticmethod
    def _answer(asked: Asked, site: Responder) -> None:
        """Every query by itself, also where the guard refuses the round."""
        for query in asked.queries:
            try:
                summary_limbs(query, query.answer(site.cohort))
            except CtfedError:
                continue
            _ = query.exposure

    def damaged(self, data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.03:
            question = border.random_question(rng)
            return packed(question.header, question.values)
        text, values = unpacked(data, "<f8")
        if rng.random() < 0.4:
            values = damaged_numbers(values, rng)
            if rng.random() < 0.8:
                return packed(_renamed_views(text, values), values)
        if rng.random() < 0.15:
            return packed(damaged_text(text, rng), values)
        fix = (lambda header: repaired(header, values)) if rng.random() < 0.8 else (lambda header: header)
        return packed(damaged_json(text, rng, fix, asked_part), values)


def _renamed_views(text: str, values: FloatArray) -> str:
    """A question's header with the names that its views have with these numbers."""
    try:
        return json.dumps(repaired(json.loads(text), values))
    except (ValueError, RecursionError):
        return text


class Answers(Target):
    """What a site sends to the server: unpacked from Flower's records, read, and added to honest answers."""

    name = "answer"

    def __init__(self) -> None:
        started = border.federation()
        self._queries = border.usual_queries()
        self._question = encode_question(border.RUN, 0, self._queries, frozenset(), started.assembly)
        opening = Invitation(border.RUN, border.study().sha256, border.roster().digest)
        self._openings = encode_invitation(opening)
        self._census = encode_session(started.assembly.session)
        self._honest = {site: self._limbs(site) for site in border.SITES}

    def _limbs(self, site: str) -> IntArray:
        cohort = border.cohorts()[site]
        return np.concatenate([summary_limbs(query, query.answer(cohort)) for query in self._queries])

    def seeds(self) -> list[bytes]:
        limbs = self._honest[border.SITES[0]]
        answers = [
            encode_answer(self._question, limbs),
            Answer(
                canonical_json({"question": self._question.digest, "missing": sorted(self._question.views)}), limbs[:0]
            ),
            border.federation().responders["bern"].answer(self._openings),
            border.federation().responders["bern"].answer(self._census),
        ]
        return [packed(answer.header, answer.limbs) for answer in answers]

    def run(self, data: bytes) -> bool:
        text, limbs = unpacked(data, "<i8")
        for records in self._records(text, limbs, data):
            for unpack in (unpack_answer, unpack_question, unpack_hello):
                try:
                    unpack(records)
                except CtfedError:
                    continue
        answer = Answer(text, limbs)
        for read, question in ((read_opening, self._openings), (read_census, self._census)):
            try:
                read(answer, question)
                return True
            except CtfedError:
                continue
        try:
            if read_answer(answer, self._question, self._queries):
                return True
            total = answer.limbs
            for site in border.SITES[1:]:
                total = add_limbs(total, self._honest[site])
            totals = read_totals(total, self._queries)
            assert all(np.isfinite(array).all() for one in totals for array in one.values())
        except CtfedError:
            return False
        return True

    @staticmethod
    def _records(text: str, limbs: IntArray, data: bytes) -> list[RecordDict]:
        whole = pack_answer(Answer(text.encode("utf-8", "replace").decode(), limbs))
        odd = data[:1] or b"\0"
        config = ConfigRecord({"json": data[: len(data) // 2], "flat": data, "site": text[:100], "ctfed": len(data)})
        if odd[0] % 4:
            return [whole]
        array = Array("int64", (len(data),), "little-endian", data)
        return [
            whole,
            RecordDict({"header": config}),
            RecordDict({"header": whole["header"], "array": ArrayRecord({"flat": array})}),
        ]

    def damaged(self, data: bytes, rng: random.Random) -> bytes:
        text, limbs = unpacked(data, "<i8")
        if rng.random() < 0.5 and limbs.size:
            limbs = limbs.copy()
            for _ in range(rng.choice([1, 1, 4])):
                limbs[rng.randrange(limbs.size)] = rng.choice(
                    [0, 1, -1, 2**52, -(2**52), 2**62, 2**63 - 1, -(2**63), 3 << 16]
                )
            if rng.random() < 0.3:
                limbs = rng.choice([limbs[:-1], np.append(limbs, 0), limbs[::-1].copy(), limbs[:0]])
            if rng.random() < 0.6:
                return packed(text, limbs)
        return packed(damaged_text(text, rng) if rng.random() < 0.2 else damaged_json(text, rng), limbs)
