"""Fast shape features: equal to PyRadiomics' own, which compares all vertices, on real and on random regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctfed.imaging.radiomics_names import SHAPE
from ctfed.imaging.shape import mesh, mesh_diameters, shape_features

pytest.importorskip("radiomics", reason="PyRadiomics is not installed")
sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")

Spacing = tuple[float, float, float]


def by_pyradiomics(mask: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """PyRadiomics' shape class on the box of the region, as its extractor calls it."""
    from radiomics.shape import RadiomicsShape

    where = np.argwhere(mask)
    low, high = where.min(axis=0), where.max(axis=0) + 1
    labels = sitk.GetImageFromArray(mask[low[0] : high[0], low[1] : high[1], low[2] : high[2]].astype(np.uint8))
    labels.SetSpacing(spacing)
    features = RadiomicsShape(sitk.Cast(labels, sitk.sitkFloat32), labels, label=1)
    features.enableAllFeatures()
    return {name: float(value) for name, value in features.execute().items()}


def assert_equal(mask: np.ndarray, spacing: Spacing) -> None:
    expected, found = by_pyradiomics(mask, spacing), shape_features(mask, spacing)
    assert set(found) == set(expected) == set(SHAPE)
    for name, value in expected.items():
        # An axis of no extent is zero, or the root of a rounding error.
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-6 * (value < 1e-6), nan_ok=True), name


@pytest.mark.parametrize("case", ["lung1", "brain1", "breast1"])
def test_a_real_region_has_pyradiomics_shape(shared_data: Path, case: str) -> None:
    labels = sitk.ReadImage(str(shared_data / "imaging" / "pyradiomics" / f"{case}_label.nrrd"))
    assert_equal(sitk.GetArrayFromImage(labels) == 1, labels.GetSpacing())


def test_a_tumour_on_thick_slices_has_pyradiomics_shape(shared_data: Path) -> None:
    folder = shared_data / "imaging" / "ibsi" / "ibsi_1_ct_radiomics_phantom" / "nifti" / "mask"
    labels = sitk.ReadImage(str(folder / "mask.nii.gz"))
    assert_equal(sitk.GetArrayFromImage(labels) == 1, labels.GetSpacing())


def test_a_ball_has_the_volume_and_the_diameter_of_a_ball() -> None:
    z, y, x = np.mgrid[-25:26, -25:26, -25:26] * 0.8
    found = shape_features(x**2 + y**2 + z**2 < 15**2, (0.8, 0.8, 0.8))
    assert found["MeshVolume"] == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.01)
    assert found["Maximum3DDiameter"] == pytest.approx(30, abs=0.8)
    assert found["Sphericity"] == pytest.approx(0.93, abs=0.02)  # facets of marching cubes have more area than a ball
    assert found["Elongation"] == pytest.approx(1, abs=1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:radiomics")
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 7)] * 3), st.tuples(*[st.floats(0.3, 5.0)] * 3))
def test_any_region_has_pyradiomics_shape(seed: int, size: tuple[int, int, int], spacing: Spacing) -> None:
    """Scattered voxels, sheets, rods, holes, several components, regions that fill the array."""
    rng = np.random.default_rng(seed)
    mask = rng.random(size) < rng.uniform(0.05, 1.0)
    mask[tuple(rng.integers(0, size))] = True
    assert_equal(mask, spacing)


def test_the_mesh_of_voxels_that_touch_at_corners_is_pyradiomics_even_where_it_has_holes() -> None:
    """There the volume depends on where the array begins, and the table follows."""
    from radiomics import cShape

    rng = np.random.default_rng(15)
    open_meshes = 0
    for _ in range(20):
        core = rng.random((6, 5, 6)) < 0.5
        volumes = []
        for before in (1, 4):
            mask = np.pad(core, ((before, 1), (1, 1), (1, 1)))
            area, volume, _ = cShape.calculate_coefficients(mask, np.array([3.0, 0.7, 0.9]))
            assert mesh(mask, (3.0, 0.7, 0.9)) == pytest.approx((area, volume), rel=1e-9)
            volumes.append(volume)
        open_meshes += abs(volumes[1] / volumes[0] - 1) > 1e-6
    assert open_meshes > 0


def test_the_diameters_of_a_box_lie_between_the_middles_of_outer_faces() -> None:
    """2 x 3 x 5 voxels of 2 x 1 x 1 mm: vertices lie half a voxel outside, along one axis each."""
    mask = np.pad(np.ones((2, 3, 5), dtype=bool), 1)
    in_slice, in_column, in_row, anywhere = mesh_diameters(mask, (2.0, 1.0, 1.0))
    assert in_slice == pytest.approx(np.hypot(2, 5))  # from the left face to the right
    assert in_column == pytest.approx(np.hypot(4, 4))  # from the lower face to the upper
    assert in_row == pytest.approx(np.hypot(4, 2))
    assert anywhere == pytest.approx(np.sqrt(4**2 + 2**2 + 4**2))


def test_a_region_without_voxels_has_no_shape() -> None:
    with pytest.raises(ValueError, match="no shape"):
        shape_features(np.zeros((3, 3, 3), dtype=bool), (1.0, 1.0, 1.0))
