"""The pool: a process that dies takes nobody else along, Ctrl-C is prompt, nothing is reached over a network."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctfed.preparation.pool import Died, run_jobs

_BOX: list[str] = []


def keep(word: str) -> None:
    _BOX.append(word)


def work(job: tuple[str, str]) -> str:
    """What each kind of job does; ``job`` is (kind, argument)."""
    kind, argument = job
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "die once":
        path = Path(argument)
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if kind == "raise":
        raise ValueError(argument)
    if kind == "connect":
        try:
            socket.create_connection(("127.0.0.1", int(argument)), timeout=1)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "connected"
    if kind == "threads":
        return os.environ["OMP_NUM_THREADS"]
    if kind == "process":
        return str(os.getpid())
    return f"{_BOX[0]} {argument}"


def test_each_death_is_its_own_jobs_and_is_tried_twice(tmp_path: Path) -> None:
    jobs = [("echo", str(i)) for i in range(4)]
    jobs.insert(1, ("die", ""))
    jobs.insert(3, ("die once", str(tmp_path / "mark")))
    answers = dict(run_jobs(work, jobs, 2, prepare=keep, arguments=("said",)))
    assert len(answers) == len(jobs)
    assert answers[("die", "")] == Died(("die", ""))
    assert answers[("die once", str(tmp_path / "mark"))] == f"said {tmp_path / 'mark'}"
    assert [answers[("echo", str(i))] for i in range(4)] == [f"said {i}" for i in range(4)]


def test_what_work_raises_stops_the_run() -> None:
    with pytest.raises(ValueError, match="no weights"):
        list(run_jobs(work, [("raise", "no weights"), *[("echo", "x")] * 3], 1, prepare=keep, arguments=("",)))


def test_a_process_reaches_no_network_and_uses_one_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        jobs = [("connect", str(port)), ("threads", "")]
        before = os.environ.get("OMP_NUM_THREADS")
        answers = dict(run_jobs(work, jobs, 1))
        assert os.environ.get("OMP_NUM_THREADS") == before
    assert answers[jobs[0]].startswith("CtfedError: a library tried to open a connection (socket.")  # type: ignore[union-attr]
    assert answers[jobs[1]] == "1"


def test_processes_are_replaced_after_some_jobs() -> None:
    jobs = [("process", str(i)) for i in range(4)]
    pids = [answer for _, answer in run_jobs(work, jobs, 1, recycled=2)]
    assert len(set(pids)) == 2  # type: ignore[arg-type]


_RUN = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from ctfed.preparation.pool import run_jobs
from pool_work import long_work

if __name__ == "__main__":
    try:
        for job, answer in run_jobs(long_work, [sys.argv[2]] * 3, 2):
            pass
    except KeyboardInterrupt:
        sys.exit(130)
"""
_WORK = """
import os, time
from pathlib import Path

def long_work(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_no_process_outlives_the_run(tmp_path: Path, how: str) -> None:
    (tmp_path / "run.py").write_text(_RUN)
    (tmp_path / "pool_work.py").write_text(_WORK)
    marks = tmp_path / "marks"
    marks.mkdir()
    run = subprocess.Popen([sys.executable, str(tmp_path / "run.py"), str(tmp_path), str(marks)])
    _until(lambda: len(list(marks.iterdir())) == 2)
    pids = [int(path.name) for path in marks.iterdir()]
    run.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
    assert run.wait(timeout=10) == (130 if how == "interrupt" else -signal.SIGKILL)
    _until(lambda: not any(_alive(pid) for pid in pids))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(happened: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
