"""What is asked early: searches several steps at once, what follows a fit that is about to end, and the hazard ratio of
two groups in two rounds. Each gives what the questions one after the other give."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import yaml
from files_support import write_study

from ctfed.federation import Cohort, run_pooled
from ctfed.federation.algorithm import Algorithm, Bundle, queries_of, reply_to
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import digest
from ctfed.federation.pooled import Traffic
from ctfed.federation.query import Query
from ctfed.federation.summary import Total
from ctfed.federation.view import Feature, View
from ctfed.statistics.cox import CoxFit, fit_cox
from ctfed.statistics.cox.stratified import CoxDerivatives
from ctfed.statistics.describe import Counts
from ctfed.statistics.impute import CountsBelow, Imputed
from ctfed.statistics.scores import ScoresBelow, score_medians
from ctfed.study import Study, load_study
from server.clinical import impute_variables
from server.convergence import Fits
from server.hazard_ratio import hazard_ratio, near_maximum, trial_points
from server.searches import Told, ahead

R = TypeVar("R")
SITES = 3


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load_study(write_study(tmp_path_factory.mktemp("study") / "study.yaml"))


def cohorts(values: dict[str, FloatArray], seed: int = 0, effect: float = 0.0) -> list[Cohort]:
    """(n,) columns dealt to three sites; the first one has an effect on survival."""
    rng = np.random.default_rng(seed)
    first = next(iter(values.values()))
    n = first.size
    death, censoring = rng.exponential(10 * np.exp(-effect * first)), rng.exponential(20, n)
    time, event = np.minimum(death, censoring) + 0.01, death <= censoring
    parts = np.array_split(rng.permutation(n), SITES)
    return [
        Cohort.of(f"site-{k}", {name: x[rows] for name, x in values.items()}, time[rows], event[rows])
        for k, rows in enumerate(parts)
    ]


class Record:
    """A runner's wrapper that asks with ``ahead``, and keeps what was told of thresholds."""

    def __init__(self, study: Study) -> None:
        self.study, self.told = study, Told()
        self.totals: dict[str, Total] = {}

    def known(self, query: Query) -> Total | None:
        found = self.totals.get(digest(query))
        return self.told.total(query) if found is None else found

    def around(self, algorithm: Algorithm[R]) -> Algorithm[R]:
        """The same algorithm, in fewer rounds."""
        reply = None
        while True:
            try:
                queries = queries_of(asked := algorithm.send(reply))
            except StopIteration as stop:
                result: R = stop.value
                return result
            missing = [query for query in queries if self.known(query) is None]
            more = [one for query in missing for one in ahead(self.study, query, self.known, self.told)]
            if more:
                totals = yield Bundle(tuple(more))
                for query, total in zip(more, totals, strict=True):
                    self.totals[digest(query)] = total
                    self.told.learn(query, total)
            reply = reply_to(asked, [total for query in queries if (total := self.known(query)) is not None])


SPREADS = {
    "normal": lambda rng, n: rng.normal(65, 9, n),
    "whole years": lambda rng, n: np.round(rng.normal(65, 4, n)),
    "skewed": lambda rng, n: 20 + np.minimum(rng.exponential(8, n), 80),
    "two values": lambda rng, n: np.where(rng.random(n) < 0.7, 40.0, 60.0),
}


@pytest.mark.parametrize("spread", SPREADS)
def test_a_median_of_scores_is_the_same_to_the_last_bit_in_fewer_rounds(study: Study, spread: str) -> None:
    values = SPREADS[spread](np.random.default_rng(5), 240)
    view = View((Feature("score", 7),), split="train")
    sites = cohorts({"score": values})
    plain, early = Traffic(), Traffic()
    minimum = study.evaluation.min_cell
    expected = run_pooled(score_medians(view, minimum), sites, plain)
    record = Record(study)
    found = run_pooled(record.around(score_medians(view, minimum)), sites, early)
    np.testing.assert_array_equal(found, expected)
    assert early.rounds < plain.rounds
    query = ScoresBelow(view, frozen([[0.0]]))
    assert len(record.told.below(query, "score")) <= 0.33 * 240


@pytest.mark.parametrize("spread", SPREADS)
def test_medians_of_columns_are_the_same_to_the_last_bit_in_fewer_rounds(tmp_path: Path, spread: str) -> None:
    path = write_study(tmp_path / "study.yaml")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["variables"]["age"]["impute"] = "median"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    study = load_study(path)
    view = View((study.columns["age"].feature("age"), study.columns["sex"].feature("sex")), split="train")
    rng = np.random.default_rng(6)
    age, sex = SPREADS[spread](rng, 240), rng.integers(0, 2, 240).astype(float)
    age[:20] = np.nan
    sites = cohorts({"sex": sex, "age": age})
    plain, early = Traffic(), Traffic()
    expected: Imputed = run_pooled(impute_variables(study, view, ()), sites, plain)
    record = Record(study)
    found: Imputed = run_pooled(record.around(impute_variables(study, view, ())), sites, early)
    assert found.values == expected.values
    np.testing.assert_array_equal(found.medians.held, expected.medians.held)
    assert early.rounds <= plain.rounds - 3
    assert len(record.told.below(CountsBelow(view, ("age",), frozen([50.0])), "age")) <= 0.33 * 240


