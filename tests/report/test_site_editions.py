"""The two editions: what may leave holds no small count and no identifier, and is made from its own JSON alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ctfed.cohort.clinical import Exclusion
from ctfed.federation.arrays import frozen
from ctfed.federation.cohort import Cohort
from ctfed.federation.view import View
from ctfed.model_file import PortableModel, model_text, read_model
from ctfed.report.page import render_page
from ctfed.report.site_content import SiteFacts, site_content
from ctfed.report.site_description import PreparedFiles
from ctfed.report.site_egress import merged_bins, site_egress
from ctfed.report.site_files import Written, write_site_report
from ctfed.report.site_page import site_page
from ctfed.report.site_rows import SiteRows
from ctfed.statistics.standardise import Standardise
from ctfed.study import Study

K = 10
PATIENTS = 600
SECRET = "Mueller-1947"
COUNTS = {
    *("patients", "events", "count", "present", "missing", "cases", "controls", "found", "scans", "measured"),
    *("pairs", "fewest_patients", "train"),
}


def a_study() -> Study:
    variables = {
        "age": {"type": "continuous", "range": [18, 110], "unit": "years", "impute": "median"},
        "sex": {"type": "binary", "range": [0, 1], "impute": "mode"},
        "stage": {"type": "ordinal", "range": [1, 4], "levels": {1: "I", 2: "II", 3: "III", 4: "IV"}, "impute": "mode"},
        "rare": {"type": "binary", "range": [0, 1], "impute": "mode"},
    }
    content = {
        "ctfed_study": 1,
        "name": "planted",
        "title": "Planted patients",
        "endpoint": {"name": "death", "time_unit": "months"},
        "variables": variables,
        "model": {"features": list(variables)},
        "penalty": {"penalizer": 0.0, "l1_ratio": 0.5},
        "split": {"test_fraction": 0.4},
        "evaluation": {"horizons": [6, 12, 24], "time_bin": 1, "min_cell": K, "bootstrap": 50},
        "time_grid": {"width": 1, "end": 36},
    }
    return Study.model_validate_json(json.dumps(content))


def a_model(study: Study) -> PortableModel:
    names = tuple(study.single.features)
    step = Standardise(names, frozen([62.0, 0.4, 2.4, 0.02]), frozen([9.0, 0.49, 1.0, 0.14]))
    view = View(study.features).then(step)
    time = np.arange(1, 37) * 1.0
    return PortableModel(study, view, frozen([0.3, -0.2, 0.6, 0.1]), frozen(time), frozen(0.05 * time), 0.0)


def a_cohort(n: int, seed: int = 3) -> Cohort:
    """Patients whose hazard follows the model; three have the rare value, two the first stage, all secret names."""
    rng = np.random.default_rng(seed)
    stage = rng.integers(2, 5, n).astype(float)
    stage[:2] = 1.0
    rare = np.zeros(n)
    rare[:3] = 1.0
    columns = {
        "age": rng.normal(62, 9, n).round(),
        "sex": (rng.random(n) < 0.4).astype(float),
        "stage": stage,
        "rare": rare,
    }
    score = 0.3 * (columns["age"] - 62) / 9 - 0.2 * (columns["sex"] - 0.4) / 0.49 + 0.6 * (stage - 2.4)
    time = rng.exponential(20 / np.exp(score))
    lost = rng.uniform(3, 40, n)
    split = np.where(rng.random(n) < 0.6, "test", "train")
    split[:3] = "test"
    return Cohort.of(
        "hospital",
        columns,
        np.maximum(np.minimum(time, lost), 0.01),
        time <= lost,
        split=split,
        pseudonym=[f"{SECRET}-{k:05d}" for k in range(n)],
    )


def prepared(folder: Path, n: int) -> PreparedFiles:
    """Scans of which three come from a scanner of a name that tells who was there, with sheets and volumes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    (folder / "qc").mkdir(parents=True)
    keys = [f"{SECRET}-key-{k:04d}" for k in range(n)]
    volumes = np.exp(np.random.default_rng(1).normal(9, 0.5, n))
    volumes[0] = 1e8
    table = pa.table({"patient": keys, "tumour.original_shape_VoxelVolume": volumes})
    pq.write_table(table, folder / "features.parquet")
    Image.new("RGB", (900, 400)).save(folder / "qc" / f"{keys[0]}.png")
    makers = ["SIEMENS"] * (n - 3) + ["Scanner of the mayor"] * 3
    scans = tuple(
        {"manufacturer": maker, "kernel": "B30f", "contrast": "True", "thickness": "1.0" if k % 2 else "3.0"}
        for k, maker in enumerate(makers)
    )
    exclusions = (("scan", "no-usable-series"),) * 2 + (("masks", "empty-mask"),) * 12
    about = {"ctfed": "0.1.0", "settings": {"name": "s", "sha256": "ef" * 32}, "models": [{"model": "nnunet"}]}
    return PreparedFiles(folder, exclusions, scans, about)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    study = a_study()
    facts = SiteFacts(
        results={"study": {}, "sites": {"count": 4}},
        digests={"results.json": "ab", "model.json": "cd"},
        excluded=(Exclusion(17, "the follow-up time is missing"),),
        prepared=prepared(tmp_path_factory.mktemp("prepared") / "local", PATIENTS),
        ledger=None,
        virtual=False,
        minimum=K,
        made="2026-01-15T09:30:00+00:00",
    )
    return site_content(SiteRows(a_cohort(PATIENTS), a_model(study), "test"), facts)


