"""NIfTI and NRRD files: which are images and which are masks, and reading them with their geometry."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans.model import FILE, MaskFile
from ctfed.imaging.volume import GeometryError, Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
IMAGE_NAMES = frozenset({"image", "ct", "scan", "img", "volume"})
_MASK_WORDS = re.compile(r"(mask|seg|segmentation|label|labels|roi)[ _-]*", re.IGNORECASE)


@dataclass(frozen=True)
class FileStack:
    """Extent of an image file with its axes turned to the patient's: slices, mm between them, degrees from axial."""

    slices: int
    distance: float
    tilt: float


def stem(path: Path) -> str | None:
    """The name without the suffix of an image file; None when it is none."""
    lower = path.name.lower()
    return next((path.name[: -len(suffix)] for suffix in SUFFIXES if lower.endswith(suffix)), None)


def sort_out(paths: Iterable[Path], root: Path) -> dict[str, tuple[list[Path], list[MaskFile]]]:
    """Images and masks of each patient, by folder.

    In a folder, ``image.nii.gz`` (or ct, scan, img, volume) makes the folder's name the patient and everything beside
    it a mask. Otherwise ``<patient>.nii.gz`` or ``<patient>_image.nii.gz`` is an image, and ``<patient>_<name>.nii.gz``
    a mask of it.
    """
    folders: dict[Path, dict[str, Path]] = {}
    for path in paths:
        name = stem(path)
        if name:
            folders.setdefault(path.parent, {})[name] = path
    found: dict[str, tuple[list[Path], list[MaskFile]]] = {}
    for folder, files in sorted(folders.items()):
        named = [name for name in files if name.lower() in IMAGE_NAMES]
        if named and folder != root:
            images = {folder.name: named}
        else:
            images = {_patient(name): [name] for name in files if not _belongs(name, files)}
        for patient, names in images.items():
            kept, masks = found.setdefault(patient, ([], []))
            kept += [files[name] for name in names]
            prefixes = (patient, *names) if not named else ("",)
            for name in sorted(set(files) - {name for taken in images.values() for name in taken}):
                if prefixes == ("",) or _owner(name, images) == patient:
                    masks.append(MaskFile(files[name], FILE, region_name(name, patient)))
    return found


def region_name(name: str, patient: str) -> str:
    """The name of a mask: 'tumour' of '<patient>_tumour', 'image_tumour', 'mask_tumour' or 'tumour_mask'."""
    for prefix in (patient, *IMAGE_NAMES):
        if name.lower().startswith(f"{prefix.lower()}_"):
            name = name[len(prefix) + 1 :]
            break
    shorter = re.sub(
        r"[ _-]+$", "", re.sub(_MASK_WORDS.pattern + "$", "", _MASK_WORDS.sub("", name, count=1), flags=re.I)
    )
    return shorter or name


def _patient(name: str) -> str:
    """'p1' of 'p1' and of 'p1_image'."""
    head, _, tail = name.rpartition("_")
    return head if head and tail.lower() in IMAGE_NAMES else name


def _belongs(name: str, files: Iterable[str]) -> bool:
    """Whether a file is a mask: its name continues the name of an image."""
    if _patient(name) != name:
        return False
    return any(name.startswith(f"{_patient(other)}_") for other in files if other != name)


def _owner(name: str, patients: Iterable[str]) -> str:
    """The patient with the longest name that the file's name continues."""
    return max((patient for patient in patients if name.startswith(f"{patient}_")), key=len, default="")


def read_image(path: Path) -> sitk.Image:
    """A 3-D image with one channel.

    Raises:
        CaseFault: unreadable-file, colour-image, no-volume.
    """
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:  # the message has the path in it
        raise CaseFault("unreadable-file", "found an image file that cannot be read, expected a whole one") from error
    _require_volume(image.GetDimension(), image.GetNumberOfComponentsPerPixel(), image.GetPixelID() in _complex())
    return image


def _require_finite(path: Path, image: sitk.Image) -> None:
    """Refuse a NIfTI file of floats of which one is not finite; ITK's reader makes 0 of those without a word."""
    if not path.name.lower().endswith((".nii", ".nii.gz")) or "float" not in image.GetPixelIDTypeAsString():
        return
    import nibabel

    stored = np.asanyarray(nibabel.load(path).dataobj)
    lost = int((~np.isfinite(stored)).sum()) if np.issubdtype(stored.dtype, np.floating) else 0
    if lost:
        raise CaseFault("not-a-number", f"found {lost} voxels that are not a finite number, expected numbers")


def _complex() -> tuple[int, ...]:
    import SimpleITK as sitk

    return (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)


def _require_volume(dimension: int, channels: int, is_complex: bool) -> None:
    if channels != 1 or is_complex:
        raise CaseFault("colour-image", f"found {channels} channels a voxel, expected one")
    if dimension != 3:
        raise CaseFault("no-volume", f"found {dimension} dimensions, expected 3")


def file_stack(path: Path) -> FileStack:
    """The extent of an image, from its header alone.

    Raises:
        CaseFault: unreadable-file, colour-image, no-volume, one-slice, orientation-not-orthonormal.
    """
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise CaseFault("unreadable-file", "found an image file that cannot be read, expected a whole one") from error
    _require_volume(reader.GetDimension(), reader.GetNumberOfComponents(), reader.GetPixelID() in _complex())
    size, spacing = reader.GetSize(), reader.GetSpacing()
    matrix = np.array(reader.GetDirection()).reshape(3, 3)
    if not np.isfinite(matrix).all() or np.abs(matrix.T @ matrix - np.eye(3)).max() > 1e-3 or min(spacing) <= 0:
        raise CaseFault("orientation-not-orthonormal", "found axes that are not perpendicular, expected a regular grid")
    axis = int(np.abs(matrix[2]).argmax())
    if min(size) < 2:
        raise CaseFault("one-slice", f"found {size[0]} x {size[1]} x {size[2]} voxels, expected a volume")
    degrees = float(np.degrees(np.arccos(min(1.0, abs(float(matrix[2, axis]))))))
    return FileStack(int(size[axis]), float(spacing[axis]), degrees)


def read_volume(path: Path) -> Volume:
    """An image file as a Volume, its axes as stored.

    Raises:
        CaseFault: as ``read_image``, orientation-not-orthonormal and not-a-number.
    """
    image = read_image(path)
    _require_finite(path, image)
    try:
        return Volume.from_sitk(image)
    except GeometryError as error:
        raise CaseFault(
            "orientation-not-orthonormal", "found axes that are not perpendicular, expected a grid"
        ) from error
