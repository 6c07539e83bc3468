"""Cox fits against R, lifelines, scikit-survival and a plain minimiser."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cox_data import Survival, kkt_residual, load, partial_likelihood, reference, simulate
from lifelines import CoxPHFitter
from scipy import optimize
from sksurv.linear_model import CoxnetSurvivalAnalysis, CoxPHSurvivalAnalysis
from sksurv.util import Surv

from ctfed.federation import run_pooled
from ctfed.statistics.cox import CoxFit, ElasticNet, Settings, fit_cox
from ctfed.statistics.timegrid import TimeGrid

UNSTRATIFIED = ["ncctg_lung_age_sex_ecog", "ncctg_lung_all_R_reference", "rossi", "nsclc_geo_7centres", "lung1_aerts4"]
BY_CENTRE = ["ncctg_lung_age_sex_ecog", "nsclc_geo_7centres"]
TIGHT = Settings(tolerance=1e-10)


def one_stratum(data: Survival) -> Survival:
    return Survival.of(data.x, data.time, data.event, data.names)


def case(folder: Path, name: str) -> Survival:
    """A stored case's data with one baseline hazard; LUNG1's radiomics standardised, as its reference is."""
    data = one_stratum(load(folder, name, reference(folder)[name]["cols"]))
    return data.standardised() if name.startswith("lung1") else data


def lifelines_fit(data: Survival, **options: object) -> CoxPHFitter:
    frame = pd.DataFrame(data.x, columns=list(data.names)).assign(
        time=data.time, event=data.event, stratum=data.stratum
    )
    by = "stratum" if np.unique(data.stratum).size > 1 else None
    if by is None:
        frame = frame.drop(columns="stratum")
    fitter = CoxPHFitter(**options)
    return fitter.fit(frame, "time", "event", strata=by, fit_options={"precision": 1e-14})


@pytest.mark.parametrize("risk_sets", ["stratified", "pooled"])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("name", UNSTRATIFIED)
def test_coefficients_are_those_of_r(shared_data: Path, name: str, ties: str, risk_sets: str) -> None:
    # The references were computed with a tolerance of 1e-12 on a coefficient's step: they support 1e-10.
    data = case(shared_data, name)
    expected = reference(shared_data)[name]
    key = f"coef_{ties}" + ("_zscored" if name.startswith("lung1") else "")
    if risk_sets == "stratified":
        fit = run_pooled(fit_cox(data.view(), ties=ties, settings=TIGHT), [data.cohort()])
    else:
        grid = TimeGrid.exact(data.time)
        fit = run_pooled(fit_cox(data.view(), ties=ties, grid=grid, settings=TIGHT), data.spread(5))
    assert (fit.risk_sets, fit.patients, fit.events) == (risk_sets, expected["n"], expected["events"])
    np.testing.assert_allclose(fit.coefficients, expected[key], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", BY_CENTRE)
def test_sites_that_are_strata_give_the_stratified_fit_of_r(shared_data: Path, name: str) -> None:
    expected = reference(shared_data)[name]
    data = load(shared_data, name, expected["cols"])
    _, site = np.unique(data.stratum, return_inverse=True)
    cohorts = data.over(site)
    assert len(cohorts) == expected["n_centres"]
    fit = run_pooled(fit_cox(data.view(), settings=TIGHT), cohorts)
    # The stored numbers are lifelines' at its default precision, good to 3e-6; freshly computed at 1e-14 it agrees to
    # 1e-7 (below), and the textbook's likelihood to 1e-8.
    np.testing.assert_allclose(fit.coefficients, expected["coef_efron_stratified_by_centre"], rtol=0, atol=3e-6)


@pytest.mark.parametrize("name", [*UNSTRATIFIED, "lung1_allfeat_ridge50"])
def test_elastic_net_coefficients_are_those_of_coxnet(shared_data: Path, name: str) -> None:
    # scikit-survival's coordinate descent stops by the change of its objective: 1e-6 is what its 1e-12 supports with 90
    # correlated features.
    data = case(shared_data, name).standardised()
    expected = np.array(reference(shared_data)[name]["coxnet_l1ratio0.5_alpha0.05_standardised(ddof0)"])
    fit = run_pooled(fit_cox(data.view(), ElasticNet(0.05, 0.5), ties="breslow", settings=TIGHT), [data.cohort()])
    np.testing.assert_allclose(fit.coefficients, expected, rtol=0, atol=1e-6)
    assert ((fit.coefficients != 0) == (expected != 0)).all()


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_ridge_is_that_of_scikit_survival_with_alpha_penalizer_times_n(shared_data: Path, ties: str) -> None:
    # 90 radiomic features of 416 patients, many of them collinear, at scikit-survival's alpha of 50; Newton to 1e-14.
    name = "lung1_allfeat_ridge50"
    data = case(shared_data, name)
    alpha = reference(shared_data)[name]["alpha_l2"]
    peer = CoxPHSurvivalAnalysis(alpha=alpha, ties=ties, tol=1e-14, n_iter=200)
    peer.fit(data.x, Surv.from_arrays(data.event, data.time))
    penalty = ElasticNet(alpha / data.time.size, 0.0)
    fit = run_pooled(fit_cox(data.view(), penalty, ties=ties, settings=TIGHT), [data.cohort()])
    np.testing.assert_allclose(fit.coefficients, peer.coef_, rtol=0, atol=1e-10)
    assert fit.standard_errors is None
    assert kkt_residual(data, fit.coefficients, penalty, ties) <= 1e-10


@pytest.mark.parametrize("name", ["ncctg_lung_age_sex_ecog", "rossi", "nsclc_geo_7centres"])
@pytest.mark.parametrize("stratified", [False, True])
def test_standard_errors_and_tests_are_those_of_lifelines(shared_data: Path, name: str, stratified: bool) -> None:
    # lifelines' own Newton steps end at coefficients good to about 1e-9, which bounds what can be asked of the rest.
    data = load(shared_data, name, reference(shared_data)[name]["cols"])
    data = data if stratified else one_stratum(data)
    fit = run_pooled(fit_cox(data.view()), [data.cohort()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lifelines remarks on the scale of a column
        peer = lifelines_fit(data)
    assert fit.intervals() is not None
    np.testing.assert_allclose(fit.coefficients, peer.params_, rtol=1e-7)
    np.testing.assert_allclose(fit.standard_errors, peer.standard_errors_, rtol=1e-7)
    np.testing.assert_allclose(fit.z, peer.summary["z"], rtol=1e-6)
    np.testing.assert_allclose(fit.p_values, peer.summary["p"], rtol=1e-6)
    np.testing.assert_allclose(fit.intervals(0.95), peer.confidence_intervals_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(fit.loglik, peer.log_likelihood_, rtol=1e-12)


@pytest.mark.parametrize("risk_sets", ["stratified", "pooled"])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_standard_errors_are_the_inverse_of_the_textbook_information(ties: str, risk_sets: str) -> None:
    data = simulate(5, 150, 4, strata=3 if risk_sets == "stratified" else 1, ties=12)
    grid = None if risk_sets == "stratified" else TimeGrid.exact(data.time)
    fit = run_pooled(fit_cox(data.view(), ties=ties, grid=grid), [data.cohort()])
    loglik, _, information = partial_likelihood(data, fit.coefficients, ties)
    np.testing.assert_allclose(fit.covariance, np.linalg.inv(information), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(fit.loglik, loglik, rtol=1e-13)


def plain_minimum(data: Survival, ties: str, ridge: float) -> np.ndarray:
    """scipy's trust region on the textbook likelihood; knows nothing of ctfed."""
    n, p = data.x.shape

    def value(beta: np.ndarray) -> tuple[float, np.ndarray]:
        loglik, gradient, _ = partial_likelihood(data, beta, ties)
        return -loglik / n + ridge / 2 * float(beta @ beta), -gradient / n + ridge * beta

    def hessian(beta: np.ndarray) -> np.ndarray:
        return partial_likelihood(data, beta, ties)[2] / n + ridge * np.eye(p)

    found = optimize.minimize(
        value, np.zeros(p), jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-11, "maxiter": 200}
    )
    return np.asarray(found.x)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_a_stratified_fit_is_the_plain_minimum_of_the_textbook_likelihood(ties: str, ridge: float) -> None:
    data = simulate(11, 120, 3, strata=4, ties=8)
    fit = run_pooled(fit_cox(data.view(), ElasticNet(ridge, 0.0), ties=ties), data.over(data.stratum.astype(int)))
    np.testing.assert_allclose(fit.coefficients, plain_minimum(data, ties, ridge), rtol=0, atol=1e-8)


