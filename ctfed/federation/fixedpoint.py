"""Fixed-point integers for sums that have the same bits in any order, on any runner, masked or not.

A number x with scale 2**e is held in two int64 limbs: ``high = floor(x / 2**e * 2**16)`` and 52 more fraction bits in
``low``. Limbs are only ever added (carries are settled once, when the total is read), which is what additive masks
modulo 2**64 need. Range per site: |x| < 2**(e + 36); resolution 2**(e - 68); at most 1,024 sites.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ctfed.federation.arrays import FloatArray, IntArray
from ctfed.federation.errors import CtfedError, Refusal

HIGH_BITS = 16
LOW_BITS = 52
LIMIT = 2.0**LOW_BITS  # of |high| at one site, so that 1,024 sites stay below 2**62
MAX_SITES = 1024


def check_sites(count: int) -> None:
    """Refuse a federation without sites, or with more than the integers have room for.

    Raises:
        CtfedError: saying how many.
    """
    if not 1 <= count <= MAX_SITES:
        raise CtfedError(f"a federation has 1 to {MAX_SITES} sites, found {count}")


def to_limbs(values: FloatArray, exponents: npt.NDArray[np.int64]) -> IntArray:
    """Encode (n,) values into (2n,) limbs: all high limbs, then all low limbs.

    Raises:
        Refusal: rule 'fixed-point-range' when a value does not fit its declared scale; never clipped.
    """
    scaled = np.ldexp(values, HIGH_BITS - exponents)
    if not (np.abs(scaled) < LIMIT).all():
        worst = int(np.argmax(np.where(np.isfinite(scaled), np.abs(scaled), np.inf)))
        raise Refusal(
            "fixed-point-range",
            f"a statistic of magnitude {abs(float(values[worst])):.3g} exceeds 2**{int(exponents[worst]) + 36}; "
            "declare a larger 'magnitude' for the feature it comes from in the study's data dictionary",
        )
    high = np.floor(scaled)
    low = np.rint(np.ldexp(scaled - high, LOW_BITS))
    return np.concatenate([high, low]).astype(np.int64)


def add_limbs(total: IntArray, other: IntArray) -> IntArray:
    """The sum modulo 2**64, element by element."""
    return (total.view(np.uint64) + other.view(np.uint64)).view(np.int64)


def in_range(limbs: IntArray, sites: int) -> bool:
    """Whether (2n,) summed limbs can be what ``to_limbs`` gave at this number of sites, and zeros at all others."""
    n = limbs.size // 2
    high, low = limbs[:n], limbs[n:]
    bound = sites * 2**LOW_BITS
    return bool(((high >= -bound) & (high <= bound) & (low >= 0) & (low <= bound)).all())


def from_limbs(limbs: IntArray, exponents: npt.NDArray[np.int64]) -> FloatArray:
    """The (n,) float64 numbers that (2n,) summed limbs stand for."""
    n = limbs.size // 2
    high, low = limbs[:n], limbs[n:]
    carried = high + (low >> LOW_BITS)
    rest = low & ((1 << LOW_BITS) - 1)
    value = carried.astype(np.float64) + np.ldexp(rest.astype(np.float64), -LOW_BITS)
    return np.ldexp(value, exponents - HIGH_BITS)
