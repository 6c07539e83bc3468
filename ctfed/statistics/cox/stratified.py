"""Stratified risk sets: every site has its own baseline hazard, and derivatives simply add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, IntArray
from ctfed.federation.codec import digest, register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import Refusal
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import Table, View
from ctfed.statistics.cox.likelihood import TIES, Stratum, information, strata_of, value_and_gradient
from ctfed.statistics.cox.solver import Derivatives, Oracle


@register("cox-derivatives")
@dataclass(frozen=True, eq=False)
class CoxDerivatives(Query):
    """Log-likelihood, gradient and negative Hessian of the stratified partial likelihood, at many points at once.

    The total discloses 1 + p numbers per coefficient vector and p (p + 1) / 2 per Hessian, summed over all patients of
    all sites. No event time leaves a site. A site where the linear predictors span too wide a range at a coefficient
    vector, or where one patient dominates the risk sets, declines it: it adds nothing there, and the total says how
    many sites did.

    Attributes:
        view: rows and features.
        coefficients: (m, p).
        hessians: indices into ``coefficients`` at which the Hessian is asked.
        ties: 'efron' or 'breslow'.
    """

    view: View
    coefficients: FloatArray
    hessians: tuple[int, ...] = ()
    ties: str = "efron"

    def __post_init__(self) -> None:
        if self.coefficients.ndim != 2 or self.coefficients.shape[1] != self.view.width:
            raise ValueError(f"coefficients must be (models, {self.view.width}), found {self.coefficients.shape}")
        if not all(0 <= index < self.coefficients.shape[0] for index in self.hessians):
            raise ValueError("a Hessian is asked at a point that is not among the coefficients")
        check_ties(self.ties)

    @property
    def layout(self) -> Layout:
        """patients (), events (), declined and loglik (m,), gradient (m, p), hessian (h, p (p + 1) / 2): triangles."""
        models, width = self.coefficients.shape
        return {
            "patients": Entry(()),
            "events": Entry(()),
            "declined": Entry((models,)),
            "loglik": Entry((models,)),
            "gradient": Entry((models, width), feature_exponents(self.view)),
            "hessian": Entry((len(self.hessians), triangle_size(width)), triangle_exponents(self.view)),
        }

    @property
    def exposure(self) -> Exposure:
        """The p coefficients that its derivatives estimate."""
        return Exposure(parameters=self.view.width)

    def answer(self, cohort: Cohort) -> Summary:
        """Sums over this site's strata."""
        design = site_strata(self.view, cohort, self.ties)
        models, width = self.coefficients.shape
        loglik, gradient, inside = np.zeros(models), np.zeros((models, width)), np.ones(models, dtype=bool)
        hessian = np.zeros((len(self.hessians), width, width))
        for stratum in design:
            value, slope, within = value_and_gradient(stratum, self.coefficients)
            loglik += value
            gradient += slope
            inside &= within
            for position, index in enumerate(self.hessians):
                if inside[index]:
                    hessian[position] += information(stratum, self.coefficients[index])
        loglik[~inside], gradient[~inside], hessian[~inside[list(self.hessians)]] = 0.0, 0.0, 0.0
        return Summary(
            self.layout,
            {
                "patients": sum(stratum.x.shape[0] for stratum in design),
                "events": sum(stratum.died.size for stratum in design),
                "declined": ~inside,
                "loglik": loglik,
                "gradient": gradient,
                "hessian": pack_triangles(hessian),
            },
        )


def check_ties(ties: str) -> None:
    """Raise ValueError unless ``ties`` is known."""
    if ties not in TIES:
        raise ValueError(f"ties must be one of {TIES}, found {ties!r}")


def site_strata(view: View, cohort: Cohort, ties: str) -> tuple[Stratum, ...]:
    """The sorted design of a view at this site, kept in the cohort's cache.

    Raises:
        Refusal: rule 'missing-values' when a feature of the view still has any.
    """

    def build() -> tuple[Stratum, ...]:
        table = view.build(cohort)
        require_complete(table)
        return strata_of(table, ties)

    return cohort.cached(f"strata:{ties}:{digest(view)}", build)


def require_complete(table: Table) -> None:
    """Refuse a table with missing values; the study's view lacks an imputation step then."""
    missing = ~np.isfinite(table.values.sum(axis=0))
    if missing.any():
        names = ", ".join(table.features[j].name for j in np.flatnonzero(missing))
        raise Refusal("missing-values", f"{names} has missing or infinite values; impute before fitting")


def feature_exponents(view: View) -> IntArray:
    """(p,) scale of each feature of the view."""
    return np.array([feature.exponent for feature in view.features], dtype=np.int64)


def triangle_size(width: int) -> int:
    """Entries of the upper triangle of a symmetric matrix."""
    return width * (width + 1) // 2


def triangle_exponents(view: View) -> Callable[[], IntArray]:
    """Scale of each entry of a packed cross-product matrix of the view's features; made when it is needed."""

    def make() -> IntArray:
        exponents = feature_exponents(view)
        rows, columns = np.triu_indices(exponents.size)
        return np.asarray(exponents[rows] + exponents[columns])

    return make


def pack_triangles(matrices: FloatArray) -> FloatArray:
    """(h, p, p) symmetric matrices to (h, p (p + 1) / 2) upper triangles."""
    if matrices.shape[0] == 0:  # the indices of a wide triangle would take gigabytes
        return np.zeros((0, triangle_size(matrices.shape[1])))
    rows, columns = np.triu_indices(matrices.shape[1])
    return np.asarray(matrices[:, rows, columns])


def unpack_triangles(packed: FloatArray, width: int) -> FloatArray:
    """(h, p (p + 1) / 2) upper triangles to (h, p, p) symmetric matrices."""
    if packed.shape[0] == 0:
        return np.zeros((0, width, width))
    rows, columns = np.triu_indices(width)
    matrices = np.zeros((packed.shape[0], width, width))
    matrices[:, rows, columns] = packed
    matrices[:, columns, rows] = packed
    return matrices


def stratified_oracle(view: View, ties: str) -> Oracle:
    """Derivatives in one round: the sum of the sites' own partial likelihoods."""

    def ask(points: FloatArray, hessians: tuple[int, ...]) -> Algorithm[Derivatives]:
        total: Total = yield CoxDerivatives(view, points, hessians, ties)
        matrices = zip(hessians, unpack_triangles(total["hessian"], view.width), strict=True)
        declined = total["declined"] > 0
        return Derivatives(
            patients=round(total.number("patients")),
            events=round(total.number("events")),
            loglik=np.where(declined, -np.inf, total["loglik"]),
            gradient=total["gradient"],
            information={index: matrix for index, matrix in matrices if not declined[index]},
        )

    return ask


OracleFactory = Callable[[View, str], Oracle]
