"""The wire format: a round's Bundle as a Question, a site's summaries as an Answer.

A Question is canonical JSON and one flat float64 array. An Answer is JSON and one flat int64 array of fixed-point
limbs; names, shapes and scales are not sent, because both ends know them from the queries' layouts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ctfed.federation.arrays import FloatArray, IntArray
from ctfed.federation.codec import Decoder, Encoder, canonical_json, digest
from ctfed.federation.errors import MalformedMessage
from ctfed.federation.fixedpoint import from_limbs, to_limbs
from ctfed.federation.query import Query
from ctfed.federation.summary import Summary, Total, layout_exponents, layout_size, split_flat
from ctfed.federation.view import View

FORMAT = 1
MAX_HEADER = 64 * 2**20  # characters of JSON
MAX_QUERIES = 100_000


@dataclass(frozen=True, eq=False)
class Question:
    """What travels to a site: canonical JSON, and all arrays of all queries as one flat float64 array."""

    header: str
    values: FloatArray
    views: frozenset[str] = frozenset()  # digests of the views it names; told to nobody

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of header and values; an answer echoes it."""
        return hashlib.sha256(self.header.encode() + b"\0" + self.values.astype("<f8").tobytes()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes on the wire, without the transport's own envelope."""
        return len(self.header.encode()) + self.values.nbytes


@dataclass(frozen=True, eq=False)
class Answer:
    """What travels back: JSON that echoes the question's digest, and one flat array of int64 limbs."""

    header: str
    limbs: IntArray

    @property
    def size(self) -> int:
        """Bytes on the wire, without the transport's own envelope."""
        return len(self.header.encode()) + self.limbs.nbytes


def bundle_digest(queries: Sequence[Query]) -> str:
    """SHA-256 (hex) over the queries' own digests: names a round's content, whoever knows which views."""
    return hashlib.sha256("".join(digest(query) for query in queries).encode()).hexdigest()


def encode_question(run: str, round_number: int, queries: Sequence[Query], known: frozenset[str]) -> Question:
    """Pack queries for a site that already holds the shared objects (views) whose digests are in ``known``."""
    encoder = Encoder()
    asked = [encoder.encode(query) for query in queries]
    bodies = Encoder()
    shared = {key: None if key in known else bodies.body(view) for key, view in sorted(encoder.shared.items())}
    header = {"ctfed": FORMAT, "run": run, "round": round_number, "shared": shared, "queries": asked}
    values = np.concatenate([bodies.flat(), encoder.flat()])
    return Question(canonical_json(header), values, frozenset(shared))


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is given twice")
    return table


def _parse_header(text: str, what: str, keys: set[str]) -> dict[str, Any]:
    if len(text) > MAX_HEADER or not text.isascii():
        raise MalformedMessage(f"the {what} must be ASCII of at most {MAX_HEADER} characters")
    try:
        header = json.loads(text, object_pairs_hook=_table)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"the {what} is not JSON") from error
    if not isinstance(header, dict) or set(header) != keys:
        raise MalformedMessage(f"the {what} must have the keys {sorted(keys)}")
    return header


@dataclass(frozen=True)
class Decoded:
    """A question as a site understands it. ``missing`` names views that the site must ask for first."""

    run: str
    round_number: int
    queries: tuple[Query, ...]
    missing: tuple[str, ...]


def decode_question(question: Question, views: dict[str, View]) -> Decoded:
    """Check and unpack a question; views that arrive with it are added to ``views``.

    Raises:
        MalformedMessage: for anything that the format does not allow.
    """
    header = _parse_header(question.header, "question", {"ctfed", "run", "round", "shared", "queries"})
    if type(header["ctfed"]) is not int or header["ctfed"] != FORMAT:
        raise MalformedMessage(f"the question has format {header['ctfed']!r:.20}, this site understands {FORMAT}")
    run, round_number = header["run"], header["round"]
    if not isinstance(run, str) or len(run) > 200 or type(round_number) is not int or round_number < 0:
        raise MalformedMessage("the question's run must be a short text and its round a number >= 0")
    if not isinstance(header["queries"], list) or not 0 < len(header["queries"]) <= MAX_QUERIES:
        raise MalformedMessage(f"a question holds 1 to {MAX_QUERIES} queries")
    if not isinstance(header["shared"], dict):
        raise MalformedMessage("the question's shared objects must be a table")
    decoder = Decoder(question.values)
    _learn_views(header["shared"], decoder, views)
    missing = tuple(sorted(key for key in header["shared"] if key not in views))
    if missing:
        return Decoded(run, round_number, (), missing)
    decoder.share(views)
    queries = tuple(decoder.build(body, Query, f"queries[{index}]") for index, body in enumerate(header["queries"]))
    if not decoder.exhausted:
        raise MalformedMessage("the question holds more numbers than its queries use")
    return Decoded(run, round_number, queries, ())


def _learn_views(shared: Mapping[str, Any], decoder: Decoder, views: dict[str, View]) -> None:
    for key in sorted(shared):
        if shared[key] is None:
            continue
        view = decoder.build(shared[key], View, f"shared[{key:.12}]")
        if digest(view) != key:
            raise MalformedMessage(f"the view sent as {key:.12} has another digest")
        views[key] = view


def encode_answer(question: Question, queries: Sequence[Query], summaries: Sequence[Summary]) -> Answer:
    """One site's summaries as limbs; before each summary stands the number 1 that counts this site as contributor."""
    header = canonical_json({"question": question.digest, "missing": []})
    limbs = [_summary_limbs(query, summary) for query, summary in zip(queries, summaries, strict=True)]
    return Answer(header, np.concatenate(limbs))


def _summary_limbs(query: Query, summary: Summary) -> IntArray:
    flat = np.concatenate([[1.0], summary.flat()])
    return to_limbs(flat, _exponents(query))


def _exponents(query: Query) -> IntArray:
    return np.concatenate([np.zeros(1, dtype=np.int64), layout_exponents(query.layout)])


def missing_views(question: Question, missing: Sequence[str]) -> Answer:
    """The answer of a site that needs the bodies of some views before it can answer."""
    header = canonical_json({"question": question.digest, "missing": list(missing)})
    return Answer(header, np.zeros(0, dtype=np.int64))


def read_answer(answer: Answer, question: Question, queries: Sequence[Query]) -> tuple[str, ...]:
    """Check an answer against its question and return the views that the site still needs (usually none).

    Raises:
        MalformedMessage: when the answer belongs to another question, or has another size than the layouts say.
    """
    header = _parse_header(answer.header, "answer", {"question", "missing"})
    if header["question"] != question.digest:
        raise MalformedMessage("the answer belongs to another question")
    missing = header["missing"]
    if not isinstance(missing, list) or not all(isinstance(key, str) and key in question.views for key in missing):
        raise MalformedMessage("the answer's missing views must be digests of views that the question names")
    expected = 0 if missing else 2 * sum(1 + layout_size(query.layout) for query in queries)
    if answer.limbs.dtype != np.int64 or answer.limbs.shape != (expected,):
        raise MalformedMessage(f"the answer has shape {answer.limbs.shape}, the queries' layouts need ({expected},)")
    return tuple(missing)


def read_totals(limbs: IntArray, queries: Sequence[Query]) -> tuple[Total, ...]:
    """The totals that summed limbs stand for, query by query."""
    totals, start = [], 0
    for query in queries:
        size = 2 * (1 + layout_size(query.layout))
        numbers = from_limbs(limbs[start : start + size], _exponents(query))
        totals.append(Total(split_flat(query.layout, numbers[1:]), sites=int(numbers[0])))
        start += size
    return tuple(totals)
