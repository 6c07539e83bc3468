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
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ctfed import __version__
from ctfed.airlock import CONFIG, CRATE, RESULTS, Output, acro_results, checksums, crate, json_bytes, sha256
from ctfed.federation.ledger_account import Told
from ctfed.federation.policy import Policy
from ctfed.rounds.package import HEADER, INTEGERS, MANIFEST, Label

DISCLOSURE, DESCRIPTION, CONTENTS = "disclosure.json", "description.md", "contents.csv"
FEW_ROWS = 3  # sets of rows that a sentence names

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
    files[RESULTS] = json_bytes(acro_results([_acro_output(facts)], facts.at))
    files[CONFIG] = json_bytes(_acro_config(facts.policy))
    files |= checksums(files)
    files[DISCLOSURE] = json_bytes(_disclosure(facts, files))
    files[CRATE] = json_bytes(_crate(facts, files))
    return {name: value for name, value in files.items() if name not in content}


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


def _acro_output(facts: Facts) -> Output:
    held = f"{facts.numbers} masked numbers, of use in the sum over all sites alone"
    return Output(
        name=facts.label.name,
        files=(DESCRIPTION, CONTENTS, HEADER, INTEGERS),
        command="ctfed round answer",
        summary=f"{facts.what}: {held}",
        properties={"method": "masked secure sum", "exchange": facts.label.exchange, "masked": True},
        comments=tuple(f"{told.kind} ({told.rows} rows)" for told in facts.told),
    )


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
        "files": {name: sha256(value) for name, value in sorted(files.items())},
    }


def _crate(facts: Facts, files: Mapping[str, bytes]) -> dict[str, object]:
    """The crate cannot name the digest of package.json, which names that of the crate."""
    label = facts.label
    return crate(
        files,
        others=(MANIFEST,),
        name=label.name,
        description=f"masked answer of {label.site} to exchange {label.exchange} of study {facts.study[0]}",
        at=facts.at,
        site=label.site,
        action=f"answer to the question {label.question}",
        results=(HEADER, INTEGERS),
    )
