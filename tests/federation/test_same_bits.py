"""In process, under Flower's simulation by two commands, and deployed: one study, masked, leaves the same bits."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "same_bits.py"
WAYS = ("in-process", "ctfed-on-ray", "flower-on-ray", "deployed")

pytestmark = [pytest.mark.slow, pytest.mark.deployment]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (ctfed[simulation])")
def test_every_way_to_run_a_study_leaves_the_same_bits_and_no_process() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--minimum", "20"], capture_output=True, text=True, check=False, timeout=900
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    table = {words[0]: words[1:] for words in lines if words and words[0] in WAYS}
    assert done.returncode == 0, done.stdout + done.stderr
    assert tuple(table) == WAYS
    for masked, rounds, _, left, *said in table.values():
        assert masked == "True"
        assert int(rounds) == int(table["in-process"][1]) > 10
        assert (int(left), " ".join(said)) == (0, "the same bits")
