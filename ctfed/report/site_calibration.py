"""Whether predicted risks are this site's risks, and what a baseline of its own would change."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.errors import CtfedError
from ctfed.report.site_discrimination import FEWEST_EVENTS, states_at
from ctfed.report.site_rows import SiteRows, attempt, estimate, leaving, number
from ctfed.statistics.baseline import pooled_baseline
from ctfed.statistics.calibrate import risk_errors
from ctfed.statistics.cox import fit_cox
from ctfed.statistics.curves import kaplan_meier
from ctfed.statistics.d_calibrate import d_calibration
from ctfed.statistics.horizons import FollowUp, risk_at
from ctfed.statistics.recalibrate import recalibrate
from ctfed.statistics.timegrid import TimeGrid

PATIENTS_PER_GROUP = 10
MOST_GROUPS = 10


def calibration(rows: SiteRows) -> dict[str, Any]:
    """Slope over all of the follow-up, and at each horizon O/E, slope, intercept, ICI, Brier score and groups."""
    slope, note = attempt(lambda: _cox_slope(rows))
    found: dict[str, Any] = {"slope": slope, "slope_note": note, "horizons": []}
    for horizon in rows.horizons:
        cases, controls = states_at(rows, horizon)
        row: dict[str, Any] = {"horizon": horizon, "cases": cases, "controls": controls, "note": "", "groups": []}
        measured, row["note"] = attempt(lambda horizon=horizon: _at_horizon(rows, horizon))  # type: ignore[misc]
        found["horizons"].append({**row, **(measured or {})})
    found["d_calibration"], found["d_note"] = attempt(lambda: _d_calibration(rows))
    return found


def _cox_slope(rows: SiteRows) -> dict[str, float | None]:
    """The coefficient of the score in a Cox model of its own: below 1, predictions are too extreme."""
    if rows.events < FEWEST_EVENTS:
        raise CtfedError(f"{rows.events} events are fewer than {FEWEST_EVENTS}")
    if float(np.ptp(rows.scores)) == 0:
        raise CtfedError("every patient has the same score")
    fit = rows.ask(fit_cox(rows.view, ties=rows.ties))
    intervals = fit.intervals(rows.level)
    limits = (np.nan, np.nan) if intervals is None else intervals[0]
    return estimate(fit.coefficients[0], *limits)


def _at_horizon(rows: SiteRows, horizon: float) -> dict[str, Any]:
    followed, hazard = rows.followed(horizon), rows.hazard(horizon)
    errors = rows.ask(risk_errors(rows.view, followed, hazard))
    ratio = errors.ratio_intervals(rows.level)[0, 0]
    found: dict[str, Any] = {
        "observed": number(errors.observed[0]),
        "expected": number(errors.expected[0, 0]),
        "ratio": estimate(errors.ratio[0, 0], *ratio),
        "brier": number(errors.brier[0, 0]),
        "brier_reference": number(errors.reference[0]),
        "recalibration": None,
        "recalibration_note": "",
    }
    if min(states_at(rows, horizon)) < FEWEST_EVENTS:
        found["recalibration_note"] = f"fewer than {FEWEST_EVENTS} patients with, or without, the event by then"
    else:
        found["recalibration"], note = attempt(lambda: _recalibration(rows, followed, hazard))
        found["recalibration_note"] = note
    found["groups"] = _groups(rows, horizon)
    return found


def _recalibration(rows: SiteRows, followed: FollowUp, hazard: FloatArray) -> dict[str, Any]:
    fit = rows.ask(recalibrate(rows.view, followed, hazard))
    return {
        "slope": estimate(fit.slope[0, 0], *fit.slope_intervals(rows.level)[0, 0]),
        "intercept": estimate(fit.intercept[0, 0], *fit.intercept_intervals(rows.level)[0, 0]),
        "line_intercept": number(fit.slope_intercept[0, 0]),
        "ici": number(fit.ici[0, 0]),
    }


def _groups(rows: SiteRows, horizon: float) -> list[dict[str, Any]]:
    """Mean predicted risk against Kaplan-Meier's in equal groups from low to high risk; none below two groups."""
    count = min(MOST_GROUPS, rows.patients // PATIENTS_PER_GROUP, rows.events // FEWEST_EVENTS + 1)
    if count < 2:
        return []
    risk = rows.model.risk(rows.scores, np.array([horizon]))[:, 0]
    found = []
    for part in np.array_split(np.argsort(risk, kind="stable"), count):
        time, event = rows.table.time[part], rows.table.event[part]
        counts = leaving(rows.grid, time, event)
        survival, lower, upper = kaplan_meier(counts, rows.grid, level=rows.level).at(horizon)[0]
        found.append(
            {
                "patients": int(part.size),
                "cases": int((event & (time <= horizon)).sum()),
                "controls": int((time > horizon).sum()),
                "predicted": number(risk[part].mean()),
                "observed": number(1 - survival),
                "lower": number(1 - upper),
                "upper": number(1 - lower),
            }
        )
    return found


def _d_calibration(rows: SiteRows) -> dict[str, Any]:
    if rows.events < FEWEST_EVENTS:
        raise CtfedError(f"{rows.events} events are fewer than {FEWEST_EVENTS}")
    model = rows.model
    if not model.hazard[-1] > 0:
        raise CtfedError("the model's baseline hazard is 0 throughout")
    found = rows.ask(d_calibration(rows.view, TimeGrid(frozen(model.time)), model.hazard[None, :]))
    return {"counts": found.counts[0].tolist(), "chi2": number(found.statistic[0]), "p": number(found.p[0])}


def recalibrated_baseline(rows: SiteRows) -> dict[str, Any]:
    """Breslow's baseline of this site's training patients at the model's coefficients, and O/E with it.

    It stays at the site: neighbouring steps differ by single patients.
    """
    train = SiteRows(rows.cohort, rows.model, "train")
    about = {"patients": train.patients, "events": train.events}
    if train.events < FEWEST_EVENTS:
        note = f"this site has {train.events} events among its training patients; a baseline of its own needs at least"
        return {**about, "note": f"{note} {FEWEST_EVENTS}"}
    grid = TimeGrid.exact(train.table.time)
    view = rows.model.rows("train")
    own = rows.ask(pooled_baseline(view, rows.model.coefficients, grid, minimum=0))
    steps = np.concatenate([[0.0], own.cumulative_hazard])
    comparison = []
    for horizon in rows.horizons:
        if horizon > float(train.table.time.max()):
            continue
        hazard = float(steps[np.searchsorted(own.time, horizon, side="right")])
        followed, note = attempt(lambda horizon=horizon: rows.followed(horizon))  # type: ignore[misc]
        if followed is None or hazard <= 0:
            continue
        before = float(rows.model.risk(rows.scores, np.array([horizon])).mean())
        after = float(risk_at(rows.scores[None, :], np.array([hazard])).mean())
        observed = float(1 - followed.survival[0])
        row = {"horizon": horizon, "observed": observed, "expected": before, "expected_own": after}
        comparison.append({**row, "ratio": observed / before, "ratio_own": observed / after})
    return {
        **about,
        "note": "",
        "time": own.time.tolist(),
        "cumulative_hazard": own.cumulative_hazard.tolist(),
        "horizons": comparison,
    }
