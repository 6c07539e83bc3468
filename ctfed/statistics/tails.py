"""Tails of the normal, t and chi-squared distributions, bit for bit as ``scipy.stats`` gives them.

``scipy.stats`` takes a second of a core to import, in every process of every site; ``scipy.special`` a twentieth of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from ctfed.federation.arrays import FloatArray

Values = float | npt.NDArray[np.float64]


def normal_sf(x: Values) -> FloatArray:
    """P(X > x) of a standard normal X."""
    return np.asarray(special.ndtr(-np.asarray(x, dtype=np.float64)), dtype=np.float64)


def normal_isf(p: float) -> float:
    """The x with P(X > x) = p of a standard normal X."""
    return float(-special.ndtri(p))


def normal_ppf(p: float) -> float:
    """The x with P(X <= x) = p of a standard normal X."""
    return float(special.ndtri(p))


def t_sf(x: float, degrees: float) -> float:
    """P(T > x) of Student's T."""
    return float(special.stdtr(degrees, -x))


def t_isf(p: float, degrees: Values) -> FloatArray:
    """The x with P(T > x) = p of Student's T; NaN where the degrees of freedom are not above 0."""
    positive = np.where(np.asarray(degrees) > 0, degrees, np.nan)
    return np.asarray(-special.stdtrit(positive, p), dtype=np.float64)


def chi2_sf(x: Values, degrees: float) -> FloatArray:
    """P(X > x) of a chi-squared X; 1 below 0."""
    return np.asarray(special.chdtrc(degrees, np.maximum(x, 0.0)), dtype=np.float64)
