"""ComBat through messages: what travels comes back as it was, and a whole chain of steps equals the pooled one."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from combat_data import Rows, cohort_of, fit, made, split_by_batch, values, view_over

from ctfed.federation import Cohort, Feature, View, pool, run_pooled
from ctfed.federation.algorithm import Algorithm
from ctfed.federation.codec import Decoder, Encoder, canonical_json, digest
from ctfed.federation.errors import MalformedMessage
from ctfed.federation.pooled import Traffic
from ctfed.federation.query import Query
from ctfed.federation.view import Transform
from ctfed.federation.wire import encode_question
from ctfed.statistics.combat import Combat, CombatOptions, Covariate, Harmonized, combat, restandardise
from ctfed.statistics.combat.moments import CombatMoments
from ctfed.statistics.combat.named import CombatMeans, CombatReference, CombatSizes
from ctfed.statistics.cox import ElasticNet, fit_cox
from ctfed.statistics.harmonization_effect import BatchDeviations
from ctfed.statistics.impute import impute
from ctfed.statistics.standardise import Standardise, standardise

X0 = (Covariate("x0"),)
LEVELS = (Covariate("x0", (0, 1, 2.5)),)


def travelled(value: Any, kind: type) -> Any:
    encoder = Encoder()
    body = encoder.encode(value)
    return Decoder(encoder.flat(), encoder.shared).decode(body, kind)


def same(one: Any, other: Any) -> None:
    """Field by field, arrays to the last bit."""
    assert type(one) is type(other)
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert a.shape == b.shape
            assert a.tobytes() == b.tobytes()
        else:
            assert a == b
    assert digest(one) == digest(other)


@pytest.mark.parametrize("shared", [(), ("b0", "b1", "b2")])
def test_a_fitted_step_comes_back_as_it_was(shared: tuple[str, ...]) -> None:
    rows = made((30, 24, 18), p=5, q=1)
    place = np.arange(72) % 3
    sites = [cohort_of(f"s{k}", rows.y[place == k], rows.x[place == k], rows.batch[place == k]) for k in range(3)]
    step = fit(sites, X0, CombatOptions("none", shared=shared)).transform
    assert step.shared == shared
    same(step, travelled(step, Transform))


def test_questions_come_back_as_they_were() -> None:
    view = view_over(split_by_batch(made((30, 24, 18), p=2, q=1)))
    names = ("f0", "f1")
    for query in (
        CombatMoments(view, names, LEVELS, 5, (1, 2, 3, 4)),
        CombatMoments(view, names, X0, 5, (), ("b0",), np.arange(3.0)[None]),
        CombatSizes(view, ("b0", "b1"), 4),
        CombatMeans(view, names, LEVELS, ("b1",)),
        CombatReference(view, names, X0, "b1", 7),
        BatchDeviations(view, names, X0, np.arange(3.0)),
    ):
        same(query, travelled(query, Query))


def test_a_step_that_was_tampered_with_is_refused() -> None:
    step = fit(split_by_batch(made((30, 24), p=5, q=1)), X0).transform
    encoder = Encoder()
    body = encoder.encode(step)
    for change in (
        {"minimum": 1},
        {"prior": "flat"},
        {"unseen": "mean"},
        {"degenerate": ["f9"]},
        {"names": ["f0"]},
        {"covariates": []},
        {"shared": ["b0"]},
    ):
        with pytest.raises(MalformedMessage):
            Decoder(encoder.flat(), encoder.shared).decode(body | change, Transform)
    numbers = encoder.flat().copy()
    numbers[-1] = 0.0  # the last sigma
    with pytest.raises(MalformedMessage):
        Decoder(numbers, encoder.shared).decode(body, Transform)


def test_what_leaves_a_site_has_no_axis_of_patients() -> None:
    """The layout follows from the question alone, and a question travels without any patient's data."""
    view = view_over(split_by_batch(made((30, 24, 18), p=4, q=1)))
    query = CombatMoments(view, ("f0", "f1", "f2", "f3"), LEVELS)
    assert {name: entry.shape for name, entry in query.layout.items()} == {
        "left_out": (2,),
        "n": (1,),
        "batches": (1,),
        "x": (1, 2),
        "y": (1, 4),
        "sxx": (1, 3),
        "sxy": (1, 2, 4),
        "syy": (1, 4),
        "flat": (1, 4),
    }
    assert encode_question("run", 0, (query,), frozenset()).values.size == 0


