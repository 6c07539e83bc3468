"""The page that a steward reads before a site takes part in a study: who, which columns, which questions, which limits.

What the study asks, and what the total of each question tells, is said in ``ctfed.approval_stages``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import BaseModel

from ctfed.approval_stages import QUESTIONS, STEPS, kinds_of, stages
from ctfed.cohort import PartitionedCohorts
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import Refusal
from ctfed.federation.policy import Policy
from ctfed.federation.roster import Roster
from ctfed.federation.rules.question import FINE_TABLES
from ctfed.federation.rules.runs import check_cells
from ctfed.site import Site
from ctfed.study import Study, scope_of
from ctfed.study_models import Subgroup
from ctfed.study_variables import Variable

__all__ = ["QUESTIONS", "kinds_of", "objections", "plan", "stages"]

WIDTH = 110
SHOWN_COLUMNS = 3  # of a group; of more, the first and the last


def plan(
    site: Site, study: Study, roster: Roster, policy: Policy, loaded: PartitionedCohorts, splits: tuple[str, ...]
) -> list[str]:
    """The page, line by line. ``splits`` are those to which this site will contribute."""
    (cohort,) = loaded.cohorts
    parts: dict[str, Iterator[str]] = {
        "STUDY": _study(study),
        "SITES: compare each fingerprint with its site, on the telephone": _sites(roster, str(site.site)),
        f"COLUMNS of {site.data.csv or site.data.dataset or 'the prepared features'} that are used": _columns(
            site, study
        ),
        "QUESTIONS: every answer is masked; the server learns the sum over all sites alone": _questions(study),
        "THIS SITE'S NUMBERS: shown here only": _numbers(cohort, study, loaded),
        "LIMITS of this site, which the server cannot lower": _limits(policy, site),
        "CONTRIBUTION": _contribution(splits),
    }
    refused = list(objections(study, policy))
    if refused:
        parts["THESE LIMITS REFUSE what the study asks"] = iter(refused)
    lines = []
    for title, body in parts.items():
        lines += ["", title, *(f"  {line}".rstrip() for line in body)]
    return lines[1:]


def _table_of(site: Site) -> str:
    return str(site.data.csv or site.data.dataset or "the prepared features")


def objections(study: Study, policy: Policy) -> Iterator[str]:
    """What of a study a policy is known to refuse before any question is asked."""
    try:
        check_cells(policy, scope_of(study))
    except Refusal as refusal:
        yield str(refusal)
    if study.evaluation.fine_evaluation_tables and FINE_TABLES not in policy.exceptions:
        yield f"the study asks for fine evaluation tables; exceptions of the policy do not name {FINE_TABLES}"


def _study(study: Study) -> Iterator[str]:
    yield study.title
    yield f"name      {study.name}"
    yield f"sha256    {study.sha256}"
    yield f"endpoint  {study.endpoint.name}, in {study.endpoint.time_unit}"
    yield from _models(study)
    yield f"split     {study.split}"
    if study.evaluation.fine_evaluation_tables:
        yield "EXCEPTION fine evaluation tables: cells of the tables of times and scores may hold single patients"


def _models(study: Study) -> Iterator[str]:
    if study.model is not None:
        how = f"{study.model.risk_sets} risk sets, {study.model.ties} ties"
        yield f"model     elastic-net Cox, {how}, {len(study.model.features)} features"
        if study.tuning is not None:
            count = study.tuning.penalizers.count * len(study.tuning.l1_ratios)
            yield f"tuning    {count} penalties in {study.tuning.folds} folds, which this site deals out itself"
        return
    columns = f"{len(study.used):,} columns in {len(study.groups)} groups"
    yield f"models    {len(study.models)} elastic-net Cox models, stratified by site, of {columns}"
    if study.ensembles:
        yield f"ensembles {len(study.ensembles)}, means of the models' standardised scores"
    if study.consensus is not None:
        yield f"consensus of {len(study.consensus.models)} models at {len(study.evaluation.horizons)} horizons"
    if study.search is not None:
        yield f"search    {study.search.trials} penalties of each model in {study.search.folds} folds, dealt out here"
    for name, model in study.models.items():
        if model.subgroup is not None:
            chosen = model.subgroup
            yield f"subgroup  {_rows_of(study.variables[chosen.variable], chosen)}, of the model {name}"
    reference = study.harmonization.reference
    if reference is not None and any(model.combat for model in study.models.values()):
        yield f"EXCEPTION site {reference} is the reference: it publishes the means and variances of its features"


def _rows_of(variable: Variable, chosen: Subgroup) -> str:
    if variable.type == "nominal":
        return f"{chosen.variable} = {chosen.low:g} ({variable.level_label(chosen.low)})"
    return f"{chosen.variable} from {chosen.low:g} to {chosen.high:g}"


def _sites(roster: Roster, own: str) -> Iterator[str]:
    width = max(map(len, (*roster.sites, "roster")))
    for name in roster.sites:
        yield f"{name:<{width}}  {roster.fingerprint(name)}{'  (this site)' if name == own else ''}"
    yield f"{'roster':<{width}}  {roster.digest}"


def _columns(site: Site, study: Study) -> Iterator[str]:
    rows = [
        ("follow-up time", site.columns.time, "compared and binned; never sent"),
        ("event", site.columns.event, "counted"),
    ]
    if site.columns.id is not None:
        rows.insert(0, ("patient", site.columns.id, "deals out folds, with this site's secret; never sent"))
    if study.split.column is not None:
        rows.append(("split", study.split.column, "train or test"))
    for name in study.used:
        if name in study.variables:
            source = site.source(name)
            use = "in codes that this site translates" if source.codes else "summed"
            rows.append((name, source.column, f"{use}{_coding(study, name)}"))
    rows += [(group, text, "summed") for group, text in _image_columns(study)]
    for name in study.variables:
        if name not in study.used:
            rows.append((name, site.source(name).column, "read and checked, in no question"))
    first, second = (max(len(row[k]) for row in rows) for k in (0, 1))
    for variable, column, use in rows:
        yield f"{variable:<{first}}  column {column:<{second}}  {use}"


def _coding(study: Study, name: str) -> str:
    """What becomes of a nominal variable."""
    variable = study.variables[name]
    if variable.type != "nominal":
        return ""
    column = variable.nominal(name)
    levels = ", ".join(variable.level_label(level) for level in column.levels if level != column.reference)
    return f", as 0 or 1 for each of {levels} (reference: {variable.level_label(column.reference)})"


def _image_columns(study: Study) -> Iterator[tuple[str, str]]:
    """The groups whose columns are no variables, each in a line: they may have thousands of columns."""
    used = {group for model in study.models.values() for group in model.groups}
    for name, group in study.groups.items():
        if name in used and not group.clinical:
            columns = study.names_of(name)
            shown = ", ".join(columns) if len(columns) <= SHOWN_COLUMNS else f"{columns[0]} ... {columns[-1]}"
            yield name, f"{shown} ({len(columns):,})"


def _questions(study: Study) -> Iterator[str]:
    for number, stage in enumerate(stages(study), start=1):
        text = f"{number:>2}. {stage.title}; of {stage.rows}: {', '.join(stage.kinds)}"
        yield from textwrap.wrap(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    kinds = kinds_of(study)
    more = sorted(kind for kind in scope_of(study).kinds & set(QUESTIONS) if kind not in kinds)
    if more:
        yield f"not needed by these steps, but let through if it is asked: {', '.join(more)}"
    yield ""
    yield "What the total of each tells:"
    kinds = (*kinds, *more)
    width = max(map(len, kinds))
    for kind in kinds:
        indent = " " * (width + 2)
        yield from textwrap.wrap(f"{kind:<{width}}  {QUESTIONS[kind]}", WIDTH, subsequent_indent=indent)
    steps = [step for step in STEPS if step in scope_of(study).kinds]
    yield ""
    yield "What this site computes on its own rows with numbers that the server sends, and answers with nothing of it:"
    width = max(map(len, steps))
    for step in steps:
        indent = " " * (width + 2)
        yield from textwrap.wrap(f"{step:<{width}}  {STEPS[step]}", WIDTH, subsequent_indent=indent)


def _numbers(cohort: Cohort, study: Study, loaded: PartitionedCohorts) -> Iterator[str]:
    yield f"{cohort.patients} patients, {int(cohort.event.sum())} events"
    for split in ("train", "test"):
        rows = cohort.split == split
        yield f"{split:<7}{int(rows.sum())} patients, {int(cohort.event[rows].sum())} events"
    for name in study.used:
        missing = int(np.isnan(cohort.columns[name]).sum()) if name in study.variables else 0
        if missing:
            yield f"{name} is missing for {missing}"
    for name, group in study.groups.items():
        if not group.clinical:
            lacking = [np.isnan(cohort.columns[column]) for column in study.names_of(name) if column in study.used]
            if lacking and (patients := int(np.any(lacking, axis=0).sum())):
                yield f"{name}: {patients} patients lack some or all of its columns"
    if loaded.exclusions:
        yield f"{len(loaded.exclusions)} rows are set aside (`ctfed site` lists them)"
    for line in loaded.warnings:
        yield f"look at: {line}"


def _limits(policy: Policy, site: Site) -> Iterator[str]:
    named = site.trust.policy if site.trust is not None else None
    yield f"from {named}" if named is not None else "the defaults; the site file names no trust.policy"
    rows = list(_settings(policy, ""))
    width = max(len(name) for name, _, _ in rows)
    for name, value, meaning in rows:
        yield f"{name:<{width}}  {value!s:<6}  {meaning}".rstrip()


def _settings(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any, str]]:
    """Name, value and meaning of every setting of a policy, sections inside it included."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name.startswith("ctfed_"):
            continue  # the version of the format
        if isinstance(value, BaseModel):
            yield from _settings(value, f"{prefix}{name}.")
            continue
        shown = ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple | frozenset) else value
        shown = "-" if shown is None else shown
        yield f"{prefix}{name}", shown, (field.description or "").split(", ", 1)[-1]


def _contribution(splits: tuple[str, ...]) -> Iterator[str]:
    for split in ("train", "test"):
        if split in splits:
            yield f"{split:<7}this site's patients are part of the totals"
        else:
            yield f"{split:<7}NOT part of the totals: too few patients by this site's own limits; it sends masked zeros"
