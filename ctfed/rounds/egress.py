"""What lies beside a site's answer for the output checker: what is in it, in words and as their tools read it.

    description.md           for a person
    contents.csv             one row per kind of question: what the total over all sites will tell, of how many
    results.json, config.json, checksums/   as ACRO writes them (read by SACRO Viewer)
    disclosure.json          thresholds, versions, SHA-256 of every file
    ro-crate-metadata.json   a Five Safes RO-Crate

Everything here is made from the site's ledger, its policy and the study. Nothing is computed from patients, no number
is of this site alone, and the same answer always gives the same bytes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ctfed import __version__
from ctfed.federation.ledger_account import Told
from ctfed.federation.policy import Policy
from ctfed.rounds.package import HEADER, INTEGERS, MANIFEST, Label

RESULTS, CONFIG, CHECKSUMS = "results.json", "config.json", "checksums"
DISCLOSURE, CRATE, DESCRIPTION, CONTENTS = "disclosure.json", "ro-crate-metadata.json", "description.md", "contents.csv"
FEW_ROWS = 3  # sets of rows that a sentence names
ACRO_FORMAT = "1.0.2"  # of ACRO, whose files these follow
CRATE_PROFILE = "https://w3id.org/5s-crate/0.4"
CRATE_SPEC = "https://w3id.org/ro/crate/1.1"

_MASKED = (
    "The numbers are masked: this site has added random 64-bit integers that it shares with each other site, one by "
    "one, and that vanish only in the sum over all sites. By themselves they are evenly spread random numbers; whoever "
    "holds this package alone, the server included, learns nothing of this site's patients from them."
)
_OPENING = (
    "This site's consent to begin: a random number, a keyed commitment to its table (not the table, nor a number of "
    "patients), the length and last hash of its ledger, and to which splits (train, test) it will contribute."
)
_CENSUS = (
    "This site's numbers of patients and events by split, fold, time bin and two-valued feature, by which every site "
    "judges the questions that follow. " + _MASKED
)


@dataclass(frozen=True)
class Facts:
    """What is known of an answer.

    Attributes:
        label: of its package.
        study: name and title of the study.
        at: ISO time of the ledger's entry for this answer; asked again, the same.
        entry: number of that entry, from 1.
        policy: this site's limits.
        told: what the totals tell; empty before the first round.
        numbers: how many masked numbers the answer holds.
        spent: the run's budgets so far.
    """

    label: Label
    study: tuple[str, str]
    at: str
    entry: int
    policy: Policy
    told: tuple[Told, ...]
    numbers: int
    spent: Mapping[str, int]

    @property
    def what(self) -> str:
        """The exchange in words."""
        number = self.label.round_number
        names = {-2: "opening of the run", -1: "census"}
        return names.get(number, f"round {number}")


def beside(facts: Facts, content: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files that explain an answer: relative name -> bytes.

    Args:
        facts: what is known of it.
        content: the files of the answer itself.
    """
    files = dict(content)
    files[CONTENTS] = _contents(facts.told).encode()
    files[DESCRIPTION] = _description(facts).encode()
    files[RESULTS] = _json(_acro_results(facts))
    files[CONFIG] = _json(_acro_config(facts.policy))
    files |= {f"{CHECKSUMS}/{name}.txt": _sha256(value).encode() for name, value in sorted(files.items())}
    files[DISCLOSURE] = _json(_disclosure(facts, files))
    files[CRATE] = _json(_crate(facts, files))
    return {name: value for name, value in files.items() if name not in content}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json(body: object) -> bytes:
    return (json.dumps(body, indent=2) + "\n").encode()


# -- for people

_COLUMNS = ("question", "times", "rows", "arrays", "numbers", "sites", "patients", "events", "what the total tells")


def _row(told: Told) -> tuple[object, ...]:
    from ctfed.report.steward_terms import meaning

    counted = (told.sites, told.patients, told.events)
    return (told.kind, told.times, told.rows, told.shapes, told.numbers, *counted, meaning(told.kind))


def _contents(told: Sequence[Told]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_row(item) for item in told)
    return text.getvalue()


