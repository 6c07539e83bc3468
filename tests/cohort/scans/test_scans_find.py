"""Patients in every layout that a centre may have, and reading what is found."""

from __future__ import annotations

import datetime
import json
import pickle
from pathlib import Path

import dicom_maker as maker
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import RLELossless

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans import Wanted, choose_series, find_patients, read_masks, read_scan
from ctfed.cohort.scans.files import region_name
from ctfed.cohort.scans.grids import to_patient_axes
from ctfed.federation.errors import CtfedError
from ctfed.imaging.volume import Volume

SMALL = Wanted(slices=2, coverage=1.0)


def whole(folder: Path, layout: str = "auto") -> dict[str, tuple[Volume, dict[str, Volume]]]:
    """Scan and masks of each patient."""
    found = {}
    for patient in find_patients(folder, layout):
        choice = choose_series(patient, SMALL)
        scan = read_scan(choice.series)
        found[patient.patient] = (scan.volume, read_masks(patient, choice, scan))
    return found


def as_made(volume: Volume) -> bool:
    """Whether a volume is the one that the maker made."""
    made = Volume(maker.voxels(), maker.SPACING, maker.ORIGIN)
    return volume.same_grid(made) and np.array_equal(volume.array, made.array)


def test_a_tcia_tree_in_any_nesting(tmp_path: Path) -> None:
    for patient, deep in (("A-1", "A-1/01-01-2001-CT/1.000-Chest-1234"), ("B-2", "x/y/z/B"), ("C-3", ".")):
        slices = maker.ct(patient=patient)
        maker.write(tmp_path / deep, slices, prefix=patient)
        pydicom.dcmwrite(tmp_path / deep / f"{patient} rt.dcm", maker.rtstruct(slices[0]))
    (tmp_path / "LICENSE").write_text("not a scan")
    (tmp_path / "clinical.csv").write_text("not,a,scan")
    found = whole(tmp_path)
    assert list(found) == ["A-1", "B-2", "C-3"]
    for volume, masks in found.values():
        assert as_made(volume)
        assert np.array_equal(masks["tumour"].array, maker.tumour().astype(bool))


def test_files_without_a_suffix_are_dicom_by_their_magic(tmp_path: Path) -> None:
    for number, path in enumerate(maker.write(tmp_path / "p", maker.ct())):
        path.rename(path.with_name(f"IM{number:05d}"))
    (tmp_path / "p" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM and no more")
    assert as_made(whole(tmp_path)[maker.PATIENT][0])


def test_folders_name_patients_whose_ids_are_blank(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        maker.write(tmp_path / name / "ct", maker.ct(patient="ANON"))
    assert [patient.patient for patient in find_patients(tmp_path, "folders")] == ["p1", "p2"]
    for name in ("p3", "p4"):
        maker.write(tmp_path / "blank" / name / "ct", maker.ct(patient=""))
    assert [patient.patient for patient in find_patients(tmp_path / "blank")] == ["p3", "p4"]


def test_chaimeleon_studies_are_links_and_only_listed_series_count(tmp_path: Path) -> None:
    dataset, lake = tmp_path / "datasets" / "uuid", tmp_path / "datalake"
    slices = maker.ct()
    maker.write(lake / "s1" / "listed", slices)
    maker.write(lake / "s1" / "other", maker.ct(series="other", spacing=(2.0, 1.5, 1.0)))
    pydicom.dcmwrite(lake / "s1" / "listed" / "rt.dcm", maker.rtstruct(slices[0]))
    (dataset / "subject1").mkdir(parents=True)
    (dataset / "subject1" / "study1").symlink_to(lake / "s1")
    study = {
        "studyId": "s1",
        "subjectName": "subject1",
        "path": "subject1/study1",
        "series": [{"folderName": "listed"}],
    }
    (dataset / "index.json").write_text(json.dumps([study]))
    patients = find_patients(dataset)
    assert [patient.patient for patient in patients] == ["subject1"]
    assert len(patients[0].series) == 1
    volume, masks = whole(dataset)["subject1"]
    assert as_made(volume)
    assert masks["tumour"].array.sum() == 100


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"path": "a"}]', "[" * 100_000, '[{"subjectName": 3}]'])
def test_an_index_that_is_none_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(CtfedError, match=r"index\.json: .*expected") as caught:
        find_patients(tmp_path)
    assert not isinstance(caught.value, CaseFault)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_files_flat_and_in_folders(suffix: str, tmp_path: Path) -> None:
    maker.image(maker.voxels(), tmp_path / f"case_1{suffix}")
    maker.image(maker.tumour(), tmp_path / f"case_1_tumour{suffix}")
    maker.image(maker.tumour(4, 5), tmp_path / f"case_1_lung_left{suffix}")
    maker.image(maker.voxels(), tmp_path / f"case_10{suffix}")
    maker.image(maker.tumour(2, 4), tmp_path / f"case_10_GTV-1{suffix}")
    maker.image(maker.voxels(), tmp_path / "p3" / f"image{suffix}")
    maker.image(maker.tumour(), tmp_path / "p3" / f"mask_tumor{suffix}")
    maker.image(maker.voxels(), tmp_path / f"p4_image{suffix}")
    maker.image(maker.tumour(), tmp_path / f"p4_nodule{suffix}")
    found = whole(tmp_path)
    assert {name: sorted(masks) for name, (_, masks) in found.items()} == {
        "case_1": ["lung", "tumour"],
        "case_10": ["tumour"],
        "p3": ["tumour"],
        "p4": ["tumour"],
    }
    assert all(as_made(volume) for volume, _ in found.values())
    assert [int(masks["tumour"].array.sum()) for _, masks in found.values()] == [100, 16, 100, 100]


