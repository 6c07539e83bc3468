"""Preparation of a region by the reference manual of the Image Biomarker Standardisation Initiative (IBSI-1).

Used by ``radiomics.py`` when ``RadiomicsSettings.standard`` is 'ibsi'. Where the manual and PyRadiomics part:

    grid        ceil(n s / s') voxels, and the centres of both grids coincide (PyRadiomics: corners coincide)
    mask        interpolated linearly and cut at 0.5 (nearest neighbour)
    image       rounded to whole HU after interpolation (not rounded); beyond the last voxel centres the nearest value
    bins        of fixed size: from the lower end of the range of intensities, or else the region's minimum (from a
                multiple of the width); of fixed number: the maximum falls into the last bin
    range       may be followed by outlier filtering (one or the other)

The features are PyRadiomics'. They follow the manual but for Kurtosis, which is not the excess (3 more), and for what
the tests of the phantoms list.

Reference: Zwanenburg et al., Image biomarker standardisation initiative, arXiv:1612.07003; Radiology 2020, 295:328.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ctfed.imaging.volume import Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ctfed.imaging.radiomics import RadiomicsSettings

MARGIN = 2  # new voxels around the region that are interpolated with it
INSIDE = 0.5  # share of a voxel from which it belongs to the region


def interpolate(image: Volume, mask: Volume, settings: RadiomicsSettings) -> tuple[Volume, Volume]:
    """Image (float64, whole HU) and mask (bool) on the manual's grid, around the region; as they are when
    ``settings.spacing`` is None.

    Args:
        image: HU; ``mask``: bool, not empty, on the same grid.
    """
    import SimpleITK as sitk

    if settings.spacing is None:
        return image, mask
    wanted = tuple(new or old for new, old in zip(settings.spacing, image.spacing, strict=True))
    box = mask.box()
    assert box is not None
    grid = _aligned_grid(image, wanted, box)
    kind = getattr(sitk, settings.interpolator)
    pixels = _onto(image.with_array(image.array.astype(np.float64)), grid, kind)
    share = _onto(mask.with_array(mask.array.astype(np.float64)), grid, sitk.sitkLinear)
    return grid.with_array(np.rint(pixels)), grid.with_array(share >= INSIDE)


def _aligned_grid(image: Volume, spacing: tuple[float, ...], box: tuple[slice, slice, slice]) -> Volume:
    """The part around ``box`` of the grid whose centre is the image's; its voxels are empty."""
    first, count = [], []
    for axis, part in enumerate(box[::-1]):  # x, y, z
        n, old, new = image.size[axis], image.spacing[axis], spacing[axis]
        new_n = int(np.ceil(n * old / new - 1e-9))
        start = 0.5 * ((n - 1) * old - (new_n - 1) * new)  # mm from the image's first centre to the new first centre
        low = max(0, int(np.floor(((part.start - 1) * old - start) / new)) - MARGIN)
        high = min(new_n - 1, int(np.ceil((part.stop * old - start) / new)) + MARGIN)
        first.append((start + low * new) / old)
        count.append(high - low + 1)
    x, y, z = image.world(first[::-1])
    empty = np.broadcast_to(np.float64(0), count[::-1])
    return Volume(empty, (spacing[0], spacing[1], spacing[2]), (float(x), float(y), float(z)), image.direction)


def _onto(volume: Volume, grid: Volume, interpolator: Any) -> npt.NDArray[np.float64]:
    import SimpleITK as sitk

    resampler = sitk.ResampleImageFilter()
    resampler.SetOutputSpacing(grid.spacing)
    resampler.SetOutputOrigin(grid.origin)
    resampler.SetOutputDirection(grid.direction)
    resampler.SetSize(grid.size)
    resampler.SetInterpolator(interpolator)
    resampler.UseNearestNeighborExtrapolatorOn()
    moved: sitk.Image = resampler.Execute(volume.to_sitk())
    return np.asarray(sitk.GetArrayFromImage(moved))


def discretise(found: npt.NDArray[Any], settings: RadiomicsSettings) -> npt.NDArray[np.int64]:
    """Bins from 1 of intensities in HU: of fixed number if ``bin_count`` is set, else of fixed size."""
    exact = found.astype(np.float64)
    lowest = exact.min()
    if settings.bin_count is not None:
        scaled = settings.bin_count * (exact - lowest) / (exact.max() - lowest)
        levels = np.minimum(np.floor(scaled) + 1, settings.bin_count)
        return np.asarray(levels.astype(np.int64))
    if settings.intensity_range is not None:
        lowest = min(settings.intensity_range)
    levels = np.floor((exact - lowest) / settings.bin_width) + 1
    return np.asarray(levels.astype(np.int64))
