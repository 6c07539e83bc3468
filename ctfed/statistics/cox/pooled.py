"""Pooled risk sets: one baseline hazard for all sites on a grid of time bins, in two phases per step.

First the totals of every bin (risk, tied risk, events); then each site's gradient computed against those totals. Risk
sets of one site never appear; and because neighbouring totals differ by the patients who left in between, the grid's
bins are merged beforehand until each holds a minimum of leavers (``merged_grid``). The exact grid is for tests alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, IntArray, frozen
from ctfed.federation.codec import digest, register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import Refusal
from ctfed.federation.query import Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import Table, View
from ctfed.statistics.cox.likelihood import MAX_PREDICTOR_RANGE
from ctfed.statistics.cox.solver import Derivatives, Oracle
from ctfed.statistics.cox.stratified import (
    check_ties,
    feature_exponents,
    pack_triangles,
    require_complete,
    triangle_exponents,
    triangle_size,
    unpack_triangles,
)
from ctfed.statistics.timegrid import TimeGrid

RISK_EXPONENT = 8  # exp(x beta) of standardised features may reach 1e12 in sum
CONSTANT = 1e-13  # variance within risk sets, relative to the mean square, that rounding alone produces
LARGEST_PREDICTOR = 30.0  # beyond it exp(x beta) leaves the range of the fixed point


@dataclass(frozen=True, eq=False)
class _Binned:
    """A site's rows of a view with their time bins."""

    table: Table
    bin: IntArray

    def sums(self, values: FloatArray, bins: int) -> FloatArray:
        """Per-bin sums (bins, m) of (n, m) values."""
        total = np.zeros((bins, values.shape[1]))
        np.add.at(total, self.bin, values)
        return total


def _binned(view: View, cohort: Cohort, grid: TimeGrid) -> _Binned:
    def build() -> _Binned:
        table = view.table(cohort)
        require_complete(table)
        return _Binned(table, grid.bin_of(table.time))

    return cohort.cached(f"bins:{digest(view)}:{digest(grid)}", build)


def _risk(table: Table, coefficients: FloatArray) -> tuple[FloatArray, FloatArray]:
    eta = table.values @ coefficients.T
    if eta.size and not np.abs(eta).max() <= LARGEST_PREDICTOR:
        raise Refusal(
            "predictor-range",
            f"a linear predictor exceeds {LARGEST_PREDICTOR:g} in magnitude; standardise the features "
            f"(limit of stratified risk sets: a range of {MAX_PREDICTOR_RANGE:g})",
        )
    return eta, np.exp(eta)


@register("risk-set-sums")
@dataclass(frozen=True, eq=False)
class RiskSetSums(Query):
    """Phase one: per time bin, the risk exp(x beta) that leaves in it, the risk that dies in it, and the deaths.

    S0 of a bin is the sum over this and all later bins. The total discloses, per coefficient vector and bin, two sums
    over the patients who leave in that bin; hence the minimum of leavers.

    Attributes:
        view: rows and features.
        coefficients: (m, p).
        grid: time bins.
        means: indices into ``coefficients`` at which S1 (risk times x) is asked too.
    """

    view: View
    coefficients: FloatArray
    grid: TimeGrid
    means: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.coefficients.ndim != 2 or self.coefficients.shape[1] != self.view.width:
            raise ValueError(f"coefficients must be (models, {self.view.width}), found {self.coefficients.shape}")
        if not all(0 <= index < self.coefficients.shape[0] for index in self.means):
            raise ValueError("S1 is asked at a point that is not among the coefficients")

    @property
    def layout(self) -> Layout:
        """patients (), deaths (T,), event_eta (m,), leaving and dying (T, m), leaving_x and dying_x (h, T, p)."""
        models, width = self.coefficients.shape
        bins, count = self.grid.bins, len(self.means)
        scaled = RISK_EXPONENT + feature_exponents(self.view)
        return {
            "patients": Entry(()),
            "deaths": Entry((bins,)),
            "event_eta": Entry((models,)),
            "leaving": Entry((bins, models), RISK_EXPONENT),
            "dying": Entry((bins, models), RISK_EXPONENT),
            "leaving_x": Entry((count, bins, width), scaled),
            "dying_x": Entry((count, bins, width), scaled),
        }

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums per bin."""
        rows = _binned(self.view, cohort, self.grid)
        eta, risk = _risk(rows.table, self.coefficients)
        event = rows.table.event[:, None]
        bins, shape = self.grid.bins, (len(self.means), self.grid.bins, self.view.width)
        leaving_x, dying_x = np.zeros(shape), np.zeros(shape)
        for position, index in enumerate(self.means):
            weighted = risk[:, index, None] * rows.table.values
            leaving_x[position] = rows.sums(weighted, bins)
            dying_x[position] = rows.sums(weighted * event, bins)
        return Summary(
            self.layout,
            {
                "patients": rows.table.rows,
                "deaths": rows.sums(event.astype(np.float64), bins)[:, 0],
                "event_eta": (eta * event).sum(axis=0),
                "leaving": rows.sums(risk, bins),
                "dying": rows.sums(risk * event, bins),
                "leaving_x": leaving_x,
                "dying_x": dying_x,
            },
        )


@register("pooled-gradient")
@dataclass(frozen=True, eq=False)
class PooledGradient(Query):
    """Phase two: X'(delta - w) with the expected events w_i = exp(x_i beta) (seen[bin_i] - delta_i spared[bin_i]).

    Attributes:
        view, coefficients, grid: as in phase one.
        seen: (T, m) sum over the events up to and including each bin of 1 / (S0 - l/d T0).
        spared: (T, m) Efron's sum over the bin's events of (l/d) / (S0 - l/d T0); zero for Breslow.
        hessians: indices at which X' diag(w) X is asked too.
    """

    view: View
    coefficients: FloatArray
    grid: TimeGrid
    seen: FloatArray
    spared: FloatArray
    hessians: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        expected = (self.grid.bins, self.coefficients.shape[0])
        if self.coefficients.ndim != 2 or self.coefficients.shape[1] != self.view.width:
            raise ValueError(f"coefficients must be (models, {self.view.width}), found {self.coefficients.shape}")
        if self.seen.shape != expected or self.spared.shape != expected:
            raise ValueError(f"seen and spared must be {expected}")
        if not all(0 <= index < self.coefficients.shape[0] for index in self.hessians):
            raise ValueError("a Hessian is asked at a point that is not among the coefficients")

    @property
    def layout(self) -> Layout:
        """gradient (m, p) and cross (h, p (p + 1) / 2)."""
        models, width = self.coefficients.shape
        return {
            "gradient": Entry((models, width), feature_exponents(self.view)),
            "cross": Entry((len(self.hessians), triangle_size(width)), triangle_exponents(self.view)),
        }

    def answer(self, cohort: Cohort) -> Summary:
        """This site's part of the gradient."""
        rows = _binned(self.view, cohort, self.grid)
        x, event = rows.table.values, rows.table.event[:, None]
        _, risk = _risk(rows.table, self.coefficients)
        weight = risk * (self.seen[rows.bin] - event * self.spared[rows.bin])
        cross = np.zeros((len(self.hessians), x.shape[1], x.shape[1]))
        for position, index in enumerate(self.hessians):
            cross[position] = (x * weight[:, index, None]).T @ x
        return Summary(self.layout, {"gradient": (event - weight).T @ x, "cross": pack_triangles(cross)})


