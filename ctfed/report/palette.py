"""Colours that readers with any colour vision can tell apart, on light and on dark ground.

A figure is drawn once, in its light colours, which are right wherever the SVG goes (print, a slide, another page). On a
dark screen the page's style sheet exchanges each colour for its partner.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shade:
    """One colour of a figure, as lower-case '#rrggbb', on a light and on a dark ground."""

    light: str
    dark: str


# Matplotlib writes no fill for pure black text, and what is not written cannot be exchanged: no shade is #000000.
INK = Shade("#1c2530", "#e8ebee")
MUTED = Shade("#56616c", "#a9b3bc")
GRID = Shade("#dde2e7", "#38424c")
SURFACE = Shade("#ffffff", "#1a2027")
BAND = Shade("#b9c3cd", "#54606c")

# Okabe and Ito's colours (blue, vermilion, green, purple), darkened or lightened to at least 3:1 on their ground.
SERIES = (
    Shade("#0072b2", "#62b8ee"),
    Shade("#c85400", "#ff9c52"),
    Shade("#00835f", "#3ed3a5"),
    Shade("#a8558a", "#e7a6cd"),
)
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "D", "s", "^")

ALL_SHADES = (INK, MUTED, GRID, SURFACE, BAND, *SERIES)


def series_style(index: int) -> tuple[str, str, str]:
    """Colour, line style and marker of the ``index``-th series: it differs from its neighbours in all three."""
    turn = index % len(SERIES)
    return SERIES[turn].light, DASHES[turn], MARKERS[turn]


def dark_mode_rules() -> str:
    """CSS that exchanges every light colour in a chart for its dark partner on a dark screen (never in print)."""
    rules = [
        f'  .chart [style*="{what}: {shade.light}"] {{ {what}: {shade.dark} !important; }}'
        for shade in ALL_SHADES
        for what in ("fill", "stroke")
    ]
    return "\n".join(["", "@media screen and (prefers-color-scheme: dark) {", *rules, "}", ""])
