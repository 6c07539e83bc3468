"""Densities from counts: near the true one, whoever holds the patients, and never of a few."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ctfed.federation import Cohort, CtfedError, Feature, View, run_pooled
from ctfed.statistics.density import density

VIEW = View((Feature("a", 3), Feature("b", 3)))


def cohorts(sites: int, patients: int = 3000) -> list[Cohort]:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=patients), rng.exponential(size=patients)
    place = np.arange(patients) % sites
    ones = np.ones(patients)
    return [
        Cohort.of(f"s{k}", {"a": a[place == k], "b": b[place == k]}, ones[place == k], ones[place == k])
        for k in range(sites)
    ]


def test_it_is_near_the_density_that_the_patients_were_drawn_from() -> None:
    found = run_pooled(density(VIEW, bins=20, minimum=20), cohorts(4))
    assert found.edges.shape == (2, 19)
    assert found.share == 18 / 20
    for row, law in enumerate((stats.norm, stats.expon)):
        expected = np.diff(law.cdf(found.edges[row])) / np.diff(found.edges[row])
        np.testing.assert_allclose(found.height[row], expected, rtol=0.35)
        assert abs(np.nansum(found.height[row] * np.diff(found.edges[row])) - 0.9) < 1e-9


def test_any_split_over_sites_gives_the_same() -> None:
    one, many = (run_pooled(density(VIEW), cohorts(sites)) for sites in (1, 7))
    assert np.array_equal(one.edges, many.edges)
    assert np.array_equal(one.height, many.height)


def test_bins_are_fewer_where_patients_are_few() -> None:
    assert run_pooled(density(VIEW, bins=20, minimum=10), cohorts(2, 60)).edges.shape == (2, 5)
    with pytest.raises(CtfedError, match="30 patients are too few for a density of 4 bins"):
        run_pooled(density(VIEW, minimum=10), cohorts(2, 30))
    with pytest.raises(ValueError, match="at least 4 bins"):
        run_pooled(density(VIEW, bins=3), cohorts(2))
