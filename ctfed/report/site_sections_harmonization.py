"""A site's report: what harmonization did to this site's features, and what it made worse. From the JSON alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ctfed.report import wording as say
from ctfed.report.components import Block, Chart, Column, Notice, Prose, Table, not_shown
from ctfed.report.reader import Reader
from ctfed.report.site_figures import Moved, diagonal_plot, moved_plot
from ctfed.report.site_sections import counted
from ctfed.report.wording import MISSING

MOST_MOVED = 15  # features of the figure and of the tables
LARGE = 0.1


def harmonization_blocks(content: Reader) -> tuple[Block, ...]:
    """Before and after ComBat: differences to the pooled mean, what moved most and what went farther, the outcome."""
    found = content.section("harmonization")
    concordance = _model_blocks(found, content)
    if found.text("note"):
        return (not_shown(found.text("note") or ""), *concordance)
    summary = found.section("summary")
    if not summary:
        return (not_shown("There are too few patients for features before and after that may be shown."), *concordance)
    blocks: list[Block] = [*_unmoved(found, content), _summary_table(summary, content)]
    features = found.rows("features")
    if features:
        blocks += _feature_blocks(found, features, content)
    blocks += _outcome_blocks(found, features)
    basis = (
        "Before, after: the mean over this site's patients of (value - pooled location) / pooled scale, as ComBat has "
        "them from all sites; 0 is the pooled mean. Ratio: the variance of the same; 1 is the pooled one. "
        "ComBat shrinks what it takes away, so some difference stays in the training patients, too; in the evaluated "
        f"ones chance alone leaves about {_chance(summary)}. Per-feature values stay at the site, because they tell "
        "its shift and stretch."
    )
    return (*blocks, *concordance, Prose((basis,), "basis"))


def _chance(summary: Reader) -> str:
    n = summary.section("evaluated").count("patients")
    return f"± {say.fixed(1 / n**0.5, 2)} (1 / √{n})" if n else "1 / √n"


def _unmoved(found: Reader, content: Reader) -> list[Block]:
    """The batches of this site, with a warning where one stays as it is."""
    batches = found.rows("batches")
    if not batches:
        return []
    rows = tuple(
        (
            row.text("batch") or "",
            counted(row.count("patients"), content),
            counted(row.count("train"), content),
            _fate(row),
            say.whole(row.count("adjusted")),
        )
        for row in batches
    )
    names = ("Patients", "In the fit", "Adjusted features")
    columns = (Column("Batch", False), *map(Column, names[:2]), Column("ComBat", False), Column(names[2]))
    blocks: list[Block] = [Table("Batches of this site", columns, rows)]
    if not any(row.flag("moved") for row in batches):
        words = (
            "ComBat leaves this site's features as they are: its batches have too few patients in the fit, or it is "
            "the reference. Before and after are the same.",
        )
        blocks.insert(0, Notice("warning", "Not harmonized here", words))
    return blocks


def _fate(row: Reader) -> str:
    if not row.flag("moved"):
        return "left as it is"
    return "moved, by the rows of the fit" if row.flag("fitted") else "moved, by the patients at hand"


def _summary_table(summary: Reader, content: Reader) -> Table:
    parts = [("training patients", summary.section("train")), ("evaluated patients", summary.section("evaluated"))]
    parts = [(name, part) for name, part in parts if part]
    lines: tuple[tuple[str, Callable[[Reader], str]], ...] = (
        ("Patients", lambda part: counted(part.count("patients"), content)),
        ("Features", lambda part: say.whole(part.count("features"))),
        ("Median |difference| before", lambda part: say.fixed(part.number("median_before"), 2)),
        ("Median |difference| after", lambda part: say.fixed(part.number("median_after"), 2)),
        (f"Features beyond {LARGE:g} before", lambda part: say.whole(part.count("large_before"))),
        (f"Features beyond {LARGE:g} after", lambda part: say.whole(part.count("large_after"))),
        ("Features that went farther from the pooled mean", lambda part: say.whole(part.count("farther"))),
        (f"... by more than {LARGE:g}", lambda part: say.whole(part.count("clearly_farther"))),
        (
            "Features whose variance went farther from the pooled one",
            lambda part: say.whole(part.count("scale_farther")),
        ),
    )
    rows = tuple((label, *(tell(part) for _, part in parts)) for label, tell in lines)
    columns = (Column("Over all harmonized features", False), *(Column(name.capitalize()) for name, _ in parts))
    return Table("Distance to the pooled mean, in pooled standard deviations", columns, rows)


# -- feature by feature: local alone


def _shown(row: Reader) -> Reader:
    """Of the evaluated patients; of the training ones where nobody is evaluated."""
    seen = row.section("evaluated")
    return seen if seen.section("before").number("difference") is not None else row.section("train")


def _pair(row: Reader, key: str) -> tuple[float | None, float | None]:
    shown = _shown(row)
    return shown.section("before").number(key), shown.section("after").number(key)


def _feature_blocks(found: Reader, features: Sequence[Reader], content: Reader) -> list[Block]:
    known = [row for row in features if None not in _pair(row, "difference")]
    if not known:
        return [not_shown("There is no patient whose features could be compared.")]
    moved = sorted(known, key=lambda row: -(row.number("moved") or 0.0))[:MOST_MOVED]
    farther = sorted((row for row in known if row.number("farther")), key=lambda row: -(row.number("farther") or 0.0))
    blocks: list[Block] = [_moved_chart(moved), _all_chart(known, found)]
    if farther:
        shown = farther[:MOST_MOVED]
        more = (
            f"{len(farther) - len(shown)} more are in the data of the figure above."
            if len(farther) > len(shown)
            else ""
        )
        blocks.append(_feature_table("What harmonization made worse: farther from the pooled mean", shown, more))
    else:
        blocks.append(Prose(("No feature went farther from the pooled mean.",)))
    return blocks


def _feature_table(caption: str, rows: Sequence[Reader], note: str = "") -> Table:
    cells = tuple(
        (
            row.text("feature") or "",
            *(say.fixed(value, 2) for value in (*_pair(row, "difference"), *_pair(row, "ratio"))),
            *(_z(row, when) for when in ("before", "after")),
        )
        for row in rows
    )
    names = ("Before", "After", "Ratio before", "after", "Cox z before", "after")
    return Table(caption, (Column("Feature", False), *map(Column, names)), cells, note)


def _z(row: Reader, when: str) -> str:
    value = row.section("cox").section(when).number("z")
    return MISSING if value is None else say.fixed(value, 2)


def _moved_chart(rows: Sequence[Reader]) -> Chart:
    moved = []
    for row in rows:
        before, after = _pair(row, "difference")
        moved.append(Moved(row.text("feature") or "", before or 0.0, after or 0.0))
    alt = "Difference to the pooled mean: " + "; ".join(
        f"{one.name} {say.fixed(one.before, 2)} before, {say.fixed(one.after, 2)} after" for one in moved
    )
    svg = moved_plot("harmonization-moved", "The features that moved most", f"{alt}.", moved)
    caption = (
        f"The {say.counted(len(moved), 'feature')} that moved most: this site's mean before (round) and "
        "after (diamond), in pooled standard deviations from the pooled mean (line)."
    )
    return Chart(svg, caption, _feature_table("Data of the figure", rows))


def _all_chart(rows: Sequence[Reader], found: Reader) -> Chart:
    pairs = [_pair(row, "difference") for row in rows]
    x, y = ([abs(pair[k] or 0.0) for pair in pairs] for k in (0, 1))
    above = sum(bool(row.number("farther")) for row in rows)
    alt = f"A dot for each of {len(rows)} features; {above} lie above the diagonal, farther after than before."
    svg = diagonal_plot("harmonization-all", "Distances before and after", alt, x, y)
    left = found.count("left_out")
    more = f" The {left} features that moved least are not drawn." if left else ""
    caption = (
        f"Distance of each feature to the pooled mean, before and after. Diamonds above the diagonal ({above}): "
        f"harmonization made it larger.{more}"
    )
    return Chart(svg, caption, _feature_table("Data of the figure", rows))


# -- the outcome


def _outcome_blocks(found: Reader, features: Sequence[Reader]) -> list[Block]:
    outcome = found.section("outcome")
    if not outcome:
        return []
    if outcome.text("note"):
        return [not_shown(f"Association of single features with the outcome: {outcome.text('note')}.")]
    tested = outcome.count("tested")
    words = [
        f"Cox models of single features, {say.counted(tested, 'feature')}: {say.whole(outcome.count('gained'))} are "
        f"associated with the outcome (p < 0.05) after harmonization and were not before, "
        f"{say.whole(outcome.count('lost'))} were before and are not after."
    ]
    if outcome.flag("order_kept"):
        words.append(
            "The evaluated patients are of one batch, of which ComBat shifts and stretches each feature as a whole: "
            "the order of patients by a single feature, and so its association here, cannot change; only how features "
            "add up can."
        )
    blocks: list[Block] = [Prose(tuple(words))]
    rows = [row for row in features if row.section("cox").section("before").number("z") is not None]
    rows = [row for row in rows if row.section("cox").section("after").number("z") is not None]
    if rows and not outcome.flag("order_kept"):
        rows.sort(key=lambda row: -abs(_change(row)))
        blocks.append(_feature_table("Association with the outcome that changed most", rows[:MOST_MOVED]))
    return blocks


def _change(row: Reader) -> float:
    cox = row.section("cox")
    return abs(cox.section("after").number("z") or 0.0) - abs(cox.section("before").number("z") or 0.0)


def _model_blocks(found: Reader, content: Reader) -> tuple[Block, ...]:
    """C of the model with harmonization and of the one without, where the run has both."""
    both = found.section("model_c")
    if not both:
        words = (
            "The run has no model that differs from this one in its harmonization alone, so C with and without it "
            "cannot be compared."
        )
        return (Prose((words,)),) if not found.text("note") else ()
    if both.section("with").number("value") is None:
        return (not_shown("C with and without harmonization: no two patients can be compared, or too few be shown."),)
    rows = tuple(
        (label, part.text("model") or "", _estimate(part))
        for label, part in (("with ComBat", both.section("with")), ("without", both.section("without")))
    )
    difference = both.section("difference")
    p = f", {say.equals_p(difference.number('p'))}" if difference.number("p") is not None else ""
    last = ("difference", "", f"{_estimate(difference)}{p}")
    level = f"{100 * (content.section('study').number('level') or 0.95):.3g} %"
    columns = (Column("", False), Column("Model", False), Column(f"C here ({level} CI)"))
    note = "Each model has a search and coefficients of its own. Difference: on the same pairs of patients."
    return (Table("The model with and without harmonization", columns, (*rows, last), note),)


def _estimate(values: Reader) -> str:
    if values.number("value") is None:
        return MISSING
    limits = say.interval(values.number("lower"), values.number("upper"))
    return f"{say.fixed(values.number('value'))} ({limits})"
