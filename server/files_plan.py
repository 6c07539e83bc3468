"""How many exchanges a study over files will need: an estimate, by whole runs over invented patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ctfed.federation.pooled import Traffic, run_pooled
from ctfed.rounds.package import FIRST_ROUND
from ctfed.study import Study
from server.lookahead import Lookahead
from server.study_algorithm import study_algorithm
from server.synthetic import synthetic_cohorts

FEW = 12  # exchanges that are thought bearable where a person carries each one
SEEDS = (11, 12, 13)  # of other patients than those by which questions are asked early

# What an exchange is for: the first of these whose kind of query it holds.
_STAGES: Mapping[str, str] = {
    "counts-below": "medians of columns, by bisection",
    "moments": "means and spreads",
    "cox-derivatives": "Cox fits",
    "pooled-gradient": "Cox fits",
    "time-counts": "evaluation",
    "risk-set-sums": "evaluation",
    "evaluation-table": "evaluation",
    "scores-below": "evaluation",
    "group-counts": "evaluation",
    "within-site-pairs": "evaluation",
    "counts": "patients, events and missing values",
    "level-counts": "patients, events and missing values",
}
_LATE = ("time-counts", "within-site-pairs", "scores-below", "risk-set-sums", "evaluation-table", "group-counts")


@dataclass(frozen=True)
class Plan:
    """An estimate of what a study costs over files.

    Attributes:
        study: its name.
        sites, patients: how many sites were invented, and how many patients of each.
        rounds: for each exchange after the first two, query kind -> how many.
        least, most: how many exchanges the runs over different patients took.
        plain: how many exchanges it would take without asking early.
        fitted: the exchange after which the study's model is fitted.
        bytes_up, bytes_down: of all exchanges, for one site.
    """

    study: str
    sites: int
    patients: int
    rounds: tuple[Mapping[str, int], ...]
    least: int
    most: int
    plain: int
    fitted: int
    bytes_up: int
    bytes_down: int

    @property
    def exchanges(self) -> int:
        """All of them, the opening and the census included."""
        return len(self.rounds) + FIRST_ROUND - 1

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        yield (
            f"{self.study}: about {self.exchanges} exchanges ({self.least} to {self.most}), the model is fitted "
            f"after about {self.fitted} (without asking early: {self.plain}); "
            f"about {self.bytes_up / 1000:.0f} kB out of a site and {self.bytes_down / 1000:.0f} kB into it"
        )
        yield (
            f"an estimate, from {len(SEEDS)} runs over {self.sites} invented sites with {self.patients} patients each: "
            "real data may need more or fewer, because medians and fits end when they are exact enough"
        )
        yield "exchange   1  opening of the run"
        yield "exchange   2  census: how many patients and events the sites hold together"
        for number, kinds in enumerate(self.rounds):
            said = ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in sorted(kinds.items()))
            yield f"exchange {number + FIRST_ROUND:>3}  {stage(kinds)} ({said})"
        shares = Counter(stage(kinds) for kinds in self.rounds)
        yield "what takes them: " + ", ".join(f"{count} {name}" for name, count in shares.most_common())
        if self.exchanges > FEW:
            yield from _advice(shares)


def stage(kinds: Mapping[str, int]) -> str:
    """What an exchange is for."""
    if any(kind in kinds for kind in _LATE) and "cox-derivatives" not in kinds:
        return "evaluation"
    return next((words for kind, words in _STAGES.items() if kind in kinds), "other")


def _advice(shares: Counter[str]) -> Iterator[str]:
    if shares[_STAGES["counts-below"]]:
        yield "fewer: impute 'mode' (with levels) or 'none' takes one exchange, 'median' about 16"
    yield "fewer: a penalty given in the study (penalty) in place of tuning; standardise: false where units are equal"


def plan_of(study: Study, sites: int, patients: int) -> Plan:
    """Run the study over invented patients, several times, and count; the exchanges are those of the middle run.

    Raises:
        CtfedError: when the invented patients are too few for what the study asks.
    """
    runs = [_run(study, sites, patients, seed) for seed in SEEDS]
    found, early = sorted(runs, key=lambda run: run[1].rounds)[len(runs) // 2]
    counts = [run[1].rounds + FIRST_ROUND - 1 for run in runs]
    rounds = tuple(Counter(kinds) for kinds in early.kinds)
    return Plan(
        study=study.name,
        sites=sites,
        patients=patients,
        rounds=rounds,
        least=min(counts),
        most=max(counts),
        plain=found.rounds + FIRST_ROUND - 1,
        fitted=_fitted(rounds) + FIRST_ROUND - 1,
        bytes_up=early.bytes_up,
        bytes_down=early.bytes_down,
    )


def _run(study: Study, sites: int, patients: int, seed: int) -> tuple[Traffic, Traffic]:
    """What a run costs as it is, and with questions asked early."""
    cohorts = synthetic_cohorts(study, sites, patients, seed)
    plain, early = Traffic(), Traffic()
    run_pooled(study_algorithm(study), cohorts, plain)
    run_pooled(Lookahead(study, sites, None).around(lambda: study_algorithm(study)), cohorts, early)
    return plain, early


def _fitted(rounds: Sequence[Mapping[str, int]]) -> int:
    """How many rounds there are before the evaluation of the model begins."""
    last = [number for number, kinds in enumerate(rounds) if "within-site-pairs" in kinds]
    return last[-1] if last else len(rounds)
