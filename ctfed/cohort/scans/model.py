"""What a centre's folder holds, in words of its own: headers, series, mask files and patients; and what was read.

All of it is plain data and can be sent to another process. Identifiers, paths, dates and DICOM UIDs are left out of
every ``repr``; nothing that is meant for provenance (``Acquisition``, reasons, rejections) holds them.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctfed.cohort.faults import CaseFault
from ctfed.imaging.volume import Volume

Triple = tuple[float, float, float]
RTSTRUCT = "rtstruct"
SEG = "seg"
FILE = "file"


@dataclass(frozen=True)
class Header:
    """What ctfed needs to know of one DICOM file; None or '' where the file does not say, or not legibly.

    Attributes:
        position: ImagePositionPatient, mm.
        orientation: ImageOrientationPatient, 6 cosines: along a row, then along a column.
        spacing: PixelSpacing, mm: between rows (y), then between columns (x).
        image_type: upper case.
        refers_to: SeriesInstanceUIDs that an RTSTRUCT or SEG is drawn on.
        frames_of_reference: of the file itself and, of an RTSTRUCT, of all that it refers to.
    """

    path: Path = field(repr=False)
    sop_class: str
    sop_uid: str = field(repr=False)
    modality: str
    patient: str = field(repr=False)
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    frame_uid: str = field(repr=False)
    acquisition: str
    temporal: str
    image_type: tuple[str, ...]
    rows: int | None
    columns: int | None
    samples: int | None
    photometric: str
    frames: int
    position: Triple | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    slope: float | None
    intercept: float | None
    rescale_type: str
    manufacturer: str
    device: str
    kernel: str
    kvp: float | None
    contrast_agent: str
    description: str
    texts: tuple[str, ...] = field(repr=False)
    date: datetime.date | None = field(repr=False)
    refers_to: tuple[str, ...] = field(repr=False)
    frames_of_reference: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class Series:
    """One image: the slices of a DICOM series that belong together, or one NIfTI/NRRD file.

    Attributes:
        label: 'series 2', its place in the patient's list; safe for logs.
        headers: one per DICOM slice, in no order; empty for a file.
        file: the NIfTI/NRRD file; None for DICOM.
        day: days after the patient's first study in the tree, None when not known.
        notes: what was done when its slices were put together.
    """

    label: str
    headers: tuple[Header, ...] = ()
    file: Path | None = field(default=None, repr=False)
    day: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the image is read from."""
        return (self.file,) if self.file is not None else tuple(header.path for header in self.headers)

    @property
    def uid(self) -> str:
        """SeriesInstanceUID; '' for a file."""
        return self.headers[0].series_uid if self.headers else ""

    @property
    def frame_uid(self) -> str:
        """FrameOfReferenceUID; '' when it has none."""
        return self.headers[0].frame_uid if self.headers else ""

    @property
    def name(self) -> str:
        """The label with what tells series apart: 'series 2 (134 images, 3 mm, B19f)'."""
        if not self.headers:
            return f"{self.label} (a file)"
        first = self.headers[0]
        parts = [f"{len(self.headers)} images"]
        parts += [f"{first.thickness:g} mm"] if first.thickness is not None else []
        parts += [first.kernel] if first.kernel else []
        return f"{self.label} ({', '.join(parts)})"

    def days_after(self, date: datetime.date) -> int | None:
        """Days from ``date`` to the scan; None when the scan has no date."""
        scanned = self.headers[0].date if self.headers else None
        return None if scanned is None else (scanned - date).days


@dataclass(frozen=True)
class MaskFile:
    """A file with contours or masks; ``kind`` is RTSTRUCT, SEG or FILE (NIfTI/NRRD, with its region's ``name``)."""

    path: Path = field(repr=False)
    kind: str
    name: str = ""
    refers_to: tuple[str, ...] = field(default=(), repr=False)
    frames_of_reference: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class PatientScans:
    """All that a folder holds of one patient.

    Attributes:
        patient: identifier in the tree: PatientID, ``subjectName`` of an index, or the name of a folder or file.
        faults: what was wrong with single files; they matter when nothing else is left, or in the chosen series.
        damaged: folders that hold a file which could not be read.
    """

    patient: str = field(repr=False)
    series: tuple[Series, ...]
    others: tuple[MaskFile, ...] = ()
    faults: tuple[CaseFault, ...] = ()
    damaged: frozenset[Path] = field(default=frozenset(), repr=False)


@dataclass(frozen=True)
class Rejection:
    """A series that was not taken: the rule and the sentence of the fault."""

    series: str
    rule: str
    sentence: str


@dataclass(frozen=True)
class Choice:
    """The series that is measured, why, and what was wrong with each other series."""

    series: Series
    reasons: tuple[str, ...]
    rejected: tuple[Rejection, ...] = ()


@dataclass(frozen=True)
class Acquisition:
    """A row of the acquisition table; '' and None where the scan does not say.

    Attributes:
        kernel: the values of ConvolutionKernel, joined by a backslash as in DICOM.
        kvp: kV.
        spacing: (x, y, z) mm.
        thickness: SliceThickness, mm, which may differ from the distance of slices in ``spacing``.
        coverage: mm from the first to the last slice's outer face.
        contrast: whether contrast medium was given; None when nothing says so.
        contrast_evidence: 'agent', 'text' or 'none'.
        day: days after the patient's first study in the tree; never a date.
    """

    manufacturer: str
    device: str
    kernel: str
    kvp: float | None
    spacing: Triple
    thickness: float | None
    slices: int
    coverage: float
    contrast: bool | None
    contrast_evidence: str
    day: int | None
    source: str


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT in HU, axes turned to z (foot to head), y (front to back), x (right to left), and how it was acquired."""

    volume: Volume
    acquisition: Acquisition
    frame_uid: str = field(default="", repr=False)


@dataclass(frozen=True)
class RegionNames:
    """How a region is called in a centre's files.

    Attributes:
        patterns: regular expressions that match a whole name, in any case. Each may match one structure of a patient;
            the region is the union of what they match (so that lungs can be drawn left and right).
        many: each pattern may match any number of structures, as for lymph nodes.
    """

    patterns: tuple[str, ...]
    many: bool = False

    @classmethod
    def of(cls, spelled: str | Sequence[str] | RegionNames) -> RegionNames:
        """From what a settings file says: one pattern, or a list of them."""
        if isinstance(spelled, RegionNames):
            return spelled
        return cls((spelled,) if isinstance(spelled, str) else tuple(spelled))
