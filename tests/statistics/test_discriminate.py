"""Concordance and AUC: any split gives the pooled counts, and certified limits contain the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from lifelines.utils import concordance_index
from scipy.stats import norm
from sksurv.exceptions import NoComparablePairException
from sksurv.metrics import concordance_index_censored, concordance_index_ipcw
from sksurv.metrics import cumulative_dynamic_auc as sksurv_auc
from sksurv.util import Surv

from ctfed.federation import Cohort, CtfedError, Feature, Refusal, View, pool, run_pooled
from ctfed.federation.arrays import frozen
from ctfed.federation.pooled import Traffic
from ctfed.statistics.concordance import BLOCK, count_pairs
from ctfed.statistics.discriminate import (
    EvaluationTable,
    bootstrap_intervals,
    censoring_curve,
    cumulative_dynamic_auc,
    evaluation_table,
    harrell_concordance,
    harrell_value,
    uno_concordance,
    within_site_concordance,
)
from ctfed.statistics.evaluation_tables import choose_bins
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.timegrid import TimeGrid

RAW = View((Feature("a", 4), Feature("b", 4)), split="all")
SCORES = RAW.then(LinearPredictor(frozen([[1.0, 0.0], [0.3, 1.0], [0.0, -1.0]])))
COARSE = 0.5  # width to which tied times and scores are rounded


def centre_of(rng: np.random.Generator, n: int, name: str = "s", ties: bool = False, base: float = 1.0) -> Cohort:
    a, b = rng.normal(size=(2, n))
    time = rng.exponential(base * np.exp(-0.7 * a), n) + 0.01
    if ties:
        a, b, time = np.round(a / COARSE) * COARSE, np.round(b), np.ceil(time / COARSE) * COARSE
    return Cohort.of(name, {"a": a, "b": b}, time, rng.random(n) < 0.6)


def centres(rng: np.random.Generator, count: int = 5, largest: int = 60, ties: bool = False) -> list[Cohort]:
    sizes = rng.integers(1, largest, count)
    return [centre_of(rng, int(n), f"site-{i}", ties, float(i + 1)) for i, n in enumerate(sizes)]


def sksurv_c(event: np.ndarray, time: np.ndarray, score: np.ndarray) -> float:
    """NaN where scikit-survival finds nothing to compare."""
    if time.size < 2 or not event.any():
        return float("nan")
    try:
        with np.errstate(invalid="ignore"):
            return float(concordance_index_censored(event, time, score)[0])
    except NoComparablePairException:
        return float("nan")


def naive_pairs(cohort: Cohort, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, n) comparable and concordant (ties 1/2) pairs, row = the one who dies first."""
    time, event = cohort.time, cohort.event
    later = (time[None] > time[:, None]) | ((time[None] == time[:, None]) & ~event[None])
    comparable = event[:, None] & later
    won = (score[:, None] > score[None]) + 0.5 * (score[:, None] == score[None])
    return comparable.astype(float), comparable * won


