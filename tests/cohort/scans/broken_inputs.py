"""A corpus of broken inputs: each builds one patient's folder, and has the rule by which that patient is set aside."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import dicom_maker as maker
import numpy as np
import pydicom
from pydicom.dataset import Dataset

from ctfed.cohort.scans import Wanted, find_patients
from ctfed.cohort.scans.seg import Algorithm, write_seg
from ctfed.imaging.volume import Volume

Build = Callable[[Path], object]
CASES: dict[str, tuple[str, Build]] = {}
WANTED = Wanted(slices=6, coverage=15.0)


def case(rule: str) -> Callable[[Build], Build]:
    """Register a broken input that must be refused as ``rule``."""

    def register(build: Build) -> Build:
        assert build.__name__ not in CASES
        CASES[build.__name__] = (rule, build)
        return build

    return register


def changed(rule: str, name: str, change: Callable[[Dataset], object], which: slice = slice(None)) -> None:
    """A series of which all slices, or those in ``which``, were changed; with its RTSTRUCT."""

    def build(folder: Path) -> None:
        slices = maker.ct()
        struct = maker.rtstruct(slices[0])
        for data in slices[which]:
            change(data)
        maker.write(folder, slices)
        pydicom.dcmwrite(folder / "rt.dcm", struct)

    build.__name__ = name
    case(rule)(build)


def put(**elements: object) -> Callable[[Dataset], None]:
    """Set elements."""

    def change(data: Dataset) -> None:
        for name, value in elements.items():
            setattr(data, name, value)

    return change


def drop(*names: str) -> Callable[[Dataset], None]:
    """Delete elements."""

    def change(data: Dataset) -> None:
        for name in names:
            delattr(data, name)

    return change


def raw(name: str, text: bytes) -> Callable[[Dataset], None]:
    """Set the bytes of an element that pydicom would not write as a number."""

    def change(data: Dataset) -> None:
        element = data[name]
        data[name] = pydicom.dataelem.RawDataElement(element.tag, "DS", len(text), text, 0, False, True)

    return change


def turned(degrees: float, axis: str = "x") -> Callable[[Dataset], None]:
    """Turn the image plane, and the stack with it."""
    c, s = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    turn = {"x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])}[axis]

    def change(data: Dataset) -> None:
        cosines = np.array(data.ImageOrientationPatient, dtype=float).reshape(2, 3)
        data.ImageOrientationPatient = [round(v, 8) for v in (cosines @ turn.T).reshape(-1)]
        place = turn @ np.array(data.ImagePositionPatient, dtype=float)
        data.ImagePositionPatient = [round(float(v), 6) for v in place]

    return change


ONE = slice(5, 6)
changed("wrong-modality", "mr", put(Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"))
changed("wrong-modality", "pet", put(Modality="PT", SOPClassUID="1.2.840.10008.5.1.4.1.1.128"))
changed("wrong-modality", "no_modality_nor_class", drop("Modality", "SOPClassUID"))
changed("no-ct-image", "secondary_capture", put(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"))
changed("scout", "scout_by_type", put(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
changed("projection-image", "maximum_intensity_projection", put(ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"]))
changed("colour-image", "palette_colour", put(PhotometricInterpretation="PALETTE COLOR"))
changed("multi-frame-image", "frames_in_one_file", put(NumberOfFrames=3))
changed("no-rescale", "no_rescale_tags", drop("RescaleSlope", "RescaleIntercept"))
changed("no-rescale", "one_slice_without_rescale", drop("RescaleSlope"), ONE)
changed("no-rescale", "empty_rescale", put(RescaleSlope=None))
changed("no-rescale", "slope_of_zero", put(RescaleSlope=0))
changed("no-rescale", "slope_that_is_no_number", raw("RescaleSlope", b"one "))
changed("no-hounsfield", "electron_density", put(RescaleType="ED"))
changed("no-hounsfield", "grey_values_without_air", put(RescaleIntercept=0))
changed("no-position", "no_position", drop("ImagePositionPatient"))
changed("no-position", "one_slice_without_position", drop("ImagePositionPatient"), ONE)
changed("no-position", "position_not_a_number", raw("ImagePositionPatient", b"nan\\0\\5 "))
changed("no-position", "position_infinite", raw("ImagePositionPatient", b"0\\0\\inf "))
changed("no-position", "position_of_words", raw("ImagePositionPatient", b"left\\up\\2 "))
changed("no-position", "position_of_two_numbers", put(ImagePositionPatient=[0, 1]))
changed("no-orientation", "no_orientation", drop("ImageOrientationPatient"))
changed("no-orientation", "orientation_of_five_numbers", put(ImageOrientationPatient=[1, 0, 0, 0, 1]))
changed("orientation-not-orthonormal", "orientation_of_zeros", put(ImageOrientationPatient=[0] * 6))
changed("orientation-not-orthonormal", "orientation_of_parallel_axes", put(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]))
changed("orientation-not-orthonormal", "orientation_too_long", put(ImageOrientationPatient=[1.1, 0, 0, 0, 1, 0]))
changed("no-pixel-spacing", "no_pixel_spacing", drop("PixelSpacing"))
changed("no-pixel-spacing", "pixel_spacing_of_zero", put(PixelSpacing=[0, 2]))
changed("no-pixel-spacing", "negative_pixel_spacing", put(PixelSpacing=[-1.5, -2]))
changed("mixed-pixel-spacing", "one_slice_with_other_pixels", put(PixelSpacing=[1.6, 2]), ONE)
changed("mixed-matrix", "half_of_the_slices_smaller", put(Rows=8), slice(0, 6))
changed("no-matrix", "no_rows", put(Rows=0))
changed("mixed-orientations", "one_slice_turned", turned(3.0), ONE)
changed("mixed-frames-of-reference", "two_frames_of_reference", put(FrameOfReferenceUID=maker.uid("x")), slice(0, 6))
changed("not-axial", "oblique", turned(20.0))
changed("not-axial", "coronal", turned(90.0))
changed("not-axial", "sagittal", turned(90.0, "y"))
changed("truncated-file", "no_pixel_data", drop("PixelData"))
changed("truncated-file", "too_few_pixels", put(PixelData=b"\0" * 100), ONE)
changed("constant-image", "constant_image", put(PixelData=b"\0\1" * maker.SIZE**2))
changed("unreadable-pixels", "no_bits_allocated", drop("BitsAllocated"))


@case("colour-image")
def rgb(folder: Path) -> None:
    slices = maker.ct()
    for data in slices:
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data.PixelData = b"\0" * (3 * maker.SIZE**2)
    maker.write(folder, slices)


@case("unreadable-pixels")
def compressed_rubbish(folder: Path) -> None:
    slices = maker.ct()
    for data in slices:
        data.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
        data.PixelData = pydicom.encaps.encapsulate([b"rubbish!" * 4])
        data["PixelData"].is_undefined_length = True
    maker.write(folder, slices)


@case("missing-slices")
def uids_that_are_none_and_a_missing_slice(folder: Path) -> None:
    slices = maker.ct()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in slices:
            data.FrameOfReferenceUID = maker.PATIENT
            data.StudyDate = maker.PATIENT
        maker.write(folder, slices[:4] + slices[5:])


@case("scout")
def scout_by_description(folder: Path) -> None:
    slices = maker.ct(2)
    for data in slices:
        data.SeriesDescription = "Topogram 0.6"
    maker.write(folder, slices)


def _cut(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


@case("truncated-file")
def slice_cut_in_its_pixels(folder: Path) -> None:
    _cut(maker.write(folder, maker.ct())[5], 0.8)


@case("unreadable-file")
def slice_cut_in_its_header(folder: Path) -> None:
    _cut(maker.write(folder, maker.ct())[5], 0.12)


@case("unreadable-file")
def empty_file_among_the_slices(folder: Path) -> None:
    maker.write(folder, maker.ct())
    (folder / "extra.dcm").write_bytes(b"")


@case("unreadable-file")
def rubbish_among_the_slices(folder: Path) -> None:
    maker.write(folder, maker.ct())
    (folder / "extra.dcm").write_bytes(np.random.default_rng(1).bytes(4000))


@case("unreadable-file")
def nothing_but_text(folder: Path) -> None:
    (folder / "1.dcm").write_text("patient was not scanned, sorry\n" * 20)


@case("unreadable-file")
def magic_and_then_rubbish(folder: Path) -> None:
    (folder / "IM0001").write_bytes(b"\0" * 128 + b"DICM" + np.random.default_rng(2).bytes(4000))


@case("missing-slices")
def missing_slice(folder: Path) -> None:
    slices = maker.ct()
    maker.write(folder, slices[:5] + slices[6:])


@case("missing-slices")
def three_missing_slices(folder: Path) -> None:
    slices = maker.ct(20)
    maker.write(folder, slices[:5] + slices[7:10] + slices[11:])


@case("duplicate-slices")
def duplicate_slice(folder: Path) -> None:
    slices = maker.ct()
    again = maker.ct()[3]
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = maker.uid("again")
    maker.write(folder, [*slices, again])


@case("duplicate-slices")
def one_instance_with_two_contents(folder: Path) -> None:
    again = maker.ct()[3]
    again.PixelData = b"\0\1" * maker.SIZE**2
    maker.write(folder, [*maker.ct(), again])


@case("duplicate-slices")
def whole_series_sent_twice(folder: Path) -> None:
    again = maker.ct()
    for data in again:
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = maker.uid("again", data.SOPInstanceUID)
    maker.write(folder, [*maker.ct(), *again])


@case("duplicate-slices")
def all_slices_in_one_place(folder: Path) -> None:
    slices = maker.ct()
    for data in slices:
        data.ImagePositionPatient = [0, 0, 0]
    maker.write(folder, slices)


@case("uneven-slices")
def uneven_slices(folder: Path) -> None:
    slices = maker.ct()
    slices[5].ImagePositionPatient = [*maker.ORIGIN[:2], maker.ORIGIN[2] + 5 * maker.SPACING[2] + 0.2]
    maker.write(folder, slices)


@case("uneven-slices")
def slices_ever_farther_apart(folder: Path) -> None:
    slices = maker.ct()
    for k, data in enumerate(slices):
        data.ImagePositionPatient = [*maker.ORIGIN[:2], 2.0 * k + 0.1 * k * k]
    maker.write(folder, slices)


@case("gantry-tilt")
def gantry_tilt(folder: Path) -> None:
    slices = maker.ct()
    for k, data in enumerate(slices):
        data.ImagePositionPatient = [maker.ORIGIN[0], maker.ORIGIN[1] + 0.8 * k, maker.ORIGIN[2] + 3.0 * k]
    maker.write(folder, slices)


@case("slices-not-aligned")
def slices_to_and_fro(folder: Path) -> None:
    slices = maker.ct()
    for k, data in enumerate(slices):
        data.ImagePositionPatient = [maker.ORIGIN[0] + 4.0 * (k % 2), maker.ORIGIN[1], maker.ORIGIN[2] + 3.0 * k]
    maker.write(folder, slices)


@case("one-slice")
def one_slice(folder: Path) -> None:
    maker.write(folder, maker.ct(1))


@case("few-slices")
def few_slices(folder: Path) -> None:
    maker.write(folder, maker.ct(5))


@case("short-scan")
def short_scan(folder: Path) -> None:
    maker.write(folder, maker.ct(spacing=(2.0, 1.5, 1.0)))


@case("no-scan")
def contours_without_a_scan(folder: Path) -> None:
    pydicom.dcmwrite(folder / "rt.dcm", maker.rtstruct(maker.ct(1)[0]))


@case("missing-slices")
def scout_beside_a_scan_with_a_gap(folder: Path) -> None:
    scout = maker.ct(1, series="scout")
    scout[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    slices = maker.ct()
    maker.write(folder, [*scout, *slices[:5], *slices[6:]])


def drawn(
    rule: str,
    name: str,
    structures: dict[str, list[list[float]]],
    change: Callable[[Dataset], object] = lambda struct: None,
) -> None:
    """A sound series with contours that are not."""

    def build(folder: Path) -> None:
        slices = maker.ct()
        struct = maker.rtstruct(slices[0], structures)
        change(struct)
        maker.write(folder, slices)
        pydicom.dcmwrite(folder / "rt.dcm", struct)

    build.__name__ = name
    case(rule)(build)


SQUARES = [maker.square(k) for k in range(4, 8)]


def first_contour(**elements: object) -> Callable[[Dataset], None]:
    """Change the first contour of the first structure."""
    return lambda struct: put(**elements)(struct.ROIContourSequence[0].ContourSequence[0])


def other_frame(struct: Dataset) -> None:
    frame = struct.ReferencedFrameOfReferenceSequence[0]
    frame.FrameOfReferenceUID = maker.uid("elsewhere")
    study = frame.RTReferencedStudySequence[0]
    study.RTReferencedSeriesSequence[0].SeriesInstanceUID = maker.uid("another series")


drawn("no-mask", "no_structure", {})
drawn("no-mask", "structures_of_other_names", {"Heart": SQUARES, "Spinal-Cord": SQUARES})
drawn("empty-mask", "structure_without_contours", {"GTV-1": []})
drawn("empty-mask", "contour_between_voxel_centres", {"GTV-1": [maker.square(4, 5.2, 5.8)]})
drawn("empty-mask", "hole_as_large_as_the_tumour", {"GTV-1": [maker.square(4), maker.square(4, 4.7, 9.3)]})
drawn("ambiguous-mask", "two_tumours_of_one_name", {"GTV-1": SQUARES, "gtv1": SQUARES})
drawn("mask-off-image", "contours_beside_the_image", {"GTV-1": [maker.square(4, 40, 50)]})
drawn("mask-off-image", "contours_across_the_border", {"GTV-1": [maker.square(4, 10, 22)]})
drawn("mask-off-image", "contours_above_the_scan", {"GTV-1": [maker.square(20)]})
drawn("contour-not-in-slice", "contour_across_slices", {"GTV-1": [maker.square(4)[:-1] + [70.0]]})
drawn("contour-between-slices", "contour_between_slices", {"GTV-1": [maker.square(4.5)]})  # type: ignore[arg-type]
drawn(
    "contour-between-slices",
    "contours_of_a_thinner_scan",
    {"GTV-1": [maker.square(4 + k / 5) for k in range(-1, 2)]},  # type: ignore[arg-type]
)
drawn("contour-points", "contour_of_two_points", {"GTV-1": [maker.square(4)[:6]]})
drawn("contour-points", "contour_of_eleven_numbers", {"GTV-1": [maker.square(4)[:11]]})
drawn("open-contour", "open_contour", {"GTV-1": SQUARES}, first_contour(ContourGeometricType="OPEN_PLANAR"))
drawn("open-contour", "contour_without_type", {"GTV-1": SQUARES}, lambda s: first_contour(ContourGeometricType="")(s))
drawn("mask-other-frame-of-reference", "contours_in_another_frame", {"GTV-1": SQUARES}, other_frame)
drawn("unreadable-mask", "no_structure_set", {"GTV-1": SQUARES}, drop("StructureSetROISequence"))
drawn(
    "unreadable-mask",
    "structure_without_number",
    {"a": SQUARES},
    lambda s: drop("ROINumber")(s.StructureSetROISequence[0]),
)


@case("contour-points")
def contour_with_nan(folder: Path) -> None:
    slices = maker.ct()
    struct = maker.rtstruct(slices[0])
    raw("ContourData", b"nan\\1\\2\\3\\4\\5\\6\\7\\8 ")(struct.ROIContourSequence[0].ContourSequence[0])
    maker.write(folder, slices)
    pydicom.dcmwrite(folder / "rt.dcm", struct)


def seg(
    folder: Path, mask: np.ndarray, origin: tuple[float, float, float], spacing: tuple[float, float, float]
) -> Path:
    """A sound series with a SEG of its tumour on a grid of its own."""
    maker.write(folder / "ct", maker.ct())
    patient = find_patients(folder)[0]
    volume = Volume(mask.astype(bool), spacing, origin)
    path = folder / "seg.dcm"
    write_seg(path, patient.series[0], {"tumour": volume}, Algorithm("test", "1"))
    return path


@case("mask-other-grid")
def seg_on_another_grid(folder: Path) -> None:
    seg(folder, maker.tumour(), maker.ORIGIN, (1.0, 1.0, 3.0))


@case("mask-other-grid")
def seg_shifted_by_half_a_voxel(folder: Path) -> None:
    seg(folder, maker.tumour(), (maker.ORIGIN[0] + 1.0, *maker.ORIGIN[1:]), maker.SPACING)


@case("mask-off-image")
def seg_off_the_image(folder: Path) -> None:
    seg(folder, maker.tumour(), (maker.ORIGIN[0] + 20.0, *maker.ORIGIN[1:]), maker.SPACING)


@case("unreadable-mask")
def seg_cut_off(folder: Path) -> None:
    _cut(seg(folder, maker.tumour(), maker.ORIGIN, maker.SPACING), 0.97)


@case("unreadable-mask")
def seg_without_segments(folder: Path) -> None:
    path = seg(folder, maker.tumour(), maker.ORIGIN, maker.SPACING)
    data = pydicom.dcmread(path)
    del data.SegmentSequence
    data.save_as(path)


def filed(rule: str, name: str, scan: np.ndarray | None, mask: np.ndarray | None = None, **other: object) -> None:
    """A patient's folder of image.nii.gz and tumour.nii.gz; ``other`` is the grid of the mask."""

    def build(folder: Path) -> None:
        if scan is not None:
            maker.image(scan, folder / "image.nii.gz")
        if mask is not None:
            maker.image(mask, folder / "tumour.nii.gz", **other)  # type: ignore[arg-type]

    build.__name__ = name
    case(rule)(build)


