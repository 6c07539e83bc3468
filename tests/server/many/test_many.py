"""A study of many models: federated equals pooled, folds never see what they are scored on, ComBat finds what scanners
hide, and every step is what the field's own tools give on the pooled rows."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from many_support import FOLDS, TEXTURE, cohorts, content, study
from neuroCombat import neuroCombat
from pydantic import ValidationError
from sksurv.metrics import concordance_index_censored

from ctfed.federation import Cohort, Refusal, View, pool, run_pooled
from ctfed.federation.policy import Policy
from ctfed.federation.pooled import Traffic
from ctfed.study import Study, census_of, scope_of
from server.many.algorithm import ManyResult, many_algorithm, scores_by_name
from server.many.search import Found


@pytest.fixture(scope="module")
def sites() -> list[Cohort]:
    return cohorts()


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture(scope="module")
def result(sites: list[Cohort], traffic: Traffic) -> ManyResult:
    return run_pooled(many_algorithm(study()), sites, traffic)


def values(view: View, cohort: Cohort) -> np.ndarray:
    return view.table(cohort).values


def concordance(result: ManyResult, name: str) -> tuple[float, float]:
    """Within sites, and pooled."""
    one, k = scores_by_name(result)[name]
    assert one.pooled is not None
    return float(one.paired.concordance.value[k]), float(one.pooled.c.value[k])


# -- federated equals pooled


def test_one_site_with_all_rows_and_their_labels_gives_the_same_study(sites: list[Cohort], result: ManyResult) -> None:
    pooled = run_pooled(many_algorithm(study()), [pool(sites)])
    for one, other in zip(result.models, pooled.models, strict=True):
        assert one.found == other.found  # the same trials, scores and best parameters
        assert one.fit.view.names == other.fit.view.names
        np.testing.assert_allclose(one.fit.coefficients, other.fit.coefficients, rtol=0, atol=1e-9)
    for one, other in zip(result.evaluated, pooled.evaluated, strict=True):
        np.testing.assert_allclose(one.paired.concordance.value, other.paired.concordance.value, atol=1e-12)
        assert one.pooled is not None
        assert other.pooled is not None
        np.testing.assert_array_equal(one.pooled.table.counts, other.pooled.table.counts)
        assert one.predictions is not None
        assert other.predictions is not None
        np.testing.assert_allclose(one.predictions.errors.brier, other.predictions.errors.brier, atol=1e-9)
    assert result.consensus is not None
    assert pooled.consensus is not None
    np.testing.assert_array_equal(result.consensus.classified.counts, pooled.consensus.classified.counts)


def test_the_same_seed_searches_the_same_and_another_does_not(sites: list[Cohort], result: ManyResult) -> None:
    changed = content()["search"] | {"seed": 7}
    other = run_pooled(many_algorithm(study(search=changed)), sites)
    again = run_pooled(many_algorithm(study()), sites)
    assert [model.found for model in again.models] == [model.found for model in result.models]
    assert other.models[0].found != result.models[0].found


def test_rounds_do_not_grow_with_the_number_of_models(sites: list[Cohort], traffic: Traffic) -> None:
    few = content()
    few["models"] = {name: few["models"][name] for name in ("clinical", "texture-combat", "wide-combat")}
    del few["consensus"]
    counted = Traffic()
    run_pooled(many_algorithm(Study.model_validate(few)), sites, counted)
    assert traffic.rounds <= counted.rounds + 16  # a subgroup's and a consensus' own


# -- what the scanners hide


def test_a_planted_signal_is_found_with_combat_and_not_without(result: ManyResult) -> None:
    """Sicker sites have scanners that read lower: over all patients the raw feature ranks nobody."""
    _, raw = concordance(result, "texture")
    _, harmonized = concordance(result, "texture-combat")
    assert raw < 0.58
    assert harmonized > 0.70


def test_of_two_features_that_say_the_same_one_stays(result: ManyResult) -> None:
    model = next(one for one in result.models if one.name == "texture-combat")
    assert len({"t0", "t1"} & set(model.fit.view.names)) == 1
    assert model.design.chosen["t0"] + model.design.chosen["t1"] == FOLDS


# -- each step against the field's tools, on the pooled rows


@pytest.fixture(scope="module")
def training(sites: list[Cohort]) -> pd.DataFrame:
    """Texture of the training rows, the mean in place of a missing value, standardised."""
    pooled = pool(sites)
    frame = pd.DataFrame({name: pooled.columns[name] for name in TEXTURE})[pooled.split == "train"]
    frame = frame.fillna(frame.mean())
    frame = (frame - frame.mean()) / frame.std(ddof=0)
    return frame.assign(site=pooled.batch[pooled.split == "train"])


def test_harmonized_columns_are_neurocombats(training: pd.DataFrame, sites: list[Cohort], result: ManyResult) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        found = neuroCombat(
            dat=training[list(TEXTURE)].to_numpy().T, covars=training[["site"]], batch_col="site", parametric=True
        )
    expected = pd.DataFrame(found["data"].T, columns=list(TEXTURE))
    expected = (expected - expected.mean()) / expected.std(ddof=0)
    model = next(one for one in result.models if one.name == "texture-combat")
    view = model.fit.view
    ours = np.concatenate([values(view, cohort) for cohort in sites])
    np.testing.assert_allclose(ours, expected[list(view.names)].to_numpy(), rtol=0, atol=1e-9)


def test_no_two_selected_columns_of_a_fold_are_above_the_threshold(sites: list[Cohort], result: ManyResult) -> None:
    limits = {"texture": 0.9, "texture-combat": 0.9, "clinical-texture-combat": 0.7}
    for model in result.models:
        if model.name not in limits:
            continue
        for fold in model.design.folds:
            table = np.concatenate([values(fold.columns(0), cohort) for cohort in sites])
            r = np.abs(np.corrcoef(table, rowvar=False)) - np.eye(table.shape[1])
            assert r.max() <= limits[model.name] + 1e-9


def test_a_fold_is_prepared_without_the_patients_it_is_scored_on(sites: list[Cohort], result: ManyResult) -> None:
    """Other values of the held-out patients, and of the test patients, change nothing of a fold's transforms."""
    model = next(one for one in result.models if one.name == "clinical-texture-combat")
    fold = model.design.folds[1]
    before = np.concatenate([values(fold.columns(0), cohort) for cohort in sites])
    changed = []
    for cohort in sites:
        hidden = (cohort.fold == 1) | (cohort.split == "test")
        columns = {name: np.where(hidden, 1.0, column) for name, column in cohort.columns.items()}
        changed.append(
            Cohort.of(
                cohort.site,
                columns,
                cohort.time,
                cohort.event,
                split=cohort.split,
                fold=cohort.fold,
                pseudonym=cohort.pseudonym,
            )
        )
    other = run_pooled(many_algorithm(study(search=content()["search"] | {"trials": 1, "startup": 1})), changed)
    again = next(one for one in other.models if one.name == model.name).design.folds[1]
    assert again.names == fold.names
    after = np.concatenate([values(again.columns(0), cohort) for cohort in sites])
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-12)


