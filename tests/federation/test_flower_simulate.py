"""`ctfed simulate`: real cohorts, both apps, one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from deployment_support import HERE, NAMES, STUDY, write_site

from ctfed import node
from ctfed.federation.errors import CtfedError
from ctfed.federation.flower.grid import Fault, SimulatedCrash
from ctfed.federation.policy import Policy
from ctfed.federation.wire import Invitation, encode_invitation, read_opening
from ctfed.simulated import simulated_roster, write_simulated
from ctfed.study import load_study
from server import simulate as simulate_module
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


@pytest.mark.parametrize(("minimum", "splits"), [(1, ("train", "test")), (1000, ())])
def test_a_simulated_node_with_keys_answers_with_its_own_guard(
    site_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minimum: int, splits: tuple[str, ...]
) -> None:
    """Key, roster and limits come from the folder that whoever starts the simulation names, not from the server."""
    keys = tmp_path / "keys"
    roster = simulated_roster(NAMES, keys)
    write_simulated(keys, roster, Policy(min_patients=minimum, min_events=1))
    monkeypatch.setenv(node.SIMULATED_SITES, ":".join(map(str, site_files)))
    monkeypatch.setenv(node.SIMULATED_STUDY, str(STUDY))
    monkeypatch.setenv(node.SIMULATED_KEYS, str(keys))
    question = encode_invitation(Invitation("run-1", load_study(STUDY).sha256, roster.digest))
    for index, name in enumerate(NAMES):
        opening = read_opening(node.seat_from_site_file({"partition-id": index}).open().answer(question), question)
        assert (opening.site, opening.splits) == (name, splits)
        assert (keys / name / "ledger.jsonl").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_a_simulation_leaves_running_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers are in no process group of Flower's; they are found by the home folder in their environment."""
    monkeypatch.setattr(simulate_module, "LINGER", 0.3)
    sleep = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    homes = (tmp_path, tmp_path / "another")
    own, other = (
        subprocess.Popen(
            sleep, env=os.environ | {"FLWR_HOME": str(home)}, start_new_session=True, stdout=subprocess.PIPE
        )
        for home in homes
    )
    try:
        for process in (own, other):
            assert process.stdout is not None
            process.stdout.readline()
        lines: list[str] = []
        simulate_module._end_stragglers(tmp_path, lines.append)
        assert own.wait(5) == -signal.SIGKILL
        assert other.poll() is None
        assert lines == [f"process {own.pid} of the simulation did not end within 0 s and is killed"]
    finally:
        for process in (own, other):
            process.kill()
            process.communicate()
