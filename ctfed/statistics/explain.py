"""Exact SHAP values of linear scores: beta_j (x_j - mean_j), the mean over the training patients.

For a linear score whose features are taken as independent, the Shapley value of feature j for one patient is exactly
this (what ``shap.LinearExplainer`` computes with an independent background). Values of one patient stay at the site
(``local_shap``, for its own beeswarm plot). The pooled bar chart needs mean |SHAP| = |beta_j| * mean |x_j - mean_j|, so
one total of absolute deviations serves all models on a view, however many.

The Shapley values of a group of features add up to that of the group, but their absolute values do not; the share of a
region is mean |sum of its features' values|, asked as the deviations of a group's part of the score.

References: Strumbelj, Kononenko 2014, Knowledge and Information Systems 41:647; Lundberg, Lee 2017, NeurIPS 30.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm, Bundle
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import Table, View
from ctfed.statistics.predict import SCORE_DECIMALS, LinearPredictor
from ctfed.statistics.scores import require_scores


@register("absolute-deviations")
@dataclass(frozen=True, eq=False)
class AbsoluteDeviations(Query):
    """Number of patients, and sums of (x - c) and |x - c| for each of the p columns of a view without missing values.

    Its total discloses those 1 + 2 p numbers. How |x - c| changes with c tells how many values lie below c.

    Attributes:
        view: rows and columns.
        centre: (p,) c.
    """

    view: View
    centre: FloatArray

    def __post_init__(self) -> None:
        if self.centre.shape != (self.view.width,):
            raise ValueError(f"the centre has shape {self.centre.shape}, the view has {self.view.width} columns")

    @property
    def layout(self) -> Layout:
        """patients (), sum and absolute (p,)."""
        scale = np.array([feature.exponent for feature in self.view.features], dtype=np.int64)
        width = (self.view.width,)
        return {"patients": Entry(()), "sum": Entry(width, scale), "absolute": Entry(width, scale)}

    @property
    def exposure(self) -> Exposure:
        """One threshold of each column."""
        return Exposure(cuts={name: self.centre[j : j + 1] for j, name in enumerate(self.view.names)})

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        table = self.view.table(cohort)
        require_scores(table)
        deviation = np.ascontiguousarray(table.values.T) - self.centre[:, None]
        sums = {"sum": deviation.sum(axis=1), "absolute": np.abs(deviation).sum(axis=1)}
        return Summary(self.layout, {"patients": table.rows, **sums})


@dataclass(frozen=True, eq=False)
class Explanation:
    """What moves the scores of m models on a view.

    Attributes:
        names: (p,) of the features.
        mean_absolute: (m, p) mean |SHAP| over the patients explained.
        mean: (m, p) mean SHAP: how the patients explained differ from the training ones.
        sign: (m, p) of the coefficient: +1 where higher values mean a higher risk, 0 where the feature is not used.
        groups: names of the groups.
        group_absolute: (m, G) mean |sum of the group's SHAP|.
        patients: explained.
    """

    names: tuple[str, ...]
    mean_absolute: FloatArray
    mean: FloatArray
    sign: FloatArray
    groups: tuple[str, ...]
    group_absolute: FloatArray
    patients: float

    def ranked(self, model: int, most: int = 20) -> list[tuple[str, float, float]]:
        """(name, mean |SHAP|, sign) of the most important used features of a model; equal ones by name."""
        rows = zip(self.names, self.mean_absolute[model].tolist(), self.sign[model].tolist(), strict=True)
        return sorted((row for row in rows if row[2] != 0), key=lambda row: (-row[1], row[0]))[:most]


def explain(
    view: View,
    coefficients: FloatArray,
    centre: FloatArray,
    groups: Sequence[tuple[str, Sequence[str]]] = (),
) -> Algorithm[Explanation]:
    """Mean |SHAP| of m linear models on the features of one view, in one round.

    Args:
        view: rows to explain (the test split) and p features.
        coefficients: (m, p).
        centre: (p,) means of the features over the training rows (0 where the view standardises).
        groups: (name, names of features) of each region.

    Raises:
        ValueError: when a group names a feature that the view lacks.
    """
    width = view.width
    if coefficients.ndim != 2 or coefficients.shape[1] != width:
        raise ValueError(f"coefficients must be (models, {width}), found {coefficients.shape}")
    masks = _masks(view, groups)
    queries: list[Query] = [AbsoluteDeviations(view, frozen(centre))]
    models = coefficients.shape[0]
    if len(groups):
        parts = (coefficients[:, None, :] * masks[None]).reshape(-1, width)
        split = view.then(LinearPredictor(frozen(parts)))
        # Where the centre of a part lies on a value of many (a group that is not used), rounding must not move it.
        queries.append(AbsoluteDeviations(split, frozen(np.round(parts @ centre, SCORE_DECIMALS))))
    totals: tuple[Total, ...] = yield Bundle(tuple(queries))
    n = totals[0].number("patients")
    grouped = totals[1]["absolute"].reshape(models, -1) / n if len(groups) else np.zeros((models, 0))
    return Explanation(
        view.names,
        np.abs(coefficients) * totals[0]["absolute"] / n,
        coefficients * totals[0]["sum"] / n,
        np.sign(coefficients),
        tuple(name for name, _ in groups),
        grouped,
        n,
    )


def _masks(view: View, groups: Sequence[tuple[str, Sequence[str]]]) -> FloatArray:
    """(G, p) 1 where a feature belongs to a group."""
    place = {name: index for index, name in enumerate(view.names)}
    masks = np.zeros((len(groups), view.width))
    for mask, (name, features) in zip(masks, groups, strict=True):
        unknown = [feature for feature in features if feature not in place]
        if unknown:
            raise ValueError(f"the group {name!r} names {unknown[0]!r}, which is no feature of the view")
        mask[[place[feature] for feature in features]] = 1.0
    return masks


def local_shap(table: Table, coefficients: FloatArray, centre: FloatArray) -> FloatArray:
    """(m, n, p) SHAP values of every patient of a table; for a site's own figures, never sent.

    They add up over features to the score minus the score of the centre.

    Args:
        table: rows and p features of the view.
        coefficients: (m, p).
        centre: (p,).
    """
    return coefficients[:, None, :] * (table.values - centre)[None]