def test_the_scores_of_a_search_are_the_concordances_of_its_folds(sites: list[Cohort], result: ManyResult) -> None:
    """The best trial of a model, fitted again on each fold and scored by scikit-survival, site by site."""
    from ctfed.statistics.cox import Settings, fit_cox

    model = next(one for one in result.models if one.name == "clinical")
    best, concordant, comparable = model.found.best, 0.0, 0.0
    for k, fold in enumerate(model.design.folds):
        fit = run_pooled(fit_cox(fold.columns(0), best.penalty, settings=Settings(tolerance=1e-9)), sites)
        for cohort in sites:
            table = fold.columns(0).held_out_fold(k).table(cohort)
            if not table.event.any():
                continue
            found = concordance_index_censored(table.event, table.time, table.values @ fit.coefficients)
            concordant += found[1] + 0.5 * found[3]
            comparable += found[1] + found[2] + found[3]
    assert concordant / comparable == pytest.approx(best.score, abs=2e-3)  # trials stop at 1e-4


def test_within_site_concordance_is_scikit_survivals(sites: list[Cohort], result: ManyResult) -> None:
    one, k = scores_by_name(result)["both"]
    concordant, comparable = 0.0, 0.0
    for cohort in sites:
        table = one.test.table(cohort)
        found = concordance_index_censored(table.event, table.time, table.values[:, k], tied_tol=0)
        concordant += found[1] + 0.5 * found[3]
        comparable += found[1] + found[2] + found[3]
    assert one.paired.concordance.value[k] == pytest.approx(concordant / comparable, abs=1e-12)


