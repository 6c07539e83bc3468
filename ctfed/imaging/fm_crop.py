"""Cubes for the foundation model: what its published preprocessing makes of a whole scan, by one small resampling.

The published inference pipeline (foundation-cancer-image-biomarker 1.0.0) scales HU to (HU + 1024) / 3072 without
clipping, resamples the whole scan to 1 mm with MONAI's ``Spacing(diagonal=True, align_corners=True)``, linear, zeros
outside, turns it to LPS, cuts a box around the seed, and pads the box with zeros to a cube. Only the cube is wanted, so
only the cube is resampled here. What has to be the same:

- the grid of 1 mm points covers the centres of the corner voxels in RAS, so in LPS it is anchored at the last voxel in
  x and y, and at the first in z; it has round(extent + 1) points an axis;
- a point past the last voxel's centre blends with zero (-1024 HU); SimpleITK would repeat the edge, so a rim of
  -1024 HU is put around the scan;
- the seed's index is truncated towards zero;
- a box that leaves the scan is cut there and padded on both sides alike, so its seed is no longer in the middle. This
  is kept, because the published features were made so, and flagged.

Reference: Pai et al. 2024, Nature Machine Intelligence 6:354; MONAI 1.6 (``compute_shape_offset``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctfed.cohort.faults import CaseFault
from ctfed.imaging.volume import FloatArray, Volume

LOWEST = -1024.0  # HU, becomes 0
RANGE = 3072.0  # HU, becomes 1
SAME_SPACING = 1e-3  # mm; MONAI leaves an axis whose spacing is that near to 1 mm as it is
_FLIP = np.array([-1.0, -1.0, 1.0])  # between LPS and RAS


@dataclass(frozen=True, eq=False)
class FineGrid:
    """The grid of about 1 mm that MONAI would resample a scan to, after its turn to LPS.

    Attributes:
        origin: (x, y, z) mm, LPS, of its first point.
        step: (x, y, z) mm between points.
        size: (x, y, z) points.
        affine: (4, 4) from the index of a point to RAS, with the last bits that MONAI's arithmetic gives it: they
            decide to which point a seed is truncated that lies exactly on one.
    """

    origin: tuple[float, float, float]
    step: tuple[float, float, float]
    size: tuple[int, int, int]
    affine: FloatArray


@dataclass(frozen=True, eq=False)
class Cube:
    """One cube.

    Attributes:
        array: (n, n, n) float32 [z, y, x], scaled: 0 is -1024 HU, 1 is 2048 HU.
        clamped: whether the box left the scan, so that the seed is not in the cube's middle.
    """

    array: npt.NDArray[np.float32]
    clamped: bool


def fine_grid(image: Volume) -> FineGrid:
    """MONAI's grid for a scan of any orientation."""
    affine = (_FLIP[:, None] * image.matrix) * np.array(image.spacing)  # RAS
    norms = np.sqrt(np.sum(affine**2, axis=0))  # the spacing, with the last bit that MONAI gives it
    step = np.where(np.abs(norms - 1.0) <= SAME_SPACING, norms, 1.0)
    last = np.array(image.size, dtype=np.float64) - 1.0
    corners = np.stack(np.meshgrid(*([0.0, n] for n in last), indexing="ij")).reshape(3, -1)
    origin = _FLIP * np.array(image.origin)
    world = affine @ corners + origin[:, None]
    points = world / step[:, None]
    size = np.round(np.ptp(points, axis=1) + 1.0)
    smallest = [i for i in range(8) if np.allclose((points - points[:, i : i + 1]).min(axis=1), 0.0)]
    # An oblique scan has no such corner; then the two grids share their middle.
    middle = affine @ (np.array(image.size) / 2.0) + origin - step * size / 2.0
    start = world[:, smallest[0]] if smallest else middle
    # Turned to LPS, x and y run from the last point of the RAS grid to its first.
    turn = _affine(np.diag(_FLIP), np.where(_FLIP < 0, size - 1.0, 0.0))
    source = _affine(affine, origin)
    reached = source @ np.linalg.solve(source, _affine(np.diag(step), start)) @ turn
    nx, ny, nz = (int(n) for n in size)
    return FineGrid(_triple(_FLIP * reached[:3, 3]), _triple(step), (nx, ny, nz), reached)


