"""Brier, calibration and decision sums: scikit-survival's and closed forms' values, whatever the split over sites."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_data import (
    GRID,
    HAZARD,
    HORIZONS,
    SCORES,
    SUM,
    cohort_of,
    exact_follow_up,
    followed_on,
    seven_centres,
    split_over,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from scipy.stats import kstest
from sklearn.linear_model import LogisticRegression
from sksurv.metrics import brier_score, integrated_brier_score
from sksurv.util import Surv

from ctfed.federation import Cohort, CtfedError, Feature, View, pool, run_pooled
from ctfed.federation.arrays import frozen
from ctfed.federation.pooled import Traffic
from ctfed.statistics.baseline import pooled_baseline
from ctfed.statistics.calibrate import HorizonLosses, calibration_curve, risk_errors
from ctfed.statistics.curves import kaplan_meier
from ctfed.statistics.d_calibrate import SurvivalDeciles, d_calibration
from ctfed.statistics.discriminate import evaluation_table
from ctfed.statistics.horizons import HorizonWeights, follow_up, hazards_at
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.recalibrate import RecalibrationDerivatives, recalibrate
from ctfed.statistics.timegrid import TimeGrid


def risks(cohort: Cohort, view: View = SCORES, hazard: np.ndarray = HAZARD) -> np.ndarray:
    """(m, H, n) predicted risks."""
    return 1 - np.exp(-hazard[:, :, None] * np.exp(view.table(cohort).values.T[:, None, :]))


def usable(cohort: Cohort) -> bool:
    """Whether somebody dies before the first horizon, and at each of them somebody is left uncensored."""
    return bool((cohort.event & (cohort.time <= HORIZONS[0])).any() and cohort.time.max() > HORIZONS[-1] + 0.3)


# --- against scikit-survival -----------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(20, 150), ties=st.booleans(), sites=st.integers(1, 5))
def test_the_brier_score_is_scikit_survivals_over_any_split(seed: int, n: int, ties: bool, sites: int) -> None:
    cohort = cohort_of(seed, n, ties=ties)
    assume(usable(cohort))
    followed = exact_follow_up(cohort)
    found = run_pooled(risk_errors(SCORES, followed, HAZARD), split_over(cohort, seed, sites))
    y = Surv.from_arrays(cohort.event, cohort.time)
    survival = 1 - risks(cohort)
    for model in range(3):
        _, told = brier_score(y, y, survival[model].T, list(HORIZONS))
        np.testing.assert_allclose(found.brier[model], told, rtol=SUM)
        assert found.integrated()[model] == pytest.approx(
            integrated_brier_score(y, y, survival[model].T, list(HORIZONS)), rel=SUM
        )
    _, null = brier_score(y, y, np.tile(followed.survival, (n, 1)), list(HORIZONS))
    np.testing.assert_allclose(found.reference, null, rtol=SUM)
    np.testing.assert_allclose(found.expected, risks(cohort).mean(axis=2), rtol=SUM)
    lifelines = KaplanMeierFitter().fit(cohort.time, cohort.event)
    np.testing.assert_allclose(found.observed, 1 - lifelines.predict(list(HORIZONS)).to_numpy(), atol=SUM)
    np.testing.assert_allclose(found.ratio, found.observed / risks(cohort).mean(axis=2), rtol=SUM)
    assert found.patients == n


@given(seed=st.integers(0, 2**32 - 1), sites=st.integers(2, 6), minimum=st.integers(0, 12))
def test_any_split_gives_the_pooled_phase_one_and_two(seed: int, sites: int, minimum: int) -> None:
    cohort = cohort_of(seed, ties=bool(seed % 2))
    parts = split_over(cohort, seed, sites)
    followed, oracle = (run_pooled(follow_up(SCORES, GRID, HORIZONS, minimum=minimum), p) for p in (parts, [cohort]))
    np.testing.assert_array_equal(followed.weights.case, oracle.weights.case)
    np.testing.assert_array_equal(followed.weights.edges, oracle.weights.edges)
    np.testing.assert_array_equal(followed.survival, oracle.survival)
    query = HorizonLosses(SCORES, followed.weights, frozen(HAZARD))
    apart, whole = (run_pooled(asked(query), p) for p in (parts, [cohort]))
    for name in query.layout:
        np.testing.assert_allclose(apart[name], whole[name], rtol=SUM)
    deciles = SurvivalDeciles(SCORES, TimeGrid(frozen(HORIZONS)), frozen(HAZARD), 5)
    apart, whole = (run_pooled(asked(deciles), p) for p in (parts, [cohort]))
    np.testing.assert_allclose(apart["counts"], whole["counts"], rtol=SUM, atol=SUM)


def asked(query):  # type: ignore[no-untyped-def]
    total = yield query
    return total


@given(seed=st.integers(0, 2**32 - 1), minimum=st.integers(1, 20))
def test_merged_weights_keep_the_sums_of_weights_and_hold_their_minimum(seed: int, minimum: int) -> None:
    cohort = cohort_of(seed)
    assume(usable(cohort))
    fine, merged = (followed_on(cohort, GRID, HORIZONS, least) for least in (0, minimum))
    table = SCORES.table(cohort)
    for before, after in zip(fine.weights.of(table), merged.weights.of(table), strict=True):
        np.testing.assert_allclose(before.sum(axis=1), after.sum(axis=1), rtol=1e-12)
    bins = merged.weights.grid.bin_of(cohort.time[cohort.event])
    held = np.bincount(bins, minlength=merged.weights.grid.bins)[:-1]
    within = np.delete(np.arange(held.size), merged.weights.horizons)
    assert (held[within] >= minimum).all()  # a bin that ends at a horizon may hold fewer
    edges = fine.weights.edges
    assert (np.isin(merged.weights.edges, edges)).all()


def test_the_standard_error_of_the_brier_score_is_the_bootstraps() -> None:
    cohort = cohort_of(5, 600)
    followed = exact_follow_up(cohort)
    found = run_pooled(risk_errors(SCORES, followed, HAZARD), [cohort])
    case, control = followed.weights.of(SCORES.table(cohort))
    loss = case * (1 - risks(cohort)) ** 2 + control * risks(cohort) ** 2
    rng = np.random.default_rng(0)
    drawn = np.stack([loss[..., rng.integers(0, 600, 600)].mean(axis=-1) for _ in range(500)])
    np.testing.assert_allclose(found.brier_error, drawn.std(axis=0), rtol=0.12)
    low, high = np.moveaxis(found.ratio_intervals(), -1, 0)
    assert (low < found.ratio).all()
    assert (found.ratio < high).all()


# --- slope, intercept, curve -----------------------------------------------------------------------------------------


def sklearn_recalibration(x: np.ndarray, case: np.ndarray, control: np.ndarray) -> tuple[float, float]:
    """(alpha, gamma) by scikit-learn, each patient with a known state once with its weight."""
    weight = case + control
    rows = weight > 0
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-13, max_iter=1000)
    model.fit(x[rows, None], (case > 0)[rows], sample_weight=weight[rows])
    return float(model.intercept_[0]), float(model.coef_[0, 0])


@given(seed=st.integers(0, 2**32 - 1), sites=st.integers(1, 5), ties=st.booleans())
def test_slope_and_intercept_are_scikit_learns_weighted_regression(seed: int, sites: int, ties: bool) -> None:
    cohort = cohort_of(seed, ties=ties)
    followed = followed_on(cohort, GRID, HORIZONS, 5)
    traffic = Traffic()
    found = run_pooled(recalibrate(SCORES, followed, HAZARD), split_over(cohort, seed, sites), traffic)
    assert traffic.rounds <= 16
    case, control = followed.weights.of(SCORES.table(cohort))
    for model in range(3):
        for h in range(2):
            f = risks(cohort)[model, h]
            x = np.log(np.expm1(HAZARD[model, h] * np.exp(SCORES.table(cohort).values[:, model])))  # logit f
            x = np.minimum(x, 30.0)
            alpha, gamma = sklearn_recalibration(x, case[h], control[h])
            assert found.slope[model, h] == pytest.approx(gamma, rel=1e-7, abs=1e-7)
            assert found.slope_intercept[model, h] == pytest.approx(alpha, rel=1e-7, abs=1e-7)
            smooth = 1 / (1 + np.exp(-found.slope_intercept[model, h] - found.slope[model, h] * x))
            assert found.ici[model, h] == pytest.approx(np.abs(f - smooth).mean(), rel=1e-9, abs=1e-12)
            # The score equations hold too.
            rest = case[h] - (case[h] + control[h]) * smooth
            assert abs(rest.sum()) < 1e-6
            assert abs((rest * x).sum()) < 1e-6
            large = 1 / (1 + np.exp(-found.intercept[model, h] - x))
            assert case[h].sum() == pytest.approx(((case[h] + control[h]) * large).sum(), rel=1e-9)


def test_a_calibrated_model_has_slope_1_and_intervals_cover_it() -> None:
    inside = 0
    view = SCORES.then(LinearPredictor(frozen([[1.0, 0.0, 0.0]])))
    for seed in range(60):
        rng = np.random.default_rng(seed)
        a = rng.normal(size=400)
        time = rng.exponential(1.0 / (0.5 * np.exp(0.9 * a)))
        leave = rng.exponential(4.0, 400)
        cohort = Cohort.of("s", {"a": a, "b": np.zeros(400)}, np.minimum(time, leave) + 1e-3, time <= leave)
        followed = exact_follow_up(cohort)
        found = run_pooled(recalibrate(view, followed, np.array([[0.5, 1.0]])), [cohort])
        low, high = found.slope_intervals()[0, 0]
        inside += low <= 1 <= high
    assert 51 <= inside <= 60


def test_separated_states_and_wide_scores_have_no_slope() -> None:
    time = np.concatenate([np.full(30, 0.5), np.full(30, 5.0)])
    a = np.concatenate([np.linspace(1, 2, 30), np.linspace(-2, -1, 30)])
    cohort = Cohort.of("s", {"a": a, "b": np.zeros(60)}, time, np.ones(60))
    found = run_pooled(recalibrate(SCORES, exact_follow_up(cohort), HAZARD), [cohort])
    assert np.isnan(found.slope[0]).all()
    assert np.isnan(found.slope_error[0]).all()
    wide = SCORES.then(LinearPredictor(frozen([[1e3, 0.0, 0.0], [1.0, 0.0, 0.0]])))
    errors = run_pooled(risk_errors(wide, exact_follow_up(cohort), HAZARD[:2]), [cohort])
    assert np.isnan(errors.brier[0]).all()
    assert np.isfinite(errors.brier[1]).all()


def test_the_curve_has_kaplan_meier_risks_of_the_score_bins() -> None:
    cohort = cohort_of(3, 900)
    parts = split_over(cohort, 1, 4)
    table = run_pooled(evaluation_table(SCORES, GRID, horizons=HORIZONS, min_cell=10, fine=True, score_bins=8), parts)
    found = run_pooled(calibration_curve(SCORES, table, HAZARD, HORIZONS), parts)
    curves = kaplan_meier(table.counts, table.grid)
    for model in range(3):
        score = SCORES.table(cohort).values[:, model]
        place = np.searchsorted(table.score_edges[model], score)
        for b in range(8):
            rows = place == b
            np.testing.assert_allclose(found.predicted[model, b], risks(cohort)[model][:, rows].mean(axis=1), rtol=SUM)
            exact = (
                1 - KaplanMeierFitter().fit(cohort.time[rows], cohort.event[rows]).predict(list(HORIZONS)).to_numpy()
            )
            assert (found.observed[model, b] <= exact + 1e-12).all()
            assert (exact <= found.observed[model, b] + found.slack[model, b] + 1e-12).all()
            assert found.observed[model, b, 0] == 1 - curves.survival[model, b, table.grid.edge_index(1.0)]
    np.testing.assert_allclose(
        found.ici, (np.abs(found.predicted - found.observed) * found.patients[..., None]).sum(axis=1) / 900
    )
    assert (found.largest >= found.ici).all()


# --- D-calibration ---------------------------------------------------------------------------------------------------


def naive_deciles(survival: np.ndarray, died: np.ndarray, bins: int) -> np.ndarray:
    """Haider et al.'s counts, patient by patient."""
    counts = np.zeros(bins)
    for s, event in zip(survival, died, strict=True):
        k = min(int(s * bins), bins - 1)
        if event:
            counts[k] += 1
            continue
        counts[k] += (s - k / bins) / s
        counts[:k] += 1 / bins / s
    return counts


