"""A site's report, first part: verdict, cohort, Table 1, scans and masks. Made from the report's JSON alone."""

from __future__ import annotations

from ctfed.report import wording as say
from ctfed.report.components import (
    Block,
    Column,
    Definitions,
    Headline,
    Level,
    Notice,
    Pictures,
    Prose,
    Table,
    Verdict,
    not_shown,
)
from ctfed.report.reader import Reader
from ctfed.report.wording import MISSING

SMD_LIMIT = 0.1  # beyond it two groups are commonly called unlike (Austin 2009, Statistics in Medicine 28:3083)
MOST_LEVELS = 6  # a variable of more is told by its mean and quartiles
LEVELS: dict[str, Level] = {"good": "good", "warning": "warning", "danger": "danger"}


def counted(value: int | None, content: Reader) -> str:
    """A count, or the words for one that is withheld in the egress edition."""
    if value is None and content.text("edition") == "egress":
        return "withheld"
    return say.whole(value)


def head_blocks(content: Reader) -> tuple[Block, ...]:
    """The verdict with its rule and headline numbers, and what a reader must know of the edition."""
    found, seen = content.section("verdict"), content.section("flow").section("evaluated")
    level = found.text("level") or "plain"
    c = content.section("discrimination").section("harrell")
    slope = content.section("calibration").section("slope")
    patients, events = (counted(seen.count(name), content) for name in ("patients", "events"))
    endpoint = content.section("study").text("endpoint") or "unnamed endpoint"
    summary = f"{endpoint[:1].upper()}{endpoint[1:]}: the model of the run, on this site's {_rows(content)}."
    reasons = found.texts("reasons")
    if reasons:
        summary += f" {'; '.join(reasons).capitalize() if level == 'plain' else 'Look at: ' + '; '.join(reasons)}."
    pooled = content.section("discrimination").section("pooled").section("within").number("value")
    follow = content.section("flow").section("follow_up")
    unit = content.section("study").text("time_unit")
    headlines = [
        Headline("Evaluated patients", patients, f"{events} with the event"),
        Headline("C at this site", say.fixed(c.number("value")), f"95 % CI {_limits(c)}; pooled {say.fixed(pooled)}"),
        Headline("Calibration slope", say.fixed(slope.number("value"), 2), f"95 % CI {_limits(slope, 2)}; 1 is ideal"),
        _ratio_headline(content),
    ]
    if follow.number("value") is not None:
        headlines.append(
            Headline("Median follow-up", f"{say.compact(follow.number('value'))}", f"{unit}, by reverse Kaplan-Meier")
        )
    verdict = Verdict(
        summary,
        tuple(headlines),
        LEVELS.get(level, "plain"),
        found.text("label") or "",
        found.text("rule") or "",
    )
    return (verdict, _edition(content), *_optimism(content))


def _rows(content: Reader) -> str:
    split = content.section("flow").section("evaluated").text("split")
    return {"test": "test patients", "train": "training patients", "all": "patients, training ones among them"}.get(
        split or "", "patients"
    )


def _limits(values: Reader, digits: int = 3) -> str:
    return say.interval(values.number("lower"), values.number("upper"), digits)


def _ratio_headline(content: Reader) -> Headline:
    """Observed / expected at the last horizon that has one."""
    unit = content.section("study").text("time_unit")
    for row in reversed(content.section("calibration").rows("horizons")):
        ratio = row.section("ratio")
        if ratio.number("value") is not None:
            detail = f"at {say.compact(row.number('horizon'), 6)} {unit}, 95 % CI {_limits(ratio, 2)}"
            return Headline("Observed / expected", say.fixed(ratio.number("value"), 2), detail)
    return Headline("Observed / expected", MISSING, "at no horizon")


def _edition(content: Reader) -> Notice:
    if content.text("edition") == "egress":
        k = content.count("minimum")
        words = (
            f"This edition holds aggregates over at least {k} patients alone. It was made from its JSON file alone, "
            "and may leave with the site's usual check of outputs.",
        )
        return Notice("note", "Egress edition", words)
    words = (
        "This edition holds values of single patients and small counts. It is for this site's eyes and must not leave; "
        "the egress edition beside it is for others.",
    )
    return Notice("warning", "Local edition: must not leave this site", words)


