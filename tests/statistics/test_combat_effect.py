"""What the batch explains before and after harmonization, against regressions on all patients' rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from combat_data import Rows, cohort_of, features_of, fit, made, split_by_batch, values, view_over
from hypothesis import given
from hypothesis import strategies as st

from ctfed.federation import CtfedError, FloatArray, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.statistics.combat import CombatOptions, Covariate
from ctfed.statistics.harmonization_effect import (
    BatchDeviations,
    BatchEffect,
    HarmonizationEffect,
    batch_effect,
    harmonization_effect,
)

X0 = (Covariate("x0"),)


def share_from_rows(rows: Rows) -> FloatArray:
    """(p,) 1 - R1 / R0 of two least squares fits."""
    labels = np.unique(rows.batch)
    batches = np.column_stack([rows.batch == label for label in labels]).astype(float)
    one = np.column_stack([np.ones(rows.batch.size), rows.x])

    def left(design: FloatArray) -> FloatArray:
        residual = rows.y - design @ np.linalg.lstsq(design, rows.y, rcond=None)[0]
        return (residual**2).sum(axis=0)

    return 1 - left(np.column_stack([batches, rows.x])) / left(one)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2), st.booleans())
def test_the_share_is_that_of_the_pooled_regressions(seed: int, q: int, together: bool) -> None:
    rows = made((22, 9, 2, 30), p=5, q=q, seed=seed)
    sites = split_by_batch(rows)
    if together:
        sites = [cohort_of("all", rows.y, rows.x, rows.batch)]
    view = view_over(sites)
    traffic = Traffic()
    found = run_pooled(batch_effect(view, features_of(view), [Covariate(f"x{j}") for j in range(q)]), sites, traffic)
    np.testing.assert_allclose(found.share, share_from_rows(rows), atol=1e-12)
    assert traffic.rounds == 2
    assert (found.rows, found.batches) == (63, 4)
    assert found.chance == pytest.approx(3 / (62 - q))


def test_combat_takes_the_batch_away_in_two_more_rounds() -> None:
    rows = made((40, 25, 18), p=20, q=1, seed=4, shift=2.0)
    sites = split_by_batch(rows)
    traffic = Traffic()
    for prior, limit in (("none", 0.005), ("parametric", 0.02), ("nonparametric", 0.1)):
        found = fit(sites, X0, CombatOptions(prior))
        effect = run_pooled(harmonization_effect(found), sites, traffic)
        np.testing.assert_allclose(effect.before.share, share_from_rows(rows), atol=1e-12)
        after = Rows(values(found.view, sites), rows.x, rows.batch)
        np.testing.assert_allclose(effect.after.share, share_from_rows(after), atol=1e-12)
        assert np.median(effect.before.share) > 0.4
        assert np.median(effect.after.share) < limit
    assert traffic.rounds == 6


def test_a_difference_that_covariates_explain_is_not_the_batch() -> None:
    """Sites that differ in age alone: the raw share is large, the adjusted one is chance."""
    rng = np.random.default_rng(0)
    batch = np.repeat(["a", "b", "c"], 60)
    age = rng.normal(size=180) + np.repeat([0.0, 2.0, 4.0], 60)
    rows = Rows(age[:, None] + 0.5 * rng.normal(size=(180, 8)), age[:, None], batch)
    sites = split_by_batch(rows)
    view = view_over(sites)
    raw = run_pooled(batch_effect(view, features_of(view)), sites)
    adjusted = run_pooled(batch_effect(view, features_of(view), X0), sites)
    assert raw.share.min() > 0.5
    assert adjusted.share.max() < 5 * adjusted.chance


def test_features_of_which_the_batch_explains_more_than_before_are_named() -> None:
    """Neither a constant feature nor one that the batch alone decides is worse than before: both stay as they are."""
    rows = made((40, 25, 18), p=6, q=0, seed=4)
    y = np.column_stack([rows.y, np.full(83, 0.1), np.where(rows.batch == "b1", 5.0, 1.0)])
    sites = split_by_batch(replace(rows, y=y))
    effect = run_pooled(harmonization_effect(fit(sites)), sites)
    assert effect.before.share[6:].tolist() == effect.after.share[6:].tolist() == [0.0, 1.0]
    before = BatchEffect(("a", "b", "c"), 9, 2, np.array([0.1, 0.2, 0.3]), 0.1)
    after = replace(before, share=np.array([0.1 + 1e-12, 0.3, 0.1]))
    assert HarmonizationEffect(before, after).worse == ("b",)


def test_shrinkage_makes_a_feature_without_a_batch_effect_worse() -> None:
    """One feature does not differ between scanners where all others do: the prior moves it."""
    rng = np.random.default_rng(1)
    batch = np.repeat(["a", "b"], 12)
    y = rng.normal(size=(24, 30))
    y[:12, 1:] += 3.0
    y[:, 0] -= np.where(batch == "a", y[:12, 0].mean(), y[12:, 0].mean())
    sites = split_by_batch(Rows(y, np.zeros((24, 0)), batch))
    effect = run_pooled(harmonization_effect(fit(sites)), sites)
    assert effect.worse == ("f0",)
    assert effect.after.share[0] > effect.before.share[0] + 0.01


def test_spread_far_below_the_magnitude() -> None:
    rows = made((40, 25, 18), p=5, q=1, seed=4)
    far = replace(rows, y=rows.y + 1e7)
    sites = split_by_batch(far)
    view = view_over(sites)
    found = run_pooled(batch_effect(view, features_of(view), X0), sites)
    np.testing.assert_allclose(found.share, share_from_rows(replace(far, y=far.y - 1e7)), atol=1e-7)


def test_collinear_covariates_count_once() -> None:
    rows = made((40, 25), p=4, q=1, seed=4)
    twice = replace(rows, x=np.column_stack([rows.x, 2 * rows.x, np.ones(65)]))
    sites = split_by_batch(twice)
    view = view_over(sites)
    found = run_pooled(batch_effect(view, features_of(view), [Covariate(f"x{j}") for j in range(3)]), sites)
    np.testing.assert_allclose(found.share, share_from_rows(rows), atol=1e-9)


def test_one_batch_has_no_effect_to_show() -> None:
    sites = split_by_batch(made((20, 1), p=2, q=0))
    view = view_over(sites)
    with pytest.raises(CtfedError, match="1 batches have at least 2 rows; a batch effect is seen between two or more"):
        run_pooled(batch_effect(view, features_of(view)), sites)


def test_what_is_told_is_declared() -> None:
    view = view_over(split_by_batch(made((20, 15), p=3, q=1)))
    query = BatchDeviations(view, ("f0", "f1"), X0, np.zeros(3))
    assert query.exposure.parameters == 2
    assert {name: entry.shape for name, entry in query.layout.items()} == {"sxx": (1,), "sxy": (1, 2), "syy": (2,)}
    with pytest.raises(ValueError, match=r"centre has shape \(2,\), expected \(3,\)"):
        BatchDeviations(view, ("f0", "f1"), X0, np.zeros(2))
