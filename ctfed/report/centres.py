"""What several centres have released about one model, beside each other and pooled with random effects.

A centre releases its own results by handing on ``egress/report.json`` of its validation report. Nothing is asked of a
site here. Results are pooled where they are about normal (Snell, Ensor, Debray et al. 2018,
doi:10.1177/0962280217705678): C on the logit scale, observed / expected on the log scale, the calibration slope as it
is. Standard errors come from the intervals, which are symmetric on these scales.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from ctfed.federation.errors import CtfedError
from ctfed.report.reader import Reader
from ctfed.statistics.compare import RandomEffects, random_effects

FORMAT = 1
RESULTS = "results.json"
FEWEST = 3  # centres: two give no prediction interval, and each would know the other's result from the mean
LIMITS = ("estimate", "lower", "upper", "prediction_lower", "prediction_upper")


@dataclass(frozen=True)
class Measure:
    """One result of every centre.

    Attributes:
        key: its name in the JSON.
        label: its name on a page.
        reference: its value for a model that is of no use (C) or perfectly calibrated.
        forth, back: to the scale on which it is pooled, and from it.
        ratio: whether its axis is logarithmic.
    """

    key: str
    label: str
    reference: float
    forth: Callable[[float], float]
    back: Callable[[float], float]
    ratio: bool = False


@dataclass(frozen=True)
class Released:
    """A report that a centre has handed on: where it lay, the SHA-256 of the file, its content."""

    path: Path
    sha256: str
    content: Reader

    @property
    def site(self) -> str:
        """The centre."""
        return self.content.section("site").text("name") or ""


def read_released(paths: Sequence[Path]) -> tuple[Released, ...]:
    """Read the egress editions of several centres' reports about one model of one run.

    Raises:
        CtfedError: a file cannot be read, is no egress edition, names a centre twice, or is about another model; or
            there are fewer than three.
    """
    if len(paths) < FEWEST:
        raise CtfedError(f"--centres: found {len(paths)} reports, expected at least {FEWEST}")
    found = tuple(_read(path) for path in paths)
    first = found[0]
    for one in found[1:]:
        if (theirs := _subject(one)) != _subject(first):
            raise CtfedError(
                f"{one.path}: found a report about {theirs}, expected {_subject(first)} as in {first.path}"
            )
    names = [one.site for one in found]
    for place, name in enumerate(names):
        if name in names[:place]:
            other = found[names.index(name)].path
            raise CtfedError(
                f"{found[place].path}: found the site {name!r} again, expected each once; it is in {other}"
            )
    return tuple(sorted(found, key=lambda one: one.site))


def _read(path: Path) -> Released:
    try:
        raw = path.read_bytes()
        content = json.loads(raw)
    except OSError as error:
        raise CtfedError(f"{path}: found no readable file ({error.strerror}), expected egress/report.json") from error
    except ValueError as error:
        raise CtfedError(f"{path}: found no JSON ({error}), expected egress/report.json of a site's report") from error
    if not isinstance(content, dict) or content.get("ctfed_site_report") != FORMAT:
        raise CtfedError(f"{path}: found another kind of file, expected egress/report.json of a site's report")
    if content.get("edition") != "egress":
        found = content.get("edition")
        raise CtfedError(f"{path}: edition: found {found!r}, expected 'egress'; a local report stays at its site")
    released = Released(path, hashlib.sha256(raw).hexdigest(), Reader(content, str(path)))
    if not released.site:
        raise CtfedError(f"{path}: site.name: found nothing, expected the centre's name")
    return released


def _subject(one: Released) -> str:
    """The model and the patients that a report is about, in words."""
    study = one.content.section("study").text("sha256") or "unknown"
    files = one.content.section("provenance").section("files").values
    # The run's results may be written again with another date; the model that was applied is the file beside them.
    model = ", ".join(f"{name} {str(value)[:12]}" for name, value in sorted(files.items()) if name != RESULTS)
    split = one.content.section("flow").section("evaluated").text("split")
    return f"study {study[:12]}, {model or 'an unknown model'}, {split} patients"


def centres_content(released: Sequence[Released], made: str) -> dict[str, Any]:
    """Every number of the page: each centre's results, and their random-effects summary.

    Args:
        released: of ``read_released``.
        made: ISO time.

    Returns:
        'sites': name, digest of the file, patients and events where told; 'measures': for each its centres' values
        with limits, the centres without it, and the pooled result or the reason why there is none.
    """
    first = released[0].content
    level = first.section("study").number("level") or 0.95
    study = {name: first.section("study").text(name) for name in ("name", "title", "sha256", "endpoint", "time_unit")}
    pooled = first.section("discrimination").section("pooled").section("within")
    return {
        "ctfed_centres": FORMAT,
        "made": made,
        "study": {**study, "level": level},
        "model": first.section("site").text("model"),
        "split": first.section("flow").section("evaluated").text("split"),
        "federation": {name: pooled.number(name) for name in ("value", "lower", "upper")},
        "sites": [_site(one) for one in released],
        "measures": [_pooled(measure, values, level) for measure, values in _measures(released)],
    }


def _site(one: Released) -> dict[str, Any]:
    evaluated = one.content.section("flow").section("evaluated")
    return {
        "site": one.site,
        "file_sha256": one.sha256,
        "made": one.content.text("made"),
        "patients": evaluated.count("patients"),
        "events": evaluated.count("events"),
        "verdict": one.content.section("verdict").text("label"),
    }


Values = list[tuple[str, Reader]]


def _measures(released: Sequence[Released]) -> list[tuple[Measure, Values]]:
    """The measures in the order of the page, each with the mapping that holds it at every centre."""

    def of(pick: Callable[[Reader], Reader]) -> Values:
        return [(one.site, pick(one.content)) for one in released]

    same = Measure("slope", "Calibration slope", 1.0, float, float)
    concordance = Measure("c", "Harrell's C", 0.5, lambda c: float(logit(c)), lambda x: float(expit(x)))
    found = [
        (concordance, of(lambda content: content.section("discrimination").section("harrell"))),
        (same, of(lambda content: content.section("calibration").section("slope"))),
    ]
    unit = released[0].content.section("study").text("time_unit") or ""
    horizons = released[0].content.section("study").numbers("horizons")
    for horizon in (one for one in horizons if one is not None):
        name = f"Observed / expected at {horizon:g} {unit}".strip()
        ratio = Measure(f"ratio-{horizon:g}", name, 1.0, lambda r: float(np.log(r)), lambda x: float(np.exp(x)), True)
        found.append((ratio, of(lambda content, horizon=horizon: _ratio(content, horizon))))  # type: ignore[misc]
    return found


def _ratio(content: Reader, horizon: float) -> Reader:
    rows = content.section("calibration").rows("horizons")
    row = next((row for row in rows if row.number("horizon") == horizon), Reader({}))
    return row.section("ratio")


def _pooled(measure: Measure, values: Values, level: float) -> dict[str, Any]:
    z = float(norm.isf((1 - level) / 2))
    centres, without = [], []
    for site, row in values:
        value, lower, upper = (row.number(name) for name in ("value", "lower", "upper"))
        if value is None or lower is None or upper is None or not lower < upper:
            without.append(site)
            continue
        with np.errstate(divide="ignore"):
            place, ends = measure.forth(value), (measure.forth(lower), measure.forth(upper))
        if not np.isfinite([place, *ends]).all():
            without.append(site)
            continue
        error = (ends[1] - ends[0]) / (2 * z)
        centres.append({"site": site, "value": value, "lower": lower, "upper": upper, "place": place, "error": error})
    about = {"measure": measure.key, "label": measure.label, "reference": measure.reference, "ratio": measure.ratio}
    found: dict[str, Any] = {**about, "centres": centres, "without": without, "pooled": None, "note": ""}
    if len(centres) < FEWEST:
        found["note"] = f"{len(centres)} centres have released it with an interval, {FEWEST} are needed to pool it"
        return found
    places, errors = (np.array([row[name] for row in centres]) for name in ("place", "error"))
    summary = random_effects(places, errors, at_least_normal=True, level=level)
    found["pooled"] = {**_back(summary, measure), "weights": _weights(centres, summary.tau2)}
    return found


def _back(summary: RandomEffects, measure: Measure) -> dict[str, Any]:
    """The summary with its limits on the measure's own scale; tau2 and the error stay where they were computed."""
    plain = {name: value for name, value in asdict(summary).items() if name not in LIMITS}
    return {**plain, **{name: measure.back(getattr(summary, name)) for name in LIMITS}}


def _weights(centres: Sequence[Mapping[str, Any]], tau2: float) -> list[float]:
    """Each centre's share of the pooled result."""
    weights = np.array([1 / (row["error"] ** 2 + tau2) for row in centres])
    return [float(weight) for weight in weights / weights.sum()]
