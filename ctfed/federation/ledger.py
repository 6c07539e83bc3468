"""Ledger: everything that a site has sent or refused, and all that it must remember to stay honest after a restart.

One JSON line per event, each with the SHA-256 of the line before it. A line that was changed, removed or put in later
breaks the chain; a file that was cut short, restored from a backup or written anew from some line on is noticed by the
other sites, who were told its length and its last hash when a run began. Statistics themselves are not in it: their
HMAC is, with a key that stays at the site.

Answers are kept beside the ledger, masked as they were sent, and sent again when a round is asked again: one file for
each run, its rounds one behind the other. What stands behind the last one that the ledger knows was never sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from ctfed.federation.arrays import IntArray
from ctfed.federation.codec import canonical_json
from ctfed.federation.disk import make_private, private, sync_folder, write_all
from ctfed.federation.errors import CtfedError

if sys.platform != "win32":
    import fcntl

GENESIS = "0" * 64
FILE = "ledger.jsonl"
ANSWERS = "answers"
MOST_REFUSALS = 1000  # written per run; a flood of refused questions must not fill the disk

OPENED, JOINED, ANSWERED, REFUSED, STEWARD = "opened", "joined", "answered", "refused", "steward"
KINDS = (OPENED, JOINED, ANSWERED, REFUSED, STEWARD)
ACCEPTED = "accept_ledger"  # of a steward's entry: the site whose ledger may be another one than was seen


class LedgerError(CtfedError):
    """A ledger that was changed, damaged, cannot be written, or is not there."""


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        number: from 0.
        at: ISO time, UTC.
        kind: 'opened', 'joined', 'answered', 'refused' or 'steward'.
        run: the run it belongs to, '' for none.
        facts: what happened; JSON types.
        previous, hash: SHA-256 (hex) of the line before and of this one.
    """

    number: int
    at: str
    kind: str
    run: str
    facts: Mapping[str, Any]
    previous: str
    hash: str

    @classmethod
    def after(cls, previous: Entry | None, kind: str, run: str, facts: Mapping[str, Any], at: str) -> Entry:
        """The next entry of a chain."""
        number, link = (0, GENESIS) if previous is None else (previous.number + 1, previous.hash)
        entry = cls(number, at, kind, run, dict(facts), link, "")
        return replace(entry, hash=hashlib.sha256(canonical_json(entry.body).encode()).hexdigest())

    @property
    def body(self) -> dict[str, Any]:
        """What the hash covers."""
        names = ("number", "at", "kind", "run", "facts", "previous")
        return {name: getattr(self, name) for name in names}

    @property
    def line(self) -> str:
        """Canonical JSON without a newline."""
        return canonical_json({**self.body, "hash": self.hash})


