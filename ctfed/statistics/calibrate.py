"""Calibration and the Brier score of predicted risks, from sums that are exact once the censoring curve is known.

A model predicts F(h) = 1 - exp(-H0(h) exp(score)) for each of H horizons, with its pooled baseline hazard H0. All
questions work on m models at once. With a and b a patient's weights as a case and as a control (see ``horizons``):

* Brier score: mean of a (1 - F)^2 + b F^2, scikit-survival's ``brier_score`` when the time bins are not merged;
* observed / expected: (1 - S(h)) / mean F, S by Kaplan-Meier;
* slope and intercept: see ``recalibrate``, which also gives the integrated calibration index (ICI) of a smooth curve;
* calibration curve: Kaplan-Meier risk against mean F in the score bins of an ``EvaluationTable``, with the ICI over
  these bins (``calibration_curve``).

References: Graf et al. 1999, Statistics in Medicine 18:2529; Austin, Harrell, van Klaveren 2020, Statistics in Medicine
39:2714 (ICI).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import View
from ctfed.statistics.curves import kaplan_meier
from ctfed.statistics.evaluation_tables import ScoreTable
from ctfed.statistics.horizons import FollowUp, HorizonWeights, check_hazard, log_hazards, risk_at
from ctfed.statistics.tails import normal_isf


@register("horizon-losses")
@dataclass(frozen=True, eq=False)
class HorizonLosses(Query):
    """Sums of predicted risks and of weighted squared errors at every horizon, for m models.

    patients = n; cases = sum a, controls = sum b; risk = sum F; loss = sum of a (1 - F)^2 + b F^2 and loss_squares of
    its squares. The total discloses those 1 + 2 H + 3 m H numbers; asked again with other weights it tells the loss in
    each time bin, which is why bins are merged. A site where a model's scores span more than 40 declines that model.

    Attributes:
        view: rows and m scores.
        weights: of cases and controls.
        hazard: (m, H) cumulative baseline hazard at the horizons, > 0.
    """

    view: View
    weights: HorizonWeights
    hazard: FloatArray

    def __post_init__(self) -> None:
        check_hazard(self.hazard, self.view, len(self.weights.horizons))

    @property
    def layout(self) -> Layout:
        """patients (), cases, controls (H,), declined (m,), risk, loss, loss_squares (m, H)."""
        shape = self.hazard.shape
        return {
            "patients": Entry(()),
            "cases": Entry(shape[1:]),
            "controls": Entry(shape[1:]),
            "declined": Entry(shape[:1]),
            "risk": Entry(shape),
            "loss": Entry(shape),
            "loss_squares": Entry(shape),
        }

    @property
    def exposure(self) -> Exposure:
        """Sums by time bin, if asked with enough different weights."""
        return Exposure(cells=self.weights.cells, times=self.weights.edges, plain=False)

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        table = self.view.table(cohort)
        scores, inside = log_hazards(table)
        case, control = self.weights.of(table)
        sums = {name: np.zeros(self.hazard.shape) for name in ("risk", "loss", "loss_squares")}
        for h in range(self.hazard.shape[1]):
            risk = risk_at(scores, self.hazard[:, h])
            loss = case[h] * (1 - risk) ** 2 + control[h] * risk**2
            for name, values in (("risk", risk), ("loss", loss), ("loss_squares", loss**2)):
                sums[name][:, h] = np.where(inside, values.sum(axis=1), 0.0)
        whole = {"patients": table.rows, "cases": case.sum(axis=1), "controls": control.sum(axis=1)}
        return Summary(self.layout, {**whole, **sums, "declined": ~inside})


@dataclass(frozen=True, eq=False)
class RiskErrors:
    """Errors of predicted risks of m models at H horizons; NaN for models that a site declined.

    Attributes:
        times: (H,).
        brier, brier_error: (m, H) score and its standard error (the weights taken as known).
        reference: (H,) Brier score of the Kaplan-Meier risk, the same for everybody.
        expected: (m, H) mean predicted risk.
        observed, observed_error: (H,) Kaplan-Meier risk and its standard error.
        patients: in all.
    """

    times: FloatArray
    brier: FloatArray
    brier_error: FloatArray
    reference: FloatArray
    expected: FloatArray
    observed: FloatArray
    observed_error: FloatArray
    patients: float

    @property
    def scaled(self) -> FloatArray:
        """(m, H) 1 - Brier / reference: 0 is no better than the Kaplan-Meier risk, 1 is perfect."""
        return 1 - self.brier / self.reference

    @property
    def ratio(self) -> FloatArray:
        """(m, H) observed / expected."""
        return self.observed / self.expected

    def ratio_intervals(self, level: float = 0.95) -> FloatArray:
        """(m, H, 2) limits of observed / expected, symmetric on the log scale; the expected risk is taken as known."""
        half = normal_isf((1 - level) / 2) * np.divide(
            self.observed_error, self.observed, out=np.full_like(self.observed, np.nan), where=self.observed > 0
        )
        return np.stack([self.ratio * np.exp(-half), self.ratio * np.exp(half)], axis=-1)

    def integrated(self, start: float | None = None, end: float | None = None) -> FloatArray:
        """(m,) mean Brier score over time by trapezes between the horizons in [start, end], as scikit-survival's.

        Raises:
            ValueError: when fewer than two horizons lie there.
        """
        low, high = self.times[0] if start is None else start, self.times[-1] if end is None else end
        chosen = (self.times >= low - 1e-9) & (self.times <= high + 1e-9)
        if chosen.sum() < 2:
            raise ValueError(f"an integral needs two horizons in [{low:g}, {high:g}], found {int(chosen.sum())}")
        times = self.times[chosen]
        return np.asarray(np.trapezoid(self.brier[:, chosen], times, axis=1) / (times[-1] - times[0]))


def risk_errors(view: View, followed: FollowUp, hazard: FloatArray) -> Algorithm[RiskErrors]:
    """Brier scores and observed / expected at all horizons of ``followed``, in one round.

    Args:
        view: rows and m scores.
        followed: of the same rows, see ``horizons.follow_up``.
        hazard: (m, H), see ``horizons.hazards_at``.
    """
    total: Total = yield HorizonLosses(view, followed.weights, frozen(hazard))
    n = total.number("patients")
    scale = np.where(total["declined"] > 0, np.nan, 1.0)[:, None] / n
    brier, survival = total["loss"] * scale, followed.survival
    variance = np.maximum(total["loss_squares"] * scale - brier**2, 0.0) / n
    reference = (total["cases"] * survival**2 + total["controls"] * (1 - survival) ** 2) / n
    return RiskErrors(
        followed.times,
        brier,
        np.sqrt(variance),
        reference,
        total["risk"] * scale,
        1 - survival,
        followed.standard_error,
        n,
    )


@register("binned-risks")
@dataclass(frozen=True, eq=False)
class BinnedRisks(Query):
    """Patients and sums of predicted risks in the score bins of each of m models, at H horizons.

    Its total discloses these m B (1 + H) numbers; the bins are those of a table that is told already.

    Attributes:
        view: rows and scores.
        score_edges: (m, B - 1), not decreasing along B; bins are right-closed.
        hazard: (m, H) cumulative baseline hazard at the horizons, > 0.
    """

    view: View
    score_edges: FloatArray
    hazard: FloatArray

    def __post_init__(self) -> None:
        if self.score_edges.ndim != 2 or self.score_edges.shape[0] != self.view.width:
            raise ValueError(f"score edges must be ({self.view.width}, B - 1), found {self.score_edges.shape}")
        if not (np.diff(self.score_edges, axis=1) >= 0).all():
            raise ValueError("the score edges of a model must not decrease")
        if self.hazard.ndim != 2:
            raise ValueError("the hazard must be (m, H)")
        check_hazard(self.hazard, self.view, self.hazard.shape[1])

    @property
    def layout(self) -> Layout:
        """declined (m,), patients (m, B), risk (m, B, H)."""
        models, bins = self.score_edges.shape[0], self.score_edges.shape[1] + 1
        return {
            "declined": Entry((models,)),
            "patients": Entry((models, bins)),
            "risk": Entry((models, bins, self.hazard.shape[1])),
        }

    @property
    def exposure(self) -> Exposure:
        """The score bins."""
        cuts = dict(zip(self.view.names, self.score_edges, strict=True))
        return Exposure(cells=self.score_edges.shape[1] + 1, cuts=cuts)

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        table = self.view.table(cohort)
        scores, inside = log_hazards(table)
        models, bins, horizons = self.layout["risk"].shape
        patients, risk = np.zeros((models, bins)), np.zeros((models, bins, horizons))
        for model in np.flatnonzero(inside):
            where = np.searchsorted(self.score_edges[model], scores[model], side="left")
            patients[model] = np.bincount(where, minlength=bins)
            for h in range(horizons):
                predicted = risk_at(scores[model : model + 1], self.hazard[model : model + 1, h])[0]
                risk[model, :, h] = np.bincount(where, predicted, minlength=bins)
        return Summary(self.layout, {"declined": ~inside, "patients": patients, "risk": risk})


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Predicted and observed risk by score bin, from low to high scores.

    Attributes:
        times: (H,) horizons.
        patients: (m, B).
        predicted: (m, B, H) mean F; NaN in bins that hold nobody.
        observed, lower, upper: (m, B, H) Kaplan-Meier risk with pointwise limits; NaN at horizons that are no edge of
            the table, and in bins that hold nobody.
        slack: (m, B, H) how much higher the observed risk can be at most, because times are known up to their bins.
    """

    times: FloatArray
    patients: FloatArray
    predicted: FloatArray
    observed: FloatArray
    lower: FloatArray
    upper: FloatArray
    slack: FloatArray

    @property
    def ici(self) -> FloatArray:
        """(m, H) integrated calibration index over the bins: mean |predicted - observed| over patients."""
        gap = np.abs(self.predicted - self.observed)
        weight = self.patients[:, :, None] / self.patients.sum(axis=1)[:, None, None]
        return np.asarray((np.where(weight > 0, gap, 0.0) * weight).sum(axis=1))

    @property
    def largest(self) -> FloatArray:
        """(m, H) E_max: the largest |predicted - observed| of a bin."""
        gap = np.where(self.patients[:, :, None] > 0, np.abs(self.predicted - self.observed), 0.0)
        return np.asarray(gap.max(axis=1))


