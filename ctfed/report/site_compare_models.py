"""Two runs beside each other, model by model: C and its difference, AUC, net benefit, and differences within a run.

A run of one model is read as a run of many with one model in it, so that any two runs can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ctfed.report import wording as say
from ctfed.report.components import Block, Chart, Column, Prose, Table, not_shown
from ctfed.report.reader import Reader
from ctfed.report.site_figures import Line, benefit_plot

Named = tuple[str, Reader]
ONLY = "the model"  # of a run that has one
MOST_CHARTS = 6
MOST_ROWS = 400

Limits = tuple[float | None, float | None, float | None]  # an estimate and its interval


def difference_of(first: Limits, second: Limits) -> Limits:
    """Second less first, with limits that hold whatever the two estimates share.

    Two estimates of the same patients hang together, and two results do not say how closely. The half-widths of
    their intervals add up at the most, which is reached where the one errs up as the other errs down:
    the lower limit is second's lower less first's upper, the upper one second's upper less first's lower.
    """
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    if a is None or b is None:
        return None, None, None
    if a_low is None or a_high is None or b_low is None or b_high is None:
        return b - a, None, None
    return b - a, b_low - a_high, b_high - a_low


def models_of(run: Reader) -> dict[str, Reader]:
    """The models of a run by name; of a run of one model, that one in the keys of a run of many."""
    many = {row.text("name") or "unnamed": row for row in run.rows("models")}
    if many or not run.section("discrimination"):
        return many
    found = run.section("discrimination")
    sizes = {row.text("split"): row for row in run.section("cohort").rows("splits")}
    horizons = [
        {
            "horizon": row.number("horizon"),
            "auc": row.number("auc"),
            "auc_lower": row.number("lower"),
            "auc_upper": row.number("upper"),
        }
        for row in found.rows("auc")
    ]
    values: dict[str, Any] = {
        "name": ONLY,
        "title": ONLY,
        "c_within": dict(found.section("c_within").values),
        "c_pooled": dict(found.section("c_pooled").values),
        "horizons": horizons,
        **{split: dict(sizes[split].values) for split in ("train", "test") if split in sizes},
    }
    return {ONLY: Reader(values, f"{run.path}.discrimination")}


def names_of(runs: Sequence[Named]) -> list[str]:
    """Every model of either run, in the order of the first run and then of the second."""
    return list(dict.fromkeys(name for _, run in runs for name in models_of(run)))


def performance_blocks(runs: Sequence[Named]) -> tuple[Block, ...]:
    """C within sites, C of all pairs and AUC of every model, with differences of those that both runs have."""
    found = [models_of(run) for _, run in runs]
    if not any(found):
        return (not_shown("Neither run holds a measure of discrimination."),)
    tables = [
        _table(runs, found, "C within sites", "c_within", "value", "lower", "upper"),
        _table(runs, found, "C of all pairs", "c_pooled", "value", "lower", "upper"),
    ]
    for horizon in _horizons(found):
        caption = f"AUC at {say.compact(horizon, 6)} {_unit(runs)}".rstrip()
        tables.append(_table(runs, found, caption, horizon, "auc", "auc_lower", "auc_upper"))
    shared = sum(all(name in one for one in found) for name in names_of(runs))
    words = (
        f"{say.counted(shared, 'model')} of {len(names_of(runs))} are in both runs, by name. Difference: second run "
        "less first. Its limits hold whatever the runs have in common: the half-widths of both intervals added up. "
        "Where the patients are the same, the true interval is narrower, but only one run of both models can tell it.",
    )
    return (*(table for table in tables if table.rows), Prose(words, "basis"))


def paired_blocks(runs: Sequence[Named]) -> tuple[Block, ...]:
    """Differences of C between the models of a run, paired by patient, of both runs beside each other."""
    found = [dict(_pairs(run)) for _, run in runs]
    pairs = list(dict.fromkeys(pair for one in found for pair in one))
    if not pairs:
        return (not_shown("Neither run compares its models: paired differences need two models in one run."),)
    both = [pair for pair in pairs if all(pair in one for one in found)]
    kept = (both or pairs)[:MOST_ROWS]
    rows = []
    for pair in kept:
        cells: list[str] = []
        for one in found:
            row = one.get(pair, Reader({}))
            cells += [_limits(_read(row, "difference", "lower", "upper")), say.p_value(row.number("p_holm"))]
        rows.append((f"{pair[0]} − {pair[1]}", *cells))
    columns = [Column("Models", False)]
    for name, _ in runs:
        columns += [Column(f"Difference of C, {name} (95 % CI)"), Column(f"p (Holm), {name}")]
    note = f"{len(pairs) - len(kept)} more pairs of models are in one run alone or beyond {MOST_ROWS} rows."
    table = Table(
        "Differences between models of the same run",
        tuple(columns),
        tuple(rows),
        note=note if len(kept) < len(pairs) else "",
        sortable=True,
    )
    words = (
        "Paired: both models of a difference were judged by the same pairs of patients, with the covariance of their "
        "influence functions. That one run finds a difference and the other does not is no difference of the runs.",
    )
    return (table, Prose(words, "basis"))


def benefit_blocks(runs: Sequence[Named]) -> tuple[Block, ...]:
    """Net benefit of the models that both runs have, at every horizon; else of each run's own."""
    found = [models_of(run) for _, run in runs]
    if not any(model.rows("decisions") for one in found for model in one.values()):
        absent = "Neither run holds net benefit: runs of many models do, and the report of a site for its own patients."
        return (not_shown(absent),)
    blocks: list[Block] = []
    charts = 0
    for name in names_of(runs):
        for horizon in _decided(found, name):
            curves = [_decision(one.get(name), horizon) for one in found]
            table = _benefit_table(runs, curves, f"{_title(found, name)}, {_at(horizon, runs)}")
            drawn = [(run, curve) for (run, _), curve in zip(runs, curves, strict=True) if curve]
            if charts < MOST_CHARTS and len(drawn) == len(runs):
                blocks.append(_benefit_chart(f"benefit-{charts}", _title(found, name), horizon, runs, drawn, table))
                charts += 1
            else:
                blocks.append(table)
    words = (
        "Net benefit: events found per patient, less false alarms weighed by the odds of the threshold. Limits of the "
        "difference hold whatever the runs have in common (1.96 times the sum of both standard errors).",
    )
    return (*blocks, Prose(words, "basis"))


