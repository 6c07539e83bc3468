"""Noise on released tables: Gaussian, the same whenever it is asked, whole only in the sum, and off unless wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from ctfed.federation import Cohort, CtfedError, Feature, View
from ctfed.federation.arrays import frozen
from ctfed.federation.noise import GRID, normal, with_noise
from ctfed.statistics.curves import GroupCounts
from ctfed.statistics.describe import Counts
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.timegrid import TimeGrid
from server.commands import DEMO, EXAMPLES
from server.privacy import epsilon
from server.simulate import simulate

VIEW = View((Feature("a"),)).then(LinearPredictor(frozen([[1.0]])))
QUERY = GroupCounts(VIEW, TimeGrid.regular(1.0, 300.0), frozen([0.0]))


def site(index: int) -> Cohort:
    rng = np.random.default_rng(index)
    return Cohort.of(f"s{index}", {"a": rng.normal(size=50)}, rng.exponential(5, 50) + 0.1, rng.random(50) < 0.5)


def test_the_numbers_are_standard_normal_and_depend_on_the_key_alone() -> None:
    drawn = normal(bytes(range(32)), 20_000)
    assert stats.kstest(drawn, "norm").pvalue > 0.01
    assert abs(drawn.std() - 1) < 0.02
    assert np.array_equal(drawn, normal(bytes(range(32)), 20_000))
    assert not np.array_equal(drawn[:10], normal(bytes(32), 10))
    assert normal(bytes(32), 0).size == 0
    assert np.isfinite(normal(bytes(32), 7)).all()


@pytest.mark.parametrize("sites", [3, 10])
def test_the_shares_of_all_sites_add_up_to_the_noise_that_was_asked_for(sites: int) -> None:
    noise = np.zeros(QUERY.layout["counts"].size)
    for index in range(sites):
        clear = QUERY.answer(site(index))
        noisy = with_noise(QUERY, clear, bytes([index]) * 32, "run|1|question", 3.0, sites)
        difference = noisy.flat() - clear.flat()
        assert np.array_equal(np.rint(difference / GRID) * GRID, difference)
        assert difference.std() == pytest.approx(3.0 / np.sqrt(sites), rel=0.12)
        noise += difference
    assert noise.std() == pytest.approx(3.0, rel=0.12)
    assert stats.kstest(noise / 3.0, "norm").pvalue > 0.01


def test_a_question_asked_again_has_the_same_noise_and_another_one_has_other_noise() -> None:
    clear = QUERY.answer(site(0))
    first, again, other = (
        with_noise(QUERY, clear, bytes(32), place, 2.0, 3).flat() for place in ("run|1|q", "run|1|q", "run|2|q")
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_states_no_sensitivity_is_left_alone() -> None:
    query = Counts(View((Feature("a"),)))
    clear = query.answer(site(0))
    assert with_noise(query, clear, bytes(32), "x", 2.0, 3) is clear


def test_epsilon_is_that_of_the_gaussian_mechanism() -> None:
    """Renyi accounting is an upper bound of the exact epsilon (Balle & Wang 2018, theorem 8), and not far above it."""

    def exact_delta(value: float) -> float:
        return float(stats.norm.cdf(0.5 - value) - np.exp(value) * stats.norm.cdf(-0.5 - value))

    found = epsilon(1.0, 1e-5, 1)
    assert exact_delta(found) <= 1e-5 < exact_delta(found - 0.6)
    assert epsilon(1.0, 1e-5, 2) > epsilon(1.0, 1e-5, 1) > epsilon(4.0, 1e-5, 1) > 0
    assert epsilon(1.0, 1e-5, 0) == 0.0


def run(folder: Path, privacy: dict[str, float] | None, **options: Any) -> tuple[dict[str, Any], list[str]]:
    content = yaml.safe_load((EXAMPLES / "studies" / DEMO).read_text())
    if privacy is not None:
        content["differential_privacy"] = privacy
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    lines: list[str] = []
    simulate(folder / "study.yaml", [EXAMPLES / "sites" / DEMO], folder / "out", tell=lines.append, **options)
    found: dict[str, Any] = json.loads((folder / "out" / "results.json").read_text())
    return found, lines


def test_a_study_with_noise_runs_says_what_it_cost_and_fits_the_same_model(tmp_path: Path) -> None:
    plain, _ = run(tmp_path / "plain", None)
    noisy, lines = run(tmp_path / "noisy", {"noise_multiplier": 1.5, "delta": 1e-5})
    assert noisy["model"] == plain["model"]
    assert noisy["discrimination"]["c_within"] == plain["discrimination"]["c_within"]
    assert noisy["discrimination"]["c_pooled"]["value"] != plain["discrimination"]["c_pooled"]["value"]
    said = [line for line in lines if "differential privacy of 2 released tables: epsilon" in line]
    assert len(said) == 1
    assert said[0] in noisy["sites"]["notes"]
    assert noisy["curves"] != plain["curves"]


def test_noise_without_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CtfedError, match="differential_privacy needs masked answers"):
        run(tmp_path / "clear", {"noise_multiplier": 1.5}, masked=False)
