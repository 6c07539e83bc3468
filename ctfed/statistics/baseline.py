"""One pooled Breslow baseline hazard from secure totals, and the survival it predicts.

At the final coefficients the hazard of a time bin is d / S0: the deaths of all sites over the summed exp(x beta) of
everybody still at risk. Bins are merged beforehand until each holds a minimum of leavers, because neighbouring S0
differ by the patients who left in between.

Reference: Breslow 1972, in the discussion of Cox 1972. With Efron's ties the coefficients are Efron's, the baseline
is still Breslow's, as in lifelines; R's survfit differs there at tied times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.summary import Total
from ctfed.federation.view import View
from ctfed.statistics.cox.pooled import RiskSetSums
from ctfed.statistics.timegrid import TimeGrid
from ctfed.statistics.timegrid_merge import TimeCounts, merge_edges, separable, without_small


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline hazard as a step function.

    Attributes:
        time: (T,) edges of the grid, in the study's time unit.
        cumulative_hazard: (T,) of a patient with x beta = 0 (the mean of standardised features), up to each edge.
        at_risk: (T,) patients at risk when each bin begins.
        deaths: (T,) events in each bin.
    """

    time: FloatArray
    cumulative_hazard: FloatArray
    at_risk: FloatArray
    deaths: FloatArray

    def survival(self, predictor: float | FloatArray = 0.0) -> FloatArray:
        """S(t) at every edge for linear predictors: (T,) for a number, (n, T) for (n,) of them."""
        risk = np.exp(np.asarray(predictor, dtype=np.float64))[..., None]
        return np.exp(-risk * self.cumulative_hazard)


def merged_grid(
    view: View, grid: TimeGrid, minimum: int, keep: Sequence[float] = (), *, both: bool = False
) -> Algorithm[TimeGrid]:
    """The grid with neighbouring bins merged until at least ``minimum`` patients of the view leave in each.

    Args:
        view: the patients.
        grid: the bins wished for.
        minimum: the fewest leavers of a bin; 1 only keeps what holds anybody, 0 keeps every bin.
        keep: edges that stay (horizons), where at least ``minimum`` leave between them and beyond the last.
        both: want ``minimum`` deaths and as many censored in each bin, because sums over either are told.
    """
    if minimum <= 0:
        return grid
    total: Total = yield TimeCounts(view, grid)
    leavers = total["counts"].min(axis=1) if both else total["counts"].sum(axis=1)
    merged = merge_edges(grid, leavers, minimum, separable(grid, leavers, keep, minimum))
    return without_small(grid, merged, total["counts"], minimum) if both else merged


def pooled_baseline(
    view: View, coefficients: FloatArray, grid: TimeGrid, minimum: int = 10, keep: Sequence[float] = ()
) -> Algorithm[Baseline]:
    """The Breslow baseline of a fitted model, in two rounds (one if ``minimum`` is 0).

    Args:
        view: what the model was fitted on.
        coefficients: (p,) of the model.
        grid, minimum, keep: see ``merged_grid``.
    """
    bins = yield from merged_grid(view, grid, minimum, keep)
    total: Total = yield RiskSetSums(view, frozen([coefficients, np.zeros(view.width)]), bins, tied=False)
    remaining = np.cumsum(total["leaving"][::-1], axis=0)[::-1][:-1]  # the open last bin has no edge
    risk, patients = remaining[:, 0], np.rint(remaining[:, 1])  # at zero coefficients everybody's risk is 1
    deaths = np.rint(total["deaths"])[:-1]
    hazard = np.divide(deaths, risk, out=np.zeros_like(risk), where=deaths > 0)
    return Baseline(bins.edges, np.cumsum(hazard), patients, deaths)
