"""The codec: what travels arrives unchanged, and nothing else gets in."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ctfed.statistics
from ctfed.federation import Feature, FloatArray, MalformedMessage, View, Within
from ctfed.federation import codec as codec_module
from ctfed.federation.codec import Decoder, Encoder, canonical_json, digest, register, wire_name
from ctfed.statistics.describe import Counts, Moments
from ctfed.statistics.impute import CountsBelow, Impute, LevelCounts
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.standardise import Standardise
from ctfed.statistics.timegrid import TimeGrid

for module in pkgutil.walk_packages(ctfed.statistics.__path__, "ctfed.statistics."):
    importlib.import_module(module.name)


@register("test-leaf")
@dataclass(frozen=True)
class Leaf:
    number: float = 0.0


@register("test-everything")
@dataclass(frozen=True, eq=False)
class Everything:
    flag: bool
    count: int
    name: str
    number: float
    maybe: float | None
    leaf: Leaf
    perhaps: Leaf | None
    names: tuple[str, ...]
    numbers: tuple[float, ...]
    leaves: tuple[Leaf, ...]
    array: FloatArray
    arrays: tuple[FloatArray, ...]


@register("test-nest")
@dataclass(frozen=True)
class Nest:
    inner: Nest | None = None


finite = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.builds(Leaf, finite)
arrays = hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3), elements=finite)
everything = st.builds(
    Everything,
    flag=st.booleans(),
    count=st.integers(-codec_module.MAX_INTEGER, codec_module.MAX_INTEGER),
    name=st.text(),
    number=finite,
    maybe=st.none() | finite,
    leaf=leaves,
    perhaps=st.none() | leaves,
    names=st.lists(st.text()).map(tuple),
    numbers=st.lists(finite).map(tuple),
    leaves=st.lists(leaves).map(tuple),
    array=arrays,
    arrays=st.lists(arrays).map(tuple),
)


def travel(value: Any, expected: type) -> Any:
    """Encode, turn into text and bytes, and decode."""
    encoder = Encoder()
    text = canonical_json(encoder.encode(value))
    values = np.frombuffer(encoder.flat().tobytes(), dtype=np.float64)
    decoder = Decoder(values, encoder.shared)
    found = decoder.decode(json.loads(text), expected)
    assert decoder.exhausted
    return found


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, arrays and nested objects included."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, float):
        return isinstance(b, float) and (a == b and math.copysign(1, a) == math.copysign(1, b))
    return type(a) is type(b) and bool(a == b)


@given(everything)
def test_every_kind_of_field_arrives_unchanged(sent: Everything) -> None:
    assert same(travel(sent, Everything), sent)
    assert digest(travel(sent, Everything)) == digest(sent)


VIEW = View((Feature("a", 3), Feature("b")), rows=(Within("a", -1.5, 2.0),))
EXAMPLES: dict[str, Callable[[], Any]] = {
    "feature": lambda: Feature("a", -7),
    "within": lambda: Within("a", 0.1, 0.3),
    "view": lambda: View(
        VIEW.columns,
        fold=2,
        held_out=True,
        transforms=(Impute(("b",), np.array([0.5]), ("a",)), LinearPredictor(np.ones((2, 3)))),
        rows=VIEW.rows,
    ),
    "counts": lambda: Counts(VIEW),
    "moments": lambda: Moments(VIEW, np.array([0.1, 2e20]), (3, -9)),
    "counts-below": lambda: CountsBelow(VIEW, ("b",), np.array([0.25])),
    "level-counts": lambda: LevelCounts(VIEW, ("b", "a"), (np.array([0.0, 1.0]), np.array([1.0, 2.0, 4.0]))),
    "standardise": lambda: Standardise(("a", "b"), np.array([1.0, 2.0]), np.array([0.1, 1.0]), ("b",)),
    "impute": lambda: Impute(("a",), np.array([0.5]), ("a",)),
    "linear-predictor": lambda: LinearPredictor(np.array([[0.1, -0.2]])),
    "time-grid": lambda: TimeGrid.regular(1.0, 60.0),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_registered_classes_arrive_unchanged(kind: str) -> None:
    sent = EXAMPLES[kind]()
    assert wire_name(sent) == kind
    encoder = Encoder()
    body = json.loads(canonical_json(encoder.body(sent)))
    found = Decoder(encoder.flat(), encoder.shared).build(body, type(sent), kind)
    assert same(found, sent)
    assert digest(found) == digest(sent)


def test_every_registered_class_has_fields_that_can_travel() -> None:
    plain = {bool, int, str, float, type(None), np.ndarray}

    def leaves_of(hint: Any) -> set[Any]:
        origin = get_origin(hint)
        if origin is np.ndarray:
            return {np.ndarray}
        inner = [argument for argument in get_args(hint) if argument is not ...]
        return {leaf for argument in inner for leaf in leaves_of(argument)} if inner else {hint}

    for kind, cls in codec_module._classes.items():
        for name, hint in codec_module._field_types(kind).items():
            for leaf in leaves_of(hint) - plain:
                known = any(issubclass(other, leaf) for other in codec_module._classes.values())
                assert known, f"{cls.__qualname__}.{name} needs a registered {leaf}"


def test_a_whole_number_in_a_field_of_floats_has_one_hash_at_both_ends() -> None:
    sent = Everything(
        True,
        1,
        "",
        2,
        3,
        Leaf(4),
        None,
        (),
        (5, 6.0),
        (Leaf(-7),),
        np.zeros(0),
        (),
    )
    found = travel(sent, Everything)
    assert type(found.number) is float
    assert [type(x) for x in found.numbers] == [float, float]
    assert type(found.count) is int
    assert digest(found) == digest(sent)


def test_an_array_is_frozen_on_arrival() -> None:
    found = travel(Impute(("a",), np.array([1.0])), Impute)
    with pytest.raises(ValueError, match="read-only"):
        found.values[0] = 2.0


def test_a_shared_object_travels_as_its_digest_and_once() -> None:
    encoder = Encoder()
    twin = dataclasses.replace(VIEW)
    asked = [encoder.encode(query) for query in (Counts(VIEW), Moments(twin, np.zeros(2)), Counts(VIEW))]
    assert list(encoder.shared) == [digest(VIEW)]
    assert [body["view"] for body in asked] == [{"shared": digest(VIEW)}] * 3


@pytest.mark.parametrize(
    "other",
    [
        lambda: View(VIEW.columns[::-1], rows=VIEW.rows),
        lambda: View(VIEW.columns, fold=0, rows=VIEW.rows),
        lambda: View(VIEW.columns),
        lambda: View(VIEW.columns, rows=(Within("a", -1.5, np.nextafter(2.0, 3.0)),)),
        lambda: VIEW.then(Impute(("a",), np.array([0.0]))),
        lambda: VIEW.then(Impute(("a",), np.array([-0.0]))),
        lambda: VIEW.then(Impute(("b",), np.array([0.0]))),
    ],
)
def test_any_difference_changes_the_digest(other: Callable[[], View]) -> None:
    assert digest(other()) != digest(VIEW)
    assert digest(other()) == digest(other())


def test_same_numbers_in_another_shape_have_another_digest() -> None:
    assert digest(LinearPredictor(np.ones((1, 4)))) != digest(LinearPredictor(np.ones((2, 2))))


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, 2]),
        np.array([1.0], dtype=np.float32),
        np.array([np.nan]),
        np.array([np.inf]),
        float("nan"),
        float("-inf"),
        [1, 2],
        {"a": 1},
        {1},
        b"bytes",
        1j,
        np.int64(3),
        np.bool_(True),
        object(),
        Leaf,
    ],
)
def test_what_has_no_place_in_a_message_does_not_leave(value: Any) -> None:
    with pytest.raises(MalformedMessage):
        Encoder().encode(value)


def test_an_unregistered_class_cannot_travel_even_below_a_registered_one() -> None:
    @dataclass(frozen=True)
    class Intruder(Leaf):
        pass

    with pytest.raises(MalformedMessage, match="is not registered"):
        Encoder().encode(Intruder())


def test_a_name_belongs_to_one_class_and_a_class_is_a_dataclass() -> None:
    with pytest.raises(ValueError, match="'test-leaf' is already registered for Leaf"):
        register("test-leaf")(Nest)
    with pytest.raises(TypeError, match="must be a dataclass"):
        register("test-plain")(type("Plain", (), {}))
    assert register("test-leaf")(Leaf) is Leaf


def refused(value: Any, expected: Any, values: Any = (), sentence: str | None = None) -> None:
    with pytest.raises(MalformedMessage, match=sentence):
        Decoder(np.array(values, dtype=np.float64)).decode(value, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, int),
        (1, bool),
        (1.0, int),
        (True, float),
        ("1", int),
        (1, str),
        (None, str),
        (math.nan, float),
        (math.inf, float),
        (2**53 + 1, float),
        ([1], int),
        ({}, str),
        ("x", float | None),
        ("abc", tuple[str, ...]),
        ({"0": "a"}, tuple[str, ...]),
        (["a", 1], tuple[str, ...]),
        ([None], tuple[int, ...]),
    ],
)
def test_a_value_of_another_type_is_refused(value: Any, expected: Any) -> None:
    refused(value, expected)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "test-leaf",
        {},
        {"kind": "test-leaf"},
        {"kind": "test-leaf", "number": 1.0, "more": 1},
        {"kind": "test-leaf", "numbre": 1.0},
        {"kind": "test-leaf", "number": 1.0, 1: 1},
        {"kind": "test-leaf", 1: 1.0},
        {1: "test-leaf"},
        {"kind": "no-such-kind", "number": 1.0},
        {"kind": "feature", "name": "a", "exponent": 0},
        {"kind": ["test-leaf"], "number": 1.0},
        {"kind": None, "number": 1.0},
        {"number": 1.0},
        {"shared": "0" * 64},
        {"shared": 1},
        {"shared": None},
        {"shared": ["x"]},
        {"array": [1]},
    ],
)
def test_an_object_of_another_kind_or_with_other_fields_is_refused(body: Any) -> None:
    refused(body, Leaf, [1.0])


def test_a_shared_object_of_another_class_is_refused() -> None:
    decoder = Decoder(np.zeros(0), {"key": VIEW})
    assert decoder.decode({"shared": "key"}, View) is VIEW
    with pytest.raises(MalformedMessage, match="unknown shared Leaf"):
        decoder.decode({"shared": "key"}, Leaf)


@pytest.mark.parametrize(
    "shape",
    [
        [4],
        [2, 2],
        [-1],
        [-1, -3],
        [1.0],
        [True],
        ["3"],
        [None],
        [[3]],
        [2**63],
        [10**4000],
        [2**32, 2**32],
        [0, 5 * 10**7, 5 * 10**7, 5 * 10**7],
        [1, 1, 1, 1, 3],
        [1] * 1_000_000,
        [5 * 10**7] * 100_000,
        None,
        3,
        "3",
        {"0": 3},
    ],
    ids=lambda shape: repr(shape)[:30],
)
def test_an_impossible_shape_is_refused(shape: Any) -> None:
    refused({"array": shape}, FloatArray, [1.0, 2.0, 3.0])


@pytest.mark.parametrize("value", [None, [], [1.0], {"array": [1], "dtype": "object"}, {"arrays": [1]}, 1.0])
def test_what_is_no_array_is_refused(value: Any) -> None:
    refused(value, FloatArray, [1.0, 2.0, 3.0])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_an_array_with_a_number_that_is_not_finite_is_refused(number: float) -> None:
    refused({"array": [2]}, FloatArray, [1.0, number], "finite numbers only")


@pytest.mark.parametrize(
    "values", [np.zeros((2, 2)), np.zeros(2, dtype=np.float32), np.zeros(2, dtype=np.int64), np.array(1.0)]
)
def test_the_flat_array_must_be_flat_and_float64(values: Any) -> None:
    with pytest.raises(MalformedMessage, match="float64 values in one flat array"):
        Decoder(values)


def test_too_many_values_and_items_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "MAX_VALUES", 3)
    monkeypatch.setattr(codec_module, "MAX_ITEMS", 3)
    with pytest.raises(MalformedMessage, match="at most 3 float64"):
        Decoder(np.zeros(4))
    refused([1, 2, 3, 4], tuple[int, ...], sentence="at most 3 items")
    assert Decoder(np.zeros(3)).decode([1, 2, 3], tuple[int, ...]) == (1, 2, 3)


@pytest.mark.parametrize("value", [2**63, -(2**63), 10**400, "x" * (codec_module.MAX_TEXT + 1), "a\ud800"])
def test_what_other_machines_cannot_hold_neither_leaves_nor_arrives(value: Any) -> None:
    refused(value, type(value))
    with pytest.raises(MalformedMessage):
        Encoder().encode(value)
    refused({"kind": "feature", "name": "a", "exponent": 10**30}, Feature, sentence="must fit 64 bits")


@pytest.mark.parametrize("error", [IndexError("i"), KeyError("k"), OverflowError("o"), TypeError("t"), ValueError("v")])
def test_whatever_a_class_raises_about_its_fields_is_a_malformed_message(error: Exception) -> None:
    @register(f"test-raises-{type(error).__name__}")
    @dataclass(frozen=True)
    class Raises:
        def __post_init__(self) -> None:
            raise error

    refused({"kind": f"test-raises-{type(error).__name__}"}, Raises)


def test_deep_nesting_is_refused() -> None:
    def nested(depth: int) -> Any:
        body: Any = None
        for _ in range(depth):
            body = {"kind": "test-nest", "inner": body}
        return body

    assert Decoder(np.zeros(0)).decode(nested(codec_module.MAX_DEPTH), Nest) is not None
    refused(nested(codec_module.MAX_DEPTH + 2), Nest, sentence="nested more than 32 deep")
    refused(nested(400), Nest, sentence="nested more than 32 deep")


def test_what_a_class_refuses_is_a_malformed_message_that_names_the_place() -> None:
    refused({"kind": "feature", "name": "a", "exponent": 999}, Feature, sentence=r"message: feature: .*outside")
    refused(
        [{"kind": "feature", "name": "a", "exponent": 0}, {"kind": "feature", "name": 3, "exponent": 0}],
        tuple[Feature, ...],
        sentence=r"message\[1\]\.name: expected str, found int",
    )


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_json_never_holds_a_number_that_is_not_finite(number: float) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"a": number})
