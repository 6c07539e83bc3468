"""The wire format: questions and answers arrive whole or are refused."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctfed.federation import Cohort, CtfedError, Feature, MalformedMessage, Query, Refusal, Summary, View, Within
from ctfed.federation import wire as wire_module
from ctfed.federation.algorithm import answer_bytes
from ctfed.federation.codec import digest
from ctfed.federation.fixedpoint import add_limbs
from ctfed.federation.responder import Responder
from ctfed.federation.wire import (
    Answer,
    Invitation,
    Question,
    answer_of,
    bundle_digest,
    check_clear,
    decode_question,
    encode_answer,
    encode_invitation,
    encode_question,
    read_answer,
    read_totals,
    summary_limbs,
)
from ctfed.statistics.describe import Counts, Moments
from ctfed.statistics.impute import CountsBelow, Impute

NOTHING: frozenset[str] = frozenset()
A = View((Feature("a", 3), Feature("b")))
B = View((Feature("b"),), fold=1, rows=(Within("a", 0, 5),)).then(Impute(("b",), np.array([0.25]), ("b",)))
QUERIES: tuple[Query, ...] = (
    Moments(A, np.array([0.5, -1.5])),
    CountsBelow(B, ("b",), np.array([0.125])),
    Counts(A),
)


def question(queries: tuple[Query, ...] = QUERIES, known: frozenset[str] = NOTHING, round_number: int = 4) -> Question:
    return encode_question("run-1", round_number, queries, known)


def site(seed: int, n: int = 20) -> Responder:
    rng = np.random.default_rng(seed)
    columns = {"a": rng.normal(2, 1, n), "b": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))}
    return Responder(Cohort.of(f"s{seed}", columns, np.arange(1.0, n + 1), rng.random(n) < 0.5, fold=np.arange(n) % 2))


def edited(change: Callable[[dict[str, Any]], object]) -> Question:
    """The question with its header changed."""
    original = question()
    header = json.loads(original.header)
    change(header)
    return Question(json.dumps(header), original.values)


def test_a_question_arrives_whole() -> None:
    views: dict[str, View] = {}
    decoded = decode_question(question(), views)
    assert (decoded.run, decoded.round_number, decoded.missing) == ("run-1", 4, ())
    assert [digest(query) for query in decoded.queries] == [digest(query) for query in QUERIES]
    assert set(views) == {digest(A), digest(B)}
    assert decoded.queries[0].view is decoded.queries[2].view  # type: ignore[attr-defined]
    assert bundle_digest(decoded.queries) == bundle_digest(QUERIES)


def test_a_view_travels_once_and_then_by_name() -> None:
    views: dict[str, View] = {}
    first = question()
    decode_question(first, views)
    second = question(known=first.views)
    assert second.size < first.size
    assert "impute" not in second.header
    assert second.views == first.views
    assert [digest(q) for q in decode_question(second, views).queries] == [digest(q) for q in QUERIES]
    assert bundle_digest(QUERIES) == bundle_digest(decode_question(second, views).queries)


def test_unknown_views_are_asked_for_and_then_served() -> None:
    responder = site(0)
    full = question()
    expected = responder.answer(full)
    short = question(known=full.views)
    assert np.array_equal(responder.answer(short).limbs, expected.limbs)
    restarted = Responder(responder.cohort)
    answer = restarted.answer(short)
    assert set(read_answer(answer, short, QUERIES)) == {digest(A), digest(B)}
    assert answer.limbs.size == 0
    served = question(known=short.views - set(read_answer(answer, short, QUERIES)))
    assert served.header == full.header
    assert np.array_equal(restarted.answer(served).limbs, expected.limbs)


def test_only_the_views_that_are_missing_are_asked_for() -> None:
    responder = site(0)
    responder.answer(question((Counts(A),)))
    short = question(known=frozenset({digest(A), digest(B)}))
    assert read_answer(responder.answer(short), short, QUERIES) == (digest(B),)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4, unique=True))
def test_asked_again_a_site_gives_the_same_bits(seeds: list[int]) -> None:
    for seed in seeds:
        responder = site(seed)
        first = responder.answer(question())
        again = responder.answer(question())
        restarted = Responder(responder.cohort.subset(np.ones(20, dtype=bool))).answer(question())
        assert first.header == again.header == restarted.header
        assert first.limbs.tobytes() == again.limbs.tobytes() == restarted.limbs.tobytes()


def test_totals_are_the_sums_of_what_the_sites_answer() -> None:
    responders = [site(seed) for seed in range(3)]
    asked = question()
    answers = [responder.answer(asked) for responder in responders]
    for answer in answers:
        assert read_answer(answer, asked, QUERIES) == ()
    limbs = add_limbs(add_limbs(answers[0].limbs, answers[1].limbs), answers[2].limbs)
    totals = read_totals(limbs, QUERIES)
    assert [total.sites for total in totals] == [3, 3, 3]
    for query, total in zip(QUERIES, totals, strict=True):
        assert list(total) == list(query.layout)
        for name in total:
            expected = sum(query.answer(responder.cohort)[name] for responder in responders)
            np.testing.assert_allclose(total[name], expected, rtol=1e-14, atol=1e-14)


def test_the_size_of_an_answer_is_known_before_it_is_asked() -> None:
    answer = site(1).answer(question())
    assert answer.limbs.nbytes == sum(answer_bytes(query) for query in QUERIES)


def test_an_equal_query_asked_twice_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Query] = []
    answer = Counts.answer

    def counted(self: Counts, cohort: Cohort) -> Summary:
        calls.append(self)
        return answer(self, cohort)

    monkeypatch.setattr(Counts, "answer", counted)
    twice = (Counts(A), Counts(dataclasses.replace(A)), Counts(B))
    totals = read_totals(site(0).answer(question(twice)).limbs, twice)
    assert len(calls) == 2
    assert totals[0].number("patients") == totals[1].number("patients") == 20


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(ctfed=1),
        lambda h: h.update(ctfed=True),
        lambda h: h.update(ctfed=2.0),
        lambda h: h.update(ctfed="2"),
        lambda h: h.update(ctfed=None),
        lambda h: h.update(run=1),
        lambda h: h.update(run="x" * 65),
        lambda h: h.update(run=""),
        lambda h: h.update(run="../../run"),
        lambda h: h.update(run="run 1\n"),
        lambda h: h.update(round=2**31),
        lambda h: h.update(round=10**4000),
        lambda h: h.update(round=-1),
        lambda h: h.update(round=True),
        lambda h: h.update(round=1.0),
        lambda h: h.update(round=float("nan")),
        lambda h: h.update(queries=[]),
        lambda h: h.update(queries={}),
        lambda h: h.update(queries=None),
        lambda h: h.update(shared=[]),
        lambda h: h.update(shared=None),
        lambda h: h.update(extra=1),
        lambda h: h.pop("run"),
        lambda h: h.pop("shared"),
        lambda h: h["queries"].pop(0),
        lambda h: h["queries"].append(h["queries"][0]),
        lambda h: h["queries"].__setitem__(0, None),
        lambda h: h["queries"].__setitem__(0, {"shared": next(iter(h["shared"]))}),
        lambda h: h["queries"].__setitem__(0, h["shared"][digest(A)]),
        lambda h: h["queries"].__setitem__(0, {"array": [2]}),
        lambda h: h["queries"][0].update(kind="no-such-query"),
        lambda h: h["queries"][0].update(kind="impute"),
        lambda h: h["queries"][0].update(kind="counts"),
        lambda h: h["queries"][0].update(view=None),
        lambda h: h["queries"][0].update(view={"shared": "0" * 64}),
        lambda h: h["queries"][0].update(view=h["shared"][digest(A)] | {"split": "everything"}),
        lambda h: h["queries"][0].update(centre=[0.5, -1.5]),
        lambda h: h["queries"][0].update(centre={"array": [1]}),
        lambda h: h["queries"][0].update(centre={"array": [3]}),
        lambda h: h["queries"][0].update(centre={"array": [2, 1]}),
        lambda h: h["queries"][0].update(centre={"array": [-2]}),
        lambda h: h["queries"][0].update(centre={"array": [0, 10**7, 10**7, 10**7]}),
        lambda h: h["queries"][0].update(exponents=[10**30, 1]),
        lambda h: h["queries"][0].update(exponents=[True, False]),
        lambda h: h["queries"][1].update(columns=["a", "a"]),
        lambda h: h["queries"][1].update(columns="b"),
        lambda h: h["shared"].update({digest(A): h["shared"][digest(B)]}),
        lambda h: h["shared"].update(other=h["shared"][digest(A)]),
        lambda h: h["shared"].update({digest(A).upper(): None}),
        lambda h: h["shared"].update({"x" * 64: None}),
        lambda h: h["shared"].update({digest(A): h["queries"][0]}),
        lambda h: h["shared"].update({digest(A): []}),
        lambda h: h["shared"].update({digest(A): "view"}),
        lambda h: h["shared"].pop(digest(A)),
        lambda h: h["shared"][digest(A)].update(fold=0),
        lambda h: h["shared"][digest(A)].update(fold=10**30),
        lambda h: h["shared"][digest(A)].update(held_out=True),
        lambda h: h["shared"][digest(A)].update(columns=h["shared"][digest(A)]["columns"][:1] * 2),
        lambda h: h["shared"][digest(A)]["columns"][0].update(exponent=121),
        lambda h: h["shared"][digest(B)]["rows"][0].update(kind="feature"),
        lambda h: h["shared"][digest(B)]["rows"][0].update(low=float("nan")),
        lambda h: h["shared"][digest(B)]["rows"][0].update(low=float("inf")),
        lambda h: h["shared"][digest(B)]["transforms"][0].update(names=["c"]),
    ],
)
def test_a_hostile_question_is_malformed_and_nothing_else(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(MalformedMessage):
        decode_question(edited(change), {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "1",
        '"question"',
        "{",
        "NaN",
        "\x00",
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000,
        "\ud800",
        "ä",
        '{"ctfed":' + "9" * 5000 + "}",
    ],
    ids=lambda text: repr(text)[:20],
)
def test_what_is_no_header_is_malformed(text: str) -> None:
    with pytest.raises(MalformedMessage):
        decode_question(Question(text, np.zeros(0)), {})


@pytest.mark.parametrize("depth", range(880, 1000, 7))
@pytest.mark.parametrize("place", ['"moments"', "4", '"run-1"', '{"array":[2]}', "null"])
def test_nesting_near_the_parsers_limit_is_malformed(depth: int, place: str) -> None:
    original = question()
    assert place in original.header
    text = original.header.replace(place, "[" * depth + "]" * depth)
    with pytest.raises(MalformedMessage):
        decode_question(Question(text, original.values), {})


def test_a_key_given_twice_is_malformed() -> None:
    original = question()
    with pytest.raises(MalformedMessage, match="is not JSON"):
        decode_question(Question(original.header.replace('"round":4', '"round":4,"round":4'), original.values), {})


@pytest.mark.parametrize(
    "change",
    [
        lambda v: np.append(v, 0.0),
        lambda v: v[:-1],
        lambda v: np.zeros(0),
        lambda v: np.where(np.arange(v.size) == 0, np.nan, v),
        lambda v: np.where(np.arange(v.size) == 0, np.inf, v),
        lambda v: v[::-1],  # the numbers of a view no longer fit its digest
        lambda v: v[None, :],
        lambda v: v.astype(np.float32),
        lambda v: v.astype(np.int64),
        lambda v: v.astype(object),
    ],
)
def test_other_numbers_than_the_header_says_are_malformed(change: Callable[[np.ndarray], Any]) -> None:
    original = question()
    with pytest.raises(MalformedMessage):
        decode_question(Question(original.header, change(original.values)), {})


def test_sizes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    decode_question(question(), {})
    monkeypatch.setattr(wire_module, "MAX_QUERIES", 2)
    with pytest.raises(MalformedMessage, match="1 to 2 queries"):
        decode_question(question(), {})
    monkeypatch.setattr(wire_module, "MAX_SHARED", 1)
    with pytest.raises(MalformedMessage, match="a table of at most 1"):
        decode_question(question((Counts(A), Counts(B))), {})
    monkeypatch.setattr(wire_module, "MAX_NODES", 5)
    with pytest.raises(MalformedMessage, match="at most 5 lists and tables"):
        decode_question(question(), {})
    monkeypatch.setattr(wire_module, "MAX_HEADER", 100)
    with pytest.raises(MalformedMessage, match="at most 100 characters"):
        decode_question(question(), {})


@pytest.mark.parametrize("run", ["", "x" * 65, "../x", "a b", "run\n", "é"])
def test_an_invitation_to_a_run_without_a_name_is_malformed(run: str) -> None:
    with pytest.raises(MalformedMessage, match="an invitation's run has 1 to 64 letters"):
        decode_question(encode_invitation(Invitation(run, "5" * 64, "6" * 64)), {})


def test_a_round_asks_for_no_more_numbers_than_a_site_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question()
    numbers = answer_numbers(QUERIES)
    monkeypatch.setattr(wire_module, "MAX_NUMBERS", numbers)
    decode_question(asked, {})
    question()
    monkeypatch.setattr(wire_module, "MAX_NUMBERS", numbers - 1)
    sentence = rf"queries\[2\]: with counts the answer would hold {numbers} numbers, at most {numbers - 1} are asked"
    with pytest.raises(MalformedMessage, match=sentence):
        decode_question(asked, {})
    with pytest.raises(MalformedMessage, match=sentence):
        question()


def answer_numbers(queries: tuple[Query, ...]) -> int:
    """Numbers of an answer, each query's contributor counted in."""
    return sum(answer_bytes(query) for query in queries) // 16


