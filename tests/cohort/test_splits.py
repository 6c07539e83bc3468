"""Splits and folds: balanced, the same for any order of rows, and unknown without the secret."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctfed.cohort import assign_folds, assign_split
from ctfed.federation.errors import CtfedError

patients = st.lists(st.tuples(st.text(min_size=1, max_size=6), st.booleans()), unique_by=lambda p: p[0], max_size=60)
secrets = st.binary(min_size=16, max_size=32)
fractions = st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.9])

KEYS = [f"p{i}" for i in range(40)]
EVENT = np.arange(40) % 3 == 0


def columns(rows: list[tuple[str, bool]]) -> tuple[list[str], np.ndarray]:
    return [key for key, _ in rows], np.array([event for _, event in rows], dtype=bool)


@given(patients, secrets, fractions)
def test_the_test_share_is_exact_up_to_one_patient_in_each_event_class(
    rows: list[tuple[str, bool]], secret: bytes, fraction: float
) -> None:
    keys, event = columns(rows)
    test = assign_split(keys, event, secret, "demo", fraction) == "test"
    for chosen in (event, ~event, np.ones_like(event)):
        wanted = int(chosen.sum()) * fraction
        assert math.floor(wanted + 1e-9) <= int(test[chosen].sum()) <= math.ceil(wanted - 1e-9)


@given(patients, secrets, st.integers(1, 7), fractions)
def test_folds_differ_by_at_most_one_patient_in_each_event_class(
    rows: list[tuple[str, bool]], secret: bytes, folds: int, fraction: float
) -> None:
    keys, event = columns(rows)
    split = assign_split(keys, event, secret, "demo", fraction)
    fold = assign_folds(keys, event, split, secret, "demo", folds)
    assert ((fold == -1) == (split == "test")).all()
    assert fold.max(initial=-1) < folds
    for chosen in (event, ~event, np.ones_like(event)):
        sizes = [int((fold[chosen] == k).sum()) for k in range(folds)]
        assert max(sizes) - min(sizes) <= 1


@given(patients, secrets, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows: list[tuple[str, bool]], secret: bytes, random: object) -> None:
    keys, event = columns(rows)
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled, shuffled_event = [keys[i] for i in order], event[order]
    split = assign_split(keys, event, secret, "demo", 0.3)
    fold = assign_folds(keys, event, split, secret, "demo", 3)
    assert (assign_split(shuffled, shuffled_event, secret, "demo", 0.3) == split[order]).all()
    assert (assign_folds(shuffled, shuffled_event, split[order], secret, "demo", 3) == fold[order]).all()


@given(secrets, secrets)
def test_other_secrets_give_other_splits_and_folds(one: bytes, other: bytes) -> None:
    all_train = np.full(40, "train")
    same = one == other
    splits = [assign_split(KEYS, EVENT, secret, "demo", 0.5).tolist() for secret in (one, other)]
    folds = [assign_folds(KEYS, EVENT, all_train, secret, "demo", 5).tolist() for secret in (one, other)]
    assert (splits[0] == splits[1]) is same
    assert (folds[0] == folds[1]) is same


def test_other_studies_give_other_splits_and_folds() -> None:
    all_train = np.full(40, "train")
    splits = [assign_split(KEYS, EVENT, b"s" * 32, name, 0.5).tolist() for name in ("demo", "other")]
    folds = [assign_folds(KEYS, EVENT, all_train, b"s" * 32, name, 5).tolist() for name in ("demo", "other")]
    assert splits[0] != splits[1]
    assert folds[0] != folds[1]


def test_labels_are_whole_words() -> None:
    assert set(assign_split(KEYS, EVENT, b"s" * 32, "demo", 0.3).tolist()) == {"train", "test"}


def test_small_sites_do_not_all_round_the_same_way() -> None:
    """Three patients at each of 300 sites and a share of 0.3: 270 test patients are expected, not 0 and not 300."""
    keys, event = ["a", "b", "c"], np.array([True, True, True])
    tested = sum(
        int((assign_split(keys, event, f"secret {site}".encode(), "demo", 0.3) == "test").sum()) for site in range(300)
    )
    assert 240 <= tested <= 290
    singles = Counter(
        int(assign_folds(["a"], np.array([True]), np.array(["train"]), f"secret {site}".encode(), "demo", 5)[0])
        for site in range(300)
    )
    assert set(singles) == set(range(5))
    assert min(singles.values()) > 30


def test_the_draw_is_fixed_for_good() -> None:
    """A change here would move patients between training and test in a study that runs."""
    keys, event = [f"p{i}" for i in range(8)], np.array([1, 0, 1, 0, 1, 0, 0, 0], dtype=bool)
    split = assign_split(keys, event, b"fixture secret 16", "demo", 0.25)
    assert np.flatnonzero(split == "test").tolist() == [3, 4]
    assert assign_folds(keys, event, split, b"fixture secret 16", "demo", 3).tolist() == [2, 2, 0, -1, -1, 0, 1, 1]


@pytest.mark.parametrize(("keys", "found"), [(["a", "a"], "repeated"), (["a", ""], "empty")])
def test_patients_must_be_told_apart(keys: list[str], found: str) -> None:
    event, split = np.array([True, False]), np.array(["train", "train"])
    with pytest.raises(CtfedError, match=found):
        assign_split(keys, event, b"s" * 32, "demo", 0.5)
    with pytest.raises(CtfedError, match=found):
        assign_folds(keys, event, split, b"s" * 32, "demo", 2)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, math.nan])
def test_a_share_outside_zero_to_one_is_refused(fraction: float) -> None:
    with pytest.raises(CtfedError, match=f"found a test fraction of {fraction}, expected a number between 0 and 1"):
        assign_split(KEYS, EVENT, b"s" * 32, "demo", fraction)


def test_no_folds_and_unknown_labels_are_refused() -> None:
    with pytest.raises(CtfedError, match="found 0 folds, expected at least 1"):
        assign_folds(KEYS, EVENT, np.full(40, "train"), b"s" * 32, "demo", 0)
    with pytest.raises(CtfedError, match="found the split 'Train', expected 'train' or 'test'"):
        assign_folds(KEYS, EVENT, np.full(40, "Train"), b"s" * 32, "demo", 2)
