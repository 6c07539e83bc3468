"""`ctfed prepare`: one centre's scans and clinical data to its feature table, cached, resumable, and honest about every
patient who is not in it.

Everything is written into ``local/`` of the output folder, whose content never leaves the centre but as answers to the
questions of a study:

    features.parquet    a row per patient: key, time (days), event, clinical variables, features
    exclusions.csv      who has no row: key, stage, rule, reason
    reasons.csv         which values are missing, and why
    acquisition.csv     how each scan was made; notes.csv: how its series was chosen, and what to look at
    keys.csv            the centre's own identifier of each key (mode 0600)
    provenance.json     versions, settings, models and counts; no names, dates or paths
    masks/, qc/         masks as NIfTI and DICOM SEG, contact sheets
    cache/              results of steps; may be deleted, and is then made again
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctfed.config import ConfigError, canonical_sha256
from ctfed.federation.disk import make_private
from ctfed.federation.errors import CtfedError
from ctfed.preparation import memory, outputs
from ctfed.preparation.atomic import held, remove_unfinished, write_json, write_text
from ctfed.preparation.cases import Cases, match
from ctfed.preparation.columns import Column, imaging_columns
from ctfed.preparation.outcome import Aside, Outcome
from ctfed.preparation.patient import Case, Patient, Plan
from ctfed.preparation.pool import Died, run_jobs
from ctfed.preparation.progress import Progress
from ctfed.preparation.provenance import provenance
from ctfed.preparation.settings import ExtractionSettings, at_site, load_extraction
from ctfed.preparation.worker import DIED, UNFORESEEN, begin, prepare_patient
from ctfed.site import PREPARED_TIME_UNIT, Prepare, Site, load_site

if TYPE_CHECKING:
    from ctfed.cohort.clinical_sources import ClinicalTable, Dictionary

Tell = Callable[[str], None]
PARTIAL = "partial"
CLINICAL_GROUP = "clinical"


@dataclass(frozen=True)
class Selection:
    """Which patients are asked for; all by default.

    Attributes:
        only: identifiers or keys of patients; empty for all.
        limit: at most so many; None for all.
    """

    only: tuple[str, ...] = ()
    limit: int | None = None

    @property
    def partial(self) -> bool:
        """Whether some may be left out; their tables then stand apart from the whole ones."""
        return bool(self.only) or self.limit is not None

    def of(self, cases: Cases) -> tuple[Case, ...]:
        """The cases that are asked for.

        Raises:
            CtfedError: when a name is nobody's.
        """
        known = {*cases.identifiers, *cases.identifiers.values()}
        if strange := [name for name in self.only if name not in known]:
            raise CtfedError(f"--only: found {strange[0]!r}, expected the identifier or the key of a patient")
        wanted = [
            case
            for case in cases.cases
            if not self.only or case.key in self.only or cases.identifiers[case.key] in self.only
        ]
        return tuple(wanted[: self.limit])


@dataclass(frozen=True)
class Job:
    """What a site file asks `ctfed prepare` to do, read and checked."""

    site: Site
    where: Prepare
    settings: ExtractionSettings
    dictionary: Dictionary

    @property
    def clinical_columns(self) -> tuple[Column, ...]:
        """The variables of the dictionary."""
        variables = self.dictionary.variables.items()
        return tuple(Column(name, variable.unit or "1", CLINICAL_GROUP) for name, variable in variables)


def read_job(site_file: Path) -> Job:
    """Read all files that a site file names.

    Raises:
        ConfigError: one sentence per fault.
    """
    from ctfed.cohort.clinical_sources import load_dictionary

    site = load_site(site_file)
    if site.prepare is None or site.site is None:
        raise ConfigError(f"{site.origin}: prepare: found nothing, expected a mapping with scans, clinical and output")
    settings = load_extraction(site.prepare.extraction)
    settings = at_site(settings, site.prepare.weights, site.prepare.licence_number)
    job = Job(site, site.prepare, settings, load_dictionary(site.prepare.dictionary))
    names = [outputs.PATIENT, outputs.TIME, outputs.EVENT, *(c.name for c in imaging_columns(settings))]
    for column in job.clinical_columns:
        if column.name in names:
            where = f"{site.prepare.dictionary}: variables.{column.name}"
            raise ConfigError(f"{where}: found the name of another column of the table, expected a name of its own")
    return job


def prepare(
    site_file: Path,
    selection: Selection | None = None,
    *,
    workers: int | None = None,
    dry_run: bool = False,
    tell: Tell = print,
) -> int:
    """Run `ctfed prepare`.

    Args:
        site_file: with a section ``prepare``.
        selection: which patients; None for all.
        workers: number of processes; None takes the site file's, else one per core, as memory allows.
        dry_run: say what would be done, and do nothing.
        tell: receives the lines of the summary.

    Returns:
        The number of patients with an error that was not foreseen.

    Raises:
        CtfedError: when files, settings or weights are not what they should be.
    """
    chosen = selection or Selection()
    job = read_job(site_file)
    local = job.where.local
    secret = job.site.secret_of(str(job.site.site))
    make_private(local)
    with held(local):
        if removed := remove_unfinished(local):
            tell(f"removed {removed} half-written files of a run that was stopped")
        clinical, cases = _find(job, secret)
        plan = _plan(job)
        wanted = chosen.of(cases)
        if dry_run:
            _tell_plan(plan, cases, wanted, tell)
            return 0
        outcomes = _run(plan, wanted, workers or job.where.workers)
        return _finish(job, plan, cases, clinical, outcomes, chosen.partial, tell)


def _find(job: Job, secret: bytes) -> tuple[ClinicalTable, Cases]:
    from ctfed.cohort.clinical_sources import read_clinical
    from ctfed.cohort.scans import find_patients

    clinical = read_clinical(job.where.clinical, job.dictionary, PREPARED_TIME_UNIT)
    return clinical, match(find_patients(job.where.scans, job.where.layout), clinical, secret)


def _plan(job: Job) -> Plan:
    """Everything that all patients share. Weights are checked here, before the first patient.

    Raises:
        CtfedError: when a model cannot be used.
    """
    from ctfed.imaging.segment import build
    from ctfed.preparation.steps import CODE, is_given

    identities = []
    for model in job.settings.segmentation:
        identities.append(build(model, {} if is_given(model) else None).identity)
    foundation = None
    if job.settings.foundation is not None:
        from ctfed.imaging.foundation import foundation_identity
        from ctfed.imaging.segment import load_card
        from ctfed.imaging.segment.weights import check_weights

        own = job.settings.foundation
        weights = check_weights(
            own.weights, load_card("fmcib").origin, manifest=own.manifest, expected=own.weights_sha256
        )
        foundation = {k: v for k, v in foundation_identity(own, weights).items() if k != "cubes"}
    code = {step: each.version for step, each in CODE.items()}
    return Plan(job.settings, tuple(identities), foundation, code, job.where.scans, job.where.local)


def _run(plan: Plan, wanted: Sequence[Case], workers: int | None) -> list[Outcome]:
    count = memory.workers_that_fit(workers, _needed(plan, wanted)) if wanted else 1
    progress = Progress(len(wanted))
    outcomes = []
    for case, answer in run_jobs(prepare_patient, wanted, count, prepare=begin, arguments=(plan,)):
        outcome = Outcome(case.key, None, aside=DIED) if isinstance(answer, Died) else answer
        outcomes.append(outcome)
        progress.advance(computed=bool(outcome.computed), set_aside=outcome.aside is not None)
    return outcomes


def _needed(plan: Plan, wanted: Sequence[Case]) -> float:
    """Bytes that the largest patient's process may need."""
    from ctfed.imaging.segment import load_card

    engines = {load_card(model.model).engine for model in plan.settings.segmentation}
    voxels = max((memory.voxels(series) for case in wanted for series in case.scans.series), default=0)
    networks = not engines.isdisjoint({"nnunet", "totalsegmentator"})
    return memory.per_patient(voxels, networks=networks, foundation=plan.foundation is not None)


