"""Nonces, and ledgers that were restored, cut or written anew: no keystream serves twice, and somebody notices."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path

import numpy as np
import pytest
from guard_support import SITE, ask_one, clear_limbs, facts_of, rule_of
from masked_support import (
    Federation,
    moments,
)

from ctfed.federation.fixedpoint import add_limbs
from ctfed.federation.ledger import (
    ANSWERED,
    FILE,
    GENESIS,
    OPENED,
    Entry,
    read_ledger,
)
from ctfed.federation.session import Assembly


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


# -- nonces, and ledgers that were restored


def test_no_two_runs_share_a_nonce_or_a_session(federation: Federation) -> None:
    assemblies = [federation.begin(f"run-{number}") for number in range(5)]
    nonces = [one.nonce for assembly in assemblies for one in assembly.session.openings]
    assert len(set(nonces)) == 15
    assert len({assembly.session_digest for assembly in assemblies}) == 5


def test_the_same_question_in_two_runs_has_unrelated_masks(federation: Federation) -> None:
    first = ask_one(federation, 0, moments(), federation.begin("run-1"))
    second = ask_one(federation, 0, moments(), federation.begin("run-2"))
    assert (first != second).all()


def test_the_same_question_in_two_rounds_has_unrelated_masks(federation: Federation) -> None:
    """Equal payloads under one keystream would tell that they are equal, and unequal ones by how much they differ."""
    assembly = federation.begin()
    first, second = (federation.ask(number, [moments()], assembly) for number in (0, 1))
    for site in federation.sites:
        assert (first[site] != second[site]).all()
    assert np.array_equal(reduce(add_limbs, first.values()), reduce(add_limbs, second.values()))


def test_an_opening_that_is_asked_for_again_is_the_same(federation: Federation) -> None:
    session = federation.open("run-1")
    federation.restart(SITE)
    assert federation.open("run-1") == session
    assembly = federation.join(session)
    federation.restart(SITE)
    assert federation.join(session) == assembly
    assert len(facts_of(federation, SITE, OPENED)) == 1


def restored(federation: Federation, copy: Path) -> None:
    """The site's disk as it was when ``copy`` was made."""
    shutil.rmtree(federation.ledger_folder(SITE))
    shutil.copytree(copy, federation.ledger_folder(SITE))
    federation.restart(SITE)


def test_a_restored_ledger_that_is_asked_another_question_uses_another_keystream(
    federation: Federation, tmp_path: Path
) -> None:
    """The difference of two answers under one keystream would be the difference of one site's sums, in clear."""
    assembly = federation.begin()
    copy = tmp_path / "copy"
    shutil.copytree(federation.ledger_folder(SITE), copy)
    first = ask_one(federation, 0, moments(0.0), assembly)
    restored(federation, copy)
    second = ask_one(federation, 0, moments(1.0), assembly)
    cohort = federation.by_site[SITE]
    in_clear = clear_limbs(cohort, moments(1.0)) - clear_limbs(cohort, moments(0.0))
    assert in_clear.any()
    difference = (second.view(np.uint64) - first.view(np.uint64)).view(np.int64)
    assert (difference != in_clear).all()
    words = np.abs(difference.astype(float))
    assert (words > 2.0**53).mean() > 0.9  # no small differences anywhere: sums in clear have all their limbs below


def test_a_restored_ledger_that_is_asked_the_same_question_gives_the_same_bits(
    federation: Federation, tmp_path: Path
) -> None:
    assembly = federation.begin()
    copy = tmp_path / "copy"
    shutil.copytree(federation.ledger_folder(SITE), copy)
    first = ask_one(federation, 0, moments(), assembly)
    restored(federation, copy)
    assert np.array_equal(ask_one(federation, 0, moments(), assembly), first)


