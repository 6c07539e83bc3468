"""Masks that come with a scan: which structure is which region, and each region on the scan's grid."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans.files import read_volume
from ctfed.cohort.scans.grids import place
from ctfed.cohort.scans.model import RTSTRUCT, SEG, Choice, MaskFile, PatientScans, RegionNames, Scan
from ctfed.cohort.scans.rtstruct import rasterise, read_structures
from ctfed.cohort.scans.seg import Segments
from ctfed.federation.errors import CtfedError
from ctfed.imaging.volume import Volume

Names: TypeAlias = Mapping[str, str | Sequence[str] | RegionNames]

DEFAULT_NAMES: Mapping[str, RegionNames] = MappingProxyType(
    {
        "lung": RegionNames(
            (
                r"lungs?|lungs?[ _-]*(both|total)|both[ _-]*lungs?|(total|bilateral)[ _-]*lungs?",
                r"left[ _-]*lung|lung[ _-]*(l|lt|left)|l[ _-]+lung",
                r"right[ _-]*lung|lung[ _-]*(r|rt|right)|r[ _-]+lung",
            )
        ),
        "tumour": RegionNames(
            (
                r"gtv[ _-]*(p|t)?[ _-]*1?|gtv[ _-]*pre[ _-]*op|(primary[ _-]*)?tumou?r([ _-]*c40)?"
                r"|neoplasm.*|nodule|lesion",
            )
        ),
        "nodes": RegionNames(
            (r"(mediastinal[ _-]*)?lymph[ _-]*nodes?([ _-].*)?|nodes?|gtv[ _-]*n[ _-]*\d*|ln([ _-]*(\d+\w?|c40))?",),
            many=True,
        ),
        "coronaries": RegionNames((r"coronar(y|ies)([ _-]*(artery|arteries|calcium))?",)),
    }
)


@dataclass(frozen=True)
class _Structure:
    """A structure by name, and how to read it; RTSTRUCT, SEG and files alike."""

    name: str
    read: Callable[[], Volume]


def read_masks(
    patient: PatientScans,
    choice: Choice,
    scan: Scan,
    names: Names | None = None,
    required: Collection[str] = (),
) -> dict[str, Volume]:
    """The regions that come with the scan, as bool masks on its grid.

    Args:
        patient: as ``find_patients`` gave it.
        choice: the series that was taken; masks that were drawn on another one in the patient's tree are not used.
        scan: of that series.
        names: how each region is called; ``DEFAULT_NAMES`` when not given. Only its regions are looked for.
        required: regions that must be there; others may be missing.

    Raises:
        CaseFault: no-mask, ambiguous-mask, empty-mask, mask-other-frame-of-reference, mask-other-grid, mask-off-image,
            mask-many-labels, unreadable-mask, and what is wrong with contours.
        CtfedError: when a pattern is no regular expression.
    """
    wanted = {region: RegionNames.of(spelled) for region, spelled in (names or DEFAULT_NAMES).items()}
    structures = list(_structures(patient, choice, scan))
    found: dict[str, Volume] = {}
    for region, how in wanted.items():
        matched = _matched(region, how, structures)
        if not matched:
            if region in required:
                raise CaseFault("no-mask", f"found no structure for {region} among {len(structures)}, expected one")
            continue
        union = np.zeros(scan.volume.shape, dtype=bool)
        for structure in matched:
            union |= structure.read().array
        if not union.any():
            raise CaseFault("empty-mask", f"found no voxel in the mask of {region}, expected some")
        found[region] = scan.volume.with_array(union)
    return found


def _matched(region: str, how: RegionNames, structures: Sequence[_Structure]) -> list[_Structure]:
    taken: dict[int, _Structure] = {}
    for pattern in how.patterns:
        try:
            expression = re.compile(pattern, re.IGNORECASE)
        except re.error as error:
            raise CtfedError(
                f"names of {region}: found {pattern!r} ({error}), expected a regular expression"
            ) from error
        matching = [structure for structure in structures if expression.fullmatch(structure.name.strip())]
        if len(matching) > 1 and not how.many:
            raise CaseFault(
                "ambiguous-mask", f"found {len(matching)} structures that match the name of {region}, expected one"
            )
        taken.update({id(structure): structure for structure in matching})
    return list(taken.values())


def _structures(patient: PatientScans, choice: Choice, scan: Scan) -> Iterator[_Structure]:
    present = {series.uid for series in patient.series if series.uid}
    for other in patient.others:
        drawn_on = set(other.refers_to) & present
        if drawn_on and choice.series.uid and choice.series.uid not in drawn_on:
            continue
        _require_frame(other, choice.series.uid, scan)
        yield from _READERS[other.kind](other, scan)


def _require_frame(other: MaskFile, series_uid: str, scan: Scan) -> None:
    """A mask that names the series was drawn on it, whatever frame it names: rt-utils, for one, invents a frame."""
    if series_uid and series_uid in other.refers_to:
        return
    if scan.frame_uid and other.frames_of_reference and scan.frame_uid not in other.frames_of_reference:
        raise CaseFault(
            "mask-other-frame-of-reference", "found a mask in another frame of reference, expected that of the scan"
        )


def _of_rtstruct(other: MaskFile, scan: Scan) -> Iterator[_Structure]:
    for name, contours in read_structures(other.path).values():
        yield _Structure(name, lambda contours=contours: rasterise(contours, scan.volume))  # type: ignore[misc]


def _of_seg(other: MaskFile, scan: Scan) -> Iterator[_Structure]:
    segments = Segments(other.path)
    for number, name in segments.names.items():
        yield _Structure(name, lambda number=number: place(segments.read(number), scan.volume))  # type: ignore[misc]


def _of_file(other: MaskFile, scan: Scan) -> Iterator[_Structure]:
    yield _Structure(other.name, lambda: place(_binary(read_volume(other.path)), scan.volume))


def _binary(volume: Volume) -> Volume:
    """A mask file as bool; its voxels are 0 and one other value."""
    array = volume.array
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise CaseFault("not-a-number", "found voxels of a mask that are not a finite number, expected 0 and 1")
    inside = array != 0
    values = array[inside]
    if values.size and values.min() != values.max():
        raise CaseFault("mask-many-labels", "found several labels in one mask file, expected 0 and one other value")
    return volume.with_array(inside)


_READERS: Mapping[str, Callable[[MaskFile, Scan], Iterator[_Structure]]] = {
    RTSTRUCT: _of_rtstruct,
    SEG: _of_seg,
    "file": _of_file,
}
