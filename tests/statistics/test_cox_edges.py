"""Data that break Cox software: nobody, one patient, one time, constants, collinearity, separation, huge scales."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cox_data import Survival, kkt_residual, load, partial_likelihood, reference, simulate

from ctfed.federation import Cohort, CtfedError, Refusal, run_pooled
from ctfed.statistics.cox import CoxFit, ElasticNet, Settings, fit_cox, fit_cox_stack, penalizer_path
from ctfed.statistics.cox.pooled import RiskSetSums
from ctfed.statistics.cox.stratified import CoxDerivatives
from ctfed.statistics.timegrid import TimeGrid

RISK_SETS = pytest.mark.parametrize("risk_sets", ["stratified", "pooled"])
UPDATES = pytest.mark.parametrize("updates", ["newton", "gradient"])


@pytest.fixture(autouse=True)
def no_silent_arithmetic() -> Iterator[None]:
    """Overflow, division by zero and invalid values are errors here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def fit_of(
    data: Survival,
    penalty: ElasticNet | None = None,
    *,
    risk_sets: str = "stratified",
    updates: str = "newton",
    ties: str = "efron",
    cohorts: list[Cohort] | None = None,
    exponents: list[int] | None = None,
    max_rounds: int = 200,
) -> CoxFit:
    """A fit, on one site unless cohorts are given, by default on one baseline hazard per stratum."""
    grid = TimeGrid.exact(data.time) if risk_sets == "pooled" else None
    settings = Settings(updates=updates, max_rounds=max_rounds)
    algorithm = fit_cox(data.view(exponents), penalty, ties=ties, grid=grid, settings=settings)
    fit = run_pooled(algorithm, cohorts or [data.cohort()])
    assert np.isfinite(fit.coefficients).all()
    assert np.isfinite(fit.loglik)
    return fit


def magnitudes(data: Survival) -> list[int]:
    """The exponents that a data dictionary would declare."""
    return [int(np.ceil(np.log2(value))) for value in np.abs(data.x).max(axis=0)]


@RISK_SETS
@UPDATES
def test_no_event_anywhere_is_said_in_words(risk_sets: str, updates: str) -> None:
    data = simulate(1, 30, 2)
    data = replace(data, event=np.zeros(30, dtype=bool))
    with pytest.raises(CtfedError, match="no event among the 30 patients of the view: a Cox model needs events"):
        fit_of(data, risk_sets=risk_sets, updates=updates, cohorts=data.spread(3))


@RISK_SETS
def test_a_site_without_patients_and_one_without_events_are_fine(risk_sets: str) -> None:
    data = simulate(2, 90, 2, strata=1 if risk_sets == "pooled" else 3)
    site = np.arange(90) % 3 if risk_sets == "pooled" else data.stratum.astype(int)
    data = replace(data, event=data.event & (site != 1))
    cohorts = data.over(site)
    empty = data.cohort().subset(np.zeros(90, dtype=bool), "empty")
    one = fit_of(data, risk_sets=risk_sets)
    many = fit_of(data, risk_sets=risk_sets, cohorts=[*cohorts, empty])
    np.testing.assert_allclose(many.coefficients, one.coefficients, rtol=0, atol=1e-10)
    assert many.patients == 90
    assert many.events == one.events == int(data.event.sum())
    if risk_sets == "stratified":  # a stratum without events has no say
        rest = data.rows(site != 1)
        np.testing.assert_allclose(fit_of(rest).coefficients, one.coefficients, rtol=0, atol=1e-8)


@RISK_SETS
@UPDATES
def test_one_patient_supports_no_coefficient(risk_sets: str, updates: str) -> None:
    data = Survival.of(np.array([[0.7, -2.0]]), [3.0], [True])
    fit = fit_of(data, risk_sets=risk_sets, updates=updates)
    assert fit.coefficients.tolist() == [0.0, 0.0]
    assert fit.loglik == 0.0
    assert fit.standard_errors is None
    assert len(fit.warnings) == 1
    assert fit.warnings[0].startswith("no standard errors")


@RISK_SETS
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_one_distinct_time(risk_sets: str, ties: str) -> None:
    data = replace(simulate(3, 60, 2), time=np.full(60, 5.0))
    fit = fit_of(data, risk_sets=risk_sets, ties=ties)
    assert kkt_residual(data, fit.coefficients, ElasticNet(), ties) <= 1e-9 + 1e-12
    everyone = replace(data, event=np.ones(60, dtype=bool))
    fit = fit_of(everyone, risk_sets=risk_sets, ties=ties)
    # the score is zero at zero when all die at once (Efron: by symmetry, Breslow: by its sums)
    np.testing.assert_allclose(fit.coefficients, 0, rtol=0, atol=1e-12)
    assert fit.converged


