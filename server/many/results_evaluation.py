"""How well one score of a study of many models does, as plain mappings: parts of ``server.many.results``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.statistics.agree import wilson
from ctfed.study import Study
from server.many.algorithm import Agreed
from server.many.evaluation import Evaluated

Row = dict[str, Any]


def number(value: float | np.floating[Any]) -> float | None:
    """A float; None where the statistic is undefined."""
    return float(value) if np.isfinite(value) else None


def numbers(values: FloatArray) -> list[float | None]:
    """(n,) floats; None where they are undefined."""
    return [number(value) for value in values]


def discrimination(study: Study, found: Evaluated, place: int) -> Row:
    """C within sites, pooled C and Uno's C of the score at ``place``."""
    concordance = found.paired.concordance
    lower, upper = concordance.intervals(study.evaluation.confidence)[place]
    within = {
        "value": number(concordance.value[place]),
        "se": number(concordance.standard_error[place]),
        "lower": number(lower),
        "upper": number(upper),
        "pairs": round(concordance.comparable),
    }
    if found.pooled is None:
        return {"c_within": within, "c_pooled": None, "uno": None}
    pooled: dict[str, Row | None] = {}
    for key, name, bounded in (("c_pooled", "c", found.pooled.c), ("uno", "uno", found.pooled.uno)):
        limits = found.pooled.limits.get(name)
        if limits is None:
            pooled[key] = None
            continue
        pooled[key] = {
            "value": number(bounded.value[place]),
            "lower": number(limits[place, 0]),
            "upper": number(limits[place, 1]),
            "bound_lower": number(bounded.lower[place]),
            "bound_upper": number(bounded.upper[place]),
        }
    return {"c_within": within, **pooled}


def risk_groups(study: Study, found: Evaluated, place: int) -> Row:
    """Kaplan-Meier curves of the patients above and below the training median, with the tests between them."""
    groups = found.groups
    if groups is None:
        return {"threshold": None, "groups": [], "logrank": None, "hazard_ratio": None}
    curves = groups.curves
    times = [0.0, *curves.time.tolist()]
    at_risk = curves.at_risk(times)[place]
    rows = [
        {
            "name": name,
            "patients": round(float(curves.patients[place, g])),
            "events": round(float(curves.events[place, g])),
            "time": times,
            "survival": [1.0, *numbers(curves.survival[place, g])],
            "lower": [1.0, *numbers(curves.lower[place, g])],
            "upper": [1.0, *numbers(curves.upper[place, g])],
            "at_risk": [{"time": time, "count": round(float(n))} for time, n in zip(times, at_risk[g], strict=True)],
        }
        for g, name in enumerate(("lower risk", "higher risk"))
    ]
    test = groups.logrank
    return {
        "threshold": number(groups.thresholds[place]),
        "groups": rows,
        "logrank": {"chi2": number(test.statistic[place]), "df": 1, "p": number(test.p[place])},
        "hazard_ratio": _ratio(found, place, study.evaluation.confidence),
        "split": "test",
    }


def _ratio(found: Evaluated, place: int, level: float) -> Row | None:
    fit = None if found.groups is None else found.groups.ratios[place]
    if fit is None:
        return None
    intervals, p = fit.intervals(level), fit.p_values
    row: Row = {"hr": number(np.exp(fit.coefficients[0])), "lower": None, "upper": None, "p": None}
    if intervals is not None and p is not None:
        lower, upper = np.exp(intervals[0])
        row |= {"lower": number(lower), "upper": number(upper), "p": number(p[0])}
    return row


def at_horizons(study: Study, found: Evaluated, place: int) -> list[Row]:
    """One row per horizon: AUC, Brier score, observed / expected, calibration slope and intercept, ICI."""
    rows = []
    for horizon in study.evaluation.horizons:
        rows.append({"horizon": horizon, **_auc(found, place, horizon), **_risks(study, found, place, horizon)})
    return rows


AUC = ("auc", "auc_lower", "auc_upper", "auc_bound_lower", "auc_bound_upper", "auc_p")


def _auc(found: Evaluated, place: int, horizon: float) -> Row:
    pooled = found.pooled
    if pooled is None or horizon not in pooled.auc:
        return dict.fromkeys(AUC)
    auc, limits = pooled.auc[horizon], pooled.limits[f"auc {horizon:g}"]
    values = (auc.value[place], *limits[place], auc.lower[place], auc.upper[place], pooled.p[horizon][place])
    return {name: number(value) for name, value in zip(AUC, values, strict=True)}


RISKS = (
    *("brier", "brier_se", "brier_reference", "brier_scaled", "expected", "observed", "observed_se"),
    *("observed_expected", "observed_expected_lower", "observed_expected_upper"),
    *("slope", "slope_lower", "slope_upper", "slope_intercept", "intercept", "intercept_lower", "intercept_upper"),
    "ici",
    *("ici_bins", "largest_gap"),
)


def _risks(study: Study, found: Evaluated, place: int, horizon: float) -> Row:
    """How good predicted risks are at a horizon; every value is None where there is no prediction for it."""
    predictions = found.predictions
    h = None if predictions is None else _index(predictions.followed.times, horizon)
    if predictions is None or h is None:
        return dict.fromkeys(RISKS)
    level = study.evaluation.confidence
    errors, again, curve = predictions.errors, predictions.recalibration, predictions.curve
    at = (place, h)
    values = (
        *(errors.brier[at], errors.brier_error[at], errors.reference[h], errors.scaled[at]),
        *(errors.expected[at], errors.observed[h], errors.observed_error[h]),
        *(errors.ratio[at], *errors.ratio_intervals(level)[at]),
        *(again.slope[at], *again.slope_intervals(level)[at], again.slope_intercept[at]),
        *(again.intercept[at], *again.intercept_intervals(level)[at]),
        again.ici[at],
        *((np.nan, np.nan) if curve is None else (curve.ici[at], curve.largest[at])),
    )
    return {name: number(value) for name, value in zip(RISKS, values, strict=True)}


