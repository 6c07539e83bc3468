"""Carriers: a 0/1 column that one patient alone carries makes every sum of products with it that patient's value.

    sum_i b_i x_i = x_carrier,   sum_i (1 - b_i) x_i = x_other  where all but one carry it

Sums of products about means give the same: ybar + S_by / S_bb for one carrier among n about the mean of b, as in the
cross-products that a harmonization sends. Two patients are determined by their sum and their products: the products
about their mean are half the outer square of the difference of their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.view import View
from server.audit.patients import Candidate
from server.audit.statements import PRODUCTS, Statement, affine, coded, everybody

EXACT = 1e-7


def carried(given: Sequence[Statement], folds: int) -> tuple[Candidate, ...]:
    """Rows of patients who alone carry, or alone lack, a 0/1 column, and of all patients where there are one or two."""
    found: list[Candidate] = []
    for one in given:
        if one.kind != PRODUCTS:
            continue
        n, sums, products = float(one.arrays["patients"]), one.arrays["sum"], one.arrays["products"]
        view, words = everybody(one.query.view), one.rows.label(folds)
        if round(n) in (1, 2):
            rows = [sums] if round(n) == 1 else _both(sums, products)
            found += [Candidate(view, row, f"one of the {round(n)} {words}") for row in rows]
            continue
        for column, name, slope, offset in _columns(view):
            carriers = (float(sums[column]) - n * offset) / slope
            with_it = (products[column] - offset * sums) / slope  # sum of b x over everybody
            if abs(carriers - (with_it[column] - offset * carriers) / slope) > EXACT:  # b^2 is not b: no 0/1 column
                continue
            if abs(carriers - 1) < EXACT:
                found.append(Candidate(view, with_it, f"the only one with {name!r} among the {words}"))
            elif abs(carriers - (n - 1)) < EXACT:
                found.append(Candidate(view, sums - with_it, f"the only one without {name!r} among the {words}"))
    return tuple(found)


def _columns(view: View) -> Iterator[tuple[int, str, float, float]]:
    """(place, name, slope, offset) of the view's columns; those that are slope b + offset of a raw column b undone.

    So are those of an indicator of a nominal column.
    """
    step = affine(coded(view))
    undone = {} if step is None else dict(zip(step.position, zip(step.slope, step.offset, strict=True), strict=True))
    for column, name in enumerate(view.names):
        slope, offset = undone.get(column, (1.0, 0.0))
        if slope != 0:
            yield column, name, float(slope), float(offset)


def _both(sums: FloatArray, products: FloatArray) -> list[FloatArray]:
    """The rows of two patients."""
    mean = sums / 2
    about = products - 2 * np.outer(mean, mean)
    largest = int(np.argmax(np.diag(about)))
    if about[largest, largest] <= 0:
        return [mean]
    half = about[largest] / np.sqrt(2 * about[largest, largest])
    return [mean + half, mean - half]
