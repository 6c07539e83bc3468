"""Gaussian noise on released tables, where a study switches differential privacy on.

A query that says how much one patient can move its total (its L2 ``sensitivity``) is released with noise of
``multiplier`` times that. Every contributing site adds its share before it masks, so nobody ever holds the total
without noise; together the shares have the whole variance, and a site that works with the server can take away its own
share alone. Noise comes from a key of the site and the question, so a question asked again has the same noise and
averaging repeated answers takes none of it away. It is rounded to a coarse grid, because the last bits of
floating-point noise can tell of the value under it.

References: Dwork & Roth 2014, The Algorithmic Foundations of Differential Privacy, appendix A (Gaussian mechanism);
Mironov 2012, On significance of the least significant bits for differential privacy; Mironov 2017, Renyi differential
privacy (the accountant that the server uses).
"""

from __future__ import annotations

import hmac
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from ctfed.federation.arrays import FloatArray
from ctfed.federation.codec import digest
from ctfed.federation.query import Query
from ctfed.federation.summary import Summary

GRID = 2.0**-10  # to whose multiples noise is rounded
_UNIT = 2.0**-53


def normal(key: bytes, count: int) -> FloatArray:
    """(count,) standard normal numbers from a 32-byte key: ChaCha20's keystream by Box and Muller's method."""
    pairs = (count + 1) // 2
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor().update(bytes(16 * pairs))
    uniform = ((np.frombuffer(stream, dtype="<u8") >> np.uint64(11)).astype(np.float64) + 0.5) * _UNIT
    radius = np.sqrt(-2 * np.log(uniform[:pairs]))
    angle = 2 * np.pi * uniform[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def with_noise(query: Query, summary: Summary, key: bytes, place: str, multiplier: float, sites: int) -> Summary:
    """A site's summary with its share of the noise; the summary itself where the query declares no sensitivity.

    Args:
        query, summary: what was asked and answered.
        key: the site's own, from which the noise of every place follows.
        place: session, round and question.
        multiplier: standard deviation of the total's noise in units of the query's sensitivity.
        sites: how many contribute.
    """
    if query.sensitivity is None:
        return summary
    deviation = multiplier * query.sensitivity / np.sqrt(sites)
    drawn = normal(hmac.digest(key, f"noise|{place}|{digest(query)}".encode(), sha256), summary.flat().size)
    noise = np.rint(drawn * deviation / GRID) * GRID
    arrays, start = {}, 0
    for name, values in summary.items():
        arrays[name] = values + noise[start : start + values.size].reshape(values.shape)
        start += values.size
    return Summary(query.layout, arrays)
