"""Choosing the penalty by cross-validation over the sites' own folds, all folds and penalties in the same rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm, gather
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.errors import CtfedError
from ctfed.federation.view import View
from ctfed.statistics.concordance import within_site_concordance
from ctfed.statistics.cox import ElasticNet, Settings, fit_cox_stack, penalizer_path
from ctfed.statistics.predict import LinearPredictor
from ctfed.study import Study

TRIAL_TOLERANCE = 1e-4  # KKT residual of a fit that is only scored; final fits go to 1e-9
SCORE_DECIMALS = 6  # scores are rounded before they are compared, so that a last bit cannot change the choice


@dataclass(frozen=True, eq=False)
class Tuned:
    """A tuned penalty and how it was found.

    Attributes:
        penalties: (K,) what was tried, strongest first inside each l1_ratio.
        scores: (K,) held-out C over within-site pairs: the mean over folds, weighted by their comparable pairs.
        errors: (K,) standard error of that mean between folds.
        nonzero: (K,) mean number of non-zero coefficients over the folds' fits.
        best: index of the chosen penalty.
        rule: how it was chosen, in words.
    """

    penalties: tuple[ElasticNet, ...]
    scores: FloatArray
    errors: FloatArray
    nonzero: FloatArray
    best: int
    rule: str

    @property
    def chosen(self) -> ElasticNet:
        """The penalty to fit with."""
        return self.penalties[self.best]


@dataclass(frozen=True, eq=False)
class _FoldScore:
    concordance: FloatArray
    pairs: float
    nonzero: FloatArray


def tune(study: Study, train: View, folds: Sequence[View], factors: tuple[float, ...] | None) -> Algorithm[Tuned]:
    """Score every penalty of the study's paths on held-out folds and choose one.

    Args:
        study: with a ``tuning`` section.
        train: the prepared training view; the path starts where its model is empty.
        folds: one prepared view per fold, fitted on the training rows outside it.
        factors: penalty factors of the view's features, or None.

    Raises:
        CtfedError: when no fold has a pair of patients of one site to compare.
    """
    assert study.tuning is not None
    tuning, model = study.tuning, study.single
    path = tuning.penalizers
    paths = yield from gather(
        *[
            penalizer_path(
                train, ratio, count=path.count, smallest_ratio=path.smallest_ratio, factors=factors, ties=model.ties
            )
            for ratio in tuning.l1_ratios
        ]
    )
    penalties = tuple(
        ElasticNet(float(value), ratio, factors)
        for ratio, values in zip(tuning.l1_ratios, paths, strict=True)
        for value in values
    )
    settings = Settings(updates=model.updates, tolerance=TRIAL_TOLERANCE)
    scored = yield from gather(*[_score_fold(view, penalties, model.ties, settings) for view in folds])
    return _choose(penalties, scored, tuning.rule)


def _score_fold(view: View, penalties: tuple[ElasticNet, ...], ties: str, settings: Settings) -> Algorithm[_FoldScore]:
    assert view.fold is not None
    fits = yield from fit_cox_stack(view, penalties, ties=ties, settings=settings)
    coefficients = frozen(np.stack([fit.coefficients for fit in fits]))
    held_out = view.held_out_fold(view.fold).then(LinearPredictor(coefficients))
    found = yield from within_site_concordance(held_out)
    return _FoldScore(found.value, found.comparable, (coefficients != 0).sum(axis=1).astype(np.float64))


def _choose(penalties: tuple[ElasticNet, ...], folds: Sequence[_FoldScore], rule: str) -> Tuned:
    usable = [fold for fold in folds if fold.pairs > 0]
    if not usable:
        raise CtfedError(
            "no fold holds two patients of one site who can be compared; use fewer folds, or give the penalty"
        )
    weights = np.array([fold.pairs for fold in usable])
    values = np.stack([fold.concordance for fold in usable])
    weights = weights / weights.sum()
    means = weights @ values
    spread = weights @ (values - means) ** 2
    errors = np.sqrt(spread / max(1, len(usable) - 1))
    scores = np.round(means, SCORE_DECIMALS)
    strength = np.array([penalty.penalizer for penalty in penalties])
    best = int(np.lexsort((-strength, -scores))[0])  # of equal scores, the strongest penalty
    words = "the highest held-out C; of equal ones the strongest penalty"
    if rule == "one_standard_error":
        same = np.array([penalty.l1_ratio == penalties[best].l1_ratio for penalty in penalties])
        within = same & (scores >= scores[best] - errors[best])
        best = int(np.argmax(np.where(within, strength, -np.inf)))
        words = "the strongest penalty whose held-out C is within one standard error of the highest"
    nonzero = np.mean([fold.nonzero for fold in usable], axis=0)
    return Tuned(penalties, scores, errors, nonzero, best, words)
