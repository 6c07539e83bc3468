"""What goes wrong at hospitals, with real processes: each fault has its sentence, and no fault changes a number.

docs/faults.md lists all faults, with the tests of other files that show the rest of them.
"""

from __future__ import annotations

import datetime
import shutil
import sys
import time
from pathlib import Path

import pytest
from deployment_support import NAMES
from faults_support import (
    FaultyFederation,
    Network,
    bare_superlink,
    date_certificate,
    fill,
    hostile_bundle,
    public_port,
    small_disk,
    why_no_mount,
    why_no_network,
)
from test_deployment import START, pooled_bits

from ctfed.federation.errors import CtfedError
from ctfed.federation.flower.bundle import build_bundle
from ctfed.federation.flower.control import ControlClient
from ctfed.keys import NODE_KEY, make_node_key
from server.deploy import await_health, follow
from server.provision import make_trial_keys, provision, read_hub

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

CUT = 60.0  # s; what Flower needs to declare a node away


def test_a_site_whose_network_is_cut_for_a_minute_goes_on(tmp_path: Path) -> None:
    if reason := why_no_network():
        pytest.skip(reason)
    with Network() as network, FaultyFederation(tmp_path, rounds=6) as federation:
        provision(tmp_path, make_trial_keys(tmp_path, NAMES), f"{network.here}:{federation.port}")
        for name in ("bern", "oslo"):
            federation.join(name)
        federation.join_with("lyon", prefix=network.inside)
        federation.serve_everywhere()
        federation.await_rounds(1, START)
        network.cut()
        time.sleep(CUT / 4)  # what was under way has arrived, or never will
        done = federation.journalled()
        time.sleep(CUT * 3 / 4)
        assert federation.journalled() == done < federation.rounds, "a round was summed without the site"
        assert "2 of 3 sites have answered" in federation.output()
        network.plug()
        assert federation.wait(START) == 0, federation.output()
        assert "waiting" in federation.output()
        assert federation.totals() == pooled_bits(federation)
        assert sorted(federation.answered("lyon")) == list(range(federation.rounds))


def test_a_site_whose_disk_is_full_answers_nothing_until_there_is_room(tmp_path: Path) -> None:
    with FaultyFederation(tmp_path, rounds=30) as federation:
        ledger = tmp_path / "sites" / "lyon" / "ledger"
        if reason := why_no_mount(ledger):
            pytest.skip(reason)
        with small_disk(ledger, 128):
            for name in NAMES:
                federation.join(name)
            federation.serve(**{"ask-again": 0.5})
            federation.await_rounds(1, START)
            fill(ledger / "other")
            federation.await_words("lyon (error:LedgerError")
            done = federation.journalled()
            assert "No space left on device" in federation.node_log("lyon")
            assert "No space left" not in federation.output(), "the server is told a class, no more"
            assert done < federation.rounds
            (ledger / "other").unlink()
            assert federation.wait(START) == 0, federation.output()
            assert federation.totals() == pooled_bits(federation)
            assert federation.answered("lyon") == list(range(federation.rounds))


@pytest.mark.parametrize(
    ("begin", "end", "said"), [(-9, -1, "certificate has expired"), (1, 9, "certificate is not yet valid")]
)
def test_a_certificate_out_of_its_dates_is_named_at_once_on_both_sides(
    tmp_path: Path, begin: int, end: int, said: str
) -> None:
    with FaultyFederation(tmp_path, rounds=1) as federation:
        date_certificate(tmp_path, datetime.timedelta(days=begin), datetime.timedelta(days=end))
        started = time.monotonic()
        federation.serve()
        assert federation.wait(START) != 0
        assert time.monotonic() - started < 60
        assert said in federation.output()
        with bare_superlink(federation):
            federation.join("lyon")
            federation.await_words(f"the server's certificate is not accepted: {said}", "lyon")
        assert federation.answered("lyon") == []


@pytest.mark.parametrize("ahead", ["60", "-400"])  # s; Flower accepts 5 ahead and 305 behind
def test_a_site_whose_clock_is_wrong_is_not_taken_in_until_it_is_right(tmp_path: Path, ahead: str) -> None:
    with FaultyFederation(tmp_path, rounds=1) as federation:
        for name in ("bern", "oslo"):
            federation.join(name)
        federation.join_with("lyon", clock=ahead)
        federation.serve()
        federation.await_words("is this clock right?", "lyon", START)
        federation.await_words("waiting for lyon")
        federation.kill("lyon")
        federation.join("lyon")
        assert federation.wait(START) == 0, federation.output()
        assert federation.totals() == pooled_bits(federation)


