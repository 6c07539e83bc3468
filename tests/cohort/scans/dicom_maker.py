"""Small CT series, RTSTRUCTs, SEGs and NIfTI files, made for tests; every element can be broken before writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

PATIENT = "SECRET-77"
SIZE = 16
SLICES = 12
ORIGIN = (-30.0, -40.0, 50.0)
SPACING = (2.0, 1.5, 3.0)  # x, y, z
Change = Callable[[Dataset], None]


def uid(*words: object) -> str:
    """The same UID for the same words."""
    return str(generate_uid(entropy_srcs=["ctfed tests", *map(str, words)]))


def voxels(slices: int = SLICES) -> np.ndarray:
    """(z, y, x) HU: air, a body, and a ramp so that every slice is another one."""
    array = np.full((slices, SIZE, SIZE), -1000, dtype=np.int16)
    array[:, 3:13, 3:13] = 40
    array[:, 5:8, 5:8] = np.arange(slices)[:, None, None] - 800
    return array


def ct(
    slices: int = SLICES,
    *,
    series: str = "ct",
    patient: str | None = None,
    spacing: tuple[float, float, float] = SPACING,
    study: str = "study",
) -> list[FileDataset]:
    """An axial series in order of position; InstanceNumber runs the other way round."""
    patient = PATIENT if patient is None else patient
    found = []
    for k, pixels in enumerate(voxels(slices)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = uid(patient, series, k)
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, uid(patient, series, k)
        data.PatientID = data.PatientName = patient
        data.PatientBirthDate, data.PatientSex = "", ""
        data.StudyInstanceUID, data.SeriesInstanceUID = uid(patient, study), uid(patient, series)
        data.FrameOfReferenceUID = uid(patient, study, "frame")
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20200103", "", "", ""
        data.ReferringPhysicianName = ""
        data.SeriesNumber, data.InstanceNumber, data.AcquisitionNumber = 1, slices - k, 1
        data.Modality, data.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.Manufacturer, data.ManufacturerModelName = "ACME", "One"
        data.ConvolutionKernel, data.KVP, data.SliceThickness = "B30f", 120, spacing[2]
        data.SeriesDescription = "Chest"
        data.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + k * spacing[2]]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing = [spacing[1], spacing[0]]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows = data.Columns = SIZE
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, -1024, "HU"
        data.PixelData = (pixels.astype(np.int32) + 1024).astype(np.uint16).tobytes()
        found.append(data)
    return found


def write(folder: Path, slices: Sequence[Dataset], prefix: str = "") -> list[Path]:
    """The slices as files, in an order of names that is not that of their places."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{prefix}{(k * 7) % 100:02d}-{k}.dcm" for k in range(len(slices))]
    for path, data in zip(paths, slices, strict=True):
        pydicom.dcmwrite(path, data)
    return paths


def square(k: int, low: float = 4.6, high: float = 9.4, spacing: tuple[float, float, float] = SPACING) -> list[float]:
    """ContourData of a square between voxel ``low`` and ``high`` in x and y, in slice ``k``."""
    corners = [(low, low), (high, low), (high, high), (low, high)]
    points = [(ORIGIN[0] + x * spacing[0], ORIGIN[1] + y * spacing[1], ORIGIN[2] + k * spacing[2]) for x, y in corners]
    return [round(value, 4) for point in points for value in point]


def rtstruct(reference: Dataset, structures: dict[str, list[list[float]]] | None = None) -> FileDataset:
    """An RTSTRUCT on the series of ``reference``; by default one 'GTV-1' of 5 x 5 x 4 voxels."""
    if structures is None:
        structures = {"GTV-1": [square(k) for k in range(4, 8)]}
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, uid("rt")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = RTStructureSetStorage, uid("rt")
    data.Modality, data.PatientID = "RTSTRUCT", reference.PatientID
    data.StudyInstanceUID, data.SeriesInstanceUID = reference.StudyInstanceUID, uid("rt", "series")
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = reference.SeriesInstanceUID
    study.ReferencedSOPInstanceUID = reference.StudyInstanceUID
    study.RTReferencedSeriesSequence = Items([series])
    frame.FrameOfReferenceUID = reference.FrameOfReferenceUID
    frame.RTReferencedStudySequence = Items([study])
    data.ReferencedFrameOfReferenceSequence = Items([frame])
    data.StructureSetROISequence, data.ROIContourSequence = Items(), Items()
    for number, (name, contours) in enumerate(structures.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, reference.FrameOfReferenceUID
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = Items([contour(points) for points in contours])
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
    return data


def contour(points: Sequence[object], kind: str = "CLOSED_PLANAR") -> Dataset:
    """One item of a ContourSequence."""
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points) // 3
    item.ContourData = list(points)
    return item


def image(
    array: np.ndarray,
    path: Path,
    *,
    origin: tuple[float, float, float] = ORIGIN,
    spacing: tuple[float, float, float] = SPACING,
    is_vector: bool = False,
) -> Path:
    """An image file of (z, y, x) voxels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = sitk.GetImageFromArray(array, isVector=is_vector)
    if picture.GetDimension() == 3:
        picture.SetOrigin(origin)
        picture.SetSpacing(spacing)
    sitk.WriteImage(picture, str(path))
    return path


def tumour(low: int = 5, high: int = 10) -> np.ndarray:
    """(z, y, x) uint8 of the default RTSTRUCT's GTV-1."""
    mask = np.zeros((SLICES, SIZE, SIZE), dtype=np.uint8)
    mask[4:8, low:high, low:high] = 1
    return mask