@dataclass
class RunState:
    """What a site remembers of one run.

    Attributes:
        opened: facts of the opening.
        session: digest of the session that it joined, '' before.
        answered: round -> digest of the round's questions.
        sent: round -> SHA-256 (hex) of the masked limbs that were sent.
        places: round -> where they begin in the run's file of answers, and how many bytes they are.
        size: bytes of all of them.
        spent: what the gate counts against its budgets.
        refusals: how many were written.
        blocked: digests of the questions that the site's data did not allow.
    """

    opened: Mapping[str, Any]
    session: str = ""
    answered: dict[int, str] = field(default_factory=dict)
    sent: dict[int, str] = field(default_factory=dict)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)
    size: int = 0
    spent: Counter[str] = field(default_factory=Counter)
    refusals: int = 0
    blocked: set[str] = field(default_factory=set)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Ledger:
    """A site's ledger in a folder; without a folder, in memory (tests, simulations that are not resumed).

    Several processes may use one folder: each takes in what the others wrote before it writes.
    """

    def __init__(self, folder: Path | None = None, clock: Callable[[], str] = _now) -> None:
        """Open the ledger in ``folder``, or begin one.

        Raises:
            LedgerError: when a line does not follow from the one before; nothing may be answered from such a ledger.
        """
        self.folder = folder
        self._clock = clock
        self._last: Entry | None = None
        self._hashes: list[str] = []
        self._size = 0  # bytes of the file that are taken in
        self._file: BinaryIO | None = None
        self._lock = threading.RLock()
        self._stored: dict[tuple[str, int], IntArray] = {}
        self._strays = 0
        self.runs: dict[str, RunState] = {}
        self.witnessed: dict[str, tuple[int, str]] = {}
        self.approvals: list[Mapping[str, Any]] = []
        if folder is not None:
            make_private(folder)
            self.refresh()

    @property
    def length(self) -> int:
        """Number of entries."""
        return len(self._hashes)

    @property
    def head(self) -> str:
        """Hash of the last entry."""
        return self.head_of(self.length)

    def head_of(self, entries: int) -> str:
        """Hash of the last of the first ``entries`` entries; '' when there are not as many."""
        if entries == 0:
            return GENESIS
        return self._hashes[entries - 1] if 0 < entries <= self.length else ""

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep everybody else from writing, in this process and in others; what they wrote before is taken in.

        Raises:
            LedgerError: when the file cannot be opened, was changed, or has become shorter.
        """
        with self._lock:
            if self.folder is None or self._file is not None:
                yield
                return
            with self._open(self.folder / FILE) as file:
                self._catch_up(file)
                self._file = file
                try:
                    yield
                finally:
                    self._file = None

    def refresh(self) -> None:
        """Take in what other processes wrote."""
        with self.hold():
            pass

    def append(self, kind: str, run: str, facts: Mapping[str, Any]) -> Entry:
        """Write an entry, and return only when it is on the disk.

        Raises:
            LedgerError: when it cannot be written; the ledger is as it was.
        """
        with self.hold():
            entry = Entry.after(self._last, kind, run, facts, self._clock())
            if self._file is not None:
                self._write(self._file, entry.line.encode() + b"\n")
            self._take(entry)
        return entry

    def refuse(self, run: str, rule: str, sentence: str, facts: Mapping[str, Any]) -> None:
        """Write a refusal, unless this run has had too many already."""
        with self.hold():
            state = self.runs.get(run)
            if (self._strays if state is None else state.refusals) < MOST_REFUSALS:
                self.append(REFUSED, run if state else "", {"rule": rule, "sentence": sentence, **facts})

    def store(self, run: str, number: int, limbs: IntArray) -> None:
        """Keep the next masked answer of a run; it is on the disk before this returns.

        What a crash left there, written and not in the ledger, is written over.

        Raises:
            LedgerError: when it cannot be written, or the run was not opened.
        """
        if run not in self.runs:
            raise LedgerError(f"an answer for the run {run!r:.80} cannot be stored, which was not opened")
        if self.folder is None:
            self._stored[run, number] = limbs
            return
        path = answers_path(self.folder, run)
        try:
            begun = not path.exists()
            if begun:
                make_private(path.parent)
            with open(path, "ab", opener=private, buffering=0) as file:
                file.truncate(self.runs[run].size)
                write_all(file, limb_bytes(limbs))
                os.fsync(file.fileno())
            if begun:
                sync_folder(path.parent)
        except OSError as error:
            raise LedgerError(f"the answer cannot be stored in {path}: {error.strerror}") from error

    def stored(self, run: str, number: int) -> IntArray | None:
        """A masked answer as it was sent, None when it is gone or is no longer what was sent."""
        if self.folder is None:
            return self._stored.get((run, number))
        state, path = self.runs.get(run), answers_path(self.folder, run)
        if state is None or number not in state.sent or not path.is_file():
            return None
        content = read_answer_bytes(path, *state.places[number])
        if hashlib.sha256(content).hexdigest() != state.sent[number]:
            return None
        return np.frombuffer(content, dtype="<i8").astype(np.int64)

    # -- the file

    @contextmanager
    def _open(self, path: Path) -> Iterator[BinaryIO]:
        try:
            begun = not path.exists()
            file = open(path, "a+b", opener=private, buffering=0)  # noqa: SIM115  # closed by the 'with' below
            if begun:
                sync_folder(path.parent)
        except OSError as error:
            raise LedgerError(f"the ledger {path} cannot be opened: {error.strerror}") from error
        with file:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            yield file

    def _catch_up(self, file: BinaryIO) -> None:
        """Take in what stands behind the part that is known; cut off a last line that a crash left unfinished.

        Such a line was never acted upon, because ``append`` waits for it.
        """
        size = os.fstat(file.fileno()).st_size
        if size < self._size:
            raise LedgerError(f"the ledger {file.name} has become shorter while it was in use; restore the file")
        if size == self._size:
            return
        with open(file.name, "rb") as reader:
            reader.seek(self._size)
            for line in reader:
                if not line.endswith(b"\n"):
                    file.truncate(self._size)
                    return
                where = f"{file.name}, line {self.length + 1}"
                self._take(_follow(self._last, line[:-1], where), where)
                self._size += len(line)

    def _write(self, file: BinaryIO, line: bytes) -> None:
        try:
            write_all(file, line)
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(self._size)  # half a line would spoil all that follow
            raise LedgerError(f"the ledger {file.name} cannot be written: {error.strerror}") from error
        self._size += len(line)

    # -- what the entries say

    def _take(self, entry: Entry, where: str = "the ledger") -> None:
        try:
            if entry.kind == STEWARD:
                self.approvals.append(entry.facts)
                self.witnessed.pop(str(entry.facts.get(ACCEPTED)), None)
            elif entry.kind == OPENED:
                self.runs[entry.run] = RunState(entry.facts)
            elif entry.run in self.runs:
                self._advance(self.runs[entry.run], entry)
            elif entry.kind == REFUSED:
                self._strays += 1
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LedgerError(f"{where}: an entry {entry.kind!r} lacks what it must hold: {error}") from error
        self._last = entry
        self._hashes.append(entry.hash)

    def _advance(self, state: RunState, entry: Entry) -> None:
        facts = entry.facts
        if entry.kind == JOINED:
            ledgers = {str(site): (int(entries), str(head)) for site, (entries, head) in facts["ledgers"].items()}
            state.session = str(facts["session"])
            self.witnessed |= ledgers
        elif entry.kind == ANSWERED:
            number, question, sent = int(facts["round"]), str(facts["question"]), str(facts["sent"])
            spent = {str(name): int(count) for name, count in facts["spent"].items()}
            place = (state.size, int(facts["bytes"]))
            state.answered[number], state.sent[number], state.places[number] = question, sent, place
            state.size += place[1]
            state.spent.update(spent)
        elif entry.kind == REFUSED:
            state.refusals += 1
            if "question" in entry.facts:
                state.blocked.add(str(entry.facts["question"]))


def answers_path(folder: Path, run: str) -> Path:
    """Where a ledger's folder keeps the masked answers of a run."""
    return folder / ANSWERS / f"{run}.limbs"