@given(seed=st.integers(0, 2**32 - 1), bins=st.integers(2, 12))
def test_deciles_are_those_of_the_definition(seed: int, bins: int) -> None:
    cohort = cohort_of(seed, 90)
    grid = TimeGrid(frozen([0.5, 1.0, 3.0]))
    hazard = np.array([[0.2, 0.5, 1.9]] * 3)
    found = run_pooled(d_calibration(SCORES, grid, hazard, bins=bins), split_over(cohort, seed, 3))
    time = np.minimum(cohort.time, 3.0)
    base = np.interp(time, [0, 0.5, 1, 3], [0, 0.2, 0.5, 1.9])
    for model in range(3):
        survival = np.exp(-base * np.exp(SCORES.table(cohort).values[:, model]))
        told = naive_deciles(survival, cohort.event & (cohort.time <= 3), bins)
        np.testing.assert_allclose(found.counts[model], told, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.counts.sum(axis=1), 90)


def test_p_values_are_uniform_under_the_model_and_small_beside_it() -> None:
    p, wrong = [], []
    view = SCORES.then(LinearPredictor(frozen([[1.0, 0.0, 0.0]])))
    grid = TimeGrid(frozen([200.0]))
    for seed in range(120):
        rng = np.random.default_rng(seed)
        a = rng.normal(size=300)
        time = rng.exponential(np.exp(-0.9 * a))
        cohort = Cohort.of("s", {"a": a, "b": a}, time + 1e-9, np.ones(300))
        p.append(float(run_pooled(d_calibration(view, grid, np.array([[200.0]])), [cohort]).p[0]))
        wrong.append(float(run_pooled(d_calibration(view, grid, np.array([[400.0]])), [cohort]).p[0]))
    assert kstest(p, "uniform").pvalue > 0.01
    assert max(wrong) < 0.01


