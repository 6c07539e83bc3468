"""Pooled risk sets: one baseline hazard for all sites on a grid of time bins, in two phases per step.

First the totals of every bin (risk, tied risk, events); then each site's gradient computed against those totals. Risk
sets of one site never appear; and because neighbouring totals differ by the patients who left in between, the grid's
bins are merged beforehand until each holds a minimum of leavers (``merged_grid``). The exact grid is for tests alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import BoolArray, FloatArray, IntArray, frozen
from ctfed.federation.codec import digest, register
from ctfed.federation.cohort import Cohort
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import Table, View, check_cells
from ctfed.statistics.cox.likelihood import answerable
from ctfed.statistics.cox.solver import Derivatives, Oracle
from ctfed.statistics.cox.stratified import (
    check_ties,
    feature_exponents,
    pack_triangles,
    require_complete,
    site_strata,
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


def _risk(query: RiskSetSums | PooledGradient, cohort: Cohort) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Linear predictor and risk (n, m), both zero where the site declines a coefficient vector; and where it does.

    It declines as for stratified risk sets: where predictors are too large, or one patient carries most of the risk.
    """
    table, coefficients = _binned(query.view, cohort, query.grid).table, query.coefficients
    check_cells(table.rows, coefficients.shape[0])
    eta = table.values @ coefficients.T
    declined = np.asarray(np.abs(eta).max(axis=0, initial=0.0) > LARGEST_PREDICTOR)
    declined |= ~answerable(site_strata(query.view, cohort, "breslow"), coefficients)
    eta[:, declined] = 0.0
    risk = np.exp(eta)
    risk[:, declined] = 0.0
    return eta, risk, declined


def _names(view: View, grid: TimeGrid, coefficients: FloatArray) -> tuple[str, ...]:
    """A name for every coefficient vector on this view and these bins."""
    place = f"{digest(view)}|{digest(grid)}".encode()
    return tuple(sha256(place + row.tobytes()).hexdigest()[:12] for row in np.ascontiguousarray(coefficients))


