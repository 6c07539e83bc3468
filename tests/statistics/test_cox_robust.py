"""Robust standard errors against R, lifelines and the textbook's sums, one patient and one event after another."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from cox_data import Survival, partial_likelihood, simulate, survivals
from hypothesis import given
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from lifelines.datasets import load_lung, load_rossi

from ctfed.federation import Algorithm, Cohort, CtfedError, Feature, FloatArray, View, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.statistics.cox import CoxFit, ElasticNet, Settings, fit_cox, likelihood, robust_covariance
from ctfed.statistics.cox.likelihood import strata_of, weights
from ctfed.statistics.cox.robust import CoxScoreProducts, score_residuals
from ctfed.statistics.cox.stratified import unpack_triangles
from ctfed.statistics.timegrid import TimeGrid

TIES = st.sampled_from(["efron", "breslow"])
EACH_TIES = pytest.mark.parametrize("ties", ["efron", "breslow"])
TIGHT = Settings(tolerance=1e-11)


def lung(names: tuple[str, ...], stratum: str | None = None) -> Survival:
    """The NCCTG lung-cancer trial as lifelines ships it, complete cases."""
    frame = load_lung().dropna(subset=[*names, *([stratum] if stratum else [])])
    labels = None if stratum is None else frame[stratum].astype(int)
    died = frame["status"] == frame["status"].max()
    return Survival.of(frame[list(names)].to_numpy(dtype=np.float64), frame["time"], died, names, labels)


def rossi(stratum: str | None = None) -> Survival:
    """Rossi's recidivism data as lifelines ships them; a feature that makes the strata is none of the model's."""
    frame = load_rossi()
    names = tuple(name for name in frame.columns if name not in ("week", "arrest", stratum))
    labels = None if stratum is None else frame[stratum]
    return Survival.of(frame[list(names)].to_numpy(dtype=np.float64), frame["week"], frame["arrest"], names, labels)


DATA: dict[str, Callable[[], Survival]] = {
    "lung": lambda: lung(("age", "sex", "ph.ecog")),
    "lung by institution": lambda: lung(("age", "sex", "ph.ecog"), "inst"),
    "rossi": rossi,
    "rossi by race": lambda: rossi("race"),
}


def untied(data: Survival) -> Survival:
    """No two patients of a stratum share a time any more: of one time the censored leave first, then row by row."""
    order = np.lexsort((data.event, data.time, data.stratum))
    sorted_ = data.rows(order)
    return replace(sorted_, time=np.arange(1.0, sorted_.time.size + 1))


def magnitudes(data: Survival) -> list[int]:
    """The exponents that a data dictionary would declare."""
    return [int(np.ceil(np.log2(value))) for value in np.abs(data.x).max(axis=0)]


def fit_of(data: Survival, ties: str = "efron") -> CoxFit:
    return run_pooled(fit_cox(data.view(magnitudes(data)), ties=ties, settings=TIGHT), [data.cohort()])


def robust(fit: CoxFit, data: Survival) -> FloatArray:
    return run_pooled(robust_covariance(fit), [data.cohort()])


def errors(covariance: FloatArray) -> FloatArray:
    return np.sqrt(np.diag(covariance))


def products(data: Survival, beta: FloatArray, ties: str, cohorts: list[Cohort] | None = None) -> FloatArray:
    """The total that sites give, (p, p)."""
    view = data.view(magnitudes(data))

    def ask() -> Algorithm[FloatArray]:
        total = yield CoxScoreProducts(view, beta, ties)
        assert total["declined"] == 0
        return unpack_triangles(total["products"][None], view.width)[0]

    return run_pooled(ask(), cohorts or [data.cohort()])


def plain_residuals(data: Survival, beta: FloatArray, ties: str) -> FloatArray:
    """(n, p) score residuals by their definition: every event time, every tied event, everybody at risk."""
    risk = np.exp(data.x @ beta)
    residuals = np.zeros(data.x.shape)
    for label in np.unique(data.stratum):
        mine = data.stratum == label
        for time in np.unique(data.time[mine & data.event]):
            at_risk = mine & (data.time >= time)
            dying = mine & data.event & (data.time == time)
            deaths = int(dying.sum())
            for place in range(deaths):
                share = place / deaths if ties == "efron" else 0.0
                carried = at_risk - share * dying
                weight = carried * risk
                mean = weight @ data.x / weight.sum()
                residuals[dying] += (data.x[dying] - mean) / deaths
                residuals -= (weight / weight.sum())[:, None] * (data.x - mean)
    return residuals


def lifelines_fit(data: Survival) -> CoxPHFitter:
    """Always with strata: sorted by several keys, patients tied in all of them keep the order of their rows."""
    frame = pd.DataFrame(data.x, columns=list(data.names)).assign(
        time=data.time, event=data.event, stratum=data.stratum
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on the scale of a column
        return CoxPHFitter().fit(
            frame, "time", "event", strata="stratum", robust=True, fit_options={"precision": 1e-14, "max_steps": 100}
        )


def book_residuals(ties: str, r: float) -> list[float]:
    """Closed forms of the score residuals of data set 1 of Therneau & Grambsch, appendix E, as R's own tests hold them
    (survival's tests/book1.R and book2.R), for r = exp(beta)."""
    a, b, d = r + 1, r + 3, r + 5
    if ties == "breslow":
        return [
            (2 * r + 3) / (3 * a**2),
            -r / (3 * a**2),
            -r / (3 * a**2) + 3 * (3 - r) / b**2,
            r / (3 * a**2) - r * a / b**2,
            r / (3 * a**2) + 2 * r / b**2,
            r / (3 * a**2) + 2 * r / b**2,
        ]
    last = 2 * r * (177 + r * (282 + r * (182 + r * (50 + 5 * r)))) / (3 * (a * b * d) ** 2)
    return [
        (2 * r + 3) / (3 * a**2),
        -r / (3 * a**2),
        (675 + r * (1305 + r * (756 + r * (-4 + r * (-79 - 13 * r))))) / (3 * (a * b * d) ** 2),
        r * (1 / (3 * a**2) - a / (2 * b**2) - b / (2 * d**2)),
        last,
        last,
    ]


BOOK = Survival.of(np.array([[1.0, 1, 1, 0, 0, 0]]).T, [1, 1, 6, 6, 8, 9], [True, False, True, True, False, True])


@EACH_TIES
@pytest.mark.parametrize("beta", [0.0, 0.3, -1.2, 1.475285])
def test_residuals_are_the_closed_forms_of_therneau_and_grambsch(ties: str, beta: float) -> None:
    point = np.array([beta])
    (stratum,) = strata_of(BOOK.view().build(BOOK.cohort()), ties)
    found = np.concatenate(list(score_residuals(stratum, weights(stratum, point[None, :]))))[:, 0]
    expected = np.array(book_residuals(ties, float(np.exp(beta))))
    descending = [5, 4, 2, 3, 0, 1]  # as a stratum's rows stand: by time, events before censored
    np.testing.assert_allclose(found, expected[descending], rtol=0, atol=1e-14)
    np.testing.assert_allclose(products(BOOK, point, ties), [[expected @ expected]], rtol=1e-13)


def test_robust_errors_of_the_lung_trial_are_those_of_r() -> None:
    """coxph(Surv(time, status) ~ age + sex + wt.loss, lung, robust = TRUE), as R's package RESI prints it."""
    data = lung(("age", "sex", "wt.loss"))
    fit = fit_of(data)
    covariance = robust(fit, data)
    tested = replace(fit, covariance=covariance)
    np.testing.assert_allclose(tested.coefficients, [0.0201, -0.5210, 0.0008], rtol=0, atol=5e-5)
    np.testing.assert_allclose(tested.standard_errors, [0.0101, 0.1670, 0.0060], rtol=0, atol=5e-5)
    np.testing.assert_allclose(tested.z, [1.9915, -3.1202, 0.1264], rtol=0, atol=5e-5)
    np.testing.assert_allclose(tested.p_values, [0.0464, 0.0018, 0.8994], rtol=0, atol=5e-5)
    wald = fit.coefficients @ np.linalg.solve(covariance, fit.coefficients)
    np.testing.assert_allclose(wald, 13.7717, rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", DATA)
def test_without_ties_robust_errors_are_those_of_lifelines(name: str) -> None:
    data = untied(DATA[name]())
    peer = lifelines_fit(data)
    fit = fit_of(data)
    tested = replace(fit, covariance=robust(fit, data))
    # Measured: 2e-13 for the errors, 4e-12 for z (as for the coefficients), 1e-11 for p.
    np.testing.assert_allclose(tested.standard_errors, peer.standard_errors_, rtol=1e-11)
    np.testing.assert_allclose(tested.z, peer.summary["z"], rtol=1e-10)
    np.testing.assert_allclose(tested.p_values, peer.summary["p"], rtol=1e-9)
    np.testing.assert_allclose(tested.intervals(), peer.confidence_intervals_, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", DATA)
def test_lifelines_takes_tied_patients_one_after_another(name: str) -> None:
    """Its residuals at tied times are ours with the ties broken; R's and ours differ from it by under 4 %."""
    data = DATA[name]()
    peer = lifelines_fit(data)
    information = np.asarray(peer.variance_matrix_)
    broken = information @ products(untied(data), np.asarray(peer.params_), "efron") @ information
    np.testing.assert_allclose(errors(broken), peer.standard_errors_, rtol=1e-13)
    fit = fit_of(data)
    np.testing.assert_allclose(errors(robust(fit, data)), peer.standard_errors_, rtol=0.04)


@given(data=survivals(), ties=TIES, seed=st.integers(0, 1000))
def test_products_are_those_of_the_plain_residuals(data: Survival, ties: str, seed: int) -> None:
    beta = 0.7 * np.random.default_rng(seed).normal(size=len(data.names))
    residuals = plain_residuals(data, beta, ties)
    np.testing.assert_allclose(residuals.sum(axis=0), partial_likelihood(data, beta, ties)[1], rtol=0, atol=1e-10)
    np.testing.assert_allclose(products(data, beta, ties), residuals.T @ residuals, rtol=0, atol=1e-10)


@EACH_TIES
@pytest.mark.parametrize("name", DATA)
def test_covariance_is_the_textbook_s_sandwich(name: str, ties: str) -> None:
    data = DATA[name]()
    fit = fit_of(data, ties)
    residuals = plain_residuals(data, fit.coefficients, ties)
    _, _, information = partial_likelihood(data, fit.coefficients, ties)
    influence = residuals @ np.linalg.inv(information)
    scale = errors(influence.T @ influence)
    found = robust(fit, data)
    np.testing.assert_allclose(
        found / np.outer(scale, scale), influence.T @ influence / np.outer(scale, scale), atol=1e-10
    )
    np.testing.assert_allclose(errors(found), scale, rtol=1e-10)


@given(data=survivals(), ties=TIES, seed=st.integers(0, 1000), sites=st.integers(1, 5))
def test_regrouping_whole_strata_over_sites_changes_no_product(
    data: Survival, ties: str, seed: int, sites: int
) -> None:
    rng = np.random.default_rng(seed)
    beta = 0.7 * rng.normal(size=len(data.names))
    cohorts = data.over(rng.integers(0, sites, 4)[data.stratum.astype(int)])
    whole = products(data, beta, ties)
    np.testing.assert_allclose(products(data, beta, ties, cohorts), whole, rtol=0, atol=1e-10 * max(1.0, whole.max()))


@EACH_TIES
def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch, ties: str) -> None:
    data = simulate(7, 500, 3, strata=2, ties=7)
    beta = np.array([0.4, -0.5, 0.1])
    whole = products(data, beta, ties)
    monkeypatch.setattr(likelihood, "BLOCK_ROWS", 17)  # ties and risk sets cross the borders of blocks
    np.testing.assert_allclose(products(data, beta, ties), whole, rtol=1e-12, atol=1e-12)


def test_it_costs_one_round_and_its_triangle() -> None:
    data = simulate(8, 200, 4, strata=3)
    cohorts = data.over(data.stratum.astype(int))
    fit = run_pooled(fit_cox(data.view()), cohorts)
    traffic = Traffic()
    run_pooled(robust_covariance(fit), cohorts, traffic)
    assert traffic.kinds == [("cox-score-products",)]
    assert set(CoxScoreProducts(fit.view, fit.coefficients).layout) == {"declined", "products"}
    assert CoxScoreProducts(fit.view, fit.coefficients).layout["products"].shape == (10,)


def test_features_far_from_zero_have_the_same_errors() -> None:
    data = simulate(12, 150, 2)
    far = replace(data, x=data.x + 1e6)
    centred = fit_of(data)
    fit = replace(centred, view=View(tuple(Feature(name, 20) for name in data.names)))
    np.testing.assert_allclose(errors(robust(fit, far)), errors(robust(centred, data)), rtol=1e-9)


def test_a_fit_that_has_no_robust_errors_says_why() -> None:
    data = simulate(9, 120, 2)
    cohorts = [data.cohort()]
    penalised = run_pooled(fit_cox(data.view(), ElasticNet(0.1, 0.5)), cohorts)
    with pytest.raises(CtfedError, match="the fit is penalised"):
        run_pooled(robust_covariance(penalised), cohorts)
    pooled = run_pooled(fit_cox(data.view(), grid=TimeGrid.exact(data.time)), cohorts)
    with pytest.raises(CtfedError, match="stratified risk sets, and the fit's are pooled"):
        run_pooled(robust_covariance(pooled), cohorts)
    gradient = run_pooled(fit_cox(data.view(), settings=Settings(updates="gradient")), cohorts)
    with pytest.raises(CtfedError, match="they need the Hessian"):
        run_pooled(robust_covariance(gradient), cohorts)


def test_hostile_coefficients_are_declined_and_get_nothing_but_that() -> None:
    data = simulate(16, 40, 1, strata=2)
    answer = CoxScoreProducts(data.view(), np.array([1e6])).answer(data.cohort())
    assert answer["declined"] == 1
    assert not answer["products"].any()
    fit = fit_of(data)
    far = replace(fit, coefficients=np.array([1e6]))
    with pytest.raises(CtfedError, match="at 1 of 1 sites the linear predictors of the fit span too wide a range"):
        robust(far, data)


def test_sites_without_patients_or_events_add_nothing() -> None:
    data = simulate(2, 90, 2, strata=3)
    data = replace(data, event=data.event & (data.stratum != "1"))
    empty = data.cohort().subset(np.zeros(90, dtype=bool), "empty")
    beta = np.array([0.3, -0.2])
    whole = products(data.rows(data.stratum != "1"), beta, "efron")
    found = products(data, beta, "efron", [*data.over(data.stratum.astype(int)), empty])
    np.testing.assert_allclose(found, whole, rtol=1e-12)


def test_wrong_widths_and_unknown_ties_are_refused() -> None:
    view = simulate(18, 30, 2).view()
    with pytest.raises(ValueError, match=r"coefficients must be \(2,\), found \(3,\)"):
        CoxScoreProducts(view, np.zeros(3))
    with pytest.raises(ValueError, match="ties must be one of"):
        CoxScoreProducts(view, np.zeros(2), "exact")
