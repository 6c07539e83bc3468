"""A site's report: net benefit of the model and of what is simpler, and the consensus of several models. From the JSON
alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctfed.report import wording as say
from ctfed.report.components import Block, Chart, Column, Prose, Table, not_shown
from ctfed.report.figures_effects import Effect, Series, effect_plot
from ctfed.report.reader import Reader
from ctfed.report.site_figures import Line, benefit_plot
from ctfed.report.site_sections import counted
from ctfed.report.wording import MISSING


def at_horizon(row: Reader, content: Reader) -> str:
    """'12 months'."""
    return f"{say.compact(row.number('horizon'), 6)} {content.section('study').text('time_unit') or ''}".strip()


# -- decision curves


def decision_blocks(content: Reader) -> tuple[Block, ...]:
    """Net benefit beside treating everybody and nobody, the stage alone and the volume alone."""
    blocks: list[Block] = []
    drawn: dict[str, str] = {}
    for row in content.rows("decision"):
        if not row.numbers("thresholds"):
            blocks.append(not_shown(f"Net benefit at {at_horizon(row, content)}: {row.text('note')}."))
            continue
        blocks.append(_benefit_chart(row, content))
        drawn.update({one.text("name") or "": one.text("words") or "" for one in row.rows("comparators")})
        blocks += _comparator_notes(row, content)
    if not blocks:
        blocks.append(not_shown("At no horizon are there enough patients with, and without, the event."))
    rules = [f"{name[:1].upper()}{name[1:]}: {words}." for name, words in drawn.items()]
    words = (
        "Net benefit counts true positives, less false positives at the odds of the threshold, per patient; treating "
        "nobody is 0. Band: ± 1.96 standard errors of the model's."
    )
    return (*blocks, Prose((words, *rules, *content.texts("not_compared")), "basis"))


def _comparator_notes(row: Reader, content: Reader) -> list[Block]:
    at = at_horizon(row, content)
    notes = [f"{one.text('name')} at {at}: {one.text('note')}." for one in row.rows("comparators") if one.text("note")]
    notes += [
        f"{one.text('name')}: it is not known for {say.counted(unknown, 'of the evaluated patients', '')}."
        for one in row.rows("comparators")
        if (unknown := one.count("unknown"))
    ]
    return [Prose(tuple(f"{note[:1].upper()}{note[1:]}" for note in notes), "basis")] if notes else []


@dataclass(frozen=True)
class _Points:
    """A curve without its unknown points."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    @property
    def at(self) -> dict[float, float]:
        return dict(zip(self.x, self.y, strict=True))


def _points(name: str, row: Reader, key: str) -> _Points:
    pairs = zip(row.numbers("thresholds"), row.numbers(key), strict=True)
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    return _Points(name, tuple(x for x, _ in known), tuple(y for _, y in known))


def _benefit_chart(row: Reader, content: Reader) -> Chart:
    model, everybody = _points("model", row, "benefit"), _points("everybody", row, "treat_all")
    error = _points("SE", row, "error").at
    lower, upper = (tuple(y + sign * 1.96 * error.get(x, 0.0) for x, y in model.at.items()) for sign in (-1, 1))
    others = [_points(one.text("name") or "", one, "benefit") for one in row.rows("comparators")]
    others = [one for one in others if one.x]
    lines = [
        Line("treat by the model", model.x, model.y, lower, upper),
        Line("treat everybody", everybody.x, everybody.y),
        *(Line(f"treat by {one.name}", one.x, one.y) for one in others),
    ]
    at = at_horizon(row, content)
    columns = ("Model", "SE", "Everybody", *(one.name[:1].upper() + one.name[1:] for one in others))
    values = (model.at, error, everybody.at, *(one.at for one in others))
    x = sorted({value for points in (model, everybody, *others) for value in points.x})
    rows = tuple((say.fixed(t, 2), *(say.fixed(part.get(t), 4) for part in values)) for t in x)
    data = Table("Data of the figure", (Column("Threshold", False), *(Column(name) for name in columns)), rows)
    ends = f"from {say.fixed(model.y[0])} at {model.x[0]:g} to {say.fixed(model.y[-1])} at {model.x[-1]:g}"
    alt = f"Net benefit of the model at {at}, {ends}; beside it {say.listed(line.name for line in lines[1:])}."
    key = f"benefit-{(row.number('horizon') or 0):g}".replace(".", "-").replace("+", "")
    svg = benefit_plot(key, f"Net benefit at {at}", alt, lines)
    words = {one.text("name") or "": one.text("words") or "" for one in row.rows("comparators")}
    told = "".join(f" {one.name[:1].upper()}{one.name[1:]}: {words[one.name]}." for one in others)
    caption = f"Net benefit at {at} by the model, and of treating everybody. Dotted: treating nobody.{told}"
    return Chart(svg, caption, data)


