"""The borders between ctfed and files: what people write, and what lies on a disk. The first byte says which."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import border
import numpy as np
import yaml
from mutations import damaged_bytes, damaged_json, damaged_text
from target import Target

from ctfed.config import parse_yaml, read_document
from ctfed.federation import CtfedError
from ctfed.federation.flower.bundle import build_bundle, check_bundle
from ctfed.federation.ledger import ANSWERED, JOINED, OPENED, REFUSED, STEWARD, Entry, Ledger
from ctfed.federation.policy import Policy
from ctfed.federation.roster import read_roster
from ctfed.keys import make_site_keys, read_public_keys
from ctfed.site import Site
from ctfed.study import Study, scope_of
from ctfed.trust import APPROVALS, read_approvals
from server.assembly import assembly_body, read_assembly
from server.journal import Journal, RoundRecord
from server.provision import HUB, read_hub

SHM = Path("/dev/shm")  # memory, where there is one: nothing is waited for


def _which(data: bytes, count: int) -> int:
    """The number that the first byte stands for: '0', '1', ..."""
    return (data[0] - ord("0")) % count if data else 0


class Configs(Target):
    """What people write: study, site and policy files. The first byte says which."""

    name = "config"
    models: tuple[tuple[type[Any], str], ...] = (
        (Study, "ctfed_study"),
        (Site, "ctfed_site"),
        (Policy, "ctfed_policy"),
    )

    def seeds(self) -> list[bytes]:
        texts = [border.STUDY, border.SITE, border.POLICY]
        examples = Path(__file__).resolve().parents[2] / "site_config"
        for number, folder in enumerate(("studies", "sites", "policies")):
            texts += [
                str(number) + path.read_text(encoding="utf-8") for path in sorted((examples / folder).glob("*.yaml"))
            ]
        return [text.encode() for text in [*(f"{n}{text}" for n, text in enumerate(texts[:3])), *texts[3:]]]

    def run(self, data: bytes) -> bool:
        model, marker = self.models[_which(data, len(self.models))]
        try:
            found = read_document(model, parse_yaml("file.yaml", data[1:]), marker, {"folder": Path("/nowhere")})
            if isinstance(found, Study):
                assert len(found.sha256) == 64
                assert found.features
                assert found.grid.end > 0
                scope_of(found)
        except CtfedError:
            return False
        return True

    def damaged(self, data: bytes, rng: random.Random) -> bytes:
        head, text = data[:1], data[1:].decode("utf-8", "replace")
        if rng.random() < 0.6:
            loaded = _as_json(text)
            if loaded is not None:
                return head + damaged_json(loaded, rng).encode()
        if rng.random() < 0.2:
            return head + damaged_bytes(data[1:], rng)
        lines = text.split("\n")
        if rng.random() < 0.4:
            chosen = rng.randrange(len(lines))
            lines.insert(rng.randrange(len(lines)), lines.pop(chosen) if rng.random() < 0.5 else lines[chosen])
            return head + "\n".join(lines).encode()
        return head + damaged_text(text, rng).encode("utf-8", "replace")


@cache
def _as_json(text: str) -> str | None:
    """A YAML text as JSON, which is YAML too; None when it is neither."""
    if len(text) > 20_000:
        return None
    try:
        return json.dumps(yaml.safe_load(text))
    except (yaml.YAMLError, TypeError, ValueError, OverflowError, RecursionError, AttributeError):
        return None


class Files(Target):
    """What lies on a disk: roster, ledger, journal, hub, keys, approvals, a bundle. The first byte says which."""

    name = "state"

    def __init__(self) -> None:
        self._held = tempfile.TemporaryDirectory(prefix="ctfed-fuzz-", dir=SHM if SHM.is_dir() else None)
        self.folder = Path(self._held.name)

    @cached_property
    def readers(self) -> Sequence[tuple[str, Callable[[Path], object]]]:
        """File names, and what reads them."""
        return (
            ("roster.json", lambda path: read_roster(path).digest),
            ("ledger/ledger.jsonl", lambda path: Ledger(path.parent)),
            ("journal.jsonl", _read_journal),
            (HUB, read_hub),
            ("public.json", read_public_keys),
            (APPROVALS, lambda path: read_approvals(path.parent)),
            ("ctfed.fab", lambda path: check_bundle("ctfed/ctfed", path.read_bytes())),
        )

    def seeds(self) -> list[bytes]:
        work = Path(tempfile.mkdtemp(dir=self.folder))
        border.roster().write(work / "roster.json")
        _write_ledger(work / "ledger")
        _write_journal(work / "journal.jsonl")
        keys = make_site_keys(work, "bern")
        hub = {"ctfed_hub": 1, "address": "hub.example.org:443", "sites": {"bern": keys.supernode}}
        (work / HUB).write_text(json.dumps(hub))
        approval = {"study": "5" * 64, "roster": "6" * 64, "policy": "7" * 64, "at": "2025-01-01T00:00:00+00:00"}
        (work / APPROVALS).write_text(json.dumps({"ctfed_approvals": 1, "approvals": [approval]}))
        (work / "ctfed.fab").write_bytes(hostile_zip())
        made = [str(n).encode() + (work / name).read_bytes() for n, (name, _) in enumerate(self.readers)]
        return [*made, b"6" + build_bundle()]

    def run(self, data: bytes) -> bool:
        name, read = self.readers[_which(data, len(self.readers))]
        path = self.folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(data[1:])
        try:
            read(path)
        except CtfedError:
            return False
        finally:
            path.unlink()
        return True

    def damaged(self, data: bytes, rng: random.Random) -> bytes:
        head, body = data[:1], data[1:]
        name = self.readers[_which(data, len(self.readers))][0]
        if name.endswith(".fab") or rng.random() < 0.15:
            return head + damaged_bytes(body, rng)
        text = body.decode("utf-8", "replace")
        if not name.endswith(".jsonl"):
            return head + (damaged_text(text, rng) if rng.random() < 0.2 else damaged_json(text, rng)).encode(
                "utf-8", "replace"
            )
        lines = text.split("\n")
        place = rng.randrange(len(lines))
        if rng.random() < 0.1:
            lines.insert(rng.randrange(len(lines)), lines.pop(place))
        else:
            lines[place] = damaged_json(lines[place], rng) if rng.random() < 0.9 else damaged_text(lines[place], rng)
        if rng.random() < 0.8:
            lines = _chained(lines) if name.startswith("ledger") else [_with_digest(line) for line in lines]
        return head + "\n".join(lines).encode("utf-8", "replace")


def _write_ledger(folder: Path) -> None:
    ledger = Ledger(folder, clock=lambda: "2025-01-01T00:00:00+00:00")
    facts = {"study": "5" * 64, "nonce": "a" * 64, "splits": ["train"], "entries": 0, "head": "0" * 64, "seen": {}}
    ledger.append(OPENED, "run", facts)
    ledger.append(JOINED, "run", {"session": "6" * 64, "ledgers": {"lyon": [3, "7" * 64]}})
    answered = {"round": 0, "question": "8" * 64, "sent": "9" * 64, "bytes": 16, "spent": {"rounds": 1}, "queries": []}
    ledger.append(ANSWERED, "run", answered)
    ledger.append(REFUSED, "run", {"rule": "too-few-sites", "sentence": "two", "round": 1})
    ledger.append(STEWARD, "", {"allowed": "more-runs"})


def _write_journal(path: Path) -> None:
    journal = Journal(path, {"study": "5" * 64})
    journal.begin(assembly_body(border.federation().assembly))
    for number in range(2):
        journal.record(RoundRecord(number, "8" * 64, {"counts": 1}, 10, 10, 0.1), np.arange(4, dtype=np.int64))


def _read_journal(path: Path) -> None:
    journal = Journal(path, {"study": "5" * 64})
    if journal.assembly is not None:
        read_assembly(journal.assembly)
    for record in journal.rounds:
        journal.replay(record.number, "8" * 64)


def _chained(lines: list[str]) -> list[str]:
    """The lines of a ledger with their hashes made right, so that what they say is looked at."""
    made: list[str] = []
    previous: Entry | None = None
    for line in lines:
        try:
            content = json.loads(line)
            previous = Entry.after(previous, content["kind"], content["run"], content["facts"], content["at"])
            made.append(previous.line)
        except (ValueError, TypeError, KeyError, RecursionError):
            made.append(line)
    return made


def _with_digest(line: str) -> str:
    """A line of a journal with the digest of its limbs made right."""
    try:
        content = json.loads(line)
        content["sha256"] = hashlib.sha256(base64.b64decode(content["limbs"], validate=True)).hexdigest()
        return json.dumps(content)
    except (ValueError, TypeError, KeyError, RecursionError):
        return line


def hostile_zip() -> bytes:
    """An archive with code in it, and a name that leaves its folder."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("pyproject.toml", "[project]\n")
        archive.writestr("../client_app.py", "import os; os.system('true')\n")
    return held.getvalue()
