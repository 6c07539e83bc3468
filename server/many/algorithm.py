"""A study of many models as one algorithm: prepare, select, search, fit, combine, evaluate, explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm, beside, gather
from ctfed.federation.arrays import frozen
from ctfed.federation.errors import CtfedError
from ctfed.federation.view import RowFilter, View
from ctfed.statistics.agree import Classified, YoudenCuts, agreement, youden_cuts
from ctfed.statistics.cox import CoxFit, fit_cox
from ctfed.statistics.describe import Counts
from ctfed.statistics.ensemble import fit_ensemble, members_of
from ctfed.statistics.explain import Explanation, explain
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.select import Select
from ctfed.statistics.table_one import TableOne
from ctfed.study import Study
from server.many.describe import characteristics
from server.many.designs import Design, design, variants_of
from server.many.evaluation import Evaluated, evaluate, score_bins
from server.many.features import Harmonization, Variant, prepare_groups, rare_in
from server.many.search import Found, search


@dataclass(frozen=True)
class Size:
    """Patients and events of a set of rows, over all sites."""

    patients: int
    events: int


@dataclass(frozen=True, eq=False)
class FittedModel:
    """One model of the study.

    Attributes:
        design: its columns.
        found: of its search.
        fit: on its training rows, with the best penalty.
        train, test: how many patients it was fitted on and is tested on.
        explanation: mean |SHAP| on its test patients; None where there are none.
    """

    design: Design
    found: Found
    fit: CoxFit
    train: Size
    test: Size
    explanation: Explanation | None

    @property
    def name(self) -> str:
        """Its name in the study."""
        return self.design.name


@dataclass(frozen=True, eq=False)
class Agreed:
    """The consensus at the horizons.

    Attributes:
        models: whose calls must agree.
        cuts: of the linear predictors, by Youden's index on the training patients.
        classified: the models, then the consensus.
    """

    models: tuple[str, ...]
    cuts: YoudenCuts
    classified: Classified


@dataclass(frozen=True, eq=False)
class ManyResult:
    """Everything that a study of many models found; all of it computed from totals.

    Attributes:
        study: what was asked.
        models: in the study's order.
        characteristics: of the training and the test patients; None where there are too few.
        evaluated: of the scores of all patients, then of each subgroup's.
        consensus: None where the study asks for none, or it could not be had.
        notes: what could not be had, and why.
        harmonized: what ComBat did to each group on all its training rows.
    """

    study: Study
    models: tuple[FittedModel, ...]
    characteristics: TableOne | None
    evaluated: tuple[Evaluated, ...]
    consensus: Agreed | None
    notes: tuple[str, ...]
    harmonized: Mapping[Variant, Harmonization]


def many_algorithm(study: Study) -> Algorithm[ManyResult]:
    """Run a whole study of many models.

    Raises:
        CtfedError: in words, when the data cannot support what the study asks.
    """
    variants = list(dict.fromkeys(v for spec in study.models.values() for v in variants_of(spec)))
    subgroups = list(dict.fromkeys(variant.rows for variant in variants))
    rare = yield from rare_in(study, subgroups)
    prepared, (described, missing) = yield from beside(prepare_groups(study, variants, rare), characteristics(study))
    designs = yield from gather(*[design(study, name, spec, prepared) for name, spec in study.models.items()])
    found = yield from search(study, designs)
    models = yield from gather(*[_fitted(one, found[one.name]) for one in designs])
    parts = {rule: [model for model in models if _rows(model) == rule] for rule in subgroups}
    scored = yield from gather(*[_scores(study, part, not rule) for rule, part in parts.items()])
    views = [view for view, _ in scored]
    names = [_names(study, part, not rule) for rule, part in parts.items()]
    evaluated: list[Evaluated] = yield from gather(
        *[evaluate(study, labels, view) for labels, view in zip(names, views, strict=True)]
    )
    consensus, note = yield from _consensus(study, evaluated)
    flat = [line for _, lines in scored for line in lines]
    notes = (*flat, *(line for one in evaluated for line in one.notes), *(line for line in (missing, note) if line))
    done = {variant: found for variant, parts in prepared.items() if (found := parts[0].harmonization) is not None}
    return ManyResult(study, tuple(models), described, tuple(evaluated), consensus, notes, done)


def _rows(model: FittedModel) -> tuple[RowFilter, ...]:
    spec = model.design.spec
    return () if spec.subgroup is None else (spec.subgroup.rule,)


def _fitted(one: Design, found: Found) -> Algorithm[FittedModel]:
    """The model with the best penalty on all its training rows, its sizes, and what moves its scores."""
    best = found.best
    view = one.whole.columns(best.components)
    fit: CoxFit
    fit, train, test = yield from beside(fit_cox(view, best.penalty), _size(view), _size(view.test()))
    explanation = None
    if test.patients:
        groups = [(group.names, name) for group, name in zip(one.whole.view.beside, one.spec.groups, strict=True)]
        named = [(name, [column for column in columns if column in view.names]) for columns, name in groups]
        explanation = yield from explain(
            view.test(), frozen(fit.coefficients[None, :]), np.zeros(view.width), [part for part in named if part[1]]
        )
    return FittedModel(one, found, fit, train, test, explanation)


def _size(view: View) -> Algorithm[Size]:
    total = yield Counts(view)
    return Size(round(total.number("patients")), round(total.number("events")))


def _names(study: Study, models: Sequence[FittedModel], whole: bool) -> list[str]:
    return [model.name for model in models] + (list(study.ensembles) if whole else [])


def _scores(study: Study, models: Sequence[FittedModel], whole: bool) -> Algorithm[tuple[View, tuple[str, ...]]]:
    """The training view of all models' scores; of all patients, the ensembles' behind them. And what to say of it."""
    scored = [
        model.fit.view.then(LinearPredictor(frozen(model.fit.coefficients[None, :]), model.name)) for model in models
    ]
    view = View.joined(scored)
    if not (whole and study.ensembles):
        return view, ()
    place = {model.name: index for index, model in enumerate(models)}
    sets = [[place[name] for name in spec.models] for spec in study.ensembles.values()]
    fitted = yield from fit_ensemble(view, sets, keep=True, labels=list(place))
    return fitted.view, fitted.warnings


def _consensus(study: Study, evaluated: Sequence[Evaluated]) -> Algorithm[tuple[Agreed | None, str]]:
    wanted = study.consensus
    whole = next((one for one in evaluated if one.predictions is not None and not one.test.rows), None)
    if wanted is None:
        return None, ""
    if whole is None or whole.predictions is None:
        return None, "no consensus: there are too few test patients"
    place = {name: index for index, name in enumerate(whole.names)}
    chosen = [place[name] for name in wanted.models]
    view = whole.train.then(Select(tuple(whole.train.names[index] for index in chosen)))
    everybody = [list(range(len(chosen)))]
    try:
        cuts = yield from youden_cuts(view, study.evaluation.horizons, minimum=study.evaluation.min_cell)
        both = yield from fit_ensemble(view, everybody, keep=True, labels=wanted.models)
        if both.warnings:  # a model that says the same of everybody agrees with nobody
            return None, f"no consensus: {'; '.join(both.warnings)}"
        classified = yield from agreement(
            both.view.test(),
            whole.predictions.followed,
            frozen(cuts.cut),
            members_of(everybody, len(chosen)),
            [len(chosen)],
            minimum=study.evaluation.min_cell,
            score_bins=score_bins(study, whole.predictions.followed.patients),
        )
    except CtfedError as error:
        return None, f"no consensus: {error}"
    return Agreed(wanted.models, cuts, classified), ""


def scores_by_name(result: ManyResult) -> Mapping[str, tuple[Evaluated, int]]:
    """Where each model and ensemble was evaluated: the evaluation, and its place there."""
    return {name: (one, index) for one in result.evaluated for index, name in enumerate(one.names)}
