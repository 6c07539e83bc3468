"""One BLAS thread while sums are made: the order of additions, and with it the last bit, then does not depend on the
number of cores that a machine happens to have free."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import cast

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  # SciPy brings a BLAS of its own, which must be loaded to be found

    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[object]:
    """A context in which BLAS uses a single thread."""
    return cast(AbstractContextManager[object], _controller().limit(limits=1))
