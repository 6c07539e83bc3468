"""What all segmentation back ends share: their settings, their result, and the checks of a scan before it is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field

from ctfed.cohort.faults import CaseFault
from ctfed.config import Section
from ctfed.imaging.device import DeviceName
from ctfed.imaging.segment.card import Labels, ModelCard, Region
from ctfed.imaging.segment.weights import Sha256
from ctfed.imaging.volume import Volume

TumourPolicy = Literal["largest", "all"]


class SegmenterSettings(Section):
    """Which model segments, and how.

    Attributes:
        model: the name of a model card, or the path of one's YAML file.
        weights: the folder with the weights and their manifest.
        manifest: the manifest, when it does not lie in that folder.
        weights_sha256: the digest of all weights that a study pins.
        labels: names of labels per region, instead of the card's.
        unused: names of labels that belong to no region, beside the card's.
        tumour: 'largest' keeps the tumour's largest component, 'all' keeps every one; all are reported either way.
        lung_includes_tumour: whether the tumour that is kept is also lung.
        folds: the nnU-Net folds to average; all that are there when None.
        mirroring: whether nnU-Net averages over mirrored copies (8 times the work, as published).
        tile_step: step of nnU-Net's sliding window as a fraction of its patch.
        licence_number: the centre's own licence number for TotalSegmentator.
        device: where the networks compute.
    """

    model: str = Field(min_length=1, description="the name of a model, or the path of a model card")
    weights: Path | None = Field(default=None, description="the path of a folder of weights")
    manifest: Path | None = Field(default=None, description="the path of a manifest")
    weights_sha256: Sha256 | None = None
    labels: Mapping[Region, Labels] | None = Field(
        default=None, description="a mapping of regions to lists of label names"
    )
    unused: tuple[str, ...] = Field(default=(), description="a list of label names")
    tumour: TumourPolicy = Field(default="largest", description="largest or all")
    lung_includes_tumour: bool = Field(default=False, description="true or false")
    folds: tuple[int, ...] | None = Field(default=None, min_length=1, description="a list of fold numbers")
    mirroring: bool = Field(default=True, description="true or false")
    tile_step: float = Field(default=0.5, gt=0, le=1, description="a fraction above 0, up to 1")
    licence_number: str | None = Field(
        default=None, description="TotalSegmentator's licence number, in quotes", repr=False
    )
    device: DeviceName = "auto"


@dataclass(frozen=True)
class Segmentation:
    """The regions of one scan.

    Attributes:
        masks: bool volumes on the scan's grid, one for each region of the model; an empty one means that the region
            was not found, which is a missing region and not one of size zero.
        provenance: what made them, JSON types only.
        notes: sentences for whoever looks at the masks.
    """

    masks: Mapping[Region, Volume]
    provenance: Mapping[str, Any]
    notes: tuple[str, ...] = ()


class Segmenter(Protocol):
    """A back end. Building one checks its weights; the first scan loads them."""

    @property
    def card(self) -> ModelCard:
        """What the model is."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that its masks depend on beside the scan (JSON types): the key under which they can be kept."""

    def segment(self, image: Volume) -> Segmentation:
        """The regions of a CT in HU.

        Raises:
            CaseFault: when this scan cannot be segmented.
        """


def identity_digest(segmenter: Segmenter) -> str:
    """SHA-256 (hex) of a segmenter's identity."""
    text = json.dumps(segmenter.identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def require_scan(image: Volume) -> None:
    """Refuse what no model can segment.

    Raises:
        CaseFault: 'image-not-finite', or 'image-without-contrast' when all voxels are equal.
    """
    if not np.isfinite(image.array).all():
        raise CaseFault("image-not-finite", "found voxels without a number, expected HU everywhere")
    if image.array.size == 0 or image.array.min() == image.array.max():
        raise CaseFault("image-without-contrast", "found one value in all voxels, expected a CT in HU")


def orientation_of(image: Volume) -> str:
    """Three letters, such as 'LPS': whither i, j and k run, to the nearest axis of the patient."""
    import SimpleITK as sitk

    code: str = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.direction)
    return code


def reoriented(image: Volume, code: str) -> Volume:
    """The same voxels in the same places with axes swapped and flipped so that they run as ``code`` says."""
    import SimpleITK as sitk

    if orientation_of(image) == code:
        return image
    turned = Volume.from_sitk(sitk.DICOMOrient(image.to_sitk(), code))
    return turned if image.array.dtype != bool else turned.with_array(turned.array.astype(bool))


def empty_notes(masks: Mapping[Region, Volume]) -> tuple[str, ...]:
    """A sentence for every region that was not found."""
    return tuple(
        f"{region}: found no voxel; the region is missing, its measures are missing too"
        for region, mask in masks.items()
        if not mask.array.any()
    )