def limbs_of(sites: int) -> np.ndarray:
    answers = [site(seed).answer(question()).limbs for seed in range(sites)]
    return functools.reduce(add_limbs, answers)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:-1],
        lambda x: np.append(x, 0),
        lambda x: x[:0],
        lambda x: np.where(np.arange(x.size) == 0, 1, x),  # 2**-16 sites
        lambda x: np.where(np.arange(x.size) == 0, -(3 << 16), x),
        lambda x: np.where(np.arange(x.size) == 0, 1025 << 16, x),
        lambda x: np.where(np.arange(x.size) == 1, 3 * 2**52 + 1, x),
        lambda x: np.where(np.arange(x.size) == 1, -(2**63), x),
        lambda x: np.where(np.arange(x.size) == x.size - 1, -1, x),
        lambda x: np.where(np.arange(x.size) == x.size - 1, 2**63 - 1, x),
        lambda x: np.zeros(x.size, dtype=np.int64) - 1,
    ],
)
def test_limbs_that_are_no_sum_are_malformed(change: Callable[[np.ndarray], np.ndarray]) -> None:
    total = limbs_of(3)
    assert [one.sites for one in read_totals(total, QUERIES)] == [3, 3, 3]
    with pytest.raises(MalformedMessage, match=r"is not a sum over|have shape"):
        read_totals(change(total.copy()), QUERIES)


