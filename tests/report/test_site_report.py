"""A site's report of the NCCTG study: every number beside lifelines and scikit-survival on that site's own rows."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from page_reader import no_other_script

from ctfed.cohort import load_cohorts
from ctfed.federation.algorithm import gather
from ctfed.federation.arrays import frozen
from ctfed.federation.cohort import Cohort, pool
from ctfed.federation.pooled import run_pooled
from ctfed.federation.view import View
from ctfed.model_file import PortableModel, model_text, read_model
from ctfed.report.components import Notice, Table
from ctfed.report.page import render_page
from ctfed.report.reader import Reader
from ctfed.report.site_content import SiteFacts, site_content
from ctfed.report.site_page import site_page
from ctfed.report.site_rows import SiteRows
from ctfed.report.site_sections import cohort_blocks
from ctfed.report.site_sections_model import discrimination_blocks
from ctfed.site import load_site
from ctfed.statistics.baseline import Baseline, pooled_baseline
from ctfed.statistics.cox import ElasticNet, fit_cox
from ctfed.statistics.impute import impute
from ctfed.statistics.scores import score_medians
from ctfed.statistics.standardise import standardise
from ctfed.statistics.timegrid import TimeGrid
from ctfed.study import Study, load_study

CONFIG = Path(__file__).resolve().parents[2] / "site_config"
MADE = "2026-01-15T09:30:00+00:00"


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(CONFIG / "studies" / "ncctg_lung.yaml")


@pytest.fixture(scope="module")
def cohorts(study: Study) -> tuple[Cohort, ...]:
    return load_cohorts(load_site(CONFIG / "sites" / "ncctg_lung.yaml"), study).cohorts


@pytest.fixture(scope="module")
def model(study: Study, cohorts: tuple[Cohort, ...]) -> PortableModel:
    """The study's preprocessing and one penalised fit, over all virtual sites."""
    chosen = study.variables
    names = [name for name in study.single.features if name != "calories"]
    view = View(tuple(chosen[name].feature(name) for name in names), split="train")
    imputed = run_pooled(
        impute(
            view,
            methods={name: chosen[name].impute for name in names},
            ranges={name: chosen[name].range for name in names},
            levels={name: chosen[name].possible_levels for name in names if chosen[name].impute == "mode"},
            indicators=[],
            minimum=5,
        ),
        cohorts,
    )
    ready = run_pooled(standardise(imputed.view), cohorts).view
    fit = run_pooled(fit_cox(ready, ElasticNet(0.02, 0.5)), cohorts)
    baseline: Baseline
    (baseline,) = run_pooled(
        gather(pooled_baseline(ready, fit.coefficients, TimeGrid.regular(1, 36), 5, (6.0, 12.0, 24.0))), cohorts
    )
    made = PortableModel(
        study, ready, frozen(fit.coefficients), frozen(baseline.time), frozen(baseline.cumulative_hazard)
    )
    threshold = float(run_pooled(score_medians(made.scores("train"), 5), cohorts)[0])
    return PortableModel(study, ready, made.coefficients, made.time, made.hazard, threshold)


@pytest.fixture(scope="module")
def everybody(cohorts: tuple[Cohort, ...]) -> Cohort:
    """All 228 patients as one site."""
    whole = pool(cohorts, "one")
    return Cohort.of(
        "one",
        whole.columns,
        whole.time,
        whole.event,
        split=whole.split,
        fold=whole.fold,
        pseudonym=[f"secret-{k:04d}" for k in range(whole.patients)],
    )


def facts(**changed: Any) -> SiteFacts:
    defaults: dict[str, Any] = {
        "results": {
            "study": {},
            "sites": {"count": 10},
            "discrimination": {"c_within": {"value": 0.65, "lower": 0.51, "upper": 0.77}, "split": "test"},
        },
        "digests": {"results.json": "ab", "model.json": "cd"},
        "excluded": (),
        "prepared": None,
        "ledger": None,
        "virtual": False,
        "minimum": 10,
        "made": MADE,
    }
    return SiteFacts(**{**defaults, **changed})


