"""A refusal that cannot change ends the round soon, with what can be changed; one that may pass is waited for."""

from __future__ import annotations

import ast
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flower_support import QUICK, SITES, Doubler, Failing, connect, in_process, question, sites

import ctfed
import server
from ctfed.federation.errors import MalformedMessage, Refusal
from ctfed.federation.flower.exchange import Patience
from ctfed.federation.rules import question as question_rules
from ctfed.federation.rules import runs as run_rules
from ctfed.federation.wire import Answer, Question
from ctfed.trust import NotApproved
from server.refusals import LASTING, PASSING, advice, is_lasting
from server.transport import SiteLost

PATIENT = dataclasses.replace(QUICK, deadline=60.0, refused=30.0, lasting=0.02)


class Hesitant(Doubler):
    """A site that declines for a while, and then answers."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__()
        self.error, self.times = error, times

    def answer(self, question: Question) -> Answer:
        if self.times:
            self.times -= 1
            raise self.error
        return super().answer(question)


def _lost(error: Exception, patience: Patience = PATIENT) -> tuple[SiteLost, float]:
    with sites({"bern": Doubler, "lyon": lambda: Failing(error), "oslo": Doubler}):
        transport = connect(in_process(), patience)
        started = time.monotonic()
        with pytest.raises(SiteLost) as lost:
            transport.ask(4, dict.fromkeys(SITES, question(4)))
    return lost.value, time.monotonic() - started


def _written(folder: Path) -> Iterator[str]:
    """Every rule that a module under a folder names where it makes a refusal."""
    for path in folder.rglob("*.py"):
        for found in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(found, ast.Call) and isinstance(found.func, ast.Name) and found.args:
                first = found.args[0]
                named = found.func.id in ("Refusal", "NotApproved") and isinstance(first, ast.Constant)
                if named and isinstance(first.value, str):
                    yield first.value


def test_every_rule_is_known_as_lasting_or_passing() -> None:
    packages = [Path(package.__file__ or "").parent for package in (ctfed, server)]
    rules = {rule for folder in packages for rule in _written(folder)} | {*question_rules.RULES, *run_rules.RULES}
    assert len(rules) > 40
    assert rules == {*LASTING, *PASSING}
    assert not {*LASTING} & {*PASSING}


@pytest.mark.parametrize("rule", ["too-many-cuts", "outside-study", "cell-minimum"])
def test_a_refusal_that_cannot_change_ends_the_round_with_site_rule_and_what_to_change(rule: str) -> None:
    lost, seconds = _lost(Refusal(rule, "3 of patient 12345"))
    assert seconds < 5.0
    assert lost.reasons == {"lyon": f"refused:{rule}"}
    assert f"(lyon: refused:{rule})" in str(lost)
    assert f"{rule}: {LASTING[rule]}" in str(lost)
    assert "goes on from here" not in str(lost)
    assert "12345" not in str(lost)


def test_what_a_steward_may_be_about_to_approve_is_waited_for() -> None:
    shy = Hesitant(NotApproved("study-not-approved", "not yet"), times=8)
    with sites({"bern": Doubler, "lyon": lambda: shy, "oslo": Doubler}):
        answers = connect(in_process(), PATIENT).ask(4, dict.fromkeys(SITES, question(4)))
    assert set(answers) == set(SITES)
    assert shy.asked == 1


def test_what_may_pass_ends_with_its_own_deadline_and_who_can_act() -> None:
    lost, _ = _lost(NotApproved("study-not-approved", "not yet"), dataclasses.replace(PATIENT, refused=0.1))
    assert f"study-not-approved: {PASSING['study-not-approved']}" in str(lost)
    assert "started again, the study goes on from here" in str(lost)


def test_a_question_that_a_site_cannot_read_ends_the_round_after_three_tries() -> None:
    lost, seconds = _lost(MalformedMessage("the question has format 2"))
    assert seconds < 5.0
    assert lost.reasons == {"lyon": "error:MalformedMessage"}
    assert "install the same version of ctfed" in str(lost)
    assert not is_lasting("error:MalformedMessage", 2)


def test_one_question_that_was_damaged_on_its_way_ends_nothing() -> None:
    deaf = Hesitant(MalformedMessage("damaged"), times=1)
    with sites({"bern": Doubler, "lyon": lambda: deaf, "oslo": Doubler}):
        assert set(connect(in_process(), PATIENT).ask(4, dict.fromkeys(SITES, question(4)))) == set(SITES)


@pytest.mark.parametrize("said", ["offline", "error:LedgerError", "no reply yet", "refused:a-rule-of-tomorrow"])
def test_what_is_not_known_to_last_is_waited_for(said: str) -> None:
    assert not is_lasting(said, 100)
    assert advice([said]) == ""
