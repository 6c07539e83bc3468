"""Somebody on the way, a server or a peer that does not keep to the protocol: refused by name, or noise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attack_support import Guarded, opened, site_cohorts, study_of, training_view
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ctfed.federation import CtfedError, Refusal
from ctfed.federation.fixedpoint import to_limbs
from ctfed.federation.ledger import FILE, Ledger
from ctfed.federation.masking import Masks
from ctfed.federation.roster import Roster
from ctfed.federation.session import Assembly, Session
from ctfed.federation.wire import encode_session
from ctfed.statistics.describe import Counts, Moments

STUDY = study_of()
VIEW = training_view(STUDY)
QUERY = Counts(VIEW)


@pytest.fixture
def sites(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path, STUDY, site_cohorts(STUDY))


def rule_of(call: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as refused:
        call()
    return refused.value.rule


def test_a_swapped_key_is_another_roster(sites: Guarded) -> None:
    mine = X25519PrivateKey.from_private_bytes(b"m" * 32).public_key().public_bytes_raw()
    swapped = Roster({**sites.roster.keys, "south": mine})
    with pytest.raises(CtfedError, match="another key for 'south' than this site's own"):
        Masks("south", sites.keys["south"], swapped, "ab" * 32)
    session = replace(sites.open("run-1"), roster=swapped.digest)
    assert rule_of(lambda: sites.join(session)) == "roster-not-approved"


def altered(session: Session, site: str, **changes: object) -> Session:
    return replace(session, openings=tuple(replace(o, **changes) if o.site == site else o for o in session.openings))  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"nonce": "7" * 64}, {"cohort": "7" * 64}, {"splits": ()}, {"entries": 99}])
def test_an_altered_opening_is_found_by_its_site(sites: Guarded, changes: dict[str, object]) -> None:
    session = altered(sites.open("run-1"), "south", **changes)
    question = encode_session(session)
    assert rule_of(lambda: sites.responders["south"].answer(question)) == "session-changed"


@pytest.mark.parametrize("victim", ["north", "south", "west"])
def test_an_altered_census_is_refused_by_every_site(sites: Guarded, victim: str) -> None:
    honest = sites.begin()
    counts = tuple(
        replace(c, limbs=("0" if c.limbs[0] != "0" else "1") + c.limbs[1:]) if c.site == victim else c
        for c in honest.counts
    )
    for site in sites.sites:
        forged = replace(honest, counts=counts)
        assert rule_of(lambda site=site, forged=forged: sites.answer(site, 0, [QUERY], forged)) == "census-seal"  # type: ignore[misc]


def test_two_sites_that_are_asked_different_questions_add_up_to_noise(sites: Guarded) -> None:
    assembly = sites.begin()
    others = [Moments(VIEW, np.full(3, k)) for k in (0.0, 1.0)]
    answers = [sites.answer(s, 0, [others[s == "west"]], assembly).limbs for s in sites.sites]
    with pytest.raises(CtfedError):
        opened(answers, [others[0]])


def test_sites_in_different_sessions_do_not_add_up(sites: Guarded) -> None:
    first, second = sites.open("run-1"), sites.open("run-2")
    answers = [(second if s == "west" else first) for s in sites.sites]
    counts = [sites.guards[s].census(one, sites.by_site[s]) for s, one in zip(sites.sites, answers, strict=True)]
    forged = Assembly.of(first, counts)
    assert rule_of(lambda: sites.answer("north", 0, [QUERY], forged)) == "census-seal"


def test_a_sum_without_one_site_is_noise(sites: Guarded) -> None:
    assembly = sites.begin()
    limbs = sites.ask(0, [QUERY], assembly)
    assert opened(limbs.values(), [QUERY])[0]["patients"] > 60
    with pytest.raises(CtfedError):
        opened([limbs["north"], limbs["south"]], [QUERY])


def test_an_old_answer_in_another_round_is_noise(sites: Guarded) -> None:
    assembly = sites.begin()
    old, new = sites.ask(0, [QUERY], assembly), sites.ask(1, [QUERY], assembly)
    with pytest.raises(CtfedError):
        opened([old["north"], new["south"], new["west"]], [QUERY])


def test_after_a_rolled_back_ledger_a_masked_difference_is_no_difference_of_sums(
    sites: Guarded, tmp_path: Path
) -> None:
    """An old copy of the ledger lets a site answer round 0 again, to another question: under another mask."""
    assembly = sites.begin()
    shutil.copytree(tmp_path / "north", tmp_path / "copy")
    one, two = Moments(VIEW, np.zeros(3)), Moments(VIEW, np.ones(3))
    first = sites.answer("north", 0, [one], assembly).limbs
    assert rule_of(lambda: sites.answer("north", 0, [two], assembly)) == "round-answered"
    shutil.rmtree(tmp_path / "north")
    shutil.copytree(tmp_path / "copy", tmp_path / "north")
    sites.restart("north")
    second = sites.answer("north", 0, [two], assembly).limbs
    masked = first.view(np.uint64) - second.view(np.uint64)
    assert (np.minimum(masked, -masked) > 2**40).mean() > 0.9  # uniform words; differences of sums are small ones
    shutil.rmtree(tmp_path / "north")
    shutil.copytree(tmp_path / "copy", tmp_path / "north")
    sites.restart("north")
    assert (sites.answer("north", 0, [one], assembly).limbs == first).all()  # the same question, the same bits


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_values_that_no_sum_may_have_are_refused_at_the_range(value: float) -> None:
    with pytest.raises((CtfedError, ValueError)):
        to_limbs(np.array([value]), np.zeros(1, dtype=np.int64))


def test_a_peer_that_answers_with_another_shape_is_found(sites: Guarded) -> None:
    assembly = sites.begin()
    limbs = sites.ask(0, [QUERY], assembly)
    with pytest.raises((CtfedError, ValueError)):
        opened([limbs["north"][:-2], limbs["south"], limbs["west"]], [QUERY])


def test_a_tampered_ledger_is_found(sites: Guarded, tmp_path: Path) -> None:
    sites.transcript([[QUERY]])
    path = tmp_path / "north" / FILE
    text = path.read_text()
    path.write_text(text.replace('"patients"', '"patientz"', 1))
    assert path.read_text() != text
    with pytest.raises(CtfedError):
        Ledger(tmp_path / "north")
