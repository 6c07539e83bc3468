"""Checking a ledger: whatever was changed in it is found, with the line."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_support import AT, answered, lines_of, opened, rewrite, small_ledger
from masked_support import Federation, counts, moments

from ctfed.federation.ledger import (
    ANSWERED,
    FILE,
    GENESIS,
    JOINED,
    OPENED,
    STEWARD,
    CutShort,
    Entry,
    Ledger,
    LedgerError,
    answers_path,
    read_ledger,
)
from ctfed.federation.ledger_check import WrittenDown, check_ledger

# -- changes that the chain finds


def changed(lines: list[bytes], k: int) -> list[bytes]:
    entry = json.loads(lines[k])
    entry["at"] = "2031" + entry["at"][4:]
    return [*lines[:k], (json.dumps(entry, sort_keys=True, separators=(",", ":")) + "\n").encode(), *lines[k + 1 :]]


def removed(lines: list[bytes], k: int) -> list[bytes]:
    return [*lines[:k], *lines[k + 1 :]]


def repeated(lines: list[bytes], k: int) -> list[bytes]:
    return [*lines[: k + 1], lines[k], *lines[k + 1 :]]


def swapped(lines: list[bytes], k: int) -> list[bytes]:
    return [*lines[:k], lines[k + 1], lines[k], *lines[k + 2 :]]


def inserted(lines: list[bytes], k: int) -> list[bytes]:
    previous = Entry(**json.loads(lines[k]))
    return [
        *lines[: k + 1],
        Entry.after(previous, STEWARD, "", {"allow": "x"}, AT).line.encode() + b"\n",
        *lines[k + 1 :],
    ]


def spaced(lines: list[bytes], k: int) -> list[bytes]:
    return [*lines[:k], b" " + lines[k], *lines[k + 1 :]]


def doubled_key(lines: list[bytes], k: int) -> list[bytes]:
    return [*lines[:k], lines[k].replace(b'{"at":', b'{"at":"never","at":', 1), *lines[k + 1 :]]


def emptied(lines: list[bytes], k: int) -> list[bytes]:
    return [*lines[: k + 1], b"\n", *lines[k + 1 :]]


def rehashed_one(lines: list[bytes], k: int) -> list[bytes]:
    """A changed line with a hash that fits it: the next line's link does not."""
    entry = json.loads(lines[k])
    forged = Entry.after(None, entry["kind"], entry["run"], {**entry["facts"], "allow": "all"}, entry["at"])
    body = {**forged.body, "number": k, "previous": entry["previous"]}
    again = Entry(**{**body, "hash": ""})
    sha = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return [*lines[:k], Entry(**{**again.body, "hash": sha}).line.encode() + b"\n", *lines[k + 1 :]]


@pytest.mark.parametrize("k", [0, 2, 4])
@pytest.mark.parametrize(
    ("forge", "line", "words"),
    [
        (changed, 0, "was changed"),
        (spaced, 0, "was changed"),
        (doubled_key, 0, "was changed"),
        (removed, 0, "does not follow"),
        (repeated, 1, "does not follow"),
        (swapped, 0, "does not follow"),
        (inserted, 2, "does not follow"),
        (emptied, 1, "is not an entry"),
        (rehashed_one, 1, "does not follow"),
    ],
)
def test_what_was_done_to_a_line_is_found_where_it_was_done(
    tmp_path: Path, forge: Callable[[list[bytes], int], list[bytes]], line: int, words: str, k: int
) -> None:
    small_ledger(tmp_path)
    rewrite(tmp_path, forge(lines_of(tmp_path), k))
    check = check_ledger(tmp_path)
    assert check.faults[0].startswith(f"{FILE}, line {k + line + 1}: this line {words}")
    with pytest.raises(LedgerError, match=f"line {k + line + 1}: this line {words}"):
        Ledger(tmp_path)  # nothing is answered from it


