"""Secure summation changes who can see what, and no result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from server.commands import DEMO, EXAMPLES
from server.simulate import simulate

STUDY, SITE = EXAMPLES / "studies" / DEMO, EXAMPLES / "sites" / DEMO


def results(folder: Path, masked: bool) -> dict[str, Any]:
    simulate(STUDY, [SITE], folder, masked=masked, tell=lambda _: None)
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_a_masked_study_has_the_results_of_an_unmasked_one_to_the_last_bit(tmp_path: Path) -> None:
    masked, clear = results(tmp_path / "masked", True), results(tmp_path / "clear", False)
    for section in ("cohort", "tuning", "model", "baseline", "curves", "discrimination"):
        assert masked[section] == clear[section]
    assert masked["run"]["masked"] is True
    assert clear["run"]["masked"] is False
