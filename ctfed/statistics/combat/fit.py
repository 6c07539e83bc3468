"""combat: distributed ComBat from sums, equal to the pooled ComBat of R's sva on the same batches.

Without a reference batch one round is enough, and the server learns totals alone: empirical Bayes happens at the
sites. With one, a second round asks that batch's own moments, which its site must have agreed to publish. Batches that
several sites share take two rounds more.

References: Johnson, Li & Rabinovic 2007, Biostatistics 8:118; Chen et al. 2022, Human Brain Mapping 43:1179
(distributed ComBat; the sums here are fewer, and no site's own statistic is among them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import BoolArray, FloatArray, frozen
from ctfed.federation.errors import CtfedError
from ctfed.federation.summary import Total
from ctfed.federation.view import View
from ctfed.statistics.combat.moments import CombatMoments, Covariate, residual
from ctfed.statistics.combat.transform import Combat
from ctfed.statistics.describe import Fitted

SINGULAR = 1e-10  # smallest eigenvalue of the scaled S_xx relative to the largest
EXPLAINED = 1e-12  # residual variance below this part of the variance within batches is rounding
FEWEST_SITES = 3  # that share a batch, for its totals to be told


@dataclass(frozen=True)
class CombatOptions:
    """How to harmonize.

    Attributes:
        prior: 'parametric' (default), 'nonparametric' or 'none'.
        mean_only: adjust the location alone; with a prior this shrinks a large site's shift almost not less than a
            small one's (weight t2 / (t2 + 1), whatever n), so most of it can stay: a warning says so.
        reference: label of the batch that stays as it is; '' for none.
        minimum: batches with fewer rows add nothing to the fit.
        unseen: what happens to them, 'identity' or 'local' (see Combat).
        shared: labels of the batches that at least three sites share.
    """

    prior: str = "parametric"
    mean_only: bool = False
    reference: str = ""
    minimum: int = 10
    unseen: str = "identity"
    shared: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Harmonized(Fitted):
    """The harmonized view, and what it rests on.

    Attributes:
        transform: the fitted step.
        rows, batches: that took part.
        variance: (p,) variance within batches of each feature, over all rows.
    """

    transform: Combat
    rows: int
    batches: int
    variance: FloatArray


def combat(
    view: View,
    features: Sequence[str] | None = None,
    covariates: Sequence[Covariate] = (),
    options: CombatOptions | None = None,
    *,
    outcome: Sequence[str] = (),
    exponents: Sequence[int] = (),
) -> Algorithm[Harmonized]:
    """Fit on the rows of ``view``: one round; one more with a reference batch, two more with shared batches.

    Args:
        view: complete columns.
        features: names of the columns to harmonize; default all that are not covariates.
        covariates: whose effect is kept. Never the outcome.
        options: see CombatOptions.
        outcome: names of columns that carry the outcome, which no covariate may be.
        exponents: (p,) power of two that each feature's spread within a batch is about; default the columns'
            declared magnitudes, which is accurate when these are not much larger than the spread.

    Raises:
        CtfedError: when a covariate carries the outcome, the covariates are collinear within batches, no batch is large
            enough, the reference batch is missing, or a shared batch is held by fewer than three sites.
    """
    chosen = options or CombatOptions()
    leaking = [covariate.name for covariate in covariates if covariate.name in outcome]
    if leaking:
        raise CtfedError(
            f"ComBat's covariate {leaking[0]!r} carries the outcome: harmonizing by it would leak the outcome into the "
            "features; leave it out"
        )
    named = {covariate.name for covariate in covariates}
    names = tuple(features) if features is not None else tuple(name for name in view.names if name not in named)
    centres, shared_sums = None, None
    base = CombatMoments(view, names, tuple(covariates), chosen.minimum, tuple(exponents))
    if chosen.shared:
        shared_sums = yield CombatMoments(
            view, names, tuple(covariates), chosen.minimum, tuple(exponents), chosen.shared, _zeros(base, chosen.shared)
        )
        centres = _centres(shared_sums, chosen.shared)
    asked = CombatMoments(view, names, tuple(covariates), chosen.minimum, tuple(exponents), chosen.shared, centres)
    total: Total = yield asked
    blocks = _Blocks.of(total, asked.width, centres)
    if blocks.n.sum() == 0:
        raise CtfedError(f"no batch at any site has the {chosen.minimum} rows that ComBat's fit needs")
    beta = _coefficients(blocks, asked)
    reference: _Blocks | None = None
    if chosen.reference in chosen.shared:
        reference = blocks.one(1 + chosen.shared.index(chosen.reference))
    elif chosen.reference:
        own: Total = yield CombatMoments(view, names, tuple(covariates), 2, tuple(exponents), only=chosen.reference)
        reference = _Blocks.of(own, asked.width, None)
    return _harmonized(view, asked, chosen, blocks, beta, reference)


def _zeros(base: CombatMoments, shared: tuple[str, ...]) -> FloatArray:
    return frozen(np.zeros((len(shared), base.width + len(base.features))))


def _centres(total: Total, shared: tuple[str, ...]) -> FloatArray:
    """(shared, q + p) means of the shared batches."""
    sites, n = total["batches"][1:], total["n"][1:]
    for label, count in zip(shared, sites, strict=True):
        if count < FEWEST_SITES:
            raise CtfedError(
                f"batch {label!r} is held by {count:.0f} sites; a batch is shared from {FEWEST_SITES} sites on, "
                "otherwise its totals would be those of one site"
            )
    return frozen(np.hstack([total["x"][1:], total["y"][1:]]) / n[:, None])


@dataclass(frozen=True, eq=False)
class _Blocks:
    """A total of CombatMoments with full matrices; shared batches about their own means.

    ``n``, ``batches``: (B,); ``x``: (B, q) and ``y``: (B, p) sums; ``sxx``: (B, q, q); ``sxy``: (B, q, p);
    ``syy``: (B, p); ``flat``: (p,).
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
    def of(cls, total: Total, q: int, centres: FloatArray | None) -> _Blocks:
        rows, columns = np.triu_indices(q)
        blocks = total["n"].size
        sxx = np.zeros((blocks, q, q))
        sxx[:, rows, columns] = total["sxx"]
        sxx[:, columns, rows] = total["sxx"]
        sxy, syy = total["sxy"].copy(), total["syy"].copy()
        if centres is not None:
            n = total["n"][1:]
            dx, dy = total["x"][1:] / n[:, None] - centres[:, :q], total["y"][1:] / n[:, None] - centres[:, q:]
            sxx[1:] -= n[:, None, None] * dx[:, :, None] * dx[:, None, :]
            sxy[1:] -= n[:, None, None] * dx[:, :, None] * dy[:, None, :]
            syy[1:] = np.maximum(syy[1:] - n[:, None] * dy**2, 0.0)
        flat = total["flat"].sum(axis=0)
        return cls(total["n"], total["batches"], total["x"], total["y"], sxx, sxy, syy, flat)

    def one(self, block: int) -> _Blocks:
        """One block alone."""
        k = slice(block, block + 1)
        x, y, sxx, sxy, syy = self.x[k], self.y[k], self.sxx[k], self.sxy[k], self.syy[k]
        return _Blocks(self.n[k], self.batches[k], x, y, sxx, sxy, syy, self.flat)

    def residual(self, beta: FloatArray, block: int | None = None) -> FloatArray:
        """(p,) residual sum of squares of one block, or of all."""
        part = slice(None) if block is None else slice(block, block + 1)
        sxx, sxy, syy = (values[part].sum(axis=0) for values in (self.sxx, self.sxy, self.syy))
        return residual(sxx, sxy, syy, beta)


