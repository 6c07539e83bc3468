"""One Newton derivative (value, gradient, Hessian) at 1,000,000 patients x 50 features on one site: seconds and memory.

Each case runs in its own process, which makes the data (400 MB at the default size), answers the query once (sorting
included) and then three times more; "again" is the best of the three. Memory is the largest resident size beyond that
of the interpreter: once the cohort is made, and after all answers, the cohort included.

    .venv/bin/python benchmarks/newton_derivative.py [--patients N] [--features P]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
from threadpoolctl import threadpool_limits

from ctfed.federation import Cohort, Feature, View
from ctfed.statistics.cox.stratified import CoxDerivatives

MEGABYTE = 2**20


def peak() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


def measure(patients: int, features: int, ties: str, decimals: int) -> dict[str, float]:
    """Seconds and megabytes of one case; times are rounded to ``decimals``, which makes the ties."""
    before = peak()
    rng = np.random.default_rng(0)
    columns = {f"x{j}": rng.standard_normal(patients) for j in range(features)}
    death, censoring = rng.exponential(24, patients), rng.exponential(40, patients)
    time_ = np.round(np.minimum(death, censoring), decimals) + 10.0**-decimals
    cohort = Cohort.of("site", columns, time_, death <= censoring)
    del death, censoring
    data = patients * features * 8 / MEGABYTE
    made = peak()
    view = View(tuple(Feature(name) for name in columns))
    query = CoxDerivatives(view, rng.normal(0, 0.1, (1, features)), (0,), ties)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        query.answer(cohort)
        seconds.append(time.perf_counter() - started)
    return {
        "first": seconds[0],
        "again": min(seconds[1:]),
        "distinct": float(np.unique(time_[cohort.event]).size),
        "data": data,
        "made": made - before,
        "peak": peak() - before,
    }


def main() -> None:
    """Print one line per kind of ties."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--patients", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        ties, decimals = options.case.split(",")
        with threadpool_limits(1):
            print(json.dumps(measure(options.patients, options.features, ties, int(decimals))))
        return
    print(f"{options.patients:,} x {options.features}, one BLAS thread")
    sizes = f"{'data MB':>9}{'made MB':>9}{'peak MB':>9}{'peak/data':>11}"
    print(f"{'ties':9}{'times':>10}{'first s':>9}{'again s':>9}{sizes}")
    for ties, decimals in (("efron", 0), ("efron", 2), ("breslow", 2), ("efron", 6)):
        command = [sys.executable, __file__, "--patients", str(options.patients), "--features", str(options.features)]
        done = subprocess.run([*command, "--case", f"{ties},{decimals}"], check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        print(
            f"{ties:9}{found['distinct']:10,.0f}{found['first']:9.2f}{found['again']:9.2f}{found['data']:9.0f}{found['made']:9.0f}"
            f"{found['peak']:9.0f}{found['peak'] / found['data']:11.2f}"
        )


if __name__ == "__main__":
    main()
