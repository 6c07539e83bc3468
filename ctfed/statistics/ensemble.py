"""Ensembles: the mean of standardised scores of several models.

Scores of different models have different spreads, so each is standardised by its mean and standard deviation over the
training patients of the federation before the mean is taken; the parameters are frozen for test. An ensemble is a
column like any other score: it is evaluated, calibrated (with its own baseline at coefficient 1) and compared in the
same questions as its members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.view import Feature, Table, Transform, View
from ctfed.statistics.describe import Fitted, moments
from ctfed.statistics.predict import SCORE_DECIMALS
from ctfed.statistics.standardise import CONSTANT


@register("ensemble")
@dataclass(frozen=True, eq=False)
class Ensemble(Transform):
    """From m scores to K means of standardised scores, 'ensemble-0', ...; with ``keep`` behind the m scores.

    Attributes:
        members: (K, m) 1 where a model belongs to an ensemble, else 0; at least one in each row.
        mean, scale: (m,) of the scores, scale > 0.
        keep: whether the scores themselves stay.
    """

    members: FloatArray
    mean: FloatArray
    scale: FloatArray
    keep: bool = False

    def __post_init__(self) -> None:
        check_members(self.members)
        shape = (self.members.shape[1],)
        if self.mean.shape != shape or self.scale.shape != shape:
            raise ValueError(f"{shape[0]} models, but {self.mean.shape} means and {self.scale.shape} scales")
        if not (self.scale > 0).all():
            raise ValueError("a scale must be > 0")

    def features(self, features: tuple[Feature, ...]) -> tuple[Feature, ...]:
        """The columns that come out."""
        if len(features) != self.members.shape[1]:
            raise ValueError(f"an ensemble of {self.members.shape[1]} models, the view has {len(features)} scores")
        found = tuple(Feature(f"ensemble-{index}") for index in range(self.members.shape[0]))
        if self.keep and {feature.name for feature in features} & {feature.name for feature in found}:
            raise ValueError("the scores are named as the ensembles are")
        return features + found if self.keep else found

    def apply(self, table: Table) -> FloatArray:
        """(n, K) or (n, m + K) scores, means rounded to ten decimals."""
        weights = self.members / self.members.sum(axis=1, keepdims=True)
        means = np.round(((table.values - self.mean) / self.scale) @ weights.T, SCORE_DECIMALS)
        return np.concatenate([table.values, means], axis=1) if self.keep else means


def check_members(members: FloatArray) -> None:
    """Raise ValueError unless every row of 0 and 1 names a member."""
    if members.ndim != 2 or 0 in members.shape or not np.isin(members, (0.0, 1.0)).all():
        raise ValueError("members must be a (sets, models) array of 0 and 1")
    if not members.any(axis=1).all():
        raise ValueError("a set of models has no member")


def members_of(sets: Sequence[Sequence[int]], models: int) -> FloatArray:
    """(K, m) array of 0 and 1 from lists of models' indices.

    Raises:
        ValueError: when an index is not that of a model, or a set is empty.
    """
    members = np.zeros((len(sets), models))
    for row, chosen in zip(members, sets, strict=True):
        if not chosen or not all(0 <= index < models for index in chosen):
            raise ValueError(f"a set names models 0 to {models - 1}, found {list(chosen)}")
        row[list(chosen)] = 1.0
    return frozen(members)


def fit_ensemble(
    view: View, sets: Sequence[Sequence[int]], *, keep: bool = False, labels: Sequence[str] = ()
) -> Algorithm[Fitted]:
    """Standardise the scores of a training view and average them, in two rounds.

    A member whose score is the same for every patient, as that of a model without a coefficient, has no standardised
    value: the ensemble is the mean of its other members, and a warning says so. One of such members alone is 0.

    Args:
        view: training rows and m scores.
        sets: members of each ensemble, by index.
        keep: whether the members' own scores stay in front.
        labels: what warnings call the m scores; the view's names where there are none.
    """
    members = members_of(sets, view.width)
    found = yield from moments(view)
    sd = found.sd(ddof=0)
    flat = ~(sd > CONSTANT * np.abs(found.mean))
    varied = members * ~flat
    left = frozen(np.where(varied.any(axis=1, keepdims=True), varied, members))
    step = Ensemble(left, frozen(found.mean), frozen(np.where(flat, 1.0, sd)), keep)
    named = labels or view.names
    warnings = tuple(
        f"{name}: its score is the same for every patient, so it adds nothing to an ensemble"
        for name, adds_nothing in zip(named, flat & members.any(axis=0), strict=True)
        if adds_nothing
    )
    return Fitted(view.then(step), warnings)