def coefficient_blocks(runs: Sequence[Named]) -> tuple[Block, ...]:
    """Coefficients per standard deviation of the models that both runs of many have."""
    found = [models_of(run) for _, run in runs]
    rows: list[tuple[str, ...]] = []
    for name in names_of(runs):
        if not all(name in one for one in found):
            continue
        values = [dict(_coefficients(one[name])) for one in found]
        for feature in dict.fromkeys(feature for one in values for feature in one):
            first, second = (one.get(feature) for one in values)
            gap = None if first is None or second is None else second - first
            rows.append((_title(found, name), feature, *map(say.fixed, (first, second, gap))))
    if not rows:
        return (not_shown("No model with coefficients is in both runs."),)
    columns = (Column("Model", False), Column("Feature", False), *(Column(name) for name, _ in runs))
    note = f"The first {MOST_ROWS} of {len(rows)}." if len(rows) > MOST_ROWS else ""
    table = Table(
        "Coefficients per standard deviation",
        (*columns, Column("Difference")),
        tuple(rows[:MOST_ROWS]),
        note=note,
        sortable=True,
    )
    return (table,)


def _coefficients(model: Reader) -> Iterator[tuple[str, float]]:
    for row in model.section("fit").rows("coefficients"):
        value = row.number("coef_per_sd")
        if value:
            yield row.text("feature") or "unnamed", value


def _pairs(run: Reader) -> Iterator[tuple[tuple[str, str], Reader]]:
    for one in run.rows("evaluations"):
        for row in one.rows("differences"):
            yield (row.text("first") or "unnamed", row.text("second") or "unnamed"), row


def _table(
    runs: Sequence[Named], found: Sequence[dict[str, Reader]], caption: str, where: str | float, *keys: str
) -> Table:
    """A row for each model that has the measure in either run."""
    rows = []
    for name in names_of(runs):
        estimates = [_read(_part(one.get(name, Reader({})), where), *keys) for one in found]
        if any(estimate[0] is not None for estimate in estimates):
            sizes = [_size(one.get(name)) for one in found]
            gap = difference_of(estimates[0], estimates[1])
            limits = say.interval(gap[1], gap[2])
            rows.append((_title(found, name), *map(_limits, estimates), say.fixed(gap[0]), limits, *sizes))
    columns = (
        Column("Model", False),
        *(Column(f"{name} (95 % CI)") for name, _ in runs),
        Column("Difference"),
        Column("widest limits"),
        *(Column(f"n (events) in test, {name}") for name, _ in runs),
    )
    return Table(caption, columns, tuple(rows), sortable=True)


def _part(model: Reader, where: str | float) -> Reader:
    """A section of a model, or its row of a horizon."""
    if isinstance(where, str):
        return model.section(where)
    return next((row for row in model.rows("horizons") if row.number("horizon") == where), Reader({}))


def _read(row: Reader, *keys: str) -> Limits:
    value, lower, upper = (row.number(key) for key in keys)
    return value, lower, upper