def test_an_ensemble_is_the_mean_of_standardised_scores(sites: list[Cohort], result: ManyResult) -> None:
    one, k = scores_by_name(result)["both"]
    members = [one.names.index(name) for name in ("texture-combat", "wide-combat")]
    train = np.concatenate([values(one.train, cohort) for cohort in sites])
    test = np.concatenate([values(one.test, cohort) for cohort in sites])
    z = (test[:, members] - train[:, members].mean(axis=0)) / train[:, members].std(axis=0)
    np.testing.assert_allclose(test[:, k], z.mean(axis=1), atol=1e-9)


def test_a_subgroup_is_fitted_and_tested_on_its_own_patients(sites: list[Cohort], result: ManyResult) -> None:
    model = next(one for one in result.models if one.name == "late-stage")
    pooled = pool(sites)
    late = pooled.columns["stage"] >= 3
    assert model.train.patients == (late & (pooled.split == "train")).sum()
    assert model.test.patients == (late & (pooled.split == "test")).sum()
    assert "stage" not in model.fit.view.names
    assert scores_by_name(result)["late-stage"][0].names == ("late-stage",)


# -- behind gates


@pytest.fixture
def attack_support() -> Iterator[object]:
    sys.path.insert(0, str(Path(__file__).parents[2] / "attacks"))
    import attack_support as support

    yield support
    sys.path.pop(0)


def test_behind_gates_the_study_runs_and_tells_what_it_tells_in_the_clear(
    attack_support: object, sites: list[Cohort], result: ManyResult, tmp_path: Path
) -> None:
    guarded = attack_support.run_guarded  # type: ignore[attr-defined]
    # Thresholds of scores are counted per test patient, of whom this study has few.
    found = guarded(study(), sites, tmp_path, many_algorithm(study()), Policy(cuts_per_patient=0.8))
    for one, other in zip(found.models, result.models, strict=True):
        assert one.found == other.found
        assert one.fit.coefficients.tolist() == other.fit.coefficients.tolist()


def test_a_subgroup_that_leaves_few_patients_out_is_refused(
    attack_support: object, sites: list[Cohort], tmp_path: Path
) -> None:
    everybody = content()
    everybody["models"]["late-stage"]["subgroup"] = {"variable": "age", "low": 45, "high": 110}
    del everybody["models"]["late-stage"]["without"]
    chosen = Study.model_validate(everybody)
    outside = sum(int((cohort.columns["age"] < 45).sum()) for cohort in sites)
    assert 0 < outside < 10
    with pytest.raises(Refusal) as refused:
        attack_support.run_guarded(chosen, sites, tmp_path, many_algorithm(chosen), Policy())  # type: ignore[attr-defined]
    assert refused.value.rule == "too-few-patients"


def test_what_a_site_counts_and_lets_be_asked_covers_all_groups() -> None:
    chosen = study()
    scope, plan = scope_of(chosen), census_of(chosen)
    assert scope.names == set(chosen.used)
    assert scope.models == len(chosen.models) + len(chosen.ensembles)
    assert plan.shape[0] == 2  # everybody, and the subgroup
    assert plan.binary == ("sex",)
    assert plan.missing == ("stage",)


# -- the study file


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": {"features": ("age",)}}, "found both, expected exactly one of model or models"),
        ({"search": None}, "expected a mapping: trials"),
        ({"penalty": {"penalizer": 0.1, "l1_ratio": 0.5}}, "found penalty beside models, expected search"),
        ({"groups": {"clinical": {"variables": ("age",), "cube": 50}}}, "expected exactly one of variables, region"),
        ({"groups": {"x": {"region": "nodes", "image": "rkn"}}}, "expected it with region: lung or tumour"),
        ({"ensembles": {"e": {"models": ("clinical", "late-stage")}}}, "the name of a model of all patients"),
        ({"consensus": {"models": ("clinical", "texure")}}, "did you mean 'texture'"),
        ({"models": {"m": {"groups": ("clinical",), "combat": ("clinical",)}}}, "a group of features of images"),
        ({"models": {"m": {"groups": ("clinical",), "without": ("aeg",)}}}, "expected a variable of its groups"),
    ],
)
def test_a_study_that_cannot_be_is_refused_in_words(change: dict[str, object], sentence: str) -> None:
    with pytest.raises((ValidationError, ValueError), match=sentence):
        Study.model_validate(content(**change))


def test_the_first_of_equally_good_trials_is_chosen(result: ManyResult) -> None:
    for model in result.models:
        assert isinstance(model.found, Found)
        scores = [trial.score for trial in model.found.trials]
        assert model.found.best == model.found.trials[scores.index(max(scores))]
