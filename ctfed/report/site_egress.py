"""What of a site's report may leave: aggregates over at least ``minimum`` patients, taken one by one.

Nothing is removed from a copy; what is not named here is not there. The rules, with k the minimum:

* a count is shown when it is 0 or at least k, and so is everything that can be worked out from it and its neighbours:
  patients with and without the event, in each split, group, level, time bin and band of risk;
* a statistic of the evaluated patients is shown when at least k of them have the event, k do not, and the same holds of
  the patients who were not evaluated (or there are none);
* quantiles and extremes, which are some patient's value, do not leave; nor do values of single patients, pictures of
  scans, the site's own baseline, exact times, digests of the cohort, and sentences about files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ctfed.federation.arrays import frozen
from ctfed.report.site_cells import allowed
from ctfed.report.site_egress_models import consensus_egress, decision_egress, harmonization_egress
from ctfed.statistics.curves import kaplan_meier
from ctfed.statistics.suppress import hidden_cells
from ctfed.statistics.timegrid import TimeGrid

FEW_VALUES = 12  # a feature of as many values or fewer is told by its counts
FEWEST_STEPS = 3  # a curve of fewer would mislead the eye
TOO_FEW = "the evaluated patients, or those with or without the event among them, are fewer than may be shown"


def site_egress(local: Mapping[str, Any]) -> dict[str, Any]:
    """The egress edition of ``site_content.site_content``."""
    k = int(local["minimum"])
    open_ = _evaluated_open(local["flow"], k)
    horizons = _horizons(local["discrimination"]["auc"], local["flow"]["evaluated"]["patients"], k) if open_ else []
    return {
        **{name: local[name] for name in ("ctfed_site_report", "minimum", "made", "study", "site", "checklists")},
        "edition": "egress",
        "verdict": _verdict(local["verdict"], open_),
        "flow": _flow(local["flow"], k),
        "table_one": _table_one(local["table_one"], k),
        "missing": {
            "absent": local["missing"]["absent"] if open_ else [],
            "variables": local["missing"]["variables"],
            "filled_share": None,
        },
        "acquisition": _acquisition(local["acquisition"], k),
        "segmentation": _segmentation(local["segmentation"], k),
        "harmonization": harmonization_egress(local["harmonization"], open_, _trained(local["flow"], k), k),
        "discrimination": _discrimination(local, horizons, open_, k),
        "calibration": _calibration(local["calibration"], horizons, open_, k),
        "baseline": None,
        "curves": _curves(local, k) if open_ else {"groups": [], "note": TOO_FEW},
        "decision": [decision_egress(row, k) for row in local["decision"] if row["horizon"] in horizons],
        "not_compared": local["not_compared"],
        "consensus": consensus_egress(local["consensus"], horizons, open_, k),
        "explanation": _explanation(local["explanation"], k) if open_ else None,
        "subgroups": [one for row in local["subgroups"] if open_ and (one := _subgroup(row, k)) is not None],
        "provenance": {name: value for name, value in local["provenance"].items() if name != "cohort_sha256"},
        "ledger": _ledger(local["ledger"]),
    }


def _split_cells(flow: Mapping[str, Any]) -> list[int]:
    return [n for row in flow["splits"] for n in (row["events"], row["patients"] - row["events"])]


def _trained(flow: Mapping[str, Any], k: int) -> bool:
    """The same of the training patients."""
    cells = {row["split"]: (row["events"], row["patients"] - row["events"]) for row in flow["splits"]}
    return min(cells["train"]) >= k and allowed(cells["test"], k)


def _evaluated_open(flow: Mapping[str, Any], k: int) -> bool:
    """At least k evaluated patients with and k without the event, and nothing small in those who are not evaluated."""
    seen = flow["evaluated"]
    with_event, without = seen["events"], seen["patients"] - seen["events"]
    rest = (flow["events"] - with_event, flow["patients"] - flow["events"] - without)
    return with_event >= k and without >= k and allowed(rest, k)


def _horizons(rows: Sequence[Mapping[str, Any]], patients: int, k: int) -> list[float]:
    """Horizons whose cases and controls, and their differences between neighbours, are 0 or at least k."""
    kept, before = [], (0, patients)
    for row in rows:
        cases, controls = row["cases"], row["controls"]
        unknown = patients - cases - controls
        last_unknown = patients - before[0] - before[1]
        steps = (cases - before[0], before[1] - controls, unknown - last_unknown)
        if min(cases, controls) >= k and allowed((unknown, *map(abs, steps)), k):
            kept.append(row["horizon"])
            before = (cases, controls)
    return kept


def _verdict(verdict: Mapping[str, Any], open_: bool) -> dict[str, Any]:
    if open_:
        return dict(verdict)
    return {"level": "plain", "label": "not told", "reasons": [TOO_FEW], "rule": verdict["rule"]}


def _flow(flow: Mapping[str, Any], k: int) -> dict[str, Any]:
    cells = _split_cells(flow)
    totals = (flow["events"], flow["patients"] - flow["events"])
    whole, split = allowed(totals, k), allowed(cells, k)
    patients = flow["patients"] if flow["patients"] >= k else None
    steps = flow["steps"]
    hidden = hidden_cells(np.array([*(step["patients"] for step in steps), flow["patients"]]), k)
    shown = [
        {**step, "patients": None if hide else step["patients"]} for step, hide in zip(steps, hidden[:-1], strict=True)
    ]
    return {
        "found": flow["found"] if patients is not None and not hidden.any() else None,
        "steps": shown,
        "patients": patients,
        "events": flow["events"] if whole and patients is not None else None,
        "splits": list(flow["splits"]) if split and whole else [],
        "evaluated": _evaluated(flow, k),
        "follow_up": None,
        "reasons_known": flow["reasons_known"],
    }


def _evaluated(flow: Mapping[str, Any], k: int) -> dict[str, Any]:
    seen = flow["evaluated"]
    if _evaluated_open(flow, k):
        return dict(seen)
    return {"split": seen["split"], "patients": None, "events": None}


# -- descriptions


def _table_one(table: Mapping[str, Any], k: int) -> dict[str, Any]:
    n, train = table["patients"], table["train"]
    if n < k or not allowed((train, n - train), k):
        return {"patients": n if n >= k else None, "train": None, "variables": []}
    return {"patients": n, "train": train, "variables": [_variable(row, k) for row in table["variables"]]}


def _variable(row: Mapping[str, Any], k: int) -> dict[str, Any]:
    found = {name: row[name] for name in ("variable", "label", "unit", "federation_mean", "federation_sd")}
    nothing = ("mean", "sd", "q1", "median", "q3", "filled_mean", "filled_sd", "smd")
    found.update({**dict.fromkeys(nothing), "levels": [], "present": None, "missing": None})
    counted = allowed((row["present"], row["missing"]), k)
    if counted:
        found.update({"present": row["present"], "missing": row["missing"]})
    if not counted or row["present"] < k:
        return found
    if row["levels"]:
        cells = [level["count"] for level in row["levels"]]
        hidden = hidden_cells(np.array([*cells, row["missing"]]), k)[:-1]
        found["levels"] = [
            {"label": level["label"], "count": None if hide else level["count"]}
            for level, hide in zip(row["levels"], hidden, strict=True)
        ]
        if hidden.any():
            return found
        # A mean over a few levels is a count of them; two means, of all and of the training patients, give the rest.
        trained = [level["train"] for level in row["levels"]]
        tested = [count - train for count, train in zip(cells, trained, strict=True)]
        if row["missing"] or not allowed((*trained, *tested), k):
            return {**found, "mean": row["mean"], "sd": row["sd"]}
    return {**found, **{name: row[name] for name in ("mean", "sd", "filled_mean", "filled_sd", "smd")}}


def _acquisition(found: Mapping[str, Any] | None, k: int) -> dict[str, Any] | None:
    if found is None or found["scans"] < k:
        return None
    tables, whole = [], set()
    for table in found["tables"]:
        hidden = hidden_cells(np.array([row["count"] for row in table["rows"]]), k)
        # The name of a rare scanner tells where a patient was: a hidden row loses its name, too.
        rows = [row for row, hide in zip(table["rows"], hidden, strict=True) if not hide]
        if hidden.any():
            rows.append({"label": "others", "count": None})
        else:
            whole.add(table["label"])
        tables.append({"label": table["label"], "rows": rows})
    measures = [
        {"label": row["label"], "count": row["count"], "mean": row["mean"], "q1": None, "median": None, "q3": None}
        for row in found["measures"]
        if row["count"] >= k and allowed((found["scans"] - row["count"],), k) and row["label"] in whole
    ]
    return {"scans": found["scans"], "tables": tables, "measures": measures}


def _segmentation(found: Mapping[str, Any] | None, k: int) -> dict[str, Any] | None:
    if found is None:
        return None
    regions = [
        {name: row[name] for name in ("region", "measured", "missing")}
        for row in found["regions"]
        if allowed((row["measured"], row["missing"]), k) and row["measured"] >= k
    ]
    return {"regions": regions, "sheets": []}


# -- performance


def _discrimination(local: Mapping[str, Any], horizons: Sequence[float], open_: bool, k: int) -> dict[str, Any]:
    found = local["discrimination"]
    nothing = {"value": None, "lower": None, "upper": None}
    trained = _trained(local["flow"], k)
    return {
        "harrell": found["harrell"] if open_ and found["harrell"]["pairs"] >= k else {**nothing, "pairs": None},
        "uno": found["uno"] if open_ and found["uno"] and found["uno"]["horizon"] in horizons else None,
        "auc": [row for row in found["auc"] if row["horizon"] in horizons],
        "training": found["training"] if trained else {**nothing, "pairs": None},
        "pooled": found["pooled"],
        "replicates": found["replicates"],
    }


def _calibration(found: Mapping[str, Any], horizons: Sequence[float], open_: bool, k: int) -> dict[str, Any]:
    rows = []
    for row in found["horizons"]:
        if row["horizon"] not in horizons:
            continue
        small = any(min(group["patients"], group["cases"], group["controls"]) < k for group in row["groups"])
        known = [group["patients"] - group["cases"] - group["controls"] for group in row["groups"]]
        rows.append({**row, "groups": [] if small or not allowed(known, k) else row["groups"]})
    spread = found["d_calibration"] if open_ else None
    if spread is not None:
        counts = spread["counts"] if min(spread["counts"]) >= k else []
        spread = {"counts": counts, "chi2": spread["chi2"], "p": spread["p"]}
    note = "" if open_ else TOO_FEW
    slope = found["slope"] if open_ else None
    return {"slope": slope, "slope_note": note, "horizons": rows, "d_calibration": spread, "d_note": note}


def _curves(local: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Curves on the study's grid, bins merged until each holds 0 or at least k deaths and censored of each group."""
    found = local["curves"]
    groups = found["groups"]
    totals = [n for group in groups for n in (group["events"], group["patients"] - group["events"])]
    if not groups or min(totals) < k:
        return {"groups": [], "note": "a risk group holds fewer patients with or without the event than may be shown"}
    grid = local["study"]["grid"]
    edges = grid["width"] * np.arange(1, round(grid["end"] / grid["width"]) + 1)
    counts = _merged_counts(groups, edges)
    kept, merged = merged_bins(edges, counts, k)
    shown = {name: found[name] for name in ("threshold", "logrank", "hazard_ratio", "note")}
    if len(kept) < FEWEST_STEPS:
        note = f"too few patients leave for {FEWEST_STEPS} intervals that may be shown, so no curve is drawn"
        sizes = [{name: group[name] for name in ("name", "patients", "events")} for group in groups]
        return {**shown, "groups": sizes, "note": f"{shown['note']} {note}".strip()}
    curves = kaplan_meier(merged, TimeGrid(frozen(np.array(kept))), level=local["study"]["level"])
    rows = []
    for g, group in enumerate(groups):
        risk = [group["patients"], *curves.remaining[g].astype(int).tolist()]
        limits = {name: [1.0, *_plain(getattr(curves, name)[g])] for name in ("survival", "lower", "upper")}
        at_risk = [{"time": t, "count": n} for t, n in zip([0.0, *kept], risk, strict=True)]
        about = {name: group[name] for name in ("name", "patients", "events")}
        rows.append({**about, "time": [0.0, *kept], **limits, "at_risk": at_risk, "median": None})
    return {**shown, "groups": rows}


