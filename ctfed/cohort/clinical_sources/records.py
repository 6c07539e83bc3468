"""The forms in which centres keep clinical data, each as one table of text with a row per patient.

Nothing is interpreted here. The patient's identifier stands in the column ``PATIENT``, every other column under its own
name in the source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctfed.cohort.clinical_sources.dictionary import CdmTable, Join, Separator, Source
from ctfed.cohort.faults import CaseFault
from ctfed.cohort.table import DataError, TextTable, read_table
from ctfed.config import did_you_mean, listed, shown
from ctfed.site import Data

PATIENT = "(patient)"  # no column of a centre is called so
EFORMS = "eforms.json"
_SUBJECT, _FORM = "subjectName", "eForm"


@dataclass(frozen=True)
class Records:
    """A table of text and what is wrong with single rows of it.

    Attributes:
        table: one row per patient; a patient may still stand there twice.
        faults: by the row's index.
    """

    table: TextTable
    faults: Mapping[int, CaseFault]


def read_records(path: Path, source: Source) -> Records:
    """The records at ``path``: a CSV file, eforms.json (or its folder), or the folder of the CDM's files.

    Raises:
        DataError: when they cannot be read or have no patients.
    """
    if source.kind == "csv":
        records = Records(_flat(path, source), {})
    elif source.kind == "chaimeleon-eforms":
        records = _eforms(path)
    else:
        records = _cdm(path, source)
    for join in source.joins:
        records = _joined(records, join)
    return records


def _flat(path: Path, source: Source) -> TextTable:
    table = _csv(path, source.separator)
    return _with_patient(table, str(source.patient))


def _csv(path: Path, separator: Separator) -> TextTable:
    return read_table(Data(csv=path, separator=separator, decimal="."))  # cells stay text, whatever their mark


def _with_patient(table: TextTable, column: str) -> TextTable:
    """The table with a first column PATIENT, a copy of ``column``.

    Raises:
        DataError: when there is no such column.
    """
    if column not in table:
        hint = did_you_mean(column, table.header)
        raise DataError(f"{table.origin}: column {column!r}: found no such column, expected the patients{hint}")
    rows = tuple((key, *row) for key, row in zip(table.column(column), table.rows, strict=True))
    return TextTable(table.origin, (PATIENT, *table.header), rows, table.numbers)


def _eforms(path: Path) -> Records:
    """CHAIMELEON's eforms.json: every variable of a form's pages is a column, 'page.variable' where several pages have
    it. Repeated groups (``lists``) are not read."""
    file = path / EFORMS if path.is_dir() else path
    try:
        content = json.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{file}: found no readable file ({error.strerror}), expected {EFORMS}") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: found invalid JSON ({type(error).__name__}), expected a list of subjects") from error
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise DataError(f"{file}: found {shown(content)}, expected a list of subjects that is not empty")
    forms = [_form(entry.get(_FORM)) for entry in content]
    names = _column_names(form for form in forms if form is not None)
    rows, faults = [], {}
    for number, (entry, form) in enumerate(zip(content, forms, strict=True)):
        if form is None:
            faults[number] = CaseFault("form-unreadable", "found no pages in the subject's form, expected a form")
        cells = {names[key]: _cell(value) for key, value in (form or {}).items()}
        subject = entry.get(_SUBJECT)
        rows.append((_cell(subject), *(cells.get(name, "") for name in dict.fromkeys(names.values()))))
    header = (PATIENT, *dict.fromkeys(names.values()))
    return Records(TextTable(str(file), header, tuple(rows), tuple(range(1, len(rows) + 1))), faults)


def _form(form: Any) -> dict[tuple[str, str], Any] | None:
    """The values of a form by page and variable; None when it has no pages as the schema has them."""
    if not isinstance(form, dict) or not isinstance(form.get("pages"), list):
        return None
    values = {}
    for page in form["pages"]:
        if not isinstance(page, dict) or not isinstance(page.get("page_data"), dict):
            return None
        for name, entry in page["page_data"].items():
            value = entry.get("value") if isinstance(entry, dict) else entry
            values[str(page.get("page_name")), str(name)] = value
    return values


def _column_names(forms: Any) -> dict[tuple[str, str], str]:
    """The column of each page and variable: the variable's name, with the page's before it where pages share it."""
    keys = list(dict.fromkeys(key for form in forms for key in form))
    shared = [variable for _, variable in keys]
    return {(page, name): name if shared.count(name) == 1 else f"{page}.{name}" for page, name in keys}


def _cell(value: Any) -> str:
    """A JSON value as text: '' for null, 'true' and 'false', whole numbers without a point."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return str(value).strip()


