"""A federation of real processes: SuperLink with TLS and node authentication, three SuperNodes, the code-less bundle.

What leaves the processes must be, bit for bit, what the in-process runner gives, whoever is killed on the way.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from deployment_support import HERE, NAMES, STUDY, Federation, descendants
from flower_support import in_process, sites

from ctfed import node
from ctfed.cohort import load_cohort
from ctfed.site import load_site
from ctfed.study import load_study
from server.conductor import Conductor
from server.journal import Journal
from server.transport import FlowerTransport

pytestmark = [pytest.mark.deployment, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

sys.path.insert(0, str(HERE / "stand_in"))
from stand_in_study import wandering_moments  # noqa: E402

START = 90.0  # s; 15 are usual, a busy machine needs more


def pooled_bits(federation: Federation) -> bytes:
    """The same rounds over the same sites' files, in this process."""
    study = load_study(STUDY)
    cohorts = {name: load_cohort(load_site(federation.folder / "sites" / name / "site.yaml"), study) for name in NAMES}
    seats = node.seats_of_cohorts(cohorts)
    with sites({name: lambda name=name: seats({"site": name}).open() for name in NAMES}):  # type: ignore[misc]
        transport = FlowerTransport.connect(in_process(NAMES), NAMES, runner="in-process", tell=lambda _: None)
        journal = Journal(federation.folder / "oracle" / "journal.jsonl", {"sites": list(NAMES)})
        return Conductor(transport, journal).run(wandering_moments(federation.rounds))


def test_a_deployed_study_gives_the_bits_of_the_in_process_one(tmp_path: Path) -> None:
    with Federation(tmp_path, rounds=2) as federation:
        for name in NAMES:
            federation.join(name)
        federation.serve()
        assert federation.wait(START) == 0, federation.output()
        assert federation.totals() == pooled_bits(federation)
        assert "finished:completed" in federation.output()
        below = [pid for process in federation.processes.values() for pid in descendants(process.pid)]
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()], "a process was left behind"
    assert not (tmp_path / "home").exists(), "something was written to the home folder"


@pytest.mark.slow
def test_a_server_that_is_killed_after_every_round_ends_with_the_same_bits(tmp_path: Path) -> None:
    with Federation(tmp_path, rounds=3) as federation:
        for name in NAMES:
            federation.join(name)
        for number in range(1, federation.rounds):
            federation.serve()
            federation.await_rounds(number, START)
            federation.kill("server")
        federation.serve()
        assert federation.wait(START) == 0, federation.output()
        assert "round 0 replayed" in federation.output()
        assert federation.totals() == pooled_bits(federation)


@pytest.mark.slow
def test_a_site_that_is_killed_is_waited_for(tmp_path: Path) -> None:
    """Flower takes a SuperNode back 60 s after it was killed; until then it ends with code 305 and is started again."""
    with Federation(tmp_path, rounds=8) as federation:
        for name in NAMES:
            federation.join(name)
        federation.serve()
        federation.await_rounds(1, START)
        federation.kill("lyon")
        federation.join("lyon")
        assert federation.wait(300.0) == 0, federation.output()
        assert federation.totals() == pooled_bits(federation)
        assert "waiting" in federation.output()


@pytest.mark.slow
def test_flowers_own_executor_gives_the_same_bits(tmp_path: Path) -> None:
    with Federation(tmp_path, rounds=2) as federation:
        for name in NAMES:
            federation.join(name, executor="stock")
        federation.serve()
        assert federation.wait(240.0) == 0, federation.output()
        assert federation.totals() == pooled_bits(federation)


@pytest.mark.slow
def test_a_site_that_does_not_come_ends_the_run_in_words(tmp_path: Path) -> None:
    with Federation(tmp_path, rounds=1) as federation:
        for name in NAMES[:2]:
            federation.join(name)
        federation.serve(**{"join-deadline": 20.0})
        assert federation.wait(START) == 1
        assert "the roster is not complete" in federation.output()
        assert "oslo" in federation.output()
