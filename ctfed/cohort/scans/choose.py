"""Which of a patient's series is measured, by rules that can be read, with the reason logged.

1. Where contours or masks were drawn on series that are there, only those are candidates.
2. A candidate must be a CT in HU, axial, one channel, a regular stack, of enough slices and length; the rules below
   name what is wrong. DERIVED and SECONDARY images are taken: some archives mark every original CT so.
3. Of several, the first by: no phase of a 4-D scan and no attenuation map; contrast as wanted; thickness <= 3 mm, then
   <= 5 mm; soft kernel, then unknown, then sharp; thinnest; most slices; earliest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans.acquire import contrast, kernel_class
from ctfed.cohort.scans.files import file_stack
from ctfed.cohort.scans.geometry import stack, tilt
from ctfed.cohort.scans.grouping import SCOUT_TYPES
from ctfed.cohort.scans.model import Choice, Header, PatientScans, Rejection, Series

CT_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"})
LARGEST_TILT = 5.0  # degrees from the axial plane
THIN = (3.0, 5.0)  # mm: steps of preference
_SCOUT = re.compile(r"scout|topogram|localizer|localiser|surview|scanogram", re.IGNORECASE)
_PROJECTION = frozenset({"MIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE"})
_PHASE = re.compile(r"4d|\d+ ?%|phase|respirat|gated", re.IGNORECASE)
_ATTENUATION = re.compile(r"(?<![a-z])(ctac|ac ?ct|nac|attenuation|wb ?ac|ac)(?![a-z])", re.IGNORECASE)
_ATTENUATION_THICKNESS = 5.0  # mm
_SOFTNESS = {"soft": 0, "unknown": 1, "sharp": 2}

Contrast: TypeAlias = Literal["any", "with", "without"]


@dataclass(frozen=True)
class Wanted:
    """What a study asks of a scan.

    Attributes:
        slices: fewest slices.
        coverage: shortest stack, mm; both lungs of an adult need about 250 mm.
        contrast: 'without' and 'with' prefer, and never refuse.
    """

    slices: int = 40
    coverage: float = 200.0
    contrast: Contrast = "any"


@dataclass(frozen=True)
class _Candidate:
    series: Series
    spacing: float
    slices: int


def choose_series(patient: PatientScans, wanted: Wanted | None = None) -> Choice:
    """The one series to be measured.

    Raises:
        CaseFault: when there is none; of several faults the one of the series that came closest.
    """
    wanted = wanted or Wanted()
    pool, reasons = _drawn_on(patient)
    fit: list[_Candidate] = []
    rejected: list[tuple[int, Rejection]] = []
    for series in pool:
        passed = 0
        try:
            for rule in _RULES:
                rule(series, wanted, patient)
                passed += 1
            fit.append(_candidate(series))
        except CaseFault as fault:
            rejected.append((passed, Rejection(series.name, fault.rule, fault.sentence)))
    if not fit:
        raise _none_left(patient, pool, rejected)
    fit.sort(key=lambda candidate: _rank(candidate, wanted))
    best = fit[0]
    reasons += [f"{best.series.name} was taken, {_describe(best)}", *best.series.notes]
    if patient.faults:
        rules = ", ".join(sorted({fault.rule for fault in patient.faults}))
        reasons.append(f"{len(patient.faults)} faults elsewhere in the patient's files did not matter: {rules}")
    if len(fit) > 1:
        reasons.append(f"{fit[1].series.name} was next: {_describe(fit[1])}")
    return Choice(best.series, tuple(reasons), tuple(rejection for _, rejection in rejected))


def _drawn_on(patient: PatientScans) -> tuple[list[Series], list[str]]:
    wanted = {uid for other in patient.others for uid in other.refers_to}
    drawn = [series for series in patient.series if series.uid and series.uid in wanted]
    if drawn and len(drawn) < len(patient.series):
        others = len(patient.series) - len(drawn)
        return drawn, [f"contours or masks were drawn on {len(drawn)} series, the other {others} were not considered"]
    return list(patient.series), []


def _none_left(patient: PatientScans, pool: list[Series], rejected: list[tuple[int, Rejection]]) -> CaseFault:
    if not rejected:
        if patient.faults:
            return patient.faults[0]
        return CaseFault("no-scan", "found no image of this patient, expected a chest CT")
    sizes = {series.name: len(series.headers) for series in pool}
    _, closest = max(rejected, key=lambda item: (item[0], sizes.get(item[1].series, 0)))
    if len(rejected) == 1:
        return CaseFault(closest.rule, closest.sentence)
    return CaseFault(closest.rule, f"none of {len(rejected)} series can be used; {closest.series}: {closest.sentence}")


# What a candidate must be, in the order of being looked at. Each raises CaseFault.
Rule: TypeAlias = Callable[[Series, Wanted, PatientScans], None]


def _is_ct(series: Series, wanted: Wanted, patient: PatientScans) -> None:
    for header in series.headers:
        if header.modality not in ("CT", "") or (not header.modality and header.sop_class not in CT_CLASSES):
            raise CaseFault("wrong-modality", f"found modality {header.modality or 'unknown'!s}, expected CT")
        if header.sop_class and header.sop_class not in CT_CLASSES:
            raise CaseFault("no-ct-image", "found another kind of object (SOPClassUID), expected CT Image Storage")


def _is_no_scout(series: Series, wanted: Wanted, patient: PatientScans) -> None:
    first = series.headers[0] if series.headers else None
    if first is None:
        return
    few = len(series.headers) < 5
    if SCOUT_TYPES & set(first.image_type) or (few and any(_SCOUT.search(text) for text in first.texts)):
        raise CaseFault("scout", "found a scout (localizer), expected a stack of axial slices")
    if _PROJECTION & set(first.image_type):
        raise CaseFault("projection-image", "found intensity projections, expected slices")


def _is_grey(series: Series, wanted: Wanted, patient: PatientScans) -> None:
    for header in series.headers:
        if header.samples not in (None, 1):
            raise CaseFault("colour-image", "found a colour image, expected one channel")
        if header.photometric and not header.photometric.startswith("MONOCHROME"):
            raise CaseFault("colour-image", f"found {header.photometric}, expected MONOCHROME2")
        if header.frames > 1:
            raise CaseFault("multi-frame-image", f"found {header.frames} frames in one file, expected one slice a file")


def _is_hounsfield(series: Series, wanted: Wanted, patient: PatientScans) -> None:
    headers = series.headers
    missing = sum(header.slope is None or header.intercept is None for header in headers)
    if missing:
        raise CaseFault(
            "no-rescale",
            f"found {missing} of {len(headers)} slices without RescaleSlope and RescaleIntercept, expected HU",
        )
    if any(header.slope == 0 for header in headers):
        raise CaseFault("no-rescale", "found a RescaleSlope of 0, expected HU")
    units = {header.rescale_type for header in headers} - {"", "HU", "US"}
    if units:
        raise CaseFault("no-hounsfield", f"found RescaleType {sorted(units)[0]}, expected HU")


def _is_stack(series: Series, wanted: Wanted, patient: PatientScans) -> None:
    if series.file is not None:
        file_stack(series.file)
        return
    if {header.path.parent for header in series.headers} & patient.damaged:
        raise CaseFault("unreadable-file", "found a file beside the slices that cannot be read, expected whole files")
    stack(series.headers)


def _is_axial(series: Series, wanted: Wanted, patient: PatientScans) -> None:
    if series.file is not None:
        degrees = file_stack(series.file).tilt
    else:
        degrees = max(tilt(header.orientation) for header in series.headers if header.orientation is not None)
    if degrees > LARGEST_TILT:
        raise CaseFault(
            "not-axial", f"found slices {degrees:.0f} degrees from axial, expected at most {LARGEST_TILT:g}"
        )


def _is_long_enough(series: Series, wanted: Wanted, patient: PatientScans) -> None:
    candidate = _candidate(series)
    coverage = candidate.slices * candidate.spacing
    if candidate.slices < wanted.slices:
        raise CaseFault("few-slices", f"found {candidate.slices} slices, expected at least {wanted.slices}")
    if coverage < wanted.coverage:
        raise CaseFault("short-scan", f"found {coverage:.0f} mm of the body, expected at least {wanted.coverage:g} mm")


_RULES: tuple[Rule, ...] = (_is_ct, _is_no_scout, _is_grey, _is_hounsfield, _is_stack, _is_axial, _is_long_enough)


def _candidate(series: Series) -> _Candidate:
    if series.file is not None:
        shape = file_stack(series.file)
        return _Candidate(series, shape.distance, shape.slices)
    whole = stack(series.headers)
    return _Candidate(series, whole.spacing[2], len(whole.headers))


def _rank(candidate: _Candidate, wanted: Wanted) -> tuple[object, ...]:
    series = candidate.series
    first: Header | None = series.headers[0] if series.headers else None
    thickness = _thickness(candidate)
    step = next((place for place, limit in enumerate(THIN) if thickness <= limit + 0.01), len(THIN))
    day = series.day if series.day is not None else 10**6
    given, _ = contrast(series.headers)
    return (
        _is_special(candidate),
        0 if wanted.contrast == "any" else _contrast_rank(given, wanted.contrast == "with"),
        step,
        _SOFTNESS[kernel_class(first.kernel)] if first else 1,
        round(thickness, 2),
        -candidate.slices,
        day,
        series.uid,
        str(series.files[0]),
    )


def _thickness(candidate: _Candidate) -> float:
    first = candidate.series.headers[0] if candidate.series.headers else None
    return max(candidate.spacing, (first.thickness if first else None) or 0.0)


def _contrast_rank(given: bool | None, wanted: bool) -> int:
    return 1 if given is None else 0 if given == wanted else 2


def _is_special(candidate: _Candidate) -> bool:
    """A phase of a 4-D scan, or the low-dose CT that corrects a PET: taken when there is nothing else."""
    series = candidate.series
    if not series.headers:
        return False
    first = series.headers[0]
    phase = bool(first.temporal) or bool(_PHASE.search(first.description))
    thick = _thickness(candidate) >= _ATTENUATION_THICKNESS - 0.01
    return phase or (thick and any(_ATTENUATION.search(text.replace("_", " ")) for text in first.texts))


def _describe(candidate: _Candidate) -> str:
    series = candidate.series
    words = [f"{candidate.slices} slices {candidate.spacing:.4g} mm apart"]
    if series.headers:
        given, evidence = contrast(series.headers)
        kind = kernel_class(series.headers[0].kernel)
        words.append(f"kernel {kind}")
        words.append({True: "with contrast", False: "without contrast", None: "contrast not known"}[given])
        words[-1] += f" ({evidence})" if evidence != "none" else ""
        words += ["a phase of a 4-D scan or an attenuation map"] if _is_special(candidate) else []
    return ", ".join(words)
