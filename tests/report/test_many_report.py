"""The page of a study of many models: every model in its place, self-contained, and honest about what is not there."""

from __future__ import annotations

import base64
import copy
import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from page_reader import ParsedPage

from ctfed.report.exports import csv_text
from ctfed.report.many import SECTIONS, write_many_report
from ctfed.report.many_evaluation import best_of_tables
from ctfed.report.many_figures import Cell, Progress, difference_plot, progress_plot
from ctfed.report.palette import SERIES
from ctfed.report.reader import MalformedResults, Reader

HOSTILE = "<img src=x onerror=alert(1)>\"' $x^2$ --> \x00 & </text><script>alert(2)</script>"
HORIZONS = (24.0, 60.0)


def _group(name: str, survival: list[float]) -> dict[str, Any]:
    return {
        "name": name,
        "patients": 50,
        "events": 30,
        "time": [0.0, 24.0, 60.0],
        "survival": survival,
        "lower": [1.0, survival[1] - 0.1, survival[2] - 0.1],
        "upper": [1.0, survival[1] + 0.1, survival[2] + 0.1],
        "at_risk": [{"time": 0.0, "count": 50}, {"time": 60.0, "count": 12}],
    }


def _horizon(time: float, auc: float) -> dict[str, Any]:
    return {
        **{"horizon": time, "auc": auc, "auc_lower": auc - 0.07, "auc_upper": auc + 0.05, "auc_p": 0.004},
        **{"brier": 0.181, "brier_reference": 0.222, "observed_expected": 1.04, "observed_expected_lower": 0.91},
        **{"observed_expected_upper": 1.19, "slope": 0.93, "slope_lower": 0.61, "slope_upper": 1.25, "ici": 0.031},
        "slope_intercept": 0.1,
    }


def _model(name: str, table: str, c: float, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        **{"name": name, "label": f"Label {name}", "title": f"Title {name}", "kind": "model", "table": table},
        **{"harmonization": "None", "groups": ["Clinical"], "combat": [], "members": [], "subgroup": None},
        "train": {"patients": 604, "events": 401},
        "test": {"patients": 272, "events": 180},
        "c_within": {"value": c, "se": 0.02, "lower": c - 0.04, "upper": c + 0.04, "pairs": 9_000},
        "c_pooled": {
            "value": c,
            "lower": c - 0.05,
            "upper": c + 0.05,
            "bound_lower": c - 0.02,
            "bound_upper": c + 0.02,
        },
        "curves": {
            "threshold": 0.1,
            "groups": [_group("lower risk", [1.0, 0.8, 0.6]), _group("higher risk", [1.0, 0.5, 0.3])],
            "logrank": {"chi2": 14.8, "df": 1, "p": 0.0001},
            "hazard_ratio": {"hr": 1.87, "lower": 1.35, "upper": 2.58, "p": 0.0002},
        },
        "horizons": [_horizon(time, c + 0.1) for time in HORIZONS],
        "calibration": {
            "deciles": {"counts": [27.2] * 10, "chi2": 3.3, "df": 9, "p": 0.951},
            "curves": [
                {
                    "horizon": 24.0,
                    "bins": [
                        {
                            "patients": 90,
                            "predicted": r,
                            "observed": r,
                            "lower": r - 0.1,
                            "upper": r + 0.1,
                            "slack": 0.01,
                        }
                        for r in (0.2, 0.5, 0.8)
                    ],
                }
            ],
        },
        "decisions": [
            {
                "horizon": 24.0,
                "thresholds": [0.25, 0.5, 0.75],
                "treated": [0.9, 0.5, 0.2],
                "benefit": [0.4, 0.3, 0.1],
                "error": [0.03, 0.03, 0.02],
                "treat_all": [0.38, 0.1, -0.7],
            }
        ],
        "fit": {
            **{"penalizer": 0.031, "l1_ratio": 0.42, "components": 0, "columns": 2, "nonzero": 1},
            "coefficients": [{"feature": "Age", "column": "age", "coef_per_sd": 0.31, "hazard_ratio": 1.363}],
        },
        "search": {
            "trials": [
                {"penalizer": 0.01, "l1_ratio": 0.9, "components": 0, "score": 0.61},
                {"penalizer": 0.031, "l1_ratio": 0.42, "components": 0, "score": 0.64},
            ],
            "best": 1,
        },
        "selection": {"folds": 5, "selected": ["age", "sex"], "components": [], "considered": []},
        "explanation": {
            "patients": 272,
            "features": [{"feature": "Age", "column": "age", "mean_absolute": 0.251, "mean": 0.02, "sign": 1}],
            "groups": [{"group": "Clinical", "mean_absolute": 0.251}],
        },
        "warnings": ["a note on the preparation"],
    }
    return found | changes


