"""DICOM SEG in and out, by highdicom."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans.headers import quietly
from ctfed.cohort.scans.model import Series
from ctfed.federation.errors import CtfedError
from ctfed.imaging.volume import Volume

SegKind: TypeAlias = Literal["BINARY", "LABELMAP"]
INSIDE = 0.5  # of a FRACTIONAL segment
# BINARY is a bit a voxel as it is (Explicit VR Little Endian); LABELMAP shrinks forty times by run lengths (RLE).
_SYNTAX: Mapping[SegKind, str] = {"BINARY": "1.2.840.10008.1.2.1", "LABELMAP": "1.2.840.10008.1.2.5"}
# Coded concepts (SNOMED CT) of the regions: category, type.
_STRUCTURE = ("123037004", "Anatomical structure")
_ABNORMAL = ("49755003", "Morphologically abnormal structure")
CODES: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "lung": (_STRUCTURE, ("39607008", "Lung")),
    "tumour": (_ABNORMAL, ("108369006", "Neoplasm")),
    "nodes": (_STRUCTURE, ("62683002", "Mediastinal lymph node")),
    "coronaries": (_STRUCTURE, ("41801008", "Coronary artery")),
    "heart": (_STRUCTURE, ("80891009", "Heart")),
}


@dataclass(frozen=True)
class Algorithm:
    """What made a segmentation: its name, version, and the SHA-256 of its weights ('' when it has none)."""

    name: str
    version: str
    weights_sha256: str = ""


class Segments:
    """The segments of one DICOM SEG, decoded when asked for.

    Raises:
        CaseFault: unreadable-mask.
    """

    def __init__(self, path: Path) -> None:
        import highdicom

        with _as_fault():
            self._seg = highdicom.seg.segread(path)
            self._numbers = [int(number) for number in self._seg.segment_numbers]
            self.names = {number: self._name(number) for number in self._numbers if number}

    def _name(self, number: int) -> str:
        described = self._seg.get_segment_description(number)
        return str(described.get("SegmentLabel") or described.get("SegmentDescription") or "").strip()

    def read(self, number: int) -> Volume:
        """The bool mask of one segment, on its own grid.

        Raises:
            CaseFault: unreadable-mask, also when its frames are no regular stack.
        """
        with _as_fault():
            kind = str(self._seg.SegmentationType)
            found = self._seg.get_volume(
                segment_numbers=[number],
                combine_segments=False,  # combined, a LABELMAP comes with all its segments
                rescale_fractional=True,
                allow_missing_positions=True,
            )
            array = np.asarray(found.array)[..., 0]
            inside = array >= INSIDE if kind == "FRACTIONAL" else array > 0
            return _volume(inside, np.asarray(found.affine))


@contextlib.contextmanager
def _as_fault() -> Iterator[None]:
    """highdicom and pydicom raise many things on a damaged file; all mean that it cannot be used."""
    try:
        with quietly():
            yield
    except CtfedError:
        raise
    except Exception as error:
        raise CaseFault(
            "unreadable-mask",
            f"found a DICOM SEG that cannot be read ({type(error).__name__}), expected a whole one",
        ) from error


def _volume(array: Any, affine: Any) -> Volume:
    """From highdicom's affine, whose columns belong to array axes 0, 1, 2."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    directions = (affine[:3, :3] / spacing)[:, ::-1]
    sz, sy, sx = (float(value) for value in spacing)
    x, y, z = (float(value) for value in affine[:3, 3])
    return Volume(array, (sx, sy, sz), (x, y, z), tuple(float(value) for value in directions.reshape(-1)))


def _affine(volume: Volume) -> Any:
    affine = np.eye(4)
    affine[:3, :3] = (volume.matrix * np.array(volume.spacing))[:, ::-1]
    affine[:3, 3] = volume.origin
    return affine


def write_seg(
    path: Path, series: Series, masks: Mapping[str, Volume], algorithm: Algorithm, kind: SegKind = "BINARY"
) -> None:
    """One SEG of all regions of a patient, which refers to every slice of the DICOM series it was made from.

    Regions are written in the order of ``masks``; the UIDs follow from the content, so that the same masks give
    the same UIDs. Regions without a code of their own are written as 'Anatomical structure'.

    Raises:
        CtfedError: when the series is no DICOM, no mask has a voxel, or LABELMAP is asked for regions that overlap.
    """
    import highdicom
    import pydicom

    if not series.headers:
        raise CtfedError("found a scan from a file, expected a DICOM series: a DICOM SEG refers to one")
    filled = {region: mask for region, mask in masks.items() if mask.array.any()}
    if not filled:
        raise CtfedError("found no voxel in any mask, expected at least one: DICOM has no empty segmentation")
    grid = next(iter(filled.values()))
    for region, mask in filled.items():
        grid.require_same_grid(mask, f"the mask of {region}")
    array = _labels(filled) if kind == "LABELMAP" else _stacked(filled)
    sources = [pydicom.dcmread(header.path, stop_before_pixels=True) for header in series.headers]
    digest = hashlib.sha256(
        repr((series.uid, algorithm, kind, list(filled))).encode() + np.packbits(array > 0).tobytes()
    )
    volume = highdicom.Volume(
        array,
        _affine(grid),
        coordinate_system="PATIENT",
        frame_of_reference_uid=series.frame_uid or None,
        channels={"SegmentNumber": list(range(1, len(filled) + 1))} if kind == "BINARY" else None,
    )
    with quietly():
        seg = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=volume,
            segmentation_type=kind,
            segment_descriptions=[_description(i, r, algorithm) for i, r in enumerate(filled, start=1)],
            series_instance_uid=_uid(digest, "series"),
            series_number=300,
            sop_instance_uid=_uid(digest, "instance"),
            instance_number=1,
            manufacturer="ctfed",
            manufacturer_model_name="ctfed prepare",
            software_versions=algorithm.version,
            device_serial_number="0",
            transfer_syntax_uid=_SYNTAX[kind],
            series_description=f"Segmentation by {algorithm.name}"[:64],
            content_creator_name="ctfed",
        )
    seg.save_as(path)


def _stacked(masks: Mapping[str, Volume]) -> Any:
    return np.stack([mask.array.astype(np.uint8) for mask in masks.values()], axis=-1)


def _labels(masks: Mapping[str, Volume]) -> Any:
    for (one, first), (other, second) in itertools.combinations(masks.items(), 2):
        shared = int((first.array.astype(bool) & second.array.astype(bool)).sum())
        if shared:
            raise CtfedError(f"LABELMAP: found {shared} voxels in both {one} and {other}, expected none (use BINARY)")
    labels = np.zeros(next(iter(masks.values())).shape, dtype=np.uint8)
    for number, mask in enumerate(masks.values(), start=1):
        labels[mask.array.astype(bool)] = number
    return labels


def _uid(digest: Any, what: str) -> str:
    import pydicom

    return str(pydicom.uid.generate_uid(entropy_srcs=[digest.hexdigest(), what]))


def _description(number: int, region: str, algorithm: Algorithm) -> Any:
    import highdicom
    from pydicom.sr.coding import Code

    category, kind = CODES.get(region, (_STRUCTURE, _STRUCTURE))
    weights = {"weights_sha256": algorithm.weights_sha256} if algorithm.weights_sha256 else None
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=region,
        segmented_property_category=Code(category[0], "SCT", category[1]),
        segmented_property_type=Code(kind[0], "SCT", kind[1]),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=algorithm.name,
            version=algorithm.version,
            family=Code("123110", "DCM", "Artificial Intelligence"),
            parameters=weights,
        ),
    )
