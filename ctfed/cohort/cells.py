"""From cells to numbers: one reader per table that collects every fault with its column and rows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ctfed.cohort.table import TextTable
from ctfed.config import did_you_mean, shown
from ctfed.federation.arrays import BoolArray, FloatArray
from ctfed.site import Site, Source
from ctfed.study import TimeUnit, Variable, converted

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})  # in any case; a site file may add texts

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_ROWS_NAMED = 3
_CODES_NAMED = 5
_COLUMNS_NAMED = 20
_LONGEST_FOLLOW_UP = 1200.0  # months


def canonical(code: str) -> str:
    """A code's text, with whole numbers in one spelling: a column of 1, 2 and blanks is often exported as 1.0, 2.0."""
    if _NUMBER.fullmatch(code):
        number = float(code)
        if math.isfinite(number) and number == int(number):
            return str(int(number))
    return code


class Cells:
    """Reads columns of one table. Wrong cells are noted in ``faults`` and read as missing.

    Args:
        table: the cells.
        missing: texts that stand for a missing value, beside ``MISSING``.
        decimal: the decimal mark, '.' or ','.
    """

    def __init__(self, table: TextTable, missing: Iterable[str] = (), decimal: str = ".") -> None:
        self.table = table
        self.faults: list[str] = []
        self._missing = MISSING | {text.strip().lower() for text in missing}
        self._decimal = decimal

    def text(self, column: str) -> list[str | None] | None:
        """The cells, None where missing; None in place of all when the table has no such column."""
        if column not in self.table:
            hint = did_you_mean(column, self.table.header) or f"; {self._columns()}"
            self.faults.append(f"{self.table.origin}: column {column!r}: found no such column, expected it{hint}")
            return None
        return [None if cell.lower() in self._missing else cell for cell in self.table.column(column)]

    def _columns(self) -> str:
        header = self.table.header
        more = f" and {len(header) - _COLUMNS_NAMED} more" if len(header) > _COLUMNS_NAMED else ""
        return f"the table has {', '.join(header[:_COLUMNS_NAMED])}{more}"

    def coded(self, column: str, codes: Mapping[str, float | None], wanted: str) -> FloatArray:
        """(n,) the number of each cell's code, NaN where missing or where the code means that nothing is known (None).

        A code that is mapped is looked up even where its text usually stands for a missing value.
        """
        cells = self.text(column)
        if cells is None:
            return self._nothing()
        known = {canonical(code): math.nan if number is None else float(number) for code, number in codes.items()}
        raw = [canonical(cell) for cell in self.table.column(column)]
        unmapped: dict[str, list[int]] = {}
        for row, (code, cell) in enumerate(zip(raw, cells, strict=True)):
            if cell is not None and code not in known:
                unmapped.setdefault(cell, []).append(row)
        if unmapped:
            codes_found = sorted(unmapped.items())
            found = ", ".join(f"{shown(code)} in {self._rows(rows)}" for code, rows in codes_found[:_CODES_NAMED])
            found += f" and {len(codes_found) - _CODES_NAMED} more codes" if len(codes_found) > _CODES_NAMED else ""
            self.faults.append(f"{self._at(column)}: found {found}, expected {wanted}")
        return np.array([known.get(code, math.nan) for code in raw], dtype=np.float64)

    def plausible(self, name: str, variable: Variable, column: str, values: FloatArray, coded: bool) -> None:
        """Note a fault where values of a variable, read from ``column``, are not among its levels or in its range."""
        unit = f" {variable.unit}" if variable.unit else ""
        if levels := variable.possible_levels:
            wanted = f"one of {', '.join(f'{level:g}' for level in levels)}"
            wrong = np.isfinite(values) & ~np.isin(values, levels)
        else:
            low, high = variable.range
            wanted = f"{low:g} to {high:g}{unit}"
            wrong = (values < low) | (values > high)
        subject = "" if name == column else f" for variable {name!r}"
        self._refuse(column, np.asarray(wrong), wanted + subject, values if coded else None)

    def numbers(self, column: str) -> FloatArray:
        """(n,) the column's numbers, NaN where missing."""
        cells = self.text(column)
        if cells is None:
            return self._nothing()
        values = np.full(len(cells), math.nan)
        text, infinite = np.zeros(len(cells), dtype=bool), np.zeros(len(cells), dtype=bool)
        for row, cell in enumerate(cells):
            if cell is None:
                continue
            spelled = cell.replace(",", ".") if self._decimal == "," and "." not in cell else cell
            if _NUMBER.fullmatch(spelled):
                values[row] = float(spelled)
                infinite[row] = math.isinf(values[row])
            else:
                infinite[row] = _INFINITE.fullmatch(spelled) is not None
                text[row] = not infinite[row]
        commas = any(_COMMA.fullmatch(cell or "") for cell, wrong in zip(cells, text, strict=True) if wrong)
        self._refuse(column, text, "a number" + (" (set data.decimal: ','?)" if commas else ""))
        self._refuse(column, infinite, "a finite number")
        values[infinite] = math.nan
        return values

    def _nothing(self) -> FloatArray:
        return np.full(len(self.table.rows), math.nan)

    def _at(self, column: str) -> str:
        return f"{self.table.origin}: column {column!r}"

    def _refuse(self, column: str, wrong: BoolArray, wanted: str, decoded: FloatArray | None = None) -> None:
        """Note one fault for all cells of ``column`` where ``wrong``; ``decoded`` are their values where coded."""
        rows = [int(row) for row in np.flatnonzero(wrong)]
        if rows:
            found = shown(self.table.column(column)[rows[0]])
            if decoded is not None:
                found = f"{found} (decoded as {decoded[rows[0]]:g})"
            self.faults.append(f"{self._at(column)}: found {found} in {self._rows(rows)}, expected {wanted}")

    def _rows(self, rows: Sequence[int]) -> str:
        """'row 4', 'rows 4, 7 and 9' or 'rows 4, 7, 9 and 12 more'."""
        numbers = [str(self.table.numbers[row]) for row in rows[:_ROWS_NAMED]]
        if len(rows) > _ROWS_NAMED:
            return f"rows {', '.join(numbers)} and {len(rows) - _ROWS_NAMED} more"
        if len(numbers) == 1:
            return f"row {numbers[0]}"
        return f"rows {', '.join(numbers[:-1])} and {numbers[-1]}"


