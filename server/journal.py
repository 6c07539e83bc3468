"""The server's journal: every round's total, on disk before the algorithm sees it.

A study that was killed at any point and is started again replays its journal: the algorithm runs from its beginning,
receives the recorded integers round by round, and goes on where it was, to the same bits. Totals are all that is
kept; no site's answer is written anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctfed.federation.arrays import IntArray
from ctfed.federation.codec import canonical_json
from ctfed.federation.errors import CtfedError

FORMAT = 1


class JournalError(CtfedError):
    """A journal that does not belong to this run, or is damaged before its last line."""


@dataclass(frozen=True)
class RoundRecord:
    """What is told of one round.

    Attributes:
        number: from 0.
        bundle: SHA-256 of the round's queries.
        kinds: query kind -> how many of it were asked.
        bytes_up, bytes_down: the most that any one site sent and received.
        seconds: wall time of the round.
    """

    number: int
    bundle: str
    kinds: Mapping[str, int]
    bytes_up: int
    bytes_down: int
    seconds: float


def _check_types(record: RoundRecord) -> None:
    """Raise TypeError unless a record that was read holds what one holds that was made."""
    whole = (record.number, record.bytes_up, record.bytes_down, *dict(record.kinds).values())
    if not all(type(value) is int for value in whole) or type(record.seconds) not in (int, float):
        raise TypeError("its numbers are of other types")
    if not isinstance(record.bundle, str):
        raise TypeError("its bundle is no text")


class Journal:
    """An append-only file of JSON lines: a header that names the run, then one line per round."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open the journal at ``path``, or begin one.

        Args:
            path: the file.
            header: what must be equal for a resumed run to be the same run (study hash, roster, version).

        Raises:
            JournalError: when the file belongs to another run or is damaged.
        """
        self.path = path
        self.rounds: list[RoundRecord] = []
        self.assembly: Mapping[str, Any] | None = None
        self._limbs: list[IntArray] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _complete_lines(path)
        if lines:
            self.run = self._check_header(lines[0], header)
            rounds = lines[1:]
            if rounds and "assembly" in rounds[0]:
                self.assembly = rounds.pop(0)["assembly"]
            for number, line in enumerate(rounds):
                self._load(number, line)
        else:
            self.run = secrets.token_hex(8)
            path.write_bytes(b"")
            self._append({"ctfed_journal": FORMAT, "run": self.run, **header})

    def _check_header(self, line: dict[str, Any], header: Mapping[str, Any]) -> str:
        for key, value in {"ctfed_journal": FORMAT, **header}.items():
            if line.get(key) != value:
                raise JournalError(
                    f"{self.path}: this journal has {key} = {line.get(key)!r:.80}, this run has {value!r}; choose "
                    "another output folder, or delete the journal to begin anew"
                )
        run = line.get("run")
        if not isinstance(run, str):
            raise JournalError(f"{self.path}: found the run {run!r:.80}, expected a name; begin without the journal")
        return run

    def _load(self, number: int, line: dict[str, Any]) -> None:
        try:
            raw = base64.b64decode(line["limbs"], validate=True)
            limbs = np.frombuffer(raw, dtype="<i8").astype(np.int64)
            record = RoundRecord(**{key: line[key] for key in RoundRecord.__dataclass_fields__})
            _check_types(record)
        except (KeyError, ValueError, TypeError) as error:
            raise JournalError(f"{self.path}: round {number + 1} is not a round ({error})") from error
        if record.number != number or hashlib.sha256(raw).hexdigest() != line.get("sha256"):
            raise JournalError(f"{self.path}: round {number + 1} is damaged; restore the file or begin anew")
        self.rounds.append(record)
        self._limbs.append(limbs)

    def begin(self, assembly: Mapping[str, Any]) -> None:
        """Keep what the sites have agreed on, before the first round.

        Raises:
            JournalError: when a round was recorded without it.
        """
        if self.rounds or self.assembly is not None:
            raise JournalError(f"{self.path}: this journal has begun already; choose another output folder")
        self._append({"assembly": assembly})
        self.assembly = assembly

    def replay(self, number: int, bundle: str) -> IntArray | None:
        """The recorded limbs of a round, or None when it was not asked yet.

        Raises:
            JournalError: when the recorded round asked something else: other code or another study.
        """
        if number >= len(self.rounds):
            return None
        if self.rounds[number].bundle != bundle:
            raise JournalError(
                f"{self.path}: round {number + 1} was another question when it was recorded; this journal comes from "
                "another version of ctfed or another machine; choose another output folder"
            )
        return self._limbs[number]

    def record(self, record: RoundRecord, limbs: IntArray) -> None:
        """Append a round and force it to the disk."""
        raw = limbs.astype("<i8").tobytes()
        encoded = base64.b64encode(raw).decode()
        self._append({**asdict(record), "sha256": hashlib.sha256(raw).hexdigest(), "limbs": encoded})
        self.rounds.append(record)
        self._limbs.append(limbs)

    def _append(self, line: Mapping[str, Any]) -> None:
        with self.path.open("ab") as file:
            file.write(canonical_json(dict(line)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """The journal's lines; a last line that a crash cut short is removed from the file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
    except (ValueError, RecursionError) as error:
        raise JournalError(f"{path}: a line is not JSON; restore the file or begin anew") from error
    if not all(isinstance(line, dict) for line in lines):
        raise JournalError(f"{path}: a line is no table; restore the file or begin anew")
    return lines
