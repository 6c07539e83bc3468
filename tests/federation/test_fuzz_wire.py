"""Fuzzing: whatever arrives, a site either understands it or says MalformedMessage."""

from __future__ import annotations

import copy
import json
import random
from typing import Any, get_args, get_origin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctfed.federation import Feature, FloatArray, MalformedMessage, View, Within
from ctfed.federation import codec as codec_module
from ctfed.federation.codec import Decoder
from ctfed.federation.wire import Question, decode_question, encode_question
from ctfed.statistics.describe import Counts, Moments
from ctfed.statistics.impute import CountsBelow, Impute, LevelCounts
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.standardise import Standardise

COLUMNS = (Feature("a", 3), Feature("b"))
PLAIN = View(COLUMNS, rows=(Within("a", 0, 5),))
CHAIN = PLAIN.held_out_fold(1).then(
    Impute(("a", "b"), np.array([0.25, 1.0]), ("b",)),
    Standardise(("a", "b", "b missing"), np.zeros(3), np.ones(3), ("b",)),
    LinearPredictor(np.array([[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]])),
)
QUESTION = encode_question(
    "run",
    3,
    (
        Moments(PLAIN, np.array([0.5, -1.5]), (2, 3)),
        CountsBelow(PLAIN, ("b",), np.array([0.125])),
        LevelCounts(PLAIN, ("b", "a"), (np.array([0.0, 1.0]), np.array([1.0, 2.0, 4.0]))),
        Counts(CHAIN),
        Moments(CHAIN, np.zeros(2)),
    ),
    frozenset(),
)

scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**31, 2**53 + 1, -(2**63), 2**64, 10**30, 10**400])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["a", "b", "train", "shared", "array", "kind", "view", "feature"])
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["kind", "array", "shared", "name", "view", "columns"]) | st.text(), inner, max_size=4
        )
    ),
    max_leaves=12,
)
numbers = st.lists(st.floats(), max_size=30).map(lambda values: np.array(values, dtype=np.float64))


def survives(text: str, values: FloatArray) -> bool:
    """True when understood, False when MalformedMessage; any other error is a bug and shows."""
    try:
        decode_question(Question(text, values), {})
    except MalformedMessage:
        return False
    return True


@given(anything, numbers)
def test_any_json_is_understood_or_malformed(value: Any, values: FloatArray) -> None:
    survives(json.dumps(value), values)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")), numbers)
def test_any_text_is_understood_or_malformed(text: str, values: FloatArray) -> None:
    assert not survives(text, values)


@given(st.dictionaries(st.sampled_from(["ctfed", "run", "round", "shared", "queries"]), anything), numbers)
def test_any_header_is_understood_or_malformed(header: dict[str, Any], values: FloatArray) -> None:
    survives(json.dumps({"ctfed": 1, "run": "r", "round": 0, "shared": {}} | header), values)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def mutate(header: Any, rng: random.Random, replacement: Any) -> Any:
    """A copy with one place replaced, removed, doubled, renamed or swapped with another."""
    changed = copy.deepcopy(header)
    paths = [path for path in places(changed) if path]
    path = rng.choice(paths)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    action = rng.choice(["replace", "remove", "double", "rename", "swap"])
    if action == "remove":
        del parent[key]
    elif action == "double" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    elif action == "rename" and isinstance(parent, dict):
        parent[rng.choice(["kind", "x", str(key) + "s", "shared"])] = parent.pop(key)
    elif action == "swap":
        other: Any = header
        for step in rng.choice(paths):
            other = other[step]
        parent[key] = copy.deepcopy(other)
    else:
        parent[key] = replacement
    return changed


def mutated_question(rng: random.Random, replacement: Any) -> tuple[str, FloatArray]:
    header = json.loads(QUESTION.header)
    for _ in range(rng.choice([1, 1, 2, 4])):
        header = mutate(header, rng, replacement)
    values = QUESTION.values.copy()
    action = rng.choice(["keep", "keep", "keep", "cut", "grow", "spoil", "shuffle"])
    if action == "cut":
        values = values[: rng.randrange(values.size)]
    elif action == "grow":
        values = np.append(values, rng.choice([0.0, np.nan, 1e308]))
    elif action == "spoil":
        values[rng.randrange(values.size)] = rng.choice([np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324])
    elif action == "shuffle":
        values = values[::-1].copy()
    return json.dumps(header), values


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), anything)
def test_a_damaged_question_is_understood_or_malformed(seed: int, replacement: Any) -> None:
    survives(*mutated_question(random.Random(seed), replacement))


@pytest.mark.slow
@settings(max_examples=5_000, derandomize=False, print_blob=True)
@given(st.integers(0, 2**32 - 1), anything)
def test_many_damaged_questions_are_understood_or_malformed(seed: int, replacement: Any) -> None:
    survives(*mutated_question(random.Random(seed), replacement))


def test_the_undamaged_question_is_understood() -> None:
    assert survives(QUESTION.header, QUESTION.values)


def fields_for(expected: Any, rng: random.Random, depth: int = 0) -> Any:
    """A JSON value of the right type for an annotation, but of no particular sense."""
    origin = get_origin(expected)
    arguments = [a for a in get_args(expected) if a is not ...]
    if origin is tuple:
        return [fields_for(arguments[0], rng, depth + 1) for _ in range(rng.choice([0, 1, 2, 3]))]
    if origin is np.ndarray:
        return {"array": rng.choice([[], [0], [1], [2], [3], [1, 2], [2, 2], [2, 3], [0, 2], [2, 0], [2, 1, 2]])}
    if type(None) in arguments:
        rest = [a for a in arguments if a is not type(None)]
        return None if rng.random() < 0.4 else fields_for(rest[0], rng, depth)
    if expected is bool:
        return rng.random() < 0.5
    if expected is int:
        return rng.choice([0, 1, 2, 5, -1, 121, 10**6, 2**63, -(10**30)])
    if expected is float:
        return rng.choice([0.0, 1.0, -1.0, 0.5, 1e308, -1e308, 5e-324, 7])
    if expected is str:
        return rng.choice(["a", "b", "train", "efron", "breslow", "", "\ud800", "x" * 300])
    kinds = [kind for kind, cls in codec_module._classes.items() if issubclass(cls, expected)]
    if not kinds or depth > 4:
        return None
    return body_for(rng.choice(kinds), rng, depth + 1)


def body_for(kind: str, rng: random.Random, depth: int = 0) -> dict[str, Any]:
    hints = codec_module._field_types(kind)
    return {"kind": kind} | {name: fields_for(hint, rng, depth) for name, hint in hints.items()}


def build_nonsense(tries: int, seed: int) -> None:
    """Every registered class, with fields of the right types: built, or refused as malformed."""
    rng = random.Random(seed)
    samples = [np.zeros(60), np.ones(60), np.arange(60.0), -np.arange(60.0), np.full(60, 1e308)]
    for kind, cls in sorted(codec_module._classes.items()):
        for _ in range(tries):
            body = body_for(kind, rng)
            try:
                Decoder(rng.choice(samples)).build(body, cls, kind)
            except MalformedMessage:
                continue


def test_nonsense_of_the_right_types_is_built_or_malformed() -> None:
    build_nonsense(200, seed=0)


@pytest.mark.slow
def test_much_nonsense_of_the_right_types_is_built_or_malformed() -> None:
    build_nonsense(20_000, seed=1)