class CellReader(Cells):
    """Reads the table of a site, by the site file's columns, codes and units."""

    def __init__(self, table: TextTable, site: Site) -> None:
        super().__init__(table, site.missing, site.data.decimal)
        self.site = site

    def identifiers(self, column: str | None) -> list[str | None]:
        """(n,) identifiers, None where missing; row numbers for a packaged table, whose rows never change."""
        if column is None:
            return [str(number) for number in self.table.numbers]
        cells = self.text(column)
        if cells is None:
            return [None] * len(self.table.rows)
        seen: dict[str, int] = {}
        for row, cell in enumerate(cells):
            first = row if cell is None else seen.setdefault(cell, row)
            if first != row:
                rows = f"rows {self.table.numbers[first]} and {self.table.numbers[row]}"
                self.faults.append(f"{self._at(column)}: found {cell!r} in {rows}, expected each patient once")
        return cells

    def times(self, column: str, unit: TimeUnit) -> FloatArray:
        """(n,) follow-up times in the study's unit, NaN where missing."""
        times = self.numbers(column)
        self._refuse(column, times <= 0, "a follow-up time > 0")
        limit = converted(_LONGEST_FOLLOW_UP, "months", self.site.time_unit)
        wanted = f"at most 100 years (time_unit is {self.site.time_unit!r})"
        self._refuse(column, times > limit, wanted)
        return converted(times, self.site.time_unit, unit)

    def events(self) -> FloatArray:
        """(n,) 1 where the event was observed, 0 where not, NaN where missing."""
        column = self.site.columns.event
        if self.site.event_codes is None:
            return self.coded(column, {"0": 0, "1": 1}, "0 or 1 (other codes go into event_codes)")
        codes = " or ".join(repr(code) for code in self.site.event_codes)
        return self.coded(column, self.site.event_codes, f"{codes} as in event_codes")

    def variable(self, name: str, variable: Variable, source: Source) -> FloatArray:
        """(n,) the values of a study variable, NaN where missing."""
        if source.codes is not None:
            codes = " or ".join(repr(code) for code in source.codes)
            values = self.coded(source.column, source.codes, f"{codes} as in features.{name}.codes")
        else:
            values = self.numbers(source.column)
        self.plausible(name, variable, source.column, values, source.codes is not None)
        return values
