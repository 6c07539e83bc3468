"""Site: where one centre's data and keys are, and how its table's columns map to the study's variables.

A file with ``site`` describes a real centre. A file with ``partition`` cuts one table into virtual sites, for
simulations; only there may the secret be written into the file, so that folds are the same for everyone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationInfo, model_validator

from ctfed.config import ConfigError, Faults, Section, load
from ctfed.study import TimeUnit
from ctfed.study_models import Name, SiteName, Text

SECRET_BYTES = 32
_SHORTEST_SECRET = 16
_DEFAULT_ORIGIN = "site file"


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return path if folder is None else Path(folder) / path


def column_alone(value: Any) -> Any:
    """``age: alter`` is short for ``age: {column: alter}``."""
    return {"column": value} if isinstance(value, str) else value


FilePath = Annotated[Path, AfterValidator(_beside_the_file)]


class Source(Section):
    """Where a variable comes from: a column and, where it holds codes, the number each code stands for."""

    column: Text = Field(description="the name of a column")
    codes: Annotated[Mapping[str, float], Field(min_length=1)] | None = Field(
        default=None, description="a mapping of the table's codes to numbers"
    )


class Data(Section):
    """The table: a CSV file, what `ctfed prepare` made, or a public table that ships in a Python package."""

    csv: FilePath | None = Field(default=None, description="the path of a CSV file")
    separator: Literal[",", ";", "\t"] = Field(",", description="',', ';' or \"\\t\", what stands between columns")
    decimal: Literal[".", ","] = Field(".", description="'.' or ',', the decimal mark")
    package: Literal["lifelines"] | None = Field(default=None, description="'lifelines'")
    dataset: Literal["lung"] | None = Field(default=None, description="'lung' (the NCCTG trial)")
    prepared: bool = Field(default=False, description="true (the features that `ctfed prepare` made) or false")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        if self.prepared:
            if self.csv is not None or self.package is not None:
                faults.add(("prepared",), "found true beside csv or package, expected one source of data")
        elif (self.csv is None) == (self.package is None):
            found = "neither" if self.csv is None else "both"
            faults.add((), f"found {found}, expected exactly one of csv or package, or prepared: true")
        elif (self.package is None) != (self.dataset is None):
            missing, given = ("package", "dataset") if self.package is None else ("dataset", "package")
            faults.add((missing,), f"found nothing, expected a name, because {given} is given")
        faults.require()
        return self


class Columns(Section):
    """The table's columns that are not features."""

    id: Text | None = Field(default=None, description="the name of the column with the patient's identifier")
    time: Text = Field(description="the name of the column with the follow-up time")
    event: Text = Field(description="the name of the column that says whether the event was observed")


# What the columns of a prepared table are called, and the unit of its times.
PREPARED_COLUMNS = Columns(id="patient", time="time", event="event")
PREPARED_TIME_UNIT: TimeUnit = "days"


class Prepare(Section):
    """Where `ctfed prepare` finds this centre's scans and clinical data, and where it leaves the features."""

    scans: FilePath = Field(description="the path of the folder with the patients' scans")
    layout: Text = Field(default="auto", description="a layout of folders, such as auto")
    clinical: FilePath = Field(description="the path of the clinical table, or of the folder that holds its files")
    dictionary: FilePath = Field(description="the path of the YAML file that maps the clinical data to variables")
    extraction: FilePath = Field(description="the path of the YAML file with the settings of the extraction")
    weights: FilePath | None = Field(
        default=None, description="the path of the folder that holds one folder of weights per model"
    )
    licence_number: Text | None = Field(
        default=None, repr=False, description="this centre's licence number for TotalSegmentator, in quotes"
    )
    output: FilePath = Field(description="the path of the folder for what is made; its part local/ never leaves")
    workers: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="a whole number from 1 to 1024, the most patients at once (default: one per core)"
    )

    @property
    def local(self) -> Path:
        """The half of the output folder that never leaves the centre."""
        return self.output / "local"


