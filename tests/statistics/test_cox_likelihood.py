"""Derivatives that sites send: right by finite differences, and the same however patients or strata are spread."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cox_data import Survival, partial_likelihood, simulate, survivals
from hypothesis import given
from hypothesis import strategies as st

from ctfed.federation import Cohort, FloatArray, run_pooled
from ctfed.federation.algorithm import Algorithm
from ctfed.statistics.cox import likelihood
from ctfed.statistics.cox.pooled import pooled_oracle
from ctfed.statistics.cox.solver import Derivatives
from ctfed.statistics.cox.stratified import stratified_oracle
from ctfed.statistics.timegrid import TimeGrid

TIES = st.sampled_from(["efron", "breslow"])


def ask(data: Survival, cohorts: list[Cohort], points: FloatArray, ties: str, risk_sets: str) -> Derivatives:
    """Value, gradient and Hessian at every point."""
    whole = tuple(range(points.shape[0]))
    oracle = stratified_oracle(data.view(), ties)
    if risk_sets == "pooled":
        oracle = pooled_oracle(data.view(), ties, TimeGrid.exact(data.time))

    def algorithm() -> Algorithm[Derivatives]:
        return (yield from oracle(points, whole))

    return run_pooled(algorithm(), cohorts)


def assert_same(found: Derivatives, expected: Derivatives, tolerance: float) -> None:
    """Equal numbers, relative to the largest entry of each array."""
    assert (found.patients, found.events) == (expected.patients, expected.events)
    pairs = [(found.loglik, expected.loglik), (found.gradient, expected.gradient)]
    pairs += [(found.information[k], expected.information[k]) for k in expected.information]
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(1.0, float(np.abs(other).max(initial=0))))


def points_for(data: Survival, seed: int, count: int = 2) -> FloatArray:
    """The origin and some random coefficients, at which no patient can dominate a risk set."""
    points = np.random.default_rng(seed).normal(size=(count, len(data.names))) * 0.7
    points[0] = 0.0
    spread = np.ptp(data.x @ points.T, axis=0)
    return points * np.minimum(1.0, 4.0 / np.maximum(spread, 1e-9))[:, None]


@given(data=survivals(), ties=TIES, seed=st.integers(0, 1000))
def test_stratified_derivatives_are_the_textbook_s(data: Survival, ties: str, seed: int) -> None:
    points = points_for(data, seed)
    found = ask(data, [data.cohort()], points, ties, "stratified")
    assert (found.patients, found.events) == (data.time.size, int(data.event.sum()))
    for k, beta in enumerate(points):
        loglik, gradient, information = partial_likelihood(data, beta, ties)
        np.testing.assert_allclose(found.loglik[k], loglik, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.gradient[k], gradient, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(found.information[k], information, rtol=1e-10, atol=1e-10)


@given(data=survivals(max_strata=1), ties=TIES, seed=st.integers(0, 1000))
def test_pooled_risk_sets_on_the_exact_grid_are_the_textbook_s(data: Survival, ties: str, seed: int) -> None:
    points = points_for(data, seed)
    found = ask(data, data.spread(3, seed), points, ties, "pooled")
    for k, beta in enumerate(points):
        loglik, gradient, information = partial_likelihood(data, beta, ties)
        np.testing.assert_allclose(found.loglik[k], loglik, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.gradient[k], gradient, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(found.information[k], information, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("risk_sets", ["stratified", "pooled"])
def test_gradient_and_hessian_are_finite_differences_of_the_loglikelihood(ties: str, risk_sets: str) -> None:
    data = simulate(2, 90, 3, strata=3 if risk_sets == "stratified" else 1, ties=9)
    beta = np.array([0.3, -0.6, 0.2])
    steps = 1e-5 * np.eye(3)
    points = np.concatenate([[beta], beta + steps, beta - steps])
    found = ask(data, [data.cohort()], points, ties, risk_sets)
    slope = (found.loglik[1:4] - found.loglik[4:7]) / 2e-5
    bend = -(found.gradient[1:4] - found.gradient[4:7]) / 2e-5
    np.testing.assert_allclose(found.gradient[0], slope, rtol=0, atol=1e-7)  # central differences: h^2 and 1e-16 / h
    np.testing.assert_allclose(found.information[0], bend, rtol=0, atol=1e-7)


@given(data=survivals(), ties=TIES, seed=st.integers(0, 1000), sites=st.integers(1, 5))
def test_regrouping_whole_strata_over_sites_changes_no_derivative(
    data: Survival, ties: str, seed: int, sites: int
) -> None:
    points = points_for(data, seed)
    site_of_stratum = np.random.default_rng(seed).integers(0, sites, 4)
    cohorts = data.over(site_of_stratum[data.stratum.astype(int)])
    whole = ask(data, [data.cohort()], points, ties, "stratified")
    assert_same(ask(data, cohorts, points, ties, "stratified"), whole, 1e-12)


@given(data=survivals(max_strata=1), ties=TIES, seed=st.integers(0, 1000), sites=st.integers(1, 8))
def test_any_split_of_patients_changes_no_pooled_derivative(data: Survival, ties: str, seed: int, sites: int) -> None:
    points = points_for(data, seed)
    whole = ask(data, [data.cohort()], points, ties, "pooled")
    assert_same(ask(data, data.spread(sites, seed), points, ties, "pooled"), whole, 1e-12)


@given(data=survivals(), ties=TIES, seed=st.integers(0, 1000))
@pytest.mark.parametrize("risk_sets", ["stratified", "pooled"])
def test_the_order_of_patients_is_irrelevant(data: Survival, ties: str, seed: int, risk_sets: str) -> None:
    points = points_for(data, seed)
    shuffled = data.rows(np.random.default_rng(seed).permutation(data.time.size))
    one = ask(data, [data.cohort()], points, ties, risk_sets)
    assert_same(ask(shuffled, [shuffled.cohort()], points, ties, risk_sets), one, 1e-12)


@given(data=survivals(max_strata=1), ties=TIES, seed=st.integers(0, 1000))
def test_one_stratum_is_pooled_risk_sets_on_the_exact_grid(data: Survival, ties: str, seed: int) -> None:
    points = points_for(data, seed)
    stratified = ask(data, [data.cohort()], points, ties, "stratified")
    assert_same(ask(data, data.spread(4, seed), points, ties, "pooled"), stratified, 1e-12)


def test_efron_and_breslow_are_one_without_ties() -> None:
    data = simulate(6, 80, 3)
    data = replace(data, time=np.random.default_rng(6).permutation(80) + 1.0)
    points = points_for(data, 6)
    efron = ask(data, [data.cohort()], points, "efron", "stratified")
    assert_same(ask(data, [data.cohort()], points, "breslow", "stratified"), efron, 1e-13)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_blocks_of_rows_and_of_models_change_nothing(ties: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulate(7, 500, 3, strata=2, ties=7)
    points = points_for(data, 7, count=5)
    whole = ask(data, [data.cohort()], points, ties, "stratified")
    monkeypatch.setattr(likelihood, "BLOCK_ROWS", 17)  # ties and risk sets cross the borders of blocks
    monkeypatch.setattr(likelihood, "STACK_VALUES", 700)
    assert_same(ask(data, [data.cohort()], points, ties, "stratified"), whole, 1e-13)


def test_coarse_bins_keep_the_censored_at_risk_for_all_of_the_bin_s_events() -> None:
    data = simulate(8, 120, 2, ties=1000)
    grid = TimeGrid.regular(0.5, float(data.time.max()))
    binned = replace(data, time=grid.bin_of(data.time) + 1.0)
    points = points_for(data, 8)

    def algorithm() -> Algorithm[Derivatives]:
        return (yield from pooled_oracle(data.view(), "efron", grid)(points, (0, 1)))

    found = run_pooled(algorithm(), data.spread(3))
    assert_same(found, ask(binned, [binned.cohort()], points, "efron", "stratified"), 1e-12)


def test_a_gradient_of_many_patients_sums_without_loss() -> None:
    """A score at the truth is small beside the sums that it is the difference of."""
    data = simulate(9, 20_000, 2, ties=400)
    points = np.zeros((1, 2))
    one = ask(data, [data.cohort()], points, "efron", "stratified")
    wide = data.x.astype(np.longdouble)
    order = np.argsort(-data.time, kind="stable")
    sums, count = np.cumsum(wide[order], axis=0), np.arange(1, 20_001)
    gradient = np.zeros(2, dtype=np.longdouble)
    times = data.time[order]
    for time in np.unique(data.time[data.event]):
        last = int(np.searchsorted(-times, -time, side="right")) - 1
        dying = data.event & (data.time == time)
        deaths = int(dying.sum())
        share = np.arange(deaths, dtype=np.longdouble) / deaths
        tied = wide[dying].sum(axis=0)
        means = (sums[last] - share[:, None] * tied) / (count[last] - share[:, None] * deaths)
        gradient += tied - means.sum(axis=0)
    np.testing.assert_allclose(one.gradient[0], gradient.astype(float), rtol=0, atol=1e-9)
