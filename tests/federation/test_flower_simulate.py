"""`ctfed simulate`: real cohorts, both apps, one process."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from deployment_support import HERE, NAMES, STUDY, write_site

from ctfed import node
from ctfed.federation.errors import CtfedError
from ctfed.federation.flower.grid import Fault, SimulatedCrash
from server import study_run
from server.simulate import simulate

sys.path.insert(0, str(HERE / "stand_in"))
import stand_in_study


@pytest.fixture
def site_files(tmp_path: Path) -> list[Path]:
    for index, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        write_site(tmp_path / name, name, np.random.default_rng(index))
    return [tmp_path / name / "site.yaml" for name in NAMES]


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_run, "run_study", stand_in_study.run_study)


def _totals(out: Path) -> str:
    return (out / "totals.txt").read_text(encoding="utf-8")


def test_faults_and_a_crash_change_no_bit(site_files: list[Path], tmp_path: Path) -> None:
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    simulate(STUDY, site_files, calm, tell=lambda _: None)
    faults = [
        Fault("error", "bern", 1),  # not a lost reply: that is asked for again only after 'silence', a long time
        Fault("stale", "lyon", 1),
        Fault("corrupt", "oslo", 0),
        Fault("duplicate", "oslo", 1),
        Fault("crash", "lyon", 2),
    ]
    lines: list[str] = []
    with pytest.raises(SimulatedCrash):
        simulate(STUDY, site_files, stormy, faults=faults, tell=lines.append)
    assert not (stormy / "totals.txt").exists()
    simulate(STUDY, site_files, stormy, tell=lines.append)
    assert [line for line in lines if "replayed" in line] == ["round 0 replayed", "round 1 replayed"]
    assert _totals(stormy) == _totals(calm)


def test_one_site_name_twice_is_an_error(site_files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(CtfedError, match="more than one site of the name bern"):
        simulate(STUDY, [site_files[0], site_files[0]], tmp_path / "out", tell=lambda _: None)


def test_nothing_is_left_behind_in_the_process(site_files: list[Path], tmp_path: Path) -> None:
    simulate(STUDY, site_files, tmp_path / "out", tell=lambda _: None)
    with pytest.raises(CtfedError, match="this node has no site"):
        node.site_name({"site": "bern"})


def test_ray_is_named_when_it_is_missing(
    site_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.simulate.find_spec", lambda name: None)
    with pytest.raises(CtfedError, match=r"pip install 'ctfed\[simulation\]'"):
        simulate(STUDY, site_files, tmp_path / "out", runner="ray", tell=lambda _: None)


def test_a_simulated_node_knows_its_number_only(site_files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(node.SIMULATED_SITES, ":".join(map(str, site_files)))
    monkeypatch.setenv(node.SIMULATED_STUDY, str(STUDY))
    assert [node.site_name({"partition-id": index}) for index in range(3)] == list(NAMES)
    with pytest.raises(CtfedError, match="no virtual site 3"):
        node.site_name({"partition-id": 3})
