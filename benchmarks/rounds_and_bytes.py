"""What one Cox fit costs a federation: rounds to KKT 1e-9, bytes up per round, and the time of a round by itself.

Rounds are questions to the sites; a fit with pooled risk sets asks two for each evaluation. Bytes are those of the wire
format, without the transport's envelope. A round by itself is the wall time of one question to all sites through the
in-process Flower grid (encoded, deflated, inflated, decoded, answered, added, journalled on disk), less the time that
the sites' arithmetic takes in the same round; "journal" is the part that writes the total to the disk. The answers are
not masked.

    .venv/bin/python benchmarks/rounds_and_bytes.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from survival_data import Survival, generated
from threadpoolctl import threadpool_limits

from ctfed import node
from ctfed.federation import Cohort, Summary, run_pooled
from ctfed.federation.algorithm import Algorithm
from ctfed.federation.client_app import app as client_app
from ctfed.federation.flower.grid import InProcessGrid
from ctfed.federation.pooled import Traffic
from ctfed.statistics.cox import ElasticNet, fit_cox
from ctfed.statistics.cox.stratified import CoxDerivatives
from ctfed.statistics.timegrid import TimeGrid
from server.conductor import Conductor
from server.journal import Journal
from server.transport import FlowerTransport

SITES = 5
MOST_ROUNDS, MOST_KILOBYTES = 8, 70.0
PENALTIES = {
    "unpenalised": ElasticNet(),
    "ridge 0.05": ElasticNet(0.05, 0.0),
    "elastic net 0.05/0.5": ElasticNet(0.05, 0.5),
    "elastic net 0.002/0.5": ElasticNet(0.002, 0.5),
}
PER_SITE = 40  # patients of a site in the timed rounds
TIMED = ((5, 40, 0.010), (50, 20, 0.100), (500, 8, 1.0))  # sites, rounds, target in seconds


def verdict(met: bool) -> str:
    """How a target is told."""
    return "met" if met else "MISSED"


def rounds_of_a_fit() -> None:
    """Print the rounds from zero, for three data sets, stratified and with one baseline."""
    print(f"rounds from zero to KKT 1e-9, p = 60, {SITES} sites, Efron (three data sets of 604 patients)")
    print(f"{'':26}{'stratified':>14}{'one baseline':>16}{'worst KKT':>12}")
    most = 0
    for name, penalty in PENALTIES.items():
        rounds: dict[bool, list[int]] = {False: [], True: []}
        worst = 0.0
        for seed in range(3):
            data = generated(604, 60, seed)
            for pooled in (False, True):
                traffic = Traffic()
                grid = TimeGrid.exact(data.time) if pooled else None
                fit = run_pooled(fit_cox(data.view, penalty, grid=grid), data.dealt(SITES), traffic)
                rounds[pooled].append(traffic.rounds)
                worst = max(worst, fit.residual)
        most = max(most, *rounds[False])
        cells = [" ".join(str(count) for count in rounds[pooled]) for pooled in (False, True)]
        print(f"{name:26}{cells[0]:>14}{cells[1]:>16}{worst:12.1e}")
    print(f"most rounds, stratified: {most}; target {MOST_ROUNDS}: {verdict(most <= MOST_ROUNDS)}\n")


def bytes_of_a_round() -> None:
    """Print what a site sends and receives for one fit at p = 90."""
    data = generated(416, 90)
    traffic = Traffic()
    run_pooled(fit_cox(data.view, ElasticNet(0.05, 0.5)), data.dealt(SITES), traffic)
    up, down = traffic.bytes_up / traffic.rounds / 1e3, traffic.bytes_down / traffic.rounds / 1e3
    print(f"bytes of one fit, p = 90, stratified, {traffic.rounds} rounds")
    print(f"up {up:.1f} kB a site and round; target {MOST_KILOBYTES:g}: {verdict(up <= MOST_KILOBYTES)}")
    print(f"down {down:.1f} kB a site and round, the view sent once\n")


class TimedRound(NamedTuple):
    """Seconds of one round: its wall time, the sites' arithmetic in it, and the server's journal on disk."""

    wall: float
    arithmetic: float
    journal: float

    @property
    def alone(self) -> float:
        """The round without the arithmetic."""
        return self.wall - self.arithmetic


class Stopwatch:
    """Seconds spent in the sites' answers to CoxDerivatives, and in the server's journal."""

    def __init__(self) -> None:
        self.arithmetic = self.journal = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time both in this process."""
        answer, record = CoxDerivatives.answer, Journal.record

        def timed_answer(query: CoxDerivatives, cohort: Cohort) -> Summary:
            started = time.perf_counter()
            summary = answer(query, cohort)
            self.arithmetic += time.perf_counter() - started
            return summary

        def timed_record(journal: Journal, *arguments: Any) -> None:
            started = time.perf_counter()
            record(journal, *arguments)
            self.journal += time.perf_counter() - started

        with patch.object(CoxDerivatives, "answer", timed_answer), patch.object(Journal, "record", timed_record):
            yield


def same_question(data: Survival, count: int, watch: Stopwatch) -> Algorithm[list[TimedRound]]:
    """Ask for value, gradient and Hessian at other points each round."""
    rng = np.random.default_rng(1)
    rounds = []
    for _ in range(count):
        query = CoxDerivatives(data.view, rng.normal(0, 0.1, (1, len(data.names))), (0,))
        started, arithmetic, journal = time.perf_counter(), watch.arithmetic, watch.journal
        yield query
        wall = time.perf_counter() - started
        rounds.append(TimedRound(wall, watch.arithmetic - arithmetic, watch.journal - journal))
    return rounds


def timed_rounds(sites: int, features: int, count: int) -> list[TimedRound]:
    """Rounds after the first, which carries the view and sorts the patients."""
    data = generated(PER_SITE * sites, features)
    cohorts = {cohort.site: cohort for cohort in data.dealt(sites)}
    grid = InProcessGrid(client_app, {name: {"site": name} for name in cohorts})
    watch = Stopwatch()
    node.set_responder_factory(node.seats_of_cohorts(cohorts))
    try:
        with tempfile.TemporaryDirectory(prefix="ctfed-rounds-") as folder, watch.running():
            transport = FlowerTransport.connect(grid, list(cohorts), runner="in-process")
            conductor = Conductor(transport, Journal(Path(folder) / "journal.jsonl", {}))
            return conductor.run(same_question(data, count + 1, watch))[1:]
    finally:
        node.set_responder_factory(None)


def time_of_a_round(features: int) -> None:
    """Print the best and the median round by itself, with 5, 50 and 500 sites."""
    print(f"a round by itself, in-process Flower grid, p = {features}, {PER_SITE} patients a site, milliseconds")
    print(f"{'sites':>7}{'rounds':>8}{'best':>9}{'median':>9}{'journal':>9}{'arithmetic':>12}{'target':>9}")
    for sites, count, target in TIMED:
        rounds = timed_rounds(sites, features, count)
        best, median = min(one.alone for one in rounds), statistics.median(one.alone for one in rounds)
        journal = statistics.median(one.journal for one in rounds)
        arithmetic = statistics.median(one.arithmetic for one in rounds)
        print(
            f"{sites:7d}{count:8d}{1e3 * best:9.1f}{1e3 * median:9.1f}{1e3 * journal:9.1f}{1e3 * arithmetic:12.1f}"
            f"{1e3 * target:9.0f}  best {verdict(best <= target)}, median {verdict(median <= target)}"
        )
    print()


def main() -> None:
    """Print the tables."""
    rounds_of_a_fit()
    bytes_of_a_round()
    for features in (10, 60):
        time_of_a_round(features)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
