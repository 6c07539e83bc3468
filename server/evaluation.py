"""How well a fitted model does on the test split: discrimination and curves, all from totals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ctfed.federation.algorithm import Algorithm, beside
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.errors import CtfedError
from ctfed.federation.view import View
from ctfed.statistics.cox import CoxFit
from ctfed.statistics.curves import GroupCurves, LogRank, group_curves
from ctfed.statistics.discriminate import (
    Bounded,
    ScoreTable,
    bootstrap_intervals,
    cumulative_dynamic_auc,
    evaluation_table,
    harrell_concordance,
    within_site_concordance,
)
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.scores import ThresholdGroup, score_medians
from ctfed.statistics.timegrid import TimeGrid
from ctfed.study import Study
from server.hazard_ratio import hazard_ratio


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval of chance, and the limits that its table certifies (None where it is exact)."""

    value: float | None
    lower: float | None
    upper: float | None
    certified_lower: float | None = None
    certified_upper: float | None = None


@dataclass(frozen=True, eq=False)
class RiskGroups:
    """The split at the training median of the score.

    Attributes:
        threshold: the training median.
        curves: Kaplan-Meier curves of the test patients below and above it.
        logrank: test of their equality.
        ratio: Cox model of the high-risk indicator on the test patients, None where it cannot be fitted.
    """

    threshold: float
    curves: GroupCurves
    logrank: LogRank
    ratio: CoxFit | None


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The evaluation of one model on the test split.

    Attributes:
        within: exact Harrell's C over pairs of patients of the same site.
        pairs: how many comparable pairs that were.
        table: the table of totals behind the pooled statistics, None where there were too few patients for one.
        pooled: Harrell's C over all pairs, None without a table.
        auc: horizon -> AUC, None at horizons that the table could not keep apart.
        groups: curves by risk group, None where there were too few patients.
        table_note, groups_note: what could not be had from the table and of the groups, and why; '' if nothing.
    """

    within: Estimate
    pairs: int
    table: ScoreTable | None
    pooled: Estimate | None
    auc: dict[float, Estimate | None]
    groups: RiskGroups | None
    table_note: str
    groups_note: str


def evaluate(study: Study, train: View, fit: CoxFit) -> Algorithm[Evaluated]:
    """Evaluate a model on the test split, with the transforms that were fitted on the training split."""
    score = LinearPredictor(frozen(fit.coefficients[None, :]))
    train, test = train.then(score), train.test().then(score)
    within: tuple[Estimate, int]
    pooled: Pooled
    groups: tuple[RiskGroups | None, str]
    within, pooled, groups = yield from beside(_within(study, test), _pooled(study, test), _groups(study, train, test))
    return Evaluated(*within, pooled.table, pooled.c, pooled.auc, groups[0], pooled.note, groups[1])


def _within(study: Study, test: View) -> Algorithm[tuple[Estimate, int]]:
    found = yield from within_site_concordance(test)
    low, high = found.intervals(study.evaluation.confidence)[0]
    return Estimate(_number(found.value[0]), _number(low), _number(high)), round(found.comparable)


@dataclass(frozen=True, eq=False)
class Pooled:
    """What the table of totals gives: None and a note where there were too few patients."""

    table: ScoreTable | None
    c: Estimate | None
    auc: dict[float, Estimate | None]
    note: str


def _pooled(study: Study, test: View) -> Algorithm[Pooled]:
    chosen = study.evaluation
    try:
        table = yield from study_table(study, test)
    except CtfedError as error:  # the other statistics of the test split stand without this one
        return Pooled(None, None, dict.fromkeys(chosen.horizons), f"no pooled C and no AUC: {error}")
    kept = [horizon for horizon in chosen.horizons if horizon not in table.dropped]
    statistics: dict[str, Callable[[FloatArray], FloatArray]] = {"c": lambda counts: harrell_concordance(counts).value}
    for horizon in kept:
        statistics[f"auc-{horizon}"] = partial(_auc_value, grid=table.grid, horizon=horizon)
    limits = bootstrap_intervals(
        table.counts, statistics, replicates=chosen.bootstrap, level=chosen.confidence, seed=chosen.seed
    )
    c = harrell_concordance(table.counts)
    auc: dict[float, Estimate | None] = dict.fromkeys(chosen.horizons)
    for horizon in kept:
        auc[horizon] = _bounded(cumulative_dynamic_auc(table.counts, table.grid, horizon), limits[f"auc-{horizon}"])
    note = dropped_note(study, table)
    return Pooled(table, _bounded(c, limits["c"]), auc, note)


def study_table(study: Study, test: View) -> Algorithm[ScoreTable]:
    """The table of times and scores of the test split, with the study's horizons and bins.

    Raises:
        CtfedError: when there are too few patients for one.
    """
    chosen = study.evaluation
    return (
        yield from evaluation_table(
            test,
            TimeGrid.regular(chosen.time_bin, max(*chosen.horizons, study.grid.end)),
            horizons=chosen.horizons,
            min_cell=chosen.min_cell,
            score_bins=chosen.score_bins,
            fine=chosen.fine_evaluation_tables,
        )
    )


def dropped_note(study: Study, table: ScoreTable) -> str:
    """Which horizons the table could not keep apart, and why; '' for none."""
    if not table.dropped:
        return ""
    times = ", ".join(f"{time:g}" for time in table.dropped)
    return f"no AUC at {times}: too few patients leave before or after for cells of {study.evaluation.min_cell}"


def _auc_value(counts: FloatArray, grid: TimeGrid, horizon: float) -> FloatArray:
    return cumulative_dynamic_auc(counts, grid, horizon).value


def _bounded(found: Bounded, limits: FloatArray) -> Estimate:
    limit = [_number(value) for value in (limits[0, 0], limits[0, 1], found.lower[0], found.upper[0])]
    return Estimate(_number(found.value[0]), *limit)


def _groups(study: Study, train: View, test: View) -> Algorithm[tuple[RiskGroups | None, str]]:
    minimum = study.evaluation.min_cell
    grid = TimeGrid.regular(study.grid.width, study.grid.end)
    thresholds = yield from score_medians(train, minimum)
    try:
        curves, logrank = yield from group_curves(test, grid, thresholds, minimum=minimum)
    except CtfedError as error:
        return None, f"no curves by risk group: {error}"
    ratio, note = None, ""
    try:
        ratio = yield from hazard_ratio(test.then(ThresholdGroup(frozen(thresholds))), study.single.ties)
    except CtfedError as error:
        note = f"no hazard ratio between the risk groups: {error}"
    return RiskGroups(float(thresholds[0]), curves, logrank, ratio), note


def _number(value: float) -> float | None:
    """A float for the report; None where the statistic is undefined."""
    return float(value) if np.isfinite(value) else None


def curves_mapping(study: Study, found: Evaluated) -> dict[str, object] | None:
    """The report's section 'curves'."""
    groups = found.groups
    if groups is None:
        return None
    curves = groups.curves
    times = [0.0, *curves.time.tolist()]
    at_risk = curves.at_risk(times)[0]
    rows = [
        {
            "name": name,
            "patients": round(float(curves.patients[0, g])),
            "events": round(float(curves.events[0, g])),
            "time": times,
            "survival": [1.0, *map(_number, curves.survival[0, g])],
            "lower": [1.0, *map(_number, curves.lower[0, g])],
            "upper": [1.0, *map(_number, curves.upper[0, g])],
            "at_risk": [{"time": time, "count": round(float(n))} for time, n in zip(times, at_risk[g], strict=True)],
        }
        for g, name in enumerate(("lower risk", "higher risk"))
    ]
    test = groups.logrank
    return {
        "groups": rows,
        "logrank": {"chi2": _number(test.statistic[0]), "df": 1, "p": _number(test.p[0])},
        "hazard_ratio": _ratio_mapping(groups.ratio, study.evaluation.confidence),
        "threshold": groups.threshold,
        "split": "test",
        "note": found.groups_note or None,
    }


