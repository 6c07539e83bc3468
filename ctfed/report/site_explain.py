"""Why the model says what it says, and for whom it does less well: SHAP values of a site's patients, and subgroups."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray
from ctfed.federation.view import View
from ctfed.report.site_discrimination import FEWEST_EVENTS, concordance
from ctfed.report.site_rows import SiteRows, attempt, estimate, number
from ctfed.statistics.calibrate import risk_errors
from ctfed.statistics.explain import local_shap
from ctfed.statistics.select import Select
from ctfed.statistics.standardise import Standardise

MOST_FEATURES = 20
MOST_LEVELS = 6


def explanation(rows: SiteRows) -> dict[str, Any] | None:
    """SHAP values of the evaluated patients: of all for the beeswarm, of three to read one by one.

    A linear model's is beta_j (x_j - mean_j), the mean over the federation's training patients, who have 0 after
    standardisation; without it the mean of these patients takes its place, and ``centre`` says so.
    """
    model = rows.model
    if rows.patients == 0 or not model.coefficients.any():
        return None
    view = model.rows(rows.split)
    table = view.table(rows.cohort)
    standard = _centred(view)
    centre = np.zeros(view.width) if standard else table.values.mean(axis=0)
    shap = local_shap(table, model.coefficients[None, :], centre)[0]
    importance = np.abs(shap).mean(axis=0)
    used = [j for j in np.argsort(-importance, kind="stable") if model.coefficients[j] != 0]
    labels = [feature_name(rows, name) for name in view.names]
    spread = table.values.std(axis=0)
    features = [
        {
            "feature": labels[j],
            "name": view.names[j],
            "coefficient": number(model.coefficients[j]),
            "mean_absolute": number(importance[j]),
            "mean": number(shap[:, j].mean()),
            "values": [number(value) for value in shap[:, j]],
            "place": _places(table.values[:, j], float(spread[j])),
        }
        for j in used[:MOST_FEATURES]
    ]
    return {
        "patients": rows.patients,
        "centre": "the federation's training patients" if standard else "the patients shown",
        "features": features,
        "left_out": len(used) - len(features),
        "single": _single(rows, shap, labels, used),
    }


def _centred(view: View) -> bool:
    """Whether every column has mean 0 over the federation's training patients: standardised last, then at most
    selected, or put beside each other by views of which this is true."""
    last = next((step for step in reversed(view.transforms) if not isinstance(step, Select)), None)
    if last is not None:
        return isinstance(last, Standardise)
    return bool(view.beside) and not view.columns and all(_centred(other) for other in view.beside)


def feature_name(rows: SiteRows, name: str) -> str:
    """A feature's display name; an indicator of missing values keeps its suffix, one of a level names the level."""
    return rows.model.study.label(name)


def _places(values: FloatArray, spread: float) -> list[float]:
    """Each value between the lowest (0) and the highest (1) of these patients; 0.5 where all are alike."""
    low, high = float(values.min()), float(values.max())
    if spread == 0 or high == low:
        return [0.5] * values.size
    return [round(float((value - low) / (high - low)), 4) for value in values]


def _single(rows: SiteRows, shap: FloatArray, labels: list[str], used: list[int]) -> list[dict[str, Any]]:
    """The patients of lowest, middle and highest score, with what moves each of them."""
    order = np.argsort(rows.scores, kind="stable")
    chosen = {"lowest risk": order[0], "middle risk": order[len(order) // 2], "highest risk": order[-1]}
    known = rows.cohort.pseudonym[rows.kept]
    found, seen = [], set()
    for name, row in chosen.items():
        if int(row) in seen:
            continue
        seen.add(int(row))
        ranked = sorted(used, key=lambda j: (-abs(shap[row, j]), j))
        risks = rows.model.risk(rows.scores[row : row + 1], np.asarray(rows.horizons))[0]
        found.append(
            {
                "name": name,
                "pseudonym": str(known[row])[:12],
                "score": number(rows.scores[row]),
                "risks": [{"horizon": h, "risk": number(risk)} for h, risk in zip(rows.horizons, risks, strict=True)],
                "parts": [{"feature": labels[j], "shap": number(shap[row, j])} for j in ranked[:MOST_FEATURES]],
            }
        )
    return found


def subgroups(rows: SiteRows) -> list[dict[str, Any]]:
    """C and observed / expected by the levels of each variable, and below and above the median of continuous ones."""
    study, cohort = rows.model.study, rows.cohort
    found = []
    for name in rows.variables:
        variable, values = study.columns[name], cohort.columns[name]
        levels = variable.possible_levels
        parts: list[tuple[str, BoolArray]] = []
        halves = False
        if variable.type != "continuous" and len(levels) <= MOST_LEVELS:
            labels = variable.levels or {}
            parts = [(labels.get(int(level), f"{level:g}"), values == level) for level in levels]
        elif (~np.isnan(values[rows.kept])).any():
            median = float(np.nanmedian(values[rows.kept]))
            parts = [(f"at most {median:g}", values <= median), (f"above {median:g}", values > median)]
            halves = True
        parts.append(("missing", np.isnan(values)))
        parts = [(label, part) for label, part in parts if (part & rows.kept).any()]
        if len(parts) > 1:
            rows_of = [_subgroup(label, rows.of(part)) for label, part in parts]
            found.append({"variable": study.label(name), "halves": halves, "rows": rows_of})
    return found


def _subgroup(label: str, rows: SiteRows) -> dict[str, Any]:
    row: dict[str, Any] = {"label": label, "patients": rows.patients, "events": rows.events, "horizon": None}
    row.update({"c": estimate(np.nan), "ratio": estimate(np.nan), "note": ""})
    if rows.events < FEWEST_EVENTS:
        row["note"] = f"fewer than {FEWEST_EVENTS} events: not estimated"
        return row
    row["c"] = concordance(rows)
    for horizon in rows.horizons:
        errors, _ = attempt(
            lambda horizon=horizon: rows.ask(  # type: ignore[misc]
                risk_errors(rows.view, rows.followed(horizon), rows.hazard(horizon))
            )
        )
        if errors is not None and errors.observed[0] > 0:
            row["horizon"] = horizon
            row["ratio"] = estimate(errors.ratio[0, 0], *errors.ratio_intervals(rows.level)[0, 0])
    return row