@RISK_SETS
def test_a_view_without_features_is_the_null_model(risk_sets: str) -> None:
    data = simulate(4, 40, 1)
    null = Survival.of(np.zeros((40, 0)), data.time, data.event)
    fit = fit_of(null, risk_sets=risk_sets)
    assert fit.coefficients.shape == (0,)
    assert fit.converged
    np.testing.assert_allclose(fit.loglik, partial_likelihood(data, np.zeros(1), "efron")[0], rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, -3.0])
@pytest.mark.parametrize("penalty", [ElasticNet(), ElasticNet(0.02, 0.5), ElasticNet(0.02, 0.0)])
@RISK_SETS
def test_a_constant_column_keeps_the_coefficient_zero(value: float, penalty: ElasticNet, risk_sets: str) -> None:
    data = simulate(5, 120, 3)
    x = data.x.copy()
    x[:, 1] = value
    fit = fit_of(replace(data, x=x), penalty, risk_sets=risk_sets)
    if risk_sets == "pooled" and penalty.l1_ratio == 0:  # a ridge shrinks the rounding of the column's score, no more
        assert abs(fit.coefficients[1]) < 1e-12
    else:
        assert fit.coefficients[1] == 0
    without = fit_of(Survival.of(data.x[:, [0, 2]], data.time, data.event), penalty, risk_sets=risk_sets)
    np.testing.assert_allclose(fit.coefficients[[0, 2]], without.coefficients, rtol=0, atol=1e-8)


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, -1000.0, 1e6])
@RISK_SETS
def test_a_constant_column_is_named_and_costs_the_standard_errors(risk_sets: str, value: float) -> None:
    data = simulate(5, 120, 3)
    x = data.x.copy()
    x[:, 1] = value
    data = replace(data, x=x)
    fit = fit_of(data, risk_sets=risk_sets, exponents=[2, 20, 2])
    assert fit.coefficients[1] == 0
    assert fit.standard_errors is None
    assert fit.warnings == ("no standard errors: x1 does not vary within any stratum",)


def test_a_column_that_is_constant_within_every_stratum_has_no_say() -> None:
    data = simulate(6, 150, 2, strata=3)
    x = np.column_stack([data.x, 7.3 * data.stratum.astype(float)])
    fit = fit_of(Survival.of(x, data.time, data.event, stratum=data.stratum))
    assert abs(fit.coefficients[2]) < 1e-12
    np.testing.assert_allclose(fit.coefficients[:2], fit_of(data).coefficients, rtol=0, atol=1e-8)


@RISK_SETS
def test_collinear_columns_are_named_and_the_rest_stays_right(risk_sets: str) -> None:
    data = simulate(7, 150, 3)
    twin = Survival.of(np.column_stack([data.x, 2 * data.x[:, 0]]), data.time, data.event)
    fit = fit_of(twin, risk_sets=risk_sets)
    plain = fit_of(data, risk_sets=risk_sets)
    assert fit.converged
    assert fit.standard_errors is None
    assert fit.warnings == ("no standard errors: x0, x3 are collinear or separate the events",)
    np.testing.assert_allclose(fit.coefficients[1:3], plain.coefficients[1:], rtol=0, atol=1e-7)
    assert fit.coefficients[0] + 2 * fit.coefficients[3] == pytest.approx(plain.coefficients[0], abs=1e-7)


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
@UPDATES
def test_a_penalty_decides_between_collinear_columns(l1_ratio: float, updates: str) -> None:
    data = simulate(8, 150, 3)
    twin = Survival.of(np.column_stack([data.x, 2 * data.x[:, 0]]), data.time, data.event)
    penalty = ElasticNet(0.02, l1_ratio)
    fit = fit_of(twin, penalty, updates=updates)
    assert fit.warnings == ()
    assert kkt_residual(twin, fit.coefficients, penalty, "efron") <= 1e-9 + 1e-12
    if l1_ratio == 1:
        assert fit.coefficients[0] == 0  # the column of twice the size costs half
        assert fit.coefficients[3] != 0


def separated(kind: str) -> Survival:
    """Data whose maximum likelihood estimate is infinite."""
    data = simulate(9, 60, 2)
    if kind == "events":  # a feature that is 1 for the dead and 0 for the censored
        return Survival.of(np.column_stack([data.x[:, 0], data.event]), data.time, data.event)
    order = np.arange(30.0)
    scale = {"times": 1.0, "times-raw": 100.0}[kind]  # the later the death, the lower the feature
    return Survival.of(-scale * order[:, None], order + 1, np.ones(30, dtype=bool))


