"""A site's report, second part: discrimination, calibration, survival by risk group. From the JSON alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit

from ctfed.report import wording as say
from ctfed.report.components import Block, Chart, Column, Definitions, Prose, Table, not_shown
from ctfed.report.figures_curves import Curve, survival_plot
from ctfed.report.figures_effects import Effect, Series, effect_plot
from ctfed.report.pooled_evaluation import curves_blocks
from ctfed.report.reader import Reader
from ctfed.report.site_figures import Line, bars_plot, calibration_plot
from ctfed.report.wording import MISSING


def _unit(content: Reader) -> str:
    return content.section("study").text("time_unit") or ""


def _at(row: Reader, content: Reader) -> str:
    return f"{say.compact(row.number('horizon'), 6)} {_unit(content)}"


def _level(content: Reader) -> str:
    return f"{100 * (content.section('study').number('level') or 0.95):.3g} %"


Estimate = tuple[str, Reader, Reader]


def discrimination_blocks(content: Reader) -> tuple[Block, ...]:
    """C and AUC here beside the pooled ones, as a table and a forest plot."""
    found = content.section("discrimination")
    pooled = found.section("pooled")
    pairs: list[Estimate] = [("Harrell's C", found.section("harrell"), pooled.section("within"))]
    uno = found.section("uno")
    if uno:
        pairs.append((f"Uno's C until {_at(uno, content)}", uno, Reader({})))
    others = {row.number("horizon"): row for row in pooled.rows("auc")}
    for row in found.rows("auc"):
        pairs.append((f"AUC at {_at(row, content)}", row, others.get(row.number("horizon"), Reader({}))))
    if all(here.number("value") is None for _, here, _ in pairs):
        return (not_shown("No two patients can be compared, or too few to be shown: there is neither a C nor an AUC."),)
    table = _estimates_table(pairs, content)
    blocks: list[Block] = [table, _forest(pairs, table, content)]
    training = found.section("training")
    if training.number("value") is not None:
        words = f"C in this site's training patients, which the model has seen: {say.fixed(training.number('value'))}."
        blocks.append(Prose((words,)))
    notes = [f"AUC at {_at(row, content)}: {row.text('note')}." for row in found.rows("auc") if row.text("note")]
    basis = (
        f"Computed from: this site's patients at their exact times. {_level(content)} CI: C by its influence function, "
        f"Uno's C and AUC by {say.whole(found.count('replicates'))} Poisson bootstrap replicates; a dash where more "
        "than one replicate in twenty has no value. Pooled: pairs of patients of the same site, over all "
        f"{say.counted(pooled.count('sites'), 'site')} of the run, this one among them; what other sites have is "
        "known to nobody but them."
    )
    return (*blocks, Prose((basis, *notes), "basis"))


def _estimates_table(pairs: Sequence[Estimate], content: Reader) -> Table:
    rows = tuple(
        (
            label,
            say.fixed(here.number("value")),
            say.interval(here.number("lower"), here.number("upper")),
            say.fixed(there.number("value")),
            say.interval(there.number("lower"), there.number("upper")),
        )
        for label, here, there in pairs
    )
    level = _level(content)
    names = ("Here", f"{level} CI here", "Pooled", f"{level} CI pooled")
    return Table("Concordance and AUC", (Column("Measure", False), *(Column(name) for name in names)), rows)


def _forest(pairs: Sequence[Estimate], table: Table, content: Reader) -> Chart:
    def effects(position: int) -> tuple[Effect, ...]:
        chosen = [(label, (here, there)[position]) for label, here, there in pairs]
        return tuple(
            Effect(label, value, one.number("lower"), one.number("upper"))
            for label, one in chosen
            if (value := one.number("value")) is not None
        )

    series = [Series(name, found) for k, name in enumerate(("this site", "all sites")) if (found := effects(k))]
    alt = "Dots with intervals: " + "; ".join(
        f"{group.name}, {one.label} {say.fixed(one.value)}" for group in series for one in group.effects
    )
    axis = "concordance or AUC (0.5: no better than chance)"
    svg = effect_plot("discrimination", "Discrimination here and pooled", f"{alt}.", series, axis, 0.5, ratio=False)
    caption = f"This site beside all sites, with {_level(content)} CI. Dashed line: chance."
    return Chart(svg, caption, Table("Data of the figure", table.columns, table.rows))


def calibration_blocks(content: Reader) -> tuple[Block, ...]:
    """Slope, O/E, ICI, Brier score; the calibration curve of each horizon; D-calibration."""
    found = content.section("calibration")
    slope = found.section("slope")
    blocks: list[Block] = []
    if slope.number("value") is None:
        blocks.append(not_shown(f"Calibration slope: {found.text('slope_note') or 'not to be told'}."))
    else:
        limits = say.interval(slope.number("lower"), slope.number("upper"), 2)
        value = f"{say.fixed(slope.number('value'), 2)} ({_level(content)} CI {limits})"
        blocks.append(Definitions((("Calibration slope, all of the follow-up", value),)))
    rows = found.rows("horizons")
    measured = [row for row in rows if row.number("observed") is not None]
    if measured:
        blocks += [_horizon_table(measured, content), _slope_table(measured, content)]
    blocks += [_calibration_chart(row, content) for row in measured if _has_curve(row)]
    notes = [f"{_at(row, content)}: {row.text('note')}." for row in rows if row.text("note")]
    notes += [
        f"{_at(r, content)}, no slope: {r.text('recalibration_note')}." for r in rows if r.text("recalibration_note")
    ]
    blocks.append(_d_calibration(found))
    basis = (
        "Slope: the score's coefficient in a Cox model of its own; below 1 the predictions are too extreme. O/E: the "
        "Kaplan-Meier risk over the mean predicted risk. At a horizon: logistic regression of the state on the logit "
        "of the predicted risk, patients lost before it weighted by the inverse probability of censoring; ICI is the "
        "mean distance between predicted and recalibrated risk. Reference: the Brier score of the Kaplan-Meier risk."
    )
    return (*blocks, Prose((basis, *notes), "basis"))


def _horizon_table(rows: Sequence[Reader], content: Reader) -> Table:
    cells = tuple(
        (
            _at(row, content),
            say.whole(row.count("cases")),
            say.fixed(row.number("observed")),
            say.fixed(row.number("expected")),
            _with_limits(row.section("ratio")),
            say.fixed(row.number("brier")),
            say.fixed(row.number("brier_reference")),
        )
        for row in rows
    )
    names = ("Events", "Observed", "Expected", "O/E", "Brier", "Reference")
    columns = (Column("Horizon"), *(Column(name) for name in names))
    return Table(f"Observed and expected risk, with {_level(content)} CI", columns, cells)


def _slope_table(rows: Sequence[Reader], content: Reader) -> Table:
    cells = []
    for row in rows:
        fit = row.section("recalibration")
        parts = (_with_limits(fit.section("slope")), _with_limits(fit.section("intercept")))
        cells.append((_at(row, content), *parts, say.fixed(fit.number("ici"))))
    columns = (Column("Horizon"), *(Column(name) for name in ("Slope", "In the large", "ICI")))
    return Table(f"Logistic recalibration, with {_level(content)} CI", columns, tuple(cells))


def _with_limits(values: Reader) -> str:
    if values.number("value") is None:
        return MISSING
    limits = say.interval(values.number("lower"), values.number("upper"), 2)
    return f"{say.fixed(values.number('value'), 2)} ({limits})"


def _has_curve(row: Reader) -> bool:
    return bool(row.rows("groups")) or row.section("recalibration").number("line_intercept") is not None


def _calibration_chart(row: Reader, content: Reader) -> Chart:
    groups = row.rows("groups")
    points = None
    if groups:
        kept = [g for g in groups if g.number("predicted") is not None and g.number("observed") is not None]
        x, y = ([g.number(name) or 0.0 for g in kept] for name in ("predicted", "observed"))
        low = [v if (v := g.number("lower")) is not None else math.nan for g in kept]
        high = [v if (v := g.number("upper")) is not None else math.nan for g in kept]
        points = Line("groups of patients", tuple(x), tuple(y), tuple(low), tuple(high))
    fit = row.section("recalibration")
    smooth = None
    intercept, slope = fit.number("line_intercept"), fit.section("slope").number("value")
    if intercept is not None and slope is not None:
        x_ = np.linspace(0.01, 0.99, 99)
        smooth = Line("recalibrated", tuple(x_.tolist()), tuple(expit(intercept + slope * logit(x_)).tolist()))
    at = _at(row, content)
    caption = (
        f"Observed against predicted risk at {at}. Dots: groups of patients from low to high predicted risk, with "
        "Kaplan-Meier intervals. Dashed: logistic recalibration. Dotted: perfect calibration."
    )
    key = f"calibration-{(row.number('horizon') or 0):g}".replace(".", "-").replace("+", "")
    alt = f"Calibration at {at}: " + (
        "; ".join(
            f"predicted {say.fixed(g.number('predicted'))}, observed {say.fixed(g.number('observed'))}" for g in groups
        )
        or "the recalibrated line alone"
    )
    data = _calibration_data(groups, intercept, slope)
    return Chart(calibration_plot(key, f"Calibration at {at}", f"{alt}.", points, smooth), caption, data)


def _calibration_data(groups: Sequence[Reader], intercept: float | None, slope: float | None) -> Table:
    rows = tuple(
        (
            str(k + 1),
            say.whole(g.count("patients")),
            say.whole(g.count("cases")),
            say.fixed(g.number("predicted")),
            say.fixed(g.number("observed")),
            say.interval(g.number("lower"), g.number("upper")),
        )
        for k, g in enumerate(groups)
    )
    names = ("Patients", "Events", "Predicted", "Observed", "95 % CI")
    note = (
        ""
        if slope is None
        else f"Line: logit(observed) = {say.fixed(intercept)} + {say.fixed(slope)} logit(predicted)."
    )
    return Table("Data of the figure", (Column("Group", False), *(Column(name) for name in names)), rows, note)


def _d_calibration(found: Reader) -> Block:
    spread = found.section("d_calibration")
    if spread.number("chi2") is None:
        return not_shown(f"D-calibration: {found.text('d_note') or 'not to be told'}.")
    counts = spread.numbers("counts")
    verdict = f"χ² = {say.fixed(spread.number('chi2'), 2)}, df = 9, {say.equals_p(spread.number('p'))}"
    if not counts:
        return Definitions((("D-calibration", verdict),))
    bars = [(f"{k / 10:g} to {(k + 1) / 10:g}", n or 0.0) for k, n in enumerate(counts)]
    rows = tuple((label, say.fixed(n, 1)) for label, n in bars)
    data = Table("Data of the figure", (Column("S(T)", False), Column("Patients")), rows)
    alt = "Patients by predicted probability of their own survival time: " + "; ".join(f"{a}: {b}" for a, b in rows)
    caption = (
        f"D-calibration: {verdict}. Patients by the predicted probability of living as long as they did; for a "
        "calibrated model all bars are alike. Who is censored counts in parts."
    )
    svg = bars_plot("d-calibration", "D-calibration", f"{alt}.", bars, "patients")
    return Chart(svg, caption, data)


def baseline_blocks(content: Reader) -> tuple[Block, ...]:
    """What a baseline of this site's own would change; local edition alone."""
    found = content.section("baseline")
    if not found:
        return (not_shown("A site's own baseline stays at the site: its steps are single patients."),)
    if found.text("note"):
        return (not_shown(f"{(found.text('note') or '').capitalize()}."),)
    rows = tuple(
        (
            _at(row, content),
            say.fixed(row.number("observed")),
            say.fixed(row.number("expected")),
            say.fixed(row.number("ratio"), 2),
            say.fixed(row.number("expected_own")),
            say.fixed(row.number("ratio_own"), 2),
        )
        for row in found.rows("horizons")
    )
    names = ("Observed", "Expected", "O/E", "Expected, own baseline", "O/E, own baseline")
    table = Table(
        "With the pooled and with this site's own baseline", (Column("Horizon", False), *map(Column, names)), rows
    )
    time, hazard = found.numbers("time"), found.numbers("cumulative_hazard")
    points = [(t, math.exp(-h)) for t, h in zip(time, hazard, strict=True) if t is not None and h is not None]
    blocks: list[Block] = [table] if rows else [not_shown("No horizon lies inside this site's follow-up.")]
    if points:
        blocks.append(_baseline_chart(points, _unit(content)))
    words = (
        f"Computed from: this site's {say.counted(found.count('patients'), 'training patient')} with "
        f"{say.counted(found.count('events'), 'event')}, by Breslow's estimator at the model's coefficients; judged on "
        "the evaluated patients. It never leaves the site, and replaces nothing: a site whose risks are off may read "
        "its own beside the pooled ones."
    )
    return (*blocks, Prose((words,), "basis"))


