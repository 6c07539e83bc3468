"""Nominal columns as 0/1 columns, one for each level but those that count with the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.codec import register
from ctfed.federation.errors import Refusal
from ctfed.federation.nominal import indicator_name
from ctfed.federation.view import Feature, Table, Transform


@register("indicators")
@dataclass(frozen=True, eq=False)
class Indicators(Transform):
    """A column of codes becomes a 0/1 column 'NAME=code' for each of its codes that is named, where it stood.

    A patient with any other code has zeros in all of them: the reference, and the levels that count with it.

    Attributes:
        columns: of whole-number codes, without missing values.
        levels: for each column the (L_j,) codes that get a column; at least one.
    """

    columns: tuple[str, ...]
    levels: tuple[FloatArray, ...]

    def __post_init__(self) -> None:
        if len(self.columns) != len(self.levels) or len(set(self.columns)) != len(self.columns):
            raise ValueError(f"{len(self.columns)} columns, each once, but levels for {len(self.levels)}")
        for name, levels in zip(self.columns, self.levels, strict=True):
            whole = levels.ndim == 1 and levels.size > 0 and bool((levels == np.rint(levels)).all())
            if not whole or np.unique(levels).size != levels.size or (np.abs(levels) > 2.0**53).any():
                raise ValueError(f"the levels of column {name!r} must be distinct whole numbers in a flat array")

    @cached_property
    def made(self) -> tuple[str, ...]:
        """The names of the 0/1 columns."""
        return tuple(indicator_name(name, level) for name, levels in self._pairs() for level in levels.tolist())

    def _pairs(self) -> Iterator[tuple[str, FloatArray]]:
        return zip(self.columns, self.levels, strict=True)

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """The other columns in their order, with those of the levels in the place of each nominal one."""
        names = [feature.name for feature in features]
        unknown = sorted(set(self.columns).difference(names))
        if unknown:
            raise ValueError(f"indicators were fitted on other columns: there is no {unknown[0]!r}")
        clash = sorted(set(self.made).intersection(names))
        if clash:
            raise ValueError(f"there is a column {clash[0]!r} already")
        levels = dict(self._pairs())
        found: list[Feature] = []
        for feature in features:
            if feature.name in levels:
                found += [Feature(indicator_name(feature.name, level)) for level in levels[feature.name].tolist()]
            else:
                found.append(feature)
        return tuple(found)

    def apply(self, table: Table) -> FloatArray:
        """(n, p_out) values.

        Raises:
            Refusal: rule 'missing-value' when a nominal column lacks a value.
        """
        levels = dict(self._pairs())
        parts = []
        for feature, values in zip(table.features, table.values.T, strict=True):
            if feature.name not in levels:
                parts.append(values[:, None])
                continue
            if lacking := int(np.isnan(values).sum()):
                raise Refusal("missing-value", f"column {feature.name!r} lacks {lacking} values and is not imputed")
            parts.append((values[:, None] == levels[feature.name]).astype(np.float64))
        return np.hstack([np.zeros((table.rows, 0)), *parts])
