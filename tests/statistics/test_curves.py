"""Kaplan-Meier, log-rank, merged time bins and risk groups: any split over sites gives the pooled analysis."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from lifelines.utils import median_survival_times
from sksurv.compare import compare_survival
from sksurv.util import Surv

from ctfed.federation import Cohort, CtfedError, Feature, Refusal, View, pool, run_pooled
from ctfed.federation.arrays import frozen
from ctfed.federation.pooled import Traffic
from ctfed.statistics.curves import (
    GroupCounts,
    GroupCurves,
    LogRank,
    StratifiedLogRank,
    ThresholdGroup,
    group_curves,
    kaplan_meier,
    merge_edges,
    score_medians,
)
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.scores import ScoresBelow, score_quantiles
from ctfed.statistics.timegrid import TimeGrid

RAW = View((Feature("a", 4), Feature("b", 4)), split="all")
SCORES = RAW.then(LinearPredictor(frozen([[1.0, 0.0], [-0.5, 1.0]])))


def cohort_of(rng: np.random.Generator, n: int, ties: bool = False) -> Cohort:
    a, b = rng.normal(size=(2, n))
    time = rng.exponential(30.0 * np.exp(-0.5 * a), n) + 0.01
    if ties:
        a, b, time = np.round(a), np.round(b), np.ceil(time / 4) * 4
    return Cohort.of("pooled", {"a": a, "b": b}, time, rng.random(n) < 0.6)


def sites_of(cohort: Cohort, rng: np.random.Generator, sites: int) -> list[Cohort]:
    owner = rng.integers(0, sites, cohort.patients)
    return [cohort.subset(owner == index, f"site-{index}") for index in range(sites)]


def geo(shared_data: Path) -> tuple[list[Cohort], View, dict[str, Any]]:
    """The seven real centres, the view of their published score, and the reference results."""
    rows = pd.read_csv(shared_data / "survival" / "nsclc_geo_7centres.csv").dropna(subset=["stage"])
    rows = rows[rows.time_months > 0]
    reference = json.loads((shared_data / "survival" / "reference_results.json").read_text())
    names = reference["nsclc_geo_7centres"]["cols"]
    cohorts = [Cohort.of(str(c), {k: d[k] for k in names}, d.time_months, d.event) for c, d in rows.groupby("centre")]
    step = LinearPredictor(frozen([reference["nsclc_geo_7centres"]["coef_efron"]]))
    return cohorts, View(tuple(Feature(name, 4) for name in names), split="all").then(step), reference


# --- merging ---------------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_merged_bins_hold_enough_or_nobody(data: st.DataObject) -> None:
    bins = data.draw(st.integers(2, 40))
    grid = TimeGrid.regular(1.0, bins - 1)
    leavers = np.array(data.draw(st.lists(st.integers(0, 12), min_size=bins, max_size=bins)), dtype=np.float64)
    minimum = data.draw(st.integers(1, 15))
    try:
        merged = merge_edges(grid, leavers, minimum)
    except CtfedError:
        until = np.cumsum(leavers)[:-1]
        assert not ((until >= minimum) & (leavers.sum() - until >= minimum)).any()
        assert leavers.sum() < minimum or leavers[-1] > 0
        return
    assert set(merged.edges) <= set(grid.edges)
    held = np.bincount(merged.bin_of(np.arange(1.0, bins + 1)), weights=leavers, minlength=merged.bins)
    assert ((held == 0) | (held >= minimum)).all()
    assert held.sum() == leavers.sum()


@given(data=st.data())
def test_horizons_stay_edges_and_other_bins_hold_enough(data: st.DataObject) -> None:
    bins = data.draw(st.integers(6, 40))
    grid = TimeGrid.regular(1.0, bins - 1)
    leavers = np.array(data.draw(st.lists(st.integers(0, 9), min_size=bins, max_size=bins)), dtype=np.float64)
    keep = data.draw(st.lists(st.sampled_from(grid.edges.tolist()), min_size=1, max_size=3, unique=True))
    merged = merge_edges(grid, leavers, 7, keep)
    assert set(keep) <= set(merged.edges)
    held = np.bincount(merged.bin_of(np.arange(1.0, bins + 1)), weights=leavers, minlength=merged.bins)
    ends = np.append(merged.edges, np.inf)
    starts = np.append(0.0, merged.edges)
    hemmed = np.isin(starts, [0.0, *keep]) & np.isin(ends, [np.inf, *keep])
    assert ((held == 0) | (held >= 7) | hemmed).all()


def test_a_bin_closes_as_soon_as_it_is_full_and_the_rest_joins_the_last() -> None:
    grid = TimeGrid.regular(1.0, 6)
    leavers = np.array([3.0, 3, 1, 5, 6, 2, 1])
    assert merge_edges(grid, leavers, 5).edges.tolist() == [2, 4]
    assert merge_edges(grid, leavers, 5, keep=(3.0,)).edges.tolist() == [3, 4]
    assert merge_edges(grid, leavers, 0).edges.tolist() == grid.edges.tolist()
    assert merge_edges(grid, np.array([3.0, 3, 1, 5, 6, 0, 0]), 5).edges.tolist() == [2, 4, 5]
    assert merge_edges(grid, np.array([3.0, 3, 1, 5, 6, 2, 0]), 5).edges.tolist() == [2, 4, 6]
    with pytest.raises(CtfedError, match="21 patients leave in all, too few for two time bins of 12"):
        merge_edges(grid, leavers, 12)
    with pytest.raises(ValueError, match=r"2\.5 is not an edge"):
        merge_edges(grid, leavers, 5, keep=(2.5,))
    with pytest.raises(ValueError, match="the grid has 7 bins"):
        merge_edges(grid, leavers[1:], 5)


# --- thresholds and groups -------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 300), minimum=st.integers(1, 20), shape=st.integers(0, 3))
def test_a_quantile_lies_in_its_bracket_and_close_by_rank(seed: int, n: int, minimum: int, shape: int) -> None:
    rng = np.random.default_rng(seed)
    a = [rng.normal(size=n), rng.standard_cauchy(n), rng.exponential(size=n) ** 3, np.round(rng.normal(size=n))][shape]
    a = np.clip(a, -1e6, 1e6)
    cohort = Cohort.of("s", {"a": a, "b": -a}, np.ones(n), np.ones(n))
    levels = (0.1, 0.5, 0.75)
    found = run_pooled(score_quantiles(SCORES, levels, minimum), sites_of(cohort, rng, 3))
    scores = SCORES.table(cohort).values
    for model in range(2):
        for place, level in enumerate(levels):
            low, high = found.low[model, place], found.high[model, place]
            below, until = (scores[:, model] < low).sum(), (scores[:, model] <= high).sum()
            assert below <= level * n <= until
            assert low <= found.value[model, place] <= high + 1e-9 or not (np.diff(found.value[model]) > 0).all()
            if low < high and n >= minimum:
                assert found.held[model, place] >= minimum
            if shape < 2 and n >= 2 * minimum:
                assert until - below < 16 * minimum


def test_a_score_at_the_threshold_counts_as_below() -> None:
    cohort = Cohort.of("s", {"a": [1.0, 2.0, 2.0, 3.0], "b": [0.0] * 4}, [1, 2, 3, 4], [1, 0, 1, 0])
    query = ScoresBelow(SCORES, frozen([[2.0, 1.9, 0.0], [-1.0, -1.5, 9.0]]))
    assert query.answer(cohort)["below"].tolist() == [[3, 1, 0], [3, 1, 4]]
    with pytest.raises(ValueError, match=r"thresholds must be \(2, q\)"):
        ScoresBelow(SCORES, frozen([0.0, 1.0]))


def test_closed_brackets_ask_nothing_new(make_cohort: Callable[..., Cohort]) -> None:
    rng = np.random.default_rng(3)
    cohort = make_cohort(rng, {"a": rng.normal(size=200), "b": rng.normal(size=200)})
    asked: list[np.ndarray] = []
    algorithm = score_quantiles(SCORES, (0.5,), 10)
    query = next(algorithm)
    while True:
        try:
            total = query.answer(cohort)  # type: ignore[union-attr]
            query = algorithm.send(_Totals(total))
        except StopIteration as stop:
            found = stop.value
            break
        asked.append(query.thresholds)  # type: ignore[union-attr]
    scores = SCORES.table(cohort).values
    assert len(asked) <= 3
    assert (found.held >= 10).all() or (found.held == 0).any()
    for model in range(2):
        points = np.unique(np.concatenate([cuts[model] for cuts in asked]))
        middle = (points > found.low[model, 0]) & (points < found.high[model, 0])
        assert not middle.any()
    np.testing.assert_allclose((scores <= found.value[:, 0]).mean(axis=0), 0.5, atol=0.05)


class _Totals(dict):  # type: ignore[type-arg]
    def __init__(self, summary: Any) -> None:
        super().__init__(summary)

    def number(self, name: str) -> float:
        return float(self[name])


def test_a_site_without_a_score_declines() -> None:
    cohort = Cohort.of("s", {"a": [1.0, np.nan], "b": [1.0, 2.0]}, [1, 2], [1, 0])
    grid, thresholds = TimeGrid.regular(1, 2), np.zeros(2)
    for query in (GroupCounts(SCORES, grid, thresholds), StratifiedLogRank(SCORES, thresholds)):
        with pytest.raises(Refusal, match="1 patients have no risk score"):
            query.answer(cohort)
    with pytest.raises(Refusal, match="missing-value"):
        SCORES.then(ThresholdGroup(frozen([0.0, 0.0]))).table(cohort)


def test_threshold_groups_are_columns_of_zeros_and_ones() -> None:
    cohort = Cohort.of("s", {"a": [1.0, 2.0, 3.0], "b": [0.0, 0.0, 0.0]}, [1, 2, 3], [1, 0, 1])
    view = SCORES.then(ThresholdGroup(frozen([2.0, -0.9])))
    assert view.names == ("high-risk-0", "high-risk-1")
    assert view.table(cohort).values.tolist() == [[0, 1], [0, 0], [1, 0]]
    with pytest.raises(ValueError, match="1 thresholds for 2 scores"):
        SCORES.then(ThresholdGroup(frozen([2.0])))


# --- curves ----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 150), sites=st.integers(1, 6), ties=st.booleans())
def test_any_split_gives_the_pooled_curves_and_test(seed: int, n: int, sites: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    cohort = cohort_of(rng, n, ties)
    thresholds = frozen([0.1, -0.2])
    grid = TimeGrid.regular(3.0, 60.0)
    ask = {"minimum": 0, "stratified": False}
    curves, test = run_pooled(group_curves(SCORES, grid, thresholds, **ask), sites_of(cohort, rng, sites))
    oracle, pooled_test = run_pooled(group_curves(SCORES, grid, thresholds, **ask), [cohort])
    for name in ("survival", "lower", "upper", "remaining", "patients", "events"):
        np.testing.assert_array_equal(getattr(curves, name), getattr(oracle, name))
    np.testing.assert_array_equal(test.statistic, pooled_test.statistic)


@given(seed=st.integers(0, 2**32 - 1), ties=st.booleans())
def test_regrouping_strata_gives_the_same_stratified_test(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    centres = [cohort_of(rng, int(rng.integers(1, 60)), ties) for _ in range(5)]
    centres = [pool([_renamed(c, f"centre-{i}")]) for i, c in enumerate(centres)]
    grouped = [pool(centres[:2]), pool(centres[2:])]
    thresholds = frozen([0.0, 0.3])
    ask = {"minimum": 0, "stratified": True}
    grid = TimeGrid.regular(10, 60)
    _, apart = run_pooled(group_curves(SCORES, grid, thresholds, **ask), centres)
    _, together = run_pooled(group_curves(SCORES, grid, thresholds, **ask), grouped)
    assert together.stratified
    for name in ("observed", "expected", "variance"):
        np.testing.assert_allclose(getattr(together, name), getattr(apart, name), rtol=1e-12, atol=1e-12)
    expected = sum(naive_log_rank(c.time, c.event, SCORES.table(c).values[:, 0] > 0) for c in centres)
    sums = [apart.observed[0], apart.expected[0], apart.variance[0]]
    np.testing.assert_allclose(sums, expected, rtol=1e-11, atol=1e-11)


def naive_log_rank(time: np.ndarray, event: np.ndarray, high: np.ndarray) -> np.ndarray:
    sums = np.zeros(3)
    for moment in np.unique(time[event]):
        risk = time >= moment
        dies = event & (time == moment)
        n, n1, d = risk.sum(), (risk & high).sum(), dies.sum()
        variance = d * n1 / n * (n - n1) / n * (n - d) / (n - 1) if n > 1 else 0.0
        sums += [(dies & high).sum(), d * n1 / n, variance]
    return sums


def test_inside_one_site_the_stratified_test_is_scikit_survivals() -> None:
    cohort = cohort_of(np.random.default_rng(1), 80, ties=True)
    ask = {"minimum": 0, "stratified": True}
    _, test = run_pooled(group_curves(SCORES, TimeGrid.regular(10, 60), np.zeros(2), **ask), [cohort])
    high = (SCORES.table(cohort).values[:, 0] > 0).astype(int)
    statistic, p = compare_survival(Surv.from_arrays(cohort.event, cohort.time), high)
    assert test.statistic[0] == pytest.approx(statistic, rel=1e-11)
    assert test.p[0] == pytest.approx(p, rel=1e-10)


def _renamed(cohort: Cohort, name: str) -> Cohort:
    return Cohort.of(name, cohort.columns, cohort.time, cohort.event)


def exact_curves(cohort: Cohort, thresholds: np.ndarray) -> tuple[GroupCurves, LogRank]:
    return run_pooled(group_curves(SCORES, TimeGrid.exact(cohort.time), thresholds, minimum=0), [cohort])


@pytest.mark.parametrize("ties", [False, True])
def test_on_the_exact_grid_curves_equal_lifelines(ties: bool) -> None:
    rng = np.random.default_rng(5)
    cohort = cohort_of(rng, 160, ties)
    curves, _ = exact_curves(cohort, np.zeros(2))
    high = SCORES.table(cohort).values > 0
    for model in range(2):
        for group in range(2):
            rows = high[:, model] == group
            judge = KaplanMeierFitter().fit(cohort.time[rows], cohort.event[rows], timeline=curves.time)
            ours = curves.survival[model, group]
            np.testing.assert_allclose(ours, judge.survival_function_.iloc[:, 0], rtol=1e-10, atol=1e-12)
            limits = judge.confidence_interval_survival_function_
            known = (ours > 0) & (ours < 1)
            np.testing.assert_allclose(curves.lower[model, group][known], limits.iloc[:, 0][known], rtol=1e-8)
            np.testing.assert_allclose(curves.upper[model, group][known], limits.iloc[:, 1][known], rtol=1e-8)
            median = curves.median[model, group]
            assert median[0] == judge.median_survival_time_
            judged = median_survival_times(judge.confidence_interval_survival_function_.ffill())
            assert median[1] == judged.iloc[0, 0]
            upper = judged.iloc[0, 1]
            assert median[2] == upper or (np.isnan(median[2]) and np.isinf(upper)) or (ours == 0).any()


@pytest.mark.parametrize("grid", [TimeGrid.regular(3, 60), TimeGrid.regular(1, 240)])
def test_pooled_log_rank_equals_lifelines_and_scikit_survival_on_binned_times(grid: TimeGrid) -> None:
    cohort = cohort_of(np.random.default_rng(6), 200)
    _, test = run_pooled(group_curves(SCORES, grid, np.zeros(2), minimum=0), [cohort])
    binned = np.append(grid.edges, grid.edges[-1] + 1)[grid.bin_of(cohort.time)]
    high = SCORES.table(cohort).values > 0
    for model in range(2):
        judge = multivariate_logrank_test(binned, high[:, model], cohort.event)
        assert test.statistic[model] == pytest.approx(judge.test_statistic, rel=1e-10)
        assert test.p[model] == pytest.approx(judge.p_value, rel=1e-9)
        other, _ = compare_survival(Surv.from_arrays(cohort.event, binned), high[:, model].astype(int))
        assert test.statistic[model] == pytest.approx(other, rel=1e-10)


def test_the_log_band_is_lognormal_and_cut_at_one() -> None:
    counts = np.array([[1.0, 0], [2, 1], [3, 0], [0, 3]])[:, None, :]
    curves = kaplan_meier(counts, TimeGrid.regular(1, 3), band="log")
    np.testing.assert_allclose(curves.survival[0], [0.9, 0.9 * 7 / 9, 0.9 * 7 / 9 / 2], rtol=1e-15)
    sigma = np.sqrt(1 / 90 + 2 / 63 + 3 / 18)
    assert curves.standard_error[0, 2] == pytest.approx(curves.survival[0, 2] * sigma, rel=1e-12)
    assert curves.lower[0, 2] == pytest.approx(curves.survival[0, 2] * np.exp(-1.959963984540054 * sigma), rel=1e-12)
    assert curves.upper[0, 0] == 1.0
    assert curves.at_risk((0, 1, 3)).tolist() == [[10, 9, 3]]
    assert curves.at(2.0)[0, 0] == curves.survival[0, 1]
    with pytest.raises(ValueError, match="not an edge"):
        curves.at_risk((1.5,))
    with pytest.raises(ValueError, match="band must be one of"):
        kaplan_meier(counts, TimeGrid.regular(1, 3), band="linear")
    with pytest.raises(ValueError, match="counts have 4 time bins, the grid has 3"):
        kaplan_meier(counts, TimeGrid.regular(1, 2))


def test_nobody_at_risk_nobody_dead_and_everybody_dead() -> None:
    counts = np.zeros((4, 3, 2))
    counts[:, 1] = [[0, 1], [0, 2], [0, 0], [0, 0]]  # only censored
    counts[:, 2] = [[1, 0], [1, 0], [0, 0], [0, 0]]  # all die
    curves = kaplan_meier(counts, TimeGrid.regular(1, 3))
    assert curves.survival.tolist() == [[1, 1, 1], [1, 1, 1], [0.5, 0, 0]]
    assert curves.lower[1].tolist() == curves.upper[1].tolist() == [1, 1, 1]
    assert np.isnan(curves.lower[2, 1:]).all()
    assert np.isnan(curves.median[1]).all()
    assert curves.median[2, 0] == 1
    assert curves.median[2, 1] == 1
    assert np.isnan(curves.median[2, 2])


def test_merged_bins_are_asked_by_default() -> None:
    rng = np.random.default_rng(9)
    cohort = cohort_of(rng, 300)
    traffic = Traffic()
    grid = TimeGrid.regular(1, 120)
    curves, _ = run_pooled(group_curves(SCORES, grid, np.zeros(2), keep=(24, 60)), sites_of(cohort, rng, 4), traffic)
    assert traffic.kinds == [("time-counts",), ("group-counts",)]
    assert {24.0, 60.0} <= set(curves.time)
    left = -np.diff(curves.remaining.sum(axis=1), axis=-1)
    inner = ~np.isin(curves.time[1:], [24, 60])
    assert (left[:, inner] >= 20).all()
    exact, _ = exact_curves(cohort, np.zeros(2))
    at_sixty = exact.survival[..., np.searchsorted(exact.time, 60) - 1]
    np.testing.assert_allclose(curves.at(60)[..., 0], at_sixty, atol=0.05)


def test_the_median_split_of_seven_real_centres(shared_data: Path) -> None:
    cohorts, view, reference = geo(shared_data)
    told = reference["nsclc_geo_eval"]
    pooled = pool(cohorts)
    thresholds = run_pooled(score_medians(view, 10), cohorts)
    scores = view.table(pooled).values[:, 0]
    assert abs((scores > thresholds[0]).sum() - told["n_high"]) <= 13  # one in a hundred patients
    median = frozen([np.median(scores)])
    curves, test = run_pooled(group_curves(view, TimeGrid.exact(pooled.time), median, minimum=0), cohorts)
    assert test.statistic[0] == pytest.approx(told["median_split_logrank_chi2"], rel=1e-10)
    assert test.p[0] == pytest.approx(told["logrank_p"], rel=1e-9)
    last = np.searchsorted(curves.time, 60, side="right") - 1
    np.testing.assert_allclose(curves.survival[0, :, last], list(told["KM_S60"].values()), rtol=1e-10)
    merged, monthly = run_pooled(group_curves(view, TimeGrid.regular(1, 240), median, keep=(60,)), cohorts)
    np.testing.assert_allclose(merged.at(60)[0, :, 0], list(told["KM_S60"].values()), atol=0.01)
    assert monthly.statistic[0] == pytest.approx(test.statistic[0], rel=0.05)
