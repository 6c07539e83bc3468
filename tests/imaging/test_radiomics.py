"""Radiomics of a region: PyRadiomics' values bit for bit, the same names whatever the region, and faults by name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ctfed.imaging.radiomics import RadiomicsSettings, extract, feature_names
from ctfed.imaging.radiomics_names import FAMILIES, SHAPE, ibsi_tags
from ctfed.imaging.volume import GeometryError, Volume

pytest.importorskip("radiomics", reason="PyRadiomics is not installed")
pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")

DEFAULT = RadiomicsSettings()
RESAMPLED = RadiomicsSettings(spacing=(1.5, 1.5, 2.0))
NAMES = feature_names(DEFAULT, shape=True)
ORIGIN = (-120.0, 35.5, -800.25)


def scan(seed: int = 0, dtype: Any = np.int16, size: tuple[int, int, int] = (18, 40, 44)) -> tuple[Volume, Volume]:
    """A textured ellipsoid in noise, well inside the image."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[: size[0], : size[1], : size[2]]
    middle = [n / 2 for n in size]
    mask = ((z - middle[0]) / 5) ** 2 + ((y - middle[1]) / 9) ** 2 + ((x - middle[2]) / 11) ** 2 < 1
    image = -500 + 700 * ndimage.gaussian_filter(rng.standard_normal(size), 1.2) + 400 * mask
    whole = np.rint(image) if np.issubdtype(dtype, np.integer) else image
    return Volume(whole.astype(dtype), (0.8, 0.8, 2.5), ORIGIN), Volume(mask, (0.8, 0.8, 2.5), ORIGIN)


def by_pyradiomics(image: Volume, mask: Volume, **settings: Any) -> dict[str, float]:
    """PyRadiomics as everyone calls it, on the whole image."""
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    found = RadiomicsFeatureExtractor(**settings).execute(image.to_sitk(), mask.to_sitk())
    return {name: float(value) for name, value in found.items() if name.startswith("original_")}


def assert_as_pyradiomics(found: dict[str, float], expected: dict[str, float]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        if name.startswith("original_shape_"):
            # An axis of no extent is zero, or the root of a rounding error.
            assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-6 * (value < 1e-6), nan_ok=True), name
        else:
            assert found[name] == value or (np.isnan(found[name]) and np.isnan(value)), name


def test_names_are_those_of_pyradiomics_classes() -> None:
    from radiomics import getFeatureClasses

    families = {"shape": SHAPE, **FAMILIES}
    for family, names in families.items():
        offered = getFeatureClasses()[family].getFeatureNames()
        assert set(names) == {name for name, deprecated in offered.items() if not deprecated}
    assert len(feature_names(DEFAULT, shape=False)) == 93
    assert len(NAMES) == len(set(NAMES)) == 107
    assert len(ibsi_tags("3D_avg")) == 102


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"bin_width": 10}, {"binWidth": 10}),
        ({"bin_count": 32}, {"binCount": 32}),
        ({"spacing": (1.5, 1.5, 2.0)}, {"resampledPixelSpacing": [1.5, 1.5, 2.0]}),
        (
            {"spacing": (0.0, 0.0, 1.0), "interpolator": "sitkLinear"},
            {"resampledPixelSpacing": [0, 0, 1], "interpolator": "sitkLinear"},
        ),
        ({"normalise": True, "normalise_scale": 100}, {"normalize": True, "normalizeScale": 100}),
        ({"weighting": "euclidean"}, {"weightingNorm": "euclidean"}),
        ({"force_2d": True}, {"force2D": True}),
        ({"distances": (1, 2), "gldm_a": 1}, {"distances": [1, 2], "gldm_a": 1}),
        ({"voxel_array_shift": 1000}, {"voxelArrayShift": 1000}),
        ({"symmetrical_glcm": False}, {"symmetricalGLCM": False}),
    ],
)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_every_setting_gives_pyradiomics_values_bit_for_bit(ours: Any, theirs: Any, dtype: Any) -> None:
    image, mask = scan(dtype=dtype)
    found = extract(image, mask, RadiomicsSettings(**ours), shape=True)
    assert found.reason is None
    assert_as_pyradiomics(found.values, by_pyradiomics(image, mask, **theirs))