def study_sites(seed: int = 0) -> list[Cohort]:
    """Three sites with two scanners each; missing values, training and test rows, folds, follow-up."""
    rows = made((40, 25, 30, 22, 35, 28), p=6, q=1, seed=seed)
    rng = np.random.default_rng(seed)
    y = np.round(rows.y, 2)
    y[rng.random(y.shape) < 0.05] = np.nan
    n = rows.batch.size
    split = np.where(rng.random(n) < 0.25, "test", "train")
    site = np.array([f"site-{int(label[1]) // 2}" for label in rows.batch])
    columns = {f"f{j}": y[:, j] for j in range(6)} | {"x0": rows.x[:, 0]}
    time, event = rng.exponential(20, n).round(1) + 0.1, rng.random(n) < 0.6
    whole = Cohort.of(
        "all",
        columns,
        time,
        event,
        stratum=site,
        batch=rows.batch,
        split=split,
        fold=np.where(split == "train", np.arange(n) % 4, -1),
    )
    return [whole.subset(site == label, label) for label in np.unique(site)]


def chain(view: View) -> Algorithm[Harmonized]:
    """Impute, standardise, harmonize, standardise: each step learned on the rows of ``view``."""
    methods = dict.fromkeys(view.names, "median")
    imputed = yield from impute(view, methods, dict.fromkeys(view.names, (-64.0, 64.0)), {}, (), 5)
    standardised = yield from standardise(imputed.view)
    harmonized = yield from combat(standardised.view, features=[f"f{j}" for j in range(6)], covariates=X0)
    again = yield from restandardise(harmonized)
    return replace(harmonized, view=again.view)


