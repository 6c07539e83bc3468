"""The fixed set of columns that the settings give, whatever is found in the scans; each with its unit and its group.

A group is what fails or succeeds together: 'tumour.rkn' is the radiomics of the normalised tumour, 'fm96' the deep
features of the 96 mm cube. Names are 'region.feature', and 'region.rkn.feature' after kernel normalisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ctfed.imaging.radiomics import feature_names

if TYPE_CHECKING:
    from ctfed.imaging.segment.card import Region
    from ctfed.preparation.settings import ExtractionSettings

NO_UNIT = "1"
CALCIUM = "coronaries.calcium"
SCAN = "scan"
FM_WIDTH = 4096

_CALCIUM_UNITS = {
    "agatston": NO_UNIT,
    "agatston_3mm": NO_UNIT,
    "volume": "mm3",
    "lesions": NO_UNIT,
    "contrast": "0 or 1",
    "sharp_kernel": "0 or 1",
    "mask_median": "HU",
}
_SHAPE_UNITS = {"MeshVolume": "mm3", "VoxelVolume": "mm3", "SurfaceArea": "mm2", "SurfaceVolumeRatio": "1/mm"}
_SHAPE_RATIOS = ("Elongation", "Flatness", "Sphericity")
_INTENSITY_RATIOS = ("Entropy", "Kurtosis", "Skewness", "Uniformity")
_INTENSITY_SQUARED = ("Energy", "Variance")


class Column(NamedTuple):
    """One column of features.parquet."""

    name: str
    unit: str
    group: str


def imaging_columns(settings: ExtractionSettings) -> tuple[Column, ...]:
    """All columns that come from scans, in the order of the table."""
    found = [Column(f"scan.spacing_{axis}", "mm", SCAN) for axis in "xyz"]
    for region, wanted in settings.measured:
        for kernel in wanted.kernels:
            found += radiomics_columns(settings, region, kernel)
        if wanted.calcium:
            found += [Column(f"{region}.{name}", unit, CALCIUM) for name, unit in _CALCIUM_UNITS.items()]
    for cube in () if settings.foundation is None else settings.foundation.cubes:
        found += [Column(f"fm{cube}_{i:04d}", NO_UNIT, f"fm{cube}") for i in range(FM_WIDTH)]
    return tuple(found)


def radiomics_columns(settings: ExtractionSettings, region: Region, kernel: str) -> list[Column]:
    """The radiomics of one region on one image."""
    wanted = settings.regions[region]
    group = radiomics_group(region, kernel)
    prefix = region if kernel == "original" else group
    # Shape does not depend on intensities: it stands once, beside the original's.
    names = feature_names(settings.radiomics, wanted.shape and kernel == wanted.kernels[0])
    return [Column(f"{prefix}.{name}", unit(name), group) for name in names]


def radiomics_group(region: str, kernel: str) -> str:
    """'tumour.original' or 'tumour.rkn'."""
    return f"{region}.{kernel}"


def calcium_names() -> tuple[str, ...]:
    """The attributes of a CalciumScore that become columns."""
    return tuple(_CALCIUM_UNITS)


def unit(feature: str) -> str:
    """The unit of a PyRadiomics feature by its name."""
    _, family, name = feature.split("_", 2)
    if family == "shape":
        return NO_UNIT if name in _SHAPE_RATIOS else _SHAPE_UNITS.get(name, "mm")
    if family != "firstorder" or name in _INTENSITY_RATIOS:
        return NO_UNIT
    if name == "TotalEnergy":
        return "HU2 mm3"
    return "HU2" if name in _INTENSITY_SQUARED else "HU"
