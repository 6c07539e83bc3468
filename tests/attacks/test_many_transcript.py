"""The named attacks on the whole transcript of a study of many models: harmonized, selected, projected, searched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ctfed.federation.policy import Policy
from server.audit.report import Audit, audit_transcript
from server.audit.transcript import record
from server.many.algorithm import many_algorithm

sys.path.insert(0, str(Path(__file__).parents[1] / "server" / "many"))

from many_support import cohorts, study

ATTACKS = ("subtraction", "levels", "bins", "nested rows", "carriers", "dominance", "thresholds", "linear system")


@pytest.fixture(scope="module")
def audit() -> Audit:
    chosen, sites = study(), cohorts()
    _, transcript = record(many_algorithm(chosen), sites, chosen.folds)
    return audit_transcript(transcript, chosen, cohorts=sites, whole=True)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_determines_a_patient(audit: Audit, attack: str) -> None:
    (finding,) = [one for one in audit.findings if one.attack == attack]
    assert audit.determined(finding) == 0


def test_what_is_told_is_counted_and_within_the_budget(audit: Audit) -> None:
    kinds = {kind for one in audit.release.rows for kind in one.kinds}
    assert {"combat-moments", "cross-moments", "covariance-products", "agreement-counts"} <= kinds
    assert all(0 < one.ratio <= Policy().released_per_value for one in audit.release.rows)
    assert audit.release.splits[0].ratio <= Policy().released_together
