"""Who is there: the patients of the scans and of the clinical data, matched; nobody disappears."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctfed.cohort.scans.model import PatientScans
from ctfed.preparation.outcome import Aside
from ctfed.preparation.patient import Case

if TYPE_CHECKING:
    from ctfed.cohort.clinical_sources import ClinicalTable

CLINICAL, SCAN = "clinical", "scan"
_NO_ROW = Aside(CLINICAL, "no-clinical-row", "found scans and no row in the clinical data, expected both")
_NO_SCAN = Aside(SCAN, "no-scan", "found a row in the clinical data and no scan, expected both")


@dataclass(frozen=True)
class Cases:
    """All patients of a centre.

    Attributes:
        cases: those with follow-up and at least one file of scans, in the order of their identifiers.
        asides: why each other one has no row, by key.
        identifiers: the centre's own identifier of every key.
    """

    cases: tuple[Case, ...]
    asides: Mapping[str, Aside]
    identifiers: Mapping[str, str]

    @property
    def found(self) -> int:
        """Everyone who is in the scans or in the clinical data."""
        return len(self.identifiers)


def patient_key(identifier: str, secret: bytes) -> str:
    """HMAC-SHA256 of a patient's identifier under the site's secret, its first 128 bits in hex."""
    return hmac.digest(secret, f"patient|{identifier}".encode(), hashlib.sha256).hex()[:32]


def match(scans: Sequence[PatientScans], clinical: ClinicalTable, secret: bytes) -> Cases:
    """Match by identifier; both sides' leftovers are set aside by name.

    A row without an identifier is known by its number in the clinical data.
    """
    by_patient = {patient.patient: patient for patient in scans}
    reasons: dict[str, Aside] = {}
    for entry in clinical.set_aside:
        identifier = entry.patient or f"(row {entry.row} of the clinical data)"
        reasons.setdefault(identifier, Aside(CLINICAL, entry.rule, entry.reason))
    rows = {str(name) for name in clinical.frame.index}
    for identifier in by_patient:
        if identifier not in rows:
            reasons.setdefault(identifier, _NO_ROW)
    for identifier in rows:
        if identifier not in by_patient:
            reasons.setdefault(identifier, _NO_SCAN)
    everyone = sorted({*by_patient, *rows, *reasons})
    keys = {identifier: patient_key(identifier, secret) for identifier in everyone}
    return Cases(
        tuple(Case(keys[name], by_patient[name]) for name in everyone if name not in reasons),
        {keys[name]: aside for name, aside in reasons.items()},
        {keys[name]: name for name in everyone},
    )
