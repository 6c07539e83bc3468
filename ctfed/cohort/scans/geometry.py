"""Where the slices of a series lie: sorted along the normal of the image plane, and refused by name when they are no
regular stack. InstanceNumber and SliceLocation are never used: both lie in practice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans.model import Header, Triple

FloatArray = npt.NDArray[np.float64]
T = TypeVar("T")

ORTHONORMAL = 1e-3  # of the cosines of a slice
SAME_COSINES = 1e-3  # of two slices of one stack: over a width of 500 mm, half a millimetre
SAME_SPACING = 1e-4  # relative, of two slices' pixels
UNEVEN = 0.01  # largest deviation of a distance of slices from the median, relative
REPEATED = 0.01  # two slices closer than this part of the median distance lie in the same place
STRAIGHT = 0.5  # pixels by which slices may be shifted in their plane before the stack counts as sheared


@dataclass(frozen=True)
class Stack:
    """Slices in order, with the grid of the volume that they make (spacing and origin in mm as in Volume)."""

    headers: tuple[Header, ...]
    spacing: Triple
    origin: Triple
    direction: tuple[float, ...]

    @property
    def coverage(self) -> float:
        """mm from the first to the last slice's outer face, of slices as thick as their distance."""
        return self.spacing[2] * len(self.headers)


def normal(orientation: Sequence[float]) -> FloatArray:
    """(3,) unit normal of an image plane, right-handed with its row and column directions."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    cross = np.cross(row, column)
    length = float(np.linalg.norm(cross))
    return np.asarray(cross / length if length > 0 else cross)


def plane(orientation: Sequence[float] | None) -> str:
    """'axial', 'coronal' or 'sagittal', whichever is nearest; 'unknown' without an orientation."""
    if orientation is None:
        return "unknown"
    return ("sagittal", "coronal", "axial")[int(np.abs(normal(orientation)).argmax())]


def tilt(orientation: Sequence[float]) -> float:
    """Degrees between the image plane and the patient's axial plane."""
    return float(np.degrees(np.arccos(min(1.0, abs(float(normal(orientation)[2]))))))


def stack(headers: Sequence[Header]) -> Stack:
    """The slices of one series as a regular stack.

    Raises:
        CaseFault: no-position, no-orientation, no-pixel-spacing, no-matrix, orientation-not-orthonormal,
            mixed-orientations, mixed-matrix, mixed-pixel-spacing, mixed-frames-of-reference, one-slice,
            duplicate-slices, missing-slices, uneven-slices, gantry-tilt, slices-not-aligned.
    """
    _complete(headers)
    first = headers[0]
    orientation = first.orientation or ()
    _uniform(headers)
    if len(headers) == 1:
        raise CaseFault("one-slice", "found one slice, expected a volume")
    axis = normal(orientation)
    positions = np.array([header.position for header in headers], dtype=np.float64)
    along = positions @ axis
    order = np.argsort(along, kind="stable")
    distance = _distance(along[order])
    _straight(positions[order], along[order], axis, min(first.spacing or (1.0, 1.0)))
    row, column = _unit(orientation[:3]), np.array(orientation[3:])
    column = _unit(column - row * float(row @ column))
    rows_apart, columns_apart = first.spacing or (1.0, 1.0)
    x, y, z = positions[order[0]]
    return Stack(
        headers=tuple(headers[i] for i in order),
        spacing=(columns_apart, rows_apart, distance),
        origin=(float(x), float(y), float(z)),
        direction=tuple(float(v) for v in np.stack([row, column, np.cross(row, column)], axis=1).reshape(-1)),
    )


def _unit(vector: npt.ArrayLike) -> FloatArray:
    array = np.asarray(vector, dtype=np.float64)
    return np.asarray(array / np.linalg.norm(array))


