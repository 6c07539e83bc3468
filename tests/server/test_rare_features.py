"""A study leaves out what too few patients have or lack, says so, and is not refused for it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctfed.cohort import load_cohorts
from ctfed.federation import Cohort, CtfedError, Refusal, run_pooled
from ctfed.site import load_site
from ctfed.study import Study, load_study
from server.commands import DEMO, EXAMPLES
from server.study_algorithm import StudyResult, study_algorithm

CARRIERS = 6  # of 160 training patients: enough for the whole, too few for what remains outside a fold


def with_rare(study: Study, *, missing: bool) -> Study:
    content = study.model_dump(mode="python", exclude_none=True)
    rare = {"type": "binary", "range": (0, 1), "impute": "mode", "missing_indicator": missing}
    content["variables"]["carrier"] = rare
    content["model"]["features"] = (*study.model.features, "carrier")
    content["evaluation"] |= {"min_cell": 5}
    return Study.model_validate(content)


def with_carriers(cohorts: tuple[Cohort, ...], carriers: int, lacking: int) -> tuple[Cohort, ...]:
    """One column more: the first training patients of all sites have it, the last ones lack a value."""
    found, left = [], carriers
    for cohort in cohorts:
        train = np.flatnonzero(cohort.split == "train")
        values = np.zeros(cohort.patients)
        chosen = train[: min(2, left)]
        values[chosen] = 1.0
        left -= chosen.size
        found.append(replace(cohort, columns={**cohort.columns, "carrier": values}, _cache={}))
    for i in range(lacking):
        values = found[i].columns["carrier"]
        values[np.flatnonzero(found[i].split == "train")[-1]] = np.nan
    return tuple(found)


@pytest.fixture(scope="module")
def demo() -> tuple[Study, tuple[Cohort, ...]]:
    study = load_study(EXAMPLES / "studies" / DEMO)
    return study, load_cohorts(load_site(EXAMPLES / "sites" / DEMO), study).cohorts


def test_a_rare_feature_is_left_out_in_words(demo: tuple[Study, tuple[Cohort, ...]]) -> None:
    study, cohorts = demo
    result: StudyResult = run_pooled(
        study_algorithm(with_rare(study, missing=True)), with_carriers(cohorts, CARRIERS, lacking=3)
    )
    plain: StudyResult = run_pooled(study_algorithm(study), cohorts)
    assert result.fit.view.names == plain.fit.view.names
    (feature,) = [line for line in result.prepared.warnings if "'carrier'" in line]
    assert "is left out of the model" in feature
    assert "others, a cell holds at least 5" in feature
    (indicator,) = [line for line in result.prepared.warnings if "'carrier missing'" in line]
    assert "tells 3 of 160 patients" in indicator


def test_a_common_feature_stays_and_its_rare_indicator_goes(demo: tuple[Study, tuple[Cohort, ...]]) -> None:
    study, cohorts = demo
    rng = np.random.default_rng(0)
    common = tuple(
        replace(one, columns={**one.columns, "carrier": (rng.random(one.patients) < 0.4).astype(float)}, _cache={})
        for one in cohorts
    )
    common[0].columns["carrier"][np.flatnonzero(common[0].split == "train")[0]] = np.nan
    result: StudyResult = run_pooled(study_algorithm(with_rare(study, missing=True)), common)
    assert "carrier" in result.fit.view.names
    assert "carrier missing" not in result.fit.view.names


def test_no_feature_left_is_an_error_that_says_why(demo: tuple[Study, tuple[Cohort, ...]]) -> None:
    study, cohorts = demo
    content = with_rare(study, missing=False).model_dump(mode="python", exclude_none=True)
    content["model"]["features"] = ("carrier",)
    content["model"].pop("penalty_factors", None)
    alone = Study.model_validate(content)
    with pytest.raises(CtfedError, match="no feature is left for the model: 'carrier' is left out"):
        run_pooled(study_algorithm(alone), with_carriers(cohorts, CARRIERS, lacking=0))


@pytest.mark.parametrize("leave_out", [True, False])
def test_behind_gates_the_study_runs_and_a_server_that_insists_is_refused(
    demo: tuple[Study, tuple[Cohort, ...]], leave_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "attacks"))
    from attack_support import run_guarded

    study, cohorts = with_rare(demo[0], missing=True), list(with_carriers(demo[1], CARRIERS, lacking=3))
    if leave_out:
        assert "carrier" not in run_guarded(study, cohorts, tmp_path).fit.view.names
        return
    monkeypatch.setattr("server.study_algorithm.rare_features", _none)
    with pytest.raises(Refusal) as refused:
        run_guarded(study, cohorts, tmp_path)
    assert refused.value.rule == "rare-level"


def _none(study: Study, view: object):  # type: ignore[no-untyped-def]
    yield from ()
    return {}
