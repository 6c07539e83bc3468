"""Clinical tables as text: a header and rows of cells with the row numbers that a person sees in a spreadsheet.

Nothing is interpreted here. Cells become numbers in ``clinical``, where a wrong one can be named with its row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ctfed.config import FaultsError, shown
from ctfed.federation.errors import CtfedError
from ctfed.site import Data

# Read as the file it is: to import the package would import pandas, which an image of the server does not have.
_PACKAGED = {("lifelines", "lung"): "lifelines/datasets/lung.csv"}


class DataError(FaultsError):
    """A clinical table cannot be used as it is. The sentences name rows: they are for the site's eyes only."""


@dataclass(frozen=True)
class TextTable:
    """A table before interpretation.

    Attributes:
        origin: its name in messages.
        header: names of the columns.
        rows: the cells, stripped; every row is as long as the header.
        numbers: the row number of each row as a spreadsheet shows it (the header is row 1).
    """

    origin: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.header)}

    def __contains__(self, name: str) -> bool:
        return name in self._positions

    def column(self, name: str) -> list[str]:
        """The cells of a column, in the order of the rows."""
        position = self._positions[name]
        return [row[position] for row in self.rows]


def read_table(data: Data) -> TextTable:
    """The table of a site.

    Raises:
        DataError: when it cannot be read, is not CSV, has no rows, or a row does not fit the header.
    """
    if data.csv is not None:
        return _read_csv(data.csv, data.separator)
    return _read_packaged(str(data.package), str(data.dataset))


def _read_csv(path: Path, separator: str, origin: str | None = None) -> TextTable:
    origin = origin or str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{origin}: found no readable file ({error.strerror}), expected a CSV file") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{origin}, line {line}: found a byte that is not UTF-8, expected a CSV file in UTF-8"
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        records = [(number, tuple(cell.strip() for cell in record)) for number, record in enumerate(reader, start=1)]
    except csv.Error as error:
        raise DataError(f"{origin}, line {reader.line_num}: found invalid CSV ({error}), expected CSV") from error
    return _checked(origin, iter(records), separator)


def _checked(origin: str, records: Iterator[tuple[int, tuple[str, ...]]], separator: str) -> TextTable:
    _, header = next(records, (0, ()))
    if not any(header):
        raise DataError(f"{origin}: found no header, expected names of columns in the first row")
    other = next((mark for mark in ",;\t" if mark != separator and mark in header[0]), None)
    if len(header) == 1 and other is not None:
        found = f"found one column {shown(header[0])}"
        raise DataError(f"{origin}: {found}, expected columns between {separator!r} (set data.separator: {other!r}?)")
    faults = [
        f"{origin}: column {name!r}: found twice in the header, expected once"
        for name in dict.fromkeys(header)
        if name and header.count(name) > 1
    ]
    kept = [(number, cells) for number, cells in records if any(cells)]  # spreadsheets leave empty rows at the end
    ragged = [(number, len(cells)) for number, cells in kept if len(cells) != len(header)]
    if ragged:
        number, cells = ragged[0]
        more = f" (and in {len(ragged) - 1} more rows)" if len(ragged) > 1 else ""
        faults.append(f"{origin}: found {cells} cells in row {number}{more}, expected {len(header)} as in the header")
    if not kept:
        faults.append(f"{origin}: found no rows below the header, expected patients")
    if faults:
        raise DataError(*faults)
    return TextTable(origin, header, tuple(cells for _, cells in kept), tuple(number for number, _ in kept))


def _read_packaged(package: str, dataset: str) -> TextTable:
    try:
        path = Path(str(distribution(package).locate_file(_PACKAGED[package, dataset])))
    except PackageNotFoundError as error:
        raise CtfedError(f"package {package!r} is not installed; it holds the table {dataset!r}") from error
    return _read_csv(path, ",", origin=f"{package}:{dataset}")
