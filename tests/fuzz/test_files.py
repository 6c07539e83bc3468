"""Files at the border: what is wrong with them is said in one sentence, however they were made."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import border
import numpy as np
import pytest

from ctfed.config import ConfigError, load, parse_yaml, read_document
from ctfed.federation.errors import CtfedError, Refusal
from ctfed.federation.flower.bundle import FAB_ID, build_bundle, check_bundle
from ctfed.federation.roster import MAX_BYTES, RosterError, read_roster
from ctfed.keys import check_node_key
from ctfed.study import Study, load_study
from ctfed.trust import APPROVALS, read_approvals
from server.journal import Journal, JournalError, RoundRecord

# -- YAML


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b'a: "\\UFFFFFFFF"', "found an impossible character"),
        (b'a: "\\ud800"', "line 1: found invalid YAML .an escape of half a character"),
        (b'"\\udfff": 1', "line 1: found invalid YAML .an escape of half a character"),
        (b"a: \xff", "line 1: found a byte that is not UTF-8"),
        (b"a: \x00", "line 1: found a control character"),
        (b"[" * 5000, "nested too deeply"),
        (b"{a: " * 5000, "nested too deeply"),
        (b"- " * 5000, "nested too deeply"),
        (b"a: &x 1\nb: *x", "line 2: found invalid YAML .an alias"),
        (b"a: !!python/object/apply:os.system [true]", "line 1: found invalid YAML .the tag"),
        (b"a: !!set {a, b}", "line 1: found invalid YAML .the tag"),
        (b"a: !!python/name:os.system", "line 1: found invalid YAML .the tag"),
        (b"a: 1\na: 2", "line 2: found invalid YAML .the key a for the second time"),
        (b"? [a]\n: 1", "a key that is not plain text"),
        (b"--- 1\n--- 2", "another document"),
        (b"#" * (2**20 + 1), "found 1048577 bytes, expected a file of at most 1048576"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_that_is_no_yaml_is_refused_in_a_sentence(text: bytes, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^file.yaml.*({sentence})"):
        read_document(Study, parse_yaml("file.yaml", text), "ctfed_study")


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("time_bin: 6", "time_bin: 5.0e-324"),
        ("horizons: [12, 24]", "horizons: [1.0e+308]"),
        ("width: 6, end: 36", "width: 5.0e-324, end: 1.0e+308"),
        ("range: [-10, 10]", "range: [-1.0e+308, 1.0e+308]"),
        ("range: [-10, 10]", "range: [-1.0e+400, 10]"),
        ("folds: 3", "folds: 999999999999999999"),
        ("folds: 3", "folds: 9999999999999999999999"),
        ("horizons: [12, 24]", "horizons: [.nan]"),
    ],
)
def test_numbers_that_nobody_can_compute_with_are_refused(line: str, other: str, tmp_path: Path) -> None:
    assert line in border.STUDY
    (tmp_path / "study.yaml").write_text(border.STUDY.replace(line, other))
    with pytest.raises(ConfigError, match="expected"):
        load_study(tmp_path / "study.yaml")


def test_a_validator_that_divides_by_nothing_is_a_fault_of_the_file(tmp_path: Path) -> None:
    from pydantic import model_validator

    from ctfed.config import Section

    class Divided(Section):
        ctfed_divided: int
        number: float

        @model_validator(mode="after")
        def _divide(self) -> Divided:
            round(1 / self.number)
            return self

    (tmp_path / "file.yaml").write_text("ctfed_divided: 1\nnumber: 0.0\n")
    with pytest.raises(ConfigError, match=r"numbers too far apart to compute with .float division by zero"):
        load(Divided, tmp_path / "file.yaml", "ctfed_divided")


# -- roster, approvals, keys, bundle


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"ctfed_roster": 1, "sites": {"a": "%s", "a": "%s"}}', "found 'a' for the second time"),
        ('{"ctfed_roster": true, "sites": {"a": "%s"}}', "begins with 'ctfed_roster': 1"),
        ('{"ctfed_roster": 1.0, "sites": {"a": "%s"}}', "begins with 'ctfed_roster': 1"),
        ("[" * 100_000, "is not JSON"),
        ("5", "begins with"),
        (" " * (MAX_BYTES + 1), "has 1048577 bytes, expected at most 1048576"),
        ('{"ctfed_roster": 1, "sites": {"a": "é"}}', "must be 32 bytes in base64"),
        ('{"ctfed_roster": 1, "sites": {"../a": "%s"}}', "a site's name has"),
        ('{"ctfed_roster": 1, "sites": {}}', "names 1 to 1024 sites"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_roster_that_is_none_is_refused_in_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    keys = tuple(base64.b64encode(bytes([n] * 32)).decode() for n in range(text.count("%s")))
    (tmp_path / "roster.json").write_text(text % keys if keys else text)
    with pytest.raises(RosterError, match=f"the roster .*roster.json.*{sentence}"):
        read_roster(tmp_path / "roster.json")


def test_deeply_nested_approvals_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / APPROVALS).write_text("[" * 100_000)
    with pytest.raises(CtfedError, match="is not a file of approvals"):
        read_approvals(tmp_path)


def test_a_key_in_a_form_that_is_not_supported_is_refused_in_a_sentence() -> None:
    def field(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    compressed = field(b"ecdsa-sha2-nistp384") + field(b"nistp384") + field(b"\x02" + b"\x01" * 48)
    text = "ecdsa-sha2-nistp384 " + base64.b64encode(compressed).decode()
    with pytest.raises(CtfedError, match="the public key of 'bern' is not in OpenSSH's form"):
        check_node_key(text, "bern")


def test_no_flipped_bit_of_a_bundle_makes_a_traceback() -> None:
    whole = build_bundle()
    check_bundle(FAB_ID, whole)
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        with suppress(Refusal):
            check_bundle(FAB_ID, bytes(damaged))


# -- the journal

HEADER = {"study": "abc"}


def journal(folder: Path) -> Path:
    path = folder / "journal.jsonl"
    made = Journal(path, HEADER)
    made.record(RoundRecord(0, "first", {"moments": 2}, 10, 5, 0.1), np.arange(4))
    return path


@pytest.mark.parametrize(
    ("line", "change", "sentence"),
    [
        (0, lambda text: "5", "a line is no table"),
        (1, lambda text: "[]", "a line is no table"),
        (0, lambda text: "[" * 100_000, "a line is not JSON"),
        (0, lambda text: text.replace('"run"', '"ran"'), "found the run None, expected a name"),
        (0, lambda text: text.replace('"run":"', '"run":5,"ran":"'), "found the run 5, expected a name"),
        (0, lambda text: json.dumps(json.loads(text) | {"study": ["x"] * 1000}), "has study = .{,80}, this run"),
        (1, lambda text: text.replace('"limbs"', '"limb"'), "round 1 is not a round"),
        (1, lambda text: text.replace('"number":0', '"number":"0"'), "its numbers are of other types"),
        (1, lambda text: text.replace('{"moments":2}', '{"moments":null}'), "its numbers are of other types"),
        (1, lambda text: text.replace('{"moments":2}', "7"), "round 1 is not a round"),
        (1, lambda text: text.replace('"first"', "7"), "its bundle is no text"),
    ],
)
def test_a_damaged_journal_is_refused_in_a_sentence(
    line: int, change: Callable[[str], str], sentence: str, tmp_path: Path
) -> None:
    path = journal(tmp_path)
    lines = path.read_text().splitlines()
    assert change(lines[line]) != lines[line]
    lines[line] = change(lines[line])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(JournalError, match=sentence) as caught:
        Journal(path, HEADER)
    assert len(str(caught.value)) < 500


def test_a_total_of_half_a_number_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = journal(tmp_path)
    first, second = path.read_text().splitlines()
    body: dict[str, Any] = json.loads(second)
    body["limbs"] = base64.b64encode(b"123").decode()
    body["sha256"] = hashlib.sha256(b"123").hexdigest()
    path.write_text(f"{first}\n{json.dumps(body)}\n")
    with pytest.raises(JournalError, match="round 1 is not a round"):
        Journal(path, HEADER)
