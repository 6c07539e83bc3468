"""What the budget of released numbers is for: where more are told than there are values, these can be determined.

The attacker of these tests knows outcome, site, split and fold of every patient and wants the covariates.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from attack_support import COLUMNS, Guarded, site_cohorts, study_of, told, training_view, with_column

from ctfed.federation import Cohort, FloatArray, Query, Refusal
from ctfed.federation.policy import Policy
from ctfed.statistics.cox.pooled import RiskSetSums
from ctfed.statistics.cox.stratified import CoxDerivatives
from ctfed.statistics.describe import Moments
from ctfed.statistics.standardise import Standardise
from ctfed.statistics.timegrid import TimeGrid
from server.audit.attacks.bins import rebuild_bins
from server.audit.attacks.linear import solve_linear
from server.audit.attacks.nonlinear import System, bound, search
from server.audit.knowledge import Known, values_of
from server.audit.patients import Truth
from server.audit.released import released
from server.audit.statements import statements
from server.audit.transcript import Transcript

STUDY = study_of(tuned=True)
VIEW = training_view(STUDY)
STEP = Standardise(COLUMNS, np.array([65.0, 4.5, 0.0]), np.array([9.0, 3.0, 1.0]))


@cache
def cohorts() -> tuple[Cohort, ...]:
    """42 training patients at three sites, with one continuous column."""
    rng = np.random.default_rng(0)
    small = site_cohorts(STUDY, (24, 20, 16))
    return tuple(with_column(small, "carrier", {one.site: rng.normal(size=one.patients) for one in small}))


@cache
def asked_at(points: int) -> Transcript:
    """A study's questions: moments over nested rows, log-likelihoods and gradients at coefficient vectors of each."""
    rng = np.random.default_rng(1)
    folds = [VIEW.training_fold(fold) for fold in range(STUDY.folds)]
    queries: list[Query] = [Moments(view, np.zeros(3)) for view in (VIEW, *folds)]
    for view, count in ((VIEW, points), *((fold, points // 3) for fold in folds)):
        queries.append(CoxDerivatives(view.then(STEP), rng.normal(0, 0.4, (count, 3)), ()))
    return told(queries, list(cohorts()), STUDY.folds)


def known() -> Known:
    return Known.of(cohorts(), VIEW)


def truth() -> FloatArray:
    return values_of(cohorts(), known())


def test_the_equations_hold_at_the_truth_and_their_derivatives_are_right() -> None:
    grid = TimeGrid(np.array([3.0, 6.0, 12.0]))
    beta = np.array([[0.3, -0.2, 0.1], [0.0, 0.0, 0.0]])
    queries = [
        Moments(VIEW, np.zeros(3)),
        CoxDerivatives(VIEW.then(STEP), beta, (0, 1), "efron"),
        CoxDerivatives(VIEW.then(STEP), beta, (0,), "breslow"),
        RiskSetSums(VIEW.then(STEP), beta, grid, (0,)),
        RiskSetSums(VIEW.then(STEP), beta, grid, (1,), tied=False),
    ]
    system = System(told(queries, list(cohorts()), STUDY.folds), known())
    at = truth()[system.unknown]
    residual, jacobian = system(at)
    assert np.abs(residual).max() < 1e-11
    towards = np.random.default_rng(0).normal(size=at.size)
    ahead, behind = (system(at + sign * 1e-5 * towards)[0] for sign in (1, -1))
    np.testing.assert_allclose((ahead - behind) / 2e-5, jacobian @ towards, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("points", [2, 5, 10])
def test_fewer_numbers_than_values_determine_nobody(points: int) -> None:
    transcript = asked_at(points)
    found = bound(transcript, known(), truth())
    assert found is not None
    assert found.rank == found.equations < found.unknown
    assert (found.patients, found.values) == (0, 0)
    near = search(transcript, known(), VIEW, near=truth(), starts=1)
    assert near.candidates == ()  # other values explain the totals as well


@pytest.mark.parametrize("points", [20, 60])
def test_more_numbers_than_values_determine_nearly_everybody_for_who_starts_near(points: int) -> None:
    transcript = asked_at(points)
    found = bound(transcript, known(), truth())
    assert found is not None
    assert found.equations > found.unknown == found.rank
    assert found.patients >= 38
    near = search(transcript, known(), VIEW, near=truth(), starts=2)
    assert len(Truth(cohorts()).determined(near.candidates)) >= 38


def test_a_linear_system_needs_as_many_sums_as_patients() -> None:
    found = solve_linear(asked_at(60), known(), VIEW)
    assert found.rank < found.unknown
    assert found.candidates == ()


def test_released_numbers_are_counted_once_by_view_by_rows_and_together() -> None:
    once, twice = asked_at(10), asked_at(10)
    doubled = Transcript((*once.exchanges, *twice.exchanges), once.folds, 2)
    found = released(doubled)
    moments, derivatives = 3 * 3 + 2, 1 + 3 + 1
    per_rows = {one.rows: one.numbers for one in found.rows}
    assert per_rows["training rows"] == moments + 2 + 10 * derivatives
    assert per_rows["training rows without fold 0"] == moments + 2 + 3 * derivatives
    (training,) = found.splits
    assert training.numbers == sum(per_rows.values())
    assert training.patients == 42
    assert training.columns == 3
    assert training.ratio == training.numbers / (42 * 3)


@pytest.mark.parametrize("means", [True, False])
def test_a_bin_is_rebuilt_when_its_equations_are_as_many_as_its_values(means: bool) -> None:
    """No outcome is known here: the totals say how many a bin holds."""
    rng = np.random.default_rng(3)
    columns = {name: rng.normal(size=9) for name in COLUMNS}
    one = Cohort.of("one", columns, np.repeat([1.0, 2.0, 3.0], 3), np.ones(9))
    grid = TimeGrid(np.array([1.5, 2.5]))
    for points, solved in ((2, False), (14, True)):
        beta = np.vstack([np.zeros(3), rng.normal(0, 0.6, (points - 1, 3))])
        asked = tuple(range(points)) if means else ()
        transcript = told([RiskSetSums(VIEW, beta, grid, asked, tied=False)], [one])
        found = rebuild_bins(statements(transcript), 1, starts=12)
        assert found.underdetermined == (0 if solved else 3)
        assert (len(Truth([one]).determined(found.candidates)) >= 3) == solved


def test_nested_rows_have_a_budget_together(tmp_path: Path) -> None:
    """Each set of rows stays far below its own budget; all of them pass the one that they share."""
    policy = Policy(released_per_value=12.0, released_together=1.0)
    sites = Guarded(tmp_path, STUDY, site_cohorts(STUDY, rare=0.5), policy)
    assembly = sites.begin()
    views = [VIEW.then(STEP), *(VIEW.training_fold(fold).then(STEP) for fold in range(STUDY.folds))]
    rng = np.random.default_rng(0)

    def ask(number: int) -> None:
        sites.totals(number, [CoxDerivatives(views[number], rng.normal(0, 0.1, (25, 3)), ())], assembly)

    for number in range(2):
        ask(number)
    with pytest.raises(Refusal) as refused:
        ask(2)
    assert refused.value.rule == "released-budget"
    assert "train and its folds" in refused.value.sentence
