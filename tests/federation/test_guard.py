"""The guard: one payload per round whatever happens, and what the ledger holds of it."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guard_support import SITE, ask_one, clear_limbs, facts_of, rule_of
from hypothesis import given
from hypothesis import strategies as st
from masked_support import (
    FOLDS,
    STUDY,
    VIEW,
    Federation,
    SmallSiteGate,
    StrictGate,
    counts,
    moments,
    site_cohorts,
)

from ctfed.federation import CtfedError, Feature, Query, View, run_pooled
from ctfed.federation.algorithm import Algorithm, Bundle
from ctfed.federation.arrays import IntArray
from ctfed.federation.census import CensusPlan
from ctfed.federation.fixedpoint import add_limbs
from ctfed.federation.guard import Approval, Guard
from ctfed.federation.ledger import (
    ANSWERED,
    FILE,
    REFUSED,
    Ledger,
    answers_path,
)
from ctfed.federation.responder import Responder
from ctfed.federation.session import LedgerMark


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


# -- totals


def asked(queries: tuple[Query, ...]) -> Algorithm[Any]:
    totals = yield Bundle(queries)
    return totals


@given(st.lists(st.integers(12, 40), min_size=3, max_size=6), st.integers(0, 1000), st.floats(-5, 5))
def test_the_sites_totals_are_those_of_the_pool_bit_for_bit(patients: list[int], seed: int, centre: float) -> None:
    cohorts = site_cohorts(patients, seed)
    queries = (moments(centre), counts(), moments(centre, VIEW.training_fold(1)), moments(centre))
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(Path(folder), cohorts)
        totals = federation.totals(0, queries, federation.begin())
    for total, expected in zip(totals, run_pooled(asked(queries), cohorts), strict=True):
        assert total.sites == len(cohorts)
        for name in expected:
            assert total[name].tobytes() == expected[name].tobytes()


def test_a_small_site_sends_masked_zeros_and_is_not_counted(tmp_path: Path) -> None:
    cohorts = site_cohorts((40, 30, 25, 6))
    federation = Federation(tmp_path, cohorts, SmallSiteGate())
    assembly = federation.begin()
    limbs = federation.ask(0, [moments()], assembly)
    assert (limbs["site-03"] != 0).mean() > 0.99
    found = reduce(add_limbs, limbs.values())
    assert np.array_equal(found, reduce(add_limbs, [clear_limbs(cohort, moments()) for cohort in cohorts[:3]]))
    assert [item["contributed"] for item in facts_of(federation, "site-03", ANSWERED)[0]["queries"]] == [False]
    assert [item["contributed"] for item in facts_of(federation, "site-00", ANSWERED)[0]["queries"]] == [True]


# -- one payload per round


def test_a_round_asked_again_is_answered_with_the_same_bits(federation: Federation) -> None:
    assembly = federation.begin()
    first = ask_one(federation, 0, moments(), assembly)
    again = ask_one(federation, 0, moments(), assembly)
    assert np.array_equal(first, again)
    assert len(facts_of(federation, SITE, ANSWERED)) == 1


def test_also_by_a_new_process_that_reads_the_ledger_from_the_disk(federation: Federation) -> None:
    assembly = federation.begin()
    first = federation.ask(0, [moments()], assembly)
    for site in federation.sites:
        federation.restart(site)
    again = federation.ask(0, [moments()], assembly)
    assert all(np.array_equal(first[site], again[site]) for site in federation.sites)
    later = federation.totals(1, [moments(2.0)], assembly)  # and the run goes on
    assert later[0].sites == 3


def test_a_round_that_was_answered_is_sent_again_whatever_has_happened_since(federation: Federation) -> None:
    """The gate may have changed its mind, and the table may have changed: those bits have left already."""
    assembly = federation.begin()
    first = ask_one(federation, 0, moments(), assembly)
    federation.gate = StrictGate()
    changed = site_cohorts(seed=9)[0]
    again = federation.restart(SITE, changed).answer(federation.question(0, [moments()], assembly)).limbs
    assert np.array_equal(first, again)
    assert rule_of(lambda: ask_one(federation, 1, moments(), assembly)) == "cohort-changed"


@pytest.mark.parametrize("other", [moments(1.0), moments(0.0, VIEW.training_fold(0)), counts()])
def test_the_same_round_with_another_question_is_refused(federation: Federation, other: Query) -> None:
    assembly = federation.begin()
    ask_one(federation, 0, moments(), assembly)
    assert rule_of(lambda: ask_one(federation, 0, other, assembly)) == "round-answered"
    federation.restart(SITE)
    assert rule_of(lambda: ask_one(federation, 0, other, assembly)) == "round-answered"
    assert [facts["rule"] for facts in facts_of(federation, SITE, REFUSED)] == ["round-answered"] * 2


def test_more_or_fewer_questions_in_the_same_round_are_another_question(federation: Federation) -> None:
    assembly = federation.begin()
    federation.ask(0, [moments(), counts()], assembly)
    for queries in ([moments()], [counts(), moments()], [moments(), counts(), counts()]):
        question = federation.question(0, queries, assembly)
        assert rule_of(lambda question=question: federation.responders[SITE].answer(question)) == "round-answered"


def test_an_answer_that_is_gone_is_not_computed_again(federation: Federation) -> None:
    assembly = federation.begin()
    ask_one(federation, 0, moments(), assembly)
    answers_path(federation.ledger_folder(SITE), "run-1").unlink()
    assert rule_of(lambda: ask_one(federation, 0, moments(), assembly)) == "answer-lost"
    federation.restart(SITE)
    assert rule_of(lambda: ask_one(federation, 0, moments(), assembly)) == "answer-lost"


@pytest.mark.parametrize("damage", [lambda b: b[:-8], lambda b: b[:-1], lambda b: b"\x01" + b[1:], lambda b: b""])
def test_an_answer_that_is_damaged_is_not_sent(federation: Federation, damage: Callable[[bytes], bytes]) -> None:
    """It would spoil the total, and nobody would see it."""
    assembly = federation.begin()
    ask_one(federation, 0, moments(), assembly)
    path = answers_path(federation.ledger_folder(SITE), "run-1")
    path.write_bytes(damage(path.read_bytes()))
    assert rule_of(lambda: ask_one(federation, 0, moments(), assembly)) == "answer-lost"


def test_two_processes_of_one_site_give_one_answer(federation: Federation) -> None:
    assembly = federation.begin()
    second = Responder(federation.by_site[SITE], federation.new_guard(SITE))  # knows nothing of what follows
    first = ask_one(federation, 0, moments(), assembly)
    assert np.array_equal(second.answer(federation.question(0, [moments()], assembly)).limbs, first)
    assert rule_of(lambda: second.answer(federation.question(0, [moments(1.0)], assembly))) == "round-answered"
    assert len(facts_of(federation, SITE, ANSWERED)) == 1


def test_a_process_that_was_overtaken_while_it_computed_sends_what_the_other_one_sent(federation: Federation) -> None:
    assembly = federation.begin()
    slow, question = federation.new_guard(SITE), federation.question(0, [moments()], assembly)
    sent: list[IntArray] = []
    admit = slow.admit

    def overtaken(*arguments: Any) -> Any:
        spent = admit(*arguments)
        sent.append(federation.responders[SITE].answer(question).limbs)
        return spent

    slow.admit = overtaken  # type: ignore[method-assign]
    found = Responder(federation.by_site[SITE], slow).answer(question).limbs
    assert np.array_equal(found, sent[0])
    assert len(facts_of(federation, SITE, ANSWERED)) == 1


def test_a_question_that_overtakes_another_one_of_its_round_wins(federation: Federation) -> None:
    assembly = federation.begin()
    slow = federation.new_guard(SITE)
    admit = slow.admit

    def overtaken(*arguments: Any) -> Any:
        spent = admit(*arguments)
        ask_one(federation, 0, counts(), assembly)
        return spent

    slow.admit = overtaken  # type: ignore[method-assign]
    responder = Responder(federation.by_site[SITE], slow)
    assert rule_of(lambda: responder.answer(federation.question(0, [moments()], assembly))) == "round-answered"
    assert federation.totals(0, [counts()], assembly)[0].sites == 3


def test_many_threads_that_ask_at_once_get_the_same_bits(federation: Federation) -> None:
    assembly = federation.begin()
    found: list[IntArray] = []
    threads = [
        threading.Thread(target=lambda: found.append(ask_one(federation, 0, moments(), assembly))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(np.array_equal(found[0], other) for other in found)
    assert len(facts_of(federation, SITE, ANSWERED)) == 1


# -- a crash, and a disk that is full


class _Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("method", ["store", "append"])
@pytest.mark.parametrize("done", [False, True])
def test_a_site_that_is_killed_while_it_answers_gives_the_same_bits_later(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, method: str, done: bool
) -> None:
    assembly = federation.begin()
    ledger = federation.guards[SITE].ledger
    inner = getattr(ledger, method)

    def killed(*arguments: Any) -> None:
        if done:
            inner(*arguments)
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(ledger, method, killed)
        with pytest.raises(_Killed):
            ask_one(federation, 0, moments(), assembly)
    federation.restart(SITE)
    assert federation.totals(0, [moments()], assembly)[0].sites == 3
    expected = reduce(add_limbs, [clear_limbs(cohort, moments()) for cohort in federation.cohorts])
    assert np.array_equal(reduce(add_limbs, federation.ask(0, [moments()], assembly).values()), expected)
    assert len(facts_of(federation, SITE, ANSWERED)) == 1


def test_every_round_of_a_run_is_sent_again_from_the_same_file(federation: Federation) -> None:
    first, second = federation.begin("run-1"), federation.begin("run-2")
    sent = {}
    for number in range(4):
        for assembly in (first, second):
            queries = [moments(float(number))] * (number + 1)
            sent[assembly.session.run, number] = federation.ask(number, queries, assembly)[SITE]
    federation.restart(SITE)
    for number in (2, 0, 3, 1):
        for assembly in (second, first):
            queries = [moments(float(number))] * (number + 1)
            again = federation.ask(number, queries, assembly)[SITE]
            assert np.array_equal(again, sent[assembly.session.run, number])
    names = {path.name for path in (federation.ledger_folder(SITE) / "answers").iterdir()}
    assert names == {"run-1.limbs", "run-2.limbs"}


def test_after_a_kill_before_the_ledgers_line_another_question_may_be_asked(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored had not left, and it is not what is sent now."""
    assembly = federation.begin()
    with monkeypatch.context() as patch:
        patch.setattr(federation.guards[SITE].ledger, "append", _raise(_Killed()))
        with pytest.raises(_Killed):
            ask_one(federation, 0, moments(), assembly)
    left = answers_path(federation.ledger_folder(SITE), "run-1").read_bytes()
    federation.restart(SITE)
    assert federation.totals(0, [moments(1.0)], assembly)[0].sites == 3
    now = answers_path(federation.ledger_folder(SITE), "run-1").read_bytes()
    assert (np.frombuffer(left, dtype="<i8") != np.frombuffer(now, dtype="<i8")).all()


