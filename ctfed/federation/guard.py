"""Guard: what stands between a site's sums and the network. Approvals, gate, masks, stored answers, ledger.

The order of a round: the run must be one that the site has joined; a round that was answered is answered with the same
bits, whatever has happened since; the gate judges the questions; the sums are masked; the answer is on the disk, and
in the ledger, before it leaves.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ctfed.federation.arrays import IntArray
from ctfed.federation.codec import digest
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError, Refusal
from ctfed.federation.ledger import ANSWERED, JOINED, OPENED, Ledger, RunState
from ctfed.federation.masking import Masks
from ctfed.federation.query import Query
from ctfed.federation.roster import Roster
from ctfed.federation.session import Assembly, Census, Opening, SealedCount, Session, open_census, sealed_count
from ctfed.federation.summary import Summary, layout_size
from ctfed.federation.wire import Asked, Invitation, bundle_digest


@dataclass(frozen=True)
class Approval:
    """What a site has agreed to.

    Attributes:
        study: SHA-256 of the study.
        roster: digest of the roster.
        folds: number of cross-validation folds of that study.
    """

    study: str
    roster: str
    folds: int


class Gate(Protocol):
    """A site's rules on what may be asked. All methods raise ``Refusal`` with the rule's name."""

    def splits(self, cohort: Cohort) -> tuple[str, ...]:
        """'train' and 'test', where this site holds enough patients to contribute."""
        ...

    def check_run(self, opened: Mapping[str, object], cohort: Cohort, ledger: Ledger) -> None:
        """Judge a new run against the ones before: budgets of runs, cohorts and rosters that differ by a little."""
        ...

    def check_session(self, session: Session) -> None:
        """Judge who takes part."""
        ...

    def check_round(
        self, queries: Sequence[Query], session: Session, census: Census, spent: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Judge a round's queries; returns what they add to ``spent``."""
        ...


@dataclass(frozen=True, eq=False)
class _Joined:
    """A session that this site has joined, opened in this process."""

    session: Session
    masks: Masks
    census: Census


