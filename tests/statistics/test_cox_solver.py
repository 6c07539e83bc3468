"""How fits are solved: optimality checked from outside, the two kinds of updates, stacks, rounds, the inner problem."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cox_data import Survival, kkt_residual, simulate, survivals
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from ctfed.federation import Algorithm, FloatArray, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.statistics.cox import CoxFit, ElasticNet, Settings, cox_path, fit_cox, fit_cox_stack, penalizer_path
from ctfed.statistics.cox import penalty as penalty_module
from ctfed.statistics.cox.penalty import PenaltyStack, minimise_quadratic
from ctfed.statistics.timegrid import TimeGrid

TIES = st.sampled_from(["efron", "breslow"])
PENALTIES = st.builds(ElasticNet, st.sampled_from([0.003, 0.03, 0.1, 0.4]), st.sampled_from([0.0, 0.3, 0.9, 1.0]))


@given(data=survivals(max_features=8), penalty=PENALTIES, ties=TIES)
def test_optimality_holds_when_recomputed_from_the_textbook(data: Survival, penalty: ElasticNet, ties: str) -> None:
    data = data.standardised()
    fit = run_pooled(fit_cox(data.view(), penalty, ties=ties), [data.cohort()])
    assert fit.converged
    assert fit.warnings == ()
    found = kkt_residual(data, fit.coefficients, penalty, ties)
    # the unit is a power of two, and rounding decides which one when the spread lies midway: a factor of two
    assert found <= 2e-9
    assert found / 2 - 1e-12 <= fit.residual <= 2 * found + 1e-12


@given(data=survivals(), penalty=PENALTIES, ties=TIES, seed=st.integers(0, 100))
def test_regrouping_whole_strata_over_sites_gives_the_same_fit(
    data: Survival, penalty: ElasticNet, ties: str, seed: int
) -> None:
    data = data.standardised()
    site_of_stratum = np.random.default_rng(seed).integers(0, 3, 4)
    cohorts = data.over(site_of_stratum[data.stratum.astype(int)])
    one = run_pooled(fit_cox(data.view(), penalty, ties=ties), [data.cohort()])
    many = run_pooled(fit_cox(data.view(), penalty, ties=ties), cohorts)
    np.testing.assert_allclose(many.coefficients, one.coefficients, rtol=0, atol=1e-10)
    assert ((many.coefficients == 0) == (one.coefficients == 0)).all()
    assert (many.rounds, many.patients, many.events) == (one.rounds, one.patients, one.events)


@given(data=survivals(max_strata=1), penalty=PENALTIES, ties=TIES, sites=st.integers(2, 6))
def test_any_split_of_patients_gives_the_pooled_fit(data: Survival, penalty: ElasticNet, ties: str, sites: int) -> None:
    data = data.standardised()
    grid = TimeGrid.exact(data.time)
    one = run_pooled(fit_cox(data.view(), penalty, ties=ties, grid=grid), [data.cohort()])
    many = run_pooled(fit_cox(data.view(), penalty, ties=ties, grid=grid), data.spread(sites))
    stratified = run_pooled(fit_cox(data.view(), penalty, ties=ties), [data.cohort()])
    np.testing.assert_allclose(many.coefficients, one.coefficients, rtol=0, atol=1e-10)
    np.testing.assert_allclose(many.coefficients, stratified.coefficients, rtol=0, atol=1e-10)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("risk_sets", ["stratified", "pooled"])
@pytest.mark.parametrize("penalty", [ElasticNet(), ElasticNet(0.05, 0.5), ElasticNet(0.02, 1.0), ElasticNet(0.1, 0.0)])
def test_gradient_updates_reach_the_newton_optimum(ties: str, risk_sets: str, penalty: ElasticNet) -> None:
    data = simulate(21, 200, 10, ties=30).standardised()
    grid = TimeGrid.exact(data.time) if risk_sets == "pooled" else None
    found = {
        updates: run_pooled(
            fit_cox(data.view(), penalty, ties=ties, grid=grid, settings=Settings(updates=updates)), data.spread(1)
        )
        for updates in ("newton", "gradient")
    }
    assert all(fit.converged for fit in found.values())
    np.testing.assert_allclose(found["gradient"].coefficients, found["newton"].coefficients, rtol=0, atol=1e-7)
    assert found["gradient"].covariance is None


def recorded(algorithm: Algorithm[CoxFit], asked: list[Any]) -> Algorithm[CoxFit]:
    """The same algorithm; every query that it asks is kept in ``asked``."""
    reply = None
    while True:
        try:
            query = algorithm.send(reply)
        except StopIteration as stop:
            result: CoxFit = stop.value
            return result
        asked.append(query)
        reply = yield query


def test_gradient_updates_never_ask_for_a_hessian() -> None:
    data = simulate(22, 100, 5)
    for updates, hessians in (("newton", (0,)), ("gradient", ())):
        stratified: list[Any] = []
        fit = fit_cox(data.view(), settings=Settings(updates=updates))
        run_pooled(recorded(fit, stratified), data.spread(1))
        assert {query.hessians for query in stratified} == {hessians}
        pooled: list[Any] = []
        fit = fit_cox(data.view(), grid=TimeGrid.exact(data.time), settings=Settings(updates=updates))
        run_pooled(recorded(fit, pooled), data.spread(3))
        assert {query.means for query in pooled[::2]} == {hessians}
        assert {query.hessians for query in pooled[1::2]} == {hessians}


@pytest.mark.parametrize("updates", ["newton", "gradient"])
def test_a_stack_of_fits_is_the_single_fits(updates: str) -> None:
    data = simulate(23, 200, 8, strata=3).standardised()
    penalties = [ElasticNet()] + [ElasticNet(s, r) for s in (0.01, 0.05, 0.2) for r in (0.0, 0.5, 1.0)]
    settings = Settings(updates=updates)
    stack = run_pooled(fit_cox_stack(data.view(), penalties, settings=settings), [data.cohort()])
    for together, penalty in zip(stack, penalties, strict=True):
        alone = run_pooled(fit_cox(data.view(), penalty, settings=settings), [data.cohort()])
        assert together.penalty == penalty
        assert together.converged
        np.testing.assert_allclose(together.coefficients, alone.coefficients, rtol=0, atol=1e-7)
        assert ((together.coefficients == 0) == (alone.coefficients == 0)).all()
        np.testing.assert_allclose(together.loglik, alone.loglik, rtol=1e-9)


def test_a_warm_start_ends_where_a_cold_one_does() -> None:
    data = simulate(24, 150, 6).standardised()
    penalties = (ElasticNet(0.05, 0.9), ElasticNet(0.02, 0.9))
    cold = run_pooled(fit_cox_stack(data.view(), penalties), [data.cohort()])
    start = np.stack([fit.coefficients for fit in cold])
    warm = run_pooled(fit_cox_stack(data.view(), penalties, start=start), [data.cohort()])
    assert warm[0].rounds == 1
    far = run_pooled(fit_cox_stack(data.view(), penalties, start=start + 1.0), [data.cohort()])
    for one, two, three in zip(cold, warm, far, strict=True):
        np.testing.assert_array_equal(two.coefficients, one.coefficients)
        np.testing.assert_allclose(three.coefficients, one.coefficients, rtol=0, atol=1e-7)


@pytest.mark.parametrize("penalty", [ElasticNet(0.01, 0.5), ElasticNet(0.05, 0.9), ElasticNet(0.1, 0.0), ElasticNet()])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_one_fit_of_60_features_takes_at_most_8_rounds(penalty: ElasticNet, ties: str) -> None:
    data = simulate(25, 604, 60, strata=5, ties=100).standardised()
    traffic = Traffic()
    fit = run_pooled(fit_cox(data.view(), penalty, ties=ties), data.over(data.stratum.astype(int)), traffic)
    assert fit.residual <= 1e-9
    assert fit.rounds == traffic.rounds <= 8


def test_zeros_are_true_zeros_from_the_largest_penalizer_down() -> None:
    data = simulate(26, 300, 20).standardised()
    path = run_pooled(penalizer_path(data.view(), 1.0, count=8), [data.cohort()])
    fits = run_pooled(cox_path(data.view(), path, 1.0), [data.cohort()])
    counts = [int((fit.coefficients != 0).sum()) for fit in fits]
    assert counts[0] == 0
    assert 0 < counts[4] < 20
    just_below = run_pooled(fit_cox(data.view(), ElasticNet(float(path[0]) * 0.999, 1.0)), [data.cohort()])
    assert (just_below.coefficients != 0).sum() == 1


def test_an_unpenalised_feature_has_no_gradient_left_and_a_penalised_one_shrinks() -> None:
    data = simulate(27, 200, 4).standardised()
    free = ElasticNet(0.2, 0.5, (0.0, 1.0, 1.0, 5.0))
    fit = run_pooled(fit_cox(data.view(), free), [data.cohort()])
    assert kkt_residual(data, fit.coefficients, free, "efron") <= 1e-9
    assert fit.coefficients[0] != 0
    with pytest.raises(ValueError, match="3 penalty factors for 4 features"):
        run_pooled(fit_cox(data.view(), ElasticNet(0.2, 0.5, (1.0, 1.0, 1.0))), [data.cohort()])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((-0.1,), "penalizer must be >= 0"), ((0.1, 1.2), "l1_ratio"), ((0.1, 0.5, (-1.0,)), "factors")],
)
def test_a_penalty_that_makes_no_sense_is_refused(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ElasticNet(*arguments)  # type: ignore[arg-type]


def quadratic(
    seed: int, count: int, width: int, rank: int, l1: float, l2: float, scale: float
) -> tuple[FloatArray, FloatArray, FloatArray, PenaltyStack]:
    """Hessians of a given rank, gradients in their range, starts, penalties; some coefficients unpenalised."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, rank, width))
    if width > 2:
        x[:, :, 1] = x[:, :, 0]
    hessian = scale * np.einsum("kni,knj->kij", x, x)
    gradient = scale * np.einsum("kni,kn->ki", x, rng.normal(size=(count, rank)))
    start = rng.normal(size=(count, width)) * (rng.random((count, width)) < 0.5)
    weight = rng.random((count, width)) * (rng.random((count, width)) < 0.85)
    return hessian, gradient, start, PenaltyStack(scale * l1 * weight, scale * l2 * weight)


