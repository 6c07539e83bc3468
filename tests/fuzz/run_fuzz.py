"""Long fuzzing of all borders: `make fuzz`, or python tests/fuzz/run_fuzz.py --inputs 1000000.

Each target is a process of its own with a seed corpus of valid messages. Where atheris is not installed (it has wheels
for Linux alone) the same targets run in a plain loop, which is not guided by coverage.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Parts of all inputs: those that take the least time most often.
SHARES = {"question": 0.15, "answer": 0.45, "state": 0.39, "config": 0.01}
SECONDS_PER_INPUT = 20  # after which an input counts as a hang
LONGEST_INPUT = 65_536  # bytes
CRASHES = Path("out", "fuzz-crashes")  # inputs that crashed are kept here


@dataclass(frozen=True)
class Outcome:
    """What one target came to."""

    name: str
    inputs: int
    crashed: bool
    seconds: float
    tail: str


def main() -> int:
    """0 when no input crashed and every target ran all its inputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="0 takes another one each time")
    options = parser.parse_args()
    seed = options.seed or int.from_bytes(os.urandom(3)) + 1
    counts = {name: max(1, round(options.inputs * share)) for name, share in SHARES.items()}
    guided = find_spec("atheris") is not None
    if not guided:
        print("atheris is not installed: a plain loop damages the inputs, not guided by coverage", flush=True)
    with ThreadPoolExecutor(options.processes) as pool:
        running = [pool.submit(_guided if guided else _plain, name, count, seed) for name, count in counts.items()]
        outcomes = [one.result() for one in running]
    for outcome in outcomes:
        print(f"  {outcome.name:10} {outcome.inputs:>9,} inputs  {outcome.seconds:6.0f} s", flush=True)
        if outcome.crashed:
            print(outcome.tail, flush=True)
    inputs, crashes = sum(one.inputs for one in outcomes), sum(one.crashed for one in outcomes)
    print(f"fuzzing: {inputs:,} inputs decoded, {crashes} crashes, seed {seed}", flush=True)
    return int(crashes > 0 or any(one.inputs < counts[one.name] for one in outcomes))


def _guided(name: str, count: int, seed: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="ctfed-fuzz-") as folder:
        corpus = Path(folder)
        _write_seeds(name, corpus)
        artifacts = Path.cwd() / CRASHES
        artifacts.mkdir(parents=True, exist_ok=True)
        arguments = [
            *(sys.executable, str(HERE / f"fuzz_{name}.py"), str(corpus)),
            *(f"-runs={count}", f"-seed={seed}", f"-timeout={SECONDS_PER_INPUT}", f"-max_len={LONGEST_INPUT}"),
            *("-rss_limit_mb=4096", "-len_control=0", "-print_final_stats=1", f"-artifact_prefix={artifacts}/{name}-"),
        ]
        started = time.monotonic()
        done = subprocess.run(arguments, capture_output=True, text=True, errors="replace", env=_environment())
        seconds = time.monotonic() - started
        for folder_of_crashes in (artifacts, artifacts.parent):
            with suppress(OSError):  # what holds an input that crashed stays
                folder_of_crashes.rmdir()
    found = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    # libFuzzer stops at the first crash, and says what it ran in either case.
    return Outcome(name, int(found[1]) if found else 0, done.returncode != 0, seconds, _end(done))


def _plain(name: str, count: int, seed: int) -> Outcome:
    script = (
        "import sys; from targets import TARGETS, loop\n"
        f"found = loop(TARGETS[{name!r}](), {count}, {seed})\n"
        "for data, error in found.crashes[:5]: print(repr(data[:2000]), repr(error))\n"
        "print('inputs', found.inputs)\n"
        "sys.exit(bool(found.crashes))\n"
    )
    started = time.monotonic()
    arguments = [sys.executable, "-c", script]
    done = subprocess.run(arguments, capture_output=True, text=True, errors="replace", env=_environment())
    found = re.search(r"inputs (\d+)", done.stdout)
    seconds = time.monotonic() - started
    return Outcome(name, int(found[1]) if found else 0, done.returncode != 0, seconds, _end(done))


def _end(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout + done.stderr)[-6000:]


def _write_seeds(name: str, corpus: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from targets import TARGETS\n"
        f"for n, seed in enumerate(TARGETS[{name!r}]().seeds()): Path(sys.argv[1], str(n)).write_bytes(seed)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(corpus)], check=True, env=_environment())


def _environment() -> dict[str, str]:
    """One thread each, the modules of this folder, and no warnings about numbers that overflow on purpose."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONHASHSEED": "0"}


if __name__ == "__main__":
    sys.exit(main())
