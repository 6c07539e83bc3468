"""Released results of several centres: read, checked, pooled as an independent computation pools them, shown."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import norm, t
from test_site_editions import a_cohort, a_model, a_study

from ctfed.cli import main
from ctfed.federation.errors import CtfedError
from ctfed.report.centres import centres_content, read_released
from ctfed.report.centres_page import write_centres
from ctfed.report.site_content import SiteFacts, site_content
from ctfed.report.site_egress import site_egress
from ctfed.report.site_rows import SiteRows

NAMES = ("bern", "lyon", "oslo", "turin")
DIGESTS = {"results.json": "ab", "model.json": "cd"}


def egress(name: str, patients: int, seed: int) -> dict[str, Any]:
    cohort = dataclasses.replace(a_cohort(patients, seed), site=name)
    within = {"value": 0.65, "lower": 0.6, "upper": 0.7}
    results = {"study": {}, "sites": {"count": 4}, "discrimination": {"split": "test", "c_within": within}}
    facts = SiteFacts(results, DIGESTS, (), None, None, False, 10, "2026-01-15T09:30:00+00:00")
    return site_egress(site_content(SiteRows(cohort, a_model(a_study()), "test"), facts))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("released")
    paths = []
    for place, name in enumerate(NAMES):
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(egress(name, 250 + 150 * place, place + 5)), encoding="utf-8")
    return paths


@pytest.fixture(scope="module")
def content(reports: list[Path]) -> dict[str, Any]:
    return centres_content(read_released(reports), "2026-01-16T09:30:00+00:00")


def measure(content: dict[str, Any], key: str) -> dict[str, Any]:
    return next(row for row in content["measures"] if row["measure"] == key)


def test_the_mean_is_that_of_the_restricted_likelihood(content: dict[str, Any], reports: list[Path]) -> None:
    """tau2 by maximising the restricted likelihood numerically (agrees to 1e-6), the rest by its formulas."""
    found = [json.loads(path.read_text(encoding="utf-8"))["discrimination"]["harrell"] for path in reports]
    y = logit([row["value"] for row in found])
    error = np.array([logit(row["upper"]) - logit(row["lower"]) for row in found]) / (2 * norm.isf(0.025))
    v = error**2

    def restricted(tau2: float) -> float:
        w = 1 / (v + tau2)
        mean = (w * y).sum() / w.sum()
        return float((np.log(v + tau2).sum() + np.log(w.sum()) + (w * (y - mean) ** 2).sum()) / 2)

    best = minimize_scalar(restricted, bounds=(0, 1), method="bounded", options={"xatol": 1e-12})
    tau2 = best.x if best.fun < restricted(0.0) else 0.0
    pooled = measure(content, "c")["pooled"]
    assert pooled["tau2"] == pytest.approx(tau2, abs=1e-6)
    w = 1 / (v + pooled["tau2"])
    mean = (w * y).sum() / w.sum()
    reach = t.isf(0.025, 3) * np.sqrt(max(1.0, (w * (y - mean) ** 2).sum() / 3) / w.sum())
    assert [pooled[key] for key in ("estimate", "lower", "upper")] == pytest.approx(
        expit([mean, mean - reach, mean + reach]), abs=1e-12
    )
    assert pooled["weights"] == pytest.approx(w / w.sum(), abs=1e-12)
    slope = measure(content, "slope")["pooled"]
    assert slope["q"] < 3  # closer than chance: the interval must not be narrower than one that expects no variance
    assert slope["upper"] - slope["estimate"] == pytest.approx(t.isf(0.025, 3) * slope["standard_error"], rel=1e-12)
    ends = [(row["upper"] - row["lower"]) / (2 * norm.isf(0.025)) for row in measure(content, "slope")["centres"]]
    assert slope["standard_error"] == pytest.approx(1 / np.sqrt((1 / np.square(ends)).sum()), rel=1e-9)
    assert pooled["prediction_lower"] < pooled["lower"] < pooled["upper"] < pooled["prediction_upper"]


def test_a_ratio_is_pooled_on_the_log_scale_and_stands_as_a_ratio(content: dict[str, Any]) -> None:
    row = measure(content, "ratio-12")
    values = np.array([one["value"] for one in row["centres"]])
    pooled = row["pooled"]
    assert pooled["estimate"] == pytest.approx(np.exp((np.log(values) * pooled["weights"]).sum()), rel=1e-12)
    assert np.sqrt(pooled["lower"] * pooled["upper"]) == pytest.approx(pooled["estimate"], rel=1e-12)


def test_a_centre_without_an_interval_is_named_and_not_in_the_mean(reports: list[Path], tmp_path: Path) -> None:
    small = json.loads(reports[0].read_text(encoding="utf-8"))
    small["discrimination"]["harrell"] = {"value": None, "lower": None, "upper": None, "pairs": None}
    (tmp_path / "small.json").write_text(json.dumps(small), encoding="utf-8")
    found = centres_content(read_released([tmp_path / "small.json", *reports[1:3]]), "now")
    row = measure(found, "c")
    assert row["without"] == ["bern"]
    assert row["pooled"] is None
    assert "2 centres" in row["note"]
    page = write_centres(found, tmp_path)[0].read_text(encoding="utf-8")
    assert "Not pooled" in page
    assert "No mean is given" in page


def test_the_files_hold_the_same_numbers_and_the_page_shows_them(reports: list[Path], tmp_path: Path) -> None:
    assert main(["report", "--centres", *map(str, reports), "--out", str(tmp_path)]) == 0
    stored = json.loads((tmp_path / "centres.json").read_text(encoding="utf-8"))
    pooled = measure(stored, "c")["pooled"]
    page = (tmp_path / "centres.html").read_text(encoding="utf-8")
    for value in (pooled["estimate"], pooled["lower"], pooled["prediction_upper"]):
        assert f"{value:.3f}" in page
    assert f"mean,,{pooled['estimate']!r}" in (tmp_path / "centres.csv").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.glob("*.png")} == {
        *("forest-c.png", "forest-slope.png", "forest-ratio-6.png", "forest-ratio-12.png", "forest-ratio-24.png")
    }


def test_what_may_not_be_compared_is_refused_in_words(reports: list[Path], tmp_path: Path) -> None:
    def changed(key: str, value: Any, inner: str = "") -> Path:
        report = json.loads(reports[0].read_text(encoding="utf-8"))
        if inner:
            report[key][inner] = value
        else:
            report[key] = value
        path = tmp_path / f"{key}{inner}.json"
        path.write_text(json.dumps(report), encoding="utf-8")
        return path

    with pytest.raises(CtfedError, match="found 2 reports, expected at least 3"):
        read_released(reports[:2])
    with pytest.raises(CtfedError, match="edition: found 'local', expected 'egress'"):
        read_released([*reports[1:], changed("edition", "local")])
    with pytest.raises(CtfedError, match=r"site 'bern' again, expected each once; it is in .*bern\.json"):
        read_released([*reports, changed("made", "later")])
    with pytest.raises(CtfedError, match=r"found a report about study .*model\.json ee, .* expected study"):
        read_released([*reports[1:], changed("provenance", {"model.json": "ee"}, "files")])
    with pytest.raises(CtfedError, match=r"site\.name: found nothing"):
        read_released([*reports[1:], changed("site", "", "name")])
    with pytest.raises(CtfedError, match="found another kind of file"):
        read_released([*reports[1:], changed("ctfed_site_report", 99)])
