"""The models of a study of many as files that any site applies: one for each, of the format of ``ctfed.model_file``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.view import View
from ctfed.model_file import PortableModel, model_text
from ctfed.report.exports import write_text
from ctfed.statistics.ensemble import Ensemble
from server.many.algorithm import ManyResult, scores_by_name
from server.many.evaluation import Evaluated

FOLDER = "models"


def portable_models(result: ManyResult) -> dict[str, PortableModel]:
    """Every model and ensemble with its fitted transforms, baseline hazard and threshold between the risk groups.

    A model without a baseline is left out: there were too few test patients to ask for one, as a note says.
    """
    places = scores_by_name(result)
    found = {}
    for one in result.models:
        parts = one.fit.view, frozen(one.fit.coefficients)
        if (model := _portable(result, *parts, *places[one.name])) is not None:
            found[one.name] = model
    for name, spec in result.study.ensembles.items():
        where, place = places[name]
        parts = _ensemble_view(where, spec.models), frozen(np.ones(1))
        if (model := _portable(result, *parts, where, place)) is not None:
            found[name] = model
    return found


def _portable(
    result: ManyResult, view: View, coefficients: FloatArray, found: Evaluated, place: int
) -> PortableModel | None:
    if found.predictions is None:
        return None
    baseline = found.predictions.baselines[place]
    threshold = None if found.groups is None else float(found.groups.thresholds[place])
    time, hazard = frozen(baseline.time), frozen(baseline.cumulative_hazard)
    return PortableModel(result.study, view, coefficients, time, hazard, threshold)


def _ensemble_view(found: Evaluated, members: tuple[str, ...]) -> View:
    """The standardised mean of the members' scores alone: the fitted view holds all models of the study."""
    whole = found.train
    step = whole.transforms[-1]
    assert isinstance(step, Ensemble)
    chosen = [found.names.index(name) for name in members]
    small = Ensemble(frozen(np.ones((1, len(chosen)))), frozen(step.mean[chosen]), frozen(step.scale[chosen]))
    return View.joined([whole.beside[index] for index in chosen]).then(small)


def write_model_files(result: ManyResult, folder: Path) -> list[Path]:
    """Write ``folder/models/NAME.json`` for every model, each whole or not at all; return their paths."""
    where = folder / FOLDER
    where.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, model in portable_models(result).items():
        paths.append(where / f"{name}.json")
        write_text(paths[-1], model_text(model))
    return paths
