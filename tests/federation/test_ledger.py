"""The ledger: nothing that matters is lost in a crash, and several processes can use it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_support import answered, clock, lines_of, opened, rewrite, small_ledger
from masked_support import Federation, moments

from ctfed.federation.ledger import (
    ACCEPTED,
    ANSWERED,
    FILE,
    GENESIS,
    JOINED,
    OPENED,
    REFUSED,
    STEWARD,
    Ledger,
    LedgerError,
    answers_path,
    read_ledger,
)
from ctfed.federation.ledger_check import check_ledger

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


WAITS = """
import sys
from pathlib import Path
from ctfed.federation.ledger import Ledger, STEWARD
ledger = Ledger(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print("asking", flush=True)
ledger.append(STEWARD, "", {"who": "other"})
"""


def test_nobody_writes_while_another_process_holds_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, clock)
    command = [sys.executable, "-c", WAITS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with ledger.hold():
            other.stdin.write("go\n")
            other.stdin.flush()
            assert other.stdout.readline() == "asking\n"
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(0.5)
            ledger.append(STEWARD, "", {"who": "first"})
        assert other.wait(60) == 0
    assert [entry.facts["who"] for entry in check_ledger(tmp_path).entries] == ["first", "other"]


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
