"""How close tables of totals come to the pooled C and AUC, and how narrowly they certify them.

Seven NSCLC cohorts (1,306 patients) with a published four-feature Cox score; truth by scikit-survival on all rows.
Prints a table for the default (merged) bins and for the full grids of the exception ``fine_evaluation_tables``.

    python benchmarks/pooled_concordance.py [FOLDER]

FOLDER holds survival/nsclc_geo_7centres.csv and survival/reference_results.json; default $CTFED_SHARED_DATA, or
shared/data beside the project's folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from sksurv.metrics import concordance_index_censored, concordance_index_ipcw
from sksurv.metrics import cumulative_dynamic_auc as sksurv_auc
from sksurv.util import Surv

from ctfed.federation import Cohort, Feature, View, pool, run_pooled
from ctfed.federation.arrays import frozen
from ctfed.federation.pooled import Traffic
from ctfed.statistics.concordance import count_pairs
from ctfed.statistics.discriminate import (
    Bounded,
    ScoreTable,
    auc_value,
    bootstrap_intervals,
    cumulative_dynamic_auc,
    evaluation_table,
    harrell_concordance,
    harrell_value,
    uno_concordance,
    within_site_concordance,
)
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.timegrid import TimeGrid

HORIZON = 60.0
END = 240.0
PROJECT = Path(__file__).resolve().parents[1]


def load(folder: Path) -> tuple[list[Cohort], View]:
    """The seven centres and the view of their score."""
    rows = pd.read_csv(folder / "survival" / "nsclc_geo_7centres.csv").dropna(subset=["stage"])
    rows = rows[rows.time_months > 0]
    cox = json.loads((folder / "survival" / "reference_results.json").read_text())["nsclc_geo_7centres"]
    names = cox["cols"]
    cohorts = [Cohort.of(str(c), {k: d[k] for k in names}, d.time_months, d.event) for c, d in rows.groupby("centre")]
    step = LinearPredictor(frozen([cox["coef_efron"]]))
    return cohorts, View(tuple(Feature(name, 4) for name in names), split="all").then(step)


def truth(cohort: Cohort, score: np.ndarray) -> dict[str, float]:
    """What scikit-survival gives when all rows are in one place."""
    y = Surv.from_arrays(cohort.event, cohort.time)
    return {
        "C": concordance_index_censored(cohort.event, cohort.time, score)[0],
        "AUC": sksurv_auc(y, y, score, [HORIZON])[0][0],
        "Uno": concordance_index_ipcw(y, y, score, tau=float(np.nextafter(HORIZON, END)))[0],
    }


def tables(cohorts: list[Cohort], view: View) -> Iterator[tuple[str, ScoreTable, int]]:
    """Name, table and rounds of every choice of bins."""
    for min_cell in (10, 5):
        traffic = Traffic()
        ask = evaluation_table(view, TimeGrid.regular(1, END), horizons=(24.0, HORIZON), min_cell=min_cell)
        yield f"merged, k = {min_cell}", run_pooled(ask, cohorts, traffic), traffic.rounds
    for months in (1, 3):
        for bins in (20, 50, 200):
            traffic = Traffic()
            ask = evaluation_table(view, TimeGrid.regular(months, END), score_bins=bins, fine=True)
            table = run_pooled(ask, cohorts, traffic)
            yield f"fine, {months} month{'s' * (months > 1)} x {bins}", table, traffic.rounds


def report(cohorts: list[Cohort], view: View) -> None:
    """Print the comparison."""
    cohort = pool(cohorts)
    known = truth(cohort, view.table(cohort).values[:, 0])
    within = run_pooled(within_site_concordance(view), cohorts)
    low, high = within.intervals()[0]
    print(f"{cohort.patients} patients, {int(cohort.event.sum())} events, {len(cohorts)} sites")
    print(f"within-site C {within.value[0]:.5f} (se {within.standard_error[0]:.5f}, 95 % CI {low:.3f} to {high:.3f})")
    print(", ".join(f"pooled {name} {value:.5f}" for name, value in known.items()), "\n")
    print(f"{'bins':22}{'cells':>7}{'rounds':>7}", *(f"{n + ' error':>11}  {'certified':>15} width" for n in known))
    for name, table, rounds in tables(cohorts, view):
        counts, grid = table.counts, table.grid
        found: dict[str, Bounded] = {
            "C": harrell_concordance(counts),
            "AUC": cumulative_dynamic_auc(counts, grid, HORIZON),
            "Uno": uno_concordance(counts, grid, HORIZON),
        }
        cells = [_cell(known[key], found[key]) for key in known]
        print(f"{name:22}{counts[0].size:7d}{rounds:7d}", *cells)
        if name in ("merged, k = 10", "fine, 1 month x 50"):
            _print_intervals(counts, grid)


def _cell(known: float, found: Bounded) -> str:
    low, high = float(found.lower[0]), float(found.upper[0])
    if not low <= known <= high:
        raise AssertionError(f"the truth {known} is outside its certified limits [{low}, {high}]")
    return f"{float(found.value[0]) - known:+11.5f}  [{low:.4f}, {high:.4f}] {high - low:.3f}"


def _print_intervals(counts: np.ndarray, grid: TimeGrid) -> None:
    start = time.perf_counter()
    statistics = {"C": harrell_value, "AUC": lambda drawn: auc_value(drawn, grid, HORIZON)}
    limits = bootstrap_intervals(counts, statistics)
    seconds = time.perf_counter() - start
    words = ", ".join(f"{name} {low:.3f} to {high:.3f}" for name, ((low, high),) in limits.items())
    print(f"{'':22}95 % CI by 1,000 Poisson replicates in {seconds:.2f} s: {words}")


def speed() -> None:
    """Print how long one site needs for its pairs."""
    rng = np.random.default_rng(0)
    print("\npairs of one stratum: scores x patients, seconds")
    for models, n in ((100, 100), (47, 1000), (1, 5000), (100, 5000)):
        times, event, scores = rng.exponential(size=n), rng.random(n) < 0.6, rng.normal(size=(n, models))
        start = time.perf_counter()
        count_pairs(times, event, scores)
        print(f"{models:5d} x {n:5d}  {time.perf_counter() - start:8.4f}")


if __name__ == "__main__":
    default = os.environ.get("CTFED_SHARED_DATA", PROJECT.parent / "shared" / "data")
    report(*load(Path(sys.argv[1] if len(sys.argv) > 1 else default)))
    speed()