def _coefficients(blocks: _Blocks, asked: CombatMoments) -> FloatArray:
    """(q, p) effects of the covariates within batches.

    Raises:
        CtfedError: when they are collinear there.
    """
    sxx, sxy = blocks.sxx.sum(axis=0), blocks.sxy.sum(axis=0)
    if asked.width == 0:
        return np.zeros((0, len(asked.features)))
    names = [covariate.name for covariate in asked.covariates for _ in range(covariate.width)]
    diagonal = np.diag(sxx)
    if (diagonal <= 0).any():
        name = names[int(np.argmin(diagonal))]
        raise CtfedError(f"ComBat's covariate {name!r} does not vary within any batch; leave it out")
    scale = 1.0 / np.sqrt(diagonal)
    values, vectors = np.linalg.eigh(sxx * scale[:, None] * scale)
    if values[0] <= SINGULAR * values[-1]:
        involved = sorted({names[j] for j in np.flatnonzero(np.abs(vectors[:, 0]) > 0.1)})
        raise CtfedError(f"ComBat's covariates {', '.join(involved)} are collinear within batches; leave one out")
    solved = np.linalg.solve(sxx * scale[:, None] * scale, scale[:, None] * sxy)
    return np.asarray(scale[:, None] * solved)


def _harmonized(
    view: View,
    asked: CombatMoments,
    options: CombatOptions,
    blocks: _Blocks,
    beta: FloatArray,
    reference: _Blocks | None,
) -> Harmonized:
    n = blocks.n.sum()
    within = blocks.syy.sum(axis=0) / n
    if reference is None:
        alpha = (blocks.y.sum(axis=0) - blocks.x.sum(axis=0) @ beta) / n
        variance = blocks.residual(beta) / n
    else:
        if reference.n[0] < max(2, options.minimum):
            raise CtfedError(
                f"the reference batch {options.reference!r} has {reference.n[0]:.0f} rows of the fit, "
                f"expected at least {max(2, options.minimum)}"
            )
        alpha = (reference.y[0] - reference.x[0] @ beta) / reference.n[0]
        variance = reference.residual(beta) / reference.n[0]
        within = np.maximum(within, reference.syy[0] / reference.n[0])
    passed: BoolArray = np.asarray((blocks.flat > 0) | (variance <= EXPLAINED * within) | (variance <= 0))
    sigma = np.sqrt(np.where(passed, 1.0, variance))
    degenerate = tuple(name for name, out in zip(asked.features, passed, strict=True) if out)
    shared_rows, gamma, rss = _shared(blocks, beta, alpha, sigma)
    transform = Combat(
        names=asked.features,
        covariates=asked.covariates,
        beta=frozen(beta),
        alpha=frozen(alpha),
        sigma=frozen(sigma),
        degenerate=degenerate,
        rows=view.selection,
        prior=options.prior,
        mean_only=options.mean_only,
        reference=options.reference,
        minimum=options.minimum,
        unseen=options.unseen,
        shared=options.shared,
        shared_rows=shared_rows if options.shared else None,
        shared_gamma=gamma if options.shared else None,
        shared_rss=rss if options.shared else None,
    )
    warnings = _warnings(options, degenerate, int(blocks.batches[0]))
    return Harmonized(view.then(transform), warnings, transform, round(float(n)), _count(blocks), within)


