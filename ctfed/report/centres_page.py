"""The page of several centres' released results: forest plots with the random-effects mean and prediction interval."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctfed.report import wording as say
from ctfed.report.components import Block, Chart, Column, Headline, Notice, Page, Prose, Section, Table, Verdict
from ctfed.report.drawing import keeping_pictures
from ctfed.report.drawing_values import svg_file
from ctfed.report.exports import csv_text, json_text, write_text
from ctfed.report.figures_effects import Effect, Series, effect_plot
from ctfed.report.page import render_page
from ctfed.report.reader import Reader

PAGE, JSON, CSV = "centres.html", "centres.json", "centres.csv"
MEAN, NEXT = "Mean of centres", "A new centre"
METHOD = (
    "Random effects: between-centre variance by REML, interval of the mean by Hartung and Knapp (Student's t with one "
    "degree of freedom fewer than centres, its error never below the usual one), prediction interval by Student's t "
    "with two fewer. C is pooled on the logit scale, observed / expected on the log scale (Snell et al. 2018, "
    "doi:10.1177/0962280217705678)."
)
LIMITS = (
    "A centre takes part when it hands on the egress edition of its report. Centres that did not, or that are too "
    "small for an interval that may be shown, are not in the mean: it speaks for those who are. With few centres the "
    "variance between them is hardly known, and the intervals are wide for it."
)


def write_centres(content: Mapping[str, Any], folder: Path) -> tuple[Path, ...]:
    """Write centres.html, centres.json, centres.csv and each figure as PNG (300 dpi), SVG and PDF; return their paths.

    Args:
        content: of ``centres.centres_content``.
        folder: made when it is not there.

    Raises:
        OSError: ``folder`` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json_text(content)
    write_text(folder / JSON, text)
    pictures: dict[str, bytes] = {}
    vector: dict[str, bytes] = {}
    with keeping_pictures(pictures, vector):
        page = centres_page(json.loads(text))
    write_text(folder / PAGE, render_page(page))
    write_text(folder / CSV, _csv(Reader(content)))
    charts = [block for section in page.sections for block in section.blocks if isinstance(block, Chart)]
    written = [folder / PAGE, folder / JSON, folder / CSV]
    for (key, picture), chart in zip(pictures.items(), charts, strict=True):
        (folder / f"{key}.png").write_bytes(picture)
        (folder / f"{key}.pdf").write_bytes(vector[key])
        write_text(folder / f"{key}.svg", svg_file(chart.svg))
        written += [folder / f"{key}.{kind}" for kind in ("png", "svg", "pdf")]
    return tuple(written)


def centres_page(content: Mapping[str, Any]) -> Page:
    """The components of the page."""
    read = Reader(content)
    study = read.section("study")
    measures = read.rows("measures")
    model = read.text("model")
    sections = [Section("centres", "The centres", (_centres(read),))]
    sections += [Section(row.text("measure") or "", row.text("label") or "", _measure(row, read)) for row in measures]
    sections.append(Section("method", "How it was pooled", (Prose((METHOD, LIMITS)),)))
    return Page(
        title=(study.text("title") or study.text("name") or "Study") + (f": {model}" if model else ""),
        subtitle=f"{say.counted(len(read.rows('sites')), 'centre')} beside each other",
        head=(_verdict(read),),
        sections=tuple(sections),
        footer=("Research software. Not a medical device; not for decisions about a patient.",),
    )


def _verdict(read: Reader) -> Verdict:
    row = read.rows("measures")[0]
    pooled = row.section("pooled")
    count = say.counted(len(read.rows("sites")), "centre")
    if not pooled:
        return Verdict(f"{count} have released their results. No mean is given: {row.text('note')}.")
    share = (pooled.number("i2") or 0) * 100
    words = (
        f"{count} have released their results on the {read.text('split')} patients. Over those with an interval, the "
        f"mean C is {say.fixed(pooled.number('estimate'))} ({_span(pooled)}); in a new centre it is expected between "
        f"{_ahead(pooled)}. {say.fixed(share, 0)} % of the variation is between centres, beyond chance (I²)."
    )
    federation = read.section("federation")
    heads = (
        Headline("Mean C of centres", say.fixed(pooled.number("estimate")), f"95 % CI {_span(pooled)}"),
        Headline("C in a new centre", _ahead(pooled), "prediction interval"),
        Headline(
            "C of the federation", say.fixed(federation.number("value")), "pairs of patients within sites, all sites"
        ),
    )
    return Verdict(words, heads)


def _span(row: Reader, digits: int = 3) -> str:
    return say.interval(row.number("lower"), row.number("upper"), digits)


def _ahead(row: Reader) -> str:
    return say.interval(row.number("prediction_lower"), row.number("prediction_upper"))


