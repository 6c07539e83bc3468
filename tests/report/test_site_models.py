"""Reports of a study of many models: harmonization, consensus and simpler ways to decide, beside other libraries."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ctfed.cli import FAILED, main
from ctfed.federation import run_pooled
from ctfed.federation.cohort import Cohort, pool
from ctfed.federation.errors import CtfedError
from ctfed.model_file import PortableModel
from ctfed.report import wording as say
from ctfed.report.components import Table
from ctfed.report.page import render_page
from ctfed.report.reader import Reader, to_plain
from ctfed.report.site_content import SiteFacts, site_content
from ctfed.report.site_decision import EARLY, LATE
from ctfed.report.site_egress import site_egress
from ctfed.report.site_egress_models import consensus_egress
from ctfed.report.site_harmonization import NO_COMBAT
from ctfed.report.site_models import ModelFolder
from ctfed.report.site_page import site_page
from ctfed.report.site_rows import SiteRows
from ctfed.report.site_sections_harmonization import harmonization_blocks
from server.many.algorithm import many_algorithm
from server.many.model_file import write_model_files
from server.many.results import many_results_of
from server.results import RunFacts

MADE = "2026-01-15T09:30:00+00:00"
SIZES = (420, 60, 60, 60)
K = 10
VOLUME = "tumour.original_shape_MeshVolume"


@pytest.fixture(scope="module")
def support() -> Iterator[Any]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "server" / "many"))
    import many_support

    yield many_support
    sys.path.pop(0)


def with_volume(cohort: Cohort, scanners: int) -> Cohort:
    """A volume that the risk follows, and scanners that lie as far apart as sites."""
    rng = np.random.default_rng(len(cohort.site))
    columns = dict(cohort.columns)
    columns[VOLUME] = np.exp(1 + 0.5 * columns["age"] / 30 + 0.3 * rng.normal(size=cohort.patients))
    batch = np.array([f"{cohort.site}-{k % scanners}" for k in range(cohort.patients)])
    for name in columns:
        if name.startswith("t") and name[1:].isdigit() and scanners > 1:
            columns[name] = columns[name] + 2.0 * (batch == f"{cohort.site}-1")
    return Cohort.of(
        cohort.site,
        columns,
        cohort.time,
        cohort.event,
        batch=batch,
        split=cohort.split,
        fold=cohort.fold,
        pseudonym=cohort.pseudonym,
    )


@pytest.fixture(scope="module")
def sites(support: Any) -> list[Cohort]:
    return [with_volume(cohort, 2 if k == 0 else 1) for k, cohort in enumerate(support.cohorts(SIZES))]


@pytest.fixture(scope="module")
def run(support: Any, sites: list[Cohort], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A study of many models with its model files and results."""
    chosen = support.content()
    groups = {name: chosen["groups"][name] for name in ("clinical", "texture")}
    study = support.study(
        groups=groups | {"volume": {"columns": (VOLUME,), "magnitude": 8}},
        models={
            "clinical": {"groups": ("clinical",)},
            "late": {
                "groups": ("clinical",),
                "without": ("stage",),
                "subgroup": {"variable": "stage", "low": 3, "high": 4},
            },
            "tnm": {"groups": ("clinical",), "without": ("age", "sex")},
            "volume": {"groups": ("volume",)},
            "texture": {"groups": ("texture",)},
            "texture-combat": {"groups": ("texture",), "combat": ("texture",)},
        },
        ensembles={"both": {"models": ("clinical", "texture-combat")}},
        consensus={"models": ("clinical", "texture-combat")},
        search={"trials": 2, "batch": 2, "startup": 2, "folds": 3, "penalizer": (0.003, 0.1)},
    )
    result = run_pooled(many_algorithm(study), sites)
    folder = tmp_path_factory.mktemp("run")
    write_model_files(result, folder)
    results, _ = to_plain(many_results_of(result, RunFacts("in-process", support.SITES, (), 1.0, MADE, ())))
    return folder / "models", results


CONTENTS: dict[tuple[object, ...], dict[str, Any]] = {}


