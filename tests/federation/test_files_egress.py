"""What may leave a site holds nothing of its patients: no planted identifier, path or small cell is found in it."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files_support import Centres

from ctfed.cohort import load_cohort
from ctfed.federation.responder import Responder
from ctfed.federation.wire import decode_question, encode_question
from ctfed.rounds.answering import LOG, NotAnswered
from ctfed.rounds.package import INTEGERS, MANIFEST, find_packages, read_label
from ctfed.site import load_site
from ctfed.study import load_study
from server.files_transport import Waiting

PATIENT = "PLANTED-4711"
PATIENTS = 137  # of the planted site; a number that is not in any text by accident
CELL = 3  # its patients at one level
ROUNDS = 5


@dataclass
class Planted:
    """A federation after a few exchanges, in which one site's table holds what must not leave."""

    centres: Centres
    waiting: Waiting
    printed: list[str] = field(default_factory=list)

    @property
    def egress(self) -> Path:
        return self.centres.home("bern") / "egress"

    def packages(self) -> list[Path]:
        return [package.folder for package in find_packages(self.egress, "answer", "refusal")]


def plant(path: Path) -> None:
    """137 patients, one of them with a name that is looked for, and exactly three at ECOG 2."""
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    cells = [row.split(",") for row in rows]
    place = header.split(",").index("ecog")
    while len(cells) < PATIENTS:
        source = cells[len(cells) % 80]
        cells.append([f"bern-{len(cells)}", *source[1:]])
    for number, row in enumerate(cells):
        row[place] = "2" if number < CELL else str(number % 2)
    cells[0][0] = PATIENT
    path.write_text("\n".join([header, *(",".join(row) for row in cells)]) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    centres = Centres(tmp_path_factory.mktemp("hidden-folder"))
    plant(centres.home("bern") / "clinical.csv")
    return Planted(centres, centres.until(ROUNDS + 3), centres.lines)


def texts(folder: Path) -> dict[str, str]:
    """Every file as text, and every file's and folder's name."""
    found = {str(path): path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()}
    return found | {f"name of {path}": str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_no_identifier_and_no_path_is_in_the_egress_folder_or_printed(planted: Planted) -> None:
    printed = "\n".join(planted.printed)
    found = texts(planted.egress) | {"printed": printed}
    assert len(planted.packages()) == ROUNDS + 2
    for where, text in found.items():
        for secret in (PATIENT, "hidden-folder", str(planted.centres.folder), "clinical.csv"):
            assert secret not in text, (where, secret)


def numbers_in(body: Any) -> Iterator[tuple[str, float]]:
    """Every number of a JSON text that stands for patients, with its key."""
    if isinstance(body, dict):
        for key, value in body.items():
            if isinstance(value, int) and key in ("patients", "events", "count"):
                yield key, value
            yield from numbers_in(value)
    elif isinstance(body, list):
        for value in body:
            yield from numbers_in(value)


def test_no_number_of_this_site_alone_is_in_the_egress_folder(planted: Planted) -> None:
    cohort = cohort_of(planted)
    own = {PATIENTS, int(cohort.event.sum()), int((cohort.split == "test").sum()), int((cohort.split == "train").sum())}
    for package in planted.packages():
        disclosure = json.loads((package / "disclosure.json").read_text(encoding="utf-8"))
        told = list(numbers_in(disclosure["totals_tell"]))
        if package.name.startswith(("exchange-001", "exchange-002")):
            assert told == []
        else:
            assert min(value for _, value in told) > CELL
            assert own.isdisjoint(value for _, value in told)
        for name in ("description.md", "contents.csv"):
            assert not re.search(rf"\b{PATIENTS}\b", (package / name).read_text(encoding="utf-8"))


def cohort_of(planted: Planted) -> Any:
    home = planted.centres.home("bern")
    return load_cohort(load_site(home / "site.yaml"), load_study(planted.centres.study))


def test_the_small_cell_is_in_the_sites_sums_and_masked_in_its_package(planted: Planted) -> None:
    """Nowhere does the packaged answer hold what the clear one holds, the counts of the small level included."""
    cohort, met = cohort_of(planted), False
    assert (cohort.columns["ecog"] == 2).sum() == CELL
    for package in find_packages(planted.centres.home("bern") / "inbox", "question"):
        if package.label.exchange < 3 or package.label.exchange > ROUNDS + 2:
            continue
        asked = decode_question(package.question(), {})
        clear = Responder(cohort).answer(encode_question("clear", 0, asked.queries, frozenset())).limbs
        answered = planted.egress / package.folder.name.replace("question", "answer")
        masked = np.frombuffer((answered / INTEGERS).read_bytes(), dtype="<i8")
        assert masked.shape == clear.shape
        assert not (masked == clear).any()
        for query in asked.queries:
            met = met or (query.kind == "level-counts" and "ecog" in query.columns)
    assert met


def test_the_egress_folder_holds_packages_alone_and_every_file_has_its_checksums(planted: Planted) -> None:
    for package in planted.packages():
        files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
        assert files == {*read_label(package).files, MANIFEST}
        disclosure = json.loads((package / "disclosure.json").read_text(encoding="utf-8"))
        for name, expected in disclosure["files"].items():
            assert hashlib.sha256((package / name).read_bytes()).hexdigest() == expected
        acro = json.loads((package / "results.json").read_text(encoding="utf-8"))
        (output,) = acro["results"].values()
        assert output["status"] == "review"
        for file in output["files"]:
            written = (package / "checksums" / f"{file['name']}.txt").read_text(encoding="utf-8")
            assert written == hashlib.sha256((package / file["name"]).read_bytes()).hexdigest()
    outside = [path for path in planted.egress.iterdir() if path not in planted.packages()]
    assert outside == []


def test_the_crate_names_every_file_and_nothing_that_is_not_there(planted: Planted) -> None:
    for package in planted.packages():
        crate = json.loads((package / "ro-crate-metadata.json").read_text(encoding="utf-8"))
        entities = {entity["@id"]: entity for entity in crate["@graph"]}
        assert len(entities) == len(crate["@graph"])
        files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
        parts = {part["@id"] for part in entities["./"]["hasPart"]}
        assert parts == files - {"ro-crate-metadata.json"}
        for entity in entities.values():
            for value in entity.values():
                for link in value if isinstance(value, list) else [value]:
                    if isinstance(link, dict) and not link["@id"].startswith("https://"):
                        assert link["@id"] in entities
        for part in parts - {MANIFEST}:
            assert entities[part]["sha256"] == hashlib.sha256((package / part).read_bytes()).hexdigest()


def test_the_contents_say_in_words_what_the_totals_tell(planted: Planted) -> None:
    package = next(path for path in planted.packages() if path.name.startswith("exchange-003"))
    rows = list(csv.DictReader((package / "contents.csv").open(encoding="utf-8")))
    assert {row["question"] for row in rows} >= {"counts", "level-counts"}
    assert all(int(row["patients"]) > CELL and row["what the total tells"] for row in rows)
    description = (package / "description.md").read_text(encoding="utf-8")
    assert all(row["what the total tells"] in description for row in rows)
    assert "masked" in description


def test_what_goes_wrong_is_told_in_full_beside_the_ledger_alone(planted: Planted) -> None:
    """A value that cannot be, in the row of the planted patient: the sentence about it stays at the site."""
    home = planted.centres.home("bern")
    table = home / "clinical.csv"
    kept = table.read_text(encoding="utf-8")
    lines = kept.splitlines()
    lines[1] = ",".join([PATIENT, "-5", *lines[1].split(",")[2:]])
    lines[0] = lines[0].replace("status", "state")
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        with pytest.raises(NotAnswered) as caught:
            planted.centres.answer("bern", planted.waiting)
    finally:
        table.write_text(kept, encoding="utf-8")
    log = home / "ledger" / LOG
    assert "clinical.csv" in log.read_text(encoding="utf-8")
    assert (log.stat().st_mode & 0o777) == 0o600
    for where, text in (texts(planted.egress) | {"printed": str(caught.value)}).items():
        for secret in (PATIENT, "hidden-folder", "clinical.csv", "state"):
            assert secret not in text or (secret == "state" and "stat" in where), (where, secret)