@dataclass(frozen=True, eq=False)
class _Denominators:
    """S0 - l/d T0 of every event of every bin. ``bin`` and ``rank``: (E,); ``value``: (E, m)."""

    bin: IntArray
    rank: FloatArray
    value: FloatArray


def _denominators(total: Total, ties: str) -> _Denominators:
    deaths = np.rint(total["deaths"]).astype(np.int64)
    at_risk = np.cumsum(total["leaving"][::-1], axis=0)[::-1]
    bins = np.repeat(np.arange(deaths.size), deaths)
    place = np.arange(bins.size) - np.repeat(np.cumsum(deaths) - deaths, deaths)
    rank = place / deaths[bins] if ties == "efron" else np.zeros(bins.size)
    return _Denominators(bins, rank, at_risk[bins] - rank[:, None] * total["dying"][bins])


def pooled_oracle(view: View, ties: str, grid: TimeGrid) -> Oracle:
    """Derivatives of the partial likelihood with one baseline hazard, in two rounds."""
    check_ties(ties)

    def ask(points: FloatArray, hessians: tuple[int, ...]) -> Algorithm[Derivatives]:
        total: Total = yield RiskSetSums(view, points, grid, hessians)
        denominators = _denominators(total, ties)
        inverse = 1.0 / denominators.value
        per_bin, spared = np.zeros((grid.bins, points.shape[0])), np.zeros((grid.bins, points.shape[0]))
        np.add.at(per_bin, denominators.bin, inverse)
        np.add.at(spared, denominators.bin, inverse * denominators.rank[:, None])
        seen = frozen(np.cumsum(per_bin, axis=0))
        second: Total = yield PooledGradient(view, points, grid, seen, frozen(spared), hessians)
        cross = unpack_triangles(second["cross"], view.width)
        return Derivatives(
            patients=round(total.number("patients")),
            events=int(denominators.bin.size),
            loglik=total["event_eta"] - np.log(denominators.value).sum(axis=0),
            gradient=second["gradient"],
            information={
                index: _varying(cross[position], _between(total, denominators, inverse, position, index))
                for position, index in enumerate(hessians)
            },
        )

    return ask


def _varying(cross: FloatArray, between: FloatArray) -> FloatArray:
    """Their difference, with exact zeros for features whose whole difference is rounding (constant columns)."""
    difference = cross - between
    flat = np.diag(difference) <= CONSTANT * np.diag(cross)
    difference[flat, :] = difference[:, flat] = 0.0
    return difference


def _between(total: Total, at: _Denominators, inverse: FloatArray, position: int, index: int) -> FloatArray:
    """Sum over events of z z', z the mean covariate vector of the event's risk set."""
    sums = np.cumsum(total["leaving_x"][position][::-1], axis=0)[::-1]
    means = (sums[at.bin] - at.rank[:, None] * total["dying_x"][position][at.bin]) * inverse[:, index, None]
    return np.asarray(means.T @ means)
