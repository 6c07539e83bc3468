"""ComBat on data that break other implementations: a defined result or one clear sentence, never NaN from numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from combat_data import Rows, cohort_of, fit, harmonized, made, pooled_combat, split_by_batch, values, view_over
from hypothesis import given
from hypothesis import strategies as st

from ctfed.federation import CtfedError, Refusal, View, run_pooled
from ctfed.statistics.combat import CombatOptions, Covariate, combat
from ctfed.statistics.combat.moments import CombatMoments
from ctfed.statistics.combat.named import CombatMeans, CombatReference, CombatSizes

SMALL = CombatOptions(minimum=2)
X0 = (Covariate("x0"),)


def test_a_batch_of_one_patient_stays_as_it_is() -> None:
    rows = made((20, 1, 15), p=5, q=1, seed=0)
    found = fit(split_by_batch(rows), X0, SMALL)
    got = values(found.view, split_by_batch(rows))
    np.testing.assert_array_equal(got[20], rows.y[20])
    kept = np.arange(36) != 20
    others = Rows(rows.y[kept], rows.x[kept], rows.batch[kept])
    np.testing.assert_allclose(got[kept], pooled_combat(others, SMALL), atol=1e-12)
    assert (found.rows, found.batches, found.rows_left_out, found.batches_left_out) == (35, 2, 1, 1)
    assert "1 row in 1 batch of fewer than 2 rows took no part in the fit" in found.warnings


@pytest.mark.parametrize("column", ["f3", "x0"])
def test_missing_values_are_refused_in_one_sentence(column: str) -> None:
    rows = made((20, 15), p=5, q=1)
    sites = split_by_batch(rows)
    sites[1].columns[column][4] = np.nan
    with pytest.raises(Refusal, match=f"{column}.* has missing values; impute") as refused:
        fit(sites, X0, SMALL)
    assert refused.value.rule == "missing-values"


def test_a_value_outside_the_levels_is_refused() -> None:
    rows = made((20, 15), p=5, q=1, covariates="binary")
    with pytest.raises(Refusal, match="x0 has a value outside its levels"):
        fit(split_by_batch(rows), (Covariate("x0", (0, 2)),), SMALL)


def test_collinear_covariates_are_named() -> None:
    rows = made((20, 15), p=5, q=1)
    twice = replace(rows, x=np.column_stack([rows.x, 3 - 2 * rows.x]))
    with pytest.raises(CtfedError, match="covariates 'x0', 'x1' are collinear within batches; leave one out"):
        fit(split_by_batch(twice), (*X0, Covariate("x1")), SMALL)


def test_a_covariate_that_the_batch_explains_is_named() -> None:
    """Sex in a cohort of men and one of women; a level that nobody has."""
    rows = made((20, 15), p=5, q=1)
    confounded = replace(rows, x=(rows.batch == "b0").astype(float)[:, None])
    with pytest.raises(CtfedError, match="covariate 'x0' does not vary within any batch; leave it out"):
        fit(split_by_batch(confounded), X0, SMALL)
    binary = made((20, 15), p=5, q=1, covariates="binary")
    with pytest.raises(CtfedError, match=r"covariate 'x0' \(level 7\) does not vary within any batch"):
        fit(split_by_batch(binary), (Covariate("x0", (0, 1, 7)),), SMALL)


def test_a_level_that_one_site_lacks() -> None:
    rows = made((20, 25, 15), p=8, q=1, covariates="binary")
    x = rows.x.copy()
    x[:4] = 2
    x[rows.batch == "b2"] = np.where(x[rows.batch == "b2"] == 0, 0, 1)
    x[rows.batch == "b1"] = 1
    dummies = np.column_stack([x[:, 0] == 1, x[:, 0] == 2]).astype(float)
    found = fit(split_by_batch(replace(rows, x=x)), (Covariate("x0", (0, 1, 2)),), SMALL)
    expected = pooled_combat(replace(rows, x=dummies), SMALL)
    np.testing.assert_allclose(values(found.view, split_by_batch(replace(rows, x=x))), expected, atol=1e-12)
    assert "ComBat's covariate 'x0' (level 2) is carried by 4 patients of the fit; merge it with another" in (
        found.warnings
    )


def test_what_the_covariates_explain_entirely_stays_as_it_is() -> None:
    rows = made((20, 15), p=5, q=1)
    y = np.column_stack([rows.y, 0.3 + 7 * rows.x[:, 0]])
    found = fit(split_by_batch(replace(rows, y=y)), X0, SMALL)
    assert found.transform.degenerate == ("f5",)
    np.testing.assert_array_equal(values(found.view, split_by_batch(replace(rows, y=y)))[:, 5], y[:, 5])


def test_all_features_constant() -> None:
    y = np.full((20, 3), [0.1, 1e9, -7.0])
    sites = split_by_batch(Rows(y, np.zeros((20, 0)), np.repeat(["a", "b"], 10)))
    np.testing.assert_array_equal(harmonized(sites, (), SMALL), y)


def test_features_that_all_have_the_same_moments() -> None:
    """The prior is a point: no spread of locations, no spread of scales."""
    rows = made((20, 15), p=1, q=0)
    same = replace(rows, y=np.tile(rows.y, (1, 4)))
    expected = pooled_combat(rows, CombatOptions("none"))
    np.testing.assert_allclose(harmonized(split_by_batch(same), (), SMALL), np.tile(expected, (1, 4)), atol=1e-12)


def test_a_batch_of_two_patients() -> None:
    rows = made((2, 20), p=6, q=0, seed=3)
    for prior in ("parametric", "nonparametric", "none"):
        options = CombatOptions(prior, minimum=2)
        expected = pooled_combat(rows, options)
        np.testing.assert_allclose(harmonized(split_by_batch(rows), (), options), expected, atol=1e-12)


def test_a_single_batch_is_told() -> None:
    rows = made((20,), p=4, q=0)
    found = fit(split_by_batch(rows))
    assert found.warnings == (
        "a single batch took part in the fit: there is no difference between batches to take away",
    )
    assert np.isfinite(values(found.view, split_by_batch(rows))).all()


def test_mean_only_with_a_parametric_prior_warns_that_the_shift_stays() -> None:
    """300 patients each, effects of about one standard deviation: most of the shift is still there."""
    rows = made((300, 300), p=40, q=0, seed=1)
    sites = split_by_batch(rows)
    found = fit(sites, (), CombatOptions(mean_only=True))
    assert any("most of a shift can stay" in line for line in found.warnings)

    def shift(y: Any) -> float:
        return float(np.abs(y[:300].mean(axis=0) - y[300:].mean(axis=0)).mean())

    assert shift(values(found.view, sites)) > 0.3 * shift(rows.y)
    assert shift(harmonized(sites, (), CombatOptions("none", mean_only=True))) < 1e-12
    assert shift(harmonized(sites)) < 0.1 * shift(rows.y)


@st.composite
def awkward(draw: st.DrawFn) -> tuple[Rows, tuple[Covariate, ...], CombatOptions]:
    """Batches from a single row on; features that are constant here or there, rounded, doubled, or of odd magnitude."""
    sizes = draw(st.lists(st.integers(1, 14), min_size=1, max_size=4))
    p, q = draw(st.integers(1, 6)), draw(st.integers(0, 2))
    rows = made(
        sizes, p=p, q=q, seed=draw(st.integers(0, 2**32 - 1)), covariates=draw(st.sampled_from(("normal", "binary")))
    )
    y = rows.y.copy()
    for j in range(p):
        kind = draw(
            st.sampled_from(("plain", "constant", "in a batch", "rounded", "double", "tiny", "far", "covariate"))
        )
        if kind == "constant":
            y[:, j] = draw(st.sampled_from((0.0, 0.1, 1.0, -1e7)))
        elif kind == "in a batch":
            y[rows.batch == "b0", j] = 0.1
        elif kind == "rounded":
            y[:, j] = np.round(y[:, j])
        elif kind == "double":
            y[:, j] = y[:, 0]
        elif kind == "tiny":
            y[:, j] *= 1e-30
        elif kind == "far":
            y[:, j] += 1e8
        elif q:
            y[:, j] = 5 * rows.x[:, 0] + 0.1
    options = CombatOptions(
        draw(st.sampled_from(("parametric", "nonparametric", "none"))),
        draw(st.booleans()),
        draw(st.sampled_from(("", "b0"))),
        draw(st.sampled_from((2, 5))),
        draw(st.sampled_from(("identity", "local"))),
    )
    return replace(rows, y=y), tuple(Covariate(f"x{j}") for j in range(q)), options


@given(awkward())
def test_numbers_never_become_nan(drawn: Any) -> None:
    rows, covariates, options = drawn
    sites = split_by_batch(rows)
    try:
        found = fit(sites, covariates, options)
    except CtfedError:
        return
    assert np.isfinite(values(found.view, sites)).all()


def test_errors_are_sentences() -> None:
    rows = made((8, 5, 6), p=3, q=1)
    sites = split_by_batch(rows)
    cases = [
        (CombatOptions(minimum=9), "no batch at any site has the 9 rows that ComBat's fit needs"),
        (CombatOptions(reference="b9", minimum=2), "no site has a reference batch 'b9' of at least 2 rows of the fit"),
        (CombatOptions(reference="b1", minimum=6), "no site has a reference batch 'b1' of at least 6 rows of the fit"),
        (CombatOptions(shared=("b0",), minimum=2), "the batches that are not shared are held by 2 sites"),
        (CombatOptions(shared=("b0", "b1", "b2"), minimum=2), "batch 'b0' is held by 1 site; .* those of one site"),
        (CombatOptions(shared=("b9",), minimum=2), "batch 'b9' is held by 0 sites"),
    ]
    for options, sentence in cases:
        with pytest.raises(CtfedError, match=sentence):
            fit(sites, X0, options)
    parts = [cohort_of(f"s{k}", rows.y[k::3], rows.x[k::3], rows.batch[k::3]) for k in range(3)]
    with pytest.raises(
        CtfedError, match="reference batch 'b0' is held by 3 sites; a reference is one site's, or a batch"
    ):
        fit(parts, X0, CombatOptions(reference="b0", minimum=2))
    with pytest.raises(CtfedError, match="none of the shared batches has the 10 rows over all sites"):
        fit(parts, X0, CombatOptions(shared=("b0", "b1", "b2")))


def test_the_outcome_is_neither_covariate_nor_feature() -> None:
    sites = split_by_batch(made((20, 15), p=3, q=1))
    with pytest.raises(CtfedError, match=r"covariate 'x0' carries the outcome: .* leak the outcome"):
        fit(sites, X0, outcome=("x0",))
    with pytest.raises(CtfedError, match="column 'f1' carries the outcome and cannot be harmonized"):
        fit(sites, X0, outcome=("f1",))


def test_arguments_are_checked() -> None:
    view = view_over(split_by_batch(made((20, 15), p=3, q=1)))
    for options, match in ((CombatOptions("flat"), "prior must be"), (CombatOptions(unseen="mean"), "unseen one of")):
        with pytest.raises(ValueError, match=match):
            run_pooled(combat(view, ("f0",), (), options), split_by_batch(made((20, 15), p=3, q=1)))
    for arguments, match in (
        ({"minimum": 1}, "2 to 30, found 1"),
        ({"minimum": 200}, "2 to 30, found 200"),
        ({"features": ("f0", "f0")}, "named twice"),
        ({"features": ()}, "at least one feature"),
        ({"features": ("g",)}, "no column 'g'"),
        ({"covariates": (Covariate("f0"),)}, "both a feature and a covariate"),
        ({"exponents": (1, 2)}, "2 exponents for 1 columns"),
        ({"exponents": (900,)}, "outside"),
        ({"shared": ("a",)}, "centres of the shared batches"),
        ({"shared": ("a", "a")}, "named twice"),
    ):
        with pytest.raises(ValueError, match=match):
            CombatMoments(**({"view": view, "features": ("f0",)} | arguments))
    with pytest.raises(ValueError, match="two or more, each once"):
        Covariate("x0", (1, 1))


def test_a_shared_batch_that_is_too_small_is_left_out_of_the_fit() -> None:
    rows = made((30, 20, 25, 4), p=5, q=0, seed=2)
    place = np.arange(rows.batch.size) % 4
    sites = [cohort_of(f"s{k}", rows.y[place == k], None, rows.batch[place == k]) for k in range(4)]
    found = fit(sites, (), CombatOptions(shared=("b0", "b1", "b2", "b3")))
    assert found.transform.shared == ("b0", "b1", "b2")
    assert (found.batches, found.rows, found.rows_left_out) == (3, 75, 4)
    order = np.concatenate([np.flatnonzero(place == k) for k in range(4)])
    large = rows.batch != "b3"
    expected = rows.y.copy()
    expected[large] = pooled_combat(Rows(rows.y[large], rows.x[large], rows.batch[large]), CombatOptions())
    np.testing.assert_allclose(values(found.view, sites), expected[order], atol=1e-12)


def test_a_feature_that_is_constant_in_one_part_of_a_shared_batch_is_harmonized() -> None:
    rows = made((30, 20), p=5, q=0, seed=2)
    place = np.append(np.arange(30) % 3, np.arange(20) % 3)
    y = rows.y.copy()
    y[(place == 1) & (rows.batch == "b0"), 2] = 4.0
    y[rows.batch == "b1", 3] = 0.1
    sites = [cohort_of(f"s{k}", y[place == k], None, rows.batch[place == k]) for k in range(3)]
    found = fit(sites, (), CombatOptions(shared=("b0", "b1")))
    assert found.transform.degenerate == ("f3",)


def test_questions_that_name_a_batch_declare_nothing_to_a_gate() -> None:
    """A gate refuses them until it has been taught which labels its study names."""
    view = view_over(split_by_batch(made((20, 15), p=3, q=1)))
    moments = CombatMoments(view, ("f0",), X0)
    assert moments.exposure is not None
    assert moments.exposure.parameters == 2
    published = CombatReference(view, ("f0",), X0, "b0").exposure
    assert published is not None
    assert published.publishes == "b0"
    assert CombatMeans(view, ("f0",), X0, ("b0",)).exposure is None
    assert replace(moments, shared=("b0",), centres=np.zeros((1, 2))).exposure is None
    assert CombatSizes(view, ("b0", "b1")).exposure.cells == 3


def train_and_test(seed: int = 0) -> tuple[Rows, np.ndarray]:
    rows = made((30, 24, 18), p=6, q=1, seed=seed)
    return rows, np.where(np.arange(72) % 3 == 0, "test", "train")


@pytest.mark.parametrize("options", [SMALL, CombatOptions("nonparametric"), CombatOptions(reference="b1")])
def test_test_rows_change_no_bit_of_the_fit(options: CombatOptions) -> None:
    rows, split = train_and_test()
    found = fit(split_by_batch(rows, split=split), X0, options)
    y, x = rows.y.copy(), rows.x.copy()
    y[split == "test"] = 100 * y[split == "test"] + 3
    x[split == "test"] -= 5
    view = view_over(split_by_batch(rows, split=split))
    other = fit(split_by_batch(Rows(y, x, rows.batch), split=split), X0, options, view=view)
    for name in ("beta", "alpha", "sigma"):
        assert getattr(found.transform, name).tobytes() == getattr(other.transform, name).tobytes()
    for one, two in zip(
        split_by_batch(rows, split=split), split_by_batch(Rows(y, x, rows.batch), split=split), strict=True
    ):
        assert found.view.table(one).values.tobytes() == other.view.table(two).values.tobytes()


def test_test_patients_use_the_frozen_effects_of_their_site_and_their_own_covariates() -> None:
    rows, split = train_and_test()
    sites = split_by_batch(rows, split=split)
    found = fit(sites, X0, CombatOptions("none"))
    step = found.transform
    got = values(found.view.test(), sites)
    place = 0
    for label in ("b0", "b1", "b2"):
        train = (rows.batch == label) & (split == "train")
        test = (rows.batch == label) & (split == "test")
        expected = step.alpha + rows.x @ step.beta
        z = (rows.y - expected) / step.sigma
        gamma, delta = z[train].mean(axis=0), z[train].var(axis=0, ddof=1)
        own = step.sigma * (z[test] - gamma) / np.sqrt(delta) + expected[test]
        np.testing.assert_allclose(got[place : place + test.sum()], own, atol=1e-12)
        place += test.sum()
    # A patient alone gets what it got among others.
    alone = [site.subset(site.split != "test") for site in sites]
    first = np.flatnonzero(sites[1].split == "test")[2]
    alone[1] = sites[1].subset((sites[1].split == "train") | (np.arange(24) == first))
    assert values(found.view.test(), alone).shape[0] == 1
    np.testing.assert_array_equal(values(found.view.test(), alone)[0], values(found.view.test(), sites[1:2])[2])


def local(found: Any, y: Any, x: Any) -> Any:
    """Rows adjusted by themselves: alpha, beta and sigma as fitted."""
    step = found.transform
    expected = step.alpha + x @ step.beta
    z = (y - expected) / step.sigma
    gamma, delta = z.mean(axis=0), z.var(axis=0, ddof=1)
    return step.sigma * (z - gamma) / np.sqrt(delta) + expected


@pytest.mark.parametrize("unseen", ["identity", "local"])
@pytest.mark.parametrize("n", [0, 1, 2, 6, 20])
def test_a_site_that_the_fit_has_not_seen(n: int, unseen: str) -> None:
    """It has test rows alone. Below ``minimum`` of them the study chooses; from ``minimum`` on they are adjusted."""
    rows = made((30, 24, n), p=6, q=1, seed=5)
    split = np.where(rows.batch == "b2", "test", "train")
    sites = split_by_batch(rows, split=split)
    if n == 0:
        sites.append(cohort_of("b2", rows.y[:0], rows.x[:0], rows.batch[:0]))
    found = fit(sites, X0, CombatOptions("none", unseen=unseen))
    mine = rows.batch == "b2"
    got = values(found.view.test(), sites[2:])
    assert got.shape == (n, 6)
    if n >= (2 if unseen == "local" else 10):
        np.testing.assert_allclose(got, local(found, rows.y[mine], rows.x[mine]), atol=1e-12)
    else:
        np.testing.assert_array_equal(got, rows.y[mine])
    without = fit(sites[:2], X0, CombatOptions("none", unseen=unseen), view=found.before)
    assert without.transform.alpha.tobytes() == found.transform.alpha.tobytes()


def test_shrinkage_halves_the_noise_of_a_small_unseen_site() -> None:
    """A site of six without any batch effect: what is taken away is noise."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(106, 200))
    batch = np.repeat(["a", "b", "new"], [50, 50, 6])
    split = np.where(batch == "new", "test", "train")
    sites = split_by_batch(Rows(y, np.zeros((106, 0)), batch), split=split)
    moved = {}
    for prior in ("parametric", "none"):
        found = fit(sites, (), CombatOptions(prior, unseen="local"))
        table, fitted = (view.table(sites[2]) for view in (found.before.test(), found.before))
        (effect,) = found.transform.effects(table, fitted)
        assert (effect.rows, effect.fitted) == (6, False)
        moved[prior] = float(np.sqrt((effect.shrunken.gamma_star**2).mean()))
    assert moved["parametric"] < 0.5 * moved["none"]


