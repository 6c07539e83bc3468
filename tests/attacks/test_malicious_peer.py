"""A peer that does not keep to the protocol, and a server that hopes for more than totals: found, or noise."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attack_support import Guarded, site_cohorts, study_of, training_view

from ctfed.federation import CtfedError, Refusal
from ctfed.federation.codec import canonical_json
from ctfed.federation.errors import MalformedMessage
from ctfed.federation.session import Session
from ctfed.federation.wire import Answer, Question, encode_session
from ctfed.statistics.cox import fit_cox
from ctfed.statistics.describe import Counts
from ctfed.study import census_of
from server.assembly import Agreement
from server.conductor import Conductor
from server.journal import Journal

STUDY = study_of()
VIEW = training_view(STUDY)
Meddle = Callable[[str, int, Question, Answer], Answer]


@pytest.fixture
def sites(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path / "sites", STUDY, site_cohorts(STUDY))


class Meddler:
    """A transport on which one site's answers are changed on their way."""

    runner = "in-process"

    def __init__(self, sites: Guarded, meddle: Meddle) -> None:
        self.sites = sites.sites
        self._guarded, self._meddle = sites, meddle

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        answers = {site: self._guarded.responders[site].answer(question) for site, question in questions.items()}
        return {site: self._meddle(site, round_number, questions[site], answer) for site, answer in answers.items()}


def conducted(sites: Guarded, folder: Path, meddle: Meddle) -> object:
    agreement = Agreement(STUDY.sha256, sites.roster.digest, census_of(STUDY))
    conductor = Conductor(
        Meddler(sites, meddle), Journal(folder / "journal.jsonl", {}), agreement=agreement, tell=lambda _: None
    )
    return conductor.run(fit_cox(VIEW))


def in_another_name(site: str, number: int, question: Question, answer: Answer) -> Answer:
    header = json.loads(answer.header)
    if site == "west" and "opening" in header:
        header["opening"]["site"] = "south"
    return Answer(canonical_json(header), answer.limbs)


def census_of_another(site: str, number: int, question: Question, answer: Answer) -> Answer:
    header = json.loads(answer.header)
    if site == "west" and "census" in header:
        header["census"]["site"] = "south"
    return Answer(canonical_json(header), answer.limbs)


def shorter(site: str, number: int, question: Question, answer: Answer) -> Answer:
    return Answer(answer.header, answer.limbs[:-1]) if site == "west" and answer.limbs.size else answer


def floats(site: str, number: int, question: Question, answer: Answer) -> Answer:
    """Limbs that are no integers, NaN among them."""
    if site != "west" or not answer.limbs.size:
        return answer
    return Answer(answer.header, np.full(answer.limbs.shape, np.nan))  # type: ignore[arg-type]


def to_another_question(site: str, number: int, question: Question, answer: Answer) -> Answer:
    header = json.loads(answer.header)
    header["question"] = "0" * 64
    return Answer(canonical_json(header), answer.limbs) if site == "west" else answer


def random_numbers(site: str, number: int, question: Question, answer: Answer) -> Answer:
    """Huge numbers of the right shape: what is summed is noise, and says so by its count of sites."""
    if site != "west" or not answer.limbs.size:
        return answer
    rng = np.random.default_rng(0)
    return Answer(answer.header, rng.integers(-(2**63), 2**63 - 1, answer.limbs.size, dtype=np.int64))


@pytest.mark.parametrize(
    ("meddle", "words"),
    [
        (in_another_name, "answered in the name of 'south'"),
        (census_of_another, "answered in the name of 'south'"),
        (shorter, "layouts need"),
        (floats, "layouts need"),
        (to_another_question, "belongs to another question"),
        (random_numbers, "a site answered in another session, or its answer was damaged"),
    ],
)
def test_a_meddling_peer_stops_the_run_in_words(sites: Guarded, tmp_path: Path, meddle: Meddle, words: str) -> None:
    with pytest.raises(MalformedMessage, match=words):
        conducted(sites, tmp_path, meddle)


def test_without_meddling_the_same_run_ends(sites: Guarded, tmp_path: Path) -> None:
    assert conducted(sites, tmp_path, lambda site, number, question, answer: answer) is not None


def test_a_site_that_is_named_twice_makes_no_session(sites: Guarded) -> None:
    session = sites.open("run-1")
    with pytest.raises(ValueError, match="one opening per site"):
        replace(session, openings=(*session.openings, session.openings[-1]))


def test_a_session_without_one_site_is_not_joined(sites: Guarded) -> None:
    session = sites.open("run-1")
    fewer = Session(session.run, session.study, session.roster, session.openings[:-1])
    with pytest.raises(Refusal) as refused:
        sites.responders["north"].answer(encode_session(fewer))
    assert refused.value.rule == "roster-not-approved"


def test_a_question_without_a_session_is_not_answered_in_clear(sites: Guarded) -> None:
    sites.begin()
    with pytest.raises(Refusal) as refused:
        sites.answer("north", 0, [Counts(VIEW)], None)
    assert refused.value.rule == "unmasked"


def test_what_one_site_sends_is_uniform_whatever_it_holds(sites: Guarded) -> None:
    """The words of one site, and of all sites but one added up, look like noise: the mean bit is a half."""
    assembly = sites.begin()
    queries = [Counts(VIEW.test() if index % 2 else VIEW) for index in range(2)]
    answers = [sites.ask(number, queries, assembly) for number in range(40)]
    alone = np.concatenate([one["north"] for one in answers]).view(np.uint64)
    partial = np.concatenate([one["north"] + one["south"] for one in answers]).view(np.uint64)
    for words in (alone, partial):
        bits = np.unpackbits(words.view(np.uint8))
        assert abs(bits.mean() - 0.5) < 4 * 0.5 / np.sqrt(bits.size)
    assert np.unique(alone).size == alone.size  # the same counts, under another mask in every round


def test_a_key_that_is_not_the_roster_s_masks_nothing(sites: Guarded) -> None:
    """Nobody can take part under the name of a site whose key the others hold."""
    sites.keys["west"] = sites.keys["south"]
    sites.restart("west")
    with pytest.raises(CtfedError, match="another key"):
        sites.begin()
