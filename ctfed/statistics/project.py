"""Projection of wide feature vectors: federated principal components, and a random projection that asks nothing.

Principal components come from the covariance C = sum (x - m)(x - m)' without its ever being formed: sites answer C V
for few directions V, each new block is made of what the last one brought (block Krylov), and C is approximated from all
pairs (V, C V) together (Nystrom). Four products reach the accuracy for which subspace iteration needs ten and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import linalg

from ctfed.federation.algorithm import Algorithm, Bundle
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import Feature, Table, Transform, View
from ctfed.statistics.cox.stratified import require_complete
from ctfed.statistics.describe import (
    HEADROOM_BITS,
    Fitted,
    Moments,
    centred_scale,
    check_centred,
    check_exponents,
    spread_exponents,
)
from ctfed.statistics.seeded import normals
from ctfed.statistics.standardise import CONSTANT

PRODUCTS = 4  # rounds of products; with the round that finds the mean, five in all
COLUMNS_PER_PATIENT = 1 / 3
EXTRA_COLUMNS = 10  # of a block beyond the components that are wanted
RANK = 1e-10  # a direction whose part outside the earlier ones is smaller than this is one of them
UNIT = 1e-6  # by which the rows of a projection may miss being orthonormal
LARGEST_EXPONENT = 120  # of a Feature


@register("covariance-products")
@dataclass(frozen=True, eq=False)
class CovarianceProducts(Query):
    """Sum over the patients of (x - c) (x - c)'V, and of |x - c|^2, for p columns without missing values.

    The total discloses the number of patients, the total variance and p k numbers: what the covariance matrix does to k
    directions. As many directions as the matrix has rank would determine the whole of it, and with it the rows up to a
    rotation; k counts as the number of parameters, and ``project`` keeps the directions of all rounds together under a
    third of the patients.

    Attributes:
        centre: (p,) c.
        directions: (p, k) V, of length at most 1 each.
        exponents: power of two that |x - c| is about, per column; empty for the columns' declared magnitudes.
        reach: power of two that the length of the vector x - c is about.
    """

    view: View
    centre: FloatArray
    directions: FloatArray
    exponents: tuple[int, ...]
    reach: int

    def __post_init__(self) -> None:
        p = self.view.width
        check_centred(self.view, self.centre, self.exponents)
        check_exponents((self.reach,))
        if self.directions.ndim != 2 or self.directions.shape[0] != p or not 0 < self.directions.shape[1] <= p:
            raise ValueError(f"directions must be ({p}, k) with 0 < k <= {p}, found {self.directions.shape}")
        if ((self.directions**2).sum(axis=0) > 1 + UNIT).any():
            raise ValueError("a direction is longer than 1")

    @property
    def layout(self) -> Layout:
        """patients (), squares (), products (p, k)."""
        scale = centred_scale(self.view, self.exponents)
        return {
            "patients": Entry(()),
            "squares": Entry((), 2 * self.reach),
            "products": Entry(self.directions.shape, scale[:, None] + self.reach),
        }

    @property
    def exposure(self) -> Exposure:
        """k directions."""
        return Exposure(parameters=self.directions.shape[1])

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums.

        Raises:
            Refusal: rule 'missing-values' when a column lacks a value.
        """
        table = self.view.table(cohort)
        require_complete(table)
        x = table.values - self.centre
        products = x.T @ (x @ self.directions)
        return Summary(self.layout, {"patients": table.rows, "squares": (x * x).sum(), "products": products})