def assert_says_so(fit: CoxFit) -> None:
    """A separated fit ends with finite coefficients and a sentence that names the cause."""
    assert any("separate" in sentence for sentence in fit.warnings), fit.warnings
    assert fit.converged == (fit.residual <= 1e-9)
    assert fit.converged or any(sentence.startswith("not converged") for sentence in fit.warnings)


@pytest.mark.parametrize("kind", ["events", "times", "times-raw"])
def test_perfect_separation_is_a_finding_and_not_a_crash(kind: str) -> None:
    fit = fit_of(separated(kind))
    assert_says_so(fit)
    assert fit.rounds < 40


def test_perfect_separation_without_hessians() -> None:
    assert_says_so(fit_of(separated("events"), updates="gradient"))


def test_perfect_separation_of_pooled_risk_sets() -> None:
    assert_says_so(fit_of(separated("events"), risk_sets="pooled"))


@pytest.mark.parametrize("kind", ["times", "times-raw"])
@UPDATES
def test_perfect_separation_of_pooled_risk_sets_on_unscaled_features(kind: str, updates: str) -> None:
    assert_says_so(fit_of(separated(kind), risk_sets="pooled", updates=updates))


def test_perfect_separation_without_hessians_on_unscaled_features() -> None:
    assert_says_so(fit_of(separated("times-raw"), updates="gradient"))


@pytest.mark.slow
def test_a_lasso_path_of_more_features_than_patients_survives_a_step_that_is_too_long() -> None:
    data = simulate(10, 60, 150).standardised()
    path = run_pooled(penalizer_path(data.view(), 1.0, count=4, smallest_ratio=0.005), [data.cohort()])
    fits = run_pooled(fit_cox_stack(data.view(), [ElasticNet(float(s), 1.0) for s in path]), [data.cohort()])
    assert all(np.isfinite(fit.coefficients).all() for fit in fits)


@pytest.mark.parametrize("penalizer", [1e-3, 0.1])
@RISK_SETS
def test_a_penalty_makes_a_separated_fit_finite_and_exact(penalizer: float, risk_sets: str) -> None:
    data = separated("events")
    penalty = ElasticNet(penalizer, 0.5)
    fit = fit_of(data, penalty, risk_sets=risk_sets)
    assert fit.converged
    assert kkt_residual(data, fit.coefficients, penalty, "efron") <= 1e-9 + 1e-12


@pytest.mark.parametrize("penalty", [ElasticNet(), ElasticNet(0.05, 0.5)])
def test_huge_and_tiny_features_are_fitted_as_well_as_standardised_ones(penalty: ElasticNet) -> None:
    """The fit of x * s is that of x with beta / s, when the penalty is rescaled alike; the data dictionary's exponents
    carry the sums through the fixed point."""
    data = simulate(11, 200, 3)
    scale = np.array([1e10, 1.0, 1e-6])
    wide = replace(data, x=data.x * scale)
    plain = fit_of(data, penalty)
    if penalty.penalizer == 0:
        fit = fit_of(wide, exponents=magnitudes(wide))
        assert fit.standard_errors is not None
        assert plain.standard_errors is not None
        np.testing.assert_allclose(fit.standard_errors * scale, plain.standard_errors, rtol=1e-6)
    else:  # only the L1 part rescales by a factor per feature
        lasso = replace(penalty, l1_ratio=1.0)
        plain = fit_of(data, lasso)
        fit = fit_of(wide, replace(lasso, factors=tuple(scale)), exponents=magnitudes(wide))
    assert fit.converged
    np.testing.assert_allclose(fit.coefficients * scale, plain.coefficients, rtol=0, atol=1e-8)
    assert ((fit.coefficients == 0) == (plain.coefficients == 0)).all()


def test_raw_radiomics_give_the_coefficients_of_r(shared_data: Path) -> None:
    """LUNG1's four features of the Aerts signature, unstandardised: 3e11 beside 0.4."""
    expected = reference(shared_data)["lung1_aerts4"]
    data = load(shared_data, "lung1_aerts4", expected["cols"])
    fit = fit_of(data, exponents=magnitudes(data))
    np.testing.assert_allclose(fit.coefficients, expected["coef_efron"], rtol=1e-6)


