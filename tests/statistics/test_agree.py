"""Classification by Youden's cuts and by agreement: the counts of the pooled patients, over any split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_data import (
    GRID,
    HAZARD,
    HORIZONS,
    RAW,
    SCORES,
    cohort_of,
    exact_follow_up,
    followed_on,
    seven_centres,
    split_over,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score, roc_curve
from sksurv.metrics import cumulative_dynamic_auc
from sksurv.util import Surv

from ctfed.federation import Cohort, CtfedError, View, pool, run_pooled
from ctfed.federation.arrays import frozen
from ctfed.federation.pooled import Traffic
from ctfed.statistics.agree import AgreementCounts, agreement, wilson, youden_cuts
from ctfed.statistics.ensemble import fit_ensemble, members_of
from ctfed.statistics.horizons import HorizonWeights, follow_up
from ctfed.statistics.timegrid import TimeGrid

TRAIN = View(RAW.columns).then(*SCORES.transforms)
SETS = ((0, 1), (0, 1, 2))
MEMBERS = members_of(SETS, 3)
CUTS = np.array([[0.1, -0.2], [0.3, 0.0], [-0.4, 0.2]])


def known(cohort: Cohort, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """(n,) who is a case, and whose state is known."""
    case = cohort.event & (cohort.time <= horizon)
    return case, case | (cohort.time > horizon)


# --- thresholds ------------------------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1), sites=st.integers(1, 5))
def test_cuts_are_the_best_of_the_quantiles_and_no_other_is_better_than_the_bound(seed: int, sites: int) -> None:
    cohort = cohort_of(seed, 400)
    found, oracle = (
        run_pooled(youden_cuts(SCORES, HORIZONS, minimum=5), parts)
        for parts in (split_over(cohort, seed, sites), [cohort])
    )
    np.testing.assert_allclose(found.cut, oracle.cut, rtol=1e-12, atol=1e-12)
    for h, horizon in enumerate(HORIZONS):
        case, valid = known(cohort, horizon)
        for model in range(3):
            score = SCORES.table(cohort).values[:, model][valid]
            false, true, _ = roc_curve(case[valid], score, drop_intermediate=False)
            best = float((true - false).max())
            called = score > found.cut[model, h]
            sensitivity = recall_score(case[valid], called)
            specificity = recall_score(~case[valid], ~called)
            assert found.sensitivity[model, h] == pytest.approx(sensitivity, abs=1e-12)
            assert found.specificity[model, h] == pytest.approx(specificity, abs=1e-12)
            assert found.youden[model, h] == pytest.approx(sensitivity + specificity - 1, abs=1e-12)
            assert found.youden[model, h] - 1e-12 <= best <= found.bound[model, h] + 1e-12
            assert best - found.youden[model, h] < 0.12
    survival = found.survival(HAZARD)
    score = SCORES.table(cohort).values[:, 1]
    np.testing.assert_array_equal(np.exp(-HAZARD[1, 0] * np.exp(score)) < survival[1, 0], score > found.cut[1, 0])


def test_thresholds_of_few_patients_or_without_cases() -> None:
    cohort = cohort_of(1, 30)
    with pytest.raises(CtfedError, match="30 patients are too few for a threshold at 2 horizons"):
        run_pooled(youden_cuts(SCORES, HORIZONS, minimum=10), [cohort])
    late = Cohort.of("s", cohort.columns, cohort.time + 5, cohort.event)
    found = run_pooled(youden_cuts(SCORES, HORIZONS, minimum=3), [late])
    assert np.isnan(found.cut).all()


# --- agreement -------------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), sites=st.integers(1, 5), ties=st.booleans())
def test_counts_and_auc_are_those_of_the_pooled_patients(seed: int, sites: int, ties: bool) -> None:
    cohort = cohort_of(seed, 300, ties=ties)
    assume(cohort.time.max() > 2.5)
    train = cohort.subset(np.ones(300, dtype=bool))
    view = run_pooled(fit_ensemble(SCORES, SETS, keep=True), [train]).view
    followed = followed_on(cohort, GRID, HORIZONS, 0)
    traffic = Traffic()
    ask = agreement(view, followed, CUTS, MEMBERS, (3, 4), minimum=4)
    found = run_pooled(ask, split_over(cohort, seed, sites), traffic)
    assert traffic.kinds[-1] == ("agreement-counts",)
    scores = view.table(cohort).values
    for h, horizon in enumerate(HORIZONS):
        case, valid = known(cohort, horizon)
        called = scores[:, :3] > CUTS[:, h]
        for row in range(5):
            members = [row] if row < 3 else list(SETS[row - 3])
            agreed = (called[:, members] == called[:, members[:1]]).all(axis=1)
            rows = agreed & valid
            assert found.valid[h] == valid.sum()
            assert found.coverage[row, h] == pytest.approx(rows.sum() / valid.sum())
            call = called[:, members[0]]
            assert found.accuracy[row, h] == pytest.approx(accuracy_score(case[rows], call[rows]))
            (tn, fp), (fn, tp) = confusion_matrix(case[rows], call[rows], labels=[False, True])
            np.testing.assert_array_equal(found.counts[row, h, :, :2], [[fn, tn], [tp, fp]])
            assert found.sensitivity[row, h] == pytest.approx(tp / (tp + fn), nan_ok=True)
            assert found.specificity[row, h] == pytest.approx(tn / (tn + fp), nan_ok=True)
            assert found.counts[row, h].sum() == agreed.sum()
        low, value, high = found.auc_lower[:, h], found.auc[:, h], found.auc_upper[:, h]
        assert ((low <= value + 1e-12) & (value <= high + 1e-12)).all()
        assert (found.coverage[:3, h] == 1).all()


def test_auc_limits_hold_scikit_survivals_on_those_agreed_on() -> None:
    cohort = cohort_of(6, 900)
    view = run_pooled(fit_ensemble(SCORES, SETS, keep=True), [cohort]).view
    followed = exact_follow_up(cohort)
    found = run_pooled(agreement(view, followed, CUTS, MEMBERS, (3, 4), minimum=0), [cohort])
    scores = view.table(cohort).values
    y = Surv.from_arrays(cohort.event, cohort.time)
    for h, horizon in enumerate(HORIZONS):
        called = scores[:, :3] > CUTS[:, h]
        for k, members in enumerate(SETS):
            agreed = (called[:, list(members)] == called[:, list(members[:1])]).all(axis=1)
            told = cumulative_dynamic_auc(y, y[agreed], scores[agreed, 3 + k], [horizon])[0][0]
            assert found.auc_lower[k, h] - 1e-9 <= told <= found.auc_upper[k, h] + 1e-9
            assert found.auc[k, h] == pytest.approx(told, abs=0.01)
            case, control = (part[h] for part in followed.weights.of(view.table(cohort)))
            call = called[:, members[0]]
            weighted = (case * call * agreed).sum() / (case * agreed).sum()
            assert found.weighted_sensitivity[3 + k, h] == pytest.approx(weighted)
            weighted = (control * ~call * agreed).sum() / (control * agreed).sum()
            assert found.weighted_specificity[3 + k, h] == pytest.approx(weighted)


def test_wilsons_limits() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 81/263, 15/148, 0/20.
    found = wilson(np.array([81.0, 15.0, 0.0, 0.0]), np.array([263.0, 148.0, 20.0, 0.0]))
    np.testing.assert_allclose(found[:3], [[0.2553, 0.3662], [0.0624, 0.1605], [0.0, 0.1611]], atol=5e-5)
    assert np.isnan(found[3]).all()


def test_what_is_exposed_and_what_is_refused() -> None:
    weights = HorizonWeights.plain(HORIZONS)
    query = AgreementCounts(SCORES, weights, frozen(CUTS), MEMBERS, (0, 2), frozen([[0.0, 0.5], [0.1, 0.6]]))
    exposure = query.exposure
    assert exposure.cells == 2 * 4
    assert {name: cut.tolist() for name, cut in exposure.cuts.items()} == {
        "risk-0": [-0.2, 0.0, 0.1, 0.5],
        "risk-1": [0.0, 0.3],
        "risk-2": [-0.4, 0.1, 0.2, 0.6],
    }
    with pytest.raises(ValueError, match="ranked by one of the 3 scores"):
        AgreementCounts(SCORES, weights, frozen(CUTS), MEMBERS, (0, 3), frozen([[0.0], [0.1]]))
    with pytest.raises(CtfedError, match="no threshold at a horizon"):
        run_pooled(
            agreement(SCORES, followed_on(cohort_of(1), GRID, HORIZONS, 0), CUTS * np.nan, MEMBERS, (0, 1)),
            [cohort_of(1)],
        )


def test_consensus_of_seven_real_centres(shared_data: Path) -> None:
    cohorts, view, _ = seven_centres(shared_data)
    horizons = (24.0, 60.0)
    cuts = run_pooled(youden_cuts(view, horizons), cohorts)
    both = run_pooled(fit_ensemble(view, ((0, 2),), keep=True), cohorts).view
    followed = run_pooled(follow_up(view, TimeGrid.regular(1.0, 60.0), horizons), cohorts)
    traffic = Traffic()
    ask = agreement(both, followed, cuts.cut, members_of(((0, 2),), 3), (3,))
    found = run_pooled(ask, cohorts, traffic)
    whole = pool(cohorts)
    for h, horizon in enumerate(horizons):
        case, valid = known(whole, horizon)
        assert found.valid[h] == valid.sum()
        called = view.table(whole).values > cuts.cut[:, h]
        agreed = called[:, 0] == called[:, 2]
        assert found.coverage[3, h] == pytest.approx((agreed & valid).sum() / valid.sum())
        assert found.sensitivity[3, h] == pytest.approx(called[agreed & case, 0].mean())
    assert (found.auc > 0.6).all()
    assert (found.accuracy > 0.55).all()