def _affine(matrix: FloatArray, shift: FloatArray) -> FloatArray:
    """(4, 4)."""
    result = np.eye(4)
    result[:3, :3] = matrix
    result[:3, 3] = shift
    return result


def seed_index(grid: FineGrid, seed: Sequence[float] | FloatArray) -> tuple[int, int, int]:
    """(x, y, z) index of the point of the grid that the pipeline takes for a seed (LPS, mm): truncated towards zero."""
    i, j, k, _ = np.linalg.inv(grid.affine) @ np.append(_FLIP * np.asarray(seed, dtype=np.float64), 1.0)
    return int(i), int(j), int(k)


def cube(image: Volume, seed: Sequence[float] | FloatArray, size: int) -> Cube:
    """The cube of ``size`` points of 1 mm around a seed.

    Args:
        image: CT in HU.
        seed: (x, y, z) mm, LPS.
        size: points along an edge; even.

    Raises:
        CaseFault: 'seed-outside-the-scan', or 'cube-not-finite'.
    """
    if size < 2 or size % 2:
        raise ValueError(f"found a cube of {size}, expected an even number of at least 2")
    grid = fine_grid(image)
    index = seed_index(grid, seed)
    low = [max(i - size // 2, 0) for i in index]
    high = [min(i + size // 2, n) for i, n in zip(index, grid.size, strict=True)]
    if any(a >= b for a, b in zip(low, high, strict=True)):
        raise CaseFault("seed-outside-the-scan", "found a tumour's centre outside the scan, expected it inside")
    shape = [b - a for a, b in zip(low, high, strict=True)]
    start = np.array(grid.origin) + np.array(low) * np.array(grid.step)
    box = _resampled(image, start, grid.step, shape)
    if not np.isfinite(box).all():
        raise CaseFault("cube-not-finite", "found voxels without a number around the tumour, expected HU")
    scaled = (box - LOWEST) / RANGE
    rims = [((size - n) // 2, size - n - (size - n) // 2) for n in shape[::-1]]
    return Cube(np.pad(scaled, rims).astype(np.float32), clamped=shape != [size] * 3)


def _resampled(image: Volume, start: FloatArray, step: tuple[float, float, float], shape: list[int]) -> FloatArray:
    """HU (z, y, x) on the box of the grid that begins at ``start``; linear in float64, towards -1024 HU outside."""
    import SimpleITK as sitk

    last = start + (np.array(shape) - 1) * np.array(step)
    corners = np.stack(np.meshgrid(*zip(start, last, strict=True), indexing="ij")).reshape(3, -1).T
    index = image.index(corners)
    first = np.maximum(np.floor(index.min(axis=0)).astype(int) - 1, 0)
    stop = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 2, image.shape)
    z, y, x = (slice(int(a), int(max(b, a + 1))) for a, b in zip(first, stop, strict=True))
    near = image.crop((z, y, x)).to_sitk()
    # A rim everywhere: inside the scan it is a voxel further than any point, at its end it is what lies outside.
    near = sitk.ConstantPad(sitk.Cast(near, sitk.sitkFloat64), [1, 1, 1], [1, 1, 1], LOWEST)
    found = sitk.Resample(near, shape, sitk.Transform(), sitk.sitkLinear, start.tolist(), step, _IDENTITY, LOWEST)
    return np.asarray(sitk.GetArrayFromImage(found))


_IDENTITY = np.eye(3).reshape(-1).tolist()


def _triple(values: FloatArray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
