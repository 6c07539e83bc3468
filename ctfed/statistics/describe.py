"""Counts, means and standard deviations of every column of a view, missing values left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, IntArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import Table, View

MAX_EXPONENT = 200  # of a deviation's scale; its square then still fits a float64

# A site's sum of squares is at most the federation's, whose size the first round has measured. Scaling it 2**8 below
# the fixed-point limit leaves 96 bits below it, however small the spread is beside the mean.
HEADROOM_BITS = 14


@dataclass(frozen=True, eq=False)
class Fitted:
    """What fitting a step of preprocessing gives: the view with the step applied, and what a reader should know."""

    view: View
    warnings: tuple[str, ...]


@register("counts")
@dataclass(frozen=True, eq=False)
class Counts(Query):
    """Patients n, events d, and the number of patients with a value, for each of the p columns.

    Its total discloses those p + 2 counts.
    """

    view: View

    @property
    def layout(self) -> Layout:
        """Two numbers and one (p,) array of counts."""
        return {"patients": Entry(()), "events": Entry(()), "count": Entry((self.view.width,))}

    @property
    def exposure(self) -> Exposure:
        """Counts over all rows alone."""
        return Exposure()

    def answer(self, cohort: Cohort) -> Summary:
        """This site's counts."""
        table = self.view.table(cohort)
        return Summary(self.layout, {**_sizes(table), "count": (~np.isnan(table.values)).sum(axis=0)})


@register("moments")
@dataclass(frozen=True, eq=False)
class Moments(Query):
    """For each of the p columns: count m, sum of (x - c) and sum of (x - c)^2 over the patients with a value.

    Its total discloses the mean and the variance of every column, the number of values in it, and the numbers of
    patients and events.

    Attributes:
        centre: (p,) c.
        exponents: power of two that |x - c| is about, per column; empty for the columns' declared magnitudes.
    """

    view: View
    centre: FloatArray
    exponents: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_centred(self.view, self.centre, self.exponents)

    @property
    def layout(self) -> Layout:
        """Two numbers and three (p,) arrays."""
        width = (self.view.width,)
        scale = centred_scale(self.view, self.exponents)
        return {
            "patients": Entry(()),
            "events": Entry(()),
            "count": Entry(width),
            "sum": Entry(width, scale),
            "squares": Entry(width, 2 * scale),
        }

    @property
    def exposure(self) -> Exposure:
        """Sums over all rows alone, one column at a time."""
        return Exposure()

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        table = self.view.table(cohort)
        by_column = np.ascontiguousarray(table.values.T)  # numpy sums pairwise, hence accurately, along the last axis
        present = ~np.isnan(by_column)
        deviation = np.where(present, by_column - self.centre[:, None], 0.0)
        sums = {
            "count": present.sum(axis=1),
            "sum": deviation.sum(axis=1),
            "squares": (deviation * deviation).sum(axis=1),
        }
        return Summary(self.layout, {**_sizes(table), **sums})


@dataclass(frozen=True, eq=False)
class ColumnMoments:
    """Means and spreads of the p columns of a view.

    Attributes:
        names: of the columns.
        patients, events: of the view.
        count: (p,) patients with a value.
        mean: (p,); NaN where nobody has a value.
        squares: (p,) sum of (x - mean)^2.
    """

    names: tuple[str, ...]
    patients: int
    events: int
    count: FloatArray
    mean: FloatArray
    squares: FloatArray

    @property
    def missing(self) -> FloatArray:
        """(p,) patients without a value."""
        return self.patients - self.count

    def variance(self, ddof: int = 0) -> FloatArray:
        """(p,) squares / (count - ddof): ddof 0 describes these patients, 1 estimates the population's variance.

        NaN where count <= ddof.
        """
        degrees = self.count - ddof
        return np.where(degrees > 0, self.squares / np.where(degrees > 0, degrees, 1.0), np.nan)

    def sd(self, ddof: int = 0) -> FloatArray:
        """(p,) square root of ``variance(ddof)``."""
        return np.sqrt(self.variance(ddof))


def moments(view: View) -> Algorithm[ColumnMoments]:
    """Mean and variance of every column in two rounds: first the means, then the squares about them.

    Exact to the pooled two-pass computation, also where a spread is a millionth of its mean: the second round is
    carried at the scale of the spread, which the first one has bounded.
    """
    width = view.width
    first: Total = yield Moments(view, frozen(np.zeros(width)))
    centre = first["sum"] / np.maximum(first["count"], 1.0)
    total: Total = yield Moments(view, frozen(centre), spread_exponents(first, view))
    values = np.maximum(total["count"], 1.0)
    shift = total["sum"] / values
    return ColumnMoments(
        names=view.names,
        patients=round(total.number("patients")),
        events=round(total.number("events")),
        count=total["count"],
        mean=np.where(total["count"] > 0, centre + shift, np.nan),
        squares=np.maximum(total["squares"] - values * shift**2, 0.0),
    )


def spread_exponents(first: Total, view: View) -> tuple[int, ...]:
    """Scales at which no site's sums about the mean can leave the fixed-point range; from sums about zero."""
    declared = np.array(declared_exponents(view), dtype=np.int64)
    about_mean = first["squares"] - first["sum"] ** 2 / np.maximum(first["count"], 1.0)
    rounding = np.ldexp(first["squares"], -40) + np.ldexp(1.0, 2 * declared - 50)
    _, exponents = np.frexp(np.sqrt(np.maximum(about_mean, 0.0) + rounding))
    return tuple(int(exponent) - HEADROOM_BITS for exponent in exponents)


def check_centred(view: View, centre: FloatArray, exponents: tuple[int, ...]) -> None:
    """Raise ValueError unless there is a centre for each column, and no exponent or one for each, all in range."""
    if centre.shape != (view.width,):
        raise ValueError(f"the centre has shape {centre.shape}, the view has {view.width} columns")
    if exponents and len(exponents) != view.width:
        raise ValueError(f"{len(exponents)} exponents for {view.width} columns")
    check_exponents(exponents)


def check_exponents(exponents: Iterable[int]) -> None:
    """Raise ValueError unless all are in range."""
    if not all(-MAX_EXPONENT <= exponent <= MAX_EXPONENT for exponent in exponents):
        raise ValueError(f"an exponent is outside [-{MAX_EXPONENT}, {MAX_EXPONENT}]")


def centred_scale(view: View, exponents: tuple[int, ...]) -> IntArray:
    """(p,) the power of two that |x - centre| is about: the exponents, or the columns' declared magnitudes."""
    return np.array(exponents or declared_exponents(view), dtype=np.int64)


def declared_exponents(view: View) -> tuple[int, ...]:
    """The power of two that each column's magnitude is about, from the data dictionary and the transforms."""
    return tuple(feature.exponent for feature in view.features)


def _sizes(table: Table) -> Mapping[str, npt.ArrayLike]:
    return {"patients": float(table.rows), "events": float(table.event.sum())}