def test_features_far_from_zero_are_as_good_as_centred_ones() -> None:
    data = simulate(12, 150, 2)
    centred = fit_of(data)
    far = replace(data, x=data.x + 1e6)
    fit = fit_of(far, exponents=[20, 20])
    assert fit.converged
    np.testing.assert_allclose(fit.coefficients, centred.coefficients, rtol=0, atol=1e-8)
    np.testing.assert_allclose(fit.standard_errors, centred.standard_errors, rtol=1e-7)


def test_an_undeclared_magnitude_is_refused_in_words() -> None:
    data = simulate(13, 50, 1)
    with pytest.raises(Refusal, match="declare a larger 'magnitude'") as caught:
        fit_of(replace(data, x=data.x * 1e12))
    assert caught.value.rule == "fixed-point-range"


@RISK_SETS
def test_a_missing_value_is_refused_with_the_column_s_name(risk_sets: str) -> None:
    data = simulate(14, 50, 2)
    x = data.x.copy()
    x[17, 1] = np.nan
    with pytest.raises(Refusal, match="x1") as caught:
        fit_of(replace(data, x=x), risk_sets=risk_sets)
    assert caught.value.rule == "missing-values"


def test_a_missing_value_is_refused_even_where_no_event_would_look_at_it() -> None:
    data = simulate(15, 60, 1, strata=2)
    x = data.x.copy()
    quiet = data.stratum == "1"
    x[np.flatnonzero(quiet)[0]] = np.nan
    with pytest.raises(Refusal, match="x0"):
        fit_of(replace(data, x=x, event=data.event & ~quiet))


@pytest.mark.parametrize("risk_sets", ["stratified", "pooled"])
def test_hostile_coefficients_are_declined_and_get_nothing_but_that(risk_sets: str) -> None:
    data = simulate(16, 40, 1)
    points = np.array([[0.1], [1e6]])
    query = (
        CoxDerivatives(data.view(), points, (1,))
        if risk_sets == "stratified"
        else RiskSetSums(data.view(), points, TimeGrid.exact(data.time), (1,))
    )
    answer = query.answer(data.cohort())
    assert answer["declined"].tolist() == [0, 1]
    if risk_sets == "stratified":
        assert answer["loglik"][1] == 0
        assert not answer["gradient"][1].any()
        assert not answer["hessian"].any()
    else:
        assert not answer["leaving"][:, 1].any()
        assert not answer["leaving_x"].any()


@pytest.mark.parametrize("updates", ["newton", "gradient"])
def test_features_far_from_standardised_are_fitted_by_shorter_steps(updates: str) -> None:
    data = simulate(17, 100, 2)
    raw = replace(data, x=30 * data.x + 500)
    fit = run_pooled(fit_cox(raw.view([10, 10]), settings=Settings(updates=updates)), raw.over(np.arange(100) % 2))
    expected = run_pooled(fit_cox(data.view()), data.over(np.arange(100) % 2))
    assert fit.converged
    np.testing.assert_allclose(fit.coefficients * 30, expected.coefficients, rtol=0, atol=1e-6)


def test_a_warm_start_from_outside_is_brought_back() -> None:
    data = simulate(17, 100, 2)
    stack = fit_cox_stack(data.view(), [ElasticNet()], start=np.array([[1e6, -1e6]]))
    fit = run_pooled(stack, [data.cohort()])[0]
    assert fit.converged
    np.testing.assert_allclose(fit.coefficients, fit_of(data).coefficients, rtol=0, atol=1e-8)


def test_a_tolerance_below_rounding_ends_with_the_best_there_is() -> None:
    data = simulate(17, 100, 2)
    raw = replace(data, x=30 * data.x + 500)
    settings = Settings(tolerance=1e-18, max_rounds=25)
    fit = run_pooled(fit_cox(raw.view([10, 10]), settings=settings), [raw.cohort()])
    assert not fit.converged
    assert fit.rounds <= 25
    assert any(sentence.startswith("not converged after") for sentence in fit.warnings)
    np.testing.assert_allclose(fit.coefficients * 30, fit_of(data).coefficients, rtol=0, atol=1e-7)


def test_unknown_ties_and_a_wrong_width_are_refused() -> None:
    data = simulate(18, 30, 2)
    with pytest.raises(ValueError, match="ties must be one of"):
        run_pooled(fit_cox(data.view(), ties="exact"), [data.cohort()])
    with pytest.raises(ValueError, match="coefficients must be"):
        CoxDerivatives(data.view(), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="a Hessian is asked"):
        CoxDerivatives(data.view(), np.zeros((1, 2)), (1,))
    with pytest.raises(ValueError, match="updates must be"):
        Settings(updates="sgd")
