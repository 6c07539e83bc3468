"""D-calibration: whether the predicted probability of the own survival time, S(T), is uniform over patients.

A distributional check over all of the follow-up at once, beside the calibration at single horizons (``calibrate``,
``recalibrate``).

Reference: Haider, Hoehn, Davis, Greiner 2020, JMLR 21:85.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import BoolArray, FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import View
from ctfed.statistics.horizons import log_hazards
from ctfed.statistics.tails import chi2_sf
from ctfed.statistics.timegrid import TimeGrid

DECILES = 10


@register("survival-deciles")
@dataclass(frozen=True, eq=False)
class SurvivalDeciles(Query):
    """How the predicted probability of the own survival time, S(T), spreads over equal bins, for m models.

    Who dies at T counts in the bin of S(T). Who is censored at T would have died later: their S is uniform below S(T),
    so they count in parts. Deaths beyond the grid count as censored at its end. H0 rises linearly inside time bins.

    Its total discloses m K sums. S(T) mixes time and score, so whoever chooses the hazard chooses lines in the plane
    of both; the K - 1 lines of each model count as thresholds of its score at the end of the grid.

    Attributes:
        view: rows and scores.
        grid: E edges.
        hazard: (m, E) cumulative baseline hazard at the edges, not decreasing, the last > 0.
        bins: K.
    """

    view: View
    grid: TimeGrid
    hazard: FloatArray
    bins: int = DECILES

    def __post_init__(self) -> None:
        if self.hazard.shape != (self.view.width, self.grid.edges.size):
            raise ValueError(f"the hazard must be ({self.view.width}, {self.grid.edges.size})")
        if not ((self.hazard >= 0).all() and (np.diff(self.hazard, axis=1) >= 0).all()):
            raise ValueError("a cumulative hazard is >= 0 and does not decrease")
        if not (self.hazard[:, -1] > 0).all():
            raise ValueError("a cumulative hazard must be > 0 at the end of the grid")
        if not 2 <= self.bins <= 100:
            raise ValueError(f"2 to 100 bins, found {self.bins}")

    @property
    def layout(self) -> Layout:
        """declined (m,), counts (m, K) from low to high S."""
        return {"declined": Entry((self.view.width,)), "counts": Entry((self.view.width, self.bins))}

    @property
    def exposure(self) -> Exposure:
        """The bins; their limits as thresholds of the score of who is observed until the end of the grid."""
        levels = -np.log(np.arange(1, self.bins) / self.bins)
        cuts = np.log(levels[None, ::-1]) - np.log(self.hazard[:, -1:])
        names = self.view.names
        return Exposure(cells=self.bins, cuts=dict(zip(names, cuts, strict=True)), times=self.grid.edges, plain=False)

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        table = self.view.table(cohort)
        scores, inside = log_hazards(table)
        end = float(self.grid.edges[-1])
        time, died = np.minimum(table.time, end), table.event & (table.time <= end)
        knots = np.concatenate([[0.0], self.grid.edges])
        counts = np.zeros((self.view.width, self.bins))
        for model in np.flatnonzero(inside):
            hazard = np.interp(time, knots, np.concatenate([[0.0], self.hazard[model]]))
            survival = np.exp(-hazard * np.exp(np.minimum(scores[model], 700.0)))
            counts[model] = _spread(survival, died, self.bins)
        return Summary(self.layout, {"declined": ~inside, "counts": counts})


def _spread(survival: FloatArray, died: BoolArray, bins: int) -> FloatArray:
    """(K,) counts of deaths by bin of S, and of the censored in parts over [0, S]."""
    place = np.minimum((survival * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place[died], minlength=bins).astype(np.float64)
    edges = np.arange(bins) / bins
    for s in survival[~died]:
        # A probability so small that its bin cannot be told is in the lowest one.
        counts += np.clip(s - edges, 0.0, 1 / bins) / s if s > 0 else np.eye(bins)[0]
    return counts


@dataclass(frozen=True, eq=False)
class DCalibration:
    """D-calibration of m models: is S(T) uniform?

    Attributes:
        counts: (m, K) patients by bin of S(T), from low to high.
        statistic: (m,) Pearson's chi-squared against equal counts, K - 1 degrees of freedom.
        p: (m,) upper tail; small values speak against calibration.
    """

    counts: FloatArray
    statistic: FloatArray
    p: FloatArray


def d_calibration(view: View, grid: TimeGrid, hazard: FloatArray, *, bins: int = DECILES) -> Algorithm[DCalibration]:
    """D-calibration in one round.

    Args:
        view: rows and m scores.
        grid: edges of the baseline hazard.
        hazard: (m, E) cumulative baseline hazard at the edges.
        bins: of S.
    """
    total: Total = yield SurvivalDeciles(view, grid, frozen(hazard), bins)
    counts = np.where((total["declined"] > 0)[:, None], np.nan, total["counts"])
    expected = counts.sum(axis=1, keepdims=True) / bins
    statistic = ((counts - expected) ** 2 / expected).sum(axis=1)
    return DCalibration(counts, statistic, chi2_sf(statistic, bins - 1))
