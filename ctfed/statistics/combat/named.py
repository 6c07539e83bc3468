"""Questions about batches by their labels: the sizes and means of batches that sites share, and the reference batch.

What they tell is told of one label. Whether that is the label of a single site only somebody who knows the study's
batches can judge: the reference batch is the one that the study names, and its site must have agreed; the means of
shared batches declare no exposure, and pass no gate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary
from ctfed.federation.view import View
from ctfed.statistics.combat.moments import (
    CombatMoments,
    Covariate,
    batches_of,
    check_columns,
    check_labels,
    check_minimum,
)


@register("combat-sizes")
@dataclass(frozen=True, eq=False)
class CombatSizes(Query):
    """Rows and sites of each shared batch, after those of all other batches of at least ``minimum`` rows.

    The total discloses these 2 (shared + 1) counts.

    Attributes:
        view: the rows.
        shared: labels of batches that several sites hold.
        minimum: a batch that is not shared and has fewer rows does not count.
    """

    view: View
    shared: tuple[str, ...]
    minimum: int = 2

    def __post_init__(self) -> None:
        check_labels(self.shared)
        check_minimum(self.minimum)

    @property
    def layout(self) -> Layout:
        """rows and sites, (1 + shared,) each."""
        blocks = (1 + len(self.shared),)
        return {"rows": Entry(blocks), "sites": Entry(blocks)}

    @property
    def exposure(self) -> Exposure:
        """A table of counts."""
        return Exposure(cells=1 + len(self.shared))

    def answer(self, cohort: Cohort) -> Summary:
        """This site's counts."""
        labels, counts = np.unique(self.view.table(cohort).batch, return_counts=True)
        rows = np.zeros(1 + len(self.shared))
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
            if label in self.shared:
                rows[1 + self.shared.index(label)] += count
            elif count >= self.minimum:
                rows[0] += count
        return Summary(self.layout, {"rows": rows, "sites": rows > 0})


@register("combat-means")
@dataclass(frozen=True, eq=False)
class CombatMeans(Query):
    """Rows n and sums of x and y of each shared batch (x columns of the covariates, y features).

    The total discloses 1 + q + p numbers for each shared batch, summed over the sites that share it.

    Attributes:
        view: complete features and covariates.
        features: (p,) names of the columns that are harmonized.
        covariates: whose effect is kept; q columns of the design.
        shared: labels of batches that several sites hold.
    """

    view: View
    features: tuple[str, ...]
    covariates: tuple[Covariate, ...]
    shared: tuple[str, ...]

    def __post_init__(self) -> None:
        check_columns(self.view, self.features, self.covariates)
        check_labels(self.shared)

    @property
    def layout(self) -> Layout:
        """n (shared,), sum (shared, q + p)."""
        asked = CombatMoments(self.view, self.features, self.covariates)
        shape = (len(self.shared), asked.magnitudes.size)
        return {"n": Entry(shape[:1]), "sum": Entry(shape, asked.magnitudes)}

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        sums = np.zeros(self.layout["sum"].shape)
        n = np.zeros(len(self.shared))
        for label, moments in batches_of(self.view.table(cohort), self.features, self.covariates).items():
            if label in self.shared:
                block = self.shared.index(label)
                n[block] += moments.n
                sums[block] += moments.n * np.concatenate([moments.x, moments.y])
        return Summary(self.layout, {"n": n, "sum": sums})


@register("combat-reference")
@dataclass(frozen=True, eq=False)
class CombatReference(Query):
    """The sums of CombatMoments of the reference batch alone.

    The total discloses the means of its covariates and features, their products within it and the number of its rows:
    the exception that a centre agrees to when its batch is to be the reference.

    Attributes:
        view: complete features and covariates.
        features: (p,) names of the columns that are harmonized.
        covariates: whose effect is kept; q columns of the design.
        label: of the batch.
        minimum: nothing is told of a batch with fewer rows.
        exponents: as in CombatMoments.
    """

    view: View
    features: tuple[str, ...]
    covariates: tuple[Covariate, ...]
    label: str
    minimum: int = 2
    exponents: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._moments  # raises here when a field is wrong  # noqa: B018

    @property
    def _moments(self) -> CombatMoments:
        return CombatMoments(self.view, self.features, self.covariates, self.minimum, self.exponents)

    @property
    def layout(self) -> Layout:
        """As CombatMoments."""
        return self._moments.layout

    @property
    def exposure(self) -> Exposure:
        """One batch's own moments."""
        return Exposure(publishes=self.label)

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums: zeros where it does not hold the batch."""
        found = batches_of(self.view.table(cohort), self.features, self.covariates)
        return self._moments.summary({label: one for label, one in found.items() if label == self.label})
