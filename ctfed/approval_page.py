"""The page that a steward reads before a site takes part in a study: who, which columns, which questions, which limits.

``QUESTIONS`` says of every kind of query, in one sentence, what its total tells; ``stages`` says when a study asks it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from ctfed.cohort import PartitionedCohorts
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import Refusal
from ctfed.federation.policy import Policy
from ctfed.federation.roster import Roster
from ctfed.federation.rules.question import FINE_TABLES
from ctfed.federation.rules.runs import check_cells
from ctfed.site import Site
from ctfed.study import Study, scope_of

WIDTH = 110

# Kind of query -> what the total over all contributing sites tells whoever reads it.
QUESTIONS: Mapping[str, str] = {
    "counts": "how many patients and events there are, and how many patients have a value in each column",
    "level-counts": "how many patients are at each level of the categorical columns",
    "counts-below": "how many patients have a value up to a threshold; asked repeatedly, it closes in on a median",
    "moments": "the mean and the variance of each column or of a model's score, and the numbers of patients and events",
    "cox-derivatives": (
        "how well trial coefficients fit the partial likelihood with a baseline hazard for each site, and in which "
        "direction they improve it; no event time leaves a site"
    ),
    "cox-score-products": "one matrix from which the fitted coefficients get robust standard errors",
    "risk-set-sums": (
        "for each time bin, the summed risk exp(x beta) of the patients who leave in it, and the number of deaths"
    ),
    "pooled-gradient": "how trial coefficients improve the fit with one baseline hazard for all sites",
    "time-counts": "how many patients leave in each time bin with the event, and how many without it",
    "within-site-pairs": "in how many pairs of patients of the same site the one who died first had the higher score",
    "scores-below": "how many patients have a score up to a threshold; asked repeatedly, it closes in on quantiles",
    "evaluation-table": (
        "how many patients leave in each time bin, by bin of the score and with or without the event; bins are merged "
        "beforehand so that their cells hold enough patients"
    ),
    "group-counts": "how many patients of the low and of the high risk group leave in each merged time bin",
    "stratified-log-rank": "three sums that test whether the risk groups differ, taken inside each site",
}


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Attributes:
        title: what the step is for.
        rows: whose rows it is about.
        kinds: the queries that it asks.
    """

    title: str
    rows: str
    kinds: tuple[str, ...]


def stages(study: Study) -> tuple[Stage, ...]:
    """What a study asks, in the order in which it does; the same kinds of query as ``server.study_algorithm``."""
    tuning, model = study.tuning, study.single
    methods = {study.variables[name].impute for name in model.features}
    fitted = "training patients" + (f", and those outside each of {tuning.folds} folds" if tuning else "")
    pooled = ("time-counts", "risk-set-sums", "pooled-gradient")
    derivatives = ("cox-derivatives",) if model.risk_sets == "stratified" else pooled
    found = [
        Stage("sizes of the splits", "training patients, test patients", ("counts",)),
        Stage("features that too few patients have or lack", fitted, ("counts", "level-counts")),
        Stage(
            "imputation of missing values",
            fitted,
            ("counts", "level-counts", *(("counts-below",) if "median" in methods else ())),
        ),
    ]
    if model.standardise:
        found.append(Stage("standardisation", fitted, ("moments",)))
    if tuning is not None:
        count = tuning.penalizers.count * len(tuning.l1_ratios)
        found += [
            Stage(f"choice of the penalty: fits of {count} penalties", fitted, ("cox-derivatives",)),
            Stage(
                "choice of the penalty: their scores", f"each of {tuning.folds} held-out folds", ("within-site-pairs",)
            ),
        ]
    title = "the model, and an unpenalised one beside it where events suffice"
    robust = ("cox-score-products",) if model.risk_sets == "stratified" else ()
    found += [
        Stage(title, "training patients", (*derivatives, *robust)),
        Stage("one baseline hazard", "training patients", ("time-counts", "risk-set-sums")),
        Stage("evaluation: concordance", "test patients", ("within-site-pairs",)),
        Stage(
            "evaluation: table of times and scores",
            "test patients",
            ("time-counts", "moments", "scores-below", "evaluation-table"),
        ),
        Stage("evaluation: the median score", "training patients", ("moments", "scores-below")),
        Stage("evaluation: curves by risk group", "test patients", ("time-counts", "group-counts", "cox-derivatives")),
    ]
    return tuple(found)


def kinds_of(study: Study) -> tuple[str, ...]:
    """All kinds of query that a study may ask, each once."""
    return tuple(dict.fromkeys(kind for stage in stages(study) for kind in stage.kinds))


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
    how = f"{study.single.risk_sets} risk sets, {study.single.ties} ties"
    yield f"model     elastic-net Cox, {how}, {len(study.single.features)} features"
    if study.tuning is not None:
        count = study.tuning.penalizers.count * len(study.tuning.l1_ratios)
        yield f"tuning    {count} penalties in {study.tuning.folds} folds, which this site deals out itself"
    if study.split.column is not None:
        yield f"split     the column {study.split.column!r} of the table"
    else:
        yield f"split     {study.split.test_fraction:g} of the patients are for testing; this site draws them itself"
    if study.evaluation.fine_evaluation_tables:
        yield "EXCEPTION fine evaluation tables: cells of the tables of times and scores may hold single patients"


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
    for name in study.single.features:
        source = site.source(name)
        rows.append((name, source.column, "in codes that this site translates" if source.codes else "summed"))
    for name in study.variables:
        if name not in study.single.features:
            rows.append((name, site.source(name).column, "read and checked, in no question"))
    first, second = (max(len(row[k]) for row in rows) for k in (0, 1))
    for variable, column, use in rows:
        yield f"{variable:<{first}}  column {column:<{second}}  {use}"


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


def _numbers(cohort: Cohort, study: Study, loaded: PartitionedCohorts) -> Iterator[str]:
    yield f"{cohort.patients} patients, {int(cohort.event.sum())} events"
    for split in ("train", "test"):
        rows = cohort.split == split
        yield f"{split:<7}{int(rows.sum())} patients, {int(cohort.event[rows].sum())} events"
    for name in study.single.features:
        missing = int(np.isnan(cohort.columns[name]).sum())
        if missing:
            yield f"{name} is missing for {missing}"
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