def test_lifelines_elastic_net_is_smooth_and_meets_ours_in_objective() -> None:
    """lifelines minimises a smoothed |beta|: its objective, evaluated exactly, cannot be below the exact optimum."""
    data = simulate(3, 200, 6).standardised()
    penalty = ElasticNet(0.1, 0.5)
    fit = run_pooled(fit_cox(data.view(), penalty), [data.cohort()])
    peer = lifelines_fit(data, penalizer=0.1, l1_ratio=0.5)
    objectives = [objective(data, np.asarray(beta), penalty) for beta in (fit.coefficients, peer.params_)]
    assert objectives[0] <= objectives[1] + 1e-12
    assert objectives[1] - objectives[0] < 1e-6
    np.testing.assert_allclose(fit.coefficients, peer.params_, atol=2e-3)


def objective(data: Survival, beta: np.ndarray, penalty: ElasticNet) -> float:
    loglik, _, _ = partial_likelihood(data, beta, "efron")
    l1 = penalty.l1_ratio * np.abs(beta).sum()
    l2 = (1 - penalty.l1_ratio) / 2 * (beta**2).sum()
    return float(-loglik / data.time.size + penalty.penalizer * (l1 + l2))


def test_coxnet_with_penalty_factors_needs_only_the_documented_rescaling() -> None:
    data = simulate(4, 250, 6, ties=60).standardised()
    factors = np.array([0.0, 0.5, 1.0, 1.0, 2.0, 4.0])
    peer = CoxnetSurvivalAnalysis(l1_ratio=0.7, alphas=[0.05], penalty_factor=factors, tol=1e-14, max_iter=1_000_000)
    peer.fit(data.x, Surv.from_arrays(data.event, data.time))
    rescaled = tuple(factors * factors.size / factors.sum())
    fit = run_pooled(fit_cox(data.view(), ElasticNet(0.05, 0.7, rescaled), ties="breslow"), [data.cohort()])
    np.testing.assert_allclose(fit.coefficients, peer.coef_[:, 0], rtol=0, atol=1e-6)
    assert isinstance(fit, CoxFit)
    assert (fit.coefficients == 0).any()
    assert fit.coefficients[0] != 0
