"""What ComBat did to a site's features: how far they lie from the pooled location and scale before and after, which of
them went farther, and what became of their association with the outcome.

A value is taken as z = (value - alpha - x beta) / sigma, with ComBat's pooled location, covariate effects and scale, so
that before and after are measured alike. A feature's difference is the mean of z over this site's patients (0 is the
pooled mean, 1 a pooled standard deviation), its variance ratio the variance of z (1 is the pooled one).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import norm

from ctfed.federation.arrays import BoolArray, FloatArray
from ctfed.federation.errors import CtfedError
from ctfed.federation.view import Rows, View
from ctfed.report.site_discrimination import FEWEST_EVENTS, concordance
from ctfed.report.site_models import ModelFolder, scores_beside, with_other_harmonization
from ctfed.report.site_rows import SiteRows, attempt, estimate, number
from ctfed.statistics.combat import Combat
from ctfed.statistics.combat.moments import design
from ctfed.statistics.compare import paired_differences
from ctfed.statistics.cox import fit_cox
from ctfed.statistics.select import Select

MOST_FEATURES = 400  # told one by one
MOST_COX = 60  # of which each has two Cox models
LARGE = 0.1  # pooled standard deviations: beyond it groups are commonly called unlike (Austin 2009)
NOTHING = 1e-9  # a distance that grew by less did not grow
SIGNIFICANT = float(norm.isf(0.025))  # |z| from which on p < 0.05
NO_COMBAT = "The model has no ComBat step: every feature is used as it was measured, standardised at most."


@dataclass(frozen=True, eq=False)
class Step:
    """A ComBat step inside a model's view.

    Attributes:
        combat: the fitted step.
        before, after: the training views that end in front of it and behind it.
    """

    combat: Combat
    before: View
    after: View


def combat_steps(view: View) -> Iterator[Step]:
    """Every ComBat step of a view and of the views inside it."""
    for inner in view.inner():
        for place, step in enumerate(inner.transforms):
            if isinstance(step, Combat):
                upto = inner.transforms
                yield Step(step, replace(inner, transforms=upto[:place]), replace(inner, transforms=upto[: place + 1]))


def harmonization(rows: SiteRows, name: str, others: ModelFolder) -> dict[str, Any]:
    """What harmonization did here; a note in place of features where the model has none.

    Args:
        rows: of the site.
        name: of the model in a study of many, '' in a study of one.
        others: models of the same run.
    """
    steps = _distinct(rows.model.view)
    found: dict[str, Any] = {
        "note": "",
        "patients": rows.patients,
        "train": int((rows.cohort.split == "train").sum()),
        "batches": [],
        "features": [],
        "left_out": 0,
        "passed": 0,
        "summary": {},
        "outcome": None,
        "model_c": model_concordance(rows, name, others),
    }
    if not steps:
        return {**found, "note": NO_COMBAT}
    parts = [_Part.of(rows, step) for step in steps]
    found["passed"] = sum(len(step.combat.degenerate) for step in steps)
    found["batches"] = [row for part in parts for row in part.batches]
    summary = {"train": _summary([p.train for p in parts]), "evaluated": _summary([p.seen for p in parts])}
    features = _features(rows, parts)
    kept = sorted(range(len(features)), key=lambda k: -features[k]["moved"])[:MOST_FEATURES]
    chosen = [features[k] for k in sorted(kept)]
    outcome = _outcome(rows, steps, chosen)
    return {
        **found,
        "features": chosen,
        "left_out": len(features) - len(chosen),
        "summary": summary,
        "outcome": outcome,
    }


def _distinct(view: View) -> list[Step]:
    """A member of several models of an ensemble stands in the view more than once."""
    found: dict[tuple[str, ...], Step] = {}
    for step in combat_steps(view):
        found.setdefault(step.combat.names, step)
    return list(found.values())


# -- differences to the pooled location and scale


@dataclass(frozen=True, eq=False)
class Placed:
    """Where some patients lie: (p,) means and variances of z, before and after; NaN without enough patients."""

    patients: int
    mean: tuple[FloatArray, FloatArray]
    ratio: tuple[FloatArray, FloatArray]


@dataclass(frozen=True, eq=False)
class _Part:
    """One step: the features that ComBat may adjust, and where they lie in the training and the evaluated patients."""

    step: Step
    adjusted: BoolArray
    train: Placed
    seen: Placed
    batches: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, rows: SiteRows, step: Step) -> _Part:
        adjusted = ~np.isin(step.combat.names, step.combat.degenerate)
        train, seen = (_placed(rows, step, split, adjusted) for split in ("train", rows.split))
        return cls(step, adjusted, train, seen, tuple(_batches(rows, step)))


def _placed(rows: SiteRows, step: Step, split: str, adjusted: BoolArray) -> Placed:
    chosen = Rows(split, rows=rows.model.view.rows)
    values = [_standard(rows, view.on(chosen), step.combat)[:, adjusted] for view in (step.before, step.after)]
    n = values[0].shape[0]
    nothing = np.full(int(adjusted.sum()), np.nan)
    mean = [z.mean(axis=0) if n else nothing for z in values]
    ratio = [z.var(axis=0, ddof=1) if n > 1 else nothing for z in values]
    return Placed(n, (mean[0], mean[1]), (ratio[0], ratio[1]))


def _standard(rows: SiteRows, view: View, combat: Combat) -> FloatArray:
    """(n, p) z of a view's rows: distance from the pooled location in pooled standard deviations."""
    table = view.table(rows.cohort)
    place = {feature.name: index for index, feature in enumerate(table.features)}
    y = table.values[:, [place[name] for name in combat.names]]
    expected = combat.alpha + design(table, combat.covariates) @ combat.beta
    return np.asarray((y - expected) / combat.sigma)


