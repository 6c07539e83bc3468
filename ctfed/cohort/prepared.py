"""The feature table that `ctfed prepare` made, read as the table of a site."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ctfed.cohort.table import DataError, TextTable, read_table
from ctfed.federation.errors import CtfedError
from ctfed.site import PREPARED_TIME_UNIT, Site

if TYPE_CHECKING:
    import pyarrow as pa

FEATURES = "features.parquet"


@dataclass(frozen=True)
class PreparedTable(TextTable):
    """A table of which the cells become text when a column is asked for: thousands of columns are never read."""

    content: pa.Table = field(compare=False, repr=False, kw_only=True)

    def column(self, name: str) -> list[str]:
        """The cells of a column: numbers with all their digits, '' where missing."""
        return [_cell(value) for value in self.content.column(name).to_pylist()]


def read_site_table(site: Site) -> TextTable:
    """The table of a site: its own, or the one that was prepared from its scans.

    Raises:
        DataError: when it cannot be read or has no rows.
    """
    if not site.data.prepared or site.prepare is None:
        return read_table(site.data)
    return _read_prepared(site.prepare.local / FEATURES)


def _read_prepared(path: Path) -> PreparedTable:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CtfedError("package 'pyarrow' is not installed; prepared features need it: ctfed[imaging]") from error
    if not path.is_file():
        raise DataError(f"{path}: found no file, expected the features; run `ctfed prepare` first")
    try:
        content = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: found no readable Parquet file ({type(error).__name__}), expected features"
        ) from error
    about = content.schema.metadata or {}
    if about.get(b"ctfed_features") != b"1" or about.get(b"time_unit") != PREPARED_TIME_UNIT.encode():
        raise DataError(f"{path}: found another kind of table, expected the features that `ctfed prepare` writes")
    if content.num_rows == 0:
        raise DataError(f"{path}: found no rows, expected patients; exclusions.csv beside it says why there are none")
    rows = ((),) * content.num_rows
    return PreparedTable(
        str(path), tuple(content.schema.names), rows, tuple(range(2, content.num_rows + 2)), content=content
    )


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value)