def _ratio_mapping(fit: CoxFit | None, level: float) -> dict[str, float | None] | None:
    if fit is None:
        return None
    intervals, p = fit.intervals(level), fit.p_values
    if intervals is None or p is None:
        return {"hr": _number(np.exp(fit.coefficients[0])), "lower": None, "upper": None, "p": None}
    lower, upper = np.exp(intervals[0])
    return {
        "hr": _number(np.exp(fit.coefficients[0])),
        "lower": _number(lower),
        "upper": _number(upper),
        "p": float(p[0]),
    }


def discrimination_mapping(study: Study, found: Evaluated) -> dict[str, object]:
    """The report's section 'discrimination'."""
    level = f"{study.evaluation.confidence:.0%}"
    pooled: dict[str, object] | None = None
    if found.pooled is not None and found.table is not None:
        pooled = {
            "value": found.pooled.value,
            "lower": found.pooled.lower,
            "upper": found.pooled.upper,
            "bound_lower": found.pooled.certified_lower,
            "bound_upper": found.pooled.certified_upper,
            "time_bins": found.table.grid.bins,
            "score_bins": found.table.score_edges.shape[1] + 1,
        }
    return {
        "split": "test",
        "c_within": {
            "value": found.within.value,
            "lower": found.within.lower,
            "upper": found.within.upper,
            "pairs": found.pairs,
        },
        "c_pooled": pooled,
        "auc": [
            {
                "horizon": horizon,
                "auc": None if auc is None else auc.value,
                "lower": None if auc is None else auc.lower,
                "upper": None if auc is None else auc.upper,
            }
            for horizon, auc in found.auc.items()
        ],
        "interval": (
            f"{level} intervals: C within sites by its influence function (infinitesimal jackknife), pooled C and AUC "
            f"by {study.evaluation.bootstrap} Poisson bootstrap replicates of the table of totals, drawn at the server"
        ),
        "note": found.table_note or None,
    }
