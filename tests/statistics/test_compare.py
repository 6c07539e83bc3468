"""Differences of C and random effects: bootstrap, published values and likelihoods agree; any grouping over sites."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_data import SCORES, cohort_of, seven_centres, split_over
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm, t

from ctfed.federation import CtfedError, run_pooled
from ctfed.federation.arrays import frozen
from ctfed.federation.pooled import Traffic
from ctfed.statistics.compare import (
    SiteConcordanceSums,
    differences_of,
    heterogeneity,
    paired_differences,
    random_effects,
)
from ctfed.statistics.concordance import count_pairs, within_site_concordance
from ctfed.statistics.predict import LinearPredictor

# Thirteen trials of BCG vaccine (Colditz et al. 1994): log risk ratios and their variances, as in metafor's dat.bcg.
BCG = np.array(
    [
        [4, 119, 11, 128],
        [6, 300, 29, 274],
        [3, 228, 11, 209],
        [62, 13536, 248, 12619],
        [33, 5036, 47, 5761],
        [180, 1361, 372, 1079],
        [8, 2537, 10, 619],
        [505, 87886, 499, 87892],
        [29, 7470, 45, 7232],
        [17, 1699, 65, 1600],
        [186, 50448, 141, 27197],
        [5, 2493, 3, 2338],
        [27, 16886, 29, 17825],
    ]
)


def log_risk_ratios() -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d = BCG.T.astype(float)
    return np.log(a / (a + b)) - np.log(c / (c + d)), np.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))


@pytest.mark.parametrize(
    ("method", "tau2"), [("reml", 0.3132), ("dersimonian-laird", 0.3088), ("paule-mandel", 0.3181)]
)
def test_the_bcg_trials_have_metafors_results(method: str, tau2: float) -> None:
    found = random_effects(*log_risk_ratios(), method=method, knapp_hartung=False)
    assert found.tau2 == pytest.approx(tau2, abs=6e-5)
    assert found.q == pytest.approx(152.2330, abs=6e-5)
    if method == "reml":
        assert found.estimate == pytest.approx(-0.7145, abs=6e-5)
        assert found.standard_error == pytest.approx(0.1798, abs=6e-5)
        assert (found.lower, found.upper) == pytest.approx((-1.0669, -0.3622), abs=6e-5)
    assert found.i2 == pytest.approx((152.2330 - 12) / 152.2330, abs=1e-6)
    half = (found.prediction_upper - found.prediction_lower) / 2
    assert half == pytest.approx(t.isf(0.025, 11) * np.sqrt(found.tau2 + found.standard_error**2))


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(2, 9), spread=st.sampled_from([0.0, 0.02, 0.3]))
def test_reml_is_the_maximum_of_the_restricted_likelihood(seed: int, k: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    errors = rng.uniform(0.02, 0.1, k)
    values = 0.65 + spread * rng.normal(size=k) + errors * rng.normal(size=k)
    found = random_effects(values, errors)

    def loss(tau2: float) -> float:
        w = 1 / (errors**2 + tau2)
        mean = (w * values).sum() / w.sum()
        # The density of k - 1 contrasts of the values, up to a constant.
        return float(-norm.logpdf(values, mean, w**-0.5).sum() + np.log(w.sum()) / 2)

    best = minimize_scalar(loss, bounds=(0, 10), method="bounded", options={"xatol": 1e-12})
    assert loss(found.tau2) <= best.fun + 1e-9
    w = 1 / (errors**2 + found.tau2)
    assert found.estimate == pytest.approx((w * values).sum() / w.sum())
    residual = (w * (values - found.estimate) ** 2).sum() / (k - 1) / w.sum()
    assert found.standard_error == pytest.approx(np.sqrt(residual))
    median = random_effects(values, errors, method="paule-mandel")
    if median.tau2 > 0:
        w = 1 / (errors**2 + median.tau2)
        assert (w * (values - median.estimate) ** 2).sum() == pytest.approx(k - 1, rel=1e-8)
    assert np.isnan(found.prediction_lower) == (k == 2)


def test_what_cannot_be_pooled_is_refused() -> None:
    with pytest.raises(CtfedError, match="two sites or more"):
        random_effects(np.array([0.6]), np.array([0.1]))
    with pytest.raises(CtfedError, match="leave that site out"):
        random_effects(np.array([0.6, 0.7]), np.array([0.1, 0.0]))
    with pytest.raises(ValueError, match="method must be one of"):
        random_effects(np.array([0.6, 0.7]), np.array([0.1, 0.1]), method="mean")


# --- sums over sites -------------------------------------------------------------------------------------------------


def sites_own(cohorts: list, view=SCORES) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def,type-arg]
    found = [run_pooled(within_site_concordance(view), [cohort]) for cohort in cohorts]
    return np.array([one.value for one in found]), np.array([one.standard_error for one in found])


@given(seed=st.integers(0, 2**32 - 1), sites=st.integers(4, 7))
def test_sums_over_sites_give_what_their_released_results_would(seed: int, sites: int) -> None:
    cohorts = [cohort_of(seed + k, 60 + 10 * k) for k in range(sites)]
    traffic = Traffic()
    found = run_pooled(heterogeneity(SCORES, minimum=5), cohorts, traffic)
    assert traffic.rounds == 1
    values, errors = sites_own(cohorts)
    for model in range(3):
        told = random_effects(values[:, model], errors[:, model], method="dersimonian-laird", knapp_hartung=False)
        assert found.tau2[model] == pytest.approx(told.tau2, rel=1e-8, abs=1e-11)
        assert found.q[model] == pytest.approx(told.q, rel=1e-8, abs=1e-9)
        assert found.i2[model] == pytest.approx(told.i2, rel=1e-8, abs=1e-9)
        w = errors[:, model] ** -2
        assert found.estimate[model] == pytest.approx((w * values[:, model]).sum() / w.sum(), abs=1e-12)
        variance = (w**2 * (errors[:, model] ** 2 + told.tau2)).sum() / w.sum() ** 2
        assert found.standard_error[model] == pytest.approx(np.sqrt(variance), rel=1e-8)
    small = cohorts[0].subset(np.arange(cohorts[0].patients) < 4, "small")
    again = run_pooled(heterogeneity(SCORES, minimum=5), [*cohorts, small])
    np.testing.assert_array_equal(again.sites, found.sites)
    np.testing.assert_allclose(again.estimate, found.estimate, rtol=1e-14)


def test_three_sites_are_too_few_for_sums_over_sites() -> None:
    with pytest.raises(CtfedError, match="3 sites have a C with an error, 4 are needed"):
        run_pooled(heterogeneity(SCORES), [cohort_of(k) for k in range(3)])
    with pytest.raises(ValueError, match="smallest site"):
        SiteConcordanceSums(SCORES, 0)


# --- paired differences ----------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1))
def test_differences_are_those_of_each_pair_whatever_the_grouping_of_strata(seed: int) -> None:
    cohort = cohort_of(seed, 120)
    parts = split_over(cohort, seed, 4)
    found = run_pooled(paired_differences(SCORES), parts)
    concordance = run_pooled(within_site_concordance(SCORES, covariance=True), parts)
    adjusted = []
    for model in range(3):
        for other in range(model):
            told = concordance.difference(model, other)
            assert found.value[model, other] == pytest.approx(told.value, abs=1e-14)
            assert found.standard_error[model, other] == pytest.approx(told.standard_error, rel=1e-6)
            assert found.p[model, other] == pytest.approx(told.p, rel=1e-6, abs=1e-12)
            adjusted.append((told.p, found.p_adjusted[model, other]))
    adjusted.sort()
    running = 0.0
    for factor, (p, holm) in zip((3, 2, 1), adjusted, strict=True):
        running = max(running, min(1.0, factor * p))
        assert holm == pytest.approx(running, rel=1e-6)
    assert np.isnan(np.diag(found.p)).all()


def test_the_error_of_a_difference_is_the_bootstraps() -> None:
    cohort = cohort_of(9, 250)
    found = run_pooled(paired_differences(SCORES), [cohort])
    rng = np.random.default_rng(1)
    scores, drawn = SCORES.table(cohort).values, []
    for _ in range(400):
        rows = rng.integers(0, 250, 250)
        pairs = count_pairs(cohort.time[rows], cohort.event[rows], scores[rows])
        drawn.append(pairs.concordance.sum(axis=1) / pairs.comparable.sum())
    told = np.std([c[0] - c[1] for c in drawn])
    assert found.standard_error[0, 1] == pytest.approx(told, rel=0.15)
    low, high = found.intervals()[0, 1]
    assert low < found.value[0, 1] < high
    with pytest.raises(ValueError, match="covariance=True"):
        differences_of(run_pooled(within_site_concordance(SCORES), [cohort]))


def test_equal_rankings_have_no_error() -> None:
    twins = SCORES.then(LinearPredictor(frozen([[1.0, 0, 0], [2.0, 0, 0], [0, 1.0, 0]])))
    found = run_pooled(paired_differences(twins), [cohort_of(0)])
    assert np.isnan(found.p[0, 1])
    assert found.p_adjusted[0, 2] == pytest.approx(min(1.0, 2 * found.p[0, 2]))


def test_seven_real_centres(shared_data: Path) -> None:
    cohorts, view, _ = seven_centres(shared_data)
    found = run_pooled(heterogeneity(view), cohorts)
    values, errors = sites_own(cohorts, view)
    told = random_effects(values[:, 0], errors[:, 0], method="dersimonian-laird", knapp_hartung=False)
    assert found.sites.tolist() == [7, 7, 7]
    assert found.tau2[0] == pytest.approx(told.tau2, rel=1e-8, abs=1e-12)
    low, high = found.prediction[0]
    assert low < found.estimate[0] < high
    differences = run_pooled(paired_differences(view), cohorts)
    assert differences.value[0, 2] == pytest.approx(differences.concordance.value[0] - differences.concordance.value[2])
    assert differences.p[0, 2] < 0.2
