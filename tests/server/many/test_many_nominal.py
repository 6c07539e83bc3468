"""A study of many models with a nominal variable: dummies of the pooled rows, standardised, and the same Cox models."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from nominal_data import FOLDS, LEVELS, cohorts, content, with_column
from pydantic import ValidationError

from ctfed.federation import Cohort, pool, run_pooled
from ctfed.model_file import read_model
from ctfed.study import Study
from server.many.algorithm import ManyResult, many_algorithm
from server.many.model_file import write_model_files
from server.many.results import many_results_of
from server.results import RunFacts

TEXTURE = ("t0", "t1", "t2")
SEARCH = {"trials": 4, "batch": 2, "startup": 2, "folds": FOLDS, "penalizer": (0.003, 0.3)}
MODELS: dict[str, Any] = {
    "clinical": {"groups": ("clinical",), "label": "Clinical"},
    "both": {"groups": ("clinical", "texture"), "combat": ("texture",)},
    "squamous": {"groups": ("clinical",), "subgroup": {"variable": "histology", "low": 2, "high": 2}},
    "without": {"groups": ("clinical",), "without": ("histology",)},
}


def study(*models: str) -> Study:
    """Of some of the models, or of all."""
    chosen = {name: spec for name, spec in MODELS.items() if not models or name in models}
    found = content(models=chosen, search=SEARCH, time_grid={"width": 2, "end": 36})
    found["evaluation"] |= {"time_bin": 2}
    found["groups"] = {
        "clinical": {"variables": tuple(found["variables"])},
        "texture": {"columns": TEXTURE, "magnitude": 4},
    }
    del found["model"], found["penalty"]
    return Study.model_validate(found)


def sites(**changes: Any) -> list[Cohort]:
    rng = np.random.default_rng(7)
    return [
        with_column(one, {name: rng.normal(k, 1, one.patients) for name in TEXTURE})
        for k, one in enumerate(cohorts((110, 100, 90, 80), folds=FOLDS, **changes))
    ]


@pytest.fixture(scope="module")
def result() -> ManyResult:
    return run_pooled(many_algorithm(study()), sites())


@pytest.fixture(scope="module")
def attack_support() -> Iterator[Any]:
    sys.path.insert(0, str(Path(__file__).parents[2] / "attacks"))
    import attack_support as support

    yield support
    sys.path.pop(0)


def by_name(result: ManyResult) -> dict[str, Any]:
    return {one.name: one for one in result.models}


def test_models_take_the_levels_that_are_common_in_their_rows(result: ManyResult) -> None:
    found = {name: one.fit.view.names for name, one in by_name(result).items()}
    assert found["clinical"] == ("age", "histology=2", "histology=3", "female")
    assert set(found["both"]) <= {"age", "histology=2", "histology=3", "female", *TEXTURE}
    assert found["squamous"] == found["without"] == ("age", "female")
    (line,) = [line for line in by_name(result)["clinical"].design.warnings if "(histology=7)" in line]
    assert "its patients count with the reference 'adenocarcinoma'" in line
    inside = " ".join(by_name(result)["squamous"].design.warnings)
    assert "(histology=2) is left out of the model: nobody or everybody of" in inside


def test_its_columns_are_pandas_dummies_standardised_over_all_rows(result: ManyResult) -> None:
    whole, view = pool(sites()), by_name(result)["clinical"].fit.view
    raw = pd.DataFrame({name: whole.columns[name] for name in ("age", "histology", "female")})
    train = whole.split == "train"
    made = pd.get_dummies(raw["histology"].fillna(1).astype(int), prefix="histology", prefix_sep="=", dtype=float)
    frame = pd.concat([made[["histology=2", "histology=3"]], raw[["female"]]], axis=1)
    expected = (frame - frame[train].mean()) / frame[train].std(ddof=0)
    found = pd.DataFrame(view.table(whole).values, columns=view.names)[list(frame)]
    np.testing.assert_allclose(found, expected[train], rtol=0, atol=1e-12)
    tested = pd.DataFrame(view.test().table(whole).values, columns=view.names)[list(frame)]
    np.testing.assert_allclose(tested, expected[~train], rtol=0, atol=1e-12)


def test_the_search_and_the_fit_are_those_of_dummies_in_the_table(result: ManyResult) -> None:
    """A table that has pandas' columns, as two binary variables, in place of the codes."""
    binary = {"type": "binary", "range": (0, 1), "impute": "none"}
    names = {2: "second", 3: "third"}
    variables = content()["variables"]
    variables = {"age": variables["age"], **dict.fromkeys(names.values(), binary), "female": variables["female"]}
    chosen = content(models={"clinical": MODELS["clinical"]}, search=SEARCH, variables=variables)
    chosen["groups"] = {"clinical": {"variables": tuple(variables)}}
    del chosen["model"], chosen["penalty"]
    tables = []
    for one in sites():
        codes = pd.Series(one.columns["histology"]).fillna(1)
        tables.append(with_column(one, {name: (codes == level).to_numpy(float) for level, name in names.items()}))
    (other,) = run_pooled(many_algorithm(Study.model_validate(chosen)), tables).models
    own = by_name(result)["clinical"]
    assert own.found == other.found
    np.testing.assert_allclose(own.fit.coefficients, other.fit.coefficients, rtol=0, atol=1e-12)


