"""The tails are those of ``scipy.stats`` to the last bit, without its second of imports."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from ctfed.statistics.concordance import _dense_ranks
from ctfed.statistics.tails import chi2_sf, normal_isf, normal_ppf, normal_sf, t_isf, t_sf

X = np.concatenate([np.random.default_rng(0).normal(0, 3, 500), [0.0, 40.0, -40.0, np.inf, -np.inf, np.nan, 1e-300]])
P = np.concatenate([np.random.default_rng(1).random(200), [0.025, 0.5, 1e-300]])


def test_normal_tails_are_scipys() -> None:
    assert np.array_equal(normal_sf(X), stats.norm.sf(X), equal_nan=True)
    assert [normal_isf(p) for p in P] == [float(stats.norm.isf(p)) for p in P]
    assert [normal_ppf(p) for p in P] == [float(stats.norm.ppf(p)) for p in P]


@pytest.mark.parametrize("degrees", [1, 2, 3.7, 30, 1000])
def test_t_and_chi_squared_tails_are_scipys(degrees: float) -> None:
    assert np.array_equal([t_sf(x, degrees) for x in X], stats.t.sf(X, degrees), equal_nan=True)
    assert [float(t_isf(p, degrees)) for p in P] == [float(stats.t.isf(p, degrees)) for p in P]
    few = np.array([-1.0, 0.0, degrees])
    assert np.array_equal(t_isf(0.025, few), stats.t.isf(0.025, few), equal_nan=True)
    assert np.array_equal(chi2_sf(3 * X, degrees), stats.chi2.sf(3 * X, degrees), equal_nan=True)


@pytest.mark.parametrize("values", [X[:500].round(1), X[-3:], np.array([]), np.array([2.0, -0.0, 0.0])])
def test_dense_ranks_are_scipys(values: np.ndarray) -> None:  # type: ignore[type-arg]
    assert np.array_equal(_dense_ranks(values), stats.rankdata(values, method="dense"), equal_nan=True)


def test_a_site_that_answers_does_not_import_scipy_stats() -> None:
    code = (
        "import sys; from ctfed.node import register_queries; register_queries(); print('scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"