def test_a_ledger_restored_from_before_a_run_gives_that_run_a_new_nonce(federation: Federation, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(federation.ledger_folder(SITE), copy)
    session = federation.open("run-1")
    restored(federation, copy)
    again = federation.open("run-1")
    assert again.openings[0].nonce != session.openings[0].nonce
    assert again.openings[1:] == session.openings[1:]
    assert rule_of(lambda: federation.guards[SITE].census(session, federation.by_site[SITE])) == "session-changed"


@pytest.mark.parametrize(
    ("lost", "by_peer", "by_itself"),
    [(1, False, False), (2, False, False), (3, True, False), (4, True, True), (6, True, True)],
)
def test_a_ledger_that_became_shorter_than_it_was_seen_is_found(
    federation: Federation, lost: int, by_peer: bool, by_itself: bool
) -> None:
    """It had 3 lines when the others saw it last, 6 in the end; later losses need the hash that was written down."""
    for run in ("run-1", "run-2"):
        federation.ask(0, [moments()], federation.begin(run))
    path = federation.ledger_folder(SITE) / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) - lost]))
    federation.restart(SITE)
    session = federation.open("run-3")
    for site, found, rule in (("site-01", by_peer, "peer-ledger"), (SITE, by_itself, "own-ledger")):
        join = partial(federation.guards[site].census, session, federation.by_site[site])
        if found:
            assert rule_of(join) == rule
        else:
            assert join().site == site


def test_a_ledger_that_has_not_grown_since_it_was_seen_is_refused(federation: Federation) -> None:
    """The run in which it was seen has added a line, which is gone."""
    federation.begin("run-1")
    path = federation.ledger_folder(SITE) / FILE
    path.write_bytes(b"")  # it had no entry when the others saw it
    federation.restart(SITE)
    session = federation.open("run-2")
    assert rule_of(lambda: federation.guards["site-01"].census(session, federation.by_site["site-01"])) == "peer-ledger"


def test_a_tail_that_was_written_anew_is_found_by_the_site_itself_from_what_others_saw(federation: Federation) -> None:
    for run in ("run-1", "run-2"):
        federation.ask(0, [moments()], federation.begin(run))
    path = federation.ledger_folder(SITE) / FILE
    forged: list[Entry] = []
    for entry in read_ledger(path):
        facts = dict(entry.facts)
        if entry.kind == ANSWERED:
            facts["numbers"] = 1
        if entry.kind == OPENED:
            facts |= {"entries": len(forged), "head": forged[-1].hash if forged else GENESIS}
        forged.append(Entry.after(forged[-1] if forged else None, entry.kind, entry.run, facts, entry.at))
    path.write_bytes(b"".join(entry.line.encode() + b"\n" for entry in forged))
    federation.restart(SITE)  # the chain holds
    session = federation.open("run-3")
    assert rule_of(lambda: federation.guards[SITE].census(session, federation.by_site[SITE])) == "own-ledger"


def test_ledgers_that_grew_are_welcome(federation: Federation) -> None:
    for number in range(4):
        federation.ask(0, [moments()], federation.begin(f"run-{number}"))
    seen = federation.guards[SITE].ledger.witnessed
    assert set(seen) == {"site-01", "site-02"}
    assert seen["site-01"][0] == 9  # three runs of an opening, a joining and an answer


def test_a_session_without_a_mark_that_this_site_gave_is_not_joined(federation: Federation) -> None:
    """A server that hides it would let another site go on from a ledger that was restored."""
    federation.begin("run-1")
    session = federation.open("run-2")
    for mark in session.marks:
        fewer = replace(session, marks=tuple(one for one in session.marks if one != mark))
        for site in federation.sites:
            if site != mark.site:
                census = partial(federation.guards[site].census, fewer, federation.by_site[site])
                assert rule_of(census) == "session-changed"
    assert federation.join(session).session == session


def test_a_mark_that_was_hidden_from_one_site_alone_opens_nothing(federation: Federation, tmp_path: Path) -> None:
    """Told two sessions, the sites mask and seal for different ones: the server learns no sum from the restored one."""
    federation.begin("run-1")
    copy = tmp_path / "copy"
    shutil.copytree(federation.ledger_folder(SITE), copy)
    federation.begin("run-2")
    restored(federation, copy)
    session = federation.open("run-3")
    hidden = replace(session, marks=tuple(mark for mark in session.marks if mark.site != SITE))
    own = federation.guards[SITE].census(hidden, federation.by_site[SITE])
    rest = []
    for site in federation.sites[1:]:
        federation.guards[site].ledger.witnessed.pop(SITE)  # as after `ctfed ledger accept`; the mark was given before
        rest.append(federation.guards[site].census(session, federation.by_site[site]))
    for told in (hidden, session):
        assembly = Assembly.of(told, (own, *rest))
        for site in federation.sites:
            rule = rule_of(partial(ask_one, federation, 0, moments(), assembly, site))
            assert rule in ("census-seal", "not-joined")
