"""The ledger: nothing can be changed in it unseen, and nothing that matters is lost in a crash."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masked_support import Federation, counts, moments

from ctfed.federation.ledger import (
    ACCEPTED,
    ANSWERED,
    FILE,
    GENESIS,
    JOINED,
    OPENED,
    REFUSED,
    STEWARD,
    CutShort,
    Entry,
    Ledger,
    LedgerError,
    answers_path,
    limb_bytes,
    read_ledger,
)
from ctfed.federation.ledger_check import WrittenDown, check_ledger

AT = "2030-01-01T00:00:00+00:00"


def clock() -> str:
    return AT


def opened(ledger: Ledger, run: str = "run") -> None:
    ledger.append(OPENED, run, {"entries": ledger.length, "head": ledger.head, "cohort": "c"})


def answered(ledger: Ledger, number: int, run: str = "run", size: int = 3) -> np.ndarray:
    """Store and write down an answer of two arrays, as the guard does."""
    limbs = np.arange(2 * (size + 1), dtype=np.int64) + 1000 * number
    ledger.store(run, number, limbs)
    facts = {
        "round": number,
        "question": f"{number}" * 8,
        "queries": [{"kind": "counts", "arrays": {"count": [size]}, "contributed": True, "times": 1}],
        "numbers": size,
        "bytes": limbs.nbytes,
        "sent": hashlib.sha256(limb_bytes(limbs)).hexdigest(),
        "spent": {"rounds": 1},
    }
    ledger.append(ANSWERED, run, facts)
    return limbs


def small_ledger(folder: Path, rounds: int = 3) -> Ledger:
    """Six lines: opened, joined, three answers, a steward's yes."""
    ledger = Ledger(folder, clock)
    opened(ledger)
    ledger.append(JOINED, "run", {"session": "s", "ledgers": {"peer": [4, "5" * 64]}})
    for number in range(rounds):
        answered(ledger, number)
    ledger.append(STEWARD, "", {"allow": "more-runs"})
    return ledger


def lines_of(folder: Path) -> list[bytes]:
    return (folder / FILE).read_bytes().splitlines(keepends=True)


def rewrite(folder: Path, lines: list[bytes]) -> None:
    (folder / FILE).write_bytes(b"".join(lines))


# -- what it remembers


def test_a_ledger_read_again_knows_what_it_knew(tmp_path: Path) -> None:
    ledger = small_ledger(tmp_path)
    ledger.refuse("run", "rule", "sentence", {"round": 3})
    again = Ledger(tmp_path, clock)
    assert (again.length, again.head) == (ledger.length, ledger.head) == (7, ledger.head)
    assert again.runs == ledger.runs
    assert again.runs["run"].answered == {number: f"{number}" * 8 for number in range(3)}
    assert again.runs["run"].spent == {"rounds": 3}
    assert again.runs["run"].refusals == 1
    assert again.witnessed == {"peer": (4, "5" * 64)}
    assert again.approvals == [{"allow": "more-runs"}]
    assert [again.head_of(n) for n in range(8)] == [ledger.head_of(n) for n in range(8)]
    assert (again.head_of(0), again.head_of(7), again.head_of(8), again.head_of(-1)) == (GENESIS, again.head, "", "")


def test_a_ledger_in_memory_keeps_no_file_and_knows_the_same(tmp_path: Path) -> None:
    memory, disk = Ledger(None, clock), Ledger(tmp_path, clock)
    for ledger in (memory, disk):
        opened(ledger)
        limbs = answered(ledger, 0)
        ledger.refuse("nowhere", "rule", "sentence", {})
        found = ledger.stored("run", 0)
        assert found is not None
        assert np.array_equal(found, limbs)
        assert ledger.stored("run", 1) is None
    assert memory.head == disk.head
    assert memory.runs == disk.runs


def test_a_steward_accepts_another_ledger_of_a_site(tmp_path: Path) -> None:
    ledger = small_ledger(tmp_path)
    ledger.append(STEWARD, "", {ACCEPTED: "elsewhere"})
    assert set(ledger.witnessed) == {"peer"}
    ledger.append(STEWARD, "", {ACCEPTED: "peer"})
    assert not ledger.witnessed
    assert not Ledger(tmp_path).witnessed


