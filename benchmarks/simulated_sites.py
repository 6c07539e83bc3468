"""Seconds a round and memory with 5, 50 and 500 virtual sites, beside what the engine costs without ctfed.

A generated table (20 patients a site, 6 features) is dealt out by `ctfed tcia partition`'s draw, and a study of one
model with a known penalty runs over it from the first message to the report:

    in-process   `ctfed simulate`, masked and unmasked; bare: as many arrays of the same size added up
    ray          `ctfed simulate --runner ray`, masked and unmasked; bare: a Flower app on the same engine of which
                 every node returns an array of the same size, without any of ctfed's code

Arrays of the bare cases have the bytes of the study's median answer. Each case is a process of its own; its memory is
the largest sum of the proportional set sizes of all of its processes (Linux), looked at twice a second. Processor
seconds are those of the first process, in which everything happens in process. "before" is all that comes before the
first round: tables, keys, the opening of the run; on Ray the start of Flower and Ray, too.

    .venv/bin/python benchmarks/simulated_sites.py [--sites 5 50 500] [--engine in-process ray] [--case masked bare]
        [--rounds 10]    (stop after so many rounds)
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from survival_data import generated
from threadpoolctl import threadpool_limits

PER_SITE, FEATURES = 20, 6
ANSWER_BYTES = 1024  # the study's median answer has 900 to 1,200, whatever the number of sites
BARE_ROUNDS = 20
MARK = "CTFED_SIMULATED_SITES_CASE"  # in the environment of every process of one case
LOOK_AGAIN = 0.5
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


@dataclass(frozen=True)
class Times:
    """Seconds before the first round; wall and processor seconds of each round."""

    before: float
    rounds: list[float]
    processor: list[float]


class EnoughRounds(Exception):
    """As many rounds as were wanted."""


class Watch:
    """Reads what a run tells, round by round."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.started = time.perf_counter()
        self.times = Times(0.0, [], [])
        self._processor = time.process_time()

    def tell(self, line: str) -> None:
        """A line of the run's progress."""
        found = re.match(r"round +\d+ +([0-9.]+) s ", line)
        if not found:
            return
        now = time.process_time()
        if not self.times.rounds:
            before = time.perf_counter() - self.started - float(found[1])
            self.times = Times(before, [], [])
        else:  # the first one's also holds what came before it
            self.times.processor.append(now - self._processor)
        self._processor = now
        self.times.rounds.append(float(found[1]))
        if len(self.times.rounds) == self.most:
            raise EnoughRounds


def study(sites: int, engine: str, masked: bool, most: int) -> Times:
    """The study over its virtual sites."""
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
        limits, watch = Policy(min_patients=5, min_events=0), Watch(most)
        with suppress(EnoughRounds):
            simulate(
                work / "study.yaml",
                [site],
                work / "out",
                runner=engine,  # type: ignore[arg-type]
                masked=masked,
                policy=limits,
                tell=watch.tell,
            )
        return watch.times