def spoilt(value: float) -> np.ndarray:
    """HU with one voxel of ``value``."""
    array = maker.voxels().astype(np.float32)
    array[3, 4, 5] = value
    return array


TUMOUR = maker.tumour()
filed("not-a-number", "nan_voxels", spoilt(np.nan))
filed("not-a-number", "infinite_voxels", spoilt(np.inf))
filed("no-hounsfield", "values_from_0_to_1", np.random.default_rng(3).random((12, 16, 16)).astype(np.float32))
filed("constant-image", "file_of_one_value", np.zeros((12, 16, 16), dtype=np.int16))
filed("one-slice", "file_of_one_slice", maker.voxels(1))
filed("few-slices", "file_of_few_slices", maker.voxels(5))
filed("no-volume", "file_of_two_dimensions", maker.voxels()[0])
filed("no-volume", "file_of_four_dimensions", np.stack([maker.voxels()] * 3))
filed("no-hounsfield", "mask_without_image", None, TUMOUR)
filed("no-mask", "image_without_mask", maker.voxels())
filed("empty-mask", "empty_mask_file", maker.voxels(), TUMOUR * 0)
filed("mask-many-labels", "mask_of_two_labels", maker.voxels(), TUMOUR + TUMOUR * maker.tumour(7, 9))
filed("not-a-number", "mask_with_nan", maker.voxels(), np.where(TUMOUR, 1.0, np.nan))
filed("mask-other-grid", "mask_of_other_spacing", maker.voxels(), TUMOUR, spacing=(2.0, 1.5, 2.5))
filed("not-a-number", "nan_voxels_of_doubles", spoilt(np.nan).astype(np.float64))
filed("mask-off-image", "mask_off_the_image", maker.voxels(), TUMOUR, origin=(maker.ORIGIN[0] + 400.0, -40.0, 50.0))


