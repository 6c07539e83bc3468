"""Which counts of patients may be shown."""

from __future__ import annotations

from collections.abc import Iterable


def allowed(counts: Iterable[float], k: int) -> bool:
    """Whether every count is 0 or at least k."""
    return all(count == 0 or count >= k for count in counts)