def test_sites_go_on_with_a_ledger_that_was_lost_once_their_stewards_accept_it(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.ask(0, [moments()], federation.begin("run-1"))
    (federation.ledger_folder("site-00") / FILE).unlink()
    federation.restart("site-00")
    for peer in ("site-01", "site-02"):
        federation.guards[peer].ledger.append(STEWARD, "", {ACCEPTED: "site-00"})
    assert federation.totals(0, [moments()], federation.begin("run-2"))[0].sites == 3


def test_a_flood_of_refusals_does_not_fill_the_disk_not_even_over_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctfed.federation.ledger.MOST_REFUSALS", 5)
    for _ in range(3):
        ledger = Ledger(tmp_path, clock)
        if not ledger.runs:
            opened(ledger)
        for run in ("run", "unknown", "another unknown"):
            for _ in range(4):
                ledger.refuse(run, "rule", "sentence", {"round": 0})
    refusals = [entry.run for entry in read_ledger(tmp_path / FILE) if entry.kind == REFUSED]
    assert refusals.count("run") == refusals.count("") == 5


@given(st.lists(st.tuples(st.sampled_from([STEWARD, REFUSED]), st.text(max_size=5), st.integers()), max_size=8))
def test_any_facts_come_back(entries: list[tuple[str, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder), clock)
        written = [ledger.append(kind, run, {"text": run, "n": n, "list": [n, None]}) for kind, run, n in entries]
        assert list(read_ledger(Path(folder) / FILE)) == written
        assert check_ledger(Path(folder)).head == ledger.head


# -- files


def test_files_and_folders_are_the_owners_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        folder = tmp_path / "new" / "ledger"
        small_ledger(folder)
    finally:
        os.umask(previous)
    for path in (folder.parent, *folder.parent.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
    assert answers_path(folder, "run").exists()


def test_what_is_open_to_others_is_noted(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    small_ledger(tmp_path)
    assert not check_ledger(tmp_path).notes
    (tmp_path / FILE).chmod(0o644)
    check = check_ledger(tmp_path)
    assert check.whole
    assert check.notes == ["ledger.jsonl is open to other users of this machine (mode 0644)"]


def test_a_folder_that_cannot_be_used_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "ledger" / FILE).mkdir(parents=True)
    with pytest.raises(LedgerError, match="cannot be opened: Is a directory"):
        Ledger(tmp_path / "ledger")
    with pytest.raises(LedgerError, match=r"holds no ledger\.jsonl, expected the folder of a site's ledger"):
        check_ledger(tmp_path)


# -- crashes


def test_a_line_that_was_cut_short_is_removed_and_its_round_can_be_asked_again(tmp_path: Path) -> None:
    ledger = small_ledger(tmp_path, rounds=1)
    whole = (tmp_path / FILE).read_bytes()
    answered(ledger, 1)
    full = (tmp_path / FILE).read_bytes()
    for cut in (len(whole) + 1, len(whole) + 200, len(full) - 1):
        (tmp_path / FILE).write_bytes(full[:cut])
        check = check_ledger(tmp_path)
        assert check.whole
        assert any("line 5: this line was cut short" in note for note in check.notes)
        assert any("answers/run.limbs holds 64 bytes that belong to no line" in note for note in check.notes)
        assert (tmp_path / FILE).read_bytes() == full[:cut]  # to check is not to change
        again = Ledger(tmp_path, clock)
        assert (tmp_path / FILE).read_bytes() == whole
        assert 1 not in again.runs["run"].answered
        assert again.stored("run", 1) is None  # what is stored counts only with its line
        answered(again, 1)
        assert (tmp_path / FILE).read_bytes() == full


@pytest.mark.parametrize("left", [b"", b"\x01\x02\x03", bytes(64), bytes(1000)])
def test_what_a_crash_left_of_an_answer_is_written_over(tmp_path: Path, left: bytes) -> None:
    ledger = Ledger(tmp_path, clock)
    opened(ledger)
    ledger.append(JOINED, "run", {"session": "s", "ledgers": {}})
    first = answered(ledger, 0)
    with answers_path(tmp_path, "run").open("ab") as file:
        file.write(left)
    again = Ledger(tmp_path, clock)
    assert again.stored("run", 1) is None
    limbs = answered(again, 1)
    for number, expected in ((0, first), (1, limbs)):
        found = Ledger(tmp_path).stored("run", number)
        assert found is not None
        assert np.array_equal(found, expected)
    assert answers_path(tmp_path, "run").stat().st_size == first.nbytes + limbs.nbytes
    check = check_ledger(tmp_path)
    assert (check.faults, check.notes, check.answers) == ([], [], 2)


def test_a_file_that_nobody_knows_is_noted(tmp_path: Path) -> None:
    small_ledger(tmp_path)
    answers_path(tmp_path, "run").with_suffix(".part").write_bytes(b"left by somebody")
    assert check_ledger(tmp_path).notes == [
        "answers/run.part holds 16 bytes that belong to no line: a crash came before the line, and they were not sent"
    ]


def test_a_line_that_could_not_be_written_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = small_ledger(tmp_path)
    before, head = (tmp_path / FILE).read_bytes(), ledger.head

    def full_disk(file: Any, content: bytes) -> None:
        file.write(bytes(content)[:20])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ctfed.federation.ledger.write_all", full_disk)
        with pytest.raises(LedgerError, match="cannot be written: No space left on device"):
            ledger.append(STEWARD, "", {"allow": "x"})
    assert (tmp_path / FILE).read_bytes() == before
    assert (ledger.head, ledger.length) == (head, 6)
    ledger.append(STEWARD, "", {"allow": "y"})
    assert check_ledger(tmp_path).whole
    assert Ledger(tmp_path).approvals[-1] == {"allow": "y"}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the names of open files come from Linux's /proc")
def test_an_entry_is_on_the_disk_before_append_returns_and_an_answer_before_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    inner = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        inner(descriptor)

    ledger = Ledger(tmp_path, clock)
    opened(ledger)
    monkeypatch.setattr(os, "fsync", fsync)
    answered(ledger, 0)
    assert synced == [tmp_path.name, "run.limbs", "answers", FILE]  # new names are synced, too
    synced.clear()
    answered(ledger, 1)
    assert synced == ["run.limbs", FILE]


KILLED = """
import os, sys
from pathlib import Path
import ctfed.federation.ledger as module
from ctfed.federation.ledger import Ledger, STEWARD
place, folder = sys.argv[1], Path(sys.argv[2])
ledger = Ledger(folder)
inner = module.write_all
def dies(file, content):
    inner(file, bytes(content)[: len(content) // 2])
    os.kill(os.getpid(), 9)
if place == "half a line":
    module.write_all = dies
ledger.append(STEWARD, "", {"allow": "one more"})
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("place", "kept"), [("half a line", 6), ("after the line", 7)])
def test_a_process_that_is_killed_leaves_a_ledger_that_goes_on(tmp_path: Path, place: str, kept: int) -> None:
    small_ledger(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED, place, str(tmp_path)], check=False)
    assert done.returncode == -9
    ledger = Ledger(tmp_path, clock)
    assert ledger.length == kept
    ledger.append(STEWARD, "", {"allow": "later"})
    assert check_ledger(tmp_path).whole


# -- several processes


def test_one_process_takes_in_what_another_one_wrote(tmp_path: Path) -> None:
    first = Ledger(tmp_path, clock)
    second = Ledger(tmp_path, clock)
    opened(first)
    second.append(STEWARD, "", {"allow": "x"})
    answered(first, 0)
    second.refresh()
    assert second.runs["run"].answered == {0: "00000000"}
    assert first.approvals == [{"allow": "x"}]
    assert second.head == first.head
    assert [entry.kind for entry in read_ledger(tmp_path / FILE)] == [OPENED, STEWARD, ANSWERED]


WRITER = """
import sys
from pathlib import Path
from ctfed.federation.ledger import Ledger, STEWARD
ledger = Ledger(Path(sys.argv[1]))
for number in range(40):
    ledger.append(STEWARD, "", {"who": sys.argv[2], "number": number})
"""


def test_processes_that_write_at_once_keep_the_chain(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    check = check_ledger(tmp_path)
    assert check.whole
    for name in "ab":
        assert [e.facts["number"] for e in check.entries if e.facts["who"] == name] == list(range(40))


def test_a_file_that_becomes_shorter_while_it_is_used_is_noticed(tmp_path: Path) -> None:
    ledger = small_ledger(tmp_path)
    rewrite(tmp_path, lines_of(tmp_path)[:-1])
    with pytest.raises(LedgerError, match="has become shorter while it was in use"):
        ledger.append(STEWARD, "", {"allow": "x"})
    (tmp_path / FILE).unlink()
    with pytest.raises(LedgerError, match="has become shorter"):
        ledger.refresh()


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
