"""What travelled: bytes of each round, up from a site and down to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ctfed.report import palette
from ctfed.report.drawing import canvas

# More bars than this are thinner than a pixel of a phone; the outline of the bars remains readable.
MOST_BARS = 60


@dataclass(frozen=True)
class Traffic:
    """One round's bytes of one site."""

    round: int
    bytes_up: float
    bytes_down: float


def traffic_plot(key: str, title: str, alt: str, rounds: Sequence[Traffic]) -> Markup:
    """Two panels over one axis of rounds: what a site sent, and what it was sent.

    Args:
        key: unique on the page.
        title: name for a screen reader.
        alt: description for a screen reader.
        rounds: at least one.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not rounds:
        raise ValueError(f"figure {key!r}: no round to draw")
    numbers = [entry.round for entry in rounds]
    sent, received = [entry.bytes_up for entry in rounds], [entry.bytes_down for entry in rounds]
    divisor, unit = _unit(max(*sent, *received))
    with canvas(key, 3.6, title, alt) as drawn:
        upper, lower = drawn.figure.subplots(2, 1, sharex=True)
        panels = ((upper, sent, "sent by the site", 0), (lower, received, "received by the site", 1))
        for axes, values, name, index in panels:
            _draw_bars(axes, numbers, [value / divisor for value in values], palette.SERIES[index].light)
            axes.set_title(name, loc="left", fontsize=10)
            axes.set_ylabel(unit)
            axes.set_ylim(bottom=0)
            axes.grid(axis="y")
            axes.locator_params(axis="y", nbins=4)
        lower.set_xlabel("round")
        lower.set_xlim(min(numbers) - 0.75, max(numbers) + 0.75)
        lower.xaxis.get_major_locator().set_params(integer=True)
    return drawn.svg


def _draw_bars(axes: Any, numbers: Sequence[int], values: Sequence[float], colour: str) -> None:
    if len(numbers) <= MOST_BARS:
        axes.bar(numbers, values, width=0.8, color=colour)
        return
    axes.fill_between(numbers, values, step="mid", color=colour, linewidth=0.6, edgecolor=colour)


def _unit(largest: float) -> tuple[float, str]:
    for divisor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if largest >= divisor:
            return divisor, unit
    return 1.0, "bytes"
