"""The elastic-net penalty, its optimality conditions, and the penalised quadratic that every Newton step solves.

The objective, minimised over beta, with n the number of patients of the whole federation:

    -loglik(beta) / n + penalizer * sum_j w_j (l1_ratio |beta_j| + (1 - l1_ratio) / 2 beta_j^2)

How it compares with others, on the same (standardised or not) features:

* lifelines CoxPHFitter(penalizer, l1_ratio): the same objective (its |beta| is smoothed, so it has no exact zeros).
* scikit-survival CoxnetSurvivalAnalysis(alphas, l1_ratio) and glmnet(family="cox", lambda, alpha): lambda = penalizer
  and alpha = l1_ratio; both rescale penalty factors w to sum to p, ctfed takes them as they are.
* scikit-survival CoxPHSurvivalAnalysis(alpha) and R's ridge(theta): alpha = penalizer * n with l1_ratio = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class ElasticNet:
    """Penalty of one fit.

    Attributes:
        penalizer: overall strength, >= 0; 0 fits without penalty.
        l1_ratio: share of the L1 part, in [0, 1].
        factors: optional w_j >= 0 per feature; 0 leaves a feature unpenalised. Default 1 for all.
    """

    penalizer: float = 0.0
    l1_ratio: float = 0.5
    factors: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.penalizer) and self.penalizer >= 0):
            raise ValueError(f"penalizer must be >= 0, found {self.penalizer}")
        if not 0 <= self.l1_ratio <= 1:
            raise ValueError(f"l1_ratio must be in [0, 1], found {self.l1_ratio}")
        if self.factors is not None and not all(np.isfinite(w) and w >= 0 for w in self.factors):
            raise ValueError("penalty factors must be >= 0")

    def weights(self, width: int) -> tuple[FloatArray, FloatArray]:
        """L1 and L2 weights per feature, (p,) each."""
        factors = np.ones(width) if self.factors is None else np.array(self.factors, dtype=np.float64)
        if factors.shape != (width,):
            raise ValueError(f"{factors.size} penalty factors for {width} features")
        return self.penalizer * self.l1_ratio * factors, self.penalizer * (1 - self.l1_ratio) * factors


@dataclass(frozen=True, eq=False)
class PenaltyStack:
    """Penalties of K fits side by side: ``l1`` and ``l2``, (K, p) each."""

    l1: FloatArray
    l2: FloatArray

    @classmethod
    def of(cls, penalties: tuple[ElasticNet, ...], width: int) -> PenaltyStack:
        """Stack penalties for ``width`` features."""
        pairs = [penalty.weights(width) for penalty in penalties]
        return cls(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs]))

    def take(self, rows: BoolArray | IntArray) -> PenaltyStack:
        """The penalties of some fits."""
        return PenaltyStack(self.l1[rows], self.l2[rows])

    def value(self, beta: FloatArray) -> FloatArray:
        """(K,) penalty at (K, p) coefficients."""
        return np.asarray((self.l1 * np.abs(beta) + 0.5 * self.l2 * beta**2).sum(axis=1))

    def residual(self, gradient: FloatArray, beta: FloatArray, unit: FloatArray | float = 1.0) -> FloatArray:
        """(K,) largest violation of the optimality (KKT) conditions, each divided by its feature's ``unit``.

        ``gradient`` is that of the smooth loss per patient, (K, p), without the penalty.
        """
        slope = gradient + self.l2 * beta
        at_zero = np.maximum(np.abs(slope) - self.l1, 0.0)
        violation = np.where(beta != 0, np.abs(slope + self.l1 * np.sign(beta)), at_zero)
        return np.asarray((violation / unit).max(axis=1, initial=0.0))


SWEEPS = 3  # coordinate-descent sweeps between two attempts to solve for the active set exactly
MAX_CYCLES = 500
JITTER = 1e-13  # relative ridge that keeps directions of no curvature (collinear features) from exploding


def minimise_quadratic(
    hessian: FloatArray, gradient: FloatArray, origin: FloatArray, penalty: PenaltyStack
) -> FloatArray:
    """Minimise g'(u - b) + (u - b)' H (u - b) / 2 + penalty(u) for K problems at once, with true zeros.

    Coordinate descent (vectorised over the K problems) finds the active set; a Newton step restricted to that set and
    its signs then finishes to machine precision, or stops at the first sign change and hands back to the sweeps
    (feature-sign search, Lee et al. 2006; the sweeps alone already converge, so the pair does).

    Args:
        hessian: (K, p, p), positive semi-definite.
        gradient: (K, p) of the smooth loss at ``origin``.
        origin: (K, p) expansion points b, also the start.
        penalty: L1 and L2 weights.

    Returns:
        (K, p) minimisers u.
    """
    width = origin.shape[1]
    diagonal = np.einsum("kjj->kj", hessian) + penalty.l2
    floor = JITTER * diagonal
    quadratic = hessian + (penalty.l2 + floor)[:, :, None] * np.eye(width)
    problem = _Quadratic(quadratic, gradient - np.einsum("kij,kj->ki", hessian, origin), penalty.l1)
    flat = diagonal <= 1e-300  # no curvature and no ridge: a constant column; its coefficient stays where it is
    solution = origin.copy()
    pending = np.ones(origin.shape[0], dtype=bool)
    for _ in range(MAX_CYCLES):
        part = problem.take(pending)
        current = part.sweep(solution[pending], flat[pending])
        current, solved = part.polish(current, flat[pending])
        solution[pending] = current
        pending[np.flatnonzero(pending)[solved]] = False
        if not pending.any():
            break
    return solution


@dataclass(frozen=True, eq=False)
class _Quadratic:
    """u' A u / 2 + c' u + sum l1 |u| for K problems: A (K, p, p), c (K, p), l1 (K, p)."""

    a: FloatArray
    c: FloatArray
    l1: FloatArray

    def take(self, rows: BoolArray) -> _Quadratic:
        return self if rows.all() else _Quadratic(self.a[rows], self.c[rows], self.l1[rows])

    def sweep(self, u: FloatArray, fixed: BoolArray) -> FloatArray:
        slope = np.einsum("kij,kj->ki", self.a, u) + self.c
        step = np.where(fixed, 0.0, 1.0 / np.where(fixed, 1.0, np.einsum("kjj->kj", self.a)))
        for _ in range(SWEEPS):
            for j in range(u.shape[1]):
                target = u[:, j] - slope[:, j] * step[:, j]
                shrunk = np.sign(target) * np.maximum(np.abs(target) - self.l1[:, j] * step[:, j], 0.0)
                change = np.where(fixed[:, j], 0.0, shrunk - u[:, j])
                if change.any():
                    u[:, j] += change
                    slope += change[:, None] * self.a[:, j, :]
        return u

    def polish(self, u: FloatArray, fixed: BoolArray) -> tuple[FloatArray, BoolArray]:
        """One Newton step on the active set; returns the new points and which problems are solved."""
        sign = np.sign(u)
        active = ((u != 0) | (self.l1 == 0)) & ~fixed
        pair = active[:, :, None] & active[:, None, :]
        inactive = np.eye(u.shape[1]) * ~active[:, :, None]
        held = np.einsum("kij,kj->ki", self.a, np.where(active, 0.0, u))  # coefficients that do not move
        right = np.where(active, -self.c - held - self.l1 * sign, u)
        target = np.linalg.solve(np.where(pair, self.a, inactive), right[:, :, None])[:, :, 0]
        crossing = active & (self.l1 > 0) & (target * sign <= 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(crossing, u / (u - target), 1.0)
        share = reach.min(axis=1, initial=1.0)[:, None]
        moved = np.where(crossing & (reach <= share), 0.0, u + share * (target - u))
        whole = ~crossing.any(axis=1)
        moved[whole] = target[whole]
        slope = np.einsum("kij,kj->ki", self.a, moved) + self.c
        slack = 1e-12 * (np.abs(self.c).max(axis=1, initial=0.0) + self.l1.max(axis=1, initial=0.0))[:, None]
        stays_zero = (active | fixed | (np.abs(slope) <= self.l1 + slack)).all(axis=1)
        return moved, whole & stays_zero
