"""From a series to a CT in HU with its acquisition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans.acquire import contrast
from ctfed.cohort.scans.files import read_volume
from ctfed.cohort.scans.geometry import Stack, stack
from ctfed.cohort.scans.grids import to_patient_axes
from ctfed.cohort.scans.headers import quietly
from ctfed.cohort.scans.model import Acquisition, Header, Scan, Series
from ctfed.imaging.volume import Array, Volume

AIR = -500.0  # HU; a chest CT has voxels below it, an image in other units has none
_INT16 = np.iinfo(np.int16)


def read_scan(series: Series, *, chest: bool = True) -> Scan:
    """The voxels of a series in HU (int16 where that is exact, else float32) on the patient's axes.

    Args:
        series: as ``choose_series`` gave it.
        chest: require what every chest CT has, air; off for images that are none.

    Raises:
        CaseFault: what ``stack`` raises, truncated-file, unreadable-pixels, not-a-number, constant-image,
            no-hounsfield.
    """
    if series.file is not None:
        volume = read_volume(series.file)
        coverage = 0.0
    else:
        whole = stack(series.headers)
        volume = Volume(_pixels(whole), whole.spacing, whole.origin, whole.direction)
        coverage = whole.coverage
    volume = to_patient_axes(volume)
    _plausible(volume.array, chest)
    if volume.array.dtype not in (np.int16, np.float32):
        volume = volume.with_array(_compact(volume.array))
    return Scan(volume, _acquisition(series, volume, coverage), series.frame_uid)


def _plausible(array: Array, chest: bool) -> None:
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        lost = int((~np.isfinite(array)).sum())
        raise CaseFault("not-a-number", f"found {lost} voxels that are not a finite number, expected HU")
    lowest, highest = float(array.min()), float(array.max())
    if lowest == highest:
        raise CaseFault("constant-image", f"found {lowest:g} HU in every voxel, expected an image")
    if chest and lowest > AIR:
        raise CaseFault("no-hounsfield", f"found no voxel below {lowest:g}, expected air below {AIR:g} HU")


def _compact(array: Array) -> Array:
    """int16 when nothing is lost, else float32."""
    if array.min() >= _INT16.min and array.max() <= _INT16.max:
        whole = array.astype(np.int16)
        if np.issubdtype(array.dtype, np.integer) or np.array_equal(whole, array):
            return whole
    return array.astype(np.float32)


def _pixels(whole: Stack) -> Array:
    """(slices, rows, columns) HU."""
    first = whole.headers[0]
    exact = all(_is_whole(h.slope) and _is_whole(h.intercept) for h in whole.headers)
    shape = (len(whole.headers), first.rows or 0, first.columns or 0)
    array = np.empty(shape, dtype=np.int32 if exact else np.float32)
    for k, header in enumerate(whole.headers):
        stored = _slice(header)
        if stored.shape != shape[1:]:
            raise CaseFault("unreadable-pixels", f"found a slice of shape {stored.shape}, expected {shape[1:]}")
        slope, intercept = header.slope or 1.0, header.intercept or 0.0
        if exact:
            array[k] = stored.astype(np.int32) * int(slope) + int(intercept)
        else:
            array[k] = stored.astype(np.float32) * slope + intercept
    return _compact(array) if exact else array


def _is_whole(number: float | None) -> bool:
    return number is not None and float(number).is_integer() and abs(number) < 2**14


def _slice(header: Header) -> Array:
    """(rows, columns) stored values of one file."""
    import pydicom

    try:
        with quietly():
            dataset = pydicom.dcmread(header.path, force=True)
            if not hasattr(dataset.file_meta, "TransferSyntaxUID"):
                # Files without a preamble: pydicom knows how it read them.
                dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset)
            if dataset.file_meta.TransferSyntaxUID.is_compressed:
                return _decompressed(header)
            _require_length(dataset)
            return np.asarray(dataset.pixel_array)
    except CaseFault:
        raise
    except (EOFError, OSError) as error:
        raise CaseFault("truncated-file", "found a slice that ends too early, expected a whole file") from error
    except Exception as error:  # whatever damaged pixel data lead to in pydicom: AttributeError, ValueError ...
        raise CaseFault(
            "unreadable-pixels",
            f"found a slice whose pixels cannot be read ({type(error).__name__}), expected an image",
        ) from error


def _guessed_syntax(dataset: Any) -> str:
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    return str(ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian)


def _require_length(dataset: Any) -> None:
    if "PixelData" not in dataset:
        raise CaseFault("truncated-file", "found a slice without PixelData, expected an image")
    wanted = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
    found = len(dataset.PixelData)
    if found < wanted:
        raise CaseFault("truncated-file", f"found {found} bytes of pixels in a slice, expected {wanted}")


def _decompressed(header: Header) -> Array:
    """Stored values of a compressed slice, by GDCM; it applies the slope, which is undone."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = sitk.ReadImage(str(header.path), imageIO="GDCMImageIO")
    except RuntimeError as error:
        raise CaseFault(
            "unreadable-pixels", "found a compressed slice that GDCM cannot decode, expected an image"
        ) from error
    array = sitk.GetArrayFromImage(image)
    hounsfield = array[0] if array.ndim == 3 else array
    stored = (hounsfield.astype(np.float64) - (header.intercept or 0.0)) / (header.slope or 1.0)
    return np.asarray(np.round(stored).astype(np.int32))


def _acquisition(series: Series, volume: Volume, coverage: float) -> Acquisition:
    headers = series.headers
    given, evidence = contrast(headers)
    first = headers[0] if headers else None
    return Acquisition(
        manufacturer=first.manufacturer if first else "",
        device=first.device if first else "",
        kernel=first.kernel if first else "",
        kvp=first.kvp if first else None,
        spacing=volume.spacing,
        thickness=first.thickness if first else None,
        slices=volume.shape[0],
        coverage=coverage or volume.shape[0] * volume.spacing[2],
        contrast=given,
        contrast_evidence=evidence,
        day=series.day,
        source="dicom" if first else suffix_of(series.file),
    )


def suffix_of(path: Path | None) -> str:
    """'nifti', 'nrrd' or 'metaimage'."""
    name = path.name.lower() if path else ""
    return "nrrd" if name.endswith((".nrrd", ".nhdr")) else "metaimage" if name.endswith((".mha", ".mhd")) else "nifti"
