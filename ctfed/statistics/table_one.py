"""Table 1: what the patients of each split are like, and whether two splits differ. From totals alone.

Means and standard deviations are exact, medians come from counts with the bracket that holds them, categories are
counted, and tests are those of ``two_groups``. What is published of a total is decided here: see ``table_one``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctfed.federation.algorithm import Algorithm, Bundle, beside, gather
from ctfed.federation.arrays import BoolArray, IntArray, frozen
from ctfed.federation.errors import CtfedError
from ctfed.federation.summary import Total
from ctfed.federation.view import View, Within
from ctfed.statistics.describe import ColumnMoments, Counts, moments
from ctfed.statistics.impute import LevelCounts
from ctfed.statistics.sections import Quantile, Scale, SectionTable, section_tables
from ctfed.statistics.select import Select
from ctfed.statistics.suppress import hidden_cells
from ctfed.statistics.two_groups import Comparison, Sample, rank_test, t_test, table_test

TESTS = ("welch", "student", "mann-whitney", "none")
OTHER = "other"


@dataclass(frozen=True)
class Measured:
    """A row of means and medians.

    Attributes:
        scale: the column's name, and its range and step from the study's data dictionary.
        test: how two groups are compared.
    """

    scale: Scale
    test: str = "welch"

    def __post_init__(self) -> None:
        if self.test not in TESTS:
            raise ValueError(f"column {self.name!r}: the test must be one of {TESTS}, found {self.test!r}")

    @property
    def name(self) -> str:
        """Of the column."""
        return self.scale.name


@dataclass(frozen=True)
class Categorical:
    """A row per level of a column, compared by the chi-square test or Fisher's.

    Attributes:
        name: of the column.
        levels: value -> label, in the order of the table.
    """

    name: str
    levels: Mapping[float, str]

    def __post_init__(self) -> None:
        if not self.levels or len(set(self.levels.values())) != len(self.levels):
            raise ValueError(f"column {self.name!r} needs levels with different labels")


@dataclass(frozen=True)
class MeasuredCell:
    """One group's values of a measured column; all but ``missing`` is None where fewer than ``minimum`` have one.

    Attributes:
        count: patients with a value.
        missing: patients without.
        mean, sd: standard deviation with ddof 1.
        median: with its bracket.
    """

    count: int | None
    missing: int
    mean: float | None
    sd: float | None
    median: Quantile | None


@dataclass(frozen=True)
class LevelCell:
    """One group's patients at one level: None where hidden. The share is of all patients of the group."""

    count: int | None
    share: float | None


@dataclass(frozen=True, eq=False)
class MeasuredRow:
    """A measured column: a cell per group, and the comparison of the two."""

    name: str
    groups: tuple[MeasuredCell, ...]
    comparison: Comparison | None


@dataclass(frozen=True, eq=False)
class CategoricalRow:
    """A categorical column.

    Attributes:
        name: of the column.
        levels: label -> a cell per group; 'other' for values that are no level, where there are any.
        missing: patients without a value, by group.
        comparison: of the two groups.
    """

    name: str
    levels: Mapping[str, tuple[LevelCell, ...]]
    missing: tuple[int, ...]
    comparison: Comparison | None


@dataclass(frozen=True, eq=False)
class TableOne:
    """The table.

    Attributes:
        groups: their names.
        patients, events: of each.
        rows: in the order of the variables.
        minimum: fewest patients of a published cell.
    """

    groups: tuple[str, ...]
    patients: tuple[int, ...]
    events: tuple[int, ...]
    rows: tuple[MeasuredRow | CategoricalRow, ...]
    minimum: int

    def row(self, name: str) -> MeasuredRow | CategoricalRow:
        """The row of a column.

        Raises:
            KeyError: when there is none.
        """
        found = {row.name: row for row in self.rows}
        return found[name]


