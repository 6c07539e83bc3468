"""Scope: what the study that a site has approved lets a server ask about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.codec import wire_name
from ctfed.federation.query import Query
from ctfed.federation.view import Feature, RowFilter, View

BEFORE_INDICATORS = ("impute",)  # what may come before them, so that a level is what the study's dictionary calls it
SPLITS = ("train", "test")  # never 'all': fewer sites may contribute to it, and the difference would be one of them


@runtime_checkable
class _Coding(Protocol):
    """A transform that makes 0/1 columns: who is at which level of a column."""

    columns: tuple[str, ...]

    @property
    def made(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Scope:
    """What an approved study lets be asked.

    Attributes:
        kinds: the names of its queries, and of the transforms in their views.
        columns: the raw columns with their scales. A scale is part of it because a sum that leaves its range is
            refused, and whether a site refuses must not depend on what a server tries.
        folds: number of cross-validation folds; 1 for none.
        time_widths: widths of the study's time grids, in its time unit.
        risk_sets: 'stratified' or 'pooled'.
        min_cell: the fewest patients of a cell that the study asks for.
        fine_tables: whether it names the exception ``fine_evaluation_tables``.
        rows: the row filters of the study; a view has none of them or one.
        models: number of models and ensembles whose scores are evaluated; budgets of scores are for each of them.
        reference: the batch that a reference-batch ComBat publishes; None for none.
        indicators: names of the 0/1 columns that may be made of the levels of nominal columns.
    """

    kinds: frozenset[str]
    columns: frozenset[Feature]
    folds: int
    time_widths: tuple[float, ...]
    risk_sets: Literal["stratified", "pooled"]
    min_cell: int
    fine_tables: bool = False
    rows: tuple[RowFilter, ...] = ()
    models: int = 1
    reference: str | None = None
    indicators: frozenset[str] = frozenset()

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the raw columns."""
        return frozenset(feature.name for feature in self.columns)

    def outside(self, query: Query) -> str | None:
        """What of a query the study does not name, in words; None when it names all of it."""
        if query.kind not in self.kinds:
            return f"the question or transform {query.kind!r}"
        return next((found for view in query.view.inner() if (found := self._outside_view(view)) is not None), None)

    def _outside_view(self, view: View) -> str | None:
        strange = [kind for kind in map(wire_name, view.transforms) if kind not in self.kinds]
        if strange:
            return f"the question or transform {strange[0]!r}"
        indicator = self._strange_indicator(view)
        if indicator is not None:
            return indicator
        unknown = [feature.name for feature in view.columns if feature.name not in self.names]
        if unknown:
            return f"the column {unknown[0]!r}"
        rescaled = [feature for feature in view.columns if feature not in self.columns]
        if rescaled:
            return f"the scale 2**{rescaled[0].exponent} of the column {rescaled[0].name!r}"
        if view.split not in SPLITS:
            return f"the split {view.split!r}"
        if view.fold is not None and not (view.split == "train" and self.folds > 1 and 0 <= view.fold < self.folds):
            return f"fold {view.fold} of the {view.split} split"
        strange_rows = [rule for rule in view.rows if rule not in self.rows]
        if strange_rows or len(view.rows) > 1:
            return f"the row filter {(strange_rows or view.rows)[0]}" + (" beside another" if not strange_rows else "")
        return None

    def _strange_indicator(self, view: View) -> str | None:
        """A 0/1 column of another column's values would cut it where the server likes: who is 63 years old."""
        raw = {feature.name for feature in view.columns}
        for place, step in enumerate(view.transforms):
            if not isinstance(step, _Coding):
                continue
            strange = [name for name in step.made if name not in self.indicators]
            if strange:
                return f"the indicator {strange[0]!r}"
            if not raw.issuperset(step.columns) or set(map(wire_name, view.transforms[:place])) - {*BEFORE_INDICATORS}:
                return f"the indicator {step.made[0]!r} of a column that is not as the site holds it"
        return None

    def on_grid(self, edges: FloatArray) -> bool:
        """True when all edges are multiples of one of the study's widths, to the last bit.

        An edge that is off by a rounding would tell who left exactly on it.
        """
        return any(_multiples(edges, width) for width in self.time_widths)


def _multiples(edges: FloatArray, width: float) -> bool:
    counts = np.rint(edges / width)
    return bool((counts >= 1).all() and (width * counts == edges).all())


def rows_of(view: View) -> str:
    """The rows of a view in words; views of the same rows share their budgets, whatever their columns."""
    part = f" of {' and '.join(map(str, view.rows))}" if view.rows else ""
    if view.fold is None:
        return view.split + part
    return f"{view.split} {'in' if view.held_out else 'outside'} fold {view.fold}{part}"