class Guard:
    """One site's guard."""

    def __init__(
        self, key: X25519PrivateKey, roster: Roster, approval: Approval, gate: Gate, ledger: Ledger, secret: bytes
    ) -> None:
        """``secret`` is the site's own; the keys of commitments and of the ledger's HMACs are derived from it."""
        if approval.roster != roster.digest:
            raise CtfedError(
                f"the site has approved the roster {approval.roster[:12]}, the roster that was given is "
                f"{roster.digest[:12]}; approve the study again with it, if its keys are the right ones"
            )
        self.ledger = ledger
        self._key = key
        self._roster = roster
        self._approval = approval
        self._gate = gate
        self._commitment_key = hmac.digest(secret, b"ctfed commitment", sha256)
        self._ledger_key = hmac.digest(secret, b"ctfed ledger", sha256)
        self._joined: dict[str, _Joined] = {}

    # -- before the first round

    def open(self, invitation: Invitation, cohort: Cohort) -> Opening:
        """This site's opening of a run; asked again, the same one.

        Raises:
            Refusal: 'study-not-approved', 'roster-not-approved', 'cohort-changed', or a rule of the gate.
        """
        self._check_approved(invitation.study, invitation.roster)
        state = self.ledger.runs.get(invitation.run)
        if state is None:
            facts = {
                "study": invitation.study,
                "roster": invitation.roster,
                "nonce": secrets.token_hex(32),
                "cohort": self._commitment(cohort),
                "patients": self._pseudonyms(cohort),
                "splits": list(self._gate.splits(cohort)),
                "sites": list(self._roster.sites),
                "entries": self.ledger.length,
                "head": self.ledger.head,
            }
            self._gate.check_run(facts, cohort, self.ledger)
            self.ledger.append(OPENED, invitation.run, facts)
            state = self.ledger.runs[invitation.run]
        self._check_cohort(state, cohort)
        return _opening(cohort.site, state)

    def census(self, session: Session, cohort: Cohort) -> SealedCount:
        """Join a session and give this site's masked, sealed counts; asked again, the same ones.

        Raises:
            Refusal: when the session is not the one that this site opened, or a peer's ledger has become shorter.
        """
        state = self._state(session.run)
        self._check_approved(session.study, session.roster)
        self._check_cohort(state, cohort)
        name = digest(session)
        if state.session and state.session != name:
            raise Refusal("session-changed", f"run {session.run} has another session than the one that was joined")
        if session.sites != self._roster.sites:
            raise Refusal("roster-not-approved", "the session's sites are not those of the approved roster")
        if session.opening(cohort.site) != _opening(cohort.site, state):
            raise Refusal("session-changed", "the session holds another opening than the one this site gave")
        self._gate.check_session(session)
        if not state.session:
            self._check_ledgers(session)
            ledgers = {one.site: [one.entries, one.head] for one in session.openings if one.site != cohort.site}
            self.ledger.append(JOINED, session.run, {"session": name, "ledgers": ledgers})
        masks = Masks(cohort.site, self._key, self._roster, name)
        return sealed_count(cohort, _opening(cohort.site, state), self._approval.folds, masks, name)

    # -- a round

    def replay(self, asked: Asked) -> IntArray | None:
        """The masked limbs with which a round was answered before, None for a new round.

        Raises:
            Refusal: 'round-answered' when the round was another question, or its answer is gone.
        """
        answered = self._state(asked.run).answered.get(asked.round_number)
        if answered is None:
            return None
        if answered != bundle_digest(asked.queries):
            raise Refusal("round-answered", f"round {asked.round_number} was another question when it was answered")
        stored = self.ledger.stored(asked.run, asked.round_number)
        if stored is None:
            raise Refusal("answer-lost", f"the stored answer of round {asked.round_number} is gone; begin a new run")
        return stored

    def admit(self, asked: Asked, cohort: Cohort) -> Mapping[str, int]:
        """Judge a new round; returns what it will have spent.

        Raises:
            Refusal: 'unmasked', 'not-joined', 'cohort-changed', 'census-seal', or a rule of the gate.
        """
        state = self._state(asked.run)
        self._check_cohort(state, cohort)
        joined = self._join(asked, state, cohort)
        return self._gate.check_round(asked.queries, joined.session, joined.census, state.spent)

    def contributes(self, asked: Asked, query: Query, site: str) -> bool:
        """Whether this site adds anything to a query's total."""
        assert asked.assembly is not None
        return site in asked.assembly.session.contributors(query.view)

    def send(
        self, asked: Asked, summaries: Sequence[Summary | None], limbs: IntArray, spent: Mapping[str, int]
    ) -> IntArray:
        """The masked limbs, kept and written down."""
        assert asked.assembly is not None
        question = bundle_digest(asked.queries)
        masks = self._joined[asked.assembly.session_digest].masks
        masked = masks.mask(limbs, f"{asked.round_number}|{question}")
        self.ledger.store(asked.run, asked.round_number, masked)
        facts = {
            "round": asked.round_number,
            "question": question,
            "queries": [
                {
                    "kind": query.kind,
                    "view": digest(query.view),
                    "arrays": {name: list(entry.shape) for name, entry in query.layout.items()},
                    "contributed": summary is not None,
                }
                for query, summary in zip(asked.queries, summaries, strict=True)
            ],
            "numbers": sum(layout_size(query.layout) for query in asked.queries),
            "bytes": masked.nbytes,
            "statistics": hmac.digest(self._ledger_key, limbs.astype("<i8").tobytes(), sha256).hex(),
            "sent": sha256(masked.astype("<i8").tobytes()).hexdigest(),
            "spent": dict(spent),
        }
        self.ledger.append(ANSWERED, asked.run, facts)
        return masked

    # -- checks

    def _join(self, asked: Asked, state: RunState, cohort: Cohort) -> _Joined:
        assembly = asked.assembly
        if assembly is None:
            raise Refusal("unmasked", "the question comes without a session, its answer would not be masked")
        name = assembly.session_digest
        if assembly.session.run != asked.run or not state.session or state.session != name:
            raise Refusal("not-joined", f"run {asked.run} is asked in a session that this site has not joined")
        if name not in self._joined:
            masks = Masks(cohort.site, self._key, self._roster, name)
            self._joined[name] = _Joined(assembly.session, masks, _census(assembly, masks, self._approval.folds))
        return self._joined[name]

    def _state(self, run: str) -> RunState:
        state = self.ledger.runs.get(run)
        if state is None:
            raise Refusal("not-joined", f"this site has not opened the run {run!r:.80}")
        return state

    def _check_approved(self, study: str, roster: str) -> None:
        if study != self._approval.study:
            raise Refusal(
                "study-not-approved",
                f"the server's study is {study[:12]}, this site has approved {self._approval.study[:12]}; "
                "look at the new study and approve it, if it is what was agreed",
            )
        if roster != self._roster.digest:
            raise Refusal(
                "roster-not-approved",
                f"the server's roster is {roster[:12]}, this site has approved {self._roster.digest[:12]}",
            )

    def _check_cohort(self, state: RunState, cohort: Cohort) -> None:
        if state.opened["cohort"] != self._commitment(cohort):
            raise Refusal(
                "cohort-changed", "the site's table has changed since the run began; begin a new run, or restore it"
            )

    def _check_ledgers(self, session: Session) -> None:
        for opening in session.openings:
            entries, head = self.ledger.witnessed.get(opening.site, (0, opening.head))
            if opening.entries < entries or (opening.entries == entries > 0 and opening.head != head):
                raise Refusal(
                    "peer-ledger",
                    f"the ledger of {opening.site!r} had {entries} entries when it was last seen, now {opening.entries}"
                    " or others; ask that site what happened",
                )

    def _commitment(self, cohort: Cohort) -> str:
        return hmac.digest(self._commitment_key, cohort.fingerprint.encode(), sha256).hex()

    def _pseudonyms(self, cohort: Cohort) -> list[str]:
        """Short keyed digests of the patients, by which a later run's cohort is compared."""
        key = self._commitment_key
        return sorted(hmac.digest(key, f"patient|{name}".encode(), sha256).hex()[:16] for name in cohort.pseudonym)


def _census(assembly: Assembly, masks: Masks, folds: int) -> Census:
    return open_census(assembly, masks, folds)


def _opening(site: str, state: RunState) -> Opening:
    facts = state.opened
    return Opening(
        site=site,
        nonce=str(facts["nonce"]),
        cohort=str(facts["cohort"]),
        splits=tuple(str(split) for split in facts["splits"]),
        entries=int(facts["entries"]),
        head=str(facts["head"]),
    )
