"""`ctfed report` and `ctfed predict` as a person runs them, on the demonstration study."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest

from ctfed.cli import FAILED, main
from ctfed.model_file import read_model
from ctfed.report.site_pdf import pdf_printer

CONFIG = Path(__file__).resolve().parents[2] / "site_config"
SITE = str(CONFIG / "sites" / "ncctg_lung.yaml")
STUDY = str(CONFIG / "studies" / "ncctg_lung.yaml")
NAME = "other-institutions"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    assert main(["simulate", STUDY, "--site", SITE, "--out", str(out)]) == 0
    return out


def report(demo: Path, out: Path, *more: str) -> int:
    results = str(demo / "results.json")
    return main(["report", "--site", SITE, "--results", results, "--out", str(out), "--no-pdf", *more])


def test_a_virtual_site_gets_both_editions(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.perf_counter()
    assert report(demo, tmp_path, "--virtual", NAME, "--study", STUDY, "--rows", "all") == 0
    assert time.perf_counter() - started < 60
    assert NAME in capsys.readouterr().out
    content = json.loads((tmp_path / "local" / "report.json").read_text(encoding="utf-8"))
    assert content["flow"]["patients"] == 52
    assert content["ledger"]["whole"] is True
    assert content["ledger"]["rounds"] > 10
    results = json.loads((demo / "results.json").read_text(encoding="utf-8"))
    pooled = results["discrimination"]["c_within"]
    assert content["discrimination"]["pooled"]["within"]["value"] == pooled["value"]
    size = sum(path.stat().st_size for path in (tmp_path / "local").glob("report.*"))
    assert size < 10_000_000
    pseudonyms = [one["pseudonym"] for one in content["explanation"]["single"]]
    egress = (tmp_path / "egress" / "report.html").read_text(encoding="utf-8")
    assert pseudonyms
    assert not any(name in egress for name in pseudonyms)


def test_the_report_stands_at_the_numbers_of_predict(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "risks.csv"
    assert (
        main(["predict", "--model", str(demo / "model.json"), "--site", SITE, "--virtual", NAME, "--out", str(out)])
        == 0
    )
    assert (out.stat().st_mode & 0o777) == 0o600
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 52
    model, _ = read_model(demo / "model.json")
    for row in rows:
        hazard = float(model.hazard[model.time <= 12][-1])
        assert float(row["risk at 12 months"]) == pytest.approx(1 - np.exp(-hazard * np.exp(float(row["score"]))))
    assert report(demo, tmp_path / "r", "--virtual", NAME) == 0
    content = json.loads((tmp_path / "r" / "local" / "report.json").read_text(encoding="utf-8"))
    tested = [float(row["risk at 12 months"]) for row in rows if row["split"] == "test"]
    at_twelve = next(row for row in content["calibration"]["horizons"] if row["horizon"] == 12)
    assert at_twelve["expected"] == pytest.approx(np.mean(tested), abs=1e-9)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "--virtual: found None, expected one of the sites"),
        (("--virtual", "nowhere"), "--virtual: found 'nowhere'"),
        (("--virtual", NAME, "--minimum", "2"), "--minimum: found 2"),
        (("--virtual", NAME, "--ledger", "nowhere"), "--ledger: found no ledger.jsonl"),
    ],
)
def test_a_wrong_option_is_a_sentence(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str
) -> None:
    assert report(demo, tmp_path / "out", *more) == FAILED
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_model_is_refused_in_a_sentence(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((demo / "model.json").read_text(encoding="utf-8"))
    content["coefficients"].append(0.5)
    (tmp_path / "model.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "results.json").write_bytes((demo / "results.json").read_bytes())
    assert report(tmp_path, tmp_path / "out", "--virtual", NAME) == FAILED
    assert "9 coefficients for 8 columns" in capsys.readouterr().err


def test_two_runs_beside_each_other(demo: Path, tmp_path: Path) -> None:
    first = demo / "results.json"
    content = json.loads(first.read_text(encoding="utf-8"))
    content["study"]["sha256"] = "ff" * 32
    content["discrimination"]["c_within"]["value"] += 0.05
    second = tmp_path / "second.json"
    second.write_text(json.dumps(content), encoding="utf-8")
    assert main(["report", "--compare", str(first), str(second), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "The runs are of different things" in page
    assert "0.050" in page
    assert main(["report", "--compare", str(first), str(first), "--out", str(tmp_path / "same")]) == 0
    assert "The same study" in (tmp_path / "same" / "comparison.html").read_text(encoding="utf-8")


@pytest.mark.skipif(pdf_printer() is None, reason="neither weasyprint nor a Chromium is installed")
@pytest.mark.slow
def test_the_page_as_pdf(demo: Path, tmp_path: Path) -> None:
    from ctfed.report.site_pdf import write_pdf

    printer = pdf_printer()
    assert printer is not None
    assert report(demo, tmp_path, "--virtual", NAME) == 0
    write_pdf(tmp_path / "local" / "report.html", tmp_path / "report.pdf", printer)
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
