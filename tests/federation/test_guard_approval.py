"""Who may ask: nothing goes to a run, a session or a table that is not what was approved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from guard_support import SITE, ask_one, facts_of, rule_of
from masked_support import (
    FOLDS,
    STUDY,
    Federation,
    StrictGate,
    counts,
    moments,
    private_keys,
    roster_of,
)

from ctfed.federation import Cohort, CtfedError
from ctfed.federation.census import CensusPlan
from ctfed.federation.guard import Approval, Guard
from ctfed.federation.ledger import (
    ANSWERED,
    OPENED,
    REFUSED,
    Ledger,
    answers_path,
)
from ctfed.federation.responder import Responder
from ctfed.federation.session import Assembly
from ctfed.federation.wire import Invitation, encode_invitation, encode_session


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


# -- who may ask


def test_a_question_without_a_session_is_refused(federation: Federation) -> None:
    federation.begin("run-1")
    assert rule_of(lambda: federation.responders[SITE].answer(federation.question(0, [counts()], None))) == "unmasked"


def test_a_run_that_was_not_opened_or_not_joined_is_refused(federation: Federation) -> None:
    assembly = federation.begin("run-1")
    renamed = replace(assembly, session=replace(assembly.session, run="run-2"))
    assert rule_of(lambda: ask_one(federation, 0, counts(), renamed)) == "not-joined"
    session = federation.open("run-2")
    assert rule_of(lambda: ask_one(federation, 0, counts(), replace(assembly, session=session))) == "not-joined"
    stranger = replace(session, run="run-9")
    assert rule_of(lambda: federation.responders[SITE].answer(encode_session(stranger))) == "not-joined"


def test_a_session_of_one_run_does_not_serve_another(federation: Federation) -> None:
    first, second = federation.begin("run-1"), federation.begin("run-2")
    forged = replace(first, session=replace(first.session, run="run-2"))
    assert rule_of(lambda: ask_one(federation, 0, counts(), forged)) == "not-joined"
    assert federation.totals(0, [counts()], second)[0].sites == 3


def test_a_census_that_was_changed_after_joining_is_refused(federation: Federation) -> None:
    assembly = federation.begin()
    for victim in range(3):
        numbers = assembly.counts[victim].numbers.copy()
        numbers[0] += 100 * 2**16
        changed = list(assembly.counts)
        changed[victim] = replace(changed[victim], limbs=numbers.astype("<i8").tobytes().hex())
        forged = replace(assembly, counts=tuple(changed))
        assert rule_of(lambda forged=forged: ask_one(federation, 0, counts(), forged)) == "census-seal"


@pytest.mark.parametrize(
    "change", [{"nonce": "9" * 64}, {"cohort": "9" * 64}, {"splits": ()}, {"entries": 7}, {"head": "9" * 64}]
)
def test_a_session_with_this_sites_opening_altered_is_refused(
    federation: Federation, change: dict[str, object]
) -> None:
    session = federation.open("run-1")
    openings = (replace(session.openings[0], **change), *session.openings[1:])  # type: ignore[arg-type]
    altered = replace(session, openings=openings)
    assert rule_of(lambda: federation.responders[SITE].answer(encode_session(altered))) == "session-changed"


def test_two_sessions_of_one_run_are_refused(federation: Federation) -> None:
    """Another peer's opening makes another session; a site joins one."""
    session = federation.open("run-1")
    federation.join(session)
    other = replace(session, openings=(*session.openings[:2], replace(session.openings[2], nonce="9" * 64)))
    assert rule_of(lambda: federation.responders[SITE].answer(encode_session(other))) == "session-changed"
    federation.restart(SITE)
    assert rule_of(lambda: federation.responders[SITE].answer(encode_session(other))) == "session-changed"


def test_sites_that_were_told_different_sessions_open_no_census(federation: Federation) -> None:
    session = federation.open("run-1")
    other = replace(session, openings=(*session.openings[:2], replace(session.openings[2], nonce="9" * 64)))
    guards, cohorts = federation.guards, federation.by_site
    count = guards[SITE].census(other, cohorts[SITE])
    rest = [guards[site].census(session, cohorts[site]) for site in ("site-01", "site-02")]
    assembly = Assembly.of(session, (count, *rest))
    assert rule_of(lambda: ask_one(federation, 0, counts(), assembly, "site-01")) == "census-seal"


def test_a_session_without_a_site_of_the_roster_is_refused(federation: Federation) -> None:
    session = federation.open("run-1")
    fewer = replace(session, openings=session.openings[:2])
    assert rule_of(lambda: federation.responders[SITE].answer(encode_session(fewer))) == "roster-not-approved"


