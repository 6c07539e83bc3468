"""Imputation of missing values by federated medians and modes, learned on training rows and frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ctfed.federation.algorithm import Algorithm, Bundle
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError, Refusal
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import Feature, Table, Transform, View, check_cells
from ctfed.statistics.describe import Counts, Fitted
from ctfed.statistics.standardise import require_values

METHODS = ("median", "mode", "none")
MAX_CUTS = 20
RESOLUTION = 2.0**-16  # of the data dictionary's range, at which a bracket is fine enough


@register("counts-below")
@dataclass(frozen=True, eq=False)
class CountsBelow(Query):
    """Number of patients with x <= threshold, for each of q columns; missing values are not counted.

    Its total discloses those q counts; asked again with other thresholds, a cumulative histogram. ``medians`` keeps
    the bracket that it narrows at or above a smallest number of patients.

    Attributes:
        columns: q names of columns of the view.
        thresholds: (q,).
    """

    view: View
    columns: tuple[str, ...]
    thresholds: FloatArray

    def __post_init__(self) -> None:
        _positions(self.view, self.columns)
        if self.thresholds.shape != (len(self.columns),):
            raise ValueError(f"{len(self.columns)} columns, but thresholds of shape {self.thresholds.shape}")

    @property
    def layout(self) -> Layout:
        """One (q,) array of counts."""
        return {"below": Entry((len(self.columns),))}

    @property
    def exposure(self) -> Exposure:
        """One threshold of each column."""
        return Exposure(cuts={name: self.thresholds[k : k + 1] for k, name in enumerate(self.columns)})

    def answer(self, cohort: Cohort) -> Summary:
        """This site's counts."""
        values = self.view.table(cohort).values[:, _positions(self.view, self.columns)]
        return Summary(self.layout, {"below": (values <= self.thresholds).sum(axis=0)})


@register("level-counts")
@dataclass(frozen=True, eq=False)
class LevelCounts(Query):
    """Number of patients at each level of q categorical columns, all in one round; missing values are not counted.

    Its total discloses the q frequency tables.

    Attributes:
        columns: q names of columns of the view.
        levels: for each column its (L_j,) distinct values.
    """

    view: View
    columns: tuple[str, ...]
    levels: tuple[FloatArray, ...]

    def __post_init__(self) -> None:
        _positions(self.view, self.columns)
        if len(self.levels) != len(self.columns):
            raise ValueError(f"{len(self.columns)} columns, but levels for {len(self.levels)}")
        for name, levels in zip(self.columns, self.levels, strict=True):
            if levels.ndim != 1 or levels.size == 0 or np.unique(levels).size != levels.size:
                raise ValueError(f"the levels of column {name!r} must be distinct values in a flat array")

    @property
    def layout(self) -> Layout:
        """'level': sum of L_j counts, column after column; 'other': (q,) values that are none of the levels."""
        return {"level": Entry((sum(levels.size for levels in self.levels),)), "other": Entry((len(self.columns),))}

    @property
    def exposure(self) -> Exposure:
        """The largest frequency table; a level is a threshold that tells what lies on it."""
        cells = max((levels.size for levels in self.levels), default=0)
        return Exposure(cells=cells, cuts=dict(zip(self.columns, self.levels, strict=True)))

    def answer(self, cohort: Cohort) -> Summary:
        """This site's counts."""
        values = self.view.table(cohort).values[:, _positions(self.view, self.columns)].T
        check_cells(values.shape[1], max((levels.size for levels in self.levels), default=0))
        counts = [(x[:, None] == levels).sum(axis=0) for x, levels in zip(values, self.levels, strict=True)]
        present = (~np.isnan(values)).sum(axis=1)
        other = present - np.array([count.sum() for count in counts], dtype=np.int64)
        return Summary(self.layout, {"level": np.concatenate([np.zeros(0), *counts]), "other": other})


def _positions(view: View, columns: tuple[str, ...]) -> list[int]:
    names = {name: index for index, name in enumerate(view.names)}
    for column in columns:
        if column not in names:
            raise ValueError(f"the view has no column {column!r}")
    if len(set(columns)) != len(columns):
        raise ValueError("a column is named twice")
    return [names[column] for column in columns]