def test_nothing_leaves_when_the_disk_is_full(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    assembly = federation.begin()
    before = (federation.ledger_folder(SITE) / FILE).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("ctfed.federation.ledger.write_all", _half_written)
        with pytest.raises(CtfedError, match=r"cannot be stored in .*: No space left"):
            ask_one(federation, 0, moments(), assembly)
    assert (federation.ledger_folder(SITE) / FILE).read_bytes() == before
    assert federation.totals(0, [moments()], assembly)[0].sites == 3  # there is space again


def _half_written(file: Any, content: bytes) -> None:
    file.write(bytes(content)[: len(content) // 2])
    raise OSError(28, "No space left on device")


def _raise(error: BaseException) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise error

    return call


# -- what the ledger holds


def test_what_was_spent_is_added_up_and_survives_a_restart(federation: Federation) -> None:
    assembly = federation.begin()
    for number in range(3):
        federation.ask(number, [moments(float(number))], assembly)
    assert federation.guards[SITE].ledger.runs["run-1"].spent == {"rounds": 3}
    federation.restart(SITE)
    assert federation.guards[SITE].ledger.runs["run-1"].spent == {"rounds": 3}


def test_an_entry_says_what_was_sent_about_how_many_patients(federation: Federation) -> None:
    fold = VIEW.training_fold(1)
    federation.ask(0, [moments(0.0), moments(1.0), counts(fold), moments(0.0)], federation.begin())
    (facts,) = facts_of(federation, SITE, ANSWERED)
    first, second = facts["queries"]
    assert (first["kind"], first["times"], first["rows"]) == ("moments", 3, "train")
    assert first["arrays"] == {"patients": [], "events": [], "count": [2], "sum": [2], "squares": [2]}
    assert (second["kind"], second["times"], second["rows"]) == ("counts", 1, "train outside fold 1")
    for item, view in ((first, VIEW), (second, fold)):
        tables = [view.table(cohort) for cohort in federation.cohorts]
        assert (item["patients"], item["sites"]) == (sum(table.rows for table in tables), 3)
        assert item["events"] == sum(int(table.event.sum()) for table in tables)
    assert facts["numbers"] == 3 * 8 + 4
    assert facts["bytes"] == 16 * (facts["numbers"] + 4)


def test_the_ledger_holds_no_statistic_no_patient_and_no_time(federation: Federation) -> None:
    federation.ask(0, [moments(), counts()], federation.begin())
    text = (federation.ledger_folder(SITE) / FILE).read_text()
    cohort = federation.by_site[SITE]
    assert not any(name in text for name in cohort.pseudonym.tolist())
    assert not any(repr(float(value)) in text for value in (*cohort.time, *cohort.columns["a"]))
    statistics = facts_of(federation, SITE, ANSWERED)[0]["statistics"]
    other = Federation(federation.folder / "other")
    other.guards = {
        site: Guard(
            other.keys[site],
            other.roster,
            Approval(STUDY, other.roster.digest, CensusPlan(FOLDS)),
            other.gate,
            Ledger(other.ledger_folder(site)),
            b"another secret",
        )
        for site in other.sites
    }
    other.responders = {site: Responder(other.by_site[site], other.guards[site]) for site in other.sites}
    other.ask(0, [moments(), counts()], other.begin())
    assert facts_of(other, SITE, ANSWERED)[0]["statistics"] != statistics  # keyed: the same sums, another secret


def test_marks_of_other_ledgers_reach_the_session(federation: Federation) -> None:
    federation.begin("run-1")
    session = federation.open("run-2")
    assert session.marks == tuple(LedgerMark(f"site-0{k}", 0, "0" * 64) for k in range(3))  # each said by two, once


def test_a_steward_reads_the_refusal_and_the_server_its_rule(federation: Federation) -> None:
    assembly = federation.begin()
    bad = View((Feature("a"), Feature("unknown")))
    assert rule_of(lambda: ask_one(federation, 0, counts(bad), assembly)) == "unknown-column"
    (facts,) = facts_of(federation, SITE, REFUSED)
    assert "'unknown'" in facts["sentence"]
    assert json.loads(json.dumps(facts)) == facts