def test_the_sections_of_a_bracket_hold_a_cell_on_average_and_thresholds_end_at_a_share_of_the_limit(
    study: Study,
) -> None:
    view = View((Feature("score", 7),), split="train")
    for patients, most in ((400, 26), (100, 20), (40, 8), (20, 4)):
        sites = cohorts({"score": np.random.default_rng(1).normal(0, 1, patients)})
        record = Record(study)
        traffic = Traffic()
        run_pooled(first_two(record.around(score_medians(view, 5))), sites, traffic)
        told = len(record.told.below(ScoresBelow(view, frozen([[0.0]])), "score"))
        assert 2 <= told <= most
        assert told <= max(2, patients / 5 - 1)


def first_two(algorithm: Algorithm[object]) -> Algorithm[None]:
    """The algorithm's first two rounds, or those that it has."""
    reply = None
    with contextlib.suppress(StopIteration):
        for _ in range(2):
            asked = algorithm.send(reply)
            reply = yield asked
        algorithm.send(reply)


def test_thresholds_of_another_search_than_the_study_makes_are_asked_as_they_are(study: Study) -> None:
    view = View((Feature("score", 7),), split="train")
    told = Told()
    told.learn(Counts(view), Total({"patients": np.array(200.0), "events": np.array(90.0)}, SITES))
    query = ScoresBelow(view, frozen([[1.0, 2.5]]))
    assert ahead(study, query, lambda _: None, told) == (query,)
    told.learn(query, Total({"below": np.array([[40.0, 160.0]])}, SITES))
    answered = told.total(ScoresBelow(view, frozen([[2.5]])))
    assert answered is not None
    assert (answered["below"].tolist(), answered.sites) == ([[160.0]], SITES)
    assert told.total(ScoresBelow(view, frozen([[2.4]]))) is None


# -- the end of a fit


def test_the_last_evaluation_of_a_fit_is_foreseen_and_no_earlier_one() -> None:
    rng = np.random.default_rng(3)
    values = {"a": rng.normal(size=300), "b": rng.normal(size=300)}
    sites = cohorts(values, effect=0.8)
    view = View((Feature("a"), Feature("b")), split="all")
    fits, foreseen, errors = Fits(), [], []
    algorithm = fit_cox(view)
    reply: Total | None = None

    def watched() -> Algorithm[CoxFit]:
        nonlocal reply
        while True:
            try:
                asked = algorithm.send(reply)
            except StopIteration as stop:
                fit: CoxFit = stop.value
                return fit
            assert isinstance(asked, CoxDerivatives)
            expected = fits.last(asked)
            reply = yield asked
            foreseen.append(expected is not None)
            if expected is not None:
                errors.append(np.abs(expected["gradient"] - reply["gradient"]).max() / 300)
            fits.learn(asked, reply)

    fit = run_pooled(watched(), sites)
    assert fit.converged
    assert foreseen[-1]
    assert not any(foreseen[:-1])
    assert max(errors) <= 1e-9


# -- the hazard ratio of two groups


@pytest.mark.parametrize("effect", [0.0, 0.6, -1.5, 3.5])
def test_a_hazard_ratio_is_that_of_the_cox_model_and_takes_two_rounds(effect: float) -> None:
    rounds = []
    for seed in range(4):
        group = (np.random.default_rng([seed, 9]).random(150) < 0.5).astype(float)
        sites = cohorts({"high": group}, seed=seed, effect=effect)
        view = View((Feature("high"),), split="all")
        traffic = Traffic()
        expected = run_pooled(fit_cox(view), sites)
        found = run_pooled(hazard_ratio(view), sites, traffic)
        assert found.converged
        assert found.residual <= 1e-9
        assert found.rounds == traffic.rounds
        np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-8)
        np.testing.assert_allclose(found.standard_errors, expected.standard_errors, rtol=1e-7)
        rounds.append(traffic.rounds)
    assert max(rounds) <= (2 if abs(effect) < 2 else 8)


def test_groups_that_separate_or_are_one_are_told_as_ever() -> None:
    view = View((Feature("high"),), split="all")
    one = run_pooled(hazard_ratio(view), cohorts({"high": np.zeros(90)}))
    assert one.covariance is None
    assert any("does not vary" in line for line in one.warnings)
    time = np.arange(1.0, 31.0)
    high = (time <= 15).astype(float)
    event = high.astype(bool)
    apart = [Cohort.of(f"site-{k}", {"high": high}, time + k / 10, event) for k in range(SITES)]
    found = run_pooled(hazard_ratio(view), apart)
    assert found.covariance is None or any("separate" in line for line in found.warnings)


def test_the_zero_of_a_gradient_is_found_between_points_and_beside_them() -> None:
    points = trial_points()
    assert (np.diff(points) > 0).all()
    centre = 0.37
    gradient = -np.tanh((points - centre) / 2)
    slope = -0.5 / np.cosh((points - centre) / 2) ** 2
    assert near_maximum(points, gradient, slope) == pytest.approx(centre, abs=1e-10)
    assert near_maximum(points, gradient - 2, slope) == points[0]
    assert near_maximum(points, gradient + 2, slope) == points[-1]
    assert near_maximum(points[:0], gradient[:0], slope[:0]) == 0.0
