"""Standardisation after ComBat in one round instead of two, because ComBat has told where the columns are.

Each site's gamma_star and delta_star stay there, so the moments of the harmonized columns do not follow from totals and
have to be asked. But ComBat's totals give a centre near the mean and the scale of the spread, which is what the first
of two rounds is for. With N rows, B batches, w_i = 1 / sqrt(delta_star_i), gamma_i and gamma_star_i the raw and the
shrunken location of batch i, and S_i its sums about its means, the moments that are asked are

    sum y*             = N alpha + sum_i n_i xbar_i beta + sigma sum_i n_i (gamma_i - gamma_star_i) w_i
    sum (y* - ybar*)^2 = sum_i (beta' Sxx_i beta + 2 w_i beta' (Sxy_i - Sxx_i beta) + RSS_i w_i^2)
                         + sum_i n_i (ybar*_i - ybar*)^2.

Only without covariates and with prior 'none' do totals tell them: every batch then has the mean alpha and the sum of
squares (n_i - 1) sigma^2 (a reference batch its own n_r sigma^2), so the mean is alpha and the variance
(N - B) sigma^2 / N, or (N - B + 1) sigma^2 / N with a reference batch.
"""

from __future__ import annotations

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, IntArray, frozen
from ctfed.federation.summary import Total
from ctfed.statistics.combat.fit import Harmonized
from ctfed.statistics.combat.solve import FRACTION_BITS
from ctfed.statistics.describe import MAX_EXPONENT, ColumnMoments, Moments, declared_exponents
from ctfed.statistics.standardise import Standardised, standardise_by

# The squares about a given centre may be larger than those within batches, by what of a shift is left: 2**44 times are
# in range, and 2**-60 of them is the resolution.
SLACK_BITS = 4
ROUGH = 1e-13  # relative error of a sum of squares from which on it is asked again
ROUNDING = 2.0**-50  # of a float64 sum and of the difference of two


def restandardise(harmonized: Harmonized) -> Algorithm[Standardised]:
    """As ``standardise(harmonized.view)``, in one round; in two where a column was not harmonized and its declared
    magnitude is far above its spread, or it is constant.

    Raises:
        CtfedError: when a column has no value at any site.
    """
    found = yield from harmonized_moments(harmonized)
    return standardise_by(harmonized.view, found)


def harmonized_moments(harmonized: Harmonized) -> Algorithm[ColumnMoments]:
    """Mean and variance of every column of the harmonized view, as ``moments`` gives them."""
    asked = _first_question(harmonized)
    total: Total = yield asked
    values = np.maximum(total["count"], 1.0)
    about, error = _about_mean(total, asked)
    if (error > ROUGH * about).any():
        _, exponents = np.frexp(np.sqrt(about + 2 * error))
        chosen = np.clip(exponents - SLACK_BITS, -MAX_EXPONENT, MAX_EXPONENT)
        centre = frozen(asked.centre + total["sum"] / values)
        asked = Moments(asked.view, centre, tuple(int(exponent) for exponent in chosen))
        total = yield asked
        about, _ = _about_mean(total, asked)
    return ColumnMoments(
        names=asked.view.names,
        patients=round(total.number("patients")),
        events=round(total.number("events")),
        count=total["count"],
        mean=np.where(total["count"] > 0, asked.centre + total["sum"] / values, np.nan),
        squares=about,
    )


def _first_question(harmonized: Harmonized) -> Moments:
    """About the expected means of the harmonized columns, at the scale of their spread; of others as declared."""
    view, step = harmonized.view, harmonized.transform
    place = {name: index for index, name in enumerate(view.names)}
    passed = set(step.degenerate)
    adjusted = np.array([name not in passed for name in step.names])
    columns = np.array([place[name] for name in step.names])[adjusted]
    centre, exponents = np.zeros(view.width), np.array(declared_exponents(view), dtype=np.int64)
    centre[columns] = harmonized.mean[adjusted]
    exponents[columns] = _scale(harmonized.rows * harmonized.variance[adjusted])
    return Moments(view, frozen(centre), tuple(int(exponent) for exponent in exponents))


def _scale(squares: FloatArray) -> IntArray:
    _, exponents = np.frexp(np.sqrt(squares))
    return np.asarray(np.clip(exponents + SLACK_BITS, -MAX_EXPONENT, MAX_EXPONENT), dtype=np.int64)


def _about_mean(total: Total, asked: Moments) -> tuple[FloatArray, FloatArray]:
    """(p,) sums of squares about the means, and the largest error that they may have."""
    values = np.maximum(total["count"], 1.0)
    about = np.maximum(total["squares"] - total["sum"] ** 2 / values, 0.0)
    scale = np.array(asked.exponents, dtype=np.int64)
    fixed = np.ldexp(float(total.sites), 2 * scale - FRACTION_BITS - 1)
    return about, fixed + ROUNDING * total["squares"]