def _index(times: FloatArray, horizon: float) -> int | None:
    """The place of a horizon among those that were asked."""
    near = np.flatnonzero(np.isclose(times, horizon, rtol=1e-9, atol=0.0))
    return int(near[0]) if near.size else None


def calibration(found: Evaluated, place: int) -> Row:
    """D-calibration, and the calibration curve by score bin at each horizon."""
    predictions = found.predictions
    if predictions is None:
        return {"deciles": None, "curves": []}
    uniform, curve = predictions.deciles, predictions.curve
    deciles = {
        "counts": numbers(uniform.counts[place]),
        "chi2": number(uniform.statistic[place]),
        "df": uniform.counts.shape[1] - 1,
        "p": number(uniform.p[place]),
    }
    if curve is None:
        return {"deciles": deciles, "curves": []}
    keys = ("predicted", "observed", "lower", "upper", "slack")
    curves = [
        {
            "horizon": float(time),
            "bins": [
                {
                    "patients": round(float(curve.patients[place, b])),
                    **{key: number(getattr(curve, key)[place, b, h]) for key in keys},
                }
                for b in range(curve.patients.shape[1])
            ],
        }
        for h, time in enumerate(curve.times)
    ]
    return {"deciles": deciles, "curves": curves}


def decisions(found: Evaluated, place: int) -> list[Row]:
    """The decision curve at each horizon."""
    if found.predictions is None:
        return []
    keys = ("thresholds", "treated", "benefit", "error", "treat_all", "avoided")
    return [
        {"horizon": horizon, **{key: numbers(getattr(curve, key)[place]) for key in keys}}
        for horizon, curve in found.predictions.decisions.items()
    ]


def baseline(found: Evaluated, place: int) -> Row | None:
    """The cumulative hazard of a score of 0."""
    if found.predictions is None:
        return None
    one = found.predictions.baselines[place]
    return {"time": one.time.tolist(), "cumulative_hazard": one.cumulative_hazard.tolist()}


def differences(study: Study, found: Evaluated) -> list[Row]:
    """C within sites of each score minus that of each later one."""
    paired = found.paired
    limits = paired.intervals(study.evaluation.confidence)
    rows = []
    for i, first in enumerate(found.names):
        for j in range(i + 1, len(found.names)):
            values = (paired.value[i, j], paired.standard_error[i, j], *limits[i, j], paired.p[i, j])
            keys = ("difference", "se", "lower", "upper", "p")
            row: Row = {"first": first, "second": found.names[j]}
            row |= {key: number(value) for key, value in zip(keys, values, strict=True)}
            rows.append(row | {"p_holm": number(paired.p_adjusted[i, j])})
    return rows


def consensus(study: Study, agreed: Agreed, auc: Sequence[Sequence[Row]]) -> list[Row]:
    """One row per horizon and model, then that of the consensus.

    Args:
        study: for the level of the intervals.
        agreed: what was found.
        auc: of each model, its rows of ``at_horizons``. The consensus has certified limits of its AUC alone.
    """
    found, cuts = agreed.classified, agreed.cuts
    rows = []
    for h, time in enumerate(found.times):
        for k, name in enumerate((*agreed.models, None)):
            row: Row = {"horizon": float(time), "model": name, "valid": round(float(found.valid[h]))}
            row |= _proportions(agreed, k, h, study.evaluation.confidence)
            if name is None:
                bounds = number(found.auc_lower[0, h]), number(found.auc_upper[0, h])
                row |= dict(zip(AUC, (number(found.auc[0, h]), None, None, *bounds, None), strict=True))
            else:
                single = _row_at(auc[k], float(time))
                row |= {key: single[key] for key in AUC}
                row |= {key: number(getattr(cuts, key)[k, h]) for key in ("cut", "youden", "bound")}
            rows.append(row)
    return rows


def _row_at(rows: Sequence[Row], horizon: float) -> Row:
    return next(row for row in rows if np.isclose(row["horizon"], horizon))


def _proportions(agreed: Agreed, k: int, h: int, level: float) -> Row:
    """Counts by call and state, the shares of right calls with Wilson's limits, and the weighted ones."""
    found = agreed.classified
    counts = found.counts[k, h]
    known = counts[:, :2]
    parts = {
        "accuracy": (known[1, 0] + known[0, 1], known.sum()),
        "sensitivity": (known[1, 0], known[:, 0].sum()),
        "specificity": (known[0, 1], known[:, 1].sum()),
        "coverage": (known.sum(), found.valid[h]),
    }
    row: Row = {}
    for key, (part, whole) in parts.items():
        lower, upper = wilson(np.asarray(part), np.asarray(whole), level)
        row |= {key: number(getattr(found, key)[k, h]), f"{key}_lower": number(lower), f"{key}_upper": number(upper)}
    row |= {
        "sensitivity_weighted": number(found.weighted_sensitivity[k, h]),
        "specificity_weighted": number(found.weighted_specificity[k, h]),
        "true_events": round(float(known[1, 0])),
        "missed_events": round(float(known[0, 0])),
        "true_survivors": round(float(known[0, 1])),
        "false_alarms": round(float(known[1, 1])),
    }
    return row
