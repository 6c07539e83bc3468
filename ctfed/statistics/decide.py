"""Decision curves: the net benefit of treating whoever has a predicted risk above a threshold, from sums.

At threshold probability p, with a and b the weights of a case and a control at the horizon (see ``horizons``) and n all
patients:

    net benefit = sum over F > p of a / n  -  p / (1 - p) * sum over F > p of b / n.

F > p is score > log(-log(1 - p)) - log H0(h), so a threshold is a cut of the score. Two ways:

* ``decision_curve`` asks the sums at given thresholds: exact given G;
* ``table_benefit`` asks nothing: the edges of an ``EvaluationTable`` that was told are thresholds too.

References: Vickers, Elkin 2006, Medical Decision Making 26:565; Vickers, Cronin, Elkin, Gonen 2008, BMC Medical
Informatics and Decision Making 8:53 (censored data).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import View
from ctfed.statistics.discriminate import censoring_curve
from ctfed.statistics.evaluation_tables import ScoreTable
from ctfed.statistics.horizons import FollowUp, HorizonWeights
from ctfed.statistics.scores import require_scores


@register("decision-sums")
@dataclass(frozen=True, eq=False)
class DecisionSums(Query):
    """Patients, and weights of cases and controls, above each of P cuts of the score of m models, at one horizon.

    above = number, cases = sum a, controls = sum b, case_squares = sum a^2, control_squares = sum b^2 over the patients
    with score > cut; patients, all_cases, all_controls over everybody. The total discloses those 3 + 5 m P numbers.

    Attributes:
        view: rows and scores.
        weights: of one horizon.
        cuts: (m, P), not decreasing along P.
    """

    view: View
    weights: HorizonWeights
    cuts: FloatArray

    def __post_init__(self) -> None:
        if len(self.weights.horizons) != 1:
            raise ValueError(f"one horizon, found {len(self.weights.horizons)}")
        if self.cuts.ndim != 2 or self.cuts.shape[0] != self.view.width:
            raise ValueError(f"cuts must be ({self.view.width}, P), found {self.cuts.shape}")
        if not (np.diff(self.cuts, axis=1) >= 0).all():
            raise ValueError("the cuts of a model must not decrease")

    @property
    def layout(self) -> Layout:
        """patients, all_cases, all_controls (); the five sums (m, P)."""
        shape = self.cuts.shape
        whole = {name: Entry(()) for name in ("patients", "all_cases", "all_controls")}
        return {**whole, **{name: Entry(shape) for name in _SUMS}}

    @property
    def exposure(self) -> Exposure:
        """A table of time bins by score bins, if asked with enough different weights."""
        cuts = dict(zip(self.view.names, self.cuts, strict=True))
        cells = self.weights.cells * (self.cuts.shape[1] + 1)
        return Exposure(cells=cells, cuts=cuts, times=self.weights.edges, plain=False)

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        table = self.view.table(cohort)
        require_scores(table)
        case, control = (part[0] for part in self.weights.of(table))
        weights = np.stack([np.ones(table.rows), case, control, case**2, control**2])
        sums = np.zeros((len(_SUMS), *self.cuts.shape))
        for model, cuts in enumerate(self.cuts):
            order = np.argsort(table.values[:, model], kind="stable")
            first = np.searchsorted(table.values[order, model], cuts, side="right")
            behind = np.concatenate([np.cumsum(weights[:, order[::-1]], axis=1)[:, ::-1], np.zeros((5, 1))], axis=1)
            sums[:, model] = behind[:, first]
        whole = {"patients": table.rows, "all_cases": case.sum(), "all_controls": control.sum()}
        return Summary(self.layout, {**whole, **dict(zip(_SUMS, sums, strict=True))})


_SUMS = ("above", "cases", "controls", "case_squares", "control_squares")


@dataclass(frozen=True, eq=False)
class DecisionCurve:
    """Net benefit of m models at P thresholds, per patient.

    Attributes:
        horizon: in the study's time unit.
        thresholds: (m, P) threshold probabilities.
        treated: (m, P) share of the patients with a risk above the threshold.
        benefit: (m, P) net benefit; that of treating nobody is 0.
        error: (m, P) its standard error (the weights taken as known); NaN where it was not asked.
        treat_all: (m, P) net benefit of treating everybody.
    """

    horizon: float
    thresholds: FloatArray
    treated: FloatArray
    benefit: FloatArray
    error: FloatArray
    treat_all: FloatArray

    @property
    def avoided(self) -> FloatArray:
        """(m, P) net treatments avoided per patient, compared to treating everybody."""
        return (self.benefit - self.treat_all) * (1 - self.thresholds) / self.thresholds


def decision_curve(
    view: View, followed: FollowUp, hazard: FloatArray, horizon: float, thresholds: Sequence[float], *, minimum: int
) -> Algorithm[DecisionCurve]:
    """Net benefit at given thresholds in one round.

    Args:
        view: rows and m scores.
        followed: of the same rows; its time bins are merged further, so that each cell by time and threshold holds
            ``minimum`` patients on average.
        hazard: (m,) cumulative baseline hazard at the horizon.
        horizon: an edge of the grid of ``followed``.
        thresholds: (P,) increasing, inside (0, 1).
        minimum: the fewest patients of a cell on average; 0 merges nothing.

    Raises:
        CtfedError: when there are too many thresholds for the number of patients.
    """
    p = np.asarray(thresholds, dtype=np.float64)
    if p.size == 0 or not ((p > 0).all() and (p < 1).all() and (np.diff(p) > 0).all()):
        raise ValueError(f"thresholds must increase inside (0, 1), found {list(thresholds)}")
    if minimum * (p.size + 1) > followed.patients:
        most = int(followed.patients // minimum) - 1
        raise CtfedError(
            f"{p.size} thresholds for {followed.patients:.0f} patients with {minimum} in a cell; at most {most}"
        )
    weights = followed.coarser(minimum * (p.size + 1), [horizon]).weights
    cuts = np.log(-np.log1p(-p))[None, :] - np.log(hazard)[:, None]
    total: Total = yield DecisionSums(view, weights, frozen(cuts))
    n, odds = total.number("patients"), p / (1 - p)
    benefit = (total["cases"] - odds * total["controls"]) / n
    spread = (total["case_squares"] + odds**2 * total["control_squares"]) / n - benefit**2
    everybody = (total.number("all_cases") - odds * total.number("all_controls")) / n
    return DecisionCurve(
        horizon,
        np.broadcast_to(p, benefit.shape),
        total["above"] / n,
        benefit,
        np.sqrt(np.maximum(spread, 0.0) / n),
        np.broadcast_to(everybody, benefit.shape),
    )


def table_benefit(table: ScoreTable, hazard: FloatArray, horizon: float) -> DecisionCurve:
    """Net benefit at the risks that the score edges of a table stand for; asks nothing.

    Weights follow from the censoring curve on the table's time bins, coarser than those of ``decision_curve``.

    Args:
        table: of ``evaluation_table``.
        hazard: (m,) cumulative baseline hazard at the horizon.
        horizon: an edge of the table's grid.

    Raises:
        ValueError: when the horizon is not an edge.
    """
    cases, controls = weighted_states(table, horizon)
    n = table.counts.sum(axis=(1, 2, 3))[:, None]

    def above(part: FloatArray) -> FloatArray:
        return np.asarray(part.sum(axis=1, keepdims=True) - np.cumsum(part, axis=1)[:, :-1])

    p = -np.expm1(-hazard[:, None] * np.exp(table.score_edges))
    odds = p / np.maximum(1 - p, np.finfo(float).tiny)
    everybody = (cases.sum(axis=1)[:, None] - odds * controls.sum(axis=1)[:, None]) / n
    benefit = (above(cases) - odds * above(controls)) / n
    treated = above(table.counts.sum(axis=(1, 3))) / n
    return DecisionCurve(horizon, p, treated, benefit, np.full_like(benefit, np.nan), everybody)


def weighted_states(table: ScoreTable, horizon: float) -> tuple[FloatArray, FloatArray]:
    """(m, B) weighted cases and controls at a horizon by score bin, from a table of totals."""
    last = table.grid.edge_index(horizon) + 1
    curve = censoring_curve(table.counts).low[:, :last]
    with np.errstate(divide="ignore", invalid="ignore"):
        cases = np.where(table.counts[:, :last, :, 0] > 0, table.counts[:, :last, :, 0] / curve[:, :, None], 0.0)
        controls = table.counts[:, last:].sum(axis=(1, 3)) / curve[:, -1:]
    return cases.sum(axis=1), controls
