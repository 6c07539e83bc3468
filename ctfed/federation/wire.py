"""The wire format: a round's Bundle as a Question, a site's summaries as an Answer.

A Question is canonical JSON and one flat float64 array. An Answer is JSON and one flat int64 array of fixed-point
limbs; names, shapes and scales are not sent, because both ends know them from the queries' layouts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from ctfed.federation.arrays import FloatArray, IntArray
from ctfed.federation.codec import Decoder, Encoder, canonical_json, digest, is_shared
from ctfed.federation.errors import MalformedMessage
from ctfed.federation.fixedpoint import MAX_SITES, from_limbs, in_range, to_limbs
from ctfed.federation.query import Query
from ctfed.federation.session import RUN_NAME, Assembly, Opening, SealedCount, Session
from ctfed.federation.summary import MAX_NUMBERS, Summary, Total, layout_exponents, layout_size, split_flat

T = TypeVar("T")

FORMAT = 3
MAX_HEADER = 64 * 2**20  # characters of a question's JSON
MAX_ANSWER_HEADER = 2 * 2**20  # characters of an answer's JSON
MAX_NODES = 1_000_000  # lists and tables in a header; each takes up to a few hundred bytes of memory
MAX_QUERIES = 100_000
MAX_SHARED = 20_000  # views that one question names
MAX_ROUND = 2**31 - 1

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class Question:
    """What travels to a site: canonical JSON, and all arrays of all queries as one flat float64 array."""

    header: str
    values: FloatArray
    views: frozenset[str] = frozenset()  # digests of the shared objects (views) it names; told to nobody

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


def encode_question(
    run: str, round_number: int, queries: Sequence[Query], known: frozenset[str], assembly: Assembly | None = None
) -> Question:
    """Pack queries for a site that already holds the shared objects whose digests are in ``known``.

    Without an ``assembly`` the answers are not masked.

    Raises:
        MalformedMessage: when a query cannot travel, or the answer would hold more than ``MAX_NUMBERS``.
    """
    numbers = 0
    for index, query in enumerate(queries):
        numbers = _check_answer(query, numbers, f"queries[{index}]")
    encoder = Encoder()
    session = encoder.encode(assembly)
    asked = [encoder.encode(query) for query in queries]
    shared, arrays = _encode_shared(encoder.shared, known)
    header = {
        "ctfed": FORMAT,
        "run": run,
        "round": round_number,
        "assembly": session,
        "shared": shared,
        "queries": asked,
    }
    values = np.concatenate([*arrays, encoder.flat()])
    return Question(canonical_json(header), values, frozenset(shared))


def _encode_shared(
    objects: Mapping[str, object], known: frozenset[str]
) -> tuple[dict[str, dict[str, Any] | None], list[FloatArray]]:
    """Digest -> body of each shared object that the site does not know, and of those inside it; and their arrays."""
    bodies: dict[str, dict[str, Any] | None] = {}
    values: dict[str, FloatArray] = {}
    waiting = dict(objects)
    while waiting:
        key, item = waiting.popitem()
        if key in bodies:
            continue
        if key in known:
            bodies[key] = None
            continue
        encoder = Encoder()
        bodies[key] = encoder.body(item)
        values[key] = encoder.flat()
        waiting.update(encoder.shared)
    return bodies, [values[key] for key in _in_order(bodies)]


def _in_order(bodies: Mapping[str, Any]) -> list[str]:
    """The digests whose bodies are at hand, each behind those that its body names.

    Raises:
        MalformedMessage: when they name each other in a circle.
    """
    needs = {key: _named(body, bodies) for key, body in sorted(bodies.items()) if body is not None}
    order: list[str] = []
    while needs:
        ready = [key for key, named in needs.items() if not named & needs.keys()]
        if not ready:
            raise MalformedMessage("shared objects name each other in a circle")
        order += ready
        for key in ready:
            del needs[key]
    return order


def _named(body: Any, known: Mapping[str, Any]) -> set[str]:
    """Which of some digests a body names as shared objects."""
    found: set[str] = set()
    waiting = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            key = value.get("shared") if set(value) == {"shared"} else None
            if isinstance(key, str) and key in known:
                found.add(key)
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is given twice")
    return table


# The keys of the three questions and of the three answers.
_QUESTIONS = (
    {"ctfed", "run", "round", "assembly", "shared", "queries"},
    {"ctfed", "open"},
    {"ctfed", "census"},
)
_ANSWER = {"question", "missing"}
_OPENING, _CENSUS = "opening", "census"  # beside "question", the keys of the two answers that begin a run


def _parse_header(text: str, what: str, largest: int, *keys: set[str]) -> dict[str, Any]:
    if len(text) > largest or not text.isascii():
        raise MalformedMessage(f"the {what} must be ASCII of at most {largest} characters")
    if text.count("[") + text.count("{") > MAX_NODES:  # also those inside texts, where no name of ctfed has any
        raise MalformedMessage(f"the {what} must hold at most {MAX_NODES} lists and tables")
    try:
        header = json.loads(text, object_pairs_hook=_table)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"the {what} is not JSON") from error
    if not isinstance(header, dict) or set(header) not in keys:
        raise MalformedMessage(f"the {what} must have the keys {' or '.join(str(sorted(k)) for k in keys)}")
    return header


@dataclass(frozen=True)
class Asked:
    """A round's question as a site understands it. ``missing`` names shared objects that it must ask for first."""

    run: str
    round_number: int
    assembly: Assembly | None
    queries: tuple[Query, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Invitation:
    """The question that begins a run: which study, with which roster.

    Attributes:
        run: the server's name for the run.
        study, roster: their digests (hex).
    """

    run: str
    study: str
    roster: str


def encode_invitation(invitation: Invitation) -> Question:
    """Ask a site for its opening."""
    body = {"run": invitation.run, "study": invitation.study, "roster": invitation.roster}
    return Question(canonical_json({"ctfed": FORMAT, "open": body}), np.zeros(0))


def encode_session(session: Session) -> Question:
    """Ask a site for its sealed census."""
    return Question(canonical_json({"ctfed": FORMAT, "census": Encoder().body(session)}), np.zeros(0))


def decode_question(question: Question, shared: dict[str, object]) -> Asked | Invitation | Session:
    """Check and unpack a question; shared objects that arrive with it are added to ``shared``.

    Raises:
        MalformedMessage: for anything that the format does not allow.
    """
    header = _parse_header(question.header, "question", MAX_HEADER, *_QUESTIONS)
    if type(header["ctfed"]) is not int or header["ctfed"] != FORMAT:
        raise MalformedMessage(f"the question has format {header['ctfed']!r:.20}, this site understands {FORMAT}")
    if "queries" in header:
        return _decode_round(header, question.values, shared)
    if question.values.size:
        raise MalformedMessage("a question that begins a run holds no numbers")
    if "open" in header:
        return _decode_invitation(header["open"])
    session = Decoder(question.values).build(header["census"], Session, "census")
    assert isinstance(session, Session)
    return session


def _decode_invitation(body: Any) -> Invitation:
    if not isinstance(body, dict) or set(body) != {"run", "study", "roster"}:
        raise MalformedMessage("an invitation has a run, a study and a roster")
    if not all(isinstance(value, str) and len(value) <= 200 for value in body.values()):
        raise MalformedMessage("an invitation's run, study and roster are short texts")
    if not RUN_NAME.fullmatch(body["run"]):
        raise MalformedMessage("an invitation's run has 1 to 64 letters, digits or '-'")
    return Invitation(body["run"], body["study"], body["roster"])


def _decode_round(header: dict[str, Any], values: FloatArray, shared: dict[str, object]) -> Asked:
    run, round_number = header["run"], header["round"]
    if not isinstance(run, str) or not RUN_NAME.fullmatch(run):
        raise MalformedMessage("a question's run has 1 to 64 letters, digits or '-'")
    if type(round_number) is not int or not 0 <= round_number <= MAX_ROUND:
        raise MalformedMessage(f"a question's round is a number from 0 to {MAX_ROUND}")
    if not isinstance(header["queries"], list) or not 0 < len(header["queries"]) <= MAX_QUERIES:
        raise MalformedMessage(f"a question holds 1 to {MAX_QUERIES} queries")
    if not isinstance(header["shared"], dict) or len(header["shared"]) > MAX_SHARED:
        raise MalformedMessage(f"a question's shared objects are a table of at most {MAX_SHARED}")
    if not all(_DIGEST.fullmatch(key) for key in header["shared"]):
        raise MalformedMessage("a question's shared objects have their digests as names")
    missing = tuple(sorted(key for key, body in header["shared"].items() if body is None and key not in shared))
    if missing:  # others may be made of these
        return Asked(run, round_number, None, (), missing)
    decoder = Decoder(values)
    _learn_shared(header["shared"], decoder, shared)
    for key in header["shared"]:
        shared[key] = shared.pop(key)  # the last ones are those used last
    decoder.share(shared)
    assembly = decoder.decode(header["assembly"], Assembly | None, "assembly")
    queries = _decode_queries(header["queries"], decoder)
    if not decoder.exhausted:
        raise MalformedMessage("the question holds more numbers than its queries use")
    return Asked(run, round_number, assembly, queries, ())


def _decode_queries(bodies: list[Any], decoder: Decoder) -> tuple[Query, ...]:
    queries, numbers = [], 0
    for index, body in enumerate(bodies):
        where = f"queries[{index}]"
        query = decoder.build(body, Query, where)
        numbers = _check_answer(query, numbers, where)
        queries.append(query)
    return tuple(queries)


def _check_answer(query: Query, numbers: int, where: str) -> int:
    """``numbers`` and those of the answer to one more query, before anybody makes room for them.

    A few bytes of a question can ask for a table of any size.
    """
    try:
        numbers += 1 + layout_size(query.layout)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise MalformedMessage(f"{where}: {query.kind}: {error!s:.300}") from error
    if numbers > MAX_NUMBERS:
        raise MalformedMessage(
            f"{where}: with {query.kind} the answer would hold {numbers:,} numbers, at most {MAX_NUMBERS:,} are asked "
            "in one round; ask for fewer columns, models or bins at once"
        )
    return numbers


def _learn_shared(bodies: Mapping[str, Any], decoder: Decoder, shared: dict[str, object]) -> None:
    decoder.share(shared)
    for key in _in_order(bodies):
        item = decoder.build(bodies[key], object, f"shared[{key:.12}]")
        if not is_shared(item):
            raise MalformedMessage(f"shared[{key:.12}] is of a kind that does not travel by its digest")
        if digest(item) != key:
            raise MalformedMessage(f"the {type(item).__name__} sent as {key:.12} has another digest")
        shared[key] = item
        decoder.share({key: item})


def summary_limbs(query: Query, summary: Summary | None) -> IntArray:
    """One site's summary as limbs, after the number 1 that counts it as a contributor; None (not one) gives zeros."""
    if summary is None:
        return np.zeros(2 * (1 + layout_size(query.layout)), dtype=np.int64)
    return to_limbs(np.concatenate([[1.0], summary.flat()]), _exponents(query))


def encode_answer(question: Question, limbs: IntArray) -> Answer:
    """A site's limbs, all queries' in their order, as the answer to a round."""
    return Answer(canonical_json({"question": question.digest, "missing": []}), limbs)


def encode_opening(question: Question, opening: Opening) -> Answer:
    """The answer to an invitation."""
    return _encode_body(question, _OPENING, opening)


def read_opening(answer: Answer, question: Question) -> Opening:
    """A site's opening.

    Raises:
        MalformedMessage: when the answer is not one, or belongs to another question.
    """
    return _read_body(answer, question, _OPENING, Opening)


def encode_census(question: Question, count: SealedCount) -> Answer:
    """The answer to a session."""
    return _encode_body(question, _CENSUS, count)


def read_census(answer: Answer, question: Question) -> SealedCount:
    """A site's sealed census.

    Raises:
        MalformedMessage: when the answer is not one, or belongs to another question.
    """
    return _read_body(answer, question, _CENSUS, SealedCount)


def _encode_body(question: Question, name: str, body: Opening | SealedCount) -> Answer:
    header = canonical_json({"question": question.digest, name: Encoder().body(body)})
    return Answer(header, np.zeros(0, dtype=np.int64))


def _read_body(answer: Answer, question: Question, name: str, expected: type[T]) -> T:
    header = _parse_header(answer.header, "answer", MAX_ANSWER_HEADER, {"question", name})
    if header["question"] != question.digest:
        raise MalformedMessage("the answer belongs to another question")
    if answer.limbs.size:
        raise MalformedMessage(f"an answer with the key {name!r} holds no numbers")
    found: T = Decoder(np.zeros(0)).build(header[name], expected, name)
    return found


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
    header = _parse_header(answer.header, "answer", MAX_ANSWER_HEADER, _ANSWER)
    if header["question"] != question.digest:
        raise MalformedMessage("the answer belongs to another question")
    missing = header["missing"]
    if not isinstance(missing, list) or not all(isinstance(key, str) and key in question.views for key in missing):
        raise MalformedMessage("the answer's missing views must be digests of views that the question names")
    if len(set(missing)) < len(missing):
        raise MalformedMessage("the answer names a missing view twice")
    expected = 0 if missing else 2 * sum(1 + layout_size(query.layout) for query in queries)
    if answer.limbs.dtype != np.int64 or answer.limbs.shape != (expected,):
        raise MalformedMessage(f"the answer has shape {answer.limbs.shape}, the queries' layouts need ({expected},)")
    return tuple(missing)


def read_totals(limbs: IntArray, queries: Sequence[Query]) -> tuple[Total, ...]:
    """The totals that summed limbs stand for, query by query.

    Raises:
        MalformedMessage: when the limbs are not those of a sum: their size is not what the layouts say, or a number is
            outside what the sites that are counted in it can reach.
    """
    sizes = [2 * (1 + layout_size(query.layout)) for query in queries]
    if limbs.shape != (sum(sizes),):
        raise MalformedMessage(f"a round's totals have shape {limbs.shape}, the queries' layouts need ({sum(sizes)},)")
    totals, start = [], 0
    for query, size in zip(queries, sizes, strict=True):
        part = limbs[start : start + size]
        numbers = from_limbs(part, _exponents(query))
        sites = numbers[0]
        if not (0 <= sites <= MAX_SITES and sites == int(sites) and in_range(part, int(sites))):
            raise MalformedMessage(
                f"the total of {query.kind} is not a sum over {sites:.6g} sites: a site answered in another session, "
                "or its answer was damaged"
            )
        totals.append(Total(split_flat(query.layout, numbers[1:]), sites=int(sites)))
        start += size
    return tuple(totals)


def check_clear(limbs: IntArray, queries: Sequence[Query]) -> None:
    """Check one site's limbs that are not masked: they must be a sum of which this site alone is the contributor.

    Raises:
        MalformedMessage: when they are not; masked limbs can be checked in their sum only.
    """
    for query, total in zip(queries, read_totals(limbs, queries), strict=True):
        if total.sites != 1:
            raise MalformedMessage(f"its answer to {query.kind} counts {total.sites} sites, expected itself alone")


@contextmanager
def answer_of(site: str) -> Iterator[None]:
    """Within it, a MalformedMessage about an answer names the site that sent it."""
    try:
        yield
    except MalformedMessage as error:
        raise MalformedMessage(f"site {site!r}: {error}") from error