def _cdm(folder: Path, source: Source) -> Records:
    """EUCAIM's common data model: CSV files that share the patient's identifier, joined on it.

    The first table lists the patients. Where another has several rows of a patient, they must agree in the columns that
    the dictionary uses, or ``where`` must choose among them; otherwise nothing says which one counts.
    """
    loaded = {alias: _kept(folder, entry, source.separator) for alias, entry in source.tables.items()}
    base, *others = loaded
    faults: dict[int, CaseFault] = {}
    header = [PATIENT, *(f"{base}.{name}" for name in loaded[base].header[1:])]
    rows = [list(row) for row in loaded[base].rows]
    for alias in others:
        table = loaded[alias]
        header += [f"{alias}.{name}" for name in table.header[1:]]
        by_patient: dict[str, list[tuple[str, ...]]] = {}
        for record in table.rows:
            by_patient.setdefault(record[0], []).append(record[1:])
        used = [i for i, name in enumerate(table.header[1:]) if f"{alias}.{name}" in source.used]
        for number, row in enumerate(rows):
            found = by_patient.get(row[0], [])
            different = {tuple(record[i] for i in used) for record in found}
            if len(different) > 1:
                sentence = f"found {len(different)} different records in a table, expected one (or a choice by where)"
                faults.setdefault(number, CaseFault("several-records", sentence))
            row.extend(found[0] if found else [""] * (len(table.header) - 1))
    cells = tuple(tuple(row) for row in rows)
    return Records(TextTable(str(folder), tuple(header), cells, loaded[base].numbers), faults)


def _kept(folder: Path, entry: CdmTable, separator: Separator) -> TextTable:
    """One file's rows that ``where`` keeps, the patient first and in no other column."""
    table = _csv(folder / entry.file, separator)
    if unknown := [name for name in entry.where if name not in table]:
        wanted = listed(table.header)
        raise DataError(f"{table.origin}: column {unknown[0]!r}: found no such column, expected one of {wanted}")
    keyed = _with_patient(table, entry.patient)
    names = [name for name in keyed.header if name != entry.patient]
    positions = [keyed.header.index(name) for name in names]
    chosen = [
        number
        for number in range(len(keyed.rows))
        if all(keyed.rows[number][keyed.header.index(name)] == text for name, text in entry.where.items())
    ]
    rows = tuple(tuple(keyed.rows[number][p] for p in positions) for number in chosen)
    return TextTable(keyed.origin, tuple(names), rows, tuple(keyed.numbers[number] for number in chosen))


def _joined(records: Records, join: Join) -> Records:
    """The records with the columns of a further file; its patients who are not among the records are left out.

    Raises:
        DataError: when both have a column of the same name.
    """
    table = records.table
    other = _with_patient(_csv(join.csv, join.separator), join.patient)
    if common := [name for name in other.header[1:] if name in table and name != join.patient]:
        where = f"{other.origin}: column {common[0]!r}"
        raise DataError(f"{where}: found it in both files, expected names that {table.origin} has not")
    positions = [i for i, name in enumerate(other.header) if i and name != join.patient]
    found: dict[str, list[tuple[str, ...]]] = {}
    for row in other.rows:
        found.setdefault(row[0], []).append(tuple(row[i] for i in positions))
    faults, rows = dict(records.faults), []
    for number, row in enumerate(table.rows):
        matches = found.get(row[0], [])
        if len(matches) > 1:
            faults.setdefault(
                number, CaseFault("several-records", f"found {len(matches)} rows in a joined table, expected one")
            )
        rows.append(row + (matches[0] if matches else ("",) * len(positions)))
    header = (*table.header, *(other.header[i] for i in positions))
    return Records(TextTable(table.origin, header, tuple(rows), table.numbers), faults)
