"""Ledger: everything that a site has sent or refused, and all that it must remember to stay honest after a restart.

One JSON line per event, each with the SHA-256 of the line before it. A line that was changed, removed or put in later
breaks the chain; a file that was cut short or restored from a backup is noticed by the other sites, who were told its
length when the run began. Statistics themselves are not in it: their HMAC is, with a key that stays at the site.

Answers are kept beside the ledger, masked as they were sent, and sent again when a round is asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ctfed.federation.arrays import IntArray
from ctfed.federation.codec import canonical_json
from ctfed.federation.errors import CtfedError

GENESIS = "0" * 64
FILE = "ledger.jsonl"
MOST_REFUSALS = 1000  # written per run; a flood of refused questions must not fill the disk

OPENED, JOINED, ANSWERED, REFUSED, STEWARD = "opened", "joined", "answered", "refused", "steward"


class LedgerError(CtfedError):
    """A ledger that was changed, damaged, or is not there."""


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
        spent: what the gate counts against its budgets.
        refusals: how many were written.
    """

    opened: Mapping[str, Any]
    session: str = ""
    answered: dict[int, str] = field(default_factory=dict)
    spent: Counter[str] = field(default_factory=Counter)
    refusals: int = 0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Ledger:
    """A site's ledger in a folder; without a folder, in memory (tests, simulations that are not resumed)."""

    def __init__(self, folder: Path | None = None, clock: Callable[[], str] = _now) -> None:
        """Open the ledger in ``folder``, or begin one.

        Raises:
            LedgerError: when a line does not follow from the one before; nothing may be answered from such a ledger.
        """
        self.folder = folder
        self._clock = clock
        self._last: Entry | None = None
        self._stored: dict[tuple[str, int], IntArray] = {}
        self._strays = 0
        self.runs: dict[str, RunState] = {}
        self.witnessed: dict[str, tuple[int, str]] = {}
        self.approvals: list[Mapping[str, Any]] = []
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / FILE
            if path.exists():
                _remove_broken_end(path)
                for entry in read_ledger(path):
                    self._take(entry)

    @property
    def length(self) -> int:
        """Number of entries."""
        return 0 if self._last is None else self._last.number + 1

    @property
    def head(self) -> str:
        """Hash of the last entry."""
        return GENESIS if self._last is None else self._last.hash

    def append(self, kind: str, run: str, facts: Mapping[str, Any]) -> Entry:
        """Write an entry, and return only when it is on the disk."""
        entry = Entry.after(self._last, kind, run, facts, self._clock())
        if self.folder is not None:
            with open(self.folder / FILE, "ab", opener=_private) as file:
                file.write(entry.line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        self._take(entry)
        return entry

    def refuse(self, run: str, rule: str, sentence: str, facts: Mapping[str, Any]) -> None:
        """Write a refusal, unless this run has had too many already."""
        state = self.runs.get(run)
        if (self._strays if state is None else state.refusals) >= MOST_REFUSALS:
            return
        self._strays += state is None
        self.append(REFUSED, run if state else "", {"rule": rule, "sentence": sentence, **facts})

    def store(self, run: str, number: int, limbs: IntArray) -> None:
        """Keep a masked answer; it is on the disk before this returns."""
        if self.folder is None:
            self._stored[run, number] = limbs
            return
        path = self._answer_path(run, number)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            file.write(limbs.astype("<i8").tobytes())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def stored(self, run: str, number: int) -> IntArray | None:
        """A masked answer that was kept, None when it is gone."""
        if self.folder is None:
            return self._stored.get((run, number))
        path = self._answer_path(run, number)
        return np.frombuffer(path.read_bytes(), dtype="<i8").astype(np.int64) if path.exists() else None

    def _answer_path(self, run: str, number: int) -> Path:
        assert self.folder is not None
        return self.folder / "answers" / run / f"{number}.limbs"

    def _take(self, entry: Entry) -> None:
        self._last = entry
        if entry.kind == STEWARD:
            self.approvals.append(entry.facts)
        elif entry.kind == OPENED:
            self.runs[entry.run] = RunState(entry.facts)
        elif entry.run in self.runs:
            self._advance(self.runs[entry.run], entry)

    def _advance(self, state: RunState, entry: Entry) -> None:
        if entry.kind == JOINED:
            state.session = str(entry.facts["session"])
            self.witnessed |= {site: (int(n), str(head)) for site, (n, head) in entry.facts["ledgers"].items()}
        elif entry.kind == ANSWERED:
            state.answered[int(entry.facts["round"])] = str(entry.facts["question"])
            state.spent.update({str(name): int(count) for name, count in entry.facts["spent"].items()})
        elif entry.kind == REFUSED:
            state.refusals += 1


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_ledger(path: Path) -> Iterator[Entry]:
    """The entries of a ledger file, each checked against the one before.

    Raises:
        LedgerError: naming the file, the line and what is wrong with it.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise LedgerError(f"the ledger {path} cannot be read: {error.strerror}") from error
    previous: Entry | None = None
    for position, line in enumerate(lines):
        entry = _parse(line, f"{path}, line {position + 1}")
        expected = Entry.after(previous, entry.kind, entry.run, entry.facts, entry.at)
        if entry != expected:
            what = "does not follow from the line before" if entry.previous != expected.previous else "was changed"
            raise LedgerError(f"{path}, line {position + 1}: this line {what}; restore the file, or ask who touched it")
        previous = entry
        yield entry


def _parse(line: bytes, where: str) -> Entry:
    try:
        content = json.loads(line)
        entry = Entry(**content)
    except (ValueError, TypeError, RecursionError) as error:
        raise LedgerError(f"{where}: this line is not an entry of a ledger") from error
    if not (type(entry.number) is int and isinstance(entry.facts, dict)):
        raise LedgerError(f"{where}: this line is not an entry of a ledger")
    if not all(isinstance(value, str) for value in (entry.at, entry.kind, entry.run, entry.previous, entry.hash)):
        raise LedgerError(f"{where}: this line is not an entry of a ledger")
    return entry


def _remove_broken_end(path: Path) -> None:
    """Cut off a last line that a crash left unfinished: it was never acted upon, because appending waits for it."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
