"""A study of one model with a nominal variable: what pandas' dummies and the same Cox model give on the pooled rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from nominal_data import FOLDS, HISTOLOGY, cohorts, content, study, with_column

from ctfed.approval_page import plan
from ctfed.approval_stages import STEPS
from ctfed.cli import main
from ctfed.federation import Cohort, CtfedError, Refusal, pool, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.model_file import FILE, model_text, read_model
from ctfed.predict_command import risks_text
from ctfed.study import Study, census_of, scope_of
from server.model_file import portable_model, write_model_file
from server.results import coefficient_rows, results_of
from server.study_algorithm import StudyResult, original_scale, study_algorithm
from server.study_plan import described
from server.synthetic import synthetic_cohorts

SITES = cohorts()


@pytest.fixture(scope="module")
def attack_support() -> Iterator[Any]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "attacks"))
    import attack_support as support

    yield support
    sys.path.pop(0)


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return run_pooled(study_algorithm(study()), SITES)


def dummies(rows: Cohort, mode: float = 1.0) -> pd.DataFrame:
    """pandas' own columns of the study's features, all rows; the rare level counts with the reference."""
    raw = pd.DataFrame({name: rows.columns[name] for name in ("age", "histology", "female")})
    codes = raw["histology"].fillna(mode).astype(int)
    made = pd.get_dummies(codes, prefix="histology", prefix_sep="=", dtype=float)
    return pd.concat([raw[["age"]], made[["histology=2", "histology=3"]], raw[["female"]]], axis=1)


def coded(sites: list[Cohort]) -> tuple[Study, list[Cohort]]:
    """The same study with pandas' columns in the sites' tables, as binary variables of their own."""
    binary = {"type": "binary", "range": (0, 1), "impute": "none"}
    variables = content()["variables"]
    names = {"histology=2": "squamous", "histology=3": "large"}
    variables = {"age": variables["age"], **dict.fromkeys(names.values(), binary), "female": variables["female"]}
    tables = []
    for cohort in sites:
        made = dummies(cohort)
        tables.append(with_column(cohort, {new: made[old].to_numpy() for old, new in names.items()}))
    return study(variables=variables, model={"features": tuple(variables)}), tables


def test_the_model_is_that_of_dummies_in_the_table(result: StudyResult) -> None:
    other: StudyResult = run_pooled(study_algorithm(coded(SITES)[0]), coded(SITES)[1])
    assert result.fit.view.names == ("age", "histology=2", "histology=3", "female")
    assert other.fit.view.names == ("age", "squamous", "large", "female")
    np.testing.assert_allclose(result.fit.coefficients, other.fit.coefficients, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.baseline.cumulative_hazard, other.baseline.cumulative_hazard, atol=1e-12)
    assert result.evaluated.within == other.evaluated.within
    assert result.reference is not None
    assert other.reference is not None
    np.testing.assert_allclose(result.reference.standard_errors, other.reference.standard_errors, atol=1e-12)


def test_the_unpenalised_fit_is_that_of_lifelines_on_dummies(result: StudyResult) -> None:
    rows = pool(SITES)
    frame = dummies(rows)
    frame["age"] = frame["age"].fillna(result.prepared.imputed.values["age"])
    train = rows.split == "train"
    frame = ((frame - frame[train].mean()) / frame[train].std(ddof=0)).assign(
        time=rows.time, event=rows.event, site=rows.stratum
    )[train]
    fitter = CoxPHFitter().fit(frame, "time", "event", strata=["site"], fit_options={"precision": 1e-12})
    assert result.reference is not None
    np.testing.assert_allclose(result.reference.coefficients, fitter.params_, atol=1e-7)
    np.testing.assert_allclose(result.reference.standard_errors, fitter.standard_errors_, atol=1e-7)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_however_sites_are_regrouped_the_study_is_the_same(places: list[int]) -> None:
    """Whole sites, with their strata, behind other sites' doors; one site that holds them all among them."""
    expected: StudyResult = run_pooled(study_algorithm(study()), [pool(SITES)])
    parts = [[one for one, at in zip(SITES, places, strict=True) if at == place] for place in sorted(set(places))]
    found: StudyResult = run_pooled(study_algorithm(study()), [pool(part, f"s{i}") for i, part in enumerate(parts)])
    assert found.prepared.left_out == expected.prepared.left_out
    np.testing.assert_allclose(found.fit.coefficients, expected.fit.coefficients, rtol=0, atol=1e-10)
    assert found.evaluated.within == expected.evaluated.within


