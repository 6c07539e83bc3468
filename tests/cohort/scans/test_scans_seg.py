"""DICOM SEG in and out: what is written is read back, and what others wrote is read as they meant it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dicom_maker as maker
import numpy as np
import pydicom
import pytest

from ctfed.cohort.scans import (
    Algorithm,
    PatientScans,
    RegionNames,
    Scan,
    Wanted,
    choose_series,
    find_patients,
    read_masks,
    read_scan,
    write_seg,
)
from ctfed.cohort.scans.files import read_volume
from ctfed.cohort.scans.grids import place
from ctfed.cohort.scans.seg import SegKind, Segments
from ctfed.federation.errors import CtfedError

ALGORITHM = Algorithm("nnU-Net test", "2.1", "ab" * 32)
SMALL = Wanted(slices=2, coverage=1.0)


@pytest.fixture
def scanned(tmp_path: Path) -> tuple[PatientScans, Scan]:
    """A made patient with a scan and no masks."""
    maker.write(tmp_path / "dicom" / "ct", maker.ct())
    patient = find_patients(tmp_path / "dicom")[0]
    return patient, read_scan(choose_series(patient, SMALL).series)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_what_is_written_is_read_back(kind: SegKind, scanned: tuple[PatientScans, Scan], tmp_path: Path) -> None:
    patient, scan = scanned
    rng = np.random.default_rng(5)
    tumour = maker.tumour().astype(bool)
    lung = rng.random(tumour.shape) < 0.3
    lung[[0, 6]] = False  # slices without a voxel are left out of the file
    lung = lung & ~tumour if kind == "LABELMAP" else lung | tumour
    masks = {"lung": scan.volume.with_array(lung), "tumour": scan.volume.with_array(tumour)}
    write_seg(tmp_path / "dicom" / "seg.dcm", patient.series[0], masks, ALGORITHM, kind)
    again = find_patients(tmp_path / "dicom")[0]
    found = read_masks(again, choose_series(again, SMALL), scan)
    assert list(found) == ["lung", "tumour"]
    for region, mask in masks.items():
        assert np.array_equal(found[region].array, mask.array)
        assert found[region].same_grid(scan.volume)


def test_a_seg_says_what_it_is(scanned: tuple[PatientScans, Scan], tmp_path: Path) -> None:
    patient, scan = scanned
    mask = scan.volume.with_array(maker.tumour())
    for name in ("a.dcm", "b.dcm"):
        write_seg(tmp_path / name, patient.series[0], {"tumour": mask, "nodes": mask}, ALGORITHM)
    one, two = (pydicom.dcmread(tmp_path / name) for name in ("a.dcm", "b.dcm"))
    assert one.SOPInstanceUID == two.SOPInstanceUID
    assert one.SegmentationType == "BINARY"
    assert len(one.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == maker.SLICES
    assert one.FrameOfReferenceUID == patient.series[0].frame_uid
    codes = [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in one.SegmentSequence]
    assert codes == ["108369006", "62683002"]
    identified = one.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (identified.AlgorithmName, identified.AlgorithmVersion) == ("nnU-Net test", "2.1")
    assert "ab" * 32 in identified.AlgorithmParameters


def test_a_seg_of_a_turned_series_lands_where_it_was(tmp_path: Path) -> None:
    slices = maker.ct()
    for k, data in enumerate(slices):  # feet first: rows run to the right, slices downwards
        data.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [30.0, -40.0, 50.0 - 3.0 * k]
    maker.write(tmp_path / "ct", slices)
    patient = find_patients(tmp_path)[0]
    choice = choose_series(patient, SMALL)
    scan = read_scan(choice.series)
    assert scan.volume.direction == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    mask = scan.volume.with_array(maker.tumour(5, 9))
    write_seg(tmp_path / "seg.dcm", choice.series, {"tumour": mask}, ALGORITHM)
    again = find_patients(tmp_path)[0]
    assert np.array_equal(read_masks(again, choice, scan)["tumour"].array, mask.array.astype(bool))


def test_what_cannot_be_a_seg_is_refused(scanned: tuple[PatientScans, Scan], tmp_path: Path) -> None:
    patient, scan = scanned
    mask = scan.volume.with_array(maker.tumour())
    with pytest.raises(CtfedError, match="100 voxels in both tumour and nodes"):
        write_seg(tmp_path / "x.dcm", patient.series[0], {"tumour": mask, "nodes": mask}, ALGORITHM, "LABELMAP")
    with pytest.raises(CtfedError, match="no voxel"):
        write_seg(tmp_path / "x.dcm", patient.series[0], {"lung": mask.with_array(mask.array * 0)}, ALGORITHM)
    assert not (tmp_path / "x.dcm").exists()


def test_lung1_001_survives_a_seg(lung1: Any, tmp_path: Path) -> None:
    write_seg(tmp_path / "seg.dcm", lung1.choice.series, lung1.masks, ALGORITHM)
    segments = Segments(tmp_path / "seg.dcm")
    assert list(segments.names.values()) == ["lung", "tumour"]
    for number, region in segments.names.items():
        assert np.array_equal(place(segments.read(number), lung1.scan.volume).array, lung1.masks[region].array)


# Files that other programs wrote.


@pytest.fixture(scope="module")
def small(shared_data: Path) -> Path:
    """Small DICOM files of other projects."""
    folder = shared_data / "imaging" / "dicom_small"
    if not folder.is_dir():
        pytest.skip(f"no small DICOM files at {folder}")
    return folder


def test_dcmqi_segments_equal_its_nrrd(small: Path) -> None:
    folder = small / "dcmqi"
    patient = next(found for found in find_patients(folder, "dicom") if found.patient == "99000")
    scan = read_scan(choose_series(patient, SMALL).series)
    liver = place(Segments(folder / "liver.dcm").read(1), scan.volume)
    assert np.array_equal(liver.array, place(read_volume(folder / "liver_seg.nrrd"), scan.volume).array)
    overlapping = Segments(folder / "partial_overlaps.dcm")
    counts = {}
    for path in sorted(folder.glob("partial_overlaps-*.nrrd")):
        labels = read_volume(path)
        for label in np.unique(labels.array)[1:]:
            expected = place(labels.with_array(labels.array == label), scan.volume).array
            assert np.array_equal(place(overlapping.read(int(label)), scan.volume).array, expected)
            counts[overlapping.names[int(label)]] = int(expected.sum())
    assert counts == {"GREEN": 9602, "ORANGE": 11888, "PURPLE": 10743, "LIGHT_BLUE": 6693, "DARK_BLUE": 4713}


def test_dicom4qi_frames_that_end_within_a_byte(small: Path) -> None:
    patient = find_patients(small / "dicom4qi_data_5")[0]
    choice = choose_series(patient, SMALL)
    scan = read_scan(choice.series, chest=False)
    mask = read_masks(patient, choice, scan, {"any": ".*"})["any"].array
    # Its maker: the four corners of each slice, and in the middle one what the image shows.
    corners = np.zeros(mask.shape, dtype=bool)
    corners[:, [0, 0, -1, -1], [0, -1, 0, -1]] = True
    assert np.array_equal(mask[0] & corners[0], corners[0])
    assert np.array_equal(mask[1], (scan.volume.array[1] > 0) | corners[1])
    assert mask.sum() == 322


def test_highdicom_segments(small: Path) -> None:
    folder = small / "highdicom"
    binary = Segments(folder / "seg_image_ct_binary.dcm").read(1)
    assert binary.shape == (3, 16, 16)
    assert binary.array.sum() == 638
    fractional = Segments(folder / "seg_image_ct_binary_fractional.dcm").read(1)
    assert np.array_equal(fractional.array, binary.array)
    halves = Segments(folder / "seg_image_ct_true_fractional.dcm").read(1)
    assert np.array_equal(halves.array, binary.array)
    overlap = Segments(folder / "seg_image_ct_binary_overlap.dcm")
    assert {name: int(overlap.read(n).array.sum()) for n, name in overlap.names.items()} == {
        "first segment": 64,
        "second segment": 16,
    }


def test_rt_utils_contours(small: Path) -> None:
    patient = find_patients(small / "rt-utils")[0]
    choice = choose_series(patient, SMALL)
    scan = read_scan(choice.series)
    mask = read_masks(patient, choice, scan, {"roi": RegionNames((r"roi-\d+",))})["roi"].array
    # Its 1 cm grid: an outline of 24 mm and a square hole in it, in the lower slice.
    assert mask[0].any()
    assert not mask[1].any()


def test_lungmask_slices_are_read(small: Path) -> None:
    patient = find_patients(small / "lungmask")[0]
    scan = read_scan(choose_series(patient, SMALL).series)
    assert scan.volume.shape == (2, 512, 512)
    assert (scan.volume.array.min(), scan.volume.array.max()) == (-2048, 1502)
    assert scan.acquisition.day is None
