"""The tables of a study of many models as a reader knows them from the paper: one row a model, one table a theme."""

from __future__ import annotations

from collections.abc import Sequence

from ctfed.report import wording as say
from ctfed.report.components import Block, Column, Notice, Prose, Table, not_shown
from ctfed.report.reader import Reader

SORTED = "A click on a heading sorts the table, where scripts are on."


def table_blocks(results: Reader) -> tuple[Block, ...]:
    """One table for each of the study's, then calibration and errors of all models ('models', 'study')."""
    models = results.rows("models")
    if not models:
        return (not_shown("The results hold no models."),)
    study = results.section("study")
    blocks: list[Block] = []
    for name in study.texts("tables"):
        rows = [row for row in models if row.text("table") == name]
        if rows:
            blocks.append(_performance(name, rows, study))
    blocks += [_risks(models, study, horizon) for horizon in horizons_of(study)]
    return (*blocks, Prose(_basis(study), "basis"))


def consensus_blocks(results: Reader) -> tuple[Block, ...]:
    """Classification by each model and by the consensus, at every horizon ('consensus')."""
    consensus = results.section("consensus")
    if not consensus:
        return (not_shown("The results hold no consensus; where the study asked for one, a note says why."),)
    study = results.section("study")
    rows = consensus.rows("rows")
    times = dict.fromkeys(row.number("horizon") for row in rows)
    name = consensus.text("table") or "consensus"
    tables = [_classified(name, [row for row in rows if row.number("horizon") == t], t, study) for t in times]
    basis = (
        "A model predicts an event by the horizon where its score lies above a threshold, the one with the highest "
        "sensitivity + specificity in the training patients. The consensus stands for the patients on whom all models "
        "agree; coverage is their share of the valid patients, whose state at the horizon is known. Intervals of "
        "proportions are Wilson's; the certified bounds of the consensus' AUC are limits of arithmetic, not of chance. "
        "Computed from: counts of patients by call and state, added over sites."
    )
    return (*tables, Prose((basis,), "basis"))


def horizons_of(study: Reader) -> list[float]:
    """The horizons of the study."""
    return [value for value in study.numbers("horizons") if value is not None]


def at(study: Reader, horizon: float | None) -> str:
    """'at 24 months'."""
    return f"at {say.compact(horizon, 6)} {study.section('endpoint').text('time_unit') or ''}".rstrip()


def estimate(value: float | None, lower: float | None, upper: float | None, digits: int = 3) -> str:
    """'0.730 (0.691 to 0.765)'; without limits the value alone."""
    limits = say.interval(lower, upper, digits)
    return say.fixed(value, digits) if limits == say.MISSING else f"{say.fixed(value, digits)} ({limits})"


def of(row: Reader, *keys: str, digits: int = 3) -> str:
    """The estimate whose value and limits stand under three keys."""
    value, lower, upper = (row.number(key) for key in keys)
    return estimate(value, lower, upper, digits)


def at_horizon(model: Reader, horizon: float) -> Reader:
    """A model's row of a horizon; empty where there is none."""
    return next((row for row in model.rows("horizons") if row.number("horizon") == horizon), Reader({}))


def size_text(model: Reader) -> str:
    """Patients in training and test, with their events: '604 (401) / 272 (180)'."""
    parts = [model.section(split) for split in ("train", "test")]
    return " / ".join(f"{say.whole(part.count('patients'))} ({say.whole(part.count('events'))})" for part in parts)


def _performance(name: str, models: Sequence[Reader], study: Reader) -> Table:
    horizons = horizons_of(study)
    columns = [Column("Model", False), Column("Harmonization", False), Column("n (events) train / test")]
    columns += [Column("C within sites (95 % CI)"), Column("C, all pairs (95 % CI)"), Column("certified bounds")]
    columns += [Column("HR of the median split (95 % CI)"), Column("p (log-rank)")]
    for horizon in horizons:
        columns += [Column(f"AUC {at(study, horizon)} (95 % CI)"), Column("p")]
    rows = tuple(_performance_row(model, horizons) for model in models)
    return Table(f"Table {name}", tuple(columns), rows, note=SORTED if len(rows) > 1 else "", sortable=True)


