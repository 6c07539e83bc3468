"""What the audit says: figures, words, exit code; with all patients at hand, with one site's, and with none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from attack_support import COLUMNS, site_cohorts, study_of, told, training_view

from ctfed.cli import main
from ctfed.federation import Cohort
from ctfed.statistics.cox.pooled import RiskSetSums
from ctfed.statistics.describe import Counts
from ctfed.statistics.standardise import Standardise
from ctfed.statistics.timegrid import TimeGrid
from server.audit import transcript as transcripts
from server.audit.patients import Candidate, Truth
from server.audit.report import Audit, as_mapping, as_text, audit_transcript, levels_of
from server.audit.transcript import Transcript
from server.commands import DEMO, EXAMPLES

STUDY = study_of()
COHORTS = site_cohorts(STUDY)
VIEW = training_view(STUDY)
SCALED = VIEW.then(Standardise(COLUMNS, np.array([65.0, 4.5, 0.0]), np.array([9.0, 3.0, 1.0])))


def leaky() -> Transcript:
    """Weighted sums at every time: many patients stand alone."""
    grid = TimeGrid.exact(np.concatenate([cohort.time for cohort in COHORTS]))
    points = np.array([[0.1, 0.1, 0.1], [0.0, 0.0, 0.0]])
    return told([Counts(VIEW), RiskSetSums(SCALED, points, grid, (0,))], COHORTS)


@pytest.fixture(scope="module")
def whole() -> Audit:
    return audit_transcript(leaky(), STUDY, cohorts=COHORTS, whole=True, budget=0.5)


def test_with_all_patients_at_hand_candidates_are_checked(whole: Audit) -> None:
    found = {one.attack: whole.determined(one) for one in whole.findings}
    training = sum(int((cohort.split == "train").sum()) for cohort in COHORTS)
    assert 0.8 * training < found["subtraction"] <= training
    assert whole.patients <= training  # whoever two attacks find is one patient
    assert whole.patients >= max(found.values())


def test_with_one_site_at_hand_its_own_patients_are_found_among_the_candidates() -> None:
    audit = audit_transcript(leaky(), STUDY, cohorts=COHORTS[:1])
    (finding,) = [one for one in audit.findings if one.attack == "subtraction"]
    own = int((COHORTS[0].split == "train").sum())
    assert 0.8 * own < (audit.own(finding) or 0) <= COHORTS[0].patients  # a test patient may be alike
    assert audit.determined(finding) == len(finding.candidates) > own  # the others are claimed
    assert {one.knows for one in audit.findings} == {"transcript"}  # outcomes of the others are not at hand


def test_with_nobody_at_hand_candidates_are_counted_as_claimed() -> None:
    audit = audit_transcript(leaky(), STUDY)
    assert audit.patients > 50
    assert as_mapping(audit)["checked_against"].startswith("nothing")
    assert all(audit.own(one) is None for one in audit.findings)


def test_the_report_says_what_was_looked_for_and_claims_no_proof(whole: Audit) -> None:
    text, mapping = "\n".join(as_text(whole)), as_mapping(whole)
    for finding in whole.findings:
        assert f"{finding.attack} " in text
        assert finding.looks_for in text
    assert f"patients determined: {whole.patients}" in text
    assert "not a proof" in text
    assert "above the policy's 0.5" in text
    assert mapping["patients_determined"] == whole.patients
    assert json.loads(json.dumps(mapping)) == mapping
    assert "age" not in json.dumps(mapping)  # no candidate's values


def test_the_command_ends_with_1_when_a_patient_is_determined(
    demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = str(EXAMPLES / "studies" / DEMO)
    assert main(["audit", str(demo_run), "--study", study]) == 0
    assert "patients determined: 0" in capsys.readouterr().out
    monkeypatch.setattr(transcripts, "replay", lambda folder, study: leaky())
    assert main(["audit", str(tmp_path), "--study", study]) == 1
    assert json.loads((tmp_path / "audit.json").read_text())["patients_determined"] > 50


def test_the_command_has_one_sentence_for_a_folder_without_a_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(tmp_path), "--study", str(EXAMPLES / "studies" / DEMO)]) == 2
    assert "there is no journal of a run" in capsys.readouterr().err


def test_levels_are_those_of_the_data_dictionary_or_multiples_in_its_range() -> None:
    whole_numbers, tenths = levels_of(STUDY), levels_of(STUDY, 10)
    assert whole_numbers["age"].tolist() == list(range(121))
    assert tenths["age"].size == 1201
    assert tenths["age"][-1] == 120
    assert whole_numbers["carrier"].tolist() == tenths["carrier"].tolist() == [0, 1]


def test_candidates_of_one_attack_are_different_patients_and_those_of_two_may_be_the_same() -> None:
    twins = Cohort.of("one", {name: [1.0, 1.0, 5.0] for name in COLUMNS}, [1, 2, 3], [1, 1, 1])
    truth = Truth([twins])
    row = np.ones(3)
    first, second = Candidate(VIEW, row, "here"), Candidate(VIEW, row, "there")
    assert len(truth.determined([first])) == 1
    assert len(truth.determined([first, first])) == 1
    assert len(truth.determined([first, second])) == 2
    assert len(truth.determined([first], [second])) == 1
    assert len(truth.determined([Candidate(VIEW, row + 1e-5, "off")])) == 0
