"""A study over real processes on the loopback interface: n = 1000, p = 10, 4 sites, TLS and node authentication.

The size is FedECA's published case (4,656 s deployed, 6 to 21 s in memory). Each site makes its keys, approves the
study and masks its answers. Prints start-up, rounds, seconds a round and bytes; the results are compared, bit for bit,
with those of an uninterrupted, unmasked run in one process.

    .venv/bin/python benchmarks/deployed_fit.py [--executor stock] [--kill-every-round] [--unmasked | --compare]

    --kill-every-round  kill the server with SIGKILL after each round, and start it again
    --unmasked          run without masks
    --compare           run both, one after the other, and print their seconds a round side by side
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from ctfed.federation.flower.processes import free_port

SITES = ("north", "east", "south", "west")
PATIENTS, FEATURES = 1000, 10
CTFED = str(Path(sys.executable).parent / "ctfed")
SAME = ("model", "cohort", "baseline", "curves", "discrimination")


def write_inputs(folder: Path, masked: bool) -> None:
    """A study file, and per site a table and a site file; patients are dealt out in turn."""
    rng = np.random.default_rng(0)
    names = [f"x{j}" for j in range(FEATURES)]
    x = rng.standard_normal((PATIENTS, FEATURES))
    beta = rng.normal(0, 0.4, FEATURES)
    death = rng.exponential(24 * np.exp(-x @ beta))
    censoring = rng.exponential(36, PATIENTS)
    time_, event = np.minimum(death, censoring) + 0.01, death <= censoring
    study = {
        "ctfed_study": 1,
        "name": "deployed_fit",
        "title": "Benchmark of a deployed fit",
        "endpoint": {"name": "death", "time_unit": "months"},
        "variables": {name: {"type": "continuous", "range": [-8, 8], "impute": "none"} for name in names},
        "model": {"features": names},
        "penalty": {"penalizer": 0.02, "l1_ratio": 0.5},
        "split": {"test_fraction": 0.2},
        "evaluation": {"horizons": [12, 24], "time_bin": 1},
        "sites": list(SITES),
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    for k, site in enumerate(SITES):
        lines = [",".join(["id", "time", "event", *names])]
        for i in range(k, PATIENTS, len(SITES)):
            lines.append(",".join([f"p{i}", repr(float(time_[i])), str(int(event[i])), *map(repr, map(float, x[i]))]))
        (folder / f"{site}.csv").write_text("\n".join(lines) + "\n")
        entry = {
            "ctfed_site": 1,
            "site": site,
            "data": {"csv": f"{site}.csv"},
            "columns": {"id": "id", "time": "time", "event": "event"},
            "time_unit": "months",
            "secret": f"{site}.secret",
        }
        trust = {"key": f"{site}/mask.key", "roster": f"{site}/roster.json", "ledger": f"{site}/ledger"}
        entry |= {"trust": trust} if masked else {"unmasked": True}
        (folder / f"{site}.yaml").write_text(yaml.safe_dump(entry))


def prepare(folder: Path, port: int, masked: bool) -> None:
    """What people do before a federation runs: keys, certificates, approvals."""

    def ctfed(*arguments: str) -> None:
        subprocess.run([CTFED, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    write_inputs(folder, masked)
    for site in SITES:
        ctfed("keygen", site, "--site", site)
    public = [word for site in SITES for word in ("--site", f"{site}/public.json")]
    address = ("--address", f"127.0.0.1:{port}")
    ctfed("provision", "kit", *public, *address, *(() if masked else ("--unmasked",)))
    for site in SITES:
        shutil.copytree(folder / "kit" / "sites" / site, folder / site, dirs_exist_ok=True)
        if masked:
            ctfed("approve", "study.yaml", "--site", f"{site}.yaml", "--yes")


class Processes:
    """The commands of a federation, each with its own log, all ended together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one command of ctfed."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [CTFED, *arguments], cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.running.append(process)
        return process

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what remains."""
        for process in self.running:
            if process.poll() is None:
                process.terminate()
        for process in self.running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def rounds_in(out: Path) -> list[dict]:  # type: ignore[type-arg]
    """The rounds in the journal."""
    journal = out / "journal" / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n")[1:-1] if journal.exists() else []
    entries = [json.loads(line) for line in lines]
    return [entry for entry in entries if "assembly" not in entry]


def serve(processes: Processes, port: int, kill_every_round: bool) -> float:
    """Run the study to its end; the seconds of the last start."""
    out = processes.folder / "out"
    while True:
        started, before = time.perf_counter(), len(rounds_in(out))
        arguments = ("serve", "study.yaml", "--folder", "kit/server", "--out", "out", "--port", str(port))
        server = processes.start("server", *arguments)
        while server.poll() is None:
            time.sleep(0.02)
            if kill_every_round and len(rounds_in(out)) > before:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
                print(f"killed after round {len(rounds_in(out))}", flush=True)
        if server.returncode == 0:
            return time.perf_counter() - started
        if server.returncode != -signal.SIGKILL:
            raise SystemExit((processes.folder / "server.log").read_text()[-4000:])


def measure(folder: Path, options: argparse.Namespace, masked: bool) -> list[float]:
    """One federation from its keys to its report; the seconds of its rounds."""
    folder.mkdir()
    port = free_port()
    prepare(folder, port, masked)
    sites = [word for site in SITES for word in ("--site", f"{site}.yaml")]
    started = time.perf_counter()
    alone = [CTFED, "simulate", "study.yaml", *sites, "--out", "alone", "--unmasked"]
    subprocess.run(alone, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    in_process = time.perf_counter() - started
    processes = Processes(folder)
    try:
        for site in SITES:
            kit = ("--folder", site, "--state", f"node-{site}", "--executor", options.executor)
            processes.start(site, "join", f"{site}.yaml", "--study", "study.yaml", *kit)
        seconds = serve(processes, port, options.kill_every_round)
    finally:
        processes.stop()
    how = f"{options.executor} executor, {'masked' if masked else 'UNMASKED'}"
    report(folder, how, None if options.kill_every_round else seconds, in_process)
    return [entry["seconds"] for entry in rounds_in(folder / "out")]


def main() -> None:
    """Run it and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", choices=("warm", "stock"), default="warm")
    parser.add_argument("--kill-every-round", action="store_true")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--unmasked", action="store_true")
    how.add_argument("--compare", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ctfed-deployed-") as name:
        ways = {"masked": True, "unmasked": False} if options.compare else {"run": not options.unmasked}
        times = {way: measure(Path(name) / way, options, masked) for way, masked in ways.items()}
    if options.compare:
        print("\nseconds a round     masked   unmasked")
        for what, of in (("median", statistics.median), ("sum", sum)):
            print(f"  {what:<14}  {of(times['masked']):8.3f}   {of(times['unmasked']):8.3f}")


def report(folder: Path, how: str, seconds: float | None, alone: float) -> None:
    """Print what was measured, and compare the results with the in-process run; no ``seconds`` of a killed server."""
    rounds = rounds_in(folder / "out")
    times = [entry["seconds"] for entry in rounds]
    fit = next(k for k, entry in enumerate(rounds) if "cox-derivatives" in entry["kinds"])
    results = [json.loads((folder / out / "results.json").read_text()) for out in ("alone", "out")]
    fit_rounds = results[0]["model"]["rounds"]
    in_process = sum(entry["seconds"] for entry in rounds_in(folder / "alone")[fit : fit + fit_rounds])
    same = all(results[0][part] == results[1][part] for part in SAME)
    print(f"\nn = {PATIENTS}, p = {FEATURES}, {len(SITES)} sites, TLS and node authentication, {how}")
    if seconds is not None:
        print(f"  whole study, deployed              {seconds:8.1f} s, {len(rounds)} rounds")
        print(f"    start-up and report              {seconds - sum(times):8.1f} s")
    print(f"    one round, median                {statistics.median(times):8.2f} s")
    print(f"    the fit to KKT 1e-9              {sum(times[fit : fit + fit_rounds]):8.1f} s, {fit_rounds} rounds")
    print(f"  whole study, in one process        {alone:8.1f} s, imports and report included")
    print(f"    the fit to KKT 1e-9              {in_process:8.2f} s")
    print(f"  bytes up per site, largest round   {max(entry['bytes_up'] for entry in rounds):8d}")
    print(f"  results equal to the last bit      {same!s:>8}")
    if not same:
        raise SystemExit("the deployed results differ from those of the in-process run")


if __name__ == "__main__":
    main()
