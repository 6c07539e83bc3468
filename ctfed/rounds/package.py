"""Packages: one question or one answer as a folder of plain files that a person can carry, read and check.

    package.json     what it is: kind, site, exchange, run, study, roster, digest of the question; SHA-256 of every file
    header.json      the message's header, canonical JSON
    numbers.f8       of a question: its numbers, little-endian float64
    numbers.i8       of an answer: its numbers, little-endian int64

and beside them, whatever explains them to a person. Nothing is ever unpickled. Exchange 1 opens a run, exchange 2 is
its census, exchange n its round n - 3 (rounds count from 0).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ctfed.federation.disk import sync_folder
from ctfed.federation.errors import CtfedError
from ctfed.federation.roster import SITE_NAME
from ctfed.federation.session import RUN_NAME
from ctfed.federation.wire import MAX_ANSWER_HEADER, MAX_HEADER, MAX_ROUND, Answer, Question

Kind = Literal["question", "answer", "refusal"]

FORMAT = 1
MANIFEST, HEADER, FLOATS, INTEGERS = "package.json", "header.json", "numbers.f8", "numbers.i8"
FIRST_ROUND = 3  # the exchange in which round 0 is asked
LARGEST_MANIFEST = 2**20  # bytes
LARGEST_NUMBERS = 2**32  # bytes of one package's numbers
PARTIAL = ".part"  # how the name of a folder ends that is still being written

_HEX64 = re.compile(r"[0-9a-f]{64}")
_RULE = re.compile(r"[A-Za-z0-9-]{1,64}")
_KEYS = {"ctfed_package", "kind", "site", "exchange", "run", "study", "roster", "question", "rule", "files"}


class PackageError(CtfedError):
    """A package that is broken, belongs to something else, or is not one. Named by its folder's name alone."""


@dataclass(frozen=True)
class Label:
    """What a package says about itself.

    Attributes:
        kind: 'question', 'answer' or 'refusal'.
        site: whom it is for, or from.
        exchange: from 1.
        run: the server's name for the run.
        study, roster: their digests (hex).
        question: digest (hex) of the question that it holds or answers.
        rule: of a refusal, else ''.
    """

    kind: Kind
    site: str
    exchange: int
    run: str
    study: str
    roster: str
    question: str
    rule: str = ""

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"exchange-{self.exchange:03d}-{self.kind}-{self.site}"

    @property
    def round_number(self) -> int:
        """The round's number; -2 is the opening, -1 the census."""
        return self.exchange - FIRST_ROUND


@dataclass(frozen=True)
class Package:
    """A label, and the folder in which it was found; what it holds is read and checked by ``question`` and ``answer``.

    Attributes:
        label: what the package says about itself.
        folder: where it is.
        files: name -> (SHA-256 (hex), bytes), as its manifest has them.
    """

    label: Label
    folder: Path
    files: Mapping[str, tuple[str, int]]

    def question(self) -> Question:
        """The question.

        Raises:
            PackageError: when a file is missing or was changed, or the question is not the one that the label names.
        """
        header, numbers = self._content(FLOATS, MAX_HEADER)
        question = Question(header, np.frombuffer(numbers, dtype="<f8").astype(np.float64))
        if question.digest != self.label.question:
            raise PackageError(f"package {self.folder.name}: it holds another question than its label names")
        return question

    def answer(self) -> Answer:
        """The answer.

        Raises:
            PackageError: when a file is missing or was changed.
        """
        header, numbers = self._content(INTEGERS, MAX_ANSWER_HEADER)
        return Answer(header, np.frombuffer(numbers, dtype="<i8").astype(np.int64))

    def _content(self, numbers: str, largest: int) -> tuple[str, bytes]:
        for name in self.files:
            if name not in (HEADER, numbers):
                self._read(name, LARGEST_NUMBERS)
        header, flat = self._read(HEADER, largest), self._read(numbers, LARGEST_NUMBERS)
        if len(flat) % 8 or not header.isascii():
            raise PackageError(f"package {self.folder.name}: {HEADER} is no ASCII text, or {numbers} no whole numbers")
        return header.decode("ascii"), flat

    def _read(self, name: str, largest: int) -> bytes:
        where = f"package {self.folder.name}"
        if name not in self.files:
            raise PackageError(f"{where}: its {MANIFEST} does not name {name}")
        digest, size = self.files[name]
        try:
            found = (self.folder / name).stat().st_size
            if found != size or size > largest:
                raise PackageError(f"{where}: {name} has {found} bytes, expected {size} (at most {largest})")
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise PackageError(f"{where}: {name} cannot be read ({error.strerror}); carry the whole folder") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise PackageError(f"{where}: {name} is not what its {MANIFEST} names: it was changed or damaged")
        return content


