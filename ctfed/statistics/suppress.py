"""Suppression: which counts of a published column must be hidden so that small ones cannot be worked out."""

from __future__ import annotations

import numpy as np

from ctfed.federation.arrays import BoolArray, IntArray


def hidden_cells(counts: IntArray, minimum: int) -> BoolArray:
    """(L,) True for the cells of a column to hide, when their sum and the other cells are published.

    Counts from 1 to minimum - 1 are hidden. They could be worked out from the sum if they were alone, and confined if
    the hidden cells add up to little more than one each. So the smallest of the others are hidden too, until each
    hidden count can be anything in a range of at least ``minimum``, even for somebody who knows that none is 0. Where
    that cannot be reached, or the whole column holds fewer than ``minimum`` patients, all of it is hidden.
    """
    hidden = (counts > 0) & (counts < minimum)
    if not hidden.any():
        return hidden
    if counts.sum() < minimum:
        return np.ones_like(hidden)
    while not _protected(counts[hidden], minimum):
        rest = np.flatnonzero(~hidden & (counts > 0))
        if rest.size == 0:
            return np.ones_like(hidden)
        hidden[rest[np.argmin(counts[rest])]] = True
    return hidden


def _protected(cells: IntArray, minimum: int) -> bool:
    """Each of m cells >= 1 with a known sum lies between 1 and sum - m + 1."""
    return bool(cells.size > 1 and cells.sum() - cells.size >= minimum)
