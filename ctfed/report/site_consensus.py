"""The consensus of a study of many models at one site: on whom its members agree, and how often they are right.

As in the run: each member calls a patient an 'event by h' when its score lies above its cut, which maximises Youden's
index over the training patients of all sites; the consensus has a call for those on whom all members call the same, and
is judged on those of them whose state at h is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.errors import CtfedError
from ctfed.federation.view import View
from ctfed.model_file import PortableModel
from ctfed.report.reader import Reader
from ctfed.report.site_models import ModelFolder, scores_beside
from ctfed.report.site_rows import SiteRows, attempt, estimate
from ctfed.statistics.agree import STATES, AgreementCounts, Classified, wilson
from ctfed.statistics.horizons import HorizonWeights

NO_CONSENSUS = "The run's results hold no consensus of several models."
CELLS = (("true_events", 1, 0), ("missed_events", 0, 0), ("false_alarms", 1, 1), ("true_survivors", 0, 1))


def consensus(rows: SiteRows, results: Mapping[str, Any], others: ModelFolder) -> dict[str, Any]:
    """Counts and proportions of each member and of the consensus at each horizon; a note where there is none."""
    found = Reader(results).section("consensus")
    names = found.texts("models")
    about: dict[str, Any] = {"note": "", "models": list(names), "split": rows.split, "horizons": []}
    if not names or not found.rows("rows"):
        return {**about, "note": NO_CONSENSUS}
    missing = [name for name in names if name not in others]
    if missing:
        note = f"The consensus has the members {', '.join(names)}; there is no model file of {', '.join(missing)}."
        return {**about, "note": note}
    models = {name: others[name] for name in names}
    for horizon in rows.horizons:
        told, note = attempt(lambda horizon=horizon: _at(rows, models, found, horizon))  # type: ignore[misc]
        about["horizons"].append({"horizon": horizon, "note": note, "valid": None, "unknown": None, "rows": told or []})
        if told:
            about["horizons"][-1]["valid"] = sum(told[0][name] for name, _, _ in CELLS)
            about["horizons"][-1]["unknown"] = told[0]["unknown_events"] + told[0]["unknown_survivors"]
    return about


def _at(rows: SiteRows, models: Mapping[str, PortableModel], found: Reader, horizon: float) -> list[dict[str, Any]]:
    """A row for each member, then that of the consensus ('model': None)."""
    if rows.patients == 0:
        raise CtfedError("there are no patients")
    cuts = frozen(np.array([[_cut(found, name, horizon)] for name in models]))
    view = scores_beside(models, rows.split, rows.model.view.rows)
    plain, note = attempt(lambda: rows.followed(horizon).weights)
    classified = rows.ask(_classified(view, plain or HorizonWeights.plain([horizon]), cuts))
    return [
        {"model": name, "title": _title(rows, name), "cut": None if name is None else float(cuts[k, 0])}
        | _told(classified, k, rows.level, weighted=not note)
        for k, name in enumerate((*models, None))
    ]


def _cut(found: Reader, name: str, horizon: float) -> float:
    """Of a member at a horizon, as the run found it."""
    for row in found.rows("rows"):
        at = row.number("horizon")
        cut = row.number("cut")
        if row.text("model") == name and at is not None and np.isclose(at, horizon) and cut is not None:
            return cut
    raise CtfedError(f"the run has no threshold of {name} there")


def _title(rows: SiteRows, name: str | None) -> str:
    if name is None:
        return "Consensus: all agree"
    return rows.model.study.models[name].label or name


def _classified(view: View, weights: HorizonWeights, cuts: FloatArray) -> Algorithm[Classified]:
    """The m members and the set of all of them; no score ranks the set."""
    models = cuts.shape[0]
    total = yield AgreementCounts(view, weights, cuts, frozen(np.ones((1, models))))
    counts = total["counts"].reshape(models + 1, 1, 2, STATES)
    weighted = total["weighted"].reshape(models + 1, 1, 2, 2)
    nothing = np.full((0, 1), np.nan)
    valid = counts[0, ..., :2].sum(axis=(-1, -2))
    return Classified(weights.times, models, counts, weighted, valid, nothing, nothing, nothing)


def _told(found: Classified, k: int, level: float, weighted: bool) -> dict[str, Any]:
    counts = found.counts[k, 0]
    known = counts[:, :2]
    row: dict[str, Any] = {name: round(float(known[call, state])) for name, call, state in CELLS}
    row["unknown_events"], row["unknown_survivors"] = (round(float(counts[call, 2])) for call in (1, 0))
    parts = {
        "coverage": (known.sum(), found.valid[0]),
        "accuracy": (known[1, 0] + known[0, 1], known.sum()),
        "sensitivity": (known[1, 0], known[:, 0].sum()),
        "specificity": (known[0, 1], known[:, 1].sum()),
    }
    for name, (part, whole) in parts.items():
        lower, upper = wilson(np.asarray(part), np.asarray(whole), level)
        row[name] = estimate(getattr(found, name)[k, 0], lower, upper)
    for name in ("sensitivity", "specificity"):
        value = getattr(found, f"weighted_{name}")[k, 0] if weighted else np.nan
        row[f"{name}_weighted"] = estimate(value)["value"]
    return row


def cells_of(row: Mapping[str, Any]) -> Sequence[int]:
    """Patients by call and state, those of unknown state last."""
    names = [name for name, _, _ in CELLS]
    return [row[name] for name in (*names, "unknown_events", "unknown_survivors")]