# --- pairs inside a site ---------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), ties=st.booleans())
def test_regrouping_strata_over_sites_gives_the_same_pairs(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    sites = centres(rng, ties=ties)
    apart = run_pooled(within_site_concordance(SCORES, covariance=True), sites)
    grouped = [pool(sites[:3]), pool(sites[3:])]
    for cohorts in (grouped, [pool(sites)]):
        together = run_pooled(within_site_concordance(SCORES, covariance=True), cohorts)
        for name in ("value", "standard_error", "concordant", "tied", "covariance"):
            np.testing.assert_array_equal(getattr(together, name), getattr(apart, name))
        assert together.comparable == apart.comparable


@given(seed=st.integers(0, 2**32 - 1), ties=st.booleans())
def test_counts_and_errors_are_those_of_all_pairs_one_by_one(seed: int, ties: bool) -> None:
    sites = centres(np.random.default_rng(seed), ties=ties)
    found = run_pooled(within_site_concordance(SCORES, covariance=True), sites)
    plain = run_pooled(within_site_concordance(SCORES), sites)
    comparable, concordance = [], []
    for model in range(3):
        each = [naive_pairs(site, SCORES.table(site).values[:, model]) for site in sites]
        comparable.append(np.concatenate([h.sum(0) + h.sum(1) for h, _ in each]))
        concordance.append(np.concatenate([g.sum(0) + g.sum(1) for _, g in each]))
    pairs = comparable[0].sum() / 2
    assert found.comparable == pairs
    assume(pairs > 0)
    value = np.array([a.sum() / 2 / pairs for a in concordance])
    influence = np.stack([(a - c * b) / pairs for a, b, c in zip(concordance, comparable, value, strict=True)])
    np.testing.assert_allclose(found.value, value, rtol=1e-14)
    np.testing.assert_allclose(found.covariance, influence @ influence.T, rtol=1e-9, atol=1e-13)
    for result in (found, plain):
        np.testing.assert_allclose(result.standard_error**2, (influence**2).sum(axis=1), rtol=1e-9, atol=1e-13)
    assert plain.covariance is None


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 120), ties=st.booleans())
def test_one_site_gives_scikit_survivals_and_lifelines_c(seed: int, n: int, ties: bool) -> None:
    cohort = centre_of(np.random.default_rng(seed), n, ties=ties)
    found = run_pooled(within_site_concordance(SCORES), [cohort])
    assume(found.comparable > 0)
    for model in range(3):
        score = SCORES.table(cohort).values[:, model]
        c, concordant, discordant, tied, _ = concordance_index_censored(cohort.event, cohort.time, score)
        assert found.value[model] == pytest.approx(c, abs=1e-12)
        assert (found.concordant[model], found.tied[model]) == (concordant, tied)
        assert found.comparable == concordant + discordant + tied
        assert found.value[model] == pytest.approx(concordance_index(cohort.time, -score, cohort.event), abs=1e-12)


def test_the_conventions_on_tied_times_and_scores() -> None:
    # Events at 2 and 2, censored at 2: the two events do not compare, each of them does with the censored one.
    cohort = Cohort.of("s", {"a": [3.0, 1.0, 1.0], "b": [0.0, 0.0, 0.0]}, [2, 2, 2], [1, 1, 0])
    found = run_pooled(within_site_concordance(SCORES), [cohort])
    assert found.comparable == 2
    assert (found.concordant[0], found.tied[0], found.value[0]) == (1, 1, 0.75)
    assert (found.tied[2], found.value[2]) == (2, 0.5)


def test_large_strata_are_counted_in_blocks() -> None:
    rng = np.random.default_rng(0)
    n = 1400
    assert n * n // 4 > BLOCK
    cohort = centre_of(rng, n, ties=True)
    scores = np.stack([cohort.columns["a"], rng.normal(size=n)], axis=1)
    found = count_pairs(cohort.time, cohort.event, scores)
    for model in range(2):
        comparable, concordance = naive_pairs(cohort, scores[:, model])
        np.testing.assert_array_equal(found.comparable, comparable.sum(0) + comparable.sum(1))
        np.testing.assert_array_equal(found.concordance[model], concordance.sum(0) + concordance.sum(1))


def test_nothing_to_compare_is_not_a_number() -> None:
    sites = [Cohort.of(f"s{i}", {"a": [1.0], "b": [2.0]}, [i + 1.0], [1]) for i in range(3)]
    empty = sites[0].subset(np.zeros(1, dtype=bool), "empty")
    for covariance in (False, True):
        found = run_pooled(within_site_concordance(SCORES, covariance=covariance), [*sites, empty])
        assert found.comparable == 0
        assert np.isnan(found.value).all()
        assert np.isnan(found.intervals()).all()


