"""500 fits (100 random penalties x 5 folds, n = 604, p = 60, Breslow): rounds, and seconds against pooled software.

scikit-survival's Coxnet makes the same 500 fits one by one, at its default tolerance and at 1e-14; lifelines makes a
random sample of them, from which its 500 are extrapolated (it has Efron's ties and a smoothed |beta| only). All times
are of one run with one BLAS thread, the best of three where they are a few seconds. Differences are the largest of any
coefficient from ctfed's at KKT 1e-9, of whichever software.

    .venv/bin/python benchmarks/cox_500_fits.py [--lifelines FITS]
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv
from survival_data import Survival, generated
from threadpoolctl import threadpool_limits

from ctfed.federation import Cohort, FloatArray, gather, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.statistics.cox import ElasticNet, Settings, fit_cox_stack

PATIENTS, FEATURES, FOLDS, TRIALS, SITES = 604, 60, 5, 100, 5
REPEATS = 3
LARGEST_ROUNDS, LARGEST_RATIO, SMALLEST_SPEEDUP = 60, 5.0, 50.0


def ctfed_fits(
    data: Survival, cohorts: list[Cohort], penalties: list[ElasticNet], tolerance: float, name: str
) -> tuple[float, int, FloatArray]:
    """Print one line; the best seconds, rounds and coefficients (folds, trials, p)."""
    settings, seconds = Settings(tolerance=tolerance), float("inf")
    views = [data.view.training_fold(k) for k in range(FOLDS)]
    for _ in range(REPEATS):
        traffic, started = Traffic(), time.perf_counter()
        stacks = gather(*[fit_cox_stack(view, penalties, ties="breslow", settings=settings) for view in views])
        fits = run_pooled(stacks, cohorts, traffic)
        seconds = min(seconds, time.perf_counter() - started)
    worst = max(fit.residual for stack in fits for fit in stack)
    print(
        f"ctfed, {name}, KKT {tolerance:g}".ljust(34)
        + f"{seconds:9.2f} s  {traffic.rounds} rounds, {traffic.bytes_up / 1e6:.1f} MB up a site, worst KKT {worst:.1e}"
    )
    return seconds, traffic.rounds, np.array([[fit.coefficients for fit in stack] for stack in fits])


def violation(data: Survival, whole: list[Cohort], penalties: list[ElasticNet], found: FloatArray) -> float:
    """Largest KKT residual of given coefficients (folds, trials, p), by one evaluation."""
    once = Settings(max_rounds=1)
    views = [data.view.training_fold(k) for k in range(FOLDS)]
    stacks = [fit_cox_stack(v, penalties, ties="breslow", settings=once, start=found[k]) for k, v in enumerate(views)]
    return max(fit.residual for stack in run_pooled(gather(*stacks), whole) for fit in stack)


def coxnet_fits(
    data: Survival, fold: np.ndarray, penalties: list[ElasticNet], **options: float
) -> tuple[float, FloatArray]:
    """Seconds and coefficients (folds, trials, p)."""
    found, seconds = np.zeros((FOLDS, TRIALS, FEATURES)), 0.0
    for k in range(FOLDS):
        training = data.rows(fold != k)
        outcome = Surv.from_arrays(training.event, training.time)
        started = time.perf_counter()
        for trial, penalty in enumerate(penalties):
            net = CoxnetSurvivalAnalysis(alphas=[penalty.penalizer], l1_ratio=penalty.l1_ratio, **options)
            found[k, trial] = net.fit(training.x, outcome).coef_[:, 0]
        seconds += time.perf_counter() - started
    return seconds, found


def lifelines_fits(
    data: Survival, fold: np.ndarray, penalties: list[ElasticNet], expected: FloatArray, sample: int
) -> float:
    """Print one line; seconds of all fits, extrapolated from a random sample."""
    chosen = np.random.default_rng(1).choice(FOLDS * TRIALS, sample, replace=False)
    taken, gap = [], 0.0
    for k, trial in zip(*np.unravel_index(chosen, (FOLDS, TRIALS)), strict=True):
        training, penalty = data.rows(fold != k), penalties[trial]
        frame = pd.DataFrame(training.x, columns=data.names).assign(time=training.time, event=training.event)
        started = time.perf_counter()
        fitter = CoxPHFitter(penalizer=penalty.penalizer, l1_ratio=penalty.l1_ratio).fit(frame, "time", "event")
        taken.append(time.perf_counter() - started)
        gap = max(gap, float(np.abs(fitter.params_.to_numpy() - expected[k, trial]).max()))
    seconds = float(np.mean(taken)) * FOLDS * TRIALS
    print(
        "lifelines, default precision".ljust(34)
        + f"{seconds:9.0f} s  extrapolated from {sample} of {FOLDS * TRIALS} fits drawn at random: {min(taken):.2f} to "
        f"{max(taken):.2f} s each, mean {np.mean(taken):.2f}; difference {gap:.1e}"
    )
    return seconds


def verdict(what: str, value: float, limit: float, met: bool) -> None:
    """Print a figure beside its target."""
    print(f"{what:58}{value:9.2f}   target {limit:g}: {'met' if met else 'MISSED'}")


def main() -> None:
    """Print the table and the targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lifelines", type=int, default=10, help="fits in lifelines' sample (default 10)")
    sample = parser.parse_args().lifelines
    data, rng = generated(PATIENTS, FEATURES), np.random.default_rng(0)
    fold = np.arange(PATIENTS) % FOLDS
    penalties = [ElasticNet(float(10 ** rng.uniform(-3, -0.5)), float(rng.uniform(0.05, 1))) for _ in range(TRIALS)]
    whole = data.sites(np.zeros(PATIENTS, dtype=int), fold)
    dealt = data.sites(rng.integers(0, SITES, PATIENTS), fold)
    seconds = {}
    for tolerance in (1e-4, 1e-9):
        seconds[1, tolerance], _, expected = ctfed_fits(data, whole, penalties, tolerance, "1 stratum")
        seconds[SITES, tolerance], rounds, _ = ctfed_fits(data, dealt, penalties, tolerance, f"{SITES} sites")
    coxnet = {}
    for name, options, repeats in (("default", {}, REPEATS), ("1e-14", {"tol": 1e-14, "max_iter": 10_000_000}, 1)):
        runs = [coxnet_fits(data, fold, penalties, **options) for _ in range(repeats)]
        coxnet[name], found = min(seconds for seconds, _ in runs), runs[0][1]
        print(
            f"Coxnet, tol {name}".ljust(34) + f"{coxnet[name]:9.2f} s  worst KKT "
            f"{violation(data, whole, penalties, found):.1e}, difference {np.abs(found - expected).max():.1e}"
        )
    slow = lifelines_fits(data, fold, penalties, expected, sample)
    print()
    verdict(f"rounds at KKT 1e-9, {SITES} sites", rounds, LARGEST_ROUNDS, rounds <= LARGEST_ROUNDS)
    ratio = seconds[1, 1e-9] / coxnet["default"]
    verdict("ctfed / Coxnet: KKT 1e-9, 1 stratum / default", ratio, LARGEST_RATIO, ratio <= LARGEST_RATIO)
    print(f"{'ctfed / Coxnet: KKT 1e-9, 1 stratum / tol 1e-14':58}{seconds[1, 1e-9] / coxnet['1e-14']:9.2f}")
    print(f"{f'ctfed / Coxnet: KKT 1e-9, {SITES} sites / default':58}{seconds[SITES, 1e-9] / coxnet['default']:9.2f}")
    speedup = slow / seconds[1, 1e-9]
    verdict("lifelines / ctfed: KKT 1e-9, 1 stratum", speedup, SMALLEST_SPEEDUP, speedup >= SMALLEST_SPEEDUP)
    print(f"{f'lifelines / ctfed: KKT 1e-9, {SITES} sites':58}{slow / seconds[SITES, 1e-9]:9.2f}")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning)  # Coxnet's, of models without any feature
    with threadpool_limits(1):
        main()
