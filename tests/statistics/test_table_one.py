"""Table 1 from totals: against scipy on the pooled rows, against the published study, and what it keeps hidden."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ctfed.federation import Cohort, CtfedError, Feature, View, Within, run_pooled
from ctfed.federation.codec import Decoder, Encoder, digest
from ctfed.federation.pooled import Traffic
from ctfed.statistics.columns import WithFollowUp, WithLabel
from ctfed.statistics.sections import Scale, SectionCounts
from ctfed.statistics.table_one import (
    Categorical,
    CategoricalRow,
    Measured,
    MeasuredRow,
    TableOne,
    table_one,
    table_records,
)
from ctfed.statistics.two_groups import Comparison


def federation(columns: Mapping[str, np.ndarray], test: np.ndarray, sites: int = 3, seed: int = 0) -> list[Cohort]:
    n = test.size
    rng = np.random.default_rng(seed)
    whole = Cohort.of(
        "pooled", columns, rng.exponential(28, n) + 0.1, rng.random(n) < 0.6, split=np.where(test, "test", "train")
    )
    owner = rng.integers(0, sites, n)
    return [whole.subset(owner == k, f"site-{k}") for k in range(sites)]


def view_of_columns(names: Sequence[str], exponent: int = 10) -> View:
    return View(tuple(Feature(name, exponent) for name in names))


def compare(
    columns: Mapping[str, np.ndarray], test: np.ndarray, variables: Sequence[Any], minimum: int = 10, **options: Any
) -> TableOne:
    view = view_of_columns(list(columns))
    cohorts = federation(columns, test, sites=options.pop("sites", 3))
    return run_pooled(table_one({"train": view, "test": view.test()}, variables, minimum, **options), cohorts)


def measured(table: TableOne, name: str) -> MeasuredRow:
    row = table.row(name)
    assert isinstance(row, MeasuredRow)
    return row


def categorical(table: TableOne, name: str) -> CategoricalRow:
    row = table.row(name)
    assert isinstance(row, CategoricalRow)
    return row


# Tables 1 and 2 of the study that ctfed reproduces: counts of 604 training and 272 test patients, and the printed p.
STUDY: dict[str, tuple[tuple[int, ...], tuple[int, ...], float]] = {
    "gender": ((174, 430), (94, 178), 0.1031),
    "smoking": ((83, 213, 268), (37, 124, 100), 0.0227),
    "stage": ((95, 40, 107, 210), (39, 20, 53, 83), 0.6839),
    "ECOG": ((136, 88, 19, 14, 4), (59, 66, 15, 3, 3), 0.0488),
    "event": ((286, 318), (117, 155), 0.2635),
    "cM": ((263, 241), (122, 99), 0.5032),
    "cN": ((159, 45, 131, 123, 12), (67, 24, 57, 44, 10), 0.3630),
    "cT": ((104, 100, 95, 156, 12), (52, 42, 43, 54, 10), 0.2623),
    "cancer history": ((113, 491), (42, 230), 0.2815),
    "histotype": ((422, 126, 51, 5), (186, 47, 35, 4), 0.1233),
    "bone": ((497, 107), (216, 56), 0.3590),
    "liver": ((553, 51), (249, 23), 1.0000),
    "pleura": ((579, 25), (254, 18), 0.1609),
    "manufacturer": ((1, 121, 348, 103, 1, 30), (0, 67, 123, 55, 1, 23), 0.0249),
    "centre": ((278, 142, 82, 102, 0), (111, 44, 81, 30, 6), 0.0000),
    "kVp": ((3, 1, 142, 2, 449, 5, 1, 1), (0, 4, 64, 3, 196, 1, 1, 0), 0.1658),
}


def study_columns() -> tuple[dict[str, np.ndarray], np.ndarray]:
    def column(counts: tuple[int, ...], n: int) -> np.ndarray:
        values = np.repeat(np.arange(float(len(counts))), counts)
        return np.concatenate([values, np.full(n - values.size, np.nan)])

    columns = {name: np.concatenate([column(a, 604), column(b, 272)]) for name, (a, b, _) in STUDY.items()}
    return columns, np.arange(876) >= 604


def levels(count: int) -> dict[float, str]:
    return {float(level): f"level {level}" for level in range(count)}


def test_the_studys_own_p_values_come_out() -> None:
    columns, test = study_columns()
    variables = [Categorical(name, levels(len(a))) for name, (a, _, _) in STUDY.items()]
    found = compare(columns, test, variables, minimum=1, small_counts_in_tests=True, sites=5)
    assert found.patients == (604, 272)
    for name, (train, tested, p) in STUDY.items():
        row = categorical(found, name)
        assert row.comparison is not None
        assert round(row.comparison.p, 4) == pytest.approx(p, abs=1e-9), name
        assert [cells[0].count for cells in row.levels.values()] == list(train)
        assert [cells[1].count for cells in row.levels.values()] == list(tested)
        assert row.missing == (604 - sum(train), 272 - sum(tested))
    assert categorical(found, "gender").levels["level 0"][0].share == pytest.approx(0.288, abs=5e-4)


def test_small_counts_of_the_study_are_hidden() -> None:
    columns, test = study_columns()
    variables = [Categorical(name, levels(len(a))) for name, (a, _, _) in STUDY.items()]
    found = compare(columns, test, variables, minimum=10, sites=5)
    for name, (train, tested, _) in STUDY.items():
        row = categorical(found, name)
        for group, counts in enumerate((train, tested)):
            shown = [cells[group].count for cells in row.levels.values()]
            assert all(cell is None or cell == count for cell, count in zip(shown, counts, strict=True))
            assert all(cell is None for cell, count in zip(shown, counts, strict=True) if 0 < count < 10)
            assert shown.count(None) != 1
            assert all(cells[group].share is None for cells in row.levels.values() if cells[group].count is None)
    assert [cells[1].count for cells in categorical(found, "centre").levels.values()] == [111, 44, 81, None, None]
    comparison = categorical(found, "manufacturer").comparison
    assert comparison is not None
    assert comparison.note.startswith("tested with small levels put together: level 0 + level 4 + level ")


def test_the_published_test_does_not_depend_on_what_is_hidden() -> None:
    test = np.arange(400) >= 250
    train_a, train_b, tested = (100, 130, 17, 3), (100, 130, 14, 6), (60, 60, 20, 10)

    def p(train: tuple[int, ...]) -> Comparison:
        x = np.concatenate([np.repeat(np.arange(4.0), train), np.repeat(np.arange(4.0), tested)])
        row = categorical(compare({"x": x}, test, [Categorical("x", levels(4))]), "x")
        assert [cells[0].count for cells in row.levels.values()] == [100, 130, None, None]
        assert row.comparison is not None
        return row.comparison

    assert p(train_a) == p(train_b)
    expected = stats.chi2_contingency(np.array([[100, 60], [130, 60], [20, 30]]))
    assert p(train_a).p == pytest.approx(expected.pvalue, rel=1e-12)


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_any_split_gives_what_scipy_says_of_the_pooled_rows(seed: int, sites: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(40, 200))
    test = rng.random(n) < 0.4
    test[:4] = [True, True, False, False]
    x = rng.normal(50, 10, n) + 3 * test
    x[4:][rng.random(n - 4) < 0.3] = np.nan
    grade = rng.choice([1.0, 2.0, 3.0, np.nan], n, p=[0.5, 0.2, 0.2, 0.1])
    variables = [Measured(Scale("x", 0, 128)), Categorical("grade", {1.0: "low", 2.0: "mid", 3.0: "high"})]
    found = compare({"x": x, "grade": grade}, test, variables, minimum=1, sites=sites)
    row = measured(found, "x")
    for cell, rows in zip(row.groups, (~test, test), strict=True):
        values = x[rows & ~np.isnan(x)]
        assert (cell.count, cell.missing) == (values.size, rows.sum() - values.size)
        assert cell.mean == pytest.approx(values.mean(), rel=1e-12)
        assert cell.sd == pytest.approx(values.std(ddof=1), rel=1e-9)
        assert cell.median is not None
        assert cell.median.low <= np.median(values) <= cell.median.high
    a, b = (x[rows & ~np.isnan(x)] for rows in (~test, test))
    assert row.comparison is not None
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert row.comparison.p == pytest.approx(expected.pvalue, rel=1e-8)
    assert row.comparison.degrees == pytest.approx(expected.df, rel=1e-8)
    counts = np.array([[(grade[rows] == level).sum() for rows in (~test, test)] for level in (1, 2, 3)])
    kept = counts[counts.sum(axis=1) > 0]
    comparison = categorical(found, "grade").comparison
    if (kept.sum(axis=0) > 0).all() and len(kept) > 2:
        assert comparison is not None
        assert comparison.p == pytest.approx(stats.chi2_contingency(kept).pvalue, rel=1e-10)


def test_mann_whitney_and_medians_lie_within_their_limits() -> None:
    rng = np.random.default_rng(6)
    n, test = 876, np.arange(876) >= 604
    columns = {
        "pack years": np.where(rng.random(n) < 0.4, np.nan, np.clip(np.round(rng.gamma(2, 22, n) / 5) * 5, 0, 300)),
        "thickness": rng.choice([0.625, 1.0, 1.25, 2.0, 2.5, 3.0, 5.0], n, p=[0.05, 0.6, 0.1, 0.1, 0.05, 0.05, 0.05]),
        "volume": rng.lognormal(9, 1.5, n),
        "age": np.round(np.clip(rng.normal(64.7, 10, n) + 4 * test, 20, 100)),
    }
    scales = {"pack years": (0.0, 300.0, 5.0), "thickness": (0.0, 10.0, 0.0), "volume": (0.0, 2e6, 0.0)}
    scales["age"] = (18.0, 110.0, 1.0)
    variables = [Measured(Scale(name, *scales[name]), "mann-whitney") for name in columns]
    view = view_of_columns(list(columns), 20)
    traffic = Traffic()
    table = table_one({"train": view, "test": view.test()}, variables, 10)
    found = run_pooled(table, federation(columns, test, sites=5), traffic)
    assert traffic.rounds <= 10
    for name, x in columns.items():
        row = measured(found, name)
        groups = [x[rows & ~np.isnan(x)] for rows in (~test, test)]
        for cell, values in zip(row.groups, groups, strict=True):
            assert cell.median is not None
            assert cell.median.low <= np.median(values) <= cell.median.high
            assert cell.median.held >= 10
        exact = stats.mannwhitneyu(*groups, method="asymptotic")
        assert row.comparison is not None
        assert row.comparison.p_low <= exact.pvalue <= row.comparison.p_high
        assert row.comparison.p == pytest.approx(exact.pvalue, abs=0.15), name
    age = measured(found, "age").comparison
    assert age is not None
    assert age.p_high < 0.05
    assert "95 % if the order inside the sections is random" in age.note


def test_follow_up_event_and_centre_are_rows_too() -> None:
    test = np.arange(300) >= 180
    cohorts = [
        Cohort.of(c.site, c.columns, c.time, c.event, split=c.split, stratum=[c.site] * c.patients)
        for c in federation({"x": np.zeros(300)}, test, sites=4, seed=2)
    ]
    labels = tuple(f"site-{k}" for k in range(3))
    outcome = WithFollowUp(Feature("follow-up", 6), "event")
    view = view_of_columns(["x"]).then(outcome, WithLabel("centre", labels, "stratum"))
    variables = [
        Measured(Scale("follow-up", 0, 256), "student"),
        Categorical("event", {0.0: "censored", 1.0: "died"}),
        Categorical("centre", {float(k): label for k, label in enumerate(labels)}),
    ]
    found = run_pooled(table_one({"train": view, "test": view.test()}, variables, 5), cohorts)
    time, event, split = (np.concatenate([getattr(c, name) for c in cohorts]) for name in ("time", "event", "split"))
    assert found.events == (event[split == "train"].sum(), event[split == "test"].sum())
    row = measured(found, "follow-up")
    assert row.comparison is not None
    assert row.comparison.test == "Student's t test"
    assert row.comparison.p == pytest.approx(stats.ttest_ind(time[split == "train"], time[split == "test"]).pvalue)
    assert categorical(found, "event").levels["died"][0].count == event[split == "train"].sum()
    centre = categorical(found, "centre").levels
    assert list(centre) == [*labels, "other"]
    assert centre["site-1"][1].count == (cohorts[1].split == "test").sum()
    assert centre["other"][0].count == (cohorts[3].split == "train").sum()


def test_a_group_with_few_values_of_a_column_tells_only_how_many_are_missing() -> None:
    rng = np.random.default_rng(1)
    test = np.arange(60) >= 30
    x = rng.normal(size=60)
    x[38:] = np.nan
    found = compare({"x": x, "y": x}, test, [Measured(Scale("x", -8, 8)), Measured(Scale("y", -8, 8), "mann-whitney")])
    for name in ("x", "y"):
        row = measured(found, name)
        assert row.groups[0].count == 30
        assert row.groups[1].missing == 22
        assert (row.groups[1].count, row.groups[1].mean, row.groups[1].sd, row.groups[1].median) == (None,) * 4
        assert row.comparison is None


def test_a_column_without_values_or_without_spread_has_no_comparison() -> None:
    test = np.arange(80) >= 40
    columns = {"gone": np.full(80, np.nan), "flat": np.full(80, 3.0)}
    variables = [
        Measured(Scale("gone", 0, 1), "mann-whitney"),
        Measured(Scale("flat", 0, 8, 1.0)),
        Categorical("level", {3.0: "three"}),
    ]
    found = compare({**columns, "level": columns["flat"]}, test, variables, minimum=1)
    assert [row.comparison for row in found.rows] == [None, None, None]
    flat = measured(found, "flat").groups[0]
    assert flat.median is not None
    assert (flat.mean, flat.sd, flat.median.value, flat.median.low, flat.median.high) == (3.0, 0.0, 3.0, 3.0, 3.0)
    assert measured(found, "gone").groups[0].missing == 40


def test_one_group_or_three_are_described_without_a_comparison() -> None:
    rng = np.random.default_rng(3)
    columns = {"x": rng.normal(50, 9, 120), "m": rng.integers(0, 2, 120).astype(float)}
    whole = Cohort.of("s", columns, np.ones(120), np.ones(120), fold=np.arange(120) % 3)
    view = view_of_columns(["x", "m"])
    variables = [Measured(Scale("x", 0, 128), "mann-whitney"), Categorical("m", {0.0: "M0", 1.0: "M1"})]
    single = run_pooled(table_one({"all": View(view.columns, split="all")}, variables, 5), [whole])
    assert [row.comparison for row in single.rows] == [None, None]
    folds = {f"fold {k}": view.held_out_fold(k) for k in range(3)}
    three = run_pooled(table_one(folds, variables, 5), [whole])
    assert three.patients == (40, 40, 40)
    assert [row.comparison for row in three.rows] == [None, None]
    median = measured(three, "x").groups[1].median
    assert median is not None
    assert median.low <= np.median(columns["x"][1::3]) <= median.high


def test_groups_that_may_share_patients_are_refused() -> None:
    view = view_of_columns(["x"])
    whole = Cohort.of("s", {"x": np.arange(30.0)}, np.ones(30), np.ones(30))
    m0 = View(view.columns, rows=(Within("x", 0.0, 9.0),))
    m1 = View(view.columns, rows=(Within("x", 9.5, 30.0),))
    overlapping: list[dict[str, View]] = [
        {"all": View(view.columns, split="all"), "test": view.test()},
        {"train": view, "fold": view.held_out_fold(1)},
        {"a": view.training_fold(0), "b": view.training_fold(1)},
        {"a": view, "b": view},
        {"a": m0, "b": View(view.columns, rows=(Within("x", 9.0, 30.0),))},
    ]
    for groups in overlapping:
        with pytest.raises(CtfedError, match="may share patients"):
            run_pooled(table_one(groups, [Measured(Scale("x", 0, 32))], 5), [whole])
    found = run_pooled(table_one({"M0": m0, "M1": m1}, [Measured(Scale("x", 0, 32))], 5), [whole])
    assert found.patients == (10, 20)
    found = run_pooled(
        table_one({"a": view.training_fold(0), "b": view.held_out_fold(0)}, [Measured(Scale("x", 0, 32))], 1),
        [Cohort.of("s", {"x": np.arange(30.0)}, np.ones(30), np.ones(30), fold=np.arange(30) % 3)],
    )
    assert found.patients == (20, 10)


@pytest.mark.parametrize(
    ("groups", "variables", "minimum", "words"),
    [
        (lambda v: {"train": v, "test": v.test()}, [Measured(Scale("x", 0, 1))], 5, "group 'test' holds no patient"),
        (lambda v: {"train": v}, [Measured(Scale("z", 0, 1))], 5, "group 'train' has no column 'z'"),
        (lambda v: {"train": v}, [Measured(Scale("x", 0, 1)), Categorical("x", {0.0: "a"})], 5, "each variable once"),
        (lambda v: {}, [Measured(Scale("x", 0, 1))], 5, "needs a group"),
        (lambda v: {"train": v}, [Measured(Scale("x", 0, 1))], 0, "must be >= 1"),
    ],
)
def test_impossible_tables_are_refused_in_words(
    groups: Callable[[View], dict[str, View]], variables: list[Any], minimum: int, words: str
) -> None:
    whole = Cohort.of("s", {"x": np.linspace(0, 1, 20)}, np.ones(20), np.ones(20))
    with pytest.raises(CtfedError, match=words):
        run_pooled(table_one(groups(view_of_columns(["x"])), variables, minimum), [whole])


def test_records_are_plain() -> None:
    test = np.arange(80) >= 40
    columns = {"x": np.linspace(0, 60, 80), "sex": np.arange(80) % 2.0}
    found = compare(columns, test, [Measured(Scale("x", 0, 64)), Categorical("sex", {0.0: "male", 1.0: "female"})])
    records = json.loads(json.dumps(table_records(found)))
    assert [(r["variable"], r["level"]) for r in records] == [
        ("x", None),
        ("sex", None),
        ("sex", "male"),
        ("sex", "female"),
    ]
    assert records[0]["groups"]["train"]["mean"] == pytest.approx(columns["x"][:40].mean())
    assert records[0]["groups"]["train"]["median"]["held"] >= 10
    assert records[1]["comparison"]["test"] == "chi-square test"
    assert records[2]["groups"]["test"] == {"count": 20, "share": 0.5}


def test_a_query_and_the_added_columns_travel() -> None:
    view = view_of_columns(["x"]).then(
        WithFollowUp(Feature("follow-up", 6), "event"), WithLabel("centre", ("a", "b"), "batch")
    )
    assert view.features[1:] == (Feature("follow-up", 6), Feature("event"), Feature("centre", 2))
    sent = SectionCounts(view, ("x", "follow-up"), (np.array([1.0, 2.0]), np.array([12.0])))
    encoder = Encoder()
    body = encoder.body(sent)
    found = Decoder(encoder.flat(), encoder.shared).build(body, SectionCounts, "query")
    assert digest(found) == digest(sent)
    assert {name: cuts.tolist() for name, cuts in sent.exposure.cuts.items()} == {"x": [1.0, 2.0], "follow-up": [12.0]}
    for transform in view.transforms:
        assert Decoder(np.zeros(0), {}).build(Encoder().body(transform), type(transform), "transform") == transform


VIEW = View((Feature("x"),))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SectionCounts(VIEW, ("y",), (np.ones(1),)), "no column 'y'"),
        (lambda: SectionCounts(VIEW, ("x",), ()), "thresholds for 0"),
        (lambda: SectionCounts(VIEW, ("x",), (np.array([2.0, 1.0]),)), "rise"),
        (lambda: SectionCounts(VIEW, ("x",), (np.zeros(0),)), "rise"),
        (lambda: Scale("x", 1.0, 1.0), "range"),
        (lambda: Scale("x", 0.0, 1.0, 0.3), "multiple"),
        (lambda: Measured(Scale("x", 0, 1), "anova"), "test must be one of"),
        (lambda: Categorical("x", {}), "needs levels"),
        (lambda: Categorical("x", {0.0: "a", 1.0: "a"}), "different labels"),
        (lambda: VIEW.then(WithFollowUp(Feature("x"), "event")), "'x' already"),
        (lambda: VIEW.then(WithFollowUp(Feature("event"), "event")), "twice"),
        (lambda: VIEW.then(WithLabel("x", ("a",))), "'x' already"),
        (lambda: WithLabel("site", ()), "needs labels"),
        (lambda: WithLabel("site", ("a",), "pseudonym"), "labels come from"),
    ],
)
def test_impossible_parameters_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
