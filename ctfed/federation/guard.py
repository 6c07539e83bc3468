"""Guard: what stands between a site's sums and the network. Approvals, gate, masks, stored answers, ledger.

The order of a round: the run must be one that the site has joined; a round that was answered is answered with the same
bits, whatever has happened since; the gate judges the questions; the sums are masked; the answer is on the disk, and
in the ledger, before it leaves.
"""

from __future__ import annotations

import hmac
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ctfed.federation.arrays import IntArray
from ctfed.federation.census import Census, CensusPlan, open_census, sealed_count
from ctfed.federation.codec import digest
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError, Refusal
from ctfed.federation.ledger import ANSWERED, JOINED, OPENED, Ledger, RunState, limb_bytes
from ctfed.federation.masking import Masks
from ctfed.federation.noise import with_noise
from ctfed.federation.query import Query
from ctfed.federation.roster import Roster
from ctfed.federation.rules.scope import rows_of
from ctfed.federation.session import LedgerMark, Opening, SealedCount, Session
from ctfed.federation.summary import Summary
from ctfed.federation.wire import Asked, Invitation, bundle_digest

MOST_BLOCKED = 3  # different questions of a run that a site's data may make it refuse


@dataclass(frozen=True)
class Approval:
    """What a site has agreed to.

    Attributes:
        study: SHA-256 of the study.
        roster: digest of the roster.
        census: what is counted of that study before its first question.
        noise: standard deviation of the noise on released tables, in units of their sensitivity; 0 for none.
    """

    study: str
    roster: str
    census: CensusPlan
    noise: float = 0.0


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
        self._noise_key = hmac.digest(secret, b"ctfed noise", sha256)
        self._ledger_key = hmac.digest(secret, b"ctfed ledger", sha256)
        self._joined: dict[str, _Joined] = {}
        self._judged: dict[str, int] = {}  # run -> answered rounds when the last question was judged

    # -- before the first round

    def open(self, invitation: Invitation, cohort: Cohort) -> Opening:
        """This site's opening of a run; asked again, the same one.

        Raises:
            Refusal: 'study-not-approved', 'roster-not-approved', 'cohort-changed', or a rule of the gate.
        """
        self._check_approved(invitation.study, invitation.roster)
        with self.ledger.hold():
            state = self.ledger.runs.get(invitation.run)
            if state is None:
                facts = self._opening_facts(invitation, cohort)
                self._gate.check_run(facts, cohort, self.ledger)
                self.ledger.append(OPENED, invitation.run, facts)
                state = self.ledger.runs[invitation.run]
        self._check_same_study(state, invitation.study, invitation.roster)
        self._check_cohort(state, cohort)
        return _opening(cohort.site, state)

    def _opening_facts(self, invitation: Invitation, cohort: Cohort) -> dict[str, object]:
        seen = {site: list(self.ledger.witnessed[site]) for site in self._roster.sites if site in self.ledger.witnessed}
        return {
            "study": invitation.study,
            "roster": invitation.roster,
            "nonce": secrets.token_hex(32),
            "cohort": self.commitment(cohort),
            "patients": self._pseudonyms(cohort),
            "splits": list(self._gate.splits(cohort)),
            "sites": list(self._roster.sites),
            "entries": self.ledger.length,
            "head": self.ledger.head,
            "seen": seen,
        }

    def census(self, session: Session, cohort: Cohort) -> SealedCount:
        """Join a session and give this site's masked, sealed counts; asked again, the same ones.

        Raises:
            Refusal: when the session is not the one that this site opened, or this site's or a peer's ledger is not
                the continuation of what was seen before ('own-ledger', 'peer-ledger').
        """
        with self.ledger.hold():
            return self._census(session, cohort)

    def _census(self, session: Session, cohort: Cohort) -> SealedCount:
        state = self._state(session.run)
        self._check_approved(session.study, session.roster)
        self._check_same_study(state, session.study, session.roster)
        self._check_cohort(state, cohort)
        name = digest(session)
        if state.session and state.session != name:
            raise Refusal("session-changed", f"run {session.run} has another session than the one that was joined")
        if session.sites != self._roster.sites:
            raise Refusal("roster-not-approved", "the session's sites are not those of the approved roster")
        own = _opening(cohort.site, state)
        if session.opening(cohort.site) != replace(own, seen=()):
            raise Refusal("session-changed", "the session holds another opening than the one this site gave")
        if not set(own.seen) <= set(session.marks):
            raise Refusal("session-changed", "the session lacks a mark of another's ledger that this site gave")
        self._gate.check_session(session)
        if not state.session:
            self._check_ledgers(session, cohort.site)
            ledgers = {one.site: [one.entries, one.head] for one in session.openings if one.site != cohort.site}
            self.ledger.append(JOINED, session.run, {"session": name, "ledgers": ledgers})
        return self._sealed_count(state, cohort, Masks(cohort.site, self._key, self._roster, name), name)

    def _sealed_count(self, state: RunState, cohort: Cohort, masks: Masks, name: str) -> SealedCount:
        return sealed_count(cohort, _opening(cohort.site, state), self._approval.census, masks, name)

    # -- a round

    def replay(self, asked: Asked) -> IntArray | None:
        """The masked limbs with which a round was answered before, None for a new round.

        Raises:
            Refusal: 'round-answered' when the round was another question; 'answer-lost' when its answer is gone.
        """
        self.ledger.refresh()
        answered = self._state(asked.run).answered.get(asked.round_number)
        if answered is None:
            return None
        if answered != bundle_digest(asked.queries):
            raise Refusal("round-answered", f"round {asked.round_number} was another question when it was answered")
        stored = self.ledger.stored(asked.run, asked.round_number)
        if stored is None:
            raise Refusal(
                "answer-lost",
                f"the stored answer of round {asked.round_number} is gone, or is no longer what was sent; restore the "
                "ledger's folder 'answers', or begin a new run",
            )
        return stored

    def admit(self, asked: Asked, cohort: Cohort) -> Mapping[str, int]:
        """Judge a new round; returns what it will have spent.

        Raises:
            Refusal: 'unmasked', 'not-joined', 'cohort-changed', 'census-seal', 'too-many-refusals', or a rule of the
                gate.
        """
        state = self._state(asked.run)
        if len(state.blocked - {bundle_digest(asked.queries)}) >= MOST_BLOCKED:
            # Each such refusal is a bit about this site's data alone, which no mask hides.
            raise Refusal(
                "too-many-refusals",
                f"this site's data did not allow {len(state.blocked)} different questions of this run; look at the "
                "sentences in the ledger, and begin a new run when their cause is found",
            )
        self._check_cohort(state, cohort)
        joined = self._join(asked, state, cohort)
        self._judged[asked.run] = len(state.answered)
        return self._gate.check_round(asked.queries, joined.session, joined.census, state.spent)

    def contributes(self, asked: Asked, query: Query, site: str) -> bool:
        """Whether this site adds anything to a query's total."""
        assert asked.assembly is not None
        return site in asked.assembly.session.contributors(query.view)

    def with_noise(self, asked: Asked, query: Query, summary: Summary) -> Summary:
        """The summary with this site's share of the noise that the approved study wants."""
        if self._approval.noise == 0:
            return summary
        assert asked.assembly is not None
        session = asked.assembly.session
        place = f"{asked.assembly.session_digest}|{asked.round_number}|{bundle_digest(asked.queries)}"
        sites = len(session.contributors(query.view))
        return with_noise(query, summary, self._noise_key, place, self._approval.noise, sites)

    def send(
        self, asked: Asked, summaries: Sequence[Summary | None], limbs: IntArray, spent: Mapping[str, int]
    ) -> IntArray:
        """The masked limbs, kept and written down; what another process sent meanwhile is sent again.

        Raises:
            Refusal: a rule of the gate, when another process of this site has spent its budgets meanwhile.
        """
        assert asked.assembly is not None
        question = bundle_digest(asked.queries)
        joined = self._joined[asked.assembly.session_digest]
        masked = joined.masks.mask(limbs, f"{asked.round_number}|{question}")
        with self.ledger.hold():
            stored = self.replay(asked)
            if stored is not None:
                return stored
            state = self._state(asked.run)
            if len(state.answered) != self._judged.get(asked.run):  # another process of this site has spent meanwhile
                spent = self._gate.check_round(asked.queries, joined.session, joined.census, state.spent)
            self.ledger.store(asked.run, asked.round_number, masked)
            facts = {
                "round": asked.round_number,
                "question": question,
                "queries": _described(asked.queries, summaries, joined),
                "numbers": limbs.size // 2 - len(asked.queries),  # without every query's count of contributors
                "bytes": masked.nbytes,
                "statistics": hmac.digest(self._ledger_key, limb_bytes(limbs), sha256).hex(),
                "sent": sha256(limb_bytes(masked)).hexdigest(),
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
        self._check_approved(assembly.session.study, assembly.session.roster)
        if name not in self._joined:
            masks = Masks(cohort.site, self._key, self._roster, name)
            own = self._sealed_count(state, cohort, masks, name)
            self._joined[name] = _Joined(
                assembly.session, masks, open_census(assembly, masks, self._approval.census, own)
            )
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

    def _check_same_study(self, state: RunState, study: str, roster: str) -> None:
        if (state.opened["study"], state.opened["roster"]) != (study, roster):
            raise Refusal("study-not-approved", "the run was opened for another study or roster; begin a new run")

    def _check_cohort(self, state: RunState, cohort: Cohort) -> None:
        if state.opened["cohort"] != self.commitment(cohort):
            raise Refusal(
                "cohort-changed", "the site's table has changed since the run began; begin a new run, or restore it"
            )

    def _check_ledgers(self, session: Session, site: str) -> None:
        for opening in session.openings:
            entries = self.ledger.witnessed.get(opening.site, (-1, ""))[0]
            if opening.site != site and opening.entries <= entries:  # the run that was seen has added one
                raise Refusal(
                    "peer-ledger",
                    f"the ledger of {opening.site!r} had more than {entries} entries when it was last seen, now "
                    f"{opening.entries}; if a later run has begun, begin a new one, else ask that site what happened "
                    "(`ctfed ledger accept` goes on with the ledger that it has)",
                )
        for mark in session.marks:
            if mark.site == site and self.ledger.head_of(mark.entries) != mark.head:
                raise Refusal(
                    "own-ledger",
                    f"another site has seen another ledger of this one, with {mark.entries} entries; was an old copy "
                    f"restored, or a line written anew? (last hash then: {mark.head}; where no better copy is left, "
                    "the other sites can `ctfed ledger accept` this one)",
                )

    def commitment(self, cohort: Cohort) -> str:
        """What stands for the cohort in openings and in a steward's allowance: an HMAC (hex), keyed at this site."""
        return hmac.digest(self._commitment_key, cohort.fingerprint.encode(), sha256).hex()

    def _pseudonyms(self, cohort: Cohort) -> list[str]:
        """Short keyed digests of the patients, by which a later run's cohort is compared."""
        key = self._commitment_key
        return sorted(hmac.digest(key, f"patient|{name}".encode(), sha256).hex()[:16] for name in cohort.pseudonym)


def _described(
    queries: Sequence[Query], summaries: Sequence[Summary | None], joined: _Joined
) -> list[dict[str, object]]:
    """What the ledger keeps of a round's queries: kind, arrays, and the patients and events of the federation's total.

    Queries that differ in their parameters alone are one item, with how many ``times`` they were asked.
    """
    items: dict[tuple[object, ...], dict[str, object]] = {}
    times: Counter[tuple[object, ...]] = Counter()
    for query, summary in zip(queries, summaries, strict=True):
        shapes = {name: entry.shape for name, entry in query.layout.items()}
        key = (query.kind, digest(query.view), *shapes.items())
        times[key] += 1
        if key not in items:
            patients, events = joined.census.of(query.view)
            items[key] = {
                "kind": query.kind,
                "view": digest(query.view),
                "rows": rows_of(query.view),
                "arrays": {name: list(shape) for name, shape in shapes.items()},
                "contributed": summary is not None,
                "sites": len(joined.session.contributors(query.view)),
                "patients": patients,
                "events": events,
                "smallest": _smallest_cell(query, joined.census),
            }
    return [{**item, "times": times[key]} for key, item in items.items()]


def _smallest_cell(query: Query, census: Census) -> int | None:
    """The fewest deaths, or censored patients, of a time bin that is told as a count; None where none is."""
    exposure = query.exposure
    if exposure is None or exposure.times is None:
        return None
    leavers = census.leavers(query.view, exposure.times)
    return None if leavers is None or not leavers.any() else round(float(leavers[leavers > 0].min()))


def _opening(site: str, state: RunState) -> Opening:
    facts = state.opened
    return Opening(
        site=site,
        nonce=str(facts["nonce"]),
        cohort=str(facts["cohort"]),
        splits=tuple(str(split) for split in facts["splits"]),
        entries=int(facts["entries"]),
        head=str(facts["head"]),
        seen=tuple(
            LedgerMark(str(name), int(n), str(head)) for name, (n, head) in sorted(facts.get("seen", {}).items())
        ),
    )