def test_an_answer_in_clear_counts_its_site_alone() -> None:
    check_clear(limbs_of(1), QUERIES)
    with pytest.raises(MalformedMessage, match="counts 2 sites, expected itself alone"):
        check_clear(limbs_of(2), QUERIES)


def test_a_malformed_answer_names_its_site() -> None:
    with pytest.raises(MalformedMessage, match=r"^site 'bern': it is wrong$"), answer_of("bern"):
        raise MalformedMessage("it is wrong")
    with pytest.raises(KeyError), answer_of("bern"):
        raise KeyError("a defect is left as it is")


def test_a_view_that_is_refused_is_not_remembered() -> None:
    views: dict[str, View] = {}
    with pytest.raises(MalformedMessage, match="has another digest"):
        decode_question(edited(lambda h: h["shared"][digest(A)].update(fold=0)), views)
    assert digest(A) not in views


@pytest.mark.parametrize(
    "header",
    [
        "",
        "[]",
        "{}",
        '{"question":null}',
        '{"question":"0"}',
        "[" * 100_000,
        '{"question":"%s","missing":"x"}',
        '{"question":"%s","missing":[1]}',
        '{"question":"%s","missing":{}}',
        '{"question":"%s","missing":["x"]}',
        '{"question":"%s","missing":[]}' + " " * wire_module.MAX_ANSWER_HEADER,
    ],
    ids=lambda header: header[:40],
)
def test_an_answer_to_something_else_is_malformed(header: str) -> None:
    asked = question()
    answer = site(0).answer(asked)
    text = header.replace("%s", asked.digest)
    with pytest.raises(MalformedMessage):
        read_answer(Answer(text, answer.limbs), asked, QUERIES)


