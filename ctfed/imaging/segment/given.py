"""Masks that the centre supplies, treated as those of a model: same rules, same report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctfed.cohort.faults import CaseFault
from ctfed.imaging.segment.base import Segmentation, SegmenterSettings
from ctfed.imaging.segment.card import ModelCard, Region
from ctfed.imaging.segment.postprocess import clean
from ctfed.imaging.volume import Volume


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """The masks of one scan as they were read."""

    card: ModelCard
    settings: SegmenterSettings
    masks: Mapping[Region, Volume]

    @property
    def identity(self) -> Mapping[str, Any]:
        """Without the masks themselves, which are input as the scan is."""
        return {
            "model": self.card.name,
            "tumour": self.settings.tumour,
            "lung_includes_tumour": self.settings.lung_includes_tumour,
        }

    def segment(self, image: Volume) -> Segmentation:
        """The masks on the scan's grid, under the site's tumour policy.

        Raises:
            CaseFault: 'mask-on-another-grid'.
        """
        for region, mask in self.masks.items():
            if not image.same_grid(mask):
                raise CaseFault(
                    "mask-on-another-grid", f"found a mask of {region} on {mask.grid}, expected {image.grid}"
                )
        cleaned = clean(
            self.masks,
            self.card.cleaning,
            self.settings.tumour,
            lung_includes_tumour=self.settings.lung_includes_tumour,
        )
        return Segmentation(cleaned.masks, {**self.identity, **cleaned.report()}, cleaned.notes)