# --- what is refused -------------------------------------------------------------------------------------------------


def test_weights_and_hazards_that_are_none_are_refused() -> None:
    edges = frozen([1.0, 2.0])
    ones = frozen([1.0, 1.0])
    with pytest.raises(ValueError, match=r"weights lie in \[1, 100\]"):
        HorizonWeights(edges, (0, 1), frozen([1.0, 1e6]), ones)
    with pytest.raises(ValueError, match="do not decrease"):
        HorizonWeights(edges, (0, 1), frozen([2.0, 1.0]), ones)
    with pytest.raises(ValueError, match="increasing indices"):
        HorizonWeights(edges, (1, 0), ones, ones)
    weights = HorizonWeights.plain(HORIZONS)
    with pytest.raises(ValueError, match="must be > 0"):
        HorizonLosses(SCORES, weights, frozen(0 * HAZARD))
    with pytest.raises(ValueError, match="slopes lie within"):
        RecalibrationDerivatives(SCORES, weights, frozen(HAZARD), frozen(0 * HAZARD), frozen(1e3 + 0 * HAZARD))
    with pytest.raises(ValueError, match="3 is not among the horizons"):
        weights.at(3.0)
    gone = Cohort.of("s", {"a": np.zeros(50), "b": np.zeros(50)}, np.linspace(0.1, 0.9, 50), np.zeros(50))
    with pytest.raises(CtfedError, match="choose an earlier horizon"):
        run_pooled(follow_up(SCORES, GRID, HORIZONS), [gone])


