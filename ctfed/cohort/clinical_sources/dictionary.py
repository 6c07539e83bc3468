"""The data dictionary: what the study's variables are, and where a centre's table has them.

A file with ``variables`` alone defines variables. A centre's own file says ``extends: that file`` and adds ``source``:
which form its data have, and for every variable a column and, where the column holds codes, what each code means. A
variable that the centre does not collect must be named in ``not_collected``; none is left out by accident.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from ctfed.config import ConfigError, Document, Faults, Key, Section, did_you_mean, listed, read_document, read_yaml
from ctfed.site import FilePath, column_alone
from ctfed.study import TimeUnit, Variable
from ctfed.study_models import Name, Text

MARKER = "ctfed_dictionary"
Separator = Literal[",", ";", "\t"]


class Mapped(Section):
    """Where a variable comes from."""

    column: Text = Field(description="the name of a column")
    codes: Annotated[Mapping[str, float | None], Field(min_length=1)] | None = Field(
        default=None, description="a mapping of the table's codes to numbers, or to null where nothing is known"
    )
    factor: float = Field(default=1.0, gt=0, description="a number > 0 that the table's numbers are multiplied by")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        if self.codes is not None and self.factor != 1:
            faults.add(("factor",), "found a factor beside codes, expected the numbers themselves in codes")
        faults.require()
        return self


class Moment(Section):
    """A point in time: a date with its format, or a number of days or months since one that all share."""

    column: Text = Field(description="the name of a column")
    format: Annotated[str, Field(pattern="%")] | None = Field(
        default=None, description="the dates' format, such as '%Y-%m-%d'"
    )
    unit: TimeUnit | None = Field(default=None, description="'days' or 'months', where the column holds numbers")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        if (self.format is None) == (self.unit is None):
            found = "neither" if self.format is None else "both"
            faults.add((), f"found {found}, expected exactly one of format (dates) or unit (numbers)")
        faults.require()
        return self


class Duration(Section):
    """A follow-up time that the table states as a number."""

    column: Text = Field(description="the name of a column")
    unit: TimeUnit = Field(description="'days' or 'months'")


class EventCodes(Section):
    """Whether the event was observed."""

    column: Text = Field(description="the name of a column")
    codes: Annotated[Mapping[str, Literal[0, 1] | None], Field(min_length=1)] = Field(
        description="a mapping of the table's codes to 0 (not observed), 1 (observed) or null (not known)"
    )


class FollowUp(Section):
    """How long a patient was followed and whether the event was observed.

    Either ``time`` and ``event``, or moments: from ``start`` (left out: relative numbers count from it) to the event's
    moment ``death`` where there is one, else to ``last_contact``. Without ``event``, a patient with a moment of death
    has died and one without it was alive at the last contact; the centre says so by leaving ``event`` out.
    """

    time: Duration | None = Field(default=None, description="a mapping: column, unit")
    start: Moment | None = Field(default=None, description="a mapping: column, and format or unit")
    last_contact: Moment | None = Field(default=None, description="a mapping: column, and format or unit")
    death: Moment | None = Field(default=None, description="a mapping: column, and format or unit")
    event: EventCodes | None = Field(default=None, description="a mapping: column, codes")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        moments = {"start": self.start, "last_contact": self.last_contact, "death": self.death}
        given = {name: moment for name, moment in moments.items() if moment is not None}
        if self.time is not None:
            for name in given:
                faults.add((name,), "found a moment beside time, expected one of them")
            if self.event is None:
                faults.add(("event",), "found nothing, expected a mapping: column, codes")
        elif self.last_contact is None:
            # A censored patient without a last contact has no follow-up time, and none is guessed.
            faults.add(("last_contact",), "found nothing, expected when each patient was last known to be alive")
        elif self.event is None and self.death is None:
            faults.add(("event",), "found nothing, expected a mapping: column, codes (or the moment of death)")
        if len({moment.format is None for moment in given.values()}) > 1:
            faults.add((), "found dates beside relative numbers, expected one kind of moments")
        dates = any(moment.format is not None for moment in given.values())
        if dates and self.start is None:
            faults.add(("start",), "found nothing, expected the baseline's date, because follow-up is in dates")
        faults.require()
        return self


class CdmTable(Section):
    """One CSV file of a relational source; its columns are addressed as alias.column."""

    file: Text = Field(description="a path inside the folder of the clinical data")
    patient: Text = Field(default="patient_id", description="the name of the column with the patient's identifier")
    where: Mapping[str, Text] = Field(default_factory=dict, description="a mapping of columns to the text of rows kept")


class Join(Section):
    """A further CSV file of the centre's own, one row per patient, such as follow-up that a form lacks."""

    csv: FilePath = Field(description="the path of a CSV file")
    patient: Text = Field(description="the name of the column with the patient's identifier")
    separator: Separator = Field(",", description="',', ';' or \"\\t\", what stands between columns")


