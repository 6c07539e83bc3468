"""Array types and the few checks that every message needs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def frozen(values: npt.ArrayLike) -> FloatArray:
    """A read-only, contiguous float64 copy, so that a message cannot change after it was hashed."""
    array = np.array(values, dtype=np.float64, order="C")
    array.setflags(write=False)
    return array
