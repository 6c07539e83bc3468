"""The list of attacks: what each looks for, what it takes as given, and what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.cohort import Cohort
from server.audit.attacks.bins import LARGEST_GROUP, rebuild_bins
from server.audit.attacks.carriers import carried
from server.audit.attacks.cells import Single, single_cells
from server.audit.attacks.dominance import dominated
from server.audit.attacks.levels import read_levels
from server.audit.attacks.linear import solve_linear
from server.audit.attacks.nested import small_sets
from server.audit.attacks.nonlinear import bound, search
from server.audit.attacks.subtraction import subtract
from server.audit.attacks.thresholds import cut_apart
from server.audit.knowledge import Known, values_of
from server.audit.patients import Candidate
from server.audit.statements import Statement, statements, with_differences
from server.audit.transcript import Transcript

Tell = Callable[[str], None]
Levels = Sequence[Mapping[str, FloatArray]]

TRANSCRIPT, OUTCOMES = "transcript", "outcomes"  # what an attack takes as given


@dataclass(frozen=True, eq=False)
class Finding:
    """What one attack found.

    Attributes:
        attack: its name.
        looks_for: in words.
        knows: 'transcript', or what else it takes as given.
        candidates: rows that it claims.
        note: what else it saw.
        bound: patients that are determined according to a calculation that uses the truth, None for an attack.
    """

    attack: str
    looks_for: str
    knows: str
    candidates: tuple[Candidate, ...]
    note: str = ""
    bound: int | None = None


def attack_transcript(
    transcript: Transcript, levels: Levels, tell: Tell = lambda _: None
) -> tuple[tuple[Finding, ...], tuple[Single, ...]]:
    """Every attack that needs nothing but the transcript.

    Args:
        transcript: of a run.
        levels: guesses of what values columns can take: raw column -> values.
        tell: receives lines of progress.
    """
    folds = transcript.folds
    asked = statements(transcript)
    given = with_differences(asked)
    tell(f"attacks on {len(asked)} sums and {len(given) - len(asked)} differences of them")
    findings = (
        *_time(given, levels, folds),
        _bins(given, folds, tell),
        _nested(given, folds),
        Finding("carriers", "patients who alone carry a 0/1 column", TRANSCRIPT, carried(given, folds)),
        _dominance(given, folds),
        _thresholds(given, levels, folds),
    )
    return findings, single_cells(asked, given[len(asked) :])


def _time(given: Sequence[Statement], levels: Levels, folds: int) -> tuple[Finding, Finding]:
    alone = subtract(given, folds)
    read = [read_levels(alone.partly, one, folds) for one in levels]
    partial = max((one.partial for one in read), default=0)
    subtraction = Finding(
        "subtraction",
        "patients who alone leave, die or are censored between two totals over time",
        TRANSCRIPT,
        alone.candidates,
        f"{len(alone.partly)} patients with an exact risk score",
    )
    explained = Finding(
        "levels",
        "the only row of listed values that explains an exact risk score",
        TRANSCRIPT,
        tuple(candidate for one in read for candidate in one.candidates),
        f"{len(alone.partly)} scores; of {partial} patients it gives the columns that have a coefficient",
    )
    return subtraction, explained


def _bins(given: Sequence[Statement], folds: int, tell: Tell) -> Finding:
    found = rebuild_bins(given, folds, tell=tell)
    seeks = "rows of small groups from sums of exp(x beta) at many beta"
    groups = f"{found.groups} groups of 2 to {LARGEST_GROUP}"
    words = f"{groups}, {found.underdetermined} with too few equations, {found.unsolved} unsolved"
    return Finding("bins", seeks, TRANSCRIPT, found.candidates, words)


def _nested(given: Sequence[Statement], folds: int) -> Finding:
    found = small_sets(given, folds)
    seeks = "sets of one or two patients between totals over folds and splits"
    words = f"{found.sets} sets of rows with known sums, the smallest of {found.smallest}"
    return Finding("nested rows", seeks, TRANSCRIPT, found.candidates, words)


def _dominance(given: Sequence[Statement], folds: int) -> Finding:
    found = dominated(given, folds)
    words = "no weighted means" if np.isinf(found.fewest) else f"the fewest patients of a mean: {found.fewest:.1f}"
    return Finding("dominance", "weighted means that rest on one patient", TRANSCRIPT, found.candidates, words)


def _thresholds(given: Sequence[Statement], levels: Levels, folds: int) -> Finding:
    found = cut_apart(given, levels[0] if levels else {}, folds)
    seeks = "patients alone between two cuts of a column or score"
    words = f"{found.cuts} cuts, {len(found.narrow)} single patients between two"
    return Finding("thresholds", seeks, TRANSCRIPT, found.candidates, words)


def attack_with_outcomes(
    transcript: Transcript, cohorts: Sequence[Cohort], *, deep: bool = False, tell: Tell = lambda _: None
) -> tuple[Finding, ...]:
    """Attacks of somebody who knows outcome, site, split, fold and missing values of every patient.

    Args:
        transcript: of a run.
        cohorts: all patients; their covariates are used for the bound alone.
        deep: also search from random starts, which takes minutes.
        tell: receives lines of progress.
    """
    if not transcript.exchanges:
        return ()
    view = max((one.query.view for one in transcript.exchanges), key=lambda view: len(view.columns))
    known = Known.of(cohorts, view)
    tell("linear system with known outcomes")
    line = solve_linear(transcript, known, view)
    words = f"{line.equations} equations of rank {line.rank} for {line.unknown} unknown values of a column"
    findings = [
        Finding("linear system", "values in the row space of all linear totals", OUTCOMES, line.candidates, words)
    ]
    if deep:
        found = search(transcript, known, view, tell=tell)
        words = f"{found.equations} equations, {found.unknown} unknown values, residual {found.residual:.1e}"
        seeks = "values that explain all totals, from random starts"
        findings.append(Finding("non-linear search", seeks, OUTCOMES, found.candidates, words))
    tell("bound of the non-linear equations")
    near = bound(transcript, known, values_of(cohorts, known))
    if near is not None:
        words = f"{near.equations} equations of rank {near.rank} for {near.unknown} unknown values"
        seeks = "values that the totals determine for whoever starts near them"
        findings.append(
            Finding("non-linear bound", seeks, "outcomes, and a start near the truth", (), words, near.patients)
        )
    return tuple(findings)
