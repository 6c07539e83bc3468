"""Run the attacks on a transcript and say what they found: two figures, with the list of attacks as their claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.cohort import Cohort
from ctfed.study import Study
from server.audit.attacks.bins import rebuild_bins
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
from server.audit.patients import Candidate, Truth
from server.audit.released import Release, Released, released
from server.audit.statements import statements, with_differences
from server.audit.transcript import Transcript

Tell = Callable[[str], None]
CLAIM = "found by the attacks that are listed, on this transcript; not a proof that no other attack finds more"
MOST_LEVELS = 10_000


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


@dataclass(frozen=True, eq=False)
class Audit:
    """The attacks' findings on one transcript.

    Attributes:
        findings: one per attack.
        cells: cells of one patient in tables.
        release: numbers per patient and column.
        budget: the most that the site's policy allows for one set of rows; None when no policy was looked at.
        truth: patients that candidates are checked against; None without any.
        whole: whether ``truth`` holds all patients of the federation.
        rounds, complete: of the transcript.
    """

    findings: tuple[Finding, ...]
    cells: tuple[Single, ...]
    release: Release
    budget: float | None
    truth: Truth | None
    whole: bool
    rounds: int
    complete: bool

    def determined(self, finding: Finding) -> int:
        """Patients that an attack determines: checked where all patients are known, claimed where they are not."""
        if self.truth is not None and self.whole:
            return len(self.truth.determined(finding.candidates))
        return len(finding.candidates)

    def own(self, finding: Finding) -> int | None:
        """How many patients of the known sites are among an attack's candidates."""
        return None if self.truth is None else len(self.truth.determined(finding.candidates))

    @property
    def patients(self) -> int:
        """Patients determined by any attack, each counted once where all patients are known."""
        if self.truth is not None and self.whole:
            return len(self.truth.determined(*(finding.candidates for finding in self.findings)))
        return max((self.determined(finding) for finding in self.findings), default=0)

    @property
    def largest(self) -> Released | None:
        """The set of rows of which most is told per patient and column."""
        return self.release.rows[0] if self.release.rows else None


def levels_of(study: Study, per_unit: int = 1) -> dict[str, FloatArray]:
    """The values that each variable can take, where they can be listed.

    Args:
        study: its levels are taken as they are; other variables take whole multiples of 1 / ``per_unit`` in the range.
        per_unit: 1 for whole numbers, 10 for one decimal.
    """
    found = {}
    for name, variable in study.variables.items():
        low, high = variable.range
        if variable.possible_levels:
            found[name] = np.array(variable.possible_levels)
        elif (high - low) * per_unit <= MOST_LEVELS:
            found[name] = np.arange(np.ceil(low * per_unit), np.floor(high * per_unit) + 1) / per_unit
    return found


