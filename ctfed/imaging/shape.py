"""The fourteen shape features of PyRadiomics, without its quadratic search for diameters.

PyRadiomics draws a triangle mesh around the region by marching cubes and compares every vertex of it with every other:
minutes for a lung. Two facts give the same numbers in a second:

- A cube of 2 x 2 x 2 voxels contributes to area and volume by its pattern alone, one of 256. Moving a triangle a b c
  by p changes its signed volume det(a, b, c) / 6 by p . (a x b + b x c + c x a) / 6, which is linear in p. So the whole
  mesh is a histogram of patterns times a table of (area, volume, normal), and the table is filled by PyRadiomics' own C
  code (``radiomics.cShape``) on arrays of one and two cubes.
- The vertices that lie farthest apart are vertices of the convex hull.

That mesh has holes where voxels of the region touch along an edge or at a corner only; its volume then depends on
where the array begins. PyRadiomics measures the region's box with one voxel around it, and so does this module.

Areas are mm2, volumes mm3, lengths mm. Vertices are counted in half voxels, which are integers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def shape_features(mask: BoolArray, spacing: tuple[float, float, float]) -> dict[str, float]:
    """PyRadiomics' 14 shape features of one region, by name (without the prefix ``original_shape_``).

    Args:
        mask: (nz, ny, nx), True in the region; it may touch the border of the array and may have several components,
            which are described as one body.
        spacing: (x, y, z) mm.

    Raises:
        ValueError: when no voxel is True.
    """
    where = np.argwhere(mask)
    if where.size == 0:
        raise ValueError("an empty mask has no shape")
    low, high = where.min(axis=0), where.max(axis=0) + 1
    padded = np.pad(mask[low[0] : high[0], low[1] : high[1], low[2] : high[2]], 1)
    zyx = (spacing[2], spacing[1], spacing[0])
    area, volume = mesh(padded, zyx)
    diameters = mesh_diameters(padded, zyx)
    least, minor, major = np.sqrt(principal_variances(where - low + 1, zyx))
    return {
        "Elongation": float(minor / major) if major > 0 else float("nan"),
        "Flatness": float(least / major) if major > 0 else float("nan"),
        "LeastAxisLength": float(4 * least),
        "MajorAxisLength": float(4 * major),
        "Maximum2DDiameterColumn": diameters[1],
        "Maximum2DDiameterRow": diameters[2],
        "Maximum2DDiameterSlice": diameters[0],
        "Maximum3DDiameter": diameters[3],
        "MeshVolume": volume,
        "MinorAxisLength": float(4 * minor),
        "Sphericity": (36 * np.pi * volume**2) ** (1.0 / 3.0) / area,
        "SurfaceArea": area,
        "SurfaceVolumeRatio": area / volume,
        "VoxelVolume": where.shape[0] * (zyx[0] * zyx[2] * zyx[1]),
    }


def principal_variances(where: IntArray, spacing: tuple[float, float, float]) -> FloatArray:
    """(3,) variances in mm2 of voxel centres along their principal axes, rising.

    Args:
        where: (n, 3) indices [z, y, x]; ``spacing``: (z, y, x) mm.
    """
    points = where * np.array(spacing, dtype=np.float64)
    points = (points - points.mean(axis=0)) / np.sqrt(where.shape[0])
    # A flat region has a variance of zero that rounding may leave below it.
    return np.asarray(np.maximum(np.linalg.eigvalsh(points.T @ points), 0.0))


# --- area and volume ------------------------------------------------------------------------------------------------


def mesh(mask: BoolArray, spacing: tuple[float, float, float]) -> tuple[float, float]:
    """Area in mm2 and volume in mm3 of the marching-cubes mesh that ``radiomics.cShape`` draws.

    Args:
        mask: (nz, ny, nx), False on its whole border; ``spacing``: (z, y, x) mm.
    """
    patterns = _cube_patterns(mask)
    areas, volumes, normals = _pattern_table(spacing)
    flat = patterns.ravel()
    crossed = np.flatnonzero((flat > 0) & (flat < 255))
    found = flat[crossed]
    counts = np.bincount(found, minlength=256)
    # Sums of integer positions are exact; millimetres come in at the end.
    positions = np.unravel_index(crossed, patterns.shape)
    shifts = [np.bincount(found, weights=position, minlength=256) for position in positions]
    moved = sum(float(shift @ normals[:, axis]) * spacing[axis] for axis, shift in enumerate(shifts))
    return float(counts @ areas), abs(float(counts @ volumes) + moved)


def _cube_patterns(mask: BoolArray) -> npt.NDArray[np.uint8]:
    """(nz - 1, ny - 1, nx - 1) pattern of each cube; its bit 4 dz + 2 dy + dx is the voxel at (dz, dy, dx)."""
    nz, ny, nx = mask.shape
    voxels = mask.view(np.uint8)
    patterns = np.zeros((nz - 1, ny - 1, nx - 1), dtype=np.uint8)
    for bit in range(8):
        z, y, x = bit >> 2, (bit >> 1) & 1, bit & 1
        patterns |= voxels[z : nz - 1 + z, y : ny - 1 + y, x : nx - 1 + x] << np.uint8(bit)
    return patterns


def _cube(pattern: int) -> BoolArray:
    return np.array([(pattern >> bit) & 1 for bit in range(8)], dtype=bool).reshape(2, 2, 2)


@lru_cache(maxsize=16)
def _pattern_table(spacing: tuple[float, float, float]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Per pattern: (256,) area, (256,) signed volume seen from the cube's first voxel, (256, 3) change of that volume
    per mm that the cube is moved along z, y, x."""
    from radiomics import cShape

    def measure(voxels: BoolArray) -> tuple[float, float]:
        area, volume, _ = cShape.calculate_coefficients(
            np.ascontiguousarray(voxels), np.array(spacing, dtype=np.float64)
        )
        return area, volume

    areas, volumes = np.array([measure(_cube(pattern)) for pattern in range(256)]).T
    normals = np.zeros((256, 3))
    for pattern in range(256):
        cube = _cube(pattern)
        for axis in range(3):
            # Two cubes in a row: the second is this pattern one voxel on, the first repeats its near face.
            face = cube.take([0], axis)
            near = np.concatenate([face, face], axis)
            _, both = measure(np.concatenate([face, cube], axis))
            before = sum(int(voxel) << bit for bit, voxel in enumerate(near.ravel()))
            normals[pattern, axis] = (both - volumes[before] - volumes[pattern]) / spacing[axis]
    return areas, volumes, normals


