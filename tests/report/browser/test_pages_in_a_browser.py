"""Every kind of page in headless Chromium: 3 widths, scripts on and off, light and dark.

    npm install --prefix /tmp/browser puppeteer-core axe-core
    NODE_PATH=/tmp/browser/node_modules pytest -m slow tests/report/browser

Nothing may be wrong: no line on the console, no request, no overflow to the side, no broken image, no violation that
axe knows (WCAG 2.2 A and AA, best practice), and no row lost by sorting or filtering. Full-page pictures of all of
them go into the folder that CTFED_SCREENSHOTS names.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_centres import NAMES, egress
from test_many_report import made, tables
from test_steward_page import LIMITS, full_ledger

from ctfed.cli import main
from ctfed.federation.ledger_check import check_ledger
from ctfed.report import write_pooled_report
from ctfed.report.centres import centres_content, read_released
from ctfed.report.centres_page import write_centres
from ctfed.report.many import write_many_report
from ctfed.report.site_compare import write_comparison
from ctfed.report.steward import write_ledger_export

pytestmark = pytest.mark.slow

CHECK = Path(__file__).with_name("check.cjs")
CONFIG = Path(__file__).resolve().parents[3] / "site_config"
SITE, STUDY = (str(CONFIG / kind / "ncctg_lung.yaml") for kind in ("sites", "studies"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
KINDS = ("pooled", "many", "compare", "compare-many", "ledger", "local", "egress", "centres")


@pytest.fixture(scope="module")
def chromium() -> str:
    """Path of a browser; the test is skipped where something that it needs is not there."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None or shutil.which("node") is None:
        pytest.skip("needs Chromium and Node.js on the PATH")
    probe = "require.resolve('puppeteer-core'); require.resolve('axe-core')"
    if subprocess.run(["node", "-e", probe], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs puppeteer-core and axe-core in NODE_PATH (see the head of this file)")
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind: of the demonstration study, of invented results of many models, of an invented ledger."""
    folder = tmp_path_factory.mktemp("pages")
    assert main(["simulate", STUDY, "--site", SITE, "--out", str(folder / "pooled")]) == 0
    results = folder / "pooled" / "results.json"
    options = ["--virtual", "other-institutions", "--rows", "all", "--no-pdf", "--out", str(folder)]
    assert main(["report", "--site", SITE, "--results", str(results), *options]) == 0
    content = json.loads(results.read_text(encoding="utf-8"))
    second: dict[str, Any] = copy.deepcopy(content)
    second["study"]["sha256"] = "ff" * 32
    full_ledger(folder / "kept")
    reports = [folder / f"{name}.json" for name in NAMES]
    for seed, path in enumerate(reports):
        path.write_text(json.dumps(egress(path.stem, 250, seed)), encoding="utf-8")
    released = centres_content(read_released(reports), "2026-01-16T09:30:00+00:00")
    write_ledger_export(check_ledger(folder / "kept"), folder / "ledger", LIMITS, "north")
    return {
        "pooled": write_pooled_report(content, folder / "again"),
        "many": write_many_report(made(), folder / "many", tables),
        "compare": write_comparison(("a", content), ("b", second), folder / "compare"),
        "compare-many": write_comparison(("a", made()), ("b", content), folder / "compare-many"),
        "ledger": folder / "ledger" / "ledger.html",
        "local": folder / "local" / "report.html",
        "egress": folder / "egress" / "report.html",
        "centres": write_centres(released, folder / "centres")[0],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_wrong_with_a_page(kind: str, chromium: str, pages: dict[str, Path]) -> None:
    shots = os.environ.get("CTFED_SCREENSHOTS", "-")
    if shots != "-":
        Path(shots).mkdir(parents=True, exist_ok=True)
    command = ["node", str(CHECK), chromium, shots, str(pages[kind])]
    done = subprocess.run(command, capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr.decode("utf-8")
    report = json.loads(done.stdout)
    assert len(report) == 3 * 2 * 2
    wrong = [(look["width"], look["scripts"], look["scheme"], fault) for look in report for fault in look["found"]]
    assert not wrong


def test_a_wrong_page_is_found(chromium: str, tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text(
        "<!doctype html><title>wrong</title><p style='width: 3000px'>wide</p><img src='data:image/png;base64,AAAA'>"
        "<script>console.error('said'); throw new Error('thrown');</script>",
        encoding="utf-8",
    )
    done = subprocess.run(["node", str(CHECK), chromium, "-", str(page)], capture_output=True, timeout=300, check=True)
    found = "\n".join(fault for look in json.loads(done.stdout) for fault in look["found"])
    for fault in ("overflow", "broken image", "console: said", "script: thrown", "axe image-alt", "axe html-has-lang"):
        assert fault in found
