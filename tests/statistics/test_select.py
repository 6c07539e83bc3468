"""Selection: pooled correlations for any split, caret's greedy rule, near-zero variance without value counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctfed.federation import Cohort, CtfedError, Feature, Refusal, View, gather, pool, run_pooled
from ctfed.federation.codec import Decoder, Encoder, digest
from ctfed.federation.pooled import Traffic
from ctfed.statistics.combat import combat
from ctfed.statistics.select import (
    MOST_COLUMNS,
    CrossMoments,
    Drop,
    Filters,
    Select,
    Selection,
    StableSelection,
    correlations,
    select,
    stable_selection,
    superfluous,
)
from ctfed.statistics.standardise import standardise


def one_site(columns: Mapping[str, Any], **labels: Any) -> Cohort:
    n = len(next(iter(columns.values())))
    return Cohort.of("s", columns, np.arange(1.0, n + 1), np.ones(n), **labels)


def correlated(seed: int, n: int, p: int, factors: int = 4) -> np.ndarray:
    """(n, p) columns in a few families, every column with a mean and a magnitude of its own."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, factors)) @ rng.normal(size=(factors, p)) + 0.4 * rng.normal(size=(n, p))
    return np.asarray((x + rng.normal(0, 30, p)) * 10.0 ** rng.integers(-6, 24, p))


def by_columns(x: np.ndarray) -> dict[str, np.ndarray]:
    return {f"f{j:03d}": column for j, column in enumerate(x.T)}