class Source(Section):
    """The form of a centre's clinical data and how they map to the variables."""

    kind: Literal["csv", "chaimeleon-eforms", "eucaim-cdm"] = Field(
        description="'csv', 'chaimeleon-eforms' or 'eucaim-cdm'"
    )
    patient: Text | None = Field(default=None, description="the name of the column with the patient's identifier")
    separator: Separator = Field(",", description="',', ';' or \"\\t\", what stands between columns")
    decimal: Literal[".", ","] = Field(".", description="'.' or ',', the decimal mark")
    missing: tuple[str, ...] = Field(default=(), description="a list of texts (in quotes) that stand for missing")
    tables: Mapping[Name, CdmTable] = Field(
        default_factory=dict, description="a mapping of aliases to files, first the one that lists the patients"
    )
    joins: tuple[Join, ...] = Field(default=(), description="a list of mappings: csv, patient")
    follow_up: FollowUp = Field(description="a mapping: time and event, or moments")
    columns: Mapping[Name, Annotated[Mapped, BeforeValidator(column_alone)]] = Field(
        description="a mapping of variables to columns"
    )
    not_collected: tuple[Name, ...] = Field(default=(), description="a list of variables that this centre has not")

    @property
    def used(self) -> frozenset[str]:
        """The names of all columns that the variables and the follow-up are read from."""
        moments = (getattr(self.follow_up, name) for name in FollowUp.model_fields)
        entries = (*self.columns.values(), *(moment for moment in moments if moment is not None))
        return frozenset(entry.column for entry in entries)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        if self.kind == "csv" and self.patient is None:
            faults.add(("patient",), "found nothing, expected the name of the column with the patient's identifier")
        if self.kind != "csv" and self.patient is not None:
            faults.add(("patient",), f"found a column, expected none: {self.kind} names its patients itself")
        if (self.kind == "eucaim-cdm") != bool(self.tables):
            wanted = "at least one table" if self.kind == "eucaim-cdm" else f"none, because kind is {self.kind}"
            faults.add(("tables",), f"found {len(self.tables)} tables, expected {wanted}")
        for name in self.not_collected:
            if name in self.columns:
                faults.add(("not_collected",), f"found {name!r}, which has a column, expected it in one place")
        faults.require()
        return self


class Dictionary(Section):
    """The variables, and for one centre where they come from."""

    ctfed_dictionary: Literal[1] = Field(description="1, the version of this format")
    name: Name = Field(description="an identifier: a letter, then letters, digits, '_', '.' or '-'")
    title: Text | None = Field(default=None, description="what it is in words")
    extends: FilePath | None = Field(
        default=None, description="the path of a dictionary whose variables are taken over"
    )
    variables: Mapping[Name, Variable] = Field(default_factory=dict, description="a mapping of names to variables")
    source: Source | None = Field(default=None, description="a mapping: kind, patient, follow_up, columns")
    _origin: str = PrivateAttr("dictionary")

    @property
    def origin(self) -> str:
        """The file this came from, for messages."""
        return self._origin

    def required_source(self) -> Source:
        """The centre's part.

        Raises:
            ConfigError: when the file only defines variables.
        """
        if self.source is None:
            raise ConfigError(f"{self.origin}: source: found nothing, expected where this centre's columns are")
        return self.source


def load_dictionary(path: Path | str) -> Dictionary:
    """Read a dictionary with the variables of the one it extends; relative paths in it are relative to the file.

    Raises:
        ConfigError: one sentence per fault: file, line, key, what was found, what was expected.
    """
    path = Path(path)
    document = read_yaml(path)
    own = read_document(Dictionary, document, MARKER, {"folder": path.parent})
    variables = dict(own.variables)
    if own.extends is not None:
        variables = {**_parent(own.extends, document), **variables}
    if not variables:
        raise ConfigError(document.fault(("variables",), "found none, expected at least one (or extends: a file)"))
    loaded = own.model_copy(update={"variables": variables, "extends": None})
    loaded._origin = str(path)
    _check(loaded, own, document)
    return loaded


def _parent(path: Path, document: Document) -> Mapping[str, Variable]:
    parent = read_document(Dictionary, read_yaml(path), MARKER, {"folder": path.parent})
    if parent.extends is not None:
        sentence = f"found {path.name!r}, which extends another itself, expected one that defines its variables"
        raise ConfigError(document.fault(("extends",), sentence))
    return parent.variables


def _check(loaded: Dictionary, own: Dictionary, document: Document) -> None:
    """Every variable has one definition and one place."""
    faults = []
    if own.extends is not None:
        inherited = _parent(own.extends, document)
        faults += [
            document.fault(("variables", name), f"found {name!r}, which {own.extends.name} defines, expected new names")
            for name in own.variables
            if name in inherited
        ]
    if loaded.source is not None:
        named: dict[str, Key] = {name: ("source", "columns", name) for name in loaded.source.columns}
        named |= dict.fromkeys(loaded.source.not_collected, ("source", "not_collected"))
        for name, key in named.items():
            if name not in loaded.variables:
                hint = did_you_mean(name, loaded.variables)
                faults.append(document.fault(key, f"found {name!r}, expected a name of variables{hint}"))
        if left := [name for name in loaded.variables if name not in named]:
            wanted = "a column for each variable, or the variable in not_collected"
            faults.append(document.fault(("source", "columns"), f"found nothing for {listed(left)}, expected {wanted}"))
    if faults:
        raise ConfigError(*faults)
