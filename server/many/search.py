"""Choosing every model's penalty, mixing and number of components: Optuna, asked in batches, all models in one round.

Trials of a batch do not know of each other, so that all models, folds and trials of a batch share the rounds of their
fits. Scores are rounded before Optuna hears of them: a last bit must not change what is tried next.

Reference: Akiba, Sano, Yanase, Ohta, Koyama 2019, Optuna, KDD; Bergstra, Bardenet, Bengio, Kegl 2011, NIPS (TPE).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctfed.federation.algorithm import Algorithm, gather
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.errors import CtfedError
from ctfed.statistics.concordance import within_site_concordance
from ctfed.statistics.cox import ElasticNet, Settings, fit_cox_stack
from ctfed.statistics.cox.solver import Curvatures
from ctfed.statistics.predict import LinearPredictor
from ctfed.study import Study
from ctfed.study_models import Search
from server.many.designs import Candidate, Design
from server.tuning import SCORE_DECIMALS, TRIAL_TOLERANCE

MOST_HESSIANS = 6  # of a view over the whole search: p (p + 1) / 2 numbers each, against p of a gradient
ANCHORS = 1  # Hessians of a round
FOLD_SEED = 1_000_003  # apart for the models' samplers


@dataclass(frozen=True)
class Trial:
    """One point that was tried.

    Attributes:
        penalizer, l1_ratio: of the elastic net.
        components: of the model's projected group; 0 without one.
        score: held-out C over within-site pairs, the mean over folds weighted by their comparable pairs.
    """

    penalizer: float
    l1_ratio: float
    components: int
    score: float

    @property
    def penalty(self) -> ElasticNet:
        """The elastic net."""
        return ElasticNet(self.penalizer, self.l1_ratio)


@dataclass(frozen=True)
class Found:
    """What a model's search found: all trials in their order, and the first of the best."""

    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The trial with the highest score; of equal ones the first."""
        return max(self.trials, key=lambda trial: trial.score)


@dataclass(eq=False)
class _Fold:
    """A fold of a model, with the fits of earlier batches, near which the next ones begin."""

    candidate: Candidate
    known: dict[int, list[tuple[float, float, FloatArray]]] = field(default_factory=dict)
    curvatures: dict[int, Curvatures] = field(default_factory=dict)

    def start(self, components: int, penalties: Sequence[ElasticNet], width: int) -> FloatArray:
        """(K, p) the coefficients of the nearest earlier penalty; zeros where there is none."""
        earlier = self.known.get(components, [])
        if not earlier:
            return np.zeros((len(penalties), width))
        places = np.array([[place, ratio] for place, ratio, _ in earlier])
        asked = np.array([[np.log10(penalty.penalizer), penalty.l1_ratio] for penalty in penalties])
        nearest = np.abs(asked[:, None, :] - places[None, :, :]).sum(axis=2).argmin(axis=1)
        return np.stack([earlier[int(index)][2] for index in nearest])

    def learn(self, components: int, penalties: Sequence[ElasticNet], coefficients: FloatArray) -> None:
        """Remember a batch."""
        found = self.known.setdefault(components, [])
        for penalty, beta in zip(penalties, coefficients, strict=True):
            found.append((float(np.log10(penalty.penalizer)), penalty.l1_ratio, beta))


@dataclass(frozen=True, eq=False)
class _Job:
    """A model under search: Optuna's study, and its folds."""

    design: Design
    study: Any
    folds: tuple[_Fold, ...]


def search(study: Study, designs: Sequence[Design]) -> Algorithm[dict[str, Found]]:
    """Search for all models at once.

    Raises:
        CtfedError: when no fold of a model holds two patients of one site who can be compared.
    """
    wanted = study.search
    assert wanted is not None
    jobs = [
        _Job(one, _optuna_study(wanted, index), tuple(_Fold(fold) for fold in one.folds))
        for index, one in enumerate(designs)
    ]
    tried: dict[str, list[Trial]] = {job.design.name: [] for job in jobs}
    while (left := wanted.trials - len(next(iter(tried.values())))) > 0:
        asked = [[_ask(job, wanted) for _ in range(min(wanted.batch, left))] for job in jobs]
        scores = yield from gather(
            *[_score(job, [point for _, point in batch]) for job, batch in zip(jobs, asked, strict=True)]
        )
        for job, batch, values in zip(jobs, asked, scores, strict=True):
            for (handle, point), value in zip(batch, values, strict=True):
                job.study.tell(handle, value)
                tried[job.design.name].append(Trial(*point, value))
    return {name: Found(tuple(trials)) for name, trials in tried.items()}


def _optuna_study(wanted: Search, index: int) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = wanted.seed + FOLD_SEED * index
    if wanted.sampler == "random":
        sampler: Any = optuna.samplers.RandomSampler(seed=seed % 2**32)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=wanted.startup)
    return optuna.create_study(direction="maximize", sampler=sampler)


def _ask(job: _Job, wanted: Search) -> tuple[Any, tuple[float, float, int]]:
    handle = job.study.ask()
    penalizer = handle.suggest_float("penalizer", *wanted.penalizer, log=True)
    ratio = handle.suggest_float("l1_ratio", *wanted.l1_ratio)
    choices = job.design.choices
    place = handle.suggest_int("components", 0, len(choices) - 1) if len(choices) > 1 else 0
    return handle, (penalizer, ratio, choices[place])


def _score(job: _Job, points: Sequence[tuple[float, float, int]]) -> Algorithm[list[float]]:
    """The mean held-out C of every point, rounded."""
    by_fold = yield from gather(*[_score_fold(fold, points) for fold in job.folds])
    weights = np.array([pairs for _, pairs in by_fold])
    if not weights.any():
        raise CtfedError(
            f"model {job.design.name!r}: no fold holds two patients of one site who can be compared; use fewer folds"
        )
    values = np.stack([value for value, pairs in by_fold if pairs > 0])
    means = weights[weights > 0] @ values / weights.sum()
    return [float(value) for value in np.round(means, SCORE_DECIMALS)]


def _score_fold(fold: _Fold, points: Sequence[tuple[float, float, int]]) -> Algorithm[tuple[FloatArray, float]]:
    """(K,) C of the points among the fold's own patients, and how many comparable pairs that were."""
    places: dict[int, list[int]] = {}
    for index, (_, _, components) in enumerate(points):
        places.setdefault(components, []).append(index)
    found = yield from gather(
        *[_score_stack(fold, components, [points[i] for i in chosen]) for components, chosen in places.items()]
    )
    value = np.zeros(len(points))
    for chosen, (scores, _) in zip(places.values(), found, strict=True):
        value[chosen] = scores
    return value, found[0][1]


def _score_stack(
    fold: _Fold, components: int, points: Sequence[tuple[float, float, int]]
) -> Algorithm[tuple[FloatArray, float]]:
    view = fold.candidate.columns(components)
    penalties = [ElasticNet(penalizer, ratio) for penalizer, ratio, _ in points]
    start = fold.start(components, penalties, view.width)
    curvatures = fold.curvatures.setdefault(components, Curvatures(MOST_HESSIANS))
    settings = Settings(tolerance=TRIAL_TOLERANCE, anchors=ANCHORS)
    fits = yield from fit_cox_stack(view, penalties, settings=settings, start=start, curvatures=curvatures)
    coefficients = np.stack([fit.coefficients for fit in fits])
    fold.learn(components, penalties, coefficients)
    assert view.fold is not None
    held_out = view.held_out_fold(view.fold).then(LinearPredictor(frozen(coefficients)))
    found = yield from within_site_concordance(held_out)
    return found.value, found.comparable
