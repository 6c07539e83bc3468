"""Run the attacks on a transcript and say what they found: two figures, with the list of attacks as their claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.cohort import Cohort
from ctfed.study import Study
from server.audit.attacks.cells import Single
from server.audit.findings import Finding, Tell, attack_transcript, attack_with_outcomes
from server.audit.patients import Truth
from server.audit.released import Release, Released, released
from server.audit.transcript import Transcript

CLAIM = "found by the attacks that are listed, on this transcript; not a proof that no other attack finds more"
MOST_LEVELS = 10_000


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
