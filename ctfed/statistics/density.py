"""Densities of columns from counts: bins of equal numbers of patients, whose edges are quantiles found by counting.

For pictures of a feature, or of a principal component's scores, before and after harmonization: the pooled density of
all sites. A density of one site's patients would be a statistic of one site, so there is none. Beyond the outermost
quantiles nothing is drawn, because a smallest or largest value is never asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray
from ctfed.federation.errors import CtfedError
from ctfed.federation.view import View
from ctfed.statistics.scores import ScoreQuantiles, score_quantiles

FEWEST_BINS = 4


@dataclass(frozen=True, eq=False)
class Density:
    """Step densities of p columns over the middle (bins - 2) of their bins.

    Attributes:
        names: of the columns.
        patients: over all sites.
        edges: (p, bins - 1) quantiles, not decreasing.
        height: (p, bins - 2) share of the patients per unit of the column; NaN where two quantiles are equal.
        share: of the patients who lie between the outermost edges.
    """

    names: tuple[str, ...]
    patients: int
    edges: FloatArray
    height: FloatArray
    share: float


def density(view: View, *, bins: int = 20, minimum: int = 10) -> Algorithm[Density]:
    """The densities of all columns of a view, in the rounds of ``score_quantiles``.

    Args:
        view: rows and complete columns, such as features or the scores of a projection.
        bins: most bins; fewer where these would hold fewer than ``minimum`` patients on average.
        minimum: the fewest patients of a bin, and of the bracket in which a quantile is searched.

    Raises:
        CtfedError: when the view holds too few patients for four bins.
    """
    if bins < FEWEST_BINS or minimum < 1:
        raise ValueError(f"a density needs at least {FEWEST_BINS} bins of 1 patient, found {bins} of {minimum}")
    middle: ScoreQuantiles = yield from score_quantiles(view, (0.5,), minimum)
    held = min(bins, middle.patients // minimum)
    if held < FEWEST_BINS:
        raise CtfedError(
            f"{middle.patients} patients are too few for a density of {FEWEST_BINS} bins with {minimum} in each"
        )
    found = yield from score_quantiles(view, (np.arange(1, held) / held).tolist(), minimum)
    widths = np.diff(found.value, axis=1)
    height = np.where(widths > 0, 1 / held / np.where(widths > 0, widths, 1.0), np.nan)
    return Density(view.names, found.patients, found.value, height, (held - 2) / held)
