"""Data and references for the tests of ComBat: golden files, and ComBat from patients' rows as its paper writes it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctfed.federation import Cohort, Feature, FloatArray, View, pool, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.statistics.combat import CombatOptions, Covariate, Harmonized, combat


def cohort_of(site: str, y: FloatArray, x: FloatArray | None = None, batch: Any = None, **labels: Any) -> Cohort:
    """A cohort with features f0, f1, ... from (n, p) and covariates x0, x1, ... from (n, q), and any follow-up."""
    columns = {f"f{j}": y[:, j] for j in range(y.shape[1])}
    if x is not None:
        columns |= {f"x{j}": x[:, j] for j in range(x.shape[1])}
    n = y.shape[0]
    return Cohort.of(site, columns, np.ones(n), np.zeros(n), batch=batch, **labels)


def view_over(cohorts: Sequence[Cohort], **choice: Any) -> View:
    """All columns, with the exponents that a data dictionary would declare."""
    largest = {
        name: max(float(np.abs(np.nan_to_num(values)).max(initial=0.0)), 1e-30)
        for name, values in pool(cohorts).columns.items()
    }
    return View(tuple(Feature(name, int(np.ceil(np.log2(top)))) for name, top in largest.items()), **choice)


def features_of(view: View) -> tuple[str, ...]:
    return tuple(name for name in view.names if name.startswith("f"))


def fit(
    cohorts: Sequence[Cohort],
    covariates: Sequence[Covariate] = (),
    options: CombatOptions | None = None,
    view: View | None = None,
    traffic: Traffic | None = None,
    **more: Any,
) -> Harmonized:
    """``combat`` of the features f... through the wire format."""
    over = view if view is not None else view_over(cohorts)
    return run_pooled(combat(over, features_of(over), covariates, options, **more), cohorts, traffic)


def values(view: View, cohorts: Sequence[Cohort]) -> FloatArray:
    """(n, p) harmonized features, site after site."""
    chosen = [view.names.index(name) for name in features_of(view)]
    return np.concatenate([view.table(cohort).values[:, chosen] for cohort in cohorts])


def harmonized(cohorts: Sequence[Cohort], *arguments: Any, **more: Any) -> FloatArray:
    """(n, p) features after ``fit``, on the rows of the fit."""
    return values(fit(cohorts, *arguments, **more).view, cohorts)


@dataclass(frozen=True)
class Rows:
    """A pooled data set: (n, p) features, (n, q) design columns without intercept, (n,) batches."""

    y: FloatArray
    x: FloatArray
    batch: np.ndarray


def made(
    sizes: Sequence[int], p: int, q: int = 2, seed: int = 0, shift: float = 1.0, covariates: str = "normal"
) -> Rows:
    """Features with shifts and scales of batches, and linear effects of q covariates that differ between batches."""
    rng = np.random.default_rng(seed)
    batch = np.repeat([f"b{k}" for k in range(len(sizes))], sizes)
    n = batch.size
    x = rng.normal(size=(n, q)) + rng.normal(size=(len(sizes), q))[np.repeat(np.arange(len(sizes)), sizes)]
    if covariates == "binary":
        x = (x > 0).astype(float)
    y = rng.normal(2.0, 1.0, p) + x @ rng.normal(size=(q, p))
    for k in range(len(sizes)):
        rows = batch == f"b{k}"
        noise = rng.normal(size=(sizes[k], p)) * np.sqrt(rng.gamma(8.0, 1 / 8.0, p))
        y[rows] += shift * (rng.normal() + 0.5 * rng.normal(size=p)) + noise
    return Rows(y, x, batch)


def split_by_batch(rows: Rows, **labels: Any) -> list[Cohort]:
    """Each batch a site."""
    return [
        cohort_of(
            str(label),
            rows.y[rows.batch == label],
            rows.x[rows.batch == label],
            rows.batch[rows.batch == label],
            **{name: values[rows.batch == label] for name, values in labels.items()},
        )
        for label in dict.fromkeys(rows.batch.tolist())
    ]


def pooled_combat(rows: Rows, options: CombatOptions) -> FloatArray:
    """(n, p) by ComBat from all rows at once, feature by feature and iteration by iteration as the paper has it.

    Nothing of ctfed is used: ordinary least squares with batch columns, residuals of rows, loops over features.
    """
    labels = list(dict.fromkeys(rows.batch.tolist()))
    design = np.column_stack([*(rows.batch == label for label in labels), rows.x]).astype(float)
    solved = np.linalg.lstsq(design, rows.y, rcond=None)[0]
    n, counts = rows.y.shape[0], np.array([(rows.batch == label).sum() for label in labels])
    b = len(labels)
    residuals = rows.y - design @ solved
    if options.reference:
        own = rows.batch == options.reference
        alpha, variance = solved[labels.index(options.reference)], (residuals[own] ** 2).mean(axis=0)
    else:
        alpha, variance = counts / n @ solved[:b], (residuals**2).mean(axis=0)
    expected = alpha + rows.x @ solved[b:]
    z = (rows.y - expected) / np.sqrt(variance)
    for label in labels:
        own = rows.batch == label
        if label != options.reference:
            gamma, delta = _adjustment(z[own], options)
            z[own] = (z[own] - gamma) / np.sqrt(delta)
    out = z * np.sqrt(variance) + expected
    if options.reference:
        out[rows.batch == options.reference] = rows.y[rows.batch == options.reference]
    return out


def _adjustment(z: FloatArray, options: CombatOptions) -> tuple[FloatArray, FloatArray]:
    n, p = z.shape
    gamma_hat = z.mean(axis=0)
    delta_hat = np.ones(p) if options.mean_only else z.var(axis=0, ddof=1)
    if options.prior == "none":
        return gamma_hat, delta_hat
    if options.prior == "nonparametric":
        return _integrated(z, gamma_hat, delta_hat)
    gamma_bar, t2 = gamma_hat.mean(), gamma_hat.var(ddof=1)
    if options.mean_only:
        return (t2 * gamma_hat + gamma_bar) / (t2 + 1), np.ones(p)
    m, s2 = delta_hat.mean(), delta_hat.var(ddof=1)
    a, b = (2 * s2 + m**2) / s2, (m * s2 + m**3) / s2
    old_gamma, old_delta, change = gamma_hat.copy(), delta_hat.copy(), 1.0
    while change > 1e-4:
        gamma = (n * t2 * gamma_hat + old_delta * gamma_bar) / (n * t2 + old_delta)
        delta = (0.5 * ((z - gamma) ** 2).sum(axis=0) + b) / (n / 2 + a - 1)
        change = max((np.abs(gamma - old_gamma) / old_gamma).max(), (np.abs(delta - old_delta) / old_delta).max())
        old_gamma, old_delta = gamma, delta
    return old_gamma, old_delta


def _integrated(z: FloatArray, gamma_hat: FloatArray, delta_hat: FloatArray) -> tuple[FloatArray, FloatArray]:
    n, p = z.shape
    gamma, delta = np.empty(p), np.empty(p)
    for g in range(p):
        others = np.arange(p) != g
        squares = ((z[:, g, None] - gamma_hat[others]) ** 2).sum(axis=0)
        log_likelihood = -n / 2 * np.log(2 * np.pi * delta_hat[others]) - squares / (2 * delta_hat[others])
        weight = np.exp(log_likelihood - log_likelihood.max())
        gamma[g] = (gamma_hat[others] * weight).sum() / weight.sum()
        delta[g] = (delta_hat[others] * weight).sum() / weight.sum()
    return gamma, delta


def read_matrix(path: Path) -> tuple[list[str], list[str], FloatArray]:
    """Names of columns, identifiers of rows, numbers of a CSV file whose first column identifies its rows."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *records = list(csv.reader(file))
    return header[1:], [row[0] for row in records], np.array([[float(cell) for cell in row[1:]] for row in records])