@pytest.fixture(scope="module")
def rows(model: PortableModel, everybody: Cohort) -> SiteRows:
    return SiteRows(everybody, model, "test")


@pytest.fixture(scope="module")
def content(rows: SiteRows) -> dict[str, Any]:
    return site_content(rows, facts())


@pytest.fixture(scope="module")
def patients(rows: SiteRows) -> pd.DataFrame:
    """Time, event, and a score worked out by hand from the model's numbers."""
    kept = rows.cohort.split == "test"
    names = [column.name for column in rows.model.view.columns]
    raw = np.stack([rows.cohort.columns[name][kept] for name in names], axis=1)
    fill, step = rows.model.view.transforms[0], rows.model.view.transforms[-1]
    values = np.where(np.isnan(raw), fill.values, raw)  # type: ignore[attr-defined]
    score = ((values - step.mean) / step.scale) @ rows.model.coefficients  # type: ignore[attr-defined]
    return pd.DataFrame({"time": rows.cohort.time[kept], "event": rows.cohort.event[kept], "score": score.round(10)})


def survival_array(frame: pd.DataFrame) -> Any:
    from sksurv.util import Surv

    return Surv.from_arrays(frame["event"].astype(bool), frame["time"])


def test_a_written_model_reads_back_to_the_same_bits(model: PortableModel, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(model_text(model), encoding="utf-8")
    back, _ = read_model(path)
    assert model_text(back) == path.read_text(encoding="utf-8")
    assert (back.coefficients == model.coefficients).all()


def test_harrells_c_is_that_of_scikit_survival_and_lifelines(content: dict[str, Any], patients: pd.DataFrame) -> None:
    from lifelines.utils import concordance_index
    from sksurv.metrics import concordance_index_censored

    found = content["discrimination"]["harrell"]["value"]
    expected = concordance_index_censored(patients["event"], patients["time"], patients["score"])[0]
    assert found == pytest.approx(expected, abs=1e-12)
    assert found == pytest.approx(concordance_index(patients["time"], -patients["score"], patients["event"]), abs=1e-2)
    assert content["discrimination"]["harrell"]["lower"] < found < content["discrimination"]["harrell"]["upper"]


def test_unos_c_and_auc_are_those_of_scikit_survival(content: dict[str, Any], patients: pd.DataFrame) -> None:
    from sksurv.metrics import concordance_index_ipcw, cumulative_dynamic_auc

    y = survival_array(patients)
    uno = content["discrimination"]["uno"]
    tau = np.nextafter(uno["horizon"], np.inf)
    assert uno["value"] == pytest.approx(concordance_index_ipcw(y, y, patients["score"], tau=tau)[0], abs=1e-9)
    for row in content["discrimination"]["auc"]:
        expected = cumulative_dynamic_auc(y, y, patients["score"], [row["horizon"]])[0][0]
        assert row["value"] == pytest.approx(expected, abs=1e-9)


def test_the_calibration_slope_is_lifelines_cox_coefficient(content: dict[str, Any], patients: pd.DataFrame) -> None:
    from lifelines import CoxPHFitter

    fit = CoxPHFitter().fit(patients, "time", "event")
    slope = content["calibration"]["slope"]
    low, high = fit.confidence_intervals_.iloc[0]
    assert slope["value"] == pytest.approx(fit.params_["score"], abs=1e-5)
    assert (slope["lower"], slope["upper"]) == pytest.approx((low, high), abs=1e-4)


def risk_by_hand(model: PortableModel, score: Any, horizon: float) -> Any:
    hazard = model.hazard[model.time <= horizon][-1]
    return 1 - np.exp(-hazard * np.exp(score))


def test_observed_expected_and_brier_at_each_horizon(
    content: dict[str, Any], patients: pd.DataFrame, model: PortableModel
) -> None:
    from lifelines import KaplanMeierFitter
    from sksurv.metrics import brier_score

    y = survival_array(patients)
    curve = KaplanMeierFitter().fit(patients["time"], patients["event"])
    for row in content["calibration"]["horizons"]:
        risk = risk_by_hand(model, patients["score"], row["horizon"])
        assert row["observed"] == pytest.approx(1 - float(curve.predict(row["horizon"])), abs=1e-12)
        assert row["expected"] == pytest.approx(risk.mean(), abs=1e-9)
        assert row["ratio"]["value"] == pytest.approx(row["observed"] / row["expected"], abs=1e-12)
        expected = brier_score(y, y, (1 - risk).to_numpy()[:, None], [row["horizon"]])[1][0]
        assert row["brier"] == pytest.approx(expected, abs=1e-9)


def test_the_slope_at_a_horizon_is_a_weighted_logistic_regression(
    content: dict[str, Any], patients: pd.DataFrame, model: PortableModel
) -> None:
    from scipy.optimize import minimize
    from scipy.special import logit
    from sksurv.nonparametric import CensoringDistributionEstimator

    row = content["calibration"]["horizons"][1]
    horizon = row["horizon"]
    y = survival_array(patients)
    censoring = CensoringDistributionEstimator().fit(y)
    case = patients["event"].to_numpy() & (patients["time"].to_numpy() <= horizon)
    control = patients["time"].to_numpy() > horizon
    at_own = 1 / censoring.predict_proba(np.minimum(patients["time"].to_numpy(), horizon))
    weight = np.where(case | control, at_own, 0.0)
    x = logit(risk_by_hand(model, patients["score"].to_numpy(), horizon))

    def loss(beta: Any) -> float:
        z = beta[0] + beta[1] * x
        return float((weight * (np.logaddexp(0, z) - case * z)).sum())

    best = minimize(loss, [0.0, 1.0], method="BFGS", options={"gtol": 1e-9})
    found = row["recalibration"]
    assert (found["line_intercept"], found["slope"]["value"]) == pytest.approx(tuple(best.x), abs=1e-5)
    gap = np.abs(1 / (1 + np.exp(-x)) - 1 / (1 + np.exp(-(best.x[0] + best.x[1] * x)))).mean()
    assert found["ici"] == pytest.approx(gap, abs=1e-6)


def test_groups_of_the_calibration_curve_are_kaplan_meier(
    content: dict[str, Any], patients: pd.DataFrame, model: PortableModel
) -> None:
    from lifelines import KaplanMeierFitter

    row = content["calibration"]["horizons"][0]
    ordered = patients.sort_values("score", kind="stable")
    assert len(row["groups"]) >= 4
    for group, part in zip(row["groups"], np.array_split(np.arange(len(ordered)), len(row["groups"])), strict=True):
        mine = ordered.iloc[part]
        curve = KaplanMeierFitter().fit(mine["time"], mine["event"])
        assert group["observed"] == pytest.approx(1 - float(curve.predict(row["horizon"])), abs=1e-12)
        assert group["predicted"] == pytest.approx(risk_by_hand(model, mine["score"], row["horizon"]).mean(), abs=1e-9)


def test_curves_log_rank_and_hazard_ratio_are_lifelines(
    content: dict[str, Any], patients: pd.DataFrame, model: PortableModel
) -> None:
    from lifelines import CoxPHFitter, KaplanMeierFitter
    from lifelines.statistics import logrank_test

    found = content["curves"]
    high = patients["score"] > model.threshold
    for group, member in zip(found["groups"], (~high, high), strict=True):
        mine = patients[member]
        curve = KaplanMeierFitter().fit(mine["time"], mine["event"])
        expected = curve.predict(group["time"]).to_numpy()
        assert np.allclose(group["survival"], expected, atol=1e-12)
        limits = curve.confidence_interval_survival_function_.loc[group["time"][1:]]
        low = [math.nan if v is None else v for v in group["lower"][1:]]
        known = ~np.isnan(low)
        assert np.allclose(np.array(low)[known], limits.iloc[:, 0].to_numpy()[known], atol=1e-9)
        assert group["events"] == int(mine["event"].sum())
        for row in group["at_risk"]:
            assert row["count"] == int((mine["time"] > row["time"]).sum())
    a, b = patients[~high], patients[high]
    test = logrank_test(a["time"], b["time"], a["event"], b["event"])
    assert found["logrank"]["chi2"] == pytest.approx(test.test_statistic, abs=1e-9)
    assert found["logrank"]["p"] == pytest.approx(test.p_value, abs=1e-9)
    frame = patients.assign(high=high.astype(float))[["time", "event", "high"]]
    fit = CoxPHFitter().fit(frame, "time", "event")
    assert found["hazard_ratio"]["value"] == pytest.approx(math.exp(fit.params_["high"]), rel=1e-5)
    assert found["hazard_ratio"]["p"] == pytest.approx(fit.summary.loc["high", "p"], abs=1e-5)


def test_median_follow_up_is_reverse_kaplan_meier(content: dict[str, Any], patients: pd.DataFrame) -> None:
    from lifelines import KaplanMeierFitter

    curve = KaplanMeierFitter().fit(patients["time"], ~patients["event"])
    assert content["flow"]["follow_up"]["value"] == pytest.approx(curve.median_survival_time_, rel=1e-12)


def test_the_own_baseline_is_breslows(content: dict[str, Any], rows: SiteRows) -> None:
    from sksurv.linear_model.coxph import BreslowEstimator

    train = SiteRows(rows.cohort, rows.model, "train")
    estimator = BreslowEstimator().fit(train.scores, train.table.event, train.table.time)
    found = content["baseline"]
    assert np.allclose(found["cumulative_hazard"], estimator.cum_baseline_hazard_(np.array(found["time"])), rtol=1e-9)


def test_net_benefit_by_hand(content: dict[str, Any], patients: pd.DataFrame, model: PortableModel) -> None:
    from sksurv.nonparametric import CensoringDistributionEstimator

    row = content["decision"][0]
    horizon = row["horizon"]
    censoring = CensoringDistributionEstimator().fit(survival_array(patients))
    time, event = patients["time"].to_numpy(), patients["event"].to_numpy()
    case = (event & (time <= horizon)) / censoring.predict_proba(np.minimum(time, horizon))
    control = (time > horizon) / censoring.predict_proba(np.array([horizon]))[0]
    risk = risk_by_hand(model, patients["score"].to_numpy(), horizon)
    for threshold, benefit, above in zip(row["thresholds"], row["benefit"], row["above"], strict=True):
        treated = risk > threshold
        expected = (case[treated].sum() - threshold / (1 - threshold) * control[treated].sum()) / len(patients)
        assert benefit == pytest.approx(expected, abs=1e-9)
        assert above == int(treated.sum())


def test_table_one_and_the_standardised_difference(content: dict[str, Any], everybody: Cohort) -> None:
    for row in content["table_one"]["variables"]:
        values = pd.Series(everybody.columns[row["variable"]])
        assert row["mean"] == pytest.approx(values.mean())
        assert row["sd"] == pytest.approx(values.std())
        assert row["median"] == pytest.approx(values.median())
        assert row["missing"] == int(values.isna().sum())
        # Here the site is the federation, so nothing differs.
        assert row["smd"] == pytest.approx(0.0, abs=1e-9)


def test_shap_values_are_those_of_shap(content: dict[str, Any], rows: SiteRows) -> None:
    shap = pytest.importorskip("shap")
    table = rows.model.rows("test").table(rows.cohort)
    centre = np.zeros((1, table.values.shape[1]))
    explainer = shap.LinearExplainer((rows.model.coefficients, 0.0), centre)
    expected = dict(zip(rows.model.view.names, np.asarray(explainer.shap_values(table.values)).T, strict=True))
    for feature in content["explanation"]["features"]:
        assert np.allclose(feature["values"], expected[feature["name"]], atol=1e-12)
    for one in content["explanation"]["single"]:
        assert sum(part["shap"] for part in one["parts"]) == pytest.approx(one["score"], abs=1e-9)


def test_a_subgroup_is_what_its_patients_alone_give(content: dict[str, Any], rows: SiteRows) -> None:
    from sksurv.metrics import concordance_index_censored

    group = next(one for one in content["subgroups"] if one["variable"] == "Female sex")
    sex = rows.cohort.columns["sex"][rows.kept]
    for part, level in zip(group["rows"], (0, 1), strict=True):
        chosen = sex == level
        event, time = rows.table.event[chosen], rows.table.time[chosen]
        assert (part["patients"], part["events"]) == (int(chosen.sum()), int(event.sum()))
        expected = concordance_index_censored(event, time, rows.scores[chosen])[0]
        assert part["c"]["value"] == pytest.approx(expected, abs=1e-12)


@pytest.fixture(scope="module")
def page(content: dict[str, Any]) -> str:
    return render_page(site_page(content))


def test_the_page_comes_from_the_json_alone(content: dict[str, Any], page: str) -> None:
    text = json.dumps(content, allow_nan=False)
    assert page == render_page(site_page(json.loads(text)))
    changed = json.loads(text)
    changed["discrimination"]["harrell"]["value"] = 0.98765
    before, after = (discrimination_blocks(Reader(one))[0] for one in (content, changed))
    assert isinstance(before, Table)
    assert isinstance(after, Table)
    assert (before.rows[0][1] == "0.988", after.rows[0][1]) == (False, "0.988")


def test_the_page_needs_nothing_else_and_says_what_is_in_every_figure(page: str) -> None:
    assert no_other_script(page)
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert page.count("<svg") == page.count("</desc>") == page.count("Data of this figure")
    assert page.count("<svg") >= 10


@pytest.mark.parametrize("split", ["test", "all"])
def test_six_patients_give_a_page_that_says_what_cannot_be_said(
    model: PortableModel, cohorts: tuple[Cohort, ...], split: str
) -> None:
    few = np.zeros(cohorts[0].patients, dtype=bool)
    few[:6] = True
    content = site_content(SiteRows(cohorts[0].subset(few), model, split), facts())
    assert content["verdict"]["label"] == "no judgement"
    page = render_page(site_page(content))
    assert "Not shown" in page
    assert not re.search(r"\b(nan|inf|None)\b", page)


def without_events(cohort: Cohort) -> Cohort:
    return Cohort.of(
        "quiet", cohort.columns, cohort.time, np.zeros(cohort.patients), split=cohort.split, pseudonym=cohort.pseudonym
    )


def test_a_site_without_an_event_gets_a_page(model: PortableModel, everybody: Cohort) -> None:
    content = site_content(SiteRows(without_events(everybody), model, "test"), facts())
    assert content["verdict"]["label"] == "no judgement"
    assert content["discrimination"]["harrell"]["value"] is None
    assert "0 with the event" in render_page(site_page(content))


def test_half_of_the_variables_missing_is_said_and_judged(model: PortableModel, everybody: Cohort) -> None:
    empty = ("ecog", "karnofsky", "karnofsky_patient")
    columns = {
        name: np.full(everybody.patients, np.nan) if name in empty else v for name, v in everybody.columns.items()
    }
    cohort = Cohort.of(
        "half", columns, everybody.time, everybody.event, split=everybody.split, pseudonym=everybody.pseudonym
    )
    content = site_content(SiteRows(cohort, model, "test"), facts())
    assert content["missing"]["absent"] == [
        "ECOG performance status",
        "Karnofsky score (physician)",
        "Karnofsky score (patient)",
    ]
    assert content["verdict"]["level"] != "good"
    notices = [block for block in cohort_blocks(Reader(content)) if isinstance(block, Notice)]
    assert [notice.heading for notice in notices] == ["Variables that this site does not have"]


def test_no_test_patient_gives_a_page(model: PortableModel, everybody: Cohort) -> None:
    content = site_content(SiteRows(everybody.subset(everybody.split == "train"), model, "test"), facts())
    assert content["flow"]["evaluated"]["patients"] == 0
    assert "no judgement" in render_page(site_page(content))
