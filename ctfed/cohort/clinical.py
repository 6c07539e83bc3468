"""A site's clinical table as a Cohort: checked in words, patients who cannot take part set aside with a reason.

What is wrong with the table (a missing column, text among numbers, an implausible value) stops the site with one
sentence per fault. What is missing about a patient (no follow-up time, no event) sets that patient aside; nothing is
guessed. All sentences stay at the site.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ctfed.cohort.cells import CellReader, canonical
from ctfed.cohort.prepared import read_site_table
from ctfed.cohort.splits import assign_folds, assign_split
from ctfed.cohort.table import DataError, TextTable
from ctfed.config import ConfigError, did_you_mean
from ctfed.federation.arrays import BoolArray, FloatArray, IntArray
from ctfed.federation.cohort import Cohort, Labels
from ctfed.site import Partition, Site
from ctfed.study import Study


class Exclusion(NamedTuple):
    """A patient who was set aside: the row of the table (header is row 1) and why."""

    row: int
    reason: str


@dataclass(frozen=True)
class PartitionedCohorts:
    """What a site file yields: one cohort for a real site, several for a partition.

    Attributes:
        cohorts: in the order of their names, the remainder last.
        notes: how a table was cut into virtual sites; empty for a real site.
        exclusions: the patients who were set aside, in the order of the table.
        warnings: what a person should look at before the study runs; nothing was changed because of it.
    """

    cohorts: tuple[Cohort, ...]
    notes: tuple[str, ...]
    exclusions: tuple[Exclusion, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Clinical:
    """The interpreted table, all n rows. Missing: '' among texts, NaN among numbers."""

    ids: list[str]
    time: FloatArray
    event: FloatArray
    columns: Mapping[str, FloatArray]
    split: list[str] | None
    level: list[str] | None

    def reasons(self, study: Study) -> list[str]:
        """(n,) why a patient cannot take part, '' for those who can; the first reason counts."""
        absent: dict[str, BoolArray] = {
            "the patient's identifier is missing": np.array([key == "" for key in self.ids]),
            "the follow-up time is missing": np.isnan(self.time),
            "the event is missing": np.isnan(self.event),
        }
        if self.split is not None:
            absent["the split is missing"] = np.array([label == "" for label in self.split])
        for name in study.used:
            if study.columns[name].impute == "none":
                absent[f"{name} is missing and the study does not impute it"] = np.isnan(self.columns[name])
        return [next((reason for reason, rows in absent.items() if rows[row]), "") for row in range(len(self.ids))]


def load_cohort(site: Site, study: Study) -> Cohort:
    """The patients of a real site.

    ``load_cohorts`` returns the same cohort with the patients who were set aside and the warnings.

    Raises:
        ConfigError: when the site file does not fit the study, or describes a partition.
        DataError: when the table cannot be used; one sentence per fault.
    """
    if site.partition is not None:
        raise ConfigError(f"{site.origin}: partition: found a partition, expected site: the name of one site")
    return load_cohorts(site, study).cohorts[0]


def load_cohorts(site: Site, study: Study) -> PartitionedCohorts:
    """All cohorts of a site file: one for a real site, one per virtual site for a partition.

    Rows keep the order of the table; every variable of the study is a column, NaN where missing. Stratum and batch
    are the site's name. Split (unless the study names a column), folds and pseudonyms come from the site's secret.

    Raises:
        ConfigError: when the site file does not fit the study.
        DataError: when the table cannot be used; one sentence per fault.
    """
    _check_variables(site, study)
    table = read_site_table(site)
    clinical = _interpret(table, site, study)
    reasons = clinical.reasons(study)
    exclusions = tuple(Exclusion(table.numbers[i], reason) for i, reason in enumerate(reasons) if reason)
    taking_part = np.flatnonzero([not reason for reason in reasons])
    if taking_part.size == 0:
        first = f"row {exclusions[0].row}: {exclusions[0].reason}"
        raise DataError(f"{table.origin}: found no patient who can take part ({first}), expected at least one")
    members, notes = _members(site, clinical, taking_part)
    _check_roster(site, study, members)
    cohorts = tuple(_cohort(name, rows, clinical, site, study) for name, rows in members.items())
    warnings = tuple(warning for cohort in cohorts for warning in _warnings(cohort))
    return PartitionedCohorts(cohorts, notes, exclusions, warnings)


def _check_variables(site: Site, study: Study) -> None:
    faults = []
    for name in site.features:
        if name not in study.columns:
            hint = did_you_mean(name, study.columns)
            faults.append(
                f"{site.origin}: features.{name}: found {name!r}, expected a variable of study {study.name!r}{hint}"
            )
    if faults:
        raise ConfigError(*faults)


def _interpret(table: TextTable, site: Site, study: Study) -> _Clinical:
    reader = CellReader(table, site)
    ids = reader.identifiers(site.columns.id)
    time = reader.times(site.columns.time, study.endpoint.time_unit)
    event = reader.events()
    columns = {name: reader.variable(name, entry, site.source(name)) for name, entry in study.columns.items()}
    split = _split_column(reader, study)
    level = None if site.partition is None else reader.text(site.partition.by)
    if reader.faults:
        # A column that two variables share is read twice; its fault is told once.
        raise DataError(*dict.fromkeys(reader.faults))
    return _Clinical(
        ids=[key or "" for key in ids],
        time=time,
        event=event,
        columns=columns,
        split=split,
        level=None if level is None else [canonical(text or "") for text in level],
    )


def _split_column(reader: CellReader, study: Study) -> list[str] | None:
    if study.split.column is None:
        return None
    values = reader.coded(study.split.column, {"train": 0, "test": 1}, "'train' or 'test'")
    return ["" if np.isnan(value) else "test" if value else "train" for value in values]


def _cohort(name: str, rows: IntArray, clinical: _Clinical, site: Site, study: Study) -> Cohort:
    keys = [clinical.ids[row] for row in rows]
    event = clinical.event[rows] == 1
    secret = site.secret_of(name)
    split: Labels
    if study.split.test_sites is not None:
        split = np.array(["test" if name in study.split.test_sites else "train"] * len(keys), dtype=np.str_)
    elif study.split.test_fraction is not None:
        split = assign_split(keys, event, secret, study.name, study.split.test_fraction)
    else:
        split = np.array([(clinical.split or [])[row] for row in rows], dtype=np.str_)
    return Cohort.of(
        name,
        {variable: values[rows] for variable, values in clinical.columns.items()},
        clinical.time[rows],
        event,
        split=split,
        fold=assign_folds(keys, event, split, secret, study.name, study.folds),
        pseudonym=[_pseudonym(key, secret) for key in keys],
    )


def _pseudonym(key: str, secret: bytes) -> str:
    """HMAC-SHA256 (hex) of a patient's identifier: the same in all tables and studies of a site, known to it alone."""
    return hmac.digest(secret, f"pseudonym|{key}".encode(), hashlib.sha256).hex()


