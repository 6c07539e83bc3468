"""What a run leaves in ``local/``: tables for the centre's own eyes and for its site's answers."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ctfed.cohort.scans.model import Acquisition
from ctfed.preparation.atomic import write_file, write_text
from ctfed.preparation.columns import Column
from ctfed.preparation.outcome import Aside, FloatArray

FEATURES = "features.parquet"
PATIENT, TIME, EVENT = "patient", "time", "event"
FORMAT = "1"


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """One row per patient with usable scan and follow-up, in the order of their keys.

    Attributes:
        keys: (n,) HMAC keys, rising.
        time: (n,) follow-up, in ``time_unit``.
        event: (n,) 1 where the event was observed, else 0.
        columns: what the values are.
        values: (n, columns), NaN where missing.
        time_unit: 'days' or 'months'.
        settings: SHA-256 of the settings that made it.
    """

    keys: tuple[str, ...]
    time: FloatArray
    event: FloatArray
    columns: tuple[Column, ...]
    values: FloatArray
    time_unit: str
    settings: str

    def write(self, path: Path) -> None:
        """As Parquet; the same content gives the same bytes. Missing values are nulls; each field knows its unit."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        fields = [
            pa.field(PATIENT, pa.string(), nullable=False),
            pa.field(TIME, pa.float64(), nullable=False, metadata={"unit": self.time_unit}),
            pa.field(EVENT, pa.int8(), nullable=False, metadata={"unit": "1 observed, 0 censored"}),
            *(pa.field(c.name, pa.float64(), metadata={"unit": c.unit, "group": c.group}) for c in self.columns),
        ]
        about = {"ctfed_features": FORMAT, "settings_sha256": self.settings, "time_unit": self.time_unit}
        arrays = [
            pa.array(list(self.keys), pa.string()),
            pa.array(self.time, pa.float64()),
            pa.array(self.event.astype(np.int8), pa.int8()),
            *(pa.array(self.values[:, i], pa.float64(), from_pandas=True) for i in range(len(self.columns))),
        ]
        table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=about))
        write_file(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))

    def write_csv(self, path: Path) -> None:
        """The same as CSV: numbers with all their digits, missing values empty."""
        header = [PATIENT, TIME, EVENT, *(column.name for column in self.columns)]
        rows = (
            [key, repr(float(time)), str(int(event)), *("" if math.isnan(v) else repr(float(v)) for v in row)]
            for key, time, event, row in zip(self.keys, self.time, self.event, self.values, strict=True)
        )
        write_table(path, header, rows)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV file, whole or absent."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_keys(path: Path, keys: Mapping[str, str]) -> None:
    """The mapping of keys to the centre's own identifiers, for the centre alone (mode 0600)."""
    # Temporary files of ``write_table`` have mode 0600 from their beginning, and keep it when they are renamed.
    write_table(path, ["patient", "identifier"], sorted(keys.items()))
    if os.name == "posix":
        path.chmod(0o600)


def write_exclusions(path: Path, exclusions: Mapping[str, Aside]) -> None:
    """One row per patient without a row among the features."""
    rows = ([key, aside.stage, aside.rule, aside.reason] for key, aside in sorted(exclusions.items()))
    write_table(path, ["patient", "stage", "rule", "reason"], rows)


def write_reasons(path: Path, reasons: Mapping[str, Mapping[str, str]]) -> None:
    """Why values are missing: one row per patient and group of columns."""
    rows = ([key, group, text] for key, found in sorted(reasons.items()) for group, text in sorted(found.items()))
    write_table(path, ["patient", "columns", "reason"], rows)


def write_notes(path: Path, notes: Mapping[str, Sequence[str]]) -> None:
    """How each series was chosen and what to look at: one row per note."""
    write_table(path, ["patient", "note"], ([key, note] for key, found in sorted(notes.items()) for note in found))


def write_acquisition(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """How each patient's scan was made: the fields of ``Acquisition``."""
    names = [field.name for field in fields(Acquisition)]
    cells = ([key, *(_cell(row.get(name)) for name in names)] for key, row in sorted(rows.items()))
    write_table(path, ["patient", *names], cells)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, list | dict) else str(value)
