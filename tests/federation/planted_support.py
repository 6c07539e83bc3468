"""A site whose data hold what must not leave, in a federation of real processes; and what a cell is."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from deployment_support import NAMES, Federation, descendants, write_site
from files_support import write_study

SITE = "bern"  # where it is planted
PATIENTS, FEW, LEVEL = 137, 3, 2  # its patients, and those of them at this ECOG level
IDENTIFIERS = ("QX7731-Kowalczyk", "Grünwäld-Jürgen^0419")
FOLDER = "station-4b-kreuzeck"  # on the path of everything of the site
TABLE = "zwettl-tabelle.csv"
COLUMN, NOTES = "hausarzt_ecog_zwettl", "hausarzt_notiz"  # of the study's variable, and of no variable at all
NOTE = "kennt den Bürgermeister"
PLANTED = (*IDENTIFIERS, FOLDER, TABLE, COLUMN, NOTES, NOTE)


def plant(folder: Path) -> None:
    """Give the site in ``folder`` a table and a site file with all of it, made of its smaller table."""
    header, *rows = (folder / "clinical.csv").read_text(encoding="utf-8").splitlines()
    names = header.split(",")
    ecog = names.index("ecog")
    cells = [row.split(",") for row in rows]
    first = len(cells)
    cells += [[f"{SITE}-{number}", *cells[number % first][1:]] for number in range(first, PATIENTS)]
    for number, row in enumerate(cells):
        row[ecog] = str(LEVEL) if number < FEW else str(number % 2)
        row.append(NOTE if number == 5 else "")
    for row, identifier in zip(cells, IDENTIFIERS, strict=False):
        row[0] = identifier
    names[ecog] = COLUMN
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*names, NOTES], *cells])
    (folder / "clinical.csv").unlink()
    text = (folder / "site.yaml").read_text(encoding="utf-8").replace("clinical.csv", str(folder / TABLE))
    (folder / "site.yaml").write_text(f"{text}features: {{ecog: {COLUMN}}}\n", encoding="utf-8")


def damage(table: Path) -> bytes:
    """Spoil the table as an export can: in a column of numbers, two cells that a spreadsheet has failed at.

    Their text begins like a line of a log that is shown.

    Returns:
        What it was.
    """
    kept = table.read_bytes()
    lines = kept.decode().splitlines()
    place = lines[0].split(",").index("age")
    for number in (1, 2):
        cells = lines[number].split(",")
        cells[place] = f"ERROR {IDENTIFIERS[0]}"
        lines[number] = ",".join(cells)
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return kept


class PlantedFederation(Federation):
    """The planted site in a folder of its own, the others and the hub in another; each command is the real `ctfed`."""

    def __init__(self, folder: Path, hub_seen_at: str | None = None) -> None:
        """``hub_seen_at`` is the host:port at which the planted site finds the hub; None is where the hub listens."""
        from server.provision import make_trial_keys, provision

        super().__init__(folder, rounds=0)
        self.study = write_study(folder / "study.yaml")
        if hub_seen_at is not None:
            host = [hub_seen_at.rpartition(":")[0]]
            provision(folder, make_trial_keys(folder, NAMES), f"127.0.0.1:{self.port}", hosts=host)
        self.home = folder / FOLDER / SITE
        (folder / FOLDER).mkdir()
        shutil.move(folder / "sites" / SITE, self.home)
        if hub_seen_at is not None:
            told = {"site": SITE, "superlink": hub_seen_at}
            (self.home / "join.json").write_text(json.dumps(told), encoding="utf-8")
        for index, name in enumerate(NAMES):
            write_site(self.site_folder(name), name, np.random.default_rng(index), patients=80)
        plant(self.home)
        for name in NAMES:
            self.approve(name)

    def site_folder(self, name: str) -> Path:
        """A site's own folder."""
        return self.home if name == SITE else self.folder / "sites" / name

    def approve(self, name: str, study: Path | None = None) -> None:
        from ctfed import trust
        from ctfed.site import load_site
        from ctfed.study import load_study

        if not hasattr(self, "home"):
            return  # by the federation that this one is made of, before the study is written
        site, approved = load_site(self.site_folder(name) / "site.yaml"), load_study(self.study)
        trust.approve(site, approved, trust.propose(site, approved).roster)

    def join(self, name: str, executor: str = "warm", study: Path | None = None, prefix: tuple[str, ...] = ()) -> None:
        """Start `ctfed join` for a site."""
        home = self.site_folder(name)
        options = [str(home / "site.yaml"), "--study", str(study or self.study), "--folder", str(home)]
        self._run(name, [*prefix, *ctfed("join"), *options, "--state", str(home / "state"), "--executor", executor])

    def serve(self, **run_config: float) -> None:
        """Start `ctfed serve`."""
        options = ["--folder", str(self.folder / "server"), "--out", str(self.out), "--port", str(self.port)]
        self._run("server", [*ctfed("serve"), str(self.study), *options])

    def executor(self, name: str) -> int:
        """The process id of a site's warm executor."""
        below = descendants(self.processes[name].pid)
        told = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in below}
        (found,) = (pid for pid, command in told.items() if b"ctfed.federation.flower.executor" in command)
        return found

    def _run(self, name: str, command: list[str]) -> None:
        home = self.home / "home" if name == SITE else self.folder / "home"
        environment = os.environ | {"HOME": str(home), "PYTHONUNBUFFERED": "1"}
        with (self.folder / f"{name}.out").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def ctfed(*arguments: str) -> list[str]:
    """A command line of `ctfed`."""
    return [sys.executable, "-c", "import sys; from ctfed.cli import main; sys.exit(main())", *arguments]


