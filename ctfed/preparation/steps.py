"""What each step does. Heavy libraries are imported when a step runs; a run in which nothing changed imports none."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from ctfed import __version__
from ctfed.cohort.scans.choose import Wanted
from ctfed.cohort.scans.model import Choice, PatientScans, Scan
from ctfed.imaging.calcium import calcium_score
from ctfed.imaging.foundation import FoundationModel, FoundationSettings
from ctfed.imaging.kernel import Normalised, normalise_kernel
from ctfed.imaging.segment import Segmenter, SegmenterSettings, build, load_card
from ctfed.imaging.segment.base import Segmentation
from ctfed.imaging.volume import Volume
from ctfed.preparation.atomic import write_file
from ctfed.preparation.cache import Array, Result, array_digest
from ctfed.preparation.code import Code
from ctfed.preparation.columns import calcium_names
from ctfed.preparation.embedded import plain
from ctfed.preparation.masks import packed
from ctfed.preparation.settings import GIVEN, ExtractionSettings

_VOLUME = "ctfed.imaging.volume"
_MASKS = "ctfed.preparation.masks"

# A step is done again when the statements of these modules, or the versions of these libraries, are others.
CODE = {
    "scan": Code(("ctfed.cohort.scans", _VOLUME), ("pydicom", "SimpleITK", "numpy")),
    "given": Code(
        ("ctfed.cohort.scans", "ctfed.imaging.segment.given", "ctfed.imaging.segment.postprocess", _MASKS, _VOLUME),
        ("pydicom", "highdicom", "SimpleITK", "numpy"),
    ),
    "segment": Code(
        ("ctfed.imaging.segment", _MASKS, _VOLUME), ("torch", "nnunetv2", "TotalSegmentator", "SimpleITK", "scipy")
    ),
    "kernel": Code(("ctfed.imaging.kernel", _VOLUME), ("numpy", "scipy")),
    "calcium": Code(("ctfed.imaging.calcium", _VOLUME), ("numpy", "scipy")),
    "radiomics": Code(
        (
            "ctfed.imaging.radiomics",
            "ctfed.imaging.radiomics_names",
            "ctfed.imaging.shape",
            "ctfed.imaging.ibsi",
            _VOLUME,
        ),
        ("pyradiomics-bhklab", "SimpleITK", "numpy", "scipy"),
    ),
    "foundation": Code(
        ("ctfed.imaging.foundation", "ctfed.imaging.fm_crop", _VOLUME), ("torch", "monai", "SimpleITK", "numpy")
    ),
    "nifti": Code(("ctfed.preparation.steps",), ("SimpleITK",)),
    "dicom-seg": Code(("ctfed.preparation.steps", "ctfed.cohort.scans"), ("highdicom", "pydicom")),
    "sheet": Code(("ctfed.preparation.qc",), ("matplotlib",)),
}
PLACES = {"nifti": "masks/{key}", "dicom-seg": "masks/{key}", "sheet": "qc"}


# the scan


def files_of(scans: PatientScans) -> Iterable[Path]:
    """All files that a patient's results can depend on."""
    yield from (path for series in scans.series for path in series.files)
    yield from (other.path for other in scans.others)


def choose(scans: PatientScans, wanted: Wanted) -> Choice:
    """The series that is measured.

    Raises:
        CaseFault: when none can be.
    """
    from ctfed.cohort.scans import choose_series

    return choose_series(scans, wanted)


def read(choice: Choice) -> Scan:
    """The scan in HU.

    Raises:
        CaseFault: when it cannot be read.
    """
    from ctfed.cohort.scans import read_scan

    return read_scan(choice.series)


def describe(choice: Choice, scan: Scan) -> Result:
    """What is known of a scan, without its voxels."""
    volume = scan.volume
    rejected = [f"{r.series} was not taken: {r.rule}: {r.sentence}" for r in choice.rejected]
    return Result.of(
        {
            "notes": [*choice.reasons, *rejected],
            "acquisition": _json(asdict(scan.acquisition)),
            "voxels": array_digest(volume.array),
            "grid": {
                "shape": list(volume.shape),
                "spacing": list(volume.spacing),
                "origin": list(volume.origin),
                "direction": list(volume.direction),
            },
        }
    )


# masks


def is_given(settings: SegmenterSettings) -> bool:
    """Whether the masks come from the centre's own files."""
    return load_card(settings.model).engine == GIVEN


def may_give(settings: SegmenterSettings, extraction: ExtractionSettings, regions: Sequence[str]) -> bool:
    """Whether a model knows any of these regions."""
    card = load_card(settings.model)
    known = set(extraction.names) if card.engine == GIVEN else set(settings.labels or card.regions)
    return not known.isdisjoint(regions)


def given(
    scans: PatientScans, choice: Choice, scan: Scan, settings: SegmenterSettings, extraction: ExtractionSettings
) -> Result:
    """The centre's own masks. A region that cannot be read is a fault of that region alone."""
    from ctfed.cohort.faults import CaseFault
    from ctfed.cohort.scans import read_masks

    names: dict[str, Any] = {region: extraction.names[region] for region in extraction.needed}
    masks: dict[Any, Volume] = {}
    faults: dict[str, list[str]] = {}
    try:
        masks.update(read_masks(scans, choice, scan, names))
    except CaseFault:  # of one region at least; one by one it is seen which
        for region, spelled in names.items():
            try:
                masks.update(read_masks(scans, choice, scan, {region: spelled}))
            except CaseFault as fault:
                faults[region] = [fault.rule, fault.sentence]
    return _kept(build(settings, masks).segment(scan.volume), faults)


