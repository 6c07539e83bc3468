"""The processes of `ctfed serve` and `ctfed join`: each in its own group, followed line by line, never orphaned."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ctfed.federation.disk import private
from ctfed.federation.errors import CtfedError

Tell = Callable[[str], None]

STOP_SECONDS = 15.0  # Flower's processes end within 5 s of SIGTERM; then they are killed
BACKOFF, LONGEST_BACKOFF = 1.0, 60.0  # s; a SuperNode that crashed is refused for 60 s
STEADY = 120.0  # s; a process that has lived so long starts again without backoff

# Flower's own exit codes (in its output; the process exits with 1) for which a second try cannot help.
FATAL_CODES = frozenset({302, 303, 304, 600, 602, 603, 604, 605, 606})
# What other codes mean. Flower's SuperNode ends itself, with 0, when the server answers 401.
_REASONS = {
    0: "without being stopped: the server does not accept its signature; is this clock right? `ctfed doctor` compares",
    305: "the server does not know this site's key, or still waits for its former process to be timed out",
}
_CERTIFICATE = re.compile(r"certificate verify failed: ([^(]*[^( ])")
_EXIT_CODE = re.compile(r"Exit Code: (\d+)")
# Lines that are told: by the level that they begin with, because the text of an error may hold any word of a table.
_LEVEL = r"(?:[0-9-]{10} [0-9:,]+ )?"
_NEWS = re.compile(rf"{_LEVEL}(?:(?:WARN|WARNING|ERROR|CRITICAL)\b|INFO\b.*(?:SuperNode ID|ready for tasks))")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PR_SET_PDEATHSIG = 1
LOG_BYTES = 20 * 2**20  # a longer log is put aside, as <name>.1, when its process is started


class ProcessFailed(CtfedError):
    """A child process ended in a way that starting it again cannot cure."""


def child_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a Flower process: no telemetry, no update check, no installs, its home in ``home``."""
    environment = dict(os.environ)
    bypass = [name for name in environment.get("NO_PROXY", "").split(",") if name]
    environment |= {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "NO_PROXY": ",".join(dict.fromkeys([*bypass, "127.0.0.1", "localhost"])),
        # Flower starts flower-superexec and flwr-serverapp by name; they are beside this Python.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }
    return environment


def new_secret(path: Path) -> Path:
    """A secret in a new file, for two processes of one command: no other on this machine can take their tasks."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(32))
    return path


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Treat SIGTERM (what a container gets when it is stopped) as Ctrl-C, so that children are ended in order."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread, which is somebody else's here
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def free_port() -> int:
    """A TCP port on the loopback interface that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Child:
    """One child process, which can be started again and again."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        tell: Tell,
        log: Path,
        descriptors: Sequence[int] = (),
        *,
        verbatim: bool = False,
    ) -> None:
        """Every line the process prints goes to the file ``log``; ``tell`` gets the news, as '[name] line'.

        The process inherits the open files ``descriptors``. With ``verbatim``, ``tell`` gets every line as it is.
        """
        self.name = name
        self._arguments = list(arguments)
        self._environment = dict(environment)
        self._tell = tell
        self._log = log
        self._descriptors = tuple(descriptors)
        self._verbatim = verbatim
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._started = 0.0
        self._next_start = 0.0
        self._backoff = BACKOFF
        self.tail: deque[str] = deque(maxlen=30)

    @property
    def alive(self) -> bool:
        """Whether the process runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id, also of its group, while it has been started."""
        return self._process.pid if self._process else None

    @property
    def code(self) -> int | None:
        """Flower's exit code if the process printed one, else the process's own; None while it runs."""
        if self._process is None or self._process.poll() is None:
            return None
        if self._reader is not None:
            self._reader.join(timeout=2.0)
        found = [match[1] for line in self.tail if (match := _EXIT_CODE.search(line))]
        return int(found[-1]) if found else self._process.returncode

    def start(self) -> None:
        """Start the process."""
        self.tail.clear()
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
            self._log.replace(self._log.with_name(self._log.name + ".1"))
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            self._arguments,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=self._descriptors,
            preexec_fn=_die_with_parent(),
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def wait(self) -> None:
        """Wait until the process has ended and all that it printed has been told."""
        if self._process is not None:
            self._process.wait()
        if self._reader is not None:
            self._reader.join(timeout=2.0)

    def keep_alive(self) -> None:
        """Start the process if it does not run; after a failure with a growing wait.

        Raises:
            ProcessFailed: when Flower's exit code says that another try cannot help.
        """
        if self.alive:
            return
        now = time.monotonic()
        if self._process is not None and self._next_start <= self._started:
            self._plan_restart(now)
        if now >= self._next_start:
            self.start()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End the process and all of its group: SIGTERM, then SIGKILL."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._tell(f"[{self.name}] did not end within {seconds:.0f} s and is killed")
        self._signal(signal.SIGKILL)  # also what the process has left behind in its group
        self._process.wait()
        if self._reader is not None:
            self._reader.join(timeout=2.0)

    def _plan_restart(self, now: float) -> None:
        code = self.code
        if code in FATAL_CODES:
            said = " / ".join(line for line in self.tail if line.strip())[-500:]
            raise ProcessFailed(f"{self.name} ended with Flower's exit code {code}: {said}")
        if now - self._started > STEADY:
            self._backoff = BACKOFF
        self._next_start = now + self._backoff
        self._tell(f"[{self.name}] ended with code {code}{self._reason(code)}; starts again in {self._backoff:.0f} s")
        self._backoff = min(2 * self._backoff, LONGEST_BACKOFF)

    def _reason(self, code: int | None) -> str:
        """Why a process ended, in brackets, where its code or its last lines say it."""
        for line in self.tail:
            if found := _CERTIFICATE.search(line):
                return f" (the server's certificate is not accepted: {found[1]}; `ctfed doctor` shows its dates)"
        return f" ({_REASONS[code]})" if code in _REASONS else ""

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)  # type: ignore[union-attr]
        except ProcessLookupError:
            return  # the whole group has ended

    def _read(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is None:
            return
        with open(self._log, "a", encoding="utf-8", buffering=1, opener=private) as file:
            for raw in process.stdout:
                line = _COLOUR.sub("", raw).rstrip()
                self.tail.append(line)
                file.write(f"[{self.name}] {line}\n")
                if self._verbatim:
                    self._tell(line)
                elif _NEWS.match(line):
                    self._tell(f"[{self.name}] {line}")


def _die_with_parent() -> Callable[[], None] | None:
    """On Linux, have the kernel end the child when this process is killed, so that no port stays taken."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork; the child only makes one system call

    def set_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)

    return set_signal