def test_a_patient_without_a_score_is_refused() -> None:
    cohort = Cohort.of("s", {"a": [1.0, np.nan], "b": [1.0, 2.0]}, [1, 2], [1, 0])
    with pytest.raises(Refusal, match="1 patients have no risk score"):
        run_pooled(within_site_concordance(SCORES), [cohort])
    with pytest.raises(Refusal, match="missing-value"):
        EvaluationTable(SCORES, TimeGrid.regular(1, 2), np.zeros((3, 1))).answer(cohort)


def test_the_standard_error_is_the_bootstraps_within_sites() -> None:
    rng = np.random.default_rng(4)
    sites = [centre_of(rng, n, f"s{n}", ties=True) for n in (60, 90, 120)]
    found = run_pooled(within_site_concordance(SCORES, covariance=True), sites)
    drawn = []
    for _ in range(800):
        sums = np.zeros(4)
        for site in sites:
            rows = rng.integers(0, site.patients, site.patients)
            pairs = count_pairs(site.time[rows], site.event[rows], SCORES.table(site).values[rows])
            sums += [*pairs.concordance.sum(axis=1) / 2, pairs.comparable.sum() / 2]
        drawn.append(sums[:3] / sums[3])
    spread = np.cov(np.array(drawn).T)
    np.testing.assert_allclose(found.standard_error, np.sqrt(np.diag(spread)), rtol=0.1)
    difference = found.difference(0, 1)
    assert difference.value == pytest.approx(found.value[0] - found.value[1], abs=1e-15)
    assert difference.standard_error == pytest.approx(np.std(np.diff(np.array(drawn)[:, :2])), rel=0.1)
    assert difference.upper - difference.lower == pytest.approx(2 * norm.isf(0.025) * difference.standard_error)
    assert difference.p == pytest.approx(2 * norm.sf(abs(difference.value) / difference.standard_error))
    low, high = found.intervals()[0]
    assert low < found.value[0] < high
    with pytest.raises(ValueError, match="covariance=True"):
        run_pooled(within_site_concordance(SCORES), sites).difference(0, 1)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    view = RAW.then(LinearPredictor(frozen([[1.0, 0.0]])))
    truth = run_pooled(within_site_concordance(view), [centre_of(rng, 4000)]).value[0]
    inside = 0
    for _ in range(400):
        found = run_pooled(within_site_concordance(view), [centre_of(rng, 60), centre_of(rng, 60, "t")])
        low, high = found.intervals()[0]
        inside += low <= truth <= high
    assert 0.91 <= inside / 400 <= 0.985


# --- tables ----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), sites=st.integers(1, 6), fine=st.booleans())
def test_any_split_gives_the_pooled_table(seed: int, sites: int, fine: bool) -> None:
    rng = np.random.default_rng(seed)
    cohort = centre_of(rng, 130, ties=bool(seed % 2))
    owner = rng.integers(0, sites, cohort.patients)
    split = [cohort.subset(owner == index, f"site-{index}") for index in range(sites)]
    ask: dict[str, Any] = {"horizons": (1.0,), "min_cell": 5, "fine": fine}
    found = run_pooled(evaluation_table(SCORES, TimeGrid.regular(0.25, 6), **ask), split)
    oracle = run_pooled(evaluation_table(SCORES, TimeGrid.regular(0.25, 6), **ask), [cohort])
    np.testing.assert_allclose(found.score_edges, oracle.score_edges, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found.grid.edges, oracle.grid.edges)
    np.testing.assert_array_equal(found.counts, oracle.counts)
    assert (found.counts.sum(axis=(1, 2, 3)) == 130).all()
    table = SCORES.table(cohort)
    for model in range(3):
        score = np.searchsorted(found.score_edges[model], table.values[:, model])
        for kind, rows in enumerate((table.event, ~table.event)):
            expected = np.zeros(found.counts.shape[1:3])
            np.add.at(expected, (found.grid.bin_of(table.time)[rows], score[rows]), 1)
            np.testing.assert_array_equal(found.counts[model, :, :, kind], expected)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(40, 500), min_cell=st.integers(2, 12))
