"""Counts and moments: any split over sites gives the pooled answer, and numpy's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctfed.federation import Cohort, Feature, Refusal, View, pool, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.statistics.describe import ColumnMoments, Counts, Moments, moments


def ask_counts(view: View) -> Any:
    return (yield Counts(view))


def numpy_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two-pass mean and variance with exactly rounded sums, column by column."""
    means, squares = [], []
    for column in x.T:
        values = column[~np.isnan(column)]
        means.append(math.fsum(values) / values.size)
        squares.append(math.fsum((values - means[-1]) ** 2) / values.size)
    return np.array(means), np.array(squares)


@given(data=st.data())
def test_any_split_gives_the_pooled_moments(
    data: st.DataObject, make_federation: Callable[..., Any], view_of: Callable[..., View]
) -> None:
    cohorts = data.draw(make_federation())
    view = view_of(cohorts)
    split = run_pooled(moments(view), cohorts)
    pooled = run_pooled(moments(view), [pool(cohorts)])
    assert np.array_equal(split.count, pooled.count)
    assert (split.patients, split.events) == (pooled.patients, pooled.events)
    assert (np.abs(split.mean - pooled.mean) <= 1e-12 * np.abs(pooled.mean) + 1e-12 * pooled.sd()).all()
    assert (np.abs(split.sd() - pooled.sd()) <= 1e-12 * pooled.sd() + 1e-16 * np.abs(pooled.mean)).all()