QUADRATICS = st.builds(
    quadratic,
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 4),
    width=st.integers(1, 7),
    rank=st.integers(1, 14),
    l1=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    l2=st.sampled_from([0.0, 0.1, 1.0]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)


@given(problem=QUADRATICS)
def test_the_inner_problem_ends_at_its_optimality_conditions(
    problem: tuple[FloatArray, FloatArray, FloatArray, PenaltyStack],
) -> None:
    hessian, gradient, start, penalty = problem
    found = minimise_quadratic(hessian, gradient, start, penalty)
    slope = gradient + np.einsum("kij,kj->ki", hessian, found - start)
    scale = np.abs(gradient).max() + np.abs(hessian).max()
    assert penalty.residual(slope, found).max() <= 1e-9 * scale * (1 + np.abs(found).max())


@given(problem=QUADRATICS)
def test_the_inner_minimum_is_scipy_s(problem: tuple[FloatArray, FloatArray, FloatArray, PenaltyStack]) -> None:
    """beta = u - v with u, v >= 0 turns the penalised quadratic into one with bounds."""
    hessian, gradient, start, penalty = problem
    found = minimise_quadratic(hessian, gradient, start, penalty)
    width = start.shape[1]
    for k in range(start.shape[0]):
        linear = gradient[k] - hessian[k] @ start[k]
        size = float(np.abs(hessian[k]).max() + np.abs(linear).max())

        def value(beta: FloatArray, k: int = k, linear: FloatArray = linear, size: float = size) -> float:
            smooth = linear @ beta + beta @ hessian[k] @ beta / 2 + (penalty.l2[k] * beta**2).sum() / 2
            return float(smooth + (penalty.l1[k] * np.abs(beta)).sum()) / size

        def split(
            uv: FloatArray, k: int = k, linear: FloatArray = linear, size: float = size
        ) -> tuple[float, FloatArray]:
            u, v = uv[:width], uv[width:]
            slope = linear + hessian[k] @ (u - v) + penalty.l2[k] * (u - v)
            smooth = linear @ (u - v) + (u - v) @ hessian[k] @ (u - v) / 2 + (penalty.l2[k] * (u - v) ** 2).sum() / 2
            total = smooth + (penalty.l1[k] * (u + v)).sum()
            return float(total) / size, np.concatenate([slope + penalty.l1[k], penalty.l1[k] - slope]) / size

        peer = optimize.minimize(
            split,
            np.zeros(2 * width),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, None)] * (2 * width),
            options={"maxiter": 5000, "maxfun": 50_000, "ftol": 1e-15, "gtol": 1e-10},
        )
        assert value(found[k]) <= value(peer.x[:width] - peer.x[width:]) + 1e-9


