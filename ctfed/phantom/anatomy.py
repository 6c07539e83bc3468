"""One phantom's chest: HU and masks on the site's grid, before the scanner. Lengths in mm, in DICOM's world (LPS).

The chest stands around the origin: x to the patient's left, y to the back, z to the head. Shapes are sampled at the
voxels' centres, so that all masks and the calcium are exact: a lesion's score is its number of voxels times their area
times the weight of its peak.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctfed.imaging.volume import Array, Box, FloatArray, Volume
from ctfed.phantom.patients import PhantomPatient
from ctfed.phantom.profiles import REGIONS, SiteProfile

COVERAGE = 208.0  # mm, from the lowest slice to the highest

AIR, FAT, MUSCLE, BLOOD, BONE, LUNG, VESSEL, NODE, TUMOUR = -1000, -100, 50, 40, 300, -860, 45, 50, 40  # HU
MEDIASTINAL_FAT = -80
LUNG_MOTTLE, MOTTLE_LENGTH = 15.0, 6.0  # HU and mm: what makes the lung not constant
TEXTURE_LENGTH = 4.0  # mm, SD of the Gaussian that correlates the tumour's texture

_BODY, _FAT_LAYER = (145.0, 108.0), 12.0
_LUNGS = ((-72.0, 5.0, 0.0), (72.0, 5.0, 0.0))
_LUNG_AXES = (48.0, 78.0, 92.0)
_HEART, _HEART_AXES = (14.0, -18.0, -38.0), (46.0, 40.0, 48.0)
_TRACHEA, _SPINE = ((0.0, 22.0, 8.0), (0.0, 72.0, 17.0))  # x, y and radius of cylinders
_NODE_STATIONS = ((-13.0, 8.0, 52.0), (13.0, -4.0, 44.0), (0.0, 44.0, 20.0), (-12.0, -10.0, 30.0), (12.0, 30.0, -6.0))
_ARTERIES = (  # corners of the three arteries' paths, as directions from the heart's centre
    ((0.25, -0.75, 0.60), (0.45, -0.75, -0.5)),
    ((0.30, -0.60, 0.70), (0.90, 0.10, 0.10), (0.80, 0.40, -0.40)),
    ((-0.20, -0.75, 0.60), (-0.85, -0.30, 0.0), (-0.60, 0.20, -0.60)),
)
_ARTERY_RADIUS, _ARTERY_DEPTH = 4.5, 0.85  # mm; share of the heart's radius
# A plaque's voxels: HU of the peak and the Agatston weight that it has by definition, written out once more here so
# that the known score does not come from the code that it checks.
PLAQUES = ((150, 1), (240, 2), (330, 3), (480, 4))
_PLAQUE_AREA = (8.0, 36.0)  # mm2 on a slice
_LESIONS = (0, 2, 5, 10)  # by grade of calcium


@dataclass(frozen=True)
class Chest:
    """A phantom as it is.

    Attributes:
        image: float HU.
        masks: bool by region, on the same grid; the region's mask may be empty (no nodes).
        agatston: the score of the planted calcium.
        lesions: number of calcified lesions, counted on each slice.
        tumour_volume: mm3 of the tumour's voxels.
        tumour_sd: HU, SD of the tumour's voxels.
    """

    image: Volume
    masks: dict[str, Volume]
    agatston: float
    lesions: int
    tumour_volume: float
    tumour_sd: float


def build(patient: PhantomPatient, profile: SiteProfile, matrix: int) -> Chest:
    """The chest of one phantom."""
    rng = np.random.default_rng([patient.seed, 1])
    grid = _grid(profile, matrix)
    points = _Points.of(grid)
    hu, lungs, heart = _organs(grid, points, rng)
    _paint(hu, grid, *_pulmonary_vessels(rng), VESSEL, lungs)
    tumour = _tumour(patient, points, lungs, rng)
    hu[tumour] = TUMOUR + patient.amplitude * _texture(tumour, grid, rng)
    nodes = _paint(hu, grid, *_node_balls(patient.nodes, rng), NODE, ~(lungs | heart))
    arteries = np.zeros(grid.shape, dtype=bool)
    path = _artery_paths()
    _paint(arteries, grid, path, np.full(len(path), _ARTERY_RADIUS), True, heart & ~tumour)
    agatston, lesions = _calcify(hu, arteries, grid, _LESIONS[patient.calcium], rng)
    hu = np.rint(hu)
    masks = {"lung": lungs & ~tumour, "tumour": tumour, "nodes": nodes, "coronaries": arteries}
    return Chest(
        image=grid.with_array(hu),
        masks={region: grid.with_array(masks[region]) for region in REGIONS},
        agatston=agatston,
        lesions=lesions,
        tumour_volume=float(tumour.sum() * grid.voxel_volume),
        tumour_sd=float(hu[tumour].std()),
    )


def _grid(profile: SiteProfile, matrix: int) -> Volume:
    # Six decimals, as DICOM's text will hold them, so that the areas are those that a reader computes.
    pixel = round(profile.field_of_view / matrix, 6)
    slices = math.ceil(COVERAGE / profile.slice_spacing)
    edge, low = round(-pixel * (matrix - 1) / 2, 6), round(-profile.slice_spacing * (slices - 1) / 2, 6)
    return Volume(np.zeros((slices, matrix, matrix)), (pixel, pixel, profile.slice_spacing), (edge, edge, low))


@dataclass(frozen=True)
class _Points:
    """Coordinates of the voxels' centres in mm, each (n,) along its axis, shaped to broadcast to [z, y, x]."""

    x: FloatArray
    y: FloatArray
    z: FloatArray

    @classmethod
    def of(cls, grid: Volume) -> _Points:
        x, y, z = (
            np.asarray(o + s * np.arange(n), dtype=np.float64)
            for o, s, n in zip(grid.origin, grid.spacing, grid.size, strict=True)
        )
        return cls(x[None, None, :], y[None, :, None], z[:, None, None])

    def ellipsoid(self, centre: tuple[float, ...], axes: tuple[float, ...]) -> FloatArray:
        """Squared distance from the centre in units of the axes: <= 1 inside."""
        x, y, z = ((p - c) / a for p, c, a in zip((self.x, self.y, self.z), centre, axes, strict=True))
        return np.asarray(x**2 + y**2 + z**2)

    def cylinder(self, x: float, y: float, radii: tuple[float, float]) -> FloatArray:
        """Squared distance from a vertical axis in units of the radii, one slice."""
        return np.asarray(((self.x - x) / radii[0]) ** 2 + ((self.y - y) / radii[1]) ** 2)


