"""`ctfed serve` keeps its files where it is told to, and names what stops it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from deployment_support import NAMES, STUDY

from ctfed.cli import main
from server.provision import make_trial_keys, provision


@pytest.mark.parametrize("given", [True, False])
def test_what_the_superlink_writes_is_in_the_folder_of_state(
    tmp_path: Path, given: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The port is taken, so that the SuperLink ends soon after its start."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        provision(tmp_path / "kit", make_trial_keys(tmp_path / "kit", NAMES), f"127.0.0.1:{port}")
        server, state = tmp_path / "kit" / "server", tmp_path / "mount" / "state"
        before = {path.name for path in server.iterdir()}
        command = ["serve", str(STUDY), "--folder", str(server), "--out", str(tmp_path / "out"), "--port", str(port)]
        assert main([*command, *(["--state", str(state)] if given else [])]) != 0
    assert "the SuperLink ended with code" in capsys.readouterr().err
    written = {path.name for path in server.iterdir()} - before
    assert written == (set() if given else {"state"})
    held = state if given else server / "state"
    assert (held / "superlink.log").stat().st_size > 0
    assert not list(held.glob("*.secret")), "a secret was left behind"
    assert held.stat().st_mode & 0o077 == 0