@register("impute")
@dataclass(frozen=True, eq=False)
class Impute(Transform):
    """NaN becomes the column's fitted value; a 0/1 column 'NAME missing' says where, for the names in ``indicators``.

    Attributes:
        names: the imputed columns; every other column must be complete.
        values: one per name.
        indicators: columns whose missingness is kept; appended in this order.
    """

    names: tuple[str, ...]
    values: FloatArray
    indicators: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.names),):
            raise ValueError(f"{len(self.names)} columns, but values of shape {self.values.shape}")
        if len(set(self.names)) != len(self.names) or len(set(self.indicators)) != len(self.indicators):
            raise ValueError("imputation names a column twice")

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """The same columns, then one per indicator."""
        names = [feature.name for feature in features]
        unknown = sorted(set(self.names).union(self.indicators).difference(names))
        if unknown:
            raise ValueError(f"imputation was fitted on other columns: there is no {unknown[0]!r}")
        added = tuple(Feature(f"{name} missing") for name in self.indicators)
        clash = sorted({feature.name for feature in added}.intersection(names))
        if clash:
            raise ValueError(f"there is a column {clash[0]!r} already")
        return features + added

    def apply(self, table: Table) -> FloatArray:
        """(n, p + indicators) complete values.

        Raises:
            Refusal: rule 'missing-value' when a column that is not imputed lacks values.
        """
        position = {feature.name: index for index, feature in enumerate(table.features)}
        missing = np.isnan(table.values)
        fill = np.full(len(table.features), np.nan)
        fill[[position[name] for name in self.names]] = self.values
        filled = np.where(missing, fill, table.values)
        lacking = np.isnan(filled).sum(axis=0)
        if lacking.any():
            worst = int(np.argmax(lacking))
            name = table.features[worst].name
            raise Refusal("missing-value", f"column {name!r} lacks {lacking[worst]} values and is not imputed")
        return np.hstack([filled, missing[:, [position[name] for name in self.indicators]].astype(np.float64)])


@dataclass(frozen=True, eq=False)
class Medians:
    """Medians of q columns from counts.

    Attributes:
        names: of the columns.
        count: (q,) patients with a value.
        value: (q,) interpolated inside the bracket.
        low, high: (q,) the bracket: the pooled median lies in [low, high].
        held: (q,) patients inside the bracket.
    """

    names: tuple[str, ...]
    count: FloatArray
    value: FloatArray
    low: FloatArray
    high: FloatArray
    held: FloatArray


def medians(view: View, ranges: Mapping[str, tuple[float, float]], minimum: int) -> Algorithm[Medians]:
    """Medians of the columns named in ``ranges``, all at once, by bisection of each column's [low, high] over counts.

    Args:
        ranges: lowest and highest possible value of each column, from the study's data dictionary. Values outside
            are counted at the ends.
        minimum: patients that a bracket must hold. A bracket that holds fewer than twice as many is not cut, because
            one of its halves would hold fewer; where a cut nevertheless leaves the median's side with fewer, the
            bracket stays as it was. The side that the median is not in may hold any number.

    Raises:
        CtfedError: when a column has no value at any site, or a range is not one.
    """
    names = tuple(ranges)
    counts: Total = yield Counts(view)
    found = counts["count"][_positions(view, names)]
    require_values(names, found)
    return (yield from _bisect(view, found, ranges, minimum))


@dataclass(frozen=True)
class _Bracket:
    """(low, high] around the median of one column, and how many of its values are <= each end."""

    low: float
    high: float
    below: int
    until: int
    half: float
    tolerance: float
    middle: float | None = None  # a cut with exactly half of the values on either side
    final: bool = False

    @property
    def held(self) -> int:
        return self.until - self.below

    @property
    def cut(self) -> float:
        return self.low + (self.high - self.low) / 2

    @property
    def value(self) -> float:
        """The median if values spread evenly inside the bracket."""
        if self.middle is not None:
            return self.middle
        return self.low + (self.high - self.low) * (self.half - self.below) / self.held

    def divisible(self, minimum: int) -> bool:
        """True while a cut may leave at least ``minimum`` patients on both sides."""
        return not self.final and self.held >= 2 * minimum and self.high - self.low > self.tolerance

    def after(self, below_cut: int, minimum: int) -> _Bracket:
        """The side of the cut that holds the median, or this bracket for good."""
        if below_cut == self.half:
            return replace(self, middle=self.cut, final=True)
        if below_cut < self.half:
            side = replace(self, low=self.cut, below=below_cut)
        else:
            side = replace(self, high=self.cut, until=below_cut)
        return side if side.held >= minimum else replace(self, final=True)


