"""Univariable Cox models: every column of a view by itself, all in the same rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm, gather
from ctfed.federation.errors import CtfedError
from ctfed.federation.view import View
from ctfed.statistics.cox import CoxFit, Settings, fit_cox
from ctfed.statistics.select import Select


@dataclass(frozen=True)
class Effect:
    """One coefficient of an unpenalised Cox model.

    Attributes:
        name: the column; the effect is of one unit of it as the view has it (a standard deviation when standardised).
        hazard_ratio: exp of the coefficient.
        low, high: Wald confidence limits of the hazard ratio; None where the fit has no standard error.
        p: two-sided Wald test; None likewise.
        patients, events: of the view.
        warnings: what the fit has to say.
    """

    name: str
    hazard_ratio: float
    low: float | None
    high: float | None
    p: float | None
    patients: int
    events: int
    warnings: tuple[str, ...]


def univariable_cox(
    view: View,
    terms: Sequence[Sequence[str]] | None = None,
    *,
    level: float = 0.95,
    ties: str = "efron",
    settings: Settings | None = None,
) -> Algorithm[tuple[Effect, ...]]:
    """Hazard ratios of the columns of a view, one model per column (or per term of several, such as the indicators of a
    categorical variable), stratified by site; as many rounds as the slowest fit takes by itself.

    Its totals disclose for each term what a Cox model of that term does: at every step one log-likelihood, a gradient
    and a Hessian of its few columns. The models are fitted on all rows of the view: impute before.

    Args:
        view: complete columns.
        terms: names of the columns of each model; default: each column by itself.
        level: of the confidence intervals.
        ties, settings: as in ``fit_cox``.

    Raises:
        CtfedError: when the view has no event, or a term is empty.
        ValueError: when a term names a column that the view does not have.
    """
    models = [(name,) for name in view.names] if terms is None else [tuple(term) for term in terms]
    if not all(models):
        raise CtfedError("a term without a column has no hazard ratio")
    fits = yield from gather(*[fit_cox(view.then(Select(model)), ties=ties, settings=settings) for model in models])
    return tuple(effect for fit in fits for effect in effects(fit, level))


def effects(fit: CoxFit, level: float = 0.95) -> tuple[Effect, ...]:
    """Hazard ratios of a fit."""
    limits, p_values = fit.intervals(level), fit.p_values
    with np.errstate(over="ignore"):
        ratios = np.exp(fit.coefficients)
        bounds = None if limits is None else np.exp(limits)
    return tuple(
        Effect(
            name=name,
            hazard_ratio=float(ratios[j]),
            low=None if bounds is None else float(bounds[j, 0]),
            high=None if bounds is None else float(bounds[j, 1]),
            p=None if p_values is None else float(p_values[j]),
            patients=fit.patients,
            events=fit.events,
            warnings=fit.warnings,
        )
        for j, name in enumerate(fit.view.names)
    )
