"""Nominal columns: codes without an order; a model takes 0/1 columns of their levels but one, the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ctfed.federation.arrays import FloatArray


def indicator_name(column: str, level: float) -> str:
    """The 0/1 column of one level: 'histology=2'."""
    return f"{column}={level:.0f}"


def column_of(name: str) -> str:
    """The nominal column of an indicator; any other name stays."""
    return name.partition("=")[0]


@dataclass(frozen=True)
class Nominal:
    """A nominal column.

    Attributes:
        name: of the column.
        levels: its whole-number codes, rising.
        reference: the level without an indicator.
    """

    name: str
    levels: tuple[float, ...]
    reference: float

    def __post_init__(self) -> None:
        if self.reference not in self.levels:
            raise ValueError(f"column {self.name!r} has no level {self.reference:g} to refer to")

    @property
    def indicators(self) -> tuple[str, ...]:
        """Names of the 0/1 columns of all levels but the reference."""
        return tuple(indicator_name(self.name, level) for level in self.levels if level != self.reference)


class Rare(NamedTuple):
    """Why an indicator cannot stay.

    Attributes:
        held: the patients whom sums of products with the column's indicators would tell from all others.
        reference: True where these are the reference's, and the level joins them so that they are enough.
    """

    held: int
    reference: bool


def rare_indicators(column: Nominal, counts: Sequence[float] | FloatArray, minimum: int) -> dict[str, Rare]:
    """The indicators that must not stand in sums of products over some rows; their patients count with the reference.

    Every level that keeps its indicator holds ``minimum`` patients, and so do those who are left with the reference:
    products with 1 less all indicators are theirs. Where the reference and the rare levels hold fewer, the smallest
    other level joins them. Sites and the server decide alike, on the same totals.

    Args:
        counts: patients at each of the column's levels.
        minimum: fewest patients of a cell.
    """
    whole = round(float(sum(counts)))
    found: dict[str, Rare] = {}
    kept: dict[str, int] = {}
    for level, number in zip(column.levels, counts, strict=True):
        held = round(float(number))
        if level == column.reference:
            continue
        if min(held, whole - held) < minimum:
            found[indicator_name(column.name, level)] = Rare(min(held, whole - held), reference=False)
        else:
            kept[indicator_name(column.name, level)] = held
    while kept and (rest := whole - sum(kept.values())) < minimum:
        smallest = min(kept, key=lambda name: kept[name])
        found[smallest] = Rare(rest, reference=True)
        del kept[smallest]
    return found
