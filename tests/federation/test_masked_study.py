"""Secure summation changes who can see what, and no result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from masked_support import FOLDS, VIEW, Federation

from ctfed.federation import MalformedMessage, run_pooled
from ctfed.federation.census import CensusPlan
from ctfed.federation.wire import Answer, Question
from ctfed.statistics.cox import CoxFit, fit_cox
from server.assembly import Agreement
from server.commands import DEMO, EXAMPLES
from server.conductor import Conductor
from server.journal import Journal
from server.simulate import simulate

STUDY, SITE = EXAMPLES / "studies" / DEMO, EXAMPLES / "sites" / DEMO


def results(folder: Path, masked: bool) -> dict[str, Any]:
    simulate(STUDY, [SITE], folder, masked=masked, tell=lambda _: None)
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_a_masked_study_has_the_results_of_an_unmasked_one_to_the_last_bit(tmp_path: Path) -> None:
    masked, clear = results(tmp_path / "masked", True), results(tmp_path / "clear", False)
    for section in ("cohort", "tuning", "model", "baseline", "curves", "discrimination"):
        assert masked[section] == clear[section]
    assert masked["run"]["masked"] is True
    assert clear["run"]["masked"] is False


class Wire:
    """Carries questions to the sites of a federation; one answer can be damaged on its way."""

    runner = "in-process"

    def __init__(self, federation: Federation, damage_at: int | None = None) -> None:
        self.federation = federation
        self.sites = federation.sites
        self.damage_at = damage_at

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        answers = {site: self.federation.responders[site].answer(asked) for site, asked in questions.items()}
        if round_number == self.damage_at:
            first = self.sites[0]
            answers[first] = Answer(answers[first].header, answers[first].limbs + (1 << 50))
        return answers


def test_a_damaged_answer_stops_the_study_and_is_not_journalled(tmp_path: Path) -> None:
    federation = Federation(tmp_path / "sites")
    agreement = Agreement(federation.study, federation.roster.digest, CensusPlan(FOLDS))

    def conduct(damage_at: int | None) -> CoxFit:
        journal = Journal(tmp_path / "journal.jsonl", {"sites": list(federation.sites)})
        wire = Wire(federation, damage_at)
        conductor = Conductor(wire, journal, agreement=agreement, tell=lambda _: None)
        return conductor.run(fit_cox(VIEW))

    with pytest.raises(MalformedMessage, match="its answer was damaged"):
        conduct(damage_at=1)
    assert len(Journal(tmp_path / "journal.jsonl", {"sites": list(federation.sites)}).rounds) == 1
    assert conduct(None).coefficients.tobytes() == run_pooled(fit_cox(VIEW), federation.cohorts).coefficients.tobytes()
