"""The published leak figures of whole studies on real data, behind real gates, beside the control that must succeed."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from ctfed.federation.policy import Policy
from server.audit.report import Audit, audit_transcript

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def figures(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that prints the table, with the reference data that these tests were given."""
    monkeypatch.setenv("CTFED_SHARED_DATA", str(shared_data))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("leak_figures")


# case -> share of patients that subtraction rebuilds from risk-set messages of each site, and of their totals
CONTROLS = {"lung1-3": (0.827, 0.637), "lung1-5": (0.887, 0.637), "geo": (0.417, 0.167)}


@pytest.mark.parametrize("name", CONTROLS)
def test_the_control_rebuilds_the_share_that_is_published(figures: ModuleType, name: str) -> None:
    each, total = figures.control(figures.CASES[name]())
    assert (round(each, 3), round(total, 3)) == CONTROLS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS)
def test_no_attack_determines_a_patient_of_a_tuned_study(figures: ModuleType, name: str) -> None:
    case, policy = figures.CASES[name](), Policy()
    transcript = figures.transcript_of(case, policy)
    audit: Audit = audit_transcript(transcript, case.study, cohorts=case.cohorts, whole=True)
    assert audit.patients == 0
    assert {one.rows for one in audit.release.splits} == {"training rows, all folds together", "test rows"}
    assert audit.largest is not None
    assert audit.largest.ratio <= policy.released_per_value
