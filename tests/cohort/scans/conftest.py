"""The scan of LUNG1-001, read once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from ctfed.cohort.scans import Choice, PatientScans, Scan, choose_series, find_patients, read_masks, read_scan
from ctfed.imaging.volume import Volume


class Lung1(NamedTuple):
    """All that is read of one real patient."""

    patient: PatientScans
    choice: Choice
    scan: Scan
    masks: dict[str, Volume]


@pytest.fixture(scope="session")
def lung1(lung1_001_folder: Path) -> Lung1:
    """LUNG1-001 with its lungs and tumour."""
    patient = find_patients(lung1_001_folder)[0]
    choice = choose_series(patient)
    scan = read_scan(choice.series)
    return Lung1(patient, choice, scan, read_masks(patient, choice, scan))
