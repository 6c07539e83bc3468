"""The census tells every site what the federation holds in each bin of time and of each two-valued feature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masked_support import FOLDS, VIEW, site_cohorts
from test_session import all_views

from ctfed.federation import Cohort, Refusal, View, pool
from ctfed.federation.census import Census, CensusPlan
from ctfed.federation.nominal import Nominal
from ctfed.statistics.timegrid import TimeGrid
from ctfed.statistics.timegrid_merge import TimeCounts

EDGES = (3.0, 6.0, 9.0, 12.0, 24.0)
LOBE = Nominal("lobe", (1.0, 2.0, 5.0), 2.0)
PLAN = CensusPlan(FOLDS, EDGES, ("smoker",), ("grade",), nominal=(LOBE,))


def with_columns(cohort: Cohort, seed: int) -> Cohort:
    rng = np.random.default_rng(seed)
    smoker = rng.choice([0.0, 1.0, np.nan], cohort.patients, p=[0.6, 0.3, 0.1])
    grade = np.where(rng.random(cohort.patients) < 0.2, np.nan, 1.0)
    lobe = rng.choice([1.0, 2.0, 5.0, np.nan], cohort.patients, p=[0.5, 0.3, 0.1, 0.1])
    return replace(cohort, columns={**cohort.columns, "smoker": smoker, "grade": grade, "lobe": lobe}, _cache={})


def counted(cohort: Cohort) -> Census:
    train = [cohort.split == "train"] * FOLDS
    rows = [part & (cohort.fold == fold) for fold, part in enumerate(train)] + [cohort.split == "test"]
    return Census(PLAN, np.array([[PLAN.count(cohort, part) for part in rows]]))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(0, 1000))
def test_the_counts_of_any_sites_add_up_to_those_of_their_pool(patients: list[int], seed: int) -> None:
    cohorts = [with_columns(cohort, seed + i) for i, cohort in enumerate(site_cohorts(patients, seed))]
    together = counted(pool(cohorts))
    assert (sum(counted(cohort).table for cohort in cohorts) == together.table).all()
    assert together.table.shape == PLAN.shape


@pytest.mark.parametrize("edges", [EDGES, EDGES[:1], EDGES[1::2], EDGES[-1:]])
def test_leavers_are_what_time_counts_tell(edges: tuple[float, ...]) -> None:
    cohort = with_columns(pool(site_cohorts()), 0)
    census, grid = counted(cohort), TimeGrid(np.array(edges))
    for view in all_views():
        found = census.leavers(view, grid.edges)
        assert found is not None
        expected = TimeCounts(view, grid).answer(cohort)["counts"] if view.table(cohort).rows else np.zeros(found.shape)
        assert found.tolist() == np.asarray(expected).tolist()


@pytest.mark.parametrize("edges", [(3.0, 7.0), (30.0,), (np.nextafter(3.0, 4.0),)])
def test_edges_that_were_not_counted_are_not_known(edges: tuple[float, ...]) -> None:
    assert counted(with_columns(pool(site_cohorts()), 0)).leavers(VIEW, np.array(edges)) is None


def test_without_a_grid_no_edge_is_known() -> None:
    plain = CensusPlan(1)
    assert Census(plain, np.zeros((1, 2, 2))).leavers(VIEW, np.array([1.0])) is None


def test_carriers_are_the_fewer_with_or_without() -> None:
    cohort = with_columns(pool(site_cohorts()), 0)
    census = counted(cohort)
    for view in (View(VIEW.columns), View(VIEW.columns, split="test"), VIEW.training_fold(0)):
        rows = _rows(view, cohort)
        smoker, grade = cohort.columns["smoker"][rows], cohort.columns["grade"][rows]
        assert census.carriers(view, "smoker") == min((smoker == 1).sum(), (smoker == 0).sum())
        assert census.carriers(view, "grade missing") == min(np.isnan(grade).sum(), (~np.isnan(grade)).sum())
        assert census.carriers(view, "grade") is None
        assert census.carriers(view, "smoker missing") is None


@pytest.mark.parametrize("minimum", [1, 5, 12, 60])
def test_a_level_that_few_are_at_has_no_indicator(minimum: int) -> None:
    cohort = with_columns(pool(site_cohorts()), 0)
    census = counted(cohort)
    for view in (View(VIEW.columns), View(VIEW.columns, split="test"), VIEW.training_fold(0)):
        codes = cohort.columns["lobe"][_rows(view, cohort)]
        upper, middle, lower = ((codes == level).sum() for level in LOBE.levels)
        expected = {"lobe=1": min(upper, middle + lower), "lobe=5": min(lower, upper + middle)}
        expected = {name: held for name, held in expected.items() if held < minimum}
        rare = census.rare_indicators(view, minimum)
        assert {name: held for name, held in rare.items() if name in expected} == expected
        kept = {"lobe=1": upper, "lobe=5": lower}.keys() - rare.keys()
        rest = middle + sum({"lobe=1": upper, "lobe=5": lower}[name] for name in rare)
        assert not kept or rest >= minimum
        assert census.carriers(view, "lobe") == min(upper, middle, lower)
        assert census.carriers(view, "lobe=1") is None


def test_levels_are_counted_behind_all_else() -> None:
    """A study without nominal variables counts what it counted before there were any."""
    plain = replace(PLAN, nominal=())
    cohort = with_columns(pool(site_cohorts()), 0)
    everybody = np.ones(cohort.patients, dtype=bool)
    assert PLAN.width == plain.width + 3
    assert PLAN.count(cohort, everybody)[: plain.width].tolist() == plain.count(cohort, everybody).tolist()


def _rows(view: View, cohort: Cohort) -> np.ndarray:
    rows = cohort.split == view.split
    return rows if view.fold is None else rows & ((cohort.fold == view.fold) == view.held_out)


def test_a_table_without_a_counted_column_is_refused_by_name() -> None:
    cohort = site_cohorts()[0]
    with pytest.raises(Refusal) as refused:
        PLAN.count(cohort, np.ones(cohort.patients, dtype=bool))
    assert refused.value.rule == "unknown-column"