def test_default_cells_hold_the_minimum_on_average(seed: int, n: int, min_cell: int) -> None:
    rng = np.random.default_rng(seed)
    cohort = centre_of(rng, n)
    horizons = (0.5, 2.0, 40.0)
    grid = TimeGrid.regular(0.1, 50)
    try:
        found = run_pooled(evaluation_table(SCORES, grid, horizons=horizons, min_cell=min_cell), [cohort])
    except CtfedError:
        assert n < 8 * min_cell
        return
    leavers = found.counts[0].sum(axis=(1, 2))
    assert leavers[leavers > 0].min() >= min_cell * found.counts.shape[2]
    assert set(horizons) == set(found.dropped) | (set(horizons) & set(found.grid.edges.tolist()))
    assert 40.0 in found.dropped
    assert not found.fine
    assert found.patients == n


def test_a_table_costs_few_rounds_and_few_patients_get_none() -> None:
    rng = np.random.default_rng(2)
    cohort = centre_of(rng, 800)
    traffic = Traffic()
    grid = TimeGrid.regular(0.1, 10)
    found = run_pooled(evaluation_table(SCORES, grid, fine=True), [cohort], traffic)
    assert found.counts.shape == (3, 101, 50, 2)
    assert found.fine
    assert traffic.kinds[0] == ("time-counts", "moments")
    assert traffic.kinds[-1] == ("evaluation-table",)
    assert traffic.rounds <= 5
    held = found.counts.sum(axis=(1, 3))
    assert held.max() <= 3 * 800 / 50
    with pytest.raises(CtfedError, match="39 patients are too few for a table with 10 in each of 2 x 2 cells"):
        run_pooled(evaluation_table(SCORES, grid), [cohort.subset(np.arange(800) < 39)])
    with pytest.raises(ValueError, match="not an edge"):
        run_pooled(evaluation_table(SCORES, grid, horizons=(0.55,)), [cohort])


def test_of_two_horizons_with_too_few_patients_between_them_the_first_stays() -> None:
    cohort = centre_of(np.random.default_rng(5), 400)
    ask = evaluation_table(SCORES, TimeGrid.regular(0.1, 10), horizons=(1.1, 1.0), min_cell=10)
    found = run_pooled(ask, [cohort])
    assert found.dropped == (1.1,)
    assert 1.0 in found.grid.edges


def test_malformed_tables_are_refused() -> None:
    grid = TimeGrid.regular(1, 2)
    with pytest.raises(ValueError, match="must not decrease"):
        EvaluationTable(SCORES, grid, np.array([[1.0, 0.5]] * 3))
    with pytest.raises(ValueError, match=r"score edges must be \(3, B - 1\)"):
        EvaluationTable(SCORES, grid, np.zeros((2, 4)))


# --- statistics of a table -------------------------------------------------------------------------------------------


def tabulate(cohort: Cohort, score: np.ndarray, grid: TimeGrid, edges: np.ndarray) -> np.ndarray:
    counts = np.zeros((grid.bins, edges.size + 1, 2))
    np.add.at(counts, (grid.bin_of(cohort.time), np.searchsorted(edges, score), (~cohort.event).astype(int)), 1)
    return counts


def exact_table(cohort: Cohort, score: np.ndarray) -> tuple[np.ndarray, TimeGrid]:
    grid = TimeGrid.exact(cohort.time)
    return tabulate(cohort, score, grid, np.unique(score)[:-1]), grid


def latest_horizon(cohort: Cohort, quantile: float) -> float:
    """An observed time with an event at or before it and somebody beyond it; NaN when there is none."""
    times = np.unique(cohort.time)
    usable = times[(times < times[-1]) & (times >= cohort.time[cohort.event].min(initial=np.inf))]
    return float(usable[int(quantile * (usable.size - 1))]) if usable.size else float("nan")