def table_one(
    groups: Mapping[str, View],
    variables: Sequence[Measured | Categorical],
    minimum: int,
    *,
    small_counts_in_tests: bool = False,
) -> Algorithm[TableOne]:
    """Describe groups of patients, and compare them when they are two; about 10 rounds for any number of variables.

    The server learns the totals: counts, means and variances of each column and group, frequency tables, and counts in
    sections (``SectionCounts``). Of these the table holds:

    - of a measured column nothing but the number missing, where a group has fewer than ``minimum`` values;
    - medians and rank sums from sections with no patient or ``minimum`` and more in each group;
    - no count of a level from 1 to minimum - 1, nor so many others that it could be worked out (``hidden_cells``);
    - a test of a column with hidden counts after its levels with a hidden count were put together, so that the p-value
      is a function of what is published. ``small_counts_in_tests`` tests the full table instead, as a pooled analysis
      would; whoever has the full p-value can then try which small counts give it.

    Sizes of groups and numbers of missing values are published as they are: they say what was recorded, not what a
    patient is like. p-values and means hold all their digits here; a report rounds them.

    Args:
        groups: name -> view of the same columns; no patient may be in two, or suppression could be undone.
        variables: the rows.
        minimum: fewest patients of a published cell, >= 1 (1 hides nothing).

    Raises:
        CtfedError: when a group holds no patient, groups may share patients, or a variable is named twice.
    """
    views = tuple(groups.values())
    _check(groups, variables, minimum)
    measured = [v for v in variables if isinstance(v, Measured)]
    categorical = [v for v in variables if isinstance(v, Categorical)]
    counted, levels = yield from _counts(views, measured, categorical)
    patients = tuple(round(total.number("patients")) for total in counted)
    events = tuple(round(total.number("events")) for total in counted)
    if 0 in patients:
        raise CtfedError(f"the group {list(groups)[patients.index(0)]!r} holds no patient")
    rows: dict[str, MeasuredRow | CategoricalRow] = {}
    if measured:
        present = [np.rint(total["count"]).astype(np.int64) for total in counted]
        found = yield from _measured(views, measured, present, minimum)
        rows |= {row.name: row for row in found}
    for variable, counts in zip(categorical, _level_counts(levels, categorical), strict=True):
        rows[variable.name] = _categorical(variable, counts, patients, minimum, small_counts_in_tests)
    return TableOne(tuple(groups), patients, events, tuple(rows[v.name] for v in variables), minimum)


def _check(groups: Mapping[str, View], variables: Sequence[Measured | Categorical], minimum: int) -> None:
    names = [variable.name for variable in variables]
    if not groups or len(set(names)) != len(names):
        raise CtfedError("a table needs a group, and each variable once")
    if minimum < 1:
        raise CtfedError(f"the fewest patients of a cell must be >= 1, found {minimum}")
    listed = list(groups.items())
    for i, (name, view) in enumerate(listed):
        unknown = sorted(set(names) - set(view.names))
        if unknown:
            raise CtfedError(f"the group {name!r} has no column {unknown[0]!r}")
        for other, view_of_other in listed[:i]:
            if not _disjoint(view, view_of_other):
                raise CtfedError(
                    f"the groups {other!r} and {name!r} may share patients, so hidden counts could be found"
                )


def _disjoint(a: View, b: View) -> bool:
    """True when the rows of two views certainly have no patient in common."""
    if "all" not in (a.split, b.split) and a.split != b.split:
        return True
    if a.fold is not None and b.fold is not None and _folds_apart(a, b):
        return True
    ranges = [(x, y) for x in a.rows for y in b.rows if isinstance(x, Within) and isinstance(y, Within)]
    return any(x.column == y.column and (x.high < y.low or y.high < x.low) for x, y in ranges)


def _folds_apart(a: View, b: View) -> bool:
    if a.held_out and b.held_out:
        return a.fold != b.fold
    return a.held_out != b.held_out and a.fold == b.fold


def _counts(
    views: Sequence[View], measured: Sequence[Measured], categorical: Sequence[Categorical]
) -> Algorithm[tuple[list[Total], list[Total]]]:
    """Sizes of all groups with their values of the measured columns, and frequency tables, in one round."""
    names = tuple(variable.name for variable in categorical)
    levels = tuple(frozen(list(variable.levels)) for variable in categorical)
    sizes = [Counts(view.then(Select(tuple(variable.name for variable in measured)))) for view in views]
    tables = [LevelCounts(view.then(Select(names)), names, levels) for view in views] if names else []
    totals: tuple[Total, ...] = yield Bundle((*sizes, *tables))
    return list(totals[: len(views)]), list(totals[len(views) :])


def _measured(
    views: Sequence[View], variables: Sequence[Measured], present: Sequence[IntArray], minimum: int
) -> Algorithm[list[MeasuredRow]]:
    narrow = [view.then(Select(tuple(variable.name for variable in variables))) for view in views]
    ranked = [i for i, v in enumerate(variables) if v.test == "mann-whitney" and len(views) == 2]
    others = [i for i in range(len(variables)) if i not in ranked]
    spreads: list[ColumnMoments]
    shared: tuple[SectionTable, ...]
    own: list[tuple[SectionTable, ...]]
    spreads, shared, own = yield from beside(
        gather(*[moments(view) for view in narrow]),
        _sections(narrow, variables, ranked, present, minimum, medians_only=False),
        gather(
            *[
                _sections((view,), variables, others, (counts,), minimum, medians_only=True)
                for view, counts in zip(narrow, present, strict=True)
            ]
        ),
    )
    rows = []
    for i, variable in enumerate(variables):
        if i in ranked:
            table = shared[ranked.index(i)]
            medians = [table.median(group) for group in range(2)]
        else:
            medians = [tables[others.index(i)].median(0) for tables in own]
        cells = [_measured_cell(spread, i, median, minimum) for spread, median in zip(spreads, medians, strict=True)]
        comparison = None
        if i in ranked and all(cell.count is not None for cell in cells):
            comparison = rank_test(shared[ranked.index(i)])
        elif len(views) == 2 and variable.test != "none":
            comparison = _compare_means(cells, variable.test)
        rows.append(MeasuredRow(variable.name, tuple(cells), comparison))
    return rows


