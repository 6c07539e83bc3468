"""The words and limits of the steward's page: what a question tells, what a rule means, what a budget allows."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ctfed.approval_stages import QUESTIONS
from ctfed.federation.policy import Policy
from ctfed.federation.query import Query
from ctfed.federation.rules.budget import BASELINE_POINTS, SCORES, TOGETHER
from ctfed.federation.rules.question import FINE_TABLES
from ctfed.federation.rules.scope import Scope

# Rule of a refusal -> what it means. A rule that is not here speaks for itself.
RULES: Mapping[str, str] = {
    "answer-lost": "the stored answer of a round is gone, and a round is never computed twice",
    "cell-minimum": "the study wants smaller cells in its tables than this site",
    "census-seal": "the numbers of patients that the server showed are not those that the sites sent",
    "census-sum": "the masked numbers of patients do not add up: sites are in different sessions",
    "cohort-changed": "this site's table has changed since the run began",
    "cohort-difference": "the cohort differs from that of an earlier run by few patients",
    "hazards-on-faith": "hazards of the server's own making, of which no risk sets were asked before",
    "fixed-point-range": "a sum is larger than the study's data dictionary declares",
    "missing-value": "a column has missing values where the question needs all",
    "missing-values": "a column has missing values where the question needs all",
    "needs-pooled": "sums by time bin that only a study with pooled risk sets needs",
    "no-keys": "this site was started without keys, so it could not mask",
    "not-answerable": "this site's data gave no finite answer",
    "not-joined": "a question about a run that this site has not joined",
    "numbers-per-bin": "as many numbers of a time bin as there are values in it",
    "off-grid": "time bins that are not those of the study",
    "outside-study": "a question that the approved study does not name",
    "own-ledger": "other sites have seen another ledger of this site: a copy was restored, or it was written anew",
    "peer-ledger": "another site's ledger has become shorter",
    "published-batch": "a single batch's own moments, which its site has not agreed to publish",
    "rare-level": "sums of products with a feature that few patients have or lack",
    "released-budget": "more numbers about the same patients than this site allows",
    "roster-difference": "the sites differ from those of an earlier run by one",
    "roster-not-approved": "other sites or keys than this site has approved",
    "round-answered": "a second, different question under the number of a round that was answered",
    "session-changed": "other openings than the sites have agreed on",
    "small-bin": "sums over time bins that hold few patients",
    "study-not-approved": "another study than this site has approved",
    "too-few-events": "a total over too few events",
    "too-few-patients": "a total over too few patients",
    "too-few-sites": "a total over too few sites",
    "too-many-bins": "more time bins than the patients allow",
    "too-many-cells": "a table with more cells than the patients allow",
    "too-many-cuts": "more thresholds of a column than the patients allow",
    "too-many-parameters": "more coefficients than the patients allow",
    "too-many-points": "risk sets over time at more coefficient vectors than this site allows",
    "too-many-refusals": "more questions that this site's data did not allow than one run may ask",
    "too-many-rounds": "more rounds than this site allows",
    "too-many-runs": "more runs with the same patients than this site allows",
    "too-many-tables": "more tables about the same rows than this site allows",
    "undeclared-query": "a question that does not say what its total tells",
    "unknown-column": "a column that this site does not have",
    "unknown-level": "a category that the study does not name",
    "unmasked": "a question whose answer would not have been masked",
}


@dataclass(frozen=True)
class Limits:
    """What a site allows, as far as it is known where the page is made.

    Attributes:
        policy: the site's limits.
        scope: what the approved study lets be asked.
    """

    policy: Policy | None = None
    scope: Scope | None = None

    def allowed(self, pot: str, patients: int | None) -> float | None:
        """The most that may be spent of a budget of the gate, None when it is not known.

        Args:
            pot: the budget's name in the ledger: 'rounds', 'numbers|ROWS', 'cuts|ROWS|COLUMN' and so on.
            patients: of the federation in these rows.
        """
        policy, scope = self.policy, self.scope
        if policy is None:
            return None
        what, _, about = pot.partition("|")
        if what == "rounds":
            return policy.max_rounds
        if what == "tables":
            return policy.max_tables * (1 if scope is None else scope.models)
        if scope is None:
            return None
        if what == "points":
            return policy.max_points if scope.risk_sets == "pooled" else BASELINE_POINTS * scope.models
        if patients is None:
            return None
        if what == "numbers":
            share = policy.released_together if about == TOGETHER else policy.released_per_value
            return share * patients * len(scope.columns)
        fine = scope.fine_tables and FINE_TABLES in policy.exceptions and about.endswith(f"|{SCORES}")
        return (
            None
            if fine or what != "cuts"
            else policy.cuts_per_patient * patients * (scope.models if about.endswith(f"|{SCORES}") else 1)
        )


def meaning(kind: str) -> str:
    """What the total of a query tells, in a sentence: from the steward's list of questions, or the query's own text."""
    if kind in QUESTIONS:
        return QUESTIONS[kind]
    found = next((cls for cls in _queries(Query) if getattr(cls, "_wire_name", None) == kind), None)
    if found is None:
        return "not known to this version of ctfed"
    paragraphs = [" ".join(part.split()) for part in inspect.cleandoc(found.__doc__ or "").split("\n\n")]
    telling = [part for part in paragraphs if "disclose" in part or " tells " in part]
    return (telling or paragraphs)[0].replace("``", "")


def _queries(cls: type) -> Iterator[type]:
    query: type
    for query in cls.__subclasses__():
        yield query
        yield from _queries(query)
