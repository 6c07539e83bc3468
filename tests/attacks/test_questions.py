"""A server that asks what it should not: each misuse is refused by the rule that is made for it, at guarded sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attack_support import Guarded, site_cohorts, study_of, training_view

from ctfed.federation import Query, Refusal, Within
from ctfed.federation.policy import Policy
from ctfed.federation.wire import Invitation, encode_invitation
from ctfed.statistics.cox.stratified import CoxDerivatives
from ctfed.statistics.describe import Counts
from ctfed.statistics.evaluation_tables import EvaluationTable
from ctfed.statistics.impute import CountsBelow
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.timegrid import TimeGrid
from ctfed.statistics.timegrid_merge import TimeCounts

STUDY = study_of(tuned=True, min_cell=5)
VIEW = training_view(STUDY)
SCORE = VIEW.then(LinearPredictor(np.array([[0.01, 0.1, 0.0]])))


@pytest.fixture
def sites(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path, STUDY, site_cohorts(STUDY))


def rule_of(sites: Guarded, *rounds: Sequence[Query]) -> str:
    """The rule that refuses the last of these rounds; the ones before are answered."""
    assembly = sites.begin()
    for number, queries in enumerate(rounds[:-1]):
        sites.totals(number, queries, assembly)
    with pytest.raises(Refusal) as refused:
        sites.totals(len(rounds) - 1, rounds[-1], assembly)
    return refused.value.rule


def below(cut: float) -> CountsBelow:
    return CountsBelow(VIEW, ("age",), np.array([cut]))


MISUSES: dict[str, tuple[str, list[Sequence[Query]]]] = {
    "bin edges around one time": (
        "off-grid",
        [[TimeCounts(VIEW, TimeGrid(np.array([7.0, 7.01, 8.0])))]],
    ),
    "thresholds around a patient": ("too-many-cuts", [[below(60 + k / 1e6)] for k in range(40)]),
    "many folds of the server's": ("outside-study", [[Counts(VIEW.training_fold(7))]]),
    "a subset that the server chooses": ("outside-study", [[Counts(replace(VIEW, rows=(Within("age", 60, 61),)))]]),
    "all rows": ("outside-study", [[Counts(replace(VIEW, split="all"))]]),
    "a histogram of singletons": (
        "too-many-cells",
        [[EvaluationTable(SCORE, TimeGrid(np.arange(1.0, 30)), np.arange(9.0)[None, :])]],
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_misuse_is_refused_by_its_rule(sites: Guarded, misuse: str) -> None:
    rule, rounds = MISUSES[misuse]
    broken = rounds
    if len(rounds) > 1:  # a flood: all thresholds in one round
        broken = [[query for queries in rounds for query in queries]]
    assert rule_of(sites, *broken) == rule


def test_a_flood_of_rounds_and_of_numbers_ends_with_the_budget(tmp_path: Path) -> None:
    few = Guarded(tmp_path / "a", STUDY, site_cohorts(STUDY), Policy(max_rounds=3))
    assert rule_of(few, *[[Counts(VIEW)]] * 4) == "too-many-rounds"
    poor = Guarded(tmp_path / "b", STUDY, site_cohorts(STUDY), Policy(released_per_value=0.05))
    points = [[CoxDerivatives(VIEW, np.full((1, 3), k / 100), ties="efron")] for k in range(20)]
    assert rule_of(poor, [query for queries in points for query in queries]) == "released-budget"


def test_coefficients_at_which_one_patient_outweighs_the_others_are_declined(sites: Guarded) -> None:
    assembly = sites.begin()
    points = np.array([[0.0, 0.0, 0.1], [1e3, 0.0, 0.0]])
    (total,) = sites.totals(0, [CoxDerivatives(VIEW, points, ties="efron")], assembly)
    assert total["declined"].tolist() == [0, 3]
    assert not total["gradient"][1].any()
    assert total["gradient"][0].any()


def test_too_few_patients_tell_nothing(tmp_path: Path) -> None:
    small = Guarded(tmp_path, STUDY, site_cohorts(STUDY, (2, 2, 2)))
    assert rule_of(small, [Counts(VIEW)]) == "too-few-sites"  # none is large enough to contribute


def test_a_second_run_without_one_patient_does_not_begin(sites: Guarded) -> None:
    sites.transcript([[Counts(VIEW)]])
    cohort = sites.by_site["west"]
    sites.restart("west", cohort.subset(np.arange(cohort.patients) > 0))
    with pytest.raises(Refusal) as refused:
        sites.begin("run-2")
    assert refused.value.rule == "cohort-difference"


@pytest.mark.parametrize(
    ("study", "roster", "rule"), [("9" * 64, None, "study-not-approved"), (None, "9" * 64, "roster-not-approved")]
)
def test_another_study_or_an_unknown_key_is_not_answered(
    sites: Guarded, study: str | None, roster: str | None, rule: str
) -> None:
    asked = encode_invitation(Invitation("run-1", study or STUDY.sha256, roster or sites.roster.digest))
    for responder in sites.responders.values():
        with pytest.raises(Refusal) as refused:
            responder.answer(asked)
        assert refused.value.rule == rule


def test_a_fold_of_a_few_patients_tells_nothing(tmp_path: Path) -> None:
    few = Guarded(tmp_path, STUDY, site_cohorts(STUDY, (12, 12, 12)))
    assert rule_of(few, [Counts(VIEW)], [Counts(VIEW.held_out_fold(0))]) == "too-few-patients"
