"""Scans of a centre: finding patients in a folder, choosing the series to measure, reading it and its masks.

for patient in find_patients(folder):
    choice = choose_series(patient)             # CaseFault: this patient is set aside
    scan = read_scan(choice.series)             # HU, with its acquisition
    masks = read_masks(patient, choice, scan)   # region -> bool mask on the scan's grid
"""

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans.choose import Wanted, choose_series
from ctfed.cohort.scans.find import LAYOUTS, find_patients
from ctfed.cohort.scans.masks import DEFAULT_NAMES, read_masks
from ctfed.cohort.scans.model import (
    Acquisition,
    Choice,
    Header,
    MaskFile,
    PatientScans,
    RegionNames,
    Rejection,
    Scan,
    Series,
)
from ctfed.cohort.scans.read import read_scan
from ctfed.cohort.scans.seg import Algorithm, write_seg

__all__ = [
    "DEFAULT_NAMES",
    "LAYOUTS",
    "Acquisition",
    "Algorithm",
    "CaseFault",
    "Choice",
    "Header",
    "MaskFile",
    "PatientScans",
    "RegionNames",
    "Rejection",
    "Scan",
    "Series",
    "Wanted",
    "choose_series",
    "find_patients",
    "read_masks",
    "read_scan",
    "write_seg",
]
