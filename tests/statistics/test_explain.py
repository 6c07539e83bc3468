"""SHAP values of linear scores: those of the shap package, of Shapley's definition, and of any split over sites."""

from __future__ import annotations

from itertools import combinations
from math import factorial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation_data import SUM, split_over
from hypothesis import given
from hypothesis import strategies as st

from ctfed.federation import Cohort, Feature, View, run_pooled
from ctfed.federation.arrays import frozen
from ctfed.federation.pooled import Traffic
from ctfed.statistics.describe import moments
from ctfed.statistics.explain import AbsoluteDeviations, explain, local_shap
from ctfed.statistics.standardise import standardise

NAMES = ("a", "b", "c", "d")
TRAIN = View(tuple(Feature(name, 3) for name in NAMES))
BETA = np.array([[0.5, -1.2, 0.0, 0.3], [0.0, 0.1, 2.0, -0.7]])
GROUPS = (("first", ("a", "b")), ("second", ("c", "d")), ("nothing", ()))


def cohort_of(seed: int, n: int = 90) -> Cohort:
    rng = np.random.default_rng(seed)
    columns = {name: rng.normal(k, 1 + k, n) for k, name in enumerate(NAMES)}
    columns["b"] = np.round(columns["b"])
    test = np.where(rng.random(n) < 0.4, "test", "train")
    return Cohort.of("s", columns, rng.exponential(size=n) + 0.1, rng.random(n) < 0.5, split=test)


def shapley(x: np.ndarray, background: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Shapley's definition for one patient: the mean gain of a feature over all orders of joining."""
    p = x.size
    mean = background.mean(axis=0)

    def worth(chosen: tuple[int, ...]) -> float:
        known = np.isin(np.arange(p), chosen)
        return float(beta @ np.where(known, x, mean))

    values = np.zeros(p)
    for j in range(p):
        others = [k for k in range(p) if k != j]
        for size in range(p):
            share = factorial(size) * factorial(p - size - 1) / factorial(p)
            for chosen in combinations(others, size):
                values[j] += share * (worth((*chosen, j)) - worth(chosen))
    return values


def test_one_patients_values_are_shapleys() -> None:
    cohort = cohort_of(0)
    train, test = TRAIN.table(cohort), TRAIN.test().table(cohort)
    centre = run_pooled(moments(TRAIN), [cohort]).mean
    found = local_shap(test, BETA, centre)
    for model in range(2):
        for patient in range(5):
            told = shapley(test.values[patient], train.values, BETA[model])
            np.testing.assert_allclose(found[model, patient], told, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=2), ((test.values - centre) @ BETA.T).T, atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), sites=st.integers(1, 6))
def test_pooled_means_are_those_of_all_local_values(seed: int, sites: int) -> None:
    cohort = cohort_of(seed)
    centre = run_pooled(moments(TRAIN), [cohort]).mean
    traffic = Traffic()
    found = run_pooled(explain(TRAIN.test(), BETA, centre, GROUPS), split_over(cohort, seed, sites), traffic)
    assert traffic.rounds == 1
    local = local_shap(TRAIN.test().table(cohort), BETA, centre)
    np.testing.assert_allclose(found.mean_absolute, np.abs(local).mean(axis=1), rtol=SUM)
    np.testing.assert_allclose(found.mean, local.mean(axis=1), rtol=1e-9, atol=SUM)
    for g, chosen in enumerate(([0, 1], [2, 3], [])):
        told = np.abs(local[:, :, chosen].sum(axis=2)).mean(axis=1)
        np.testing.assert_allclose(found.group_absolute[:, g], told, atol=2e-10)  # scores have ten decimals
    assert found.ranked(0)[0][2] in (-1.0, 1.0)
    assert "c" not in [name for name, _, _ in found.ranked(0)]
    assert [row[1] for row in found.ranked(1)] == sorted((row[1] for row in found.ranked(1)), reverse=True)


def test_the_shap_package_gives_the_same_values() -> None:
    shap = pytest.importorskip("shap", reason="the shap package is not installed")
    cohort = cohort_of(4, 60)
    train, test = TRAIN.table(cohort).values, TRAIN.test().table(cohort).values
    centre = run_pooled(moments(TRAIN), [cohort]).mean
    found = local_shap(TRAIN.test().table(cohort), BETA, centre)
    for model in range(2):
        masker = shap.maskers.Independent(train, max_samples=train.shape[0])
        told = shap.LinearExplainer((BETA[model], 0.0), masker).shap_values(test)
        np.testing.assert_allclose(found[model], told, atol=1e-10)


def test_a_group_that_is_not_there_and_what_is_exposed() -> None:
    with pytest.raises(ValueError, match="the group 'x' names 'nodes', which is no feature"):
        run_pooled(explain(TRAIN, BETA, np.zeros(4), (("x", ("nodes",)),)), [cohort_of(0)])
    with pytest.raises(ValueError, match="coefficients must be"):
        run_pooled(explain(TRAIN, BETA[:, :3], np.zeros(4)), [cohort_of(0)])
    exposure = AbsoluteDeviations(TRAIN, frozen(np.arange(4.0))).exposure
    assert {name: cut.tolist() for name, cut in exposure.cuts.items()} == {n: [float(k)] for k, n in enumerate(NAMES)}
    assert (exposure.cells, exposure.parameters) == (0, 0)


def test_real_radiomics(shared_data: Path) -> None:
    rows = pd.read_csv(shared_data / "survival" / "lung1_clinical_plus_pyradiomics.csv")
    numeric = rows.select_dtypes("number").dropna(axis=1)
    names = [name for name in numeric.columns if name.startswith(("firstorder__", "glcm__", "shape__"))][:20]
    assert len(names) == 20
    rng = np.random.default_rng(0)
    n = len(rows)
    exponents = {name: int(np.ceil(np.log2(max(numeric[name].abs().max(), 1e-6)))) for name in names}
    cohort = Cohort.of("lung1", {name: numeric[name] for name in names}, np.ones(n), np.ones(n))
    parts = split_over(cohort, 1, 5)
    raw = View(tuple(Feature(name, exponents[name]) for name in names))
    view = run_pooled(standardise(raw), parts).view
    beta = rng.normal(size=(3, 20))
    found = run_pooled(explain(view, beta, np.zeros(20)), parts)
    np.testing.assert_allclose(
        found.mean_absolute, np.abs(local_shap(view.table(cohort), beta, np.zeros(20))).mean(axis=1), rtol=1e-11
    )