@given(data=st.data())
def test_any_split_gives_the_pooled_correlations(
    data: st.DataObject, make_federation: Callable[..., Any], view_of: Callable[..., View]
) -> None:
    cohorts = data.draw(make_federation(columns="abcd", missing=False, min_patients=3))
    view = view_of(cohorts)
    found = run_pooled(correlations(view), cohorts)
    frame = pd.DataFrame(pool(cohorts).columns)[list(view.names)]
    spread = frame.std(ddof=0).to_numpy()
    varying = frame.nunique().to_numpy() > 1
    assert (found.constant == ~varying).all()
    np.testing.assert_allclose(found.mean, frame.mean().to_numpy(), rtol=1e-12, atol=1e-14 * spread.max())
    np.testing.assert_allclose(found.sd[varying], spread[varying], rtol=1e-8)
    centred = frame - frame.mean()  # pandas' corr alone loses digits where the mean is a million spreads
    np.testing.assert_allclose(
        found.r[np.ix_(varying, varying)], centred.corr().to_numpy()[np.ix_(varying, varying)], rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("sites", [1, 3, 6])
def test_a_split_does_not_change_what_is_selected(
    sites: int, split_cohort: Callable[..., list[Cohort]], view_of: Callable[..., View]
) -> None:
    whole = one_site(by_columns(correlated(3, 150, 40)))
    view = view_of([whole])
    pooled = run_pooled(select(view), [whole])
    assignment = np.random.default_rng(sites).integers(0, sites, 150)
    found = run_pooled(select(view), split_cohort(whole, assignment, sites))
    assert found.names == pooled.names
    assert found.dropped.keys() == pooled.dropped.keys()
    assert 0 < len(found.names) < 40
    expected = np.corrcoef(np.stack(list(whole.columns.values())))
    np.testing.assert_allclose(found.correlations.r, expected, rtol=0, atol=1e-10)


def test_correlation_is_exact_where_the_spread_is_a_billionth_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(300, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    # Whole multiples of the last bit of 2^30, so that a shift by the mean is itself exact.
    small = np.rint(noise * 2**20) * 2.0**-20
    shifted = small * 2.0**-2 + 2.0**30
    assert (shifted - 2.0**30 == small / 4).all()
    columns = {"a": shifted[:, 0], "b": shifted[:, 1], "huge": small[:, 0] * 1e24}
    view = View((Feature("a", 30), Feature("b", 30), Feature("huge", 82)))
    whole = one_site(columns)
    found = run_pooled(correlations(view), [whole.subset(np.arange(300) % 3 == k, f"s{k}") for k in range(3)])
    expected = np.corrcoef(small.T)[0, 1]
    assert found.r[0, 1] == pytest.approx(expected, abs=1e-10)
    assert found.r[1, 2] == pytest.approx(expected, abs=1e-10)
    assert found.r[0, 2] == pytest.approx(1.0, abs=1e-10)


def plain_find_correlation(r: np.ndarray, threshold: float) -> set[int]:
    """caret's exact rule as its source reads, with means worked out anew each time. Columns are in order of name."""
    r = np.abs(r)
    p = r.shape[0]
    without = r.copy()
    np.fill_diagonal(without, np.nan)
    order = np.argsort(-np.nanmean(without, axis=0), kind="stable")
    x, left = r[np.ix_(order, order)], without[np.ix_(order, order)]
    gone = np.zeros(p, dtype=bool)
    for i in range(p - 1):
        for j in range(i + 1, p):
            if not gone[i] and not gone[j] and x[i, j] > threshold:
                rows = np.delete(left, j, axis=0)
                k = i if np.nanmean(left[i]) > np.nanmean(rows) else j
                gone[k] = True
                left[k] = left[:, k] = np.nan
    return {int(index) for index in order[gone]}


def plain_find_correlation_fast(r: np.ndarray, threshold: float) -> set[int]:
    """caret's fast rule: of every pair above the threshold, the column with the larger mean."""
    mean = np.abs(r).mean(axis=0)
    pairs = [(i, j) for j in range(len(r)) for i in range(j) if abs(r[i, j]) > threshold]
    return {j if mean[j] > mean[i] else i for i, j in pairs}


@given(st.integers(0, 10_000), st.integers(2, 30), st.sampled_from([0.3, 0.7, 0.9]))
def test_the_greedy_rule_is_that_of_the_plain_reference(seed: int, p: int, threshold: float) -> None:
    r = np.round(np.corrcoef(correlated(seed, 40, p).T), 10)
    names = [f"f{j:02d}" for j in range(p)]
    assert {index for index, _ in superfluous(r, names, threshold)} == plain_find_correlation(r, threshold)
    fast = {index for index, _ in superfluous(r, names, threshold, "fast")}
    assert fast == plain_find_correlation_fast(r, threshold)


def caret_matrix() -> np.ndarray:
    i, j = np.arange(1.0, 41)[:, None], np.arange(1.0, 25)
    return np.corrcoef((np.sin(i * 0.37 * (1 + np.floor(j / 4))) + 0.05 * j * np.cos(i * j * 1.7)).T)


# What findCorrelation of R's caret 6.0-93 printed for the same matrix (columns counted from 1), sorted.
CARET = {
    (0.9, "exact"): [1, 3, 5, 6, 7],
    (0.9, "fast"): [2, 3, 4, 5, 6],
    (0.7, "exact"): [1, 3, 5, 6, 7, 9, 10, 11],
    (0.7, "fast"): [2, 3, 4, 5, 6, 8, 9, 11],
}


@pytest.mark.parametrize(("threshold", "variant"), CARET)
def test_the_greedy_rule_is_carets(threshold: float, variant: str) -> None:
    names = [f"f{j:02d}" for j in range(24)]
    dropped = superfluous(caret_matrix(), names, threshold, variant)
    assert sorted(index + 1 for index, _ in dropped) == CARET[threshold, variant]
    r = np.abs(caret_matrix())
    assert all(r[index, partner] > threshold for index, partner in dropped)


def test_the_greedy_rule_on_the_example_of_carets_manual() -> None:
    upper = {(0, 1): 0.86, (0, 2): 0.56, (0, 3): 0.32, (0, 4): 0.85, (1, 2): 0.01, (1, 3): 0.74, (1, 4): 0.32}
    upper |= {(2, 3): 0.65, (2, 4): 0.91, (3, 4): 0.36}
    r = np.eye(5)
    for (i, j), value in upper.items():
        r[i, j] = r[j, i] = value
    names = ["x1", "x2", "x3", "x4", "x5"]
    assert sorted(index + 1 for index, _ in superfluous(r, names, 0.6)) == [1, 4, 5]
    assert sorted(index + 1 for index, _ in superfluous(r, names, 0.6, "fast")) == [1, 3, 4, 5]


@given(st.integers(0, 1000), st.permutations(range(9)))
def test_the_order_of_the_columns_does_not_matter(seed: int, order: list[int]) -> None:
    x = correlated(seed, 30, 6)
    x = np.hstack([x, x[:, :3]])  # copies: ties in every mean
    names = [f"f{j}" for j in range(9)]
    r = np.corrcoef(x.T)
    for variant in ("exact", "fast"):
        dropped = {names[index] for index, _ in superfluous(r, names, 0.8, variant)}
        moved = [names[j] for j in order]
        again = {moved[index] for index, _ in superfluous(r[np.ix_(order, order)], moved, 0.8, variant)}
        assert dropped == again
        assert all(dropped & {names[j], names[j + 6]} for j in range(3))


def test_nothing_above_the_threshold_is_left() -> None:
    x = correlated(11, 80, 50, factors=6)
    for threshold in (0.5, 0.9):
        r = np.corrcoef(x.T)
        dropped = {index for index, _ in superfluous(r, [f"f{j:02d}" for j in range(50)], threshold)}
        left = [j for j in range(50) if j not in dropped]
        off = np.abs(r[np.ix_(left, left)]) - np.eye(len(left))
        assert off.max() <= threshold


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3e11, 1.3e24])
def test_a_constant_column_is_dropped(value: float, view_of: Callable[..., View]) -> None:
    noise = np.array([0, 1, -1, 0, 1, 0]) * np.spacing(value) if value else np.zeros(6)
    whole = one_site({"flat": value + noise, "b": np.arange(6.0), "c": np.arange(6.0) ** 2})
    found = run_pooled(select(view_of([whole]), Filters(threshold=0.99)), [whole])
    assert found.names == ("b", "c")
    assert found.dropped == {"flat": Drop("constant")}
    assert found.view.table(whole).values.shape == (6, 2)