def test_the_inner_problem_finds_the_best_sign_pattern_of_all() -> None:
    """Brute force: of all 3^4 sign patterns, the best stationary point."""
    rng = np.random.default_rng(31)
    for _ in range(20):
        x = rng.normal(size=(9, 4))
        hessian, linear, l1 = x.T @ x, 3 * rng.normal(size=4), 2 * rng.random(4)
        zeros = np.zeros((1, 4))
        found = minimise_quadratic(hessian[None], linear[None], zeros, PenaltyStack(l1[None], zeros))[0]
        best = 0.0
        for pattern in np.ndindex(3, 3, 3, 3):
            sign = np.array(pattern) - 1
            active = sign != 0
            if not active.any():
                continue
            beta = np.zeros(4)
            beta[active] = np.linalg.solve(hessian[np.ix_(active, active)], -(linear + l1 * sign)[active])
            best = min(best, float(linear @ beta + beta @ hessian @ beta / 2 + l1 @ np.abs(beta)))
        ours = float(linear @ found + found @ hessian @ found / 2 + l1 @ np.abs(found))
        assert ours == pytest.approx(best, abs=1e-12)


def test_the_inner_problem_takes_few_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops by its optimality conditions, far from its cap on cycles, also with twice as many features as rank."""
    monkeypatch.setattr(penalty_module, "MAX_CYCLES", 60)
    rng = np.random.default_rng(32)
    x = rng.normal(size=(6, 40, 80))
    hessian = np.einsum("kni,knj->kij", x, x)
    gradient = np.einsum("kni,kn->ki", x, rng.normal(size=(6, 40)))
    strength = np.array([0.01, 0.05, 0.1, 0.3, 0.6, 2.0])[:, None] * np.abs(gradient).max(axis=1)[:, None]
    penalty = PenaltyStack(np.broadcast_to(strength, (6, 80)), np.zeros((6, 80)))
    found = minimise_quadratic(hessian, gradient, np.zeros((6, 80)), penalty)
    slope = gradient + np.einsum("kij,kj->ki", hessian, found)
    assert penalty.residual(slope, found).max() <= 1e-9 * np.abs(gradient).max()
    assert (found[5] == 0).all()
