"""Cubes for the foundation model equal the published preprocessing to a thousandth of a HU, borders and all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ctfed.cohort.faults import CaseFault
from ctfed.imaging.volume import Volume

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed (pip install ctfed[imaging])")

from ctfed.imaging.fm_crop import cube, fine_grid, seed_index  # noqa: E402

LUNG1_SEED = (82.30073006174621, -201.48108486783707, -456.8378905)  # published, of GTV-1 of LUNG1-001
EXACT = 1e-3  # HU


@pytest.fixture(scope="module")
def scan(shared_data: Path) -> Volume:
    """122 x 101 x 30 voxels of 3 mm of a real CT, stored with x and y reversed."""
    return Volume.from_sitk(
        sitk.ReadImage(str(shared_data / "imaging" / "totalsegmentator" / "example_ct_sm.nii.gz"))
    ).crop((slice(0, 30), slice(10, 70), slice(15, 80)))


@pytest.fixture(scope="module")
def lung1(lung1_001_folder: Path) -> Volume:
    """The whole CT of LUNG1-001."""
    folder = next(path.parent for path in lung1_001_folder.rglob("1-001.dcm") if len(list(path.parent.iterdir())) > 100)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return Volume.from_sitk(reader.Execute())


def differences(image: Volume, seeds: Sequence[Sequence[float]], sizes: Sequence[int]) -> list[float]:
    """Largest difference in HU for each seed and size."""
    pytest.importorskip("monai", reason="MONAI is not installed")
    from monai_support import monai_cube, monai_scan

    whole = monai_scan(image)
    return [
        float(np.abs(monai_cube(whole, seed, size) - cube(image, seed, size).array).max()) * 3072
        for seed in seeds
        for size in sizes
    ]


def points(image: Volume) -> list[list[float]]:
    """The middle, each end, and a place between voxels near a corner."""
    last = np.array(image.shape) - 1.0
    indices = [last / 2, np.zeros(3), last, [0.0, last[1], last[2] / 2], last - 0.4, [1.3, 2.6, 3.9]]
    return [image.world(index).tolist() for index in indices]


def test_cubes_equal_the_published_preprocessing_everywhere(scan: Volume) -> None:
    assert max(differences(scan, points(scan), (50, 96, 128))) <= EXACT


@pytest.mark.parametrize("code", ["RAI", "PIR", "ASL"])
def test_the_orientation_of_the_file_does_not_matter(scan: Volume, code: str) -> None:
    turned = Volume.from_sitk(sitk.DICOMOrient(scan.to_sitk(), code))
    assert max(differences(turned, points(turned), (50,))) <= EXACT
    seed = points(scan)[0]
    assert np.abs(cube(turned, seed, 50).array - cube(scan, seed, 50).array).max() * 3072 <= EXACT


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 1.25), (0.9766, 0.9766, 3.0), (0.9995, 1.0, 5.0), (1.0, 1.0, 1.0)])
def test_any_spacing_has_the_published_grid(scan: Volume, spacing: tuple[float, float, float]) -> None:
    image = Volume(scan.array, spacing, (-71.3, 12.25, -433.1))
    assert max(differences(image, points(image), (50,))) <= EXACT


def test_an_oblique_scan_has_the_published_grid(scan: Volume) -> None:
    c, s = np.cos(0.1), np.sin(0.1)
    image = Volume(scan.array, scan.spacing, scan.origin, (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0))
    assert max(differences(image, [points(image)[0], points(image)[5]], (50,))) <= EXACT


@pytest.mark.slow
def test_lung1_001_whole(lung1: Volume) -> None:
    border = lung1.world(np.array(lung1.shape) * (0.02, 0.5, 0.97)).tolist()
    assert max(differences(lung1, [LUNG1_SEED, border], (50, 96, 128))) <= EXACT


def test_a_cube_inside_is_centred_and_one_at_the_border_is_flagged(scan: Volume) -> None:
    middle, corner = points(scan)[:2]
    assert not cube(scan, middle, 50).clamped
    flagged = cube(scan, corner, 50)
    assert flagged.clamped
    # Half the box is left, and it is padded on both sides alike, not where it was cut.
    filled = np.argwhere(flagged.array != 0.0)
    assert filled.min() >= 12
    assert filled.max() <= 37


def test_the_seed_is_truncated_on_the_grid_of_the_far_corner() -> None:
    image = Volume(np.zeros((4, 5, 6), dtype=np.int16), (1.5, 1.5, 2.0))
    grid = fine_grid(image)
    # x: 7.5 mm between centres, round(8.5) = 8 points that end at 7.5 mm.
    assert grid.size == (8, 7, 7)
    assert grid.origin == (0.5, 0.0, 0.0)
    assert seed_index(grid, (3.4, 3.9, 3.0)) == (2, 3, 3)
    assert seed_index(grid, (0.1, 0.0, 0.0)) == (0, 0, 0)  # towards zero, not down


def test_values_are_scaled_and_not_clipped() -> None:
    for hu, expected in ((-1024, 0.0), (2048, 1.0), (3071, 4095 / 3072), (-2000, -976 / 3072)):
        image = Volume(np.full((60, 60, 60), hu, dtype=np.int16), (1.0, 1.0, 1.0))
        found = cube(image, (30.0, 30.0, 30.0), 50).array
        assert found.dtype == np.float32
        assert found == pytest.approx(np.full((50, 50, 50), expected, dtype=np.float32), abs=1e-6)


@pytest.mark.parametrize(
    ("seed", "value", "rule"),
    [((500.0, 30.0, 30.0), 0.0, "seed-outside-the-scan"), ((30.0, 30.0, 30.0), np.nan, "cube-not-finite")],
)
def test_what_cannot_be_cut_is_a_named_fault(seed: tuple[float, float, float], value: float, rule: str) -> None:
    array = np.zeros((60, 60, 60))
    array[30, 30, 30] = value
    with pytest.raises(CaseFault) as caught:
        cube(Volume(array, (1.0, 1.0, 1.0)), seed, 50)
    assert caught.value.rule == rule


@pytest.mark.parametrize("size", [0, 1, 49])
def test_only_even_cubes(size: int) -> None:
    with pytest.raises(ValueError, match="expected an even number"):
        cube(Volume(np.zeros((9, 9, 9)), (1.0, 1.0, 1.0)), (4.0, 4.0, 4.0), size)