@given(st.integers(0, 5), st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_found(k: int, position: int, change: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        small_ledger(Path(folder))
        lines = lines_of(Path(folder))
        place = position % (len(lines[k]) - 1)
        lines[k] = lines[k][:place] + bytes([lines[k][place] ^ change]) + lines[k][place + 1 :]
        rewrite(Path(folder), lines)
        with pytest.raises(LedgerError, match=f"line {k + 1}: this line"):
            list(read_ledger(Path(folder) / FILE))


@pytest.mark.parametrize(
    "line",
    [
        b"not JSON",
        b"[]",
        b"{}",
        b"null",
        b'{"at":1}',
        b"[" * 100_000,
        b'{"at":"a","facts":{"x":NaN},"hash":"h","kind":"steward","number":6,"previous":"p","run":""}',
        b'{"at":"a","facts":{},"hash":"h","kind":"unheard","number":6,"previous":"p","run":""}',
        b'{"at":"a","facts":[],"hash":"h","kind":"steward","number":6,"previous":"p","run":""}',
        b'{"at":"a","facts":{},"hash":"h","kind":"steward","number":true,"previous":"p","run":""}',
        b'{"at":"a","facts":{},"hash":7,"kind":"steward","number":6,"previous":"p","run":""}',
        b'{"at":"a","facts":{},"hash":"h","kind":["steward"],"number":6,"previous":"p","run":""}',
        '{"at":"\udcff"}'.encode("utf-8", "surrogateescape"),
    ],
)
def test_a_line_that_is_no_entry_is_named(tmp_path: Path, line: bytes) -> None:
    small_ledger(tmp_path)
    rewrite(tmp_path, [*lines_of(tmp_path), line + b"\n"])
    with pytest.raises(LedgerError, match="line 7: this line is not an entry of a ledger"):
        Ledger(tmp_path)


def test_an_entry_that_lacks_its_facts_is_named(tmp_path: Path) -> None:
    """Such a line has a hash that fits; a careless hand made it."""
    small_ledger(tmp_path)
    last = list(read_ledger(tmp_path / FILE))[-1]
    for kind, facts in ((ANSWERED, {"round": 3}), (ANSWERED, {}), (JOINED, {"session": "s"}), (JOINED, {"ledgers": 3})):
        forged = Entry.after(last, kind, "run", facts, AT)
        lines = lines_of(tmp_path)[:6]
        rewrite(tmp_path, [*lines, forged.line.encode() + b"\n"])
        with pytest.raises(LedgerError, match=f"line 7: an entry '{kind}' lacks what it must hold"):
            Ledger(tmp_path)


def test_a_cut_line_is_told_from_a_changed_one(tmp_path: Path) -> None:
    small_ledger(tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-5])
    with pytest.raises(CutShort):
        list(read_ledger(tmp_path / FILE))


# -- what the chain cannot find, and a hash on paper can


def rehashed_tail(folder: Path, k: int) -> None:
    """Lines from the k-th on written anew, hashes and all."""
    forged: list[Entry] = []
    for entry in read_ledger(folder / FILE):
        at = entry.at if entry.number < k else "2031-01-01T00:00:00+00:00"
        forged.append(Entry.after(forged[-1] if forged else None, entry.kind, entry.run, entry.facts, at))
    rewrite(folder, [entry.line.encode() + b"\n" for entry in forged])


@pytest.mark.parametrize("k", [0, 3, 5])
def test_a_tail_that_was_written_anew_is_found_by_the_hash_on_paper(tmp_path: Path, k: int) -> None:
    ledger = small_ledger(tmp_path)
    before = WrittenDown(ledger.length, ledger.head)
    assert check_ledger(tmp_path, before).whole
    rehashed_tail(tmp_path, k)
    if k:
        assert check_ledger(tmp_path).whole  # the chain holds
    check = check_ledger(tmp_path, before)
    assert any(f"{FILE}, line 6: the hash there was {before.head[:16]}" in fault for fault in check.faults)
    assert check_ledger(tmp_path, WrittenDown(k, ledger.head_of(k))).faults == check_ledger(tmp_path).faults


def test_a_rollback_is_found_by_the_length_on_paper(tmp_path: Path) -> None:
    ledger = small_ledger(tmp_path)
    before = WrittenDown(ledger.length, ledger.head)
    rewrite(tmp_path, lines_of(tmp_path)[:4])
    (fault,) = check_ledger(tmp_path, before).faults
    assert fault.startswith("the ledger had 6 entries when it was written down, now 4")


def test_a_ledger_that_grew_continues_from_what_was_written_down(tmp_path: Path) -> None:
    ledger = small_ledger(tmp_path)
    before = WrittenDown(ledger.length, ledger.head)
    answered(ledger, 3)
    assert check_ledger(tmp_path, before).whole
    assert check_ledger(tmp_path, WrittenDown(0, GENESIS)).whole
    assert not check_ledger(tmp_path, WrittenDown(0, before.head)).whole


# -- a story that cannot be


def faults_after(tmp_path: Path, write: Callable[[Ledger], object]) -> list[str]:
    ledger = small_ledger(tmp_path)
    assert check_ledger(tmp_path).whole
    write(ledger)
    return check_ledger(tmp_path).faults


def unopened(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="for the run 'other' cannot be stored, which was not opened"):
        ledger.store("other", 0, np.zeros(2, dtype=np.int64))
    facts = {"round": 0, "queries": [], "numbers": 0, "bytes": 0, "sent": "", "spent": {}, "question": ""}
    ledger.append(ANSWERED, "other", facts)


def broken(ledger: Ledger, **change: Any) -> None:
    """An answer whose entry is changed in some facts before it is written."""
    append = ledger.append

    def changed(kind: str, run: str, facts: dict[str, Any]) -> Entry:
        return append(kind, run, {**facts, **change})

    ledger.append = changed  # type: ignore[method-assign,assignment]
    answered(ledger, 3)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda ledger: answered(ledger, 5), "round 5 of the run 'run' is answered, expected round 3"),
        (lambda ledger: answered(ledger, 2), "round 2 of the run 'run' is answered for the second time"),
        (lambda ledger: unopened(ledger), "a round of the run 'other' is answered, which was never joined"),
        (lambda ledger: opened(ledger), "the run 'run' is opened for the second time"),
        (lambda ledger: ledger.append(JOINED, "x", {"session": "s", "ledgers": {}}), "joined and was never opened"),
        (lambda ledger: ledger.append(JOINED, "run", {"session": "s", "ledgers": {}}), "joined for the second time"),
        (
            lambda ledger: ledger.append(OPENED, "new", {"entries": 3, "head": ledger.head}),
            "told the others another length or head",
        ),
        (lambda ledger: broken(ledger, numbers=4), "its 4 numbers are not those of its arrays"),
        (lambda ledger: broken(ledger, bytes=8), "its 8 bytes are not those of its arrays"),
        (lambda ledger: broken(ledger, sent="0" * 64), "the answer in answers/run.limbs is not what was sent"),
        (lambda ledger: broken(ledger, queries=[{}]), "lacks what it must hold"),
    ],
)
def test_a_story_that_cannot_be_names_its_line(tmp_path: Path, write: Callable[[Ledger], object], words: str) -> None:
    faults = faults_after(tmp_path, write)
    assert any(fault.startswith(f"{FILE}, line 7: ") and words in fault for fault in faults), faults


