"""Phantoms as files: real DICOM that pydicom and SimpleITK read back, masks that round-trip, tables that are read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctfed.cli import build_parser
from ctfed.cohort.clinical_sources import load_dictionary, read_clinical
from ctfed.federation.errors import CtfedError
from ctfed.imaging.calcium import calcium_score
from ctfed.imaging.volume import Volume
from ctfed.phantom import PROFILES, PhantomCohort, PhantomPatient, draw_patients, write_cohort
from ctfed.phantom.anatomy import Chest, build
from ctfed.phantom.profiles import REGIONS
from ctfed.phantom.scanner import scan
from ctfed.prepare import read_job
from ctfed.site import site_files

pydicom = pytest.importorskip("pydicom", reason="phantoms are written by pydicom: pip install ctfed[imaging]")
highdicom = pytest.importorskip("highdicom", reason="phantoms are written by highdicom: pip install ctfed[imaging]")
sitk = pytest.importorskip("SimpleITK")

COHORT = PhantomCohort(
    patients=6, sites=3, seed=11, matrix=64, profiles=tuple(profile.noise_free() for profile in PROFILES)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    write_cohort(folder, COHORT)
    return folder


@pytest.fixture(scope="module")
def truth(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "truth.json").read_text())
    return content


def study(folder: Path, patient: PhantomPatient) -> Path:
    [found] = (folder / COHORT.site_names[patient.site] / "scans" / "CTFED-PHANTOM" / patient.identifier).iterdir()
    return found


def read_ct(study: Path) -> Volume:
    [series] = study.glob("2.000000-*")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    return Volume.from_sitk(reader.Execute())


def made(patient: PhantomPatient) -> tuple[Chest, Volume]:
    profile = COHORT.profile(patient.site)
    chest = build(patient, profile, COHORT.matrix)
    return chest, scan(chest.image, profile, patient.seed)


@pytest.mark.parametrize("patient", draw_patients(COHORT)[::2], ids=lambda p: p.identifier)
def test_a_series_reads_back_as_it_was_made(folder: Path, truth: dict[str, Any], patient: PhantomPatient) -> None:
    chest, image = made(patient)
    read = read_ct(study(folder, patient))
    image.require_same_grid(read, "as read")
    np.testing.assert_array_equal(read.array, image.array)
    [known] = [entry for entry in truth["patients"] if entry["patient"] == patient.identifier]
    score = calcium_score(read, chest.masks["coronaries"])
    assert score.agatston == pytest.approx(known["agatston"], rel=1e-12)
    assert known["voxels"]["tumour"] == chest.masks["tumour"].array.sum()


def test_masks_round_trip_through_rtstruct_and_seg(folder: Path) -> None:
    written = set()
    for patient in draw_patients(COHORT):
        chest, _ = made(patient)
        [file] = study(folder, patient).glob("3.000000-*/*.dcm")
        dataset = pydicom.dcmread(file)
        written.add(dataset.Modality)
        names = dict(zip(COHORT.profile(patient.site).roi_names, REGIONS, strict=True))
        found = rasterised(dataset, chest.image) if dataset.Modality == "RTSTRUCT" else segments(file, chest.image)
        assert {names[name] for name in found} == {r for r in REGIONS if chest.masks[r].array.any()}
        for name, mask in found.items():
            np.testing.assert_array_equal(mask, chest.masks[names[name]].array, err_msg=name)
    assert written == {"RTSTRUCT", "SEG"}


def rasterised(dataset: Any, grid: Volume) -> dict[str, np.ndarray]:
    """Voxels by their centres and the even-odd rule, with matplotlib's test of points in polygons."""
    from matplotlib.path import Path as Polygon

    nz, ny, nx = grid.shape
    centres = np.stack(np.meshgrid(np.arange(nx), np.arange(ny)), axis=-1).reshape(-1, 2)
    names = {roi.ROINumber: roi.ROIName for roi in dataset.StructureSetROISequence}
    found = {}
    for contours in dataset.ROIContourSequence:
        mask = np.zeros((nz, ny, nx), dtype=bool)
        for contour in contours.ContourSequence:
            index = grid.index(np.array(contour.ContourData, dtype=float).reshape(-1, 3))
            k = round(index[0, 0])
            mask[k] ^= Polygon(index[:, :0:-1]).contains_points(centres).reshape(ny, nx)
        found[names[contours.ReferencedROINumber]] = mask
    return found


def segments(file: Path, grid: Volume) -> dict[str, np.ndarray]:
    """The segments of a SEG by their labels, on the grid of the scan."""
    seg = highdicom.seg.segread(file)
    found = {}
    for number in seg.segment_numbers:
        volume = seg.get_volume(segment_numbers=[number], combine_segments=True)
        mask = np.zeros(grid.shape, dtype=bool)
        array, affine = np.asarray(volume.array), volume.affine
        for k, j, i in np.argwhere(array):
            z, y, x = np.rint(grid.index((affine @ [k, j, i, 1])[:3])).astype(int)
            mask[z, y, x] = True
        found[seg.get_segment_description(number).segment_label] = mask
    return found


