"""The conductor: same result as run_pooled, one total per round in the journal, resumed after a kill at any round."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from ctfed.federation import Cohort, Feature, View, run_pooled
from ctfed.federation.errors import MalformedMessage
from ctfed.federation.responder import Responder
from ctfed.federation.wire import Answer, Question
from ctfed.statistics.cox import CoxFit, fit_cox
from server.conductor import FORGETFUL, Conductor
from server.journal import Journal

VIEW = View((Feature("a"), Feature("b")))


class Killed(Exception):
    """The process ends here."""


class DirectTransport:
    """Asks responders in this process; can forget a site's views and can be killed before a round."""

    runner = "in-process"

    def __init__(self, cohorts: list[Cohort], kill_at: int | None = None, forget_at: int | None = None) -> None:
        self.cohorts = {cohort.site: cohort for cohort in cohorts}
        self.sites = tuple(self.cohorts)
        self.responders = {site: Responder(cohort) for site, cohort in self.cohorts.items()}
        self.kill_at, self.forget_at = kill_at, forget_at
        self.asked = 0

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        if round_number == self.kill_at:
            raise Killed
        if round_number == self.forget_at:
            first = self.sites[0]
            self.responders[first] = Responder(self.cohorts[first])
            self.forget_at = None
        self.asked += len(questions)
        return {site: self.responders[site].answer(question) for site, question in questions.items()}


@pytest.fixture
def cohorts() -> list[Cohort]:
    rng = np.random.default_rng(3)
    made = []
    for site in ("north", "south", "west"):
        a, b = rng.normal(size=(2, 40))
        time = rng.exponential(np.exp(-0.8 * a)) + 0.01
        made.append(Cohort.of(site, {"a": a, "b": b}, time, rng.random(40) < 0.7))
    return made


def conduct(transport: DirectTransport, folder: Path) -> CoxFit:
    journal = Journal(folder / "journal.jsonl", {"sites": list(transport.sites)})
    return Conductor(transport, journal).run(fit_cox(VIEW))


def test_the_conducted_fit_has_the_bits_of_the_pooled_runner(cohorts: list[Cohort], tmp_path: Path) -> None:
    expected = run_pooled(fit_cox(VIEW), cohorts)
    fit = conduct(DirectTransport(cohorts), tmp_path)
    assert fit.coefficients.tobytes() == expected.coefficients.tobytes()


def test_killed_at_every_round_it_ends_with_the_same_bits(cohorts: list[Cohort], tmp_path: Path) -> None:
    whole = conduct(DirectTransport(cohorts), tmp_path / "whole")
    assert whole.rounds >= 4
    for kill_at in range(whole.rounds):
        with pytest.raises(Killed):
            conduct(DirectTransport(cohorts, kill_at=kill_at), tmp_path / str(kill_at))
        resumed = DirectTransport(cohorts)
        fit = conduct(resumed, tmp_path / str(kill_at))
        assert resumed.asked == len(cohorts) * (whole.rounds - kill_at)
        assert fit.coefficients.tobytes() == whole.coefficients.tobytes()
        assert fit.residual == whole.residual


def test_a_site_that_forgot_its_views_is_asked_with_their_bodies(cohorts: list[Cohort], tmp_path: Path) -> None:
    whole = conduct(DirectTransport(cohorts), tmp_path / "whole")
    forgetful = DirectTransport(cohorts, forget_at=2)
    fit = conduct(forgetful, tmp_path / "forgetful")
    assert forgetful.asked == len(cohorts) * whole.rounds + 1
    assert fit.coefficients.tobytes() == whole.coefficients.tobytes()


def test_a_site_that_always_forgets_is_soon_sent_the_bodies(cohorts: list[Cohort], tmp_path: Path) -> None:
    class Amnesiac(DirectTransport):
        def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
            self.forget_at = round_number if len(questions) == len(self.sites) else None
            return super().ask(round_number, questions)

    whole = conduct(DirectTransport(cohorts), tmp_path / "whole")
    amnesiac = Amnesiac(cohorts)
    fit = conduct(amnesiac, tmp_path / "amnesiac")
    assert amnesiac.asked == len(cohorts) * whole.rounds + min(FORGETFUL, whole.rounds - 1)
    assert fit.coefficients.tobytes() == whole.coefficients.tobytes()


def test_views_are_sent_once(cohorts: list[Cohort], tmp_path: Path) -> None:
    transport = DirectTransport(cohorts)
    journal = Journal(tmp_path / "journal.jsonl", {})
    Conductor(transport, journal).run(fit_cox(VIEW))
    assert journal.rounds[1].bytes_down < journal.rounds[0].bytes_down


def test_an_answer_of_the_wrong_size_stops_the_round(cohorts: list[Cohort], tmp_path: Path) -> None:
    class Short(DirectTransport):
        def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
            answers = super().ask(round_number, questions)
            return {site: Answer(answer.header, answer.limbs[:-1]) for site, answer in answers.items()}

    with pytest.raises(MalformedMessage, match="layouts need"):
        conduct(Short(cohorts), tmp_path)
