"""Child processes are restarted with a growing wait, given up in words, and never left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deployment_support import NAMES, STUDY, write_site

from ctfed.federation.errors import CtfedError
from ctfed.federation.flower import pace, processes
from ctfed.federation.flower.processes import Child, ProcessFailed, child_environment
from ctfed.node import JoinSettings, join
from ctfed.trust import NotApproved
from server.provision import make_trial_keys, provision


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def spawn(tmp_path: Path, lines: list[str]) -> Iterator[object]:
    started: list[Child] = []

    def make(code: str) -> Child:
        child = Child("node", [sys.executable, "-c", code], child_environment(tmp_path), lines.append, tmp_path / "log")
        started.append(child)
        return child

    yield make
    for child in started:
        child.stop(2.0)


def _until(condition: object, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_flower_exit_code_is_read_from_the_output(spawn, lines, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(processes, "BACKOFF", 0.05)
    child = spawn("print('\\x1b[91mERROR\\x1b[0m: Exit Code: 305'); raise SystemExit(1)")
    child.start()
    _until(lambda: not child.alive)
    assert child.code == 305
    child.keep_alive()
    assert any("ended with code 305 (the server does not know this site's key" in line for line in lines)
    _until(lambda: (child.keep_alive(), (tmp_path / "log").read_text().count("305") >= 3)[1])
    assert "\x1b" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "print('[SSL: C_V_F] certificate verify failed: certificate has expired (_ssl.c:1006)');"
            "print('Exit Code: 305'); raise SystemExit(1)",
            "code 305 (the server's certificate is not accepted: certificate has expired; `ctfed doctor` shows",
        ),
        ("pass", "code 0 (without being stopped: the server does not accept its signature; is this clock right?"),
    ],
)
def test_why_a_node_ended_is_told(spawn, lines, code: str, words: str) -> None:  # type: ignore[no-untyped-def]
    child = spawn(code)
    child.start()
    _until(lambda: not child.alive)
    child.keep_alive()
    assert any(words in line for line in lines), lines


def test_a_code_that_no_restart_cures_ends_in_words(spawn) -> None:  # type: ignore[no-untyped-def]
    child = spawn("print('Exit Code: 302'); print('Unable to parse the private key file.'); raise SystemExit(1)")
    child.start()
    _until(lambda: not child.alive)
    with pytest.raises(ProcessFailed, match=r"302.*Unable to parse the private key file"):
        child.keep_alive()


def test_stop_ends_the_whole_group(spawn, lines, tmp_path) -> None:  # type: ignore[no-untyped-def]
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); print('up', flush=True); time.sleep(600)"
    )
    child = spawn(code)
    child.start()
    _until(lambda: (tmp_path / "log").exists() and "up" in (tmp_path / "log").read_text())
    grandchild = int((tmp_path / "pid").read_text())
    child.stop(0.3)
    assert not child.alive
    assert any("is killed" in line for line in lines)
    _until(lambda: not _runs(grandchild))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's own")
def test_a_child_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ctfed.federation.flower.processes import *;"
        "folder = Path(sys.argv[1]);"
        "c = Child('c', [sys.executable, '-c', 'import time; time.sleep(600)'], child_environment(folder), print, "
        "folder / 'log'); c.start(); print(c.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert _runs(pid)
        parent.kill()
    _until(lambda: not _runs(pid))


def test_the_environment_keeps_flower_quiet_and_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet")
    environment = child_environment(tmp_path, {"EXTRA": "1"})
    assert environment["FLWR_HOME"] == str(tmp_path)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["EXTRA"] == "1"


def test_rests_grow_while_idle_and_shrink_when_something_comes() -> None:
    slept: list[float] = []
    rest = pace.Rest(0.2, 3.0, slept.append)
    for _ in range(200):
        rest.as_flower_sleeps(3.0)
    assert slept[0] == 0.2
    assert slept == sorted(slept)
    assert slept[-1] == 3.0
    rest.as_flower_sleeps(0.5)
    rest.as_flower_sleeps(3.0)
    assert slept[-2:] == [pace.BUSY_REST, 0.2]


def test_this_flwr_can_be_quickened() -> None:
    """Fails when another flwr is installed than the one whose inside ctfed knows."""
    from flwr.supernode import start_client_internal

    code = (
        "from ctfed.federation.flower import pace, serverapp, supernode;"
        "pace.quicken_object_pulls(); pace.quicken_supernode(); pace.quicken_retries();"
        "supernode.receive_whole_messages(); supernode.ask_to_be_taken_in(); serverapp.do_not_wait_for_logs()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert start_client_internal.time is time, "nothing was changed in this process"


def test_a_message_of_an_ended_run_is_let_go() -> None:
    """Flower raises what its own clean-up does not catch; the task would keep the executor for an hour and more."""
    code = """
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import start_client_internal
from ctfed.federation.flower import supernode

def ended(object_id):
    raise RunNotRunningException

supernode.receive_whole_messages()
try:
    start_client_internal.pull_objects(["object"], pull_object_fn=ended)
except Exception as error:
    assert isinstance(error, supernode.RunEnded)
    print("let go")
"""
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown == "let go\n"


def test_join_names_the_file_that_is_missing(tmp_path: Path) -> None:
    settings = JoinSettings(tmp_path / "site.yaml", tmp_path / "s", "hub:1", tmp_path / "c", tmp_path / "k", tmp_path)
    with pytest.raises(CtfedError, match=r"needs the file .*site\.yaml"):
        join(settings)


def test_join_starts_nothing_before_somebody_approved(tmp_path: Path) -> None:
    provision(tmp_path, make_trial_keys(tmp_path, NAMES), "127.0.0.1:1")
    folder = tmp_path / "sites" / NAMES[0]
    write_site(folder, NAMES[0], np.random.default_rng(0))
    files = (folder / "site.yaml", STUDY, "127.0.0.1:1", folder / "ca.crt", folder / "supernode.key")
    with pytest.raises(NotApproved, match="study-not-approved"):
        join(JoinSettings(*files, state=tmp_path / "state"), tell=lambda _: None)
    assert not (tmp_path / "state").exists()
