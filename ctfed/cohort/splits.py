"""Splits and folds: drawn by each site from its own secret, so that nobody else can choose or guess them.

Patients are ordered by HMAC-SHA256(secret, purpose|study|patient) and dealt out in that order. The result depends on
the set of patients and their events, not on the order of rows, and is the same at every call.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ctfed.federation.arrays import BoolArray, IntArray
from ctfed.federation.cohort import Labels
from ctfed.federation.errors import CtfedError

TEST_FOLD = -1
_START = ""  # no patient's key is empty, so the draw of the starting point meets no patient's


def assign_split(keys: Sequence[str], event: BoolArray, secret: bytes, study_name: str, test_fraction: float) -> Labels:
    """'train' or 'test' for each patient.

    Args:
        keys: (n,) identifiers, unique and not empty.
        event: (n,) bool; the share of test patients is the same with and without the event, up to one patient.
        secret: the site's own.
        study_name: makes the draws of different studies independent.
        test_fraction: in (0, 1).

    Returns:
        (n,) labels. Of any m patients of one event class, floor or ceil of m * test_fraction are in 'test'; the same
        holds for all n.

    Raises:
        CtfedError: when keys repeat, a key is empty, or the fraction is not in (0, 1).
    """
    if not 0 < test_fraction < 1:
        raise CtfedError(f"found a test fraction of {test_fraction}, expected a number between 0 and 1")
    order = _order(keys, event, secret, f"split|{study_name}")
    # Systematic sampling from a random start: the small sites' roundings do not all go the same way.
    # In fractions, because 0.3 * 10 must be 3 on every machine.
    start = Fraction(_draw(secret, f"split|{study_name}|{_START}"), 2**64)
    share = Fraction(repr(float(test_fraction)))
    steps = [math.floor(start + i * share) for i in range(len(keys) + 1)]
    test = np.zeros(len(keys), dtype=bool)
    test[order] = np.diff(np.array(steps)) > 0
    return np.where(test, "test", "train")


def assign_folds(
    keys: Sequence[str], event: BoolArray, split: Labels, secret: bytes, study_name: str, folds: int
) -> IntArray:
    """The cross-validation fold of each patient: 0 to folds - 1 for training rows, -1 for test rows.

    Args:
        keys: (n,) identifiers, unique and not empty.
        event: (n,) bool.
        split: (n,) 'train' or 'test'.
        secret: the site's own.
        study_name: makes the draws of different studies independent.
        folds: >= 1.

    Returns:
        (n,) int64. Fold sizes differ by at most 1, among patients with the event, without it, and together.

    Raises:
        CtfedError: when keys repeat, a key is empty, a label of the split is another, or folds < 1.
    """
    if folds < 1:
        raise CtfedError(f"found {folds} folds, expected at least 1")
    if unknown := sorted({str(label) for label in split} - {"train", "test"}):
        raise CtfedError(f"found the split {unknown[0]!r}, expected 'train' or 'test'")
    order = _order(keys, event, secret, f"fold|{study_name}")
    training = order[np.asarray(split)[order] == "train"]
    start = _draw(secret, f"fold|{study_name}|{_START}") % folds
    fold = np.full(len(keys), TEST_FOLD, dtype=np.int64)
    fold[training] = (start + np.arange(training.size)) % folds
    return fold


def _order(keys: Sequence[str], event: BoolArray, secret: bytes, purpose: str) -> IntArray:
    """(n,) row numbers: patients with the event first, each class in the order of its digests."""
    if len(set(keys)) != len(keys) or "" in keys:
        raise CtfedError("found a repeated or empty patient identifier, expected each patient once")
    digests = [hmac.digest(secret, f"{purpose}|{key}".encode(), hashlib.sha256) for key in keys]
    rows = sorted(range(len(keys)), key=lambda row: (not event[row], digests[row]))
    return np.array(rows, dtype=np.int64)


def _draw(secret: bytes, message: str) -> int:
    """A number in [0, 2^64) that only the holder of the secret can know."""
    return int.from_bytes(hmac.digest(secret, message.encode(), hashlib.sha256)[:8], "big")
