"""Three masked sites in memory, and valid messages at every border: what the fuzzers start from."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from instances import World, concrete, make, make_any, make_view

from ctfed.config import parse_yaml, read_document
from ctfed.federation import Cohort, MalformedMessage, Query, View
from ctfed.federation.gate import StudyGate
from ctfed.federation.guard import Approval, Guard
from ctfed.federation.ledger import JOINED, OPENED, Entry, Ledger
from ctfed.federation.policy import Policy
from ctfed.federation.responder import Responder
from ctfed.federation.roster import Roster
from ctfed.federation.session import Assembly
from ctfed.federation.wire import Answer, Invitation, Question, encode_invitation, encode_question, encode_session
from ctfed.statistics.cox.stratified import CoxDerivatives
from ctfed.statistics.describe import Counts, Moments
from ctfed.statistics.standardise import Standardise
from ctfed.study import Study, census_of, scope_of
from server.assembly import Agreement, assemble

SITES = ("bern", "lyon", "oslo")
RUN = "fuzzed-run"
FOLDS = 3

STUDY = """\
ctfed_study: 1
name: fuzzed
title: A study that nobody runs
endpoint: {name: overall survival, time_unit: months}
variables:
  a: {type: continuous, range: [-10, 10], impute: median, missing_indicator: true}
  b: {type: ordinal, range: [0, 4], impute: mode, levels: {0: none, 1: some, 2: much, 3: more, 4: most}}
  c: {type: binary, range: [0, 1], impute: mode}
model:
  features: [a, b, c]
  penalty_factors: {c: 0}
tuning: {folds: 3, l1_ratios: [0.5, 1.0], penalizers: {count: 5, smallest_ratio: 0.1}}
split: {test_fraction: 0.3}
evaluation: {horizons: [12, 24], time_bin: 6, bootstrap: 20}
time_grid: {width: 6, end: 36}
sites: [bern, lyon, oslo]
"""

SITE = """\
ctfed_site: 1
site: bern
data: {csv: patients.csv, separator: ";", decimal: ","}
columns: {id: number, time: months, event: died}
features: {a: alter, b: {column: stage, codes: {I: 1, "II": 2}}}
event_codes: {ja: 1, nein: 0}
time_unit: months
missing: ["", NA]
secret: secret.key
server: {address: "hub.example.org:443", root_certificates: ca.crt, private_key: supernode.key}
trust: {key: mask.key, roster: roster.json, policy: policy.yaml, ledger: ledger}
"""

POLICY = """\
ctfed_policy: 1
min_sites: 3
min_patients: 10
min_events: 5
parameters_per_patient: 0.3
"""


@cache
def study() -> Study:
    """The study that the three sites have approved."""
    return read_document(Study, parse_yaml("study.yaml", STUDY.encode()), "ctfed_study")


@cache
def cohorts() -> Mapping[str, Cohort]:
    """30 to 40 patients at each site; the study's columns are complete, the others have gaps."""
    made = {}
    for index, site in enumerate(SITES):
        rng = np.random.default_rng(index)
        n = 30 + 5 * index
        test = rng.random(n) < 0.3
        columns = {
            "a": rng.normal(0, 3, n).clip(-10, 10),
            "b": rng.integers(0, 5, n).astype(np.float64),
            "c": rng.integers(0, 2, n).astype(np.float64),
            **{f"d{extra}": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)) for extra in range(6)},
        }
        fold = np.where(test, -1, rng.integers(0, FOLDS, n))
        split = np.where(test, "test", "train")
        batch = np.where(np.arange(n) % 2 == 0, "x", "y")
        made[site] = Cohort.of(
            site, columns, np.ceil(rng.exponential(20, n)), rng.random(n) < 0.7, split=split, fold=fold, batch=batch
        )
    return made


@cache
def keys() -> Mapping[str, X25519PrivateKey]:
    """A fixed key for every site."""
    return {site: X25519PrivateKey.from_private_bytes(sha256(site.encode()).digest()) for site in SITES}


@cache
def roster() -> Roster:
    """The three sites' public keys."""
    return Roster({site: key.public_key().public_bytes_raw() for site, key in keys().items()})


class Lenient(StudyGate):
    """The study's gate without its last judgement, so that more questions reach the sums behind it."""

    def check_round(self, queries, session, census, spent):  # type: ignore[no-untyped-def]
        return {"rounds": 1}