class Partition(Section):
    """Cuts one table into virtual sites by the levels of a column.

    Levels with fewer than ``minimum`` patients, and patients without a level, become one site named ``remainder``.
    """

    by: Text = Field(description="the name of the column whose levels become sites")
    prefix: SiteName = Field(default="institution", description="the first part of the virtual sites' names")
    minimum: int = Field(default=10, ge=1, description="a whole number >= 1, the fewest patients of a site")
    remainder: SiteName = Field(default="remainder", description="the name of the site that takes the small levels")


class Server(Section):
    """The server that a real site joins."""

    address: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-\[\]:]+:[0-9]{1,5}$")] = Field(
        description="host:port in quotes"
    )
    root_certificates: FilePath | None = Field(default=None, description="the path of a PEM file")
    private_key: FilePath | None = Field(default=None, description="the path of a key file")


class Trust(Section):
    """What this centre answers with and by which rules: its key, its peers' keys, its limits, its memory."""

    key: FilePath = Field(description="the path of mask.key, made by `ctfed keygen`")
    roster: FilePath = Field(description="the path of roster.json, the public keys of all sites")
    policy: FilePath | None = Field(default=None, description="the path of the YAML file with this site's limits")
    ledger: FilePath = Field(description="the path of the folder with the ledger, stored answers and approvals")


class Site(Section):
    """One centre (``site``), or one table that stands for many (``partition``)."""

    ctfed_site: Literal[1] = Field(description="1, the version of this format")
    site: SiteName | None = Field(default=None, description="a name: letters, digits, '_', '.' or '-'")
    partition: Partition | None = Field(default=None, description="a mapping with at least the key by")
    data: Data = Field(description="a mapping with csv, with package and dataset, or with prepared")
    columns: Columns = Field(default=PREPARED_COLUMNS, description="a mapping: id, time, event")
    features: Mapping[Name, Annotated[Source, BeforeValidator(column_alone)]] = Field(
        default_factory=dict, description="a mapping of the study's variables to columns"
    )
    event_codes: Annotated[Mapping[str, Literal[0, 1]], Field(min_length=1)] | None = Field(
        default=None, description="a mapping of the table's codes to 0 (not observed) or 1 (observed)"
    )
    time_unit: TimeUnit = Field(
        default=PREPARED_TIME_UNIT, description="'days' or 'months', the unit of the table's times"
    )
    missing: tuple[str, ...] = Field(
        default=(), description="a list of texts (in quotes) that stand for a missing value"
    )
    secret: FilePath | None = Field(default=None, description="the path of the file with the site's secret")
    fixture_secret: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="text, for simulations only"
    )
    prepare: Prepare | None = Field(
        default=None, description="a mapping: scans, layout, clinical, dictionary, extraction, weights, output, workers"
    )
    server: Server | None = Field(default=None, description="a mapping: address, root_certificates, private_key")
    trust: Trust | None = Field(default=None, description="a mapping: key, roster, policy, ledger")
    unmasked: bool = Field(default=False, description="true (this site's data are public) or false")
    _origin: str = PrivateAttr(_DEFAULT_ORIGIN)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        if (self.site is None) == (self.partition is None):
            found = "neither" if self.site is None else "both"
            faults.add((), f"found {found}, expected exactly one of site or partition")
        elif self.site is not None:
            self._check_real(faults)
        elif (self.secret is None) == (self.fixture_secret is None):
            found = "neither" if self.secret is None else "both"
            faults.add((), f"found {found}, expected exactly one of fixture_secret or secret")
        if self.partition is not None:
            self._check_virtual(faults)
        self._check_prepared(faults)
        if self.columns.id is None and self.data.package is None:
            # Row numbers change whenever a table is exported again, and folds would change with them.
            faults.add(
                ("columns", "id"), "found nothing, expected the name of the column with the patient's identifier"
            )
        faults.require()
        return self

    def _check_prepared(self, faults: Faults) -> None:
        """A prepared table has its own columns, codes and unit; any other needs them from the file."""
        given = self.model_fields_set
        if not self.data.prepared:
            for key in ("columns", "time_unit"):
                if key not in given:
                    wanted = type(self).model_fields[key].description
                    faults.add((key,), f"found nothing, expected {wanted}")
            return
        if self.prepare is None:
            faults.add(("prepare",), "found nothing, expected a mapping with scans and output, as data is prepared")
        for key in ("columns", "time_unit", "event_codes"):
            if key in given:
                faults.add((key,), "found it beside data.prepared, expected none: the prepared table has its own")

    def _check_virtual(self, faults: Faults) -> None:
        if self.prepare is not None:
            faults.add(("prepare",), "found it beside partition, expected none, because a real site prepares scans")
        if self.server is not None:
            faults.add(("server",), "found a server beside partition, expected none, because a simulation joins none")
        if self.trust is not None:
            faults.add(("trust",), "found keys beside partition, expected none, because simulated sites make their own")
        if self.unmasked:
            faults.add(("unmasked",), "found true beside partition, expected `ctfed simulate --unmasked`")

    def _check_real(self, faults: Faults) -> None:
        if self.unmasked and self.trust is not None:
            faults.add(("unmasked",), "found true beside trust, expected one of them: a site masks its answers or not")
        if self.fixture_secret is not None:
            faults.add(("fixture_secret",), "found a secret in the file of a real site, expected secret: path")
        elif self.secret is None:
            faults.add(("secret",), "found nothing, expected the path of the file with the site's secret")

    def model_post_init(self, context: Any) -> None:
        """Keep the file's name, so that later messages can name it."""
        self._origin = (context or {}).get("origin", _DEFAULT_ORIGIN)

    @property
    def origin(self) -> str:
        """The file this came from, for messages."""
        return self._origin

    def source(self, variable: str) -> Source:
        """Where a study variable comes from; by default the column of the same name."""
        return self.features.get(variable) or Source(column=variable)

    def secret_of(self, name: str) -> bytes:
        """The secret that orders the patients of the site ``name``; made at the first call where the file is absent.

        Virtual sites get one each, derived from the file's, so that they deal out their patients independently.

        Raises:
            ConfigError: when the secret cannot be read or made, is too short, or is open to every user.
        """
        own = self.fixture_secret.encode() if self.fixture_secret is not None else self._secret_file()
        return own if self.partition is None else hmac.digest(own, f"site|{name}".encode(), hashlib.sha256)

    def _secret_file(self) -> bytes:
        if self.secret is None:  # excluded by validation
            raise ConfigError(f"{self.origin}: secret: found nothing, expected a path")
        try:
            return _read_or_make_secret(self.secret)
        except OSError as error:
            wanted = "a file that can be read, or a folder in which it can be made"
            raise ConfigError(
                f"{self.origin}: secret: found {self.secret} ({error.strerror}), expected {wanted}"
            ) from (error)