def test_what_is_exposed() -> None:
    followed = followed_on(cohort_of(1, 300), GRID, HORIZONS, 10)
    bins = followed.weights.edges.size
    assert HorizonLosses(SCORES, followed.weights, frozen(HAZARD)).exposure.cells == bins
    told = RecalibrationDerivatives(
        SCORES, followed.weights, frozen(HAZARD), frozen(0 * HAZARD), frozen(1 + 0 * HAZARD)
    ).exposure
    assert (told.parameters, told.cells) == (2, bins)
    deciles = SurvivalDeciles(SCORES, TimeGrid(frozen(HORIZONS)), frozen(HAZARD), 4).exposure
    assert deciles.cells == 4
    for k, name in enumerate(SCORES.names):
        survival = np.exp(-HAZARD[k, -1] * np.exp(deciles.cuts[name]))
        np.testing.assert_allclose(survival, [0.75, 0.5, 0.25], rtol=1e-12)


# --- real data -------------------------------------------------------------------------------------------------------


def test_seven_real_centres_at_60_months(shared_data: Path) -> None:
    cohorts, view, _ = seven_centres(shared_data)
    raw = View(tuple(Feature(f.name, f.exponent) for f in view.columns), split="all")
    step = view.transforms[0]
    assert isinstance(step, LinearPredictor)
    grid = TimeGrid.regular(1.0, 60.0)
    baselines = [run_pooled(pooled_baseline(raw, beta, grid, 0), cohorts) for beta in step.coefficients]
    hazard = hazards_at(baselines, (24.0, 60.0))
    whole = pool(cohorts)
    y = Surv.from_arrays(whole.event, whole.time)
    survival = np.exp(-hazard[:, :, None] * np.exp(view.table(whole).values.T[:, None, :]))
    followed = run_pooled(follow_up(view, grid, (24.0, 60.0), minimum=10), cohorts)
    errors = run_pooled(risk_errors(view, followed, hazard), cohorts)
    slopes = run_pooled(recalibrate(view, followed, hazard), cohorts)
    for model in range(3):
        _, told = brier_score(y, y, survival[model].T, [24.0, 60.0])
        np.testing.assert_allclose(errors.brier[model], told, atol=5e-4)  # months, merged until 10 die in each
    assert (np.abs(errors.ratio - 1) < 0.03).all()
    assert (errors.scaled[:, 1] > 0.03).all()
    assert np.isfinite(slopes.slope).all()
    low, high = slopes.slope_intervals()[0, 1]
    assert low < 1 < high
