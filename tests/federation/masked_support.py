"""Sites that mask: keys, a roster, guards with ledgers on the disk, and the questions that a server would ask them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from hashlib import sha256
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ctfed.federation import Cohort, Feature, Query, Refusal, Total, View
from ctfed.federation.arrays import IntArray
from ctfed.federation.census import Census, CensusPlan
from ctfed.federation.fixedpoint import add_limbs
from ctfed.federation.guard import Approval, Guard
from ctfed.federation.ledger import Ledger
from ctfed.federation.masking import Masks
from ctfed.federation.responder import Responder
from ctfed.federation.roster import Roster
from ctfed.federation.session import Assembly, Opening, Session
from ctfed.federation.wire import Invitation, Question, encode_question, encode_session, read_census, read_totals
from ctfed.statistics.describe import Counts, Moments

FOLDS = 3
STUDY = "5" * 64
SESSION = "ab" * 32
VIEW = View((Feature("a"), Feature("b")))


class OpenGate:
    """Lets everything through, and counts rounds."""

    def splits(self, cohort: Cohort) -> tuple[str, ...]:
        return tuple(split for split in ("train", "test") if (cohort.split == split).any())

    def check_run(self, opened: Mapping[str, object], cohort: Cohort, ledger: Ledger) -> None: ...

    def check_session(self, session: Session) -> None: ...

    def check_round(
        self, queries: Sequence[Query], session: Session, census: Census, spent: Mapping[str, int]
    ) -> Mapping[str, int]:
        return {"rounds": 1}


class SmallSiteGate(OpenGate):
    """As a site's own minimum of patients works."""

    def splits(self, cohort: Cohort) -> tuple[str, ...]:
        return super().splits(cohort) if cohort.patients >= 10 else ()


class StrictGate(OpenGate):
    """Lets no round through."""

    def check_round(
        self, queries: Sequence[Query], session: Session, census: Census, spent: Mapping[str, int]
    ) -> Mapping[str, int]:
        raise Refusal("too-curious", "this site tells nothing today")


def private_keys(count: int) -> dict[str, X25519PrivateKey]:
    """A fixed key for each of ``count`` sites."""
    names = [f"site-{index:02d}" for index in range(count)]
    return {name: X25519PrivateKey.from_private_bytes(sha256(name.encode()).digest()) for name in names}


def roster_of(keys: Mapping[str, X25519PrivateKey]) -> Roster:
    return Roster({site: key.public_key().public_bytes_raw() for site, key in keys.items()})


def all_masks(count: int, session: str = SESSION) -> list[Masks]:
    keys = private_keys(count)
    roster = roster_of(keys)
    return [Masks(site, key, roster, session) for site, key in keys.items()]


def site_cohorts(patients: Sequence[int] = (40, 30, 25), seed: int = 0, test: float = 0.3) -> list[Cohort]:
    rng = np.random.default_rng(seed)
    cohorts = []
    for index, n in enumerate(patients):
        chosen = rng.random(n) < test
        cohorts.append(
            Cohort.of(
                f"site-{index:02d}",
                {"a": rng.normal(size=n), "b": rng.normal(3.0, 2.0, n)},
                rng.exponential(20.0, n) + 0.5,
                rng.random(n) < 0.6,
                split=np.where(chosen, "test", "train"),
                fold=np.where(chosen, -1, rng.integers(0, FOLDS, n)),
                pseudonym=np.array([f"patient-{index}-{row}" for row in range(n)]),
            )
        )
    return cohorts


@dataclass
class Federation:
    """Three sites or more, each with its ledger under ``folder``; a site is restarted with ``restart``."""

    folder: Path
    cohorts: list[Cohort] = field(default_factory=site_cohorts)
    gate: OpenGate = field(default_factory=OpenGate)
    study: str = STUDY

    def __post_init__(self) -> None:
        self.keys = private_keys(len(self.cohorts))
        self.roster = roster_of(self.keys)
        self.by_site = {cohort.site: cohort for cohort in self.cohorts}
        self.guards = {site: self.new_guard(site) for site in self.keys}
        self.responders = {site: Responder(self.by_site[site], self.guards[site]) for site in self.keys}

    @property
    def sites(self) -> tuple[str, ...]:
        return self.roster.sites

    def ledger_folder(self, site: str) -> Path:
        return self.folder / site

    def new_guard(self, site: str, *, roster: Roster | None = None, study: str | None = None) -> Guard:
        """A guard as a new process makes it, from what is on the disk."""
        chosen = roster or self.roster
        approval = Approval(study or self.study, chosen.digest, CensusPlan(FOLDS))
        return Guard(
            self.keys[site],
            chosen,
            approval,
            self.gate,
            Ledger(self.ledger_folder(site)),
            b"secret of " + site.encode(),
        )

    def restart(self, site: str, cohort: Cohort | None = None) -> Responder:
        """The site's process ends and another one begins."""
        self.guards[site] = self.new_guard(site)
        self.responders[site] = Responder(cohort or self.by_site[site], self.guards[site])
        return self.responders[site]

    def open(self, run: str) -> Session:
        """Every site's opening, as the server puts them together."""
        invitation = Invitation(run, self.study, self.roster.digest)
        openings = [self.guards[site].open(invitation, self.by_site[site]) for site in self.sites]
        return Session.of(run, self.study, self.roster.digest, openings)

    def join(self, session: Session) -> Assembly:
        """Every site's census, through the wire."""
        question = encode_session(session)
        answers = [self.responders[site].answer(question) for site in self.sites]
        return Assembly.of(session, [read_census(answer, question) for answer in answers])

    def begin(self, run: str = "run-1") -> Assembly:
        """Open a run and join it."""
        return self.join(self.open(run))

    def question(self, number: int, queries: Sequence[Query], assembly: Assembly | None) -> Question:
        run = assembly.session.run if assembly is not None else "run-1"
        return encode_question(run, number, tuple(queries), frozenset(), assembly)

    def ask(self, number: int, queries: Sequence[Query], assembly: Assembly) -> dict[str, IntArray]:
        """The masked limbs of every site."""
        question = self.question(number, queries, assembly)
        return {site: self.responders[site].answer(question).limbs for site in self.sites}

    def totals(self, number: int, queries: Sequence[Query], assembly: Assembly) -> tuple[Total, ...]:
        return read_totals(reduce(add_limbs, self.ask(number, queries, assembly).values()), queries)


def moments(centre: float = 0.0, view: View = VIEW) -> Query:
    """A question whose sums depend on ``centre``."""
    return Moments(view, np.full(view.width, centre))


def counts(view: View = VIEW) -> Query:
    return Counts(view)


def opening(site: str, **changes: object) -> Opening:
    """A valid opening, changed in some fields."""
    fields = {"nonce": "1" * 64, "cohort": "2" * 64, "splits": ("train", "test"), "entries": 0, "head": "0" * 64}
    return Opening(site, **{**fields, **changes})  # type: ignore[arg-type]