def load_site(path: Path | str) -> Site:
    """Read a site file; relative paths in it are relative to the file.

    Raises:
        ConfigError: one sentence per fault: file, line, key, what was found, what was expected.
    """
    path = Path(path)
    return load(Site, path, "ctfed_site", {"folder": path.parent, "origin": str(path)})


def site_files(path: Path) -> tuple[Path, ...]:
    """A site file itself; of a folder of centres the files CENTRE/site.yaml in it, in the order of their names.

    Raises:
        ConfigError: when the folder has none.
    """
    if not path.is_dir():
        return (path,)
    found = tuple(sorted(path.glob("*/site.yaml")))
    if not found:
        raise ConfigError(f"{path}: found no file CENTRE/site.yaml in the folder, expected at least one centre")
    return found


def _read_or_make_secret(path: Path) -> bytes:
    """The secret in the file, made with mode 0600 when absent.

    A folder that is absent is not made: a mistyped path would silently start a new secret, hence new folds.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_secret(path)
    secret = secrets.token_bytes(SECRET_BYTES)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    return secret


def _read_secret(path: Path) -> bytes:
    mode = path.stat().st_mode & 0o777
    if os.name == "posix" and mode & 0o007:
        raise ConfigError(f"{path}: found mode {mode:04o}, expected a secret closed to other users (chmod 600)")
    secret = path.read_bytes()
    if len(secret) < _SHORTEST_SECRET:
        raise ConfigError(f"{path}: found {len(secret)} bytes, expected a secret of at least {_SHORTEST_SECRET}")
    return secret
