"""RTSTRUCT contours to voxels, exactly.

A voxel belongs to a structure when its centre lies inside an odd number of the structure's contours in its slice (the
even-odd rule, so that a contour inside another one is a hole, and the two sides of a keyhole's cut cancel). Of a centre
on an edge, the left and the upper edge belong to the inside, so that regions that share an edge never share a voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans.headers import quietly
from ctfed.imaging.volume import Array, FloatArray, Volume

OFF_PLANE = 0.25  # slices by which a contour may lie off the slice that it is taken for
FLAT = 0.05  # slices by which the points of one contour may lie off their common plane
SAME_PLANE = 0.02  # slices
OUTSIDE = 1.0  # voxels by which a contour may leave the image in its plane


def read_structures(path: Path) -> dict[int, tuple[str, list[FloatArray]]]:
    """The structures of a file by number: the name, and each closed contour as (n, 3) points in mm.

    Raises:
        CaseFault: unreadable-mask, open-contour, contour-points.
    """
    import pydicom

    try:
        with quietly():
            dataset = pydicom.dcmread(path, force=True)
            names = {int(item.ROINumber): str(item.get("ROIName", "")) for item in dataset.StructureSetROISequence}
            contours = {
                int(item.ReferencedROINumber): _contours(item.get("ContourSequence") or [])
                for item in dataset.get("ROIContourSequence") or []
            }
    except CaseFault:
        raise
    except Exception as error:  # whatever a damaged file leads to in pydicom
        raise CaseFault(
            "unreadable-mask", f"found an RTSTRUCT that cannot be read ({type(error).__name__}), expected a whole file"
        ) from error
    return {number: (name, contours.get(number, [])) for number, name in names.items()}


def _contours(items: Sequence[Any]) -> list[FloatArray]:
    found = []
    for item in items:
        kind = str(item.get("ContourGeometricType", ""))
        if kind == "POINT":  # marks such as isocentres enclose nothing
            continue
        if kind not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
            raise CaseFault("open-contour", f"found a contour of type {kind or 'unknown'}, expected CLOSED_PLANAR")
        numbers = np.array([float(number) for number in item.ContourData], dtype=np.float64)
        if numbers.size < 9 or numbers.size % 3 or not np.isfinite(numbers).all():
            raise CaseFault("contour-points", f"found {numbers.size} numbers in a contour, expected 3 or more points")
        found.append(numbers.reshape(-1, 3))
    return found


def rasterise(contours: Sequence[FloatArray], grid: Volume) -> Volume:
    """The bool mask of one structure on the grid of ``grid``.

    Args:
        contours: (n, 3) points in mm, each closed by its last point meeting its first.

    Raises:
        CaseFault: contour-not-in-slice, contour-between-slices, mask-off-image.
    """
    mask = np.zeros(grid.shape, dtype=bool)
    if not contours:
        return grid.with_array(mask)
    points = grid.index(np.concatenate(contours))  # k, j, i
    lengths = np.array([contour.shape[0] for contour in contours])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    slices = _slices(points[:, 0], starts, grid.shape[0])
    _inside(points, grid.shape)
    kept = _without_repeats(points, starts, lengths, slices)
    following = np.arange(points.shape[0]) + 1
    following[starts + lengths - 1] = starts
    of_point = np.repeat(np.arange(lengths.size), lengths)
    edges = np.flatnonzero(kept[of_point])
    low, high = int(slices.min()), int(slices.max()) + 1
    toggled = np.zeros((high - low, grid.shape[1], grid.shape[2]), dtype=np.uint8)
    _toggle(toggled, points[edges, 1:], points[following[edges], 1:], slices[of_point[edges]] - low)
    mask[low:high] = np.bitwise_xor.accumulate(toggled, axis=2).astype(bool)
    return grid.with_array(mask)


def _slices(k: FloatArray, starts: Array, count: int) -> Array:
    """The slice of each contour."""
    lowest, highest = np.minimum.reduceat(k, starts), np.maximum.reduceat(k, starts)
    if (highest - lowest).max() > FLAT:
        raise CaseFault("contour-not-in-slice", "found a contour across slices, expected contours in the scan's slices")
    planes = (lowest + highest) / 2.0
    slices = np.round(planes).astype(np.int64)
    if slices.min() < 0 or slices.max() >= count:
        outside = int(((slices < 0) | (slices >= count)).sum())
        raise CaseFault("mask-off-image", f"found {outside} contours outside the scan's slices, expected none")
    if np.abs(planes - slices).max() > OFF_PLANE:
        raise CaseFault("contour-between-slices", "found a contour between two slices, expected contours in slices")
    order = np.lexsort((planes, slices))
    same = np.diff(slices[order]) == 0
    if (np.diff(planes[order])[same] > SAME_PLANE).any():
        raise CaseFault("contour-between-slices", "found contours of two planes in one slice, expected one plane")
    return slices


def _inside(points: FloatArray, shape: tuple[int, int, int]) -> None:
    outside = (points[:, 1:] < -OUTSIDE) | (points[:, 1:] > np.array(shape[1:]) - 1 + OUTSIDE)
    if outside.any():
        count = int(outside.any(axis=1).sum())
        raise CaseFault("mask-off-image", f"found {count} points of contours outside the image, expected all inside")


def _without_repeats(points: FloatArray, starts: Array, lengths: Array, slices: Array) -> Array:
    """False for a contour that repeats another one of its slice point by point: written twice, it would be a hole."""
    seen: set[tuple[int, bytes]] = set()
    kept = np.ones(lengths.size, dtype=bool)
    for c, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        key = (int(slices[c]), np.ascontiguousarray(points[start : start + length]).tobytes())
        kept[c] = key not in seen
        seen.add(key)
    return kept


def _toggle(toggled: Array, one: FloatArray, other: FloatArray, slices: Array) -> None:
    """Flip, in each row that an edge crosses, the first voxel whose centre is at or to the right of the crossing.

    Args:
        toggled: (slices, ny, nx) uint8, changed in place; its running XOR along x is the inside.
        one: (edges, 2) points y, x; ``other`` the ends of the same edges.
        slices: (edges,) slice of each edge.
    """
    _, ny, nx = toggled.shape
    swap = one[:, :1] > other[:, :1]
    upper, lower = np.where(swap, other, one), np.where(swap, one, other)  # an edge gives one crossing in both ways
    first = np.clip(np.ceil(upper[:, 0]), 0, ny).astype(np.int64)
    end = np.clip(np.ceil(lower[:, 0]), 0, ny).astype(np.int64)  # half open: the lower end belongs to the next edge
    counts = end - first
    edge = np.repeat(np.arange(counts.size), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (lower[edge, 1] - upper[edge, 1]) / (lower[edge, 0] - upper[edge, 0])
    crossing = upper[edge, 1] + (row - upper[edge, 0]) * slope
    column = np.maximum(np.ceil(crossing), 0).astype(np.int64)
    flat = ((slices[edge] * ny + row) * nx + column)[column < nx]
    where, times = np.unique(flat, return_counts=True)
    toggled.reshape(-1)[where[times % 2 == 1]] = 1