@register("risk-set-sums")
@dataclass(frozen=True, eq=False)
class RiskSetSums(Query):
    """Phase one: per time bin, the risk exp(x beta) that leaves in it, the deaths, and if ``tied`` the risk that dies.

    S0 of a bin is the sum over this and all later bins. The total discloses, per coefficient vector and bin, a sum over
    the patients who leave in that bin (if ``tied``: one over those who die there and one over those who are censored);
    hence the minimum of leavers (of both). A site where a linear predictor is too large
    at a coefficient vector declines it: it adds nothing there, and the total says how many sites did.

    Attributes:
        view: rows and features.
        coefficients: (m, p).
        grid: time bins.
        means: indices into ``coefficients`` at which S1 (risk times x) is asked too.
        tied: ask what dies in each bin too, which Efron's ties need. Leaving less dying is what is censored there, so
            the bins must then hold a minimum of both.
    """

    view: View
    coefficients: FloatArray
    grid: TimeGrid
    means: tuple[int, ...] = ()
    tied: bool = True

    def __post_init__(self) -> None:
        if self.coefficients.ndim != 2 or self.coefficients.shape[1] != self.view.width:
            raise ValueError(f"coefficients must be (models, {self.view.width}), found {self.coefficients.shape}")
        if not all(0 <= index < self.coefficients.shape[0] for index in self.means):
            raise ValueError("S1 is asked at a point that is not among the coefficients")

    @property
    def layout(self) -> Layout:
        """patients (), deaths (T,), declined, event_eta (m,), leaving (T, m), leaving_x (h, T, p); dying* if tied."""
        models, width = self.coefficients.shape
        bins, count = self.grid.bins, len(self.means)
        scaled = RISK_EXPONENT + feature_exponents(self.view)
        risk, means = Entry((bins, models), RISK_EXPONENT), Entry((count, bins, width), scaled)
        return {
            "patients": Entry(()),
            "deaths": Entry((bins,)),
            "declined": Entry((models,)),
            "event_eta": Entry((models,)),
            "leaving": risk,
            "leaving_x": means,
            **({"dying": risk, "dying_x": means} if self.tied else {}),
        }

    @property
    def exposure(self) -> Exposure:
        """Sums per time bin at m points; of the bins, the open last one may hold nobody (see ``merge_edges``)."""
        points = _names(self.view, self.grid, self.coefficients)
        edges = self.grid.edges
        return Exposure(
            parameters=self.view.width,
            cells=edges.size,
            times=edges,
            points=points,
            means=tuple(points[index] for index in self.means),
            apart=self.tied,
        )

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums per bin."""
        rows = _binned(self.view, cohort, self.grid)
        eta, risk, declined = _risk(self, cohort)
        event = rows.table.event[:, None]
        bins, shape = self.grid.bins, (len(self.means), self.grid.bins, self.view.width)
        leaving_x, dying_x = np.zeros(shape), np.zeros(shape)
        for position, index in enumerate(self.means):
            weighted = risk[:, index, None] * rows.table.values
            leaving_x[position] = rows.sums(weighted, bins)
            dying_x[position] = rows.sums(weighted * event, bins)
        dying = {"dying": rows.sums(risk * event, bins), "dying_x": dying_x}
        return Summary(
            self.layout,
            {
                "patients": rows.table.rows,
                "deaths": rows.sums(event.astype(np.float64), bins)[:, 0],
                "declined": declined,
                "event_eta": (eta * event).sum(axis=0),
                "leaving": rows.sums(risk, bins),
                "leaving_x": leaving_x,
                **(dying if self.tied else {}),
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
        if self.coefficients.ndim != 2 or self.coefficients.shape[1] != self.view.width:
            raise ValueError(f"coefficients must be (models, {self.view.width}), found {self.coefficients.shape}")
        expected = (self.grid.bins, self.coefficients.shape[0])
        if self.seen.shape != expected or self.spared.shape != expected:
            raise ValueError(f"seen and spared must be {expected}")
        rise = np.diff(self.seen, axis=0, prepend=0.0)
        if (rise < 0).any() or (self.spared < 0).any() or (self.spared > rise).any():
            raise ValueError("seen is a cumulative hazard: it never falls, and spared is at most its rise in the bin")
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

    @property
    def exposure(self) -> Exposure:
        """Weighted sums at m points: who makes up ``seen`` and ``spared`` can ask the sums of a single bin."""
        return Exposure(
            parameters=self.view.width,
            cells=self.grid.edges.size,
            times=self.grid.edges,
            weighed=_names(self.view, self.grid, self.coefficients),
            apart=bool(self.spared.any()),
        )

    def answer(self, cohort: Cohort) -> Summary:
        """This site's part of the gradient."""
        rows = _binned(self.view, cohort, self.grid)
        x, event = rows.table.values, rows.table.event[:, None]
        _, risk, _ = _risk(self, cohort)
        weight = risk * (self.seen[rows.bin] - event * self.spared[rows.bin])
        cross = np.zeros((len(self.hessians), x.shape[1], x.shape[1]))
        for position, index in enumerate(self.hessians):
            cross[position] = (x * weight[:, index, None]).T @ x
        return Summary(self.layout, {"gradient": (event - weight).T @ x, "cross": pack_triangles(cross)})


@dataclass(frozen=True, eq=False)
class _PhaseOne:
    """Phase one's totals at the k coefficient vectors that no site declined.

    Attributes:
        deaths: (T,) events per bin.
        at_risk, dying: (T, k) S0 of each bin, and its part that dies in the bin (zero where it was not asked).
        at_risk_x, dying_x: index among the k -> the same for S1, (T, p), where the Hessian is asked.
    """

    deaths: IntArray
    at_risk: FloatArray
    dying: FloatArray
    at_risk_x: dict[int, FloatArray]
    dying_x: dict[int, FloatArray]

    @classmethod
    def of(cls, total: Total, kept: IntArray, means: tuple[int, ...]) -> _PhaseOne:
        place = {int(index): position for position, index in enumerate(kept)}
        asked = [(place[index], position) for position, index in enumerate(means) if index in place]
        return cls(
            np.rint(total["deaths"]).astype(np.int64),
            _from_here_on(total["leaving"][:, kept]),
            total.get("dying", np.zeros_like(total["leaving"]))[:, kept],
            {index: _from_here_on(total["leaving_x"][position]) for index, position in asked},
            {index: total.get("dying_x", np.zeros_like(total["leaving_x"]))[position] for index, position in asked},
        )


