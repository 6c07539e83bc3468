"""How far a run is, on stderr: one line that is rewritten on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

EVERY = 30.0  # seconds between plain lines


class Progress:
    """Counts patients and says how long the rest takes.

    The time left comes from the patients that were computed in this run; those from the cache take none.
    """

    def __init__(self, total: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._clock = clock
        self._begun = clock()
        self._said = -EVERY
        self._done = self._computed = self._aside = 0
        self._terminal = self._stream.isatty()

    def advance(self, *, computed: bool, set_aside: bool) -> None:
        """One patient more."""
        self._done += 1
        self._computed += computed
        self._aside += set_aside
        elapsed = self._clock() - self._begun
        last = self._done == self._total
        if not (self._terminal or last or elapsed - self._said >= EVERY):
            return
        self._said = elapsed
        if self._terminal:
            print(f"\r\033[K{self.line(elapsed)}", end="\n" if last else "", file=self._stream, flush=True)
        else:
            print(self.line(elapsed), file=self._stream, flush=True)

    def line(self, elapsed: float) -> str:
        """Where the run is, in words."""
        text = f"prepare: {self._done} of {self._total} patients"
        if self._aside:
            text += f", {self._aside} set aside"
        if self._done == self._total:
            return f"{text}, in {duration(elapsed)}"
        if self._computed:
            text += f", about {duration(elapsed / self._computed * (self._total - self._done))} left"
        return text


def duration(seconds: float) -> str:
    """'40 s', '12 min', '3.5 h' or '2.1 days'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