def segment(settings: SegmenterSettings, scan: Scan) -> Result:
    """The masks of a model."""
    return _kept(_segmenter(settings).segment(scan.volume), {})


_built: dict[str, Segmenter] = {}


def _segmenter(settings: SegmenterSettings) -> Segmenter:
    key = settings.model_dump_json()
    if key not in _built:
        _built[key] = build(settings)
    return _built[key]


def _kept(found: Segmentation, faults: Mapping[str, list[str]]) -> Result:
    boxes, bits = packed(found.masks)
    values = {"masks": boxes, "faults": faults, "notes": list(found.notes), "provenance": _json(found.provenance)}
    return Result.of(values, bits)


# measures


def kernel_content(settings: ExtractionSettings) -> Any:
    """What of the settings a normalised image depends on (JSON)."""
    return plain(settings.kernel)


def normalise(image: Volume, regions: Sequence[Volume], settings: ExtractionSettings) -> Normalised:
    """The scan normalised in the union of regions (the lung with the tumour).

    Raises:
        GeometryError: when the regions have too few voxels.
    """
    union = reduce(np.logical_or, (region.array for region in regions))
    return normalise_kernel(image, image.with_array(union), settings.kernel)


def kernel_result(found: Normalised) -> Result:
    """What is known of a normalised image, without its voxels."""
    return Result.of(
        {
            "voxels": array_digest(found.image.array),
            "before": list(found.before),
            "after": list(found.after),
            "iterations": found.iterations,
            "converged": found.converged,
        }
    )


def radiomics_content(settings: ExtractionSettings) -> Any:
    """What of the settings radiomics depend on (JSON)."""
    return plain(settings.radiomics)


def radiomics(image: Volume, mask: Volume, settings: ExtractionSettings, shape: bool) -> Result:
    """The radiomics of one region on one image."""
    from ctfed.imaging.radiomics import extract

    found = extract(image, mask, settings.radiomics, shape)
    return Result.of({"features": found.values, "reason": found.reason})


def calcium(image: Volume, mask: Volume, settings: Mapping[str, Any]) -> Result:
    """The calcium score, its flags as 0 or 1, None where not known."""
    score = calcium_score(
        image,
        mask,
        kernel=settings["kernel"] or None,
        contrast=settings["contrast"],
        connectivity=settings["connectivity"],
    )
    values = {name: getattr(score, name) for name in calcium_names()}
    numbers = {name: None if value is None else float(value) for name, value in values.items()}
    notes = []
    if score.contrast:
        notes.append("the vessels look opacified: the score measures contrast medium as well")
    if score.sharp_kernel:
        notes.append("the reconstruction kernel is a sharp one: its noise alone may exceed 130 HU")
    return Result.of({"features": numbers, "notes": notes})


_models: dict[str, FoundationModel] = {}


def foundation(image: Volume, mask: Volume, settings: FoundationSettings, cube: int) -> Result:
    """The deep features of one cube around the largest tumour."""
    from ctfed.imaging.foundation import load_model

    key = settings.model_dump_json()
    if key not in _models:
        _models[key] = load_model(settings)
    found = _models[key].features(image, mask, (cube,))
    return Result.of({"features": found.values, "reason": found.reason, "notes": list(found.flags)})


# files


def nifti(masks: Mapping[str, Volume]) -> Result:
    """Masks as NIfTI, one file per region."""
    import SimpleITK as sitk

    def write(folder: Path) -> None:
        for region, mask in masks.items():
            sitk.WriteImage(mask.to_sitk(), str(folder / f"{region}.nii.gz"), useCompression=True)

    return _files(write)


def seg(choice: Choice, masks: Mapping[str, Volume], provenance: Mapping[str, Any]) -> Result:
    """All masks as one DICOM SEG."""
    from ctfed.cohort.scans import Algorithm, write_seg

    weights = [str(made["weights_sha256"]) for made in provenance.values() if made.get("weights_sha256")]
    algorithm = Algorithm(" + ".join(provenance), __version__, " ".join(weights))
    return _files(lambda folder: write_seg(folder / "masks.dcm", choice.series, masks, algorithm))


def sheet(image: Volume, masks: Mapping[str, Volume]) -> Result:
    """A contact sheet as PNG."""
    from ctfed.preparation.qc import write_sheet

    return _files(lambda folder: write_sheet(folder / "{key}.png", image, masks))


def _files(write: Callable[[Path], object]) -> Result:
    with tempfile.TemporaryDirectory(prefix="ctfed-") as name:
        folder = Path(name)
        write(folder)
        content = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    arrays: dict[str, Array] = {name: np.frombuffer(data, dtype=np.uint8) for name, data in content.items()}
    return Result.of({"files": {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}}, arrays)


def put_files(kind: str, made: Result, local: Path, key: str) -> bool:
    """Let the outputs hold the files of a result, and say whether any had to be written."""
    folder = local / PLACES[kind].format(key=key)
    wrote = False
    for name, digest in made.values["files"].items():
        path = folder / name.replace("{key}", key)
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        data = made.arrays[name].tobytes()
        write_file(path, lambda temporary, data=data: temporary.write_bytes(data))  # type: ignore[misc]
        wrote = True
    if kind == "nifti":  # a region that is no longer there
        for path in folder.glob("*.nii.gz"):
            if path.name not in made.values["files"]:
                path.unlink()
                wrote = True
    return wrote


def _json(content: Any) -> Any:
    """Plain JSON content: tuples as lists, numbers of numpy as Python's."""

    def plain_number(value: Any) -> Any:
        return value.item() if isinstance(value, np.generic) else str(value)

    return json.loads(json.dumps(content, default=plain_number), parse_constant=lambda _: math.nan)