def _consensus_row(name: str | None, horizon: float) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name, "title": "Consensus" if name is None else f"Title {name}", "horizon": horizon}
    for key, value in (("accuracy", 0.912), ("sensitivity", 0.934), ("specificity", 0.678), ("coverage", 0.78)):
        row |= {key: value, f"{key}_lower": value - 0.05, f"{key}_upper": value + 0.04}
    return row | {"harmonization": None, "auc": 0.92, "auc_bound_lower": 0.9, "auc_bound_upper": 0.94, "valid": 173}


def made() -> dict[str, Any]:
    """Three models in two tables, an ensemble and a consensus."""
    models = [
        _model("clinical", "3", 0.62),
        _model("lung", "4", 0.55, harmonization="ComBat", combat=["Lung"]),
        _model("tumour", "4", 0.66, subgroup="Stage: III to IV"),
        _model(
            "both",
            "8",
            0.7,
            kind="ensemble",
            members=["Title lung", "Title tumour"],
            fit=None,
            search=None,
            selection=None,
            explanation=None,
        ),
    ]
    names = [model["name"] for model in models]
    differences = [
        {"first": a, "second": b, "difference": -0.05, "lower": -0.09, "upper": -0.01, "p": 0.011, "p_holm": 0.033}
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]
    return {
        "study": {
            **{"name": "many", "title": "Many models", "sha256": "cd" * 32, "tables": ["3", "4", "8", "9"]},
            "endpoint": {"name": "overall survival", "time_unit": "months"},
            "horizons": list(HORIZONS),
            "confidence": 0.95,
            "search": {"sampler": "tpe", "seed": 11, "batch": 10, "folds": 5},
            "evaluation": {"bootstrap": 1000, "seed": 12},
            "selection": {"single": 0.9, "combined": 0.7, "share": 0.5},
            "harmonization": {"prior": "parametric", "mean_only": False, "minimum": 10, "unseen": "identity"},
            "projections": {"fm50": {"seed": 13}},
        },
        "run": {"runner": "in-process", "masked": True, "seconds": 61.0, "rounds": 1, "versions": {"numpy": "2.4.6"}},
        "sites": {"names": ["a", "b", "c"], "count": 3, "notes": []},
        "models": models,
        "evaluations": [{"rows": [], "names": names, "notes": [], "differences": differences}],
        "consensus": {
            "table": "9",
            "models": ["clinical", "lung"],
            "rows": [_consensus_row(name, time) for time in HORIZONS for name in ("clinical", "lung", None)],
        },
        "harmonized": [
            {
                **{"group": "Lung", "subgroup": None, "batches": 3, "rows": 604, "batches_left_out": 0},
                **{
                    "rows_left_out": 0,
                    "features": 106,
                    "passed": ["flat"],
                    "between_median": 0.31,
                    "between_p90": 0.62,
                },
            }
        ],
        "notes": ["no AUC at 60: too few patients leave"],
        "rounds": [{"round": 1, "queries": ["counts x 3"], "bytes_down": 900, "bytes_up": 1_300, "seconds": 0.2}],
    }