def test_a_rare_level_is_left_out_in_words_in_all_folds_alike() -> None:
    tuned = study(penalty=None, tuning={"folds": FOLDS, "penalizers": {"count": 4}})
    sites = []
    for cohort in cohorts(folds=FOLDS):  # large cell: enough in the whole, too few outside the last fold
        codes = cohort.columns["histology"].copy()
        codes[codes == 3] = 1.0
        sites.append(with_column(cohort, {"histology": codes}))
    (rows,) = [np.flatnonzero((sites[0].split == "train") & (sites[0].fold == FOLDS - 1))]
    sites[0].columns["histology"][rows[:6]] = 3.0
    sites[0].columns["histology"][np.flatnonzero(sites[0].fold == 0)[:2]] = 3.0
    found: StudyResult = run_pooled(study_algorithm(tuned), sites)
    assert found.fit.view.names == ("age", "histology=2", "female")
    lines = [line for line in found.prepared.warnings if "histology=3" in line]
    assert len(lines) == 1
    assert lines[0].startswith("'Histology: large cell' (histology=3) is left out of the model: it tells 2 of ")
    assert lines[0].endswith("a cell holds at least 5; its patients count with the reference 'adenocarcinoma'")


def test_a_variable_without_a_common_level_is_left_out_whole() -> None:
    alone = [with_column(one, {"histology": np.where(one.columns["age"] < 30, 2.0, 1.0)}) for one in SITES]
    found: StudyResult = run_pooled(study_algorithm(study()), alone)
    assert found.fit.view.names == ("age", "female")
    assert "histology" not in [feature.name for feature in found.prepared.view.columns]
    with pytest.raises(CtfedError, match=r"no feature is left for the model: 'Histology: squamous' \(histology=2\)"):
        run_pooled(study_algorithm(study(model={"features": ("histology",)})), alone)


def test_a_missing_indicator_stands_behind_and_is_labelled() -> None:
    chosen = content()["variables"] | {"histology": HISTOLOGY | {"missing_indicator": True, "reference": 2}}
    found: StudyResult = run_pooled(study_algorithm(study(variables=chosen)), SITES)
    assert found.fit.view.names == ("age", "histology=1", "histology=3", "female", "histology missing")
    labels = [row["feature"] for row in coefficient_rows(found.study, found.fit, None)]
    assert labels == ["age", "Histology: adenocarcinoma", "Histology: large cell", "female", "Histology missing"]


def test_penalty_factors_of_a_level_and_of_the_variable() -> None:
    model = content()["model"]
    lasso = {"penalizer": 5.0, "l1_ratio": 1.0}  # empties the model but for what it does not penalise
    for factors, kept in [
        ({"histology": 0}, {"histology=2", "histology=3"}),
        ({"histology=3": 0}, {"histology=3"}),
        ({"histology": 0, "histology=2": 1}, {"histology=3"}),
    ]:
        chosen = study(model=model | {"penalty_factors": factors}, penalty=lasso)
        found: StudyResult = run_pooled(study_algorithm(chosen), SITES)
        names = np.array(found.fit.view.names)
        assert set(names[found.fit.coefficients != 0].tolist()) == kept


def test_the_report_names_levels(result: StudyResult, tmp_path: Path) -> None:
    from server.results import RunFacts

    facts = RunFacts("in process", tuple(one.site for one in SITES), (), 1.0, "2024-01-01T00:00:00", ())
    rows = {row["feature"]: row for row in results_of(result, facts)["cohort"]["features"]}
    frame = dummies(pool(SITES))[pool(SITES).split == "train"]
    squamous = rows["Histology: squamous"]
    missing = int(np.isnan(pool(SITES).columns["histology"][pool(SITES).split == "train"]).sum())
    assert (squamous["missing"], squamous["method"], squamous["imputed_with"]) == (missing, "mode", 0.0)
    assert squamous["mean"] == pytest.approx(frame["histology=2"].mean(), abs=1e-12)
    assert squamous["sd"] == pytest.approx(frame["histology=2"].std(), abs=1e-12)


def test_a_study_without_nominal_variables_asks_what_it_asked() -> None:
    """The same questions and the same census, field by field."""
    plain = study(model={"features": ("age", "female")})
    assert census_of(plain).nominal == ()
    assert "indicators" not in scope_of(plain).kinds
    traffic, other = Traffic(), Traffic()
    run_pooled(study_algorithm(plain), SITES, traffic)
    variables = {name: one for name, one in content()["variables"].items() if name != "histology"}
    run_pooled(study_algorithm(study(variables=variables, model={"features": ("age", "female")})), SITES, other)
    assert (traffic.rounds, traffic.bytes_up, traffic.bytes_down) == (other.rounds, other.bytes_up, other.bytes_down)


# -- the model as a file


def test_the_model_file_predicts_what_the_model_says(result: StudyResult, tmp_path: Path) -> None:
    write_model_file(result, tmp_path)
    model, _ = read_model(tmp_path / FILE)
    assert model_text(model) == model_text(portable_model(result))
    whole = pool(SITES)
    lines = risks_text(model, whole).splitlines()[1:]
    scores = np.array([float(line.split(",")[2]) for line in lines])
    frame = dummies(whole)
    frame["age"] = frame["age"].fillna(result.prepared.imputed.values["age"])
    train = whole.split == "train"
    expected = ((frame - frame[train].mean()) / frame[train].std(ddof=0)).to_numpy() @ result.fit.coefficients
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-10)
    beta = np.array(original_scale(result))
    at_reference = scores - frame.to_numpy() @ beta
    np.testing.assert_allclose(at_reference, at_reference[0], atol=1e-9)