def new_guard(site: str, *, lenient: bool = False) -> Guard:
    """A guard with an empty ledger in memory."""
    approval = Approval(study().sha256, roster().digest, census_of(study()))
    gate = (Lenient if lenient else StudyGate)(Policy(), scope_of(study()))
    return Guard(keys()[site], roster(), approval, gate, Ledger(None), sha256(site.encode()).digest())


@dataclass
class Federation:
    """The sites of a run that has begun.

    Attributes:
        responders: site -> its responder.
        assembly: what they agreed on.
    """

    responders: Mapping[str, Responder]
    assembly: Assembly

    sites = SITES
    runner = "in-process"

    @classmethod
    def begun(cls) -> Federation:
        """Open a run with all sites."""
        responders = {site: Responder(cohorts()[site], new_guard(site)) for site in SITES}
        agreement = Agreement(study().sha256, roster().digest, census_of(study()))
        transport = cls(responders, None)  # type: ignore[arg-type]
        return cls(responders, assemble(transport, RUN, agreement, lambda line: None))

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        """The answers of the sites, as a transport brings them."""
        return {site: self.responders[site].answer(question) for site, question in questions.items()}


@cache
def federation() -> Federation:
    """A run that has begun, shared; ``fresh`` gives a site of it."""
    return Federation.begun()


def fresh(*, lenient: bool = False) -> Responder:
    """The first site as it is when the run has begun, whatever it was asked since."""
    guard, ledger = new_guard(SITES[0], lenient=lenient), Ledger(None)
    for entry in _entries():
        ledger._take(copy.deepcopy(entry))
    guard.ledger = ledger
    return Responder(cohorts()[SITES[0]], guard)


@cache
def _entries() -> tuple[Entry, ...]:
    """What stands in the first site's ledger when the run has begun."""
    written: list[Entry] = []
    guard = federation().responders[SITES[0]].guard
    assert guard is not None
    previous = None
    for run, state in guard.ledger.runs.items():
        ledgers = {one.site: [one.entries, one.head] for one in federation().assembly.session.openings}
        facts = [(OPENED, state.opened), (JOINED, {"session": state.session, "ledgers": ledgers})]
        for kind, fact in facts:
            previous = Entry.after(previous, kind, run, fact, "2025-01-01T00:00:00+00:00")
            written.append(previous)
    return tuple(written)


def usual_view() -> View:
    """The study's columns, standardised."""
    columns = tuple(feature for feature in study().features if feature.name != "a")
    view = View(columns)
    return view.then(Standardise(view.names, np.array([2.0, 0.5]), np.array([1.5, 0.5])))


def usual_queries() -> tuple[Query, ...]:
    """What a study asks in one round."""
    view = usual_view()
    return (
        Moments(View(study().features), np.array([0.5, 2.0, 0.5])),
        CoxDerivatives(view, np.array([[0.1, -0.2], [0.0, 0.0]]), (0,)),
        Counts(view.held_out_fold(1)),
        Counts(view.test()),
    )


def seed_questions(count: int, seed: int = 0) -> list[Question]:
    """Valid questions: the three kinds, the usual round, and rounds of random queries, masked and unmasked."""
    rng = random.Random(seed)
    assembly = federation().assembly
    made = [
        encode_invitation(Invitation(RUN, study().sha256, roster().digest)),
        encode_session(assembly.session),
        encode_question(RUN, 0, usual_queries(), frozenset(), assembly),
        encode_question(RUN, 0, usual_queries(), frozenset()),
    ]
    while len(made) < count:
        try:
            made.append(random_question(rng))
        except MalformedMessage:
            continue  # the answer would be too large
    return made


def random_question(rng: random.Random) -> Question:
    """A round of one to four random queries, some of them about the same view."""
    assembly = federation().assembly if rng.random() < 0.5 else None
    queries = [make_any(rng.choice(concrete(Query)), rng) for _ in range(rng.choice([1, 1, 2, 3]))]
    if rng.random() < 0.3:
        world = World.of(rng)
        view = make_view(world)
        try:
            queries += [make(rng.choice(concrete(Query)), world.on(view)) for _ in range(2)]
        except LookupError:
            queries.append(Counts(view))
    return encode_question(RUN, rng.randrange(3), queries, frozenset(), assembly)
