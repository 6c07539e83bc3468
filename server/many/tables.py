"""The tables of a study of many models as CSV files, made of the mapping of ``server.many.results``: they always agree.

There is one file for each ``table`` of the study, in the layout of the paper's Tables 3 to 9 with a column for each
number, and one for each further list of numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ctfed.report.exports import Cell, csv_text
from ctfed.report.reader import Reader

PROPORTIONS = ("accuracy", "sensitivity", "specificity", "coverage")
_AUC = ("auc", "auc_lower", "auc_upper", "auc_bound_lower", "auc_bound_upper", "auc_p")
_RISKS = (
    *("brier", "brier_reference", "brier_scaled"),
    *("observed_expected", "observed_expected_lower", "observed_expected_upper"),
    *("slope", "slope_lower", "slope_upper", "ici"),
)
_HEAD = (
    *(
        "label",
        "harmonization",
        "subgroup",
        "members",
        "patients_train",
        "events_train",
        "patients_test",
        "events_test",
    ),
    *("c_within", "c_within_lower", "c_within_upper", "c", "c_lower", "c_upper", "c_bound_lower", "c_bound_upper"),
    *("hazard_ratio", "hazard_ratio_lower", "hazard_ratio_upper", "p_logrank"),
)


def table_file(table: str) -> str:
    """The file's name of a table: 'table_3.csv'."""
    return f"table_{re.sub(r'[^A-Za-z0-9.-]+', '_', table).strip('_.') or 'unnamed'}.csv"


def table_files(results: Reader) -> dict[str, str]:
    """Every CSV file's name and text.

    Raises:
        MalformedResults: a value has another type than its column.
    """
    horizons = [value for value in results.section("study").numbers("horizons") if value is not None]
    consensus = results.section("consensus")
    files: dict[str, str] = {table_file("1"): csv_text(_PATIENTS, _patients(results.section("characteristics")))}
    for table in results.section("study").texts("tables"):
        models = [row for row in results.rows("models") if row.text("table") == table]
        if models:
            header = (*_HEAD, *_at(horizons, (*_AUC, *_RISKS)), "name")
            files[table_file(table)] = csv_text(header, (_model(row, horizons) for row in models))
        if consensus.text("table") == table:
            name = table_file(f"{table} consensus" if models else table)
            keys = (*_with_limits(PROPORTIONS), *_AUC, "valid")
            files[name] = csv_text(("label", "harmonization", *_at(horizons, keys)), _consensus(consensus, horizons))
    return files | _lists(results)


_PATIENTS = ("characteristic", "level", "split", "count", "share", "mean", "sd", "missing", "p", "test")


def _patients(found: Reader) -> Iterable[list[Cell]]:
    """One line per variable or level and split."""
    for row in found.rows("rows"):
        comparison = row.section("comparison")
        for group in found.rows("groups"):
            name = group.text("name") or ""
            cell = row.section("groups").section(name)
            numbers = [cell.number(key) for key in ("count", "share", "mean", "sd", "missing")]
            tested = [comparison.number("p"), comparison.text("test")]
            yield [row.text("label"), row.text("level"), name, *numbers, *tested]


def _at(horizons: Sequence[float], keys: Sequence[str]) -> list[str]:
    """Column names at every horizon: 'auc_24'."""
    return [f"{key}_{horizon:g}" for horizon in horizons for key in keys]


def _with_limits(keys: Sequence[str]) -> list[str]:
    return [name for key in keys for name in (key, f"{key}_lower", f"{key}_upper")]


def _model(row: Reader, horizons: Sequence[float]) -> list[Cell]:
    within, pooled, curves = row.section("c_within"), row.section("c_pooled"), row.section("curves")
    ratio = curves.section("hazard_ratio")
    by_time = {one.number("horizon"): one for one in row.rows("horizons")}
    return [
        *(row.text("label"), row.text("harmonization"), row.text("subgroup"), "; ".join(row.texts("members"))),
        *(row.section(split).count(key) for split in ("train", "test") for key in ("patients", "events")),
        *(within.number(key) for key in ("value", "lower", "upper")),
        *(pooled.number(key) for key in ("value", "lower", "upper", "bound_lower", "bound_upper")),
        *(ratio.number(key) for key in ("hr", "lower", "upper")),
        curves.section("logrank").number("p"),
        *(by_time[horizon].number(key) for horizon in horizons for key in (*_AUC, *_RISKS)),
        row.text("name"),
    ]


def _consensus(consensus: Reader, horizons: Sequence[float]) -> Iterable[list[Cell]]:
    """One row per model, the consensus last; the numbers of all horizons beside each other."""
    rows = consensus.rows("rows")
    keys = (*_with_limits(PROPORTIONS), *_AUC)
    for title in dict.fromkeys(row.text("title") for row in rows):
        own = [row for row in rows if row.text("title") == title]
        cells: list[Cell] = [title, own[0].text("harmonization")]
        by_time = {row.number("horizon"): row for row in own}
        for horizon in horizons:
            one = by_time[horizon]
            cells += [*(one.number(key) for key in keys), one.count("valid")]
        yield cells


