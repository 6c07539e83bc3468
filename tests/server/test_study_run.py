"""A whole study, from its files to its report: federated equals pooled, resumed equals uninterrupted, numbers equal
those of an independent pipeline on the same rows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from sksurv.metrics import concordance_index_censored

from ctfed.cohort import load_cohorts
from ctfed.federation import Cohort, pool, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.site import load_site
from ctfed.study import Study, load_study
from server.commands import DEMO, EXAMPLES
from server.simulate import simulate
from server.study_algorithm import StudyResult, feature_scales, study_algorithm

STUDY = EXAMPLES / "studies" / DEMO
SITE = EXAMPLES / "sites" / DEMO


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(STUDY)


@pytest.fixture(scope="module")
def cohorts(study: Study) -> tuple[Cohort, ...]:
    return load_cohorts(load_site(SITE), study).cohorts


@pytest.fixture(scope="module")
def result(study: Study, cohorts: tuple[Cohort, ...]) -> StudyResult:
    return run_pooled(study_algorithm(study), cohorts)


@pytest.fixture(scope="module")
def rows(study: Study, cohorts: tuple[Cohort, ...], result: StudyResult) -> pd.DataFrame:
    """The study's training rows, imputed with the study's values; standardised by pandas."""
    pooled = pool(cohorts)
    frame = pd.DataFrame({name: pooled.columns[name] for name in study.model.features})
    for name in study.indicators:
        frame[f"{name} missing"] = pooled.columns[name.removesuffix(" missing")] * 0
    for name, value in result.prepared.imputed.values.items():
        if study.variables[name].missing_indicator:
            frame[f"{name} missing"] = frame[name].isna().astype(float)
        frame[name] = frame[name].fillna(value)
    frame = frame[list(result.fit.view.names)]
    train = pooled.split == "train"
    frame = (frame - frame[train].mean()) / frame[train].std(ddof=0)
    frame["time"], frame["event"], frame["site"] = pooled.time, pooled.event, pooled.stratum
    frame["train"] = train
    return frame


def test_regrouped_over_sites_the_study_gives_the_same_numbers(
    study: Study, cohorts: tuple[Cohort, ...], result: StudyResult
) -> None:
    """One site that holds all rows with their strata and folds, and two sites that hold half of the strata each."""
    for grouping in ([cohorts], [cohorts[:5], cohorts[5:]]):
        oracle = run_pooled(study_algorithm(study), [pool(part, f"part-{i}") for i, part in enumerate(grouping)])
        assert oracle.tuned is not None
        assert result.tuned is not None
        assert oracle.tuned.best == result.tuned.best
        np.testing.assert_allclose(oracle.tuned.scores, result.tuned.scores, atol=1e-12)
        np.testing.assert_allclose(oracle.fit.coefficients, result.fit.coefficients, atol=1e-10)
        np.testing.assert_allclose(oracle.robust, result.robust, atol=1e-10)
        assert (oracle.fit.coefficients == 0).tolist() == (result.fit.coefficients == 0).tolist()
        np.testing.assert_allclose(oracle.baseline.cumulative_hazard, result.baseline.cumulative_hazard, atol=1e-10)
        assert oracle.evaluated.within == result.evaluated.within
        assert oracle.evaluated.auc == result.evaluated.auc


def test_the_reference_fit_equals_lifelines_with_strata(rows: pd.DataFrame, result: StudyResult) -> None:
    assert result.reference is not None
    train = rows[rows.train].drop(columns="train")
    fitter = CoxPHFitter().fit(
        train, "time", "event", strata=["site"], fit_options={"precision": 1e-12, "max_steps": 100}
    )
    np.testing.assert_allclose(result.reference.coefficients, fitter.params_, atol=1e-6)
    np.testing.assert_allclose(result.reference.standard_errors, fitter.standard_errors_, atol=1e-6)


def test_the_robust_errors_of_the_reference_are_those_of_the_plain_score_residuals(
    rows: pd.DataFrame, result: StudyResult
) -> None:
    """The sandwich, from every event's risk set in turn; lifelines' is near, it takes tied patients in turn."""
    assert result.reference is not None
    assert result.reference.covariance is not None
    assert result.robust is not None
    train = rows[rows.train].drop(columns="train")
    names = list(result.fit.view.names)
    products = np.zeros(result.robust.shape)
    for _, stratum in train.groupby("site"):
        x, time, event = stratum[names].to_numpy(), stratum.time.to_numpy(), stratum.event.to_numpy()
        risk, residuals = np.exp(x @ result.reference.coefficients), np.zeros(x.shape)
        for t in np.unique(time[event]):
            dead, at_risk = (time == t) & event, time >= t
            d = int(dead.sum())
            for rank in range(d):
                weight = risk * (at_risk - rank / d * dead)
                apart = x - weight @ x / weight.sum()
                residuals += (dead / d - weight / weight.sum())[:, None] * apart
        products += residuals.T @ residuals
    sandwich = result.reference.covariance @ products @ result.reference.covariance
    np.testing.assert_allclose(result.robust, sandwich, rtol=0, atol=1e-10)
    fitter = CoxPHFitter().fit(train, "time", "event", strata=["site"], robust=True)
    np.testing.assert_allclose(np.sqrt(np.diag(result.robust)), fitter.standard_errors_, rtol=0.01)


def test_the_robust_errors_cost_no_round(study: Study, cohorts: tuple[Cohort, ...]) -> None:
    traffic = Traffic()
    run_pooled(study_algorithm(study), cohorts, traffic)
    (together,) = [kinds for kinds in traffic.kinds if "cox-score-products" in kinds]
    assert set(together) > {"cox-score-products", "within-site-pairs"}


def test_the_model_satisfies_the_optimality_conditions_of_its_objective(
    rows: pd.DataFrame, result: StudyResult
) -> None:
    """The gradient of the stratified Efron likelihood, written plainly from its definition."""
    train = rows[rows.train]
    beta, names = result.fit.coefficients, list(result.fit.view.names)
    gradient = np.zeros(beta.size)
    for _, stratum in train.groupby("site"):
        x, time, event = stratum[names].to_numpy(), stratum.time.to_numpy(), stratum.event.to_numpy()
        risk = np.exp(x @ beta)
        for t in np.unique(time[event]):
            dead, at_risk = (time == t) & event, time >= t
            d = int(dead.sum())
            gradient += x[dead].sum(axis=0)
            for rank in range(d):
                weight = risk * (at_risk - rank / d * dead)
                gradient -= weight @ x / weight.sum()
    smooth = -gradient / len(train) + result.fit.penalty.penalizer * (1 - result.fit.penalty.l1_ratio) * beta
    l1 = result.fit.penalty.penalizer * result.fit.penalty.l1_ratio
    active = beta != 0
    np.testing.assert_allclose(smooth[active], -l1 * np.sign(beta[active]), atol=2e-9)
    assert (np.abs(smooth[~active]) <= l1 + 2e-9).all()


def test_the_within_site_c_equals_scikit_survival_site_by_site(rows: pd.DataFrame, result: StudyResult) -> None:
    test = rows[~rows.train]
    score = np.round(test[list(result.fit.view.names)].to_numpy() @ result.fit.coefficients, 10)
    concordant = comparable = 0.0
    for site in test.site.unique():
        here = (test.site == site).to_numpy()
        try:
            _, c, d, tied, _ = concordance_index_censored(
                test.event.to_numpy()[here], test.time.to_numpy()[here], score[here]
            )
        except ValueError:  # scikit-survival's word for a site without a comparable pair
            continue
        concordant += c + tied / 2
        comparable += c + d + tied
    assert result.evaluated.pairs == comparable
    assert result.evaluated.within.value == pytest.approx(concordant / comparable, abs=1e-12)


def test_the_baseline_equals_breslow_on_the_merged_grid(rows: pd.DataFrame, result: StudyResult) -> None:
    train = rows[rows.train]
    edges = result.baseline.time
    place = np.searchsorted(edges, train.time, side="left")
    risk = np.exp(train[list(result.fit.view.names)].to_numpy() @ result.fit.coefficients)
    hazard = [
        (train.event.to_numpy() & (place == k)).sum() / risk[place >= k].sum() if (place >= k).any() else 0.0
        for k in range(edges.size)
    ]
    np.testing.assert_allclose(result.baseline.cumulative_hazard, np.cumsum(hazard), rtol=1e-10)


def test_coefficients_per_original_unit_undo_the_standardisation(result: StudyResult) -> None:
    moments = result.prepared.standardised
    assert moments is not None
    np.testing.assert_allclose(feature_scales(result.fit.view), moments.moments.sd(ddof=0))


def test_test_rows_move_no_parameter(study: Study, cohorts: tuple[Cohort, ...], result: StudyResult) -> None:
    """With other values in every test row, what was fitted stays the same to the last bit."""
    changed = []
    for cohort in cohorts:
        test = cohort.split == "test"
        columns = {name: np.where(test, 0.0, values) for name, values in cohort.columns.items()}
        changed.append(replace(cohort, columns=columns, time=np.where(test, 1.0, cohort.time), _cache={}))
    again = run_pooled(study_algorithm(study), changed)
    assert again.fit.coefficients.tobytes() == result.fit.coefficients.tobytes()
    assert again.baseline.cumulative_hazard.tobytes() == result.baseline.cumulative_hazard.tobytes()


def test_the_simulation_writes_its_report_and_resumes_to_the_same_bits(
    tmp_path: Path, study: Study, result: StudyResult
) -> None:
    lines: list[str] = []
    simulate(STUDY, [SITE], tmp_path, tell=lines.append)
    first = _results(tmp_path)
    assert first["model"]["coefficients"][0]["coef_per_sd"] == result.fit.coefficients[0]
    assert first["sites"]["count"] == 10
    assert first["run"]["masked"] is True
    assert (tmp_path / "report.html").stat().st_size > 10_000
    card = (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert f"C within sites {first['discrimination']['c_within']['value']:.3f} (" in card
    assert first["study"]["sha256"] in card
    assert "| train | 160 | 116 |" in card
    assert any("round" in line for line in lines)
    assert any("masked: 10 sites have opened the run; 160 training patients" in line for line in lines)
    assert not any("unmasked" in line for line in lines)

    journal = next((tmp_path / "journal").glob("*.jsonl"))
    kept = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(kept[: len(kept) // 2]) + kept[len(kept) // 2][:40])
    simulate(STUDY, [SITE], tmp_path, tell=lines.append)
    again = _results(tmp_path)
    for section in ("model", "tuning", "baseline", "curves", "discrimination", "cohort"):
        assert again[section] == first[section]
    assert sum("from the journal" in line for line in lines) == len(kept) // 2 - 2  # header, assembly


def _results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


@pytest.mark.parametrize(
    ("model", "word"),
    [({"updates": "gradient"}, "stratified"), ({"ties": "breslow"}, "stratified"), ({"risk_sets": "pooled"}, "pooled")],
)
def test_other_choices_of_the_study_run(
    study: Study, cohorts: tuple[Cohort, ...], model: dict[str, str], word: str
) -> None:
    content = study.model_dump(mode="python", exclude_none=True)
    content["model"] |= model
    if word == "pooled":
        del content["tuning"]
        content["penalty"] = {"penalizer": 0.05, "l1_ratio": 0.5}
    changed = Study.model_validate(content)
    traffic = Traffic()
    found = run_pooled(study_algorithm(changed), cohorts, traffic)
    assert found.fit.converged
    assert found.fit.risk_sets == word
    assert found.evaluated.within.value is not None
    assert (found.robust is None) == (found.fit.risk_sets == "pooled" or found.reference.covariance is None)
    kinds = {kind for bundle in traffic.kinds for kind in bundle}
    assert ("pooled-gradient" in kinds) == (word == "pooled")
