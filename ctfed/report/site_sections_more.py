"""A site's report, last part: explanations, subgroups, what left, provenance, checklists. From the JSON alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ctfed.report import wording as say
from ctfed.report.components import Block, Chart, Column, Definitions, Notice, Prose, Table, not_shown
from ctfed.report.reader import Reader
from ctfed.report.site_figures import Swarm, bars_plot, beeswarm_plot, parts_plot
from ctfed.report.site_sections import counted, definitions
from ctfed.report.steward_terms import meaning
from ctfed.report.wording import MISSING

NO_EVIDENCE = "for the author"


def explanation_blocks(content: Reader) -> tuple[Block, ...]:
    """Mean |SHAP|; in the local edition the values of all patients, and three patients one by one."""
    found = content.section("explanation")
    features = found.rows("features")
    if not features:
        return (not_shown("There are no SHAP values that may be shown: no patient, or no feature in the model."),)
    rows = tuple(
        (
            row.text("feature") or "",
            say.fixed(row.number("coefficient")),
            say.fixed(row.number("mean_absolute")),
            say.fixed(row.number("mean")),
        )
        for row in features
    )
    columns = (Column("Feature", False), Column("Coefficient"), Column("Mean |SHAP|"), Column("Mean SHAP"))
    table = Table("Data of the figure", columns, rows)
    bars = [(row.text("feature") or "", row.number("mean_absolute") or 0.0) for row in features]
    alt = "Mean absolute SHAP values: " + "; ".join(f"{name} {say.fixed(value)}" for name, value in bars)
    svg = bars_plot("shap-bars", "Importance of the features", f"{alt}.", bars, "mean |SHAP|: change of the score")
    caption = "How much each feature moves the score of this site's patients, on average."
    blocks: list[Block] = [Chart(svg, caption, table)]
    swarms = [
        Swarm(row.text("feature") or "", _numbers(row, "values"), _numbers(row, "place"))
        for row in features
        if row.numbers("values")
    ]
    if swarms:
        blocks.append(_beeswarm(swarms))
    blocks += [_single(row, k, content) for k, row in enumerate(found.rows("single"))]
    left_out = found.count("left_out")
    more = f" {say.counted(left_out, 'feature')} more in the model are not shown." if left_out else ""
    words = (
        f"SHAP values of a linear score: coefficient times the distance from the mean of {found.text('centre')}.{more} "
        "They say how the model counts, not what causes the disease."
    )
    return (*blocks, Prose((words,), "basis"))


def _numbers(row: Reader, key: str) -> tuple[float, ...]:
    return tuple(0.0 if value is None else value for value in row.numbers(key))


def _beeswarm(swarms: Sequence[Swarm]) -> Chart:
    rows = tuple((one.feature, *_five(one.values)) for one in swarms)
    names = ("Lowest", "Lower quartile", "Median", "Upper quartile", "Highest")
    data = Table("Data of the figure, summarised", (Column("Feature", False), *map(Column, names)), rows)
    alt = f"A row of dots for each of {len(swarms)} features, one dot for each of {len(swarms[0].values)} patients."
    svg = beeswarm_plot("shap-swarm", "SHAP values of all patients", alt, swarms)
    caption = (
        "Every evaluated patient as a dot: to the right, the feature raises the score. Round and blue: the patient's "
        "own value lies in the lower half of its range here; diamonds: in the upper half."
    )
    return Chart(svg, caption, data)


def _five(values: Sequence[float]) -> tuple[str, ...]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return tuple(say.fixed(ordered[round(last * share)]) for share in (0, 0.25, 0.5, 0.75, 1))


def _single(row: Reader, index: int, content: Reader) -> Chart:
    parts = [(one.text("feature") or "", one.number("shap") or 0.0) for one in row.rows("parts")]
    unit = content.section("study").text("time_unit")
    risks = ", ".join(
        f"{100 * risk:.0f} % by {say.compact(one.number('horizon'), 6)}"
        for one in row.rows("risks")
        if (risk := one.number("risk")) is not None
    )
    name, who = row.text("name") or "", row.text("pseudonym") or ""
    caption = (
        f"The patient of {name} ({who}): score {say.fixed(row.number('score'))}, predicted risk {risks} {unit}. "
        "The bars add up to the score less that of an average training patient."
    )
    data = Table(
        "Data of the figure",
        (Column("Feature", False), Column("SHAP")),
        tuple((feature, say.fixed(value)) for feature, value in parts),
    )
    alt = "; ".join(f"{feature} {say.fixed(value)}" for feature, value in parts)
    svg = parts_plot(f"patient-{index + 1}", f"The patient of {name}", f"What moves the score: {alt}.", parts)
    return Chart(svg, caption, data)


def subgroup_blocks(content: Reader) -> tuple[Block, ...]:
    """C and O/E by subgroup."""
    groups = content.rows("subgroups")
    if not groups:
        return (not_shown("No subgroup can be shown: each variable has one value here, or parts that are too small."),)
    unit = content.section("study").text("time_unit")
    rows = []
    for group in groups:
        for part in group.rows("rows"):
            c, ratio = part.section("c"), part.section("ratio")
            horizon = part.number("horizon")
            at = "" if horizon is None else f" at {say.compact(horizon, 6)} {unit}"
            oe = _estimate(ratio, 2)
            rows.append(
                (
                    f"{group.text('variable')}: {part.text('label')}",
                    counted(part.count("patients"), content),
                    counted(part.count("events"), content),
                    _estimate(c, 3),
                    f"{oe}{at}" if oe != MISSING else (part.text("note") or MISSING),
                )
            )
    columns = (Column("Subgroup", False), *(Column(name) for name in ("Patients", "Events", "C", "O/E")))
    words = (
        "Each part alone, without correction for how many there are: with few events a subgroup that looks better or "
        "worse is more often chance than not. Continuous variables are cut at the median of the evaluated patients.",
    )
    return (Table("C and observed / expected by subgroup", columns, tuple(rows)), Prose(words, "basis"))


def _estimate(values: Reader, digits: int) -> str:
    if values.number("value") is None:
        return MISSING
    limits = say.interval(values.number("lower"), values.number("upper"), digits)
    return f"{say.fixed(values.number('value'), digits)} ({limits})"


def ledger_blocks(content: Reader) -> tuple[Block, ...]:
    """What left this site for this study, by its own ledger."""
    found = content.section("ledger")
    if not found:
        return (not_shown("No ledger was named or found, so this page cannot say what left the site."),)
    blocks: list[Block] = []
    if not found.flag("whole"):
        words = found.texts("faults") or ("`ctfed ledger verify` says what is wrong.",)
        blocks.append(Notice("danger", "The ledger is not whole", words))
    if not found.count("runs"):
        return (*blocks, not_shown("The ledger holds no run of this study."))
    items = {
        "Runs of this study": say.whole(found.count("runs")),
        "Rounds answered": say.whole(found.count("rounds")),
        "Numbers sent": f"{say.whole(found.count('numbers'))} ({say.size(found.number('bytes'))})",
        "Questions refused": say.whole(found.count("refusals")),
        "Ledger": f"{say.whole(found.count('entries'))} entries, last hash {(found.text('head') or '')[:16]}",
    }
    rows = tuple(
        (
            row.text("kind") or "",
            meaning(row.text("kind") or ""),
            say.whole(row.count("asked")),
            say.whole(row.count("numbers")),
            say.whole(row.count("fewest_patients")),
        )
        for row in found.rows("kinds")
    )
    columns = (
        *(Column(name, False) for name in ("Question", "Its total tells")),
        *(Column(name) for name in ("Asked", "Numbers", "Fewest patients")),
    )
    note = "Fewest patients: those of the whole federation over whom the smallest total of this kind was taken."
    words = (
        "Sums over patients, masked: the server could read the totals of all sites alone. No row, identifier or time "
        "of a patient is among them.",
    )
    table = Table("Questions of this study that this site has answered", columns, rows, note, folded=True)
    return (*blocks, definitions(dict(items)), Prose(words), table)


def provenance_blocks(content: Reader) -> tuple[Block, ...]:
    """Versions and digests."""
    found, run = content.section("provenance"), content.section("provenance").section("run")
    libraries = found.section("libraries").values
    masked = run.flag("masked")
    model = found.section("model")
    items: dict[str, str | None] = {
        "Study": f"{content.section('study').text('name')}, SHA-256 {found.text('study_sha256')}",
        **{name: f"SHA-256 {digest}" for name, digest in sorted(found.section("files").values.items())},
        "Cohort": f"SHA-256 {found.text('cohort_sha256')}" if found.text("cohort_sha256") else "stays at the site",
        "Run": ", ".join(
            (run.text("runner") or MISSING, run.text("started") or MISSING, say.counted(run.count("rounds"), "round"))
        ),
        "Masked": None if masked is None else ("yes" if masked else "no: the server could see each site's sums"),
        "Model": f"{say.whole(model.count('nonzero'))} of {len(model.texts('features'))} features kept; "
        f"transforms: {', '.join(model.texts('transforms')) or 'none'}",
        "This page": f"ctfed {found.text('ctfed')}, Python {found.text('python')}, made {content.text('made')}",
        "Libraries": ", ".join(f"{name} {version}" for name, version in sorted(libraries.items()) if version),
    }
    blocks: list[Block] = [definitions(items)]
    prepare = found.section("prepare")
    if prepare:
        blocks.append(_prepare(prepare))
    return tuple(blocks)


def _prepare(prepare: Reader) -> Definitions:
    settings = prepare.section("settings")
    models = [f"{row.text('model')} ({_digest(row.values)})" for row in prepare.rows("models")]
    foundation = prepare.section("foundation_model")
    return definitions(
        {
            "Features made by": f"ctfed {prepare.text('ctfed') or MISSING}",
            "Extraction settings": f"{settings.text('name') or MISSING}, SHA-256 {settings.text('sha256') or MISSING}",
            "Segmentation": "; ".join(models) or None,
            "Foundation model": _digest(foundation.values) if foundation else "none",
            "Clinical dictionary": prepare.text("dictionary_sha256"),
        }
    )


def _digest(values: Mapping[str, object]) -> str:
    """The digests among a model's facts."""
    found = [f"{name} {str(value)[:16]}" for name, value in sorted(values.items()) if "sha256" in name and value]
    return ", ".join(found) or "no digest of its own"


def checklist_blocks(content: Reader) -> tuple[Block, ...]:
    """METRICS, CLEAR and TRIPOD+AI, half filled."""
    found = content.section("checklists")
    metrics = found.section("metrics")
    words = (
        "What the tool knows is filled in; the rest is the author's. A filled line says where something stands, not "
        "that the item is fulfilled: no score is given, because a score is a person's judgement.",
        f"METRICS: filled lines carry {100 * (metrics.number('filled_weight') or 0):.0f} % of its weight.",
    )
    tables = tuple(
        _checklist(name, found.section(key))
        for name, key in (("METRICS", "metrics"), ("CLEAR", "clear"), ("TRIPOD+AI", "tripod"))
    )
    return (Prose(words), *tables)


def _checklist(name: str, found: Reader) -> Table:
    rows = tuple(
        (row.text("item") or "", row.text("subject") or "", row.text("evidence") or NO_EVIDENCE)
        for row in found.rows("rows")
    )
    filled = sum(bool(row.text("evidence")) for row in found.rows("rows"))
    columns = (Column("Item", False), Column("Subject", False), Column("Where", False))
    note = found.text("wording") or ""
    return Table(f"{name}: {filled} of {len(rows)} filled by the tool", columns, rows, note, folded=True)