@pytest.mark.parametrize(
    ("limits", "mode"), [((-600.0, 100.0), "absolute"), ((-2.0, 1.5), "sigma"), ((-300.0,), "absolute")]
)
def test_a_range_of_intensities_is_pyradiomics_and_leaves_the_shape(limits: tuple[float, ...], mode: Any) -> None:
    image, mask = scan()
    found = extract(image, mask, RadiomicsSettings(intensity_range=limits, range_mode=mode), shape=True)
    expected = by_pyradiomics(image, mask, resegmentRange=list(limits), resegmentMode=mode)
    whole = extract(image, mask, DEFAULT, shape=True)
    for name in NAMES:
        assert found.values[name] == (whole.values if "_shape_" in name else expected)[name]
    assert found.values["original_firstorder_Mean"] != whole.values["original_firstorder_Mean"]


@pytest.mark.parametrize("settings", [DEFAULT, RadiomicsSettings(bin_count=16), RadiomicsSettings(standard="ibsi")])
def test_a_crop_of_the_scan_gives_the_same_values_bit_for_bit(settings: RadiomicsSettings) -> None:
    image, mask = scan()
    whole = extract(image, mask, settings, shape=True)
    for margin in (0, 1, 4):
        box = mask.box(margin)
        assert box is not None
        assert extract(image.crop(box), mask.crop(box), settings, shape=True) == whole


def test_a_region_at_the_border_is_described_as_inside() -> None:
    """The crop without margin touches every border; outside the region nothing counts."""
    image, mask = scan()
    box = mask.box()
    assert box is not None
    noise = np.random.default_rng(1).integers(-1000, 1000, image.shape).astype(np.int16)
    elsewhere = image.with_array(np.where(mask.array, image.array, noise))
    at_border = extract(image.crop(box), mask.crop(box), DEFAULT, shape=True)
    assert at_border.reason is None
    assert at_border == extract(elsewhere, mask, DEFAULT, shape=True)


def test_several_components_are_one_region() -> None:
    image, mask = scan()
    parts = mask.array.copy()
    parts[:, :, 21:24] = False
    assert ndimage.label(parts)[1] == 2
    found = extract(image, mask.with_array(parts), DEFAULT, shape=True)
    assert found.reason is None
    assert_as_pyradiomics(found.values, by_pyradiomics(image, mask.with_array(parts)))
    assert found.values["original_shape_VoxelVolume"] == pytest.approx(parts.sum() * image.voxel_volume)


def test_any_label_counts_and_the_type_of_the_mask_does_not() -> None:
    image, mask = scan()
    as_bool = extract(image, mask, DEFAULT, shape=True)
    assert extract(image, mask.with_array(mask.array.astype(np.uint8) * 7), DEFAULT, shape=True) == as_bool


def broken(kind: str, dtype: Any = np.float32) -> tuple[Volume, Volume]:
    image, mask = scan(dtype=dtype)
    voxels, region = image.array.copy(), mask.array.copy()
    inside = tuple(np.argwhere(region)[40])
    if kind == "empty":
        region[:] = False
    elif kind in ("voxel", "rod"):
        region[:] = False
        region[9, 20, 20 : 21 if kind == "voxel" else 26] = True
    elif kind == "constant":
        voxels[region] = -50
    elif kind == "nan":
        voxels[inside] = np.nan
    elif kind == "infinite":
        voxels[inside] = np.inf
    elif kind == "garbage":
        voxels[inside] = 1e30
    elif kind == "out of range":
        voxels[region] += 5000
    return image.with_array(voxels), mask.with_array(region)