def mixed_end(cohort: Cohort) -> bool:
    """True when the last time has both an event and a censoring, for which scikit-survival has no weight."""
    last = cohort.time == cohort.time.max()
    return bool(cohort.event[last].any() and not cohort.event[last].all())


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 150), ties=st.booleans())
def test_on_the_exact_grid_all_statistics_equal_scikit_survival(seed: int, n: int, ties: bool) -> None:
    cohort = centre_of(np.random.default_rng(seed), n, ties=ties)
    horizon = latest_horizon(cohort, 0.7)
    assume(np.isfinite(horizon) and not mixed_end(cohort))
    score = SCORES.table(cohort).values[:, 1]
    counts, grid = exact_table(cohort, score)
    y = Surv.from_arrays(cohort.event, cohort.time)
    c = harrell_concordance(counts)
    assert float(c.value) == pytest.approx(sksurv_c(cohort.event, cohort.time, score), abs=1e-10)
    auc = cumulative_dynamic_auc(counts, grid, horizon)
    assert float(auc.value) == pytest.approx(sksurv_auc(y, y, score, [horizon])[0][0], abs=1e-10)
    uno = uno_concordance(counts, grid, horizon)
    tau = float(np.nextafter(horizon, np.inf))
    assert float(uno.value) == pytest.approx(concordance_index_ipcw(y, y, score, tau=tau)[0], abs=1e-10)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 120),
    ties=st.booleans(),
    width=st.sampled_from([0.1, 0.5, 1.0, 3.0]),
    bins=st.integers(1, 12),
)
def test_certified_limits_contain_the_truth(seed: int, n: int, ties: bool, width: float, bins: int) -> None:
    rng = np.random.default_rng(seed)
    cohort = centre_of(rng, n, ties=ties)
    score = SCORES.table(cohort).values[:, 0]
    grid = TimeGrid.regular(width, 6.0)
    counts = tabulate(cohort, score, grid, np.sort(rng.normal(size=bins - 1)))
    found = harrell_concordance(counts)
    assert np.isnan(found.value) or found.lower - 1e-12 <= found.value <= found.upper + 1e-12
    for truth in harrells(cohort, score):
        assert np.isnan(truth) or found.lower - 1e-12 <= truth <= found.upper + 1e-12
    y = Surv.from_arrays(cohort.event, cohort.time)
    horizon = 3.0
    usable = (cohort.event & (cohort.time <= horizon)).any() and (cohort.time > horizon).any()
    if usable and not mixed_end(cohort):
        auc = cumulative_dynamic_auc(counts, grid, horizon)
        truth = sksurv_auc(y, y, score, [horizon])[0][0]
        assert auc.lower - 1e-12 <= truth <= auc.upper + 1e-12
        assert auc.lower - 1e-12 <= auc.value <= auc.upper + 1e-12
        uno = uno_concordance(counts, grid, horizon)
        truth = concordance_index_ipcw(y, y, score, tau=float(np.nextafter(horizon, 4)))[0]
        assert uno.lower - 1e-12 <= truth <= uno.upper + 1e-12
        assert uno.lower - 1e-12 <= uno.value <= uno.upper + 1e-12


def harrells(cohort: Cohort, score: np.ndarray) -> list[float]:
    """C under several conventions on tied times and scores."""
    values = [sksurv_c(cohort.event, cohort.time, score)]
    time, event = cohort.time, cohort.event
    longer = event[:, None] & (time[None] > time[:, None])
    also_censored = event[:, None] & ((time[None] > time[:, None]) | ((time[None] == time[:, None]) & ~event[None]))
    wins, ties = score[:, None] > score[None], score[:, None] == score[None]
    for comparable in (longer, also_censored):
        for share in (0.0, 0.5, 1.0):
            pairs = comparable.sum()
            values.append(
                (comparable & wins).sum() / pairs + share * (comparable & ties).sum() / pairs if pairs else np.nan
            )
        unequal = (comparable & ~ties).sum()
        values.append((comparable & wins).sum() / unequal if unequal else np.nan)
    return values


