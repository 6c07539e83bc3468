"""Lungs by threshold: air inside the body. For phantoms and as a fallback; no trained model, and it says so.

Air (below -400 HU) that reaches the sides of the scan is the room; of the rest, the largest component and those at
least a fifth as large are lungs. On each axial slice holes are filled and gaps narrower than 6 mm closed, so that
vessels and small nodules are inside. What touches the chest wall and is not air (effusion, consolidation, a tumour of
the pleura) stays outside; large airways are inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctfed.imaging.segment.base import (
    Segmentation,
    SegmenterSettings,
    empty_notes,
    orientation_of,
    reoriented,
    require_scan,
)
from ctfed.imaging.segment.card import ModelCard
from ctfed.imaging.segment.postprocess import FACES, components
from ctfed.imaging.volume import Volume

AIR = -400.0  # HU
SMALLEST_PART = 0.2  # of the largest component's voxels
CLOSING = 3.0  # mm, radius of the disc that closes gaps on a slice
NOTE = "lung: found by a threshold and not by a trained model; consolidation and tumours at the chest wall are left out"


@dataclass(frozen=True, eq=False)
class ThresholdLungs:
    """The weight-free back end."""

    card: ModelCard
    settings: SegmenterSettings

    @property
    def identity(self) -> Mapping[str, Any]:
        """Its name and its constants."""
        return {"model": self.card.name, "air_hu": AIR, "smallest_part": SMALLEST_PART, "closing_mm": CLOSING}

    def segment(self, image: Volume) -> Segmentation:
        """The lungs of a CT in HU.

        Raises:
            CaseFault: 'image-not-finite' or 'image-without-contrast'.
        """
        require_scan(image)
        mask = lungs(reoriented(image, "LPS"))
        masks = {"lung": image.with_array(reoriented(mask, orientation_of(image)).array)}
        return Segmentation(masks, dict(self.identity), (NOTE, *empty_notes(masks)))  # type: ignore[arg-type]


def lungs(image: Volume) -> Volume:
    """Air inside the body of a scan whose slices are the first axis; empty when there is none."""
    air = image.array < AIR
    labels, found = components(image.with_array(air & ~_room(air)), FACES)
    kept = [part.number for part in found if part.voxels >= SMALLEST_PART * found[0].voxels]
    mask = labels.with_array(np.isin(labels.array, kept))
    box = mask.box()
    if box is None:
        return mask
    disc = _disc(CLOSING, image.spacing)
    margin = max(disc.shape)
    inside = np.array(mask.array)
    for k in range(box[0].start, box[0].stop):
        filled = ndimage.binary_fill_holes(inside[k, box[1], box[2]])
        closed = ndimage.binary_closing(np.pad(filled, margin), disc)
        inside[k, box[1], box[2]] = ndimage.binary_fill_holes(closed[margin:-margin, margin:-margin])
    return mask.with_array(inside)


def _room(air: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Air that hangs together with air at the sides of the scan (not at its ends, where lungs may be cut)."""
    labels, count = ndimage.label(air, structure=FACES)
    sides = (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])
    reached = np.zeros(count + 1, dtype=bool)
    for side in sides:
        reached[np.unique(side)] = True
    reached[0] = False
    return np.asarray(reached[labels])


def _disc(radius: float, spacing: tuple[float, float, float]) -> npt.NDArray[np.bool_]:
    nx, ny = (int(radius / spacing[axis]) for axis in (0, 1))
    y, x = np.mgrid[-ny : ny + 1, -nx : nx + 1]
    return np.asarray((x * spacing[0]) ** 2 + (y * spacing[1]) ** 2 <= radius**2)
