"""Headers of DICOM files, read without pixels."""

from __future__ import annotations

import contextlib
import datetime
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ctfed.cohort.scans.model import Header

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

T = TypeVar("T")

_TAGS = [
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "StudyInstanceUID"),
    *("SeriesInstanceUID", "FrameOfReferenceUID", "AcquisitionNumber", "TemporalPositionIdentifier", "ImageType"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("Manufacturer", "ManufacturerModelName", "ConvolutionKernel", "KVP", "ContrastBolusAgent", "SeriesDescription"),
    *("ProtocolName", "StudyDescription", "StudyDate", "SeriesDate", "AcquisitionDate"),
    *("ReferencedFrameOfReferenceSequence", "ReferencedSeriesSequence"),
]
_MAGIC = 132


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings of pydicom and highdicom: they quote values of the file, and a run's output may leave the
    site. What matters of them is found by our own rules."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class NotDicom(Exception):
    """A file that is no DICOM, and does not claim to be."""


class Unreadable(Exception):
    """A file that should be DICOM and cannot be read as such; the message has no path."""


def read_header(path: Path) -> Header:
    """The header of one file.

    Raises:
        NotDicom: when it has neither the DICOM magic nor the suffix .dcm or .ima.
        Unreadable: when it has, and is broken.
        OSError: when it cannot be opened.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    claims = path.suffix.lower() in (".dcm", ".ima", ".dicom")
    with path.open("rb") as file, quietly():
        start = file.read(_MAGIC)
        if start[128:132] != b"DICM" and not claims:
            raise NotDicom
        file.seek(0)
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=claims, specific_tags=list(_TAGS))
            header = _header(path, dataset)
        except (InvalidDicomError, EOFError, OSError) as error:
            raise Unreadable(f"found {type(error).__name__}") from error
        except Exception as error:  # pydicom raises whatever a damaged element leads to: struct.error, KeyError ...
            raise Unreadable(f"found a damaged element ({type(error).__name__})") from error
    if not header.sop_class and not header.modality and not header.series_uid:
        if _is_directory(dataset):
            raise NotDicom
        raise Unreadable("found neither SOPClassUID nor SeriesInstanceUID")
    return header


def _is_directory(dataset: Dataset) -> bool:
    meta = getattr(dataset, "file_meta", None)
    return str(getattr(meta, "MediaStorageSOPClassUID", "")) == "1.2.840.10008.1.3.10"


def _header(path: Path, dataset: Dataset) -> Header:
    triple = _numbers(dataset, "ImagePositionPatient", 3)
    spacing = _numbers(dataset, "PixelSpacing", 2)
    references = _references(dataset)
    frame = _text(dataset, "FrameOfReferenceUID")
    return Header(
        path=path,
        sop_class=_text(dataset, "SOPClassUID"),
        sop_uid=_text(dataset, "SOPInstanceUID"),
        modality=_text(dataset, "Modality").upper(),
        patient=_text(dataset, "PatientID"),
        study_uid=_text(dataset, "StudyInstanceUID"),
        series_uid=_text(dataset, "SeriesInstanceUID"),
        frame_uid=frame,
        acquisition=_text(dataset, "AcquisitionNumber"),
        temporal=_text(dataset, "TemporalPositionIdentifier"),
        image_type=tuple(part.upper() for part in _text(dataset, "ImageType").split("\\") if part),
        rows=_whole(dataset, "Rows"),
        columns=_whole(dataset, "Columns"),
        samples=_whole(dataset, "SamplesPerPixel"),
        photometric=_text(dataset, "PhotometricInterpretation"),
        frames=_whole(dataset, "NumberOfFrames") or 1,
        position=None if triple is None else (triple[0], triple[1], triple[2]),
        orientation=_numbers(dataset, "ImageOrientationPatient", 6),
        spacing=None if spacing is None else (spacing[0], spacing[1]),
        thickness=_number(dataset, "SliceThickness"),
        slope=_number(dataset, "RescaleSlope"),
        intercept=_number(dataset, "RescaleIntercept"),
        rescale_type=_text(dataset, "RescaleType").upper(),
        manufacturer=_text(dataset, "Manufacturer"),
        device=_text(dataset, "ManufacturerModelName"),
        kernel=_text(dataset, "ConvolutionKernel"),
        kvp=_number(dataset, "KVP"),
        contrast_agent=_text(dataset, "ContrastBolusAgent"),
        description=_text(dataset, "SeriesDescription"),
        texts=tuple(_text(dataset, name) for name in ("SeriesDescription", "ProtocolName", "StudyDescription")),
        date=_date(dataset),
        refers_to=references[0],
        frames_of_reference=tuple(dict.fromkeys(uid for uid in (frame, *references[1]) if uid)),
    )


def _legible(dataset: Dataset, name: str, convert: Callable[[Any], T]) -> T | None:
    """The converted value; None when the element is absent, empty, or not what its name promises.

    An illegible value is as good as a missing one here: the rules that need it name it as missing.
    """
    try:
        value = dataset.get(name)
        return None if value is None or value == "" else convert(value)
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        return None


def _text(dataset: Dataset, name: str) -> str:
    def convert(value: Any) -> str:
        parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
        return "\\".join(str(part).strip() for part in parts)

    return _legible(dataset, name, convert) or ""


def _numbers(dataset: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    numbers = _legible(dataset, name, lambda value: tuple(float(part) for part in value))
    usable = numbers is not None and len(numbers) == count and all(math.isfinite(number) for number in numbers)
    return numbers if usable else None


def _number(dataset: Dataset, name: str) -> float | None:
    number = _legible(dataset, name, float)
    return number if number is not None and math.isfinite(number) else None


def _whole(dataset: Dataset, name: str) -> int | None:
    return _legible(dataset, name, int)


def _date(dataset: Dataset) -> datetime.date | None:
    for name in ("StudyDate", "SeriesDate", "AcquisitionDate"):
        found = _legible(dataset, name, lambda value: datetime.datetime.strptime(str(value)[:8], "%Y%m%d").date())
        if found is not None:
            return found
    return None


def _references(dataset: Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """SeriesInstanceUIDs and FrameOfReferenceUIDs that an RTSTRUCT or SEG names."""
    series = [_text(item, "SeriesInstanceUID") for item in dataset.get("ReferencedSeriesSequence") or []]
    frames = []
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or []:
        frames.append(_text(frame, "FrameOfReferenceUID"))
        for study in frame.get("RTReferencedStudySequence") or []:
            series += [_text(item, "SeriesInstanceUID") for item in study.get("RTReferencedSeriesSequence") or []]
    return tuple(dict.fromkeys(uid for uid in series if uid)), tuple(frames)