@register("project")
@dataclass(frozen=True, eq=False)
class Project(Transform):
    """Scores (x - mean) components' of the p columns; they become 'PREFIX-0', 'PREFIX-1', ...

    Attributes:
        names: the columns that it was fitted on.
        mean: (p,).
        components: (k, p), orthonormal rows, by falling variance.
        exponents: power of two that each score's standard deviation is about.
        prefix: of the new names.
    """

    names: tuple[str, ...]
    mean: FloatArray
    components: FloatArray
    exponents: tuple[int, ...]
    prefix: str = "component"

    def __post_init__(self) -> None:
        p, k = len(self.names), len(self.exponents)
        if self.mean.shape != (p,) or self.components.shape != (k, p) or not 0 < k <= p:
            raise ValueError(f"a projection of {p} columns needs (p,) means and (k, p) components with k exponents")
        if np.abs(self.components @ self.components.T - np.eye(k)).max() > UNIT:
            raise ValueError("the components are not orthonormal")

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """One score per component."""
        if tuple(feature.name for feature in features) != self.names:
            raise ValueError("the projection was fitted on other columns, or on the same in another order")
        return tuple(Feature(f"{self.prefix}-{i}", exponent) for i, exponent in enumerate(self.exponents))

    def apply(self, table: Table) -> FloatArray:
        """(n, k) scores.

        Raises:
            Refusal: rule 'missing-values' when a column lacks a value.
        """
        require_complete(table)
        return np.asarray((table.values - self.mean) @ self.components.T)

    def truncate(self, k: int) -> Project:
        """The first k components: their number is tuned without asking anybody.

        Raises:
            ValueError: when there are fewer than k.
        """
        if not 1 <= k <= len(self.exponents):
            raise ValueError(f"{k} components asked, the projection has {len(self.exponents)}")
        return replace(self, components=frozen(self.components[:k]), exponents=self.exponents[:k])


@dataclass(frozen=True, eq=False)
class Projection(Fitted):
    """A fitted projection, and the view of its scores.

    Attributes:
        source: the view that it was fitted on.
        step: the transform.
        variance: (k,) of the scores over the patients of the fit (ddof 1), falling; never above the exact eigenvalue.
        total_variance: of all columns together (ddof 1).
        patients: of the fit.
        columns: directions that were asked in all.
    """

    source: View
    step: Project
    variance: FloatArray
    total_variance: float
    patients: int
    columns: int

    @property
    def explained(self) -> FloatArray:
        """(k,) share of the total variance that each component explains; zeros where there is no variance."""
        return self.variance / self.total_variance if self.total_variance > 0 else np.zeros_like(self.variance)

    def truncate(self, k: int) -> View:
        """The view of the first k scores, on the rows of the fit."""
        return self.source.then(self.step.truncate(k))


def project(
    view: View, components: int, *, seed: int = 0, products: int = PRODUCTS, prefix: str = "component"
) -> Algorithm[Projection]:
    """Principal components of a view; see ``project_together``."""
    fitted = yield from project_together((view,), components, seed=seed, products=products, prefix=prefix)
    return fitted[0]


def project_together(
    views: Sequence[View], components: int, *, seed: int = 0, products: int = PRODUCTS, prefix: str = "component"
) -> Algorithm[tuple[Projection, ...]]:
    """Principal components of several views from one sketch: all are asked about the directions of the first.

    One round for the means and ``products`` more. The directions of all rounds are at most a third of the patients of
    the smallest view, and of the smallest difference in patients between the first view and another: of a view without
    one fold the total tells, by subtraction, what the covariance matrix of that fold does to the same directions.
    Blocks are made narrower until that holds. In cross-validation this leaves few columns (40 for 604 patients in five
    folds): there ``RandomProjection``, which asks nothing, is the default, or one projection of all training rows under
    the folds, which has seen the covariates, never the outcome, of the rows held out.

    Args:
        views: of the same columns, without missing values; the rows of the others are among those of the first.
        components: how many, k; tuned later by ``truncate``.
        seed: public, of the first directions.
        products: rounds of products, >= 1.
        prefix: names of the scores.

    Raises:
        CtfedError: when a view holds fewer than two patients, a column lacks a value, or fewer than ``components``
            directions may be asked.
    """
    if components < 1 or products < 1 or not views:
        raise CtfedError("a projection needs at least one view, one component and one round of products")
    if any(view.names != views[0].names for view in views):
        raise CtfedError("views that are projected together must have the same columns")
    zero = frozen(np.zeros(views[0].width))
    first: tuple[Total, ...] = yield Bundle(tuple(Moments(view, zero) for view in views))
    centred = [_Centred.of(view, total) for view, total in zip(views, first, strict=True)]
    width = _block_width([one.patients for one in centred], views[0].width, components, products)
    directions = _first_directions(seed, views[0].width, width)
    asked: list[FloatArray] = []
    images: list[list[FloatArray]] = [[] for _ in views]
    squares: list[float] = []
    while directions.shape[1] and len(asked) < products:
        totals: tuple[Total, ...] = yield Bundle(tuple(one.query(directions) for one in centred))
        asked.append(directions)
        for image, total in zip(images, totals, strict=True):
            image.append(total["products"])
        squares = [total.number("squares") for total in totals]
        directions = _new_directions(images[0][-1], np.hstack(asked))
    basis = np.hstack(asked)
    return tuple(
        _projection(one, basis, np.hstack(image), square, components, prefix)
        for one, image, square in zip(centred, images, squares, strict=True)
    )


