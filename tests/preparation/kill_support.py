"""Running `ctfed prepare` as a process of its own, and killing it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

_COMMAND = "import sys; from ctfed.cli import main; sys.exit(main(sys.argv[1:]))"
TABLES = (
    "features.parquet",
    "features.csv",
    "exclusions.csv",
    "reasons.csv",
    "acquisition.csv",
    "notes.csv",
    "keys.csv",
)


def start(site: Path, *options: str) -> subprocess.Popen[str]:
    """The command, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "prepare", "--site", str(site), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = process.communicate(timeout=1200)
    return process.returncode, out, err


def kill_at_random(site: Path, kills: int, seed: int, longest: float) -> int:
    """Start the command ``kills`` times and SIGKILL it after 1 to ``longest`` seconds: in turn its own process alone,
    and all its processes at once. How many kills hit a run that was still at work."""
    rng = random.Random(seed)
    hit = 0
    for number in range(kills):
        process = start(site)
        time.sleep(rng.uniform(1.0, longest))
        hit += process.poll() is None
        if number % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.communicate(timeout=60)
    return hit


def tables(local: Path) -> dict[str, bytes]:
    """The bytes of every table that a run leaves."""
    return {name: (local / name).read_bytes() for name in TABLES}
