"""What must not change the harmonized values: order, grouping of batches over sites, units, declared magnitudes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from combat_data import (
    Rows,
    cohort_of,
    fit,
    harmonized,
    made,
    pooled_combat,
    split_by_batch,
    values,
    view_over,
)
from hypothesis import given
from hypothesis import strategies as st

from ctfed.federation import CtfedError, Feature, FloatArray, View
from ctfed.federation.pooled import Traffic
from ctfed.statistics.combat import CombatOptions, Covariate

EXACT = 1e-10  # on values of about 1


@st.composite
def harmonizations(draw: st.DrawFn) -> tuple[Rows, tuple[Covariate, ...], CombatOptions]:
    """Two to five batches of 2 to 40 rows, one to twelve features, up to two covariates, any options."""
    sizes = draw(st.lists(st.integers(2, 40), min_size=2, max_size=5))
    q = draw(st.integers(0, 2))
    sizes[0] += 5 * q  # so that the covariates are not collinear within batches
    rows = made(sizes, p=draw(st.integers(1, 12)), q=q, seed=draw(st.integers(0, 2**32 - 1)))
    options = CombatOptions(
        draw(st.sampled_from(("parametric", "nonparametric", "none"))),
        draw(st.booleans()),
        draw(st.sampled_from(("", "b0"))),
        minimum=2,
    )
    return rows, tuple(Covariate(f"x{j}") for j in range(q)), options


def at_sites(rows: Rows, covariates: Any, options: CombatOptions, place: np.ndarray) -> FloatArray:
    """(n, p) in the order of ``rows``, with the rows at sites by ``place``."""
    labels = list(dict.fromkeys(place.tolist()))
    sites = [cohort_of(str(k), rows.y[place == k], rows.x[place == k], rows.batch[place == k]) for k in labels]
    out = np.empty_like(rows.y)
    out[np.concatenate([np.flatnonzero(place == k) for k in labels])] = harmonized(sites, covariates, options)
    return out


@given(harmonizations(), st.data())
def test_any_grouping_of_whole_batches_over_sites_gives_the_pooled_result(drawn: Any, data: st.DataObject) -> None:
    rows, covariates, options = drawn
    labels, batch = np.unique(rows.batch, return_inverse=True)
    place = np.array(data.draw(st.lists(st.integers(0, 3), min_size=labels.size, max_size=labels.size)))[batch]
    assert np.abs(at_sites(rows, covariates, options, place) - pooled_combat_of(rows, options)).max() <= EXACT


def pooled_combat_of(rows: Rows, options: CombatOptions) -> FloatArray:
    """From rows; of one feature without a prior, as there is no variance across features."""
    return pooled_combat(rows, options if rows.y.shape[1] > 1 else replace(options, prior="none"))


@given(harmonizations(), st.integers(0, 2**32 - 1))
def test_order_of_patients_and_sites_changes_nothing(drawn: Any, seed: int) -> None:
    rows, covariates, options = drawn
    order = np.random.default_rng(seed).permutation(rows.batch.size)
    shuffled = Rows(rows.y[order], rows.x[order], rows.batch[order])
    one = at_sites(rows, covariates, options, rows.batch)
    other = at_sites(shuffled, covariates, options, shuffled.batch)
    assert np.abs(one[order] - other).max() <= EXACT


@given(harmonizations(), st.integers(0, 2**32 - 1))
def test_units_of_features_change_nothing(drawn: Any, seed: int) -> None:
    """Every feature in a unit of its own, 1e-12 to 1e12, with an offset of up to a hundred of its spreads."""
    rows, covariates, options = drawn
    rng = np.random.default_rng(seed)
    p = rows.y.shape[1]
    unit, offset = 10.0 ** rng.uniform(-12, 12, p), rng.uniform(-100, 100, p)
    scaled = replace(rows, y=(rows.y + offset) * unit)
    got = at_sites(scaled, covariates, options, rows.batch) / unit - offset
    assert np.abs(got - at_sites(rows, covariates, options, rows.batch)).max() <= EXACT


@given(harmonizations(), st.integers(0, 2**32 - 1))
def test_units_of_covariates_change_nothing(drawn: Any, seed: int) -> None:
    rows, covariates, options = drawn
    rng = np.random.default_rng(seed)
    q = rows.x.shape[1]
    scaled = replace(rows, x=(rows.x + rng.uniform(-50, 50, q)) * 10.0 ** rng.uniform(-9, 9, q))
    got = at_sites(scaled, covariates, options, rows.batch)
    assert np.abs(got - at_sites(rows, covariates, options, rows.batch)).max() <= EXACT


@given(harmonizations())
def test_the_reference_batch_keeps_its_bits(drawn: Any) -> None:
    rows, covariates, options = drawn
    got = at_sites(rows, covariates, replace(options, reference="b1"), rows.batch)
    np.testing.assert_array_equal(got[rows.batch == "b1"], rows.y[rows.batch == "b1"])


def declared(bits: int, seed: int, traffic: Traffic) -> tuple[float, tuple[str, ...]]:
    """Largest error and warnings when features with a spread of about 1 are declared to be of magnitude 2**bits."""
    rows = made((30, 25, 20), p=6, q=1, seed=seed)
    sites = split_by_batch(rows)
    view = View((*(Feature(f"f{j}", bits) for j in range(6)), Feature("x0", 3)))
    found = fit(sites, (Covariate("x0"),), view=view, traffic=traffic)
    return float(np.abs(values(found.view, sites) - pooled_combat(rows, CombatOptions())).max()), found.warnings


@given(st.integers(-12, 40), st.integers(0, 2**32 - 1))
def test_a_declared_magnitude_far_from_the_spread_costs_a_round_at_most(bits: int, seed: int) -> None:
    traffic = Traffic()
    error, warnings = declared(bits, seed, traffic)
    assert error <= EXACT
    assert warnings == ()
    if bits <= 11:
        assert traffic.rounds == 1
    if bits >= 17:
        assert traffic.rounds == 2


@given(st.integers(46, 54), st.integers(0, 2**32 - 1))
def test_a_magnitude_that_costs_accuracy_is_told_with_what_is_left(bits: int, seed: int) -> None:
    error, warnings = declared(bits, seed, Traffic())
    told = re.search(r"known to (\S+) standard deviations only.*: f0, f1, f2, f3, f4 and 1 more", " ".join(warnings))
    assert told is not None
    assert error <= 20 * float(told.group(1))


@given(st.integers(64, 100), st.integers(0, 2**32 - 1))
def test_an_absurd_magnitude_is_an_error(bits: int, seed: int) -> None:
    with pytest.raises(CtfedError, match="no result, because the declared magnitude is so far above the spread"):
        declared(bits, seed, Traffic())


def test_spread_far_below_the_magnitude_is_harmonized_exactly() -> None:
    """A spread of a millionth of the mean, and a covariate in calendar years."""
    rows = made((30, 25, 20), p=8, q=1, seed=1)
    years = replace(rows, x=2010.0 + np.round(rows.x, 1))
    far = replace(years, y=years.y - years.y.mean(axis=0) + 1e6)
    traffic = Traffic()
    found = fit(split_by_batch(far), (Covariate("x0"),), traffic=traffic)
    assert traffic.rounds == 2
    near = replace(far, y=far.y - 1e6)
    expected = pooled_combat(near, CombatOptions())
    assert np.abs(values(found.view, split_by_batch(far)) - 1e6 - expected).max() <= 1e-8
    assert found.warnings == ()


def test_known_exponents_save_the_second_round() -> None:
    rows = made((30, 25, 20), p=8, q=0, seed=1)
    sites = split_by_batch(replace(rows, y=rows.y + 1e6))
    traffic = Traffic()
    fit(sites, exponents=(1,) * 8, traffic=traffic)
    assert traffic.rounds == 1


def test_standardised_columns_never_need_a_second_round() -> None:
    rows = made((278, 142, 82, 102, 30), p=50, q=3, seed=1)
    rows = replace(rows, y=(rows.y - rows.y.mean(axis=0)) / rows.y.std(axis=0))
    traffic = Traffic()
    sites = split_by_batch(rows)
    view = View((*(Feature(f"f{j}") for j in range(50)), *(Feature(f"x{j}", 2) for j in range(3))))
    assert view_over(sites).names == view.names
    fit(sites, [Covariate(f"x{j}") for j in range(3)], view=view, traffic=traffic)
    assert traffic.rounds == 1
