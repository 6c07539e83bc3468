"""Linear predictors as a transform: from features to one risk score per model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.codec import register
from ctfed.federation.view import Feature, Table, Transform

# Scores are rounded before anybody compares or counts them, so that the last bit of a sum cannot change a ranking.
SCORE_DECIMALS = 10


@register("linear-predictor")
@dataclass(frozen=True, eq=False)
class LinearPredictor(Transform):
    """Risk scores eta = X beta of a stack of models; the columns become 'risk-0', 'risk-1', ...

    Attributes:
        coefficients: (m, p), per unit of the incoming columns.
        prefix: of the new names, in place of 'risk'.
    """

    coefficients: FloatArray
    prefix: str = "risk"

    def __post_init__(self) -> None:
        if self.coefficients.ndim != 2 or self.coefficients.shape[0] == 0:
            raise ValueError("coefficients must be (models, features)")

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """One score per model."""
        if len(features) != self.coefficients.shape[1]:
            raise ValueError(f"coefficients for {self.coefficients.shape[1]} columns, the view has {len(features)}")
        return tuple(Feature(f"{self.prefix}-{index}") for index in range(self.coefficients.shape[0]))

    def apply(self, table: Table) -> FloatArray:
        """(n, m) scores, rounded to ten decimals."""
        return np.round(table.values @ self.coefficients.T, SCORE_DECIMALS)
