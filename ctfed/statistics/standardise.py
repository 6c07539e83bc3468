"""Standardisation: every column to mean 0 and standard deviation 1 over the training rows of the federation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.errors import CtfedError
from ctfed.federation.view import Feature, Table, Transform, View
from ctfed.statistics.describe import ColumnMoments, Fitted, moments

CONSTANT = 1e-12  # a standard deviation below this part of the mean is rounding, not spread


@register("standardise")
@dataclass(frozen=True, eq=False)
class Standardise(Transform):
    """z = (x - mean) / scale for each of the p columns.

    Attributes:
        names: the columns that it was fitted on.
        mean: (p,).
        scale: (p,) > 0.
        constant: the columns without spread; they become exactly 0 on any rows, also where test rows differ.
    """

    names: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray
    constant: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.names),)
        if self.mean.shape != shape or self.scale.shape != shape:
            raise ValueError(f"{len(self.names)} columns, but {self.mean.shape} means and {self.scale.shape} scales")
        if not (self.scale > 0).all():
            raise ValueError("a scale must be > 0")
        if not set(self.constant) <= set(self.names):
            raise ValueError("a constant column is not among the names")

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """The same names, now of magnitude 1."""
        found = tuple(feature.name for feature in features)
        if found != self.names:
            raise ValueError(f"standardisation was fitted on other columns: {_first_difference(self.names, found)}")
        return tuple(Feature(name) for name in self.names)

    def apply(self, table: Table) -> FloatArray:
        """(n, p) standardised values; NaN stays NaN."""
        standardised = (table.values - self.mean) / self.scale
        constant = np.isin(self.names, self.constant)
        standardised[:, constant] = np.where(np.isnan(standardised[:, constant]), np.nan, 0.0)
        return standardised


def _first_difference(expected: tuple[str, ...], found: tuple[str, ...]) -> str:
    if len(expected) != len(found):
        return f"expected {len(expected)} columns, found {len(found)}"
    return next(f"expected {a!r}, found {b!r}" for a, b in zip(expected, found, strict=True) if a != b)


@dataclass(frozen=True, eq=False)
class Standardised(Fitted):
    """The standardised view, and the moments that it rests on."""

    moments: ColumnMoments


def standardise(view: View) -> Algorithm[Standardised]:
    """Fit on the rows of ``view``, in two rounds. The scale is the population standard deviation (ddof 0).

    A column without spread gets scale 1, becomes all zeros, and is named in the warnings.

    Raises:
        CtfedError: when a column has no value at any site.
    """
    found = yield from moments(view)
    return standardise_by(view, found)


def standardise_by(view: View, found: ColumnMoments) -> Standardised:
    """The view standardised by its moments.

    Raises:
        CtfedError: when a column has no value at any site.
    """
    require_values(found.names, found.count)
    sd = found.sd(ddof=0)
    constant = sd <= CONSTANT * np.abs(found.mean)
    names = tuple(name for name, flat in zip(found.names, constant, strict=True) if flat)
    step = Standardise(found.names, frozen(found.mean), frozen(np.where(constant, 1.0, sd)), names)
    warnings = tuple(f"column {name!r} has the same value for every patient; it is set to 0" for name in names)
    return Standardised(view.then(step), warnings, found)


def require_values(names: tuple[str, ...], count: FloatArray) -> None:
    """Refuse columns that are missing for every patient.

    Raises:
        CtfedError: naming them.
    """
    empty = [name for name, number in zip(names, count, strict=True) if number == 0]
    if empty:
        raise CtfedError(f"no patient at any site has a value for {', '.join(map(repr, empty))}; leave it out")
