"""Coronary artery calcium: the Agatston score inside a mask of the coronary arteries.

On each axial slice, connected components of voxels of at least 130 HU in the mask are lesions; those under 1 mm2 are
noise. A lesion scores its area in mm2 times a weight by its peak: 1 from 130 HU, 2 from 200, 3 from 300, 4 from 400.
The score is the sum over all slices.

The score was defined on slices of 3 mm. Thinner slices are more slices and hence a higher sum, so the score scaled by
slice distance / 3 mm stands beside it. Contrast medium in the vessels exceeds 130 HU everywhere and makes the score
meaningless; a sharp kernel makes noise exceed it. Both are flagged, never corrected.

Reference: Agatston et al. 1990, Journal of the American College of Cardiology 15:827.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctfed.imaging.volume import GeometryError, Volume

THRESHOLD = 130.0  # HU
WEIGHTS = ((400.0, 4), (300.0, 3), (200.0, 2), (130.0, 1))  # peak HU from which a lesion has the weight
SMALLEST_AREA = 1.0  # mm2
STANDARD_SLICE = 3.0  # mm
# Median HU of the mask's voxels from which they are taken for opacified: blood without contrast is 30 to 60 HU.
CONTRAST_HU = 120.0
AREA_TOLERANCE = 1e-9  # mm2: four voxels of 0.5 x 0.5 mm are 1 mm2, whatever the rounding
CONNECTIVITY = {4: ndimage.generate_binary_structure(2, 1), 8: ndimage.generate_binary_structure(2, 2)}
_SHARP = re.compile(r"^(B|Br|Bl|Bv|I)([67]\d)|LUNG|BONE|EDGE|FC5\d|^(L|D|YB|YD)$", re.IGNORECASE)


@dataclass(frozen=True)
class CalciumScore:
    """What was found in the coronary arteries of one scan.

    Attributes:
        agatston: sum over all slices; None when the mask is empty, which is a missing score and not a score of zero.
        agatston_3mm: the same scaled to slices of 3 mm; None likewise.
        volume: mm3 of the voxels that were scored; None likewise.
        lesions: number of lesions on all slices.
        contrast: True when the vessels look opacified, so that the score measures contrast medium.
        sharp_kernel: True when the reconstruction kernel is a sharp one, False when not, None when it is not known.
        mask_median: HU, median of the mask's voxels; None when it is empty.
    """

    agatston: float | None
    agatston_3mm: float | None
    volume: float | None
    lesions: int
    contrast: bool
    sharp_kernel: bool | None
    mask_median: float | None


def calcium_score(
    image: Volume, mask: Volume, *, kernel: str | None = None, contrast: bool | None = None, connectivity: int = 8
) -> CalciumScore:
    """The Agatston score of the voxels of ``mask``.

    Args:
        image: CT in HU; its slices are the array's first axis and must be axial to within the scan's own tilt.
        mask: coronary arteries on the same grid; not zero inside.
        kernel: the scan's reconstruction kernel, for the flag.
        contrast: what the acquisition says; None leaves the judgement to the voxels alone.
        connectivity: of a lesion's voxels in the slice, 8 (default) or 4.

    Raises:
        GeometryError: when the grids differ, or a voxel inside the mask is not a number.
    """
    image.require_same_grid(mask, "the mask of the coronary arteries")
    if connectivity not in CONNECTIVITY:
        raise ValueError(f"connectivity must be 4 or 8, found {connectivity}")
    inside = mask.array.astype(bool)
    sharp = None if not kernel else is_sharp(kernel)
    if not inside.any():
        return CalciumScore(None, None, None, 0, bool(contrast), sharp, None)
    values = image.array[inside]
    if not np.isfinite(values).all():
        raise GeometryError("the scan has voxels without a number inside the coronary arteries")
    median = float(np.median(values))
    score, lesions, voxels = 0.0, 0, 0
    area = image.spacing[0] * image.spacing[1]
    for k in np.flatnonzero(inside.any(axis=(1, 2))):
        found = _slice_score(image.array[k], inside[k], area, CONNECTIVITY[connectivity])
        score, lesions, voxels = score + found[0], lesions + found[1], voxels + found[2]
    return CalciumScore(
        agatston=score,
        agatston_3mm=score * image.spacing[2] / STANDARD_SLICE,
        volume=voxels * image.voxel_volume,
        lesions=lesions,
        contrast=bool(contrast) or median >= CONTRAST_HU,
        sharp_kernel=sharp,
        mask_median=median,
    )


def _slice_score(
    slice_hu: np.ndarray, inside: np.ndarray, pixel_area: float, structure: np.ndarray
) -> tuple[float, int, int]:
    """Score, lesions and their voxels of one axial slice."""
    labels, count = ndimage.label(inside & (slice_hu >= THRESHOLD), structure=structure)
    if count == 0:
        return 0.0, 0, 0
    index = np.arange(1, count + 1)
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)[1:]
    peaks = ndimage.maximum(slice_hu, labels, index)
    areas = sizes * pixel_area
    kept = areas >= SMALLEST_AREA - AREA_TOLERANCE
    score = float(sum(area * weight(peak) for area, peak in zip(areas[kept], peaks[kept], strict=True)))
    return score, int(kept.sum()), int(sizes[kept].sum())


def weight(peak: float) -> int:
    """The weight of a lesion by its peak in HU; 0 below 130."""
    return next((factor for limit, factor in WEIGHTS if peak >= limit), 0)


def is_sharp(kernel: str) -> bool:
    """Whether a reconstruction kernel is one of the sharp ones (lung, bone), whose noise alone may exceed 130 HU.

    Vendors' names: Siemens B60 and Br60 upwards, GE LUNG, BONE, BONEPLUS and EDGE, Canon FC50 upwards, Philips L, D,
    YB and YD. Names that are not known count as soft.
    """
    return bool(_SHARP.search(kernel.strip()))
