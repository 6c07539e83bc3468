"""What follows from the totals of ComBat's sums: the covariates' effects within batches, residual sums of squares, and
whether the sums were carried finely enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray
from ctfed.federation.errors import CtfedError
from ctfed.federation.summary import Total
from ctfed.statistics.combat.moments import FLAT, MAX_EXPONENT, CombatMoments, Covariate, residual

SINGULAR = 1e-10  # smallest eigenvalue of the scaled S_xx relative to the largest
ROUGH = 1e-13  # error of a sum of squares, relative to it, from which on it is asked again at a finer scale
FRACTION_BITS = 68  # after the point of a number in a total, at its scale; half of the last one is its error

# A site's sum of squares is at most the federation's. Scaling that one 2**28 above its own square leaves 2**8 to the
# fixed-point limit, and 2**96 below it, however small the spread is beside the magnitude.
HEADROOM_BITS = 14


@dataclass(frozen=True, eq=False)
class Blocks:
    """A total of CombatMoments with full matrices; shared batches about their own means.

    ``n``, ``batches``: (B,); ``x``: (B, q) and ``y``: (B, p) sums; ``sxx``: (B, q, q); ``sxy``: (B, q, p);
    ``syy``: (B, p); ``flat``: (p,) batches in which a feature has no spread.
    """

    n: FloatArray
    batches: FloatArray
    x: FloatArray
    y: FloatArray
    sxx: FloatArray
    sxy: FloatArray
    syy: FloatArray
    flat: FloatArray

    @classmethod
    def of(cls, total: Total, asked: CombatMoments) -> Blocks:
        """The blocks of a total."""
        q, centres = asked.width, asked.centres
        rows, columns = np.triu_indices(q)
        sxx = np.zeros((total["n"].size, q, q))
        sxx[:, rows, columns] = total["sxx"]
        sxx[:, columns, rows] = total["sxx"]
        sxy, syy, flat = total["sxy"].copy(), total["syy"].copy(), total["flat"].copy()
        if asked.shared and centres is not None:
            n = total["n"][1:]
            dx, dy = total["x"][1:] / n[:, None] - centres[:, :q], total["y"][1:] / n[:, None] - centres[:, q:]
            sxx[1:] -= n[:, None, None] * dx[:, :, None] * dx[:, None, :]
            sxy[1:] -= n[:, None, None] * dx[:, :, None] * dy[:, None, :]
            syy[1:] = np.maximum(syy[1:] - n[:, None] * dy**2, 0.0)
            # Of a shared batch the parts may be flat, or single rows; what counts is the whole.
            mean = total["y"][1:] / n[:, None]
            flat[1:] = syy[1:] <= n[:, None] * (FLAT * mean) ** 2 + _error(total, asked)[q:]
        return cls(total["n"], total["batches"], total["x"], total["y"], sxx, sxy, syy, flat.sum(axis=0))

    def one(self, block: int) -> Blocks:
        """One block alone."""
        k = slice(block, block + 1)
        x, y, sxx, sxy, syy = self.x[k], self.y[k], self.sxx[k], self.sxy[k], self.syy[k]
        return Blocks(self.n[k], self.batches[k], x, y, sxx, sxy, syy, self.flat)

    def residual(self, beta: FloatArray) -> FloatArray:
        """(p,) residual sum of squares of all blocks for (q, p) coefficients."""
        return residual(self.sxx.sum(axis=0), self.sxy.sum(axis=0), self.syy.sum(axis=0), beta)

    def mean(self) -> FloatArray:
        """(p,) mean of the features over all rows."""
        return np.asarray(self.y.sum(axis=0) / self.n.sum())

    def intercept(self, beta: FloatArray) -> FloatArray:
        """(p,) mean of the features over all rows, at covariates 0."""
        return np.asarray(self.mean() - (self.x.sum(axis=0) / self.n.sum()) @ beta)


def coefficients(blocks: Blocks, covariates: Sequence[Covariate]) -> FloatArray:
    """(q, p) effects of the covariates within batches.

    Raises:
        CtfedError: when they are collinear there.
    """
    sxx, sxy = blocks.sxx.sum(axis=0), blocks.sxy.sum(axis=0)
    if sxx.size == 0:
        return np.zeros(sxy.shape)
    names = column_names(covariates)
    diagonal = np.diag(sxx)
    if (diagonal <= 0).any():
        name = names[int(np.argmin(diagonal))]
        raise CtfedError(f"ComBat's covariate {name} does not vary within any batch; leave it out")
    scale = 1.0 / np.sqrt(diagonal)
    correlation = sxx * scale[:, None] * scale
    values, vectors = np.linalg.eigh(correlation)
    if values[0] <= SINGULAR * values[-1]:
        involved = [names[j] for j in np.flatnonzero(np.abs(vectors[:, 0]) > 0.1)]
        raise CtfedError(f"ComBat's covariates {', '.join(involved)} are collinear within batches; leave one out")
    return np.asarray(scale[:, None] * np.linalg.solve(correlation, scale[:, None] * sxy))


def column_names(covariates: Sequence[Covariate]) -> list[str]:
    """Names of the q columns of the design: 'age', 'stage (level 3)'."""
    return [
        f"{covariate.name!r} (level {level:g})" if covariate.levels else repr(covariate.name)
        for covariate in covariates
        for level in (covariate.levels[1:] or (0.0,))
    ]


def _error(total: Total, asked: CombatMoments) -> FloatArray:
    """(q + p,) largest error of the sums of squares of the design's columns and the features, from fixed point."""
    return np.ldexp(float(total.sites), 2 * asked.scales - FRACTION_BITS - 1)


def rough(total: Total, asked: CombatMoments) -> BoolArray:
    """(q + p,) True for the columns whose sums of squares are known too coarsely.

    Sites know which of their own batches are constant; such features are not counted.
    """
    error, q = _error(total, asked), asked.width
    coarse = _squares(total, asked) * ROUGH < error
    blocks = total["syy"] * ROUGH < error[q:]
    blocks[0] &= (total["flat"][0] == 0) & (total["n"][0] > 0)
    coarse[q:] = blocks.any(axis=0)
    return np.asarray(coarse)


def finer(total: Total, asked: CombatMoments) -> tuple[int, ...]:
    """(q + p,) exponents at which the same sums are exact; () when they are as they were asked.

    No site's sums can leave the fixed-point range at these: they are at most the totals, which are known now.
    """
    coarse = rough(total, asked)
    if not coarse.any():
        return ()
    _, exponents = np.frexp(np.sqrt(np.maximum(_squares(total, asked), 0.0) + 2 * _error(total, asked)))
    chosen = np.where(coarse, np.minimum(exponents - HEADROOM_BITS, asked.scales), asked.scales)
    return tuple(int(exponent) for exponent in np.maximum(chosen, -MAX_EXPONENT))


def _squares(total: Total, asked: CombatMoments) -> FloatArray:
    rows, columns = np.triu_indices(asked.width)
    return np.concatenate([total["sxx"].sum(axis=0)[rows == columns], total["syy"].sum(axis=0)])


def mean_error(total: Total, asked: CombatMoments) -> FloatArray:
    """(p,) largest error of the features' means over all rows, from fixed point."""
    n = max(float(total["n"].sum()), 1.0)
    return np.ldexp(float(total.sites) / n, asked.magnitudes[asked.width :] - FRACTION_BITS - 1)