def _centres(read: Reader) -> Table:
    columns = (Column("Centre", False), Column("Patients"), Column("Events"), Column("Its report says", False))
    rows = tuple(
        (
            row.text("site") or say.MISSING,
            say.whole(row.count("patients")),
            say.whole(row.count("events")),
            row.text("verdict") or say.MISSING,
        )
        for row in read.rows("sites")
    )
    note = "A dash stands for what a centre's edition may not show. 'Its report says' is the verdict of that report."
    return Table("Who has released results", columns, rows, note=note, sortable=True)


def _measure(row: Reader, read: Reader) -> tuple[Block, ...]:
    blocks: list[Block] = []
    centres, pooled = row.rows("centres"), row.section("pooled")
    without = row.texts("without")
    if centres:
        blocks.append(_forest(row, read, centres, pooled))
    if pooled:
        blocks.append(_summary(row, pooled))
    elif row.text("note"):
        blocks.append(Notice("note", "Not pooled", (f"{row.text('note')}.",)))
    if without:
        blocks.append(Prose((f"Without a result that can be pooled: {say.listed(without)}.",), "basis"))
    return tuple(blocks)


def _forest(row: Reader, read: Reader, centres: tuple[Reader, ...], pooled: Reader) -> Chart:
    key, label = row.text("measure") or "", row.text("label") or ""
    series = [Series("centre", tuple(_effect(one.text("site") or "", one) for one in centres))]
    if pooled:
        mean = Effect(MEAN, pooled.number("estimate") or 0.0, pooled.number("lower"), pooled.number("upper"))
        ahead = Effect(NEXT, mean.value, pooled.number("prediction_lower"), pooled.number("prediction_upper"))
        series.append(Series("random effects", (mean, ahead)))
    federation = read.section("federation")
    if key == "c" and federation.number("value") is not None:
        series.append(Series("federation", (_effect("All sites' pairs", federation),)))
    told = "; ".join(f"{e.label} {say.fixed(e.value)}" for one in series for e in one.effects)
    reference = row.number("reference") or 0.0
    svg = effect_plot(
        f"forest-{key.replace('.', '-')}", label, f"{told}.", series, label, reference, ratio=bool(row.values["ratio"])
    )
    caption = f"{label} of each centre with its 95 % CI, the mean and where a new centre's value is expected."
    return Chart(svg, f"{caption} Dashed line: {'chance' if key == 'c' else 'perfect calibration'}.", _values(row))


def _effect(label: str, row: Reader) -> Effect:
    return Effect(label, row.number("value") or 0.0, row.number("lower"), row.number("upper"))


def _values(row: Reader) -> Table:
    pooled = row.section("pooled")
    weights = pooled.numbers("weights") if pooled else (None,) * len(row.rows("centres"))
    rows = [
        (
            one.text("site") or "",
            say.fixed(one.number("value")),
            _span(one),
            say.MISSING if weight is None else f"{100 * weight:.0f} %",
        )
        for one, weight in zip(row.rows("centres"), weights, strict=True)
    ]
    columns = (Column("Centre", False), Column("Value"), Column("95 % CI"), Column("Weight in the mean"))
    return Table(f"{row.text('label')}, by centre", columns, tuple(rows), sortable=True)


def _summary(row: Reader, pooled: Reader) -> Table:
    columns = (Column("Random effects", False), Column("Value"))
    scale = {"c": "logit C", "slope": "slope"}.get(row.text("measure") or "", "log observed / expected")
    rows = (
        ("Centres", say.whole(pooled.count("sites"))),
        ("Mean (95 % CI)", f"{say.fixed(pooled.number('estimate'))} ({_span(pooled)})"),
        ("Prediction interval", _ahead(pooled)),
        (f"tau² ({scale})", say.compact(pooled.number("tau2"))),
        ("I²", f"{100 * (pooled.number('i2') or 0):.0f} %"),
        ("Cochran's Q, p", f"{say.fixed(pooled.number('q'), 2)}, {say.p_value(pooled.number('q_p'))}"),
    )
    return Table(f"{row.text('label')}: summary", columns, rows)


def _csv(read: Reader) -> str:
    names = ("value", "lower", "upper")
    rows: list[tuple[str | float | None, ...]] = []
    for row in read.rows("measures"):
        key = row.text("measure")
        rows += [
            (key, "centre", one.text("site"), *(one.number(name) for name in names)) for one in row.rows("centres")
        ]
        if pooled := row.section("pooled"):
            limits = (pooled.number("estimate"), pooled.number("lower"), pooled.number("upper"))
            rows.append((key, "mean", None, *limits))
            ahead = (pooled.number("prediction_lower"), pooled.number("prediction_upper"))
            rows.append((key, "prediction", None, pooled.number("estimate"), *ahead))
    return csv_text(("measure", "kind", "site", *names), rows)
