"""Three models of the paper's study, federated, against the same pipeline on pooled rows with the field's own tools.

pandas imputes, scikit-learn standardises, neuroCombat harmonizes, scikit-survival scores. The design matrices are
compared, and the federated coefficients are held against the optimality conditions of the pooled, stratified
elastic-net Cox model on the pooled matrix. Beside it stands lifelines as everybody calls it: without strata.

    ../.venv/bin/python oracle_models.py
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index
from neuroCombat import neuroCombat
from paper_study import _chosen, paper_cohorts
from sklearn.preprocessing import StandardScaler
from sksurv.metrics import concordance_index_censored

from ctfed.federation import Cohort, pool, run_pooled
from ctfed.study import Study, load_study
from server.many.algorithm import FittedModel, ManyResult, many_algorithm, scores_by_name

ROOT = Path(__file__).resolve().parents[1]
MODELS = ["clinical", "tumour-texture-combat", "clinical-cac"]


def main() -> None:
    """Run the study of three models and print what differs."""
    sys.path.insert(0, str(ROOT / "tests" / "statistics"))
    study = _chosen(load_study(ROOT / "site_config" / "studies" / "pixels_to_prognosis.yaml"), 20, MODELS)
    cohorts = paper_cohorts(study)
    result: ManyResult = run_pooled(many_algorithm(study), cohorts)
    heads = (
        "model",
        "features",
        "design matrix differs",
        "KKT of ours on it",
        "C within sites",
        "pooled C",
        "lifelines",
    )
    print("| " + " | ".join(heads) + " |")
    print("|---|---|---|---|---|---|---|")
    for model in result.models:
        print("| " + " | ".join(_compare(study, model, result, pool(cohorts), cohorts)) + " |")


def _compare(study: Study, model: FittedModel, result: ManyResult, rows: Cohort, cohorts: list[Cohort]) -> list[str]:
    from cox_data import Survival, kkt_residual

    train, test = rows.split == "train", rows.split == "test"
    expected = _design(study, model, rows, train)
    ours = np.concatenate([model.fit.view.table(cohort).values for cohort in cohorts])
    ours_test = np.concatenate([model.fit.view.test().table(cohort).values for cohort in cohorts])
    whole = expected[list(model.fit.view.names)].to_numpy()
    gap = max(np.abs(whole[train] - ours).max(), np.abs(whole[test] - ours_test).max())
    data = Survival.of(whole[train], rows.time[train], rows.event[train], model.fit.view.names, rows.stratum[train])
    residual = kkt_residual(data, model.fit.coefficients, model.found.best.penalty, "efron")
    score = whole[test] @ model.fit.coefficients
    inside = _within(rows, test, score)
    exact = concordance_index_censored(rows.event[test], rows.time[test], np.round(score, 10), tied_tol=0)[0]
    one, k = scores_by_name(result)[model.name]
    assert one.pooled is not None
    c = one.pooled.c
    raw = _lifelines(whole, rows, train, test, model)
    return [
        model.name,
        f"{np.count_nonzero(model.fit.coefficients)} of {model.fit.view.width}",
        f"{gap:.1e}",
        f"{residual:.1e}",
        f"{one.paired.concordance.value[k]:.6f}, differs by {abs(one.paired.concordance.value[k] - inside):.0e}",
        f"{c.value[k]:.3f} ({c.lower[k]:.3f} to {c.upper[k]:.3f}), {exact:.3f}",
        f"{raw:.3f}",
    ]


def _design(study: Study, model: FittedModel, rows: Cohort, train: np.ndarray) -> pd.DataFrame:
    """All groups of a model, prepared on the pooled training rows."""
    parts = []
    for group, prepared in zip(model.design.spec.groups, model.design.whole.view.beside, strict=True):
        frame = pd.DataFrame({name: rows.columns[name] for name in study.names_of(group)})
        clinical = study.groups[group].clinical
        frame = _imputed(frame, prepared, train) if clinical else frame.fillna(frame[train].mean())
        frame = _standardised(frame, train)
        if group in model.design.spec.combat:
            frame = _standardised(_harmonized(frame, rows, train), train)
        parts.append(frame)
    return pd.concat(parts, axis=1)


def _imputed(frame: pd.DataFrame, prepared: object, train: np.ndarray) -> pd.DataFrame:
    """Modes from pandas; medians as the federation knows them, between two counts (their difference is printed)."""
    step = next(one for one in prepared.transforms if type(one).__name__ == "Impute")  # type: ignore[attr-defined]
    values = dict(zip(step.names, step.values, strict=True))
    frame = frame[[column.name for column in prepared.columns]]  # type: ignore[attr-defined]
    missing = {f"{name} missing": frame[name].isna().astype(float) for name in step.indicators}
    for name in ("pack_years", "pdl1", "age"):
        exact = frame[train][name].median()
        print(f"median of {name}: {values[name]:.4g} federated, {exact:.4g} exact", file=sys.stderr)
    for name in frame:
        mode = frame[train][name].mode().iloc[0]
        if name not in ("pack_years", "pdl1", "age") and values[name] != mode:
            raise AssertionError(f"{name}: mode {values[name]} federated, {mode} pooled")
    return pd.concat([frame.fillna(values), pd.DataFrame(missing)], axis=1)


def _standardised(frame: pd.DataFrame, train: np.ndarray) -> pd.DataFrame:
    scaler = StandardScaler().fit(frame[train])
    return pd.DataFrame(scaler.transform(frame), columns=frame.columns)


def _harmonized(frame: pd.DataFrame, rows: Cohort, train: np.ndarray) -> pd.DataFrame:
    """neuroCombat's estimates on the training rows, applied to all rows of the same centres."""
    with contextlib.redirect_stdout(io.StringIO()):
        covariates = pd.DataFrame({"site": rows.batch[train]})
        fitted = neuroCombat(frame[train].to_numpy().T, covariates, "site", parametric=True)
    found = fitted["estimates"]
    mean, sigma = found["stand.mean"][:, 0], np.sqrt(np.asarray(found["var.pooled"]).ravel())
    values = frame.to_numpy().copy()  # a centre without training patients stays as it is
    # neuroCombatFromTraining does not run with current numpy; this is its formula.
    for label, gamma, delta in zip(found["batches"], found["gamma.star"], found["delta.star"], strict=True):
        own = rows.batch == label
        values[own] = sigma * ((values[own] - mean) / sigma - gamma) / np.sqrt(delta) + mean
    return pd.DataFrame(values, columns=frame.columns)


def _within(rows: Cohort, test: np.ndarray, score: np.ndarray) -> float:
    right = pairs = 0.0
    for site in np.unique(rows.stratum[test]):
        own = rows.stratum[test] == site
        event, time = rows.event[test][own], rows.time[test][own]
        if not event.any():
            continue
        with contextlib.suppress(Exception):
            found = concordance_index_censored(event, time, np.round(score[own], 10), tied_tol=0)
            right, pairs = right + found[1] + 0.5 * found[3], pairs + found[1] + found[2] + found[3]
    return right / pairs


def _lifelines(x: np.ndarray, rows: Cohort, train: np.ndarray, test: np.ndarray, model: FittedModel) -> float:
    """C on the test patients of the model that the paper's authors would have fitted."""
    best = model.found.best
    frame = pd.DataFrame(x).assign(time=rows.time, event=rows.event)
    fitter = CoxPHFitter(penalizer=best.penalizer, l1_ratio=best.l1_ratio).fit(frame[train], "time", "event")
    risk = fitter.predict_partial_hazard(frame[test])
    return float(concordance_index(rows.time[test], -risk, rows.event[test]))


if __name__ == "__main__":
    main()