def _bisect(
    view: View, counts: FloatArray, ranges: Mapping[str, tuple[float, float]], minimum: int
) -> Algorithm[Medians]:
    if minimum < 1:
        raise CtfedError(f"the smallest number of patients in a bracket must be >= 1, found {minimum}")
    brackets: dict[str, _Bracket] = {}
    for (name, (low, high)), count in zip(ranges.items(), counts, strict=True):
        if not (low <= high and np.isfinite(high - low)):
            raise CtfedError(f"column {name!r}: the data dictionary's range [{low}, {high}] is not a finite range")
        brackets[name] = _Bracket(low, high, 0, round(count), count / 2, (high - low) * RESOLUTION)
    for _ in range(MAX_CUTS):
        asked = tuple(name for name, bracket in brackets.items() if bracket.divisible(minimum))
        if not asked:
            break
        total: Total = yield CountsBelow(view, asked, frozen([brackets[name].cut for name in asked]))
        for name, below in zip(asked, total["below"], strict=True):
            brackets[name] = brackets[name].after(round(below), minimum)
    done = brackets.values()
    return Medians(
        names=tuple(brackets),
        count=counts,
        value=np.array([bracket.value for bracket in done]),
        low=np.array([bracket.low for bracket in done]),
        high=np.array([bracket.high for bracket in done]),
        held=np.array([bracket.held for bracket in done], dtype=np.float64),
    )


@dataclass(frozen=True, eq=False)
class Imputed(Fitted):
    """The imputed view, and what was learned.

    Attributes:
        missing: patients of the fitted rows without a value, by column.
        values: what replaces a missing value, by imputed column.
        medians: how narrowly the medians are known.
    """

    missing: Mapping[str, int]
    values: Mapping[str, float]
    medians: Medians


def impute(
    view: View,
    methods: Mapping[str, str],
    ranges: Mapping[str, tuple[float, float]],
    levels: Mapping[str, Sequence[float]],
    indicators: Sequence[str],
    minimum: int,
) -> Algorithm[Imputed]:
    """Fit on the rows of ``view``: one round, then one for each halving of the medians' brackets (16 as a rule).

    Args:
        methods: 'median', 'mode' or 'none' for every column of the view. 'none' states that nothing is missing.
        ranges: lowest and highest possible value, for the columns with method 'median'.
        levels: the possible values, for the columns with method 'mode'. Of equally frequent ones the first is taken.
        indicators: columns that also get a 0/1 column 'NAME missing'.
        minimum: patients that a median's bracket must hold, see ``medians``.

    Raises:
        CtfedError: when a column has no value at any site, when values are missing where the method is 'none', or
            when the arguments do not fit the view.
    """
    _check(view, methods, ranges, levels)
    by = {method: tuple(name for name in view.names if methods[name] == method) for method in METHODS}
    tables = LevelCounts(view, by["mode"], tuple(frozen(levels[name]) for name in by["mode"]))
    counts, frequencies = yield Bundle((Counts(view), tables))
    require_values(view.names, counts["count"])
    missing = {
        name: round(counts.number("patients") - count) for name, count in zip(view.names, counts["count"], strict=True)
    }
    for name in by["none"]:
        if missing[name]:
            raise CtfedError(f"column {name!r} lacks {missing[name]} values, but its imputation method is 'none'")
    asked = {name: ranges[name] for name in by["median"]}
    found = yield from _bisect(view, counts["count"][_positions(view, by["median"])], asked, minimum)
    values = dict(zip(found.names, found.value.tolist(), strict=True)) | _modes(tables, frequencies)
    names = tuple(name for name in view.names if name in values)
    step = Impute(names, frozen([values[name] for name in names]), tuple(indicators))
    warnings = _warnings(tables, frequencies, found, minimum)
    return Imputed(view.then(step), warnings, missing, values, found)


def _check(
    view: View,
    methods: Mapping[str, str],
    ranges: Mapping[str, tuple[float, float]],
    levels: Mapping[str, Sequence[float]],
) -> None:
    for name in view.names:
        method = methods.get(name)
        if method not in METHODS:
            raise CtfedError(f"column {name!r}: the imputation method must be one of {METHODS}, found {method!r}")
        if method == "median" and name not in ranges:
            raise CtfedError(f"column {name!r}: a median needs the range of possible values")
        if method == "mode" and not levels.get(name):
            raise CtfedError(f"column {name!r}: a mode needs the possible values")


def _modes(tables: LevelCounts, frequencies: Total) -> dict[str, float]:
    ends = np.cumsum([levels.size for levels in tables.levels])
    counts = np.split(frequencies["level"], ends[:-1]) if tables.columns else []
    return {
        name: float(levels[int(np.argmax(count))])
        for name, levels, count in zip(tables.columns, tables.levels, counts, strict=True)
    }


def _warnings(tables: LevelCounts, frequencies: Total, found: Medians, minimum: int) -> tuple[str, ...]:
    strange = [
        f"column {name!r}: {round(other)} patients have a value that is none of its levels"
        for name, other in zip(tables.columns, frequencies["other"], strict=True)
        if other
    ]
    coarse = [
        f"column {name!r}: only {round(count)} patients have a value, too few for a median; the middle of the range "
        f"stands in for it"
        for name, count in zip(found.names, found.count, strict=True)
        if count < 2 * minimum
    ]
    return tuple(strange + coarse)
