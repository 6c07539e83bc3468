"""Whether a ledger is whole: its chain, its rounds, the answers beside it, and what others wrote down of it before."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctfed.federation.ledger import (
    ANSWERED,
    ANSWERS,
    FILE,
    GENESIS,
    JOINED,
    OPENED,
    REFUSED,
    CutShort,
    Entry,
    LedgerError,
    answers_path,
    read_answer_bytes,
    read_ledger,
)

LIMB_BYTES = 8


@dataclass(frozen=True)
class WrittenDown:
    """What somebody kept of a ledger: its number of entries then, and its last hash then."""

    entries: int
    head: str


@dataclass
class Check:
    """What was found.

    Attributes:
        entries: those read, each checked against the one before.
        faults: what must not be; each names the line.
        notes: what a person may want to look at, and a crash or a careless copy can explain.
        answers: stored answers that are what the ledger says was sent.
    """

    entries: list[Entry] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    answers: int = 0

    @property
    def whole(self) -> bool:
        """True when nothing is wrong."""
        return not self.faults

    @property
    def head(self) -> str:
        """Hash of the last entry that was read."""
        return self.entries[-1].hash if self.entries else GENESIS

    def head_of(self, entries: int) -> str:
        """Hash of the last of the first ``entries`` entries; '' when there are not as many."""
        if entries == 0:
            return GENESIS
        return self.entries[entries - 1].hash if 0 < entries <= len(self.entries) else ""


def check_ledger(folder: Path, before: WrittenDown | None = None) -> Check:
    """Check the ledger in ``folder``; nothing is changed there.

    Raises:
        LedgerError: when there is no ledger, or it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise LedgerError(f"{folder} holds no {FILE}, expected the folder of a site's ledger")
    check = Check()
    try:
        for entry in read_ledger(path, FILE):
            check.entries.append(entry)
    except CutShort as error:
        check.notes.append(str(error))
    except LedgerError as error:
        check.faults.append(str(error))
        check.notes.append("what stands behind that line was not checked")
    _check_story(check)
    _check_answers(check, folder)
    _check_modes(check, folder)
    if before is not None:
        _check_before(check, before)
    return check


# -- what the entries say, one after the other


@dataclass
class _Story:
    """What has happened so far."""

    joined: dict[str, bool] = field(default_factory=dict)  # by run that was opened
    next_round: dict[str, int] = field(default_factory=dict)
    at: str = ""


def _check_story(check: Check) -> None:
    story = _Story()
    for entry in check.entries:
        where = f"{FILE}, line {entry.number + 1}"
        try:
            check.faults += [f"{where}: {sentence}" for sentence in _TELLS.get(entry.kind, _nothing)(entry, story)]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            check.faults.append(f"{where}: an entry {entry.kind!r} lacks what it must hold: {error}")
        if entry.at < story.at:
            check.notes.append(f"{where}: its time {entry.at} is before that of the line above; was the clock set?")
        story.at = entry.at


def _nothing(entry: Entry, story: _Story) -> list[str]:
    return []


def _opened(entry: Entry, story: _Story) -> list[str]:
    found = []
    if entry.run in story.joined:
        found.append(f"the run {entry.run!r} is opened for the second time")
    if (entry.facts["entries"], entry.facts["head"]) != (entry.number, entry.previous):
        found.append("the opening told the others another length or head than the ledger had")
    story.joined[entry.run] = False
    story.next_round[entry.run] = 0
    return found


def _joined(entry: Entry, story: _Story) -> list[str]:
    joined = story.joined.get(entry.run)
    story.joined[entry.run] = True
    if joined is None:
        return [f"the run {entry.run!r} is joined and was never opened"]
    return ["the run is joined for the second time"] if joined else []


def _answered(entry: Entry, story: _Story) -> list[str]:
    found = []
    number, expected = entry.facts["round"], story.next_round.get(entry.run, 0)
    if not story.joined.get(entry.run, False):
        found.append(f"a round of the run {entry.run!r} is answered, which was never joined")
    if number < expected:
        found.append(f"round {number} of the run {entry.run!r} is answered for the second time")
    elif number > expected:
        found.append(f"round {number} of the run {entry.run!r} is answered, expected round {expected}")
    story.next_round[entry.run] = max(number + 1, expected)
    items: list[Mapping[str, Any]] = entry.facts["queries"]
    if _limbs(items) * LIMB_BYTES != entry.facts["bytes"]:
        found.append(f"its {entry.facts['bytes']} bytes are not those of its arrays")
    if _numbers(items) != entry.facts["numbers"]:
        found.append(f"its {entry.facts['numbers']} numbers are not those of its arrays")
    return found


def _refused(entry: Entry, story: _Story) -> list[str]:
    return [] if isinstance(entry.facts["rule"], str) else ["a refusal without its rule"]


_TELLS: Mapping[str, Callable[[Entry, _Story], list[str]]] = {
    OPENED: _opened,
    JOINED: _joined,
    ANSWERED: _answered,
    REFUSED: _refused,
}


def array_size(shape: list[int]) -> int:
    """How many numbers an array of this shape holds."""
    size = 1
    for length in shape:
        size *= length
    return size


def _numbers(items: list[Mapping[str, Any]]) -> int:
    return int(sum(item["times"] * array_size(shape) for item in items for shape in item["arrays"].values()))


def _limbs(items: list[Mapping[str, Any]]) -> int:
    """Two a number, and two for every query's count of contributors."""
    return 2 * (_numbers(items) + int(sum(item["times"] for item in items)))


# -- the files beside it


def _check_answers(check: Check, folder: Path) -> None:
    sizes: Counter[str] = Counter()
    for entry in check.entries:
        if entry.kind != ANSWERED or not isinstance(entry.facts.get("bytes"), int):
            continue
        path, size = answers_path(folder, entry.run), entry.facts["bytes"]
        content = read_answer_bytes(path, sizes[entry.run], size) if path.is_file() else b""
        sizes[entry.run] += size
        where = f"{FILE}, line {entry.number + 1}: the answer in {path.relative_to(folder)}"
        if len(content) < size:
            check.faults.append(f"{where} is gone; the round cannot be sent again")
        elif hashlib.sha256(content).hexdigest() != entry.facts.get("sent"):
            check.faults.append(f"{where} is not what was sent")
        else:
            check.answers += 1
    known = {answers_path(folder, run): size for run, size in sizes.items()}
    for path in sorted((folder / ANSWERS).rglob("*")):
        more = path.stat().st_size - known.get(path, 0) if path.is_file() else 0
        if more > 0:
            check.notes.append(
                f"{path.relative_to(folder)} holds {more} bytes that belong to no line: a crash came before the line, "
                "and they were not sent"
            )


def _check_modes(check: Check, folder: Path) -> None:
    for path in (folder / FILE, folder / ANSWERS):
        if path.exists() and path.stat().st_mode & 0o077:
            check.notes.append(
                f"{path.name} is open to other users of this machine (mode {path.stat().st_mode & 0o777:04o})"
            )


def _check_before(check: Check, before: WrittenDown) -> None:
    found = check.head_of(before.entries)
    if not found:
        check.faults.append(
            f"the ledger had {before.entries} entries when it was written down, now {len(check.entries)}: lines were "
            "removed, or an old copy was restored"
        )
    elif found != before.head:
        check.faults.append(
            f"{FILE}, line {before.entries}: the hash there was {before.head[:16]}... when it was written down, now "
            f"{found[:16]}...: this line or one above it was written anew"
        )
