"""Seconds of one round trip: 3 sites with TLS, node authentication and masks, real processes on the loopback interface.

For each executor and size of answer a federation is made, its sites approve a study, and the server asks the same kind
of question again and again about a centre that moves: moments of 20 columns (1 kB a site) and cross-moments of 1,000
columns (8 MB a site). A round begins when the server encodes the question and ends when it has added the answers of
all sites. The first two rounds, in which sites load their tables and are sent the view, do not count. Sites and server
share one machine: what its processor does for all of them at once is in the figures.

    .venv/bin/python benchmarks/round_trip.py [--executor warm stock] [--size 1kB 8MB] [--rounds 20] [--unmasked]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from deployed_fit import CTFED, Processes, rounds_in

from ctfed.federation import Algorithm, Total, View
from ctfed.federation.arrays import frozen
from ctfed.federation.flower.processes import free_port
from ctfed.federation.roster import Roster
from ctfed.statistics.describe import Moments
from ctfed.statistics.select import CrossMoments
from ctfed.study import Study, census_of, load_study
from server.assembly import Agreement
from server.conductor import Conductor
from server.journal import Journal
from server.transport import FlowerTransport

SITES = ("bern", "lyon", "oslo")
WARM_UP = 2  # rounds
ROUNDS, KIND = "ROUND_TRIP_ROUNDS", "ROUND_TRIP_KIND"
TARGET = 1.2  # s, of the warm executor with 1 kB
# Puts ``run_study`` below in place of a whole study; Python imports it at the start of the ServerApp's process.
STAND_IN = """\
import importlib, sys, types

class Lazy(types.ModuleType):
    def __getattr__(self, name):
        if name == "run_study":
            return importlib.import_module("round_trip").run_study
        raise AttributeError(name)

sys.modules["server.study_run"] = Lazy("server.study_run")
"""


@dataclass(frozen=True)
class Size:
    """How large an answer is made: patients a site, columns, and the query's kind."""

    patients: int
    columns: int
    kind: str


SIZES = {"1kB": Size(40, 20, "moments"), "8MB": Size(450, 1000, "cross-moments")}


def same_question(study: Study, kind: str, rounds: int) -> Algorithm[None]:
    """Ask for ``rounds`` totals, each about another centre, so that none is known before."""
    view = View(tuple(variable.feature(name) for name, variable in study.variables.items()))
    for number in range(rounds):
        centre = frozen(np.full(view.width, number / 64))
        total: Total = yield Moments(view, centre) if kind == "moments" else CrossMoments(view, centre)
        if total.sites != len(SITES):
            raise SystemExit(f"round {number} is a total of {total.sites} sites, expected {len(SITES)}")


def run_study(
    study: Path,
    out: Path,
    transport: FlowerTransport,
    journal: Path,
    tell: Callable[[str], None] = print,
    notes: Sequence[str] = (),
    roster: Roster | None = None,
) -> None:
    """As server.study_run.run_study, for the ServerApp; leaves a journal with the seconds of each round."""
    approved = load_study(study)
    agreement = None if roster is None else Agreement(approved.sha256, roster.digest, census_of(approved))
    book = Journal(journal / "journal.jsonl", {"sites": list(transport.sites)})
    conductor = Conductor(transport, book, agreement=agreement, tell=tell)
    conductor.run(same_question(approved, os.environ[KIND], int(os.environ[ROUNDS])))