@dataclass(frozen=True, eq=False)
class _Centred:
    """A view with its mean, and the scales of its sums about it."""

    view: View
    patients: int
    centre: FloatArray
    exponents: tuple[int, ...]
    reach: int

    @classmethod
    def of(cls, view: View, total: Total) -> _Centred:
        n = total.number("patients")
        if n < 2:
            raise CtfedError(f"a projection of {n:.0f} patients: it needs two at least")
        lacking = np.flatnonzero(total["count"] < n)
        if lacking.size:
            j = int(lacking[0])
            raise CtfedError(f"column {view.names[j]!r} lacks {n - total['count'][j]:.0f} values; impute first")
        exponents = spread_exponents(total, view)
        # The length of x - c over all patients is at most the square root of the columns' sums of squares together.
        _, reach = np.frexp(np.sqrt(np.ldexp(1.0, 2 * (np.array(exponents) + HEADROOM_BITS)).sum()))
        return cls(view, round(n), frozen(total["sum"] / n), exponents, int(reach) - HEADROOM_BITS)

    def query(self, directions: FloatArray) -> CovarianceProducts:
        return CovarianceProducts(self.view, self.centre, frozen(directions), self.exponents, self.reach)


def _block_width(patients: Sequence[int], columns: int, components: int, products: int) -> int:
    """Directions of one round."""
    told = min([*patients, *(abs(patients[0] - other) for other in patients[1:] if other != patients[0])])
    cap = int(told * COLUMNS_PER_PATIENT)
    if components > columns:
        raise CtfedError(f"{components} components asked of {columns} columns")
    if columns <= min(components + EXTRA_COLUMNS, cap):
        return columns  # one round of products tells all there is
    width = min(cap // products, components + EXTRA_COLUMNS)
    if width * products < components:
        raise CtfedError(
            f"{components} components asked, but the {told} patients by which a view, or a difference of two, is told "
            f"allow {cap // products * products} directions in {products} rounds; ask for fewer components"
        )
    return width


def _first_directions(seed: int, columns: int, width: int) -> FloatArray:
    drawn = [normals(seed, f"directions {columns} {index}", columns) for index in range(width)]
    return np.asarray(linalg.qr(np.stack(drawn, axis=1), mode="economic")[0])


def _new_directions(image: FloatArray, basis: FloatArray) -> FloatArray:
    """Orthonormal directions of what C V brought beyond the directions that were asked."""
    lengths = np.sqrt((image**2).sum(axis=0))
    found: FloatArray = image[:, lengths > 0] / lengths[lengths > 0]
    for _ in range(2):  # once is not enough where little is left
        found = found - basis @ (basis.T @ found)
    if found.shape[1] == 0:
        return found
    left, size, _ = np.linalg.svd(found, full_matrices=False)
    room = basis.shape[0] - basis.shape[1]
    chosen: FloatArray = left[:, size > RANK][:, :room]
    return chosen


def _projection(
    one: _Centred, basis: FloatArray, image: FloatArray, squares: float, components: int, prefix: str
) -> Projection:
    if squares <= one.patients * float(((CONSTANT * one.centre) ** 2).sum()):
        raise CtfedError("no column of the view varies, so there are no principal components")
    vectors, values = _nystrom(basis, image, components)
    degrees = one.patients - 1
    total = squares / degrees
    values = values / degrees
    _, exponents = np.frexp(np.sqrt(np.maximum(values, np.finfo(np.float64).tiny)))
    clipped = tuple(int(exponent) for exponent in np.clip(exponents, -LARGEST_EXPONENT, LARGEST_EXPONENT))
    step = Project(one.view.names, one.centre, frozen(vectors.T), clipped, prefix)
    few = f"the data vary in {len(values)} directions only; {components} components were asked"
    warnings = (few,) if len(values) < components else ()
    return Projection(one.view.then(step), warnings, one.view, step, values, total, one.patients, basis.shape[1])


def _nystrom(basis: FloatArray, image: FloatArray, components: int) -> tuple[FloatArray, FloatArray]:
    """Leading eigenvectors (p, k) and eigenvalues (k,) of C V (V'C V)^+ (C V)', with V (p, c) and its image C V."""
    middle = basis.T @ image
    weights, rotation = linalg.eigh((middle + middle.T) / 2)
    held = weights > RANK * weights[-1]
    vectors, sizes, _ = linalg.svd(image @ (rotation[:, held] / np.sqrt(weights[held])), full_matrices=False)
    vectors, values = vectors[:, :components], sizes[:components] ** 2
    largest = np.abs(vectors).argmax(axis=0)
    return vectors * np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0), values


