"""Contours to voxels: the even-odd rule at voxel centres, exactly."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctfed.cohort.scans import choose_series, read_scan
from ctfed.cohort.scans.rtstruct import rasterise, read_structures
from ctfed.imaging.volume import Volume

GRID = Volume(np.zeros((4, 12, 14), dtype=np.int16), (0.8, 1.3, 2.5), (-7.0, 11.0, -300.0))
TURNED = Volume(
    GRID.array, GRID.spacing, GRID.origin, (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
)  # rows run along y


def points(grid: Volume, k: float, yx: list[tuple[float, float]]) -> np.ndarray:
    """(n, 3) mm of points given as voxel coordinates y, x in slice k."""
    return grid.world([(k, y, x) for y, x in yx])


def even_odd(polygons: list[list[tuple[float, float]]], shape: tuple[int, int]) -> np.ndarray:
    """The oracle: for each voxel, edges to its left that cross its row, counted one by one."""
    mask = np.zeros(shape, dtype=bool)
    for y in range(shape[0]):
        for x in range(shape[1]):
            for polygon in polygons:
                for (y0, x0), (y1, x1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                    if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
                        mask[y, x] ^= True
    return mask


coordinates = st.tuples(st.floats(-0.9, 11.9).map(lambda v: v + 1e-4), st.floats(-0.9, 13.9).map(lambda v: v + 1e-4))
polygon = st.lists(coordinates, min_size=3, max_size=9)


@given(st.lists(polygon, min_size=1, max_size=4, unique_by=tuple), st.sampled_from([GRID, TURNED]))
def test_any_polygons_give_the_even_odd_rule(polygons: list[list[tuple[float, float]]], grid: Volume) -> None:
    mask = rasterise([points(grid, 2, polygon) for polygon in polygons], grid).array
    assert not mask[[0, 1, 3]].any()
    differs = mask[2] != even_odd(polygons, (12, 14))
    # The round trip to mm moves a point by 1e-14; only a centre that lies on an edge to that precision may differ.
    assert all(_on_an_edge(y, x, polygons) for y, x in np.argwhere(differs))


def _on_an_edge(y: int, x: int, polygons: list[list[tuple[float, float]]]) -> bool:
    for polygon in polygons:
        for (y0, x0), (y1, x1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            edge, to = np.array([y1 - y0, x1 - x0]), np.array([y - y0, x - x0])
            t = np.clip(to @ edge / max(edge @ edge, 1e-300), 0, 1)
            if np.linalg.norm(to - t * edge) < 1e-9:
                return True
    return False


def test_a_contour_inside_another_one_is_a_hole() -> None:
    outer = points(GRID, 1, [(1.5, 1.5), (1.5, 10.5), (9.5, 10.5), (9.5, 1.5)])
    inner = points(GRID, 1, [(3.5, 3.5), (6.5, 3.5), (6.5, 7.5), (3.5, 7.5)])
    mask = rasterise([outer, inner], GRID).array[1]
    assert mask.sum() == 8 * 9 - 3 * 4
    assert not mask[4:7, 4:8].any()


def test_the_cut_of_a_keyhole_leaves_no_line() -> None:
    ring = [(1.0, 1.0), (1.0, 11.0), (9.0, 11.0), (9.0, 1.0)]
    hole = [(3.0, 3.0), (3.0, 8.0), (7.0, 8.0), (7.0, 3.0)]
    keyhole = [*ring, ring[0], *hole, hole[0]]  # out along the cut and back by closing
    one = rasterise([points(GRID, 0, keyhole)], GRID).array
    two = rasterise([points(GRID, 0, ring), points(GRID, 0, hole)], GRID).array
    assert np.array_equal(one, two)
    assert one.any()


def test_neighbours_that_share_edges_through_centres_share_no_voxel() -> None:
    ys, xs = [0.0, 3.0, 7.0, 11.0], [0.0, 4.0, 5.0, 13.0]
    total = np.zeros((12, 14), dtype=int)
    for y0, y1 in itertools.pairwise(ys):
        for x0, x1 in itertools.pairwise(xs):
            for corners in ([(y0, x0), (y0, x1), (y1, x1)], [(y0, x0), (y1, x1), (y1, x0)]):  # two triangles
                total += rasterise([points(GRID, 3, corners)], GRID).array[3]
    assert (total[:11, :13] == 1).all()
    assert total.sum() == 11 * 13


def test_a_contour_written_twice_counts_once() -> None:
    square = points(GRID, 1, [(1.5, 1.5), (1.5, 10.5), (9.5, 10.5), (9.5, 1.5)])
    assert np.array_equal(rasterise([square, square], GRID).array, rasterise([square], GRID).array)


def test_no_contour_gives_no_voxel() -> None:
    assert not rasterise([], GRID).array.any()


def test_lung1_001_gives_the_published_voxels_and_seed(lung1: Any) -> None:
    scan, masks = lung1.scan, lung1.masks
    # Voxels: Haukeland's table of LUNG1 features. Seed: FMCIB's annotations of LUNG1, the centroid of GTV-1.
    assert masks["tumour"].array.sum() == 54_639
    seed = (82.30073006174621, -201.48108486783707, -456.8378905)
    np.testing.assert_allclose(masks["tumour"].centroid(), seed, rtol=0, atol=1e-6)
    assert scan.volume.array[masks["tumour"].array].mean() == pytest.approx(-64.127, abs=1e-3)
    assert masks["lung"].array.sum() == 1_832_555  # left and right together
    assert list(masks) == ["lung", "tumour"]
    assert (scan.volume.size, scan.volume.array.dtype) == ((512, 512, 134), np.int16)
    assert (scan.acquisition.kernel, scan.acquisition.kvp, scan.acquisition.contrast) == ("B19f", 120.0, True)
    assert (scan.acquisition.manufacturer, scan.acquisition.contrast_evidence) == ("SIEMENS", "text")


def test_lung1_001_is_read_and_drawn_in_seconds(lung1: Any) -> None:
    began = time.process_time()
    scan = read_scan(choose_series(lung1.patient).series)
    read = time.process_time()
    structures = read_structures(lung1.patient.others[0].path)
    lungs = [contours for name, contours in structures.values() if name.startswith("Lung")]
    assert sum(int(rasterise(contours, scan.volume).array.sum()) for contours in lungs) > 1_800_000
    assert time.process_time() - read < 10.0
    assert read - began < 5.0  # half a second on a quiet machine