def _plain(values: Any) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _merged_counts(groups: Sequence[Mapping[str, Any]], edges: Any) -> Any:
    """(bins, groups, 2) deaths and censored of each group in the bins of the grid."""
    counts = np.zeros((edges.size + 1, len(groups), 2))
    for g, group in enumerate(groups):
        place = np.searchsorted(edges, np.array(group["time"]) * (1 - 1e-12), side="left")
        for kind, name in enumerate(("deaths", "censored")):
            np.add.at(counts[:, g, kind], place, np.array(group[name], dtype=np.float64))
    return counts


def merged_bins(edges: Any, counts: Any, k: int) -> tuple[list[float], Any]:
    """Edges that may stay, and the counts between them; the last bin holds what comes after the last edge.

    Args:
        edges: (E,) rising.
        counts: (E + 1, ...) of the bins.
        k: the fewest of a cell that is not empty.
    """
    kept: list[int] = []
    start = 0
    for place in range(edges.size):
        cells = counts[start : place + 1].sum(axis=0).ravel()
        if allowed(cells, k) and cells.max() >= k:
            kept.append(place)
            start = place + 1
    while kept and not allowed(counts[kept[-1] + 1 :].sum(axis=0).ravel(), k):
        kept.pop()
    ends = [0, *(place + 1 for place in kept), edges.size + 1]
    merged = np.stack([counts[a:b].sum(axis=0) for a, b in pairwise(ends)])
    return [float(edges[place]) for place in kept], merged