def _description(facts: Facts) -> str:
    label, (name, title) = facts.label, facts.study
    held = f"{facts.numbers} whole numbers of 64 bits, little-endian" if facts.numbers else "empty in this exchange"
    lines = [
        f"# {label.name}",
        "",
        f"Answer of site **{label.site}** to exchange {label.exchange} ({facts.what}) of run `{label.run}`.",
        "",
        f"- study: {name}, {title}",
        f"- study SHA-256: `{label.study}`",
        f"- question SHA-256: `{label.question}`",
        f"- entry {facts.entry} of this site's ledger, {facts.at}",
        f"- `{INTEGERS}`: {held}; `{HEADER}`: JSON text",
        "",
        "## What is in it",
        "",
        *_inside(facts),
        "",
        "## What was checked before it was written",
        "",
        "The site's own limits (`disclosure.json`) were applied to the question; a question that breaks one of them is "
        "not answered, and nothing is written. To be checked by a person: that the study and the run are those that "
        "were agreed, and that the folder holds the files that its `package.json` names and no others.",
        "",
    ]
    return "\n".join(lines)


def _inside(facts: Facts) -> list[str]:
    first, *others = in_words(facts)
    return [first, *([""] if others else []), *(f"- {line}" for line in others)]


def in_words(facts: Facts) -> list[str]:
    """What an answer holds: how it is masked, then a sentence for each kind of question."""
    if facts.label.round_number == -2:
        return [_OPENING]
    if facts.label.round_number == -1:
        return [_CENSUS]
    kinds: dict[str, list[Told]] = {}
    for told in facts.told:
        kinds.setdefault(told.kind, []).append(told)
    first = f"{_MASKED} The sum over all sites will tell whoever holds the answers of all of them:"
    return [first, *(_sentence(kind, told) for kind, told in kinds.items())]


def _sentence(kind: str, told: Sequence[Told]) -> str:
    from ctfed.report.steward_terms import meaning

    times, numbers = sum(one.times for one in told), sum(one.numbers for one in told)
    rows = [in_full(row) for row in dict.fromkeys(one.rows for one in told)]
    fewest = min(told, key=lambda one: one.patients)
    where = ", ".join(rows) if len(rows) <= FEW_ROWS else f"{len(rows)} sets of rows, as `{CONTENTS}` names them"
    least = "" if len(rows) == 1 else "at least "
    zeros = "" if all(one.contributed for one in told) else " (this site sends zeros: it is below its own minimum)"
    asked, tells = f", asked {times} times" if times > 1 else "", meaning(kind).rstrip(".")
    return (
        f"`{kind}`{asked}: {tells}. {numbers} numbers about {where}, "
        f"over {least}{fewest.patients} patients with {fewest.events} events at {fewest.sites} sites{zeros}"
    )


def in_full(rows: str) -> str:
    """Rows of a study as a person calls them, such as 'train outside fold 0'."""
    split, _, rest = rows.partition(" ")
    words = {"train": "training patients", "test": "test patients", "all": "all patients"}
    return f"{words.get(split, split)} {rest}".strip()


# -- for checkers' tools


def _acro_results(facts: Facts) -> dict[str, object]:
    output = {
        "uid": facts.label.name,
        "status": "review",
        "type": "custom",
        "properties": {"method": "masked secure sum", "exchange": facts.label.exchange, "masked": True},
        "files": [{"name": name, "sdc": {}} for name in (DESCRIPTION, CONTENTS, HEADER, INTEGERS)],
        "outcome": {},
        "command": "ctfed round answer",
        "summary": f"review; {facts.what}: {facts.numbers} masked numbers, of use in the sum over all sites alone",
        "timestamp": facts.at,
        "comments": [f"{told.kind} ({told.rows} rows)" for told in facts.told],
        "exception": "",
        "fair": {},
    }
    tool = {"@type": "SoftwareApplication", "name": "ctfed", "version": __version__}
    return {"version": ACRO_FORMAT, "tool": tool, "results": {facts.label.name: output}}


