"""Patients in a folder: DICOM in any nesting, a CHAIMELEON dataset with its index, NIfTI and NRRD files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans.chaimeleon import INDEX, Listed, read_index
from ctfed.cohort.scans.files import sort_out, stem
from ctfed.cohort.scans.grouping import group
from ctfed.cohort.scans.headers import NotDicom, Unreadable, read_header
from ctfed.cohort.scans.model import RTSTRUCT, SEG, Header, MaskFile, PatientScans, Series
from ctfed.federation.errors import CtfedError

Layout: TypeAlias = Literal["auto", "dicom", "folders", "chaimeleon", "files"]
LAYOUTS: tuple[Layout, ...] = ("auto", "dicom", "folders", "chaimeleon", "files")
_NO_SCANS = frozenset(
    {
        ".csv",
        ".tsv",
        ".txt",
        ".json",
        ".xml",
        ".md",
        ".pdf",
        ".xlsx",
        ".zip",
        ".gz",
        ".xz",
        ".tar",
        ".html",
        ".png",
        ".jpg",
    }
    | {".yaml", ".yml", ".log", ".parquet", ".py", ".bak", ".tmp"}
)
_MASK_KINDS = {"RTSTRUCT": RTSTRUCT, "SEG": SEG}
_MASK_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.481.3": RTSTRUCT,
    "1.2.840.10008.5.1.4.1.1.66.4": SEG,
    "1.2.840.10008.5.1.4.1.1.66.7": SEG,
}


@dataclass
class _Gathered:
    """Files of one patient while the folder is walked."""

    headers: list[Header] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    masks: list[MaskFile] = field(default_factory=list)
    faults: list[CaseFault] = field(default_factory=list)
    damaged: set[Path] = field(default_factory=set)


def find_patients(folder: Path, layout: str = "auto") -> list[PatientScans]:
    """The patients of a folder, by their identifier; reads headers, no pixels.

    Args:
        folder: any nesting; symbolic links are followed, each folder is entered once.
        layout: 'dicom' (a patient is a PatientID), 'folders' (a patient is a folder in ``folder``, for trees whose
            PatientIDs were blanked), 'chaimeleon' (``index.json``), 'files' (NIfTI and NRRD), or 'auto': an index when
            there is one, otherwise DICOM and files together.

    Raises:
        CtfedError: when the folder or the index cannot be read, or the layout is not known.
    """
    if layout not in LAYOUTS:
        raise CtfedError(f"scans: layout: found {layout!r}, expected {', '.join(LAYOUTS[:-1])} or {LAYOUTS[-1]}")
    if not folder.is_dir():
        raise CtfedError(f"{folder}: found no folder, expected one with the patients' scans")
    if layout == "chaimeleon" or (layout == "auto" and (folder / INDEX).is_file()):
        gathered = _by_index(folder, read_index(folder))
    else:
        gathered = _by_tree(folder, layout)
    return [_patient(name, found) for name, found in sorted(gathered.items())]


def _patient(name: str, found: _Gathered) -> PatientScans:
    images = [header for header in found.headers if _mask_kind(header) is None]
    masks = [_mask(header) for header in found.headers if _mask_kind(header) is not None]
    series = list(group(images))
    for path in sorted(found.images):
        series.append(Series(f"series {len(series) + 1}", file=path))
    return PatientScans(
        patient=name,
        series=tuple(series),
        others=tuple(sorted([*masks, *found.masks], key=lambda mask: str(mask.path))),
        faults=tuple(found.faults),
        damaged=frozenset(found.damaged),
    )


def _mask_kind(header: Header) -> str | None:
    return _MASK_CLASSES.get(header.sop_class) or _MASK_KINDS.get(header.modality)


def _mask(header: Header) -> MaskFile:
    kind = _mask_kind(header) or SEG
    return MaskFile(header.path, kind, "", header.refers_to, header.frames_of_reference)


def _by_tree(folder: Path, layout: str) -> dict[str, _Gathered]:
    patients: dict[str, _Gathered] = {}
    damaged: list[tuple[Path, CaseFault]] = []
    files = list(walk(folder))
    of_folder: dict[Path, str] = {}
    if layout != "files":
        for path in files:
            if stem(path) is not None:
                continue
            try:
                header = _header(path)
            except CaseFault as fault:
                damaged.append((path, fault))
                continue
            if header is not None:
                blank = layout == "folders" or not header.patient
                name = _top(path, folder) if blank else header.patient
                patients.setdefault(name, _Gathered()).headers.append(header)
                of_folder.setdefault(path.parent, name)
    for path, broken in damaged:
        # Of a file that cannot be read the folder tells whose it is.
        mine = patients.setdefault(of_folder.get(path.parent) or _top(path, folder), _Gathered())
        mine.faults.append(broken)
        mine.damaged.add(path.parent)
    if layout in ("auto", "files"):
        for name, (images, masks) in sort_out(files, folder).items():
            mine = patients.setdefault(name, _Gathered())
            mine.images += images
            mine.masks += masks
    return patients


def _by_index(folder: Path, studies: Iterable[Listed]) -> dict[str, _Gathered]:
    patients: dict[str, _Gathered] = {}
    for study in studies:
        mine = patients.setdefault(study.subject, _Gathered())
        if study.fault is not None:
            mine.faults.append(study.fault)
        for place in study.folders:
            if not place.is_dir():
                mine.faults.append(
                    CaseFault(
                        "series-not-there",
                        "found no folder for a series of the index (is the datalake mounted?), expected its files",
                    )
                )
                continue
            files = list(walk(place))
            for path in files:
                if stem(path) is None:
                    _add(mine, path)
            for images, masks in sort_out(files, place).values():
                mine.images += images
                mine.masks += masks
    return patients


def _add(mine: _Gathered, path: Path) -> None:
    try:
        header = _header(path)
    except CaseFault as fault:
        mine.faults.append(fault)
        mine.damaged.add(path.parent)
        return
    if header is not None:
        mine.headers.append(header)


def _header(path: Path) -> Header | None:
    """The header; None of a file that is no DICOM.

    Raises:
        CaseFault: unreadable-file.
    """
    try:
        return read_header(path)
    except NotDicom:
        return None
    except (Unreadable, OSError) as error:
        said = str(error) if isinstance(error, Unreadable) else f"found {type(error).__name__}"
        raise CaseFault("unreadable-file", f"{said} in a DICOM file, expected a whole one") from error


def _top(path: Path, folder: Path) -> str:
    """The folder in ``folder`` that holds a file; the file's own name when it lies in ``folder`` itself."""
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else folder.name


def walk(folder: Path) -> Iterator[Path]:
    """Every file that may be a scan, in sorted order; links are followed, no folder is entered twice."""
    entered: set[tuple[int, int]] = set()

    def enter(place: Path) -> Iterator[Path]:
        try:
            state = place.stat()
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            return  # a link that leads nowhere, or a folder that may not be read: it holds nothing for us
        if (state.st_dev, state.st_ino) in entered:
            return
        entered.add((state.st_dev, state.st_ino))
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith(".") or entry.name == "DICOMDIR":
                continue
            if _is_folder(entry):
                yield from enter(path)
            elif _is_file(entry) and (stem(path) is not None or path.suffix.lower() not in _NO_SCANS):
                yield path

    yield from enter(folder)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