def site_files(folder: Path, cell: str | None = None) -> tuple[Path, Path]:
    """A site's table as CSV with texts for codes, and its site file; ``cell`` is what the first patient has."""
    cohort = SITES[0]
    texts = {1.0: "ADC", 2.0: "SCC", 3.0: "LCC", 7.0: "NOS"}
    histology = ["" if np.isnan(code) else texts[code] for code in cohort.columns["histology"]]
    if cell is not None:
        histology[0] = cell
    frame = pd.DataFrame(
        {
            "id": cohort.pseudonym,
            "months": cohort.time,
            "dead": cohort.event.astype(int),
            "age": cohort.columns["age"],
            "histo": histology,
            "female": cohort.columns["female"].astype(int),
        }
    )
    frame.to_csv(folder / "table.csv", index=False)
    site = {
        "ctfed_site": 1,
        "site": "east",
        "data": {"csv": "table.csv"},
        "columns": {"id": "id", "time": "months", "event": "dead"},
        "time_unit": "months",
        "features": {"histology": {"column": "histo", "codes": {"ADC": 1, "SCC": 2, "LCC": 3, "NOS": 7, "?": 4}}},
        "secret": "secret",
    }
    (folder / "site.yaml").write_text(json.dumps(site))
    (folder / "study.yaml").write_text(json.dumps(content()))
    return folder / "site.yaml", folder / "study.yaml"


def test_predict_applies_the_file_to_a_site(
    result: StudyResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, _ = site_files(tmp_path)
    model = write_model_file(result, tmp_path)
    assert main(["predict", "--model", str(model), "--site", str(site), "--out", str(tmp_path / "risks.csv")]) == 0
    told = pd.read_csv(tmp_path / "risks.csv")
    expected = portable_model(result).table(SITES[0]).values[:, 0]
    np.testing.assert_allclose(told["score"], expected, rtol=0, atol=1e-12)


def test_a_code_that_is_no_level_is_named_as_for_any_other_variable(tmp_path: Path) -> None:
    from ctfed.cohort import load_cohorts
    from ctfed.cohort.table import DataError
    from ctfed.site import load_site
    from ctfed.study import load_study

    site, chosen = site_files(tmp_path, "?")
    with pytest.raises(DataError, match=r"found '\?' \(decoded as 4\) in row 2, expected one of 1, 2, 3, 7"):
        load_cohorts(load_site(site), load_study(chosen))


# -- what people read


def test_the_steward_reads_what_becomes_of_the_variable(tmp_path: Path) -> None:
    from ctfed.cohort import load_cohorts
    from ctfed.federation.policy import Policy
    from ctfed.federation.roster import Roster
    from ctfed.site import load_site
    from ctfed.study import load_study

    site, chosen = site_files(tmp_path)
    loaded = load_cohorts(load_site(site), load_study(chosen))
    roster = Roster({"east": b"1" * 32})
    text = "\n".join(plan(load_site(site), load_study(chosen), roster, Policy(), loaded, ("train", "test")))
    text = " ".join(text.split())
    assert "as 0 or 1 for each of squamous, large cell, other (reference: adenocarcinoma)" in text
    assert "and levels at which too few are" in text
    assert f"indicators {STEPS['indicators']}" in text
    assert scope_of(study()).kinds >= {"indicators"}


def test_check_and_plan_know_the_variable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "  nominal   histology: squamous, large cell, other, against adenocarcinoma" in list(described(study()))
    _, chosen = site_files(tmp_path)
    assert main(["study", "plan", str(chosen), "--sites", "3", "--patients", "120"]) == 0
    assert "about" in capsys.readouterr().out


def test_invented_patients_are_at_no_level_that_the_census_has_found_rare() -> None:
    """So that no question is asked early that sites would refuse."""
    plain, few = (synthetic_cohorts(study(), 3, 120, 1, rare) for rare in (frozenset(), frozenset({"histology=7"})))
    names = [run_pooled(study_algorithm(study()), sites).fit.view.names for sites in (plain, few)]
    assert names[0] == ("age", "histology=2", "histology=3", "histology=7", "female")
    assert names[1] == ("age", "histology=2", "histology=3", "female")


# -- behind gates


@pytest.mark.parametrize("insists", [False, True])
def test_guarded_sites_answer_the_study_and_refuse_a_rare_level(
    insists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack_support: Any
) -> None:
    if not insists:
        found = attack_support.run_guarded(study(), cohorts(), tmp_path)
        assert found.fit.view.names == ("age", "histology=2", "histology=3", "female")
        return

    def nothing(study: Study, view: object):  # type: ignore[no-untyped-def]
        yield from ()
        return {}

    monkeypatch.setattr("server.study_algorithm.rare_features", nothing)
    with pytest.raises(Refusal, match="'histology=7' tells 2 patients from all others") as refused:
        attack_support.run_guarded(study(), cohorts(), tmp_path)
    assert refused.value.rule == "rare-level"
