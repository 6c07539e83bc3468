"""What decisions gain: net benefit of the model, of treating everybody, and of what is simpler than the model.

Simpler is the stage alone, and the tumour's volume alone. Where the run left a model of just that, its predicted risks
are used; else a fixed rule: treat from stage III on, or above the median volume of the training patients. A rule treats
the same patients at every threshold; only the price of treating those without the event changes along the curve.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray
from ctfed.federation.errors import CtfedError
from ctfed.model_file import PortableModel
from ctfed.report.site_discrimination import FEWEST_EVENTS, states_at
from ctfed.report.site_models import STAGE, VOLUME, ModelFolder, of_stage_alone, of_volume_alone, on_patients
from ctfed.report.site_rows import SiteRows, attempt, number
from ctfed.statistics.decide import decision_curve
from ctfed.statistics.horizons import HorizonWeights
from ctfed.statistics.impute import Impute
from ctfed.study import Study

THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 20))
LATE = re.compile(r"\W*(?:stage)?\W*(?:III|IV|3|4)(?![0-9IV])", re.IGNORECASE)  # 'III', 'Stage IIIB', '4'
EARLY = re.compile(r"\W*(?:stage)?\W*(?:occult|0|I{1,2}|1|2)(?![0-9IV])", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class FixedRule:
    """Who is treated whatever the threshold.

    Attributes:
        name: as the curve is called.
        words: what exactly the rule is.
        treated: (patients of the cohort,).
        unknown: (patients of the cohort,) True for those of whom the rule knows nothing; they are not treated.
    """

    name: str
    words: str
    treated: BoolArray
    unknown: BoolArray


@dataclass(frozen=True, eq=False)
class SimplerModel:
    """A model of the same run whose predicted risks are compared."""

    name: str
    words: str
    model: PortableModel


Comparator = FixedRule | SimplerModel


def decision(rows: SiteRows, name: str, others: ModelFolder) -> tuple[list[dict[str, Any]], list[str]]:
    """Net benefit at each horizon where the weights are known, with the counts behind each threshold; and a sentence
    for each simpler way that is not drawn.

    Args:
        rows: of the site.
        name: of the model in a study of many, '' in a study of one.
        others: models of the same run.
    """
    simpler = (_stage(rows, name, others), _volume(rows, name, others))
    comparators = [one for one in simpler if not isinstance(one, str)]
    found = []
    for horizon in rows.horizons:
        curve, note = attempt(lambda horizon=horizon: _decision_at(rows, horizon, comparators))  # type: ignore[misc]
        found.append({"horizon": horizon, "note": note, **(curve or {})})
    return found, [one for one in simpler if isinstance(one, str)]


def _decision_at(rows: SiteRows, horizon: float, comparators: list[Comparator]) -> dict[str, Any]:
    cases, controls = states_at(rows, horizon)
    if min(cases, controls) < FEWEST_EVENTS:
        raise CtfedError(
            f"{cases} patients with and {controls} without the event by then; a curve needs {FEWEST_EVENTS} of each"
        )
    return {
        **_model_curve(rows, horizon),
        "patients": rows.patients,
        "cases": cases,
        "controls": controls,
        "comparators": [_compared(rows, horizon, one) for one in comparators],
    }


def _model_curve(rows: SiteRows, horizon: float) -> dict[str, Any]:
    followed, hazard = rows.followed(horizon), rows.hazard(horizon)
    curve = rows.ask(decision_curve(rows.view, followed, hazard[0], horizon, THRESHOLDS, minimum=0))
    risk = rows.model.risk(rows.scores, np.array([horizon]))[:, 0]
    treated = risk[:, None] > np.array(THRESHOLDS)
    return {
        "thresholds": list(THRESHOLDS),
        "benefit": [number(value) for value in curve.benefit[0]],
        "error": [number(value) for value in curve.error[0]],
        "treat_all": [number(value) for value in curve.treat_all[0]],
        **_counts(rows, horizon, treated),
    }


def _counts(rows: SiteRows, horizon: float, treated: BoolArray) -> dict[str, list[int]]:
    """Of (n, P) who is treated: how many, with the event by then, and seen without it beyond."""
    time, event = rows.table.time, rows.table.event
    state = {"above": np.ones_like(event), "cases_above": event & (time <= horizon), "controls_above": time > horizon}
    return {name: (treated & member[:, None]).sum(axis=0).tolist() for name, member in state.items()}


def _compared(rows: SiteRows, horizon: float, one: Comparator) -> dict[str, Any]:
    about: dict[str, Any] = {"name": one.name, "words": one.words, "note": "", "unknown": None, "fixed": False}
    if isinstance(one, SimplerModel):
        same = SiteRows(rows.cohort, on_patients(one.model, rows.model.view.rows), rows.split)
        curve, note = attempt(lambda: _model_curve(same, horizon))
        return {**about, "note": note, **(curve or {"thresholds": [], "benefit": []})}
    treated = one.treated[rows.kept]
    benefit, error = _rule_benefit(rows, rows.followed(horizon).weights.at(horizon), treated)
    return {
        **about,
        "fixed": True,
        "unknown": int(one.unknown[rows.kept].sum()),
        "thresholds": list(THRESHOLDS),
        "benefit": benefit.tolist(),
        "error": error.tolist(),
        **_counts(rows, horizon, np.broadcast_to(treated[:, None], (treated.size, len(THRESHOLDS)))),
    }


def _rule_benefit(rows: SiteRows, weights: HorizonWeights, treated: BoolArray) -> tuple[FloatArray, FloatArray]:
    """(P,) net benefit and its standard error, with the weights and formulas of ``decide.decision_curve``."""
    case, control = (part[0] for part in weights.of(rows.table))
    p = np.array(THRESHOLDS)
    each = treated[:, None] * (case[:, None] - p / (1 - p) * control[:, None])
    return each.mean(axis=0), each.std(axis=0) / np.sqrt(treated.size)


# -- stage alone


def _stage(rows: SiteRows, name: str, others: ModelFolder) -> Comparator | str:
    """The comparator, or the sentence that says why there is none."""
    study = rows.model.study
    chosen = of_stage_alone(study)
    if chosen == name and chosen:
        return "The model is one of the stage alone, so no other is drawn."
    if chosen is not None and chosen in others:
        columns = ", ".join(SiteRows(rows.cohort, others[chosen], rows.split).columns)
        return SimplerModel("stage alone", f"predicted risks of the run's model {chosen} ({columns})", others[chosen])
    column = STAGE if STAGE in rows.cohort.columns and STAGE in study.variables else None
    if column is None:
        return "Stage alone is not drawn: no variable of the study is named 'stage'."
    late = late_levels(study)
    if late is None:
        return "Stage alone is not drawn: the study's levels of 'stage' do not say which are III and IV."
    values = rows.cohort.columns[column]
    words = "treat whoever has stage III or IV, whatever the threshold; who has no stage is not treated"
    return FixedRule("stage III and IV", words, np.isin(values, late), np.isnan(values))


def late_levels(study: Study) -> list[float] | None:
    """The values of the variable 'stage' that are III and IV, by their labels; None where these do not say so."""
    labels = study.variables[STAGE].levels or {}
    if not labels or not all(LATE.match(text) or EARLY.match(text) for text in labels.values()):
        return None
    found = [float(value) for value, text in labels.items() if LATE.match(text)]
    return found or None


# -- volume alone


def _volume(rows: SiteRows, name: str, others: ModelFolder) -> Comparator | str:
    study = rows.model.study
    chosen = of_volume_alone(study)
    if chosen == name and chosen:
        return "The model is one of the tumour volume alone, so no other is drawn."
    if chosen is not None and chosen in others:
        columns = ", ".join(SiteRows(rows.cohort, others[chosen], rows.split).columns)
        return SimplerModel("volume alone", f"predicted risks of the run's model {chosen} ({columns})", others[chosen])
    column = next((c for c in rows.cohort.columns if VOLUME.fullmatch(c) and c in study.columns), None)
    if column is None:
        return "Tumour volume alone is not drawn: no column of the study is the tumour's volume."
    values = rows.cohort.columns[column]
    cut, whose = volume_cut(rows, column)
    if cut is None:
        return "Tumour volume alone is not drawn: no training patient of this site has a volume."
    words = f"treat whoever has a volume ({study.label(column)}) above {whose}, whatever the threshold; who has no "
    words += "volume is not treated"
    return FixedRule("large volume", words, values > cut, np.isnan(values))


def volume_cut(rows: SiteRows, column: str) -> tuple[float | None, str]:
    """The federation's training median where the model fills missing volumes with it, else this site's own."""
    study = rows.model.study
    if column in study.variables and study.variables[column].impute == "median":
        for view in rows.model.view.inner():
            for step in view.transforms:
                if isinstance(step, Impute) and column in step.names:
                    cut = float(step.values[step.names.index(column)])
                    return cut, "the median of the federation's training patients"
    own = rows.cohort.columns[column][rows.cohort.split == "train"]
    known = own[~np.isnan(own)]
    return (float(np.median(known)) if known.size else None), "the median of this site's own training patients"