@pytest.mark.parametrize(
    "change",
    [
        lambda limbs: limbs[:-1],
        lambda limbs: np.append(limbs, 0),
        lambda limbs: limbs[None, :],
        lambda limbs: limbs.astype(np.float64),
        lambda limbs: limbs.astype(np.int32),
        lambda limbs: limbs.view(np.uint64),
        lambda limbs: limbs[:0],
    ],
)
def test_an_answer_of_another_size_is_malformed(change: Callable[[np.ndarray], Any]) -> None:
    asked = question()
    answer = site(0).answer(asked)
    with pytest.raises(MalformedMessage, match="the queries' layouts need"):
        read_answer(Answer(answer.header, change(answer.limbs)), asked, QUERIES)


def test_an_answer_belongs_to_its_round() -> None:
    answer = site(0).answer(question(round_number=4))
    with pytest.raises(MalformedMessage, match="belongs to another question"):
        read_answer(answer, question(round_number=5), QUERIES)


def test_a_site_without_the_column_declines_by_rule() -> None:
    with pytest.raises(Refusal) as caught:
        site(0).answer(question((Counts(View((Feature("weight"),))),)))
    assert caught.value.rule == "unknown-column"


def test_a_summary_holds_what_its_layout_declares() -> None:
    layout = Counts(A).layout
    good: dict[str, Any] = {"patients": 1.0, "events": 0.0, "count": np.ones(2)}
    assert Summary(layout, good)["count"].shape == (2,)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"patients": 1.0, "events": 0.0}, "must hold"),
        (good | {"names": np.ones(2)}, "must hold"),
        (good | {"count": np.ones(3)}, "has shape"),
        (good | {"patients": np.ones(1)}, "has shape"),
        (good | {"count": np.array([1.0, np.nan])}, "not finite"),
    ]
    for arrays, sentence in bad:
        with pytest.raises(CtfedError, match=sentence):
            Summary(layout, arrays)


def test_an_answer_carries_nothing_but_a_digest_and_sums() -> None:
    asked = question()
    limbs = [summary_limbs(query, query.answer(site(0).cohort)) for query in QUERIES]
    answer = encode_answer(asked, np.concatenate(limbs))
    assert json.loads(answer.header) == {"question": asked.digest, "missing": []}
