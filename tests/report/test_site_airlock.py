"""What lies beside the egress edition for the output checker: complete, true to the bytes, and in ACRO's layout."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest
from test_centres import DIGESTS
from test_site_editions import K, a_cohort, a_model, a_study

from ctfed.report.site_content import SiteFacts, site_content
from ctfed.report.site_files import write_site_report
from ctfed.report.site_rows import SiteRows


@pytest.fixture(scope="module")
def egress(tmp_path_factory: pytest.TempPathFactory) -> Path:
    facts = SiteFacts({"study": {}}, DIGESTS, (), None, None, False, K, "2026-01-15T09:30:00+00:00")
    content = site_content(SiteRows(a_cohort(400), a_model(a_study()), "test"), facts)
    folder = tmp_path_factory.mktemp("report")
    stale = folder / "egress" / "data" / "99-gone.csv"
    stale.parent.mkdir(parents=True)
    stale.write_text("of an earlier report", encoding="utf-8")
    return write_site_report(content, folder, None).egress.parent


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_each_figure_has_the_numbers_that_it_was_drawn_from(egress: Path) -> None:
    figures = {path.stem for path in (egress / "figures").glob("*.png")}
    assert {path.stem for path in (egress / "data").glob("*.csv")} == figures
    assert len(figures) >= 5
    content = json.loads((egress / "report.json").read_text(encoding="utf-8"))
    name = next(figure for figure in figures if figure.endswith("-discrimination"))
    rows = list(csv.reader((egress / "data" / f"{name}.csv").open(encoding="utf-8")))
    assert any(f"{content['discrimination']['harrell']['value']:.3f}" in cell for row in rows for cell in row)


def test_every_file_is_named_with_its_digest(egress: Path) -> None:
    disclosure = json.loads((egress / "disclosure.json").read_text(encoding="utf-8"))
    crate = json.loads((egress / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    parts = {one["@id"]: one for one in crate["@graph"] if one["@type"] == "File"}
    there = names(egress)
    assert set(parts) == there - {"ro-crate-metadata.json"}
    assert all(parts[name]["sha256"] == digest(egress / name) for name in parts)
    assert disclosure["files"] == {
        name: digest(egress / name)
        for name in there - {"disclosure.json", "ro-crate-metadata.json"}
        if not name.startswith("checksums/")
    }
    for name in disclosure["files"]:
        assert (egress / "checksums" / f"{name.replace('/', '-')}.txt").read_text() == digest(egress / name)
    assert disclosure["smallest_cell"] == K


def test_the_checkers_files_are_in_the_layout_of_acro(egress: Path, shared_data: Path) -> None:
    sample, config = (
        json.loads((shared_data / "platform" / f"acro_{kind}.sample.json").read_text(encoding="utf-8"))
        for kind in ("results", "config")
    )
    found = json.loads((egress / "results.json").read_text(encoding="utf-8"))
    assert found["version"] == sample["version"]
    fields = set(next(iter(sample["results"].values())))
    named = set()
    for output in found["results"].values():
        assert fields <= set(output)
        named.update(one["name"] for one in output["files"])
    kept = {name for name in names(egress) if not name.startswith("checksums/")}
    checkers = {"results.json", "config.json", "disclosure.json", "ro-crate-metadata.json"}
    assert named == kept - checkers
    assert set(json.loads((egress / "config.json").read_text(encoding="utf-8"))) <= set(config)
