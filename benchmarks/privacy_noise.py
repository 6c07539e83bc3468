"""What differential privacy of the released tables costs: epsilon, and the error of C and AUC, for several noises.

The GEO cohort (seven centres) with the score of its own Cox model; tables by merged bins, as a study releases them.

    .venv/bin/python benchmarks/privacy_noise.py
"""

from __future__ import annotations

import numpy as np
from survival_data import load
from threadpoolctl import threadpool_limits

from ctfed.federation import run_pooled
from ctfed.federation.arrays import frozen
from ctfed.statistics.cox import fit_cox
from ctfed.statistics.discriminate import auc_value, evaluation_table, harrell_value
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.timegrid import TimeGrid
from server.privacy import epsilon

HORIZON, DELTA, RELEASES, REPEATS = 60.0, 1e-5, 2, 400


def main() -> None:
    """Print one line per noise multiplier."""
    data = load("geo", ["age", "male", "stage", "squamous"])
    _, place = np.unique(data.centre, return_inverse=True)
    sites = data.sites(place)
    fit = run_pooled(fit_cox(data.view), sites)
    scored = data.view.then(LinearPredictor(frozen(fit.coefficients[None, :])))
    grid = TimeGrid.regular(1.0, 120.0)
    print(f"{data.time.size} patients, {RELEASES} released tables, delta {DELTA:g}, {REPEATS} draws")
    print(f"{'cells of':>9}{'cells':>7}{'noise':>7}{'epsilon':>9}{'C':>8}{'its error':>11}{'AUC':>8}{'its error':>11}")
    for k in (5, 10):
        table = run_pooled(evaluation_table(scored, grid, horizons=(HORIZON,), min_cell=k), sites)
        for noise in (0.0, 0.5, 1.0, 2.0, 4.0):
            rng = np.random.default_rng(0)
            drawn = table.counts + noise * rng.standard_normal((REPEATS, *table.counts.shape[1:]))
            counts = np.maximum(drawn, 0.0)
            c, auc = harrell_value(counts), auc_value(counts, table.grid, HORIZON)
            clear = harrell_value(table.counts)[0], auc_value(table.counts, table.grid, HORIZON)[0]
            error = [float(np.sqrt(np.mean((v - w) ** 2))) for v, w in zip((c, auc), clear, strict=True)]
            cost = epsilon(noise, DELTA, RELEASES) if noise else np.inf
            print(
                f"{k:9d}{table.counts.size:7d}{noise:7.1f}{cost:9.2f}{c.mean():8.4f}{error[0]:11.4f}"
                f"{auc.mean():8.4f}{error[1]:11.4f}"
            )


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
