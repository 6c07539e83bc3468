"""From the result of a study of many models to one plain mapping that holds every number of its report.

study: name, title, sha256, endpoint {name, time_unit}, horizons, confidence, tables (in their order),
    harmonization, selection, search and evaluation (settings of the study, seeds included)
run, sites, rounds: as in the results of a study of one model (``ctfed.report.pooled``)
models: of each model, then each ensemble: name, label, title (unique), kind ('model' or 'ensemble'), table,
    harmonization, groups, members, subgroup; train and test {patients, events}; c_within, c_pooled, uno;
    curves {threshold, groups, logrank, hazard_ratio}; horizons (one row each: AUC, Brier, O/E, slope, ICI);
    calibration {deciles, curves}; decisions; baseline; and, of models, fit {penalizer, l1_ratio, components,
    coefficients ...}, search {trials, best}, selection and explanation
evaluations: of each set of rows: rows, names, notes, differences (Holm)
consensus: models, and rows by horizon and model; None where there is none
harmonized: of each group that a model harmonizes: group, subgroup, batches, rows, batches_left_out, rows_left_out,
    features, passed (columns that pass unchanged), between_median, between_p90 (share of variance between batches)
notes: what could not be had, and why
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ctfed.statistics.table_one import table_records
from ctfed.study import Study
from ctfed.study_models import ModelSpec, Subgroup
from server.many import results_evaluation as part
from server.many.algorithm import FittedModel, ManyResult, Size, scores_by_name
from server.many.evaluation import Evaluated
from server.results import RunFacts, feature_label, rounds_mapping, run_mapping, sites_mapping

Row = dict[str, Any]


def many_results_of(result: ManyResult, facts: RunFacts) -> Row:
    """The mapping that this module's docstring describes."""
    study = result.study
    places = scores_by_name(result)
    titles = titles_of(study)
    models = [_model(study, one, *places[one.name], titles) for one in result.models]
    sizes = {one.name: one for one in result.models}
    ensembles = [_ensemble(study, name, sizes, *places[name], titles) for name in study.ensembles]
    return {
        "study": _study(study),
        "run": run_mapping(facts, "optuna"),
        "sites": sites_mapping(facts),
        "models": [*models, *ensembles],
        "evaluations": [
            {
                "rows": [repr(rule) for rule in one.test.rows],
                "names": list(one.names),
                "notes": list(one.notes),
                "differences": part.differences(study, one),
            }
            for one in result.evaluated
        ],
        "characteristics": _characteristics(result),
        "consensus": _consensus(result, {row["name"]: row for row in models}),
        "harmonized": _harmonized(result),
        "notes": list(dict.fromkeys(result.notes)),
        "rounds": rounds_mapping(facts),
    }


def _characteristics(result: ManyResult) -> Row | None:
    """Table 1 by split; None where there was none."""
    table = result.characteristics
    if table is None:
        return None
    sizes = zip(table.groups, table.patients, table.events, strict=True)
    return {
        "groups": [{"name": name, "patients": n, "events": d} for name, n, d in sizes],
        "minimum": table.minimum,
        "rows": [{"label": result.study.label(row["variable"]), **row} for row in table_records(table)],
    }


def _harmonized(result: ManyResult) -> list[Row]:
    study = result.study
    subgroups = {spec.subgroup.rule: spec.subgroup for spec in study.models.values() if spec.subgroup is not None}
    rows: list[Row] = []
    for variant, found in result.harmonized.items():
        median, upper = found.between or (None, None)
        rows.append(
            {
                "group": study.groups[variant.group].label or variant.group,
                "subgroup": subgroup_text(study, subgroups[variant.rows[0]]) if variant.rows else None,
                "batches": found.batches,
                "rows": found.rows,
                "batches_left_out": found.batches_left_out,
                "rows_left_out": found.rows_left_out,
                "features": found.features,
                "passed": list(found.passed),
                "between_median": median,
                "between_p90": upper,
            }
        )
    return rows


def harmonization_of(study: Study, spec: ModelSpec) -> str:
    """'None', 'ComBat', 'RKN' or 'RKN + ComBat'."""
    return _named(_steps(study, spec))


def _steps(study: Study, spec: ModelSpec) -> set[str]:
    normalised = any(study.groups[group].image == "rkn" for group in spec.groups)
    return {step for step, taken in (("RKN", normalised), ("ComBat", bool(spec.combat))) if taken}


def _named(steps: set[str]) -> str:
    return " + ".join(step for step in ("RKN", "ComBat") if step in steps) or "None"


def titles_of(study: Study) -> dict[str, str]:
    """A display name of every model and ensemble; no two are the same."""
    found = {}
    for name, spec in study.models.items():
        how = harmonization_of(study, spec)
        found[name] = (spec.label or name) + ("" if how == "None" or spec.label is None else f", {how}")
    found |= {name: spec.label or name for name, spec in study.ensembles.items()}
    often = Counter(found.values())
    return {name: title if often[title] == 1 else f"{title} [{name}]" for name, title in found.items()}


def tables_of(study: Study) -> list[str]:
    """Names of the tables, in the order in which the study's models, ensembles and consensus first name them."""
    named = [spec.table for spec in study.models.values()] + [spec.table for spec in study.ensembles.values()]
    named += [] if study.consensus is None else [study.consensus.table]
    return list(dict.fromkeys(named))


def _study(study: Study) -> Row:
    settings = {
        key: getattr(study, key).model_dump(mode="json")
        for key in ("harmonization", "selection", "search", "evaluation")
        if getattr(study, key) is not None
    }
    return {
        "name": study.name,
        "title": study.title,
        "sha256": study.sha256,
        "endpoint": {"name": study.endpoint.name, "time_unit": study.endpoint.time_unit},
        "horizons": list(study.evaluation.horizons),
        "confidence": study.evaluation.confidence,
        "tables": tables_of(study),
        "projections": {
            name: group.projection.model_dump(mode="json")
            for name, group in study.groups.items()
            if group.projection is not None
        },
        **settings,
    }


