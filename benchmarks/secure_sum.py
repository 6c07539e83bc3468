"""What masks, disk and ledger cost a round, and how exact the masked totals are.

Sites in this process, each with keys, a guard that lets every question through, and a ledger on the disk. Every round
asks new coefficients or columns; the same questions are answered with and without a guard in turn. Times are of whole
rounds, all sites one after the other, best and median; in a deployment sites work side by side, so that what a site
adds (ms/site) is what a round gets longer: the last column compares it with a deployed round.

    python benchmarks/secure_sum.py [--sites 5 50] [--rounds 15] [--patients 175] [--folder DIR] [--study-runs 3]

DIR: where the ledgers are written; default a temporary folder. The disk behind it is part of what is measured.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ctfed.federation import Cohort, Feature, Query, View
from ctfed.federation.arrays import frozen
from ctfed.federation.bits import one_blas_thread
from ctfed.federation.census import Census, CensusPlan
from ctfed.federation.fixedpoint import add_limbs, from_limbs, to_limbs
from ctfed.federation.guard import Approval, Guard
from ctfed.federation.ledger import Ledger
from ctfed.federation.masking import Masks
from ctfed.federation.responder import Responder
from ctfed.federation.roster import Roster
from ctfed.federation.session import Assembly, Session
from ctfed.federation.wire import Answer, Question, encode_question, read_totals
from ctfed.statistics.cox.stratified import CoxDerivatives
from ctfed.statistics.describe import Counts
from server.assembly import Agreement, assemble
from server.commands import DEMO, EXAMPLES
from server.simulate import simulate

FOLDS = 5
WIDTH = 60
MODELS = 100
STUDY = "5" * 64
AS_SENT, GUARDED = "clear", "masked"
DEPLOYED = 0.8  # s of a deployed round trip with the warm executor (benchmarks/deployed_fit.py measures it)


class OpenGate:
    """Lets every question through."""

    def splits(self, cohort: Cohort) -> tuple[str, ...]:
        """Every site contributes to every split that it holds."""
        return tuple(split for split in ("train", "test") if (cohort.split == split).any())

    def check_run(self, opened: Mapping[str, object], cohort: Cohort, ledger: Ledger) -> None:
        """Every run is welcome."""

    def check_session(self, session: Session) -> None:
        """So is every session."""

    def check_round(
        self, queries: Sequence[Query], session: Session, census: Census, spent: Mapping[str, int]
    ) -> Mapping[str, int]:
        """And every question."""
        return {"rounds": 1}


class Sites:
    """The sites of one federation: a transport whose questions are answered in this process."""

    def __init__(self, cohorts: Sequence[Cohort], folder: Path) -> None:
        keys = {cohort.site: X25519PrivateKey.generate() for cohort in cohorts}
        self.roster = Roster({site: key.public_key().public_bytes_raw() for site, key in keys.items()})
        approval = Approval(STUDY, self.roster.digest, CensusPlan(FOLDS))
        self.guards = {
            site: Guard(key, self.roster, approval, OpenGate(), Ledger(folder / site), site.encode())
            for site, key in keys.items()
        }
        self.sites = self.roster.sites
        self.masked = {c.site: Responder(c, self.guards[c.site]) for c in cohorts}
        self.clear = {c.site: Responder(c) for c in cohorts}

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        """The sites' answers, behind their guards."""
        return {site: self.masked[site].answer(question) for site, question in questions.items()}


class Stopwatch:
    """Seconds spent in some methods, by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Count the time of ``owner.method`` under ``name``; time of a watched method inside it is not its own."""
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any, **named: Any) -> Any:
            before, started = sum(self.spent.values()), time.perf_counter()
            try:
                return inner(*arguments, **named)
            finally:
                inside = sum(self.spent.values()) - before
                self.spent[name] += time.perf_counter() - started - inside

        setattr(owner, method, timed)