def _optimism(content: Reader) -> tuple[Notice, ...]:
    if content.section("flow").section("evaluated").text("split") == "test":
        return ()
    words = ("The model has seen some or all of these patients; in new patients it will do less well.",)
    return (Notice("warning", "Optimistic", words),)


def cohort_blocks(content: Reader) -> tuple[Block, ...]:
    """The flow of patients with reasons, and the splits."""
    flow = content.section("flow")
    steps = [
        (f"set aside ({row.text('stage')}): {row.text('reason')}", counted(row.count("patients"), content))
        for row in flow.rows("steps")
    ]
    rows = (
        ("found", counted(flow.count("found"), content)),
        *steps,
        ("in the cohort", counted(flow.count("patients"), content)),
        (f"evaluated here ({_rows(content)})", counted(flow.section("evaluated").count("patients"), content)),
    )
    columns = (Column("Step", False), Column("Patients"))
    blocks: list[Block] = [Table("From the patients found to those evaluated", columns, rows)]
    if not flow.flag("reasons_known"):
        words = "This site is a part of a table that stands for many; who was set aside cannot be told by site."
        blocks.append(Prose((words,), "basis"))
    splits = tuple(
        (row.text("split") or "", counted(row.count("patients"), content), counted(row.count("events"), content))
        for row in flow.rows("splits")
    )
    if splits:
        names = (Column("Split", False), Column("Patients"), Column("Events"))
        blocks.append(Table("Training and test patients", names, splits))
    else:
        blocks.append(not_shown("The splits hold counts that are too small to be shown."))
    return (*blocks, *_missing(content))


def _missing(content: Reader) -> tuple[Block, ...]:
    found = content.section("missing")
    absent, variables = found.texts("absent"), found.count("variables")
    blocks: list[Block] = []
    if absent:
        words = (
            f"{len(absent)} of {say.counted(variables, 'variable')} of the model are missing for every evaluated "
            f"patient: {say.listed(absent)}. Each patient has the federation's typical value instead, so they "
            "contribute nothing to the order of patients here, and predicted risks lean on the others.",
        )
        blocks.append(Notice("warning", "Variables that this site does not have", words))
    share = found.number("filled_share")
    if share is not None:
        words_ = f"Of the values that the model takes from the evaluated patients, {100 * share:.1f} % are filled in."
        blocks.append(Prose((words_,), "basis"))
    return tuple(blocks)


def table_one_blocks(content: Reader) -> tuple[Block, ...]:
    """Table 1, and this site beside the federation."""
    table = content.section("table_one")
    if not table.rows("variables"):
        return (not_shown("There are too few patients for a table that may be shown."),)
    rows = [row for one in table.rows("variables") for row in _variable_rows(one, content)]
    names = ("Here", "Median (quartiles)", "Missing")
    columns = (Column("Variable", False), *(Column(name) for name in names))
    caption = f"This site's {say.counted(table.count('patients'), 'patient')}: mean (SD), or patients at each level"
    blocks: list[Block] = [Table(caption, columns, tuple(rows)), _beside(table)]
    words = (
        "Beside the federation: training patients on both sides, missing values filled in as the model does; the "
        "federation holds this site's patients, too. SMD, the standardised mean difference, is the difference of means "
        f"over the root of the mean variance; beyond ±{SMD_LIMIT:g} groups are commonly called unlike, and in small "
        "groups chance alone brings that about.",
    )
    return (*blocks, Prose(words, "basis"))


def _variable_rows(row: Reader, content: Reader) -> list[tuple[str, ...]]:
    name = row.text("label") or row.text("variable") or ""
    unit = row.text("unit")
    label = f"{name} ({unit})" if unit else name
    mean, sd = row.number("mean"), row.number("sd")
    here = MISSING if mean is None else f"{say.compact(mean, 4)} ({say.compact(sd, 3)})"
    quartiles = MISSING
    if row.number("median") is not None:
        ends = f"{say.compact(row.number('q1'), 4)} to {say.compact(row.number('q3'), 4)}"
        quartiles = f"{say.compact(row.number('median'), 4)} ({ends})"
    found: list[tuple[str, ...]] = [(label, here, quartiles, counted(row.count("missing"), content))]
    levels = row.rows("levels")
    for level in levels if len(levels) <= MOST_LEVELS else ():
        found.append((f"— {level.text('label')}", counted(level.count("count"), content), "", ""))
    return found


