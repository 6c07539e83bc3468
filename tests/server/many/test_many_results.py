"""Results, tables and model files of a study of many models: the same numbers everywhere; and a run from its files."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from many_support import SITES, TEXTURE, WIDE, cohorts, content, study

from ctfed.approval_page import kinds_of, plan, stages
from ctfed.cli import main
from ctfed.cohort import load_cohorts
from ctfed.federation import run_pooled
from ctfed.federation.masking import make_mask_key
from ctfed.federation.policy import Policy
from ctfed.federation.roster import Roster
from ctfed.federation.view import Rows
from ctfed.model_file import model_text, read_model
from ctfed.report.reader import Reader, to_plain
from ctfed.site import load_site
from ctfed.study import Study, load_study, scope_of
from server.many.algorithm import ManyResult, many_algorithm, scores_by_name
from server.many.features import Variant, prepare_groups
from server.many.model_card import SECTIONS, model_card, write_model_card
from server.many.model_file import portable_models, write_model_files
from server.many.results import harmonization_of, many_results_of, tables_of, titles_of
from server.many.tables import table_file, table_files
from server.results import RunFacts
from server.simulate import simulate

PAPER = Path(__file__).parents[3] / "site_config" / "studies" / "pixels_to_prognosis.yaml"
FACTS = RunFacts("in-process", SITES, (), 1.0, "2026-01-01T00:00:00+00:00", ())


@pytest.fixture(scope="module")
def result() -> ManyResult:
    found: ManyResult = run_pooled(many_algorithm(study()), cohorts())
    return found


@pytest.fixture(scope="module")
def plain(result: ManyResult) -> dict[str, Any]:
    mapping, not_finite = to_plain(many_results_of(result, FACTS))
    assert not_finite == ()
    return mapping


@pytest.fixture(scope="module")
def files(plain: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    texts = table_files(Reader(plain))
    return {name: list(csv.DictReader(io.StringIO(text))) for name, text in texts.items()}


@pytest.fixture(scope="module")
def paper() -> Study:
    return load_study(PAPER)


def test_every_model_and_ensemble_has_the_numbers_of_its_evaluation(result: ManyResult, plain: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in plain["models"]}
    places = scores_by_name(result)
    assert list(rows) == [*result.study.models, *result.study.ensembles]
    for name, (found, k) in places.items():
        row = rows[name]
        assert row["c_within"]["value"] == found.paired.concordance.value[k]
        assert found.pooled is not None
        assert found.groups is not None
        assert found.predictions is not None
        assert row["c_pooled"]["value"] == found.pooled.c.value[k]
        assert row["c_pooled"]["bound_upper"] == found.pooled.c.upper[k]
        assert [row["c_pooled"]["lower"], row["c_pooled"]["upper"]] == found.pooled.limits["c"][k].tolist()
        assert row["curves"]["threshold"] == found.groups.thresholds[k]
        fit = found.groups.ratios[k]
        if fit is not None:
            assert row["curves"]["hazard_ratio"]["hr"] == math.exp(fit.coefficients[0])
        for h, time in enumerate(found.predictions.followed.times):
            (at,) = [one for one in row["horizons"] if one["horizon"] == time]
            assert at["brier"] == found.predictions.errors.brier[k, h]
            assert at["observed_expected"] == found.predictions.errors.ratio[k, h]
            slope = found.predictions.recalibration.slope[k, h]
            assert at["slope"] == (None if np.isnan(slope) else slope)
            if time in found.pooled.auc:
                assert at["auc"] == found.pooled.auc[time].value[k]
                assert at["auc_p"] == found.pooled.p[time][k]


def test_models_have_their_fits_searches_and_importances(result: ManyResult, plain: dict[str, Any]) -> None:
    for one, row in zip(result.models, plain["models"], strict=False):
        assert row["fit"]["penalizer"] == one.found.best.penalizer
        assert [c["coef_per_sd"] for c in row["fit"]["coefficients"]] == one.fit.coefficients.tolist()
        assert row["search"]["trials"][row["search"]["best"]]["score"] == max(t.score for t in one.found.trials)
        assert (row["train"]["patients"], row["test"]["events"]) == (one.train.patients, one.test.events)
        assert one.explanation is not None
        told = [f["mean_absolute"] for f in row["explanation"]["features"]]
        assert told == one.explanation.mean_absolute[0].tolist()
    empty = next(row for row in plain["models"] if row["name"] == "late-stage")
    assert "no column is left by the penalty: every patient has the same score" in empty["warnings"]
    assert empty["subgroup"] == "stage: III to IV"


def test_the_consensus_has_the_counts_that_its_shares_come_from(result: ManyResult, plain: dict[str, Any]) -> None:
    assert result.consensus is not None
    found = result.consensus.classified
    rows = plain["consensus"]["rows"]
    assert len(rows) == 3 * len(found.times)
    for row in rows:
        h = found.times.tolist().index(row["horizon"])
        k = 2 if row["model"] is None else result.consensus.models.index(row["model"])
        right = row["true_events"] + row["true_survivors"]
        assert row["accuracy"] == pytest.approx(right / (right + row["missed_events"] + row["false_alarms"]), abs=1e-12)
        assert row["sensitivity"] == found.sensitivity[k, h]
        assert row["coverage_lower"] <= row["coverage"] <= row["coverage_upper"] + 1e-12
        if row["model"] is None:
            assert row["auc"] == found.auc[0, h]


def test_each_table_of_the_study_has_its_rows_and_the_numbers_of_the_mapping(
    plain: dict[str, Any], files: dict[str, list[dict[str, str]]]
) -> None:
    named = {name for name in files if name.startswith("table_")}
    assert named == {table_file(table) for table in ("1", "3", "4", "6", "7", "8", "9")}
    for table in ("3", "4", "6", "7", "8"):
        models = [row for row in plain["models"] if row["table"] == table]
        rows = files[table_file(table)]
        assert [row["name"] for row in rows] == [model["name"] for model in models]
        for row, model in zip(rows, models, strict=True):
            assert float(row["c_within"]) == model["c_within"]["value"]
            assert float(row["c_bound_lower"]) == model["c_pooled"]["bound_lower"]
            assert int(row["events_train"]) == model["train"]["events"]
            assert row["harmonization"] == model["harmonization"]
            first = model["horizons"][0]
            for key in ("auc", "auc_p", "brier", "observed_expected", "slope", "ici"):
                assert row[f"{key}_12"] == ("" if first[key] is None else repr(first[key]))
    consensus = files["table_9.csv"]
    assert [row["label"] for row in consensus] == ["Clinical model", "texture-combat", "Consensus"]
    told = {(row["title"], row["horizon"]): row for row in plain["consensus"]["rows"]}
    for row in consensus:
        for horizon in (12.0, 24.0):
            for key in ("accuracy", "sensitivity", "specificity", "coverage", "auc"):
                value = told[row["label"], horizon][key]
                assert row[f"{key}_{horizon:g}"] == ("" if value is None else repr(value))


def test_the_other_files_have_a_row_for_every_number(
    result: ManyResult, files: dict[str, list[dict[str, str]]]
) -> None:
    sizes = [len(found.names) for found in result.evaluated]
    assert len(files["differences.csv"]) == sum(n * (n - 1) // 2 for n in sizes)
    assert len(files["search.csv"]) == sum(len(one.found.trials) for one in result.models)
    assert sum(row["best"] == "1" for row in files["search.csv"]) == len(result.models)
    assert len(files["coefficients.csv"]) == sum(one.fit.view.width for one in result.models)


def test_what_combat_did_follows_from_the_totals_of_its_fit(result: ManyResult, plain: dict[str, Any]) -> None:
    rows = {row["group"]: row for row in plain["harmonized"]}
    assert list(rows) == ["texture", "wide"]
    train = next(one.train.patients for one in result.models if one.name == "texture-combat")
    for group, columns in (("texture", TEXTURE), ("wide", WIDE)):
        row = rows[group]
        assert (row["batches"], row["rows"], row["rows_left_out"], row["passed"]) == (len(SITES), train, 0, [])
        assert row["features"] == len(columns)
        shares = [_between(name) for name in columns]
        assert row["between_median"] == pytest.approx(np.median(shares), rel=1e-9)
        assert row["between_p90"] == pytest.approx(np.quantile(shares, 0.9), rel=1e-9)


def test_a_small_batch_and_a_column_without_spread_are_told_as_left_out() -> None:
    sites = cohorts((60, 50, 45, 9))
    still = {**sites[1].columns, "t2": np.full(sites[1].patients, 4.0)}
    sites[1] = replace(sites[1], columns=still)
    variant = Variant("texture", True)
    found = run_pooled(prepare_groups(study(), [variant], {(): {}}), sites)[variant][0].harmonization
    rows = [int((cohort.split == "train").sum()) for cohort in sites]
    assert found is not None
    assert rows[3] < 10
    assert (found.batches, found.rows) == (3, sum(rows[:3]))
    assert (found.batches_left_out, found.rows_left_out) == (1, rows[3])
    assert (found.features, found.passed, found.between) == (len(TEXTURE) - 1, ("t2",), None)


def _between(name: str) -> float:
    """Eta squared of the sites in the mean-imputed training values."""
    parts = [cohort.columns[name][cohort.split == "train"] for cohort in cohorts()]
    mean = np.nanmean(np.concatenate(parts))
    filled = [np.where(np.isnan(part), mean, part) for part in parts]
    total = np.square(np.concatenate(filled) - mean).sum()
    return 1 - float(sum(np.square(part - part.mean()).sum() for part in filled) / total)


def test_the_model_card_tells_the_results_alone(plain: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(plain | {"notes": ["a|b <i>"]}), encoding="utf-8")
    text = write_model_card(tmp_path).read_text(encoding="utf-8")
    assert re.findall("^## (.*)", text, re.MULTILINE) == list(SECTIONS)
    assert "Not a medical device" in text
    assert "- a\\|b \\<i\\>" in text, "a note is text, whatever it holds"
    assert text.count("\n| 3 |") + text.count("\n| 4 |") == 3
    for table in ("3", "4", "6", "7", "8"):
        best = max((row for row in plain["models"] if row["table"] == table), key=lambda row: row["c_within"]["value"])
        (line,) = [line for line in text.splitlines() if line.startswith(f"- Table {table}, ")]
        assert f"C within sites {best['c_within']['value']:.3f} (" in line
        assert f"certified {best['c_pooled']['bound_lower']:.3f} to {best['c_pooled']['bound_upper']:.3f}" in line
    assert plain["study"]["sha256"] in text
    assert f"search {plain['study']['search']['seed']}, evaluation {plain['study']['evaluation']['seed']}" in text


def test_a_model_card_of_nothing_has_dashes() -> None:
    text = model_card(Reader({}), "ab" * 32)
    assert re.findall("^## (.*)", text, re.MULTILINE) == list(SECTIONS)
    assert "- Rounds: –" in text


def test_harmonization_is_told_by_the_groups_and_titles_are_unique(paper: Study) -> None:
    how = {name: harmonization_of(paper, spec) for name, spec in paper.models.items()}
    assert how["lung-texture"] == "None"
    assert how["lung-texture-combat"] == "ComBat"
    assert how["clinical-tumour-texture-rkn"] == "RKN"
    assert how["clinical-tumour-texture-rkn-combat"] == "RKN + ComBat"
    assert sum(value == "None" for value in how.values()) == 5 + 10 + 10
    titles = titles_of(paper)
    assert len(set(titles.values())) == len(paper.models) + len(paper.ensembles) == 52
    assert tables_of(paper) == ["3", "4", "5", "6", "7", "8", "9"]


# -- model files


def test_every_model_file_gives_a_site_the_scores_that_were_evaluated(result: ManyResult, tmp_path: Path) -> None:
    paths = write_model_files(result, tmp_path)
    places = scores_by_name(result)
    assert {path.stem for path in paths} == set(places)
    for path in paths:
        model, _ = read_model(path)
        assert model_text(model) == path.read_text(encoding="utf-8")
        found, place = places[path.stem]
        for cohort in cohorts():
            expected = found.test.table(cohort).values[:, place]
            assert np.array_equal(model.table(cohort, "test").values[:, 0], expected)


def test_a_model_file_has_the_baseline_and_predicts_risks(result: ManyResult) -> None:
    model = portable_models(result)["clinical-texture-combat"]
    found, place = scores_by_name(result)["clinical-texture-combat"]
    assert found.predictions is not None
    horizons = np.array([12.0, 24.0])
    hazard = model.hazard_at(horizons)
    assert np.allclose(hazard, found.predictions.hazard[place], rtol=1e-12)
    scores = [model.scored.on(Rows("test")).table(cohort).values[:, 0] for cohort in cohorts()]
    risks = model.risk(np.concatenate(scores), horizons)
    assert np.allclose(risks.mean(axis=0), found.predictions.errors.expected[place], rtol=1e-6)


# -- from files to files


def _table(folder: Path) -> None:
    parts = cohorts()
    names = list(parts[0].columns)
    with (folder / "patients.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "centre", "time", "event", "split", *names])
        for part in parts:
            for i in range(part.patients):
                values = [part.columns[name][i] for name in names]
                cells = ["" if np.isnan(value) else repr(float(value)) for value in values]
                writer.writerow(
                    [f"{part.site}-{i}", part.site, part.time[i], int(part.event[i]), part.split[i], *cells]
                )


def _files(folder: Path) -> tuple[Path, Path]:
    """A small study, and a site file that cuts one table into virtual sites."""
    _table(folder)
    chosen = content()
    models = {key: chosen["models"][key] for key in ("clinical", "texture-combat", "clinical-texture-combat")}
    changed = chosen | {
        "models": models,
        "groups": {key: chosen["groups"][key] for key in ("clinical", "texture")},
        "ensembles": {"both": {"table": "8", "models": ["clinical", "texture-combat"]}},
        "search": chosen["search"] | {"trials": 4, "batch": 2},
    }
    site = {
        "ctfed_site": 1,
        "partition": {"by": "centre", "prefix": "centre", "minimum": 10},
        "data": {"csv": "patients.csv"},
        "columns": {"id": "patient", "time": "time", "event": "event"},
        "time_unit": "months",
        "fixture_secret": "of a small study of many models",
    }
    for name, value in (("study", json.loads(json.dumps(changed))), ("site", site)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    return folder / "study.yaml", folder / "site.yaml"


def test_simulate_runs_a_study_of_many_models_from_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study_file, site_file = _files(tmp_path)
    out = tmp_path / "out"
    assert main(["study", "check", str(study_file)]) == 0
    assert "table 7   clinical-texture-combat: clinical + texture, ComBat" in capsys.readouterr().out
    files = ["--site", str(site_file), "--out", str(out)]
    assert main(["simulate", str(study_file), *files]) == 0
    told = json.loads((out / "results.json").read_text(encoding="utf-8"))
    wanted = load_study(study_file)
    assert told["study"]["sha256"] == wanted.sha256
    assert told["run"]["rounds"] == len(told["rounds"]) > 0
    assert told["run"]["masked"]
    assert told["sites"]["names"] == [f"centre-{site}" for site in SITES]
    assert {path.name for path in out.glob("table_*.csv")} == {f"table_{name}.csv" for name in "136789"}
    assert {path.stem for path in (out / "models").iterdir()} == {*wanted.models, *wanted.ensembles}
    best = max(row["c_within"]["value"] for row in told["models"])
    assert f"{best:.3f}" in capsys.readouterr().out
    assert f"{best:.3f}" in (out / "report.html").read_text(encoding="utf-8")
    asked = {query.rpartition(" x ")[0] for row in told["rounds"] for query in row["queries"]}
    assert asked <= set(kinds_of(wanted))
    assert set(kinds_of(wanted)) <= set(scope_of(wanted).kinds)
    assert all(set(stage.kinds) & asked for stage in stages(wanted)), "no stage is there for nothing"


TABLES = ("table_3", "table_6", "table_7", "table_8", "table_9", "coefficients", "search", "differences", "calibration")


def test_a_study_that_is_killed_and_started_again_ends_with_the_same_tables(tmp_path: Path) -> None:
    """The journal is cut in the preparation, in the search and in the evaluation, in the middle of a line each time."""
    study_file, site_file = _files(tmp_path)
    out = tmp_path / "out"
    simulate(study_file, [site_file], out, tell=lambda _: None)
    first = {name: (out / f"{name}.csv").read_bytes() for name in TABLES}
    assert first["search"].count(b"\n") > 10
    journal = next((out / "journal").glob("*.jsonl"))
    lines = journal.read_bytes().splitlines(keepends=True)
    for share in (0.15, 0.6, 0.95):
        kept = int(share * len(lines))
        journal.write_bytes(b"".join(lines[:kept]) + lines[kept][:40])
        simulate(study_file, [site_file], out, tell=lambda _: None)
        assert {name: (out / f"{name}.csv").read_bytes() for name in TABLES} == first


def test_a_plan_estimates_rounds_of_a_longer_search(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    study_file, _ = _files(tmp_path)
    changed = yaml.safe_load(study_file.read_text(encoding="utf-8"))
    counts = []
    for trials in (4, 8):
        changed["search"]["trials"] = trials
        study_file.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
        assert main(["study", "plan", str(study_file), "--sites", "3", "--patients", "200"]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("about "))
        counts.append(int(line.split()[1]))
    assert counts[1] >= counts[0] + 2 * 2, "two more batches of fits and scores"


def test_the_shipped_study_asks_only_what_its_scope_lets_through(paper: Study) -> None:
    asked = set(kinds_of(paper))
    assert asked <= set(scope_of(paper).kinds)
    assert {"combat-moments", "covariance-products", "agreement-counts", "decision-sums"} <= asked


def test_the_approval_page_tells_models_columns_questions_and_steps(tmp_path: Path) -> None:
    study_file, site_file = _files(tmp_path)
    wanted = load_study(study_file)
    changed = yaml.safe_load(site_file.read_text(encoding="utf-8"))
    del changed["partition"], changed["fixture_secret"]
    real = {"site": "centre", "secret": "site.secret", "unmasked": True}
    site_file.write_text(yaml.safe_dump(changed | real), encoding="utf-8")
    site = load_site(site_file)
    loaded = load_cohorts(site, wanted)
    roster = Roster({name: make_mask_key(tmp_path / f"{name}.key") for name in ("centre", "other", "third")})
    page = "\n".join(plan(site, wanted, roster, Policy(), loaded, ("train", "test")))
    assert "3 elastic-net Cox models, stratified by site, of 15 columns in 2 groups" in page
    assert "t0 ... t11 (12)" in page
    assert "texture: " in page
    for name in (*kinds_of(wanted), "select", "ensemble", "combat"):
        assert f"\n  {name} " in page
