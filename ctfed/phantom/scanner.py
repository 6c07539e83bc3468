"""What a site's scanner makes of a chest: noise, then the reconstruction kernel, then whole HU."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ctfed.imaging.volume import Volume
from ctfed.phantom.profiles import SiteProfile

LOWEST, HIGHEST = -1024, 3071  # HU, the range of 12 bits
SHARPENED_LENGTH = 1.5  # mm, SD of the blur whose difference a sharp kernel adds


def scan(chest: Volume, profile: SiteProfile, seed: int) -> Volume:
    """The chest as int16 HU. A profile without noise, blur and sharpening changes no voxel between -1024 and 3071 HU.

    Noise is white before the kernel, so that a soft kernel also makes it soft, as in a real scanner. The kernel acts
    in the plane of the slices only.
    """
    image = np.asarray(chest.array, dtype=np.float64)
    if profile.noise:
        image = image + profile.noise * np.random.default_rng([seed, 2]).standard_normal(image.shape)
    if profile.blur:
        image = _blurred(image, profile.blur, chest.spacing)
    if profile.sharpen:
        image = image + profile.sharpen * (image - _blurred(image, SHARPENED_LENGTH, chest.spacing))
    return chest.with_array(np.rint(np.clip(image, LOWEST, HIGHEST)).astype(np.int16))


def _blurred(image: np.ndarray, sigma: float, spacing: tuple[float, float, float]) -> np.ndarray:
    smooth: np.ndarray = ndimage.gaussian_filter(image, (0, sigma / spacing[1], sigma / spacing[0]), mode="nearest")
    return smooth