def calibration_curve(
    view: View, table: ScoreTable, hazard: FloatArray, horizons: Sequence[float] | FloatArray, *, level: float = 0.95
) -> Algorithm[CalibrationCurve]:
    """The calibration curve over the bins of a table that the caller has asked, in one round.

    Args:
        view: rows and m scores, those of the table.
        table: of ``evaluation_table``.
        hazard: (m, H) at the horizons.
        horizons: (H,).
        level: of the limits.
    """
    total: Total = yield BinnedRisks(view, table.score_edges, frozen(hazard))
    times = np.asarray(horizons, dtype=np.float64)
    patients = np.where((total["declined"] > 0)[:, None], 0.0, total["patients"])
    held = patients[:, :, None] > 0
    predicted = np.where(held, total["risk"] / np.where(held, patients[:, :, None], 1.0), np.nan)
    curves = kaplan_meier(table.counts, table.grid, level=level)
    lowest = _survival_with_censorings_first(table.counts)
    parts = np.full((4, *predicted.shape), np.nan)
    for h, time in enumerate(times):
        if np.abs(table.grid.edges - time).min() > 1e-9 * time:
            continue
        place = table.grid.edge_index(float(time))
        found = curves.survival[..., place]
        band = (1 - found, 1 - curves.upper[..., place], 1 - curves.lower[..., place], found - lowest[..., place])
        parts[..., h] = np.where(held[..., 0], np.stack(band), np.nan)
    return CalibrationCurve(times, patients, predicted, *parts)


def _survival_with_censorings_first(counts: FloatArray) -> FloatArray:
    """(m, B, T) survival if all who are censored in a bin had left before its deaths: the lowest that is possible."""
    events, censored = np.moveaxis(counts, -1, 0).swapaxes(-1, -2)
    leaving = events + censored
    risk = leaving.sum(axis=-1, keepdims=True) - np.cumsum(leaving, axis=-1) + leaving
    return np.asarray(np.cumprod(1 - events / np.maximum(risk - censored, 1.0), axis=-1))
