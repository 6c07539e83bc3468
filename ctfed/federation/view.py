"""View: which rows and columns a query is about, and what has been done to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray, IntArray
from ctfed.federation.codec import digest, register
from ctfed.federation.cohort import Cohort, Labels
from ctfed.federation.errors import Refusal

BLOCK_ROWS = 4096
MAX_CELLS = 2**28  # patients x columns (or models) of one matrix: 2 GB
MAX_STEPS = 32  # transforms, and row filters, of one view
MAX_BESIDE = 256  # views beside one view
MAX_NESTED = 8  # views inside each other
SPLITS = ("train", "test", "all")


@register("feature")
@dataclass(frozen=True)
class Feature:
    """A column and the power of two that its magnitude is about (from the study's data dictionary)."""

    name: str
    exponent: int = 0

    def __post_init__(self) -> None:
        if not -120 <= self.exponent <= 120:
            raise ValueError(f"feature {self.name!r}: exponent {self.exponent} is outside [-120, 120]")


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a view at one site, in the cohort's order.

    Attributes:
        features: names and scales of the columns.
        values: (n, p) float64; NaN only before imputation.
        time, event, stratum, batch: (n,) each, as in the Cohort.
    """

    features: tuple[Feature, ...]
    values: FloatArray
    time: FloatArray
    event: BoolArray
    stratum: Labels
    batch: Labels

    @property
    def rows(self) -> int:
        """Number of patients in the view at this site."""
        return int(self.time.shape[0])


class Transform(ABC):
    """A fitted step of preprocessing: global parameters, applied by each site to its own rows."""

    @abstractmethod
    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """The columns that come out when ``features`` go in.

        Raises:
            ValueError: when the transform was fitted on other columns.
        """

    @abstractmethod
    def apply(self, table: Table) -> FloatArray:
        """The (n, p_out) matrix of the transformed columns."""


class LocalTransform(Transform):
    """A fitted step with parameters that each site works out for itself, from its own rows of the fit's view.

    What a site works out is a function of the global parameters and of its frozen cohort, so it is the same whenever it
    is asked; it never leaves the site.
    """

    @property
    @abstractmethod
    def fitted_on(self) -> Rows:
        """The rows from which a site takes its own parameters."""

    @abstractmethod
    def apply_with(self, table: Table, fitted: Table) -> FloatArray:
        """The (n, p_out) matrix; ``fitted`` holds this site's rows of the fit, with the same columns as ``table``."""

    def apply(self, table: Table) -> FloatArray:
        """As if the rows of ``table`` were those of the fit."""
        return self.apply_with(table, table)


class RowFilter(ABC):
    """An eligibility rule on patients, stated in terms of cohort columns."""

    @abstractmethod
    def keep(self, cohort: Cohort) -> BoolArray:
        """(n,) True for the patients that stay."""


@register("within")
@dataclass(frozen=True)
class Within(RowFilter):
    """Keep patients whose ``column`` lies in [low, high]; a missing value does not."""

    column: str
    low: float
    high: float

    def keep(self, cohort: Cohort) -> BoolArray:
        """(n,) True where low <= column <= high."""
        values = column(cohort, self.column)
        return np.asarray((values >= self.low) & (values <= self.high))


@register("rows")
@dataclass(frozen=True)
class Rows:
    """Which rows of a cohort, as in a View."""

    split: str = "train"
    fold: int | None = None
    held_out: bool = False
    rows: tuple[RowFilter, ...] = ()

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, found {self.split!r}")
        if self.held_out and self.fold is None:
            raise ValueError("held_out needs a fold")


@register("view", shared=True)
@dataclass(frozen=True, eq=False)
class View:
    """Rows and columns of every site's cohort, with the chain of fitted transforms.

    Attributes:
        columns: the raw columns, in order.
        split: 'train', 'test' or 'all'.
        fold: restrict to one cross-validation fold of the site's own assignment, or None.
        held_out: with ``fold``: True for the fold's own patients, False for all the others.
        transforms: applied left to right.
        rows: eligibility filters, all of which must hold.
        beside: views of the same rows whose columns stand beside the raw ones, before the transforms: scores of several
            models, groups of features that were prepared apart.
    """

    columns: tuple[Feature, ...]
    split: str = "train"
    fold: int | None = None
    held_out: bool = False
    transforms: tuple[Transform, ...] = ()
    rows: tuple[RowFilter, ...] = ()
    beside: tuple[View, ...] = ()

    def __post_init__(self) -> None:
        self.selection  # raises here when split, fold and held_out do not fit together  # noqa: B018
        if len({feature.name for feature in self.columns}) != len(self.columns):
            raise ValueError("a view names a column twice")
        if max(len(self.transforms), len(self.rows)) > MAX_STEPS or len(self.beside) > MAX_BESIDE:
            raise ValueError(
                f"a view has at most {MAX_STEPS} transforms, {MAX_STEPS} row filters and {MAX_BESIDE} views beside it"
            )
        if self.depth > MAX_NESTED:
            raise ValueError(f"views stand inside each other at most {MAX_NESTED} deep")
        if any(digest(other.selection) != digest(self.selection) for other in self.beside):
            raise ValueError("a view beside another is of other rows")
        names = [feature.name for feature in self.sources]
        if len(set(names)) != len(names):
            raise ValueError("two views beside each other name the same column")
        self.features  # raises here when a transform does not fit the columns  # noqa: B018

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """The columns after all transforms."""
        features = self.sources
        for transform in self.transforms:
            features = transform.features(features)
        return features

    @cached_property
    def sources(self) -> tuple[Feature, ...]:
        """The columns before all transforms: the raw ones, then those of the views beside."""
        return (*self.columns, *(feature for other in self.beside for feature in other.features))

    @cached_property
    def depth(self) -> int:
        """How many views stand inside each other."""
        return 1 + max((other.depth for other in self.beside), default=0)

    def inner(self) -> Iterator[View]:
        """This view and all views inside it."""
        yield self
        for other in self.beside:
            yield from other.inner()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns after all transforms."""
        return tuple(feature.name for feature in self.features)

    @property
    def width(self) -> int:
        """Number of columns after all transforms."""
        return len(self.features)

    @classmethod
    def joined(cls, views: Sequence[View]) -> View:
        """The columns of several views of the same rows, side by side.

        Raises:
            ValueError: when there is none, their rows differ, or two name the same column.
        """
        if not views:
            raise ValueError("no view to join")
        rows = views[0].selection
        return cls((), rows.split, rows.fold, rows.held_out, (), rows.rows, tuple(views))

    @property
    def selection(self) -> Rows:
        """Its rows, without its columns."""
        return Rows(self.split, self.fold, self.held_out, self.rows)

    def on(self, rows: Rows) -> View:
        """The same columns and transforms on other rows."""
        beside = tuple(other.on(rows) for other in self.beside)
        return replace(self, split=rows.split, fold=rows.fold, held_out=rows.held_out, rows=rows.rows, beside=beside)

    def then(self, *transforms: Transform) -> View:
        """The same rows, further transformed."""
        return replace(self, transforms=self.transforms + transforms)

    def test(self) -> View:
        """The same columns and transforms on the test split."""
        return self.on(replace(self.selection, split="test", fold=None, held_out=False))

    def training_fold(self, fold: int) -> View:
        """The training rows outside ``fold``."""
        return self.on(replace(self.selection, split="train", fold=fold, held_out=False))

    def held_out_fold(self, fold: int) -> View:
        """The training rows of ``fold``."""
        return self.on(replace(self.selection, split="train", fold=fold, held_out=True))

    def table(self, cohort: Cohort) -> Table:
        """This site's transformed rows, kept in the cohort's cache under the view's digest.

        Raises:
            Refusal: rule 'unknown-column' when the cohort lacks a column; 'too-large' when the matrix would be.
        """
        return cohort.cached(f"table:{digest(self)}", lambda: self.build(cohort))

    def _select(self, cohort: Cohort) -> BoolArray:
        keep = np.ones(cohort.patients, dtype=bool) if self.split == "all" else cohort.split == self.split
        if self.fold is not None:
            keep = keep & ((cohort.fold == self.fold) == self.held_out)
        for rule in self.rows:
            keep = keep & rule.keep(cohort)
        return np.asarray(keep, dtype=bool)

    def build(self, cohort: Cohort) -> Table:
        """This site's transformed rows, made anew: for callers that keep a form of their own."""
        keep = self._select(cohort)
        columns = [column(cohort, feature.name) for feature in self.columns]
        check_cells(int(keep.sum()), len(self.sources))
        parts = [_side_by_side(columns, np.flatnonzero(keep)), *(other.table(cohort).values for other in self.beside)]
        table = Table(
            self.sources,
            parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1),
            cohort.time[keep],
            cohort.event[keep],
            cohort.stratum[keep],
            cohort.batch[keep],
        )
        for position, transform in enumerate(self.transforms):
            features = transform.features(table.features)
            check_cells(table.rows, len(features))
            if isinstance(transform, LocalTransform):
                before = replace(self, transforms=self.transforms[:position]).on(transform.fitted_on)
                values = transform.apply_with(table, before.table(cohort))
            else:
                values = transform.apply(table)
            table = replace(table, values=values, features=features)
        return table


def check_cells(rows: int, columns: int) -> None:
    """Refuse a matrix that this machine should not be made to hold: a short question can ask for many columns.

    Raises:
        Refusal: rule 'too-large'.
    """
    if rows * columns > MAX_CELLS:
        raise Refusal(
            "too-large",
            f"{rows} patients x {columns} columns or models at once, at most {MAX_CELLS} values; ask for fewer at once",
        )


def _side_by_side(columns: list[FloatArray], rows: IntArray) -> FloatArray:
    """(rows, columns) matrix of some rows of the columns, filled in blocks that stay in the cache."""
    values = np.empty((rows.size, len(columns)))
    for start in range(0, rows.size if columns else 0, BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        np.stack([one[block] for one in columns], axis=1, out=values[start : start + BLOCK_ROWS])
    return values


def column(cohort: Cohort, name: str) -> FloatArray:
    """A column of the cohort by name.

    Raises:
        Refusal: rule 'unknown-column'.
    """
    if name not in cohort.columns:
        raise Refusal("unknown-column", f"site {cohort.site!r} has no column {name!r}")
    return cohort.columns[name]
