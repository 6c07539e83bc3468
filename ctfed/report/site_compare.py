"""Two runs beside each other: what was asked, what was found, and where they differ. From their results.json alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ctfed.report import wording as say
from ctfed.report.components import Block, Chart, Column, Notice, Page, Prose, Section, Table, not_shown
from ctfed.report.exports import write_text
from ctfed.report.figures_effects import Effect, Series, effect_plot
from ctfed.report.page import render_page
from ctfed.report.reader import Reader, to_plain
from ctfed.report.site_compare_models import (
    benefit_blocks,
    coefficient_blocks,
    models_of,
    paired_blocks,
    performance_blocks,
    units_of,
)
from ctfed.report.wording import MISSING

PAGE = "comparison.html"
Run = tuple[str, Mapping[str, Any]]
Named = tuple[str, Reader]
MOST_EFFECTS = 30


def write_comparison(first: Run, second: Run, folder: Path) -> Path:
    """Write comparison.html of two runs; return its path.

    Args:
        first, second: a name and the content of results.json.
        folder: made when it is not there.

    Raises:
        MalformedResults: a value has another type than its place.
        OSError: ``folder`` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / PAGE, render_page(comparison_page(first, second)))
    return folder / PAGE


def comparison_page(first: Run, second: Run) -> Page:
    """The components of the page."""
    runs = tuple((name, Reader(to_plain(results)[0], name)) for name, results in (first, second))
    many = any(run.rows("models") for _, run in runs)
    parts = (
        ("runs", "The two runs", _runs(runs)),
        ("discrimination", "Discrimination", _figure(runs, many) + performance_blocks(runs)),
        ("paired", "Differences within each run", paired_blocks(runs)),
        ("benefit", "Net benefit", benefit_blocks(runs)),
        ("model", "Models", coefficient_blocks(runs) if many else _models(runs)),
    )
    return Page(
        title=f"{first[0]} and {second[0]}",
        subtitle="Comparison of two runs",
        head=_head(runs),
        sections=tuple(Section(key, title, blocks) for key, title, blocks in parts),
        footer=("Research software. Not a medical device; not for decisions about a patient.",),
    )


def _head(runs: tuple[Named, ...]) -> tuple[Block, ...]:
    studies = [run.section("study").text("sha256") for _, run in runs]
    places = [sorted(run.section("sites").texts("names")) for _, run in runs]
    sizes = [_sizes(run) for _, run in runs]
    if studies[0] == studies[1] and places[0] == places[1] and sizes[0] == sizes[1]:
        words = "Both runs are of the same study, the same sites, and as many patients and events in each split."
        return (Notice("note", "The same study", (words,)),)
    found = [
        name
        for name, pair in (("study", studies), ("sites", places), ("numbers of patients or events", sizes))
        if pair[0] != pair[1]
    ]
    units = units_of(runs)
    other_units = (
        f"One measures time in {units[0]}, the other in {units[1]}: horizons of the same number are not the same."
        if len(units) > 1
        else ""
    )
    sentences = (
        f"They differ in their {say.listed(found)}. Where patients differ, so may every figure, whatever the models.",
        "No test compares them: the pairs of patients that a test needs are not among the results. Models of one run "
        "are compared in pairs, below.",
    )
    shown = (*sentences, other_units) if other_units else sentences
    return (Notice("warning", "The runs are of different things", shown),)


def _sizes(run: Reader) -> list[tuple[str | None, int | None, int | None]]:
    """Patients and events of each split; of a run of many models, of each model's splits."""
    rows = [(row.text("split"), row.count("patients"), row.count("events")) for row in _splits(run)]
    for model in run.rows("models"):
        for split in ("train", "test"):
            part = model.section(split)
            rows.append((f"{model.text('name')}, {split}", part.count("patients"), part.count("events")))
    return sorted(rows, key=str)


def _splits(run: Reader) -> tuple[Reader, ...]:
    return run.section("cohort").rows("splits")


def _runs(runs: tuple[Named, ...]) -> tuple[Block, ...]:
    rows: list[tuple[str, ...]] = []

    def add(label: str, *cells: str) -> None:
        rows.append((label if cells[0] == cells[1] else f"{label} *", *cells))

    add("Study", *(run.section("study").text("name") or MISSING for _, run in runs))
    add("SHA-256 of the study", *((run.section("study").text("sha256") or MISSING)[:16] for _, run in runs))
    add("ctfed", *(run.section("run").text("ctfed_version") or MISSING for _, run in runs))
    add("Runner", *(run.section("run").text("runner") or MISSING for _, run in runs))
    add("Sites", *(say.whole(run.section("sites").count("count")) for _, run in runs))
    for split in ("train", "test"):
        found = [_largest_split(run, split) for _, run in runs]
        add(f"Patients, {split}", *(say.whole(row.count("patients")) for row in found))
        add(f"Events, {split}", *(say.whole(row.count("events")) for row in found))
    add("Models", *(say.whole(len(models_of(run))) for _, run in runs))
    add("Rounds", *(say.whole(run.section("run").count("rounds")) for _, run in runs))
    add("Penalizer", *(say.compact(run.section("model").number("penalizer"), 4) for _, run in runs))
    add("l1_ratio", *(say.compact(run.section("model").number("l1_ratio"), 4) for _, run in runs))
    columns = (Column("Fact", False), *(Column(name, False) for name, _ in runs))
    note = "* differs; patients and events of a run of many models are those of the model with most"
    return (Table("What was run", columns, tuple(rows), note=note),)