def _organs(grid: Volume, points: _Points, rng: np.random.Generator) -> tuple[FloatArray, Array, Array]:
    """HU of body, mediastinum, lungs, heart, trachea and spine; where the lungs and the heart are."""
    hu = np.full(grid.shape, float(AIR))

    def fill(inside: Array, value: float) -> None:
        hu[np.broadcast_to(inside, grid.shape)] = value

    fill(points.cylinder(0, 0, _BODY) <= 1, FAT)
    fill(points.cylinder(0, 0, (_BODY[0] - _FAT_LAYER, _BODY[1] - _FAT_LAYER)) <= 1, MUSCLE)
    fill(points.cylinder(0, 10, (26.0, 62.0)) <= 1, MEDIASTINAL_FAT)
    heart = points.ellipsoid(_HEART, _HEART_AXES) <= 1
    lungs = np.zeros(grid.shape, dtype=bool)
    for centre in _LUNGS:
        lungs |= points.ellipsoid(centre, _LUNG_AXES) <= 1
    lungs &= ~heart
    mottle = _smooth_noise(grid.shape, [MOTTLE_LENGTH / s for s in grid.spacing[::-1]], rng)
    hu[lungs] = LUNG + LUNG_MOTTLE * mottle[lungs]
    hu[heart] = BLOOD
    fill((points.cylinder(*_TRACHEA[:2], (_TRACHEA[2],) * 2) <= 1) & (points.z > 25), AIR)
    fill(points.cylinder(*_SPINE[:2], (_SPINE[2],) * 2) <= 1, BONE)
    return hu, lungs, heart


def _smooth_noise(shape: tuple[int, ...], sigma: list[float], rng: np.random.Generator) -> FloatArray:
    """Gaussian noise with mean 0 and SD 1, correlated over ``sigma`` voxels along each axis."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap", truncate=3.0)
    return np.asarray((field - field.mean()) / field.std())


def _paint(canvas: Array, grid: Volume, centres: FloatArray, radii: FloatArray, value: float, where: Array) -> Array:
    """Give ``value`` to the voxels of balls that are in ``where``.

    Args:
        canvas: (nz, ny, nx), changed.
        centres: (n, 3) x, y, z in mm.
        radii: (n,) mm.
        value: what the voxels get.
        where: (nz, ny, nx) bool.

    Returns:
        (nz, ny, nx) bool, the painted voxels.
    """
    spacing = np.array(grid.spacing[::-1])
    painted = np.zeros(grid.shape, dtype=bool)
    for index, radius in zip(grid.index(centres), radii, strict=True):
        low = np.maximum(np.ceil(index - radius / spacing).astype(int), 0)
        high = np.minimum(np.floor(index + radius / spacing).astype(int) + 1, grid.shape)
        box = tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))
        z, y, x = ((np.arange(b.start, b.stop) - c) * s for b, c, s in zip(box, index, spacing, strict=True))
        painted[box] |= z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2 <= radius**2
    painted &= where
    canvas[painted] = value
    return painted


def _pulmonary_vessels(rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """(n, 3) and (n,): balls along branches that run from each hilum into the lung and taper."""
    centres, radii = [], []
    along = np.linspace(0, 1, 28)
    for lung in _LUNGS:
        hilum = np.array([math.copysign(30.0, lung[0]), 8.0, 8.0])
        for _ in range(12):
            direction = rng.standard_normal(3)
            end = np.array(lung) + 0.9 * np.array(_LUNG_AXES) * direction / np.linalg.norm(direction)
            centres.append(hilum + along[:, None] * (end - hilum))
            radii.append(4.0 - 2.2 * along)
    return np.concatenate(centres), np.concatenate(radii)


def _node_balls(count: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    stations = np.array(_NODE_STATIONS)[rng.permutation(len(_NODE_STATIONS))[:count]]
    return stations, rng.uniform(5.5, 9.0, count)


def _artery_paths() -> FloatArray:
    """(n, 3) points in mm along the coronary arteries, under the heart's surface."""
    paths = []
    for corners in _ARTERIES:
        for a, b in itertools.pairwise(corners):
            direction = np.array(a) + np.linspace(0, 1, 40)[:, None] * (np.array(b) - np.array(a))
            paths.append(direction / np.linalg.norm(direction, axis=1, keepdims=True))
    return np.asarray(np.array(_HEART) + _ARTERY_DEPTH * np.array(_HEART_AXES) * np.concatenate(paths))