def _finish(
    job: Job,
    plan: Plan,
    cases: Cases,
    clinical: ClinicalTable,
    outcomes: Sequence[Outcome],
    partial: bool,
    tell: Tell,
) -> int:
    """Write the tables and say what they hold."""
    rows = {o.key: o for o in outcomes if o.values is not None}
    asides: dict[str, Aside] = {**cases.asides, **{o.key: o.aside for o in outcomes if o.aside is not None}}
    left = cases.found - len(rows) - len(asides)
    if rows.keys() & asides.keys() or (left and not partial):
        raise RuntimeError(f"{cases.found} patients were found, {len(rows)} analysed and {len(asides)} excluded")
    local = plan.local
    folder = local / PARTIAL if partial else local
    folder.mkdir(exist_ok=True)
    table = _table(job, plan, cases, clinical, rows)
    outputs.write_keys(local / "keys.csv", cases.identifiers)
    outputs.write_exclusions(folder / "exclusions.csv", asides)
    outputs.write_reasons(folder / "reasons.csv", {o.key: o.reasons for o in rows.values()})
    outputs.write_notes(folder / "notes.csv", {o.key: o.notes for o in outcomes})
    outputs.write_acquisition(folder / "acquisition.csv", {o.key: o.acquisition for o in outcomes if o.acquisition})
    about = provenance(plan, canonical_sha256(job.dictionary), cases.found, asides, rows.values(), partial)
    write_json(folder / "provenance.json", about)
    table.write(folder / outputs.FEATURES)
    if plan.settings.files.csv:
        table.write_csv(folder / "features.csv")
    unforeseen = [o for o in outcomes if o.aside is not None and o.aside.rule == UNFORESEEN]
    if unforeseen:
        write_text(local / "prepare.log", "\n".join(f"{o.key}\n{o.detail}" for o in unforeseen))
    _summary(cases, rows, asides, outcomes, left, folder, tell)
    return len(unforeseen)


