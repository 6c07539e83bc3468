"""From headers to series: which slices belong together.

A SeriesInstanceUID is taken apart only where that is certain: by SOP class, by plane (scouts and reformats are sent
inside axial series), and by acquisition or phase when places repeat. What then is no regular stack is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ctfed.cohort.scans.geometry import plane
from ctfed.cohort.scans.model import Header, Series

SCOUT_TYPES = frozenset({"LOCALIZER", "SCOUT"})
_BY_TIME: tuple[tuple[str, Callable[[Header], str]], ...] = (
    ("AcquisitionNumber", lambda header: header.acquisition),
    ("TemporalPositionIdentifier", lambda header: header.temporal),
)


def group(headers: Iterable[Header]) -> tuple[Series, ...]:
    """Series in the order of their date, first file and part; labelled 'series 1', 'series 2' ..."""
    of_uid: dict[str, list[Header]] = {}
    for header in headers:
        # Without a SeriesInstanceUID the folder is the only thing that tells series apart.
        of_uid.setdefault(header.series_uid or f"folder {header.path.parent}", []).append(header)
    found: list[tuple[list[Header], tuple[str, ...]]] = []
    for members in of_uid.values():
        kept, notes = _without_copies(sorted(members, key=lambda header: str(header.path)))
        parts = [part for by_plane in _split(kept, _kind).values() for part in _by_time(by_plane)]
        if len(parts) > 1:
            notes += (f"its SeriesInstanceUID holds {len(parts)} stacks, which were taken apart",)
        found += [(part, notes) for part in parts]
    found.sort(key=lambda item: (str(item[0][0].date or "9"), str(item[0][0].path)))
    start = min((part[0].date for part, _ in found if part[0].date), default=None)
    return tuple(
        Series(
            label=f"series {number}",
            headers=tuple(part),
            day=(part[0].date - start).days if part[0].date and start else None,
            notes=notes,
        )
        for number, (part, notes) in enumerate(found, start=1)
    )


def _split(headers: Sequence[Header], key: Callable[[Header], object]) -> dict[object, list[Header]]:
    parts: dict[object, list[Header]] = {}
    for header in headers:
        parts.setdefault(key(header), []).append(header)
    return parts


def _kind(header: Header) -> tuple[str, str, bool]:
    return header.sop_class, plane(header.orientation), bool(SCOUT_TYPES & set(header.image_type))


def _by_time(headers: list[Header]) -> list[list[Header]]:
    """The slices by acquisition or phase, when places repeat and one of the two makes them unique."""
    if not _places_repeat(headers):
        return [headers]
    for _, key in _BY_TIME:
        parts = list(_split(headers, key).values())
        if len(parts) > 1 and not any(_places_repeat(part) for part in parts):
            return parts
    return [headers]


def _places_repeat(headers: Sequence[Header]) -> bool:
    places = [header.position for header in headers if header.position is not None]
    return len(set(places)) < len(places)


def _without_copies(headers: list[Header]) -> tuple[list[Header], tuple[str, ...]]:
    """One file per SOP instance; a second file is dropped only when it is the first one byte by byte."""
    kept: list[Header] = []
    known: dict[str, Header] = {}
    copies = 0
    for header in headers:
        first = known.get(header.sop_uid) if header.sop_uid else None
        if first is not None and _same_bytes(first, header):
            copies += 1
            continue
        known.setdefault(header.sop_uid, header)
        kept.append(header)
    return kept, ((f"{copies} files that are copies of others were left out",) if copies else ())


def _same_bytes(one: Header, other: Header) -> bool:
    try:
        return one.path.read_bytes() == other.path.read_bytes()
    except OSError:  # unreadable by now: keep both, and let the reading of pixels name it
        return False