def bare_sum(sites: int) -> Times:
    """As many arrays as sites added up."""
    arrays = np.random.default_rng(0).integers(0, 2**40, (sites, ANSWER_BYTES // 8))
    times: list[float] = []
    for _ in range(BARE_ROUNDS):
        started = time.perf_counter()
        total = np.zeros_like(arrays[0])
        for array in arrays:
            total += array
        times.append(time.perf_counter() - started)
    return Times(0.0, times, times)


def bare_flower(sites: int) -> Times:
    """A Flower app on Ray that moves the same bytes and does nothing else."""
    from flwr.app import ArrayRecord, Context, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    client, server = ClientApp(), ServerApp()
    times: list[float] = []
    before: list[float] = []
    begun = time.perf_counter()

    @client.query("ask")  # type: ignore[untyped-decorator]
    def ask(message: Message, context: Context) -> Message:
        return Message(RecordDict({"answer": message.content["question"]}), reply_to=message)

    @server.main()  # type: ignore[untyped-decorator]
    def main(grid: Grid, context: Context) -> None:
        array = np.zeros(ANSWER_BYTES // 8, dtype=np.int64)
        while len(list(grid.get_node_ids())) < sites:
            time.sleep(0.1)
        nodes = list(grid.get_node_ids())
        for number in range(BARE_ROUNDS + 1):
            started = time.perf_counter()
            content = RecordDict({"question": ArrayRecord([array + number])})
            asked = [Message(content, node, "query.ask", group_id=str(number)) for node in nodes]
            answers = list(grid.send_and_receive(asked, timeout=600))
            total = sum(answer.content["answer"].to_numpy_ndarrays()[0] for answer in answers)
            assert len(answers) == sites
            assert (total == sites * number).all()
            times.append(time.perf_counter() - started)
            before.append(time.perf_counter() - begun)  # Ray starts in the first

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client, sites, backend_config=resources)  # type: ignore[arg-type]
    return Times(before[0], times[1:], [])


def child(sites: int, engine: str, case: str, most: int) -> None:
    """One case; prints a line of JSON."""
    bare: dict[str, Callable[[int], Times]] = {"in-process": bare_sum, "ray": bare_flower}
    started = time.perf_counter()
    times = bare[engine](sites) if case == "bare" else study(sites, engine, case == "masked", most)
    print(json.dumps(asdict(times) | {"seconds": time.perf_counter() - started}))


def memory(mark: str) -> float:
    """The proportional set sizes of all processes of a case, in MB."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found = re.search(r"^Pss:\s+(\d+) kB", (entry / "smaps_rollup").read_text(), re.MULTILINE)
                total += int(found[1]) if found else 0
    return total / 1024


def measured(sites: int, engine: str, case: str, most: int) -> str:
    """A line of the table."""
    place = f"{sites}-{engine}-{case}-{os.getpid()}"
    environment = os.environ | {MARK: place, "RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0"}
    peak, done = [0.0], threading.Event()

    def look() -> None:
        while not done.wait(LOOK_AGAIN):
            peak[0] = max(peak[0], memory(f"{MARK}={place}"))

    watching = threading.Thread(target=look, daemon=True)
    watching.start()
    command = [sys.executable, __file__, "--child", str(sites), engine, case, str(most)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    done.set()
    watching.join()
    start = f"{sites:6}{engine:>12}{case:>10}"
    if ended.returncode:
        return f"{start}  {(ended.stderr.strip().splitlines() or ['no word'])[-1]}"
    found = json.loads(next(line for line in reversed(ended.stdout.splitlines()) if line.startswith("{")))
    rounds, processor = found["rounds"], found["processor"] if engine == "in-process" else []
    spent = f"{statistics.median(processor):12.5f}" if processor else f"{'':12}"
    middle = f"{len(rounds):8}{statistics.median(rounds):12.5f}{spent}"
    return f"{start}{found['before']:8.1f}{middle}{found['seconds']:10.1f}{peak[0]:9.0f}"


def main() -> None:
    """A line per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases, engines = ("bare", "unmasked", "masked"), ("in-process", "ray")
    parser.add_argument("--sites", type=int, nargs="+", default=[5, 50, 500])
    parser.add_argument("--engine", nargs="+", choices=engines, default=engines)
    parser.add_argument("--case", nargs="+", choices=cases, default=cases)
    parser.add_argument("--rounds", type=int, default=0, help="stop after so many rounds (0: the whole study)")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(int(options.child[0]), *options.child[1:3], int(options.child[3]))
        return
    head = f"{'sites':>6}{'engine':>12}{'case':>10}{'before':>8}{'rounds':>8}{'s a round':>12}{'cpu s':>12}"
    print(f"{head}{'s in all':>10}{'peak MB':>9}")
    for sites in options.sites:
        for engine in options.engine:
            for case in options.case:
                print(measured(sites, engine, case, options.rounds), flush=True)


if __name__ == "__main__":
    main()
