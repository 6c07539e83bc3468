"""From a study's result to the plain mapping that the report, the JSON and the CSV files are made of."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from ctfed import __version__
from ctfed.federation.arrays import FloatArray
from ctfed.federation.nominal import column_of, indicator_name
from ctfed.statistics.cox import CoxFit
from ctfed.study import Study
from server.evaluation import curves_mapping, discrimination_mapping
from server.journal import RoundRecord
from server.study_algorithm import StudyResult, feature_scales


@dataclass(frozen=True)
class RunFacts:
    """How a study was run.

    Attributes:
        runner: which transport carried it.
        sites: the roster.
        notes: how the sites came about.
        seconds: wall time of this (last) run.
        started: ISO time.
        rounds: the journal's records.
        masked: whether the sites masked their answers.
        left_out: split -> sites below their own minimum, which sent zeros to its totals.
    """

    runner: str
    sites: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    started: str
    rounds: tuple[RoundRecord, ...]
    masked: bool = False
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def results_of(result: StudyResult, facts: RunFacts) -> dict[str, Any]:
    """The mapping described by ``ctfed.report.write_pooled_report``."""
    study = result.study
    return {
        "study": {
            "name": study.name,
            "title": study.title,
            "sha256": study.sha256,
            "endpoint": {"name": study.endpoint.name, "time_unit": study.endpoint.time_unit},
        },
        "run": run_mapping(facts),
        "sites": sites_mapping(facts),
        "cohort": _cohort(result),
        "tuning": _tuning(result),
        "model": _model(result),
        "baseline": {
            "time": result.baseline.time.tolist(),
            "cumulative_hazard": result.baseline.cumulative_hazard.tolist(),
            "survival": result.baseline.survival().tolist(),
        },
        "curves": curves_mapping(study, result.evaluated),
        "discrimination": discrimination_mapping(study, result.evaluated),
        "rounds": rounds_mapping(facts),
    }


def sites_mapping(facts: RunFacts) -> dict[str, Any]:
    """The report's section 'sites'."""
    return {"names": list(facts.sites), "count": len(facts.sites), "notes": [*facts.notes, *_left_out(facts)]}


def rounds_mapping(facts: RunFacts) -> list[dict[str, Any]]:
    """The report's list 'rounds'."""
    return [
        {
            "round": record.number + 1,
            "queries": [f"{kind} x {count}" for kind, count in sorted(record.kinds.items())],
            "bytes_down": record.bytes_down,
            "bytes_up": record.bytes_up,
            "seconds": record.seconds,
        }
        for record in facts.rounds
    ]


def _left_out(facts: RunFacts) -> list[str]:
    return [
        f"below their own minimum, so left out of every total over the {split} split: {', '.join(sites)}"
        for split, sites in facts.left_out.items()
        if sites
    ]


def run_mapping(facts: RunFacts, *packages: str) -> dict[str, Any]:
    """The report's section 'run', with the versions of numpy, scipy, flwr and further packages."""
    return {
        "ctfed_version": __version__,
        "runner": facts.runner,
        "masked": facts.masked,
        "seconds": round(facts.seconds, 2),
        "rounds": len(facts.rounds),
        "bytes_up_per_site": sum(record.bytes_up for record in facts.rounds),
        "bytes_down_per_site": sum(record.bytes_down for record in facts.rounds),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy", "flwr", *packages)},
        },
        "started": facts.started,
    }


def _cohort(result: StudyResult) -> dict[str, Any]:
    study, prepared = result.study, result.prepared
    moments = prepared.standardised.moments if prepared.standardised is not None else None
    rows = []
    for name in prepared.imputed.view.names:
        row: dict[str, Any] = {"feature": study.label(name), "method": "none", "imputed_with": None}
        column = column_of(name)
        row["missing"] = prepared.imputed.missing.get(column)
        if column in study.variables and study.variables[column].impute != "none":
            row["method"] = study.variables[column].impute
            value = prepared.imputed.values.get(column)
            # An indicator is 1 where its level is the one that stands for missing values.
            row["imputed_with"] = value if name == column else float(name == indicator_name(column, value or 0.0))
        if moments is not None:
            place = moments.names.index(name)
            row["mean"], row["sd"] = float(moments.mean[place]), float(moments.sd(ddof=1)[place])
        rows.append(row)
    return {
        "splits": [{"split": s.split, "patients": s.patients, "events": s.events} for s in result.sizes],
        "features": rows,
    }


def feature_label(study: Study, name: str) -> str:
    """A feature's display name; indicators of missing values keep their suffix, those of levels name the level."""
    return study.label(name)


def _tuning(result: StudyResult) -> dict[str, Any] | None:
    tuned, tuning = result.tuned, result.study.tuning
    if tuned is None or tuning is None:
        return None
    trials = [
        {
            "penalizer": penalty.penalizer,
            "l1_ratio": penalty.l1_ratio,
            "score": float(tuned.scores[k]),
            "score_se": float(tuned.errors[k]),
            "nonzero": float(tuned.nonzero[k]),
        }
        for k, penalty in enumerate(tuned.penalties)
    ]
    return {
        "folds": tuning.folds,
        "score": "Harrell's C over pairs of patients of the same site, in held-out folds",
        "l1_ratio": tuned.chosen.l1_ratio,
        "trials": trials,
        "best": tuned.best,
        "rule": tuned.rule,
    }


def _model(result: StudyResult) -> dict[str, Any]:
    fit, reference = result.fit, result.reference
    warnings = [*result.prepared.warnings, *fit.warnings]
    if reference is not None:
        warnings += [f"unpenalised reference: {line}" for line in reference.warnings]
    return {
        "penalizer": fit.penalty.penalizer,
        "l1_ratio": fit.penalty.l1_ratio,
        "ties": fit.ties,
        "risk_sets": fit.risk_sets,
        "kkt_residual": fit.residual,
        "rounds": fit.rounds,
        "patients": fit.patients,
        "events": fit.events,
        "loglik": fit.loglik,
        "coefficients": coefficient_rows(result.study, fit, result.robust if fit is result.unpenalised else None),
        "unpenalised": None if reference is None else coefficient_rows(result.study, reference, result.robust),
        "warnings": warnings,
    }


def coefficient_rows(study: Study, fit: CoxFit, robust: FloatArray | None) -> list[dict[str, Any]]:
    """One row per feature: its coefficient per original unit and per SD, and what inference there is.

    Args:
        study: for the features' labels.
        fit: the model.
        robust: (p, p) its sandwich covariance, if it has one.
    """
    scales = feature_scales(fit.view)
    columns: Mapping[str, FloatArray | None] = {
        "coef": fit.coefficients / scales,
        "coef_per_sd": fit.coefficients,
        "hazard_ratio": np.exp(fit.coefficients),
        **_inference(fit),
        **{f"robust_{key}": values for key, values in _inference(replace(fit, covariance=robust)).items()},
    }
    return [
        {
            "feature": feature_label(study, name),
            **{key: None if values is None else float(values[j]) for key, values in columns.items()},
        }
        for j, name in enumerate(fit.view.names)
    ]


def _inference(fit: CoxFit) -> dict[str, FloatArray | None]:
    """Wald's limits of the hazard ratios, standard errors and tests from the fit's covariance; None without one."""
    intervals = fit.intervals()
    return {
        "lower": None if intervals is None else np.exp(intervals[:, 0]),
        "upper": None if intervals is None else np.exp(intervals[:, 1]),
        "se": fit.standard_errors,
        "z": fit.z,
        "p": fit.p_values,
    }
