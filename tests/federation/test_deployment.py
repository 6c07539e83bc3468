"""A federation of real processes: SuperLink with TLS and node authentication, three SuperNodes, the code-less bundle.

Every site has approved the study and masks its answers. The totals must be, bit for bit, what the in-process runner
gives without masks, whoever is killed on the way.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from deployment_support import HERE, NAMES, STUDY, Federation, descendants
from flower_support import in_process, sites

from ctfed import node
from ctfed.cohort import load_cohort
from ctfed.federation.roster import Roster, read_roster
from ctfed.keys import make_site_keys
from ctfed.site import load_site
from ctfed.study import load_study
from server.conductor import Conductor
from server.journal import Journal
from server.transport import FlowerTransport

pytestmark = [pytest.mark.deployment, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

sys.path.insert(0, str(HERE / "stand_in"))
from stand_in_study import wandering_moments  # noqa: E402

START = 90.0  # s; 15 are usual, a busy machine needs more
RESTART = 200.0  # s; a site may first have to give up, with Flower's growing waits, what a killed server was sending


def pooled_bits(federation: Federation) -> bytes:
    """The same rounds over the same sites' files, in this process and in the clear."""
    study = load_study(STUDY)
    cohorts = {name: load_cohort(load_site(federation.folder / "sites" / name / "site.yaml"), study) for name in NAMES}
    seats = node.seats_of_cohorts(cohorts)
    with sites({name: lambda name=name: seats({"site": name}).open() for name in NAMES}):  # type: ignore[misc]
        transport = FlowerTransport.connect(in_process(NAMES), NAMES, runner="in-process", tell=lambda _: None)
        journal = Journal(federation.folder / "oracle" / "journal.jsonl", {"sites": list(NAMES)})
        return Conductor(transport, journal).run(wandering_moments(study, federation.rounds))


def test_a_deployed_study_gives_the_bits_of_the_in_process_one(tmp_path: Path) -> None:
    with Federation(tmp_path, rounds=2) as federation:
        for name in NAMES:
            federation.join(name)
        federation.serve()
        assert federation.wait(START) == 0, federation.output()
        assert federation.totals() == pooled_bits(federation)
        assert "finished:completed" in federation.output()
        assert "masked: 3 sites have opened the run" in federation.output()
        assert all("masked: study ncctg_lung" in federation.output(name) for name in NAMES)
        below = [pid for process in federation.processes.values() for pid in descendants(process.pid)]
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()], "a process was left behind"
    assert not (tmp_path / "home").exists(), "something was written to the home folder"
    assert (tmp_path / "hub" / "superlink.db").exists()
    assert not (tmp_path / "server" / "state").exists(), "something was written beside the server's keys"


def test_a_round_that_the_server_lost_is_answered_with_the_stored_bits(tmp_path: Path) -> None:
    """Computed again under the same masks, it would be the same; the ledger shows that it was not computed again."""
    with Federation(tmp_path, rounds=2) as federation:
        for name in NAMES:
            federation.join(name)
        federation.serve()
        assert federation.wait(START) == 0, federation.output()
        first = federation.totals()
        federation.lose_last_round()
        (federation.out / "totals.txt").unlink()
        federation.serve()
        assert federation.wait(START) == 0, federation.output()
        assert federation.totals() == first == pooled_bits(federation)
        assert {name: federation.answered(name) for name in NAMES} == {name: [0, 1] for name in NAMES}


@pytest.mark.slow
def test_a_server_that_is_killed_after_every_round_ends_with_the_same_bits(tmp_path: Path) -> None:
    with Federation(tmp_path, rounds=3) as federation:
        for name in NAMES:
            federation.join(name)
        for number in range(1, federation.rounds):
            federation.serve()
            federation.await_rounds(number, RESTART)
            federation.kill("server")
        federation.serve()
        assert federation.wait(RESTART) == 0, federation.output()
        assert "round 0 replayed" in federation.output()
        assert federation.totals() == pooled_bits(federation)
        assert all(sorted(federation.answered(name)) == [0, 1, 2] for name in NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flower-superlink", "the SuperLink ended during the run"),
        ("flower.serverapp", "the ServerApp's process ended with"),
    ],
)
def test_a_server_that_loses_one_of_its_processes_ends_in_words_and_goes_on(
    tmp_path: Path, name: str, said: str
) -> None:
    with Federation(tmp_path, rounds=4) as federation:
        for site in NAMES:
            federation.join(site)
        federation.serve()
        federation.await_rounds(1, START)
        federation.kill_below("server", name)
        assert federation.wait(START) != 0
        assert said in federation.output()
        federation.serve()
        assert federation.wait(RESTART) == 0, federation.output()
        assert federation.totals() == pooled_bits(federation)


def test_sites_that_approved_another_study_or_roster_are_named_with_their_rule(tmp_path: Path) -> None:
    with Federation(tmp_path, rounds=1) as federation:
        other = tmp_path / "other.yaml"
        other.write_text(
            STUDY.read_text(encoding="utf-8").replace("bootstrap: 1000", "bootstrap: 999"), encoding="utf-8"
        )
        federation.approve("lyon", other)
        roster = tmp_path / "sites" / "oslo" / "roster.json"
        keys = dict(read_roster(roster).keys)
        Roster(keys | {"bern": make_site_keys(tmp_path / "another bern", "bern").mask}).write(roster)
        federation.approve("oslo")
        federation.join("bern")
        federation.join("lyon", study=other)
        federation.join("oslo")
        federation.serve(**{"refused-deadline": 5.0})
        assert federation.wait(START) == 1
        said = federation.output()
        assert "the opening of the run stops" in said
        assert "lyon: refused:study-not-approved" in said
        assert "study-not-approved: the site's steward approves the study" in said
        assert "oslo: refused:roster-not-approved" in said
        assert federation.journalled() == 0
        assert all(federation.answered(name) == [] for name in NAMES)


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
