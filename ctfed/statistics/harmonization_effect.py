"""How much of each feature's variance the batch explains, before and after harmonization: from sums over batches.

Two models of a feature are compared over all rows: with the covariates alone (residual sum of squares R0), and with an
intercept per batch as well (R1). The batch's share is 1 - R1 / R0: eta squared without covariates, the partial R
squared with them. Both follow from the sums of squares and products within batches and those between,

    W = sum_i sum_j (u_ij - ubar_i)' (u_ij - ubar_i),   B = sum_i n_i (ubar_i - ubar)' (ubar_i - ubar),   u = (x, y),

the second of which needs the mean over all rows first: two rounds. By chance alone a share is about
(batches - 1) / (rows - covariates - 1); what ComBat aims at is less. Only locations are compared, not scales.

Reference: Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, chapter 9 (partial R squared).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ctfed.federation.algorithm import Algorithm, Bundle, beside
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import View
from ctfed.statistics.combat.fit import Harmonized
from ctfed.statistics.combat.moments import CombatMoments, Covariate, batches_of
from ctfed.statistics.combat.solve import Blocks, finer

FEWEST = 2  # rows of a batch that is compared; a single row says nothing of the spread within
NOTHING = 1e-9  # a share that grew by less did not grow


@register("batch-deviations")
@dataclass(frozen=True, eq=False)
class BatchDeviations(Query):
    """Sums over batches of n (ubar - c)' (ubar - c), with ubar a batch's means of x (q columns of the covariates) and y
    (p features) and c a given centre.

    The total discloses q (q + 1) / 2 + q p + p numbers, summed over all batches of all sites; no batch's mean is told.

    Attributes:
        view: complete features and covariates.
        features: (p,) names of the columns that are compared.
        covariates: whose effect is not the batch's.
        centre: (q + p,) mean of x and y over all rows.
        minimum: a batch with fewer rows adds nothing.
    """

    view: View
    features: tuple[str, ...]
    covariates: tuple[Covariate, ...]
    centre: FloatArray
    minimum: int = FEWEST

    def __post_init__(self) -> None:
        if self.centre.shape != self._moments.magnitudes.shape:
            raise ValueError(f"the centre has shape {self.centre.shape}, expected {self._moments.magnitudes.shape}")

    @property
    def _moments(self) -> CombatMoments:
        return CombatMoments(self.view, self.features, self.covariates, self.minimum)

    @property
    def layout(self) -> Layout:
        """sxx (q (q + 1) / 2,), sxy (q, p), syy (p,)."""
        q, p = self._moments.width, len(self.features)
        scales = self._moments.magnitudes
        rows, columns = np.triu_indices(q)
        return {
            "sxx": Entry((q * (q + 1) // 2,), scales[rows] + scales[columns]),
            "sxy": Entry((q, p), lambda: scales[:q, None] + scales[q:]),
            "syy": Entry((p,), 2 * scales[q:]),
        }

    @property
    def exposure(self) -> Exposure:
        """Coefficients of the covariates and one intercept, per feature."""
        return Exposure(parameters=self._moments.width + 1)

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        q, layout = self._moments.width, self.layout
        sums = {name: np.zeros(entry.shape) for name, entry in layout.items()}
        for moments in batches_of(self.view.table(cohort), self.features, self.covariates).values():
            if moments.n < self.minimum:
                continue
            dx, dy = moments.x - self.centre[:q], moments.y - self.centre[q:]
            sums["sxx"] += moments.n * np.outer(dx, dx)[np.triu_indices(q)]
            sums["sxy"] += moments.n * np.outer(dx, dy)
            sums["syy"] += moments.n * dy**2
        return Summary(layout, sums)


@dataclass(frozen=True, eq=False)
class BatchEffect:
    """What the batch explains of each feature.

    Attributes:
        names: (p,) of the features.
        rows, batches: that were compared.
        share: (p,) of the variance that the covariates leave, 0 to 1; 0 for a feature that they leave none of.
        chance: the share to be expected where batches do not differ.
    """

    names: tuple[str, ...]
    rows: int
    batches: int
    share: FloatArray
    chance: float


@dataclass(frozen=True, eq=False)
class HarmonizationEffect:
    """What the batch explains of each feature before and after harmonization."""

    before: BatchEffect
    after: BatchEffect

    @property
    def worse(self) -> tuple[str, ...]:
        """The features of which the batch explains more than before."""
        grown = self.after.share > self.before.share + NOTHING
        return tuple(name for name, more in zip(self.before.names, grown, strict=True) if more)


def batch_effect(
    view: View, features: Sequence[str], covariates: Sequence[Covariate] = (), minimum: int = FEWEST
) -> Algorithm[BatchEffect]:
    """The share of the batch in each feature's variance, in two rounds.

    Args:
        view: complete columns.
        features: names of the columns that are compared.
        covariates: whose effect is not the batch's: differences of the batches that they explain do not count.
        minimum: batches with fewer rows are left out.

    Raises:
        CtfedError: when fewer than two batches have as many rows.
    """
    asked = CombatMoments(view, tuple(features), tuple(covariates), minimum)
    first: Total = yield asked
    n, batches = float(first["n"][0]), round(float(first["batches"][0]))
    if batches < 2:
        raise CtfedError(f"{batches} batches have at least {minimum} rows; a batch effect is seen between two or more")
    centre = np.concatenate([first["x"][0], first["y"][0]]) / n
    question = BatchDeviations(view, asked.features, asked.covariates, frozen(centre), minimum)
    if scales := finer(first, asked):
        exact = replace(asked, exponents=scales)
        between, within = yield Bundle((question, exact))
        blocks = Blocks.of(within, exact)
    else:
        between, blocks = (yield question), Blocks.of(first, asked)
    chance = (batches - 1) / max(n - 1 - asked.width, 1.0)
    return BatchEffect(asked.features, round(n), batches, _share(blocks, between), min(chance, 1.0))


def _share(within: Blocks, between: Total) -> FloatArray:
    """(p,) 1 - R1 / R0 by the sums within and between batches."""
    sxx, sxy, syy = within.sxx[0], within.sxy[0], within.syy[0]
    q = sxx.shape[0]
    bxx = np.zeros((q, q))
    rows, columns = np.triu_indices(q)
    bxx[rows, columns] = between["sxx"]
    bxx[columns, rows] = between["sxx"]
    left = _unexplained(sxx, sxy, syy)
    alone = _unexplained(sxx + bxx, sxy + between["sxy"], syy + between["syy"])
    some = alone > 0
    return np.where(some, np.clip(1.0 - left / np.where(some, alone, 1.0), 0.0, 1.0), 0.0)


def _unexplained(sxx: FloatArray, sxy: FloatArray, syy: FloatArray) -> FloatArray:
    """(p,) residual sum of squares; covariates that are collinear count once, those that do not vary not at all."""
    if sxx.size == 0:
        return syy
    diagonal = np.diag(sxx)
    scale = np.where(diagonal > 0, 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 0.0)
    scaled = scale[:, None] * sxy
    solved = np.linalg.pinv(sxx * scale[:, None] * scale, rcond=1e-10, hermitian=True) @ scaled
    return np.asarray(np.maximum(syy - (scaled * solved).sum(axis=0), 0.0))


def harmonization_effect(harmonized: Harmonized, minimum: int | None = None) -> Algorithm[HarmonizationEffect]:
    """``batch_effect`` of the columns that were to be harmonized, before and after, in the same two rounds.

    Args:
        harmonized: the fitted step.
        minimum: batches with fewer rows are left out; default those that took no part in the fit (with shared batches,
            of which a site's part counts as one, those of a single row).

    Raises:
        CtfedError: when fewer than two batches have as many rows.
    """
    step = harmonized.transform
    fewest = minimum if minimum is not None else (FEWEST if step.shared else step.minimum)
    before, after = yield from beside(
        *(batch_effect(view, step.names, step.covariates, fewest) for view in (harmonized.before, harmonized.view))
    )
    return HarmonizationEffect(before, after)
