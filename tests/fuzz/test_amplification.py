"""A short message makes nobody hold much: neither when it is decoded, nor when it is answered."""

from __future__ import annotations

import dataclasses
import json
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
from instances import REJECTED, World, attempt, concrete, recipes_of

from ctfed.federation import Cohort, CtfedError, Feature, MalformedMessage, Query, Refusal, View, Within
from ctfed.federation import cohort as cohort_module
from ctfed.federation import responder as responder_module
from ctfed.federation import view as view_module
from ctfed.federation.codec import Decoder, Encoder, canonical_json, digest
from ctfed.federation.responder import Responder
from ctfed.federation.summary import MAX_NUMBERS, layout_size
from ctfed.federation.view import MAX_CELLS, MAX_STEPS, Transform
from ctfed.federation.wire import FORMAT, MAX_NODES, Question, decode_question, encode_question, summary_limbs
from ctfed.statistics.combat.moments import CombatMoments, Covariate
from ctfed.statistics.concordance import WithinSitePairs
from ctfed.statistics.cox.pooled import RiskSetSums
from ctfed.statistics.cox.robust import CoxScoreProducts
from ctfed.statistics.cox.stratified import CoxDerivatives
from ctfed.statistics.describe import Counts, Moments
from ctfed.statistics.evaluation_tables import EvaluationTable
from ctfed.statistics.impute import Impute, LevelCounts
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.timegrid import TimeGrid

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

LONG = 1500  # of one axis at a time: its square is a hundred times what may be held
PATIENTS = 40
AXES = ("width", "models", "bins", "cuts")
VIEW = View((Feature("a"), Feature("b")))


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """Most bytes that were held at once within it, numpy's included."""
    held = [0]
    tracemalloc.start()
    try:
        yield lambda: held[0]
    finally:
        held[0] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


def long_world(axis: str, rng: random.Random) -> World:
    """A tame world in which one axis is long."""
    world = World.of(rng, wild=False, columns=LONG if axis == "width" else 2)
    sizes = {"models": 2, "bins": 3, "edges": 2, "cuts": 2}
    if axis != "width":
        sizes[axis] = LONG
    if axis == "bins":
        sizes["edges"] = LONG - 1
    return dataclasses.replace(world, sizes=sizes)


def choices(name: str, variations: int) -> list[tuple[int, ...]]:
    """What a class accepts where all axes are short, and variations that it may refuse."""
    recipes, rng = recipes_of(name), random.Random(1)
    return [*recipes.kinds, *(recipes.varied(rng.choice(recipes.kinds), rng) for _ in range(variations))]


def bodies(name: str) -> Iterator[tuple[str, Encoder]]:
    """Messages of a class with one long axis, right or wrong, as a hostile server would write them."""
    recipes, rng = recipes_of(name), random.Random(1)
    for axis in AXES:
        for choice in choices(name, 12):
            world = long_world(axis, rng)
            encoder = Encoder()
            try:
                fields = {key: some[i](world) for (key, some), i in zip(recipes.options.items(), choice, strict=True)}
                body = {key: encoder.encode(value) for key, value in fields.items()}
            except (*REJECTED, MalformedMessage):
                continue
            yield json.dumps({"kind": name} | body), encoder


def sent_bytes(message: object) -> int:
    encoder = Encoder()
    text = canonical_json(encoder.body(message))
    return len(text) + encoder.flat().nbytes + sum(map(sent_bytes, encoder.shared.values()))


@pytest.mark.parametrize("name", [name for name in concrete(object) if name != "view"])
def test_decoding_holds_no_more_than_what_was_sent(name: str) -> None:
    for text, encoder in bodies(name):
        values = encoder.flat()
        sent = len(text) + values.nbytes + sum(map(sent_bytes, encoder.shared.values()))
        with peak() as held:
            try:
                made = Decoder(values, encoder.shared).build(json.loads(text), object, "message")
                if isinstance(made, Query):
                    layout_size(made.layout)
            except MalformedMessage:
                pass
        assert held() < 30 * sent + 2e6, f"{held() / 1e6:.0f} MB for {sent / 1e6:.2f} MB: {text[:300]}"


def table(names: list[str]) -> Cohort:
    rng, rows = np.random.default_rng(0), np.arange(PATIENTS)
    columns = {name: rng.integers(0, 3, PATIENTS).astype(np.float64) for name in names}
    batch = np.where(rows % 2, "x", "y")
    return Cohort.of("site", columns, rows + 1.0, rows % 2 == 0, fold=rows % 3, batch=batch)


