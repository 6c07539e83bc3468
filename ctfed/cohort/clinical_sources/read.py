"""A centre's clinical data as one table of the study's variables, keyed by patient, and who was set aside and why.

What is wrong with the table as a whole (no such column, a code that the dictionary does not explain, text among
numbers, an implausible value) refuses it, one sentence per fault. What is wrong with one patient's identity or
follow-up sets that patient aside under a named rule.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctfed.cohort.cells import Cells
from ctfed.cohort.clinical_sources.dictionary import Dictionary, Mapped
from ctfed.cohort.clinical_sources.follow_up import read_follow_up
from ctfed.cohort.clinical_sources.records import PATIENT, Records, read_records
from ctfed.cohort.faults import CaseFault
from ctfed.cohort.table import DataError
from ctfed.federation.arrays import FloatArray
from ctfed.study import TimeUnit, Variable, converted

if TYPE_CHECKING:
    import pandas as pd

TIME, EVENT = "time", "event"


@dataclass(frozen=True)
class SetAside:
    """A patient who has no row in the table.

    Attributes:
        patient: the identifier, '' where it is missing; for the site's own eyes.
        row: of the source: a CSV file's as a spreadsheet shows it, a form's number from 1.
        rule: kebab-case name of the fault.
        reason: one sentence without identifiers.
    """

    patient: str
    row: int
    rule: str
    reason: str


@dataclass(frozen=True, eq=False)
class ClinicalTable:
    """What ``read_clinical`` found.

    Attributes:
        frame: index 'patient' (text, unique); columns time (float, > 0, in ``time_unit``), event (0 or 1), and one
            float per variable of the dictionary, NaN where missing or not collected. Rows as in the source.
        set_aside: the others, one entry per row of the source.
        time_unit: 'days' or 'months'.
    """

    frame: pd.DataFrame
    set_aside: tuple[SetAside, ...]
    time_unit: TimeUnit

    def write_csv(self, path: Path) -> None:
        """The frame as a CSV file that a site file reads with columns {id: patient, time: time, event: event}."""
        self.frame.to_csv(path, lineterminator="\n")


def read_clinical(path: Path | str, dictionary: Dictionary, time_unit: TimeUnit = "months") -> ClinicalTable:
    """The clinical data at ``path`` by a centre's dictionary.

    Args:
        path: a CSV file, eforms.json or its folder, or the folder of the CDM's files, as the dictionary's kind says.
        dictionary: with a ``source``.
        time_unit: of the times that come back.

    Raises:
        ConfigError: when the dictionary has no source.
        DataError: when the data cannot be used; one sentence per fault.
    """
    source = dictionary.required_source()
    records = read_records(Path(path), source)
    cells = Cells(records.table, source.missing, source.decimal)
    follow_up = read_follow_up(cells, source.follow_up)
    values = {
        name: _values(cells, name, variable, source.columns.get(name))
        for name, variable in dictionary.variables.items()
    }
    if cells.faults:
        raise DataError(*dict.fromkeys(cells.faults))  # two variables may share a column
    identity = _identity_faults(records)
    kept: list[int] = []
    ends: list[tuple[float, int]] = []
    set_aside = []
    patients = records.table.column(PATIENT)
    for row, patient in enumerate(patients):
        try:
            if row in identity:
                raise identity[row]
            ends.append(follow_up.of(row))
            kept.append(row)
        except CaseFault as fault:
            set_aside.append(SetAside(patient, records.table.numbers[row], fault.rule, fault.sentence))
    return ClinicalTable(_frame(patients, kept, ends, values, time_unit), tuple(set_aside), time_unit)


def _values(cells: Cells, name: str, variable: Variable, mapped: Mapped | None) -> FloatArray:
    if mapped is None:  # not collected at this centre
        return np.full(len(cells.table.rows), math.nan)
    if mapped.codes is None:
        values = cells.numbers(mapped.column) * mapped.factor
    else:
        codes = " or ".join(repr(code) for code in mapped.codes)
        values = cells.coded(mapped.column, mapped.codes, f"{codes} as in source.columns.{name}.codes")
    cells.plausible(name, variable, mapped.column, values, mapped.codes is not None)
    return values


def _identity_faults(records: Records) -> Mapping[int, CaseFault]:
    """By row: no identifier, or one that several rows have; then what the source itself found."""
    patients = records.table.column(PATIENT)
    times = Counter(patients)
    faults = dict(records.faults)
    for row, patient in enumerate(patients):
        if not patient:
            faults[row] = CaseFault("patient-missing", "found no identifier of the patient, expected one")
        elif times[patient] > 1:
            sentence = f"found {times[patient]} rows of the same patient, expected one"
            faults[row] = CaseFault("patient-duplicate", sentence)
    return faults


def _frame(
    patients: list[str],
    kept: list[int],
    ends: list[tuple[float, int]],
    values: Mapping[str, FloatArray],
    time_unit: TimeUnit,
) -> pd.DataFrame:
    import pandas as pd

    days = np.array([end for end, _ in ends], dtype=np.float64)
    columns: dict[str, object] = {
        TIME: converted(days, "days", time_unit),
        EVENT: np.array([event for _, event in ends], dtype=np.int64),
    }
    columns |= {name: column[kept] for name, column in values.items()}
    return pd.DataFrame(columns, index=pd.Index([patients[row] for row in kept], name="patient", dtype=str))
