"""A server that keeps the 0/1 column of a level that one patient is at: without a gate it reads that patient's row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from attack_support import Guarded, told
from nominal_data import cohorts, content, with_column

from ctfed.federation import Cohort, Feature, FloatArray, Query, Refusal, View, pool
from ctfed.statistics.cox.stratified import CoxDerivatives
from ctfed.statistics.describe import Moments
from ctfed.statistics.impute import Impute
from ctfed.statistics.indicators import Indicators
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.select import CrossMoments
from ctfed.statistics.standardise import Standardise
from ctfed.study import Study
from server.audit.attacks.carriers import carried
from server.audit.patients import Truth
from server.audit.statements import statements

SEARCH = {"trials": 2, "batch": 2, "startup": 1, "folds": 2}


def study_of_two_models() -> Study:
    """Products of columns are in its questions: it selects features."""
    found = content(groups={"clinical": {"variables": ("age", "histology", "female")}}, search=SEARCH)
    found["models"] = {name: {"groups": ("clinical",)} for name in ("first", "second")}
    del found["model"], found["penalty"]
    return Study.model_validate(found)


STUDY = study_of_two_models()
RAW = View(tuple(STUDY.columns[name].feature(name) for name in ("age", "histology", "female")))
IMPUTED = RAW.then(Impute(("age", "histology"), np.array([65.0, 1.0])))


def coded(*codes: float) -> View:
    return IMPUTED.then(Indicators(("histology",), (np.array(codes, dtype=float),)))


def standardised(view: View) -> View:
    """As a fit takes its columns: means and spreads are the server's own."""
    width = view.width
    return view.then(Standardise(view.names, np.linspace(0.1, 0.7, width), np.linspace(0.5, 9.0, width)))


def products(view: View) -> CrossMoments:
    return CrossMoments(view, np.zeros(view.width))


def lonely(level: float) -> list[Cohort]:
    """Everybody at ``level`` is at another level instead, but for one training patient."""
    found, other, left = [], 2.0 if level == 1.0 else 1.0, 1
    for cohort in cohorts(missing=0.0, folds=2):
        codes = cohort.columns["histology"].copy()
        codes[codes == level] = other
        if left:
            codes[np.flatnonzero(cohort.split == "train")[3]], left = level, 0
        found.append(with_column(cohort, {"histology": codes}))
    return found


def rule_of(folder: Path, sites: Sequence[Cohort], *queries: Query) -> str:
    """The rule by which guarded sites refuse a round; '' when they answer it."""
    try:
        Guarded(folder, STUDY, list(sites)).transcript([queries])
    except Refusal as refused:
        return refused.rule
    return ""


# -- one carrier of a level


@pytest.mark.parametrize("scaled", [False, True])
def test_products_with_a_lonely_level_are_its_patient_s_row(scaled: bool) -> None:
    sites = lonely(7.0)
    view = standardised(coded(2, 3, 7)) if scaled else coded(2, 3, 7)
    found = carried(statements(told([products(view)], sites)), 1)
    (row,) = Truth(sites).determined(found)
    assert pool(sites).columns["histology"][row] == 7.0


@pytest.mark.parametrize("ask", [products, lambda view: CoxDerivatives(view, np.zeros((1, view.width)))])
def test_a_gate_refuses_them_and_answers_those_with_common_levels(tmp_path: Path, ask: object) -> None:
    sites = lonely(7.0)
    assert callable(ask)
    assert rule_of(tmp_path / "refused", sites, ask(coded(2, 3, 7))) == "rare-level"
    assert rule_of(tmp_path / "scaled", sites, ask(standardised(coded(2, 3, 7)))) == "rare-level"
    assert rule_of(tmp_path / "answered", sites, ask(coded(2, 3))) == ""


# -- one patient at the reference


def beside_all(total: object, view: View) -> FloatArray:
    """(p,) the sums over everybody less those over all who are at a level with a column."""
    sums = np.asarray(total["sum"])  # type: ignore[index]
    whole = np.zeros((view.width, view.width))
    whole[np.triu_indices(view.width)] = total["products"]  # type: ignore[index]
    whole += np.triu(whole, 1).T
    return np.asarray(sums - whole[[k for k, name in enumerate(view.names) if "=" in name]].sum(axis=0))


