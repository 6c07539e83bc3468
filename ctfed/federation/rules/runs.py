"""What a new run may be, beside the runs that the ledger remembers: two totals that differ by little tell what differs.

A steward's yes is an entry of the ledger, for one cohort and one roster: {"allow": ..., "cohort": ..., "roster": ...}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ctfed.federation.errors import Refusal
from ctfed.federation.ledger import Ledger
from ctfed.federation.policy import Policy
from ctfed.federation.rules.scope import Scope

Facts = Mapping[str, Any]

MORE_RUNS = "more-runs"


def check_cells(policy: Policy, scope: Scope) -> None:
    """Refuse a study that wants smaller cells than the site.

    Raises:
        Refusal: 'cell-minimum'.
    """
    if scope.min_cell < policy.min_cell:
        raise Refusal(
            "cell-minimum",
            f"the study wants at least {scope.min_cell} patients in a cell, this site {policy.min_cell}; "
            f"raise evaluation.min_cell to {policy.min_cell}",
        )


def _too_many_runs(opened: Facts, ledger: Ledger, policy: Policy) -> str | None:
    runs = sum(state.opened["cohort"] == opened["cohort"] for state in ledger.runs.values())
    most = policy.max_runs + _approvals(MORE_RUNS, opened, ledger)
    return None if runs < most else f"there were {runs} runs with these patients, this site allows {most}"


def _cohort_difference(opened: Facts, ledger: Ledger, policy: Policy) -> str | None:
    patients = set(opened["patients"])
    for run, state in ledger.runs.items():
        differing = len(patients ^ set(state.opened["patients"]))
        if 0 < differing < policy.difference:
            return f"{differing} patients differ from those of run {run}, this site wants {policy.difference} or none"
        if differing == 0 and _only_values_differ(opened, state.opened):
            return f"the patients are those of run {run} with other values, perhaps of one of them"
    return None


def _only_values_differ(opened: Facts, earlier: Facts) -> bool:
    """Whether the same study finds the same patients with other values; another study has its own columns and folds."""
    return bool(opened["cohort"] != earlier["cohort"] and opened["study"] == earlier["study"])


def _roster_difference(opened: Facts, ledger: Ledger, policy: Policy) -> str | None:
    sites = set(opened["sites"])
    for run, state in ledger.runs.items():
        joined, left = sites - set(state.opened["sites"]), set(state.opened["sites"]) - sites
        if (joined or left) and len(joined) <= 1 and len(left) <= 1:
            return f"the sites differ from those of run {run} by one ({', '.join(sorted(joined | left))})"
    return None


# rule: what a steward allows, and the sentence that describes a run which needs it
RULES: dict[str, tuple[str, Callable[[Facts, Ledger, Policy], str | None]]] = {
    "too-many-runs": (MORE_RUNS, _too_many_runs),
    "cohort-difference": ("cohort-difference", _cohort_difference),
    "roster-difference": ("roster-difference", _roster_difference),
}


def check_runs(opened: Facts, ledger: Ledger, policy: Policy) -> None:
    """Refuse a run that together with an earlier one tells of few patients or of one site.

    Args:
        opened: facts of the run's opening: study, roster, cohort, patients, sites.
        ledger: with the earlier runs and the steward's approvals.
        policy: the site's.

    Raises:
        Refusal: 'too-many-runs', 'cohort-difference' or 'roster-difference'.
    """
    for rule, (allowed, judge) in RULES.items():
        sentence = judge(opened, ledger, policy)
        if sentence is None or (rule == allowed and _approvals(allowed, opened, ledger)):
            continue
        raise Refusal(
            rule,
            f"{sentence}; it needs the steward's yes to {allowed!r} for cohort {str(opened['cohort'])[:12]} and roster "
            f"{str(opened['roster'])[:12]}",
        )


def _approvals(allowed: str, opened: Facts, ledger: Ledger) -> int:
    """How often a steward has said yes; every yes to 'more-runs' allows one run more."""
    wanted = {"allow": allowed, "cohort": opened["cohort"], "roster": opened["roster"]}
    return sum(all(yes.get(key) == value for key, value in wanted.items()) for yes in ledger.approvals)
