"""How well many models do on the test patients: all scores stand beside each other in one view, so that every question
is asked of all of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ctfed.federation.algorithm import Algorithm, beside, gather
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.errors import CtfedError
from ctfed.federation.view import View
from ctfed.statistics.baseline import Baseline, merged_grid, pooled_baseline
from ctfed.statistics.calibrate import CalibrationCurve, RiskErrors, calibration_curve, risk_errors
from ctfed.statistics.compare import PairedDifferences, paired_differences
from ctfed.statistics.cox import CoxFit, fit_cox
from ctfed.statistics.curves import GroupCurves, LogRank, group_curves
from ctfed.statistics.d_calibrate import DECILES, DCalibration, d_calibration
from ctfed.statistics.decide import DecisionCurve, decision_curve
from ctfed.statistics.discriminate import (
    Bounded,
    ScoreTable,
    auc_value,
    bootstrap_draws,
    cumulative_dynamic_auc,
    harrell_concordance,
    harrell_value,
    percentile_limits,
    uno_concordance,
    uno_value,
)
from ctfed.statistics.horizons import FollowUp, follow_up, hazards_at
from ctfed.statistics.recalibrate import Recalibration, recalibrate
from ctfed.statistics.scores import ThresholdGroup, score_medians
from ctfed.statistics.select import Select
from ctfed.statistics.timegrid import TimeGrid
from ctfed.study import Study
from server.evaluation import dropped_note, study_table

DECISION_STEPS = 9  # threshold probabilities of a decision curve, at most
PATIENTS_PER_STEP = 6  # in cells: thresholds of scores are counted, and a site allows one for about three patients


@dataclass(frozen=True, eq=False)
class Pooled:
    """What the tables of totals give, of m scores.

    Attributes:
        table: of times and scores.
        c, uno: pooled concordances with their certified limits.
        auc: horizon -> AUC with its certified limits, for the horizons that the table keeps apart.
        limits: statistic -> (m, 2) bootstrap limits: 'c', 'uno' and 'auc HORIZON'.
        p: horizon -> (m,) two-sided bootstrap p-value of AUC = 0.5.
    """

    table: ScoreTable
    c: Bounded
    uno: Bounded
    auc: Mapping[float, Bounded]
    limits: Mapping[str, FloatArray]
    p: Mapping[float, FloatArray]


@dataclass(frozen=True, eq=False)
class Groups:
    """The patients above and below each score's training median.

    Attributes:
        thresholds: (m,) the medians.
        curves, logrank: of the test patients.
        ratios: (m,) Cox fits of the high-risk indicator; None where there is none.
    """

    thresholds: FloatArray
    curves: GroupCurves
    logrank: LogRank
    ratios: tuple[CoxFit | None, ...]


@dataclass(frozen=True, eq=False)
class Predictions:
    """How good predicted risks are.

    Attributes:
        baselines: (m,) of each score, from the training patients.
        hazard: (m, H) cumulative baseline hazard at the horizons.
        followed: of the test patients.
        errors: Brier scores and observed / expected.
        recalibration: slope, intercept, smooth ICI.
        deciles: D-calibration.
        curve: calibration curve by score bins, None without a table.
        decisions: horizon -> decision curve.
    """

    baselines: tuple[Baseline, ...]
    hazard: FloatArray
    followed: FollowUp
    errors: RiskErrors
    recalibration: Recalibration
    deciles: DCalibration
    curve: CalibrationCurve | None
    decisions: Mapping[float, DecisionCurve]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The evaluation of m scores on the test patients of one set of rows.

    Attributes:
        names: (m,) of models and ensembles.
        train, test: views of the scores.
        paired: exact C over pairs of patients of one site, with the models' covariance and differences.
        pooled, groups, predictions: see there; None where there are too few patients.
        notes: what could not be had, and why.
    """

    names: tuple[str, ...]
    train: View
    test: View
    paired: PairedDifferences
    pooled: Pooled | None
    groups: Groups | None
    predictions: Predictions | None
    notes: tuple[str, ...]


def evaluate(study: Study, names: Sequence[str], train: View) -> Algorithm[Evaluated]:
    """Evaluate the scores of ``train`` (its columns, as ``names``) on the test split."""
    test = train.test()
    paired: PairedDifferences
    paired, (pooled, table_note), (groups, groups_note), baselines = yield from beside(
        paired_differences(test), _pooled(study, test), _groups(study, train, test), _baselines(study, train)
    )
    predictions, note = yield from _predictions(study, train, test, baselines, None if pooled is None else pooled.table)
    notes = tuple(line for line in (table_note, groups_note, note) if line)
    return Evaluated(tuple(names), train, test, paired, pooled, groups, predictions, notes)


