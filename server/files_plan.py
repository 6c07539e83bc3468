"""How many exchanges a study over files will need: an estimate, by whole runs over invented patients.

A study of one model is run several times. One of many models is run once, or twice where its search has more than two
batches of trials: with one and with two of them; each further batch is taken to cost what the second has cost.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.pooled import Traffic, run_pooled
from ctfed.rounds.package import FIRST_ROUND
from ctfed.study import Study
from server.lookahead import Lookahead, foresees
from server.study_run import algorithm_of
from server.synthetic import shortened, synthetic_cohorts, with_effects

FEW = 12  # exchanges that are thought bearable where a person carries each one
RUN_BATCHES = 2  # of a search
SEEDS = (3, 4, 5)  # of other patients than those by which questions are asked early

# What an exchange before the evaluation is for: the first of these whose kind of query it holds.
_STAGES: Mapping[str, str] = {
    "cox-derivatives": "Cox fits and their scores",
    "pooled-gradient": "Cox fits and their scores",
    "within-site-pairs": "Cox fits and their scores",
    "absolute-deviations": "what moves the scores",
    "cross-moments": "selection of features",
    "covariance-products": "principal components",
    "combat-moments": "harmonization",
    "counts-below": "medians of columns, by bisection",
    "moments": "means and spreads",
    "counts": "patients, events and missing values",
    "level-counts": "patients, events and missing values",
}
_EVALUATION = "evaluation"


@dataclass(frozen=True)
class Plan:
    """An estimate of what a study costs over files.

    Attributes:
        study: its name.
        sites, patients: how many sites were invented, and how many patients of each.
        rounds: for each exchange after the first two, query kind -> how many.
        least, most: how many exchanges the runs over different patients took.
        plain: how many exchanges it would take without asking early; None where that was not run.
        fitted: the exchange after which the study's models are fitted.
        bytes_up, bytes_down: of all exchanges, for one site.
        runs: over how many sets of invented patients.
        guessed: exchanges of batches of a search that were not run.
        foreseen: whether whole futures of the study are run before each exchange.
    """

    study: str
    sites: int
    patients: int
    rounds: tuple[Mapping[str, int], ...]
    least: int
    most: int
    plain: int | None
    fitted: int
    bytes_up: int
    bytes_down: int
    runs: int
    guessed: int
    foreseen: bool

    @property
    def exchanges(self) -> int:
        """All of them, the opening and the census included."""
        return len(self.rounds) + FIRST_ROUND - 1

    @property
    def stages(self) -> tuple[str, ...]:
        """What each of ``rounds`` is for."""
        fitted = self.fitted - FIRST_ROUND + 1
        late = [_EVALUATION] * (len(self.rounds) - fitted)
        return (*(_stage(kinds) for kinds in self.rounds[:fitted]), *late)

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        spread = f" ({self.least} to {self.most})" if self.runs > 1 else ""
        plain = "" if self.plain is None else f" (without asking early: {self.plain} in all)"
        yield (
            f"{self.study}: about {self.exchanges} exchanges{spread}; fitted after about {self.fitted}{plain}; about "
            f"{_size(self.bytes_up)} out of a site and {_size(self.bytes_down)} into it"
        )
        runs = f"{self.runs} runs" if self.runs > 1 else "a run"
        yield (
            f"an estimate, from {runs} over {self.sites} invented sites with {self.patients} patients each: real data "
            "may need more or fewer, because medians and fits end when they are exact enough"
        )
        if self.guessed:
            yield (
                f"{self.guessed} exchanges of the search were not run: each further batch of trials is taken to cost "
                "what the second has cost"
            )
        if not self.foreseen:
            yield (
                "a study of many models: only the next steps of searches and the ends of fits are asked early, because "
                "its whole future takes too long to run before each exchange"
            )
        yield "exchange   1      opening of the run"
        yield "exchange   2      census: how many patients and events the sites hold together"
        yield from self._stages()
        shares = Counter(self.stages)
        yield "what takes them: " + ", ".join(f"{count} {name}" for name, count in shares.most_common())
        if self.exchanges > FEW:
            yield from _advice(shares, self.foreseen)

    def _stages(self) -> Iterator[str]:
        """One line for exchanges in a row that are for the same."""
        first = FIRST_ROUND
        for words, part in itertools.groupby(zip(self.stages, self.rounds, strict=True), lambda pair: pair[0]):
            together = [kinds for _, kinds in part]
            last = first + len(together) - 1
            asked = dict.fromkeys(kind for kinds in together for kind in sorted(kinds))
            where = f"{first:>3}" + (f"-{last:<3}" if last > first else "    ")
            yield f"exchange {where}  {words} ({', '.join(asked)})"
            first = last + 1


def _stage(kinds: Mapping[str, int]) -> str:
    """What an exchange before the evaluation is for."""
    return next((words for kind, words in _STAGES.items() if kind in kinds), "other")


def _size(count: int) -> str:
    """Bytes in words."""
    return f"{count / 1e6:.0f} MB" if count >= 10**7 else f"{count / 1e3:.0f} kB"


def _advice(shares: Counter[str], one_model: bool) -> Iterator[str]:
    if shares[_STAGES["counts-below"]]:
        yield "fewer: impute 'mode' (with levels) or 'none' takes one exchange, 'median' 5 to 10"
    if one_model:
        yield "fewer: a given penalty in place of tuning; standardise: false where units are equal"
    else:
        yield "fewer: fewer batches of trials (search.trials / search.batch); a random projection in place of pca"


def plan_of(study: Study, sites: int, patients: int) -> Plan:
    """Run the study over invented patients and count; of several runs the exchanges are those of the middle one.

    Raises:
        CtfedError: when the invented patients are too few for what the study asks.
    """
    if sites < 1 or patients < 1:
        raise CtfedError(f"found {sites} sites with {patients} patients, expected at least one of each")
    seeds = SEEDS if foresees(study) else SEEDS[:1]
    try:
        runs = [_run(study, sites, patients, seed) for seed in seeds]
    except CtfedError as error:
        raise CtfedError(
            f"{sites} invented sites with {patients} patients each are too few for what the study asks ({error}); plan "
            "with as many patients as there are (--sites, --patients)"
        ) from error
    plain, early, guessed = sorted(runs, key=lambda run: run[1].rounds)[len(runs) // 2]
    counts = [run[1].rounds + FIRST_ROUND - 1 for run in runs]
    rounds = tuple(Counter(kinds) for kinds in early.kinds)
    return Plan(
        study=study.name,
        sites=sites,
        patients=patients,
        rounds=rounds,
        least=min(counts),
        most=max(counts),
        plain=None if plain is None else plain.rounds + FIRST_ROUND - 1,
        fitted=_fitted(rounds) + FIRST_ROUND - 1,
        bytes_up=early.bytes_up,
        bytes_down=early.bytes_down,
        runs=len(runs),
        guessed=guessed,
        foreseen=foresees(study),
    )


def _run(study: Study, sites: int, patients: int, seed: int) -> tuple[Traffic | None, Traffic, int]:
    """What a run costs as it is (None for a study of many models, whose run takes minutes), and with questions asked
    early; and how many rounds of the latter were not run."""
    cohorts = tuple(with_effects(study, one) for one in synthetic_cohorts(study, sites, patients, seed))
    if study.search is None:
        plain = Traffic()
        run_pooled(algorithm_of(study), cohorts, plain)
        return plain, _early(study, cohorts, 0), 0
    batches = -(-study.search.trials // study.search.batch)
    found = _early(study, cohorts, min(batches, RUN_BATCHES))
    if batches <= RUN_BATCHES:
        return None, found, 0
    whole = _extended(_early(study, cohorts, RUN_BATCHES - 1), found, batches - RUN_BATCHES)
    return None, whole, whole.rounds - found.rounds


def _early(study: Study, cohorts: Sequence[Cohort], batches: int) -> Traffic:
    """What a run costs with questions asked early, whose search has so many batches."""
    shorter = shortened(study, batches)
    traffic = Traffic()
    run_pooled(Lookahead(shorter, len(cohorts), None).around(lambda: algorithm_of(shorter)), cohorts, traffic)
    return traffic


def _extended(fewer: Traffic, run: Traffic, more: int) -> Traffic:
    """A run with ``more`` batches of the kind that ``run`` has one more of than ``fewer``."""
    extra = max(0, run.rounds - fewer.rounds)
    pairs = zip(fewer.kinds, run.kinds, strict=False)
    same = next((place for place, (one, other) in enumerate(pairs) if Counter(one) != Counter(other)), fewer.rounds)
    block = run.kinds[same : same + extra]
    return Traffic(
        rounds=run.rounds + more * extra,
        bytes_down=run.bytes_down + more * (run.bytes_down - fewer.bytes_down),
        bytes_up=run.bytes_up + more * (run.bytes_up - fewer.bytes_up),
        kinds=[*run.kinds[: same + extra], *(block * more), *run.kinds[same + extra :]],
    )


def _fitted(rounds: Sequence[Mapping[str, int]]) -> int:
    """How many rounds there are until the evaluation of the models begins: that of their baseline hazards."""
    first = [number for number, kinds in enumerate(rounds) if "risk-set-sums" in kinds]
    return first[0] if first else len(rounds)