@given(seed=st.integers(0, 2**32 - 1), bins=st.integers(1, 6), times=st.integers(2, 6), highest=st.booleans())
def test_the_limits_of_harrells_c_are_attained(seed: int, bins: int, times: int, highest: bool) -> None:
    """Patients arranged as the module's text says have exactly the limit, so no table-based limit can be tighter."""
    counts = np.random.default_rng(seed).integers(0, 4, (times, bins, 2)).astype(np.float64)
    time, event, score = [], [], []
    for j, b, kind in np.ndindex(counts.shape):
        held = int(counts[j, b, kind])
        rank = bins - 1 - b if highest else b
        moments = j + (rank + 0.5 * kind + 0.4 * (1 + np.arange(held)) / (held + 1)) / bins
        time += moments.tolist()
        event += [kind == 0] * held
        score += (b + (1 - moments / (times + 1) if highest else moments / (times + 1))).tolist()
    truth = sksurv_c(np.array(event, dtype=bool), np.array(time), np.array(score))
    found = harrell_concordance(counts)
    assume(np.isfinite(truth))
    limit = found.upper if highest else found.lower
    assert float(limit) == pytest.approx(truth, abs=1e-12)


def test_statistics_work_on_stacks_of_tables() -> None:
    rng = np.random.default_rng(8)
    counts = rng.integers(0, 3, (4, 5, 6, 3, 2)).astype(np.float64)
    grid = TimeGrid.regular(1, 5)
    for function in (
        harrell_concordance,
        lambda x: cumulative_dynamic_auc(x, grid, 3.0),
        lambda x: uno_concordance(x, grid, 3.0),
    ):
        stacked = function(counts)
        for index in np.ndindex(4, 5):
            alone = function(counts[index])
            for name in ("value", "lower", "upper"):
                np.testing.assert_allclose(getattr(stacked, name)[index], getattr(alone, name), rtol=1e-13)


def test_tables_that_tell_nothing() -> None:
    nothing = np.zeros((3, 2, 2))
    grid = TimeGrid.regular(1, 2)
    for found in (harrell_concordance(nothing), cumulative_dynamic_auc(nothing, grid, 1.0)):
        assert np.isnan([found.value, found.lower, found.upper]).all()
    one_bin = np.zeros((3, 2, 2))
    one_bin[0, :, 0] = 1  # two events in one time bin: their order may be anything
    found = harrell_concordance(one_bin)
    assert (float(found.lower), float(found.upper)) == (0, 1)
    discordant = np.zeros((3, 2, 2))
    discordant[0, 0, 0] = discordant[0, 1, 1] = 1  # they compare only when the event, whose score is lower, comes first
    found = harrell_concordance(discordant)
    assert (float(found.lower), float(found.upper)) == (0, 0)


def test_the_censoring_curve_lies_between_its_limits() -> None:
    rng = np.random.default_rng(12)
    for _ in range(50):
        cohort = centre_of(rng, 60, ties=bool(rng.integers(2)))
        grid = TimeGrid.regular(0.7, 3.5)
        curve = censoring_curve(tabulate(cohort, cohort.columns["a"], grid, np.zeros(1)))
        exact, fine = exact_table(cohort, np.zeros(60))
        truth = censoring_curve(exact).low[fine.bin_of(cohort.time)]
        where = grid.bin_of(cohort.time)
        rows = cohort.event
        assert (curve.low[where][rows] <= truth[rows] + 1e-12).all()
        assert (truth[rows] <= curve.high[where][rows] + 1e-12).all()


# --- intervals -------------------------------------------------------------------------------------------------------


