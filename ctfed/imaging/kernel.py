"""Reconstruction kernel normalisation (RKN): a scan's frequency content in the lung brought to a reference.

The image is cut into bands F_i = L_(i-1) - L_i, L_0 = I and L_i the image smoothed with a Gaussian of sigma_i, and the
rest L_n. With e_i the standard deviation of F_i over the lung and r_i that of the reference, the image becomes
L_n + sum lambda_i F_i, lambda_i = r_i / e_i. Bands overlap, so one pass is not enough: it is repeated until every
lambda_i lies in [0.95, 1.05].

The method leaves much open, and the published ports disagree; every convention is a setting here:

    sigmas        1, 2, 4, 8, 16
    unit          'voxel' (the paper's sigmas have none) or 'mm'
    dimensions    2 (each slice by itself) or 3
    masked        smoothing normalised inside the lung, so that the chest wall does not leak into its bands, or plain
    erode         voxels (in the slice) by which the lung is shrunk where energies are measured; its edge dominates them
    outside       'keep' leaves voxels outside the lung as they are, 'change' treats them alike
    reference     r_i in HU, finest band first

Reference: Gallardo-Estrella et al. 2016, European Radiology 26:478. The default energies are those that two unrelated
ports of the method carry and attribute to it; they could not be checked against the paper's own table, so a report
names them as second-hand. A consortium can take its own from reference scans (``band_energies``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctfed.imaging.volume import GeometryError, Volume

Float32 = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

SECOND_HAND_ENERGIES = (70.34, 67.54, 60.90, 51.45, 36.14)
FEWEST_VOXELS = 5000  # of the lung, from which energies are measured
TRUNCATE = 4.0  # sigmas at which a Gaussian ends
FLAT = 0.05  # HU; a band with less energy is rounding, and is not scaled


@dataclass(frozen=True)
class KernelSettings:
    """The conventions of one normalisation; see the module's text."""

    sigmas: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    unit: Literal["voxel", "mm"] = "voxel"
    dimensions: Literal[2, 3] = 3
    masked: bool = True
    erode: int = 0
    outside: Literal["keep", "change"] = "keep"
    reference: tuple[float, ...] = SECOND_HAND_ENERGIES
    tolerance: float = 0.05
    max_iterations: int = 50
    limits: tuple[float, float] = (0.1, 10.0)

    def __post_init__(self) -> None:
        if not self.sigmas or any(b <= a for a, b in zip((0.0, *self.sigmas), self.sigmas, strict=False)):
            raise ValueError(f"sigmas must be > 0 and rise, found {self.sigmas}")
        if len(self.reference) != len(self.sigmas) or min(self.reference) <= 0:
            raise ValueError(f"{len(self.sigmas)} bands need as many reference energies > 0, found {self.reference}")
        if not 0 < self.tolerance < 1 or not 0 < self.limits[0] < 1 < self.limits[1]:
            raise ValueError("tolerance must lie in (0, 1), and the limits of lambda on both sides of 1")


@dataclass(frozen=True, eq=False)
class Normalised:
    """A normalised scan, and how it came about.

    Attributes:
        image: HU, float32, on the grid of the scan.
        before, after: band energies in HU over the lung.
        iterations: passes that were made.
        converged: whether every last lambda lay within the tolerance.
    """

    image: Volume
    before: tuple[float, ...]
    after: tuple[float, ...]
    iterations: int
    converged: bool


def normalise_kernel(image: Volume, lung: Volume, settings: KernelSettings | None = None) -> Normalised:
    """Normalise a CT's frequency content inside the lung.

    Args:
        image: CT in HU.
        lung: mask of the lungs (with the tumour, as the study does it) on the same grid.
        settings: conventions; the default is this module's.

    Raises:
        GeometryError: when the grids differ, the lung has too few voxels, or a voxel of it is not a number.
    """
    chosen = settings or KernelSettings()
    image.require_same_grid(lung, "the lung mask")
    work = _Region.of(image, lung, chosen)
    current = work.image
    before: tuple[float, ...] | None = None
    converged, passes = False, 0
    energies: tuple[float, ...] = ()
    for passes in range(chosen.max_iterations + 1):
        bands, rest = work.bands(current)
        energies = tuple(float(band[work.measured].std()) for band in bands)
        before = energies if before is None else before
        pairs = zip(chosen.reference, energies, strict=True)
        factors = np.array([wanted / found if found > FLAT else 1.0 for wanted, found in pairs])
        converged = bool((np.abs(factors - 1) <= chosen.tolerance).all())
        if converged or passes == chosen.max_iterations:
            break
        factors = np.clip(factors, *chosen.limits)
        changed = rest + sum(np.float32(factor) * band for factor, band in zip(factors, bands, strict=True))
        current = np.where(work.lung, changed, current) if chosen.outside == "keep" else changed
    result = image.array.astype(np.float32)
    result[work.box] = current
    return Normalised(image.with_array(result), before or (), energies, passes, converged)