def _limits(estimate: Limits) -> str:
    value, lower, upper = estimate
    limits = say.interval(lower, upper)
    return say.fixed(value) if limits == say.MISSING else f"{say.fixed(value)} ({limits})"


def _size(model: Reader | None) -> str:
    test = Reader({}) if model is None else model.section("test")
    if test.count("patients") is None:
        return say.MISSING
    return f"{say.whole(test.count('patients'))} ({say.whole(test.count('events'))})"


def _title(found: Sequence[dict[str, Reader]], name: str) -> str:
    titles = dict.fromkeys(one[name].text("title") or name for one in found if name in one)
    return " / ".join(titles)


def _horizons(found: Sequence[dict[str, Reader]]) -> list[float]:
    rows = (row for one in found for model in one.values() for row in model.rows("horizons"))
    return sorted({value for row in rows if (value := row.number("horizon")) is not None})


def units_of(runs: Sequence[Named]) -> list[str]:
    """The units of time of the runs, each once."""
    return list(dict.fromkeys(run.section("study").section("endpoint").text("time_unit") or "?" for _, run in runs))


def _unit(runs: Sequence[Named]) -> str:
    """The unit of both; '' where they differ, which the head of the page says."""
    units = units_of(runs)
    return units[0] if len(units) == 1 else ""


def _at(horizon: float, runs: Sequence[Named]) -> str:
    return f"at {say.compact(horizon, 6)} {_unit(runs)}".rstrip()


def _decided(found: Sequence[dict[str, Reader]], name: str) -> list[float]:
    """Horizons at which the model has net benefit in either run; of models in both, in both."""
    known = [
        {value for row in one[name].rows("decisions") if (value := row.number("horizon")) is not None}
        for one in found
        if name in one
    ]
    return sorted(set.intersection(*known) or set.union(*known))


Benefit = dict[float, tuple[float | None, float | None, float | None]]  # by threshold: benefit, its SE, treating all


def _decision(model: Reader | None, horizon: float) -> Benefit:
    rows = () if model is None else model.rows("decisions")
    row = next((row for row in rows if row.number("horizon") == horizon), Reader({}))
    thresholds = row.numbers("thresholds")
    n = len(thresholds)
    columns = [row.numbers(key, n) or (None,) * n for key in ("benefit", "error", "treat_all")]
    parts = zip(thresholds, *columns, strict=True)
    return {
        threshold: (value, error, everybody) for threshold, value, error, everybody in parts if threshold is not None
    }


def _benefit_table(runs: Sequence[Named], curves: Sequence[Benefit], about: str) -> Table:
    rows = []
    for threshold in sorted({threshold for curve in curves for threshold in curve}):
        values = [curve.get(threshold, (None, None, None)) for curve in curves]
        gap = difference_of(*(_band(value, error) for value, error, _ in values))
        cells = [say.fixed(value) for value, _, _ in values]
        everybody = [say.fixed(treat_all) for _, _, treat_all in values]
        rows.append((say.fixed(threshold, 2), *cells, say.fixed(gap[0]), say.interval(gap[1], gap[2]), *everybody))
    columns = (
        Column("Threshold"),
        *(Column(name) for name, _ in runs),
        Column("Difference"),
        Column("widest limits"),
        *(Column(f"treat everybody, {name}") for name, _ in runs),
    )
    return Table(f"Net benefit of {about}", columns, tuple(rows), folded=True)


def _band(value: float | None, error: float | None) -> Limits:
    if value is None or error is None:
        return value, None, None
    return value, value - 1.96 * error, value + 1.96 * error


def _benefit_chart(
    key: str, title: str, horizon: float, runs: Sequence[Named], drawn: Sequence[tuple[str, Benefit]], data: Table
) -> Block:
    lines = []
    for name, curve in drawn:
        known = [(t, v, 0.0 if e is None else e) for t, (v, e, _) in sorted(curve.items()) if v is not None]
        if not known:
            return data
        x, y, errors = zip(*known, strict=True)
        low, high = (tuple(v + sign * 1.96 * e for v, e in zip(y, errors, strict=True)) for sign in (-1, 1))
        lines.append(Line(name, x, y, low, high))
    about = f"{title}, {_at(horizon, runs)}"
    alt = "; ".join(f"{line.name}: from {say.fixed(line.y[0])} to {say.fixed(line.y[-1])}" for line in lines)
    svg = benefit_plot(key, f"Net benefit of {about}", f"Net benefit of {about}. {alt}.", lines)
    return Chart(svg, f"Net benefit of {about} in both runs, with 95 % bands. Dotted: treating nobody.", data)
