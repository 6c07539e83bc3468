"""The ServerApp and the ClientApp: thin, and the same objects on every runner."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from flower_support import SITES, Doubler, Failing, connect, in_process, question, sites

from ctfed import node
from ctfed.federation.errors import CtfedError
from ctfed.federation.flower.grid import InProcessGrid, run_server_app
from server import app as server_app
from server.transport import FlowerTransport, Tell


@pytest.fixture
def study_runner() -> Iterator[list[object]]:
    seen: list[object] = []

    def run(study: Path, out: Path, transport: FlowerTransport, journal: Path, tell: Tell) -> None:
        seen.extend([study, out, transport.sites, transport.runner, journal])
        seen.append(transport.ask(0, dict.fromkeys(transport.sites, question(0))))

    server_app.set_study_runner(run)
    yield seen
    server_app.set_study_runner(None)


def _run(tmp_path: Path, **config: str | float) -> InProcessGrid:
    grid = in_process()
    grid.run_config = {
        "study": "study.yaml",
        "out": str(tmp_path / "out"),
        "runner": "in-process",
        "round-deadline": 5.0,
        **config,
    }
    run_server_app(server_app.app, grid)
    return grid


def test_the_server_app_runs_the_study_over_the_roster(study_runner: list[object], tmp_path: Path) -> None:
    with sites(dict.fromkeys(SITES, Doubler)):
        _run(tmp_path)
    out = tmp_path / "out"
    assert study_runner[:5] == [Path("study.yaml"), out, SITES, "in-process", out / "journal"]
    assert out.is_dir()
    assert list(study_runner[5]) == list(SITES)  # type: ignore[call-overload]


def test_a_missing_key_is_an_error_in_words(study_runner: list[object], tmp_path: Path) -> None:
    with pytest.raises(CtfedError, match="'study' must be a path on the server's disk"):
        _run(tmp_path, study="")


def test_a_deployed_run_needs_its_folder(study_runner: list[object], tmp_path: Path) -> None:
    with pytest.raises(CtfedError, match="needs the run-config key 'folder'"):
        _run(tmp_path, runner="flower-deployment")


def test_details_of_an_error_stay_in_the_local_log(
    study_runner: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Failing(FileNotFoundError("/data/patient_12345.csv"))
    with (
        sites({"bern": Doubler, "lyon": Doubler, "oslo": lambda: broken}),
        caplog.at_level(logging.WARNING),
        pytest.raises(CtfedError) as lost,
    ):
        _run(tmp_path, **{"round-deadline": 0.1, "ask-again": 0.01})
    assert "patient_12345" in caplog.text
    assert "patient_12345" not in str(lost.value)


def test_a_responder_is_opened_once_per_process() -> None:
    opened: list[str] = []

    def open_site() -> Doubler:
        opened.append("bern")
        return Doubler()

    with sites({"bern": open_site}):
        grid = in_process(["bern"])
        transport = connect(grid)
        assert opened == [], "the greeting loads no features"
        for number in range(3):
            transport.ask(number, {"bern": question(number)})
        assert opened == ["bern"]
        node.forget()
        transport.ask(3, {"bern": question(3)})
        assert opened == ["bern", "bern"]


def test_both_adapters_stay_thin() -> None:
    root = Path(server_app.__file__).parents[1]
    for name in ("server/app.py", "ctfed/federation/client_app.py"):
        assert len((root / name).read_text(encoding="utf-8").splitlines()) <= 100