def _pooled(study: Study, test: View) -> Algorithm[tuple[Pooled | None, str]]:
    chosen = study.evaluation
    try:
        table = yield from study_table(study, test)
    except CtfedError as error:  # the other statistics stand without this one
        return None, f"no pooled C and no AUC: {error}"
    kept = [horizon for horizon in chosen.horizons if horizon not in table.dropped]
    last = max(kept, default=0.0)
    uno_at = partial(uno_value, grid=table.grid, horizon=last) if kept else None
    statistics = {"c": harrell_value} | ({} if uno_at is None else {"uno": uno_at})
    statistics |= {f"auc {h:g}": partial(auc_value, grid=table.grid, horizon=h) for h in kept}
    drawn = bootstrap_draws(table.counts, statistics, replicates=chosen.bootstrap, seed=chosen.seed)
    limits = {name: percentile_limits(values, chosen.confidence) for name, values in drawn.items()}
    p = {horizon: _two_sided(drawn[f"auc {horizon:g}"]) for horizon in kept}
    c = harrell_concordance(table.counts)
    uno = uno_concordance(table.counts, table.grid, last) if kept else c
    auc = {horizon: cumulative_dynamic_auc(table.counts, table.grid, horizon) for horizon in kept}
    return Pooled(table, c, uno, auc, limits, p), dropped_note(study, table)


def _two_sided(values: FloatArray) -> FloatArray:
    """(m,) twice the smaller share of (m, R) replicates on one side of 0.5, at most 1."""
    below = np.nanmean(values <= 0.5, axis=1)
    return np.asarray(np.minimum(2 * np.minimum(below, 1 - below), 1.0))


def _groups(study: Study, train: View, test: View) -> Algorithm[tuple[Groups | None, str]]:
    minimum = study.evaluation.min_cell
    grid = TimeGrid.regular(study.grid.width, study.grid.end)
    thresholds = yield from score_medians(train, minimum)
    try:
        curves, logrank = yield from group_curves(test, grid, thresholds, minimum=minimum)
    except CtfedError as error:
        return None, f"no curves by risk group: {error}"
    found = yield from gather(*[_ratio(test, k, float(cut)) for k, cut in enumerate(thresholds)])
    lacking = "; ".join(f"{name}: {reason}" for name, (_, reason) in zip(test.names, found, strict=True) if reason)
    note = f"no hazard ratio between the risk groups of {lacking}" if lacking else ""
    return Groups(thresholds, curves, logrank, tuple(fit for fit, _ in found)), note


def _ratio(test: View, index: int, threshold: float) -> Algorithm[tuple[CoxFit | None, str]]:
    """The Cox model of one score's high-risk indicator, or the reason why there is none."""
    try:
        fit = yield from fit_cox(test.then(Select((test.names[index],)), ThresholdGroup(frozen([threshold]))))
    except CtfedError as error:
        return None, str(error)
    if fit.covariance is None:
        return None, "nobody, or everybody, is at high risk"
    return fit, ""


def _baselines(study: Study, train: View) -> Algorithm[tuple[Baseline, ...]]:
    """The baseline hazard of each score by itself, whose coefficient is 1."""
    chosen = study.evaluation
    grid = TimeGrid.regular(study.grid.width, study.grid.end)
    bins = yield from merged_grid(train, grid, chosen.min_cell, chosen.horizons)
    one = frozen(np.ones(1))
    found = yield from gather(*[pooled_baseline(train.then(Select((name,))), one, bins, 0) for name in train.names])
    return tuple(found)


def _predictions(
    study: Study, train: View, test: View, baselines: tuple[Baseline, ...], table: ScoreTable | None
) -> Algorithm[tuple[Predictions | None, str]]:
    chosen = study.evaluation
    grid = TimeGrid.regular(study.grid.width, study.grid.end)
    try:
        followed = yield from follow_up(test, grid, chosen.horizons, minimum=chosen.min_cell)
    except CtfedError as error:
        return None, f"no calibration: {error}"
    if followed.patients < 2 * chosen.min_cell:
        return None, f"no calibration: {followed.patients:.0f} test patients, cells hold at least {chosen.min_cell}"
    hazard = hazards_at(baselines, followed.times)
    if (hazard <= 0).any():
        return None, "no calibration: a baseline hazard is zero at a horizon, because nobody died before it in training"
    steps = int(min(DECISION_STEPS, followed.patients // (PATIENTS_PER_STEP * max(1, chosen.min_cell))))
    thresholds = (np.arange(1, steps + 1) / (steps + 1)).tolist() if steps >= 2 else []
    jobs = [
        decision_curve(test, followed, hazard[:, h], float(time), thresholds, minimum=chosen.min_cell)
        for h, time in enumerate(followed.times)
        if thresholds
    ]
    everywhere = hazards_at(baselines, grid.edges)
    errors, recalibration, uniform, curve, decisions = yield from beside(
        risk_errors(test, followed, hazard),
        recalibrate(test, followed, hazard),
        d_calibration(test, grid, everywhere, bins=score_bins(study, followed.patients)),
        _curve(test, table, hazard, followed),
        gather(*jobs),
    )
    by_time = {float(time): one for time, one in zip(followed.times, decisions, strict=False)}
    return Predictions(baselines, hazard, followed, errors, recalibration, uniform, curve, by_time), ""


def score_bins(study: Study, patients: float) -> int:
    """Into how many bins of a score so many patients are counted, where deciles are wished for."""
    return max(2, min(DECILES, int(patients // (4 * study.evaluation.min_cell))))


def _curve(
    test: View, table: ScoreTable | None, hazard: FloatArray, followed: FollowUp
) -> Algorithm[CalibrationCurve | None]:
    if table is None:
        return None
    return (yield from calibration_curve(test, table, hazard, followed.times))
