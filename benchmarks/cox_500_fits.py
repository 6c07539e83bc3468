"""500 fits (100 random penalties x 5 folds, n = 604, p = 60, Breslow): rounds, and seconds against scikit-survival.

.venv/bin/python benchmarks/cox_500_fits.py
"""

from __future__ import annotations

import time

import numpy as np
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv
from threadpoolctl import threadpool_limits

from ctfed.federation import Cohort, Feature, View, gather, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.statistics.cox import ElasticNet, Settings, fit_cox_stack

PATIENTS, FEATURES, FOLDS, TRIALS, SITES = 604, 60, 5, 100, 5


def main() -> None:
    """Print the table; all times are of this one run, with one BLAS thread."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((PATIENTS, FEATURES)) @ (
        0.15 * rng.standard_normal((FEATURES, FEATURES)) + np.eye(FEATURES)
    )
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    beta = np.concatenate([rng.normal(0, 0.35, 8), np.zeros(FEATURES - 8)])
    death, censoring = rng.exponential(24 * np.exp(-x @ beta)), rng.exponential(40, PATIENTS)
    times, event = np.round(np.minimum(death, censoring), 2) + 0.01, death <= censoring
    fold, place = np.arange(PATIENTS) % FOLDS, rng.integers(0, SITES, PATIENTS)
    whole = Cohort.of("all", {f"x{j}": x[:, j] for j in range(FEATURES)}, times, event, fold=fold)
    sites = [Cohort.of(f"s{k}", {n: v[place == k] for n, v in whole.columns.items()}, times[place == k],
                       event[place == k], fold=fold[place == k]) for k in range(SITES)]  # fmt: skip
    penalties = [ElasticNet(float(10 ** rng.uniform(-3, -0.5)), float(rng.uniform(0.05, 1))) for _ in range(TRIALS)]
    view = View(tuple(Feature(name) for name in whole.columns))
    seconds = {}
    for tolerance in (1e-4, 1e-9):
        for name, cohorts in (("1 stratum", [whole]), ("5 sites", sites)):
            traffic, started = Traffic(), time.perf_counter()
            settings = Settings(tolerance=tolerance)
            views = [view.training_fold(k) for k in range(FOLDS)]
            fits = run_pooled(
                gather(*[fit_cox_stack(v, penalties, ties="breslow", settings=settings) for v in views]),
                cohorts,
                traffic,
            )
            seconds[name, tolerance] = time.perf_counter() - started
            worst = max(fit.residual for stack in fits for fit in stack)
            print(f"ctfed, {name:9}, KKT {tolerance:g}: {seconds[name, tolerance]:6.2f} s, {traffic.rounds} rounds, "
                  f"{traffic.bytes_up / 1e6:.1f} MB up a site, worst KKT {worst:.1e}")  # fmt: skip
    started = time.perf_counter()
    for k in range(FOLDS):
        rows = fold != k
        outcome = Surv.from_arrays(event[rows], times[rows])
        for penalty in penalties:
            CoxnetSurvivalAnalysis(alphas=[penalty.penalizer], l1_ratio=penalty.l1_ratio).fit(x[rows], outcome)
    coxnet = time.perf_counter() - started
    print(f"scikit-survival Coxnet, default tolerance: {coxnet:.2f} s; "
          f"ctfed / Coxnet at KKT 1e-9: {seconds['1 stratum', 1e-9] / coxnet:.2f}")  # fmt: skip


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