@case("colour-image")
def file_of_colours(folder: Path) -> None:
    maker.image(np.zeros((12, 16, 16, 3), dtype=np.uint8), folder / "image.nii.gz", is_vector=True)


@case("not-a-number")
def nan_voxels_in_nrrd(folder: Path) -> None:
    maker.image(spoilt(np.nan), folder / "image.nrrd")


@case("unreadable-file")
def file_cut_off(folder: Path) -> None:
    _cut(maker.image(maker.voxels(), folder / "image.nii.gz"), 0.5)


@case("unreadable-file")
def file_of_text(folder: Path) -> None:
    (folder / "image.nii.gz").write_text("no image\n" * 100)


@case("unreadable-file")
def header_without_its_data(folder: Path) -> None:
    maker.image(maker.voxels(), folder / "image.nhdr")
    for raw_file in folder.glob("image.raw*"):
        raw_file.unlink()


@case("unreadable-file")
def mask_file_cut_off(folder: Path) -> None:
    maker.image(maker.voxels(), folder / "image.nii.gz")
    _cut(maker.image(TUMOUR, folder / "tumour.nii.gz"), 0.5)


@case("ambiguous-mask")
def two_mask_files_for_one_region(folder: Path) -> None:
    maker.image(maker.voxels(), folder / "image.nrrd")
    maker.image(TUMOUR, folder / "tumour.nrrd")
    maker.image(TUMOUR, folder / "tumor_mask.nrrd")