# --- diameters ------------------------------------------------------------------------------------------------------


def mesh_diameters(mask: BoolArray, spacing: tuple[float, float, float]) -> tuple[float, float, float, float]:
    """Largest distances in mm between mesh vertices with the same z, the same y, the same x, and between any two.

    Args:
        mask: (nz, ny, nx), False on its whole border, with at least one voxel; ``spacing``: (z, y, x) mm.
    """
    vertices = _vertices(mask)
    scale = np.array(spacing, dtype=np.float64)
    in_planes = [_largest_in_planes(vertices, axis, scale) for axis in range(3)]
    return in_planes[0], in_planes[1], in_planes[2], _farthest(_hull_3d(_row_ends(vertices)), scale)


def _vertices(mask: BoolArray) -> IntArray:
    """(n, 3) vertices of the mesh in half voxels: the middle of each pair of neighbours that are not alike."""
    found = []
    for axis in range(3):
        crossed = np.argwhere(np.diff(mask, axis=axis))
        crossed *= 2
        crossed[:, axis] += 1
        found.append(crossed)
    return np.concatenate(found)


def _row_ends(points: IntArray) -> IntArray:
    """The first and the last point of each row of equal leading coordinates; nothing between can be farthest."""
    ordered = points[np.lexsort(points.T[::-1])]
    new_row = np.any(np.diff(ordered[:, :-1], axis=0) != 0, axis=1)
    ends: IntArray = ordered[np.concatenate([[True], new_row]) | np.concatenate([new_row, [True]])]
    return ends


def _hull_3d(points: IntArray) -> IntArray:
    from scipy.spatial import ConvexHull

    # A closed mesh is never flat, so there is a hull.
    corners: IntArray = points[ConvexHull(points).vertices]
    return corners


def _hull_2d(points: IntArray) -> IntArray:
    """Andrew's monotone chain on points that are sorted; exact, since they are integers."""

    def chain(ordered: list[list[int]]) -> list[list[int]]:
        kept: list[list[int]] = []
        for y, x in ordered:
            while len(kept) > 1:
                (y0, x0), (y1, x1) = kept[-2:]
                if (y1 - y0) * (x - x0) - (x1 - x0) * (y - y0) > 0:
                    break
                kept.pop()
            kept.append([y, x])
        return kept

    ordered = points.tolist()
    return np.array(chain(ordered) + chain(ordered[::-1]), dtype=np.int64)


def _farthest(points: IntArray, spacing: FloatArray) -> float:
    """Largest distance in mm between any two of (n, d) points in half voxels."""
    placed = (points * 0.5) * spacing
    largest = 0.0
    for start in range(0, placed.shape[0], 512):  # blocks, so that memory stays small
        part = placed[start : start + 512]
        squared = sum((part[:, None, axis] - placed[None, :, axis]) ** 2 for axis in range(placed.shape[1]))
        largest = max(largest, float(np.max(squared)))
    return float(np.sqrt(largest))


def _largest_in_planes(vertices: IntArray, axis: int, spacing: FloatArray) -> float:
    """Largest distance in mm between two vertices whose coordinate along ``axis`` is equal."""
    others = [other for other in range(3) if other != axis]
    ends = _row_ends(vertices[:, [axis, *others]])
    starts = np.flatnonzero(np.concatenate([[True], np.diff(ends[:, 0]) != 0]))
    planes = np.split(ends[:, 1:], starts[1:])
    scale = spacing[others]
    diagonals = [float(np.sqrt(np.sum((np.ptp(plane, axis=0) * 0.5 * scale) ** 2))) for plane in planes]
    largest = 0.0
    for index in np.argsort(diagonals)[::-1]:
        # No two points of a plane are farther apart than the corners of their box (with room for rounding).
        if diagonals[index] * (1 + 1e-9) < largest:
            break
        largest = max(largest, _farthest(_hull_2d(planes[index]), scale))
    return largest
