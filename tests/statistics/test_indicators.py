"""Nominal columns become 0/1 columns as pandas makes them, the same at every site; rare levels join the reference."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nominal_data import HISTOLOGY, LEVELS, cohorts, study

from ctfed.federation import Cohort, Feature, Refusal, View, pool, run_pooled
from ctfed.federation.codec import Decoder, Encoder, digest
from ctfed.federation.nominal import Nominal, indicator_name, rare_indicators
from ctfed.statistics.impute import Impute
from ctfed.statistics.indicators import Indicators
from ctfed.statistics.standardise import standardise
from ctfed.study_variables import Variable
from server.clinical import columns_in_use, impute_variables
from server.rare import rare_features

VIEW = View((Feature("age", 7), Feature("histology", 3), Feature("female")))
KEPT = Indicators(("histology",), (np.array([2.0, 3.0]),))
IMPUTED = VIEW.then(Impute(("age", "histology"), np.array([65.0, 1.0]), ("histology",)))
COLUMN = Nominal("histology", tuple(map(float, LEVELS)), 1.0)


def test_the_columns_are_those_of_get_dummies_where_the_codes_stood() -> None:
    cohort = pool(cohorts())
    view = IMPUTED.then(KEPT)
    assert view.names == ("age", "histology=2", "histology=3", "female", "histology missing")
    assert view.features[1] == Feature("histology=2")
    kept = cohort.split == "train"
    codes = pd.Series(cohort.columns["histology"][kept]).fillna(1).astype(int)
    dummies = pd.get_dummies(codes, prefix="histology", prefix_sep="=", dtype=float)
    frame = pd.DataFrame(view.table(cohort).values, columns=view.names)
    pd.testing.assert_frame_equal(frame[["histology=2", "histology=3"]], dummies[["histology=2", "histology=3"]])
    assert frame["histology missing"].tolist() == np.isnan(cohort.columns["histology"][kept]).tolist()
    assert frame["female"].tolist() == cohort.columns["female"][kept].tolist()


def test_a_missing_code_is_refused_by_name() -> None:
    with pytest.raises(Refusal, match="'histology' lacks") as refused:
        VIEW.then(KEPT).table(pool(cohorts()))
    assert refused.value.rule == "missing-value"


@pytest.mark.parametrize(
    ("columns", "levels"),
    [
        (("histology",), ()),
        (("histology", "histology"), (np.ones(1), np.ones(1))),
        (("histology",), (np.zeros(0),)),
        (("histology",), (np.array([2.0, 2.0]),)),
        (("histology",), (np.array([2.5]),)),
        (("histology",), (np.array([[2.0]]),)),
        (("histology",), (np.array([1e300]),)),
    ],
)
def test_levels_that_are_none_are_no_transform(columns: tuple[str, ...], levels: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(ValueError, match=r"each once|distinct whole numbers"):
        Indicators(columns, levels)


def test_another_view_than_that_of_the_codes_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no 'histology'"):
        View((Feature("age"),)).then(KEPT)
    with pytest.raises(ValueError, match="'histology=2' already"):
        View((*VIEW.columns, Feature("histology=2"))).then(KEPT)


def test_the_transform_travels() -> None:
    encoder = Encoder()
    body = encoder.body(IMPUTED.then(KEPT))
    read = Decoder(encoder.flat()).build(body, View, "view")
    assert digest(read) == digest(IMPUTED.then(KEPT))
    assert (read.table(pool(cohorts())).values == IMPUTED.then(KEPT).table(pool(cohorts())).values).all()


# -- rare levels


@given(st.lists(st.integers(0, 40), min_size=4, max_size=4), st.integers(1, 15))
def test_whoever_is_told_apart_is_in_enough_company(counts: list[int], minimum: int) -> None:
    """Those at each level that is kept, and those at no such level: products with 0/1 columns tell no smaller set."""
    rare = rare_indicators(COLUMN, counts, minimum)
    held = dict(zip(COLUMN.levels, counts, strict=True))
    kept = [held[level] for level in COLUMN.levels[1:] if indicator_name("histology", level) not in rare]
    assert all(number >= minimum for number in kept)
    assert not kept or sum(counts) - sum(kept) >= minimum
    assert all(one.held < minimum for one in rare.values())
    enough = all(number >= minimum for number in counts)
    assert (not rare) == enough


def test_a_rare_reference_is_joined_by_the_smallest_level() -> None:
    assert rare_indicators(COLUMN, [3, 40, 20, 30], 10) == {"histology=3": (3, True)}
    assert rare_indicators(COLUMN, [0, 40, 30, 4], 10) == {"histology=7": (4, False), "histology=3": (4, True)}
    assert rare_indicators(COLUMN, [8, 40, 30, 4], 10) == {"histology=7": (4, False)}  # 12 with the reference


@given(st.data())
def test_levels_that_are_rare_in_any_rows_can_be_left_out_of_all(data: st.DataObject) -> None:
    """What is left out of one fold is left out of all; nobody who was in company before is alone then."""
    parts = st.lists(st.integers(0, 30), min_size=4, max_size=4)
    folds = data.draw(st.lists(parts, min_size=2, max_size=4))
    minimum = data.draw(st.integers(1, 12))
    union = set().union(*(rare_indicators(COLUMN, counts, minimum) for counts in folds))
    for counts in folds:
        kept = [n for level, n in zip(COLUMN.levels, counts, strict=True) if _kept(level, union)]
        assert not kept or sum(counts) - sum(kept) >= minimum


def _kept(level: float, left_out: set[str]) -> bool:
    return level != COLUMN.reference and indicator_name("histology", level) not in left_out


# -- over sites


def prepared(sites: list[Cohort]) -> tuple[dict[str, str], View]:
    chosen = study()

    def steps():  # type: ignore[no-untyped-def]
        left_out = yield from rare_features(chosen, VIEW)
        kept = columns_in_use(chosen, VIEW.names, left_out)
        view = View(tuple(feature for feature in VIEW.columns if feature.name in kept))
        imputed = yield from impute_variables(chosen, view, left_out)
        standardised = yield from standardise(imputed.view)
        return left_out, standardised.view

    return run_pooled(steps(), sites)


WHOLE = pool(cohorts((40, 35, 30, 25)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=WHOLE.patients, max_size=WHOLE.patients))
def test_any_split_over_sites_gives_the_same_columns(places: list[int]) -> None:
    site = np.array(places)
    parts = [WHOLE.subset(site == place) for place in range(4) if (site == place).any()]
    left_out, view = prepared(parts)
    expected_out, expected = prepared([WHOLE])
    assert left_out == expected_out
    assert set(left_out) == {"histology=7"}
    assert view.names == expected.names == ("age", "histology=2", "histology=3", "female")
    np.testing.assert_allclose(view.table(WHOLE).values, expected.table(WHOLE).values, rtol=0, atol=1e-12)


def test_the_mode_is_taken_over_all_levels_together() -> None:
    """No indicator's own mode: 0 is the commonest value of all of them, and yet missing codes become squamous."""
    sites = []
    for cohort in cohorts():
        codes = cohort.columns["histology"].copy()
        codes[np.flatnonzero(codes == 1)[::4]] = 2.0
        sites.append(Cohort.of(cohort.site, {**cohort.columns, "histology": codes}, cohort.time, cohort.event))
    assert all(np.mean(np.concatenate([c.columns["histology"] for c in sites]) == level) < 0.5 for level in LEVELS)
    imputed = run_pooled(impute_variables(study(), VIEW, {"histology=7"}), sites)
    assert imputed.values["histology"] == 2.0
    whole = pool(sites)
    filled = imputed.view.table(whole).values[:, imputed.view.names.index("histology=2")]
    assert filled.tolist() == (np.isnan(whole.columns["histology"]) | (whole.columns["histology"] == 2)).tolist()


def test_the_reference_is_the_lowest_level_unless_the_study_names_one() -> None:
    assert Variable.model_validate(HISTOLOGY).nominal("x").indicators == ("x=2", "x=3", "x=7")
    assert Variable.model_validate(HISTOLOGY | {"reference": 3}).nominal("x").indicators == ("x=1", "x=2", "x=7")