@pytest.mark.parametrize("fold", [None, 0, 2])
def test_a_chain_of_steps_equals_the_pooled_chain(fold: int | None) -> None:
    sites = study_sites()
    view = View(tuple(Feature(name, 3) for name in sites[0].columns))
    if fold is not None:
        view = view.training_fold(fold)
    traffic = Traffic()
    federated = run_pooled(chain(view), sites, traffic)
    pooled = run_pooled(chain(view), [pool(sites)])
    kinds = [kinds[0] for kinds in traffic.kinds]
    assert kinds[-3:] == ["moments", "combat-moments", "moments"]
    views = [federated.view, federated.view.test()]
    if fold is not None:
        views.append(replace(federated.view, held_out=True))
    for over in views:
        one = np.concatenate([over.table(site).values for site in sites])
        other = over.on(over.selection).table(pool(sites)).values
        two = replace(pooled.view, split=over.split, fold=over.fold, held_out=over.held_out).table(pool(sites)).values
        assert np.abs(one - two).max() <= 1e-11
        assert np.abs(one - other).max() <= 1e-11
        assert np.isfinite(one).all()
    trained = np.concatenate([federated.view.table(site).values for site in sites])
    np.testing.assert_allclose(trained.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(trained.std(axis=0), 1.0, atol=1e-12)


def test_a_model_of_harmonized_features_is_the_pooled_one() -> None:
    sites = study_sites(1)
    view = View(tuple(Feature(name, 3) for name in sites[0].columns))
    penalty = ElasticNet(0.05, 0.5)
    fits = []
    for cohorts in (sites, [pool(sites)]):
        found = run_pooled(chain(view), cohorts)
        fits.append(run_pooled(fit_cox(found.view, penalty), cohorts).coefficients)
    assert np.abs(fits[0] - fits[1]).max() <= 1e-8
    assert np.count_nonzero(fits[0])


def test_steps_travel_inside_the_view_of_a_question() -> None:
    """Once with their parameters, then by name; a site that holds the view is asked by its digest."""
    sites = study_sites()
    view = View(tuple(Feature(name, 3) for name in sites[0].columns))
    found = run_pooled(chain(view), sites)
    steps = found.view.transforms
    assert [type(step) for step in steps[1:]] == [Standardise, Combat, Standardise]
    query = CombatMoments(found.view, ("f0",), ())
    known = encode_question("run", 0, (query,), frozenset([digest(found.view)]))
    assert known.values.size == 0
    assert encode_question("run", 0, (query,), frozenset()).values.size > 4 * 7
    assert canonical_json(Encoder().encode(found.view.selection))


def restandardised(rows: Rows, options: CombatOptions, traffic: Traffic) -> tuple[Any, Any]:
    sites = split_by_batch(rows)
    found = fit(sites, X0[: rows.x.shape[1]], options)
    return run_pooled(restandardise(found), sites, traffic), run_pooled(standardise(found.view), sites)


@pytest.mark.parametrize("prior", ["parametric", "nonparametric", "none"])
@pytest.mark.parametrize("reference", ["", "b1"])
@pytest.mark.parametrize("mean_only", [False, True])
def test_standardisation_after_combat_takes_one_round(prior: str, reference: str, mean_only: bool) -> None:
    """The same as ``standardise``: means to 1e-12 of a standard deviation, scales to 1e-12 of themselves."""
    traffic = Traffic()
    rows = made((40, 25, 18, 5), p=10, q=1, seed=2, shift=4.0)
    one, two = restandardised(rows, CombatOptions(prior, mean_only, reference), traffic)
    assert traffic.rounds == 1
    close(one, two)


def close(one: Any, two: Any) -> None:
    a, b = one.view.transforms[-1], two.view.transforms[-1]
    assert (np.abs(a.mean - b.mean) <= 1e-12 * b.scale).all()
    assert (np.abs(a.scale - b.scale) <= 1e-12 * b.scale).all()
    assert a.constant == b.constant
    assert one.warnings == two.warnings
    assert (one.moments.patients, one.moments.events) == (two.moments.patients, two.moments.events)


def test_standardisation_after_combat_on_columns_of_any_scale() -> None:
    """Features of 1e-12 to 1e12, constant ones, a covariate in calendar years: asked once more where that is needed."""
    rows = made((40, 25, 18), p=10, q=1, seed=2)
    y = rows.y * 10.0 ** np.linspace(-12, 12, 10)
    for columns, x in (
        (y, rows.x),
        (np.column_stack([y, np.full(83, 0.1)]), rows.x),
        (np.column_stack([y, np.where(rows.batch == "b1", 5.0, 1e6 + rows.y[:, 0])]), rows.x),
        (y + 1e3 * np.abs(y).max(axis=0), 2010 + np.round(rows.x, 1)),
    ):
        traffic = Traffic()
        close(*restandardised(Rows(columns, x, rows.batch), CombatOptions(), traffic))
        assert traffic.rounds <= 2


@pytest.mark.parametrize("reference", ["", "b1"])
def test_without_covariates_and_prior_totals_alone_tell_the_moments(reference: str) -> None:
    """Mean alpha and variance (N - B) sigma^2 / N, or (N - B + 1) sigma^2 / N with a reference batch."""
    rows = made((40, 25, 18), p=10, q=0, seed=2)
    sites = split_by_batch(rows)
    found = fit(sites, (), CombatOptions("none", reference=reference))
    step = found.transform
    after = values(found.view, sites)
    degrees = found.rows - found.batches + bool(reference)
    np.testing.assert_allclose(after.mean(axis=0), step.alpha, rtol=1e-12)
    np.testing.assert_allclose(after.var(axis=0), degrees / found.rows * step.sigma**2, rtol=1e-12)