def attack_transcript(
    transcript: Transcript, levels: Sequence[Mapping[str, FloatArray]], tell: Tell = lambda _: None
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
    alone = subtract(given, folds)
    read = [read_levels(alone.partly, one, folds) for one in levels]
    partial = max((one.partial for one in read), default=0)
    explained = tuple(candidate for one in read for candidate in one.candidates)
    few = small_sets(given, folds)
    cut = cut_apart(given, levels[0] if levels else {}, folds)
    heavy = dominated(given, folds)
    bins = rebuild_bins(given, folds, tell=tell)
    findings = (
        Finding(
            "subtraction",
            "patients who alone leave, die or are censored between two totals over time",
            "transcript",
            alone.candidates,
            f"{len(alone.partly)} patients with an exact risk score",
        ),
        Finding(
            "levels",
            "the only row of listed values that explains an exact risk score",
            "transcript",
            explained,
            f"{len(alone.partly)} scores; of {partial} patients it gives the columns that have a coefficient",
        ),
        Finding(
            "bins",
            "rows of small groups from sums of exp(x beta) at many beta",
            "transcript",
            bins.candidates,
            f"{bins.groups} groups of 2 to 12, {bins.underdetermined} with too few equations, {bins.unsolved} unsolved",
        ),
        Finding(
            "nested rows",
            "sets of one or two patients between totals over folds and splits",
            "transcript",
            few.candidates,
            f"{few.sets} sets of rows with known sums, the smallest of {few.smallest}",
        ),
        Finding("carriers", "patients who alone carry a 0/1 column", "transcript", carried(given, folds)),
        Finding(
            "dominance",
            "weighted means that rest on one patient",
            "transcript",
            heavy.candidates,
            "no weighted means" if np.isinf(heavy.fewest) else f"the fewest patients of a mean: {heavy.fewest:.1f}",
        ),
        Finding(
            "thresholds",
            "patients alone between two cuts of a column or score",
            "transcript",
            cut.candidates,
            f"{cut.cuts} cuts, {len(cut.narrow)} single patients between two",
        ),
    )
    return findings, single_cells(asked, given[len(asked) :])


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
    view = max((one.query.view for one in transcript.exchanges), key=lambda view: len(view.columns))
    known = Known.of(cohorts, view)
    tell("linear system with known outcomes")
    line = solve_linear(transcript, known, view)
    words = f"{line.equations} equations of rank {line.rank} for {line.unknown} unknown values of a column"
    findings = [
        Finding("linear system", "values in the row space of all linear totals", "outcomes", line.candidates, words)
    ]
    if deep:
        found = search(transcript, known, view, tell=tell)
        words = f"{found.equations} equations, {found.unknown} unknown values, residual {found.residual:.1e}"
        seeks = "values that explain all totals, from random starts"
        findings.append(Finding("non-linear search", seeks, "outcomes", found.candidates, words))
    tell("bound of the non-linear equations")
    near = bound(transcript, known, values_of(cohorts, known))
    if near is not None:
        words = f"{near.equations} equations of rank {near.rank} for {near.unknown} unknown values"
        seeks = "values that the totals determine for whoever starts near them"
        findings.append(
            Finding("non-linear bound", seeks, "outcomes, and a start near the truth", (), words, near.patients)
        )
    return tuple(findings)


def audit_transcript(
    transcript: Transcript,
    study: Study,
    *,
    cohorts: Sequence[Cohort] = (),
    whole: bool = False,
    budget: float | None = None,
    deep: bool = False,
    tell: Tell = lambda _: None,
) -> Audit:
    """Run all attacks.

    Args:
        transcript: of a run of ``study``.
        study: its data dictionary lists the values of columns.
        cohorts: patients to check candidates against; of one site, or of all.
        whole: whether they are all patients of the federation; then the attacks with known outcomes run too.
        budget: numbers per patient and column that the policy allows for one set of rows.
        deep: also the search that takes minutes.
        tell: receives lines of progress.
    """
    findings, cells = attack_transcript(transcript, [levels_of(study), levels_of(study, 10)], tell)
    if whole:
        findings += attack_with_outcomes(transcript, cohorts, deep=deep, tell=tell)
    truth = Truth(cohorts) if cohorts else None
    return Audit(findings, cells, released(transcript), budget, truth, whole, transcript.rounds, transcript.complete)


def as_mapping(audit: Audit) -> dict[str, Any]:
    """The audit as JSON types; candidate rows are not in it."""
    return {
        "ctfed_audit": 1,
        "rounds": audit.rounds,
        "complete": audit.complete,
        "patients_determined": audit.patients,
        "checked_against": {
            None: "nothing: candidates are counted as claimed",
            False: "one site's own patients",
            True: "all patients",
        }[None if audit.truth is None else audit.whole],
        "claim": CLAIM,
        "attacks": [
            {
                "attack": finding.attack,
                "looks_for": finding.looks_for,
                "knows": finding.knows,
                "candidates": len(finding.candidates),
                "patients_determined": None if finding.bound is not None else audit.determined(finding),
                "own_patients": audit.own(finding),
                "bound": finding.bound,
                "note": finding.note,
            }
            for finding in audit.findings
        ],
        "single_cells": [
            {"kind": one.kind, "says": one.says, "cells": one.cells, "of": one.occupied, "by_difference": one.derived}
            for one in audit.cells
        ],
        "budget": audit.budget,
        "released": {
            "rows": [_released(one) for one in audit.release.rows],
            "splits": [_released(one) for one in audit.release.splits],
            "largest_views": [_released(one) for one in audit.release.views[:10]],
        },
    }


def _released(one: Released) -> dict[str, Any]:
    return {
        "rows": one.rows,
        "patients": one.patients,
        "columns": one.columns,
        "numbers": one.numbers,
        "per_value": None if np.isinf(one.ratio) else round(one.ratio, 4),
        "kinds": dict(sorted(one.kinds.items(), key=lambda item: -item[1])),
    }


def as_text(audit: Audit) -> list[str]:
    """The audit as lines for a terminal."""
    lines = [f"{'attack':<18} {'knows':<12} {'candidates':>10} {'determined':>10}  looks for"]
    for finding in audit.findings:
        knows = "outcomes +" if finding.bound is not None else finding.knows
        told = f"<= {finding.bound}" if finding.bound is not None else str(audit.determined(finding))
        claimed = "-" if finding.bound is not None else str(len(finding.candidates))
        lines.append(f"{finding.attack:<18} {knows:<12} {claimed:>10} {told:>10}  {finding.looks_for}")
        if finding.note:
            lines.append(f"{'':<53} ({finding.note})")
        own = audit.own(finding)
        if own and not audit.whole:
            lines.append(f"{'':<53} {own} of this site's own patients are among the candidates")
    lines.append("")
    for one in audit.cells:
        extra = f", {one.derived} of them by difference" if one.derived else ""
        lines.append(f"cells of one in {one.kind}: {one.cells} of {one.occupied}{extra}; a cell says {one.says}")
    lines += ["", f"{'numbers told about':<36} {'patients':>8} {'columns':>8} {'numbers':>8} {'per value':>9}"]
    for told_of in (*audit.release.splits, *audit.release.rows):
        lines.append(_release_line(told_of, audit.budget))
    lines += ["", f"patients determined: {audit.patients} ({CLAIM})"]
    if not audit.complete:
        lines.append(f"the run has not ended: {audit.rounds} rounds were looked at")
    return lines


def _release_line(one: Released, budget: float | None) -> str:
    over = f"  above the policy's {budget:g}" if budget is not None and one.ratio > budget else ""
    return f"{one.rows:<36} {one.patients:>8} {one.columns:>8} {one.numbers:>8} {one.ratio:>9.3f}{over}"
