"""The gatekeeper: what a site lets itself be asked, by its policy and the study it has approved.

Judged on the sealed census, the site's own ledger, policy and study; never on what a server says about itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ctfed.federation.census import Census
from ctfed.federation.codec import digest
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import Refusal
from ctfed.federation.ledger import Ledger
from ctfed.federation.policy import Policy
from ctfed.federation.query import Query
from ctfed.federation.rules.budget import Budget
from ctfed.federation.rules.question import Asking, judge_question
from ctfed.federation.rules.runs import check_cells, check_runs
from ctfed.federation.rules.scope import Scope
from ctfed.federation.session import Session

__all__ = ["Scope", "StudyGate"]


class StudyGate:
    """A site's gate for one approved study."""

    def __init__(self, policy: Policy, scope: Scope) -> None:
        self._policy = policy
        self._scope = scope

    def splits(self, cohort: Cohort) -> tuple[str, ...]:
        """The splits to which this site contributes: none when its whole cohort is below the site's own minimum."""
        policy = self._policy
        if cohort.patients < policy.min_patients or int(cohort.event.sum()) < policy.min_events:
            return ()
        return tuple(split for split in ("train", "test") if (cohort.split == split).any())

    def check_run(self, opened: Mapping[str, object], cohort: Cohort, ledger: Ledger) -> None:
        """Judge a new run against the ones before.

        Raises:
            Refusal: 'cell-minimum', 'too-many-runs', 'cohort-difference' or 'roster-difference'.
        """
        check_cells(self._policy, self._scope)
        check_runs(opened, ledger, self._policy)

    def check_session(self, session: Session) -> None:
        """Refuse a session with too few sites.

        Raises:
            Refusal: 'too-few-sites'.
        """
        if len(session.sites) < self._policy.min_sites:
            raise Refusal("too-few-sites", f"{len(session.sites)} sites, this site wants {self._policy.min_sites}")

    def check_round(
        self, queries: Sequence[Query], session: Session, census: Census, spent: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Judge a round's queries; returns what they add to ``spent``.

        Raises:
            Refusal: 'undeclared-query', 'outside-study', or a rule of ``rules.question`` or ``rules.budget``. One
                query that breaks a rule refuses the round.
        """
        check_cells(self._policy, self._scope)
        budget = Budget(spent, self._policy, self._scope)
        budget.spend_round()
        for query in {digest(query): query for query in queries}.values():  # equal queries are answered once
            asked = Asking.of(query, session, census, self._policy, self._scope)
            judge_question(asked)
            budget.spend(asked)
        return budget.added