def content_of(message: Question | Answer) -> dict[str, bytes]:
    """The files that hold a message."""
    if isinstance(message, Question):
        return {HEADER: message.header.encode(), FLOATS: message.values.astype("<f8").tobytes()}
    return {HEADER: message.header.encode(), INTEGERS: message.limbs.astype("<i8").tobytes()}


def manifest_of(label: Label, content: Mapping[str, bytes]) -> bytes:
    """The bytes of package.json; the same for the same content."""
    files = {
        name: {"sha256": hashlib.sha256(value).hexdigest(), "bytes": len(value)}
        for name, value in sorted(content.items())
    }
    body = {
        "ctfed_package": FORMAT,
        "kind": label.kind,
        "site": label.site,
        "exchange": label.exchange,
        "run": label.run,
        "study": label.study,
        "roster": label.roster,
        "question": label.question,
        "rule": label.rule,
        "files": files,
    }
    return (json.dumps(body, indent=2) + "\n").encode()


def write_package(parent: Path, label: Label, content: Mapping[str, bytes]) -> Path:
    """Write a package into ``parent``; a reader finds it whole or not at all. One with the same bits is left alone.

    Args:
        parent: the folder in which the package's folder is made.
        label: what the package is.
        content: its files: relative name -> bytes.

    Raises:
        PackageError: when it cannot be written.
    """
    target, manifest = parent / label.name, manifest_of(label, content)
    partial = parent / (label.name + PARTIAL)
    try:
        if _is_there(target, manifest, content):
            return target
        shutil.rmtree(partial, ignore_errors=True)
        for name, value in {**content, MANIFEST: manifest}.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(value)
                file.flush()
                os.fsync(file.fileno())
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        sync_folder(parent)
    except OSError as error:
        raise PackageError(f"package {label.name} cannot be written: {error.strerror}") from error
    return target


def _is_there(target: Path, manifest: bytes, content: Mapping[str, bytes]) -> bool:
    expected = {**content, MANIFEST: manifest}
    paths = {name: target / name for name in expected}
    return all(path.is_file() and path.read_bytes() == expected[name] for name, path in paths.items())


def find_packages(folder: Path, *kinds: Kind) -> list[Package]:
    """All packages of these kinds at any depth below a folder, in the order of exchanges and names.

    Raises:
        PackageError: naming a package whose package.json is not one.
    """
    found = [package for package in _packages(folder) if package.label.kind in kinds]
    return sorted(found, key=lambda one: (one.label.exchange, one.label.site, str(one.folder)))


def _packages(folder: Path) -> Iterator[Package]:
    for path in sorted(folder.rglob(MANIFEST)):
        if not path.parent.name.endswith(PARTIAL):
            yield read_label(path.parent)


def read_label(folder: Path) -> Package:
    """A package's label, and what its files should be.

    Raises:
        PackageError: when the folder holds no package.
    """
    where = f"package {folder.name}"
    try:
        with (folder / MANIFEST).open("rb") as file:
            text = file.read(LARGEST_MANIFEST + 1)
        body = json.loads(text) if len(text) <= LARGEST_MANIFEST else None
    except OSError as error:
        raise PackageError(f"{where}: {MANIFEST} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{where}: {MANIFEST} is not JSON; carry the folder again") from error
    if not isinstance(body, dict) or set(body) != _KEYS or body["ctfed_package"] != FORMAT:
        raise PackageError(f"{where}: {MANIFEST} is not that of a package of format {FORMAT}")
    return Package(_label(body, where), folder, _files(body["files"], where))


def _label(body: Mapping[str, Any], where: str) -> Label:
    digests = all(_matches(_HEX64, body[key]) for key in ("study", "roster", "question"))
    names = _matches(SITE_NAME, body["site"]) and _matches(RUN_NAME, body["run"]) and body["kind"] in get_args(Kind)
    numbered = type(body["exchange"]) is int and 1 <= body["exchange"] <= MAX_ROUND
    ruled = _matches(_RULE, body["rule"]) if body["kind"] == "refusal" else body["rule"] == ""
    if not (digests and names and numbered and ruled):
        raise PackageError(f"{where}: {MANIFEST} has a value that no package has")
    return Label(**{key: body[key] for key in Label.__dataclass_fields__})


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _files(body: object, where: str) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    for name, entry in body.items() if isinstance(body, dict) else ():
        parts = Path(name).parts
        inside = bool(parts) and not Path(name).is_absolute() and ".." not in parts
        whole = isinstance(entry, dict) and set(entry) == {"sha256", "bytes"}
        if not (inside and whole and _matches(_HEX64, entry["sha256"]) and type(entry["bytes"]) is int):
            raise PackageError(f"{where}: {MANIFEST} names a file that no package has")
        found[name] = (entry["sha256"], entry["bytes"])
    return found
