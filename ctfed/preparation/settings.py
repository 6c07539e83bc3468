"""The settings of an extraction: which regions, from which masks, measured how. One YAML file for all centres.

What differs between centres (folders, weights, licence numbers, processes) is in the site's file, so that equal
settings have equal digests everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ctfed.cohort.scans.choose import Wanted
from ctfed.cohort.scans.masks import DEFAULT_NAMES
from ctfed.cohort.scans.model import RegionNames
from ctfed.config import Faults, Section, load, shown
from ctfed.imaging.foundation import FoundationSettings
from ctfed.imaging.kernel import KernelSettings
from ctfed.imaging.radiomics import RadiomicsSettings
from ctfed.imaging.segment.base import SegmenterSettings
from ctfed.imaging.segment.card import REGIONS, Region, load_card
from ctfed.preparation.cache import canonical, sha256
from ctfed.preparation.embedded import plain, reader
from ctfed.study_models import Name

GIVEN = "given"
FOUNDATION_MODEL = "fmcib"
Kernel = Literal["original", "rkn"]
# The normalised image is that of the lung with the tumour; no other region lies in it.
NORMALISED: tuple[Region, ...] = ("lung", "tumour")


class Names(Section):
    """How a region is called in contours and masks that a centre has."""

    patterns: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="a list of regular expressions that match the whole name of a structure"
    )
    many: bool = Field(default=False, description="true (each may match several structures) or false")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        for i, pattern in enumerate(self.patterns):
            try:
                re.compile(pattern)
            except re.error as error:
                faults.add(("patterns", i), f"found {shown(pattern)} ({error}), expected a regular expression")
        faults.require()
        return self

    @property
    def names(self) -> RegionNames:
        """As the reader of masks takes them."""
        return RegionNames(self.patterns, self.many)


class Measures(Section):
    """What is measured in one region, beside first-order and texture features."""

    shape: bool = Field(default=False, description="true or false")
    kernels: Annotated[tuple[Kernel, ...], Field(min_length=1)] = Field(
        default=("original",), description="a list of 'original' and 'rkn'"
    )
    calcium: bool = Field(default=False, description="true or false")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        if len(set(self.kernels)) != len(self.kernels):
            faults.add(("kernels",), f"found {shown(self.kernels)}, expected each kernel once")
        faults.require()
        return self


class Files(Section):
    """Which files are written for each patient, beside the tables."""

    csv: bool = Field(default=False, description="true (features.csv beside features.parquet) or false")
    nifti: bool = Field(default=True, description="true (masks as NIfTI) or false")
    dicom_seg: bool = Field(default=True, description="true (masks as DICOM SEG, where the scan is DICOM) or false")
    sheets: bool = Field(default=True, description="true (contact sheets as PNG) or false")


class ExtractionSettings(Section):
    """Everything that features depend on, beside the scans."""

    ctfed_extraction: Literal[1] = Field(description="1, the version of this format")
    name: Name = Field(description="an identifier: a letter, then letters, digits, '_', '.' or '-'")
    regions: Annotated[Mapping[Region, Measures], Field(min_length=1)] = Field(
        description="a mapping of lung, tumour, nodes or coronaries to what is measured there"
    )
    scan: Annotated[Wanted, BeforeValidator(reader(Wanted))] = Field(
        default_factory=Wanted, description="a mapping: slices, coverage, contrast"
    )
    required: tuple[Region, ...] = Field(
        default=(), description="a list of regions without which a patient is set aside"
    )
    given: Mapping[Region, Names] = Field(
        default_factory=dict, description="a mapping of regions to their names in a centre's own masks"
    )
    segmentation: tuple[SegmenterSettings, ...] = Field(
        default=(), description="a list of models; each fills the regions that those before it left empty"
    )
    radiomics: Annotated[RadiomicsSettings, BeforeValidator(reader(RadiomicsSettings))] = Field(
        default_factory=RadiomicsSettings, description="a mapping of the settings of radiomics"
    )
    kernel: Annotated[KernelSettings, BeforeValidator(reader(KernelSettings))] = Field(
        default_factory=KernelSettings, description="a mapping of the conventions of kernel normalisation"
    )
    connectivity: Literal[4, 8] = Field(default=8, description="4 or 8, of the voxels of a calcified lesion")
    foundation: FoundationSettings | None = Field(
        default=None, description="a mapping of the settings of the foundation model"
    )
    files: Files = Field(default_factory=Files, description="a mapping: csv, nifti, dicom_seg, sheets")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        for region, measures in self.regions.items():
            if "rkn" in measures.kernels and region not in NORMALISED:
                faults.add(("regions", region, "kernels"), f"found 'rkn' of {region}, expected it of lung or tumour")
            if measures.calcium and region != "coronaries":
                faults.add(("regions", region, "calcium"), f"found true of {region}, expected it of coronaries")
        for i, region in enumerate(self.required):
            if region not in self.regions:
                faults.add(("required", i), f"found {region!r}, expected a region that is measured")
        if self.given and all(load_card(model.model).engine != GIVEN for model in self.segmentation):
            faults.add(("given",), "found names of masks, expected model: given among segmentation as well")
        provided = self.provided
        for region in self.needed:
            if region not in provided:
                why = "" if region in self.regions else ", because it is measured from that region"
                faults.add(("segmentation",), f"found no source of {region}, expected a model that gives it{why}")
        faults.require()
        return self

    @property
    def measured(self) -> tuple[tuple[Region, Measures], ...]:
        """The regions and what is measured there, in their fixed order."""
        return tuple((region, self.regions[region]) for region in REGIONS if region in self.regions)

    @property
    def normalises(self) -> bool:
        """Whether any region is measured after kernel normalisation."""
        return any("rkn" in measures.kernels for measures in self.regions.values())

    @property
    def needed(self) -> tuple[Region, ...]:
        """The regions whose masks are needed, in their fixed order."""
        wanted = set(self.regions)
        wanted |= {"lung"} if self.normalises else set()
        wanted |= {"tumour"} if self.foundation is not None else set()
        return tuple(region for region in REGIONS if region in wanted)

    @property
    def names(self) -> dict[Region, RegionNames]:
        """How each region may be called in a centre's own masks: as the file says, else by the usual names."""
        return {
            region: self.given[region].names if region in self.given else DEFAULT_NAMES[region] for region in REGIONS
        }

    @property
    def names_content(self) -> dict[str, Any]:
        """The same as JSON."""
        return {region: [list(names.patterns), names.many] for region, names in self.names.items()}

    @property
    def provided(self) -> frozenset[str]:
        """The regions that some model gives."""
        found: set[str] = set()
        for model in self.segmentation:
            card = load_card(model.model)
            found |= set(self.names) if card.engine == GIVEN else set(model.labels or card.regions)
        return frozenset(found)

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of what features depend on; where weights lie and what files are written beside does not."""
        content = {name: plain(getattr(self, name)) for name in type(self).model_fields if name not in _BESIDE}
        if self.foundation is not None:
            content["foundation"] = self.foundation.model_dump(mode="json", exclude={*_SITES_OWN, "batch"})
        content["segmentation"] = [segmenter_content(settings) for settings in self.segmentation]
        content["given"] = self.names_content
        content["regions"] = {region: m.model_dump(mode="json") for region, m in self.regions.items()}
        return sha256(canonical(content))


_BESIDE = ("files", "given", "regions", "segmentation", "foundation")
_SITES_OWN = ("weights", "manifest", "licence_number", "device")


def segmenter_content(settings: SegmenterSettings) -> dict[str, Any]:
    """What of a model's settings its masks depend on (JSON)."""
    content = settings.model_dump(mode="json", exclude=set(_SITES_OWN))
    return {**content, "model": Path(settings.model).name}


def load_extraction(path: Path | str) -> ExtractionSettings:
    """Read a settings file; relative paths in it are relative to the file.

    Raises:
        ConfigError: one sentence per fault: file, line, key, what was found, what was expected.
    """
    path = Path(path)
    return load(ExtractionSettings, path, "ctfed_extraction", {"folder": path.parent, "origin": str(path)})


def at_site(settings: ExtractionSettings, weights: Path | None, licence_number: str | None) -> ExtractionSettings:
    """The same with this centre's own: weights in ``weights/MODEL``, and TotalSegmentator's licence number."""
    models = []
    for model in settings.segmentation:
        card = load_card(model.model)
        own: dict[str, Any] = {}
        if model.weights is None and weights is not None and card.engine in ("nnunet", "totalsegmentator"):
            own["weights"] = weights / card.name
        if model.licence_number is None and card.engine == "totalsegmentator":
            own["licence_number"] = licence_number
        models.append(model.model_copy(update=own))
    foundation = settings.foundation
    if foundation is not None and foundation.weights is None and weights is not None:
        foundation = foundation.model_copy(update={"weights": weights / FOUNDATION_MODEL})
    return settings.model_copy(update={"segmentation": tuple(models), "foundation": foundation})
