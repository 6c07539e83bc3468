"""Imputation: medians and modes from counts, what the counts reveal, and the transform."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctfed.federation import Algorithm, Cohort, CtfedError, Feature, Refusal, View, pool, run_pooled
from ctfed.federation.algorithm import queries_of, reply_to
from ctfed.federation.pooled import Traffic
from ctfed.statistics.impute import CountsBelow, Impute, LevelCounts, impute, medians

Ranges = dict[str, tuple[float, float]]


def recorded(algorithm: Algorithm[Any], log: list[tuple[Any, Any]]) -> Generator[Any, Any, Any]:
    """The same algorithm; every query and its total go to ``log`` as they pass."""
    reply = None
    while True:
        try:
            asked = algorithm.send(reply)
        except StopIteration as stop:
            return stop.value
        answer = yield asked
        totals = answer if isinstance(answer, tuple) else (answer,)
        log.extend(zip(queries_of(asked), totals, strict=True))
        reply = reply_to(asked, totals)


def generous_ranges(cohort: Cohort) -> Ranges:
    """A data dictionary: wider than the data, and not centred on them."""
    low = {name: float(np.nanmin(x)) for name, x in cohort.columns.items()}
    high = {name: float(np.nanmax(x)) for name, x in cohort.columns.items()}
    width = {name: max(high[name] - low[name], 1e-3 * max(abs(low[name]), 1e-9)) for name in low}
    return {name: (low[name] - 0.3 * width[name], high[name] + 0.9 * width[name]) for name in low}


def one_column(values: Any, sites: int = 3, name: str = "a") -> list[Cohort]:
    parts = [np.asarray(values, dtype=float)[i::sites] for i in range(sites)]
    return [Cohort.of(f"s{i}", {name: part}, np.arange(1.0, part.size + 1), part > 0) for i, part in enumerate(parts)]


def one_median(values: Any, low: float, high: float, minimum: int) -> tuple[float, float, float]:
    found = run_pooled(medians(View((Feature("a", 60),)), {"a": (low, high)}, minimum), one_column(values))
    return float(found.value[0]), float(found.low[0]), float(found.high[0])


@given(data=st.data(), minimum=st.sampled_from([1, 2, 5, 11]))
def test_any_split_gives_exactly_the_pooled_medians(
    data: st.DataObject, minimum: int, make_federation: Callable[..., Any], view_of: Callable[..., View]
) -> None:
    cohorts = data.draw(make_federation())
    algorithm = (medians(view_of(cohorts), generous_ranges(pool(cohorts)), minimum) for _ in range(2))
    split = run_pooled(next(algorithm), cohorts)
    pooled = run_pooled(next(algorithm), [pool(cohorts)])
    for name in ("count", "value", "low", "high", "held"):
        np.testing.assert_array_equal(getattr(split, name), getattr(pooled, name))


@given(data=st.data(), minimum=st.sampled_from([1, 2, 5, 11]))
def test_the_bracket_holds_numpys_median_and_at_least_the_minimum(
    data: st.DataObject, minimum: int, make_federation: Callable[..., Any], view_of: Callable[..., View]
) -> None:
    cohorts = data.draw(make_federation(min_patients=minimum))
    pooled = pool(cohorts)
    ranges = generous_ranges(pooled)
    found = run_pooled(medians(view_of(cohorts), ranges, minimum), cohorts)
    for j, name in enumerate(found.names):
        x = pooled.columns[name][~np.isnan(pooled.columns[name])]
        assert found.low[j] <= np.median(x) <= found.high[j]
        assert found.low[j] <= found.value[j] <= found.high[j]
        assert found.count[j] == x.size
        inside = (x <= found.high[j]).sum() - (x <= found.low[j]).sum()
        assert found.held[j] == inside
        assert inside >= min(minimum, x.size)


@given(data=st.data(), minimum=st.sampled_from([1, 2, 5, 11]))
def test_no_cut_divides_fewer_than_twice_the_minimum(
    data: st.DataObject, minimum: int, make_federation: Callable[..., Any], view_of: Callable[..., View]
) -> None:
    cohorts = data.draw(make_federation(min_patients=8))
    ranges = generous_ranges(pool(cohorts))
    log: list[tuple[Any, Any]] = []
    found = run_pooled(recorded(medians(view_of(cohorts), ranges, minimum), log), cohorts)
    known = {
        name: {ranges[name][0]: 0.0, ranges[name][1]: count}
        for name, count in zip(found.names, found.count, strict=True)
    }
    for query, total in log[1:]:
        assert isinstance(query, CountsBelow)
        for name, cut, below in zip(query.columns, query.thresholds, total["below"], strict=True):
            low = max(edge for edge in known[name] if edge < cut)
            high = min(edge for edge in known[name] if edge > cut)
            half = known[name][ranges[name][1]] / 2
            assert known[name][high] - known[name][low] >= 2 * minimum
            assert known[name][low] < half < known[name][high], "only the bracket of the median is cut"
            known[name][float(cut)] = below
    assert len(log) <= 1 + 20
    for name, low, high in zip(found.names, found.low, found.high, strict=True):
        assert {low, high} <= set(known[name])


def test_a_side_with_too_few_patients_leaves_the_bracket_as_it_was() -> None:
    values = np.concatenate([np.linspace(1, 49, 10), [51, 52, 53], np.linspace(76, 99, 9)])
    value, low, high = one_median(values, 0, 100, minimum=5)
    assert (low, high) == (50, 100)  # 75 would leave 3 in (50, 75]
    assert value == pytest.approx(50 + 50 * 1 / 12)


def test_the_median_is_as_fine_as_the_range_allows_when_patients_abound() -> None:
    values = np.random.default_rng(1).normal(60, 9, 4001)
    value, low, high = one_median(values, 0, 120, minimum=1)
    assert high - low == 120 / 2**16 or (values <= high).sum() - (values <= low).sum() == 1
    assert value == pytest.approx(np.median(values), abs=high - low)


def test_a_cut_with_half_of_the_patients_on_either_side_is_the_median() -> None:
    assert one_median([1, 2, 8, 9], 0, 10, minimum=1) == (5, 0, 10)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([-50, -40, -30, 3, 4], 0, 10), ([3, 4, 50, 60, 70], 0, 10), ([10, 10, 10], 0, 10), ([0, 0, 0], 0, 10)],
)
def test_values_outside_the_range_are_counted_at_its_ends(values: list[float], low: float, high: float) -> None:
    value, below, above = one_median(values, low, high, minimum=1)
    assert value == pytest.approx(np.clip(np.median(values), low, high), abs=10 / 2**15)
    assert low <= below < above <= high


def test_a_range_of_one_value_needs_no_cut() -> None:
    assert one_median([4.0] * 30, 4, 4, minimum=5) == (4, 4, 4)


def test_a_range_too_fine_for_floating_point_ends() -> None:
    start = 2.0**54
    value, low, high = one_median([start] * 9, start, start + 8, minimum=2)
    assert start <= low <= value <= high <= start + 8


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (0.0, np.inf), (np.nan, 1.0), (-1e308, 1e308)])
def test_a_range_that_is_none_is_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(CtfedError, match=r"column 'a'.*is not a finite range"):
        one_median([1.0, 2.0], *bounds, minimum=1)


def test_a_minimum_below_one_is_refused() -> None:
    with pytest.raises(CtfedError, match="must be >= 1, found 0"):
        one_median([1.0, 2.0], 0, 3, minimum=0)


def test_level_counts_and_values_that_are_no_level() -> None:
    cohorts = [
        Cohort.of("s0", {"stage": [1, 2, 2, np.nan], "sex": [0, 1, 1, 1]}, np.ones(4), np.ones(4)),
        Cohort.of("s1", {"stage": [3, 3, 9, 2], "sex": [np.nan, 0, 0, 0]}, np.ones(4), np.ones(4)),
    ]
    view = View((Feature("sex"), Feature("stage")))

    def ask() -> Algorithm[Any]:
        return (yield LevelCounts(view, ("stage", "sex"), (np.array([1.0, 2, 3, 4]), np.array([0.0, 1]))))

    total = run_pooled(ask(), cohorts)
    assert total["level"].tolist() == [1, 3, 2, 0, 4, 3]
    assert total["other"].tolist() == [1, 0]


def clinical(rng: np.random.Generator, n: int = 400) -> dict[str, np.ndarray]:
    age = np.round(rng.normal(66, 9, n)).clip(20, 100)
    stage = rng.choice([1.0, 2.0, 3.0, 4.0], n, p=[0.2, 0.15, 0.4, 0.25])
    age[rng.random(n) < 0.1] = np.nan
    stage[rng.random(n) < 0.2] = np.nan
    return {"age": age, "stage": stage, "sex": (rng.random(n) < 0.6).astype(float)}


CLINICAL: dict[str, Any] = {
    "methods": {"age": "median", "stage": "mode", "sex": "none"},
    "ranges": {"age": (18.0, 110.0)},
    "levels": {"stage": (1.0, 2.0, 3.0, 4.0)},
    "indicators": ("stage", "age"),
    "minimum": 10,
}


@given(data=st.data())
def test_any_split_gives_exactly_the_pooled_imputation(
    data: st.DataObject, make_cohort: Callable[..., Cohort], split_cohort: Callable[..., list[Cohort]]
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sites = data.draw(st.integers(1, 5))
    cohort = make_cohort(rng, clinical(rng), test_fraction=0.2)
    cohorts = split_cohort(cohort, rng.integers(0, sites, cohort.patients), sites)
    view = View((Feature("age", 7), Feature("stage", 2), Feature("sex")))
    split = run_pooled(impute(view, **CLINICAL), cohorts)
    pooled = run_pooled(impute(view, **CLINICAL), [pool(cohorts)])
    assert split.values == pooled.values
    assert split.missing == pooled.missing
    rows = np.concatenate([split.view.table(c).values for c in cohorts])
    np.testing.assert_array_equal(rows, pooled.view.table(pool(cohorts)).values)


def test_imputation_fills_what_pandas_would_and_keeps_the_missingness(make_cohort: Callable[..., Cohort]) -> None:
    rng = np.random.default_rng(4)
    cohort = make_cohort(rng, clinical(rng), test_fraction=0.3)
    view = View((Feature("age", 7), Feature("stage", 2), Feature("sex")))
    traffic = Traffic()
    fitted = run_pooled(impute(view, **CLINICAL), [cohort], traffic)
    assert traffic.rounds <= 1 + 16
    assert fitted.warnings == ()
    train = cohort.split == "train"
    age, stage, sex = (cohort.columns[name] for name in ("age", "stage", "sex"))
    assert fitted.missing == {"age": np.isnan(age[train]).sum(), "stage": np.isnan(stage[train]).sum(), "sex": 0}
    assert fitted.values["stage"] == 3.0
    assert fitted.medians.low[0] <= np.nanmedian(age[train]) <= fitted.medians.high[0]
    assert fitted.values["age"] == pytest.approx(np.nanmedian(age[train]), abs=1)
    assert fitted.view.names == ("age", "stage", "sex", "stage missing", "age missing")
    assert [feature.exponent for feature in fitted.view.features] == [7, 2, 0, 0, 0]
    for chosen, rows in ((fitted.view, train), (fitted.view.test(), ~train)):
        expected = np.stack(
            [
                np.where(np.isnan(age), fitted.values["age"], age),
                np.where(np.isnan(stage), 3.0, stage),
                sex,
                np.isnan(stage),
                np.isnan(age),
            ],
            axis=1,
        )
        np.testing.assert_array_equal(chosen.table(cohort).values, expected[rows])


def test_of_equally_frequent_levels_the_first_is_taken() -> None:
    fitted = run_pooled(
        impute(View((Feature("a"),)), {"a": "mode"}, {}, {"a": (2.0, 0.0, 1.0)}, (), 1),
        one_column([0, 0, 1, 1, 2, np.nan, 7]),
    )
    assert fitted.values == {"a": 0.0}
    assert fitted.warnings == ("column 'a': 1 patients have a value that is none of its levels",)


def test_a_median_from_too_few_patients_is_the_middle_of_the_range_and_says_so() -> None:
    log: list[tuple[Any, Any]] = []
    algorithm = impute(View((Feature("a"),)), {"a": "median"}, {"a": (0.0, 10.0)}, {}, (), 5)
    fitted = run_pooled(recorded(algorithm, log), one_column([1, 1, 1, 2, 2, 2, 9, np.nan, 9, 9]))
    assert [query.kind for query, _ in log] == ["counts", "level-counts"]
    assert fitted.values == {"a": 5.0}
    assert "only 9 patients have a value" in fitted.warnings[0]


@pytest.mark.parametrize("method", ["median", "mode", "none"])
def test_a_column_that_nobody_has_is_named_after_one_round(method: str) -> None:
    cohorts = [Cohort.of(f"s{i}", {"a": [1.0, 2.0], "gone": [np.nan] * 2}, [1, 2], [1, 0]) for i in range(3)]
    view = View((Feature("a"), Feature("gone")))
    methods = {"a": "median", "gone": method}
    ranges = {"a": (0.0, 3.0), "gone": (0.0, 1.0)}
    traffic = Traffic()
    with pytest.raises(CtfedError, match="no patient at any site has a value for 'gone'"):
        run_pooled(impute(view, methods, ranges, {"gone": (0.0, 1.0)}, (), 1), cohorts, traffic)
    assert traffic.rounds == 1


def test_missing_values_where_none_are_allowed_are_counted_and_named() -> None:
    algorithm = impute(View((Feature("a"),)), {"a": "none"}, {}, {}, (), 1)
    with pytest.raises(CtfedError, match="column 'a' lacks 2 values, but its imputation method is 'none'"):
        run_pooled(algorithm, one_column([1, np.nan, 3, np.nan]))


@pytest.mark.parametrize(
    ("methods", "ranges", "levels", "sentence"),
    [
        ({}, {}, {}, "must be one of .* found None"),
        ({"a": "mean"}, {}, {}, "must be one of .* found 'mean'"),
        ({"a": "median"}, {}, {}, "needs the range"),
        ({"a": "mode"}, {}, {}, "needs the possible values"),
        ({"a": "mode"}, {}, {"a": ()}, "needs the possible values"),
    ],
)
def test_arguments_that_do_not_fit_the_view_are_refused_before_any_round(
    methods: Mapping[str, str], ranges: Ranges, levels: dict[str, tuple[float, ...]], sentence: str
) -> None:
    traffic = Traffic()
    with pytest.raises(CtfedError, match=sentence):
        run_pooled(impute(View((Feature("a"),)), methods, ranges, levels, (), 1), one_column([1, 2]), traffic)
    assert traffic.rounds == 0


def test_a_test_row_without_a_value_that_is_not_imputed_is_refused_in_words() -> None:
    view = View((Feature("a"), Feature("b")), transforms=(Impute(("a",), np.array([1.0])),))
    cohort = Cohort.of("s", {"a": [np.nan, 2.0], "b": [np.nan, np.nan]}, [1, 2], [1, 0])
    with pytest.raises(Refusal, match="missing-value: column 'b' lacks 2 values") as caught:
        view.table(cohort)
    assert caught.value.rule == "missing-value"


def test_imputation_applies_to_the_columns_it_was_fitted_on_only() -> None:
    columns = (Feature("a"), Feature("a missing"))
    with pytest.raises(ValueError, match="there is no 'c'"):
        View(columns, transforms=(Impute(("a", "c"), np.zeros(2)),))
    with pytest.raises(ValueError, match="there is no 'c'"):
        View(columns, transforms=(Impute(("a",), np.zeros(1), ("c",)),))
    with pytest.raises(ValueError, match="there is a column 'a missing' already"):
        View(columns, transforms=(Impute(("a",), np.zeros(1), ("a",)),))


@pytest.mark.parametrize(
    "build",
    [
        lambda view: CountsBelow(view, ("a", "a"), np.zeros(2)),
        lambda view: CountsBelow(view, ("b",), np.zeros(1)),
        lambda view: CountsBelow(view, ("a",), np.zeros(2)),
        lambda view: LevelCounts(view, ("a",), ()),
        lambda view: LevelCounts(view, ("a",), (np.zeros(0),)),
        lambda view: LevelCounts(view, ("a",), (np.zeros(2),)),
        lambda view: LevelCounts(view, ("a",), (np.zeros((1, 1)),)),
        lambda view: LevelCounts(view, ("b",), (np.zeros(1),)),
        lambda view: Impute(("a",), np.zeros(2)),
        lambda view: Impute(("a", "a"), np.zeros(2)),
        lambda view: Impute(("a",), np.zeros(1), ("a", "a")),
    ],
)
def test_impossible_fields_are_refused(build: Callable[[View], Any]) -> None:
    with pytest.raises(ValueError, match=r"no column|named twice|names a column twice|columns, but|must be distinct"):
        build(View((Feature("a"),)))