def test_an_unseen_site_keeps_a_feature_that_is_constant_there() -> None:
    rows = made((30, 24, 6), p=6, q=0, seed=5)
    y = rows.y.copy()
    y[rows.batch == "b2", 4] = 0.0
    split = np.where(rows.batch == "b2", "test", "train")
    sites = split_by_batch(replace(rows, y=y), split=split)
    found = fit(sites, (), CombatOptions(unseen="local"))
    got = values(found.view.test(), sites[2:])
    np.testing.assert_array_equal(got[:, 4], 0.0)
    fewer = replace(rows, y=np.delete(y, 4, axis=1))
    less = fit(split_by_batch(fewer, split=split), (), CombatOptions(unseen="local"))
    np.testing.assert_allclose(
        np.delete(got, 4, axis=1), values(less.view.test(), split_by_batch(fewer, split=split)[2:]), atol=1e-12
    )


def test_few_rows_of_the_fit_give_way_to_more_rows_at_hand() -> None:
    """Three training and fifteen test patients of a scanner: its own rows at hand are the better estimate."""
    rows = made((30, 24, 18), p=6, q=0, seed=5)
    split = np.where((rows.batch == "b2") & (np.arange(72) >= 57), "test", "train")
    sites = split_by_batch(rows, split=split)
    found = fit(sites, (), CombatOptions("none"))
    test = (rows.batch == "b2") & (split == "test")
    np.testing.assert_allclose(values(found.view.test(), sites), local(found, rows.y[test], rows.x[test]), atol=1e-12)
    np.testing.assert_array_equal(values(found.view, sites)[54:], rows.y[54:57])


def test_held_out_folds_use_the_effects_of_the_others() -> None:
    rows = made((30, 24), p=6, q=0, seed=5)
    fold = np.arange(54) % 3
    sites = split_by_batch(rows, fold=fold)
    view: View = view_over(sites).training_fold(1)
    found = fit(sites, (), CombatOptions("none"), view=view)
    outside = Rows(rows.y[fold != 1], rows.x[fold != 1], rows.batch[fold != 1])
    np.testing.assert_allclose(values(found.view, sites), pooled_combat(outside, CombatOptions("none")), atol=1e-12)
    held_out = values(found.view.on(replace(view, held_out=True).selection), sites)
    y, train = rows.y, fold != 1
    for label, got in (("b0", held_out[:10]), ("b1", held_out[10:])):
        own = y[(rows.batch == label) & train]
        z = (y[(rows.batch == label) & ~train] - own.mean(axis=0)) / own.std(axis=0, ddof=1)
        np.testing.assert_allclose(got, z * found.transform.sigma + found.transform.alpha, atol=1e-12)