def _batches(rows: SiteRows, step: Step) -> Iterator[dict[str, Any]]:
    """Each batch of this site: its patients, and whether ComBat moved it."""
    chosen = rows.model.view.rows
    every = step.before.on(Rows("all", rows=chosen)).table(rows.cohort)
    fitted = step.before.on(step.combat.fitted_on).table(rows.cohort)
    seen = step.before.on(Rows(rows.split, rows=chosen)).table(rows.cohort)
    effects = {effect.label: effect for effect in step.combat.effects(seen, fitted)}
    for label in sorted(set(every.batch.tolist())):
        effect = effects.get(label)
        yield {
            "batch": str(label),
            "patients": int((every.batch == label).sum()),
            "train": int((fitted.batch == label).sum()),
            "moved": effect is not None,
            "fitted": effect is not None and effect.fitted,
            "adjusted": 0 if effect is None else int(effect.adjusted.sum()),
        }


def _summary(parts: list[Placed]) -> dict[str, Any]:
    """Medians over all features, and how many lie far from the pooled mean or went farther."""
    before, after = (np.abs(np.concatenate([part.mean[k] for part in parts])) for k in (0, 1))
    scale = [np.abs(np.log(np.concatenate([_positive(part.ratio[k]) for part in parts]))) for k in (0, 1)]
    known = bool(before.size) and not np.isnan(before).any()
    return {
        "patients": parts[0].patients,
        "features": int(before.size),
        "median_before": number(np.median(before)) if known else None,
        "median_after": number(np.median(after)) if known else None,
        "large_before": int((before > LARGE).sum()) if known else None,
        "large_after": int((after > LARGE).sum()) if known else None,
        "farther": int((after > before + NOTHING).sum()) if known else None,
        "clearly_farther": int((after > before + LARGE).sum()) if known else None,
        "scale_farther": int((scale[1] > scale[0] + NOTHING).sum()) if known and not np.isnan(scale).any() else None,
    }


def _positive(values: FloatArray) -> FloatArray:
    return np.where(values > 0, values, np.nan)


