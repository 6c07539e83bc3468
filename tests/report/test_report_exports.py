"""The CSV and JSON files: every number to its last bit, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pytest

from ctfed.report.exports import csv_tables, json_text
from ctfed.report.reader import MalformedResults, Reader


def table(results: dict[str, Any], name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_tables(Reader(results))[name])))


def test_coefficients_hold_both_fits(results: dict[str, Any]) -> None:
    rows = table(results, "coefficients.csv")
    assert [(row["fit"], row["feature"]) for row in rows] == [
        ("model", "age"),
        ("model", "sex"),
        ("unpenalised", "age"),
        ("unpenalised", "sex"),
    ]
    assert float(rows[1]["coef"]) == results["model"]["coefficients"][1]["coef"]
    assert rows[1]["se"] == rows[1]["p"] == ""
    assert float(rows[3]["p"]) == 0.0006
    assert rows[1]["robust_se"] == rows[1]["robust_p"] == ""
    assert [float(row["robust_se"]) for row in rows[2:]] == [0.114, 0.096]
    assert float(rows[3]["robust_upper"]) == 0.84


def test_tuning_marks_the_chosen_trial(results: dict[str, Any]) -> None:
    rows = table(results, "tuning.csv")
    assert [row["best"] for row in rows] == ["0", "1", "0"]
    assert [row["nonzero"] for row in rows] == ["2", "1.4", "0"]
    assert rows[2]["score"] == ""


def test_curves_join_survival_and_numbers_at_risk_by_time(results: dict[str, Any]) -> None:
    results["curves"]["groups"][0]["at_risk"].append({"time": 100.0, "count": 30})
    rows = [row for row in table(results, "curves.csv") if row["group"] == "lower risk"]
    assert [float(row["time"]) for row in rows] == [0.0, 100.0, 180.0, 360.0]
    assert [row["at_risk"] for row in rows] == ["34", "30", "", ""]
    assert [row["survival"] for row in rows] == ["1.0", "", "0.8", "0.6"]


def test_rounds_and_baseline_hold_every_row(results: dict[str, Any]) -> None:
    rounds = table(results, "rounds.csv")
    assert rounds[1]["queries"] == "CoxDerivatives x 5; PairCounts x 1"
    assert rounds[1]["bytes_up"] == "80000"
    assert [float(row["cumulative_hazard"]) for row in table(results, "baseline.csv")] == [0.1, 0.25]


def test_numbers_read_back_to_the_same_bits(results: dict[str, Any]) -> None:
    results["baseline"]["survival"] = [1 / 3, math.pi * 1e-200]
    assert [float(row["survival"]) for row in table(results, "baseline.csv")] == results["baseline"]["survival"]
    assert json.loads(json_text(results))["baseline"]["survival"] == results["baseline"]["survival"]


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "-x", "@SUM(A1)", "\tx"])
def test_a_name_that_looks_like_a_formula_is_a_text(results: dict[str, Any], name: str) -> None:
    results["model"]["coefficients"][0]["feature"] = name
    assert table(results, "coefficients.csv")[0]["feature"] == f"'{name}"


def test_columns_of_different_lengths_are_refused(results: dict[str, Any]) -> None:
    results["baseline"]["survival"] = [0.9]
    with pytest.raises(MalformedResults, match=r"results\.baseline\.survival: expected 2 numbers, found 1"):
        csv_tables(Reader(results))
