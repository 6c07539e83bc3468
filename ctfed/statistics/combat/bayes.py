"""Empirical Bayes of ComBat: from a batch's raw location and scale of every feature to the shrunken ones.

Nothing here needs a patient's row: a batch's sum of squares about any centre follows from its own moments.

    SS_g(c) = RSS_g / sigma_g^2 + n (gamma_hat_g - c)^2

References: Johnson, Li & Rabinovic 2007, Biostatistics 8:118; the semantics are those of R's sva::ComBat, including
its stopping rule, so that equal data give equal numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray

CONVERGENCE = 1e-4  # sva's stopping rule: largest relative change of an iteration
MAX_ITERATIONS = 10_000
BLOCK = 256  # features whose p x p weights are held at once
PRIORS = ("parametric", "nonparametric", "none")


@dataclass(frozen=True, eq=False)
class Raw:
    """What a batch's own rows say about its p features, in units of the pooled sigma.

    Attributes:
        n: rows.
        gamma_hat: (p,) mean of the standardised values.
        rss: (p,) residual sum of squares of the standardised values.
    """

    n: int
    gamma_hat: FloatArray
    rss: FloatArray

    @property
    def delta_hat(self) -> FloatArray:
        """(p,) variance within the batch (divided by n - 1); 1 where there is none."""
        delta = self.rss / max(self.n - 1, 1)
        return np.where(delta > 0, delta, 1.0)


@dataclass(frozen=True, eq=False)
class Shrunken:
    """``gamma_star`` and ``delta_star``, (p,) each."""

    gamma_star: FloatArray
    delta_star: FloatArray


def shrink(raw: Raw, prior: str, mean_only: bool) -> Shrunken:
    """The batch effect that is taken away.

    Args:
        raw: of the batch.
        prior: 'parametric', 'nonparametric' or 'none' (no shrinkage).
        mean_only: adjust the location alone.

    With fewer than two features there is nothing to learn a prior from, and the raw effect is returned.

    Raises:
        ValueError: when there is no such prior.
    """
    if prior not in PRIORS:
        raise ValueError(f"prior must be one of {PRIORS}, found {prior!r}")
    one = np.ones_like(raw.gamma_hat)
    if prior == "none" or raw.gamma_hat.size < 2:
        return Shrunken(raw.gamma_hat, one if mean_only else raw.delta_hat)
    if prior == "nonparametric":
        return _nonparametric(raw, mean_only)
    return _parametric_mean(raw) if mean_only else _parametric(raw)


def _parametric_mean(raw: Raw) -> Shrunken:
    """As sva: n and delta are replaced by 1, so that the shrinkage does not depend on the size of the batch."""
    mean, spread = raw.gamma_hat.mean(), raw.gamma_hat.var(ddof=1)
    return Shrunken((spread * raw.gamma_hat + mean) / (spread + 1.0), np.ones_like(raw.gamma_hat))


def _parametric(raw: Raw) -> Shrunken:
    delta_hat, n = raw.delta_hat, raw.n
    mean, spread = raw.gamma_hat.mean(), raw.gamma_hat.var(ddof=1)
    m, s2 = delta_hat.mean(), delta_hat.var(ddof=1)
    # The inverse gamma prior a = (2 s2 + m^2) / s2, b = (m s2 + m^3) / s2 with both sides of the posterior mean
    # multiplied by s2, so that features that all have the same scale (s2 = 0) give their scale and not a NaN.
    prior, weight = m * s2 + m**3, (n / 2.0 + 1.0) * s2 + m**2
    gamma, delta = raw.gamma_hat.copy(), delta_hat.copy()
    for _ in range(MAX_ITERATIONS):
        new_gamma = (n * spread * raw.gamma_hat + delta * mean) / (n * spread + delta)
        squares = raw.rss + n * (raw.gamma_hat - new_gamma) ** 2
        new_delta = (0.5 * s2 * squares + prior) / weight
        done = not _change(gamma, new_gamma, delta, new_delta) > CONVERGENCE
        gamma, delta = new_gamma, new_delta
        if done:
            break
    return Shrunken(gamma, delta)


def _change(gamma: FloatArray, new_gamma: FloatArray, delta: FloatArray, new_delta: FloatArray) -> float:
    """Largest relative change. sva divides by the signed old value, so a negative location never holds up the end."""
    moved = np.abs(new_gamma - gamma)
    with np.errstate(divide="ignore"):
        relative = np.divide(moved, gamma, out=np.zeros_like(moved), where=moved > 0)
    return max(float(relative.max()), float((np.abs(new_delta - delta) / delta).max()))


def _nonparametric(raw: Raw, mean_only: bool) -> Shrunken:
    """Each feature's effect is the mean over all other features' effects, weighted by the likelihood of its data.

    In logarithms, because the likelihood of a batch of some hundred patients is below the smallest float.
    """
    p = raw.gamma_hat.size
    delta_hat = np.ones(p) if mean_only else raw.delta_hat
    effects = np.stack([raw.gamma_hat, delta_hat, np.ones(p)], axis=1)
    sums = np.empty((p, 3))
    constant = -0.5 * raw.n * np.log(2 * np.pi * delta_hat)
    for start in range(0, p, BLOCK):
        rows = slice(start, min(start + BLOCK, p))
        squares = raw.rss[rows, None] + raw.n * (raw.gamma_hat[rows, None] - raw.gamma_hat) ** 2
        weight = constant - squares / (2 * delta_hat)
        weight[np.arange(weight.shape[0]), np.arange(rows.start, rows.stop)] = -np.inf
        weight -= weight.max(axis=1, keepdims=True)
        sums[rows] = np.exp(weight, out=weight) @ effects
    return Shrunken(sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2])
