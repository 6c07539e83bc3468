"""Pooled risk sets tell sums over time bins at every step of the fit: the mode that leaks first.

The transcript alone is attacked: nothing of any patient is known beforehand.
"""

from __future__ import annotations

import pytest

from ctfed.cohort import load_cohorts
from ctfed.site import load_site
from ctfed.study import Study, load_study
from server.audit.attacks.bins import rebuild_bins
from server.audit.attacks.subtraction import subtract
from server.audit.patients import Truth
from server.audit.statements import statements, with_differences
from server.audit.transcript import record
from server.commands import DEMO, EXAMPLES
from server.study_algorithm import study_algorithm

# Efron's ties need the sums over deaths, hence bins that hold enough deaths and enough censored patients.
NEWTON = "a Newton step tells 1 + p numbers of a bin, so that the values of five patients are told in as many steps"


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
@pytest.mark.xfail(strict=True, reason=NEWTON)
def test_bins_of_five_determine_nobody_where_hessians_are_asked() -> None:
    assert determined(pooled_study("breslow", "newton", 5), starts=40) == 0
