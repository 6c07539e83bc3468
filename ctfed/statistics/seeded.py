"""Random numbers that anybody can make again from a public seed: the same bits on every machine.

Bits come from SHAKE-256; everything after that is addition, multiplication, division and square roots of doubles, one
operation at a time, which IEEE 754 fixes to the last bit. No library's logarithm or sine is involved.
"""

from __future__ import annotations

import hashlib

import numpy as np

from ctfed.federation.arrays import FloatArray

_LN2 = 0.6931471805599453
_TERMS = 13  # of the series below: its rest is under 2^-53 of the sum


def logarithm(x: FloatArray) -> FloatArray:
    """Natural logarithm of numbers > 0, to about 1e-16: x = m 2^e, and ln m = 2 artanh((m - 1) / (m + 1))."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < 0.7071067811865476
    mantissa = np.where(small, 2.0 * mantissa, mantissa)
    z = (mantissa - 1.0) / (mantissa + 1.0)
    square = z * z
    series = np.zeros_like(z)
    for k in range(_TERMS, 0, -1):
        series = (series + 1.0 / (2 * k + 1)) * square
    return np.asarray((exponent - small) * _LN2 + 2.0 * z * (series + 1.0))


def normals(seed: int, stream: str, count: int) -> FloatArray:
    """(count,) independent standard normal numbers, by Marsaglia's polar method.

    Args:
        seed: public, >= 0.
        stream: what they are for; other streams of a seed are independent.
        count: a longer array begins with the numbers of a shorter one.
    """
    if seed < 0:
        raise ValueError(f"a seed must be >= 0, found {seed}")
    name = f"ctfed normal numbers\0{seed}\0{stream}".encode()
    pairs, drawn = (count + 1) // 2, count + 64
    while True:
        words = np.frombuffer(hashlib.shake_256(name).digest(16 * drawn), dtype="<u8")
        uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-52 - 1.0  # in (-1, 1)
        x, y = uniform[0::2], uniform[1::2]
        radius = x * x + y * y
        inside = np.flatnonzero((radius < 1.0) & (radius > 0.0))[:pairs]
        if inside.size == pairs:
            break
        drawn *= 2  # a longer digest begins with the shorter one
    radius = radius[inside]
    factor = np.sqrt(-2.0 * logarithm(radius) / radius)
    return np.stack([x[inside] * factor, y[inside] * factor], axis=1).reshape(-1)[:count]
