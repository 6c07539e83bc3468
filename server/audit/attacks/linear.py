"""Linear system: all totals that are linear in the patients' values, given outcomes, sites, folds and missing values.

Column sums over nested rows, the Cox gradient at beta = 0 (its weights depend on the order of the times alone), sums
over time bins at beta = 0 and the gradient of pooled risk sets there are equations A x = b for every raw column. A
value is determined when its unit vector lies in the row space of A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray
from ctfed.federation.view import View
from ctfed.statistics.cox.likelihood import strata_of, weights
from ctfed.statistics.cox.pooled import PooledGradient, RiskSetSums
from ctfed.statistics.cox.stratified import CoxDerivatives
from server.audit.knowledge import Design, Known, design, whole_table
from server.audit.patients import Candidate
from server.audit.rows import Rows
from server.audit.statements import SUMS, raw, statements
from server.audit.transcript import Exchange, Transcript

DETERMINED = 1e-9  # how near to 1 a unit vector's part in the row space must be


@dataclass(eq=False)
class _System:
    """Equations of one raw column: (n,) weights and a number each."""

    weights: list[FloatArray] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Solved:
    """What the linear system gives.

    Attributes:
        candidates: patients of whom every value is determined.
        equations, rank: the most of any column.
        unknown: patients, the number of unknowns of a column.
        values: single values that are determined, over all columns.
        left_out: linear totals that join several columns and are not used.
    """

    candidates: tuple[Candidate, ...]
    equations: int
    rank: int
    unknown: int
    values: int
    left_out: int


def solve_linear(transcript: Transcript, known: Known, view: View) -> Solved:
    """Solve what is linear.

    Args:
        transcript: of the run.
        known: the attacker's side knowledge.
        view: names the raw columns.
    """
    systems = [_System() for _ in known.columns]
    left_out = _column_sums(transcript, known, systems)
    for exchange in transcript.distinct:
        left_out += _gradients(exchange, transcript.folds, known, systems)
    values = np.full((known.patients, len(systems)), np.nan)
    for column, system in enumerate(systems):
        values[:, column] = _determined(system, ~known.missing[:, column])
    complete = (np.isfinite(values) | known.missing).all(axis=1) & ~known.missing.all(axis=1)
    plain = raw(view)
    candidates = [Candidate(plain, values[i], f"patient {i} of the linear system") for i in np.flatnonzero(complete)]
    ranks = [int(np.linalg.matrix_rank(np.stack(s.weights))) if s.weights else 0 for s in systems]
    most = max((len(system.weights) for system in systems), default=0)
    return Solved(
        tuple(candidates), most, max(ranks, default=0), known.patients, int(np.isfinite(values).sum()), left_out
    )


def _determined(system: _System, observed: BoolArray) -> FloatArray:
    """(n,) the determined values of a column, NaN elsewhere."""
    found = np.full(observed.size, np.nan)
    if not system.weights:
        return found
    a = np.stack(system.weights)[:, observed]
    size = np.linalg.norm(a, axis=1)
    kept = size > 1e-12
    a, b = a[kept] / size[kept, None], np.array(system.sums)[kept] / size[kept]
    _, singular, right = np.linalg.svd(a, full_matrices=False)
    inside = right[singular > 1e-10 * singular.max(initial=0.0)]
    share = (inside**2).sum(axis=0)
    solution, *_ = np.linalg.lstsq(a, b, rcond=1e-10)
    found[observed] = np.where(share > 1 - DETERMINED, solution, np.nan)
    return found


def _column_sums(transcript: Transcript, known: Known, systems: Sequence[_System]) -> int:
    for one in statements(transcript):
        if one.kind != SUMS:
            continue
        names = [feature.name for feature in one.query.view.columns]
        member = known.chosen(one.rows).astype(np.float64)
        for place, name in enumerate(names):
            if name in known.columns:
                system = systems[known.columns.index(name)]
                system.weights.append(member)
                system.sums.append(float(one.arrays["sum"][place]))
    return 0


def _gradients(exchange: Exchange, folds: int, known: Known, systems: Sequence[_System]) -> int:
    """Take in what is linear of one exchange; returns how many linear totals were left out."""
    query, total = exchange.query, exchange.total
    if not isinstance(query, CoxDerivatives | RiskSetSums | PooledGradient):
        return 0
    step = design(query.view, known)
    if step is None:
        return 0
    rows = known.chosen(Rows.of(query.view, folds))
    at_zero = np.flatnonzero((query.coefficients == 0).all(axis=1))
    if isinstance(query, CoxDerivatives):
        for index in at_zero:
            weight = _cox_weights(query, known, rows, step)
            _add(systems, step, weight, total["gradient"][index])
        return 0
    bins = query.grid.bin_of(known.time)
    if isinstance(query, PooledGradient):
        for index in at_zero:
            expected = query.seen[bins, index] - known.event * query.spared[bins, index]
            _add(systems, step, rows * (known.event - expected), total["gradient"][index])
        return 0
    for index in at_zero:
        if index in query.means:
            place = query.means.index(index)
            for which in range(query.grid.bins):
                member = (rows & (bins == which)).astype(np.float64)
                _add(systems, step, member, total["leaving_x"][place, which])
                if "dying_x" in total:
                    _add(systems, step, member * known.event, total["dying_x"][place, which])
    return int(query.coefficients.any(axis=1).sum())  # the sums of x beta over all events


def _cox_weights(query: CoxDerivatives, known: Known, rows: BoolArray, step: Design) -> FloatArray:
    """(n,) what multiplies each patient's row in the gradient at zero: the martingale residual."""
    index = np.arange(known.patients, dtype=np.float64)[:, None]
    view = View(query.view.columns[:1], split="all")
    table = whole_table(known, rows, index, view)
    found = np.zeros(known.patients)
    order = np.lexsort((~table.event, -table.time, table.stratum))
    people = np.flatnonzero(rows)[order]
    start = 0
    for stratum in strata_of(replace(table, values=table.values.copy()), query.ties):
        size = stratum.x.shape[0]
        members = people[start : start + size]
        start += size
        if stratum.died.size:
            residual = -weights(stratum, np.zeros((1, 1))).weight[:, 0]
            residual[stratum.died] += 1
            found[members] = residual
    return found


def _add(systems: Sequence[_System], step: Design, weight: FloatArray, sums: FloatArray) -> None:
    constant = weight @ step.constant
    for column, position in enumerate(step.position):
        systems[column].weights.append(weight * step.slope[column])
        systems[column].sums.append(float(sums[position] - constant[position]))