@case("ambiguous-mask")
def two_rtstructs(folder: Path) -> None:
    slices = maker.ct()
    maker.write(folder, slices)
    for name in ("a.dcm", "b.dcm"):
        pydicom.dcmwrite(folder / name, maker.rtstruct(slices[0]))


def listed(folder: Path, **study: object) -> None:
    """An index of one study; ``folder`` becomes the dataset."""
    entry = {"studyId": "1", "subjectName": maker.PATIENT, "path": "p/s", "series": [{"folderName": "ct"}], **study}
    (folder / "index.json").write_text(json.dumps([entry]))


@case("series-not-there")
def index_with_a_dangling_link(folder: Path) -> None:
    listed(folder)
    (folder / "p").mkdir()
    (folder / "p" / "s").symlink_to(folder / "not-mounted")


@case("series-not-there")
def index_with_a_loop_of_links(folder: Path) -> None:
    listed(folder)
    (folder / "p").mkdir()
    (folder / "p" / "s").symlink_to(folder / "p" / "s")


@case("study-path")
def index_that_climbs(folder: Path) -> None:
    listed(folder, path="../elsewhere")


@case("study-path")
def index_with_an_absolute_path(folder: Path) -> None:
    listed(folder, path="/etc")


@case("study-path")
def index_with_a_series_without_folder(folder: Path) -> None:
    listed(folder, series=[{"tags": []}])


@case("study-without-series")
def index_without_series(folder: Path) -> None:
    listed(folder, series=None)


@case("no-scan")
def index_with_an_empty_series(folder: Path) -> None:
    listed(folder)
    (folder / "p" / "s" / "ct").mkdir(parents=True)


@case("missing-slices")
def unicode_names_and_a_missing_slice(folder: Path) -> None:
    slices = maker.ct()
    for data in slices:
        data.SpecificCharacterSet, data.PatientID = "ISO_IR 192", "Šárka-患者"
    maker.write(folder / "Šárka 患者 \u202e", slices[:4] + slices[5:], prefix="снимок ")


@case("missing-slices")
def loops_of_links_and_a_missing_slice(folder: Path) -> None:
    slices = maker.ct()
    maker.write(folder / "a", slices[:4] + slices[5:])
    (folder / "a" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    os.mkfifo(folder / "a" / "pipe.dcm")