def read_answer_bytes(path: Path, start: int, size: int) -> bytes:
    """One answer in a run's file; shorter where the file ends before."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def limb_bytes(limbs: IntArray) -> memoryview:
    """Limbs as they are stored and hashed: little-endian int64; no copy on a little-endian machine."""
    return np.ascontiguousarray(limbs, dtype="<i8").data.cast("B") if limbs.size else memoryview(b"")


def read_ledger(path: Path, name: str = "") -> Iterator[Entry]:
    """The entries of a ledger file, each checked against the one before; the file is left as it is.

    Args:
        path: the file.
        name: what messages call it; default its path.

    Raises:
        CutShort: when the last line has no end.
        LedgerError: naming the file, the line and what is wrong with it.
    """
    previous: Entry | None = None
    try:
        with path.open("rb") as file:
            for position, line in enumerate(file):
                where = f"{name or path}, line {position + 1}"
                if not line.endswith(b"\n"):
                    raise CutShort(f"{where}: this line was cut short; the site removes it when it starts again")
                previous = _follow(previous, line[:-1], where)
                yield previous
    except OSError as error:
        raise LedgerError(f"the ledger {path} cannot be read: {error.strerror}") from error


class CutShort(LedgerError):
    """A last line that a crash left unfinished, or that is being written."""


def _follow(previous: Entry | None, line: bytes, where: str) -> Entry:
    """The entry of a line, which must be exactly what follows from the entry before."""
    found = _parse(line, where)
    expected = Entry.after(previous, found.kind, found.run, found.facts, found.at)
    if found.previous != expected.previous or found.number != expected.number:
        what = "does not follow from the line before"
    elif line != expected.line.encode():
        what = "was changed"
    else:
        return found
    raise LedgerError(f"{where}: this line {what}; restore the file, or ask who touched it")


def _parse(line: bytes, where: str) -> Entry:
    try:
        entry = Entry(**json.loads(line, parse_constant=_no_number))
        whole = type(entry.number) is int and isinstance(entry.facts, dict) and entry.kind in KINDS
        texts = (entry.at, entry.run, entry.previous, entry.hash)
        canonical_json(entry.facts)
    except (ValueError, TypeError, RecursionError) as error:
        raise LedgerError(f"{where}: this line is not an entry of a ledger") from error
    if not whole or not all(isinstance(value, str) for value in texts):
        raise LedgerError(f"{where}: this line is not an entry of a ledger")
    return entry


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
