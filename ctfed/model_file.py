"""model.json: a fitted model with everything that is needed to apply it at a site, and nothing about any patient.

It holds the study, the training view with its fitted transforms (as registered names with their fields, the views that
stand beside it first, and one list of all their numbers), the coefficients, the pooled baseline hazard on the study's
grid, and the threshold between the risk groups. Numbers are written in the shortest form that reads back to the same
bits.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import Decoder, Encoder, digest
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError, MalformedMessage
from ctfed.federation.view import Rows, Table, View
from ctfed.statistics.predict import LinearPredictor
from ctfed.study import Study

FILE = "model.json"
FORMAT = 1
_KEYS = {
    *("ctfed_model", "study", "study_sha256", "beside", "view", "values"),
    *("features", "coefficients", "baseline", "threshold"),
}


class ModelError(CtfedError):
    """A model file is not what it should be."""


@dataclass(frozen=True, eq=False)
class PortableModel:
    """One Cox model that any site can apply.

    Attributes:
        study: what it was fitted for.
        view: the training rows, the columns and the fitted transforms.
        coefficients: (p,) per unit of the view's columns.
        time: (T,) edges of the baseline's grid, in the study's time unit.
        hazard: (T,) cumulative baseline hazard at the edges, for a linear predictor of 0.
        threshold: score above which a patient is of higher risk; None where the run had no risk groups.
    """

    study: Study
    view: View
    coefficients: FloatArray
    time: FloatArray
    hazard: FloatArray
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.coefficients.shape != (self.view.width,):
            raise ValueError(f"{self.coefficients.size} coefficients for {self.view.width} columns")
        if self.time.ndim != 1 or self.time.shape != self.hazard.shape or not self.time.size:
            raise ValueError(f"a baseline of {self.time.size} times and {self.hazard.size} hazards")
        if not ((np.diff(self.time) > 0).all() and (self.hazard >= 0).all() and (np.diff(self.hazard) >= 0).all()):
            raise ValueError("a baseline has rising times and a hazard >= 0 that does not fall")

    @property
    def scored(self) -> View:
        """The training view with the model's score as its only column."""
        return self.view.then(LinearPredictor(frozen(self.coefficients[None, :])))

    def rows(self, split: str) -> View:
        """The features of a site's 'train', 'test' or 'all' rows, as the model takes them."""
        return self.view.on(Rows(split, rows=self.view.rows))

    def scores(self, split: str) -> View:
        """The model's score of a site's 'train', 'test' or 'all' rows."""
        return self.scored.on(Rows(split, rows=self.view.rows))

    def hazard_at(self, times: FloatArray) -> FloatArray:
        """(H,) cumulative baseline hazard: the last step at or before each time."""
        steps = np.concatenate([[0.0], self.hazard])
        return np.asarray(steps[np.searchsorted(self.time, times * (1 + 1e-12), side="right")])

    def risk(self, scores: FloatArray, times: FloatArray) -> FloatArray:
        """(n, H) probability of the event by each time: 1 - exp(-H0 exp(score))."""
        return -np.expm1(-np.exp(np.minimum(scores, 700.0))[:, None] * self.hazard_at(times)[None, :])

    def table(self, cohort: Cohort, split: str = "all") -> Table:
        """The score of each of a site's rows, in the cohort's order.

        Raises:
            Refusal: a column of the model is not in the cohort.
        """
        return self.scores(split).table(cohort)


def model_text(model: PortableModel) -> str:
    """The content of model.json; equal models give equal text."""
    encoder = Encoder()
    # Views that stand beside each other travel by their digests: their bodies come first, the innermost ones foremost.
    inner = {digest(view): view for view in reversed([*model.view.inner()][1:])}
    beside = [encoder.body(view) for view in inner.values()]
    body = encoder.body(model.view)
    content = {
        "ctfed_model": FORMAT,
        "study": model.study.model_dump(mode="json", exclude_unset=True),
        "study_sha256": model.study.sha256,
        "beside": beside,
        "view": body,
        "values": encoder.flat().tolist(),
        "features": list(model.view.names),
        "coefficients": model.coefficients.tolist(),
        "baseline": {"time": model.time.tolist(), "cumulative_hazard": model.hazard.tolist()},
        "threshold": model.threshold,
    }
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_model(path: Path) -> tuple[PortableModel, str]:
    """The model in a file, and the SHA-256 (hex) of the file.

    Raises:
        ModelError: naming the file, what was found and what was expected.
    """
    from ctfed.node import register_queries

    register_queries()  # so that every transform is known by its name
    try:
        raw = path.read_bytes()
        content = json.loads(raw)
    except OSError as error:
        raise ModelError(f"{path}: found no readable file ({error.strerror}), expected a model file") from error
    except ValueError as error:
        raise ModelError(f"{path}: found no JSON ({error}), expected a model file") from error
    if not isinstance(content, dict) or content.get("ctfed_model") != FORMAT or set(content) != _KEYS:
        raise ModelError(f"{path}: found another kind of file, expected a model file ('ctfed_model': {FORMAT})")
    try:
        return _built(content), hashlib.sha256(raw).hexdigest()
    except (KeyError, TypeError, ValueError, MalformedMessage) as error:
        raise ModelError(f"{path}: found a damaged model ({error}), expected one as ctfed writes it") from error


def _built(content: dict[str, Any]) -> PortableModel:
    try:
        study = Study.model_validate_json(json.dumps(content["study"]))
    except pydantic.ValidationError as error:
        raise ValueError(f"its study has {error.error_count()} faults") from error
    if study.sha256 != content["study_sha256"]:
        raise ValueError("its study does not have the SHA-256 that stands beside it")
    decoder = Decoder(np.asarray(content["values"], dtype=np.float64))
    for body in content["beside"]:
        inner = decoder.build(body, View, "beside")
        decoder.share({digest(inner): inner})
    view = decoder.build(content["view"], View, "view")
    if not decoder.exhausted or list(view.names) != content["features"]:
        raise ValueError("its transforms do not give the features that it names")
    baseline, threshold = content["baseline"], content["threshold"]
    return PortableModel(
        study,
        view,
        frozen(np.asarray(content["coefficients"], dtype=np.float64)),
        frozen(np.asarray(baseline["time"], dtype=np.float64)),
        frozen(np.asarray(baseline["cumulative_hazard"], dtype=np.float64)),
        None if threshold is None else float(threshold),
    )
