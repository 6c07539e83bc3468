"""Kernel normalisation: bands that add up, energies that meet the reference, and nothing moved outside the lung."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from ctfed.imaging.kernel import KernelSettings, _Region, band_energies, normalise_kernel
from ctfed.imaging.volume import GeometryError, Volume

SPACING = (0.8, 0.8, 1.5)
LOOSE = KernelSettings(reference=(40.0, 30.0, 25.0, 20.0, 15.0))


def chest(seed: int = 0, filtered: Callable[[np.ndarray], np.ndarray] | None = None) -> tuple[Volume, Volume]:
    """Two 'lungs' of structured noise inside soft tissue."""
    rng = np.random.default_rng(seed)
    shape = (30, 96, 96)
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    lung = np.zeros(shape, dtype=bool)
    for centre in (28, 68):
        lung |= ((x - centre) / 16) ** 2 + ((y - 48) / 30) ** 2 + ((z - 15) / 13) ** 2 < 1
    texture = sum(
        weight * ndimage.gaussian_filter(rng.standard_normal(shape), sigma) * sigma
        for sigma, weight in ((0.6, 60), (2, 120), (5, 200))
    )
    image = np.where(lung, -850 + texture, 40 + 10 * rng.standard_normal(shape))
    if filtered is not None:
        image = filtered(image)
    return Volume(image.astype(np.float32), SPACING), Volume(lung, SPACING)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_bands_and_the_rest_add_up_to_the_image(masked: bool, dimensions: int) -> None:
    image, lung = chest()
    region = _Region.of(image, lung, KernelSettings(masked=masked, dimensions=dimensions))  # type: ignore[arg-type]
    bands, rest = region.bands(region.image)
    np.testing.assert_allclose(sum(bands) + rest, region.image, atol=2e-3)


@pytest.mark.parametrize(
    "settings", [LOOSE, KernelSettings(reference=LOOSE.reference, dimensions=2, unit="mm", erode=1)]
)
def test_energies_meet_the_reference(settings: KernelSettings) -> None:
    image, lung = chest()
    found = normalise_kernel(image, lung, settings)
    assert found.converged
    assert 1 < found.iterations <= settings.max_iterations
    np.testing.assert_allclose(found.after, settings.reference, rtol=0.053)
    np.testing.assert_allclose(band_energies(found.image, lung, settings), found.after, rtol=1e-5)


def test_voxels_outside_the_lung_stay_as_they_are() -> None:
    image, lung = chest()
    found = normalise_kernel(image, lung, LOOSE)
    outside = ~lung.array
    assert np.array_equal(found.image.array[outside], image.array[outside])
    assert not np.array_equal(found.image.array[~outside], image.array[~outside])


def test_a_normalised_scan_is_left_alone() -> None:
    image, lung = chest()
    once = normalise_kernel(image, lung, LOOSE).image
    again = normalise_kernel(once, lung, LOOSE)
    assert again.iterations == 0
    assert np.array_equal(again.image.array, once.array)


def test_a_soft_and_a_sharp_copy_of_one_scan_meet() -> None:
    soft_image, lung = chest(filtered=lambda image: ndimage.gaussian_filter(image, (0, 0.8, 0.8)))
    sharp_image, _ = chest(filtered=lambda image: image + 0.8 * (image - ndimage.gaussian_filter(image, (0, 1, 1))))
    inner = replace(LOOSE, erode=3)  # a filter mixes the chest wall into the edge of the lung
    before = np.array(band_energies(sharp_image, lung, inner)) / band_energies(soft_image, lung, inner)
    assert before[0] > 2
    soft, sharp = (normalise_kernel(image, lung, inner) for image in (soft_image, sharp_image))
    assert soft.converged
    assert sharp.converged
    np.testing.assert_allclose(np.array(sharp.after) / soft.after, 1, atol=0.1)


def test_a_scan_without_texture_ends_and_says_so() -> None:
    _, lung = chest()
    flat = lung.with_array(np.full(lung.shape, -850.0))
    found = normalise_kernel(flat, lung, LOOSE)
    assert np.isfinite(found.image.array).all()
    assert found.after == pytest.approx((0,) * 5, abs=1e-2)


def test_what_cannot_be_normalised_is_refused_in_words() -> None:
    image, lung = chest()
    small = lung.with_array(np.zeros(lung.shape, dtype=bool))
    with pytest.raises(GeometryError, match="has 0 voxels, expected at least 5000"):
        normalise_kernel(image, small)
    broken = image.array.copy()
    broken[lung.array] = np.nan
    with pytest.raises(GeometryError, match="without a number"):
        normalise_kernel(image.with_array(broken), lung)
    with pytest.raises(ValueError, match="as many reference energies"):
        KernelSettings(sigmas=(1.0, 2.0))
    with pytest.raises(ValueError, match="must be > 0 and rise"):
        KernelSettings(sigmas=(2.0, 1.0), reference=(1.0, 1.0))