def _from_here_on(leaving: FloatArray) -> FloatArray:
    """Sums over each bin and all later ones."""
    return np.asarray(np.cumsum(leaving[::-1], axis=0)[::-1])


@dataclass(frozen=True, eq=False)
class _Denominators:
    """S0 - l/d T0 of every event of every bin. ``bin`` and ``rank``: (E,); ``value``: (E, m)."""

    bin: IntArray
    rank: FloatArray
    value: FloatArray


def _denominators(first: _PhaseOne, ties: str) -> _Denominators:
    deaths = first.deaths
    bins = np.repeat(np.arange(deaths.size), deaths)
    place = np.arange(bins.size) - np.repeat(np.cumsum(deaths) - deaths, deaths)
    rank = place / deaths[bins] if ties == "efron" else np.zeros(bins.size)
    return _Denominators(bins, rank, first.at_risk[bins] - rank[:, None] * first.dying[bins])


def pooled_oracle(view: View, ties: str, grid: TimeGrid) -> Oracle:
    """Derivatives of the partial likelihood with one baseline hazard, in two rounds."""
    check_ties(ties)

    def ask(points: FloatArray, hessians: tuple[int, ...]) -> Algorithm[Derivatives]:
        total: Total = yield RiskSetSums(view, points, grid, hessians, tied=ties == "efron")
        kept = np.flatnonzero(total["declined"] == 0)
        first = _PhaseOne.of(total, kept, hessians)
        loglik, gradient = np.full(points.shape[0], -np.inf), np.zeros(points.shape)
        information: dict[int, FloatArray] = {}
        if kept.size:
            at = _denominators(first, ties)
            inverse = 1.0 / at.value
            seen, spared = _weights(at, inverse, grid.bins)
            asked = tuple(first.at_risk_x)
            second: Total = yield PooledGradient(view, frozen(points[kept]), grid, seen, spared, asked)
            loglik[kept] = total["event_eta"][kept] - np.log(at.value).sum(axis=0)
            gradient[kept] = second["gradient"]
            for index, cross in zip(asked, unpack_triangles(second["cross"], view.width), strict=True):
                information[int(kept[index])] = _varying(cross, _between(first, at, inverse, index))
        patients, events = round(total.number("patients")), int(first.deaths.sum())
        return Derivatives(patients, events, loglik, gradient, information)

    return ask


def _weights(at: _Denominators, inverse: FloatArray, bins: int) -> tuple[FloatArray, FloatArray]:
    """``seen`` and ``spared`` of PooledGradient, (bins, m) each."""
    per_bin, spared = np.zeros((bins, inverse.shape[1])), np.zeros((bins, inverse.shape[1]))
    np.add.at(per_bin, at.bin, inverse)
    np.add.at(spared, at.bin, inverse * at.rank[:, None])
    return frozen(np.cumsum(per_bin, axis=0)), frozen(spared)


def _varying(cross: FloatArray, between: FloatArray) -> FloatArray:
    """Their difference, with exact zeros for features whose whole difference is rounding (constant columns)."""
    difference = cross - between
    flat = np.diag(difference) <= CONSTANT * np.diag(cross)
    difference[flat, :] = difference[:, flat] = 0.0
    return difference


def _between(first: _PhaseOne, at: _Denominators, inverse: FloatArray, index: int) -> FloatArray:
    """Sum over events of z z', z the mean covariate vector of the event's risk set."""
    means = first.at_risk_x[index][at.bin] - at.rank[:, None] * first.dying_x[index][at.bin]
    means *= inverse[:, index, None]
    return np.asarray(means.T @ means)
