"""The journal of totals: what was recorded comes back, what is damaged or foreign is refused in words."""

from pathlib import Path

import numpy as np
import pytest

from server.journal import Journal, JournalError, RoundRecord

HEADER = {"study": "abc", "sites": ["north", "south"], "ctfed": "0.1.0"}


def record(number: int, bundle: str = "first") -> RoundRecord:
    return RoundRecord(number, bundle, {"moments": 2}, bytes_up=100, bytes_down=50, seconds=0.1)


def filled(path: Path, rounds: int = 3) -> Journal:
    journal = Journal(path, HEADER)
    for number in range(rounds):
        journal.record(record(number), np.array([number, -(2**62), 2**62]))
    return journal


def test_recorded_rounds_come_back_with_the_same_integers(tmp_path: Path) -> None:
    first = filled(tmp_path / "journal.jsonl")
    again = Journal(tmp_path / "journal.jsonl", HEADER)
    assert again.run == first.run
    assert again.rounds == first.rounds
    limbs = again.replay(2, "first")
    assert limbs is not None
    assert limbs.tolist() == [2, -(2**62), 2**62]
    assert again.replay(3, "first") is None


def test_a_line_cut_short_by_a_crash_is_dropped_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    journal = Journal(path, HEADER)
    assert len(journal.rounds) == 2
    journal.record(record(2), np.array([2, -(2**62), 2**62]))
    assert path.read_bytes() == whole


def test_every_cut_leaves_a_journal_that_can_go_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    whole = path.read_bytes()
    first_line = whole.index(b"\n") + 1
    for cut in range(first_line, len(whole)):
        path.write_bytes(whole[:cut])
        assert len(Journal(path, HEADER).rounds) == whole[:cut].count(b"\n") - 1


def test_a_journal_of_another_study_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "journal.jsonl")
    with pytest.raises(JournalError, match="has study = 'abc', this run has 'xyz'"):
        Journal(tmp_path / "journal.jsonl", {**HEADER, "study": "xyz"})


def test_a_changed_total_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace('"limbs":"AQAA', '"limbs":"AgAA')
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(JournalError, match="round 2 is damaged"):
        Journal(path, HEADER)


def test_a_round_that_asked_something_else_is_refused(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl")
    with pytest.raises(JournalError, match="round 2 was another question"):
        journal.replay(1, "second")
