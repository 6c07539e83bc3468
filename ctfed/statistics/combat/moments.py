"""What a site says about its batches for ComBat: centred moments, added over batches before they leave.

With S_xx, S_xy, S_yy the sums of squares and products about the batch's own means (x covariates, y features), ordinary
least squares with one intercept per batch is beta = (sum S_xx)^-1 (sum S_xy), by Frisch and Waugh. Only these sums, the
sums of x and y and the number of rows are needed of all batches together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray, IntArray
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import Refusal
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary
from ctfed.federation.view import Table, View

FLAT = 1e-13  # spread within a batch, relative to the largest value there, that rounding alone produces
MAX_EXPONENT = 200  # of a spread; its square then still fits a float64
MAX_MINIMUM = 30  # rows; a server that could ask for more could choose the one site that adds to a total


@register("combat-covariate")
@dataclass(frozen=True)
class Covariate:
    """A biological covariate whose effect is kept.

    Attributes:
        name: a column of the view.
        levels: the values of a categorical column, the same list at every site, the first being the reference; empty
            for a number.
    """

    name: str
    levels: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.levels and (len(self.levels) < 2 or len(set(self.levels)) != len(self.levels)):
            raise ValueError(f"covariate {self.name!r} has the levels {self.levels}, expected two or more, each once")

    @property
    def width(self) -> int:
        """Columns of the design that it takes."""
        return max(1, len(self.levels) - 1)


def design(table: Table, covariates: Sequence[Covariate]) -> FloatArray:
    """(n, q) columns of the covariates: numbers as they are, levels as 0/1 without the first.

    Raises:
        Refusal: rule 'missing-values' for a covariate without a value, 'unknown-level' for one outside its levels.
    """
    place = {feature.name: index for index, feature in enumerate(table.features)}
    columns: list[FloatArray] = []
    for covariate in covariates:
        values = table.values[:, place[covariate.name]]
        if not np.isfinite(values).all():
            raise Refusal("missing-values", f"ComBat's covariate {covariate.name} has missing values; impute it first")
        if not covariate.levels:
            columns.append(values)
            continue
        if not np.isin(values, covariate.levels).all():
            raise Refusal("unknown-level", f"ComBat's covariate {covariate.name} has a value outside its levels")
        columns += [(values == level).astype(np.float64) for level in covariate.levels[1:]]
    return np.stack(columns, axis=1) if columns else np.zeros((table.rows, 0))


@dataclass(frozen=True, eq=False)
class BatchMoments:
    """Moments of one batch at one site; q columns of covariates, p features.

    Attributes:
        n: rows.
        x, y: (q,) and (p,) means.
        sxx, sxy, syy: (q, q), (q, p) and (p,) about the means.
        flat: (p,) features without spread in the batch.
    """

    n: int
    x: FloatArray
    y: FloatArray
    sxx: FloatArray
    sxy: FloatArray
    syy: FloatArray
    flat: BoolArray

    @classmethod
    def of(cls, x: FloatArray, y: FloatArray) -> BatchMoments:
        """Moments of (n, q) covariates and (n, p) features, n >= 1."""
        xs, ys = x - x[0], y - y[0]  # a constant column becomes exactly zero
        mean_x, mean_y = xs.mean(axis=0), ys.mean(axis=0)
        xs, ys = xs - mean_x, ys - mean_y
        syy = (ys * ys).sum(axis=0)
        largest = np.abs(y).max(axis=0)
        return cls(
            y.shape[0],
            mean_x + x[0],
            mean_y + y[0],
            xs.T @ xs,
            xs.T @ ys,
            syy,
            np.asarray(syy <= y.shape[0] * (FLAT * largest) ** 2),
        )

    def residual(self, beta: FloatArray) -> FloatArray:
        """(p,) residual sum of squares within the batch for (q, p) coefficients."""
        return residual(self.sxx, self.sxy, self.syy, beta)

    def intercept(self, beta: FloatArray) -> FloatArray:
        """(p,) mean of the batch at covariates 0."""
        return self.y - self.x @ beta


def batches_of(table: Table, features: Sequence[str], covariates: Sequence[Covariate]) -> dict[str, BatchMoments]:
    """The moments of every batch among the rows of a table.

    Raises:
        Refusal: rule 'missing-values' when a feature lacks a value.
    """
    place = {feature.name: index for index, feature in enumerate(table.features)}
    y = table.values[:, [place[name] for name in features]]
    lacking = ~np.isfinite(y).all(axis=0)
    if lacking.any():
        names = ", ".join(np.array(features)[lacking][:5])
        raise Refusal("missing-values", f"{names} has missing values; impute before ComBat")
    x = design(table, covariates)
    labels = [str(label) for label in np.unique(table.batch)]
    return {label: BatchMoments.of(x[table.batch == label], y[table.batch == label]) for label in labels}


def residual(sxx: FloatArray, sxy: FloatArray, syy: FloatArray, beta: FloatArray) -> FloatArray:
    """(p,) residual sum of squares of products (q, q), (q, p), (p,) for (q, p) coefficients."""
    found = syy - 2 * (beta * sxy).sum(axis=0) + (beta * (sxx @ beta)).sum(axis=0)
    return np.asarray(np.maximum(found, 0.0))


@register("combat-moments")
@dataclass(frozen=True, eq=False)
class CombatMoments(Query):
    """Sums over batches of n, x, y and of the products about the batch means; one block for the batches that sites do
    not share, and one for each shared batch, about a given centre.

    The total discloses q (q + 1) / 2 + q p + 2 p + q + 4 numbers and p counts of batches, summed over all batches of
    all sites (and the same per shared batch, summed over the sites that share it). No batch of a single site is told,
    as long as several sites have batches of ``minimum`` rows; a covariate's level that one patient of all sites carries
    is told with that patient's features, so a study merges rare levels before.

    Attributes:
        view: complete features and covariates.
        features: (p,) names of the columns that are harmonized.
        covariates: whose effect is kept; q columns of the design.
        minimum: a batch with fewer rows adds nothing. At most 30, for a larger one would choose who adds to the total.
        exponents: (q + p,) power of two that the spread of each column of the design and each feature is about; empty
            for the columns' magnitudes.
        shared: labels of batches that several sites hold.
        centres: (shared, q + p) about which their products are taken; not used for the others.
    """

    view: View
    features: tuple[str, ...]
    covariates: tuple[Covariate, ...] = ()
    minimum: int = 2
    exponents: tuple[int, ...] = ()
    shared: tuple[str, ...] = ()
    centres: FloatArray | None = None

    def __post_init__(self) -> None:
        check_columns(self.view, self.features, self.covariates)
        check_minimum(self.minimum)
        check_labels(self.shared)
        width = self.width + len(self.features)
        if self.exponents and len(self.exponents) != width:
            raise ValueError(f"{len(self.exponents)} exponents for {width} columns of the design and features")
        if not all(-MAX_EXPONENT <= exponent <= MAX_EXPONENT for exponent in self.exponents):
            raise ValueError(f"an exponent is outside [-{MAX_EXPONENT}, {MAX_EXPONENT}]")
        if self.shared and (self.centres is None or self.centres.shape != (len(self.shared), width)):
            raise ValueError(f"the centres of the shared batches must be ({len(self.shared)}, {width})")

    @property
    def width(self) -> int:
        """q, columns of the covariates."""
        return width_of(self.covariates)

    @property
    def scales(self) -> IntArray:
        """(q + p,) power of two that the spread of each column of the design and each feature is carried at."""
        return np.array(self.exponents, dtype=np.int64) if self.exponents else self.magnitudes

    @property
    def magnitudes(self) -> IntArray:
        """(q + p,) power of two that the values of each column of the design and each feature are about."""
        declared = {feature.name: feature.exponent for feature in self.view.features}
        x = [0 if c.levels else declared[c.name] for c in self.covariates for _ in range(c.width)]
        return np.array(x + [declared[name] for name in self.features], dtype=np.int64)

    @property
    def layout(self) -> Layout:
        """left_out (2,): rows and batches below the minimum; n, batches (B,), x (B, q), y (B, p),
        sxx (B, q (q + 1) / 2), sxy (B, q, p), syy (B, p), flat (B, p).

        B is 1 + the number of shared batches; ``batches`` counts the batches of a block.
        """
        blocks, q, p = 1 + len(self.shared), self.width, len(self.features)
        return {
            "left_out": Entry((2,)),
            "n": Entry((blocks,)),
            "batches": Entry((blocks,)),
            "x": Entry((blocks, q), lambda: self.magnitudes[:q]),
            "y": Entry((blocks, p), lambda: self.magnitudes[q:]),
            "sxx": Entry((blocks, q * (q + 1) // 2), lambda: _upper(self.scales[:q])),
            "sxy": Entry((blocks, q, p), lambda: self.scales[:q, None] + self.scales[q:]),
            "syy": Entry((blocks, p), lambda: 2 * self.scales[q:]),
            "flat": Entry((blocks, p)),
        }

    @property
    def exposure(self) -> Exposure | None:
        """Coefficients of the covariates and one intercept, per feature.

        Not declared with shared batches: a label that a single site holds must not be asked as a shared one, and only
        who knows the labels that the study names can tell.
        """
        return None if self.shared else Exposure(parameters=self.width + 1)

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        return self.summary(batches_of(self.view.table(cohort), self.features, self.covariates))

    def summary(self, found: Mapping[str, BatchMoments]) -> Summary:
        """The sums of some batches of a site."""
        layout = self.layout
        sums = {name: np.zeros(entry.shape) for name, entry in layout.items()}
        for label, moments in found.items():
            block = 1 + self.shared.index(label) if label in self.shared else 0
            if block == 0 and moments.n < self.minimum:
                sums["left_out"] += (moments.n, 1)
            else:
                self._add(sums, block, moments)
        return Summary(layout, sums)

    def _add(self, sums: dict[str, FloatArray], block: int, moments: BatchMoments) -> None:
        q = self.width
        sxx, sxy, syy = moments.sxx, moments.sxy, moments.syy
        if block:  # about the centre that all sites of the batch share
            assert self.centres is not None
            dx, dy = moments.x - self.centres[block - 1, :q], moments.y - self.centres[block - 1, q:]
            sxx = sxx + moments.n * np.outer(dx, dx)
            sxy = sxy + moments.n * np.outer(dx, dy)
            syy = syy + moments.n * dy**2
        sums["n"][block] += moments.n
        sums["batches"][block] += 1
        sums["x"][block] += moments.n * moments.x
        sums["y"][block] += moments.n * moments.y
        sums["sxx"][block] += sxx[np.triu_indices(q)]
        sums["sxy"][block] += sxy
        sums["syy"][block] += syy
        sums["flat"][block] += moments.flat


def _upper(scales: IntArray) -> IntArray:
    rows, columns = np.triu_indices(scales.size)
    return np.asarray(scales[rows] + scales[columns])


def width_of(covariates: Sequence[Covariate]) -> int:
    """q, columns that covariates take in the design."""
    return sum(covariate.width for covariate in covariates)


def check_minimum(minimum: int) -> None:
    """Raise ValueError unless it is a possible fewest number of rows of a batch."""
    if not 2 <= minimum <= MAX_MINIMUM:
        raise ValueError(f"the fewest rows of a batch must be 2 to {MAX_MINIMUM}, found {minimum}")


def check_columns(view: View, features: Sequence[str], covariates: Sequence[Covariate]) -> None:
    """Raise ValueError unless all names are columns of the view, each in one role."""
    names = [*features, *(covariate.name for covariate in covariates)]
    unknown = sorted(set(names) - set(view.names))
    if unknown:
        raise ValueError(f"the view has no column {unknown[0]!r}")
    if len(set(names)) != len(names):
        raise ValueError("a column is named twice, or is both a feature and a covariate")
    if not features:
        raise ValueError("ComBat needs at least one feature")


def check_labels(labels: Sequence[str]) -> None:
    """Raise ValueError unless the labels of the shared batches are distinct."""
    if len(set(labels)) != len(labels):
        raise ValueError("a shared batch is named twice")
