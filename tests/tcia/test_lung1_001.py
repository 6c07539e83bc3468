"""The real patient LUNG1-001 as a downloaded collection: partition and `ctfed prepare`, against PyRadiomics itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctfed.cli import main

for library in ("pydicom", "SimpleITK", "radiomics", "pyarrow"):
    pytest.importorskip(library, reason="scans are read and measured: pip install ctfed[imaging]")

pytestmark = pytest.mark.slow


def test_features_of_the_real_patient_equal_pyradiomics(
    lung1_001_folder: Path, shared_data: Path, tmp_path: Path
) -> None:
    study = tmp_path / "NSCLC-Radiomics" / "LUNG1-001" / "09-18-2008-StudyID-NA-69331"
    shutil.copytree(lung1_001_folder / "image", study / "0.000000-NA-82046")
    shutil.copytree(lung1_001_folder / "mask_rtstruct", study / "3.000000-NA-35578")
    table = shared_data / "radiomics" / "lung1_clinical_and_seed.csv"
    assert main(["tcia", "clinical", "--table", "nsclc_radiomics", str(table), "--out", str(tmp_path / "c")]) == 0
    arguments = ["--clinical", str(tmp_path / "c" / "clinical.csv"), "--by", "manufacturer", "--minimum", "1"]
    folder = ["--folder", str(tmp_path / "NSCLC-Radiomics")]
    assert main(["tcia", "partition", *folder, *arguments, "--out", str(tmp_path / "centres")]) == 0
    assert main(["prepare", "--site", str(tmp_path / "centres"), "--workers", "1"]) == 0
    table_of = pd.read_csv(tmp_path / "centres" / "siemens" / "out" / "local" / "features.csv")
    row = table_of.iloc[0]
    assert row["tumour.original_shape_VoxelVolume"] == pytest.approx(54639 * 0.9765625**2 * 3)
    expected = _pyradiomics(tmp_path / "NSCLC-Radiomics")
    assert len(expected) == 107
    for name, value in expected.items():
        assert row[f"tumour.{name}"] == pytest.approx(value, rel=1e-9), name


def _pyradiomics(folder: Path) -> dict[str, float]:
    """The 107 features by PyRadiomics itself, on the box of the tumour with a margin."""
    import SimpleITK as sitk
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    from ctfed.cohort.scans import choose_series, find_patients, read_masks, read_scan

    patient = find_patients(folder)[0]
    choice = choose_series(patient)
    scan = read_scan(choice.series)
    tumour = read_masks(patient, choice, scan)["tumour"].array
    box = tuple(slice(max(0, axis.min() - 5), axis.max() + 6) for axis in np.nonzero(tumour))
    image, mask = (sitk.GetImageFromArray(array[box]) for array in (scan.volume.array, tumour.astype(np.uint8)))
    for one in (image, mask):
        one.SetSpacing([float(value) for value in scan.volume.spacing])
    extractor = RadiomicsFeatureExtractor(binWidth=25, additionalInfo=False)
    found = extractor.execute(image, mask)
    return {name: float(value) for name, value in found.items() if name.startswith("original_")}
