"""The grid of follow-up time on which totals are tabulated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctfed.federation.arrays import FloatArray, IntArray, frozen
from ctfed.federation.codec import register


@register("time-grid")
@dataclass(frozen=True, eq=False)
class TimeGrid:
    """Right-closed bins of time: (0, e_0], (e_0, e_1], ..., and a last one beyond e_{T-1}.

    A right-closed bin keeps the survival convention S(t) = P(T > t): what happened at an edge happened before it.
    Inside a bin, censored patients stay at risk for all of the bin's events.

    Attributes:
        edges: (T,) increasing, > 0, in the study's time unit.
    """

    edges: FloatArray

    def __post_init__(self) -> None:
        if self.edges.ndim != 1 or self.edges.size == 0:
            raise ValueError("a time grid needs at least one edge in a flat array")
        if not (self.edges[0] > 0 and (np.diff(self.edges) > 0).all()):
            raise ValueError("the edges of a time grid must be > 0 and increasing")

    @classmethod
    def regular(cls, width: float, end: float) -> TimeGrid:
        """Bins of ``width`` up to the first edge >= ``end``."""
        count = int(np.ceil(end / width - 1e-9))
        return cls(frozen(width * np.arange(1, count + 1)))

    @classmethod
    def exact(cls, time: npt.ArrayLike) -> TimeGrid:
        """One bin per distinct time: reveals every time, so it is for tests and one's own data alone."""
        return cls(frozen(np.unique(np.asarray(time, dtype=np.float64))))

    @property
    def bins(self) -> int:
        """Number of bins, the open last one included."""
        return int(self.edges.size) + 1

    def bin_of(self, time: FloatArray) -> IntArray:
        """(n,) index of each time's bin."""
        return np.searchsorted(self.edges, time, side="left").astype(np.int64)

    def edge_index(self, time: float) -> int:
        """Index of the edge equal to ``time``.

        Raises:
            ValueError: when ``time`` is not an edge of the grid.
        """
        index = int(np.argmin(np.abs(self.edges - time)))
        if abs(float(self.edges[index]) - time) > 1e-9 * max(1.0, abs(time)):
            raise ValueError(f"{time} is not an edge of the time grid; the nearest one is {self.edges[index]}")
        return index
