"""What may leave of a site's report where several models or several ways of treating are compared: decision curves,
harmonization and consensus. The rules are those of ``site_egress``.

Of harmonization only what is summed up over all features leaves: a feature's mean and variance before and after would
tell the site's own shift and stretch, which ComBat keeps at the site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctfed.report.site_cells import allowed
from ctfed.report.site_consensus import cells_of

FEWEST_THRESHOLDS = 2
FEW = "too few patients with, or without, the event on one side"


def decision_egress(row: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Thresholds between which 0 or at least k patients, cases and controls lie; simpler ways likewise."""
    nothing = {"horizon": row["horizon"], "note": row["note"] or "", "thresholds": [], "comparators": []}
    if row["note"] or not row.get("thresholds"):
        return {**nothing, "note": "too few patients with, or without, the event by then"}
    whole = (row["patients"], row["cases"], row["controls"])
    found = _curve(row, whole, ("thresholds", "benefit", "error", "treat_all"), k)
    comparators = [_comparator(one, whole, k) for one in row["comparators"]]
    if not found["thresholds"]:
        return {**nothing, "note": "too few patients between any two thresholds"}
    return {"horizon": row["horizon"], "note": "", **found, "comparators": comparators}


def _curve(row: Mapping[str, Any], whole: Sequence[int], names: Sequence[str], k: int) -> dict[str, list[float]]:
    kept: list[int] = []
    before = tuple(whole)
    for place in range(len(row["thresholds"])):
        here = tuple(row[name][place] for name in ("above", "cases_above", "controls_above"))
        if allowed((*here, *(b - a for b, a in zip(before, here, strict=True)), *_unknown(before, here)), k):
            kept.append(place)
            before = here
    if len(kept) < FEWEST_THRESHOLDS:
        kept = []
    return {name: [row[name][place] for place in kept] for name in names}


def _unknown(before: Sequence[int], here: Sequence[int]) -> tuple[int, int]:
    """Patients whose state is not known at the horizon, above the threshold and in the band below it."""
    outside = before[0] - before[1] - before[2]
    inside = here[0] - here[1] - here[2]
    return inside, outside - inside


def _comparator(one: Mapping[str, Any], whole: Sequence[int], k: int) -> dict[str, Any]:
    about = {name: one[name] for name in ("name", "words", "fixed")}
    nothing: dict[str, Any] = {"thresholds": [], "benefit": [], "unknown": None, "note": one["note"] or FEW}
    if not one["thresholds"]:
        return {**about, **nothing}
    found = _curve(one, whole, ("thresholds", "benefit", "error"), k)
    if not found["thresholds"]:
        return {**about, **nothing}
    unknown, treated = one["unknown"], one["above"][0]
    told = one["fixed"] and allowed((unknown, whole[0] - treated - unknown), k)
    return {**about, **found, "unknown": unknown if told else None, "note": ""}


def harmonization_egress(found: Mapping[str, Any], open_: bool, trained: bool, k: int) -> dict[str, Any]:
    """Sums over features, and C with and without."""
    summary = {
        name: part
        for name, part in found["summary"].items()
        # With few features a median is nearly one of theirs.
        if {"train": trained, "evaluated": open_}[name] and min(part["patients"], part["features"]) >= k
    }
    both = found["model_c"]
    if both is not None:
        enough = open_ and all((both[name]["pairs"] or 0) >= k for name in ("with", "without"))
        both = both if enough else None
    outcome = found["outcome"] if open_ and summary else None
    if outcome is not None:
        outcome = {name: value for name, value in outcome.items() if name != "batches"}
    return {
        "note": found["note"],
        "patients": None,
        "train": None,
        "batches": [],
        "features": [],
        "left_out": 0,
        "passed": found["passed"],
        "summary": summary,
        "outcome": outcome,
        "model_c": both,
    }


def consensus_egress(found: Mapping[str, Any], horizons: Sequence[float], open_: bool, k: int) -> dict[str, Any]:
    """Horizons at which no call holds a small number of patients of any state."""
    about = {"note": found["note"], "models": found["models"], "split": found["split"], "horizons": []}
    if not open_:
        return about
    rows = [row for row in found["horizons"] if row["horizon"] in horizons and row["rows"]]
    return {**about, "horizons": [row for row in rows if _consensus_open(row["rows"], k)]}


def _consensus_open(rows: Sequence[Mapping[str, Any]], k: int) -> bool:
    """Also of those a member calls so and others do not: who is agreed on is a part of who each member calls so."""
    *members, agreed = (cells_of(row) for row in rows)
    apart = [member - both for one in members for member, both in zip(one, agreed, strict=True)]
    return allowed((*agreed, *(cell for one in members for cell in one), *apart), k)
