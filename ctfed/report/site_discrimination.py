"""How well a model orders this site's patients, and how its risk groups fare: concordance, AUC, curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.errors import CtfedError
from ctfed.report.site_rows import SiteRows, attempt, estimate, leaving, number
from ctfed.statistics.cox import fit_cox
from ctfed.statistics.curves import kaplan_meier, log_rank
from ctfed.statistics.discriminate import (
    auc_value,
    bootstrap_intervals,
    uno_value,
    within_site_concordance,
)
from ctfed.statistics.scores import ThresholdGroup

MOST_TICKS = 7
GROUPS = ("lower risk", "higher risk")
FEWEST_EVENTS = 10  # below it an estimate is shown as "cannot be said"
FEWEST_PATIENTS = 20


def concordance(rows: SiteRows) -> dict[str, Any]:
    """Harrell's C with its pairs; all None where no two patients compare."""
    if rows.patients == 0:
        return {**estimate(np.nan), "pairs": 0}
    found = rows.ask(within_site_concordance(rows.view))
    lower, upper = found.intervals(rows.level)[0]
    return {**estimate(found.value[0], lower, upper), "pairs": round(found.comparable)}


def score_counts(rows: SiteRows) -> FloatArray:
    """(1, T, B, 2) patients by distinct time, distinct score, event or censored."""
    distinct, place = np.unique(rows.scores, return_inverse=True)
    return leaving(rows.grid, rows.table.time, rows.table.event, place, distinct.size)[None]


def discrimination(rows: SiteRows, replicates: int, seed: int) -> dict[str, Any]:
    """Harrell's C, Uno's C until the last usable horizon, and the AUC at each horizon, with intervals.

    A horizon at which nobody is a case, or nobody a control, has a note in place of numbers.
    """
    counts = score_counts(rows) if rows.patients else None
    statistics: dict[str, Callable[[FloatArray], FloatArray]] = {}
    states = {horizon: states_at(rows, horizon) for horizon in rows.horizons}
    usable = [h for h, (cases, controls) in states.items() if cases and controls]
    for horizon in usable:
        statistics[f"auc-{horizon}"] = partial(auc_value, grid=rows.grid, horizon=horizon)
    if usable:
        statistics["uno"] = partial(uno_value, grid=rows.grid, horizon=usable[-1])
    limits: dict[str, FloatArray] = {}
    if counts is not None and statistics:
        limits = bootstrap_intervals(counts, statistics, replicates=replicates, level=rows.level, seed=seed)
    found: dict[str, Any] = {"harrell": concordance(rows), "uno": None, "auc": []}
    if usable and counts is not None:
        value = statistics["uno"](counts)[0]
        found["uno"] = {**estimate(value, *limits["uno"][0]), "horizon": usable[-1]}
    for horizon, (cases, controls) in states.items():
        row = {"horizon": horizon, "cases": cases, "controls": controls, **estimate(np.nan), "note": ""}
        if horizon in usable and counts is not None:
            name = f"auc-{horizon}"
            row.update(estimate(statistics[name](counts)[0], *limits[name][0]))
        else:
            row["note"] = f"{cases} patients are known to have the event by then, and {controls} to be without it"
        found["auc"].append(row)
    found["replicates"] = replicates
    return found


def states_at(rows: SiteRows, horizon: float) -> tuple[int, int]:
    """How many have the event by a horizon, and how many are observed beyond it."""
    time, event = rows.table.time, rows.table.event
    return int((event & (time <= horizon)).sum()), int((time > horizon).sum())


def risk_groups(rows: SiteRows) -> dict[str, Any]:
    """Kaplan-Meier by risk group at every distinct time, log-rank test and hazard ratio; a note for what is lacking."""
    threshold = rows.model.threshold
    if threshold is None:
        return {"note": "the run made no risk groups, so the model has no threshold", "groups": []}
    if rows.patients == 0:
        return {"note": "there are no patients", "groups": [], "threshold": threshold}
    high = rows.scores > threshold
    counts = leaving(rows.grid, rows.table.time, rows.table.event, high.astype(np.int64), groups=2)
    curves = kaplan_meier(counts, rows.grid, level=rows.level)
    groups = []
    for g, name in enumerate(GROUPS):
        used = np.flatnonzero(counts[:-1, g].sum(axis=-1))
        groups.append(
            {
                "name": name,
                "patients": round(float(curves.patients[g])),
                "events": round(float(curves.events[g])),
                "time": [0.0, *curves.time[used].tolist()],
                "survival": [1.0, *map(number, curves.survival[g, used])],
                "lower": [1.0, *map(number, curves.lower[g, used])],
                "upper": [1.0, *map(number, curves.upper[g, used])],
                "deaths": [0, *counts[used, g, 0].astype(int).tolist()],
                "censored": [0, *counts[used, g, 1].astype(int).tolist()],
                "at_risk": _at_risk(rows, high == bool(g)),
                "median": number(curves.median[g, 0]),
            }
        )
    test = log_rank(counts[None])
    ratio, note = attempt(lambda: _hazard_ratio(rows, threshold, high))
    chi2 = number(test.statistic[0])
    return {
        "threshold": threshold,
        "groups": groups,
        "logrank": {"chi2": chi2, "df": 1, "p": None if chi2 is None else number(test.p[0])},
        "hazard_ratio": ratio,
        "note": f"no hazard ratio between the groups: {note}" if note else "",
    }


def _at_risk(rows: SiteRows, member: Any) -> list[dict[str, float | int]]:
    """Patients of a group still observed just after the beginning and the tick times of the axis."""
    times, end = rows.table.time[member], float(rows.table.time.max())
    step = min(rows.horizons) / 2
    step *= max(1, math.ceil(end / step / MOST_TICKS))  # whole multiples of half the first horizon
    ticks = [step * k for k in range(int(end / step) + 1)]
    return [{"time": tick, "count": int((times > tick).sum())} for tick in ticks]


def _hazard_ratio(rows: SiteRows, threshold: float, high: Any) -> dict[str, float | None]:
    if not (rows.table.event[high].any() and rows.table.event[~high].any()):
        raise CtfedError("a group has no event")
    view = rows.view.then(ThresholdGroup(frozen(np.array([threshold]))))
    fit = rows.ask(fit_cox(view, ties=rows.ties))
    intervals, p = fit.intervals(rows.level), fit.p_values
    with np.errstate(over="ignore"):  # a limit beyond all numbers is shown as none
        limits = (np.nan, np.nan) if intervals is None else np.exp(intervals[0])
    return {**estimate(np.exp(fit.coefficients[0]), *limits), "p": None if p is None else number(p[0])}