@given(data=st.data())
def test_moments_equal_numpy(
    data: st.DataObject, make_federation: Callable[..., Any], view_of: Callable[..., View]
) -> None:
    cohorts = data.draw(make_federation())
    view = view_of(cohorts)
    found = run_pooled(moments(view), cohorts)
    pooled = pool(cohorts)
    x = np.stack([pooled.columns[name] for name in view.names], axis=1)
    mean, variance = numpy_moments(x)
    assert found.names == view.names
    assert found.patients == pooled.patients
    assert found.events == pooled.event.sum()
    assert np.array_equal(found.count, (~np.isnan(x)).sum(axis=0))
    assert np.array_equal(found.missing, np.isnan(x).sum(axis=0))
    size = np.nanmax(np.abs(x), axis=0)
    assert (np.abs(found.mean - mean) <= 1e-15 * size + 1e-12 * np.abs(mean)).all()
    assert (np.abs(found.sd() - np.sqrt(variance)) <= 1e-12 * np.sqrt(variance) + 1e-16 * size).all()


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e24])
@pytest.mark.parametrize("ratio", [0.0, 1e3, 1e6, 1e9])
def test_a_spread_far_below_its_mean_keeps_twelve_digits(scale: float, ratio: float) -> None:
    rng = np.random.default_rng(7)
    x = scale * (ratio + rng.normal(size=(900, 4)))
    names = [f"f{j}" for j in range(4)]
    exponent = int(np.ceil(np.log2(np.abs(x).max())))
    view = View(tuple(Feature(name, exponent) for name in names))
    site = np.arange(900) % 5
    cohorts = [
        Cohort.of(
            f"s{i}", dict(zip(names, x[site == i].T, strict=True)), np.ones((site == i).sum()), site[site == i] > 2
        )
        for i in range(5)
    ]
    found = run_pooled(moments(view), cohorts)
    mean, variance = numpy_moments(x)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12, atol=1e-14 * scale)
    np.testing.assert_allclose(found.sd(), np.sqrt(variance), rtol=1e-12)
    np.testing.assert_allclose(found.sd(ddof=1), x.std(axis=0, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("too_large_by", [-10, 10, 50])
def test_a_magnitude_declared_far_too_small_or_large_costs_no_digits(too_large_by: int) -> None:
    rng = np.random.default_rng(3)
    x = (5 + rng.normal(size=40)) * 2.0**-too_large_by
    cohorts = [Cohort.of(f"s{i}", {"a": x[i::3]}, np.ones(x[i::3].size), np.ones(x[i::3].size)) for i in range(3)]
    found = run_pooled(moments(View((Feature("a", 0),))), cohorts)
    np.testing.assert_allclose(found.mean, x.mean(), rtol=1e-13)
    np.testing.assert_allclose(found.sd(), x.std(), rtol=1e-13)


def test_a_value_beyond_the_declared_range_is_refused_not_clipped() -> None:
    cohort = Cohort.of("s", {"a": [2.0**37]}, [1.0], [True])
    with pytest.raises(Refusal, match="fixed-point-range"):
        run_pooled(moments(View((Feature("a"),))), [cohort])


def test_moments_take_two_rounds_whatever_the_width(
    make_cohort: Callable[..., Cohort], view_of: Callable[..., View]
) -> None:
    rng = np.random.default_rng(0)
    cohort = make_cohort(rng, {f"f{j}": rng.normal(size=9) for j in range(70)})
    traffic = Traffic()
    run_pooled(moments(view_of([cohort])), [cohort], traffic)
    assert traffic.kinds == [("moments",), ("moments",)]


def test_moments_are_of_the_rows_of_the_view(make_cohort: Callable[..., Cohort], view_of: Callable[..., View]) -> None:
    rng = np.random.default_rng(5)
    cohort = make_cohort(rng, {"a": rng.normal(size=200)}, test_fraction=0.3)
    view = view_of([cohort])
    held_out = (cohort.split == "train") & (cohort.fold == 1)
    for chosen, rows in ((view.test(), cohort.split == "test"), (view.held_out_fold(1), held_out)):
        found = run_pooled(moments(chosen), [cohort])
        assert found.patients == rows.sum()
        assert found.events == cohort.event[rows].sum()
        np.testing.assert_allclose(found.mean, cohort.columns["a"][rows].mean(), rtol=1e-12)


def test_a_column_without_values_has_no_mean_and_the_others_are_unharmed() -> None:
    cohorts = [
        Cohort.of(
            f"s{i}", {"gone": [np.nan] * 3, "one": [np.nan, 4.0 if i == 0 else np.nan, np.nan]}, [1, 2, 3], [1, 0, 1]
        )
        for i in range(3)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run_pooled(moments(View((Feature("gone"), Feature("one", 2)))), cohorts)
        assert np.isnan(found.mean[0])
        assert found.mean[1] == 4.0
        assert found.count.tolist() == [0, 1]
        assert found.missing.tolist() == [9, 8]
        assert np.isnan(found.sd()[0])
        assert found.sd()[1] == 0.0
        assert np.isnan(found.sd(ddof=1)).all()


def test_counts_say_who_has_a_value(make_cohort: Callable[..., Cohort], view_of: Callable[..., View]) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 2))
    x[rng.random((60, 2)) < 0.2] = np.nan
    cohort = make_cohort(rng, {"a": x[:, 0], "b": x[:, 1]})
    total = run_pooled(ask_counts(view_of([cohort])), [cohort])
    assert total.number("patients") == 60
    assert total.number("events") == cohort.event.sum()
    assert np.array_equal(total["count"], (~np.isnan(x)).sum(axis=0))


def test_both_divisors_are_available() -> None:
    found = ColumnMoments(("a",), 5, 2, np.array([4.0]), np.array([1.0]), np.array([12.0]))
    assert found.variance() == 3.0
    assert found.variance(ddof=1) == 4.0
    assert found.sd(ddof=1) == 2.0


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"centre": np.zeros(3)}, r"the centre has shape \(3,\)"),
        ({"centre": np.zeros((1, 2))}, r"the centre has shape \(1, 2\)"),
        ({"centre": np.zeros(2), "exponents": (1,)}, "1 exponents for 2 columns"),
        ({"centre": np.zeros(2), "exponents": (1, 201)}, "outside"),
    ],
)
def test_moments_refuse_fields_that_do_not_fit_the_view(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Moments(View((Feature("a"), Feature("b"))), **fields)
