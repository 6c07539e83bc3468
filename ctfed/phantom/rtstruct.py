"""Masks as a DICOM RTSTRUCT. The contours run half a pixel outside the outermost voxels' centres, and round holes too.

A reader that takes a voxel for inside by its centre, with the even-odd rule on each slice, gets the masks back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ctfed.imaging.volume import FloatArray, Volume
from ctfed.phantom.dicom import COMMENT, MASKS_NUMBER, Study, common, decimal
from ctfed.phantom.profiles import REGIONS

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DESCRIPTION = "SYNTHETIC RTSTRUCT"
_COLOURS = {"lung": (0, 153, 255), "tumour": (255, 0, 0), "nodes": (0, 204, 0), "coronaries": (255, 204, 0)}
_INTERPRETED = {"lung": "ORGAN", "tumour": "GTV", "nodes": "GTV", "coronaries": "ORGAN"}


def write_rtstruct(study: Study, slices: list[Dataset], masks: Mapping[str, Volume]) -> None:
    """Write the masks that are not empty, by the centre's own names.

    Args:
        study: where it belongs.
        slices: of the CT, lowest first; contours refer to them.
        masks: bool by region, on the grid of the CT.
    """
    from pydicom.dataset import Dataset
    from pydicom.uid import RTStructureSetStorage

    dataset = common(study, MASKS_NUMBER, RTStructureSetStorage, "rtstruct")
    dataset.Modality = "RTSTRUCT"
    dataset.Manufacturer = "ctfed"
    dataset.SeriesDescription = DESCRIPTION
    dataset.InstanceNumber = 1
    dataset.StructureSetLabel, dataset.StructureSetDescription = "SYNTHETIC", COMMENT
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.StudyDate, dataset.StudyTime
    dataset.ApprovalStatus = "UNAPPROVED"
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(slices)]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    dataset.RTROIObservationsSequence = []
    for number, region in enumerate(REGIONS, start=1):
        if not masks[region].array.any():
            continue
        roi = Dataset()
        roi.ROINumber, roi.ROIName = number, study.profile.roi_names[number - 1]
        roi.ReferencedFrameOfReferenceUID = slices[0].FrameOfReferenceUID
        roi.ROIGenerationAlgorithm = "AUTOMATIC"
        dataset.StructureSetROISequence.append(roi)
        contours = Dataset()
        contours.ReferencedROINumber, contours.ROIDisplayColor = number, list(_COLOURS[region])
        contours.ContourSequence = list(_contours(masks[region], slices))
        dataset.ROIContourSequence.append(contours)
        seen = Dataset()
        seen.ObservationNumber = seen.ReferencedROINumber = number
        seen.RTROIInterpretedType, seen.ROIInterpreter = _INTERPRETED[region], ""
        dataset.RTROIObservationsSequence.append(seen)
    dataset.save_as(study.series_folder(MASKS_NUMBER, DESCRIPTION) / "1-1.dcm", enforce_file_format=True)


def outlines(mask: np.ndarray) -> list[FloatArray]:
    """Closed lines around the True pixels of a slice and around their holes, each (n, 2) x and y in pixels, the first
    point not repeated. By the even-odd rule the centre of a pixel is inside exactly where the mask is True."""
    from contourpy import contour_generator

    padded = np.pad(mask.astype(np.float64), 1)
    lines = contour_generator(z=padded).lines(0.5)
    return [np.asarray(line, dtype=np.float64)[:-1] - 1 for line in lines]


def _contours(mask: Volume, slices: list[Dataset]) -> Iterator[Dataset]:
    from pydicom.dataset import Dataset

    for k in np.flatnonzero(mask.array.any(axis=(1, 2))):
        for line in outlines(mask.array[k]):
            contour = Dataset()
            contour.ContourImageSequence = [_reference(slices[k])]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(line)
            points = mask.world(np.column_stack([np.full(len(line), k), line[:, 1], line[:, 0]]))
            contour.ContourData = [decimal(value) for value in points.reshape(-1)]
            yield contour


def _frame_of_reference(slices: list[Dataset]) -> Dataset:
    from pydicom.dataset import Dataset
    from pydicom.uid import CTImageStorage

    series = Dataset()
    series.SeriesInstanceUID = slices[0].SeriesInstanceUID
    series.ContourImageSequence = [_reference(dataset) for dataset in slices]
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = CTImageStorage, slices[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = slices[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _reference(dataset: Dataset) -> Dataset:
    from pydicom.dataset import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    return reference