@pytest.mark.parametrize("settings", [DEFAULT, RESAMPLED, replace(RESAMPLED, standard="ibsi")])
@pytest.mark.parametrize(
    ("kind", "rule", "with_shape"),
    [
        ("empty", "empty-region", False),
        ("voxel", "region-too-small", False),
        ("rod", "region-too-small", False),
        ("constant", "constant-region", True),
        ("nan", "not-a-number", True),
        ("infinite", "not-a-number", True),
        ("garbage", "too-many-levels", True),
        ("out of range", "range-too-narrow", True),
    ],
)
def test_a_region_that_fails_keeps_all_names_and_says_why(
    settings: RadiomicsSettings, kind: str, rule: str, with_shape: bool
) -> None:
    if kind == "out of range":
        settings = replace(settings, intensity_range=(-1000.0, 400.0))
    if settings.spacing and kind in ("constant", "voxel", "rod"):
        settings = replace(settings, interpolator="sitkNearestNeighbor", spacing=(0.8, 0.8, 2.5))
    found = extract(*broken(kind), settings, shape=True)
    assert tuple(found.values) == NAMES
    assert found.reason is not None
    assert found.reason.startswith(f"{rule}: ")
    for name, value in found.values.items():
        assert np.isfinite(value) == (with_shape and "_shape_" in name), name


def test_a_region_that_resampling_swallows_is_an_empty_one() -> None:
    image, mask = scan()
    small = np.zeros(mask.shape, dtype=bool)
    small[8:10, 20:22, 20:22] = True
    found = extract(image, mask.with_array(small), RadiomicsSettings(spacing=(9.0, 9.0, 9.0)), shape=True)
    assert found.reason is not None
    assert found.reason.startswith(("empty-region: ", "region-too-small: "))
    assert "after resampling" in found.reason
    assert np.isnan(list(found.values.values())).all()


def test_a_mask_on_another_grid_is_refused() -> None:
    image, mask = scan()
    with pytest.raises(GeometryError, match="mask of a region"):
        extract(image, replace(mask, origin=(0.0, 0.0, 0.0)), DEFAULT, shape=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"interpolator": "sitkGuess"},
        {"weighting": "gut feeling"},
        {"spacing": (1.0, 1.0)},
        {"spacing": (1.0, 1.0, -1.0)},
        {"bin_width": 0},
        {"bin_count": 1},
        {"bin_count": 10**6},
        {"bin_width": float("nan")},
        {"spacing": (1.0, 1.0, float("inf"))},
        {"distances": ()},
        {"intensity_range": ()},
        {"minimum_dimensions": 0},
        {"outlier_sigma": 3.0},
        {"standard": "ibsi", "normalise": True},
        {"standard": "ibsi", "intensity_range": (-3.0, 3.0), "range_mode": "sigma"},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        RadiomicsSettings(**wrong)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:radiomics")
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(1, 6)] * 3),
    st.sampled_from([np.int16, np.float32, np.float64]),
    st.sampled_from([5.0, 25.0, 400.0]),
)
def test_any_small_region_is_pyradiomics_or_a_named_fault(
    seed: int, size: tuple[int, int, int], dtype: Any, width: float
) -> None:
    rng = np.random.default_rng(seed)
    region = rng.random(size) < rng.uniform(0.0, 1.0)
    image = Volume(np.pad(rng.normal(-300, 250, size), 3).astype(dtype), (0.7, 0.9, 3.0))
    mask = Volume(np.pad(region, 3), (0.7, 0.9, 3.0))
    found = extract(image, mask, RadiomicsSettings(bin_width=width), shape=True)
    assert tuple(found.values) == NAMES
    box = mask.box()
    extended = 0 if box is None else sum(part.stop - part.start > 1 for part in box)
    if extended < 2:
        assert found.reason is not None
        assert np.isnan(list(found.values.values())).all()
        return
    expected = by_pyradiomics(image, mask, binWidth=width)
    assert_as_pyradiomics(found.values, expected)
    undefined = [name for name, value in expected.items() if not np.isfinite(value)]
    assert (found.reason is not None) == bool(undefined)


def test_the_modules_load_without_heavy_libraries() -> None:
    code = (
        "import sys, ctfed.imaging.radiomics, ctfed.imaging.ibsi, ctfed.imaging.shape;"
        "print([name for name in ('SimpleITK', 'radiomics', 'pywt', 'torch', 'scipy.spatial') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