def _warnings(cohort: Cohort) -> list[str]:
    found = []
    if not cohort.event.any():
        found.append(f"{cohort.site}: found no event among {cohort.patients} patients")
    for name, values in cohort.columns.items():
        known = values[~np.isnan(values)]
        if known.size == 0:
            found.append(f"{cohort.site}: variable {name!r} is missing for all {cohort.patients} patients")
        elif known.size > 1 and (known == known[0]).all():
            found.append(f"{cohort.site}: variable {name!r} is {known[0]:g} for all {known.size} patients who have it")
    return found


def _members(site: Site, clinical: _Clinical, rows: IntArray) -> tuple[dict[str, IntArray], tuple[str, ...]]:
    """The rows of each site by its name, and how they came about."""
    if site.partition is None or clinical.level is None:
        return {str(site.site): rows}, ()
    rule = site.partition
    levels: dict[str, list[int]] = {}
    for row in rows:
        levels.setdefault(clinical.level[row], []).append(int(row))
    without = levels.pop("", [])
    names = _names(rule, levels, site.origin)
    ordered = sorted(levels, key=lambda level: names[level])
    members = {names[level]: np.array(levels[level]) for level in ordered if len(levels[level]) >= rule.minimum}
    merged = [level for level in ordered if len(levels[level]) < rule.minimum]
    rest = sorted(row for level in merged for row in levels[level]) + without
    notes = [f"{len(rows)} patients were cut by column {rule.by!r} into {len(members) + bool(rest)} sites"]
    if rest:
        if rule.remainder in members:
            raise ConfigError(
                f"{site.origin}: partition.remainder: found {rule.remainder!r}, expected a name that no other site has"
            )
        members[rule.remainder] = np.array(sorted(rest))
        notes.append(_merged_note(rule, {names[level]: len(levels[level]) for level in merged}, len(without)))
    return members, tuple(notes)


def _merged_note(rule: Partition, merged: Mapping[str, int], without: int) -> str:
    total = sum(merged.values()) + without
    parts = [f"{name} ({count})" for name, count in merged.items()]
    if without:
        parts.append(f"{without} without a value in column {rule.by!r}")
    note = f"site {rule.remainder!r} holds {total} patients: {', '.join(parts)}"
    if merged:
        note += f"; sites of fewer than {rule.minimum} patients are merged"
    if total < rule.minimum:
        note += f"; it has fewer than {rule.minimum} patients itself"
    return note


def _names(rule: Partition, levels: Mapping[str, object], origin: str) -> dict[str, str]:
    """A site's name for each level: zero-padded when all levels are whole numbers, so that names sort as numbers do."""
    numeric = all(re.fullmatch(r"[0-9]+", level) for level in levels)
    width = max((len(level) for level in levels), default=0)
    names: dict[str, str] = {}
    for level in levels:
        part = level.zfill(max(2, width)) if numeric else re.sub(r"[^A-Za-z0-9]+", "-", level).strip("-")
        name = f"{rule.prefix}-{part}"
        if name in names.values():
            other = next(known for known, taken in names.items() if taken == name)
            raise ConfigError(
                f"{origin}: partition.by: found {other!r} and {level!r} in column {rule.by!r}, "
                f"expected levels that give different names (both give {name!r})"
            )
        names[level] = name
    return names


def _check_roster(site: Site, study: Study, members: Mapping[str, object]) -> None:
    """A site that is not in the study's roster takes no part; a simulation has the whole roster."""
    if study.sites is None:
        return
    key = "site" if site.partition is None else "partition"
    faults = [
        f"{site.origin}: {key}: found site {name!r}, expected one of the study's sites: {', '.join(study.sites)}"
        for name in members
        if name not in study.sites
    ]
    if site.partition is not None:
        faults += [
            f"{site.origin}: partition: found no site {name!r}, expected it, because the study's roster names it"
            for name in study.sites
            if name not in members
        ]
    if faults:
        raise ConfigError(*faults)