def federation(sites: int, patients: int) -> list[Cohort]:
    """Sites of equal size with WIDTH standard normal features and exponential times in months."""
    rng = np.random.default_rng(7)
    cohorts = []
    for index in range(sites):
        columns = {f"x{j}": rng.normal(size=patients) for j in range(WIDTH)}
        time_, event = np.ceil(rng.exponential(30, patients) * 30) / 30 + 0.1, rng.random(patients) < 0.5
        fold = rng.integers(0, FOLDS, patients)
        cohorts.append(Cohort.of(f"site-{index:02d}", columns, time_, event, fold=fold))
    return cohorts


def large(view: View, rng: np.random.Generator) -> tuple[Query, ...]:
    """One Hessian and 100 gradients."""
    return (CoxDerivatives(view, frozen(rng.normal(0, 0.1, (MODELS, WIDTH))), (0,)),)


def small(view: View, rng: np.random.Generator) -> tuple[Query, ...]:
    """Counts of three columns, under a view that was not asked before."""
    chosen = sorted(rng.choice(WIDTH, 3, replace=False))
    return (Counts(View(tuple(view.columns[j] for j in chosen))),)


class Asker:
    """A server that asks one kind of sites, and knows which shared objects they hold already."""

    def __init__(self, responders: Mapping[str, Responder], assembly: Assembly | None) -> None:
        self._responders = responders
        self._assembly = assembly
        self._known: set[str] = set()

    def round(self, number: int, queries: Sequence[Query]) -> tuple[float, int, bytes]:
        """Seconds, bytes that one site sends, and the totals' bytes."""
        started = time.perf_counter()
        question = encode_question("benchmark", number, queries, frozenset(self._known), self._assembly)
        answers = [responder.answer(question) for responder in self._responders.values()]
        totals = read_totals(reduce(add_limbs, [answer.limbs for answer in answers]), queries)
        seconds = time.perf_counter() - started
        self._known |= question.views
        return seconds, answers[0].size, b"".join(array.tobytes() for total in totals for array in total.values())


def measure(count: int, patients: int, rounds: int, folder: Path, watch: Stopwatch) -> None:
    """Print the rows of one number of sites."""
    cohorts = federation(count, patients)
    view = View(tuple(Feature(f"x{j}") for j in range(WIDTH)))
    sites = Sites(cohorts, folder)
    assembly = assemble(sites, "benchmark", Agreement(STUDY, sites.roster.digest, CensusPlan(FOLDS)), lambda _: None)
    clear_sites, masked_sites = Asker(sites.clear, None), Asker(sites.masked, assembly)
    number = 0
    for name, make in (("one Hessian, 100 gradients", large), ("three counts", small)):
        seconds: dict[str, list[float]] = {AS_SENT: [], GUARDED: []}
        parts: list[dict[str, float]] = []
        size = 0
        rng = np.random.default_rng(11)
        for turn in range(rounds + 2):  # two to warm up
            queries = make(view, rng)
            clear, _, expected = clear_sites.round(number, queries)
            watch.spent.clear()
            masked, size, found = masked_sites.round(number, queries)
            if found != expected:
                raise SystemExit("the masked total has other bits than the clear one")
            number += 1
            if turn > 1:
                seconds[AS_SENT].append(clear)
                seconds[GUARDED].append(masked)
                parts.append(dict(watch.spent))
        report(count, name, size, seconds, parts)


def report(
    count: int, name: str, size: int, seconds: Mapping[str, list[float]], parts: Sequence[Mapping[str, float]]
) -> None:
    """One line of the table: milliseconds."""
    cells = [f"{1e3 * f(seconds[kind]):9.2f}" for kind in (AS_SENT, GUARDED) for f in (min, statistics.median)]
    added = [masked - clear for clear, masked in zip(seconds[AS_SENT], seconds[GUARDED], strict=True)]
    middle = statistics.median(added)
    split = [f"{1e3 * statistics.median(part.get(key, 0.0) for part in parts):7.2f}" for key in SPLIT]
    share = 100 * middle / statistics.median(seconds[GUARDED])
    print(
        f"{count:5d}  {name:26s} {size:9,d} {' '.join(cells)} {' '.join(split)}"
        f" {share:6.0f} % {1e3 * middle / count:8.3f} {100 * middle / count / DEPLOYED:9.2f} %"
    )