# -- consensus


def consensus_blocks(content: Reader) -> tuple[Block, ...]:
    """Coverage and right calls of the consensus and of its members, at each horizon."""
    found = content.section("consensus")
    if found.text("note"):
        return (not_shown(found.text("note") or ""),)
    blocks: list[Block] = []
    for row in found.rows("horizons"):
        if row.rows("rows"):
            blocks += _consensus_at(row, content)
        else:
            blocks.append(
                not_shown(f"Consensus at {at_horizon(row, content)}: {row.text('note') or 'not to be told'}.")
            )
    if not blocks:
        return (not_shown("There are too few patients for a consensus that may be shown."),)
    basis = (
        "Each model calls an event by the horizon when its score lies above its cut, which maximises Youden's index "
        "over the training patients of all sites. The consensus has a call where all agree. Valid: patients whose "
        "state at the horizon is known; coverage is the share of them with a call, the other proportions are among "
        "those. Intervals: Wilson's. Weighted: with the inverse probability of censoring, for those who were lost."
    )
    return (*blocks, Prose((basis,), "basis"))


PROPORTIONS = ("coverage", "accuracy", "sensitivity", "specificity")
COUNTS = ("true_events", "missed_events", "true_survivors", "false_alarms")


def _consensus_at(row: Reader, content: Reader) -> list[Block]:
    at, members = at_horizon(row, content), row.rows("rows")
    valid, unknown = (counted(row.count(name), content) for name in ("valid", "unknown"))
    shares = tuple(
        (one.text("title") or "", *(_proportion(one.section(name)) for name in PROPORTIONS)) for one in members
    )
    names = [Column("Model", False), *(Column(name.capitalize()) for name in PROPORTIONS)]
    level = f"{100 * (content.section('study').number('level') or 0.95):.3g} %"
    note = f"Valid: {valid} patients; the state of {unknown} is not known."
    counts = tuple(
        (
            one.text("title") or "",
            *(counted(one.count(name), content) for name in COUNTS),
            *(say.fixed(one.number(f"{name}_weighted"), 2) for name in ("sensitivity", "specificity")),
        )
        for one in members
    )
    headings = (
        *("Events called", "Events missed", "Survivors called", "False alarms"),
        *("Weighted sensitivity", "Weighted specificity"),
    )
    table = Table(f"Proportions at {at}, with {level} CI", tuple(names), shares, note)
    cells = Table(
        f"Patients behind them at {at}", (Column("Model", False), *map(Column, headings)), counts, folded=True
    )
    return [_consensus_chart(members, table, at, content), table, cells]


def _proportion(values: Reader) -> str:
    if values.number("value") is None:
        return MISSING
    limits = say.interval(values.number("lower"), values.number("upper"), 2)
    return f"{say.fixed(values.number('value'), 2)} ({limits})"


def _consensus_chart(members: Sequence[Reader], table: Table, at: str, content: Reader) -> Chart:
    series = []
    for one in members:
        effects = [
            Effect(name, value, part.number("lower"), part.number("upper"))
            for name in PROPORTIONS
            if (part := one.section(name)) and (value := part.number("value")) is not None
            if not (name == "coverage" and one.text("model"))  # of a single model it is 1
        ]
        series.append(Series(one.text("title") or "", tuple(effects)))
    key = f"consensus-{at.split()[0]}".replace(".", "-").replace("+", "")
    last = series[-1]
    alt = f"Consensus at {at}: " + "; ".join(f"{effect.label} {say.fixed(effect.value, 2)}" for effect in last.effects)
    ordered = [one for one in (last, *series[:-1]) if one.effects]
    level = f"{100 * (content.section('study').number('level') or 0.95):.3g} %"
    svg = effect_plot(key, f"Consensus at {at}", f"{alt}.", ordered, "share of patients", 0.5, ratio=False)
    caption = f"The consensus and its members at {at}, with {level} CI. Dashed line: one half."
    return Chart(svg, caption, Table("Data of the figure", table.columns, table.rows))
