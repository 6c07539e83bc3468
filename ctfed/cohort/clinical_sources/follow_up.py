"""From dates, relative numbers or stated times to follow-up in days and the event. Nothing missing is guessed."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass

import numpy as np

from ctfed.cohort.cells import Cells
from ctfed.cohort.clinical_sources.dictionary import FollowUp, Moment
from ctfed.cohort.faults import CaseFault
from ctfed.config import shown
from ctfed.federation.arrays import BoolArray, FloatArray
from ctfed.study import converted

LONGEST = 36525.0  # days; a hundred years are a mistyped year


@dataclass(frozen=True)
class Moments:
    """A column of moments, (n,) each: days since a zero that all share (NaN where missing), and impossible dates."""

    days: FloatArray
    impossible: BoolArray


@dataclass(frozen=True)
class FollowUpColumns:
    """What the follow-up rests on, (n,) each; None for what the centre does not state."""

    event: FloatArray | None
    time: FloatArray | None
    start: Moments | None
    last_contact: Moments | None
    death: Moments | None

    def of(self, row: int) -> tuple[float, int]:
        """Follow-up in days (> 0) and the event (1 observed, 0 not) of one row.

        Raises:
            CaseFault: when something is missing, impossible or contradictory.
        """
        if any(moments.impossible[row] for moments in (self.start, self.last_contact, self.death) if moments):
            raise CaseFault("date-impossible", "found a date that is not in the calendar or the format, expected one")
        days, event = self._stated(row) if self.time is not None else self._between(row)
        if days < 0:
            raise CaseFault("follow-up-negative", "found an end of follow-up before its start, expected it after")
        if days == 0:
            raise CaseFault("follow-up-zero", "found a follow-up of zero, expected more than none")
        if days > LONGEST:
            raise CaseFault("follow-up-too-long", "found a follow-up of more than 100 years, expected less")
        return days, event

    def _stated(self, row: int) -> tuple[float, int]:
        event = _event(self.event, row)
        if event is None:
            raise CaseFault("event-missing", "found no event status, expected whether the event was observed")
        days = _at(self.time, row)
        if days is None:
            raise CaseFault("follow-up-missing", "found no follow-up time, expected one")
        return days, event

    def _between(self, row: int) -> tuple[float, int]:
        contact = _day(self.last_contact, row)
        death = _day(self.death, row)
        event = _event(self.event, row) if self.event is not None else int(death is not None)
        if event is None:
            raise CaseFault("event-missing", "found no event status, expected whether the event was observed")
        if not event and death is not None:
            raise CaseFault("event-contradicts-death", "found a date of death without the event, expected both")
        if event and self.death is not None and death is None:
            raise CaseFault("death-date-missing", "found the event without its date, expected the date of death")
        if death is not None and contact is not None and contact > death:
            raise CaseFault("contact-after-death", "found a last contact after death, expected it before")
        end = death if death is not None else contact
        if end is None:
            raise CaseFault("follow-up-missing", "found no last contact and no death, expected an end of follow-up")
        start = 0.0 if self.start is None else _day(self.start, row)
        if start is None:
            raise CaseFault("baseline-missing", "found no baseline date, expected the start of follow-up")
        return end - start, event


def read_follow_up(cells: Cells, follow_up: FollowUp) -> FollowUpColumns:
    """The columns of the follow-up; cells that no dictionary explains are noted in ``cells.faults``."""
    event = follow_up.event
    times = follow_up.time
    return FollowUpColumns(
        event=None
        if event is None
        else cells.coded(event.column, event.codes, f"{_codes(event.codes)} as in source.follow_up.event.codes"),
        time=None if times is None else converted(cells.numbers(times.column), times.unit, "days"),
        start=_moments(cells, follow_up.start),
        last_contact=_moments(cells, follow_up.last_contact),
        death=_moments(cells, follow_up.death),
    )


def _codes(codes: object) -> str:
    return " or ".join(repr(code) for code in codes) if isinstance(codes, dict) else "a code"


def _event(events: FloatArray | None, row: int) -> int | None:
    value = _at(events, row)
    return None if value is None else int(value)


def _day(moments: Moments | None, row: int) -> float | None:
    return None if moments is None else _at(moments.days, row)


def _at(values: FloatArray | None, row: int) -> float | None:
    return None if values is None or math.isnan(values[row]) else float(values[row])


def _moments(cells: Cells, moment: Moment | None) -> Moments | None:
    if moment is None:
        return None
    if moment.unit is not None:
        days = converted(cells.numbers(moment.column), moment.unit, "days")
        return Moments(days, np.zeros(days.size, dtype=bool))
    return _dates(cells, moment.column, str(moment.format))


def _dates(cells: Cells, column: str, pattern: str) -> Moments:
    """Days of the calendar. One wrong date is its patient's fault; a column without a right one is the format's."""
    texts = cells.text(column) or [None] * len(cells.table.rows)
    days = np.full(len(texts), math.nan)
    impossible = np.zeros(len(texts), dtype=bool)
    for row, text in enumerate(texts):
        if text is None:
            continue
        try:
            days[row] = datetime.datetime.strptime(text, pattern).toordinal()
        except ValueError:
            impossible[row] = True
    if impossible.any() and np.isnan(days).all():
        first = texts[int(np.flatnonzero(impossible)[0])]
        found = f"found {shown(first)} and no date of the format in any row"
        cells.faults.append(f"{cells.table.origin}: column {column!r}: {found}, expected dates such as {pattern}")
    return Moments(days, impossible)
