"""Table 1 of a report: the patients of each split, with means or counts, and the test of their difference."""

from __future__ import annotations

from ctfed.report import wording as say
from ctfed.report.components import Block, Column, Prose, Table, not_shown
from ctfed.report.reader import Reader


def patient_blocks(results: Reader) -> tuple[Block, ...]:
    """The section 'characteristics': groups with their sizes, and a row for each variable or level."""
    found = results.section("characteristics")
    if not found:
        return (not_shown("The results hold no table of the patients; where there was none, a note says why."),)
    groups = found.rows("groups")
    heads = [f"{group.text('name')} (n = {say.whole(group.count('patients'))})" for group in groups]
    names = [group.text("name") or "" for group in groups]
    columns = (Column("Characteristic", numeric=False), *map(Column, heads), Column("p"), Column("Test", numeric=False))
    rows = tuple(_row(row, names) for row in found.rows("rows"))
    most = say.whole((found.count("minimum") or 1) - 1)
    note = f"Counts from 1 to {most}, and those by which they could be worked out, are hidden."
    basis = "Means and standard deviations are exact over all sites, levels are counted. Computed from: totals."
    return Table("Characteristics of the patients by split", columns, rows, note), Prose((basis,), "basis")


def _row(row: Reader, names: list[str]) -> tuple[str, ...]:
    level, comparison = row.text("level"), row.section("comparison")
    head = row.text("label") or "" if level is None else f"  {level}"
    cells = [_cell(row.section("groups").section(name), level) for name in names]
    p = comparison.number("p")
    return (head, *cells, "" if p is None else say.p_value(p), comparison.text("test") or "")


def _cell(cell: Reader, level: str | None) -> str:
    if level is not None:
        count, share = cell.count("count"), cell.number("share")
        return "hidden" if count is None else f"{say.whole(count)} ({100 * (share or 0.0):.1f} %)"
    missing = cell.count("missing") or 0
    lacking = f"{say.whole(missing)} missing" if missing else ""
    mean, sd = cell.number("mean"), cell.number("sd")
    if mean is None or sd is None:
        return lacking
    return f"{mean:.2f} ({sd:.2f})" + (f"; {lacking}" if lacking else "")