def _complete(headers: Sequence[Header]) -> None:
    """Every slice says where it is."""
    for rule, what, missing in (
        ("no-position", "ImagePositionPatient of three numbers", [h.position is None for h in headers]),
        ("no-orientation", "ImageOrientationPatient of six numbers", [h.orientation is None for h in headers]),
        (
            "no-pixel-spacing",
            "PixelSpacing of two positive numbers",
            [h.spacing is None or min(h.spacing) <= 0 for h in headers],
        ),
        ("no-matrix", "Rows and Columns above 0", [not h.rows or not h.columns for h in headers]),
    ):
        if any(missing):
            raise CaseFault(rule, f"found {sum(missing)} of {len(headers)} slices without {what}, expected it in all")
    for header in headers:
        cosines = np.array(header.orientation).reshape(2, 3)
        if np.abs(cosines @ cosines.T - np.eye(2)).max() > ORTHONORMAL:
            raise CaseFault(
                "orientation-not-orthonormal",
                "found directions of rows and columns that are not perpendicular and of length 1, expected cosines",
            )


def _uniform(headers: Sequence[Header]) -> None:
    """All slices share plane, matrix, pixel size and frame of reference."""
    cosines = np.array([header.orientation for header in headers])
    spread = float(np.abs(cosines - cosines[0]).max())
    if spread > SAME_COSINES:
        raise CaseFault(
            "mixed-orientations", f"found slices whose cosines differ by {spread:.3g}, expected parallel slices"
        )
    matrices = _distinct((header.rows, header.columns) for header in headers)
    if len(matrices) > 1:
        found = " and ".join(f"{rows} x {columns}" for rows, columns in matrices[:3])
        raise CaseFault("mixed-matrix", f"found slices of {found} pixels, expected one size")
    spacing = np.array([header.spacing for header in headers])
    if np.abs(spacing / spacing[0] - 1.0).max() > SAME_SPACING:
        raise CaseFault(
            "mixed-pixel-spacing",
            f"found pixels of {spacing.min():.4g} to {spacing.max():.4g} mm in one series, expected one size",
        )
    frames = _distinct(header.frame_uid for header in headers)
    if len(frames) > 1:
        raise CaseFault(
            "mixed-frames-of-reference", f"found {len(frames)} frames of reference in one series, expected one"
        )


def _distinct(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def _distance(along: FloatArray) -> float:
    """mm between slices at sorted places along the normal."""
    steps = np.diff(along)
    typical = float(np.median(steps))
    longest = float(steps.max())
    repeated = int((steps <= REPEATED * longest).sum())
    if repeated:
        raise CaseFault(
            "duplicate-slices", f"found {repeated} slices in the place of another one, expected one slice a place"
        )
    deviation = np.abs(steps / typical - 1.0)
    if deviation.max() > UNEVEN:
        lost = np.round(steps / typical)
        gaps = (lost >= 2) & (np.abs(steps / typical - lost) <= 0.1)
        if gaps.any() and (deviation[~gaps] <= UNEVEN).all():
            raise CaseFault(
                "missing-slices",
                f"found {int(gaps.sum())} gaps in slices of {typical:.4g} mm, {int((lost[gaps] - 1).sum())} lost "
                "slices, expected none",
            )
        raise CaseFault(
            "uneven-slices",
            f"found distances of slices from {steps.min():.4g} to {longest:.4g} mm, expected equal ones within 1 %",
        )
    return float((along[-1] - along[0]) / steps.size)


def _straight(positions: FloatArray, along: FloatArray, axis: FloatArray, pixel: float) -> None:
    """Slices lie behind one another along the normal."""
    aside = positions - positions[0] - np.outer(along - along[0], axis)
    shift = np.linalg.norm(aside, axis=1)
    if shift.max() <= STRAIGHT * pixel:
        return
    reached = along[-1] - along[0]
    slope = aside[-1] / reached
    bent = np.linalg.norm(aside - np.outer(along - along[0], slope), axis=1)
    if bent.max() <= STRAIGHT * pixel:
        degrees = float(np.degrees(np.arctan(np.linalg.norm(slope))))
        raise CaseFault(
            "gantry-tilt", f"found a stack sheared by {degrees:.3g} degrees, expected slices perpendicular to the stack"
        )
    raise CaseFault(
        "slices-not-aligned",
        f"found slices shifted in their plane by up to {shift.max():.3g} mm, expected slices behind one another",
    )
