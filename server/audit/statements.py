"""Statements: the additive part of a transcript, put in the form in which totals can be subtracted from each other.

A statement says: over these rows, these arrays are sums over patients. Two statements with the same ``key`` ask the
same thing of different rows, so when one set of rows lies inside the other their difference is a statement as well.
Sums of columns are brought back from whatever standardisation and imputation the view applied to the raw columns,
because every view was prepared with constants of its own.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.codec import digest
from ctfed.federation.query import Query
from ctfed.federation.view import LocalTransform, Table, View
from ctfed.federation.view import Rows as Selection
from ctfed.statistics.cox.stratified import unpack_triangles
from ctfed.statistics.impute import Impute
from ctfed.statistics.indicators import Indicators
from server.audit.rows import Rows
from server.audit.transcript import Exchange, Transcript

SIZES, SUMS, PRODUCTS = "sizes", "column-sums", "products"
# Queries whose whole total is a sum over patients, each patient's part being a function of the patient's row alone.
ADDITIVE = (
    "counts-below",
    "section-counts",
    "level-counts",
    "time-counts",
    "scores-below",
    "evaluation-table",
    "group-counts",
    "risk-set-sums",
    "pooled-gradient",
    "covariance-products",
)


@dataclass(frozen=True, eq=False)
class Statement:
    """Sums over some rows.

    Attributes:
        rows: which patients.
        kind: of the query, or 'sizes' (patients, events), 'column-sums' (raw columns: count, sum, squares), or
            'products' (columns of the query's view: patients, sum (p,) and products (p, p) about zero).
        key: equal for statements that may be subtracted from each other.
        arrays: the sums.
        query: one that was asked for them; its view's choice of rows is not to be looked at.
        source: how it came about, in words.
    """

    rows: Rows
    kind: str
    key: str
    arrays: Mapping[str, FloatArray]
    query: Query
    source: str


def everybody(view: View) -> View:
    """The columns and transforms of a view, on all rows."""
    return view.on(Selection(split="all"))


def flattened(view: View) -> View:
    """The same view without views beside it that have all of its columns: one chain of transforms."""
    while not view.columns and len(view.beside) == 1:
        (inner,) = view.beside
        view = replace(inner, transforms=inner.transforms + view.transforms)
    return view


def coded(view: View) -> View:
    """The view from its 0/1 columns of nominal ones on, as if these were raw."""
    view = flattened(view)
    last = max((place for place, step in enumerate(view.transforms) if isinstance(step, Indicators)), default=-1)
    columns = replace(view, transforms=view.transforms[: last + 1]).features if last >= 0 else view.columns
    return replace(view, columns=columns, transforms=view.transforms[last + 1 :])


def raw(view: View) -> View:
    """The raw columns of a view and of those beside it, on all rows."""
    columns = dict.fromkeys(feature for inner in view.inner() for feature in inner.columns)
    return View(tuple(columns), split="all")


def statements(transcript: Transcript, run: str = "") -> list[Statement]:
    """All additive statements of a transcript, each once."""
    found: dict[tuple[Rows, str], Statement] = {}
    counts = _value_counts(transcript, run)
    for exchange in transcript.distinct:
        for one in _statements_of(exchange, transcript.folds, run, counts):
            found.setdefault((one.rows, one.key), one)
    return list(found.values())


def _value_counts(transcript: Transcript, run: str) -> dict[tuple[Rows, str], FloatArray]:
    """(rows, digest of the raw columns) -> (p + 1,) patients with a value in each, and all patients."""
    return {
        (Rows.of(one.query.view, transcript.folds, run), digest(raw(one.query.view))): np.append(
            one.total["count"], one.total["patients"]
        )
        for one in transcript.distinct
        if one.query.kind == "counts" and not one.query.view.transforms and not one.query.view.beside
    }


def _statements_of(
    exchange: Exchange, folds: int, run: str, counts: Mapping[tuple[Rows, str], FloatArray]
) -> Iterable[Statement]:
    query, total = exchange.query, exchange.total
    rows = Rows.of(query.view, folds, run)
    source = f"round {exchange.round + 1}, {query.kind} of the {rows.label(folds)}"
    sizes = {name: total[name] for name in ("patients", "events") if name in total}
    if sizes:
        yield Statement(rows, SIZES, f"{SIZES}:{'+'.join(sizes)}", sizes, query, source)
    if query.kind == "moments":
        sums = _column_sums(exchange, counts.get((rows, digest(raw(query.view)))))
        if sums is not None:
            yield Statement(rows, SUMS, f"{SUMS}:{digest(raw(query.view))}", sums, query, source)
            return
        about = {"count": total["count"], **_about_zero(exchange)}
        yield Statement(rows, query.kind, f"moments:{digest(everybody(query.view))}", about, query, source)
    elif query.kind == "cross-moments":
        yield Statement(
            rows, PRODUCTS, f"{PRODUCTS}:{digest(everybody(query.view))}", _products(exchange), query, source
        )
    elif query.kind == "time-counts":  # which columns its view names makes no difference
        grid = query.grid  # type: ignore[attr-defined]
        yield Statement(rows, query.kind, f"time-counts:{digest(grid)}", total, query, source)
    elif query.kind in ADDITIVE:
        key = digest(replace(query, view=everybody(query.view)))  # type: ignore[type-var]
        yield Statement(rows, query.kind, f"{query.kind}:{key}", total, query, source)


def _about_zero(exchange: Exchange) -> dict[str, FloatArray]:
    centre: FloatArray = exchange.query.centre  # type: ignore[attr-defined]
    total = exchange.total
    sums = total["sum"] + total["count"] * centre
    return {"sum": sums, "squares": total["squares"] + 2 * centre * sums - total["count"] * centre**2}


def _products(exchange: Exchange) -> dict[str, FloatArray]:
    centre: FloatArray = exchange.query.centre  # type: ignore[attr-defined]
    n, sums = exchange.total["patients"], exchange.total["sum"]
    (about,) = unpack_triangles(exchange.total["products"][None], centre.size)
    products = about + np.outer(sums, centre) + np.outer(centre, sums) + n * np.outer(centre, centre)
    return {"patients": n, "sum": sums + n * centre, "products": products}


@dataclass(frozen=True, eq=False)
class Affine:
    """What a chain of transforms does to each raw column by itself: present x to slope x + offset, missing to fill.

    Attributes:
        slope, offset, fill: (p,), in the order of the raw columns; ``fill`` is NaN where nothing is imputed.
        position: (p,) column of the view that each raw column becomes.
        added: the view's columns that are none of the raw ones (indicators of missing values).
    """

    slope: FloatArray
    offset: FloatArray
    fill: FloatArray
    position: tuple[int, ...]
    added: tuple[int, ...]


def affine(view: View) -> Affine | None:
    """What the view does to each raw column; None when it mixes columns or is not affine. Found by trying rows.

    A harmonized column is not: what it becomes depends on its batch.
    """
    view = flattened(view)
    if view.beside or any(isinstance(step, LocalTransform) for step in view.transforms):
        return None
    names = [feature.name for feature in view.columns]
    if not set(names) <= set(view.names):
        return None
    position = tuple(view.names.index(name) for name in names)
    rng = np.random.default_rng(0)
    tried = rng.uniform(-2, 2, len(names))
    zero, one, other = applied(view, np.stack([np.zeros(len(names)), np.ones(len(names)), tried]))[:, position]
    fill = _filled(view, len(names))[list(position)]
    if not np.allclose(zero + (one - zero) * tried, other, rtol=1e-9, atol=1e-12):
        return None
    added = tuple(index for index in range(view.width) if index not in position)
    return Affine(one - zero, zero, fill, position, added)


def applied(view: View, rows: FloatArray) -> FloatArray:
    """(n, q) what the view's transforms make of (n, p) made-up rows of raw values."""
    n = rows.shape[0]
    label = np.full(n, "")
    table = Table(view.columns, rows, np.ones(n), np.zeros(n, dtype=bool), label, label)
    for step in view.transforms:
        table = replace(table, values=step.apply(table), features=step.features(table.features))
    return table.values


def _filled(view: View, width: int) -> FloatArray:
    """(columns of the view,) what a row becomes that lacks a value in every column that is imputed; NaN elsewhere."""
    row = np.full(width, np.nan)
    imputed = [set(step.names) for step in view.transforms if isinstance(step, Impute)]
    names = [feature.name for feature in view.columns]
    known = [name not in set().union(*imputed) for name in names]
    row[known] = 0.0
    filled = applied(view, row[None, :])[0]
    filled[[view.names.index(name) for name, flag in zip(names, known, strict=True) if flag]] = np.nan
    return np.asarray(filled)


def _column_sums(exchange: Exchange, counts: FloatArray | None) -> dict[str, FloatArray] | None:
    """count, sum and squares of the raw columns' observed values; None when the view does not lead back to them."""
    view = flattened(exchange.query.view)
    step = affine(view)
    if step is None:
        return None
    sums = _about_zero(exchange)
    at = list(step.position)
    total, squares = sums["sum"][at], sums["squares"][at]
    if not view.transforms:
        return {"count": exchange.total["count"], "sum": total, "squares": squares}
    if counts is None or (step.slope == 0).any():
        return None
    missing = counts[-1] - counts[:-1]
    fill = np.where(missing > 0, step.fill, 0.0)
    if np.isnan(fill).any():
        return None
    shifted, shifted_squares = total - missing * fill, squares - missing * fill**2
    observed = counts[:-1]
    plain = (shifted - observed * step.offset) / step.slope
    plain_squares = (shifted_squares - 2 * step.offset * step.slope * plain - observed * step.offset**2) / step.slope**2
    return {"count": observed, "sum": plain, "squares": plain_squares}


def with_differences(given: Sequence[Statement]) -> list[Statement]:
    """The statements, and those that differences between two of them make: a set of rows without another inside it."""
    known = {(one.rows, one.key): one for one in given}
    by_key: dict[str, list[Statement]] = defaultdict(list)
    for one in given:
        by_key[one.key].append(one)
    for group in by_key.values():
        for part, whole in itertools.permutations(group, 2):
            if part.rows.inside(whole.rows):
                rest = difference(whole, part, whole.rows.minus(part.rows))
                known.setdefault((rest.rows, rest.key), rest)
    return list(known.values())


def difference(whole: Statement, part: Statement, rows: Rows) -> Statement:
    """What is left of ``whole`` when ``part`` is taken away."""
    arrays = {name: array - part.arrays[name] for name, array in whole.arrays.items()}
    return replace(whole, rows=rows, arrays=arrays, source=f"{whole.source} minus {part.source}")


def between_runs(later: Sequence[Statement], earlier: Sequence[Statement]) -> list[Statement]:
    """What two runs of one study tell together, when every patient of the later one was in the earlier one.

    Args:
        later, earlier: of transcripts made with different names of the run.
    """
    by_question = {(replace(one.rows, run=""), one.key): one for one in later}
    found = []
    for whole in earlier:
        part = by_question.get((replace(whole.rows, run=""), whole.key))
        if part is not None:
            found.append(difference(whole, part, replace(whole.rows, but=part.rows)))
    return found


def sizes(given: Iterable[Statement]) -> dict[Rows, int]:
    """Rows -> how many patients they are, wherever a statement tells it."""
    found: dict[Rows, int] = {}
    for one in given:
        if "patients" in one.arrays:
            found.setdefault(one.rows, round(float(one.arrays["patients"])))
        elif one.kind == "time-counts":
            found.setdefault(one.rows, round(float(one.arrays["counts"].sum())))
    return found