@pytest.mark.parametrize(("carriers", "kept"), [(4, False), (5, False), (6, True), (50, True), (95, False), (94, True)])
def test_a_binary_column_is_near_zero_below_the_rare_share(
    carriers: int, kept: bool, view_of: Callable[..., View]
) -> None:
    whole = one_site({"rare": np.arange(100) < carriers, "b": np.sin(np.arange(100.0))})
    found = run_pooled(select(view_of([whole]), Filters(steps={"rare": 1.0}, rare=0.0501)), [whole])
    assert ("rare" in found.names) == kept
    assert kept or found.dropped["rare"].reason == "near-zero variance"


@given(st.integers(0, 10_000))
def test_a_column_of_few_values_is_dropped_only_if_one_value_dominates(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.choice(6, 200, p=rng.dirichlet([0.1] * 6)).astype(float)
    whole = one_site({"grade": levels, "b": rng.normal(size=200)})
    found = run_pooled(select(View((Feature("grade", 3), Feature("b", 2))), Filters(steps={"grade": 1.0})), [whole])
    if found.dropped.get("grade", Drop("")).reason == "near-zero variance":
        assert np.unique(levels, return_counts=True)[1].max() > 0.95 * 200


def test_a_spread_that_is_a_small_part_of_the_mean_is_near_zero(view_of: Callable[..., View]) -> None:
    x = np.sin(np.arange(50.0))
    whole = one_site({"narrow": 1e5 + x, "centred": x * 1e-9, "wide": np.cos(np.arange(50.0))})
    found = run_pooled(select(view_of([whole])), [whole])
    assert found.names == ("centred", "wide")
    assert found.dropped["narrow"] == Drop("near-zero variance")
    everything = run_pooled(select(view_of([whole]), Filters(threshold=1.0, spread=0.0)), [whole])
    assert everything.names == ("narrow", "centred", "wide")


def test_a_correlated_column_names_its_partner(view_of: Callable[..., View]) -> None:
    x = np.sin(np.arange(60.0))
    whole = one_site({"b": x, "a": -3 * x + 5, "c": np.cos(3.1 * np.arange(60.0))})
    found = run_pooled(select(view_of([whole])), [whole])
    assert found.names == ("b", "c")
    assert found.dropped["a"].reason == "correlated"
    assert found.dropped["a"].partner == "b"
    assert found.dropped["a"].r == pytest.approx(-1.0, abs=1e-12)


def test_after_combat_correlations_are_those_of_the_harmonized_columns(view_of: Callable[..., View]) -> None:
    rng = np.random.default_rng(4)
    batch = np.repeat(["x", "y", "z"], 40)
    shift = np.repeat(rng.normal(0, 5, (3, 4)), 40, axis=0)
    columns = by_columns(rng.normal(size=(120, 4)) @ rng.normal(size=(4, 4)) + shift)
    whole = one_site(columns, batch=batch)
    cohorts = [whole.subset(batch == label, f"site-{label}") for label in "xyz"]
    fitted = run_pooled(combat(view_of([whole])), cohorts)
    found = run_pooled(correlations(fitted.view), cohorts)
    harmonized = np.vstack([fitted.view.table(cohort).values for cohort in cohorts])
    np.testing.assert_allclose(found.r, np.corrcoef(harmonized.T), rtol=0, atol=1e-10)
    assert np.abs(found.r - np.corrcoef(np.stack(list(columns.values())))).max() > 0.05


def test_many_views_are_asked_in_two_rounds(make_cohort: Callable[..., Cohort], view_of: Callable[..., View]) -> None:
    rng = np.random.default_rng(5)
    whole = make_cohort(rng, by_columns(correlated(5, 200, 12)), folds=4)
    views = [view_of([whole]).training_fold(fold) for fold in range(4)]
    traffic = Traffic()
    found: list[Selection] = run_pooled(gather(*[select(view) for view in views]), [whole], traffic)
    assert traffic.rounds == 2
    for fold, selection in enumerate(found):
        x = np.stack(list(whole.columns.values()))[:, whole.fold != fold]
        np.testing.assert_allclose(selection.correlations.r, np.corrcoef(x), rtol=0, atol=1e-10)
        assert selection.view.table(whole).values.shape == (x.shape[1], len(selection.names))
    stable = stable_selection(found)
    assert stable.folds == 4
    assert stable.chosen == {name: sum(name in s.names for s in found) for name in whole.columns}
    assert stable.names == tuple(name for name in whole.columns if stable.chosen[name] >= 3)
    assert view_of([whole]).then(stable.step).names == stable.names


def test_a_standardised_view_selects_the_same(view_of: Callable[..., View]) -> None:
    whole = one_site(by_columns(correlated(8, 90, 20)))
    view = view_of([whole])
    z = run_pooled(standardise(view), [whole]).view
    assert run_pooled(select(z), [whole]).names == run_pooled(select(view, Filters(spread=0.0)), [whole]).names


def _chosen(names: tuple[str, ...], considered: tuple[str, ...] = ("a", "b", "c")) -> Selection:
    whole = one_site({name: np.sin(np.arange(9.0) * (k + 1)) for k, name in enumerate(considered)})
    view = View(tuple(Feature(name) for name in considered))
    found = run_pooled(correlations(view), [whole])
    return Selection(view.then(Select(names)), (), considered, names, {}, found)


def test_stable_selection_wants_more_than_its_share() -> None:
    folds = [_chosen(("a", "b")), _chosen(("a",)), _chosen(("c", "b", "a")), _chosen(())]
    assert stable_selection(folds) == StableSelection(("a",), {"a": 3, "b": 2, "c": 1}, 4, 0.5)
    assert stable_selection(folds, 0.25).names == ("a", "b")
    assert stable_selection(folds, 0.0).names == ("a", "b", "c")
    with pytest.raises(CtfedError, match="different columns"):
        stable_selection([*folds, _chosen(("a",), ("a", "b"))])
    with pytest.raises(CtfedError, match="at least one"):
        stable_selection([])
    with pytest.raises(CtfedError, match="share"):
        stable_selection(folds, 1.0)


def test_more_columns_than_patients(view_of: Callable[..., View]) -> None:
    whole = one_site(by_columns(correlated(9, 12, 30)))
    found = run_pooled(select(view_of([whole])), [whole])
    np.testing.assert_allclose(found.correlations.r, np.corrcoef(np.stack(list(whole.columns.values()))), atol=1e-10)


def test_no_column_may_be_left() -> None:
    whole = one_site({"a": np.ones(5), "b": np.full(5, 2.0)})
    found = run_pooled(select(View((Feature("a"), Feature("b", 1)))), [whole])
    assert found.names == ()
    assert found.warnings == ("no column is left after selection",)
    assert found.view.table(whole).values.shape == (5, 0)


def test_missing_values_are_refused_in_words() -> None:
    cohorts = [one_site({"a": [1.0, np.nan, 2.0], "b": [1.0, 2.0, 4.0]})]
    view = View((Feature("a"), Feature("b")))
    with pytest.raises(CtfedError, match="column 'a' lacks 1 values; impute before selecting"):
        run_pooled(select(view), cohorts)
    with pytest.raises(Refusal, match="missing-values: a has missing"):
        CrossMoments(view, np.zeros(2)).answer(cohorts[0])


def test_an_empty_split_is_refused_in_words() -> None:
    whole = one_site({"a": [1.0, 3.0, 2.0]})
    with pytest.raises(CtfedError, match="holds no patient"):
        run_pooled(select(View((Feature("a"),)).test()), [whole])


def test_a_query_and_a_selection_travel() -> None:
    view = View((Feature("a", 2), Feature("b"))).then(Select(("b", "a")))
    assert view.features == (Feature("b"), Feature("a", 2))
    sent = CrossMoments(view, np.array([0.5, 1e20]), (-3, 60))
    encoder = Encoder()
    body = encoder.body(sent)
    found = Decoder(encoder.flat(), encoder.shared).build(body, CrossMoments, "query")
    assert digest(found) == digest(sent)
    assert found.exponents == (-3, 60)
    assert sent.exposure.parameters == 2
    assert sent.layout["products"].exponents.tolist() == [-6, 57, 120]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda view: CrossMoments(view, np.zeros(1)), "centre"),
        (lambda view: CrossMoments(view, np.zeros(2), (1,)), "exponents"),
        (lambda view: CrossMoments(view, np.zeros(2), (1, 300)), "outside"),
        (lambda view: view.then(Select(("a", "nowhere"))), "no 'nowhere'"),
        (lambda view: Select(("a", "a")), "twice"),
        (lambda view: Filters(threshold=0.0), "threshold"),
        (lambda view: Filters(rare=0.5), "rare"),
        (lambda view: Filters(variant="mean"), "variant"),
        (lambda view: Filters(steps={"a": 0.0}), "step"),
        (lambda view: superfluous(np.eye(2), ("a", "b"), 0.9, "mean"), "variant"),
    ],
)
def test_impossible_parameters_are_refused(make: Callable[[View], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(View((Feature("a"), Feature("b"))))


def test_a_view_that_is_too_wide_is_projected_instead() -> None:
    wide = View(tuple(Feature(f"f{j}") for j in range(MOST_COLUMNS + 1)))
    with pytest.raises(ValueError, match="project"):
        CrossMoments(wide, np.zeros(MOST_COLUMNS + 1))


def test_radiomic_features_of_real_scans(shared_data: Path) -> None:
    frame = pd.read_csv(shared_data / "radiomics" / "lung1_pyradiomics_clinical_manufacturer.csv")
    frame = frame.filter(like="original_").dropna()
    whole = one_site({name: frame[name].to_numpy(dtype=np.float64) for name in frame.columns})
    magnitude = np.ceil(np.log2(np.abs(frame).max())).astype(int)
    view = View(tuple(Feature(name, int(magnitude[name])) for name in frame.columns))
    sites = [whole.subset(np.arange(len(frame)) % 5 == k, f"s{k}") for k in range(5)]
    found = run_pooled(select(view), sites)
    expected = np.corrcoef(frame.to_numpy().T)
    np.testing.assert_allclose(found.correlations.r, expected, rtol=0, atol=1e-9)
    order = np.argsort(frame.columns.to_numpy(), kind="stable")
    varying = [j for j in order if frame.columns[j] not in found.dropped or found.dropped[frame.columns[j]].partner]
    gone = plain_find_correlation(expected[np.ix_(varying, varying)], 0.9)
    assert {name for name, drop in found.dropped.items() if drop.partner} == {frame.columns[varying[j]] for j in gone}
