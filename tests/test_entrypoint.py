"""The images' front door: arguments or variables, any user, root that becomes another, process 1."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "entrypoint.py"
ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can change its user")


def load() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("ctfed_entrypoint", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


entrypoint = load()


def start(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the script as an image would, as this user and with nothing of this environment."""
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", **environ}
    return subprocess.run(
        [sys.executable, "-B", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False
    )


# -- what to run


def test_variables_stand_for_the_same_arguments() -> None:
    environ = {"CTFED_COMMAND": "join", "CTFED_SITE": "/s.yaml", "CTFED_STUDY": "/t.yaml", "CTFED_TMP": "/tmp/x"}
    command = entrypoint.command_of(environ)
    assert command == ["join", "/s.yaml", "--study", "/t.yaml", "--state", "/tmp/x/node"]
    assert "--folder" in entrypoint.command_of({**environ, "CTFED_FOLDER": "/keys"})


def test_every_command_of_the_table_is_one_that_ctfed_takes() -> None:
    from ctfed.cli import build_parser

    named = {variable: "8000" for table in entrypoint.COMMANDS.values() for variable, _, _ in table}
    for name in entrypoint.COMMANDS:
        build_parser().parse_args(entrypoint.command_of({**named, "CTFED_COMMAND": name}))


def test_further_arguments_are_appended_and_several_sites_are_several_options() -> None:
    environ = {"CTFED_COMMAND": "simulate", "CTFED_STUDY": "t", "CTFED_SITE": "a:b", "CTFED_OUT": "o"}
    command = entrypoint.command_of({**environ, "CTFED_ARGUMENTS": "--policy 'my policy'"})
    assert command == ["simulate", "t", "--site", "a", "--site", "b", "--out", "o", "--policy", "my policy"]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"CTFED_COMMAND": "dance"}, "CTFED_COMMAND: found 'dance', expected approve,"),
        ({"CTFED_COMMAND": "serve"}, "CTFED_STUDY: found nothing"),
    ],
)
def test_wrong_variables_are_a_sentence(environ: dict[str, str], said: str) -> None:
    with pytest.raises(entrypoint.Refused, match=said):
        entrypoint.command_of(environ)


def test_arguments_win_over_variables_and_nothing_is_help(tmp_path: Path) -> None:
    told = start("--version", CTFED_COMMAND="dance", CTFED_TMP=str(tmp_path / "t"), HOST_UID="0")
    assert (told.returncode, told.stdout.startswith("ctfed ")) == (0, True)
    assert start(CTFED_TMP=str(tmp_path / "t"), HOST_UID="0").stdout.startswith("usage: ctfed")


# -- who runs it


def test_a_user_without_name_or_home_gets_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"HOME": "/nonexistent", "CTFED_TMP": str(tmp_path / "t"), "TORCH_HOME": "/kept"}
    entrypoint.settle(environ)
    assert Path(environ["HOME"]) == tmp_path / "t" / "home"
    assert Path(environ["HOME"]).is_dir()
    assert environ["USER"] == f"uid{os.getuid()}"
    assert environ["TORCH_HOME"] == "/kept"
    assert environ["MPLCONFIGDIR"] == str(tmp_path / "t" / "matplotlib")


def test_without_a_writable_folder_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(entrypoint.Refused, match="set CTFED_TMP"):
        entrypoint.settle({"CTFED_TMP": str(tmp_path / "file" / "below")})


@pytest.mark.parametrize("text", ["-1", "abc", "99999999999", "1.5"])
def test_a_user_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(entrypoint.Refused, match="HOST_UID"):
        entrypoint._as_id("HOST_UID", text)


PROBE = (
    "import os, runpy, sys; e = runpy.run_path({script!r}); e['become_user'](os.environ); "
    "new = [l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapEff', 'NoNewPrivs'))]; "
    "print(*os.getresuid(), *os.getresgid(), sorted(os.getgroups()), *new)"
)


@ROOT
@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "1000 1000 1000 1000 1000 1000 [1000] 0000000000000000 1"),
        (
            {"HOST_UID": "4321", "HOST_GID": "99", "HOST_GROUPS": "7, 8"},
            "4321 4321 4321 99 99 99 [7, 8, 99] 0000000000000000 1",
        ),
    ],
)
def test_root_becomes_the_user_without_a_way_back(environ: dict[str, str], expected: str) -> None:
    told = subprocess.run(
        [sys.executable, "-B", "-c", PROBE.format(script=str(SCRIPT))],
        env={"PATH": os.defpath, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stdout.strip() == expected, told.stderr


@ROOT
def test_the_output_folder_becomes_the_users_and_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    (link := tmp_path.with_name("link")).symlink_to(tmp_path)
    entrypoint._own(str(link), 4321, 99)
    assert tmp_path.stat().st_uid == 0, "a link is not followed"
    entrypoint._own(str(tmp_path), 4321, 99)
    assert (tmp_path.stat().st_uid, (tmp_path / "old").stat().st_uid) == (4321, 0)


# -- process 1

FIRST = (
    "import os, runpy, signal, subprocess, sys, time\n"
    "e = runpy.run_path({script!r})\n"
    "g = e['as_first_process'].__globals__\n"
    "def work(command):\n"
    "    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\n"
    "    subprocess.Popen(['true'], start_new_session=True)\n"
    "    print('up', flush=True)\n"
    "    time.sleep(command)\n"
    "    return 5\n"
    "g['run'] = work\n"
    "sys.exit(e['as_first_process']({seconds}))\n"
)


def first(seconds: float) -> subprocess.Popen[str]:
    """A process that does what process 1 of a container does."""
    code = FIRST.format(script=str(SCRIPT), seconds=seconds)
    return subprocess.Popen([sys.executable, "-B", "-c", code], stdout=subprocess.PIPE, text=True)


def test_the_exit_code_of_the_command_is_the_containers() -> None:
    assert first(0).wait(20) == 5


def test_a_signal_to_process_one_reaches_the_command() -> None:
    process = first(30)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 7
    assert time.monotonic() - begun < 10