def _score(study: Study, found: Evaluated, place: int) -> Row:
    """What is known of any score, of a model or of an ensemble."""
    return {
        **part.discrimination(study, found, place),
        "curves": part.risk_groups(study, found, place),
        "horizons": part.at_horizons(study, found, place),
        "calibration": part.calibration(found, place),
        "decisions": part.decisions(found, place),
        "baseline": part.baseline(found, place),
    }


def _model(study: Study, one: FittedModel, found: Evaluated, place: int, titles: Mapping[str, str]) -> Row:
    spec, design = one.design.spec, one.design
    return {
        "name": one.name,
        "label": spec.label or one.name,
        "title": titles[one.name],
        "kind": "model",
        "table": spec.table,
        "harmonization": harmonization_of(study, spec),
        "groups": [study.groups[name].label or name for name in spec.groups],
        "combat": [study.groups[name].label or name for name in spec.combat],
        "without": list(spec.without),
        "members": [],
        "subgroup": None if spec.subgroup is None else subgroup_text(study, spec.subgroup),
        "train": _size(one.train),
        "test": _size(one.test),
        **_score(study, found, place),
        "fit": _fit(study, one),
        "search": {
            "trials": [
                {"penalizer": t.penalizer, "l1_ratio": t.l1_ratio, "components": t.components, "score": t.score}
                for t in one.found.trials
            ],
            "best": one.found.trials.index(one.found.best),
        },
        "selection": _selection(study, one),
        "explanation": _explanation(study, one),
        "warnings": [*design.warnings, *one.fit.warnings, *_empty(one)],
    }


def _empty(one: FittedModel) -> tuple[str, ...]:
    return () if one.fit.coefficients.any() else ("no column is left by the penalty: every patient has the same score",)


def subgroup_text(study: Study, subgroup: Subgroup) -> str:
    """Such as 'Clinical stage group III to IV'."""
    levels = {float(level): label for level, label in (study.variables[subgroup.variable].levels or {}).items()}
    ends = [levels.get(end, f"{end:g}") for end in (subgroup.low, subgroup.high)]
    return f"{study.label(subgroup.variable)}: {' to '.join(dict.fromkeys(ends))}"


def _size(size: Size) -> Row:
    return {"patients": size.patients, "events": size.events}


def _fit(study: Study, one: FittedModel) -> Row:
    fit = one.fit
    return {
        "penalizer": fit.penalty.penalizer,
        "l1_ratio": fit.penalty.l1_ratio,
        "components": one.found.best.components,
        "ties": fit.ties,
        "risk_sets": fit.risk_sets,
        "loglik": fit.loglik,
        "kkt_residual": fit.residual,
        "columns": fit.view.width,
        "nonzero": int((fit.coefficients != 0).sum()),
        "coefficients": [
            {
                "feature": feature_label(study, name),
                "column": name,
                "coef_per_sd": float(value),
                "hazard_ratio": part.number(np.exp(value)),
            }
            for name, value in zip(fit.view.names, fit.coefficients, strict=True)
        ],
    }


def _selection(study: Study, one: FittedModel) -> Row:
    """Which columns stay, and in how many folds each that was considered was selected."""
    design = one.design
    return {
        "folds": study.folds,
        "selected": list(design.whole.names),
        "components": list(design.whole.components),
        "considered": [{"column": name, "folds": count} for name, count in design.chosen.items()],
    }


def _explanation(study: Study, one: FittedModel) -> Row | None:
    found = one.explanation
    if found is None:
        return None
    rows = zip(found.names, found.mean_absolute[0], found.mean[0], found.sign[0], strict=True)
    features = [
        {
            "feature": feature_label(study, name),
            "column": name,
            "mean_absolute": part.number(size),
            "mean": part.number(mean),
            "sign": int(sign),
        }
        for name, size, mean, sign in rows
    ]
    groups = [
        {"group": study.groups[name].label or name, "mean_absolute": part.number(size)}
        for name, size in zip(found.groups, found.group_absolute[0], strict=True)
    ]
    return {"patients": round(found.patients), "features": features, "groups": groups}


def _ensemble(
    study: Study,
    name: str,
    models: Mapping[str, FittedModel],
    found: Evaluated,
    place: int,
    titles: Mapping[str, str],
) -> Row:
    spec = study.ensembles[name]
    steps = {step for member in spec.models for step in _steps(study, study.models[member])}
    first = models[spec.models[0]]
    return {
        "name": name,
        "label": spec.label or name,
        "title": titles[name],
        "kind": "ensemble",
        "table": spec.table,
        "harmonization": _named(steps),
        "groups": [],
        "combat": [],
        "without": [],
        "members": [titles[member] for member in spec.models],
        "subgroup": None,
        "train": _size(first.train),
        "test": _size(first.test),
        **_score(study, found, place),
        "fit": None,
        "search": None,
        "selection": None,
        "explanation": None,
        "warnings": [],
    }


def _consensus(result: ManyResult, models: Mapping[str, Row]) -> Row | None:
    study, agreed = result.study, result.consensus
    if agreed is None or study.consensus is None:
        return None
    rows = part.consensus(study, agreed, [models[name]["horizons"] for name in agreed.models])
    for row in rows:
        name = row["model"]
        row["title"] = "Consensus" if name is None else models[name]["title"]
        row["harmonization"] = None if name is None else models[name]["harmonization"]
    return {"table": study.consensus.table, "models": list(agreed.models), "rows": rows}
