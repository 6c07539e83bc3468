"""Federated peers from PyPI on the same data and the same four sites: accuracy, seconds, rounds and bytes.

federated-survival (a WebDISCO of pooled risk sets, Breslow) and TNO's cox_regression (survival stacking: logistic
regression on patients x time bins). They are installed into an environment of their own in a temporary folder (1.8 GB,
one to two minutes), which is removed at the end; ``--python`` names an environment that has them already.

    .venv/bin/python benchmarks/peers.py [--python PATH]

Columns: largest difference of a coefficient from the pooled fits with Breslow's and Efron's ties, the smaller of the
two in standard errors, and the largest difference from the same software's fit with all patients at one site. ctfed
runs to KKT 1e-9: on the exact grid of times with one baseline hazard for all sites, as these peers have it (studies
merge the bins), and stratified by site, its default, which is another model and so has no differences here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import r_fits
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv
from survival_data import Survival, generated, load, references
from threadpoolctl import threadpool_limits

from ctfed.federation import FloatArray, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.statistics.cox import CoxFit, fit_cox
from ctfed.statistics.timegrid import TimeGrid

SITES = 4
REQUIREMENTS = {  # torch is named so that pip takes this build where a CPU build is offered under its number
    "tno": ("tno.fl.protocols.cox-regression==0.5.5", "tno.mpc.communication[numpy]"),
    "webdisco": ("federated-survival==0.8.0", "torch==2.13.0"),
}
NAMES = {"tno": "tno cox_regression", "webdisco": "federated-survival"}
CHILD = Path(__file__).with_name("peer_child.py")
TIES = ("breslow", "efron")


def install(folder: Path) -> tuple[Path, dict[str, str]]:
    """A new environment with the peers: its interpreter, and why a peer could not be installed."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    reasons = {}
    for peer, requirements in REQUIREMENTS.items():
        done = subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], capture_output=True)
        if done.returncode:
            lines = [line for line in done.stderr.decode().splitlines() if line.startswith("ERROR")]
            reasons[peer] = "pip: " + " ".join(lines or ["no reason given"])
    print(f"peers installed in {time.perf_counter() - started:.0f} s\n")
    return python, reasons


def cases() -> dict[str, tuple[Survival, tuple[int, ...]]]:
    """Name -> data, numbers of time bins for the stacking."""
    stored = references()
    ncctg = load("ncctg", stored["ncctg_lung_age_sex_ecog"]["cols"])
    return {
        "NCCTG 226 x 3": (ncctg, (100,)),
        "rossi 432 x 7": (load("rossi", stored["rossi"]["cols"]), (100, 54)),  # 54: one bin a week
        "generated 1000 x 10": (generated(1000, 10), (100,)),
    }


def pooled_fit(data: Survival, ties: str) -> FloatArray:
    """Coefficients with all rows in one place: by R, or by scikit-survival at 1e-14 where R is absent."""
    if r_fits.versions():
        return r_fits.coxph(data, ties)[0]
    outcome = Surv.from_arrays(data.event, data.time)
    found: FloatArray = CoxPHSurvivalAnalysis(ties=ties, tol=1e-14, n_iter=200).fit(data.x, outcome).coef_
    return found


def ctfed_fit(data: Survival, place: np.ndarray, ties: str, grid: TimeGrid | None) -> tuple[CoxFit, dict[str, Any]]:
    """A fit on these sites, and what it cost."""
    traffic, started = Traffic(), time.perf_counter()
    fit = run_pooled(fit_cox(data.view, ties=ties, grid=grid), data.sites(place), traffic)
    seconds = time.perf_counter() - started
    return fit, {"seconds": seconds, "rounds": traffic.rounds, "bytes_up": traffic.bytes_up, "bytes": "measured"}


def print_ctfed(data: Survival, place: np.ndarray, expected: Mapping[str, FloatArray]) -> FloatArray:
    """ctfed's lines; returns the standard errors of the pooled fit."""
    grid = TimeGrid.exact(data.time)
    fits = {ties: ctfed_fit(data, place, ties, grid) for ties in TIES}
    errors = fits["efron"][0].standard_errors
    assert errors is not None
    for ties, (fit, cost) in fits.items():
        alone, _ = ctfed_fit(data, np.zeros_like(place), ties, grid)
        found = {"coefficients": fit.coefficients, "alone": alone.coefficients, **cost}
        print_row(f"ctfed, one baseline, {ties}", found, expected, errors)
    _, cost = ctfed_fit(data, place, "efron", None)
    print_row("ctfed, stratified by site, efron", cost, expected, errors)
    return errors


def run_peer(python: Path, peer: str, file: Path, bins: int) -> dict[str, Any]:
    """A peer's figures, or {'error': why there are none}."""
    command = [str(python), str(CHILD), peer, str(file), str(bins)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def print_row(label: str, found: Mapping[str, Any], expected: Mapping[str, FloatArray], errors: FloatArray) -> None:
    """One line of the table."""
    if "error" in found:
        print(f"  {label:40}does not run: {found['error']}")
        return
    measured = f"{found['seconds']:9.3f}{found['rounds']:8d}{found['bytes_up'] / 1e3:11.1f}  {found['bytes']}"
    if "coefficients" not in found:
        print(f"  {label:40}{'-':>9}{'-':>10}{'-':>10}{'-':>10}{measured}")
        return
    gaps = [np.abs(np.asarray(found["coefficients"]) - expected[ties]) for ties in TIES]
    of_error = min(float((gap / errors).max()) for gap in gaps)
    split = float(np.abs(np.asarray(found["coefficients"]) - np.asarray(found["alone"])).max())
    print(f"  {label:40}{gaps[0].max():9.1e}{gaps[1].max():10.1e}{of_error:10.1e}{split:10.1e}{measured}")


def compare(python: Path, reasons: Mapping[str, str], folder: Path) -> None:
    """Print the table."""
    heads = f"{'Breslow':>9}{'Efron':>10}{'of SE':>10}{'1 site':>10}{'s':>9}{'rounds':>8}{'kB up/site':>11}"
    print(f"pooled fits by {r_fits.versions() or 'scikit-survival at 1e-14'}")
    print(f"{'':42}{heads}")
    for number, (name, (data, bins)) in enumerate(cases().items()):
        expected = {ties: pooled_fit(data, ties) for ties in TIES}
        place = np.random.default_rng(0).permutation(data.time.size) % SITES
        file = folder / f"data{number}.npz"
        np.savez(file, x=data.x, time=data.time, event=data.event, site=place)
        print(f"{name}, {SITES} sites, {np.unique(data.time[data.event]).size} distinct event times")
        errors = print_ctfed(data, place, expected)
        for peer, sizes in (("webdisco", (0,)), ("tno", bins)):
            for size in sizes:
                found = {"error": reasons[peer]} if peer in reasons else run_peer(python, peer, file, size)
                title = found.get("peer", NAMES[peer]) + (f", {size} bins" if size else "")
                print_row(title, found, expected, errors)


def main() -> None:
    """Install the peers unless an interpreter is named, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="interpreter of an environment that has the peers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ctfed-peers-") as name:
        folder = Path(name)
        python, reasons = (options.python, {}) if options.python else install(folder / "environment")
        compare(python, reasons, folder)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