def write_inputs(folder: Path, size: Size, masked: bool) -> None:
    """A study with ``size.columns`` variables, and per site a table, a policy and a site file."""
    rng = np.random.default_rng(0)
    names = [f"x{j}" for j in range(size.columns)]
    study = {
        "ctfed_study": 1,
        "name": "round_trip",
        "title": "Benchmark of a round trip",
        "endpoint": {"name": "death", "time_unit": "months"},
        "variables": {name: {"type": "continuous", "range": [-8, 8], "impute": "none"} for name in names},
        "groups": {"all": {"variables": names}},
        "models": {"one": {"groups": ["all"]}},  # cross-moments belong to the selection of a study of many models
        "search": {"trials": 10, "batch": 10},
        "split": {"test_fraction": 0.2},
        "evaluation": {"horizons": [12, 24], "time_bin": 1},
        "sites": list(SITES),
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    # The widest covariance matrix that a site lets out has one row per patient.
    (folder / "policy.yaml").write_text("ctfed_policy: 1\nparameters_per_patient: 1.0\n")
    for site in SITES:
        x = rng.standard_normal((size.patients, size.columns))
        time, event = rng.exponential(24, size.patients) + 0.01, rng.integers(0, 2, size.patients)
        lines = [",".join(["id", "time", "event", *names])]
        for i, row in enumerate(x):
            lines.append(",".join([f"p{i}", f"{time[i]:.3f}", str(event[i]), *(f"{value:.6f}" for value in row)]))
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
        entry |= {"trust": trust | {"policy": "policy.yaml"}} if masked else {"unmasked": True}
        (folder / f"{site}.yaml").write_text(yaml.safe_dump(entry))


def prepare(folder: Path, size: Size, port: int, masked: bool) -> None:
    """Keys, certificates and approvals."""

    def ctfed(*arguments: str) -> None:
        subprocess.run([CTFED, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    write_inputs(folder, size, masked)
    for site in SITES:
        ctfed("keygen", site, "--site", site)
    public = [word for site in SITES for word in ("--site", f"{site}/public.json")]
    ctfed("provision", "kit", *public, "--address", f"127.0.0.1:{port}", *(() if masked else ("--unmasked",)))
    for site in SITES:
        shutil.copytree(folder / "kit" / "sites" / site, folder / site, dirs_exist_ok=True)
        if masked:
            ctfed("approve", "study.yaml", "--site", f"{site}.yaml", "--yes")


def measure(folder: Path, executor: str, size: Size, rounds: int, masked: bool) -> list[dict]:  # type: ignore[type-arg]
    """The journalled rounds that count of one federation, from its keys to its end."""
    folder.mkdir()
    port = free_port()
    prepare(folder, size, port, masked)
    (folder / "stand_in").mkdir()
    (folder / "stand_in" / "sitecustomize.py").write_text(STAND_IN)
    processes = Processes(folder)
    try:
        for site in SITES:
            kit = ("--folder", site, "--state", f"node-{site}", "--executor", executor)
            processes.start(site, "join", f"{site}.yaml", "--study", "study.yaml", *kit)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "stand_in"), str(Path(__file__).resolve().parent)])
        os.environ[ROUNDS], os.environ[KIND] = str(WARM_UP + rounds), size.kind
        arguments = ("serve", "study.yaml", "--folder", "kit/server", "--out", "out", "--port", str(port))
        if processes.start("server", *arguments).wait(1200) != 0:
            raise SystemExit((folder / "server.log").read_text()[-4000:])
    finally:
        os.environ.pop("PYTHONPATH", None)
        processes.stop()
    return rounds_in(folder / "out")[WARM_UP:]


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", nargs="+", choices=("warm", "stock"), default=("warm", "stock"))
    parser.add_argument("--size", nargs="+", choices=tuple(SIZES), default=tuple(SIZES))
    parser.add_argument("--rounds", type=int, default=20, help="that count; of the stock executor a quarter as many")
    parser.add_argument("--unmasked", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes are ended, too
    masked = not options.unmasked
    print(
        f"{len(SITES)} sites, TLS and node authentication, {'masked' if masked else 'UNMASKED'}, {os.cpu_count()} cores"
    )
    print("executor  answer  rounds   median s    least     most   bytes up a site")
    late = False
    with tempfile.TemporaryDirectory(prefix="ctfed-round-trip-") as name:
        for executor in options.executor:
            for size in options.size:
                wanted = options.rounds if executor == "warm" else max(3, options.rounds // 4)
                rounds = measure(Path(name) / f"{executor}-{size}", executor, SIZES[size], wanted, masked)
                times = [entry["seconds"] for entry in rounds]
                middle, bytes_up = statistics.median(times), max(entry["bytes_up"] for entry in rounds)
                late |= executor == "warm" and size == "1kB" and middle > TARGET
                line = f"{executor:<8}  {size:>6}  {len(times):6d}   {middle:8.2f} {min(times):8.2f} {max(times):8.2f}"
                print(f"{line}   {bytes_up:15,d}", flush=True)
    if late:
        print(f"MISSED: a round of the warm executor with 1 kB takes more than {TARGET} s")
        sys.exit(1)


if __name__ == "__main__":
    main()
