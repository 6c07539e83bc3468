"""The pooled report's judgement: survival by risk group, concordance and AUC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ctfed.report import wording as say
from ctfed.report.components import Block, Chart, Column, Definitions, Notice, Prose, Table, not_shown
from ctfed.report.figures_curves import Curve, survival_plot
from ctfed.report.figures_effects import Effect, Series, effect_plot
from ctfed.report.reader import Reader


def curves_blocks(results: Reader) -> tuple[Block, ...]:
    """Kaplan-Meier curves by risk group ('curves': groups, logrank, hazard_ratio, threshold, split, note)."""
    curves = results.section("curves")
    groups = curves.rows("groups")
    if not groups:
        return (not_shown("The results hold no survival curves by risk group."),)
    unit = results.section("study").section("endpoint").text("time_unit") or "unit not named"
    blocks: list[Block] = [*_optimism(curves.text("split")), _group_table(groups), _tests(curves)]
    drawn = [curve for group in groups if (curve := curve_of(group)) is not None]
    if drawn:
        blocks.append(survival_chart(groups, drawn, unit))
    else:
        blocks.append(not_shown("The groups hold no times and survival, so there are no curves."))
    note = curves.text("note")
    if note:
        blocks.append(Prose((note,)))
    basis = (
        "Computed from: numbers of events, of censored patients and at risk in each time interval and group, added "
        "over sites. Survival is Kaplan and Meier's estimate; bands are pointwise 95 % intervals. The numbers at risk "
        "are shown where the results hold them; a dash stands for a number that is withheld or unknown."
    )
    return (*blocks, Prose((basis,), "basis"))


def _optimism(split: str | None) -> tuple[Notice, ...]:
    """Performance in the patients that the model has seen is not performance; a page must say which it shows."""
    if split == "train":
        sentence = "These are the patients that the model was fitted to; in new patients it will do less well."
        return (Notice("warning", "Training split: optimistic", (sentence,)),)
    if split is None:
        sentence = "The results do not say in which split this was computed."
        return (Notice("warning", "Split not named", (sentence,)),)
    return ()


def _group_table(groups: Sequence[Reader]) -> Table:
    rows = tuple(
        (group.text("name") or "unnamed", say.whole(group.count("patients")), say.whole(group.count("events")))
        for group in groups
    )
    return Table("Risk groups", (Column("Group", False), Column("Patients"), Column("Events")), rows)


def _tests(curves: Reader) -> Definitions:
    logrank, ratio = curves.section("logrank"), curves.section("hazard_ratio")
    items = [
        ("Split", curves.text("split") or "not among the results"),
        ("Threshold of the risk score", say.compact(curves.number("threshold"), 4)),
    ]
    if logrank.number("chi2") is None:
        items.append(("Log-rank test", "not among the results"))
    else:
        statistic = f"χ² = {say.fixed(logrank.number('chi2'), 2)}, df = {say.whole(logrank.count('df'))}"
        items.append(("Log-rank test", f"{statistic}, {say.equals_p(logrank.number('p'))}"))
    if ratio.number("hr") is None:
        items.append(("Hazard ratio between the groups", "not among the results"))
    else:
        interval = say.interval(ratio.number("lower"), ratio.number("upper"), 2)
        estimate = f"{say.fixed(ratio.number('hr'), 2)} (95 % CI {interval}), {say.equals_p(ratio.number('p'))}"
        items.append(("Hazard ratio between the groups", estimate))
    return Definitions(tuple(items))


def curve_of(group: Reader) -> Curve | None:
    """The curve of one of the 'groups'; None where it has no point."""
    time = group.numbers("time")
    survival = group.numbers("survival", len(time)) or (None,) * len(time)
    lower, upper = (group.numbers(key, len(time)) or (None,) * len(time) for key in ("lower", "upper"))
    points = [
        (t, s, math.nan if low is None else low, math.nan if high is None else high)
        for t, s, low, high in zip(time, survival, lower, upper, strict=True)
        if t is not None and s is not None
    ]
    if not points:
        return None
    counts = [(row.number("time"), row.count("count")) for row in group.rows("at_risk")]
    at_risk = tuple((moment, count) for moment, count in counts if moment is not None)
    times, values, lows, highs = zip(*points, strict=True)
    # A limit that is unknown here and there leaves a gap in the band; one that is unknown everywhere is no band.
    if all(math.isnan(limit) for limit in (*lows, *highs)):
        lows, highs = (), ()
    return Curve(group.text("name") or "unnamed", times, values, lows, highs, at_risk)


def survival_chart(
    groups: Sequence[Reader], curves: Sequence[Curve], unit: str, key: str = "survival", about: str = ""
) -> Chart:
    """The curves with their bands and numbers at risk; ``about`` names the model where a page has several."""
    rows = []
    for curve in curves:
        counts = dict(curve.at_risk)
        for index, moment in enumerate(curve.time):
            interval = say.interval(_limit(curve.lower, index), _limit(curve.upper, index))
            at_risk = say.whole(counts.get(moment)) if moment in counts else ""
            rows.append((curve.name, say.compact(moment, 6), say.fixed(curve.survival[index]), interval, at_risk))
    columns = (Column("Group", False), *(Column(n) for n in (f"Time ({unit})", "Survival", "95 % CI", "At risk")))
    of = f" of {about}" if about else ""
    data = Table(f"Data of the survival curves{of}", columns, tuple(rows), note=_at_risk_note(curves))
    caption = f"{about}: Kaplan-Meier" if about else "Kaplan-Meier"
    caption += " curves by risk group with pointwise 95 % bands; below the axis, the numbers at risk."
    ends = ", ".join(f"{c.name}: {say.fixed(c.survival[-1])} at {say.compact(c.time[-1], 6)} {unit}" for c in curves)
    alt = f"Kaplan-Meier curves of {say.counted(len(groups), 'group')}. Survival at the end: {ends}."
    svg = survival_plot(key, f"Survival by risk group{of}", alt, curves, f"time ({unit})", "survival probability")
    return Chart(svg, caption, data)


def _limit(limits: Sequence[float], index: int) -> float | None:
    return None if not limits or math.isnan(limits[index]) else limits[index]


def _at_risk_note(curves: Sequence[Curve]) -> str:
    """Numbers at risk at times that are no points of their curve have no row of their own in the table."""
    others = [
        f"{curve.name} at {say.compact(moment, 6)}: {say.whole(count)}"
        for curve in curves
        for moment, count in curve.at_risk
        if moment not in curve.time
    ]
    return f"Further numbers at risk: {'; '.join(others)}." if others else ""


def discrimination_blocks(results: Reader) -> tuple[Block, ...]:
    """Concordance and AUC ('discrimination': split, c_within, c_pooled, auc, interval)."""
    measured = results.section("discrimination")
    unit = results.section("study").section("endpoint").text("time_unit") or "unit not named"
    if not measured:
        return (not_shown("The results hold no measure of discrimination."),)
    rows = (*_concordance_rows(measured), *_auc_rows(measured, unit))
    if not rows:
        return (not_shown("The results hold neither a concordance nor an AUC."),)
    names = ("Estimate", "95 % CI", "Certified bounds")
    columns = (Column("Measure", False), *(Column(name) for name in names))
    table = Table("Concordance and AUC", columns, tuple(row for row, _ in rows))
    effects = tuple(effect for _, effect in rows if effect is not None)
    blocks: list[Block] = [*_optimism(measured.text("split")), table]
    if effects:
        alt = "Dots with intervals: " + "; ".join(f"{e.label} {say.fixed(e.value)}" for e in effects) + "."
        series = (Series("estimate", effects),)
        axis = "concordance or AUC (0.5: no better than chance)"
        svg = effect_plot("discrimination", "Discrimination", alt, series, axis, 0.5, ratio=False)
        caption = "Estimates with 95 % CI. Grey band: certified bounds of the pooled C. Dashed line: chance."
        blocks.append(Chart(svg, caption, replace(table, caption="Data of the figure")))
    return (*blocks, Prose(_discrimination_basis(measured), "basis"))


def _discrimination_basis(measured: Reader) -> tuple[str, ...]:
    within, pooled = measured.section("c_within"), measured.section("c_pooled")
    sentences = []
    if within:
        pairs = say.counted(within.count("pairs"), "comparable pair")
        sentences.append(f"C, within sites: {pairs} of patients of the same site, counted at the sites and added.")
    if pooled:
        time_bins = say.counted(pooled.count("time_bins"), "time bin")
        score_bins = say.counted(pooled.count("score_bins"), "score bin")
        sentences.append(
            f"C, all pairs: counts of events and of censored patients in {time_bins} and {score_bins}, added over "
            "sites. The certified bounds hold whatever the order of patients who share a bin: they are limits of "
            "arithmetic, not of chance."
        )
    if measured.rows("auc"):
        sentences.append(
            "AUC: cumulative/dynamic, with inverse probability of censoring weights, from counts added over sites."
        )
    made = measured.text("interval")
    sentences.append(f"95 % CI: {made}." if made else "The results do not say how the intervals were made.")
    return ("Computed from:", *sentences)


Row = tuple[tuple[str, ...], Effect | None]


def _row(label: str, values: Reader, key: str) -> Row:
    value, lower, upper = (values.number(name) for name in (key, "lower", "upper"))
    bounds = values.number("bound_lower"), values.number("bound_upper")
    cells = (label, say.fixed(value), say.interval(lower, upper), say.interval(*bounds))
    return cells, None if value is None else Effect(label, value, lower, upper, *bounds)


def _concordance_rows(measured: Reader) -> tuple[Row, ...]:
    named = (("C, within sites", measured.section("c_within")), ("C, all pairs", measured.section("c_pooled")))
    return tuple(_row(label, values, "value") for label, values in named if values)


def _auc_rows(measured: Reader, unit: str) -> tuple[Row, ...]:
    return tuple(
        _row(f"AUC at {say.compact(row.number('horizon'), 6)} {unit}", row, "auc") for row in measured.rows("auc")
    )