def test_names_of_mask_files() -> None:
    names = ["p1_tumour", "image_tumour", "mask_tumour", "tumour_mask", "p1_seg-tumour", "tumour"]
    assert {region_name(name, "p1") for name in names} == {"tumour"}
    assert region_name("p1_mask", "p1") == "mask"


def test_turned_axes_are_turned_back(tmp_path: Path) -> None:
    made = Volume(maker.voxels(), maker.SPACING, maker.ORIGIN)
    for order in ("RAS", "LPI", "PIR", "ASL"):
        turned = sitk.DICOMOrient(made.to_sitk(), order)
        assert as_made(to_patient_axes(Volume.from_sitk(turned)))
        sitk.WriteImage(turned, str(tmp_path / f"{order}.nii.gz"))
        mask = made.with_array(maker.tumour()).to_sitk()
        sitk.WriteImage(
            sitk.DICOMOrient(mask, order[::-1] if order == "ASL" else "RPS"), str(tmp_path / f"{order}_gtv.nii.gz")
        )
    found = whole(tmp_path)
    for volume, masks in found.values():
        assert volume.same_grid(made)
        assert np.array_equal(volume.array, made.array)
        assert np.array_equal(masks["tumour"].array, maker.tumour().astype(bool))


def test_a_mask_cut_to_its_box_is_placed(tmp_path: Path) -> None:
    maker.image(maker.voxels(), tmp_path / "p.nii.gz")
    made = Volume(maker.tumour(), maker.SPACING, maker.ORIGIN)
    box = made.box(1)
    assert box is not None
    sitk.WriteImage(made.crop(box).to_sitk(), str(tmp_path / "p_tumour.nii.gz"))
    assert np.array_equal(whole(tmp_path)["p"][1]["tumour"].array, made.array.astype(bool))


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    maker.write(tmp_path / "elsewhere" / "ct", maker.ct())
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "p").symlink_to(tmp_path / "elsewhere")
    (tree / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tree)
    (tree / "self").symlink_to(tree / "self")
    (tree / "gone").symlink_to(tree / "nowhere")
    found = find_patients(tree)
    assert len(found) == 1
    assert len(found[0].series[0].headers) == maker.SLICES


def test_days_are_offsets_and_no_date_is_shown(tmp_path: Path) -> None:
    maker.write(tmp_path / "first", maker.ct())
    later = maker.ct(series="later", study="later")
    for data in later:
        data.StudyDate = "20200201"
    maker.write(tmp_path / "later", later)
    patient = find_patients(tmp_path)[0]
    assert [series.day for series in patient.series] == [0, 29]
    assert patient.series[0].days_after(datetime.date(2019, 12, 31)) == 3
    scan = read_scan(patient.series[1])
    assert scan.acquisition.day == 29
    assert "2020" not in repr(scan.acquisition)
    assert "20200201" not in repr(patient)
    assert "datetime" not in repr(patient)
    for secret in (maker.PATIENT, "1.2.826", str(tmp_path)):
        assert secret not in repr(scan.acquisition)
        assert secret not in repr(patient)


