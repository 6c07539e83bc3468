"""Pooled risk sets tell sums over time bins at every step of the fit: the mode that leaks first.

The transcript alone is attacked: nothing of any patient is known beforehand.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from attack_support import run_guarded

from ctfed.cohort import load_cohorts
from ctfed.federation import Refusal
from ctfed.site import load_site
from ctfed.study import Study, load_study
from server.audit.attacks.bins import rebuild_bins
from server.audit.attacks.subtraction import subtract
from server.audit.patients import Truth
from server.audit.statements import statements, with_differences
from server.audit.transcript import record
from server.commands import DEMO, EXAMPLES
from server.study_algorithm import StudyResult, study_algorithm

# Efron's ties need the sums over deaths, hence bins that hold enough deaths and enough censored patients.


def pooled_study(ties: str, updates: str, min_cell: int) -> Study:
    """The example study with one baseline hazard and a given penalty."""
    content = load_study(EXAMPLES / "studies" / DEMO).model_dump(mode="python", exclude_none=True)
    del content["tuning"]
    content["penalty"] = {"penalizer": 0.05, "l1_ratio": 0.5}
    content["model"] |= {"risk_sets": "pooled", "ties": ties, "updates": updates}
    content["evaluation"] |= {"min_cell": min_cell}
    return Study.model_validate(content)


def determined(study: Study, starts: int) -> int:
    """Patients whom subtraction and the equations of small bins determine."""
    cohorts = load_cohorts(load_site(EXAMPLES / "sites" / DEMO), study).cohorts
    _, transcript = record(study_algorithm(study), cohorts, study.folds)
    given = with_differences(statements(transcript))
    alone = subtract(given, study.folds).candidates
    rebuilt = rebuild_bins(given, study.folds, starts=starts, seed=1).candidates
    return len(Truth(cohorts).determined(alone, rebuilt))


def run_behind_gates(study: Study, folder: Path) -> StudyResult:
    """The study asked of the example's sites with the default policy; a refusal ends it."""
    return run_guarded(study, list(load_cohorts(load_site(EXAMPLES / "sites" / DEMO), study).cohorts), folder)


CASES = [
    ("efron", "newton"),
    ("efron", "gradient"),
    ("breslow", "newton"),
    ("breslow", "gradient"),
]


@pytest.mark.parametrize(("ties", "updates"), CASES)
def test_bins_of_ten_determine_nobody(ties: str, updates: str) -> None:
    assert determined(pooled_study(ties, updates, 10), starts=8) == 0


def test_bins_of_five_determine_nobody_where_no_hessian_is_asked() -> None:
    assert determined(pooled_study("breslow", "gradient", 5), starts=8) == 0


@pytest.mark.slow
def test_bins_of_five_determine_nobody_at_the_vectors_of_one_fit() -> None:
    """With a second fit beside it five patients were determined: the gate's rule keeps a distance from that."""
    assert determined(pooled_study("breslow", "newton", 5), starts=40) == 0


@pytest.mark.parametrize(("ties", "updates"), CASES)
def test_a_gate_lets_bins_of_ten_be_asked(ties: str, updates: str, tmp_path: Path) -> None:
    assert run_behind_gates(pooled_study(ties, updates, 10), tmp_path).fit.converged


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_a_gate_stops_hessians_over_bins_of_five(ties: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        run_behind_gates(pooled_study(ties, "newton", 5), tmp_path)
    assert refused.value.rule == "numbers-per-bin"
