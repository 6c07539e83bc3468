"""The gate's rules between runs: what the ledger remembers holds after a restart, and a steward can lift it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ctfed.federation import Cohort, Refusal
from ctfed.federation.gate import StudyGate
from ctfed.federation.ledger import OPENED, STEWARD, Ledger
from ctfed.federation.policy import Policy
from ctfed.federation.session import Opening, Session
from ctfed.study import load_study, scope_of
from server.commands import DEMO, EXAMPLES

SITES = ("east", "north", "south", "west")
PATIENTS = tuple(f"{k:04}" for k in range(60))
COHORT = Cohort.of("west", {}, np.ones(60), np.ones(60))  # a rule between runs looks at digests alone


def gate(**limits: object) -> StudyGate:
    return StudyGate(Policy.model_validate(limits), scope_of(load_study(EXAMPLES / "studies" / DEMO)))


def opened(
    patients: Sequence[str] = PATIENTS,
    sites: Sequence[str] = SITES,
    cohort: str | None = None,
    study: str = "s" * 64,
) -> dict[str, object]:
    """Facts of an opening; a cohort's commitment changes with its patients unless it is given."""
    commitment = cohort or f"cohort of {len(patients)} from {patients[0]}"
    return {
        "study": study,
        "roster": "roster of " + " ".join(sites),
        "cohort": commitment,
        "patients": sorted(patients),
        "sites": list(sites),
    }


def begun(*earlier: dict[str, object], folder: Path | None = None) -> Ledger:
    ledger = Ledger(folder)
    for number, facts in enumerate(earlier):
        ledger.append(OPENED, f"run-{number}", facts)
    return ledger


def allow(ledger: Ledger, what: str, facts: dict[str, object]) -> None:
    ledger.append(STEWARD, "", {"allow": what, "cohort": facts["cohort"], "roster": facts["roster"]})


CHANGED = {
    "one patient left": ("cohort-difference", opened(PATIENTS[1:]), opened(PATIENTS[10:])),
    "nine patients left": ("cohort-difference", opened(PATIENTS[9:]), opened(PATIENTS[10:])),
    "nine came": (
        "cohort-difference",
        opened((*PATIENTS, *map(str, range(9)))),
        opened((*PATIENTS, *map(str, range(10)))),
    ),
    "four were exchanged": (
        "cohort-difference",
        opened((*PATIENTS[4:], *map(str, range(4)))),
        opened((*PATIENTS[5:], *map(str, range(5)))),
    ),
    "a value changed": ("cohort-difference", opened(cohort="c" * 64), opened(cohort="c" * 64, study="t" * 64)),
    "a site left": ("roster-difference", opened(sites=SITES[1:]), opened(sites=SITES[2:])),
    "a site came": ("roster-difference", opened(sites=(*SITES, "a")), opened(sites=(*SITES, "a", "b"))),
    "a site was exchanged": (
        "roster-difference",
        opened(sites=(*SITES[1:], "a")),
        opened(sites=(*SITES[2:], "a", "b")),
    ),
}


@pytest.mark.parametrize(("rule", "refused", "passed"), CHANGED.values(), ids=CHANGED)
def test_a_run_that_differs_by_little_is_refused_until_the_steward_says_yes(
    tmp_path: Path, rule: str, refused: dict[str, object], passed: dict[str, object]
) -> None:
    begun(opened(), folder=tmp_path)
    ledger = Ledger(tmp_path)
    gate().check_run(opened(), COHORT, ledger)  # the same again
    gate().check_run(passed, COHORT, ledger)
    with pytest.raises(Refusal) as caught:
        gate().check_run(refused, COHORT, ledger)
    assert caught.value.rule == rule
    assert f"the steward's yes to '{rule}'" in caught.value.sentence
    for other in ("more-runs", "roster-difference" if rule == "cohort-difference" else "cohort-difference"):
        allow(ledger, other, refused)
    allow(ledger, rule, {**refused, "cohort": "another"})
    allow(ledger, rule, {**refused, "roster": "another"})
    with pytest.raises(Refusal):
        gate().check_run(refused, COHORT, ledger)
    allow(ledger, rule, refused)
    gate().check_run(refused, COHORT, Ledger(tmp_path))


def test_every_earlier_run_is_compared() -> None:
    ledger = begun(opened(PATIENTS[30:]), opened(PATIENTS[1:]))
    with pytest.raises(Refusal, match="1 patients differ from those of run run-1"):
        gate().check_run(opened(), COHORT, ledger)


def test_a_site_chooses_by_how_many_patients_runs_differ() -> None:
    ledger = begun(opened())
    gate(min_difference=9).check_run(opened(PATIENTS[9:]), COHORT, ledger)
    with pytest.raises(Refusal, match="cohort-difference"):
        gate(min_difference=11).check_run(opened(PATIENTS[10:]), COHORT, ledger)


def test_runs_with_the_same_patients_are_counted_and_each_yes_allows_one_more(tmp_path: Path) -> None:
    begun(opened(), opened(), folder=tmp_path)
    ledger = Ledger(tmp_path)
    gate(max_runs=3).check_run(opened(), COHORT, ledger)
    with pytest.raises(Refusal) as caught:
        gate(max_runs=2).check_run(opened(), COHORT, ledger)
    assert caught.value.rule == "too-many-runs"
    gate(max_runs=2).check_run(opened(PATIENTS[20:]), COHORT, ledger)
    allow(ledger, "more-runs", opened())
    gate(max_runs=2).check_run(opened(), COHORT, ledger)
    ledger.append(OPENED, "run-2", opened())
    with pytest.raises(Refusal, match="too-many-runs"):
        gate(max_runs=2).check_run(opened(), COHORT, ledger)


def test_a_study_with_smaller_cells_than_the_site_s_does_not_begin() -> None:
    gate(min_cell=5).check_run(opened(), COHORT, Ledger())
    with pytest.raises(Refusal) as caught:
        gate(min_cell=6).check_run(opened(), COHORT, Ledger())
    assert caught.value.rule == "cell-minimum"


@pytest.mark.parametrize("sites", [3, 4])
def test_a_session_needs_the_policy_s_number_of_sites(sites: int) -> None:
    openings = tuple(Opening(name, "0" * 64, "0" * 64, (), 0, "0" * 64) for name in SITES[:sites])
    session = Session("run", "0" * 64, "0" * 64, openings)
    gate(min_sites=sites).check_session(session)
    with pytest.raises(Refusal) as caught:
        gate(min_sites=sites + 1).check_session(session)
    assert caught.value.rule == "too-few-sites"


def test_a_site_contributes_when_its_whole_cohort_is_large_enough() -> None:
    split = np.repeat(["train", "test"], [9, 3])
    small = Cohort.of("west", {}, np.ones(12), np.arange(12) < 5, split=split)
    assert gate(min_patients=12, min_events=5).splits(small) == ("train", "test")
    assert gate(min_patients=13, min_events=5).splits(small) == ()
    assert gate(min_patients=12, min_events=6).splits(small) == ()
    assert gate(min_patients=9, min_events=5).splits(small.subset(split == "train")) == ("train",)