@pytest.mark.parametrize(
    ("study", "roster", "rule"),
    [
        ("6" * 64, None, "study-not-approved"),
        (STUDY, "6" * 64, "roster-not-approved"),
        ("", None, "study-not-approved"),
    ],
)
def test_an_invitation_to_what_was_not_approved_is_refused(
    federation: Federation, study: str, roster: str | None, rule: str
) -> None:
    invitation = Invitation("run-1", study, roster or federation.roster.digest)
    assert rule_of(lambda: federation.responders[SITE].answer(encode_invitation(invitation))) == rule
    assert not facts_of(federation, SITE, OPENED)
    assert [facts["rule"] for facts in facts_of(federation, SITE, REFUSED)] == [rule]


def test_a_session_of_another_study_or_roster_is_refused(federation: Federation) -> None:
    session = federation.open("run-1")
    for change, rule in (({"study": "6" * 64}, "study-not-approved"), ({"roster": "6" * 64}, "roster-not-approved")):
        altered = encode_session(replace(session, **change))
        assert rule_of(lambda altered=altered: federation.responders[SITE].answer(altered)) == rule


def test_a_run_ends_when_another_study_is_approved_instead(federation: Federation) -> None:
    """A site that has withdrawn its approval answers no further round, and does not rename the run."""
    assembly = federation.begin()
    ask_one(federation, 0, counts(), assembly)
    guard = federation.new_guard(SITE, study="6" * 64)
    responder = Responder(federation.by_site[SITE], guard)
    assert rule_of(lambda: responder.answer(federation.question(1, [moments()], assembly))) == "study-not-approved"
    invitation = encode_invitation(Invitation("run-1", "6" * 64, federation.roster.digest))
    assert rule_of(lambda: responder.answer(invitation)) == "study-not-approved"


def test_a_run_ends_when_another_roster_is_approved_instead(federation: Federation) -> None:
    assembly = federation.begin()
    keys = private_keys(4)
    larger = roster_of(keys)
    responder = Responder(federation.by_site[SITE], federation.new_guard(SITE, roster=larger))
    assert rule_of(lambda: responder.answer(federation.question(0, [counts()], assembly))) == "roster-not-approved"


def test_a_guard_wants_the_roster_that_was_approved(federation: Federation) -> None:
    approval = Approval(STUDY, "6" * 64, CensusPlan(FOLDS))
    with pytest.raises(CtfedError, match="has approved the roster 666666666666"):
        Guard(federation.keys[SITE], federation.roster, approval, federation.gate, Ledger(), b"secret")


@pytest.mark.parametrize("change", ["value", "time", "row", "label"])
def test_a_table_that_has_changed_since_the_run_began_is_refused(federation: Federation, change: str) -> None:
    assembly = federation.begin()
    cohort = federation.by_site[SITE]
    changed = _changed(cohort, change)
    responder = federation.restart(SITE, changed)
    assert rule_of(lambda: responder.answer(federation.question(0, [counts()], assembly))) == "cohort-changed"
    invitation = encode_invitation(Invitation("run-1", STUDY, federation.roster.digest))
    assert rule_of(lambda: responder.answer(invitation)) == "cohort-changed"
    assert rule_of(lambda: responder.answer(encode_session(assembly.session))) == "cohort-changed"


def _changed(cohort: Cohort, what: str) -> Cohort:
    if what == "row":
        return cohort.subset(np.arange(cohort.patients) > 0)
    if what == "value":
        values = cohort.columns["a"].copy()
        values[3] = np.nextafter(values[3], 10.0)
        return replace(cohort.subset(np.ones(cohort.patients, dtype=bool)), columns={**cohort.columns, "a": values})
    if what == "time":
        return replace(cohort.subset(np.ones(cohort.patients, dtype=bool)), time=cohort.time * 2)
    return replace(cohort.subset(np.ones(cohort.patients, dtype=bool)), fold=cohort.fold[::-1].copy())


def test_a_gate_that_refuses_is_obeyed_and_nothing_is_stored(tmp_path: Path) -> None:
    federation = Federation(tmp_path, gate=StrictGate())
    assembly = federation.begin()
    assert rule_of(lambda: ask_one(federation, 0, counts(), assembly)) == "too-curious"
    assert not facts_of(federation, SITE, ANSWERED)
    assert not answers_path(federation.ledger_folder(SITE), "run-1").exists()
    refused = facts_of(federation, SITE, REFUSED)
    assert refused == [{"rule": "too-curious", "sentence": "this site tells nothing today", "round": 0}]