def report_on(run: tuple[Path, dict[str, Any]], cohort: Cohort, name: str, split: str = "test") -> dict[str, Any]:
    """The local content; the same is made once, and nobody changes it."""
    folder, results = run
    key = (folder, results["consensus"] is None, cohort.site, cohort.fingerprint, name, split)
    if key not in CONTENTS:
        others = ModelFolder(folder, results["study"]["sha256"])
        facts = SiteFacts(results, {}, (), None, None, False, K, MADE, name, others)
        CONTENTS[key] = site_content(SiteRows(cohort, others[name], split), facts)
    return CONTENTS[key]


@pytest.fixture(scope="module")
def content(run: tuple[Path, dict[str, Any]], sites: list[Cohort]) -> dict[str, Any]:
    return report_on(run, sites[0], "texture-combat")


def model_of(run: tuple[Path, dict[str, Any]], name: str) -> PortableModel:
    return ModelFolder(run[0], run[1]["study"]["sha256"])[name]


# -- harmonization


@pytest.fixture(scope="module")
def harmonized(support: Any, sites: list[Cohort]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Standardised texture of all training patients, neuroCombat's of the same, and which batch each is of."""
    neuro = pytest.importorskip("neuroCombat")
    whole = pool(sites)
    train = whole.split == "train"
    frame = pd.DataFrame({name: whole.columns[name] for name in support.TEXTURE})[train]
    frame = frame.fillna(frame.mean())
    frame = (frame - frame.mean()) / frame.std(ddof=0)
    labels = pd.DataFrame({"batch": whole.batch[train]})
    with contextlib.redirect_stdout(io.StringIO()):
        found = neuro.neuroCombat(dat=frame.T, covars=labels, batch_col="batch")
    after = pd.DataFrame(found["data"].T, columns=frame.columns)
    return frame.reset_index(drop=True), after, labels


def test_before_and_after_are_neurocombats(content: dict[str, Any], harmonized: Any) -> None:
    frame, after, labels = harmonized
    here = labels["batch"].str.startswith("angers").to_numpy()
    # The pooled location is the mean over all rows, the scale that within batches, both before harmonization.
    sigma = np.sqrt(((frame - frame.groupby(labels["batch"]).transform("mean")) ** 2).mean())
    rows = {row["name"]: row for row in content["harmonization"]["features"]}
    assert set(rows) == set(frame.columns)
    for name, row in rows.items():
        for when, values in (("before", frame), ("after", after)):
            z = (values[name][here] - frame[name].mean()) / sigma[name]
            assert row["train"][when]["difference"] == pytest.approx(z.mean(), abs=1e-6)
            assert row["train"][when]["ratio"] == pytest.approx(z.var(), rel=1e-6)


def test_what_went_farther_is_named_and_counted(content: dict[str, Any]) -> None:
    found = content["harmonization"]
    apart = {
        row["name"]: [abs(row["evaluated"][when]["difference"]) for when in ("before", "after")]
        for row in found["features"]
    }
    assert found["summary"]["evaluated"]["farther"] == sum(after > before for before, after in apart.values())
    for row in found["features"]:
        before, after = apart[row["name"]]
        assert (row["farther"] is None) == (after <= before)
        assert row["farther"] is None or row["farther"] == pytest.approx(after - before)
    assert found["summary"]["evaluated"]["median_before"] == pytest.approx(np.median([b for b, _ in apart.values()]))
    assert found["summary"]["train"]["median_after"] < 0.1 < found["summary"]["train"]["median_before"]


def test_features_that_harmonization_made_worse_are_shown(run: Any, sites: list[Cohort]) -> None:
    """The test patients came after the scanner was set right: what was learned on the others leads them astray."""
    cohort, whole = sites[3], pool(sites)
    test, columns = cohort.split == "test", dict(cohort.columns)
    for name in ("t5", "t7"):
        gap = np.nanmean(whole.columns[name][whole.split == "train"]) - np.nanmean(columns[name][~test])
        columns[name] = columns[name] + gap * test
    drifted = replace(cohort, columns=columns, site="drifted", _cache={})
    worse = report_on(run, drifted, "texture-combat")
    assert {row["name"] for row in worse["harmonization"]["features"] if (row["farther"] or 0) > 0.5} == {"t5", "t7"}
    blocks = harmonization_blocks(Reader(worse))
    table = next(b for b in blocks if isinstance(b, Table) and b.caption.startswith("What harmonization made worse"))
    told = {row["feature"]: row for row in worse["harmonization"]["features"] if row["farther"] is not None}
    assert {row[0] for row in table.rows} == set(told)
    for name, before, after, *_ in table.rows:
        assert before == say.fixed(told[name]["evaluated"]["before"]["difference"], 2)
        assert after == say.fixed(told[name]["evaluated"]["after"]["difference"], 2)
    assert [told[row[0]]["farther"] for row in table.rows] == sorted(
        (r["farther"] for r in told.values()), reverse=True
    )


def test_single_features_have_lifelines_z(content: dict[str, Any], run: Any, sites: list[Cohort]) -> None:
    from lifelines import CoxPHFitter

    rows = SiteRows(sites[0], model_of(run, "texture-combat"), "test")
    view = rows.model.rows("test").beside[0]
    whole = view.table(sites[0])
    column = {feature.name: whole.values[:, k] for k, feature in enumerate(whole.features)}
    tested = [row for row in content["harmonization"]["features"] if row["cox"]["after"]["z"] is not None]
    assert len(tested) == content["harmonization"]["outcome"]["tested"] == 12
    for row in tested[:4]:
        frame = pd.DataFrame({"time": rows.table.time, "event": rows.table.event, "x": column[row["name"]]})
        assert row["cox"]["after"]["z"] == pytest.approx(
            CoxPHFitter().fit(frame, "time", "event").summary["z"]["x"], abs=1e-3
        )
    # Two scanners at this site: what ComBat takes away between them changes the order of patients.
    assert not content["harmonization"]["outcome"]["order_kept"]
    assert any(abs(row["cox"]["after"]["z"] - row["cox"]["before"]["z"]) > 0.3 for row in tested)


def test_one_scanner_keeps_the_order_by_a_single_feature(run: Any, sites: list[Cohort]) -> None:
    content = report_on(run, sites[1], "texture-combat", "all")
    outcome = content["harmonization"]["outcome"]
    assert outcome["order_kept"]
    assert (outcome["gained"], outcome["lost"]) == (0, 0)
    for row in content["harmonization"]["features"]:
        assert row["cox"]["after"]["z"] == pytest.approx(row["cox"]["before"]["z"], abs=1e-6)
    assert "cannot change" in render_page(site_page(content))


def test_the_model_with_and_without_harmonization(content: dict[str, Any], run: Any, sites: list[Cohort]) -> None:
    from sksurv.metrics import concordance_index_censored

    both = content["harmonization"]["model_c"]
    values = []
    for key, name in (("with", "texture-combat"), ("without", "texture")):
        rows = SiteRows(sites[0], model_of(run, name), "test")
        values.append(concordance_index_censored(rows.table.event, rows.table.time, rows.scores)[0])
        assert both[key]["model"] == name
        assert both[key]["value"] == pytest.approx(values[-1], abs=1e-12)
    assert both["difference"]["value"] == pytest.approx(values[0] - values[1], abs=1e-12)
    assert both["difference"]["lower"] < both["difference"]["value"] < both["difference"]["upper"]
    assert report_on(run, sites[0], "texture")["harmonization"]["model_c"] == both


def test_a_model_without_combat_says_so(run: Any, sites: list[Cohort]) -> None:
    content = report_on(run, sites[0], "clinical")
    assert content["harmonization"]["note"] == NO_COMBAT
    assert content["harmonization"]["features"] == []
    assert "has no ComBat step" in render_page(site_page(content))


# -- consensus


def by_hand(run: Any, cohort: Cohort, horizon: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, 2) calls of the members, who has the event by then, whose state is known."""
    test = cohort.split == "test"
    calls = []
    for name in ("clinical", "texture-combat"):
        cuts = [r["cut"] for r in run[1]["consensus"]["rows"] if r["model"] == name and r["horizon"] == horizon]
        calls.append(SiteRows(cohort, model_of(run, name), "test").scores > cuts[0])
    case = cohort.event[test] & (cohort.time[test] <= horizon)
    return np.stack(calls, axis=1), case, case | (cohort.time[test] > horizon)


@pytest.mark.parametrize("horizon", [12, 24])
def test_the_consensus_at_this_site(content: dict[str, Any], run: Any, sites: list[Cohort], horizon: float) -> None:
    from scipy.stats import binomtest

    calls, case, known = by_hand(run, sites[0], horizon)
    (row,) = [one for one in content["consensus"]["horizons"] if one["horizon"] == horizon]
    agreed = known & (calls[:, 0] == calls[:, 1])
    assert row["valid"] == known.sum()
    told = row["rows"][-1]
    assert told["model"] is None
    right = agreed & (calls[:, 0] == case)
    expected = {
        "coverage": (agreed.sum(), known.sum()),
        "accuracy": (right.sum(), agreed.sum()),
        "sensitivity": ((right & case).sum(), (agreed & case).sum()),
        "specificity": ((right & ~case).sum(), (agreed & ~case).sum()),
    }
    for name, (part, whole) in expected.items():
        assert told[name]["value"] == pytest.approx(part / whole)
        limits = binomtest(int(part), int(whole)).proportion_ci(method="wilson")
        assert (told[name]["lower"], told[name]["upper"]) == pytest.approx((limits.low, limits.high))
    single = row["rows"][0]
    assert single["sensitivity"]["value"] == pytest.approx((calls[:, 0] & case & known).sum() / (case & known).sum())
    assert single["coverage"]["value"] == 1


def test_all_sites_together_give_the_consensus_of_the_run(run: Any, sites: list[Cohort]) -> None:
    found: dict[tuple[float, str | None], np.ndarray] = {}
    names = ("true_events", "missed_events", "true_survivors", "false_alarms")
    for cohort in sites:
        for at in report_on(run, cohort, "clinical")["consensus"]["horizons"]:
            for row in at["rows"]:
                counts = np.array([row[name] for name in names])
                found[at["horizon"], row["model"]] = found.get((at["horizon"], row["model"]), 0) + counts
    for row in run[1]["consensus"]["rows"]:
        assert found[row["horizon"], row["model"]].tolist() == [row[name] for name in names]


def test_no_consensus_is_said(run: Any, sites: list[Cohort]) -> None:
    folder, results = run
    content = report_on((folder, results | {"consensus": None}), sites[0], "clinical")
    assert "hold no consensus" in content["consensus"]["note"]
    assert "hold no consensus" in render_page(site_page(content))


# -- decisions


def benefit_by_hand(rows: SiteRows, treated: Any, horizon: float, threshold: float) -> float:
    from sksurv.nonparametric import CensoringDistributionEstimator
    from sksurv.util import Surv

    time, event = rows.table.time, rows.table.event
    censoring = CensoringDistributionEstimator().fit(Surv.from_arrays(event, time))
    case = (event & (time <= horizon)) / censoring.predict_proba(np.minimum(time, horizon))
    control = (time > horizon) / censoring.predict_proba(np.array([horizon]))[0]
    return float((case[treated].sum() - threshold / (1 - threshold) * control[treated].sum()) / time.size)


def test_stage_and_volume_models_of_the_run_are_compared(
    content: dict[str, Any], run: Any, sites: list[Cohort]
) -> None:
    rows = SiteRows(sites[0], model_of(run, "texture-combat"), "test")
    at = content["decision"][0]
    names = {one["name"]: one for one in at["comparators"]}
    assert set(names) == {"stage alone", "volume alone"}
    assert content["not_compared"] == []
    for label, model in (("stage alone", "tnm"), ("volume alone", "volume")):
        assert model in names[label]["words"]
        other = SiteRows(sites[0], model_of(run, model), "test")
        risk = other.model.risk(other.scores, np.array([at["horizon"]]))[:, 0]
        for place in (2, 8, 14):
            threshold = at["thresholds"][place]
            expected = benefit_by_hand(rows, risk > threshold, at["horizon"], threshold)
            assert names[label]["benefit"][place] == pytest.approx(expected, abs=1e-9)


def test_fixed_rules_where_the_run_left_no_simpler_model(run: Any, sites: list[Cohort], tmp_path: Path) -> None:
    for name in ("texture-combat", "clinical"):
        (tmp_path / f"{name}.json").write_bytes((run[0] / f"{name}.json").read_bytes())
    content = report_on((tmp_path, run[1]), sites[0], "clinical")
    rows = SiteRows(sites[0], model_of(run, "clinical"), "test")
    stage, volume = sites[0].columns["stage"], sites[0].columns[VOLUME]
    cut = np.median(volume[sites[0].split == "train"])
    at = content["decision"][1]
    rules = {one["name"]: one for one in at["comparators"]}
    for label, treated in (("stage III and IV", stage >= 3), ("large volume", volume > cut)):
        mine = treated[rows.kept]
        assert rules[label]["fixed"]
        assert rules[label]["above"][0] == mine.sum()
        for place in (1, 9, 15):
            expected = benefit_by_hand(rows, mine, at["horizon"], at["thresholds"][place])
            assert rules[label]["benefit"][place] == pytest.approx(expected, abs=1e-9)
    assert rules["stage III and IV"]["unknown"] == np.isnan(stage[rows.kept]).sum()
    page = render_page(site_page(content))
    assert "treat whoever has stage III or IV" in page
    assert "the median of this site" in page


# -- the whole report


def test_a_subgroup_of_a_harmonized_model_keeps_the_scores_of_all(
    content: dict[str, Any], run: Any, sites: list[Cohort]
) -> None:
    """ComBat's step rests on all training patients of a site, whichever of them are looked at."""
    from sksurv.metrics import concordance_index_censored

    rows = SiteRows(sites[0], model_of(run, "both"), "test")
    sexes = next(one for one in report_on(run, sites[0], "both")["subgroups"] if one["variable"] == "sex")
    sex = sites[0].columns["sex"][rows.kept]
    for part, level in zip(sexes["rows"], (0, 1), strict=True):
        chosen = sex == level
        event, time = rows.table.event[chosen], rows.table.time[chosen]
        assert (part["patients"], part["events"]) == (int(chosen.sum()), int(event.sum()))
        expected = concordance_index_censored(event, time, rows.scores[chosen])[0]
        assert part["c"]["value"] == pytest.approx(expected, abs=1e-12)


def test_a_model_of_a_subgroup_is_compared_on_its_own_patients(run: Any, sites: list[Cohort]) -> None:
    content = report_on(run, sites[0], "late")
    stage = sites[0].columns["stage"][sites[0].split == "test"]
    horizon = content["consensus"]["horizons"][0]
    assert horizon["valid"] + horizon["unknown"] == (stage >= 3).sum() == content["flow"]["evaluated"]["patients"]
    volume = next(one for one in content["decision"][0]["comparators"] if one["name"] == "volume alone")
    assert max(volume["above"]) <= (stage >= 3).sum()


@pytest.mark.parametrize("name", ["both", "volume"])
def test_every_kind_of_model_gets_both_editions(run: Any, sites: list[Cohort], name: str) -> None:
    local = report_on(run, sites[0], name)
    egress = site_egress(local)
    for edition in (local, egress):
        text = json.dumps(edition, allow_nan=False)
        page = render_page(site_page(json.loads(text)))
        assert page.count("<svg") == page.count("</desc>") == page.count("Data of this figure")
        assert "angers-1" not in page or edition is local


def test_the_egress_edition_keeps_shift_and_stretch_at_the_site(content: dict[str, Any]) -> None:
    egress = site_egress(content)["harmonization"]
    assert egress["features"] == egress["batches"] == []
    assert egress["summary"] == content["harmonization"]["summary"]
    assert egress["model_c"] == content["harmonization"]["model_c"]
    text = json.dumps(egress)
    for row in content["harmonization"]["features"]:
        for part in (row["train"], row["evaluated"]):
            for when in ("before", "after"):
                assert repr(part[when]["difference"]) not in text
                assert repr(part[when]["ratio"]) not in text


def test_the_consensus_leaves_only_without_small_counts(content: dict[str, Any]) -> None:
    shown = site_egress(content)["consensus"]["horizons"]
    names = ("true_events", "missed_events", "true_survivors", "false_alarms", "unknown_events", "unknown_survivors")
    for at in content["consensus"]["horizons"]:
        *members, agreed = ([row[name] for name in names] for row in at["rows"])
        cells = [*agreed, *(n for one in members for n in one)]
        cells += [a - b for one in members for a, b in zip(one, agreed, strict=True)]
        small = any(0 < cell < K for cell in cells)
        assert (at in shown) <= (not small)
    assert all(row["true_events"] == 0 or row["true_events"] >= K for at in shown for row in at["rows"])


def test_the_consensus_of_a_large_site_leaves() -> None:
    names = ("true_events", "missed_events", "true_survivors", "false_alarms", "unknown_events", "unknown_survivors")
    members = [(60, 40, 55, 35, 20, 20), (62, 38, 52, 38, 21, 19)]
    agreed = (50, 28, 42, 24, 10, 0)
    rows = [dict(zip(names, counts, strict=True)) for counts in (*members, agreed)]
    content = {"note": "", "models": ["a", "b"], "split": "test", "horizons": [{"horizon": 12.0, "rows": rows}]}
    assert consensus_egress(content, [12.0], True, K)["horizons"] == content["horizons"]
    assert consensus_egress(content, [24.0], True, K)["horizons"] == []
    assert consensus_egress(content, [12.0], False, K)["horizons"] == []
    # Three of those whom a model calls rightly are not agreed on: with the consensus beside it they would be known.
    rows[0]["true_events"] = 53
    assert consensus_egress(content, [12.0], True, K)["horizons"] == []


def test_table_one_and_explanations_know_the_federation(run: Any, sites: list[Cohort]) -> None:
    content = report_on(run, sites[0], "clinical")
    whole = pool(sites)
    age = whole.columns["age"][whole.split == "train"]
    row = next(one for one in content["table_one"]["variables"] if one["variable"] == "age")
    assert row["federation_mean"] == pytest.approx(age.mean())
    assert row["smd"] is not None
    assert content["explanation"]["centre"] == "the federation's training patients"
    steps = report_on(run, sites[0], "texture-combat")["provenance"]["model"]["transforms"]
    assert [step for step in steps if step in ("impute", "combat", "select")] == ["impute", "combat", "select"]


def test_only_columns_of_the_model_are_called_its_own(run: Any, sites: list[Cohort]) -> None:
    """'tnm' is prepared with age and sex, of which the model has nothing."""
    assert SiteRows(sites[0], model_of(run, "tnm"), "test").columns == ("stage",)
    content = report_on(run, sites[0], "tnm")
    assert [row["variable"] for row in content["table_one"]["variables"]] == ["stage"]
    assert content["not_compared"] == ["The model is one of the stage alone, so no other is drawn."]
    both = SiteRows(sites[0], model_of(run, "both"), "test").columns
    assert {"age", "sex", "stage"} < set(both)
    assert "t9" in both


def test_the_command_writes_the_report_of_a_model_of_many(
    run: Any, sites: list[Cohort], support: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = []
    for cohort in sites:
        about = {"patient": cohort.pseudonym, "centre": cohort.site, "time": cohort.time, "event": cohort.event * 1}
        frames.append(pd.DataFrame({**about, "split": cohort.split, **cohort.columns}))
    pd.concat(frames).to_csv(tmp_path / "patients.csv", index=False)
    site = {
        "ctfed_site": 1,
        "partition": {"by": "centre", "prefix": "centre", "minimum": 10},
        "data": {"csv": "patients.csv"},
        "columns": {"id": "patient", "time": "time", "event": "event"},
        "time_unit": "months",
        "fixture_secret": "of a small study of many models",
    }
    (tmp_path / "site.yaml").write_text(json.dumps(site), encoding="utf-8")
    shutil.copytree(run[0], tmp_path / "models")
    (tmp_path / "results.json").write_text(json.dumps(run[1]), encoding="utf-8")
    chosen = ["report", "--site", str(tmp_path / "site.yaml"), "--results", str(tmp_path / "results.json"), "--no-pdf"]
    chosen += ["--virtual", "centre-angers", "--out", str(tmp_path / "out")]
    assert main([*chosen, "--model", str(tmp_path / "models" / "texture-combat.json")]) == 0
    told = json.loads((tmp_path / "out" / "local" / "report.json").read_text(encoding="utf-8"))
    assert told["site"]["model"] == "texture-combat"
    row = next(one for one in run[1]["models"] if one["name"] == "texture-combat")
    assert told["discrimination"]["pooled"]["within"]["value"] == row["c_within"]["value"]
    used = {"results.json", "texture-combat.json", "texture.json", "clinical.json", "tnm.json", "volume.json"}
    assert set(told["provenance"]["files"]) == used
    assert told["consensus"]["horizons"][0]["rows"]
    assert told["harmonization"]["model_c"]["without"]["model"] == "texture"
    assert (tmp_path / "out" / "egress" / "report.html").stat().st_size < 2_000_000
    assert "centre-angers" in capsys.readouterr().out
    assert main(chosen) == FAILED
    assert "expected one of the files in" in capsys.readouterr().err


def test_a_model_file_of_another_study_is_refused(run: Any) -> None:
    with pytest.raises(CtfedError, match="a model of another study"):
        ModelFolder(run[0], "00" * 32)["clinical"]
    with pytest.raises(KeyError):
        ModelFolder(run[0], run[1]["study"]["sha256"])["nothing"]
    assert list(ModelFolder()) == []


@pytest.mark.parametrize(
    ("label", "late"),
    [("III", True), ("Stage IIIB", True), ("IV", True), ("stage 4", True), ("IIB", False), ("I", False), ("1", False)],
)
def test_stages_are_read_by_their_labels(label: str, late: bool) -> None:
    assert bool(LATE.match(label)) is late
    assert bool(EARLY.match(label)) is not late


# -- sites that are not as they should be


def test_a_site_with_one_class_of_scanner_and_half_of_the_features_missing(run: Any, sites: list[Cohort]) -> None:
    cohort = sites[2]
    columns = dict(cohort.columns)
    for name in [f"t{k}" for k in range(6)]:
        columns[name] = np.full(cohort.patients, np.nan)
    empty = Cohort.of(
        "half", columns, cohort.time, cohort.event, split=cohort.split, fold=cohort.fold, pseudonym=cohort.pseudonym
    )
    content = report_on(run, empty, "texture-combat", "all")
    assert content["verdict"]["level"] != "good"
    features = {row["name"]: row for row in content["harmonization"]["features"]}
    # What is the federation's mean for everybody is left as it is.
    assert features["t2"]["moved"] == 0
    assert features["t2"]["cox"]["before"]["z"] is None
    assert features["t9"]["moved"] > 0
    (batch,) = content["harmonization"]["batches"]
    assert batch["adjusted"] == 6
    page = render_page(site_page(content))
    assert "are missing for every evaluated" in page


@pytest.mark.parametrize("patients", [6, 0])
def test_a_site_of_few_patients_is_not_harmonized_and_gets_a_page(run: Any, sites: list[Cohort], patients: int) -> None:
    few = np.zeros(sites[3].patients, dtype=bool)
    few[:patients] = True
    content = report_on(run, sites[3].subset(few), "texture-combat", "all")
    assert content["verdict"]["label"] == "no judgement"
    assert not any(batch["moved"] for batch in content["harmonization"]["batches"])
    page = render_page(site_page(content))
    assert ("Not harmonized here" in page) == (patients > 0)
    assert not any(word in page for word in (">nan<", ">None<", ">inf<"))
    small = site_egress(content)
    assert small["harmonization"]["summary"] == {}
    assert small["consensus"]["horizons"] == []
    render_page(site_page(small))


def test_a_site_without_an_event(run: Any, sites: list[Cohort]) -> None:
    cohort = sites[1]
    quiet = Cohort.of(
        "quiet",
        cohort.columns,
        cohort.time,
        np.zeros(cohort.patients),
        split=cohort.split,
        fold=cohort.fold,
        pseudonym=cohort.pseudonym,
    )
    content = report_on(run, quiet, "texture-combat", "all")
    assert "0 events are fewer than" in content["harmonization"]["outcome"]["note"]
    assert content["consensus"]["horizons"][0]["rows"][-1]["sensitivity"]["value"] is None
    assert "0 with the event" in render_page(site_page(content))
