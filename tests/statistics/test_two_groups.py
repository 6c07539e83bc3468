"""Tests of two groups against scipy, and the certified limits of the rank sum."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ctfed.federation import Cohort, CtfedError, Feature, View, run_pooled
from ctfed.statistics.sections import Scale, SectionTable, section_tables
from ctfed.statistics.suppress import hidden_cells
from ctfed.statistics.two_groups import Sample, rank_test, t_test, table_test


def sections(values: list[np.ndarray], scale: Scale, minimum: int, medians_only: bool = False) -> SectionTable:
    """The sections of groups 'train' and 'test' (or of one group), over two sites."""
    x = np.concatenate(values)
    split = np.repeat(["train", "test"][: len(values)], [v.size for v in values])
    whole = Cohort.of("s", {"x": x}, np.ones(x.size), np.ones(x.size), split=split)
    odd = np.arange(x.size) % 2 == 1
    view = View((Feature("x", 10),))
    views = [view, view.test()][: len(values)]
    counts = [[int(np.isfinite(v).sum())] for v in values]
    tables = section_tables(views, [scale], counts, minimum, medians_only)
    return run_pooled(tables, [whole.subset(~odd, "a"), whole.subset(odd, "b")])[0]


def draw(seed: int, discrete: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, 3)
    groups = [rng.normal(50, 8, rng.integers(1, 200)), rng.normal(50 + shift, 8, rng.integers(1, 120))]
    if rng.random() < 0.3:  # a lump of equal values, as of scanners' settings
        for values in groups:
            values[rng.random(values.size) < 0.6] = 47.3
    groups = [np.clip(values, 1, 99) for values in groups]
    return [np.round(values) for values in groups] if discrete else groups


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 10]), st.booleans())
def test_the_limits_hold_the_rank_test_of_the_patients_own_values(seed: int, minimum: int, discrete: bool) -> None:
    a, b = draw(seed, discrete)
    scale = Scale("x", 0, 100, 1.0 if discrete else 0.0)
    table = sections([a, b], scale, minimum)
    found = rank_test(table)
    exact = stats.mannwhitneyu(a, b, method="asymptotic")
    if found is None:
        assert len(table.sections) == 1
        return
    assert found.p_low - 1e-12 <= found.p <= found.p_high + 1e-12
    if np.isfinite(exact.pvalue):
        assert found.p_low - 1e-9 <= exact.pvalue <= found.p_high + 1e-9
    counts = np.array([section.counts for section in table.sections])
    assert counts.sum(axis=0).tolist() == [a.size, b.size]
    if len(counts) > 1:
        assert ((counts == 0) | (counts >= minimum)).all()
    for group, values in enumerate((a, b)):
        median = table.median(group)
        assert median is not None
        assert median.low <= np.median(values) <= median.high
        assert median.low <= median.value <= median.high


@given(st.integers(0, 10_000))
def test_values_with_a_known_step_give_the_exact_test(seed: int) -> None:
    a, b = draw(seed, discrete=True)
    scale = Scale("x", 0, 100, 1.0)
    cells = [int(cell) for cell in range(1, 101)]
    whole = SectionTable.whole(scale, (a.size, b.size))
    below = [[int((v <= scale.threshold(cell)).sum()) for v in (a, b)] for cell in cells]
    found = rank_test(whole.refined(cells, below))
    exact = stats.mannwhitneyu(a, b, method="asymptotic")
    if found is None:
        assert np.unique(np.concatenate([a, b])).size == 1
        return
    assert found.statistic == exact.statistic
    assert found.p == pytest.approx(exact.pvalue, rel=1e-10)
    assert (found.p_low, found.p_high, found.note) == (found.p, found.p, "")


@given(st.integers(0, 10_000), st.sampled_from([1, 5]))
def test_a_median_of_one_group_lies_in_its_bracket(seed: int, minimum: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.lognormal(2, 1.5, rng.integers(1, 150)), int(rng.integers(0, 3))).clip(0, 5000)
    median = sections([values], Scale("x", 0, 5000), minimum, medians_only=True).median(0)
    assert median is not None
    assert median.low <= np.median(values) <= median.high
    assert median.held >= min(minimum, values.size)


def test_a_median_between_two_sections() -> None:
    table = SectionTable.whole(Scale("x", 0, 8, 1.0), (4,)).refined([3, 6], [[2], [2]])
    median = table.median(0)
    assert median is not None
    assert (median.low, median.value, median.high, median.held) == (0.0, 4.0, 8.0, 4)
    assert SectionTable.whole(Scale("x", 0, 8), (0,)).median(0) is None


def test_small_sections_join_the_smaller_neighbour() -> None:
    table = SectionTable.whole(Scale("x", 0, 4, 1.0), (40, 40)).refined(
        [1, 2, 3, 4], [[12, 12], [14, 14], [26, 24], [26, 24]]
    )
    assert [section.counts for section in table.joined(5).sections] == [(12, 12), (14, 12), (0, 0), (14, 16)]
    assert [section.counts for section in table.joined(13).sections] == [(26, 24), (0, 0), (14, 16)]
    assert [section.counts for section in table.joined(30).sections] == [(40, 40)]
    with pytest.raises(CtfedError, match="must be >= 1"):
        next(section_tables([], [], [], 0))


@given(st.integers(0, 10_000), st.booleans())
def test_the_t_test_needs_no_more_than_moments(seed: int, equal: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 1, rng.integers(2, 50)), rng.normal(0.3, 2, rng.integers(2, 50))
    samples = [Sample(x.size, float(x.mean()), float(x.std(ddof=1))) for x in (a, b)]
    found, expected = t_test(samples[0], samples[1], equal), stats.ttest_ind(a, b, equal_var=equal)
    assert found is not None
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-9)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.degrees == pytest.approx(expected.df, rel=1e-9)


def test_the_t_test_of_nothing() -> None:
    assert t_test(Sample(1, 0.0, 0.0), Sample(9, 1.0, 1.0)) is None
    assert t_test(Sample(5, 0.0, 0.0), Sample(9, 1.0, 0.0)) is None


def test_frequency_tables() -> None:
    small = table_test(np.array([[10, 3], [594, 269]]))
    assert small is not None
    assert small.test == "Fisher's exact test"
    assert small.p == pytest.approx(stats.fisher_exact([[10, 3], [594, 269]]).pvalue)
    large = table_test(np.array([[430, 178], [174, 94], [0, 0]]))
    assert large is not None
    assert (large.test, large.degrees, large.note) == ("chi-square test", 1.0, "")
    assert large.p == pytest.approx(stats.chi2_contingency([[430, 178], [174, 94]], correction=True).pvalue)
    thin = table_test(np.array([[30, 20], [40, 10], [2, 1]]))
    assert thin is not None
    assert thin.note == "expected counts below 5 in 2 of 6 cells"
    assert table_test(np.array([[3, 4], [0, 0]])) is None
    assert table_test(np.array([[3, 0], [5, 0]])) is None


@given(st.lists(st.integers(0, 14), min_size=1, max_size=4), st.integers(1, 6))
def test_hidden_counts_cannot_be_worked_out(cells: list[int], minimum: int) -> None:
    counts = np.array(cells, dtype=np.int64)
    hidden = hidden_cells(counts, minimum)
    assert not (~hidden & (counts > 0) & (counts < minimum)).any()
    if not hidden.any():
        return
    total = int(counts[hidden].sum())  # what the margin tells of the hidden cells together
    if hidden.all() and (counts.sum() < minimum or (counts == 0).any() or total - hidden.sum() < minimum):
        return  # nothing but the margin is published
    possible = [c for c in product(range(1, total + 1), repeat=int(hidden.sum())) if sum(c) == total]
    for index in range(int(hidden.sum())):
        values = {c[index] for c in possible}
        assert max(values) - min(values) >= minimum


def test_no_more_is_hidden_than_needed() -> None:
    assert hidden_cells(np.array([50, 30, 20]), 10).tolist() == [False, False, False]
    assert hidden_cells(np.array([50, 30, 0]), 10).tolist() == [False, False, False]
    assert hidden_cells(np.array([50, 30, 3]), 10).tolist() == [False, True, True]
    assert hidden_cells(np.array([50, 1, 1]), 10).tolist() == [True, True, True]
    assert hidden_cells(np.array([50, 9, 8]), 10).tolist() == [False, True, True]
    assert hidden_cells(np.array([0, 2, 1]), 10).tolist() == [True, True, True]
    assert hidden_cells(np.array([0, 2, 1]), 1).tolist() == [False, False, False]


@given(st.integers(0, 10_000), st.booleans())
def test_a_column_is_told_at_few_thresholds(seed: int, medians_only: bool) -> None:
    rng = np.random.default_rng(seed)
    settings = rng.choice(10.0 ** rng.uniform(-2, 3, 7), 200)  # lumps at odd places of a wide range
    groups = [settings[:140], settings[140:]]
    asked = 0
    algorithm = section_tables([View((Feature("x", 10),))] * 2, [Scale("x", 0, 1000)], [[140], [60]], 5, medians_only)
    try:
        reply = None
        while True:
            queries = algorithm.send(reply).queries
            (thresholds,) = queries[0].thresholds
            asked += thresholds.size
            reply = tuple({"below": (group[:, None] <= thresholds).sum(axis=0)} for group in groups)
    except StopIteration as stop:
        (table,) = stop.value
    assert 0 < asked <= 60 / 4
    assert np.sum([section.counts for section in table.sections], axis=0).tolist() == [140, 60]