@register("random-projection")
@dataclass(frozen=True)
class RandomProjection(Transform):
    """Scores X G / sqrt(k) with G (p, k) of independent standard normal numbers from a public seed; nothing is asked.

    Distances between patients are kept to about 1 / sqrt(k), whatever the data. The matrix has the same bits on every
    machine, and its first columns are those of a smaller k but for the scale. Standardise before it, so that no column
    outweighs the rest.

    Attributes:
        width: p, columns of the view.
        components: k.
        seed: public, >= 0.
        prefix: scores become 'PREFIX-0', 'PREFIX-1', ...
    """

    width: int
    components: int
    seed: int = 0
    prefix: str = "random"

    def __post_init__(self) -> None:
        if not 1 <= self.components <= self.width:
            raise ValueError(f"a random projection of {self.width} columns cannot have {self.components} components")
        if self.seed < 0:
            raise ValueError(f"a seed must be >= 0, found {self.seed}")

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """One score per component, of the magnitude that independent columns would give it."""
        if len(features) != self.width:
            raise ValueError(f"a random projection of {self.width} columns, the view has {len(features)}")
        squares = np.ldexp(1.0, 2 * np.array([feature.exponent for feature in features])).sum()
        exponent = int(np.frexp(np.sqrt(squares / self.components))[1])
        bounded = max(-LARGEST_EXPONENT, min(exponent, LARGEST_EXPONENT))
        return tuple(Feature(f"{self.prefix}-{index}", bounded) for index in range(self.components))

    @property
    def matrix(self) -> FloatArray:
        """(p, k) G / sqrt(k)."""
        return _random_matrix(self.seed, self.width, self.components)

    def apply(self, table: Table) -> FloatArray:
        """(n, k) scores.

        Raises:
            Refusal: rule 'missing-values' when a column lacks a value.
        """
        require_complete(table)
        return np.asarray(table.values @ self.matrix)


@lru_cache(maxsize=4)
def _random_matrix(seed: int, width: int, components: int) -> FloatArray:
    columns = [normals(seed, f"random projection {width} {index}", width) for index in range(components)]
    return frozen(np.stack(columns, axis=1) / np.sqrt(float(components)))
