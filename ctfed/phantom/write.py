"""A whole phantom cohort on disk: for each centre scans, clinical table and dictionary; beside them the truth.

FOLDER/README.txt                                   what this is
FOLDER/truth.json                                   seed, planted coefficients, every patient's true values
FOLDER/extraction.yaml                              the settings that all centres measure by
FOLDER/phantom-a/site.yaml, site.secret             for `ctfed prepare --site FOLDER` and `ctfed simulate --site FOLDER`
FOLDER/phantom-a/clinical.csv, dictionary.yaml      in the centre's own columns and codes
FOLDER/phantom-a/scans/CTFED-PHANTOM/PHANTOM-A-0001/STUDY/SERIES/*.dcm
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

import ctfed
from ctfed.federation.errors import CtfedError
from ctfed.phantom import dicom
from ctfed.phantom.patients import PhantomCohort, PhantomPatient, draw_patients
from ctfed.phantom.rtstruct import write_rtstruct
from ctfed.phantom.seg import write_seg
from ctfed.phantom.tables import DIALECTS, clinical_csv, dictionary

TRUTH, CLINICAL, DICTIONARY, SCANS = "truth.json", "clinical.csv", "dictionary.yaml", "scans"
EXTRACTION, SITE, SECRET = "extraction.yaml", "site.yaml", "site.secret"
SETTINGS = Path(ctfed.__file__).resolve().parent.parent / "site_config" / "extraction" / "phantom.yaml"
_README = """SYNTHETIC DATA: chest CT phantoms made by `ctfed phantom`, for tests and demonstrations.
No patient is behind any scan, value or date in this folder. truth.json holds what was planted.
"""


def write_cohort(folder: Path, cohort: PhantomCohort, progress: Callable[[int], None] = lambda done: None) -> Path:
    """Write a cohort; the path of its truth.json, which is written last.

    Args:
        folder: made when absent; must be empty.
        cohort: what to make. Equal cohorts give equal files, bit for bit, with equal versions of the libraries.
        progress: called with the number of patients written so far.

    Raises:
        CtfedError: when the folder is not empty, a library that writes DICOM is not installed, or the shipped settings
            are not there.
    """
    _require_libraries()
    if not SETTINGS.is_file():
        raise CtfedError(f"{SETTINGS}: found no file, expected the settings of the extraction that ship with ctfed")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise CtfedError(f"{folder}: found files in it, expected an empty folder")
    (folder / "README.txt").write_text(_README)
    (folder / EXTRACTION).write_bytes(SETTINGS.read_bytes())
    patients = draw_patients(cohort)
    truths = []
    for done, patient in enumerate(patients, start=1):
        truths.append(_write_patient(folder / cohort.site_names[patient.site] / SCANS, patient, cohort))
        progress(done)
    for site, name in enumerate(cohort.site_names):
        _write_table(folder / name, [patient for patient in patients if patient.site == site], cohort)
        _write_site(folder / name, cohort.seed)
    path = folder / TRUTH
    path.write_text(json.dumps(_truth(cohort, truths), indent=1, sort_keys=True) + "\n")
    return path


def _write_patient(scans: Path, patient: PhantomPatient, cohort: PhantomCohort) -> dict[str, Any]:
    from ctfed.phantom import anatomy, scanner

    profile, site = cohort.profile(patient.site), cohort.site_names[patient.site]
    chest = anatomy.build(patient, profile, cohort.matrix)
    image = scanner.scan(chest.image, profile, patient.seed)
    study = dicom.Study(patient, profile, site, cohort.seed, scans / dicom.COLLECTION)
    if profile.scout:
        dicom.write_scout(study, image)
    slices = dicom.write_ct(study, image)
    (write_seg if profile.masks == "seg" else write_rtstruct)(study, slices, chest.masks)
    return {
        "patient": patient.identifier,
        "site": site,
        **patient.covariates,
        "age_years": patient.age,
        "female": int(patient.female),
        "smoking": patient.smoking,
        "stage_group": patient.stage,
        "ecog": patient.ecog,
        "nodes": patient.nodes,
        "days": patient.days,
        "event": int(patient.event),
        "agatston": chest.agatston,
        "calcified_lesions": chest.lesions,
        "tumour_volume_mm3": chest.tumour_volume,
        "tumour_sd_hu": round(chest.tumour_sd, 9),
        "voxels": {region: int(mask.array.sum()) for region, mask in chest.masks.items()},
        "study_uid": study.uid("study"),
        "series_uid": study.uid(f"series {dicom.CT_NUMBER}"),
    }


def _write_table(folder: Path, patients: list[PhantomPatient], cohort: PhantomCohort) -> None:
    dialect = DIALECTS[cohort.profile(patients[0].site).table % len(DIALECTS)]
    (folder / CLINICAL).write_text(clinical_csv(patients, dialect), encoding="utf-8")
    content = yaml.safe_dump(dictionary(folder.name, dialect), sort_keys=False, allow_unicode=True)
    (folder / DICTIONARY).write_text(content, encoding="utf-8")


def _write_site(folder: Path, seed: int) -> None:
    """The centre's site file. Its secret follows from the seed, so that everyone deals out the same folds."""
    content = {
        "ctfed_site": 1,
        "site": folder.name,
        "data": {"prepared": True},
        "prepare": {
            "scans": SCANS,
            "clinical": CLINICAL,
            "dictionary": DICTIONARY,
            "extraction": f"../{EXTRACTION}",
            "output": "prepared",
        },
        "secret": SECRET,
    }
    text = yaml.safe_dump(content, sort_keys=False)
    (folder / SITE).write_text(f"# A SYNTHETIC centre, made by `ctfed phantom`.\n{text}", encoding="utf-8")
    (folder / SECRET).touch(mode=0o600)
    (folder / SECRET).write_bytes(hashlib.sha256(f"ctfed phantom|{seed}|{folder.name}".encode()).digest())


def _truth(cohort: PhantomCohort, patients: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "notice": dicom.COMMENT,
        "seed": cohort.seed,
        "matrix": cohort.matrix,
        "effects": asdict(cohort.effects),
        "sites": {name: asdict(cohort.profile(site)) for site, name in enumerate(cohort.site_names)},
        "patients": patients,
    }


def _require_libraries() -> None:
    for name in ("pydicom", "highdicom", "contourpy"):
        if find_spec(name) is None:
            raise CtfedError(f"package {name!r} is not installed; phantoms need it: ctfed[imaging]")
