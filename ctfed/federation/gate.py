"""The gatekeeper: what a site lets itself be asked, by its policy and the study it has approved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import Refusal
from ctfed.federation.ledger import Ledger
from ctfed.federation.policy import Policy
from ctfed.federation.query import Query
from ctfed.federation.session import Census, Session


class StudyGate:
    """A site's gate for one approved study."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def splits(self, cohort: Cohort) -> tuple[str, ...]:
        """The splits to which this site contributes: none when its whole cohort is below the site's own minimum."""
        policy = self._policy
        if cohort.patients < policy.min_patients or int(cohort.event.sum()) < policy.min_events:
            return ()
        return tuple(split for split in ("train", "test") if (cohort.split == split).any())

    def check_run(self, opened: Mapping[str, object], cohort: Cohort, ledger: Ledger) -> None:
        """Judge a new run against the ones before."""

    def check_session(self, session: Session) -> None:
        """Refuse a session with too few sites."""
        if len(session.sites) < self._policy.min_sites:
            raise Refusal("too-few-sites", f"{len(session.sites)} sites, this site wants {self._policy.min_sites}")

    def check_round(
        self, queries: Sequence[Query], session: Session, census: Census, spent: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Judge a round's queries."""
        for query in queries:
            if len(session.contributors(query.view)) < self._policy.min_sites:
                raise Refusal("too-few-sites", f"too few sites contribute to a total over the {query.view.split} split")
        return {}
