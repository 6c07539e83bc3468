"""Views: which rows and columns, and what has been done to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from ctfed.federation import Cohort, Feature, FloatArray, Refusal, Table, Transform, View, Within, pool
from ctfed.federation.codec import digest, register
from ctfed.statistics.impute import Impute
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.standardise import Standardise

N = 12
COHORT = Cohort.of(
    "s",
    {
        "a": np.arange(12.0),
        "b": np.where(np.arange(12) % 5 == 0, np.nan, np.arange(12.0) ** 2),
        "spacing": [1, 2, 6] * 4,
    },
    np.arange(1.0, 13),
    np.arange(12) % 2 == 0,
    split=["train"] * 9 + ["test"] * 3,
    fold=[0, 1, 2] * 3 + [-1] * 3,
    batch=["x", "y"] * 6,
)
A = View((Feature("a", 4),))


def rows(view: View) -> list[int]:
    return [int(value) for value in view.table(COHORT).values[:, 0]]


@register("test-count-calls")
@dataclass(frozen=True)
class CountCalls(Transform):
    name: str = ""

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        return features

    def apply(self, table: Table) -> FloatArray:
        calls.append(self.name)
        return table.values


calls: list[str] = []


def test_rows_of_splits_and_folds() -> None:
    assert rows(A) == list(range(9))
    assert rows(A.test()) == [9, 10, 11]
    assert rows(View(A.columns, split="all")) == list(range(12))
    assert rows(A.training_fold(1)) == [0, 2, 3, 5, 6, 8]
    assert rows(A.held_out_fold(1)) == [1, 4, 7]
    assert rows(A.training_fold(1).test()) == [9, 10, 11]
    assert rows(A.held_out_fold(7)) == []


def test_folds_partition_the_training_rows() -> None:
    held_out = [row for fold in range(3) for row in rows(A.held_out_fold(fold))]
    assert sorted(held_out) == rows(A)
    for fold in range(3):
        assert sorted(rows(A.training_fold(fold)) + rows(A.held_out_fold(fold))) == rows(A)


def test_eligibility_rules_all_hold_and_a_missing_value_does_not() -> None:
    spacing = Within("spacing", 1, 5)
    assert rows(View(A.columns, rows=(spacing,))) == [0, 1, 3, 4, 6, 7]
    assert rows(View(A.columns, rows=(spacing, Within("b", 1, 16)))) == [1, 3, 4]
    assert rows(View(A.columns, split="test", rows=(spacing,))) == [9, 10]


def test_all_labels_follow_the_rows() -> None:
    table = A.held_out_fold(2).table(COHORT)
    chosen = [2, 5, 8]
    assert table.rows == 3
    assert table.time.tolist() == [3, 6, 9]
    assert table.event.tolist() == COHORT.event[chosen].tolist()
    assert table.batch.tolist() == COHORT.batch[chosen].tolist()
    assert table.stratum.tolist() == ["s"] * 3
    assert table.features == A.columns


def test_columns_come_in_the_views_order() -> None:
    view = View((Feature("spacing"), Feature("a")))
    np.testing.assert_array_equal(view.table(COHORT).values[:2], [[1, 0], [2, 1]])
    assert view.names == ("spacing", "a")


def test_transforms_apply_left_to_right_and_change_features_alike() -> None:
    view = View((Feature("a", 4), Feature("b", 7))).then(Impute(("b",), np.array([100.0]), ("b",)))
    view = view.then(Standardise(view.names, np.array([4.0, 0, 0]), np.array([2.0, 10, 1])))
    view = view.then(LinearPredictor(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])))
    assert view.names == ("risk-0", "risk-1", "risk-2")
    assert view.width == 3
    b = np.array([100, 1, 4, 9, 16, 100, 36, 49, 64]) / 10
    gone = np.array([1, 0, 0, 0, 0, 1, 0, 0, 0])
    np.testing.assert_allclose(view.table(COHORT).values, np.stack([(np.arange(9) - 4) / 2, b, gone], axis=1))


def test_a_transform_cannot_reach_the_cohorts_own_columns() -> None:
    before = {name: values.copy() for name, values in COHORT.columns.items()}
    A.table(COHORT).values[:] = -1.0
    View(A.columns, split="all").table(COHORT).values[:] = -1.0
    for name, values in before.items():
        np.testing.assert_array_equal(COHORT.columns[name], values)
    COHORT._cache.clear()


def test_a_matrix_is_built_once_for_equal_views() -> None:
    calls.clear()
    view = A.then(CountCalls("once"))
    twin = View((Feature("a", 4),), transforms=(CountCalls("once"),))
    assert digest(view) == digest(twin)
    assert view.table(COHORT) is twin.table(COHORT)
    view.then(CountCalls("after")).table(COHORT)
    assert calls == ["once", "once", "after"]
    assert A.held_out_fold(0).table(COHORT) is not A.held_out_fold(1).table(COHORT)


def test_a_view_without_columns_or_without_rows_is_a_table_all_the_same() -> None:
    assert View(()).table(COHORT).values.shape == (9, 0)
    assert A.held_out_fold(99).table(COHORT).values.shape == (0, 1)


def test_an_unknown_column_is_declined_by_rule() -> None:
    for view in (View((Feature("weight"),)), View((), rows=(Within("weight", 0, 1),))):
        with pytest.raises(Refusal, match="has no column 'weight'") as caught:
            view.table(COHORT)
        assert caught.value.rule == "unknown-column"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"split": "validation"}, "split must be one of"),
        ({"held_out": True}, "held_out needs a fold"),
        ({"columns": (Feature("a"), Feature("a", 3))}, "names a column twice"),
        ({"transforms": (LinearPredictor(np.ones((1, 2))),)}, "coefficients for 2 columns, the view has 1"),
    ],
)
def test_an_impossible_view_is_refused_in_words(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(A, **fields)


@pytest.mark.parametrize("exponent", [-121, 121])
def test_an_impossible_magnitude_is_refused(exponent: int) -> None:
    with pytest.raises(ValueError, match="is outside"):
        Feature("a", exponent)


def test_the_pooled_cohort_shows_the_same_rows_as_its_sites() -> None:
    other = COHORT.subset(np.arange(N) % 3 == 0, "t")
    view = View((Feature("a"), Feature("b")), fold=0, rows=(Within("spacing", 0, 4),))
    together = view.table(pool([COHORT, other])).values
    np.testing.assert_array_equal(together, np.concatenate([view.table(COHORT).values, view.table(other).values]))
