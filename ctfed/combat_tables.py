"""Plain CSV files for ``ctfed combat``: which columns are features, what the batches are, and writing them back."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from ctfed.cohort.cells import MISSING
from ctfed.cohort.table import TextTable, read_table
from ctfed.config import did_you_mean
from ctfed.federation.arrays import BoolArray, FloatArray, IntArray
from ctfed.federation.errors import CtfedError
from ctfed.site import Data

_IDENTIFIER = re.compile(
    r"(patient|subject|case|study|scan|record|pat)?[ _.-]?(id|nr|no|number|identifier)|patient|subject|mrn|pseudonym",
    re.IGNORECASE,
)
_OUTCOME = re.compile(
    r"(time|event|status|days|months|years|dead|death|deceased|os|pfs|dfs)([ _.-].*)?"
    r"|.*(survival|deadstatus|vital.?status|follow.?up|recurrence|relapse|progression).*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Roles:
    """What the columns are for, by name.

    Attributes:
        batch: labels of scanners or centres; '' where each file is a batch.
        covariates: whose effect is kept.
        categorical: those of them that are categories although they are written as numbers.
        outcome: columns that carry it; they stay as they are.
        leave: further columns that stay as they are.
        features: names or patterns as of a shell; empty for all columns of numbers without another role.
    """

    batch: str = ""
    covariates: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    outcome: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """Every column that has a role of its own."""
        batch = (self.batch,) if self.batch else ()
        return (*batch, *self.covariates, *self.outcome, *self.leave)


@dataclass(frozen=True)
class Sheet:
    """One CSV file. ``separator``: as it was read, and as it is written."""

    path: Path
    separator: str
    table: TextTable

    @property
    def site(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


@dataclass(frozen=True, eq=False)
class Sheets:
    """All files, row after row.

    Attributes:
        sheets: the files.
        place: (n,) index of each row's file.
        batch: (n,) label of each row's batch.
        features: names of the columns to harmonize.
        values: (n, p).
        covariates: (n, q) numbers, or numbers of levels.
        levels: for each covariate the texts of its levels, in the order of their numbers; empty for a number.
        notes: columns that stay as they are although nobody said so, in words.
    """

    sheets: tuple[Sheet, ...]
    place: IntArray
    batch: np.ndarray[tuple[int, ...], np.dtype[np.str_]]
    features: tuple[str, ...]
    values: FloatArray
    covariates: FloatArray
    levels: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def read_sheets(paths: Sequence[Path], roles: Roles) -> Sheets:
    """Read the files and give every column its role.

    Raises:
        CtfedError: naming file, column and row of what is wrong.
    """
    sheets = tuple(_read(path) for path in paths)
    twice = sorted({sheet.site for sheet in sheets if sum(one.site == sheet.site for one in sheets) > 1})
    if twice:
        raise CtfedError(f"two files are called {twice[0]!r}; their names are those of the sites, so rename one")
    if set(roles.categorical) - set(roles.covariates):
        name = sorted(set(roles.categorical) - set(roles.covariates))[0]
        raise CtfedError(f"--categorical names {name!r}, which --covariates does not")
    for name in roles.named:
        _check_column(sheets, name)
    features, notes = _features(sheets, roles)
    values = np.column_stack([_numbers(sheets, name) for name in features])
    coded = [_covariate(sheets, name, name in roles.categorical) for name in roles.covariates]
    rows = [len(sheet.table.rows) for sheet in sheets]
    columns = [column for column, _ in coded]
    return Sheets(
        sheets=sheets,
        place=np.repeat(np.arange(len(sheets)), rows),
        batch=_batches(sheets, roles.batch),
        features=features,
        values=values,
        covariates=np.column_stack(columns) if columns else np.zeros((sum(rows), 0)),
        levels=tuple(levels for _, levels in coded),
        notes=notes,
    )


def rows_where(sheets: Sheets, condition: str) -> BoolArray:
    """(n,) True for the rows of 'COLUMN=VALUE', compared as text.

    Raises:
        CtfedError: when it is written otherwise, or holds for no row.
    """
    column, equals, value = condition.partition("=")
    if not equals:
        raise CtfedError(f"--fit-on: found {condition!r}, expected COLUMN=VALUE")
    _check_column(sheets.sheets, column.strip())
    cells = [cell for sheet in sheets.sheets for cell in sheet.table.column(column.strip())]
    chosen = np.array([cell == value.strip() for cell in cells])
    if not chosen.any():
        raise CtfedError(f"--fit-on: no row has {value.strip()!r} in column {column.strip()!r}")
    return chosen


def write_sheets(sheets: Sheets, values: FloatArray, folder: Path) -> list[Path]:
    """Write each file with the (n, p) ``values`` in place of its features; a value that is the same keeps its text.

    Raises:
        CtfedError: when a file that was read would be written over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{sheet.site}.csv" for sheet in sheets.sheets]
    inputs = {sheet.path.resolve() for sheet in sheets.sheets}
    over = [path for path in written if path.resolve() in inputs]
    if over:
        raise CtfedError(f"--out: {over[0]} is an input and would be written over; choose another folder")
    for index, (sheet, path) in enumerate(zip(sheets.sheets, written, strict=True)):
        rows = np.flatnonzero(sheets.place == index)
        header = sheet.table.header
        columns = [header.index(name) for name in sheets.features]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=sheet.separator, lineterminator="\n")
            writer.writerow(header)
            for row, cells in zip(rows, sheet.table.rows, strict=True):
                changed = list(cells)
                for column, before, after in zip(columns, sheets.values[row], values[row], strict=True):
                    if before != after:
                        changed[column] = repr(float(after))
                writer.writerow(changed)
    return written


