"""Standardisation: pooled means and scales, applied alike at every site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctfed.federation import Cohort, CtfedError, Feature, View, pool, run_pooled
from ctfed.statistics.describe import moments
from ctfed.statistics.standardise import Standardise, standardise


@given(data=st.data())
def test_any_split_gives_the_pooled_z_scores(
    data: st.DataObject, make_federation: Callable[..., Any], view_of: Callable[..., View]
) -> None:
    cohorts = data.draw(make_federation(min_patients=2))
    view = view_of(cohorts)
    fitted = run_pooled(standardise(view), cohorts)
    oracle = run_pooled(standardise(view), [pool(cohorts)])
    assert fitted.warnings == oracle.warnings
    z = np.concatenate([fitted.view.table(cohort).values for cohort in cohorts])
    np.testing.assert_allclose(z, oracle.view.table(pool(cohorts)).values, rtol=1e-11, atol=1e-9)


@given(data=st.data())
def test_standardised_columns_have_mean_0_and_sd_1(
    data: st.DataObject, make_federation: Callable[..., Any], view_of: Callable[..., View]
) -> None:
    cohorts = data.draw(make_federation(min_patients=30))
    fitted = run_pooled(standardise(view_of(cohorts)), cohorts)
    z = np.concatenate([fitted.view.table(cohort).values for cohort in cohorts])
    raw = np.stack([pool(cohorts).columns[name] for name in fitted.view.names], axis=1)
    assert np.array_equal(np.isnan(z), np.isnan(raw))
    flat = np.nanmin(raw, axis=0) == np.nanmax(raw, axis=0)
    np.testing.assert_allclose(np.nanmean(z, axis=0), 0, atol=1e-8)
    np.testing.assert_allclose(np.nanstd(z, axis=0), np.where(flat, 0.0, 1.0), rtol=1e-10)
    assert (np.nan_to_num(z[:, flat]) == 0).all()
    assert len(fitted.warnings) == flat.sum()


def test_the_scale_divides_by_n(view_of: Callable[..., View]) -> None:
    cohort = Cohort.of("s", {"a": [1.0, 2.0, 6.0, 7.0]}, [1, 2, 3, 4], [1, 1, 0, 0])
    fitted = run_pooled(standardise(view_of([cohort])), [cohort])
    (step,) = fitted.view.transforms
    assert isinstance(step, Standardise)
    np.testing.assert_allclose(step.scale, np.std([1, 2, 6, 7]), rtol=1e-15)
    assert fitted.moments.count.tolist() == [4]
    assert fitted.view.features == (Feature("a", 0),)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3e11, 1.3e24])
def test_a_constant_column_becomes_zeros_on_training_and_test_rows(value: float, view_of: Callable[..., View]) -> None:
    noise = np.array([0, 1, -1, 0, 1, 0]) * np.spacing(value) if value else np.zeros(6)
    columns = {"flat": np.append(np.full(6, value) + noise, 3 * value + 1), "b": np.arange(7.0)}
    cohort = Cohort.of("s", columns, np.arange(1.0, 8), np.ones(7), split=["train"] * 6 + ["test"])
    fitted = run_pooled(standardise(view_of([cohort])), [cohort])
    assert fitted.warnings == ("column 'flat' has the same value for every patient; it is set to 0",)
    for view in (fitted.view, fitted.view.test()):
        assert (view.table(cohort).values[:, 0] == 0).all()
        run_pooled(moments(view), [cohort])  # and so it fits the scale of a standardised column
    (step,) = fitted.view.transforms
    assert isinstance(step, Standardise)
    assert step.scale[0] == 1.0
    assert step.constant == ("flat",)


def test_test_rows_do_not_change_what_is_learned(
    make_cohort: Callable[..., Cohort], view_of: Callable[..., View]
) -> None:
    rng = np.random.default_rng(8)
    cohort = make_cohort(rng, {"a": rng.normal(size=80)}, test_fraction=0.4)
    view = view_of([cohort])
    train = cohort.split == "train"
    fitted = run_pooled(standardise(view), [cohort])
    alone = run_pooled(standardise(view), [cohort.subset(train)])
    a = cohort.columns["a"]
    np.testing.assert_array_equal(fitted.moments.mean, alone.moments.mean)
    expected = (a[~train] - a[train].mean()) / a[train].std()
    np.testing.assert_allclose(fitted.view.test().table(cohort).values[:, 0], expected, rtol=1e-11, atol=1e-13)


def test_a_column_that_nobody_has_is_named() -> None:
    cohorts = [Cohort.of(f"s{i}", {"a": [1.0, 2.0], "gone": [np.nan] * 2}, [1, 2], [1, 0]) for i in range(2)]
    with pytest.raises(CtfedError, match="no patient at any site has a value for 'gone'"):
        run_pooled(standardise(View((Feature("a"), Feature("gone")))), cohorts)


def test_it_applies_to_the_columns_it_was_fitted_on_only() -> None:
    step = Standardise(("a", "b"), np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match="expected 'a', found 'b'"):
        View((Feature("b"), Feature("a")), transforms=(step,))
    with pytest.raises(ValueError, match="expected 2 columns, found 1"):
        View((Feature("a"),), transforms=(step,))


@pytest.mark.parametrize(
    ("mean", "scale", "constant"),
    [
        (np.zeros(1), np.ones(2), ()),
        (np.zeros(2), np.ones((2, 1)), ()),
        (np.zeros(2), np.array([1.0, 0.0]), ()),
        (np.zeros(2), np.ones(2), ("c",)),
    ],
)
def test_impossible_parameters_are_refused(mean: np.ndarray, scale: np.ndarray, constant: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"columns, but|must be > 0|not among"):
        Standardise(("a", "b"), mean, scale, constant)