def test_the_poisson_bootstrap_of_a_table_is_the_bootstrap_of_patients() -> None:
    rng = np.random.default_rng(21)
    cohort = centre_of(rng, 250)
    score = SCORES.table(cohort).values[:, 0]
    counts, _ = exact_table(cohort, score)
    limits = bootstrap_intervals(counts[None], {"c": harrell_value}, replicates=1000, seed=1)["c"][0]
    influence = run_pooled(within_site_concordance(SCORES), [cohort])
    assert (limits[1] - limits[0]) / 2 / norm.isf(0.025) == pytest.approx(influence.standard_error[0], rel=0.1)
    drawn = []
    for _ in range(800):
        rows = rng.integers(0, 250, 250)
        pairs = count_pairs(cohort.time[rows], cohort.event[rows], score[rows, None])
        drawn.append(pairs.concordance.sum() / pairs.comparable.sum())
    np.testing.assert_allclose(limits, np.quantile(drawn, [0.025, 0.975]), atol=0.008)


def test_a_bootstrap_repeats_with_its_seed_and_gives_up_on_empty_tables() -> None:
    counts = np.random.default_rng(0).integers(0, 4, (2, 8, 5, 2)).astype(np.float64)
    ask = {"statistics": {"c": harrell_value}, "replicates": 200}
    first, again, other = (bootstrap_intervals(counts, seed=seed, **ask)["c"] for seed in (3, 3, 4))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    narrow = bootstrap_intervals(counts, seed=3, level=0.5, **ask)["c"]  # type: ignore[arg-type]
    assert (np.diff(narrow) < np.diff(first)).all()
    lone = np.zeros((1, 3, 2, 2))
    lone[0, 0, 0, 0] = lone[0, 1, 0, 1] = 1
    assert np.isnan(bootstrap_intervals(lone, **ask)["c"]).all()  # type: ignore[arg-type]


# --- real data -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def geo(shared_data: Path) -> tuple[list[Cohort], View, dict[str, Any]]:
    """Seven real centres (1,306 patients), the view of their published score, and the reference results."""
    rows = pd.read_csv(shared_data / "survival" / "nsclc_geo_7centres.csv").dropna(subset=["stage"])
    rows = rows[rows.time_months > 0]
    reference = json.loads((shared_data / "survival" / "reference_results.json").read_text())
    cox = reference["nsclc_geo_7centres"]
    cohorts = [
        Cohort.of(str(name), {k: d[k] for k in cox["cols"]}, d.time_months, d.event)
        for name, d in rows.groupby("centre")
    ]
    assert pool(cohorts).patients == cox["n"] == 1306
    step = LinearPredictor(frozen([cox["coef_efron"]]))
    return cohorts, View(tuple(Feature(name, 4) for name in cox["cols"]), split="all").then(step), reference


def test_the_within_centre_c_of_seven_real_centres(geo: Any) -> None:
    cohorts, view, reference = geo
    found = run_pooled(within_site_concordance(view), cohorts)
    told = reference["nsclc_geo_7centres"]["cindex_within_centre_pairs_only"]
    assert found.value[0] == pytest.approx(told, abs=1e-12)


def test_r_prints_the_same_standard_error(shared_data: Path) -> None:
    """R: summary(coxph(Surv(time, status) ~ age + sex + ph.ecog, lung)) prints 'Concordance= 0.637  (se = 0.025 )'."""
    rows = pd.read_csv(shared_data / "survival" / "ncctg_lung.csv")
    rows.columns = rows.columns.str.replace(".", "_")
    rows = rows.dropna(subset=["age", "sex", "ph_ecog"])
    told = json.loads((shared_data / "survival" / "reference_results.json").read_text())["ncctg_lung_all_R_reference"]
    columns = {name: rows[name] for name in ("age", "sex", "ph_ecog")}
    cohort = Cohort.of("lung", columns, rows["time"], rows["status"] == rows["status"].max())
    view = View(tuple(Feature(name, 7) for name in columns)).then(LinearPredictor(frozen([told["coef_efron"]])))
    found = run_pooled(within_site_concordance(view), [cohort])
    assert found.value[0] == pytest.approx(told["cindex_efron"], abs=1e-12)
    assert round(float(found.standard_error[0]), 3) == 0.025