def _read(path: Path) -> Sheet:
    separator = ","
    if path.is_file():
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            header = file.readline()
        separator = max((",", ";", "\t"), key=header.count)
    return Sheet(path, separator, read_table(Data.model_construct(csv=path, separator=separator)))


def _check_column(sheets: Iterable[Sheet], name: str) -> None:
    for sheet in sheets:
        if name not in sheet.table:
            hint = did_you_mean(name, sheet.table.header) or ""
            raise CtfedError(f"{sheet.path}: column {name!r}: found no such column, expected it{hint}")


def _features(sheets: Sequence[Sheet], roles: Roles) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the features, and notes on columns that nobody named and that are none."""
    if roles.features:
        return _named_features(sheets, roles), ()
    found, notes = [], []
    for name in sheets[0].table.header:
        if name in roles.named or not name:
            continue
        lacking = next((sheet for sheet in sheets if name not in sheet.table), None)
        fault = None if lacking else _not_a_number(sheets, name)
        if lacking is not None:
            notes.append(f"column {name!r} stays as it is: {lacking.path.name} does not have it")
        elif fault is not None:
            notes.append(f"column {name!r} stays as it is: {fault}")
        else:
            found.append(name)
    for name in found:
        if _IDENTIFIER.fullmatch(name) or _OUTCOME.fullmatch(name):
            what, option = ("an identifier", "--leave") if _IDENTIFIER.fullmatch(name) else ("an outcome", "--outcome")
            raise CtfedError(
                f"column {name!r} looks like {what}: name it with {option}, or name all features with --features"
            )
    if not found:
        raise CtfedError(f"{sheets[0].path}: found no column of numbers to harmonize")
    return tuple(found), tuple(notes)


def _named_features(sheets: Sequence[Sheet], roles: Roles) -> tuple[str, ...]:
    header = sheets[0].table.header
    found: list[str] = []
    for pattern in roles.features:
        some = [name for name in header if fnmatchcase(name, pattern) and name not in roles.named]
        if not some:
            _check_column(sheets[:1], pattern)
            raise CtfedError(f"--features: {pattern!r} has another role already")
        found += [name for name in some if name not in found]
    for name in found:
        _check_column(sheets, name)
    return tuple(found)


def _not_a_number(sheets: Iterable[Sheet], name: str) -> str | None:
    """What of a column is not a number, in words; None when all of it is, but for missing values."""
    empty = True
    for sheet in sheets:
        for number, cell in zip(sheet.table.numbers, sheet.table.column(name), strict=True):
            if cell.lower() in MISSING:
                continue
            if _number(cell) is None:
                return f"{sheet.path.name} has {cell!r} in row {number}, which is not a number"
            empty = False
    return "it is empty" if empty else None


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in cell else None


def _numbers(sheets: Iterable[Sheet], name: str) -> FloatArray:
    """(n,) the column as numbers.

    Raises:
        CtfedError: naming the first row without one.
    """
    found = []
    for sheet in sheets:
        for number, cell in zip(sheet.table.numbers, sheet.table.column(name), strict=True):
            value = _number(cell)
            if value is None:
                wrong = "no value" if cell.lower() in MISSING else repr(cell)
                advice = "; impute it, or leave the column out with --leave" if wrong == "no value" else ""
                raise CtfedError(
                    f"{sheet.path}: column {name!r}: found {wrong} in row {number}, expected a number{advice}"
                )
            found.append(value)
    return np.array(found)


def _covariate(sheets: Sequence[Sheet], name: str, categorical: bool) -> tuple[FloatArray, tuple[str, ...]]:
    """(n,) a covariate, and the texts of its levels: those of text columns, and of numbers that are categories."""
    if not categorical and _not_a_number(sheets, name) is None:
        return _numbers(sheets, name), ()
    cells = []
    for sheet in sheets:
        for number, cell in zip(sheet.table.numbers, sheet.table.column(name), strict=True):
            if cell.lower() in MISSING:
                raise CtfedError(f"{sheet.path}: column {name!r}: found no value in row {number}, expected a covariate")
            cells.append(cell)
    levels = tuple(sorted(set(cells), key=lambda text: (_number(text) is None, _number(text) or 0.0, text)))
    if len(levels) < 2:
        raise CtfedError(f"covariate {name!r} is {levels[0]!r} for every patient; leave it out")
    return np.array([levels.index(cell) for cell in cells], dtype=np.float64), levels


def _batches(sheets: Iterable[Sheet], column: str) -> np.ndarray[tuple[int, ...], np.dtype[np.str_]]:
    labels: list[str] = []
    for sheet in sheets:
        if not column:
            labels += [sheet.site] * len(sheet.table.rows)
            continue
        for number, cell in zip(sheet.table.numbers, sheet.table.column(column), strict=True):
            if cell.lower() in MISSING:
                raise CtfedError(f"{sheet.path}: column {column!r}: found no value in row {number}, expected a batch")
            labels.append(cell)
    return np.array(labels)