def test_the_scans_reader_chooses_the_ct_and_finds_all_masks(folder: Path) -> None:
    from ctfed.cohort.scans import choose_series, find_patients, read_masks, read_scan

    patients = draw_patients(COHORT)
    for site, name in enumerate(COHORT.site_names):
        found = find_patients(folder / name / "scans" / "CTFED-PHANTOM")
        assert [p.patient for p in found] == [p.identifier for p in patients if p.site == site]
        choice = choose_series(found[0])
        scan_read = read_scan(choice.series)
        [chest, image] = made(next(p for p in patients if p.site == site))
        image.require_same_grid(scan_read.volume, "as read")
        np.testing.assert_array_equal(scan_read.volume.array, image.array)
        masks = read_masks(found[0], choice, scan_read)
        assert set(masks) == {region for region in REGIONS if chest.masks[region].array.any()}
        for region, mask in masks.items():
            np.testing.assert_array_equal(mask.array, chest.masks[region].array, err_msg=region)


def test_every_file_says_that_it_is_synthetic_and_where_it_belongs(folder: Path) -> None:
    seen = set()
    for file in sorted(folder.rglob("*.dcm")):
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        assert dataset.PatientID.startswith("PHANTOM-")
        assert "SYNTHETIC" in dataset.ImageComments
        for name in ("PatientName", "InstitutionName", "StudyDescription", "SeriesDescription"):
            if name in dataset:
                assert "SYNTHETIC" in str(dataset[name].value), name
        assert dataset.PatientID == file.parents[2].name
        assert dataset.SOPInstanceUID not in seen
        seen.add(dataset.SOPInstanceUID)
        assert len(dataset.SOPInstanceUID) <= 64
    assert len(seen) > 6 * 40


def test_the_attributes_are_the_sites_own(folder: Path) -> None:
    for patient in draw_patients(COHORT)[::2]:
        profile = COHORT.profile(patient.site)
        slices = [pydicom.dcmread(file) for file in study(folder, patient).glob("2.000000-*/*.dcm")]
        slices.sort(key=lambda s: float(s.ImagePositionPatient[2]))
        assert {s.Manufacturer for s in slices} == {profile.manufacturer}
        assert {s.ConvolutionKernel for s in slices} == {profile.kernel}
        assert {float(s.KVP) for s in slices} == {profile.kvp}
        numbers = [s.InstanceNumber for s in slices]
        assert numbers == sorted(numbers, reverse=profile.head_first)
        gaps = np.diff([float(s.ImagePositionPatient[2]) for s in slices])
        np.testing.assert_allclose(gaps, profile.slice_spacing, atol=1e-9)
        assert gaps.sum() + profile.slice_spacing >= 208
        assert bool(list(study(folder, patient).glob("1.000000-*"))) == profile.scout


def test_the_clinical_tables_read_back_by_their_dictionaries(folder: Path, truth: dict[str, Any]) -> None:
    known = {entry["patient"]: entry for entry in truth["patients"]}
    for site in COHORT.site_names:
        dictionary = load_dictionary(folder / site / "dictionary.yaml")
        table = read_clinical(folder / site / "clinical.csv", dictionary, "days")
        assert table.set_aside == ()
        assert len(table.frame) == 2
        assert "SYNTHETIC" in (folder / site / "clinical.csv").read_text(encoding="utf-8")
        for patient, row in table.frame.iterrows():
            entry = known[str(patient)]
            wanted = [
                entry[name] for name in ("days", "event", "age_years", "female", "smoking", "stage_group", "ecog")
            ]
            found = row[["time", "event", "age", "female", "smoking", "stage", "ecog"]].to_numpy(float)
            np.testing.assert_array_equal(found, np.array(wanted, dtype=float))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_equal_cohorts_are_equal_files_and_another_seed_is_not(folder: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path / "again", COHORT)
    assert digests(tmp_path / "again") == digests(folder)
    write_cohort(tmp_path / "other", replace(COHORT, seed=12, patients=3))
    common = set(digests(tmp_path / "other").items()) & set(digests(folder).items())
    assert {Path(name).name for name, _ in common} <= {"README.txt", "dictionary.yaml", "extraction.yaml", "site.yaml"}


def test_a_folder_with_files_is_left_alone(folder: Path) -> None:
    before = digests(folder)
    with pytest.raises(CtfedError, match="found files in it, expected an empty folder"):
        write_cohort(folder, COHORT)
    assert digests(folder) == before


def test_the_command_writes_a_cohort(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = build_parser().parse_args(
        ["phantom", "--out", str(tmp_path / "p"), "--patients", "2", "--sites", "2", "--seed", "3", "--matrix", "64"]
    )
    assert options.command(options) == 0
    assert "2 SYNTHETIC patients at 2 sites, seed 3" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "p" / "truth.json").read_text())["patients"]) == 2
    jobs = [read_job(site) for site in site_files(tmp_path / "p")]
    assert [job.site.site for job in jobs] == ["phantom-a", "phantom-b"]
    for job in jobs:
        assert job.where.scans.is_dir()
        assert len(job.site.secret_of(str(job.site.site))) == 32  # and no other user may read it