def _sections(
    views: Sequence[View],
    variables: Sequence[Measured],
    chosen: Sequence[int],
    present: Sequence[IntArray],
    minimum: int,
    medians_only: bool,
) -> Algorithm[tuple[SectionTable, ...]]:
    scales = [variables[i].scale for i in chosen]
    counts = [[int(group[i]) for i in chosen] for group in present]
    return (yield from section_tables(views, scales, counts, minimum, medians_only))


def _measured_cell(found: ColumnMoments, i: int, median: Quantile | None, minimum: int) -> MeasuredCell:
    count, missing = round(found.count[i]), round(found.missing[i])
    if count < minimum or count == 0:
        return MeasuredCell(None, missing, None, None, None)
    sd = float(found.sd(ddof=1)[i]) if count > 1 else None
    return MeasuredCell(count, missing, float(found.mean[i]), sd, median)


def _compare_means(cells: Sequence[MeasuredCell], test: str) -> Comparison | None:
    samples = [
        Sample(cell.count, cell.mean, cell.sd)
        for cell in cells
        if cell.count is not None and cell.mean is not None and cell.sd is not None
    ]
    if len(samples) < 2 or test == "mann-whitney":
        return None
    return t_test(samples[0], samples[1], equal_variances=test == "student")


def _level_counts(totals: Sequence[Total], categorical: Sequence[Categorical]) -> list[IntArray]:
    """For each column (L + 1, groups) patients at each level, the last row holding values that are no level."""
    if not categorical:
        return []
    ends = np.cumsum([len(variable.levels) for variable in categorical])[:-1]
    levels = np.split(np.array([total["level"] for total in totals]).T, ends)
    others = np.array([total["other"] for total in totals]).T
    return [np.rint(np.vstack(pair)).astype(np.int64) for pair in zip(levels, others, strict=True)]


def _categorical(
    variable: Categorical, counts: IntArray, patients: Sequence[int], minimum: int, full_tests: bool
) -> CategoricalRow:
    labels = list(variable.levels.values())
    if counts[-1].any():
        labels.append(OTHER)
    else:
        counts = counts[:-1]
    hidden = np.stack([hidden_cells(column, minimum) for column in counts.T], axis=1)
    levels = {
        label: tuple(
            LevelCell(None, None) if gone else LevelCell(int(count), int(count) / size)
            for count, gone, size in zip(row, row_hidden, patients, strict=True)
        )
        for label, row, row_hidden in zip(labels, counts, hidden, strict=True)
    }
    missing = tuple(size - int(count) for size, count in zip(patients, counts.sum(axis=0), strict=True))
    comparison = None
    if len(patients) == 2:
        comparison = table_test(counts) if full_tests else _test_of_published(counts, hidden, labels)
    return CategoricalRow(variable.name, levels, missing, comparison)


def _test_of_published(counts: IntArray, hidden: BoolArray, labels: Sequence[str]) -> Comparison | None:
    """The test with the levels that have a hidden count in any group put together."""
    rows: BoolArray = np.asarray(hidden.any(axis=1))
    if not rows.any():
        return table_test(counts)
    found = table_test(np.vstack([counts[~rows], counts[rows].sum(axis=0)]))
    if found is None:
        return None
    together = " + ".join(label for label, gone in zip(labels, rows, strict=True) if gone)
    note = f"tested with small levels put together: {together}"
    return Comparison(
        found.test,
        found.statistic,
        found.p,
        found.p_low,
        found.p_high,
        found.degrees,
        f"{note}; {found.note}" if found.note else note,
    )


def table_records(table: TableOne) -> list[dict[str, Any]]:
    """The table as plain records, one per line of print: 'variable', 'level' and a mapping of each group's numbers."""
    records: list[dict[str, Any]] = []
    for row in table.rows:
        test = None if row.comparison is None else vars(row.comparison)
        if isinstance(row, MeasuredRow):
            cells = {
                name: {**vars(cell), "median": None if cell.median is None else vars(cell.median)}
                for name, cell in zip(table.groups, row.groups, strict=True)
            }
            records.append({"variable": row.name, "level": None, "groups": cells, "comparison": test})
            continue
        records.append(
            {
                "variable": row.name,
                "level": None,
                "groups": {name: {"missing": count} for name, count in zip(table.groups, row.missing, strict=True)},
                "comparison": test,
            }
        )
        for label, level in row.levels.items():
            groups = {name: vars(cell) for name, cell in zip(table.groups, level, strict=True)}
            records.append({"variable": row.name, "level": label, "groups": groups, "comparison": None})
    return records
