"""Federated principal components of foundation-model features: accuracy, rounds, bytes and seconds.

604 patients of five centres, 4096 features, three spectra, against scikit-learn's PCA of the pooled rows. 'explained'
is the variance of the pooled rows along the federated components relative to the exact ones, 'cosine' that of the
largest principal angle between both spaces. Bytes are those of the wire format for one site; seconds are of all sites
and the server together, in one process with one BLAS thread, the best of three. The last lines are of the five training
folds with one shared sketch, and of the random projection, which asks nothing.

    .venv/bin/python benchmarks/projection.py
"""

from __future__ import annotations

import time

import numpy as np
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from ctfed.federation import Cohort, Feature, FloatArray, View, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.statistics.project import Projection, RandomProjection, project, project_together

SITES = (278, 142, 82, 96, 6)
FEATURES, COMPONENTS, FOLDS, REPEATS = 4096, 50, 5, 3
MOST_ROUNDS, LEAST_EXPLAINED, LEAST_COSINE = 5, 0.999, 0.99


def rows(decay: float, gap: int | None, seed: int = 0) -> FloatArray:
    """(604, 4096) rows whose covariance has the eigenvalues i^-decay, halved after ``gap``."""
    rng = np.random.default_rng(seed)
    n = sum(SITES)
    variances = np.arange(1.0, n) ** -decay
    if gap is not None:
        variances[gap:] *= 0.5
    scores = rng.normal(size=(n, n - 1))
    scores = np.linalg.qr(scores - scores.mean(axis=0))[0]
    axes = np.linalg.qr(rng.normal(size=(FEATURES, n - 1)))[0]
    return np.asarray((scores * np.sqrt(n * variances)) @ axes.T + rng.normal(size=FEATURES))


def federation(x: FloatArray) -> tuple[View, list[Cohort]]:
    """The rows at their sites, and the view of all columns."""
    names = [f"f{j}" for j in range(FEATURES)]
    n = x.shape[0]
    fold = np.random.default_rng(1).permutation(np.arange(n) % FOLDS)
    whole = Cohort.of("pooled", dict(zip(names, x.T, strict=True)), np.ones(n), np.ones(n), fold=fold)
    owner = np.repeat(np.arange(len(SITES)), SITES)
    exponent = int(np.ceil(np.log2(np.abs(x).max())))
    view = View(tuple(Feature(name, exponent) for name in names))
    return view, [whole.subset(owner == k, f"site-{k}") for k in range(len(SITES))]


def agreement(x: FloatArray, found: Projection) -> tuple[float, float]:
    """Explained variance relative to the exact components, and the cosine of the largest principal angle."""
    exact = PCA(len(found.variance), svd_solver="full").fit(x)
    scores = (x - x.mean(axis=0)) @ found.step.components.T
    explained = scores.var(axis=0, ddof=1).sum() / exact.explained_variance_.sum()
    return float(explained), float(np.linalg.svd(found.step.components @ exact.components_.T)[1].min())


def one(decay: float, gap: int | None, components: int) -> None:
    """Print the line of one spectrum."""
    x = rows(decay, gap)
    view, cohorts = federation(x)
    seconds = float("inf")
    for _ in range(REPEATS):
        traffic, started = Traffic(), time.perf_counter()
        found = run_pooled(project(view, components), cohorts, traffic)
        seconds = min(seconds, time.perf_counter() - started)
    started = time.perf_counter()
    PCA(components, svd_solver="full").fit(x)
    pooled = time.perf_counter() - started
    explained, cosine = agreement(x, found)
    met = traffic.rounds <= MOST_ROUNDS and explained >= LEAST_EXPLAINED
    if gap is not None:
        met = met and cosine >= LEAST_COSINE
    print(
        f"i^-{decay:<4g}{f'gap at {gap}' if gap else 'no gap':<12}{components:4d}{traffic.rounds:8d}{found.columns:9d}"
        f"{traffic.bytes_up / 1e6:9.1f}{traffic.bytes_down / 1e6:9.1f}{seconds:9.2f}{pooled:9.2f}"
        f"{explained:12.6f}{cosine:10.5f}  {'met' if met else 'MISSED'}"
    )


def folds() -> None:
    """Print what a shared sketch of all training folds costs, and what the random projection keeps."""
    x = rows(1.2, None)
    view, cohorts = federation(x)
    fold = np.concatenate([cohort.fold for cohort in cohorts])
    views = [view] + [view.training_fold(k) for k in range(FOLDS)]
    traffic, started = Traffic(), time.perf_counter()
    found = run_pooled(project_together(views, 20, products=2), cohorts, traffic)
    seconds = time.perf_counter() - started
    least = min(agreement(x[fold != k], found[k + 1])[0] for k in range(FOLDS))
    print(
        f"\n{FOLDS} folds and the whole, one sketch, i^-1.2, 20 components: {found[0].columns} columns, "
        f"{traffic.rounds} rounds, {traffic.bytes_up / 1e6:.1f} MB up, {seconds:.2f} s, explained >= {least:.4f}"
    )
    started = time.perf_counter()
    matrix = RandomProjection(FEATURES, 256).matrix
    seconds = time.perf_counter() - started
    scores = x @ matrix
    pairs = np.triu_indices(len(x), 1)

    def distances(z: FloatArray) -> FloatArray:
        squares = (z**2).sum(axis=1)
        return np.sqrt(np.maximum(squares[:, None] + squares - 2 * z @ z.T, 0.0))[pairs]

    error = np.abs(distances(scores) / distances(x) - 1)
    print(
        f"random projection to 256: nothing asked, {seconds:.2f} s to make; distances between patients off by "
        f"{error.mean():.1%} on average, {error.max():.1%} at most"
    )


if __name__ == "__main__":
    print(f"{sum(SITES)} patients at {len(SITES)} sites, {FEATURES} features")
    print(
        f"{'spectrum':<18}{'k':>4}{'rounds':>8}{'columns':>9}{'MB up':>9}{'MB down':>9}{'seconds':>9}{'pooled':>9}",
        end="",
    )
    print(f"{'explained':>12}{'cosine':>10}")
    with threadpool_limits(1):
        for chosen in (
            (0.7, None, 50),
            (0.7, 50, 50),
            (0.7, 30, 30),
            (1.2, None, 50),
            (1.2, None, 20),
            (2.0, None, 50),
        ):
            one(*chosen)
        folds()
