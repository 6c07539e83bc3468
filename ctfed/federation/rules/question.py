"""What a single query may ask, judged on the federation's sealed totals of patients and events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ctfed.federation.arrays import FloatArray
from ctfed.federation.census import Census, CensusPlan
from ctfed.federation.errors import Refusal
from ctfed.federation.policy import Policy
from ctfed.federation.query import Exposure, Query
from ctfed.federation.rules.scope import Scope, rows_of
from ctfed.federation.session import Session
from ctfed.federation.view import View


@runtime_checkable
class Grouping(Protocol):
    """A transform to groups, of which a sum is a count below a threshold."""

    thresholds: FloatArray


FINE_TABLES = "fine_evaluation_tables"
REFERENCE = "reference_batch"


@dataclass(frozen=True, eq=False)
class Asking:
    """A query with everything by which it is judged.

    Attributes:
        query, exposure: what is asked, and what its total tells.
        rows: its rows in words.
        sites: how many contribute.
        patients, events: of the federation in these rows.
        census: everything that is known of the federation's rows.
        policy, scope: the site's limits and the study's.
    """

    query: Query
    exposure: Exposure
    rows: str
    sites: int
    patients: int
    events: int
    census: Census
    policy: Policy
    scope: Scope

    @classmethod
    def of(cls, query: Query, session: Session, census: Census, policy: Policy, scope: Scope) -> Asking:
        """Look up what a query is judged by.

        Raises:
            Refusal: 'undeclared-query' or 'outside-study': what is not declared cannot be judged.
        """
        exposure = query.exposure
        if exposure is None:
            raise Refusal("undeclared-query", f"{query.kind} does not declare what its total tells")
        found = scope.outside(query)
        if found is not None:
            raise Refusal("outside-study", f"{query.kind} asks for {found}, which the approved study does not name")
        sites = len(session.contributors(query.view))
        patients, events = census.of(query.view)
        return cls(query, exposure, rows_of(query.view), sites, patients, events, census, policy, scope)

    @property
    def min_cell(self) -> int:
        """The stricter of the site's and the study's fewest patients of a cell."""
        return max(self.policy.min_cell, self.scope.min_cell)

    @property
    def fine(self) -> bool:
        """Whether both the study and the site except the tables of times and scores from merged bins."""
        return self.scope.fine_tables and FINE_TABLES in self.policy.exceptions

    def __str__(self) -> str:
        return f"{self.query.kind} over the rows '{self.rows}'"


def _too_few_sites(asked: Asking) -> str | None:
    least = asked.policy.min_sites
    if asked.sites >= least:
        return None
    return f"{asked}: {asked.sites} sites contribute, this site wants {least}; leave out this split, or find more sites"


def _too_few_patients(asked: Asking) -> str | None:
    least = asked.policy.min_patients
    if asked.patients < least:
        return (
            f"{asked}: {asked.patients} patients at all sites, this site wants {least}; use fewer folds or a larger "
            "split"
        )
    small = [rest for rest in asked.census.remainders(asked.query.view) if 0 < rest < least]
    if small:
        return (
            f"{asked}: {small[0]} patients are outside the subgroup, of whom a difference of two totals tells; this "
            f"site wants {least} or none"
        )
    return None


def _too_few_events(asked: Asking) -> str | None:
    least = asked.policy.min_events
    if asked.events >= least:
        return None
    return f"{asked}: {asked.events} events at all sites, this site wants {least}; use fewer folds or a larger split"


def _too_many_parameters(asked: Asking) -> str | None:
    found, most = asked.exposure.parameters, asked.policy.parameters_per_patient * asked.patients
    if found <= most:
        return None
    return (
        f"{asked}: {found} parameters for {asked.patients} patients, this site allows "
        f"{asked.policy.parameters_per_patient:g} per patient; choose fewer features"
    )


def _too_many_cells(asked: Asking) -> str | None:
    found = asked.exposure.cells
    of_evaluation = asked.exposure.times is not None and bool(asked.exposure.cuts)
    if (asked.fine and of_evaluation) or found * asked.min_cell <= asked.patients:
        return None
    return (
        f"{asked}: a table of {found} cells for {asked.patients} patients, this site wants {asked.min_cell} patients a "
        f"cell on average; merge bins, or agree on the exception {FINE_TABLES} with every site"
    )


def _off_grid(asked: Asking) -> str | None:
    edges = asked.exposure.times
    if edges is None or asked.scope.on_grid(edges):
        return None
    widths = " or ".join(f"{width:g}" for width in asked.scope.time_widths)
    return f"{asked}: its time edges are no multiples of the study's {widths}; take them from the study's time grid"


def _needs_pooled(asked: Asking) -> str | None:
    exposure = asked.exposure
    told = [bool(exposure.means), bool(exposure.weighed), bool(exposure.points) and exposure.apart]
    if asked.scope.risk_sets == "pooled" or not any(told):
        return None
    return (
        f"{asked}: weighted columns, or the risk of those who die, by time bin; a study with stratified risk sets "
        "needs neither"
    )


def _small_bins(asked: Asking) -> str | None:
    """Sums over the patients of a time bin: each bin holds nobody, or a minimum (of the dying and of the censored)."""
    exposure = asked.exposure
    if exposure.times is None or not (exposure.points or exposure.weighed):
        return None
    leavers = asked.census.leavers(asked.query.view, exposure.times)
    if leavers is None:
        return f"{asked}: its time edges are not all among those at which the sites have counted their patients"
    held = leavers if exposure.apart else leavers.sum(axis=1)
    small = held[(held > 0) & (held < asked.min_cell)]
    if small.size == 0:
        return None
    return (
        f"{asked}: {small.size} time bins hold fewer than {asked.min_cell} patients, one of them {small.min():.0f}; "
        "merge neighbouring bins"
    )


def _rare_level(asked: Asking) -> str | None:
    """Sums of products of columns: those of a feature that one patient has are that patient's row.

    So are those of 1 less all indicators of a nominal column, when one patient alone is at its reference.
    """
    if asked.exposure.parameters == 0:
        return None
    view = asked.query.view
    rare = asked.census.rare_indicators(view, asked.min_cell)
    names = [feature.name for feature in view.features]
    if not _in_groups(asked):
        names += sorted(_made_of(view, asked.census.plan).difference(names))
    for name in names:
        held = rare.get(name, asked.census.carriers(view, name))
        if held is not None and 0 < held < asked.min_cell:
            return (
                f"{asked}: {name!r} tells {held} patients from all others, this site wants {asked.min_cell}; "
                "leave the feature out, or merge its levels"
            )
    return None


def _in_groups(asked: Asking) -> bool:
    """Whether scores of test patients, among whom a feature may be rarer, are summed by risk group or time bin.

    Any other sum of products of scores can be one of the features that they are made of: a score of one feature alone
    is that feature.
    """
    view = asked.query.view
    in_training = view.split == "train" and not view.held_out
    return not in_training and (asked.exposure.cells > 0 or any(isinstance(step, Grouping) for step in view.transforms))


def _made_of(view: View, plan: CensusPlan) -> set[str]:
    """Which two-valued columns a view's columns are made of: its own, and those of the views beside it."""
    found: set[str] = set()
    for inner in view.inner():
        if plan.counted.isdisjoint(feature.name for feature in inner.columns):
            continue  # thousands of features of images
        features = inner.sources
        found.update(feature.name for feature in features if feature.name in plan.two_valued)
        for step in inner.transforms:
            features = step.features(features)
            found.update(feature.name for feature in features if feature.name in plan.two_valued)
    return found


def _published(asked: Asking) -> str | None:
    label = asked.exposure.publishes
    if not label:
        return None
    if label != asked.scope.reference:
        return f"{asked}: the moments of the batch {label!r} alone, which is not the reference of the approved study"
    if REFERENCE in asked.policy.exceptions:
        return None
    return (
        f"{asked}: the moments of the batch {label!r} alone; agree on the exception {REFERENCE} with every site, or "
        "take no reference (harmonization.reference)"
    )


RULES: dict[str, Callable[[Asking], str | None]] = {
    "too-few-sites": _too_few_sites,
    "too-few-patients": _too_few_patients,
    "too-few-events": _too_few_events,
    "too-many-parameters": _too_many_parameters,
    "too-many-cells": _too_many_cells,
    "off-grid": _off_grid,
    "needs-pooled": _needs_pooled,
    "small-bin": _small_bins,
    "rare-level": _rare_level,
    "published-batch": _published,
}


def judge_question(asked: Asking) -> None:
    """Refuse a query by the first rule that it breaks."""
    for rule, judge in RULES.items():
        sentence = judge(asked)
        if sentence is not None:
            raise Refusal(rule, sentence)