@pytest.fixture
def results() -> dict[str, Any]:
    return made()


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of all of it."""
    return write_many_report(made(), tmp_path_factory.mktemp("page"), tables).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> ParsedPage:
    return ParsedPage(html)


def tables(results: Reader) -> dict[str, str]:
    return {"models.csv": csv_text(("name",), ((row.text("name"),) for row in results.rows("models")))}


def page_of(results: dict[str, Any], folder: Path) -> ParsedPage:
    return ParsedPage(write_many_report(results, folder, tables).read_text(encoding="utf-8"))


def test_the_page_its_numbers_and_its_tables_are_written(results: dict[str, Any], tmp_path: Path) -> None:
    path = write_many_report(results, tmp_path / "new", tables)
    assert {file.name for file in path.parent.iterdir()} == {"report.html", "results.json", "models.csv"}
    assert json.loads((path.parent / "results.json").read_text(encoding="utf-8")) == results
    with (path.parent / "models.csv").open(encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["clinical", "lung", "tumour", "both"]


def test_every_table_has_its_models_in_the_papers_layout(page: ParsedPage) -> None:
    text = page.text
    assert "Table 3" in text
    row = "Label clinical None 604 (401) / 272 (180) 0.620 (0.580 to 0.660) 0.620 (0.570 to 0.670) 0.600 to 0.640"
    assert f"{row} 1.87 (1.35 to 2.58) <0.001 0.720 (0.650 to 0.770) 0.004" in text
    assert "Label tumour (Stage: III to IV) None" in text
    assert "Label both [Title lung; Title tumour]" in text
    assert "Title clinical 0.181 0.222 1.04 (0.91 to 1.19) 0.93 (0.61 to 1.25) 0.031 0.951" in text
    assert "Table 9, at 60 months" in text
    assert "0.780 (0.730 to 0.820)" in text


def test_what_combat_did_to_each_group_is_told(page: ParsedPage) -> None:
    assert "Lung 3 604 0 (0) 106 1 0.310 0.620" in page.text


def test_sections_stand_in_their_order(page: ParsedPage) -> None:
    anchors = [value for tag, name, value in page.attributes if tag == "section" and name == "id"]
    assert anchors == [key for key, _, _ in SECTIONS] + ["provenance"]
    assert page.tags["h1"] == 1
    assert len(page.values("id")) == len(set(page.values("id"))), "no id stands twice, in no figure"


def test_the_verdict_counts_models_better_than_chance_by_the_rule_that_it_prints(
    results: dict[str, Any], page: ParsedPage, tmp_path: Path
) -> None:
    text = page.text
    # Four models: 0.62, 0.66 and 0.7 are more than 2.5 standard errors of 0.02 above 0.5, 0.55 is not.
    assert "3 of 4 rank test patients better than chance" in text
    assert "Bonferroni" in text
    assert "The highest C within sites has Title both (table 8)." in text
    assert "3 of 3 others differ from the first model, Title clinical." in text
    assert "of many models the best one looks better than it is" in text
    results["models"] = results["models"][:1]
    results["models"][0]["c_within"]["se"] = 0.2
    results["evaluations"] = []
    assert "No model ranks better than chance" in page_of(results, tmp_path).text


def test_the_page_needs_nothing_else_and_runs_its_one_script_alone(html: str, page: ParsedPage) -> None:
    assert page.tags["script"] == 1
    assert page.tags["link"] == page.tags["iframe"] == page.tags["object"] == 0
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    (policy,) = [value for value in page.values("content") if "default-src" in value]
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert "default-src 'none'" in policy
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", html)
    assert "@import" not in html
    assert "data-sortable" in html


def test_seeds_hash_and_notes_are_told(page: ParsedPage) -> None:
    text = page.text
    assert "cd" * 32 in text
    assert "Seed of the searches 11 Seed of the bootstrap 12 Seed of the projection of fm50 13" in text
    assert "no AUC at 60: too few patients leave" in text
    assert "a note on the preparation" in text
    assert "Models with ComBat 1 of 3" in text


def test_the_models_with_figures_are_the_best_of_each_table(results: dict[str, Any]) -> None:
    assert [model.text("name") for model in best_of_tables(Reader(results))] == ["clinical", "tumour", "both"]


MISSING = {
    "sites": "The results do not say which sites took part.",
    "models": "The results hold no models.",
    "evaluations": "No two models are of the same patients and differ.",
    "consensus": "The results hold no consensus",
    "rounds": "The results do not list the rounds",
}


@pytest.mark.parametrize("gone", MISSING)
def test_a_missing_section_is_said_to_be_missing(
    results: dict[str, Any], page: ParsedPage, tmp_path: Path, gone: str
) -> None:
    assert MISSING[gone] not in page.text
    results["models"] = [results["models"][0] | {"calibration": {}, "decisions": [], "curves": {}}]
    results["evaluations"] = []
    results[gone] = None
    assert MISSING[gone] in page_of(results, tmp_path).text


def test_a_study_with_too_few_patients_has_a_page_that_says_so(results: dict[str, Any], tmp_path: Path) -> None:
    model = _model("clinical", "3", 0.5, c_pooled=None, decisions=[], explanation=None)
    nothing = {"value": None, "se": None, "lower": None, "upper": None, "pairs": 0}
    model |= {"c_within": nothing, "curves": {"groups": []}, "calibration": {"deciles": None, "curves": []}}
    model["horizons"] = [{"horizon": time, "auc": None} for time in HORIZONS]
    text = page_of(results | {"models": [model], "evaluations": [], "consensus": None}, tmp_path).text
    assert "No model ranks better than chance" in text
    assert "No model has a C" in text
    assert "No model has survival curves" in text
    assert "No model has a calibration curve" in text
    assert "No two models" in text


def test_names_from_outside_stay_text(results: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(results)
    model = changed["models"][0]
    model |= {"label": HOSTILE, "title": HOSTILE, "groups": [HOSTILE], "warnings": [HOSTILE]}
    model["explanation"]["features"][0]["feature"] = HOSTILE
    changed["models"] = [model, changed["models"][1]]
    changed["evaluations"][0]["names"] = ["clinical", "lung"]
    changed["evaluations"][0]["differences"] = changed["evaluations"][0]["differences"][:1]
    page = page_of(changed, tmp_path)
    assert page.tags["img"] == 0
    assert page.tags["script"] == 1
    assert "onerror" not in {name for _, name, _ in page.attributes}


def test_the_same_results_give_the_same_bytes(results: dict[str, Any], tmp_path: Path) -> None:
    results["models"] = results["models"][:2]
    results["evaluations"] = []
    first, second = (write_many_report(results, tmp_path / name, tables).read_bytes() for name in "ab")
    assert first == second


def test_a_value_of_the_wrong_type_is_named_and_nothing_is_written(results: dict[str, Any], tmp_path: Path) -> None:
    results["models"][0]["c_within"]["value"] = "high"
    with pytest.raises(MalformedResults, match=r"results\.models\[0\]\.c_within\.value: expected a finite number"):
        write_many_report(results, tmp_path, tables)
    assert list(tmp_path.iterdir()) == []


def test_figures_refuse_what_they_cannot_draw() -> None:
    with pytest.raises(ValueError, match="no difference"):
        difference_plot("a", "t", "alt", ["x"], [])
    with pytest.raises(ValueError, match="expected 1 to 4 searches, found 5"):
        progress_plot("a", "t", "alt", [Progress("x", (0.5,))] * (len(SERIES) + 1))
    assert "<svg" in difference_plot("a", "t", "alt", ["x", "y"], [Cell(0, 1, 0.1, True)])