def _table(
    job: Job, plan: Plan, cases: Cases, clinical: ClinicalTable, rows: Mapping[str, Outcome]
) -> outputs.FeatureTable:
    keys = tuple(sorted(rows))
    columns = (*job.clinical_columns, *plan.columns)
    names = [cases.identifiers[key] for key in keys]
    known = clinical.frame.loc[names]
    own = known[[column.name for column in job.clinical_columns]].to_numpy(dtype=np.float64)
    imaging = [np.asarray(rows[key].values, dtype=np.float64) for key in keys]
    values = np.hstack([own, np.array(imaging).reshape(len(keys), len(plan.columns))])
    return outputs.FeatureTable(
        keys,
        known["time"].to_numpy(dtype=np.float64),
        known["event"].to_numpy(dtype=np.float64),
        columns,
        values,
        PREPARED_TIME_UNIT,
        plan.settings.sha256,
    )


def _summary(
    cases: Cases,
    rows: Mapping[str, Outcome],
    asides: Mapping[str, Aside],
    outcomes: Sequence[Outcome],
    left: int,
    folder: Path,
    tell: Tell,
) -> None:
    more = f" + {left} not asked for" if left else ""
    tell(f"{cases.found} patients found = {len(rows)} analysed + {len(asides)} excluded{more}")
    rules: dict[str, int] = {}
    for aside in asides.values():
        label = f"{aside.stage}, {aside.rule}"
        rules[label] = rules.get(label, 0) + 1
    for label, count in sorted(rules.items()):
        tell(f"  excluded: {count:>4}  {label}")
    missing: dict[str, int] = {}
    for outcome in rows.values():
        for group in outcome.reasons:
            missing[group] = missing.get(group, 0) + 1
    for group, count in sorted(missing.items()):
        tell(f"  missing:  {count:>4}  {group}")
    steps = sum(len(outcome.computed) for outcome in outcomes)
    tell(f"{steps} steps were computed, all others came from the cache; tables are in {folder}")


def _tell_plan(plan: Plan, cases: Cases, wanted: Sequence[Case], tell: Tell) -> None:
    for key, aside in sorted(cases.asides.items(), key=lambda item: cases.identifiers[item[0]]):
        tell(f"{cases.identifiers[key]}: set aside ({aside.stage}, {aside.rule})")
    for case in wanted:
        images = sum(len(series.files) for series in case.scans.series)
        next_step = Patient(case, plan).next_step()
        state = "nothing to do" if next_step is None else f"to do, from {next_step} on"
        tell(f"{cases.identifiers[case.key]}: {images} image files in {len(case.scans.series)} series, {state}")
    fit = memory.workers_that_fit(None, _needed(plan, wanted)) if wanted else 1
    tell(f"{len(wanted)} patients would be prepared, {len(cases.asides)} are set aside; memory allows {fit} workers")


def command(site: Path, only: Sequence[str], limit: int | None, workers: int | None, dry_run: bool) -> int:
    """The command line's: exit code 2 when a patient met an error that was not foreseen."""
    unforeseen = prepare(site, Selection(tuple(only), limit), workers=workers, dry_run=dry_run)
    if unforeseen:
        raise CtfedError(
            f"{unforeseen} patients met an error that ctfed did not foresee; local/prepare.log has the details, "
            f"and the tables are complete without them"
        )
    return 0