def _baseline_chart(points: Sequence[tuple[float, float]], unit: str) -> Chart:
    times, survival = zip(*points, strict=True)
    rows = tuple((say.compact(t, 6), say.fixed(s)) for t, s in points)
    data = Table("Data of the figure", (Column(f"Time ({unit})", False), Column("Survival")), rows)
    svg = survival_plot(
        "own-baseline",
        "This site's own baseline",
        f"Survival of a patient with score 0 by this site's own baseline; at the end {say.fixed(survival[-1])}.",
        [Curve("own baseline", times, survival)],
        f"time ({unit})",
        "survival probability",
    )
    return Chart(svg, "Survival of a patient with score 0 by this site's own baseline.", data)


def risk_group_blocks(content: Reader) -> tuple[Block, ...]:
    """Kaplan-Meier curves by risk group, as in the pooled report."""
    curves = dict(content.section("curves").values)
    curves["split"] = content.section("flow").section("evaluated").text("split")
    if not curves.get("groups"):
        return (not_shown(f"Curves by risk group: {curves.get('note') or 'there are none'}."),)
    unit = {"endpoint": {"time_unit": _unit(content)}}
    words = "The groups are cut at the training median of the score over all sites, the same at every site."
    found = curves_blocks(Reader({"curves": _pooled_form(curves), "study": unit}, content.path))
    basis = (
        "Computed from: this site's patients at their exact times; in the egress edition in intervals that hold enough "
        "of them, at whose ends alone survival is known. Survival is Kaplan and Meier's estimate; bands: pointwise "
        "intervals by Greenwood's formula."
    )
    return (Prose((words,)), *found[:-1], Prose((basis,), "basis"))


def _pooled_form(curves: dict[str, object]) -> dict[str, object]:
    ratio = curves.get("hazard_ratio")
    if isinstance(ratio, dict):
        curves["hazard_ratio"] = {**ratio, "hr": ratio.get("value")}
    return curves
