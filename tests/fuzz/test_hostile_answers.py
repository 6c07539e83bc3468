"""A site that answers something else: the server says so in one sentence that names it, and adds nothing up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import border
import numpy as np
import pytest

from ctfed import node
from ctfed.federation import CtfedError, MalformedMessage, Total
from ctfed.federation.algorithm import Algorithm, Bundle
from ctfed.federation.arrays import IntArray
from ctfed.federation.client_app import app as client_app
from ctfed.federation.codec import canonical_json, digest
from ctfed.federation.flower.exchange import Patience
from ctfed.federation.flower.grid import InProcessGrid
from ctfed.federation.flower.records import pack_hello, unpack_hello
from ctfed.federation.responder import Responder
from ctfed.federation.session import LedgerMark, Opening
from ctfed.federation.wire import (
    MAX_ANSWER_HEADER,
    Answer,
    Question,
    encode_census,
    encode_opening,
    read_census,
    read_opening,
)
from ctfed.study import census_of
from server.assembly import CENSUS_ROUND, OPENING_ROUND, Agreement
from server.conductor import Conductor
from server.journal import Journal
from server.transport import FlowerTransport, SiteLost, WrongNodes

LIAR = "lyon"
Lie = Callable[[Answer, Question], Answer]


def asking() -> Algorithm[tuple[Total, ...]]:
    totals: tuple[Total, ...] = yield Bundle(border.usual_queries())
    return totals


class Sites:
    """Three sites, of which one answers with ``lie`` in one round, every time it is asked."""

    sites = border.SITES
    runner = "in-process"

    def __init__(self, lie: Lie | None, lies_in: int = 0, *, masked: bool = True) -> None:
        self.lie, self.lies_in = lie, lies_in
        self.asked = 0
        guard = border.new_guard
        self.responders = {
            site: Responder(cohort, guard(site, lenient=True) if masked else None)
            for site, cohort in border.cohorts().items()
        }

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        answers = {site: self.responders[site].answer(question) for site, question in questions.items()}
        if self.lie is not None and round_number == self.lies_in and LIAR in answers:
            self.asked += 1
            answers[LIAR] = self.lie(answers[LIAR], questions[LIAR])
        return answers


def conduct(sites: Sites, folder: Path, *, masked: bool = True) -> tuple[Total, ...]:
    journal = Journal(folder / "journal.jsonl", {})
    agreement = Agreement(border.study().sha256, border.roster().digest, census_of(border.study())) if masked else None
    return Conductor(sites, journal, agreement=agreement, tell=lambda line: None).run(asking())


def written(folder: Path) -> int:
    """Rounds in the journal."""
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return sum("limbs" in line for line in lines)


def limbs(change: Callable[[IntArray], IntArray]) -> Lie:
    return lambda answer, question: Answer(answer.header, change(answer.limbs.copy()))


def header(**changes: object) -> Lie:
    def lie(answer: Answer, question: Question) -> Answer:
        return Answer(canonical_json(json.loads(answer.header) | changes), answer.limbs)

    return lie


def claims_missing(answer: Answer, question: Question) -> Answer:
    missing = sorted(question.views)
    return Answer(canonical_json({"question": question.digest, "missing": missing}), answer.limbs[:0])


def put(place: int, value: int) -> Lie:
    def change(numbers: IntArray) -> IntArray:
        numbers[place] = value
        return numbers

    return limbs(change)


# What the server must say after "site 'lyon': ".
WRONG: dict[str, tuple[Lie, str]] = {
    "one limb less": (limbs(lambda x: x[:-1]), "shape"),
    "one limb more": (limbs(lambda x: np.append(x, 0)), "shape"),
    "two axes": (limbs(lambda x: x[None, :]), "shape"),
    "none": (limbs(lambda x: x[:0]), "shape"),
    "floats": (limbs(lambda x: x.astype(np.float64)), "shape"),
    "short integers": (limbs(lambda x: x.astype(np.int32)), "shape"),
    "unsigned integers": (limbs(lambda x: x.view(np.uint64)), "shape"),
    "objects": (limbs(lambda x: x.astype(object)), "shape"),
    "another question's": (header(question="0" * 64), "belongs to another question"),
    "no question's": (header(question=None), "belongs to another question"),
    "missing views that were not asked": (header(missing=["0" * 64]), "digests of views that the question names"),
    "missing views that are no list": (header(missing={"a": 1}), "digests of views that the question names"),
    "another key": (header(patients=3), "must have the keys"),
    "an endless header": (
        lambda answer, question: Answer(answer.header + " " * MAX_ANSWER_HEADER, answer.limbs),
        "at most 2097152 characters",
    ),
    "brackets": (lambda answer, question: Answer("[" * 100_000, answer.limbs), "is not JSON"),
    "no JSON": (lambda answer, question: Answer("{", answer.limbs), "is not JSON"),
    "other letters": (lambda answer, question: Answer("é", answer.limbs), "ASCII"),
    "a pickle": (lambda answer, question: Answer("cos\nsystem\n(S'true'\ntR.", answer.limbs), "is not JSON"),
    "missing views named twice": (
        lambda answer, question: Answer(
            canonical_json({"question": question.digest, "missing": sorted(question.views) * 2}), answer.limbs[:0]
        ),
        "names a missing view twice",
    ),
}


def test_honest_sites_give_the_same_totals_masked_or_not(tmp_path: Path) -> None:
    masked = conduct(Sites(None), tmp_path / "masked")
    clear = conduct(Sites(None, masked=False), tmp_path / "clear", masked=False)
    for one, other in zip(masked, clear, strict=True):
        assert one.sites == other.sites == 3
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "clear"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_stops_the_study_in_a_sentence_that_names_the_site(
    name: str, masked: bool, tmp_path: Path
) -> None:
    lie, sentence = WRONG[name]
    with pytest.raises(MalformedMessage, match=f"^site 'lyon': .*{sentence}") as caught:
        conduct(Sites(lie, masked=masked), tmp_path, masked=masked)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert written(tmp_path) == 0


def test_a_site_that_misses_its_views_for_ever_is_asked_twice(tmp_path: Path) -> None:
    sites = Sites(claims_missing)
    with pytest.raises(MalformedMessage, match="site 'lyon' did not understand the views that were sent to it in full"):
        conduct(sites, tmp_path)
    assert sites.asked == 2
    assert written(tmp_path) == 0


def test_a_site_that_misses_its_views_once_takes_part(tmp_path: Path) -> None:
    told = []

    def once(answer: Answer, question: Question) -> Answer:
        told.append(question)
        return claims_missing(answer, question) if len(told) == 1 else answer

    totals = conduct(Sites(once), tmp_path / "lying")
    expected = conduct(Sites(None), tmp_path / "honest")
    assert len(told) == 2
    assert digest(border.usual_view()) in told[1].views
    assert [one["patients"] for one in totals if "patients" in one] == [
        one["patients"] for one in expected if "patients" in one
    ]


# Limbs of the right shape that no sum has: the count of contributors is limb 0, 2**16 for one site.
OVERFLOWING: dict[str, tuple[int, int]] = {
    "counts itself twice": (0, 2 << 16),
    "counts itself by a part": (0, (1 << 16) + 1),
    "does not count itself": (0, 0),
    "takes another site away": (0, -(1 << 16)),
    "is at the top": (5, 2**63 - 1),
    "is at the bottom": (5, -(2**63)),
    "is beyond what a site may hold": (5, 2**52 + 1),
    "has a fraction below zero": (-1, -1),
    "has a fraction above one": (-1, 2**60),
}


@pytest.mark.parametrize("name", OVERFLOWING)
def test_limbs_that_no_site_can_have_are_noticed(name: str, tmp_path: Path) -> None:
    with pytest.raises(MalformedMessage, match=r"^site 'lyon': "):
        conduct(Sites(put(*OVERFLOWING[name]), masked=False), tmp_path, masked=False)
    assert written(tmp_path) == 0


@pytest.mark.parametrize("name", OVERFLOWING)
def test_masked_limbs_that_were_replaced_spoil_the_sum_and_are_noticed(name: str, tmp_path: Path) -> None:
    """Behind the masks nobody can say which site it was; the study stops all the same.

    A masked limb that is replaced makes any number of the sum, one in a thousand within its range; a few of them none.
    """
    place, value = OVERFLOWING[name]

    def change(numbers: IntArray) -> IntArray:
        numbers[[place, *range(1, 8)]] = value
        return numbers

    with pytest.raises(MalformedMessage, match=r"the total of \S+ (is not a sum over|counts)"):
        conduct(Sites(limbs(change)), tmp_path)


def test_limbs_that_are_another_rounds_spoil_the_sum_and_are_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lie = limbs(lambda x: rng.integers(-(2**63), 2**63, x.size, dtype=np.int64))
    with pytest.raises(MalformedMessage, match=r"the total of moments is not a sum over .* sites"):
        conduct(Sites(lie), tmp_path)


# -- before the first round


def opening(**changes: object) -> Lie:
    def lie(answer: Answer, question: Question) -> Answer:
        said: Opening = read_opening(answer, question)
        for name, value in changes.items():
            object.__setattr__(said, name, value)
        object.__setattr__(said, "_digest", None)
        return encode_opening(question, said)

    return lie


def census(**changes: object) -> Lie:
    def lie(answer: Answer, question: Question) -> Answer:
        return encode_census(question, dataclasses.replace(read_census(answer, question), **changes))  # type: ignore[arg-type]

    return lie


BEFORE: dict[str, tuple[int, Lie, str]] = {
    "another's name": (OPENING_ROUND, opening(site="oslo"), "answered in the name of 'oslo'"),
    "no site's name": (OPENING_ROUND, opening(site="../x"), "an opening names its site"),
    "a short nonce": (OPENING_ROUND, opening(nonce="00"), "64 hexadecimal digits"),
    "another split": (OPENING_ROUND, opening(splits=("all",)), "splits are 'train' and 'test'"),
    "a ledger shorter than nothing": (OPENING_ROUND, opening(entries=-1), "a number >= 0"),
    "a number in place of a name": (OPENING_ROUND, opening(site=3), "expected str, found int"),
    "a round's answer": (OPENING_ROUND, claims_missing, "must have the keys"),
    "numbers": (OPENING_ROUND, lambda a, q: Answer(a.header, np.zeros(2, dtype=np.int64)), "holds no numbers"),
    "a census of another's": (CENSUS_ROUND, census(site="oslo"), "answered in the name of 'oslo'"),
    "no seals": (CENSUS_ROUND, census(seals=()), "its census has 0 seals"),
    "a seal too many": (CENSUS_ROUND, census(seals=("0" * 64,) * 3), "its census has 3 seals"),
    "another number of folds": (CENSUS_ROUND, census(limbs="0" * 16), "its census has 1 limbs, expected 152"),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_wrong_beginning_stops_the_study_in_a_sentence_that_names_the_site(name: str, tmp_path: Path) -> None:
    lies_in, lie, sentence = BEFORE[name]
    with pytest.raises(MalformedMessage, match=f"^site 'lyon': .*{sentence}") as caught:
        conduct(Sites(lie, lies_in), tmp_path)
    assert "\n" not in str(caught.value)
    assert written(tmp_path) == 0


def test_a_census_that_does_not_add_up_stops_the_study(tmp_path: Path) -> None:
    """It is masked, so nobody can say whose it is."""
    with pytest.raises(CtfedError, match="do not add up to counts"):
        conduct(Sites(census(limbs="f0" * 8 * 152), CENSUS_ROUND), tmp_path)


def test_a_mark_of_a_ledger_that_never_was_is_left_to_the_sites(tmp_path: Path) -> None:
    """The server cannot know; the site of which the mark speaks refuses."""
    lie = opening(seen=(LedgerMark("bern", 7, "0" * 64),))
    with pytest.raises(CtfedError, match=r"own-ledger: another site has seen another ledger of this one"):
        conduct(Sites(lie, OPENING_ROUND), tmp_path)


# -- over Flower


QUICK = Patience(
    deadline=0.4, refused=0.2, join=0.3, silence=0.1, ask_again=0.01, ask_again_max=0.05, progress=5.0, poll=0.001
)


class Liar:
    """A site whose answers are changed on their way out."""

    def __init__(self, lie: Lie) -> None:
        self.lie = lie
        self.asked = 0

    def answer(self, question: Question) -> Answer:
        self.asked += 1
        return self.lie(Responder(border.cohorts()[LIAR]).answer(question), question)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("another question's", "it answers another question"),
        ("an endless header", "its header is longer than 2097152 characters"),
        ("brackets", "its header is not JSON"),
        ("a pickle", "its header is not JSON"),
    ],
)
def test_over_flower_a_wrong_answer_is_asked_for_again_until_patience_ends(name: str, sentence: str) -> None:
    liar = Liar(WRONG[name][0])
    honest = {site: Responder(cohort) for site, cohort in border.cohorts().items()}
    node.set_responder_factory(
        lambda config: node.Seat(
            str(config["site"]), lambda: liar if config["site"] == LIAR else honest[config["site"]]
        )
    )
    try:
        grid = InProcessGrid(client_app, {site: {"site": site} for site in border.SITES})
        transport = FlowerTransport.connect(
            grid, border.SITES, runner="in-process", patience=QUICK, tell=lambda line: None
        )
        with pytest.raises(SiteLost, match=f"lyon: dropped its reply: {sentence}") as caught:
            transport.ask(0, dict.fromkeys(border.SITES, border.seed_questions(4)[3]))
    finally:
        node.set_responder_factory(None)
    assert caught.value.sites == (LIAR,)
    assert liar.asked > 1


@pytest.mark.parametrize("site", ["x" * 65, "", "a\nb", "\x1b[2J", "../x"])
def test_a_greeting_with_a_name_that_is_none_is_dropped(site: str) -> None:
    with pytest.raises(MalformedMessage, match="a greeting must name the site"):
        unpack_hello(pack_hello(site, "0.1.0"))
    with pytest.raises(MalformedMessage, match="version"):
        unpack_hello(pack_hello("bern", site))


def test_a_node_with_another_sites_name_is_named() -> None:
    node.set_responder_factory(lambda config: node.Seat("bern", lambda: Responder(border.cohorts()["bern"])))
    try:
        grid = InProcessGrid(client_app, {site: {"site": site} for site in border.SITES})
        with pytest.raises(WrongNodes, match="call themselves 'bern'"):
            FlowerTransport.connect(grid, border.SITES, runner="in-process", patience=QUICK, tell=lambda line: None)
    finally:
        node.set_responder_factory(None)
