"""Radiomics of one region: PyRadiomics' 93 intensity and texture features and 14 shape features, always all of them.

The feature classes, the resampling and the bin edges are PyRadiomics' own (pyradiomics-bhklab). What is ours is the way
there: the region is cut out first, the image is discretised once instead of once per family, and the shape features
come from ``shape.py``. The feature classes receive the very arrays that PyRadiomics' extractor would hand them, so
the 93 are equal to its values bit for bit; the 14 agree to 1e-9.

What a region can lack is defined, and never changes the set of names:

    empty-region        no voxel, before or after resampling: everything is NaN
    region-too-small    a single voxel, or extended along fewer axes than ``minimum_dimensions``: everything is NaN
    not-a-number        a voxel of the region is NaN or infinite: intensities and textures are NaN, the shape stands
    range-too-narrow    fewer than two voxels lie in the range of intensities: the same
    constant-region     all voxels are equal, and PyRadiomics would answer with conventions (Coarseness = 1e6): the same
    too-many-levels     more than 2,000 bins between the lowest and the highest voxel: the same
    undefined-features  PyRadiomics found single features undefined: these are NaN

A region that touches the border of the image, or falls into several components, is described like any other.

Names are PyRadiomics' (``original_glcm_Contrast``). Intensities are HU. Settings are ``RadiomicsSettings``: the default
is PyRadiomics' own, which the study uses; ``standard="ibsi"`` changes what comes before the features, see ``ibsi.py``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ctfed.cohort.faults import CaseFault
from ctfed.imaging.radiomics_names import FAMILIES, SHAPE, full_name
from ctfed.imaging.shape import shape_features
from ctfed.imaging.volume import Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]

INTERPOLATORS = ("sitkNearestNeighbor", "sitkLinear", "sitkBSpline")
MOST_LEVELS = (
    2000  # a co-occurrence matrix of so many levels in 13 directions takes 400 MB; CT in bins of 25 HU has 164
)
WEIGHTINGS = (None, "no_weighting", "manhattan", "euclidean", "infinity")


class RegionFault(CaseFault):
    """Why features of one region are NaN."""


@dataclass(frozen=True)
class RadiomicsSettings:
    """How a region is prepared and described. The default is PyRadiomics' default.

    Names in brackets are PyRadiomics' settings; what a field means in the terms of the Image Biomarker Standardisation
    Initiative (IBSI-1 reference manual) follows.

    Attributes:
        standard: 'pyradiomics' prepares as PyRadiomics does; 'ibsi' by the manual: another grid, a mask interpolated
            and cut at 0.5, whole HU, other bins (``ibsi.py``). The features themselves are the same code.
        spacing: (x, y, z) mm [resampledPixelSpacing], 0 keeps an axis, None keeps the image. IBSI: interpolation. An
            image of integers is resampled to integers by PyRadiomics, towards zero: give it as float32 to avoid that.
        interpolator: of the image [interpolator]; 'sitkBSpline' is IBSI's tricubic spline, 'sitkLinear' its trilinear.
        bin_width: HU [binWidth]. IBSI: fixed bin size (FBS). PyRadiomics' bins start at the multiple of the width below
            the region's minimum, IBSI's at ``intensity_range``'s lower end, or else at the region's minimum.
        bin_count: bins between the region's minimum and maximum [binCount], instead of the width. IBSI: fixed bin
            number (FBN).
        intensity_range: voxels outside it leave the region for intensities and textures, and stay in its shape
            [resegmentRange]: (lowest,) or (lowest, highest). IBSI: range re-segmentation.
        range_mode: unit of the range [resegmentMode]: 'absolute' HU, 'relative' to the maximum, or 'sigma': standard
            deviations from the mean. Only 'absolute' with standard 'ibsi'.
        outlier_sigma: voxels farther from the mean than this many standard deviations leave the region as well, after
            the range; only with standard 'ibsi'. IBSI: intensity outlier filtering, with 3.
        normalise, normalise_scale, remove_outliers: z-scores of the whole image times a scale, clipped at a number of
            standard deviations [normalize, normalizeScale, removeOutliers]; not in IBSI, nor for HU.
        minimum_dimensions: fewest axes along which a region must have more than one voxel [minimumROIDimensions].
        distances: of neighbours, in voxels, Chebyshev [distances]. IBSI: delta = 1.
        weighting: of directions in GLCM and GLRLM [weightingNorm]. None is IBSI's averaging over directions,
            'no_weighting' its merging.
        force_2d, force_2d_dimension: neighbours within slices only, and the array axis across them [force2D,
            force2Ddimension]. IBSI: 2.5D aggregation.
        symmetrical_glcm: count each pair both ways [symmetricalGLCM]. IBSI: yes.
        gldm_a: largest difference of dependent levels [gldm_a]. IBSI: alpha of the NGLDM, 0.
        voxel_array_shift: HU added in Energy, TotalEnergy and RootMeanSquared [voxelArrayShift]. IBSI: 0.
    """

    standard: Literal["pyradiomics", "ibsi"] = "pyradiomics"
    spacing: tuple[float, float, float] | None = None
    interpolator: str = "sitkBSpline"
    bin_width: float = 25
    bin_count: int | None = None
    intensity_range: tuple[float, ...] | None = None
    range_mode: Literal["absolute", "relative", "sigma"] = "absolute"
    outlier_sigma: float | None = None
    normalise: bool = False
    normalise_scale: float = 1
    remove_outliers: float | None = None
    minimum_dimensions: int = 2
    distances: tuple[int, ...] = (1,)
    weighting: str | None = None
    force_2d: bool = False
    force_2d_dimension: int = 0
    symmetrical_glcm: bool = True
    gldm_a: int = 0
    voxel_array_shift: float = 0

    def __post_init__(self) -> None:
        if self.interpolator not in INTERPOLATORS or self.weighting not in WEIGHTINGS:
            raise ValueError(
                f"interpolator {self.interpolator!r} and weighting {self.weighting!r}: expected one of {INTERPOLATORS} "
                f"and one of {WEIGHTINGS}"
            )
        if self.spacing is not None and (len(self.spacing) != 3 or not all(0 <= new < np.inf for new in self.spacing)):
            raise ValueError(f"spacing: found {self.spacing}, expected (x, y, z) in mm, 0 to keep an axis")
        if not 0 < self.bin_width < np.inf or (self.bin_count is not None and not 2 <= self.bin_count <= MOST_LEVELS):
            raise ValueError(
                f"bins: found width {self.bin_width}, count {self.bin_count}, expected > 0 and from 2 to {MOST_LEVELS}"
            )
        if not self.distances or min(self.distances) < 1:
            raise ValueError(f"distances: found {self.distances}, expected voxels, each 1 or more")
        if self.intensity_range is not None and len(self.intensity_range) not in (1, 2):
            raise ValueError(f"intensity_range: found {self.intensity_range}, expected (lowest,) or (lowest, highest)")
        if self.minimum_dimensions not in (1, 2, 3) or self.force_2d_dimension not in (0, 1, 2):
            raise ValueError("minimum_dimensions must be 1, 2 or 3, and force_2d_dimension 0, 1 or 2")
        if self.standard == "ibsi" and (self.normalise or self.range_mode != "absolute"):
            raise ValueError("standard 'ibsi' has no normalisation, and its range is in HU: range_mode 'absolute'")
        if self.standard == "pyradiomics" and self.outlier_sigma is not None:
            raise ValueError("outlier_sigma belongs to standard 'ibsi'; PyRadiomics has range_mode 'sigma' instead")


@dataclass(frozen=True)
class RegionFeatures:
    """Features of one region.

    Attributes:
        values: by name, in the order of ``feature_names``; NaN where undefined.
        reason: why some are NaN, as 'rule: sentence'; None when all are numbers.
    """

    values: dict[str, float]
    reason: str | None


@dataclass(frozen=True, eq=False)
class PreparedRegion:
    """What the feature classes see, all on one grid that holds the region and little more.

    Attributes:
        image: HU.
        outline: bool, the region whose shape is described.
        mask: bool, the voxels whose intensities are described.
    """

    image: Volume
    outline: Volume
    mask: Volume


def feature_names(settings: RadiomicsSettings, shape: bool) -> tuple[str, ...]:
    """The names of all columns, shape first; no setting adds or removes one."""
    families = {"shape": SHAPE, **FAMILIES} if shape else FAMILIES
    return tuple(full_name(family, name) for family, names in families.items() for name in names)


def extract(image: Volume, mask: Volume, settings: RadiomicsSettings, shape: bool) -> RegionFeatures:
    """Describe one region of one scan.

    Args:
        image: HU.
        mask: voxels that are not zero belong to the region; on the grid of ``image``.
        settings: how.
        shape: with the 14 shape features.

    Raises:
        GeometryError: when the grids differ. What is wrong with the region itself is in the result.
    """
    image.require_same_grid(mask, "the mask of a region")
    values = dict.fromkeys(feature_names(settings, shape), float("nan"))
    try:
        outlined = _prepare(image, mask, settings)
        if shape:
            x, y, z = outlined.image.spacing
            measured = shape_features(outlined.outline.array, (x, y, z))
            values.update({full_name("shape", name): value for name, value in measured.items()})
        region = _within_range(outlined, settings)
        values.update(_intensity_features(region, settings))
        undefined = [name for name, value in values.items() if not np.isfinite(value)]
        if undefined:
            values.update(dict.fromkeys(undefined, float("nan")))
            listed = ", ".join(name.removeprefix("original_") for name in undefined)
            raise RegionFault("undefined-features", f"the region leaves undefined: {listed}")
    except RegionFault as fault:
        return RegionFeatures(values, f"{fault.rule}: {fault.sentence}")
    return RegionFeatures(values, None)


def require_extent(mask: Volume, settings: RadiomicsSettings, when: str = "") -> tuple[slice, slice, slice]:
    """The box of a region that is large enough.

    Raises:
        RegionFault: when it is empty, or has too few dimensions.
    """
    box = mask.box()
    if box is None:
        raise RegionFault("empty-region", f"the mask has no voxel{when}")
    extended = sum(part.stop - part.start > 1 for part in box)
    if extended < settings.minimum_dimensions:
        found = f"{int(np.count_nonzero(mask.array))} voxels, more than one along {extended} axes{when}"
        raise RegionFault("region-too-small", f"found {found}, expected {settings.minimum_dimensions} axes or more")
    return box


def _prepare(image: Volume, mask: Volume, settings: RadiomicsSettings) -> PreparedRegion:
    """Resample if asked, and cut out the region.

    Raises:
        RegionFault: when nothing is left, or too little.
    """
    found = mask.box()
    if found is None:
        raise RegionFault("empty-region", "the mask has no voxel")
    if settings.standard == "pyradiomics" and not settings.normalise and settings.spacing is None:
        image, mask = image.crop(found), mask.crop(found)
    mask = mask.with_array(mask.array.astype(bool))
    if settings.standard == "ibsi":
        from ctfed.imaging.ibsi import interpolate

        image, mask = interpolate(image, mask, settings)
    elif settings.normalise or settings.spacing is not None:
        image, mask = _resample(image, mask, settings)
    box = require_extent(mask, settings, " after resampling" if settings.spacing else "")
    outline = mask.crop(box)
    return PreparedRegion(image.crop(box), outline, outline)


def _resample(image: Volume, mask: Volume, settings: RadiomicsSettings) -> tuple[Volume, Volume]:
    """Normalise and resample by PyRadiomics' own functions, on the whole image: the grid starts at its corner, and a
    spline sees all of it."""
    from radiomics import imageoperations

    _quiet()
    pixels = image.to_sitk()
    if settings.normalise:
        pixels = imageoperations.normalizeImage(
            pixels, normalizeScale=settings.normalise_scale, removeOutliers=settings.remove_outliers
        )
    region = _label(mask)
    if settings.spacing is not None:
        pixels, region = imageoperations.resampleImage(
            pixels,
            region,
            resampledPixelSpacing=list(settings.spacing),
            interpolator=settings.interpolator,
        )
    resampled, labels = Volume.from_sitk(pixels), Volume.from_sitk(region)
    return resampled, labels.with_array(labels.array == 1)


def _label(mask: Volume) -> sitk.Image:
    return mask.with_array(mask.array.astype(np.uint32)).to_sitk()


def _within_range(region: PreparedRegion, settings: RadiomicsSettings) -> PreparedRegion:
    """The region without the voxels that the range of intensities excludes, cut out again.

    Raises:
        RegionFault: when a voxel is not a number, too few are left, or all are equal.
    """
    found = region.image.array[region.mask.array]
    bad = int(np.count_nonzero(~np.isfinite(found)))
    if bad:
        raise RegionFault("not-a-number", f"found {bad} voxels of the region without a finite value, expected none")
    limits = _limits(found, settings)
    kept = region.mask.array.copy()
    kept[kept] = (found >= limits[0]) & (found <= limits[1])
    left = region.image.array[kept]
    if settings.outlier_sigma is not None and left.size:
        exact = left.astype(np.float64)
        far = settings.outlier_sigma * exact.std()
        kept[kept] = np.abs(exact - exact.mean()) <= far
        left = region.image.array[kept]
    if left.size < 2:
        raise RegionFault(
            "range-too-narrow", f"found {left.size} voxels in the range of intensities, expected 2 or more"
        )
    mask = region.mask.with_array(kept)
    box = require_extent(mask, settings, " in the range of intensities")
    if left.min() == left.max():
        raise RegionFault("constant-region", f"all {left.size} voxels have one value, expected a range of intensities")
    return PreparedRegion(region.image.crop(box), region.outline, mask.crop(box))


def _limits(found: Array, settings: RadiomicsSettings) -> tuple[Any, Any]:
    """Lowest and highest intensity that stays; computed as PyRadiomics does, in the type of the image."""
    if settings.intensity_range is None:
        return -np.inf, np.inf
    bounds: list[Any] = sorted(settings.intensity_range)
    if settings.range_mode == "relative":
        largest = np.max(found)
        bounds = [largest * bound for bound in bounds]
    elif settings.range_mode == "sigma":
        mean, deviation = np.mean(found), np.std(found)
        bounds = [mean + deviation * bound for bound in bounds]
    return (bounds[0], np.inf) if len(bounds) == 1 else (bounds[0], bounds[1])


def grey_levels(region: PreparedRegion, settings: RadiomicsSettings) -> IntArray:
    """(nz, ny, nx) bins from 1 in the mask, 0 outside.

    Raises:
        RegionFault: when there are too many.
    """
    found = region.image.array[region.mask.array]
    span = float(found.max()) - float(found.min())
    if settings.bin_count is None and span / settings.bin_width > MOST_LEVELS:
        raise RegionFault(
            "too-many-levels",
            f"intensities span {span:.4g} HU, expected at most {MOST_LEVELS} bins of {settings.bin_width:g} HU",
        )
    levels = np.zeros(region.mask.shape, dtype=np.int64)
    if settings.standard == "ibsi":
        from ctfed.imaging.ibsi import discretise

        levels[region.mask.array] = discretise(found, settings)
        return levels
    from radiomics import imageoperations

    # Edges depend on the lowest and the highest value alone; PyRadiomics would walk through all voxels in Python.
    ends = np.array([found.min(), found.max()], dtype=found.dtype)
    edges = imageoperations.getBinEdges(ends, binWidth=settings.bin_width, binCount=settings.bin_count)
    levels[region.mask.array] = np.digitize(found, edges)
    return levels


def _intensity_features(region: PreparedRegion, settings: RadiomicsSettings) -> dict[str, float]:
    """The 93 features of intensities and textures, by full name."""
    options = {
        "distances": list(settings.distances),
        "weightingNorm": settings.weighting,
        "force2D": settings.force_2d,
        "force2Ddimension": settings.force_2d_dimension,
        "symmetricalGLCM": settings.symmetrical_glcm,
        "gldm_a": settings.gldm_a,
        "voxelArrayShift": settings.voxel_array_shift,
        "levels": grey_levels(region, settings),
    }
    image, mask = region.image.to_sitk(), _label(region.mask)
    values = {}
    for family, names in FAMILIES.items():
        features = _feature_classes()[family](image, mask, label=1, **options)
        for name in names:
            features.enableFeatureByName(name)
        values.update({full_name(family, name): float(value) for name, value in features.execute().items()})
    return values


def _quiet() -> None:
    # PyRadiomics repeats at every region that two GLCM features coincide, and logs what it returns as NaN.
    logging.getLogger("radiomics").setLevel(logging.CRITICAL)


@lru_cache(maxsize=1)
def _feature_classes() -> dict[str, Any]:
    """PyRadiomics' feature classes, which take the grey levels that are handed to them."""
    from radiomics import firstorder, glcm, gldm, glrlm, glszm, ngtdm

    _quiet()

    def given_levels(self: Any, matrix: Array) -> Array:
        levels: IntArray = self.settings["levels"]
        self.coefficients["grayLevels"] = np.unique(levels[self.maskArray])
        self.coefficients["Ng"] = int(self.coefficients["grayLevels"].max())
        return levels

    originals = {
        "firstorder": firstorder.RadiomicsFirstOrder,
        "glcm": glcm.RadiomicsGLCM,
        "gldm": gldm.RadiomicsGLDM,
        "glrlm": glrlm.RadiomicsGLRLM,
        "glszm": glszm.RadiomicsGLSZM,
        "ngtdm": ngtdm.RadiomicsNGTDM,
    }
    # PyRadiomics names its loggers after the module of the class.
    return {
        family: type(own.__name__, (own,), {"_applyBinning": given_levels, "__module__": own.__module__})
        for family, own in originals.items()
    }
