"""Whatever is registered can be made from its annotations, arrives unchanged, and is answered or refused."""

from __future__ import annotations

import ast
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import border
import pytest
from hypothesis import given
from hypothesis import strategies as st
from instances import concrete, make_any, objects, recipes_of, registered

from ctfed.federation import CtfedError, Query
from ctfed.federation import codec as codec_module
from ctfed.federation.codec import Decoder, Encoder, canonical_json, digest, register
from ctfed.federation.responder import Responder
from ctfed.federation.wire import Asked, decode_question, encode_question, read_answer

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers overflow on purpose

PACKAGES = Path(__file__).resolve().parents[2]


def names_in_the_source() -> set[str]:
    """First arguments of every ``@register("...")`` in ctfed and server."""
    found = set()
    for package in ("ctfed", "server"):
        for path in (PACKAGES / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.ClassDef):
                    continue
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "register":
                        assert isinstance(decorator.args[0], ast.Constant)
                        found.add(str(decorator.args[0].value))
    return found


def test_no_registered_class_is_left_out() -> None:
    assert names_in_the_source() == set(registered())
    assert set(concrete(object)) == set(registered())


@pytest.mark.parametrize("name", concrete(object))
@given(data=st.data())
def test_what_is_made_arrives_with_its_digest(name: str, data: st.DataObject) -> None:
    sent = data.draw(objects(name))
    encoder = Encoder()
    text = canonical_json(encoder.body(sent))
    decoder = Decoder(encoder.flat(), encoder.shared)
    found = decoder.build(json.loads(text), type(sent), name)
    assert decoder.exhausted
    assert type(found) is type(sent)
    assert digest(found) == digest(sent)
    again = Encoder()
    assert canonical_json(again.body(found)) == text
    assert again.flat().tobytes() == encoder.flat().tobytes()


@pytest.mark.parametrize("name", concrete(Query))
@given(data=st.data())
def test_any_query_is_answered_in_the_size_that_was_told_or_refused(name: str, data: st.DataObject) -> None:
    query = data.draw(objects(name))
    question = encode_question("run", 0, (query,), frozenset())
    decoded = decode_question(question, {})
    assert isinstance(decoded, Asked)
    assert [digest(one) for one in decoded.queries] == [digest(query)]
    try:
        answer = Responder(border.cohorts()["bern"]).answer(question)
    except CtfedError:
        return
    assert read_answer(answer, question, (query,)) == ()


def test_the_usual_round_is_answered_by_every_masked_site() -> None:
    """The fuzzers start from messages that are taken in to the end."""
    begun = border.Federation.begun()
    queries = border.usual_queries()
    question = encode_question(border.RUN, 0, queries, frozenset(), begun.assembly)
    answers = begun.ask(0, dict.fromkeys(border.SITES, question))
    assert [read_answer(answer, question, queries) for answer in answers.values()] == [()] * 3
    answer = border.fresh().answer(border.seed_questions(3)[2])
    assert answer.limbs.size == answers["bern"].limbs.size


def test_a_class_that_cannot_be_made_is_named() -> None:
    @register("test-never")
    @dataclass(frozen=True)
    class Never:
        number: int

        def __post_init__(self) -> None:
            raise ValueError("nothing is right")

    try:
        with pytest.raises(LookupError, match="make a 'test-never'"):
            recipes_of("test-never")
    finally:
        del codec_module._classes["test-never"]


def values_of(query: Any) -> bool:
    """Whether an answer to the query holds more than its counts of contributors."""
    return any(entry.size for entry in query.layout.values())


@pytest.mark.parametrize("name", concrete(Query))
def test_what_is_made_does_not_only_ask_for_nothing(name: str) -> None:
    """An instance maker that found empty questions alone would test nothing."""
    made = [make_any(name, random.Random(seed)) for seed in range(300)]
    assert sum(map(values_of, made)) >= 6