# -- what a cell is

# A whole number from 1 to k - 1 in what leaves is taken for a number of patients of the site, unless it stands where
# one of these patterns says that it is something else. Paths have no places in lists; the last part is a key.
NOT_PATIENTS = (
    # of a report
    *("ctfed_site_report", "minimum", "study.*", "checklists.*", "provenance.*", "discrimination.replicates"),
    *("*.horizon", "*.time", "*.thresholds", "*.threshold", "*.value", "*.lower", "*.upper", "*.p", "*.chi2"),
    *("*.survival", "*.hazard_ratio", "*.coefficient", "*.mean", "*.sd", "*.observed", "*.expected", "*.df"),
    *("missing.variables", "discrimination.pooled.sites", "explanation.left_out"),  # variables, sites, features
    *("ledger.runs", "ledger.rounds", "ledger.refusals", "ledger.entries", "ledger.numbers", "ledger.bytes"),
    *("ledger.kinds.asked", "ledger.kinds.numbers", "ledger.kinds.zeros"),
    # of a package, and of an answer's text
    *("ctfed_*", "*.ctfed_policy", "thresholds.*", "safe_*", "survival_safe_threshold"),  # the site's limits
    *("exchange", "*.exchange", "ledger_entry", "opening.entries", "opening.seen.entries", "files.*"),
    *("spent_so_far.*", "suppressed_cells"),  # questions, numbers and cuts of the run so far
    *("totals_tell.sites", "totals_tell.times", "totals_tell.numbers"),
    "totals_tell.arrays.*",  # shapes
)
NOT_PATIENTS_IN_COLUMNS = {
    *("times", "rows", "arrays", "numbers", "sites", "question", "what the total tells"),
    *("Item", "Asked", "Numbers", "Horizon", "Threshold", "Feature", "Question", "Measure", "Subject"),
}
_SENTENCE = re.compile(r"(?<![\d.,])(\d+) (?:\w+ )?(?:patients?|events?|deaths?|cases|controls|scans?)\b")


def small_numbers(body: Any, k: int, path: str = "") -> list[tuple[str, float]]:
    """(path, number) of every whole number from 1 to k - 1 in a JSON content that may be one of patients."""
    if isinstance(body, Mapping):
        parts = [small_numbers(value, k, f"{path}.{key}".lstrip(".")) for key, value in body.items()]
        return [found for part in parts for found in part]
    if isinstance(body, list | tuple):
        return [found for value in body for found in small_numbers(value, k, path)]
    if isinstance(body, bool) or not isinstance(body, int | float) or not (0 < body < k and body == int(body)):
        return []
    return [] if any(fnmatchcase(path, pattern) for pattern in NOT_PATIENTS) else [(path, body)]


def small_numbers_of_csv(text: str, k: int) -> list[tuple[str, float]]:
    """(column, number) of the same in a CSV file."""
    rows = csv.DictReader(text.splitlines())
    return [found for row in rows for column, cell in row.items() for found in _small_cell(column, cell or "", k)]


def small_numbers_of_page(page: str, k: int) -> list[tuple[str, float]]:
    """(column, number) of the same in the tables of a page, and (sentence, number) of patients in its text."""
    parsed = _Tables(page)
    found = [
        small
        for header, *rows in (table for table in parsed.tables if table)
        for row in rows
        for column, cell in zip(header, row, strict=False)
        for small in _small_cell(column, cell, k)
    ]
    return found + small_numbers_of_text(" ".join(parsed.words), k)


def small_numbers_of_text(text: str, k: int) -> list[tuple[str, float]]:
    """(words, number) of every number of patients, events or scans from 1 to k - 1 that a sentence tells."""
    return [(match[0], int(match[1])) for match in _SENTENCE.finditer(text) if 0 < int(match[1]) < k]


def _small_cell(column: str, cell: str, k: int) -> list[tuple[str, float]]:
    first = re.match(r"(\d+)(?: \(.*\))?$", cell.strip())
    small = first is not None and 0 < int(first[1]) < k and column not in NOT_PATIENTS_IN_COLUMNS
    return [(column, int(first[1]))] if small and first else []


class _Tables(HTMLParser):
    """The tables of a page as lists of rows, and all of its words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self._cell: list[str] | None = None
        self._hidden = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._hidden += tag in ("style", "script")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script")
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words += data.split()
        if self._cell is not None:
            self._cell.append(data)