def test_what_is_found_and_faults_go_to_other_processes(tmp_path: Path) -> None:
    maker.write(tmp_path, maker.ct())
    patients = find_patients(tmp_path)
    assert pickle.loads(pickle.dumps(patients)) == patients
    fault = pickle.loads(pickle.dumps(CaseFault("one-slice", "found one slice, expected a volume")))
    assert (fault.rule, fault.sentence) == ("one-slice", "found one slice, expected a volume")


def test_a_rule_is_a_kebab_case_name() -> None:
    with pytest.raises(ValueError, match="hyphens"):
        CaseFault("One slice", "found one")


def test_rescale_is_applied_slice_by_slice(tmp_path: Path) -> None:
    slices = maker.ct()
    for k, data in enumerate(slices):  # as some PET-CTs: another intercept for each slice
        data.RescaleIntercept = -1024 - k
        data.PixelData = (maker.voxels()[k].astype(np.int32) + 1024 + k).astype(np.uint16).tobytes()
    maker.write(tmp_path / "own", slices)
    assert as_made(read_scan(find_patients(tmp_path / "own")[0].series[0]).volume)
    half = maker.ct()
    for data in half:
        data.RescaleSlope = 0.5
    maker.write(tmp_path / "half", half)
    halves = read_scan(find_patients(tmp_path / "half")[0].series[0]).volume
    assert halves.array.dtype == np.float32
    assert np.array_equal(halves.array, (maker.voxels() + 1024) * 0.5 - 1024)


@pytest.mark.parametrize("slope", [1, 0.1])
@pytest.mark.parametrize("codec", ["RLE", "JPEG2000", "JPEG", "JPEGLS"])
def test_compressed_slices_are_the_same(codec: str, slope: float, tmp_path: Path) -> None:
    plain = maker.ct(4)
    for data in plain:
        data.RescaleSlope = slope
    paths = maker.write(tmp_path / "plain", plain)
    packed = maker.ct(4)
    for path, data in zip(paths, packed, strict=True):
        data.RescaleSlope = slope
        if codec == "RLE":
            data.compress(RLELossless, generate_instance_uid=False)
        else:
            _take_pixels(data, path, codec, tmp_path / "by-gdcm.dcm")
    maker.write(tmp_path / "packed", packed)
    one, two = (read_scan(find_patients(tmp_path / n)[0].series[0], chest=False) for n in ("plain", "packed"))
    assert np.array_equal(one.volume.array, two.volume.array)
    assert one.volume.array.dtype == two.volume.array.dtype


def _take_pixels(data: pydicom.FileDataset, path: Path, codec: str, out: Path) -> None:
    """Put the same stored values into ``data`` as GDCM compresses them."""
    stored = pydicom.dcmread(path).pixel_array
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(out))
    writer.UseCompressionOn()
    writer.SetCompressor(codec)
    writer.Execute(sitk.GetImageFromArray(stored[None]))
    packed = pydicom.dcmread(out)
    assert packed.file_meta.TransferSyntaxUID.is_compressed
    data.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    data["PixelData"] = packed["PixelData"]


def test_signed_and_implicit_slices_without_a_preamble(tmp_path: Path) -> None:
    slices = maker.ct()
    for k, data in enumerate(slices):
        data.PixelRepresentation, data.RescaleIntercept = 1, 0
        data.PixelData = maker.voxels()[k].tobytes()
        path = tmp_path / f"{k}.dcm"
        del data.file_meta, data.preamble
        pydicom.dcmwrite(path, data, implicit_vr=True, little_endian=True)
    assert as_made(whole(tmp_path)[maker.PATIENT][0])


def test_a_folder_or_layout_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CtfedError, match="found no folder"):
        find_patients(tmp_path / "nothing")
    with pytest.raises(CtfedError, match="found 'bids', expected auto, dicom, folders, chaimeleon or files"):
        find_patients(tmp_path, "bids")
    assert find_patients(tmp_path) == []
