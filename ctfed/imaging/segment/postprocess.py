"""What happens to masks after a model: false specks go, lungs are two, and the tumour is one lesion or all.

The rules are those that the authors of the BAMF lung model describe (model card, ``cleaning``); their published code
does something else for components above 30 mm. 'In the plane' is the plane of the axial slices, taken from the
volume's direction and never guessed from its spacing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctfed.imaging.segment.base import TumourPolicy, empty_notes
from ctfed.imaging.segment.card import Cleaning, Region
from ctfed.imaging.volume import Volume

LARGE = 30.0  # mm; larger lesions are called masses, smaller ones nodules (Fleischner Society)
FACES = ndimage.generate_binary_structure(3, 1)  # a component of the tumour hangs together by faces
CORNERS = ndimage.generate_binary_structure(3, 3)  # lungs hang together by corners too
_MOST_LISTED = 20  # components in provenance; a bad mask can have thousands


@dataclass(frozen=True)
class Component:
    """One connected part of a mask.

    Attributes:
        number: its label, from 1, by falling size.
        voxels: how many.
        volume: mm3.
        extent: mm, the longer side of its bounding box in the axial plane.
        distance: mm between its centroid and that of the largest component.
        kept: whether it is part of the region in the end.
    """

    number: int
    voxels: int
    volume: float
    extent: float
    distance: float
    kept: bool = True

    @property
    def kind(self) -> str:
        """'mass' above 30 mm, else 'nodule'."""
        return "mass" if self.extent > LARGE else "nodule"

    def report(self) -> dict[str, Any]:
        """JSON types, for provenance."""
        return {
            "volume_mm3": round(self.volume, 3),
            "extent_mm": round(self.extent, 3),
            "distance_mm": round(self.distance, 3),
            "kind": self.kind,
            "kept": self.kept,
        }


@dataclass(frozen=True)
class Cleaned:
    """Masks after the rules: what is kept, what is said about it, and the tumour's components."""

    masks: Mapping[Region, Volume]
    notes: tuple[str, ...]
    tumours: tuple[Component, ...]

    def report(self) -> dict[str, Any]:
        """JSON types, for provenance; {} without a tumour."""
        if not self.tumours:
            return {}
        listed = [component.report() for component in self.tumours[:_MOST_LISTED]]
        return {"tumour_components": len(self.tumours), "tumours": listed}


def slice_axis(volume: Volume) -> int:
    """The axis of the array, 0, 1 or 2, that runs most nearly from feet to head."""
    return 2 - int(np.argmax(np.abs(volume.matrix[2])))


def components(mask: Volume, structure: npt.NDArray[np.bool_] = FACES) -> tuple[Volume, tuple[Component, ...]]:
    """The connected parts of a mask, largest first.

    Returns:
        A volume of labels, int32, and the components in the order of their labels. Equal sizes are ordered by the
        place of their first voxel, so that the order does not depend on anything but the mask.
    """
    labels = np.zeros(mask.shape, dtype=np.int32)
    box = mask.box()
    if box is None:
        return mask.with_array(labels), ()
    found, count = ndimage.label(mask.array[box].astype(bool), structure=structure)
    sizes = np.bincount(found.reshape(-1), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    rank = np.zeros(count + 1, dtype=np.int32)
    rank[order + 1] = np.arange(1, count + 1)
    ranked = rank[found]
    labels[box] = ranked
    centres = mask.crop(box).world(np.array(ndimage.center_of_mass(ranked > 0, ranked, np.arange(1, count + 1))))
    plane = [axis for axis in range(3) if axis != slice_axis(mask)]
    steps = mask.spacing[::-1]
    parts = []
    for number, where in enumerate(ndimage.find_objects(ranked), start=1):
        extent = max((where[axis].stop - where[axis].start) * steps[axis] for axis in plane)
        voxels = int(sizes[order[number - 1]])
        distance = float(np.linalg.norm(centres[number - 1] - centres[0]))
        parts.append(Component(number, voxels, voxels * mask.voxel_volume, float(extent), distance))
    return mask.with_array(labels), tuple(parts)


def largest_component(mask: Volume) -> Volume:
    """The largest connected part of a mask; an empty mask stays empty."""
    labels, _ = components(mask)
    return mask.with_array(labels.array == 1)


def clean_tumour(
    mask: Volume, smallest: float, policy: TumourPolicy
) -> tuple[Volume, Volume, tuple[Component, ...], tuple[str, ...]]:
    """The tumour without specks, by the policy.

    Returns:
        The tumour, the specks (components narrower than ``smallest`` mm in the axial plane), all components with
        'kept' set, and notes.
    """
    labels, found = components(mask)
    lesions = [part for part in found if part.extent >= smallest]
    kept = {part.number for part in (lesions[:1] if policy == "largest" else lesions)}
    marked = tuple(replace(part, kept=part.number in kept) for part in found)
    notes = []
    if len(lesions) < len(found):
        notes.append(f"tumour: {len(found) - len(lesions)} components below {smallest:g} mm in the plane were dropped")
    if len(lesions) > len(kept):
        left = sum(part.volume for part in lesions) - sum(part.volume for part in lesions if part.number in kept)
        notes.append(f"tumour: the largest of {len(lesions)} components was kept, {left / 1000:.2f} ml were left out")
    specks = {part.number for part in found} - {part.number for part in lesions}
    return _of(labels, kept), _of(labels, specks), marked, tuple(notes)


def _of(labels: Volume, numbers: set[int]) -> Volume:
    return labels.with_array(np.isin(labels.array, sorted(numbers)))


def keep_lungs(mask: Volume, second: float) -> Volume:
    """The largest component, and the next when it has more than ``second`` of the largest one's voxels."""
    labels, found = components(mask, CORNERS)
    kept = {part.number for part in found[:2] if part.number == 1 or part.voxels > second * found[0].voxels}
    return _of(labels, kept)


def clean(
    masks: Mapping[Region, Volume], rules: Cleaning, policy: TumourPolicy, *, lung_includes_tumour: bool = False
) -> Cleaned:
    """Apply a card's rules and a site's policy to the masks of one scan.

    Specks of tumour become lung before lungs are counted, as the authors intend; a lesion that is left out by the
    policy 'largest' does not.
    """
    result: dict[Region, Volume] = {region: mask.with_array(mask.array.astype(bool)) for region, mask in masks.items()}
    notes: tuple[str, ...] = ()
    tumours: tuple[Component, ...] = ()
    if "tumour" in result:
        result["tumour"], specks, tumours, notes = clean_tumour(result["tumour"], rules.smallest_tumour, policy)
        if "lung" in result:
            result["lung"] = result["lung"].with_array(result["lung"].array | specks.array)
    if "lung" in result and rules.second_lung is not None:
        result["lung"] = keep_lungs(result["lung"], rules.second_lung)
    if lung_includes_tumour and "lung" in result and "tumour" in result:
        result["lung"] = result["lung"].with_array(result["lung"].array | result["tumour"].array)
    return Cleaned(result, notes + empty_notes(result), tumours)
