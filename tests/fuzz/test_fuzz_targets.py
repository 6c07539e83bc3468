"""Every border takes in some thousand damaged messages; `make fuzz` runs the same functions a million times."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from targets import TARGETS, Configs, Found, Target, loop

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers overflow on purpose

# Inputs, and how many of them are understood at least: damage that spoils everything reaches nothing.
SHORT = {"question": (1500, 300), "answer": (4000, 300), "state": (4000, 1000), "config": (500, 30)}
HERE = Path(__file__).parent


@pytest.mark.parametrize("name", TARGETS)
def test_a_border_lets_nothing_out_but_its_own_errors(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    inputs, understood = SHORT[name]
    found = loop(TARGETS[name](), inputs)
    with capsys.disabled():
        print(f"\nfuzzing {name}: {found.inputs:,} inputs decoded, {len(found.crashes)} crashes", end=" ")
    assert found.inputs == inputs
    assert found.understood >= understood
    assert not found.crashes, found.crashes[0]


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_understood(name: str) -> None:
    target = TARGETS[name]()
    outcomes = [target.run(seed) for seed in target.seeds()]
    assert sum(outcomes) >= len(outcomes) - 1  # the bundle that carries code is refused


class Careless(Target):
    """A border that lets a KeyError out."""

    name = "careless"

    def seeds(self) -> list[bytes]:
        return [b"{}"]

    def run(self, data: bytes) -> bool:
        if b"[" in data:
            raise KeyError("a bug")
        return True

    def damaged(self, data: bytes, rng: random.Random) -> bytes:
        return Configs.damaged(self, b"0" + data, rng)  # type: ignore[arg-type]


def test_a_crash_is_found_and_kept_with_its_input() -> None:
    found: Found = loop(Careless(), 300)
    assert found.inputs == 300
    assert found.crashes
    data, error = found.crashes[0]
    assert b"[" in data
    assert isinstance(error, KeyError)


@pytest.mark.slow
def test_the_long_run_counts_its_inputs(tmp_path: Path) -> None:
    """The command of `make fuzz`, for a moment."""
    command = [sys.executable, str(HERE / "run_fuzz.py"), "--inputs", "1000", "--processes", "1", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 crashes, seed 1" in done.stdout
    assert not list(tmp_path.iterdir())