def _lists(results: Reader) -> dict[str, str]:
    """What is no table of the paper: differences, coefficients, search, selection, SHAP, curves, rounds."""
    models = results.rows("models")
    return {
        "differences.csv": csv_text(
            ("first", "second", "difference", "se", "lower", "upper", "p", "p_holm"), _differences(results)
        ),
        "coefficients.csv": csv_text(
            ("model", "column", "coef_per_sd", "hazard_ratio", "mean_absolute_shap", "mean_shap"), _coefficients(models)
        ),
        "search.csv": csv_text(
            ("model", "trial", "penalizer", "l1_ratio", "components", "score", "best"), _search(models)
        ),
        "selection.csv": csv_text(("model", "column", "folds", "selected"), _selection(models)),
        "curves.csv": csv_text(
            ("model", "group", "time", "survival", "lower", "upper", "at_risk"),
            _curves(models),
        ),
        "calibration.csv": csv_text(
            ("model", "horizon", "bin", "patients", "predicted", "observed", "lower", "upper", "slack"),
            _calibration(models),
        ),
        "decisions.csv": csv_text(
            ("model", "horizon", "threshold", "treated", "benefit", "error", "treat_all"), _decisions(models)
        ),
        "baseline.csv": csv_text(("model", "time", "cumulative_hazard"), _baseline(models)),
        "rounds.csv": csv_text(
            ("round", "queries", "bytes_down", "bytes_up", "seconds"),
            (
                (
                    row.count("round"),
                    "; ".join(row.texts("queries")),
                    *(row.number(key) for key in ("bytes_down", "bytes_up")),
                    row.number("seconds"),
                )
                for row in results.rows("rounds")
            ),
        ),
    }


def _differences(results: Reader) -> Iterable[list[Cell]]:
    for evaluation in results.rows("evaluations"):
        for row in evaluation.rows("differences"):
            keys = ("difference", "se", "lower", "upper", "p", "p_holm")
            yield [row.text("first"), row.text("second"), *(row.number(key) for key in keys)]


def _coefficients(models: Sequence[Reader]) -> Iterable[list[Cell]]:
    for model in models:
        shap = {row.text("column"): row for row in model.section("explanation").rows("features")}
        for row in model.section("fit").rows("coefficients"):
            told = shap.get(row.text("column"))
            values = (None, None) if told is None else (told.number("mean_absolute"), told.number("mean"))
            coefficient = (row.number("coef_per_sd"), row.number("hazard_ratio"))
            yield [model.text("name"), row.text("column"), *coefficient, *values]


def _search(models: Sequence[Reader]) -> Iterable[list[Cell]]:
    for model in models:
        best = model.section("search").count("best")
        for index, row in enumerate(model.section("search").rows("trials")):
            where = (row.number("penalizer"), row.number("l1_ratio"), row.count("components"))
            yield [model.text("name"), index, *where, row.number("score"), int(index == best)]


def _selection(models: Sequence[Reader]) -> Iterable[list[Cell]]:
    for model in models:
        chosen = {*model.section("selection").texts("selected")}
        for row in model.section("selection").rows("considered"):
            column = row.text("column")
            yield [model.text("name"), column, row.count("folds"), int(column in chosen)]


def _curves(models: Sequence[Reader]) -> Iterable[list[Cell]]:
    for model in models:
        for group in model.section("curves").rows("groups"):
            columns = [group.numbers(key) for key in ("time", "survival", "lower", "upper")]
            at_risk = [row.count("count") for row in group.rows("at_risk")]
            for cells in zip(*columns, at_risk, strict=True):
                yield [model.text("name"), group.text("name"), *cells]


def _calibration(models: Sequence[Reader]) -> Iterable[list[Cell]]:
    for model in models:
        for curve in model.section("calibration").rows("curves"):
            for index, row in enumerate(curve.rows("bins")):
                values = (row.number(key) for key in ("predicted", "observed", "lower", "upper", "slack"))
                yield [model.text("name"), curve.number("horizon"), index, row.count("patients"), *values]


def _decisions(models: Sequence[Reader]) -> Iterable[list[Cell]]:
    for model in models:
        for curve in model.rows("decisions"):
            columns = [curve.numbers(key) for key in ("thresholds", "treated", "benefit", "error", "treat_all")]
            for cells in zip(*columns, strict=True):
                yield [model.text("name"), curve.number("horizon"), *cells]


def _baseline(models: Sequence[Reader]) -> Iterable[list[Cell]]:
    for model in models:
        section = model.section("baseline")
        for time, hazard in zip(section.numbers("time"), section.numbers("cumulative_hazard"), strict=True):
            yield [model.text("name"), time, hazard]
