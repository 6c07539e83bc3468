"""Agatston score: analytic phantoms, and the edges of its definition."""

from __future__ import annotations

import numpy as np
import pytest

from ctfed.imaging.calcium import calcium_score, is_sharp, weight
from ctfed.imaging.volume import GeometryError, Volume


def score(array: np.ndarray, spacing: tuple[float, float, float], mask: np.ndarray | None = None, **options: object):  # type: ignore[no-untyped-def]
    inside = np.ones(array.shape, dtype=bool) if mask is None else mask
    return calcium_score(Volume(array, spacing), Volume(inside, spacing), **options)  # type: ignore[arg-type]


def test_a_block_of_known_area_and_peak_has_its_score() -> None:
    """4 x 2 voxels of 0.5 mm on each of two slices: 2 mm2 x weight 4 x 2 slices."""
    array = np.full((6, 10, 10), -50.0)
    array[2:4, 3:7, 4:6] = 400.0
    found = score(array, (0.5, 0.5, 0.5))
    assert found.agatston == 16.0
    assert found.volume == 2.0
    assert found.lesions == 2
    assert found.agatston_3mm == pytest.approx(16.0 / 6, rel=1e-15)


def test_a_weaker_block_has_a_lower_weight() -> None:
    array = np.zeros((4, 10, 10))
    array[1:3, 2:6, 2:5] = 280.0
    assert score(array, (0.5, 0.5, 0.5)).agatston == 12.0


@pytest.mark.parametrize(
    ("hu", "expected"),
    [(129.999, 0), (130, 1), (199.999, 1), (200, 2), (299.999, 2), (300, 3), (399.999, 3), (400, 4), (3000, 4)],
)
def test_the_weights_change_at_130_200_300_and_400(hu: float, expected: int) -> None:
    array = np.zeros((1, 8, 8))
    array[0, 2:5, 2:5] = hu
    assert score(array, (1.0, 1.0, 3.0)).agatston == 9.0 * expected
    assert weight(hu) == expected


@pytest.mark.parametrize(
    ("pixels", "spacing", "kept"),
    [
        (1, 1.0, True),
        (1, 0.999, False),
        (4, 0.5, True),
        (3, 0.5, False),
        (2, 0.7, False),
        (3, 0.7, True),
        (100, 0.1, True),
    ],
)
def test_lesions_below_one_square_millimetre_are_noise(pixels: int, spacing: float, kept: bool) -> None:
    array = np.zeros((1, 3, 120))
    array[0, 1, 2 : 2 + pixels] = 150.0
    found = score(array, (spacing, spacing, 3.0))
    assert (found.lesions == 1) is kept
    assert found.agatston == pytest.approx(pixels * spacing**2 if kept else 0.0, rel=1e-12)


def test_the_peak_counts_on_its_own_slice_alone() -> None:
    array = np.zeros((2, 6, 6))
    array[0, 2:4, 2:4], array[1, 2:4, 2:4] = 150.0, 150.0
    array[1, 2, 2] = 450.0
    assert score(array, (1.0, 1.0, 3.0)).agatston == 4 * 1 + 4 * 4


def test_diagonal_neighbours_are_one_lesion_unless_told_otherwise() -> None:
    array = np.zeros((1, 6, 6))
    array[0, 2, 2], array[0, 3, 3] = 140.0, 420.0
    assert score(array, (1.0, 1.0, 3.0)).agatston == 2 * 4
    assert score(array, (1.0, 1.0, 3.0), connectivity=4).agatston == 1 * 1 + 1 * 4


def test_only_voxels_of_the_mask_count() -> None:
    array = np.full((3, 8, 8), 500.0)
    mask = np.zeros(array.shape, dtype=bool)
    mask[1, 2:4, 2:4] = True
    assert score(array, (1.0, 1.0, 3.0), mask).agatston == 16.0


def test_an_empty_mask_is_missing_and_not_zero() -> None:
    found = score(np.full((2, 4, 4), 500.0), (1.0, 1.0, 3.0), np.zeros((2, 4, 4), dtype=bool))
    assert found.agatston is None
    assert found.agatston_3mm is None
    assert found.mask_median is None
    clean = score(np.full((2, 4, 4), 40.0), (1.0, 1.0, 3.0))
    assert clean.agatston == 0.0


def test_contrast_and_kernel_are_flagged() -> None:
    lumen = np.full((2, 8, 8), 320.0)
    assert score(lumen, (1.0, 1.0, 3.0)).contrast
    plain = np.full((2, 8, 8), 45.0)
    assert not score(plain, (1.0, 1.0, 3.0)).contrast
    assert score(plain, (1.0, 1.0, 3.0), contrast=True).contrast
    assert score(plain, (1.0, 1.0, 3.0), kernel="BONEPLUS").sharp_kernel is True
    assert score(plain, (1.0, 1.0, 3.0), kernel="B19f").sharp_kernel is False
    assert score(plain, (1.0, 1.0, 3.0)).sharp_kernel is None


@pytest.mark.parametrize(
    ("kernel", "sharp"),
    [("B70f", True), ("B45f", False), ("Br64d", True), ("I31f", False), ("LUNG", True), ("STANDARD", False),
     ("FC52", True), ("FC08", False), ("L", True), ("YB", True), ("B", False), ("C", False), ("anything", False)],
)  # fmt: skip
def test_sharp_kernels_are_known_by_their_vendors_names(kernel: str, sharp: bool) -> None:
    assert is_sharp(kernel) is sharp


def test_another_grid_and_missing_voxels_are_refused() -> None:
    with pytest.raises(GeometryError, match="the mask of the coronary arteries"):
        calcium_score(
            Volume(np.zeros((2, 3, 4)), (1.0, 1.0, 1.0)), Volume(np.ones((2, 3, 4), dtype=bool), (1.0, 1.0, 2.0))
        )
    broken = np.zeros((1, 3, 3))
    broken[0, 1, 1] = np.nan
    with pytest.raises(GeometryError, match="without a number"):
        score(broken, (1.0, 1.0, 1.0))