@pytest.fixture(scope="module")
def written(local: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_site_report(local, tmp_path_factory.mktemp("report"), None)


def numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from numbers(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value


def test_the_planted_things_are_in_the_local_edition(local: dict[str, Any]) -> None:
    text = json.dumps(local)
    assert SECRET in text
    assert "Scanner of the mayor" in text
    assert "data:image/jpeg" in text
    small = [(name, n) for name, n in numbers(local) if name in COUNTS and 0 < n < K]
    assert ("count", 3) in small
    assert ("patients", 1) in small  # set aside with a reason


def test_the_egress_edition_holds_neither_small_counts_nor_identifiers(local: dict[str, Any], written: Written) -> None:
    folder = written.egress.parent
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in found} == {".json", ".html", ".png", ".txt", ".csv"}
    for path in found:
        raw = path.read_bytes()
        for secret in (SECRET, "Scanner of the mayor", "data:image", "row 17"):
            assert secret.encode() not in raw, (path.name, secret)
            assert secret not in path.name
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    small = [(name, n) for name, n in numbers(content) if name in COUNTS and 0 < n < K]
    assert small == []
    # It is not empty for being safe.
    assert content["discrimination"]["harrell"]["value"] == local["discrimination"]["harrell"]["value"]
    assert content["curves"]["groups"]
    assert content["calibration"]["slope"]["value"] is not None
    assert written.egress.read_text(encoding="utf-8") == render_page(site_page(content), scripts=False)


def test_nothing_can_be_worked_out_from_what_is_beside_it(local: dict[str, Any]) -> None:
    content = site_egress(local)
    for row in content["table_one"]["variables"]:
        hidden = [level["count"] for level in row["levels"] if level["count"] is None]
        assert len(hidden) != 1
        if row["variable"] == "rare":
            # Its mean over all patients would tell that three have it.
            assert [level["count"] for level in row["levels"]] == [None, None]
            assert row["mean"] is row["sd"] is row["smd"] is row["filled_mean"] is None
    assert not any(feature["feature"] == "rare" for feature in content["explanation"]["features"])
    assert not any(group["variable"] in ("rare", "stage") for group in content["subgroups"])
    assert content["flow"]["found"] is None  # with it and the other steps, the two small ones would be known
    assert content["baseline"] is None
    assert "cohort_sha256" not in content["provenance"]


def test_steps_of_curves_hold_enough_of_each_group(local: dict[str, Any]) -> None:
    """Deaths and censored of every step, worked out as a reader of the edition can."""
    groups = site_egress(local)["curves"]["groups"]
    for group in groups:
        survival = np.array(group["survival"], dtype=float)
        at_risk = np.array([row["count"] for row in group["at_risk"]])
        deaths = at_risk[:-1] * (1 - survival[1:] / survival[:-1])
        leaving = at_risk[:-1] - at_risk[1:]
        assert len(survival) > 2
        for count in (*deaths, *(leaving - deaths), group["events"] - deaths.sum()):
            assert abs(count) < 1e-6 or count >= K - 1e-6


def test_thresholds_of_the_decision_curve_hold_enough_between_them(local: dict[str, Any]) -> None:
    shown = {row["horizon"]: row for row in site_egress(local)["decision"] if row["thresholds"]}
    assert shown
    for row in local["decision"]:
        if row["horizon"] not in shown:
            continue
        places = [row["thresholds"].index(t) for t in shown[row["horizon"]]["thresholds"]]
        for name, whole in (("above", "patients"), ("cases_above", "cases"), ("controls_above", "controls")):
            cells = -np.diff([row[whole], *(row[name][k] for k in places), 0])
            assert all(cell == 0 or cell >= K for cell in cells)


def test_the_rule_by_stage_leaves_with_enough_on_both_sides(local: dict[str, Any]) -> None:
    shown = {row["horizon"]: row for row in site_egress(local)["decision"]}
    told = 0
    for row in local["decision"]:
        if row["horizon"] not in shown or not shown[row["horizon"]]["thresholds"]:
            continue
        (rule,), (mine,) = shown[row["horizon"]]["comparators"], row["comparators"]
        assert mine["name"] == rule["name"] == "stage III and IV"
        treated = [mine[name][0] for name in ("above", "cases_above", "controls_above")]
        whole = [row[name] for name in ("patients", "cases", "controls")]
        cells = [*treated, *(b - a for a, b in zip(treated, whole, strict=True))]
        inside, every = (a - b - c for a, b, c in (treated, whole))
        cells += [inside, every - inside]
        if all(cell == 0 or cell >= K for cell in cells):
            assert rule["benefit"] == mine["benefit"]
            told += 1
        else:
            assert rule["benefit"] == []
        assert "above" not in rule
    assert told


def test_merged_bins_hold_all_patients() -> None:
    rng = np.random.default_rng(5)
    edges = np.arange(1.0, 25.0)
    counts = rng.integers(0, 5, (25, 2, 2)).astype(float)
    kept, merged = merged_bins(edges, counts, K)
    assert kept
    assert (merged.sum(axis=0) == counts.sum(axis=0)).all()
    assert all(cell == 0 or cell >= K for cell in merged.ravel())


@pytest.mark.parametrize("patients", [6, 25])
def test_a_small_site_lets_nothing_out_but_its_questions(patients: int) -> None:
    facts = SiteFacts({"study": {}}, {}, (), None, None, False, K, "2026-01-15T09:30:00+00:00")
    content = site_egress(site_content(SiteRows(a_cohort(patients), a_model(a_study()), "test"), facts))
    assert [(name, n) for name, n in numbers(content) if name in COUNTS and 0 < n < K] == []
    assert content["verdict"]["label"] == "not told"
    assert content["discrimination"]["harrell"]["value"] is None
    page = render_page(site_page(content))
    assert "withheld" in page
    assert not re.search(r"\b(nan|inf|None)\b", page)


def test_figures_are_files_with_captions(written: Written) -> None:
    from PIL import Image

    folder = written.local.parent / "figures"
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == len(list(folder.glob("*.svg"))) >= 10
    for picture in pictures:
        with Image.open(picture) as image:
            assert [round(dots) for dots in image.info["dpi"]] == [300, 300]
            assert image.info["Title"]
            assert image.info["Description"]
        drawing = picture.with_suffix(".pdf").read_bytes()
        assert drawing.startswith(b"%PDF")
        assert b"/Type3" not in drawing
        svg = picture.with_suffix(".svg").read_text(encoding="utf-8")
        assert re.search(r'<svg [^>]*width="[\d.]+pt" height="[\d.]+pt"', svg)
        assert 'class="values"' not in svg
    captions = (folder / "captions.txt").read_text(encoding="utf-8")
    assert all(path.stem in captions for path in pictures)
    assert (folder / pictures[0].with_suffix(".svg").name).read_text(encoding="utf-8").count("<svg") == 1


def test_scans_and_masks_are_described(local: dict[str, Any], written: Written) -> None:
    assert local["flow"]["found"] == PATIENTS + 15
    assert {"stage": "masks", "reason": "empty-mask", "patients": 12} in local["flow"]["steps"]
    makers = {row["label"]: row["count"] for row in local["acquisition"]["tables"][0]["rows"]}
    assert makers == {"SIEMENS": PATIENTS - 3, "Scanner of the mayor": 3}
    (region,) = local["segmentation"]["regions"]
    assert region["outliers"][0]["volume_ml"] == pytest.approx(1e5)
    assert len(local["segmentation"]["sheets"]) == 1
    assert written.local.read_text(encoding="utf-8").count("<img") == 1
    frame = pd.Series(
        [float(row["thickness"]) for row in [{"thickness": "1.0"}, {"thickness": "3.0"}] * (PATIENTS // 2)]
    )
    measure = next(row for row in local["acquisition"]["measures"] if "thickness" in row["label"])
    assert measure["mean"] == pytest.approx(frame.mean())


def test_views_beside_each_other_give_the_same_judgement(tmp_path: Path) -> None:
    """As in studies of many models, where groups of features are prepared apart."""
    study = a_study()
    whole, cohort = a_model(study), a_cohort(100)
    step = whole.view.transforms[0]
    assert isinstance(step, Standardise)
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        own = Standardise(step.names[part], frozen(step.mean[part]), frozen(step.scale[part]))
        halves.append(View(study.features[part]).then(own))
    parted = PortableModel(study, View.joined(halves), whole.coefficients, whole.time, whole.hazard, 0.0)
    (tmp_path / "model.json").write_text(model_text(parted), encoding="utf-8")
    read, _ = read_model(tmp_path / "model.json")
    facts = SiteFacts({"study": {}}, {}, (), None, None, False, K, "2026-01-15T09:30:00+00:00")
    one, other = (site_content(SiteRows(cohort, model, "all"), facts) for model in (whole, read))
    for section in ("discrimination", "calibration", "curves", "decision", "subgroups", "flow", "missing"):
        assert one[section] == other[section]
    assert other["table_one"] == one["table_one"]
    assert [row["variable"] for row in other["table_one"]["variables"]] == list(study.single.features)
    assert all(row["federation_mean"] is not None for row in other["table_one"]["variables"])
    assert other["explanation"]["centre"] == one["explanation"]["centre"] == "the federation's training patients"


def test_pooled_figures_are_those_of_the_named_model() -> None:
    results = {
        "study": {},
        "models": [
            {"name": "a", "c_within": {"value": 0.6, "lower": 0.5, "upper": 0.7}},
            {"name": "b", "c_within": {"value": 0.8, "lower": 0.7, "upper": 0.9}},
        ],
    }
    facts = SiteFacts(results, {}, (), None, None, False, K, "2026-01-15T09:30:00+00:00", "b")
    content = site_content(SiteRows(a_cohort(60), a_model(a_study()), "all"), facts)
    assert content["discrimination"]["pooled"]["within"]["value"] == 0.8
    assert site_page(content).title.endswith("model b")
