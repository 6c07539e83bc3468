"""Levenberg-Marquardt for the non-linear attacks: small dense systems of equations that hold to the last bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from ctfed.federation.arrays import FloatArray

Equations = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
LARGEST_STEP = 2.0  # in any unknown, in units of the standardised columns


@dataclass(frozen=True, eq=False)
class Solution:
    """Where the search ended.

    Attributes:
        x: (u,) unknowns.
        loss: sum of squared residuals.
        jacobian: (e, u) there.
        iterations: steps taken.
    """

    x: FloatArray
    loss: float
    jacobian: FloatArray
    iterations: int


def minimise(equations: Equations, start: FloatArray, *, iterations: int, enough: float) -> Solution:
    """Damped Gauss-Newton from one start until the loss is ``enough``, no step helps, or ``iterations`` are over."""
    x, damping = start, 1e-2
    residual, jacobian = equations(x)
    loss = float(residual @ residual)
    for count in range(iterations):
        normal, slope = jacobian.T @ jacobian, jacobian.T @ residual
        for _ in range(14):
            moved = _step(normal, slope, damping)
            if moved is not None:
                new_residual, new_jacobian = equations(x + moved)
                new_loss = float(new_residual @ new_residual)
                if new_loss < loss:
                    break
            damping *= 4
        else:
            return Solution(x, loss, jacobian, count)
        x, residual, jacobian, loss = x + moved, new_residual, new_jacobian, new_loss
        damping = max(damping / 6, 1e-18)
        if loss <= enough:
            return Solution(x, loss, jacobian, count + 1)
    return Solution(x, loss, jacobian, iterations)


def _step(normal: FloatArray, slope: FloatArray, damping: float) -> FloatArray | None:
    try:
        factor = cho_factor(normal + damping * np.eye(slope.size), check_finite=False)
    except LinAlgError:
        return None
    step = -cho_solve(factor, slope, check_finite=False)
    largest = float(np.abs(step).max(initial=0.0))
    if not np.isfinite(largest):
        return None
    return np.asarray(step * min(1.0, LARGEST_STEP / largest) if largest > 0 else step)
