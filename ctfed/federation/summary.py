"""Summary: what one site answers. Total: what the server learns. Layout: the shape of both, known before any data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctfed.federation.arrays import FloatArray, IntArray
from ctfed.federation.errors import CtfedError

MAX_NUMBERS = 8_000_000  # that one site sends in one round: 128 MB of limbs


@dataclass(frozen=True, eq=False)
class Entry:
    """One named array of an answer.

    Attributes:
        shape: its shape, which never has an axis of patients.
        exponent: power-of-two scale; values of about 2**exponent are carried with 68 bits after the point.
            An int, an integer array that broadcasts to ``shape`` (one scale per feature), or a function that makes
            one: an array of more numbers than the query has fields for is made only when it is needed, because the
            size of an answer is judged before.
    """

    shape: tuple[int, ...]
    exponent: int | IntArray | Callable[[], IntArray] = 0

    @property
    def size(self) -> int:
        """How many numbers the array holds."""
        return math.prod(self.shape)

    @property
    def exponents(self) -> IntArray:
        """The scale of every number, in the array's shape."""
        if self.size == 0:
            return np.zeros(self.shape, dtype=np.int64)
        exponent = self.exponent() if callable(self.exponent) else self.exponent
        return np.broadcast_to(np.asarray(exponent, dtype=np.int64), self.shape)


Layout = Mapping[str, Entry]


class NamedArrays(Mapping[str, FloatArray]):
    """A read-only mapping of names to arrays, in a fixed order."""

    def __init__(self, arrays: Mapping[str, FloatArray]) -> None:
        self._arrays = dict(arrays)

    def __getitem__(self, name: str) -> FloatArray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


class Summary(NamedArrays):
    """Named arrays of one site, each a sum over its patients. The only thing that may leave a site.

    Raises:
        CtfedError: when an array's name or shape is not what the layout declares, or a value is not finite.
    """

    def __init__(self, layout: Layout, arrays: Mapping[str, npt.ArrayLike]) -> None:
        if set(layout) != set(arrays):
            raise CtfedError(f"a summary must hold {sorted(layout)}, found {sorted(arrays)}")
        checked: dict[str, FloatArray] = {}
        for name, entry in layout.items():
            array = np.asarray(arrays[name], dtype=np.float64)
            if array.shape != entry.shape:
                raise CtfedError(f"summary array {name!r} has shape {array.shape}, the query declares {entry.shape}")
            if not np.isfinite(array).all():
                raise CtfedError(f"summary array {name!r} holds a value that is not finite")
            checked[name] = array
        super().__init__(checked)

    def flat(self) -> FloatArray:
        """All arrays in layout order as one vector."""
        return np.concatenate([a.reshape(-1) for a in self._arrays.values()]) if self._arrays else np.zeros(0)


class Total(NamedArrays):
    """The sum of all sites' summaries, with ``sites``: how many of them contributed."""

    def __init__(self, arrays: Mapping[str, FloatArray], sites: int) -> None:
        super().__init__(arrays)
        self.sites = sites

    def number(self, name: str) -> float:
        """A scalar entry as a Python float."""
        return float(self._arrays[name].reshape(()))


def layout_size(layout: Layout) -> int:
    """How many numbers a summary of this layout holds."""
    return sum(entry.size for entry in layout.values())


def layout_exponents(layout: Layout) -> IntArray:
    """The scale of every number of a flat summary, (layout_size,)."""
    parts = [entry.exponents.reshape(-1) for entry in layout.values()]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def split_flat(layout: Layout, flat: FloatArray) -> dict[str, FloatArray]:
    """The named arrays of a flat vector in layout order."""
    arrays, start = {}, 0
    for name, entry in layout.items():
        arrays[name] = flat[start : start + entry.size].reshape(entry.shape)
        start += entry.size
    return arrays