def test_the_exact_table_of_real_centres_gives_the_pooled_results(geo: Any) -> None:
    cohorts, view, reference = geo
    cohort = pool(cohorts)
    score = view.table(cohort).values[:, 0]
    told = reference["nsclc_geo_eval"]
    edges, grid = np.unique(score)[:-1], TimeGrid.exact(np.append(cohort.time, 60.0))
    counts = run_pooled(_ask(EvaluationTable(view, grid, frozen(edges[None]))), cohorts)["counts"]
    c = harrell_concordance(counts)
    assert c.value[0] == pytest.approx(reference["nsclc_geo_7centres"]["cindex_efron"], abs=1e-10)
    auc = cumulative_dynamic_auc(counts, grid, 60.0)
    assert auc.value[0] == pytest.approx(told["auc_60m_ipcw(train=test)"], abs=1e-10)
    before = float(grid.edges[grid.edge_index(60.0) - 1])  # the reference leaves out what happens at tau itself
    assert uno_concordance(counts, grid, before).value[0] == pytest.approx(told["uno_c_tau60"], abs=1e-10)


def _ask(query: EvaluationTable) -> Any:
    return (yield query)


@pytest.mark.parametrize(("width", "bins", "error"), [(1, 20, 0.002), (1, 50, 0.002), (1, 200, 0.002), (3, 50, 0.003)])
def test_fine_tables_come_close_to_the_pooled_c_and_certify_it(geo: Any, width: int, bins: int, error: float) -> None:
    cohorts, view, reference = geo
    grid = TimeGrid.regular(width, 240)
    table = run_pooled(evaluation_table(view, grid, horizons=(60.0,), score_bins=bins, fine=True), cohorts)
    truth = reference["nsclc_geo_7centres"]["cindex_efron"]
    found = harrell_concordance(table.counts)
    assert abs(found.value[0] - truth) <= error
    assert found.lower[0] <= truth <= found.upper[0]
    assert found.upper[0] - found.lower[0] <= 0.09
    told = reference["nsclc_geo_eval"]["auc_60m_ipcw(train=test)"]
    auc = cumulative_dynamic_auc(table.counts, table.grid, 60.0)
    assert abs(auc.value[0] - told) <= 0.002
    assert auc.lower[0] <= told <= auc.upper[0]


def test_merged_tables_certify_the_pooled_c_within_wider_limits(geo: Any) -> None:
    cohorts, view, reference = geo
    found = run_pooled(evaluation_table(view, TimeGrid.regular(1, 240), horizons=(24.0, 60.0)), cohorts)
    truth = reference["nsclc_geo_7centres"]["cindex_efron"]
    c = harrell_concordance(found.counts)
    assert abs(c.value[0] - truth) <= 0.006
    assert c.lower[0] <= truth <= c.upper[0]
    assert c.upper[0] - c.lower[0] <= 0.2
    assert found.dropped == ()


def test_a_bin_in_which_nobody_leaves_is_no_row_of_the_table() -> None:
    """It would count as cells, of which there may be one for every ``min_cell`` patients."""
    grid = TimeGrid(frozen([12.0, 16.0, 22.0, 24.0, 36.0]))
    leavers = np.array([20.0, 17.0, 16.0, 0.0, 19.0, 0.0])
    bins, merged, dropped = choose_bins(grid, leavers, (24.0,), 5, 50)
    assert (bins, merged.edges.tolist(), dropped) == (3, [12.0, 16.0, 24.0, 36.0], ())
    assert merged.edges.size * bins * 5 <= leavers.sum()