def test_a_node_with_a_key_that_is_not_registered_gets_nowhere(tmp_path: Path) -> None:
    with FaultyFederation(tmp_path, rounds=2) as federation:
        folder = federation.copy_site("lyon", "stranger")
        (folder / NODE_KEY).unlink()
        make_node_key(folder)
        federation.join("stranger")
        for name in ("bern", "oslo"):
            federation.join(name)
        federation.serve()
        federation.await_words("the server does not know this site's key", "stranger", START)
        federation.await_words("waiting for lyon")
        assert federation.journalled() == 0
        federation.join("lyon")
        assert federation.wait(START) == 0, federation.output()
        assert federation.totals() == pooled_bits(federation)
        assert federation.answered("stranger") == []


def test_a_second_node_with_the_key_of_a_site_is_kept_out_while_the_first_is_there(tmp_path: Path) -> None:
    with FaultyFederation(tmp_path, rounds=30) as federation:
        for name in NAMES:
            federation.join(name)
        federation.serve()
        federation.await_rounds(1, START)
        federation.copy_site("lyon", "twin")
        federation.join("twin")
        federation.await_words("still waits for its former process to be timed out", "twin")
        assert federation.wait(START) == 0, federation.output()
        assert federation.totals() == pooled_bits(federation)
        assert federation.answered("lyon") == list(range(federation.rounds))


def test_two_sites_that_call_themselves_the_same_end_the_run_in_words(tmp_path: Path) -> None:
    with FaultyFederation(tmp_path, rounds=1) as federation:
        twin = federation.copy_site("lyon", "twin")
        (twin / NODE_KEY).write_bytes((tmp_path / "sites" / "oslo" / NODE_KEY).read_bytes())
        for name in ("bern", "lyon", "twin"):
            federation.join(name)
        federation.serve()
        assert federation.wait(START) == 1
        assert "call themselves 'lyon'" in federation.output()
        assert federation.journalled() == 0


def test_a_site_with_another_version_ends_the_run_in_words(tmp_path: Path) -> None:
    with FaultyFederation(tmp_path, rounds=1) as federation:
        for name in ("bern", "oslo"):
            federation.join(name)
        federation.join_with("lyon", version="0.0.1")
        federation.serve()
        assert federation.wait(START) == 1
        assert "site 'lyon' runs ctfed 0.0.1, the server" in federation.output()
        assert "install the same version" in federation.output()
        assert federation.journalled() == 0


def test_a_site_that_speaks_another_format_is_named_and_ends_the_run(tmp_path: Path) -> None:
    with FaultyFederation(tmp_path, rounds=1) as federation:
        for name in ("bern", "oslo"):
            federation.join(name)
        federation.join_with("lyon", format="1")
        federation.serve()
        assert federation.wait(START) == 1
        assert "lyon: error:MalformedMessage" in federation.output()
        assert "install the same version of ctfed" in federation.output()
        assert "this site understands 1" in federation.node_log("lyon")
        assert federation.answered("lyon") == []


def test_a_bundle_with_code_runs_at_no_site_with_the_warm_executor(tmp_path: Path) -> None:
    """At oslo, with Flower's own executor, it does run: that shows that the bundle works, and what the switch means."""
    marks = tmp_path / "marks"
    marks.mkdir()
    with FaultyFederation(tmp_path, rounds=1) as federation, bare_superlink(federation) as superlink:
        address, authority = f"127.0.0.1:{federation.port}", tmp_path / "server" / "ca.crt"
        await_health(superlink, address, authority)
        for name in NAMES:
            federation.join(name, executor="stock" if name == "oslo" else "warm")
        lines: list[str] = []
        with ControlClient(address, authority) as control:
            control.register(read_hub(tmp_path / "server" / "hub.json").keys)
            follow(control, control.start(hostile_bundle(marks), {}), lines.append)
        assert sorted(path.name for path in marks.iterdir()) == ["hub", "oslo"]
        replies = sorted(line.strip() for line in lines if "reply:" in line)
        assert replies == ["reply: answered", *["reply: refused:bundle_carries_code"] * 2]
        for name in ("bern", "lyon"):
            assert "the bundle carries 1 files that it must not: ['hostile.py']" in federation.node_log(name)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not here")
def test_through_the_public_port_sites_join_and_nobody_starts_a_run(tmp_path: Path) -> None:
    with FaultyFederation(tmp_path, rounds=2) as federation, public_port(federation) as address:
        for name in NAMES:
            federation.join(name)
        federation.serve()
        federation.await_words("waiting for 3 sites", seconds=START)
        stranger = make_node_key(tmp_path)
        with ControlClient(address, tmp_path / "server" / "ca.crt") as control:
            with pytest.raises(CtfedError, match=r"did not start the run: .*403"):
                control.start(build_bundle(), {})
            with pytest.raises(CtfedError, match=r"did not register the sites: .*403"):
                control.register({"stranger": stranger})
            with pytest.raises(CtfedError, match=r"which runs it has: .*403"):
                control.unfinished()
        assert federation.wait(START) == 0, federation.output()
        assert federation.totals() == pooled_bits(federation)