COHORT = table(["a", "b", "c", *(f"d{index}" for index in range(LONG))])


@pytest.mark.parametrize("name", [*concrete(Query), *concrete(Transform)])
def test_answering_holds_no_more_than_what_is_sent_and_what_is_in_the_table(name: str) -> None:
    recipes, rng = recipes_of(name), random.Random(1)
    asked = 0
    for axis in AXES:
        for choice in choices(name, 6):
            world = long_world(axis, rng)
            query = attempt(name, recipes, choice, world)
            if isinstance(query, Transform):
                query = Counts(world.view.then(query))
            if query is None or layout_size(query.layout) > 500_000:
                continue
            asked += 1
            COHORT._cache.clear()
            sent = sent_bytes(query) + 16 * layout_size(query.layout) + 8 * PATIENTS * query.view.width
            with peak() as held, suppress(CtfedError):
                summary_limbs(query, query.answer(COHORT))
            assert held() < 40 * sent + 8e6, f"{held() / 1e6:.0f} MB for {sent / 1e6:.2f} MB: {query!r:.300}"
    assert asked


# -- answers of any size for a few bytes


def wide(models: int) -> View:
    """A view of as many columns as there are models, for eight bytes each."""
    return View((Feature("a"),)).then(LinearPredictor(np.ones((models, 1))))


GREEDY: dict[str, Callable[[], Query]] = {
    "bins by bins": lambda: EvaluationTable(VIEW, TimeGrid.regular(1, 20_000), np.arange(10_000.0).reshape(2, 5000)),
    "one Hessian a thousand times": lambda: CoxDerivatives(wide(200), np.zeros((1, 200)), (0,) * 1000),
    "a Hessian of everything": lambda: CoxDerivatives(wide(100_000), np.zeros((1, 100_000)), (0,)),
    "residual products": lambda: CoxScoreProducts(wide(100_000), np.zeros(100_000)),
    "pairs of models": lambda: WithinSitePairs(wide(100_000), covariance=True),
    "models by bins": lambda: RiskSetSums(wide(2), np.zeros((5000, 2)), TimeGrid.regular(1, 5000)),
    "levels of a covariate": lambda: CombatMoments(
        VIEW, ("a",), (Covariate("b", tuple(float(level) for level in range(20_000))),)
    ),
}


def encoded(queries: tuple[Query, ...]) -> Question:
    """A question that honest code would not send: encoded without looking at the size of its answer."""
    encoder, bodies_ = Encoder(), Encoder()
    asked = [encoder.encode(query) for query in queries]
    shared = {key: bodies_.body(view) for key, view in sorted(encoder.shared.items())}
    header = {"ctfed": FORMAT, "run": "run", "round": 0, "assembly": None, "shared": shared, "queries": asked}
    return Question(canonical_json(header), np.concatenate([bodies_.flat(), encoder.flat()]))


@pytest.mark.parametrize("name", GREEDY)
def test_an_answer_of_gigabytes_is_malformed_before_anybody_makes_room(name: str) -> None:
    query = GREEDY[name]()
    assert layout_size(query.layout) > MAX_NUMBERS
    question = encoded((query,))
    with peak() as held, pytest.raises(MalformedMessage, match=r"queries\[0\]: with .* at most 8,000,000 are asked"):
        Responder(COHORT).answer(question)
    assert held() < 30 * question.size + 2e6
    with pytest.raises(MalformedMessage, match="ask for fewer columns, models or bins at once"):
        encode_question("run", 0, (query,), frozenset())


def test_many_answers_are_added_up_before_they_are_made() -> None:
    query = Moments(wide(1000), np.zeros(1000))
    question = encoded((query,) * 3000)
    with peak() as held, pytest.raises(MalformedMessage, match=r"queries\[2664\]: with moments"):
        decode_question(question, {})
    assert held() < 100e6


def test_the_largest_answer_that_is_allowed_is_asked() -> None:
    query = LevelCounts(VIEW, ("a",), (np.arange(MAX_NUMBERS - 2.0),))
    assert decode_question(encode_question("run", 0, (query,), frozenset()), {}).run == "run"


