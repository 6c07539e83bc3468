"""Turning and placing volumes without interpolation: axes along the patient's, and a mask onto its scan's grid."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from ctfed.cohort.faults import CaseFault
from ctfed.imaging.volume import Array, FloatArray, Volume

OFF_GRID = 0.05  # voxels by which the corners of two grids may differ; DICOM rounds positions to a thousandth of a mm


def to_patient_axes(volume: Volume) -> Volume:
    """The same voxels with axes z, y, x running as nearly as they can to the head, the back and the left.

    Nothing is interpolated: axes are exchanged and reversed.
    """
    matrix = volume.matrix[:, ::-1]  # columns: directions of array axes 0, 1, 2
    order = max(
        itertools.permutations(range(3)),
        key=lambda axes: sum(abs(matrix[world, axis]) for world, axis in zip((2, 1, 0), axes, strict=True)),
    )
    signs = [matrix[world, axis] < 0 for world, axis in zip((2, 1, 0), order, strict=True)]
    first = [0, 0, 0]
    for axis, reversed_ in zip(order, signs, strict=True):
        first[axis] = volume.shape[axis] - 1 if reversed_ else 0
    steps = [slice(None, None, -1) if reversed_ else slice(None) for reversed_ in signs]
    array = volume.array.transpose(order)[tuple(steps)]
    directions = np.stack(
        [matrix[:, axis] * (-1 if flip else 1) for axis, flip in zip(order, signs, strict=True)], axis=1
    )
    spacing = [volume.spacing[2 - axis] for axis in order]
    x, y, z = (float(value) for value in volume.world(first))
    return replace(
        volume,
        array=np.ascontiguousarray(array),
        spacing=(spacing[2], spacing[1], spacing[0]),
        origin=(x, y, z),
        direction=tuple(float(value) for value in directions[:, ::-1].reshape(-1)),
    )


def place(mask: Volume, grid: Volume) -> Volume:
    """A bool mask, of the same voxels but perhaps turned or cut, on the grid of its scan.

    Raises:
        CaseFault: mask-other-grid, when voxels do not coincide; mask-off-image, when some lie outside the scan.
    """
    turned = to_patient_axes(mask)
    if turned.same_grid(grid):
        return grid.with_array(turned.array.astype(bool))
    corners = np.array(list(itertools.product(*((0, n - 1) for n in turned.shape))), dtype=np.float64)
    landed = grid.index(turned.world(corners))
    start = np.round(landed[0])
    if np.abs(landed - (corners + start)).max() > OFF_GRID:
        raise CaseFault("mask-other-grid", f"found a mask of {turned.grid}, expected the scan's {grid.grid}")
    return grid.with_array(_paste(turned.array.astype(bool), start, grid.shape))


def _paste(found: Array, start: FloatArray, shape: tuple[int, int, int]) -> Array:
    whole = np.zeros(shape, dtype=bool)
    into, source = [], []
    for offset, here, there in zip(start.astype(int), found.shape, shape, strict=True):
        low, high = max(0, int(offset)), min(there, int(offset) + here)
        into.append(slice(low, max(low, high)))
        source.append(slice(low - int(offset), max(low, high) - int(offset)))
    whole[tuple(into)] = found[tuple(source)]
    lost = int(found.sum()) - int(whole.sum())
    if lost:
        raise CaseFault("mask-off-image", f"found {lost} voxels of a mask outside the scan, expected all inside")
    return whole
