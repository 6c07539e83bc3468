"""Groups of features, prepared on the rows that a model is fitted on: imputed, standardised, harmonized, projected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ctfed.federation.algorithm import Algorithm, gather
from ctfed.federation.arrays import frozen
from ctfed.federation.view import RowFilter, Rows, View
from ctfed.statistics.combat import CombatOptions, Harmonized, combat, restandardise
from ctfed.statistics.describe import moments
from ctfed.statistics.impute import Impute
from ctfed.statistics.project import RandomProjection, project_together
from ctfed.statistics.standardise import require_values, standardise, standardise_by
from ctfed.study import Study
from server.clinical import columns_in_use, impute_variables
from server.rare import rare_features

TRAINING = Rows()
PRODUCTS = 3  # rounds of covariance products: what a fourth adds to the accuracy costs a third more bytes


@dataclass(frozen=True)
class Variant:
    """A group of features as some models use it: harmonized or not, of all patients or of a subgroup.

    Attributes:
        group: its name in the study.
        combat: whether its features are harmonized.
        rows: the subgroup's filter, () for all patients.
    """

    group: str
    combat: bool
    rows: tuple[RowFilter, ...] = ()


@dataclass(frozen=True)
class Harmonization:
    """What ComBat did to a group; it follows from the totals that the fit rests on.

    Attributes:
        batches, rows: that took part in the fit.
        batches_left_out, rows_left_out: of batches below the minimum.
        features: how many were harmonized.
        passed: names of those that pass unchanged.
        between: median and 90th percentile over the harmonized features of the share of the variance that lies
            between batches, before harmonization; None where rows were left out, or no feature was harmonized.
    """

    batches: int
    rows: int
    batches_left_out: int
    rows_left_out: int
    features: int
    passed: tuple[str, ...]
    between: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class PreparedGroup:
    """A group on some rows.

    Attributes:
        view: complete, standardised columns; of a projected group, the components.
        flat: columns that hardly vary, which a selection drops.
        components: names of the components of a projected group, () of others.
        warnings: sentences for the reader.
        harmonization: of the features, before a projection; None where there was none.
    """

    view: View
    flat: tuple[str, ...]
    components: tuple[str, ...]
    warnings: tuple[str, ...]
    harmonization: Harmonization | None = None


def row_sets(study: Study, rows: tuple[RowFilter, ...]) -> list[Rows]:
    """All training rows of a subgroup, and those outside each fold."""
    whole = replace(TRAINING, rows=rows)
    return [whole, *(replace(whole, fold=fold) for fold in range(study.folds))]


Rare = dict[tuple[RowFilter, ...], dict[str, str]]  # subgroup -> feature -> why it is left out


def rare_in(study: Study, subgroups: Iterable[tuple[RowFilter, ...]]) -> Algorithm[Rare]:
    """For each subgroup: variables that are too rare in one of its row sets, with a sentence; in one round."""
    filters = list(dict.fromkeys(subgroups))
    columns = tuple(study.columns[name].feature(name) for name in study.used if name in study.variables)
    views = [[View(columns).on(rows) for rows in row_sets(study, rule)] for rule in filters]
    found = yield from gather(*[rare_features(study, view) for part in views for view in part])
    named: Rare = {}
    start = 0
    for rule, part in zip(filters, views, strict=True):
        merged = reversed(found[start : start + len(part)])
        named[rule] = {name: sentence for one in merged for name, sentence in one.items()}
        start += len(part)
    return named


def prepare_groups(
    study: Study, variants: Sequence[Variant], rare: Mapping[tuple[RowFilter, ...], Mapping[str, str]]
) -> Algorithm[dict[Variant, list[PreparedGroup]]]:
    """Every variant on all its row sets, in the order of ``row_sets``; all in the same rounds."""
    found = yield from gather(*[_variant(study, variant, rare[variant.rows]) for variant in variants])
    return dict(zip(variants, found, strict=True))


def _variant(study: Study, variant: Variant, rare: Mapping[str, str]) -> Algorithm[list[PreparedGroup]]:
    rows = row_sets(study, variant.rows)
    prepared: list[PreparedGroup] = yield from gather(*[_prepare(study, variant, one, rare) for one in rows])
    wanted = study.groups[variant.group].projection
    if wanted is None:
        return prepared
    views = [one.view for one in prepared]
    most = wanted.components[-1]
    if wanted.method == "random":
        step = RandomProjection(views[0].width, most, wanted.seed, variant.group)
        notes: list[tuple[str, ...]] = [() for _ in views]
        scores = [view.then(step) for view in views]
    else:
        # One sketch for all: with others, the difference of two views would be told in ever more directions.
        found = yield from project_together(views, most, seed=wanted.seed, products=PRODUCTS, prefix=variant.group)
        scores, notes = [one.view for one in found], [one.warnings for one in found]
    standardised = yield from gather(*[standardise(view) for view in scores])
    return [
        PreparedGroup(one.view, (), one.view.names, (*before.warnings, *note, *one.warnings), before.harmonization)
        for one, before, note in zip(standardised, prepared, notes, strict=True)
    ]


def _prepare(study: Study, variant: Variant, rows: Rows, rare: Mapping[str, str]) -> Algorithm[PreparedGroup]:
    names = columns_in_use(study, study.names_of(variant.group), rare)
    view = View(tuple(study.columns[name].feature(name) for name in names)).on(rows)
    if study.groups[variant.group].clinical:
        return (yield from _clinical(study, view, rare))
    return (yield from _measured(study, variant, view))


def _clinical(study: Study, view: View, rare: Mapping[str, str]) -> Algorithm[PreparedGroup]:
    imputed = yield from impute_variables(study, view, rare)
    standardised = yield from standardise(imputed.view)
    warnings = (*rare.values(), *imputed.warnings, *standardised.warnings)
    return PreparedGroup(standardised.view, (), (), warnings)


def _measured(study: Study, variant: Variant, view: View) -> Algorithm[PreparedGroup]:
    """Mean-imputed and standardised by the same moments, then harmonized."""
    found = yield from moments(view)
    require_values(found.names, found.count)
    # Imputing the mean leaves mean and sum of squares as they are.
    complete = replace(found, count=np.full(view.width, float(found.patients)))
    flat = complete.sd() <= study.selection.near_zero * np.abs(found.mean)
    standardised = standardise_by(view.then(Impute(found.names, frozen(found.mean))), complete)
    # Each step stands on a view that sites know by then, so that thousands of names travel once.
    prepared, warnings = View.joined([standardised.view]), _missing(variant, found.missing / found.patients)
    done: Harmonization | None = None
    if variant.combat:
        chosen = study.harmonization
        options = CombatOptions(
            prior=chosen.prior,
            mean_only=chosen.mean_only,
            reference=chosen.reference or "",
            minimum=chosen.minimum,
            unseen=chosen.unseen,
        )
        harmonized = yield from combat(prepared, options=options)
        restandardised = yield from restandardise(harmonized)
        prepared, warnings = View.joined([restandardised.view]), (*warnings, *harmonized.warnings)
        done = _done(harmonized)
    return PreparedGroup(prepared, tuple(np.array(found.names)[flat].tolist()), (), warnings, done)


def _done(harmonized: Harmonized) -> Harmonization:
    """Of features that were standardised on the same rows: their variance over all of these is 1."""
    step = harmonized.transform
    adjusted = ~np.isin(step.names, step.degenerate)
    between = None
    if adjusted.any() and harmonized.rows_left_out == 0:
        share = np.clip(1.0 - harmonized.variance[adjusted], 0.0, 1.0)
        between = float(np.median(share)), float(np.quantile(share, 0.9))
    return Harmonization(
        batches=harmonized.batches,
        rows=harmonized.rows,
        batches_left_out=harmonized.batches_left_out,
        rows_left_out=harmonized.rows_left_out,
        features=int(adjusted.sum()),
        passed=step.degenerate,
        between=between,
    )


def _missing(variant: Variant, share: np.ndarray) -> tuple[str, ...]:
    worst = float(share.max(initial=0.0))
    if worst == 0:
        return ()
    return (f"group {variant.group!r}: up to {worst:.0%} of the patients lack a feature; its mean stands in its place",)