def band_energies(image: Volume, lung: Volume, settings: KernelSettings | None = None) -> tuple[float, ...]:
    """Standard deviation in HU of each band over the lung, finest first: what a reference scan contributes.

    Raises:
        GeometryError: as ``normalise_kernel``.
    """
    image.require_same_grid(lung, "the lung mask")
    work = _Region.of(image, lung, settings or KernelSettings())
    bands, _ = work.bands(work.image)
    return tuple(float(band[work.measured].std()) for band in bands)


@dataclass(frozen=True, eq=False)
class _Region:
    """The part of a scan that is worked on: the lung's box with room for the widest Gaussian.

    Attributes:
        box: where it lies in the scan.
        image: HU.
        lung: its mask; ``measured``: the voxels over which energies are taken.
        sigmas: per band (z, y, x) in voxels.
        masked: smoothing normalised inside the lung.
    """

    box: tuple[slice, slice, slice]
    image: Float32
    lung: BoolArray
    measured: BoolArray
    sigmas: tuple[tuple[float, float, float], ...]
    masked: bool

    @classmethod
    def of(cls, image: Volume, lung: Volume, settings: KernelSettings) -> _Region:
        sigmas = tuple(_in_voxels(sigma, image, settings) for sigma in settings.sigmas)
        inside = lung.array.astype(bool)
        if int(inside.sum()) < FEWEST_VOXELS:
            raise GeometryError(f"the lung mask has {int(inside.sum())} voxels, expected at least {FEWEST_VOXELS}")
        margin = int(np.ceil(TRUNCATE * max(max(sigma) for sigma in sigmas)))
        # Smoothing that is normalised inside the lung sees nothing of what lies outside it.
        box = lung.box(1 if settings.masked and settings.outside == "keep" else margin)
        assert box is not None
        part, mask = image.array[box].astype(np.float32), inside[box]
        if not np.isfinite(part[mask]).all():
            raise GeometryError("the scan has voxels without a number inside the lung")
        measured = mask
        if settings.erode:
            plane = ndimage.generate_binary_structure(3, 1)
            plane[0], plane[2] = False, False
            measured = ndimage.binary_erosion(mask, plane, iterations=settings.erode)
            if int(measured.sum()) < FEWEST_VOXELS:
                raise GeometryError(f"the lung, eroded by {settings.erode} voxels, has too few voxels left")
        return cls(box, part, mask, measured, sigmas, settings.masked)

    def bands(self, image: Float32) -> tuple[list[Float32], Float32]:
        """The bands, finest first, and the rest."""
        bands, smoother = [], image
        for sigma in self.sigmas:
            smoothed = self._smooth(image, sigma)
            bands.append(smoother - smoothed)
            smoother = smoothed
        return bands, smoother

    def _smooth(self, image: Float32, sigma: tuple[float, float, float]) -> Float32:
        if not self.masked:
            return ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=TRUNCATE)
        weight = self.lung.astype(np.float32)
        total = ndimage.gaussian_filter(image * weight, sigma, mode="constant", truncate=TRUNCATE)
        share = ndimage.gaussian_filter(weight, sigma, mode="constant", truncate=TRUNCATE)
        return np.where(share > 1e-6, total / np.maximum(share, 1e-6), image).astype(np.float32)


def _in_voxels(sigma: float, image: Volume, settings: KernelSettings) -> tuple[float, float, float]:
    x, y, z = image.spacing if settings.unit == "mm" else (1.0, 1.0, 1.0)
    return (sigma / z if settings.dimensions == 3 else 0.0, sigma / y, sigma / x)