def test_a_clock_that_was_set_back_is_a_note(tmp_path: Path) -> None:
    small_ledger(tmp_path)
    Ledger(tmp_path, lambda: "2029-12-31T23:59:59+00:00").append(STEWARD, "", {"allow": "x"})
    check = check_ledger(tmp_path)
    assert check.whole
    assert check.notes[0].startswith(f"{FILE}, line 7: its time 2029")
    assert "was the clock set?" in check.notes[0]


@pytest.mark.parametrize(
    ("damage", "lines", "words"),
    [
        (lambda content: b"", (3, 4, 5), "is gone; the round cannot be sent again"),
        (lambda content: content[:130], (5,), "is gone; the round cannot be sent again"),
        (lambda content: content[:70] + b"\x7f" + content[71:], (4,), "is not what was sent"),
        (lambda content: content[64:128] + content[:64] + content[128:], (3, 4), "is not what was sent"),
    ],
)
def test_a_stored_answer_that_is_not_what_was_sent_names_its_line(
    tmp_path: Path, damage: Callable[[bytes], bytes], lines: tuple[int, ...], words: str
) -> None:
    """Three answers of 64 bytes each."""
    small_ledger(tmp_path)
    assert check_ledger(tmp_path).answers == 3
    path = answers_path(tmp_path, "run")
    path.write_bytes(damage(path.read_bytes()))
    check = check_ledger(tmp_path)
    assert check.faults == [f"{FILE}, line {line}: the answer in answers/run.limbs {words}" for line in lines]
    assert check.answers == 3 - len(lines)
    path.unlink()
    assert len(check_ledger(tmp_path).faults) == 3


def test_a_real_run_is_whole(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    for run in ("run-1", "run-2"):
        assembly = federation.begin(run)
        for number in range(3):
            federation.ask(number, [moments(float(number)), counts(), counts()], assembly)
            federation.ask(number, [moments(float(number)), counts(), counts()], assembly)
    for site in federation.sites:
        check = check_ledger(federation.ledger_folder(site))
        assert not check.faults
        assert not check.notes
        assert check.answers == 6
        assert len(check.entries) == 10