def _features(rows: SiteRows, parts: list[_Part]) -> list[dict[str, Any]]:
    """A row for each feature that ComBat adjusts, in the model's order of columns."""
    used = dict(zip(rows.model.view.names, rows.model.coefficients.tolist(), strict=True))
    found = []
    for index, part in enumerate(parts):
        names = np.array(part.step.combat.names)[part.adjusted].tolist()
        for j, name in enumerate(names):
            row: dict[str, Any] = {"feature": rows.model.study.label(name), "name": name, "step": index}
            row["coefficient"] = number(used[name]) if name in used else None
            for key, placed in (("train", part.train), ("evaluated", part.seen)):
                row[key] = {
                    "before": {"difference": number(placed.mean[0][j]), "ratio": number(placed.ratio[0][j])},
                    "after": {"difference": number(placed.mean[1][j]), "ratio": number(placed.ratio[1][j])},
                }
            best = part.seen if part.seen.patients else part.train
            moved = abs(best.mean[1][j] - best.mean[0][j])
            row["moved"] = float(moved) if np.isfinite(moved) else 0.0
            grown = abs(best.mean[1][j]) - abs(best.mean[0][j])
            row["farther"] = float(grown) if np.isfinite(grown) and grown > NOTHING else None
            row["cox"] = None
            found.append(row)
    return found


# -- association with the outcome


def _outcome(rows: SiteRows, steps: list[Step], features: list[dict[str, Any]]) -> dict[str, Any]:
    """Univariable Cox models of single features before and after, written into their rows; how many changed sides."""
    batches = int(np.unique(rows.table.batch).size)
    kept = batches == 1 and not any(step.combat.covariates for step in steps)
    found: dict[str, Any] = {"note": "", "order_kept": kept, "batches": batches, "tested": 0, "gained": 0, "lost": 0}
    if rows.events < FEWEST_EVENTS:
        return {**found, "note": f"{rows.events} events are fewer than {FEWEST_EVENTS}"}
    # Features that the model counts first, then those that moved most.
    order = sorted(features, key=lambda row: (not row["coefficient"], -row["moved"]))
    for row in order[:MOST_COX]:
        before, after = (_wald(rows, view, row["name"]) for view in _both(rows, steps[row["step"]]))
        row["cox"] = {"before": before, "after": after}
        if before["z"] is None or after["z"] is None:
            continue
        found["tested"] += 1
        was, remains = (abs(part["z"] or 0.0) > SIGNIFICANT for part in (before, after))
        found["gained"] += int(remains and not was)
        found["lost"] += int(was and not remains)
    return found


def _both(rows: SiteRows, step: Step) -> tuple[View, View]:
    chosen = Rows(rows.split, rows=rows.model.view.rows)
    return step.before.on(chosen), step.after.on(chosen)


def _wald(rows: SiteRows, view: View, name: str) -> dict[str, float | None]:
    """z of the feature's coefficient in a Cox model of its own, and its p-value; None where there is no fit."""
    fit, _ = attempt(lambda: rows.ask(fit_cox(view.then(Select((name,))), ties=rows.ties)))
    z = None if fit is None or not fit.converged or fit.z is None else number(fit.z[0])
    return {"z": z, "p": None if z is None else float(2 * norm.sf(abs(z)))}


# -- the model with and without


def model_concordance(rows: SiteRows, name: str, others: ModelFolder) -> dict[str, Any] | None:
    """C here of this model and of the one that differs in its harmonization alone; None where there is no such one."""
    study = rows.model.study
    other = with_other_harmonization(study, name)
    if other is None or other not in others or rows.patients == 0:
        return None
    this_has = bool(study.models[name].combat)
    pair = {name: rows.model, other: others[other]}
    values = {label: concordance(SiteRows(rows.cohort, model, rows.split)) for label, model in pair.items()}
    first, second = (name, other) if this_has else (other, name)
    ordered = {label: pair[label] for label in (first, second)}
    difference, note = attempt(lambda: _difference(rows, ordered))
    return {
        "with": {"model": first, **values[first]},
        "without": {"model": second, **values[second]},
        "difference": difference,
        "note": note,
    }


def _difference(rows: SiteRows, models: dict[str, Any]) -> dict[str, float | None]:
    """C of the first model minus C of the second, on the same pairs of patients."""
    if rows.events == 0:
        raise CtfedError("there is no event")
    found = rows.ask(paired_differences(scores_beside(models, rows.split, rows.model.view.rows)))
    return {**estimate(found.value[0, 1], *found.intervals(rows.level)[0, 1]), "p": number(found.p[0, 1])}
