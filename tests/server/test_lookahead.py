"""Asked early, a study asks its questions in fewer rounds, searches with more thresholds, and has the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctfed.cohort import load_cohorts
from ctfed.federation import Cohort, run_pooled
from ctfed.federation.algorithm import Algorithm, queries_of
from ctfed.federation.codec import digest
from ctfed.federation.query import Query
from ctfed.site import load_site
from ctfed.statistics.scores import ScoresBelow
from ctfed.study import Study, load_study
from server.commands import DEMO, EXAMPLES
from server.lookahead import Lookahead
from server.study_algorithm import StudyResult, study_algorithm
from server.synthetic import synthetic_cohorts


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The demo study with a given penalty and without medians."""
    content = yaml.safe_load((EXAMPLES / "studies" / DEMO).read_text(encoding="utf-8"))
    del content["tuning"]
    content["penalty"] = {"penalizer": 0.05, "l1_ratio": 0.5}
    content["model"]["features"] = ["sex", "ecog", "karnofsky", "karnofsky_patient"]
    content["evaluation"]["bootstrap"] = 20
    path: Path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_study(path)


@pytest.fixture(scope="module")
def cohorts(study: Study) -> tuple[Cohort, ...]:
    return load_cohorts(load_site(EXAMPLES / "sites" / DEMO), study).cohorts


Asked = list[list[Query]]


def recorded(algorithm: Algorithm[Any], rounds: Asked) -> Algorithm[Any]:
    """The same algorithm; every round's questions are written down."""
    reply = None
    while True:
        try:
            asked = algorithm.send(reply)
        except StopIteration as stop:
            return stop.value
        if queries_of(asked):
            rounds.append(list(queries_of(asked)))
        reply = yield asked


def digests(rounds: Asked, *, searches: bool = True) -> list[list[str]]:
    """Of every round's questions, those of searches for quantiles included or not."""
    return [[digest(one) for one in asked if searches or not isinstance(one, ScoresBelow)] for asked in rounds]


def thresholds(rounds: Asked) -> set[tuple[str, float]]:
    """Those that were told, each with the digest of its view."""
    found = [one for asked in rounds for one in asked if isinstance(one, ScoresBelow)]
    return {(digest(one.view), value) for one in found for value in one.thresholds.ravel().tolist()}


def test_the_questions_are_those_of_the_study_in_fewer_rounds_and_the_result_has_the_same_bits(
    study: Study, cohorts: tuple[Cohort, ...]
) -> None:
    make: Callable[[], Algorithm[StudyResult]] = lambda: study_algorithm(study)  # noqa: E731
    plain: Asked = []
    early: Asked = []
    expected = run_pooled(recorded(make(), plain), cohorts)
    found = run_pooled(recorded(Lookahead(study, 3, None).around(make), early), cohorts)
    assert len(early) <= len(plain) - 2
    asked = [key for keys in digests(early) for key in keys]
    assert len(asked) == len(set(asked))  # none twice
    others = {key for keys in digests(early, searches=False) for key in keys}
    assert others == {key for keys in digests(plain, searches=False) for key in keys}  # none that it would not ask
    assert thresholds(early) > thresholds(plain)
    assert found.fit.coefficients.tobytes() == expected.fit.coefficients.tobytes()
    assert found.evaluated.within == expected.evaluated.within
    assert found.evaluated.groups is not None
    assert expected.evaluated.groups is not None
    assert found.evaluated.groups.logrank.statistic.tobytes() == expected.evaluated.groups.logrank.statistic.tobytes()


def test_what_was_asked_is_kept_and_asked_again_without_another_look(
    study: Study, cohorts: tuple[Cohort, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: Asked = []
    again: Asked = []
    run_pooled(recorded(Lookahead(study, 3, tmp_path).around(lambda: study_algorithm(study)), first), cohorts)
    monkeypatch.setattr(Lookahead, "_guesses", lambda self: pytest.fail("it looked ahead again"))
    run_pooled(recorded(Lookahead(study, 3, tmp_path).around(lambda: study_algorithm(study)), again), cohorts)
    assert digests(again) == digests(first)


def test_invented_patients_have_the_studys_shape_and_other_commonest_levels_for_other_seeds(study: Study) -> None:
    commonest = []
    for seed in range(3):
        cohorts = synthetic_cohorts(study, 3, 200, seed)
        assert [cohort.patients for cohort in cohorts] == [200, 200, 200]
        assert set(cohorts[0].columns) == set(study.used)
        ecog = cohorts[0].columns["ecog"]
        counts = [(ecog == level).sum() for level in study.variables["ecog"].possible_levels]
        commonest.append(counts.index(max(counts)))
    assert len(set(commonest)) == 3
    rare = synthetic_cohorts(study, 3, 200, 0, frozenset({"sex"}))
    assert sum(cohort.columns["sex"].sum() for cohort in rare) == 2
