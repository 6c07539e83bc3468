"""METRICS, CLEAR and TRIPOD+AI, filled with what the tool knows of a run; the rest is marked for the author.

What is filled says where the page, the study or a file shows it. It holds no count of patients, so that the tables are
the same in both editions; a person still has to judge whether an item is fulfilled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctfed.report.site_checklist_items import CLEAR, METRICS, TRIPOD, WORDING
from ctfed.study import Study

Evidence = Mapping[str, str]


def checklists(content: Mapping[str, Any], study: Study) -> dict[str, Any]:
    """The three tables; an empty ``evidence`` is the author's to fill."""
    known = _known(content, study)
    weights = {number: weight for number, _, weight in METRICS}
    metrics = _rows([item[:2] for item in METRICS], _metrics(known))
    for row in metrics:
        row["weight"] = weights[row["item"]]
    tables: dict[str, dict[str, Any]] = {
        "metrics": {"rows": metrics, "filled_weight": round(sum(r["weight"] for r in metrics if r["evidence"]), 4)},
        "clear": {"rows": _rows(CLEAR, _clear(known))},
        "tripod": {"rows": _rows(TRIPOD, _tripod(known))},
    }
    return {key: {**table, "wording": WORDING[key]} for key, table in tables.items()}


def _rows(items: Sequence[tuple[str, str]], evidence: Evidence) -> list[dict[str, Any]]:
    return [{"item": number, "subject": text, "evidence": evidence.get(number, "")} for number, text in items]


def _known(content: Mapping[str, Any], study: Study) -> dict[str, str]:
    """Sentences that several items share, by subject; '' where nothing is known."""
    prepare, sites = content["provenance"]["prepare"], content["discrimination"]["pooled"]["sites"]
    chosen = study.evaluation
    how = str(study.split)
    found = {
        "centres": f"{sites} centres" if sites and sites > 1 else "",
        "split": f"{how}; tuning in folds of the training part",
        "metrics": "Harrell's and Uno's C, AUC at the study's horizons, Brier score, calibration, net benefit",
        "uncertainty": f"{chosen.confidence:.0%} intervals: influence function, Poisson bootstrap, Greenwood, sandwich",
        "calibration": "section Calibration",
        "missing": "filled in on training patients as the study says for each variable; section Cohort",
        "outcome": f"{study.endpoint.name}, at {', '.join(f'{h:g}' for h in chosen.horizons)} "
        f"{study.endpoint.time_unit}",
        "model": "Cox model with an elastic-net penalty; model.json holds it whole",
        "tuning": "cross-validated path of penalties" if study.tuning else "the study gives the penalty",
        "predictors": "the study's data dictionary: type, unit and plausible range of each variable",
        "explanation": "exact SHAP values of the linear score; section Explanation",
        "code": "ctfed is open source under Apache-2.0; its version is in section Provenance",
        "segmentation": "",
        "extraction": "",
        "scaling": "mean 0 and standard deviation 1 over the federation's training patients, where the study "
        "standardises",
    }
    if prepare is not None:
        models = [str(one.get("model", "a model")) for one in prepare.get("models", ())]
        digest = str(prepare.get("settings", {}).get("sha256", ""))[:12]
        found["segmentation"] = f"{', '.join(models) or 'given masks'}; volumes and sheets in section Segmentation"
        found["extraction"] = f"PyRadiomics; settings {digest}, whole in the extraction file"
    return found


def _metrics(known: Mapping[str, str]) -> Evidence:
    return {
        "1": "this table and the two below",
        "4": known["centres"],
        "8": known["segmentation"],
        "11": known["extraction"],
        "12": known["extraction"],
        "13": known["extraction"],
        "18": known["split"],
        "20": known["metrics"],
        "21": known["uncertainty"],
        "22": known["calibration"],
        "26": "the test split of each centre, untouched by training",
        "29": known["code"],
        "30": "model.json",
    }


def _clear(known: Mapping[str, str]) -> Evidence:
    return {
        "7": "METRICS, CLEAR and TRIPOD+AI (here)",
        "15": known["split"],
        "17": known["predictors"],
        "19": known["segmentation"],
        "21": known["extraction"],
        "22": known["extraction"],
        "23": known["extraction"],
        "25": known["extraction"],
        "29": known["missing"],
        "32": known["scaling"],
        "34": known["model"],
        "35": known["tuning"],
        "38": "the test split of each centre",
        "39": known["metrics"],
        "40": known["uncertainty"],
        "43": known["explanation"],
        "44": "section Table 1",
        "45": "section Cohort",
        "47": "sections Discrimination and Calibration",
        "55": known["extraction"],
        "56": known["code"],
        "57": "model.json",
        "58": "`ctfed predict --model model.json`",
    }


def _tripod(known: Mapping[str, str]) -> Evidence:
    return {
        "6a": known["centres"],
        "7": known["extraction"],
        "8a": known["outcome"],
        "9b": known["predictors"],
        "11": known["missing"],
        "12a": known["split"],
        "12b": f"linear in the score, after the transforms that section Provenance names; {known['scaling']}",
        "12c": f"{known['model']}; {known['tuning']}",
        "12d": "this report for each centre, beside the pooled figures",
        "12e": known["metrics"],
        "12f": "section Baseline of this site",
        "12g": "1 - exp(-H0(t) exp(score)); `ctfed predict`",
        "13": "no method for class imbalance is used: the outcome is a time",
        "14": "performance by subgroup, section Subgroups; nothing in the model is changed for fairness",
        "15": "risk at each horizon; two risk groups at the training median",
        "16": "section Table 1: this site beside the federation",
        "18f": known["code"],
        "20a": "section Cohort",
        "20b": "section Table 1",
        "20c": "section Table 1",
        "21": "section Cohort",
        "22": "model.json",
        "23a": "sections Discrimination, Calibration and Subgroups",
        "23b": "the reports of all centres together",
        "24": "section Baseline of this site",
        "27a": "missing values are filled in as in training; `ctfed predict` reads a table with the study's checks",
    }
