"""The content of a site's report as one plain mapping: every number of the page stands in it and comes from it.

``site_content`` computes the local edition; ``site_egress`` makes of it what may leave; ``site_page`` makes a page of
either, and of nothing else.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ctfed import __version__
from ctfed.cohort.clinical import Exclusion
from ctfed.federation.ledger_account import account_of
from ctfed.federation.ledger_check import check_ledger
from ctfed.federation.view import View
from ctfed.report.reader import Reader
from ctfed.report.site_calibration import calibration, recalibrated_baseline
from ctfed.report.site_checklists import checklists
from ctfed.report.site_consensus import consensus
from ctfed.report.site_decision import decision
from ctfed.report.site_description import (
    PreparedFiles,
    acquisition,
    flow,
    missing_features,
    segmentation,
    table_one,
)
from ctfed.report.site_discrimination import concordance, discrimination, risk_groups
from ctfed.report.site_explain import explanation, subgroups
from ctfed.report.site_harmonization import harmonization
from ctfed.report.site_models import ModelFolder
from ctfed.report.site_rows import SiteRows
from ctfed.report.site_verdict import verdict

FORMAT = 1
LIBRARIES = ("numpy", "scipy", "flwr", "matplotlib")
SHEETS = 12  # contact sheets in the page


@dataclass(frozen=True)
class SiteFacts:
    """What stands beside the patients.

    Attributes:
        results: the run's results.json.
        digests: SHA-256 of results.json and of model.json.
        excluded: the patients of the table who were set aside.
        prepared: what `ctfed prepare` left, None where it has not run.
        ledger: folder of the site's ledger, None where there is none.
        virtual: the site is a part of a table that stands for many.
        minimum: the fewest patients of what leaves.
        made: ISO time at which the report was made.
        model: name of the model in a study of many; '' in a study of one.
        others: all models of the run, of a study of many.
    """

    results: Mapping[str, Any]
    digests: Mapping[str, str]
    excluded: Sequence[Exclusion]
    prepared: PreparedFiles | None
    ledger: Path | None
    virtual: bool
    minimum: int
    made: str
    model: str = ""
    others: ModelFolder = field(default_factory=ModelFolder)


def site_content(rows: SiteRows, facts: SiteFacts) -> dict[str, Any]:
    """Everything that the local edition of a site's report shows.

    Raises:
        CtfedError: the ledger cannot be read, or the model names a column that the site lacks.
    """
    study = rows.model.study
    decisions, not_compared = decision(rows, facts.model, facts.others)
    content: dict[str, Any] = {
        "ctfed_site_report": FORMAT,
        "edition": "local",
        "minimum": facts.minimum,
        "made": facts.made,
        "study": {
            "name": study.name,
            "title": study.title,
            "sha256": study.sha256,
            "endpoint": study.endpoint.name,
            "time_unit": study.endpoint.time_unit,
            "level": rows.level,
            "horizons": list(rows.horizons),
            "grid": {"width": study.grid.width, "end": study.grid.end},
        },
        "site": {"name": rows.cohort.site, "virtual": facts.virtual, "model": facts.model},
        "flow": flow(rows, facts.excluded, facts.prepared, facts.virtual),
        "table_one": table_one(rows),
        "missing": missing_features(rows, study),
        "acquisition": acquisition(facts.prepared),
        "segmentation": segmentation(facts.prepared, SHEETS),
        "harmonization": harmonization(rows, facts.model, facts.others),
        "discrimination": {
            **discrimination(rows, study.evaluation.bootstrap, study.evaluation.seed),
            "training": concordance(SiteRows(rows.cohort, rows.model, "train")),
            "pooled": _pooled(facts.results, facts.model),
        },
        "calibration": calibration(rows),
        "baseline": recalibrated_baseline(rows),
        "curves": risk_groups(rows),
        "decision": decisions,
        "not_compared": not_compared,
        "consensus": consensus(rows, facts.results, facts.others),
        "explanation": explanation(rows),
        "subgroups": subgroups(rows),
        "provenance": _provenance(rows, facts),
        "ledger": _ledger(facts.ledger, study.sha256),
    }
    content["verdict"] = verdict(content)
    content["checklists"] = checklists(content, study)
    return content


def _pooled(results: Mapping[str, Any], model: str) -> dict[str, Any]:
    """What the run found over all its sites, of its test split; None for what its results do not hold."""
    found = Reader(results).section("discrimination")
    if model:
        found = next((row for row in Reader(results).rows("models") if row.text("name") == model), Reader({}))
    within, every = found.section("c_within"), found.section("c_pooled")

    def limits(reader: Reader, name: str = "value") -> dict[str, float | None] | None:
        if reader.number(name) is None:
            return None
        return {"value": reader.number(name), "lower": reader.number("lower"), "upper": reader.number("upper")}

    auc = [{"horizon": row.number("horizon"), **(limits(row, "auc") or {"value": None})} for row in found.rows("auc")]
    sites = Reader(results).section("sites").count("count")
    return {"split": found.text("split"), "sites": sites, "within": limits(within), "all": limits(every), "auc": auc}


def _provenance(rows: SiteRows, facts: SiteFacts) -> dict[str, Any]:
    run = Reader(facts.results).section("run")
    study = rows.model.study
    found: dict[str, Any] = {
        "ctfed": __version__,
        "python": platform.python_version(),
        "libraries": {name: _installed(name) for name in LIBRARIES},
        "study_sha256": study.sha256,
        "files": {**facts.digests, **facts.others.digests},
        "cohort_sha256": rows.cohort.fingerprint,
        "run": {
            "ctfed": run.text("ctfed_version"),
            "runner": run.text("runner"),
            "masked": run.flag("masked"),
            "started": run.text("started"),
            "rounds": run.count("rounds"),
        },
        "model": {
            "features": list(rows.model.view.names),
            "transforms": _transforms(rows.model.view),
            "nonzero": int((rows.model.coefficients != 0).sum()),
        },
        "prepare": None,
    }
    if facts.prepared is not None:
        about = facts.prepared.provenance
        keep = ("ctfed", "settings", "dictionary_sha256", "models", "foundation_model", "partial", "libraries")
        found["prepare"] = {name: about[name] for name in keep if name in about}
    return found


def _transforms(view: View) -> list[str]:
    """Kinds of the fitted steps, the innermost views' first, each once."""
    steps = [step for inner in reversed([*view.inner()]) for step in inner.transforms]
    return list(dict.fromkeys(step._wire_name for step in steps))  # type: ignore[attr-defined]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _ledger(folder: Path | None, study: str) -> dict[str, Any] | None:
    """What left this site for this study, by kind of question; None where no ledger is named."""
    if folder is None:
        return None
    check = check_ledger(folder, None)
    account = account_of(check.entries)
    runs = [run for run in account.runs.values() if run.study == study]
    kinds: dict[str, dict[str, Any]] = {}
    for run in runs:
        for one in run.rounds:
            for told in one.told:
                row = kinds.setdefault(
                    told.kind, {"kind": told.kind, "asked": 0, "numbers": 0, "zeros": 0, "fewest_patients": None}
                )
                row["asked"] += told.times
                row["numbers"] += told.numbers
                row["zeros"] += 0 if told.contributed else told.times
                fewest = row["fewest_patients"]
                row["fewest_patients"] = told.patients if fewest is None else min(fewest, told.patients)
    return {
        "whole": check.whole,
        "faults": list(check.faults),
        "entries": len(check.entries),
        "head": check.head,
        "runs": len(runs),
        "rounds": sum(len(run.rounds) for run in runs),
        "numbers": sum(one.numbers for run in runs for one in run.rounds),
        "bytes": sum(one.bytes for run in runs for one in run.rounds),
        "refusals": sum(run.refusals for run in runs),
        "kinds": [kinds[name] for name in sorted(kinds)],
    }
