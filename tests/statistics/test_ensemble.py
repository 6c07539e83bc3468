"""Ensembles: means of scores that training totals standardise, whatever the split over sites."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_data import RAW, SCORES, cohort_of, split_over
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler
from sksurv.metrics import concordance_index_censored

from ctfed.federation import Feature, View, run_pooled
from ctfed.federation.arrays import frozen
from ctfed.federation.pooled import Traffic
from ctfed.statistics.concordance import within_site_concordance
from ctfed.statistics.ensemble import Ensemble, fit_ensemble, members_of
from ctfed.statistics.predict import LinearPredictor

TRAIN = View(RAW.columns).then(*SCORES.transforms)
SETS = ((0, 1), (0, 1, 2), (2,))


@given(seed=st.integers(0, 2**32 - 1), sites=st.integers(1, 6), keep=st.booleans())
def test_means_of_standardised_scores_over_any_split(seed: int, sites: int, keep: bool) -> None:
    cohort = cohort_of(seed)
    traffic = Traffic()
    fitted = run_pooled(fit_ensemble(TRAIN, SETS, keep=keep), split_over(cohort, seed, sites), traffic)
    assert traffic.rounds == 2
    scaler = StandardScaler().fit(TRAIN.table(cohort).values)
    for view in (fitted.view, fitted.view.test()):
        scores = view.on(view.selection).table(cohort).values
        plain = (TRAIN if view.split == "train" else TRAIN.test()).table(cohort).values
        standardised = scaler.transform(plain)
        told = np.stack([standardised[:, list(chosen)].mean(axis=1) for chosen in SETS], axis=1)
        np.testing.assert_allclose(scores[:, -3:], told, atol=2e-10)  # scores have ten decimals
        if keep:
            np.testing.assert_array_equal(scores[:, :3], plain)
    assert fitted.view.names == (("risk-0", "risk-1", "risk-2") if keep else ()) + tuple(
        f"ensemble-{k}" for k in range(3)
    )


def test_an_ensemble_is_evaluated_beside_its_members() -> None:
    cohort = cohort_of(3, 300)
    fitted = run_pooled(fit_ensemble(TRAIN, SETS[:1], keep=True), split_over(cohort, 1, 4))
    found = run_pooled(within_site_concordance(fitted.view.test()), [cohort])
    test = cohort.subset(cohort.split == "test")
    scores = fitted.view.test().table(cohort).values
    for column in range(4):
        told = concordance_index_censored(test.event, test.time, scores[:, column])[0]
        assert found.value[column] == pytest.approx(told, abs=1e-12)


def test_a_score_that_is_the_same_for_everybody_adds_nothing() -> None:
    flat = View(RAW.columns).then(LinearPredictor(frozen([[1.0, 0.0], [0.0, 0.0]])))
    cohort = cohort_of(0)
    fitted = run_pooled(fit_ensemble(flat, ((0, 1), (0,), (1,)), labels=("age", "nothing")), [cohort])
    both, alone, none = fitted.view.table(cohort).values.T
    np.testing.assert_array_equal(both, alone)
    assert both.std() > 0.5
    assert not none.any()
    assert fitted.warnings == ("nothing: its score is the same for every patient, so it adds nothing to an ensemble",)
    assert run_pooled(fit_ensemble(flat, ((0,),)), [cohort]).warnings == ()


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match="a set names models 0 to 2"):
        members_of(((0, 3),), 3)
    with pytest.raises(ValueError, match="no member"):
        Ensemble(frozen(np.zeros((1, 3))), frozen(np.zeros(3)), frozen(np.ones(3)))
    with pytest.raises(ValueError, match="array of 0 and 1"):
        Ensemble(frozen(np.full((1, 3), 0.5)), frozen(np.zeros(3)), frozen(np.ones(3)))
    step = Ensemble(frozen(np.ones((1, 1))), frozen([0.0]), frozen([1.0]), keep=True)
    with pytest.raises(ValueError, match="named as the ensembles are"):
        step.features((Feature("ensemble-0"),))