def _tumour(patient: PhantomPatient, points: _Points, lungs: Array, rng: np.random.Generator) -> Array:
    """Bool, where the tumour is: an ellipsoid with an uneven surface inside one lung, away from the heart."""
    radius = patient.diameter / 2
    stretch = np.exp(rng.normal(0, 0.08, 3))
    axes = radius * stretch / np.prod(stretch) ** (1 / 3)
    centre = _tumour_centre(radius, rng)
    phases = rng.uniform(0, 2 * math.pi, 3)
    bumps = sum(
        np.sin(2.6 * (p - c) / a + phase)
        for p, c, a, phase in zip((points.x, points.y, points.z), centre, axes, phases, strict=True)
    )
    inside = points.ellipsoid(tuple(centre), tuple(axes)) * (1 + 0.08 * bumps) <= 1
    labels, count = ndimage.label(inside & lungs)
    if count > 1:  # the largest piece
        return np.asarray(labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:])))
    return np.asarray(labels == 1)


def _tumour_centre(radius: float, rng: np.random.Generator) -> FloatArray:
    room = np.array(_LUNG_AXES) - 1.15 * radius
    heart, reach = np.array(_HEART), np.array(_HEART_AXES) + 1.15 * radius
    while True:  # the upper halves of both lungs are free, so that this ends after a few draws
        lung = np.array(_LUNGS[int(rng.integers(2))])
        direction = rng.standard_normal(3)
        centre = lung + 0.8 * rng.random() ** (1 / 3) * room * direction / np.linalg.norm(direction)
        if (((centre - heart) / reach) ** 2).sum() >= 1:
            return np.asarray(centre)


def _texture(tumour: Array, grid: Volume, rng: np.random.Generator) -> FloatArray:
    """(voxels of the tumour,) correlated noise with mean 0 and SD 1 over them."""
    box = _box(tumour)
    shape = tumour[box].shape
    sigma = [TEXTURE_LENGTH / s for s in grid.spacing[::-1]]
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="reflect", truncate=3.0)[tumour[box]]
    return np.asarray((field - field.mean()) / field.std())


def _box(mask: Array) -> Box:
    z, y, x = ndimage.find_objects(mask.astype(np.uint8))[0]
    return z, y, x


def _calcify(hu: FloatArray, arteries: Array, grid: Volume, wanted: int, rng: np.random.Generator) -> tuple[float, int]:
    """Plant lesions into the arteries; their Agatston score and number.

    On a slice each of the arteries' cross sections gets at most one lesion, so that no two touch and merge.
    """
    area = grid.spacing[0] * grid.spacing[1]
    neighbours = np.ones((3, 3), dtype=bool)
    sections = []
    for k in np.flatnonzero(arteries.any(axis=(1, 2))):
        labels, count = ndimage.label(arteries[k], structure=neighbours)
        sections += [(int(k), labels == label) for label in range(1, count + 1)]
    score, lesions = 0.0, 0
    for number in rng.permutation(len(sections))[:wanted]:
        k, section = sections[number]
        peak, weight = PLAQUES[int(rng.integers(len(PLAQUES)))]
        voxels = max(1, math.ceil(1 / area), round(rng.uniform(*_PLAQUE_AREA) / area))
        lesion = _grown(section, voxels, rng)
        if len(lesion) * area < 1:  # a cross section that is too small for a lesion that counts
            continue
        for y, x in lesion:
            hu[k, y, x] = max(130, peak - 60)
        hu[k, lesion[0][0], lesion[0][1]] = peak
        score += len(lesion) * area * weight
        lesions += 1
    return score, lesions


def _grown(section: Array, voxels: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Up to ``voxels`` pixels of a cross section, connected by edges or corners, around one that is drawn."""
    pixels = [(int(y), int(x)) for y, x in np.argwhere(section)]
    start = pixels[int(rng.integers(len(pixels)))]
    free, found, waiting = set(pixels) - {start}, [start], deque([start])
    while waiting and len(found) < voxels:
        y, x = waiting.popleft()
        for step in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
            pixel = (y + step[0], x + step[1])
            if pixel in free and len(found) < voxels:
                free.remove(pixel)
                found.append(pixel)
                waiting.append(pixel)
    return found
