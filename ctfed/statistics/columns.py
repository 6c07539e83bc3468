"""What a cohort knows beside its features, as columns of a view: follow-up and event, or a centre's or scanner's label.

For descriptions alone: a table's rows. No model of survival may use them as features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.codec import register
from ctfed.federation.view import Feature, Table, Transform

SOURCES = ("stratum", "batch")


@register("with-follow-up")
@dataclass(frozen=True)
class WithFollowUp(Transform):
    """The columns of a view, then follow-up time and event (0 or 1).

    Attributes:
        time: name of the first, with the power of two that follow-up is about.
        event: name of the second.
    """

    time: Feature
    event: str

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """The same columns and two more."""
        return _added(features, (self.time, Feature(self.event)))

    def apply(self, table: Table) -> FloatArray:
        """(n, p + 2) values."""
        return np.column_stack([table.values, table.time, table.event.astype(np.float64)])


@register("with-label")
@dataclass(frozen=True)
class WithLabel(Transform):
    """The columns of a view, then the place of each patient's label in a list: 0, 1, ..., or -1 for none of them.

    Sums over such a column tell how many patients each centre or scanner has. Where a label belongs to one site, that
    is a number of that site.

    Attributes:
        name: of the new column.
        labels: the list.
        source: 'stratum' (as a rule the site) or 'batch' (as a rule the scanner).
    """

    name: str
    labels: tuple[str, ...]
    source: str = "stratum"

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"labels come from one of {SOURCES}, found {self.source!r}")
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"column {self.name!r} needs labels, each once")

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """The same columns and one more."""
        return _added(features, (Feature(self.name, len(self.labels).bit_length()),))

    def apply(self, table: Table) -> FloatArray:
        """(n, p + 1) values."""
        place = {label: float(index) for index, label in enumerate(self.labels)}
        found = table.stratum if self.source == "stratum" else table.batch
        return np.column_stack([table.values, [place.get(str(label), -1.0) for label in found]])


def _added(features: tuple[Feature, ...], more: tuple[Feature, ...]) -> tuple[Feature, ...]:
    clash = {feature.name for feature in features}.intersection(feature.name for feature in more)
    if clash or len({feature.name for feature in more}) != len(more):
        raise ValueError(f"there is a column {sorted(clash)[0]!r} already" if clash else "a new column is named twice")
    return features + more
