"""Many models judged in pictures: forest plot, survival by risk group, calibration, net benefit, differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ctfed.report import wording as say
from ctfed.report.components import Block, Chart, Column, Notice, Prose, Table, not_shown
from ctfed.report.figures_effects import Effect, Series, effect_plot
from ctfed.report.many_figures import Cell, difference_plot
from ctfed.report.many_tables import at, at_horizon, horizons_of, of
from ctfed.report.pooled_evaluation import curve_of, survival_chart
from ctfed.report.reader import Reader
from ctfed.report.site_figures import Line, benefit_plot, calibration_plot

MOST_SHOWN = 8  # models with figures of their own
MOST_ROWS = 400
SIGNIFICANT = 0.05
CHOICE = "Shown is, of each table, the model with the highest C within sites; the CSV files have all."


def best_of_tables(results: Reader) -> list[Reader]:
    """Of each table, the model or ensemble with the highest C within sites in the test patients, at most eight."""
    found: dict[str, Reader] = {}
    for model in results.rows("models"):
        table, value = model.text("table") or "", _c(model)
        if value is not None and (table not in found or value > (_c(found[table]) or 0.0)):
            found[table] = model
    return list(found.values())[:MOST_SHOWN]


def _c(model: Reader) -> float | None:
    return model.section("c_within").number("value")


def _title(model: Reader) -> str:
    return model.text("title") or model.text("name") or "unnamed"


def forest_blocks(results: Reader) -> tuple[Block, ...]:
    """C within sites and C of all pairs of every model ('models')."""
    known = [model for model in results.rows("models") if _c(model) is not None]
    if not known:
        return (not_shown("No model has a C: no two test patients of one site can be compared."),)
    kinds = (("C within sites", "c_within"), ("C, all pairs", "c_pooled"))
    series = []
    for name, key in kinds:
        effects = [_effect(_title(model), model.section(key)) for model in known]
        series.append(Series(name, tuple(effect for effect in effects if effect is not None)))
    rows = tuple(
        (_title(model), *(of(model.section(key), "value", "lower", "upper") for _, key in kinds)) for model in known
    )
    table = Table("Data of the forest plot", (Column("Model", False), *(Column(name) for name, _ in kinds)), rows)
    best = max(known, key=lambda model: _c(model) or 0.0)
    highest = f"the highest is {_title(best)}, {say.fixed(_c(best))}"
    alt = f"Dots with intervals of {say.counted(len(known), 'model')}; {highest}."
    svg = effect_plot(
        "forest",
        "Concordance of all models",
        alt,
        [one for one in series if one.effects],
        "C in the test patients",
        0.5,
        False,
    )
    return (Chart(svg, "C of all models with 95 % CI; grey bands: certified bounds. Dashed line: chance.", table),)


def _effect(label: str, row: Reader) -> Effect | None:
    value = row.number("value")
    if value is None:
        return None
    limits = (row.number(key) for key in ("lower", "upper", "bound_lower", "bound_upper"))
    return Effect(label, value, *limits)


def survival_blocks(results: Reader) -> tuple[Block, ...]:
    """Kaplan-Meier curves by risk group of the chosen models ('models': curves)."""
    unit = results.section("study").section("endpoint").text("time_unit") or "unit not named"
    blocks: list[Block] = []
    for place, model in enumerate(best_of_tables(results)):
        curves = model.section("curves")
        groups = curves.rows("groups")
        drawn = [curve for group in groups if (curve := curve_of(group)) is not None]
        if not drawn:
            continue
        ratio, test = curves.section("hazard_ratio"), curves.section("logrank")
        about = (
            f"Table {model.text('table')}, {_title(model)} (HR {of(ratio, 'hr', 'lower', 'upper', digits=2)}; log-rank "
            f"{say.equals_p(test.number('p'))})"
        )
        blocks.append(survival_chart(groups, drawn, unit, f"survival-{place}", about))
    if not blocks:
        return (not_shown("No model has survival curves by risk group: there are too few test patients."),)
    basis = (
        "Test patients above and below the median score of the training patients. Computed from: numbers of events, "
        "of censored patients and at risk in each time interval and group, added over sites; bands are pointwise."
    )
    return (Prose((CHOICE,)), *blocks, Prose((basis,), "basis"))


def calibration_blocks(results: Reader) -> tuple[Block, ...]:
    """Calibration curve and decision curve of the chosen models at every horizon ('models': calibration, decisions)."""
    study = results.section("study")
    blocks: list[Block] = []
    for place, model in enumerate(best_of_tables(results)):
        for h, horizon in enumerate(horizons_of(study)):
            about = f"Table {model.text('table')}, {_title(model)}, {at(study, horizon)}"
            key = f"{place}-{h}"
            charts = (_calibration(key, about, model, horizon), _benefit(key, about, model, horizon))
            blocks += [chart for chart in charts if chart is not None]
    if not blocks:
        return (not_shown("No model has a calibration curve: there are too few test patients, or too few events."),)
    basis = (
        "Points: predicted and observed (Kaplan-Meier) risk in bins of the score, with 95 % intervals; the line is the "
        "logistic recalibration of all patients. Net benefit: events found per patient, less false alarms weighed by "
        "the odds of the threshold; bands are pointwise."
    )
    return (Prose((CHOICE,)), *blocks, Prose((basis,), "basis"))


def _calibration(key: str, about: str, model: Reader, horizon: float) -> Chart | None:
    curves = model.section("calibration").rows("curves")
    bins = [row for curve in curves if curve.number("horizon") == horizon for row in curve.rows("bins")]
    names = ("predicted", "observed", "lower", "upper")
    points = [tuple(row.number(name) for name in names) for row in bins]
    known = [tuple(value for value in point if value is not None) for point in points if None not in point]
    if not known:
        return None
    columns = tuple(zip(*known, strict=True))
    again = at_horizon(model, horizon)
    smooth = _recalibrated(again.number("slope_intercept"), again.number("slope"), min(columns[0]), max(columns[0]))
    rows = tuple(
        (say.whole(row.count("patients")), *(say.fixed(row.number(name)) for name in (*names, "slack"))) for row in bins
    )
    table = Table(
        f"Data of the calibration curve: {about}",
        tuple(Column(name) for name in ("Patients", *(name.capitalize() for name in names), "slack")),
        rows,
        note="Slack: how much higher the observed risk can be at most, because times are known up to their bins.",
    )
    alt = f"Observed against predicted risk in {say.counted(len(known), 'bin')} of the score."
    svg = calibration_plot(
        f"calibration-{key}", f"Calibration: {about}", alt, Line("bins of the score", *columns), smooth
    )
    return Chart(svg, f"{about}: observed against predicted risk.", table)


def _recalibrated(intercept: float | None, slope: float | None, low: float, high: float) -> Line | None:
    """logit P = intercept + slope logit F between the lowest and the highest mean risk of a bin."""
    if intercept is None or slope is None or not 0 < low < high < 1:
        return None
    risks = [low + (high - low) * step / 40 for step in range(41)]
    moved = [1 / (1 + math.exp(-(intercept + slope * math.log(risk / (1 - risk))))) for risk in risks]
    return Line("recalibrated", tuple(risks), tuple(moved))


def _benefit(key: str, about: str, model: Reader, horizon: float) -> Chart | None:
    curve = next((row for row in model.rows("decisions") if row.number("horizon") == horizon), None)
    if curve is None:
        return None
    names = ("thresholds", "benefit", "treat_all")
    columns = [curve.numbers(name) for name in (*names, "error", "treated")]
    points = [point for point in zip(*columns, strict=True) if None not in point[:3]]
    if not points:
        return None
    x, benefit, everybody = (tuple(value or 0.0 for value in column) for column in list(zip(*points, strict=True))[:3])
    half = tuple(1.96 * (point[3] or 0.0) for point in points)
    lines = (
        Line(
            "model",
            x,
            benefit,
            tuple(y - h for y, h in zip(benefit, half, strict=True)),
            tuple(y + h for y, h in zip(benefit, half, strict=True)),
        ),
        Line("treat everybody", x, everybody),
    )
    rows = tuple(tuple(say.fixed(value) for value in point) for point in points)
    headings = ("Threshold", "Net benefit", "of treating everybody", "Standard error", "Treated")
    table = Table(f"Data of the decision curve: {about}", tuple(map(Column, headings)), rows)
    alt = f"Net benefit at {say.counted(len(points), 'threshold')} beside treating everybody."
    svg = benefit_plot(f"benefit-{key}", f"Net benefit: {about}", alt, lines)
    return Chart(svg, f"{about}: net benefit; treating nobody has none.", table)


def difference_blocks(results: Reader) -> tuple[Block, ...]:
    """Differences of C of every two models of the same patients ('evaluations')."""
    titles = {model.text("name"): _title(model) for model in results.rows("models")}
    blocks: list[Block] = []
    for place, evaluation in enumerate(results.rows("evaluations")):
        chart = _differences(place, evaluation, titles)
        if chart is not None:
            blocks.append(chart)
    if not blocks:
        return (not_shown("No two models are of the same patients and differ."),)
    basis = (
        "Differences of C within sites on the same pairs of patients, with the models' covariance from influence "
        "functions that the sites add up. p after Holm's correction for all comparisons of the figure; a dot: below "
        f"{SIGNIFICANT:g}. Models of subgroups are compared among each other."
    )
    return (*blocks, Prose((basis,), "basis"))


def _differences(place: int, evaluation: Reader, titles: Mapping[str | None, str]) -> Chart | None:
    names = evaluation.texts("names")
    where = {name: index for index, name in enumerate(names)}
    rows = [row for row in evaluation.rows("differences") if row.number("difference") is not None]
    if not rows:
        return None
    cells = []
    for row in rows:
        first, second = row.text("first") or "", row.text("second") or ""
        p = row.number("p_holm")
        cells.append(
            Cell(where[first], where[second], row.number("difference") or 0.0, p is not None and p < SIGNIFICANT)
        )
    kept = sorted(rows, key=_surest)[:MOST_ROWS]
    table = Table(
        "Differences, the surest first",
        (Column("Model", False), Column("minus", False), *map(Column, ("Difference (95 % CI)", "p", "p (Holm)"))),
        tuple(
            (
                titles.get(row.text("first"), "unnamed"),
                titles.get(row.text("second"), "unnamed"),
                of(row, "difference", "lower", "upper"),
                say.p_value(row.number("p")),
                say.p_value(row.number("p_holm")),
            )
            for row in kept
        ),
        note=f"{len(rows) - len(kept)} more are in differences.csv." if len(kept) < len(rows) else "",
    )
    significant = sum(cell.significant for cell in cells)
    alt = (
        f"{say.counted(len(cells), 'difference')} of C between {len(names)} models, {significant} of them significant."
    )
    svg = difference_plot(
        f"differences-{place}", "Differences of C", alt, [titles.get(name, name) for name in names], cells
    )
    caption = (
        f"C of the row's model minus C of the column's: {significant} of {len(cells)} differences are significant."
    )
    return Chart(svg, caption, table)


def _surest(row: Reader) -> tuple[float, float]:
    p, holm = row.number("p"), row.number("p_holm")
    return 2.0 if holm is None else holm, 2.0 if p is None else p


def optimism_notice(shown: Sequence[Reader]) -> tuple[Block, ...]:
    """A best of many is better than it is: the choice by the test patients makes it so."""
    if len(shown) < 2:
        return ()
    sentence = (
        "Which model is best is judged by the same test patients in which its C is shown: of many models the best one "
        "looks better than it is. New patients are needed to confirm it."
    )
    return (Notice("warning", "The best of many", (sentence,)),)