SPLIT = ("masks", "disk", "ledger", "guard")
WATCHED: tuple[tuple[type, str, str], ...] = (
    (Masks, "mask", "masks"),
    (Ledger, "store", "disk"),
    (Ledger, "append", "ledger"),
    (Guard, "replay", "guard"),
    (Guard, "admit", "guard"),
    (Guard, "send", "guard"),
)


def exactness() -> None:
    """Print how far masked totals are from math.fsum, over scales up to those of PyRadiomics' largest features."""
    print("\nexactness: |masked total - fsum| / sum of magnitudes, worst of 400 arrays per row (64 declared scales)")
    rng = np.random.default_rng(3)
    scales = np.linspace(-40, 80, 64).round().astype(np.int64)  # 2**80 is 1.2e24
    for count in (3, 5, 10, 25, 50):
        worst, orders = 0.0, True
        masks = pairwise(count)
        for turn in range(400):
            shift = rng.integers(-20, 36, (count, scales.size)) if turn % 2 else rng.integers(-8, 1, (count, 1))
            values = np.ldexp(rng.uniform(-1, 1, (count, scales.size)), scales + shift)
            tag = f"{turn}|exactness"
            limbs = [one.mask(to_limbs(row, scales), tag) for one, row in zip(masks, values, strict=True)]
            found = from_limbs(reduce(add_limbs, limbs), scales)
            other = from_limbs(reduce(add_limbs, [limbs[i] for i in rng.permutation(count)]), scales)
            orders &= found.tobytes() == other.tobytes()
            for j in range(scales.size):
                magnitude = math.fsum(np.abs(values[:, j]))
                worst = max(worst, abs(found[j] - math.fsum(values[:, j])) / magnitude)
        print(f"{count:5d} sites   worst {worst:.2e}   same bits in any order: {'yes' if orders else 'NO'}")


def pairwise(count: int) -> list[Masks]:
    """The masks of a session of ``count`` sites."""
    keys = {f"site-{index:02d}": X25519PrivateKey.generate() for index in range(count)}
    roster = Roster({site: key.public_key().public_bytes_raw() for site, key in keys.items()})
    return [Masks(site, key, roster, "ab" * 32) for site, key in keys.items()]


def whole_study(runs: int) -> None:
    """Print the time of the demo's study in process, through Flower's messages, with and without masks."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(runs + 1):
        for masked, taken in seconds.items():
            with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
                started = time.perf_counter()
                simulate(
                    EXAMPLES / "studies" / DEMO,
                    [EXAMPLES / "sites" / DEMO],
                    Path(folder),
                    masked=masked,
                    tell=lambda _: None,
                )
                taken.append(time.perf_counter() - started)
    clear, with_masks = (statistics.median(taken[1:]) for taken in seconds.values())  # the first one warms up
    print(f"\nthe demo's study, 10 sites in this process: {clear:.2f} s in clear, {with_masks:.2f} s masked (medians)")


def main() -> None:
    """All tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sites", type=int, nargs="+", default=[5, 50])
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--patients", type=int, default=175, help="per site")
    options.add_argument("--folder", type=Path)
    options.add_argument("--study-runs", type=int, default=3)
    chosen = options.parse_args()
    whole_study(chosen.study_runs)
    watch = Stopwatch()
    for owner, method, name in WATCHED:
        watch.watch(owner, method, name)
    print(f"\n{chosen.patients} patients and {WIDTH} features per site; milliseconds, all sites one after the other")
    print(
        "sites  payload                    bytes/site  clear: best    median  masked: best  median   "
        "masks    disk  ledger   guard   share  ms/site  of 0.8 s"
    )
    with one_blas_thread():
        for count in chosen.sites:
            with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
                measure(count, chosen.patients, chosen.rounds, Path(folder), watch)
        exactness()


if __name__ == "__main__":
    main()
