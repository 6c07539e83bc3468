"""Cohorts: checked at the door, pooled for oracles, cached for speed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ctfed.federation import Cohort, CtfedError, pool
from ctfed.federation import cohort as cohort_module


def small(site: str = "s", n: int = 3, **labels: Any) -> Cohort:
    return Cohort.of(site, {"a": np.arange(n), "b": [np.nan] * n}, np.arange(1, n + 1), [True] * n, **labels)


def test_labels_default_to_the_site_and_everybody_trains() -> None:
    cohort = small("bern")
    assert cohort.patients == 3
    assert cohort.stratum.tolist() == cohort.batch.tolist() == ["bern"] * 3
    assert cohort.split.tolist() == ["train"] * 3
    assert cohort.fold.tolist() == [0, 0, 0]
    assert cohort.columns["a"].dtype == cohort.time.dtype == np.float64
    assert cohort.event.dtype == np.bool_


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("event", [1, 0]),
        ("stratum", ["x"] * 4),
        ("batch", ["x"]),
        ("split", ["train"] * 2),
        ("fold", [[0], [1], [2]]),
        ("a", [1.0, 2.0]),
        ("a", [[1.0, 2.0, 3.0]]),
    ],
)
def test_a_column_of_another_length_is_named(field: str, values: Any) -> None:
    arguments: dict[str, Any] = {"columns": {"a": [1, 2, 3]}, "time": [1, 2, 3], "event": [1, 0, 1]}
    if field == "a":
        arguments["columns"] = {"a": values}
    else:
        arguments[field] = values
    with pytest.raises(CtfedError, match=rf"site 'bern': column '{field}' has shape .* expected \(3,\)"):
        Cohort.of("bern", **arguments)


@pytest.mark.parametrize("time", [0.0, -1.0, np.nan, np.inf])
def test_a_time_that_is_none_is_refused(time: float) -> None:
    with pytest.raises(CtfedError, match="follow-up times must be finite and > 0"):
        Cohort.of("s", {}, [1.0, time], [True, False])


def test_pooling_keeps_every_row_and_label() -> None:
    one = small("bern", 2, batch=["x", "a-longer-name"], split=["train", "test"], fold=[0, -1])
    two = small("oslo", 3, stratum=["north"] * 3)
    both = pool([one, two])
    assert both.site == "pooled"
    assert both.patients == 5
    assert both.columns["a"].tolist() == [0, 1, 0, 1, 2]
    assert both.time.tolist() == [1, 2, 1, 2, 3]
    assert both.stratum.tolist() == ["bern", "bern", "north", "north", "north"]
    assert both.batch.tolist() == ["x", "a-longer-name", "oslo", "oslo", "oslo"]
    assert both.split.tolist() == ["train", "test", "train", "train", "train"]
    assert both.fold.tolist() == [0, -1, 0, 0, 0]


def test_pooling_needs_the_same_columns_in_any_order() -> None:
    one = Cohort.of("bern", {"a": [1], "b": [2]}, [1], [1])
    two = Cohort.of("oslo", {"b": [4], "a": [3]}, [1], [1])
    assert pool([one, two]).columns["b"].tolist() == [2, 4]
    three = Cohort.of("lyon", {"a": [1], "c": [2]}, [1], [1])
    with pytest.raises(CtfedError, match="site 'lyon' has other columns than 'bern': b, c"):
        pool([one, three])


def test_a_subset_keeps_the_labels_and_none_of_the_cache() -> None:
    cohort = small(n=4, batch=["x", "y", "x", "y"], fold=[0, 1, 2, 3])
    cohort.cached("key", lambda: "of the whole")
    part = cohort.subset(np.array([True, False, False, True]), "part")
    assert part.site == "part"
    assert part.batch.tolist() == ["x", "y"]
    assert part.fold.tolist() == [0, 3]
    assert part.stratum.tolist() == ["s", "s"]
    assert part.cached("key", lambda: "of the part") == "of the part"
    assert cohort.subset(np.zeros(4, dtype=bool)).patients == 0


def test_the_cache_builds_once_and_what_was_not_used_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort_module, "CACHED_VIEWS", 2)
    cohort = small()
    built: list[str] = []

    def ask(key: str) -> None:
        assert cohort.cached(key, lambda: built.append(key) or key) == key  # type: ignore[func-returns-value]

    for key in ("a", "b", "a", "c", "b", "a"):
        ask(key)
    assert built == ["a", "b", "c", "b", "a"]


def test_patients_do_not_show_in_an_error_or_a_print_of_the_cache() -> None:
    cohort = small()
    cohort.cached("key", lambda: "value")
    assert "value" not in repr(cohort)