def _performance_row(model: Reader, horizons: Sequence[float]) -> tuple[str, ...]:
    curves, pooled = model.section("curves"), model.section("c_pooled")
    cells = [
        _label(model),
        model.text("harmonization") or say.MISSING,
        size_text(model),
        of(model.section("c_within"), "value", "lower", "upper"),
        of(pooled, "value", "lower", "upper"),
        say.interval(pooled.number("bound_lower"), pooled.number("bound_upper")),
        of(curves.section("hazard_ratio"), "hr", "lower", "upper", digits=2),
        say.p_value(curves.section("logrank").number("p")),
    ]
    for horizon in horizons:
        row = at_horizon(model, horizon)
        cells += [of(row, "auc", "auc_lower", "auc_upper"), say.p_value(row.number("auc_p"))]
    return tuple(cells)


def _label(model: Reader) -> str:
    parts = [model.text("label") or model.text("name") or "unnamed"]
    if model.text("subgroup"):
        parts.append(f"({model.text('subgroup')})")
    if model.texts("members"):
        parts.append(f"[{'; '.join(model.texts('members'))}]")
    return " ".join(parts)


def _risks(models: Sequence[Reader], study: Reader, horizon: float) -> Table:
    names = ("Brier", "of no model", "Observed / expected (95 % CI)", "Calibration slope (95 % CI)", "ICI")
    rows = []
    for model in models:
        row = at_horizon(model, horizon)
        rows.append(
            (
                model.text("title") or "unnamed",
                say.fixed(row.number("brier")),
                say.fixed(row.number("brier_reference")),
                of(row, "observed_expected", "observed_expected_lower", "observed_expected_upper", digits=2),
                of(row, "slope", "slope_lower", "slope_upper", digits=2),
                say.fixed(row.number("ici")),
                say.p_value(model.section("calibration").section("deciles").number("p")),
            )
        )
    columns = (Column("Model", False), *map(Column, names), Column("p (D-calibration, all times)"))
    caption = f"Predicted risks {at(study, horizon)}"
    return Table(caption, columns, tuple(rows), note=SORTED, folded=len(rows) > 8, sortable=True)


def _basis(study: Reader) -> tuple[str, ...]:
    evaluation = study.section("evaluation")
    replicates = say.whole(evaluation.count("bootstrap"))
    return (
        "All of it in the test patients. C within sites: pairs of patients of the same site, counted at the sites and "
        "added; interval by influence functions. C of all pairs and AUC: from counts of events and of censored "
        "patients by time and score bin, added over sites; intervals and the two-sided p of AUC = 0.5 from "
        f"{replicates} Poisson bootstrap replicates of these counts, drawn at the server. The certified bounds hold "
        "whatever the order of patients who share a bin: they are limits of arithmetic, not of chance.",
        "HR: a Cox model of high against low risk, split at the training median, risk sets of each site. AUC, Brier "
        "score, observed / expected and calibration weigh patients by the inverse probability of censoring. ICI: mean "
        "distance of predicted from recalibrated risk.",
        "p-values are as they are: of many models some are small by chance. The differences between models below are "
        "corrected by Holm's method.",
    )


def _classified(name: str, rows: Sequence[Reader], horizon: float | None, study: Reader) -> Table:
    measures = ("accuracy", "sensitivity", "specificity", "coverage")
    columns = (
        Column("Model", False),
        Column("Harmonization", False),
        *(Column(f"{measure.capitalize()} (95 % CI)") for measure in measures),
        Column("AUC (95 % CI)"),
        Column("certified bounds"),
        Column("Valid patients"),
    )
    cells = tuple(
        (
            row.text("title") or "unnamed",
            row.text("harmonization") or say.MISSING,
            *(of(row, measure, f"{measure}_lower", f"{measure}_upper") for measure in measures),
            of(row, "auc", "auc_lower", "auc_upper"),
            say.interval(row.number("auc_bound_lower"), row.number("auc_bound_upper")),
            say.whole(row.count("valid")),
        )
        for row in rows
    )
    return Table(f"Table {name}, {at(study, horizon)}", columns, cells, sortable=True)


def note_blocks(results: Reader) -> tuple[Block, ...]:
    """What could not be had ('notes')."""
    notes = results.texts("notes")
    return (Notice("note", "What could not be had", notes),) if notes else ()