def _count(blocks: _Blocks) -> int:
    """Batches in the fit; a shared one counts once."""
    return int(blocks.batches[0]) + int((blocks.n[1:] > 0).sum())


def _shared(
    blocks: _Blocks, beta: FloatArray, alpha: FloatArray, sigma: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rows, raw locations and residual sums of squares of the shared batches, standardised."""
    n = blocks.n[1:]
    intercept = (blocks.y[1:] - blocks.x[1:] @ beta) / np.maximum(n, 1.0)[:, None]
    rss = [blocks.residual(beta, block) / sigma**2 for block in range(1, blocks.n.size)]
    return frozen(n), frozen((intercept - alpha) / sigma), frozen(np.reshape(rss, (n.size, sigma.size)))


def _warnings(options: CombatOptions, degenerate: tuple[str, ...], batches: int) -> tuple[str, ...]:
    found = []
    if degenerate:
        shown = ", ".join(degenerate[:5]) + (f" and {len(degenerate) - 5} more" if len(degenerate) > 5 else "")
        found.append(f"not harmonized, because constant within some batch: {shown}")
    if options.mean_only and options.prior == "parametric":
        found.append(
            "mean_only with a parametric prior shrinks a batch's shift by t2 / (t2 + 1) whatever its size, so most of "
            "a shift can stay; prior 'none' takes all of it away"
        )
    if batches + len(options.shared) < 2:
        found.append("a single batch took part in the fit: there is no difference between batches to take away")
    return tuple(found)