def _acro_config(policy: Policy) -> dict[str, object]:
    """The thresholds under ACRO's names, where ctfed has the same; and all of ctfed's own."""
    return {
        "safe_threshold": policy.min_cell,
        "survival_safe_threshold": policy.min_cell,
        "safe_pratio_p": policy.parameters_per_patient,
        "federated": True,
        "suppress": False,
        "ctfed_policy": policy.model_dump(mode="json"),
    }


def _disclosure(facts: Facts, files: Mapping[str, bytes]) -> dict[str, object]:
    from ctfed.report.steward_terms import meaning

    totals = [
        {"kind": told.kind, "tells": meaning(told.kind)}
        | {key: value for key, value in asdict(told).items() if key != "smallest"}
        for told in facts.told
    ]
    return {
        "ctfed_disclosure": 1,
        "in_words": in_words(facts),
        "package": asdict(facts.label),
        "answered": facts.at,
        "ledger_entry": facts.entry,
        "masked": facts.label.round_number > -2,
        "thresholds": facts.policy.model_dump(mode="json"),
        "checked": "every threshold, on the totals of the federation, before the answer was made",
        "suppressed_cells": 0,
        "totals_tell": totals,
        "spent_in_words": "budgets of this run so far, against the thresholds: rounds; and for the same rows numbers, "
        "tables and points in time; of each column (or of all scores) the thresholds below which patients were counted",
        "spent_so_far": dict(facts.spent),
        "tools": {"ctfed": __version__, "numpy": np.__version__, "python": platform.python_version()},
        "files": {name: _sha256(value) for name, value in sorted(files.items())},
    }


def _crate(facts: Facts, files: Mapping[str, bytes]) -> dict[str, object]:
    """A Five Safes RO-Crate. It cannot name its own hash, nor that of package.json, which names this file's."""
    label = facts.label
    names = [*sorted(files), MANIFEST]
    parts = [{"@id": name} for name in names]
    described = {
        "@id": CRATE,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": f"{CRATE_SPEC}"},
    }
    root = {
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": {"@id": CRATE_PROFILE},
        "name": label.name,
        "description": f"masked answer of {label.site} to exchange {label.exchange} of study {facts.study[0]}",
        "datePublished": facts.at,
        "license": "not for use outside the study",
        "hasPart": parts,
        "mentions": [{"@id": "#answer"}, {"@id": "#disclosure"}],
        "sourceOrganization": {"@id": "#site"},
    }
    answer = {
        "@id": "#answer",
        "@type": "CreateAction",
        "name": f"answer to the question {label.question}",
        "instrument": {"@id": "#ctfed"},
        "agent": {"@id": "#site"},
        "endTime": facts.at,
        "actionStatus": "http://schema.org/CompletedActionStatus",
        "result": [{"@id": name} for name in (HEADER, INTEGERS)],
    }
    check = {
        "@id": "#disclosure",
        "@type": "AssessAction",
        "additionalType": {"@id": "https://w3id.org/shp#DisclosureCheck"},
        "name": "output review by this site's checker, to be done",
        "object": {"@id": "./"},
        "actionStatus": "http://schema.org/PotentialActionStatus",
    }
    tool = {"@id": "#ctfed", "@type": "SoftwareApplication", "name": "ctfed", "version": __version__}
    site = {"@id": "#site", "@type": "Organization", "name": label.site}
    entities = [_file(name, files) for name in names]
    return {
        "@context": f"{CRATE_SPEC}/context",
        "@graph": [described, root, *entities, answer, check, tool, site],
    }


_FORMATS = {".json": "application/json", ".csv": "text/csv", ".md": "text/markdown", ".txt": "text/plain"}


def _file(name: str, files: Mapping[str, bytes]) -> dict[str, object]:
    suffix = name[name.rfind(".") :]
    entity: dict[str, object] = {
        "@id": name,
        "@type": "File",
        "encodingFormat": _FORMATS.get(suffix, "application/octet-stream"),
    }
    if name in files:
        entity |= {"contentSize": str(len(files[name])), "sha256": _sha256(files[name])}
    return entity