def test_what_is_declared_and_not_sent_is_not_made_room_for() -> None:
    header = json.loads(encoded((Moments(VIEW, np.zeros(2)),)).header)
    header["queries"][0]["centre"] = {"array": [49_999_999]}
    with peak() as held, pytest.raises(MalformedMessage, match="fewer numbers than the shape"):
        decode_question(Question(json.dumps(header), np.zeros(2)), {})
    assert held() < 1e6


@pytest.mark.parametrize("piece", ["[],", "{},", '{"":0},', '[{"a":[]}],'])
def test_a_header_of_nothing_but_brackets_is_not_parsed(piece: str) -> None:
    text = "[" + piece * (MAX_NODES // piece.count("[" if "[" in piece else "{") + 1) + "0]"
    with peak() as held, pytest.raises(MalformedMessage, match="lists and tables"):
        decode_question(Question(text, np.zeros(0)), {})
    assert held() < 1e6


@pytest.mark.parametrize("piece", ["0,", '"ab",', "1.5,", "123456789,", "null,", '"' + "x" * 500 + '",'])
def test_a_header_takes_some_times_its_length(piece: str) -> None:
    text = "[" + piece * (4 * 2**20 // len(piece)) + "0]"
    with peak() as held, pytest.raises(MalformedMessage):
        decode_question(Question(text, np.zeros(0)), {})
    assert held() < 20 * len(text)


def test_many_queries_about_a_wide_view_take_seconds() -> None:
    names = [f"d{index}" for index in range(2000)]
    view = View(tuple(map(Feature, names))).then(Impute(tuple(names), np.zeros(2000)))
    question = encoded(tuple(Counts(dataclasses.replace(view)) for _ in range(1)) * 3000)
    started = time.perf_counter()
    decode_question(question, {})
    assert time.perf_counter() - started < 10


def test_a_view_has_few_steps() -> None:
    step = Impute((), np.zeros(0))
    assert View((Feature("a"),)).then(*[step] * MAX_STEPS).width == 1
    for changed in (lambda: VIEW.then(*[step] * (MAX_STEPS + 1)), lambda: View((), rows=(Within("a", 0, 1),) * 33)):
        with pytest.raises(ValueError, match="at most 32 transforms"):
            changed()


# -- matrices that grow with the patients


@pytest.mark.parametrize(
    "query",
    [
        Counts(wide(30)),
        RiskSetSums(View((Feature("a"),)), np.zeros((30, 1)), TimeGrid.regular(1, 2)),
        LevelCounts(View((Feature("a"),)), ("a",), (np.arange(30.0),)),
    ],
    ids=lambda query: query.kind,
)
def test_patients_times_columns_or_models_is_limited(query: Query, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_CELLS * 8 == 2 * 2**30
    monkeypatch.setattr(view_module, "MAX_CELLS", 30 * PATIENTS)
    query.answer(table(["a"]))
    monkeypatch.setattr(view_module, "MAX_CELLS", 30 * PATIENTS - 1)
    with pytest.raises(Refusal, match=f"{PATIENTS} patients x 30 columns or models") as caught:
        query.answer(table(["a"]))
    assert caught.value.rule == "too-large"


def test_the_cache_of_tables_is_limited_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    one_table = 8 * PATIENTS * 3  # a column, times and labels
    monkeypatch.setattr(cohort_module, "CACHED_BYTES", 20 * one_table)
    cohort = table(["a"])
    for fold in range(3000):
        View((Feature("a"),), fold=fold).table(cohort)
    assert 2 <= len(cohort._cache) < 60
    assert sum(size for _, size in cohort._cache.values()) <= 20 * one_table


def test_views_that_a_server_sends_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder_module, "MOST_SHARED_BYTES", 100_000)
    site = Responder(table(["a"]))
    answered = []
    for number in range(40):
        query = Counts(View((Feature("a"),)).then(LinearPredictor(np.full((1000, 1), float(number)))))
        question = encode_question("run", number, (query,), frozenset())
        answered.append((question, site.answer(question).limbs.tobytes()))
    assert len(site._shared) < 15
    again = site.answer(answered[0][0])
    assert again.limbs.tobytes() == answered[0][1]
    assert digest(Counts(VIEW)) == digest(Counts(dataclasses.replace(VIEW)))


def test_the_sentence_about_a_long_field_is_short() -> None:
    body: dict[str, Any] = {"kind": "combat-covariate", "name": "a", "levels": [1.0] * 100_000}
    with pytest.raises(MalformedMessage) as caught:
        Decoder(np.zeros(0)).build(body, Covariate, "message")
    assert len(str(caught.value)) < 500
