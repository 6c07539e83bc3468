"""The box at the head of a site's report: a rule that anyone can apply by hand to the numbers below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctfed.report.site_discrimination import FEWEST_EVENTS, FEWEST_PATIENTS

RULE = (
    f"Fewer than {FEWEST_PATIENTS} evaluated patients, or fewer than {FEWEST_EVENTS} with the event: no judgement. "
    "Otherwise 'agrees' when all of these hold: (a) the interval of C lies above 0.5; (b) it is not wholly below the "
    "pooled C; (c) the interval of the calibration slope holds 1; (d) so does that of observed / expected at every "
    f"horizon that at least {FEWEST_EVENTS} patients reach with the event, and as many without it; (e) no variable of "
    "the model is missing for every patient; (f) the model has not seen the patients. 'Fails' when the interval of C "
    "lies below 0.5. In all other cases 'look closer', with what does not hold. An interval that holds 1 does not show "
    "that a model is calibrated: with few patients intervals are wide."
)


def verdict(content: Mapping[str, Any]) -> dict[str, Any]:
    """The judgement, its rule, and what spoke against agreement."""
    evaluated = content["flow"]["evaluated"]
    patients, events = evaluated["patients"], evaluated["events"]
    if patients < FEWEST_PATIENTS or events < FEWEST_EVENTS:
        reason = f"{patients} evaluated patients and {events} with the event are too few to judge the model here"
        return {"level": "plain", "label": "no judgement", "reasons": [reason], "rule": RULE}
    c = content["discrimination"]["harrell"]
    if c["upper"] is not None and c["upper"] < 0.5:
        reason = "patients with a higher score tend to live longer here: the interval of C lies below 0.5"
        return {"level": "danger", "label": "fails", "reasons": [reason], "rule": RULE}
    seen = [] if evaluated["split"] == "test" else ["the model has seen some or all of these patients"]
    reasons = [*seen, *_order(content, c), *_calibrated(content["calibration"]), *_missing(content["missing"])]
    if reasons:
        return {"level": "warning", "label": "look closer", "reasons": reasons, "rule": RULE}
    return {"level": "good", "label": "agrees", "reasons": [], "rule": RULE}


def _order(content: Mapping[str, Any], c: Mapping[str, Any]) -> list[str]:
    if c["lower"] is None or c["upper"] is None:
        return ["C has no interval here"]
    found = [] if c["lower"] > 0.5 else ["the interval of C holds 0.5: the order of patients may be chance"]
    pooled = content["discrimination"]["pooled"]["within"]
    if pooled is not None and c["upper"] < pooled["value"]:
        found.append("the interval of C lies wholly below the pooled C")
    return found


def _calibrated(calibration: Mapping[str, Any]) -> list[str]:
    slope, found = calibration["slope"], []
    if slope is None or slope["lower"] is None:
        found.append("the calibration slope cannot be told")
    elif not slope["lower"] <= 1 <= slope["upper"]:
        found.append("the interval of the calibration slope does not hold 1")
    for row in calibration["horizons"]:
        ratio = row.get("ratio")
        if ratio is None or ratio["lower"] is None or min(row["cases"], row["controls"]) < FEWEST_EVENTS:
            continue
        if not ratio["lower"] <= 1 <= ratio["upper"]:
            high = "too low" if ratio["value"] > 1 else "too high"
            found.append(f"predicted risks at {row['horizon']:g} are {high}: the interval of observed / expected")
    return found


def _missing(missing: Mapping[str, Any]) -> list[str]:
    if not missing["absent"]:
        return []
    return [f"no patient here has a value of {', '.join(missing['absent'])}; the federation's typical value stands in"]
