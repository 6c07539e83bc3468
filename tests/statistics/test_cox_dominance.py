"""Coefficients at which single patients carry the risk sets are declined: the gradient would tell their rows."""

from __future__ import annotations

import numpy as np
import pytest
from cox_data import Survival, simulate, survivals
from hypothesis import given
from hypothesis import strategies as st

from ctfed.federation import FloatArray, run_pooled
from ctfed.statistics.cox import ElasticNet, fit_cox, likelihood
from ctfed.statistics.cox.likelihood import Stratum, strata_of, weights
from ctfed.statistics.cox.robust import CoxScoreProducts
from ctfed.statistics.cox.stratified import CoxDerivatives


def stratum_of(data: Survival) -> Stratum:
    (stratum,) = strata_of(data.view().build(data.cohort()), "efron")
    return stratum


def dominated(data: Survival, beta: FloatArray) -> bool:
    """The rule by its words, patient by patient, of data with one stratum."""
    risk = np.exp(data.x @ beta)
    judged, found = 0, 0
    for time in data.time[data.event]:
        at_risk = risk[data.time >= time]
        if at_risk.size >= 10:
            judged += 1
            found += at_risk.max() > 0.9 * at_risk.sum()
    return found > 0.1 * judged


def nobody(stratum: Stratum, risk: FloatArray, at_risk: FloatArray, spread: FloatArray) -> np.ndarray:
    """In place of the rule."""
    return np.zeros(spread.size, dtype=bool)


def line(outlier: float, n: int = 40, stays: int = 40) -> Survival:
    """A feature that one patient alone has, who is at risk for the first ``stays`` of ``n`` deaths."""
    x = np.zeros((n, 1))
    x[stays - 1] = outlier
    return Survival.of(x, np.arange(n) + 1.0, np.ones(n, dtype=bool))


def test_a_gradient_at_a_dominated_point_would_be_the_patient_s_row(monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulate(1, 80, 3)
    centred = data.x - data.x.mean(axis=0)
    patient = int(np.argmax((centred**2).sum(axis=1)))  # nobody is farther out in this patient's direction
    time = np.where(np.arange(80) == patient, data.time.max() + 1, data.time)
    data = Survival.of(data.x, time, data.event)
    points = np.stack([40 * centred[patient] / (centred[patient] ** 2).sum(), np.zeros(3)])
    query = CoxDerivatives(data.view(), points, (0, 1))
    answer = query.answer(data.cohort())
    assert answer["declined"].tolist() == [1, 0]
    assert answer["loglik"][0] == 0
    assert not answer["gradient"][0].any()
    assert not answer["hessian"][0].any()
    assert answer["gradient"][1].all()
    assert CoxScoreProducts(data.view(), points[0]).answer(data.cohort())["declined"] == 1

    monkeypatch.setattr(likelihood, "_dominated", nobody)
    gradient = query.answer(data.cohort())["gradient"][0]
    told = (data.x[data.event].sum(axis=0) - gradient) / data.event.sum()
    distance = np.abs(data.x - told).max(axis=1)
    assert int(np.argmin(distance)) == patient
    assert distance[patient] < 0.1


@given(data=survivals(max_strata=1), seed=st.integers(0, 1000), strength=st.floats(0.0, 12.0))
def test_the_shortcuts_change_nothing(data: Survival, seed: int, strength: float) -> None:
    points = np.random.default_rng(seed).normal(size=(3, len(data.names))) * strength
    found = weights(stratum_of(data), points).inside
    assert found.tolist() == [not dominated(data, beta) for beta in points]


@pytest.mark.parametrize(("share", "inside"), [(0.89, True), (0.91, False)])
def test_one_patient_may_carry_nine_tenths_of_the_risk(share: float, inside: bool) -> None:
    data = line(float(np.log(share / (1 - share) * 39)))
    data = Survival.of(data.x, np.full(40, 5.0), data.event)  # one risk set
    assert weights(stratum_of(data), np.ones((1, 1))).inside.tolist() == [inside]


@pytest.mark.parametrize(("deaths", "inside"), [(3, True), (4, False)])
def test_one_patient_may_dominate_a_tenth_of_the_events(deaths: int, inside: bool) -> None:
    data = line(20.0, stays=deaths)  # 31 events have risk sets of ten patients and more
    assert weights(stratum_of(data), np.ones((1, 1))).inside.tolist() == [inside]


def test_small_risk_sets_are_not_judged() -> None:
    x = np.zeros((40, 1))
    x[31:] = np.arange(9)[:, None] * 10.0  # the very last patient carries the risk of the last nine
    x[:31] = 80.0  # and is one of many before
    data = Survival.of(x, np.arange(40) + 1.0, np.ones(40, dtype=bool))
    assert weights(stratum_of(data), np.ones((1, 1))).inside.tolist() == [True]


def test_a_fit_beside_an_outlier_ends_where_one_without_the_rule_does(monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulate(3, 200, 3)
    x = data.x.copy()
    x[11, 1] = 12.0
    data = Survival.of(x, data.time, data.event)
    fits = [run_pooled(fit_cox(data.view(), ElasticNet(0.01, 0.5)), data.spread(3))]
    monkeypatch.setattr(likelihood, "_dominated", nobody)
    fits.append(run_pooled(fit_cox(data.view(), ElasticNet(0.01, 0.5)), data.spread(3)))
    assert fits[0].converged
    np.testing.assert_allclose(fits[0].coefficients, fits[1].coefficients, rtol=0, atol=1e-9)
