"""Seconds a round and memory of `ctfed simulate` with 5, 50 and 500 virtual sites: a whole study, masked and unmasked.

A generated table (20 patients a site, 6 features) is dealt out by `ctfed tcia partition`'s draw, and a study of one
model with a known penalty runs over it in process, from the first message to the report. Each case is a process of its
own, so that its peak memory is its own.

    .venv/bin/python benchmarks/simulated_sites.py [--sites 5 50 500] [--masked-up-to 50]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml
from survival_data import generated
from threadpoolctl import threadpool_limits

PER_SITE, FEATURES = 20, 6
STUDY = {
    "ctfed_study": 1,
    "name": "scale",
    "title": "Scale of a simulation",
    "endpoint": {"name": "death", "time_unit": "days"},
    "variables": {
        f"x{k}": {"type": "continuous", "range": [-100, 100], "impute": "none", "magnitude": 4} for k in range(FEATURES)
    },
    "model": {"features": [f"x{k}" for k in range(FEATURES)]},
    "penalty": {"penalizer": 0.02, "l1_ratio": 0.5},
    "split": {"test_fraction": 0.3},
    "evaluation": {"horizons": [10, 20], "time_bin": 5, "score_bins": 10, "min_cell": 5, "bootstrap": 100},
    "time_grid": {"width": 5, "end": 40},
}


def child(sites: int, masked: bool) -> None:
    """One case; prints a line of JSON."""
    from ctfed.federation.policy import Policy
    from ctfed.tcia.centres import write_table
    from ctfed.tcia.split import CENTRE, Rule, assign
    from server.simulate import simulate

    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        work = Path(name)
        data = generated(PER_SITE * sites, FEATURES)
        frame = pd.DataFrame(data.x, columns=[f"x{k}" for k in range(FEATURES)])
        frame = frame.assign(patient=[f"P{n}" for n in range(len(frame))], time=data.time, event=data.event.astype(int))
        rule = Rule(("dirichlet",), minimum=PER_SITE // 2, sites=sites, alpha=5.0)
        patients = frame[["patient"]].assign(**{CENTRE: assign(frame, rule)})
        (work / "study.yaml").write_text(yaml.safe_dump(STUDY))
        site = write_table(work / "table", patients, frame, 0)
        before = time.perf_counter()
        policy = Policy(min_patients=5, min_events=0)
        simulate(work / "study.yaml", [site], work / "out", masked=masked, policy=policy, tell=lambda line: None)
        seconds = time.perf_counter() - before
        rounds = pd.read_csv(work / "out" / "rounds.csv")
        print(
            json.dumps(
                {
                    "rounds": len(rounds),
                    "median": float(rounds["seconds"].median()),
                    "seconds": seconds,
                    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
                }
            )
        )


def main() -> None:
    """A line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, nargs="+", default=[5, 50, 500])
    parser.add_argument("--masked-up-to", type=int, default=50)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(int(options.child[0]), options.child[1] == "masked")
        return
    print(f"{'sites':>6}{'answers':>10}{'rounds':>8}{'s a round':>11}{'s in all':>10}{'peak MB':>9}")
    for sites in options.sites:
        for how in ("unmasked", "masked"):
            if how == "masked" and sites > options.masked_up_to:
                continue
            arguments = [sys.executable, __file__, "--child", str(sites), how]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{sites:6}{how:>10}  {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{sites:6}{how:>10}{found['rounds']:8}{found['median']:11.3f}{found['seconds']:10.1f}"
                f"{found['memory']:9.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