def _largest_split(run: Reader, split: str) -> Reader:
    parts = [row for row in _splits(run) if row.text("split") == split]
    parts += [model.section(split) for model in run.rows("models")]
    return max(parts, key=lambda part: part.count("patients") or 0, default=Reader({}))


def _figure(runs: tuple[Named, ...], many: bool) -> tuple[Block, ...]:
    """C of every model in both runs, or C and AUC of the one."""
    series = [Series(name, tuple(_many_effects(run) if many else _effects(run))) for name, run in runs]
    shown = list(dict.fromkeys(effect.label for one in series for effect in one.effects))[:MOST_EFFECTS]
    drawn = [Series(one.name, tuple(e for e in one.effects if e.label in shown)) for one in series]
    if not shown:
        return ()
    table = _effects_table("C within sites" if many else "Concordance and AUC", series, 3)
    axis = "C within sites" if many else "concordance or AUC"
    axis += " (0.5: no better than chance)"
    svg = effect_plot("compared", "Discrimination of two runs", _alt(drawn), drawn, axis, 0.5, ratio=False)
    caption = "Both runs with their 95 % CI. Dashed line: chance."
    left_out = len({effect.label for one in series for effect in one.effects}) - len(shown)
    if left_out:
        caption += f" The first {len(shown)} models; the table holds {left_out} more."
    return (Chart(svg, caption, table),)


def _effects(run: Reader) -> Iterator[Effect]:
    found, unit = run.section("discrimination"), run.section("study").section("endpoint").text("time_unit")
    rows = [
        ("C, within sites", found.section("c_within"), "value"),
        ("C, all pairs", found.section("c_pooled"), "value"),
    ]
    rows += [(f"AUC at {say.compact(r.number('horizon'), 6)} {unit}", r, "auc") for r in found.rows("auc")]
    for label, row, key in rows:
        if (value := row.number(key)) is not None:
            yield Effect(label, value, row.number("lower"), row.number("upper"))


def _many_effects(run: Reader) -> Iterator[Effect]:
    for model in models_of(run).values():
        found = model.section("c_within")
        if (value := found.number("value")) is not None:
            yield Effect(model.text("title") or "unnamed", value, found.number("lower"), found.number("upper"))


def _models(runs: tuple[Named, ...]) -> tuple[Block, ...]:
    series = []
    for name, run in runs:
        effects = tuple(
            Effect(row.text("feature") or "unnamed", value)
            for row in run.section("model").rows("coefficients")
            if (value := row.number("coef_per_sd")) is not None and value != 0
        )
        series.append(Series(name, effects))
    if not any(one.effects for one in series):
        return (not_shown("Neither model keeps a feature."),)
    table = _effects_table("Coefficients per standard deviation, of the features that either model keeps", series, 3)
    blocks: list[Block] = []
    largest = sorted({e.label for s in series for e in s.effects}, key=lambda label: -_largest(series, label))
    shown = set(largest[:MOST_EFFECTS])
    drawn = [Series(s.name, tuple(e for e in s.effects if e.label in shown)) for s in series]
    svg = effect_plot("models", "Coefficients of two runs", _alt(drawn), drawn, "coefficient per SD", 0.0, ratio=False)
    caption = "Coefficients per standard deviation of the feature; a feature without a dot is not in that model."
    blocks.append(Chart(svg, caption, table))
    if len(largest) > MOST_EFFECTS:
        blocks.append(Prose((f"The figure shows the {MOST_EFFECTS} largest; the table holds all.",), "basis"))
    return tuple(blocks)


def _largest(series: list[Series], label: str) -> float:
    return max(abs(effect.value) for one in series for effect in one.effects if effect.label == label)


def _effects_table(caption: str, series: list[Series], digits: int) -> Table:
    """Both runs' values with limits, and their difference."""
    labels = list(dict.fromkeys(effect.label for one in series for effect in one.effects))
    rows = []
    for label in labels:
        found = [next((e for e in one.effects if e.label == label), None) for one in series]
        cells = [
            MISSING
            if e is None
            else say.fixed(e.value, digits) + (f" ({limits})" if (limits := _interval(e, digits)) != MISSING else "")
            for e in found
        ]
        first, second = found
        gap = MISSING if first is None or second is None else say.fixed(second.value - first.value, digits)
        rows.append((label, *cells, gap))
    columns = (Column("What", False), *(Column(one.name) for one in series), Column("Difference"))
    return Table(caption, columns, tuple(rows))


def _interval(effect: Effect, digits: int) -> str:
    return say.interval(effect.lower, effect.upper, digits)


def _alt(series: list[Series]) -> str:
    found = [f"{one.name}: " + ", ".join(f"{e.label} {say.fixed(e.value)}" for e in one.effects) for one in series]
    return "; ".join(found) + "."