def test_the_one_patient_at_the_reference_is_what_all_levels_leave(tmp_path: Path) -> None:
    sites, view = lonely(1.0), coded(2, 3)
    left = beside_all(told([products(view)], sites).exchanges[0].total, view)
    whole = pool(sites)
    (row,) = np.flatnonzero((whole.columns["histology"] == 1) & (whole.split == "train"))
    # The two at level 7 have no column, either: take the age of all three.
    apart = (np.isin(whole.columns["histology"], (1.0, 7.0))) & (whole.split == "train")
    assert left[0] == pytest.approx(whole.columns["age"][apart].sum())
    alone = coded(2, 3, 7)
    left = beside_all(told([products(alone)], sites).exchanges[0].total, alone)
    assert left == pytest.approx(alone.table(whole).values[np.flatnonzero(whole.split == "train").tolist().index(row)])


@pytest.mark.parametrize("codes", [(2, 3), (2, 3, 7)])
def test_a_gate_refuses_what_leaves_few_at_the_reference(tmp_path: Path, codes: tuple[float, ...]) -> None:
    assert rule_of(tmp_path, lonely(1.0), products(coded(*codes))) == "rare-level"


def test_nor_is_it_told_by_two_questions_of_which_each_leaves_enough(tmp_path: Path) -> None:
    """Everybody less squamous less large cell, from two views: one of the levels has no column in any view."""
    asked = [products(coded(2)), products(coded(3))]
    assert rule_of(tmp_path / "both", lonely(1.0), *asked) == "rare-level"
    first, second = (rule_of(tmp_path / name, lonely(1.0), one) for name, one in zip("ab", asked, strict=True))
    assert sorted((first, second)) == ["", "rare-level"]


# -- columns of a server's own making


def test_who_is_63_years_old_is_no_column_of_the_study(tmp_path: Path) -> None:
    sites = cohorts(folds=2)
    aged = IMPUTED.then(Indicators(("age",), (np.array([63.0]),)))
    shifted = IMPUTED.then(Standardise(IMPUTED.names, np.array([0.0, 5.0, 0.0]), np.ones(3)))
    misuses = {
        "another column": aged,
        "a code of no level": coded(2, 4),
        "a level by another name": shifted.then(Indicators(("histology",), (np.array([2.0]),))),  # 7 less 5
    }
    assert set(aged.table(pool(sites)).values[:, 0]) == {0.0, 1.0}
    for place, (what, view) in enumerate(misuses.items()):
        asked = Moments(view, np.zeros(view.width))
        assert rule_of(tmp_path / str(place), sites, asked) == "outside-study", what


def test_codes_are_no_numbers_to_multiply_where_a_level_is_rare(tmp_path: Path) -> None:
    """A far code outweighs all others: sums of its products are nearly its patient's alone."""
    assert Feature("histology", 3) in RAW.features
    assert rule_of(tmp_path / "rare", lonely(7.0), products(IMPUTED)) == "rare-level"
    common = [with_column(one, {"histology": np.round(one.columns["age"]) % 3 + 1}) for one in cohorts(folds=2)]
    assert rule_of(tmp_path / "common", common, products(IMPUTED)) == ""


# -- a column by another name: a score of one feature alone is that feature


def renamed(view: View) -> View:
    return view.then(LinearPredictor(np.eye(view.width)))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_score_of_one_rare_feature_is_refused_as_the_feature_is(tmp_path: Path, split: str) -> None:
    whole = cohorts(missing=0.0, folds=2)
    female = {site.site: np.zeros(site.patients) for site in whole}
    female[whole[0].site][np.flatnonzero(whole[0].split == split)[3]] = 1.0
    binary = [with_column(one, {"female": female[one.site]}) for one in whole]
    two = View((RAW.columns[0], RAW.columns[2])).then(Impute(("age",), np.array([65.0])))
    two = two if split == "train" else two.test()
    (row,) = Truth(binary).determined(carried(statements(told([products(renamed(two))], binary)), 1))
    assert pool(binary).columns["female"][row] == 1
    beside = View.joined([renamed(two)]).then(LinearPredictor(np.eye(2), "other"))
    for place, view in enumerate((two, renamed(two), beside)):
        assert rule_of(tmp_path / str(place), binary, products(view)) == "rare-level"
    assert rule_of(tmp_path / "common", whole, products(renamed(two))) == ""
    if split == "train":
        levels = renamed(coded(2, 3, 7))
        assert rule_of(tmp_path / "level", lonely(7.0), products(levels)) == "rare-level"
        assert rule_of(tmp_path / "kept", lonely(7.0), products(renamed(coded(2, 3)))) == ""