def test_one_site_with_all_rows_gives_the_same_study(result: ManyResult) -> None:
    pooled = run_pooled(many_algorithm(study()), [pool(sites())])
    for one, other in zip(result.models, pooled.models, strict=True):
        assert one.found == other.found
        assert one.fit.view.names == other.fit.view.names
        np.testing.assert_allclose(one.fit.coefficients, other.fit.coefficients, rtol=0, atol=1e-9)


def test_reports_and_files_name_the_levels(result: ManyResult, tmp_path: Path) -> None:
    facts = RunFacts("in process", tuple(one.site for one in sites()), (), 1.0, "2024-01-01T00:00:00", ())
    told = many_results_of(result, facts)
    models = {row["name"]: row for row in told["models"]}
    labels = [row["feature"] for row in models["clinical"]["fit"]["coefficients"]]
    assert labels == ["age", "Histology: squamous", "Histology: large cell", "female"]
    assert models["squamous"]["subgroup"] == "Histology: squamous"
    assert [row["feature"] for row in models["clinical"]["explanation"]["features"]] == labels
    rows = [row for row in told["characteristics"]["rows"] if row["variable"] == "histology"]
    assert [row["level"] for row in rows] == [None, *LEVELS.values()]
    paths = {path.stem: path for path in write_model_files(result, tmp_path)}
    model, _ = read_model(paths["clinical"])
    own = by_name(result)["clinical"].fit
    whole = pool(sites())
    expected = own.view.on(model.scores("test").selection).table(whole).values @ own.coefficients
    np.testing.assert_allclose(model.scores("test").table(whole).values[:, 0], expected, rtol=0, atol=1e-9)


def test_behind_gates_it_runs_and_a_server_that_insists_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack_support: Any
) -> None:
    from ctfed.federation import Refusal
    from ctfed.federation.policy import Policy

    few, policy = study("clinical", "squamous"), Policy(cuts_per_patient=0.9)
    found = attack_support.run_guarded(few, sites(), tmp_path / "a", many_algorithm(few), policy)
    expected = run_pooled(many_algorithm(few), sites())
    for one, other in zip(found.models, expected.models, strict=True):
        assert one.found == other.found
        assert one.fit.coefficients.tolist() == other.fit.coefficients.tolist()

    def nothing(study: Study, view: object):  # type: ignore[no-untyped-def]
        yield from ()
        return {}

    monkeypatch.setattr("server.many.features.rare_features", nothing)
    with pytest.raises(Refusal) as refused:
        attack_support.run_guarded(few, sites(), tmp_path / "b", many_algorithm(few), policy)
    assert refused.value.rule == "rare-level"


@pytest.mark.parametrize(("low", "high"), [(2, 3), (4, 4), (1, 7)])
def test_a_subgroup_of_codes_is_one_level(low: float, high: float) -> None:
    chosen = content(search=SEARCH, groups={"clinical": {"variables": ("age", "histology")}})
    subgroup = {"variable": "histology", "low": low, "high": high}
    chosen["models"] = {"part": {"groups": ("clinical",), "subgroup": subgroup}}
    del chosen["model"], chosen["penalty"]
    with pytest.raises((ValidationError, ValueError), match="expected low and high to be one level: 1, 2, 3 or 7"):
        Study.model_validate(chosen)
