"""Decision curves: the definition's value, whatever the split over sites; the table's own thresholds agree with it."""

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
from hypothesis import given
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from sklearn.metrics import confusion_matrix
from sksurv.nonparametric import CensoringDistributionEstimator
from sksurv.util import Surv

from ctfed.federation import Cohort, CtfedError, pool, run_pooled
from ctfed.federation.arrays import frozen
from ctfed.federation.pooled import Traffic
from ctfed.statistics.decide import DecisionSums, decision_curve, table_benefit
from ctfed.statistics.discriminate import evaluation_table
from ctfed.statistics.horizons import HorizonWeights, follow_up
from ctfed.statistics.timegrid import TimeGrid

THRESHOLDS = (0.1, 0.25, 0.4, 0.6)


def risk_of(cohort: Cohort, model: int, horizon: int) -> np.ndarray:
    return 1 - np.exp(-HAZARD[model, horizon] * np.exp(SCORES.table(cohort).values[:, model]))


@given(seed=st.integers(0, 2**32 - 1), sites=st.integers(1, 5), ties=st.booleans(), minimum=st.sampled_from([0, 5]))
def test_net_benefit_is_the_definitions_over_any_split(seed: int, sites: int, ties: bool, minimum: int) -> None:
    cohort = cohort_of(seed, ties=ties)
    followed = followed_on(cohort, GRID, HORIZONS, 0)
    traffic = Traffic()
    found = run_pooled(
        decision_curve(SCORES, followed, HAZARD[:, 1], 2.0, THRESHOLDS, minimum=minimum),
        split_over(cohort, seed, sites),
        traffic,
    )
    assert traffic.rounds == 1
    case, control = (x[0] for x in followed.coarser(minimum * 5, [2.0]).weights.of(SCORES.table(cohort)))
    for model in range(3):
        for k, p in enumerate(THRESHOLDS):
            high = risk_of(cohort, model, 1) > p
            gain = high * (case - p / (1 - p) * control)
            assert found.treated[model, k] == pytest.approx(high.mean(), rel=SUM)
            assert found.benefit[model, k] == pytest.approx(gain.mean(), rel=1e-11, abs=SUM)
            assert found.error[model, k] == pytest.approx(gain.std() / np.sqrt(150), rel=1e-9, abs=1e-9)
            assert found.treat_all[model, k] == pytest.approx((case - p / (1 - p) * control).mean(), rel=1e-11, abs=SUM)
            saved = (found.benefit[model, k] - found.treat_all[model, k]) * (1 - p) / p
            assert found.avoided[model, k] == pytest.approx(saved)


def test_without_censoring_it_is_the_confusion_matrixs() -> None:
    cohort = cohort_of(2, 400)
    cohort = Cohort.of("s", cohort.columns, cohort.time, np.ones(400))
    found = run_pooled(
        decision_curve(SCORES, exact_follow_up(cohort), HAZARD[:, 0], 1.0, THRESHOLDS, minimum=0), [cohort]
    )
    for model in range(3):
        for k, p in enumerate(THRESHOLDS):
            _, false, _, true = confusion_matrix(cohort.time <= 1, risk_of(cohort, model, 0) > p).ravel()
            assert found.benefit[model, k] == pytest.approx((true - false * p / (1 - p)) / 400, abs=1e-12)


def test_weights_are_scikit_survivals_and_their_sum_is_kaplan_meiers() -> None:
    cohort = cohort_of(7, 300)
    case, control = exact_follow_up(cohort).weights.of(SCORES.table(cohort))
    curve = CensoringDistributionEstimator().fit(Surv.from_arrays(cohort.event, cohort.time))
    for h, horizon in enumerate(HORIZONS):
        early = cohort.event & (cohort.time <= horizon)
        np.testing.assert_allclose(case[h][early], 1 / curve.predict_proba(cohort.time[early]), rtol=1e-12)
        np.testing.assert_allclose(control[h][cohort.time > horizon], 1 / curve.predict_proba(np.array([horizon]))[0])
        survival = float(KaplanMeierFitter().fit(cohort.time, cohort.event).predict(horizon))
        assert case[h].mean() == pytest.approx(1 - survival, abs=1e-12)
        assert control[h].mean() == pytest.approx(survival, abs=1e-12)


def test_the_edges_of_a_table_are_thresholds_that_ask_nothing() -> None:
    cohort = cohort_of(4, 900)
    parts = split_over(cohort, 3, 4)
    table = run_pooled(evaluation_table(SCORES, GRID, horizons=HORIZONS, min_cell=10, fine=True, score_bins=6), parts)
    found = table_benefit(table, HAZARD[:, 1], 2.0)
    followed = followed_on(cohort, GRID, HORIZONS, 0)
    for model in range(3):
        thresholds = found.thresholds[model]
        told = run_pooled(decision_curve(SCORES, followed, HAZARD[:, 1], 2.0, thresholds.tolist(), minimum=0), parts)
        np.testing.assert_allclose(found.benefit[model], told.benefit[model], atol=1e-10)
        np.testing.assert_allclose(found.treat_all[model], told.treat_all[model], atol=1e-10)
        np.testing.assert_allclose(found.treated[model], told.treated[model], atol=1e-10)


def test_too_many_thresholds_and_what_is_exposed() -> None:
    cohort = cohort_of(1, 120)
    followed = followed_on(cohort, GRID, HORIZONS, 10)
    with pytest.raises(CtfedError, match="4 thresholds for 120 patients with 30 in a cell; at most 3"):
        run_pooled(decision_curve(SCORES, followed, HAZARD[:, 1], 2.0, THRESHOLDS, minimum=30), [cohort])
    with pytest.raises(ValueError, match="increase inside"):
        run_pooled(decision_curve(SCORES, followed, HAZARD[:, 1], 2.0, (0.5, 0.2), minimum=1), [cohort])
    query = DecisionSums(SCORES, followed.weights.at(2.0), frozen([[0.0, 1.0]] * 3))
    exposure = query.exposure
    assert exposure.cells == 3 * followed.weights.at(2.0).grid.edges.size
    assert exposure.cuts["risk-2"].tolist() == [0.0, 1.0]
    assert exposure.times is not None
    with pytest.raises(ValueError, match="one horizon"):
        DecisionSums(SCORES, HorizonWeights.plain(HORIZONS), frozen([[0.0]] * 3))


def test_seven_real_centres_within_the_default_cells(shared_data: Path) -> None:
    cohorts, view, _ = seven_centres(shared_data)
    grid = TimeGrid.regular(1.0, 60.0)
    hazard = np.full(3, 0.03)
    followed = run_pooled(follow_up(view, grid, (60.0,)), cohorts)
    thresholds = (0.2, 0.3, 0.4, 0.5)
    found = run_pooled(decision_curve(view, followed, hazard, 60.0, thresholds, minimum=10), cohorts)
    whole = pool(cohorts)
    case, control = (x[0] for x in exact_follow_up(whole, (60.0,)).weights.of(view.table(whole)))
    risk = 1 - np.exp(-0.03 * np.exp(view.table(whole).values[:, 0]))
    exact = [((risk > p) * (case - p / (1 - p) * control)).mean() for p in thresholds]
    np.testing.assert_allclose(found.benefit[0], exact, atol=2e-3)