def _beside(table: Reader) -> Table:
    rows = []
    for row in table.rows("variables"):
        cells = [say.compact(row.number(name), 4) for name in ("filled_mean", "filled_sd")]
        other = [say.compact(row.number(name), 4) for name in ("federation_mean", "federation_sd")]
        rows.append((row.text("label") or "", *cells, *other, say.fixed(row.number("smd"), 2)))
    names = ("Mean here", "SD here", "Mean, federation", "SD, federation", "SMD")
    columns = (Column("Variable", False), *(Column(name) for name in names))
    return Table("This site's training patients beside the federation's", columns, tuple(rows))


def acquisition_blocks(content: Reader) -> tuple[Block, ...]:
    """How scans were made."""
    found = content.section("acquisition")
    if not found:
        return (not_shown("There is no acquisition table that may be shown: `ctfed prepare` has not made one here."),)
    blocks: list[Block] = []
    for table in found.rows("tables"):
        rows = tuple((row.text("label") or "", counted(row.count("count"), content)) for row in table.rows("rows"))
        label = table.text("label") or ""
        blocks.append(Table(label, (Column(label, False), Column("Scans")), rows))
        if len(rows) == 1 and rows[0][0] not in ("not said", "others"):
            blocks.append(Prose((f"All scans are alike in this: nothing can be said here of other {label.lower()}s.",)))
    measures = tuple(
        (
            row.text("label") or "",
            say.whole(row.count("count")),
            *(say.compact(row.number(name), 4) for name in ("mean", "q1", "median", "q3")),
        )
        for row in found.rows("measures")
    )
    if measures:
        names = ("Scans", "Mean", "Lower quartile", "Median", "Upper quartile")
        columns = (Column("Measure", False), *(Column(name) for name in names))
        blocks.append(Table("Measures of the scans", columns, measures))
    return tuple(blocks)


def segmentation_blocks(content: Reader) -> tuple[Block, ...]:
    """Volumes of the regions, outliers and contact sheets."""
    found = content.section("segmentation")
    if not found or not found.rows("regions"):
        return (not_shown("There are no volumes of segmented regions that may be shown."),)
    rows = tuple(
        (
            row.text("region") or "",
            say.whole(row.count("measured")),
            say.whole(row.count("missing")),
            *(say.compact(row.number(name), 4) for name in ("q1", "median", "q3")),
        )
        for row in found.rows("regions")
    )
    names = ("Measured", "Missing", "Lower quartile (ml)", "Median (ml)", "Upper quartile (ml)")
    columns = (Column("Region", False), *(Column(name) for name in names))
    blocks: list[Block] = [Table("Volumes", columns, rows)]
    if content.text("edition") == "local":
        blocks.append(_outliers(found))
    sheets = tuple((row.text("patient") or "", row.text("picture") or "") for row in found.rows("sheets"))
    if sheets:
        caption = "Contact sheets with the outlines of all regions, the most outlying volumes first."
        blocks.append(Pictures(sheets, "Contact sheet of the masks of patient", caption))
    return tuple(blocks)


def _outliers(found: Reader) -> Block:
    rows = tuple(
        (
            row.text("region") or "",
            one.text("patient") or "",
            say.compact(one.number("volume_ml"), 4),
            say.fixed(one.number("z"), 1),
        )
        for row in found.rows("regions")
        for one in row.rows("outliers")
    )
    if not rows:
        return Prose(("No volume lies more than 3.5 robust standard deviations from the median.",))
    columns = (Column("Region", False), Column("Patient (key)", False), Column("Volume (ml)"), Column("Robust z"))
    note = "Look at these masks first; keys.csv of the site has the patients' names."
    return Table("Outlying volumes", columns, rows, note)


def definitions(items: dict[str, str | None]) -> Definitions:
    """Terms and values, a dash for what is not known."""
    return Definitions(tuple((term, value or MISSING) for term, value in items.items()))
