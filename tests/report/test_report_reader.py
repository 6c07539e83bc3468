"""Reading results and putting numbers into words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ctfed.report import wording as say
from ctfed.report.components import Column, Table
from ctfed.report.reader import MalformedResults, Reader, to_plain


def test_plain_results_hold_no_numpy_and_no_infinity() -> None:
    given = {"a": np.arange(2), "b": (np.float64(0.5), float("nan")), "c": {"d": np.bool_(True), "e": -np.inf}}
    plain, dropped = to_plain(given)
    assert plain == {"a": [0, 1], "b": [0.5, None], "c": {"d": True, "e": None}}
    assert dropped == ("results.b[1]", "results.c.e")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({1: "a"}, "results: expected keys that are strings, found 1"),
        ({"a": {"b": [b"bytes"]}}, r"results\.a\.b\[0\]: expected .*, found bytes"),
        ({"a": object()}, r"results\.a: expected .*, found object"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_its_place(given: dict[Any, Any], words: str) -> None:
    with pytest.raises(MalformedResults, match=words):
        to_plain(given)


def test_a_reader_treats_none_as_missing() -> None:
    reader = Reader({"a": None})
    assert not reader.section("a")
    assert reader.number("a") is reader.text("a") is reader.flag("a") is reader.count("b") is None
    assert reader.rows("a") == reader.numbers("a") == reader.texts("b") == ()


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("section", [1]),
        ("rows", [1]),
        ("rows", "text"),
        ("number", True),
        ("number", "1"),
        ("count", 1.5),
        ("text", 1),
        ("flag", 0),
        ("texts", "text"),
        ("texts", [1]),
        ("numbers", ["1"]),
    ],
)
def test_a_reader_refuses_other_types_with_the_place(method: str, value: Any) -> None:
    with pytest.raises(MalformedResults, match=r"results\.model\.x: expected"):
        getattr(Reader({"x": value}, "results.model"), method)("x")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (say.fixed(-0.00001), "0.000"),
        (say.fixed(-1.5, 1), "−1.5"),
        (say.fixed(None), "–"),
        (say.p_value(0.0004), "<0.001"),
        (say.p_value(0.0305), "0.030"),
        (say.equals_p(0.0004), "p < 0.001"),
        (say.interval(0.5, None), "–"),
        (say.whole(1234567), "1,234,567"),
        (say.counted(1, "site"), "1 site"),
        (say.counted(None, "site"), "an unknown number of sites"),
        (say.size(999), "999 B"),
        (say.size(999_700), "1 MB"),
        (say.size(1_234_567), "1.23 MB"),
        (say.duration(0.25), "0.25 s"),
        (say.duration(59.7), "1 min 0 s"),
        (say.duration(7_440), "2 h 4 min"),
        (say.listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_in_words(written: str, expected: str) -> None:
    assert written == expected


def test_a_table_refuses_a_row_of_another_width() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells for 2"):
        Table("t", (Column("a"), Column("b")), (("1", "2"), ("1",)))