def _explanation(found: Mapping[str, Any] | None, k: int) -> dict[str, Any] | None:
    """Mean |SHAP| of each feature; of one with few values only where each value is that of at least k patients."""
    if found is None:
        return None
    features = []
    for row in found["features"]:
        counts = np.unique(np.array(row["values"], dtype=np.float64), return_counts=True)[1]
        if counts.size <= FEW_VALUES and not allowed(counts.tolist(), k):
            continue
        about = {name: row[name] for name in ("feature", "name", "coefficient", "mean_absolute", "mean")}
        features.append({**about, "values": [], "place": []})
    about = {name: found[name] for name in ("patients", "centre")}
    return {**about, "features": features, "left_out": found["left_out"] + len(found["features"]) - len(features)}


def _subgroup(row: Mapping[str, Any], k: int) -> dict[str, Any] | None:
    """All parts of a variable, or none: one that is hidden alone would be the rest of the others."""
    if any(min(part["events"], part["patients"] - part["events"]) < k for part in row["rows"]):
        return None
    labels = ("lower half", "upper half")
    rows = [
        {
            **part,
            "label": labels[place] if row["halves"] and place < 2 and part["label"] != "missing" else part["label"],
        }
        for place, part in enumerate(row["rows"])
    ]
    return {"variable": row["variable"], "halves": row["halves"], "rows": rows}


def _ledger(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {name: value for name, value in found.items() if name != "faults"} | {"faults": []}
