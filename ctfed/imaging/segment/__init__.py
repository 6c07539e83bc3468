"""Segmentation: back ends behind one small interface, each described by a model card.

    segmenter = build(SegmenterSettings(model="bamf-lung-nodule", weights=folder))
    found = segmenter.segment(scan)          # masks, provenance, notes

Building checks licence and weights and opens no network; importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from ctfed.config import ConfigError
from ctfed.imaging.segment.base import Segmentation, Segmenter, SegmenterSettings, identity_digest
from ctfed.imaging.segment.card import REGIONS, ModelCard, Region, card_names, load_card
from ctfed.imaging.segment.weights import WeightsError
from ctfed.imaging.volume import Volume

__all__ = [
    "REGIONS",
    "ModelCard",
    "Region",
    "Segmentation",
    "Segmenter",
    "SegmenterSettings",
    "WeightsError",
    "build",
    "card_names",
    "identity_digest",
    "load_card",
]


def build(settings: SegmenterSettings, given: Mapping[Region, Volume] | None = None) -> Segmenter:
    """The back end of the settings' model.

    Args:
        settings: which model, and how.
        given: the masks of one scan, for the model 'given' alone; build one for each scan.

    Raises:
        ConfigError: when there is no such model, or its folder does not fit its card.
        WeightsError: when its weights are missing or are not those of the manifest.
        LicenceError: when it needs a licence number and has none.
    """
    card = load_card(settings.model)
    if (given is None) == (card.engine == "given"):
        found = "no masks" if given is None else "masks"
        raise ConfigError(f"model {settings.model!r}: found {found}, expected them with the model 'given' alone")
    if card.engine == "given":
        from ctfed.imaging.segment.given import GivenMasks

        return GivenMasks(card, settings, given or {})
    if card.engine == "threshold":
        from ctfed.imaging.segment.threshold import ThresholdLungs

        return ThresholdLungs(card, settings)
    if card.engine == "nnunet":
        from ctfed.imaging.segment.nnunet import NnunetSegmenter

        return NnunetSegmenter.of(card, settings)
    if card.engine == "totalsegmentator":
        from ctfed.imaging.segment.totalseg import TotalSegmenter

        return TotalSegmenter.of(card, settings)
    raise ConfigError(f"model {settings.model!r}: found engine {card.engine!r}, which does not segment")
