"""The fitted model of a study as the file that its sites apply."""

from __future__ import annotations

from pathlib import Path

from ctfed.federation.arrays import frozen
from ctfed.model_file import FILE, PortableModel, model_text
from ctfed.report.exports import write_text
from server.study_algorithm import StudyResult


def portable_model(result: StudyResult) -> PortableModel:
    """The study's model with its fitted transforms, pooled baseline and the threshold of its risk groups."""
    groups = result.evaluated.groups
    return PortableModel(
        result.study,
        result.prepared.view,
        frozen(result.fit.coefficients),
        frozen(result.baseline.time),
        frozen(result.baseline.cumulative_hazard),
        None if groups is None else groups.threshold,
    )


def write_model_file(result: StudyResult, folder: Path) -> Path:
    """Write model.json into ``folder``, whole or not at all; return its path."""
    path = folder / FILE
    write_text(path, model_text(portable_model(result)))
    return path
