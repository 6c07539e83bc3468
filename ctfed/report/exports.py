"""The numbers behind the page as files: results.json and one CSV for each table of numbers."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctfed.report.reader import Reader

Cell = str | int | float | None

_INFERENCE = ("lower", "upper", "se", "z", "p")
_EFFECTS = ("feature", "coef", "coef_per_sd", "hazard_ratio", *_INFERENCE, *(f"robust_{name}" for name in _INFERENCE))


def json_text(results: Mapping[str, Any]) -> str:
    """Plain results as JSON: sorted keys, numbers in their shortest form that reads back to the same bits."""
    return json.dumps(results, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def csv_tables(results: Reader) -> dict[str, str]:
    """Every CSV file's name and text; a section that is missing leaves its file with the header alone.

    Raises:
        MalformedResults: a value has another type than its column, or columns of one curve differ in length.
    """
    return {
        "coefficients.csv": csv_text(("fit", *_EFFECTS), _coefficients(results.section("model"))),
        "tuning.csv": csv_text(
            ("trial", "penalizer", "l1_ratio", "score", "score_se", "nonzero", "best"),
            _tuning(results.section("tuning")),
        ),
        "curves.csv": csv_text(
            ("group", "time", "survival", "lower", "upper", "at_risk"), _curves(results.section("curves"))
        ),
        "rounds.csv": csv_text(
            ("round", "queries", "bytes_down", "bytes_up", "seconds"), _rounds(results.rows("rounds"))
        ),
        "baseline.csv": csv_text(("time", "cumulative_hazard", "survival"), _baseline(results.section("baseline"))),
    }


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all: a reader never meets half a file."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(text.encode("utf-8"))
    os.replace(partial, path)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table as CSV; texts that a spreadsheet would run as formulas stay texts."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        # A spreadsheet runs a text that begins like a formula; an apostrophe keeps it a text.
        return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
    return repr(value)


def _coefficients(model: Reader) -> Iterable[Sequence[Cell]]:
    for key, fit in (("coefficients", "model"), ("unpenalised", "unpenalised")):
        for row in model.rows(key):
            yield fit, row.text("feature"), *(row.number(name) for name in _EFFECTS[1:])


def _tuning(tuning: Reader) -> Iterable[Sequence[Cell]]:
    best = tuning.count("best")
    for index, row in enumerate(tuning.rows("trials")):
        measured = (row.number(name) for name in ("penalizer", "l1_ratio", "score", "score_se"))
        yield index, *measured, _tidy(row.number("nonzero")), int(index == best)


def _tidy(value: float | None) -> Cell:
    """A whole number without its '.0': the count of one fit is whole, the mean over folds need not be."""
    return int(value) if value is not None and value == int(value) else value


def _curves(curves: Reader) -> Iterable[Sequence[Cell]]:
    for group in curves.rows("groups"):
        name = group.text("name")
        time = group.numbers("time")
        columns = [group.numbers(key, len(time)) or (None,) * len(time) for key in ("survival", "lower", "upper")]
        points = dict(zip(time, zip(*columns, strict=True), strict=True))
        at_risk = {row.number("time"): row.count("count") for row in group.rows("at_risk")}
        times = {moment for moment in (*points, *at_risk) if moment is not None}
        for moment in sorted(times):
            yield name, moment, *points.get(moment, (None, None, None)), at_risk.get(moment)


def _rounds(rounds: Iterable[Reader]) -> Iterable[Sequence[Cell]]:
    for row in rounds:
        counts = (row.count(key) for key in ("bytes_down", "bytes_up"))
        yield row.count("round"), "; ".join(row.texts("queries")), *counts, row.number("seconds")


def _baseline(baseline: Reader) -> Iterable[Sequence[Cell]]:
    time = baseline.numbers("time")
    columns = [baseline.numbers(key, len(time)) or (None,) * len(time) for key in ("cumulative_hazard", "survival")]
    yield from zip(time, *columns, strict=True)
