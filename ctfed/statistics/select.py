"""Feature selection from sums: columns without spread go, and of two columns that say the same, one.

Everything is decided at the server from one total of cross-moments per view, so a column is kept or dropped everywhere
alike. ``gather`` asks many views (folds, groups of features) in the same two rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import BoolArray, FloatArray, IntArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import Feature, Table, Transform, View
from ctfed.statistics.cox.stratified import require_complete, triangle_size, unpack_triangles
from ctfed.statistics.describe import Fitted, Moments, centred_scale, check_centred, spread_exponents
from ctfed.statistics.standardise import CONSTANT

MOST_COLUMNS = 2000  # 32 MB a site; wider views are projected (``ctfed.statistics.project``)
DECIMALS = 10  # of |r|, so that the last bit of a sum cannot change what is kept
VARIANTS = ("exact", "fast")


@register("select")
@dataclass(frozen=True)
class Select(Transform):
    """Some columns of a view, in the given order.

    Attributes:
        names: of the columns that stay.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError("a selection names a column twice")

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """The chosen columns with their scales."""
        found = {feature.name: feature for feature in features}
        unknown = [name for name in self.names if name not in found]
        if unknown:
            raise ValueError(f"the selection was made among other columns: there is no {unknown[0]!r}")
        return tuple(found[name] for name in self.names)

    def apply(self, table: Table) -> FloatArray:
        """(n, chosen) their values."""
        place = {feature.name: index for index, feature in enumerate(table.features)}
        return table.values[:, [place[name] for name in self.names]]


