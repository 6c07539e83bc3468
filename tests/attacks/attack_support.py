"""Federations to attack: sites with the real gate, guard and masks, and a server that asks anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ctfed import node
from ctfed.cohort import assign_folds, assign_split
from ctfed.federation import Algorithm, Bundle, Cohort, Query, Total, View, run_pooled
from ctfed.federation.arrays import FloatArray, IntArray
from ctfed.federation.fixedpoint import add_limbs
from ctfed.federation.gate import StudyGate
from ctfed.federation.guard import Approval, Guard
from ctfed.federation.ledger import Ledger
from ctfed.federation.policy import Policy
from ctfed.federation.responder import Responder
from ctfed.federation.roster import Roster
from ctfed.federation.session import Assembly, Session
from ctfed.federation.wire import (
    Answer,
    Invitation,
    Question,
    encode_invitation,
    encode_question,
    encode_session,
    read_census,
    read_opening,
    read_totals,
)
from ctfed.statistics.cox import pooled
from ctfed.study import Study, census_of, scope_of
from server.audit.transcript import Exchange, Transcript
from server.study_algorithm import study_algorithm

SITES = ("north", "south", "west")
COLUMNS = ("age", "grade", "carrier")
RANGES = {"age": (0, 120), "grade": (0, 9), "carrier": (0, 1)}


def study_of(*, risk_sets: str = "stratified", tuned: bool = False, test: float = 0.3, **evaluation: object) -> Study:
    """A small study of three columns: an age in years, a grade and a rare 0/1 column."""
    content: dict[str, Any] = {
        "ctfed_study": 1,
        "name": "small",
        "title": "A study to attack",
        "endpoint": {"name": "overall survival", "time_unit": "months"},
        "variables": {
            "age": {"type": "continuous", "range": RANGES["age"], "impute": "none"},
            "grade": {
                "type": "ordinal",
                "range": RANGES["grade"],
                "levels": {i: str(i) for i in range(10)},
                "impute": "none",
            },
            "carrier": {"type": "binary", "range": RANGES["carrier"], "impute": "none"},
        },
        "model": {"features": COLUMNS, "risk_sets": risk_sets},
        "split": {"test_fraction": test},
        "evaluation": {"horizons": (12, 24), "time_bin": 1, "bootstrap": 10, **evaluation},
        "time_grid": {"width": 1, "end": 36},
    }
    content |= {"tuning": {"folds": 3, "penalizers": {"count": 8}}} if tuned else {"penalty": PENALTY}
    return Study.model_validate(content)


PENALTY = {"penalizer": 0.02, "l1_ratio": 0.0}


def site_cohorts(study: Study, sizes: Sequence[int] = (60, 50, 40), seed: int = 0, rare: float = 0.1) -> list[Cohort]:
    """Patients with whole years, whole grades and random follow-up; splits and folds as a site draws them."""
    rng = np.random.default_rng(seed)
    assert study.split.test_fraction is not None
    found = []
    for site, n in zip(SITES, sizes, strict=False):
        age, grade = np.round(rng.normal(65, 9, n)), rng.integers(0, 10, n).astype(float)
        carrier = (rng.random(n) < rare).astype(float)
        risk = np.exp(0.03 * (age - 65) + 0.1 * (grade - 4.5))
        death, censoring = rng.exponential(14 / risk), rng.exponential(30, n)
        time, event = np.round(np.minimum(death, censoring), 2) + 0.01, death <= censoring
        keys, secret = [f"{site}-{row}" for row in range(n)], f"secret of {site}, long enough".encode()
        split = assign_split(keys, event, secret, study.name, study.split.test_fraction)
        fold = assign_folds(keys, event, split, secret, study.name, study.folds)
        columns = {"age": age, "grade": grade, "carrier": carrier}
        found.append(Cohort.of(site, columns, time, event, split=split, fold=fold, pseudonym=np.array(keys)))
    return found


def with_column(cohorts: Sequence[Cohort], name: str, values: Mapping[str, FloatArray]) -> list[Cohort]:
    """The same patients with one column replaced, site by site."""
    return [
        replace(cohort, columns={**cohort.columns, name: values[cohort.site]}, _cache={})
        if cohort.site in values
        else cohort
        for cohort in cohorts
    ]


def training_view(study: Study) -> View:
    """The raw columns on the training rows."""
    return View(study.features, split="train")


def told(queries: Sequence[Query], cohorts: Sequence[Cohort], folds: int = 1) -> Transcript:
    """What a server would hold that asks sites without a gate."""

    def ask():  # type: ignore[no-untyped-def]
        totals = yield Bundle(tuple(queries))
        return totals

    totals = run_pooled(ask(), list(cohorts))
    exchanges = [Exchange(0, query, total) for query, total in zip(queries, totals, strict=True)]
    return Transcript(tuple(exchanges), folds, 1)


@contextmanager
def no_rule_on_domination() -> Iterator[None]:
    """Sites answer sums over time bins whoever carries the weight: the control of attacks that the rule stops."""
    kept = pooled.answerable
    pooled.answerable = lambda _, coefficients: np.ones(coefficients.shape[0], dtype=bool)
    try:
        yield
    finally:
        pooled.answerable = kept


@dataclass
class Guarded:
    """Sites behind real guards, with their ledgers on the disk."""

    folder: Path
    study: Study
    cohorts: list[Cohort]
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        node.register_queries()
        names = [cohort.site for cohort in self.cohorts]
        self.keys = {name: X25519PrivateKey.from_private_bytes(sha256(name.encode()).digest()) for name in names}
        self.roster = Roster({name: key.public_key().public_bytes_raw() for name, key in self.keys.items()})
        self.by_site = {cohort.site: cohort for cohort in self.cohorts}
        self.guards = {name: self.guard(name) for name in names}
        self.responders = {name: Responder(self.by_site[name], self.guards[name]) for name in names}

    @property
    def sites(self) -> tuple[str, ...]:
        return self.roster.sites

    def guard(self, site: str, *, roster: Roster | None = None, study: str | None = None) -> Guard:
        """A guard as a new process of the site makes it."""
        chosen = roster or self.roster
        approval = Approval(study or self.study.sha256, chosen.digest, census_of(self.study))
        gate = StudyGate(self.policy, scope_of(self.study))
        return Guard(
            self.keys[site], chosen, approval, gate, Ledger(self.folder / site), b"the secret of " + site.encode()
        )

    def restart(self, site: str, cohort: Cohort | None = None) -> None:
        """The site's process ends and begins anew, perhaps with another table."""
        self.by_site[site] = cohort or self.by_site[site]
        self.guards[site] = self.guard(site)
        self.responders[site] = Responder(self.by_site[site], self.guards[site])

    def invitation(self, run: str) -> Question:
        return encode_invitation(Invitation(run, self.study.sha256, self.roster.digest))

    def open(self, run: str) -> Session:
        """All openings, put together by an honest server."""
        question = self.invitation(run)
        openings = [read_opening(self.responders[site].answer(question), question) for site in self.sites]
        return Session.of(run, self.study.sha256, self.roster.digest, openings)

    def join(self, session: Session) -> Assembly:
        """All censuses."""
        question = encode_session(session)
        answers = [self.responders[site].answer(question) for site in self.sites]
        return Assembly.of(session, [read_census(answer, question) for answer in answers])

    def begin(self, run: str = "run-1") -> Assembly:
        return self.join(self.open(run))

    def question(self, number: int, queries: Sequence[Query], assembly: Assembly | None) -> Question:
        run = "run-1" if assembly is None else assembly.session.run
        return encode_question(run, number, tuple(queries), frozenset(), assembly)

    def answer(self, site: str, number: int, queries: Sequence[Query], assembly: Assembly | None) -> Answer:
        return self.responders[site].answer(self.question(number, queries, assembly))

    def ask(self, number: int, queries: Sequence[Query], assembly: Assembly) -> dict[str, IntArray]:
        return {site: self.answer(site, number, queries, assembly).limbs for site in self.sites}

    def totals(self, number: int, queries: Sequence[Query], assembly: Assembly) -> tuple[Total, ...]:
        return opened(self.ask(number, queries, assembly).values(), queries)

    def transcript(self, asked: Sequence[Sequence[Query]], run: str = "run-1") -> Transcript:
        """Ask rounds of queries of guarded sites; raises the first site's refusal."""
        assembly = self.begin(run)
        exchanges = []
        for number, queries in enumerate(asked):
            totals = self.totals(number, queries, assembly)
            exchanges += [Exchange(number, query, total) for query, total in zip(queries, totals, strict=True)]
        return Transcript(tuple(exchanges), self.study.folds, len(asked), True, assembly.session)


def opened(answers: Any, queries: Sequence[Query]) -> tuple[Total, ...]:
    """The totals that some sites' limbs add up to."""
    return read_totals(reduce(add_limbs, list(answers)), tuple(queries))


def run_guarded(
    study: Study,
    cohorts: list[Cohort],
    folder: Path,
    algorithm: Algorithm[Any] | None = None,
    policy: Policy | None = None,
) -> Any:
    """A whole study (or another algorithm) asked of guarded sites; raises the first refusal."""
    sites = Guarded(folder, study, cohorts, policy or Policy())
    assembly, asking = sites.begin(), algorithm if algorithm is not None else study_algorithm(study)
    asked, number = next(asking), 0
    while True:
        queries = asked.queries if isinstance(asked, Bundle) else (asked,)
        totals = sites.totals(number, queries, assembly)
        try:
            asked = asking.send(totals if isinstance(asked, Bundle) else totals[0])
        except StopIteration as end:
            return end.value
        number += 1
