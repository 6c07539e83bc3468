"""A study as one algorithm: prepare, tune, fit, evaluate. It knows nothing of networks; the conductor runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ctfed.federation.algorithm import Algorithm, beside, gather
from ctfed.federation.arrays import FloatArray
from ctfed.federation.errors import CtfedError
from ctfed.federation.nominal import column_of
from ctfed.federation.view import View
from ctfed.statistics.baseline import Baseline, merged_grid, pooled_baseline
from ctfed.statistics.cox import CoxFit, ElasticNet, Settings, fit_cox, robust_covariance
from ctfed.statistics.describe import Counts, Fitted
from ctfed.statistics.impute import Imputed
from ctfed.statistics.standardise import Standardise, Standardised, standardise
from ctfed.statistics.timegrid import TimeGrid
from ctfed.study import Study
from server.clinical import columns_in_use, impute_variables
from server.evaluation import Evaluated, evaluate
from server.rare import rare_features
from server.tuning import Tuned, tune

EVENTS_PER_FEATURE = 5  # an unpenalised reference fit with fewer events per feature would mislead


@dataclass(frozen=True, eq=False)
class Prepared:
    """A view with the study's preprocessing fitted on its rows; ``left_out`` says which features are not in it."""

    view: View
    imputed: Imputed
    standardised: Standardised | None
    left_out: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the fitted steps have to say."""
        steps: tuple[Fitted | None, ...] = (self.imputed, self.standardised)
        return (*self.left_out, *(line for step in steps if step is not None for line in step.warnings))


@dataclass(frozen=True)
class SplitSize:
    """Patients and events of one split, over all sites."""

    split: str
    patients: int
    events: int


@dataclass(frozen=True, eq=False)
class StudyResult:
    """Everything a study found; all of it computed from totals.

    Attributes:
        study: what was asked.
        sizes: of the splits.
        prepared: the training view and its fitted transforms.
        tuned: None when the study gives its penalty.
        fit: the study's model.
        reference: an unpenalised fit of the same view, None when there are too few events for it, or pooled risk sets.
        baseline: the pooled baseline hazard of ``fit``.
        evaluated: discrimination and curves on the test split.
        robust: (p, p) sandwich covariance of ``unpenalised``; None where there is no such fit or none for it.
    """

    study: Study
    sizes: tuple[SplitSize, ...]
    prepared: Prepared
    tuned: Tuned | None
    fit: CoxFit
    reference: CoxFit | None
    baseline: Baseline
    evaluated: Evaluated
    robust: FloatArray | None

    @property
    def unpenalised(self) -> CoxFit | None:
        """The fit that may have standard errors: the reference, or the study's model when it has no penalty."""
        return _unpenalised(self.fit, self.reference)


def study_algorithm(study: Study) -> Algorithm[StudyResult]:
    """Run a whole study.

    Raises:
        CtfedError: in words, when the data cannot support what the study asks (no event, nothing to compare ...).
    """
    train = View(study.features, split="train")
    views = [train] + [train.training_fold(fold) for fold in range(study.folds) if study.tuning is not None]
    sizes, rare = yield from beside(
        gather(_size(train), _size(train.test())), gather(*[rare_features(study, view) for view in views])
    )
    left_out = {name: sentence for found in reversed(rare) for name, sentence in found.items()}
    prepared, *folds = yield from gather(*[_prepare(study, view, left_out) for view in views])
    factors = _factors(study, prepared.view)
    tuned = None
    if study.tuning is not None:
        tuned = yield from tune(study, prepared.view, [fold.view for fold in folds], factors)
    penalty = tuned.chosen if tuned is not None else _given(study, factors)
    fit, reference = yield from _fit(study, prepared.view, penalty, sizes[0])
    grid = TimeGrid.regular(study.grid.width, study.grid.end)
    baseline: Baseline
    evaluated: Evaluated
    robust: FloatArray | None
    baseline, evaluated, robust = yield from beside(
        pooled_baseline(prepared.view, fit.coefficients, grid, study.evaluation.min_cell, study.evaluation.horizons),
        evaluate(study, prepared.view, fit),
        _robust(_unpenalised(fit, reference)),
    )
    return StudyResult(study, tuple(sizes), prepared, tuned, fit, reference, baseline, evaluated, robust)


def _size(view: View) -> Algorithm[SplitSize]:
    total = yield Counts(view)
    return SplitSize(view.split, round(total.number("patients")), round(total.number("events")))


def _prepare(study: Study, whole: View, left_out: Mapping[str, str]) -> Algorithm[Prepared]:
    kept = columns_in_use(study, whole.names, left_out)
    view = replace(whole, columns=tuple(feature for feature in whole.columns if feature.name in kept))
    if not view.columns:
        raise CtfedError(f"no feature is left for the model: {'; '.join(left_out.values())}")
    imputed = yield from impute_variables(study, view, left_out)
    if not study.single.standardise:
        return Prepared(imputed.view, imputed, None, tuple(left_out.values()))
    standardised = yield from standardise(imputed.view)
    return Prepared(standardised.view, imputed, standardised, tuple(left_out.values()))


def _factors(study: Study, view: View) -> tuple[float, ...] | None:
    given = study.single.penalty_factors
    # A nominal variable's factor is that of its levels, unless a level has one of its own.
    return tuple(float(given.get(name, given.get(column_of(name), 1.0))) for name in view.names) if given else None


def _given(study: Study, factors: tuple[float, ...] | None) -> ElasticNet:
    assert study.penalty is not None
    return ElasticNet(study.penalty.penalizer, study.penalty.l1_ratio, factors)


def _fit(study: Study, view: View, penalty: ElasticNet, size: SplitSize) -> Algorithm[tuple[CoxFit, CoxFit | None]]:
    """The study's model, and beside it the unpenalised one where there are events enough."""
    settings = Settings(updates=study.single.updates)
    grid = None
    if study.single.risk_sets == "pooled":
        regular = TimeGrid.regular(study.grid.width, study.grid.end)
        # Efron's ties need the risk that dies in each bin, beside the risk that leaves.
        both = study.single.ties == "efron"
        grid = yield from merged_grid(view, regular, study.evaluation.min_cell, study.evaluation.horizons, both=both)
    penalties = [penalty]
    # Under pooled risk sets every further coefficient vector tells more of every time bin: one fit is enough.
    if penalty.penalizer > 0 and size.events >= EVENTS_PER_FEATURE * view.width and grid is None:
        penalties.append(ElasticNet(0.0))
    fits = yield from gather(
        *[fit_cox(view, item, ties=study.single.ties, grid=grid, settings=settings) for item in penalties]
    )
    return fits[0], fits[1] if len(fits) > 1 else None


def _unpenalised(fit: CoxFit, reference: CoxFit | None) -> CoxFit | None:
    return fit if fit.penalty.penalizer == 0 else reference


def _robust(fit: CoxFit | None) -> Algorithm[FloatArray | None]:
    """The sandwich where there is one: with stratified risk sets, beside the inverse information."""
    if fit is None or fit.covariance is None or fit.risk_sets != "stratified":
        return None
    return (yield from robust_covariance(fit))


def original_scale(result: StudyResult) -> list[float]:
    """The model's coefficients per unit of the original features."""
    return [float(value) for value in result.fit.coefficients / feature_scales(result.fit.view)]


def feature_scales(view: View) -> FloatArray:
    """(p,) what one unit of each feature of the view is in units of the raw column."""
    last = view.transforms[-1] if view.transforms else None
    return last.scale if isinstance(last, Standardise) else np.ones(view.width)