@register("cross-moments")
@dataclass(frozen=True, eq=False)
class CrossMoments(Query):
    """Sum of (x - c) and of (x - c)(x - c)' over the patients, for the p columns of a view without missing values.

    The total discloses the number of patients, the p means and the p (p + 1) / 2 entries of the covariance matrix. With
    p >= n patients that would determine the rows up to a rotation, hence p counts as the number of parameters.

    Attributes:
        centre: (p,) c.
        exponents: power of two that |x - c| is about, per column; empty for the columns' declared magnitudes.
    """

    view: View
    centre: FloatArray
    exponents: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.view.width > MOST_COLUMNS:
            raise ValueError(
                f"cross-moments of {self.view.width} columns, at most {MOST_COLUMNS}; project them instead"
            )
        check_centred(self.view, self.centre, self.exponents)

    @property
    def layout(self) -> Layout:
        """patients (), sum (p,), products (p (p + 1) / 2,): the upper triangle, row by row."""
        scale = centred_scale(self.view, self.exponents)
        return {
            "patients": Entry(()),
            "sum": Entry((self.view.width,), scale),
            "products": Entry((triangle_size(self.view.width),), _triangle_of(scale)),
        }

    @property
    def exposure(self) -> Exposure:
        """A covariance matrix is what a regression on p columns asks for."""
        return Exposure(parameters=self.view.width)

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums.

        Raises:
            Refusal: rule 'missing-values' when a column lacks a value.
        """
        table = self.view.table(cohort)
        require_complete(table)
        x = table.values - self.centre
        sums = np.ascontiguousarray(x.T).sum(axis=1)  # numpy sums pairwise along the last axis
        products = (x.T @ x)[np.triu_indices(self.view.width)]
        return Summary(self.layout, {"patients": float(table.rows), "sum": sums, "products": products})


def _triangle_of(scale: IntArray) -> Callable[[], IntArray]:
    def make() -> IntArray:
        rows, columns = np.triu_indices(scale.size)
        return np.asarray(scale[rows] + scale[columns])

    return make


@dataclass(frozen=True, eq=False)
class Correlations:
    """Means, spreads and correlations of the p columns of a view.

    Attributes:
        names: of the columns.
        patients: of the view.
        mean: (p,).
        sd: (p,) population standard deviation (ddof 0).
        constant: (p,) True where the spread is rounding alone.
        r: (p, p) Pearson correlations; 0 between a constant column and any other.
    """

    names: tuple[str, ...]
    patients: int
    mean: FloatArray
    sd: FloatArray
    constant: BoolArray
    r: FloatArray


def correlations(view: View) -> Algorithm[Correlations]:
    """Correlations of all columns of a view in two rounds: the means, then the products about them.

    Equal to the pooled Pearson correlations for any split of the rows, also where a spread is a billionth of its mean
    or a column is of magnitude 1e24: products are carried at the scale of the two spreads.

    Raises:
        CtfedError: when the view holds no patient, or a column lacks a value.
    """
    first: Total = yield Moments(view, frozen(np.zeros(view.width)))
    n = first.number("patients")
    if n == 0:
        raise CtfedError("the view holds no patient, so its columns have no correlations")
    lacking = np.flatnonzero(first["count"] < n)
    if lacking.size:
        j = int(lacking[0])
        raise CtfedError(f"column {view.names[j]!r} lacks {n - first['count'][j]:.0f} values; impute before selecting")
    centre = first["sum"] / n
    total: Total = yield CrossMoments(view, frozen(centre), spread_exponents(first, view))
    shift = total["sum"] / n
    products = unpack_triangles(total["products"][None, :], view.width)[0] - n * np.outer(shift, shift)
    mean, sd = centre + shift, np.sqrt(np.maximum(np.diag(products), 0.0) / n)
    constant = np.asarray(sd <= CONSTANT * np.abs(mean))
    scale = np.where(constant, 1.0, sd)
    r = products / n / scale[:, None] / scale
    r[constant] = r[:, constant] = 0.0
    np.fill_diagonal(r, 1.0)
    return Correlations(view.names, round(n), mean, sd, constant, np.clip(r, -1.0, 1.0))


@dataclass(frozen=True)
class Filters:
    """What makes a column superfluous.

    Near-zero variance is judged without counts of values. A column of many values has it when its standard deviation is
    at most ``spread`` times its absolute mean. A column of few values, all multiples of a known step, has it when its
    variance is below step^2 rare (1 - rare): then its most frequent value is certainly shared by more than 1 - rare of
    the patients, because a smaller share would leave more variance. For a 0/1 column that is the rule itself (rare 0.05
    is caret's frequency ratio of 95/5), for one of more levels it never drops too much.

    Attributes:
        threshold: of two columns with |r| above it, one goes; 1 keeps all.
        spread: see above.
        steps: smallest distance of two values, of the columns of few values (1 for a 0/1 column).
        rare: see above.
        variant: of ``superfluous``.
    """

    threshold: float = 0.9
    spread: float = 1e-4
    steps: Mapping[str, float] = field(default_factory=dict)
    rare: float = 0.05
    variant: str = "exact"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"the threshold of |r| must lie in (0, 1], found {self.threshold}")
        if not (0 <= self.spread < 1 and 0 <= self.rare < 0.5):
            raise ValueError("the spread must lie in [0, 1) and the rare share in [0, 0.5)")
        if self.variant not in VARIANTS:
            raise ValueError(f"the variant must be one of {VARIANTS}, found {self.variant!r}")
        if not all(step > 0 for step in self.steps.values()):
            raise ValueError("a step between two values must be > 0")


@dataclass(frozen=True)
class Drop:
    """Why a column was dropped.

    Attributes:
        reason: 'constant', 'near-zero variance' or 'correlated'.
        partner: the column that says the same, for a correlated one.
        r: their correlation.
    """

    reason: str
    partner: str = ""
    r: float = 0.0


@dataclass(frozen=True, eq=False)
class Selection(Fitted):
    """The view with the columns that are kept.

    Attributes:
        considered: names of all columns, in the view's order.
        names: of those that are kept, in the same order.
        dropped: why the others are not.
        correlations: on which the choice rests.
    """

    considered: tuple[str, ...]
    names: tuple[str, ...]
    dropped: Mapping[str, Drop]
    correlations: Correlations


def select(view: View, filters: Filters | None = None) -> Algorithm[Selection]:
    """Drop columns without variance, then correlated ones, on the rows of ``view``; in two rounds.

    Raises:
        CtfedError: see ``correlations``.
    """
    found = yield from correlations(view)
    names, dropped = kept(found, filters or Filters())
    warnings = () if names else ("no column is left after selection",)
    return Selection(view.then(Select(names)), warnings, view.names, names, dropped, found)


def kept(found: Correlations, filters: Filters) -> tuple[tuple[str, ...], dict[str, Drop]]:
    """The columns that pass the filters, in their order, and why the others do not."""
    dropped = {name: Drop("constant") for name, flat in zip(found.names, found.constant, strict=True) if flat}
    for name, mean, sd in zip(found.names, found.mean, found.sd, strict=True):
        if name not in dropped and _near_zero(name, float(mean), float(sd), filters):
            dropped[name] = Drop("near-zero variance")
    varying = [index for index, name in enumerate(found.names) if name not in dropped]
    names = tuple(found.names[index] for index in varying)
    for index, partner in superfluous(found.r[np.ix_(varying, varying)], names, filters.threshold, filters.variant):
        r = float(found.r[varying[index], varying[partner]])
        dropped[names[index]] = Drop("correlated", names[partner], r)
    return tuple(name for name in found.names if name not in dropped), dropped


def _near_zero(name: str, mean: float, sd: float, filters: Filters) -> bool:
    step = filters.steps.get(name)
    if step is not None:
        return sd < step * float(np.sqrt(filters.rare * (1 - filters.rare)))
    return sd <= filters.spread * abs(mean)


def superfluous(r: FloatArray, names: Sequence[str], threshold: float, variant: str = "exact") -> list[tuple[int, int]]:
    """Which of p columns to drop so that no two with |r| > threshold are left: pairs (dropped, because of).

    The rule is that of caret's ``findCorrelation`` (R package, 6.0), with |r| rounded to ten decimals and ties broken
    by name where caret goes by position; where nothing is tied, the same columns are dropped.

    'exact' (caret's ``exact = TRUE``, its default below 100 columns): columns in falling order of their mean |r| with
    the others; each is compared with those behind it, and of two above the threshold the first goes if its mean |r|
    with the columns that are left exceeds the mean of all |r| that are left outside the second one's row, else the
    second.

    'fast' (``exact = FALSE``): of every two above the threshold, whatever else has been dropped, the one with the
    larger mean |r| with all columns goes; of two equal ones, the earlier name.
    """
    if variant not in VARIANTS:
        raise ValueError(f"the variant must be one of {VARIANTS}, found {variant!r}")
    p = len(names)
    size = np.rint(np.abs(r) * 10.0**DECIMALS).astype(np.int64)  # whole numbers: their sums are the same in any order
    np.fill_diagonal(size, 0)
    by_name = np.array(sorted(range(p), key=lambda index: names[index]), dtype=np.int64)
    order = by_name[np.argsort(-size.sum(axis=1)[by_name], kind="stable")]
    size = size[np.ix_(order, order)]
    limit = round(threshold * 10.0**DECIMALS)
    firsts, seconds = np.nonzero(np.triu(size > limit, 1))  # row by row
    pairs = list(zip(firsts.tolist(), seconds.tolist(), strict=True))
    # 'fast': of a pair, the one that comes first has the larger mean, or an equal one and the earlier name
    found = _exact(size, pairs) if variant == "exact" else dict(reversed(pairs))
    return [(int(order[index]), int(order[partner])) for index, partner in found.items()]


def _exact(size: IntArray, pairs: Sequence[tuple[int, int]]) -> dict[int, int]:
    left = size.shape[0]
    rows, whole = size.sum(axis=1), int(size.sum())
    dropped: dict[int, int] = {}
    for i, j in pairs:
        if i in dropped or j in dropped:
            continue
        # mean of row i over left - 1 entries, against all rows but j, of left - 1 entries each
        first_goes = int(rows[i]) * (left - 1) > whole - int(rows[j])
        gone, partner = (i, j) if first_goes else (j, i)
        dropped[gone] = partner
        whole -= 2 * int(rows[gone])
        rows = rows - size[:, gone]
        left -= 1
    return dropped


@dataclass(frozen=True)
class StableSelection:
    """Columns that are selected again and again.

    Attributes:
        names: chosen in more than ``share`` of the folds, in the order in which the folds considered them.
        chosen: for every column that was considered, in how many folds it was kept.
        folds: how many there were.
        share: see above.
    """

    names: tuple[str, ...]
    chosen: Mapping[str, int]
    folds: int
    share: float

    @property
    def step(self) -> Select:
        """The selection as a transform."""
        return Select(self.names)


def stable_selection(selections: Sequence[Selection], share: float = 0.5) -> StableSelection:
    """The columns kept in more than ``share`` of the selections (one per fold).

    Raises:
        CtfedError: when there is no selection, or they considered different columns.
    """
    if not selections:
        raise CtfedError("a stable selection needs at least one fold's")
    if not 0 <= share < 1:
        raise CtfedError(f"the share of folds must lie in [0, 1), found {share}")
    considered = selections[0].considered
    if any(set(selection.considered) != set(considered) for selection in selections):
        raise CtfedError("the folds chose among different columns")
    chosen = {name: sum(name in selection.names for selection in selections) for name in considered}
    names = tuple(name for name, count in chosen.items() if count > share * len(selections))
    return StableSelection(names, chosen, len(selections), share)
