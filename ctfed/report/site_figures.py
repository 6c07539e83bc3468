"""Figures of a site's report alone: calibration, net benefit, SHAP values of all patients and of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from ctfed.report import palette
from ctfed.report.drawing import canvas, label_text, wrapped_label

LABEL_WIDTH = 26
LOW, HIGH = palette.SERIES[0].light, palette.SERIES[1].light


@dataclass(frozen=True)
class Line:
    """A named line with points, and limits of each point where there are any."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()


def calibration_plot(key: str, title: str, alt: str, groups: Line | None, smooth: Line | None) -> Markup:
    """Observed against predicted risk: groups with their intervals, and the recalibrated line.

    Raises:
        ValueError: there is nothing to draw.
    """
    if groups is None and smooth is None:
        raise ValueError(f"figure {key!r}: nothing to draw")
    with canvas(key, 4.2, title, alt) as drawn:
        axes = drawn.figure.subplots()
        axes.plot([0, 1], [0, 1], color=palette.MUTED.light, linestyle=":", linewidth=1.2, label="predicted = observed")
        if smooth is not None:
            axes.plot(smooth.x, smooth.y, color=HIGH, linestyle="--", label=label_text(smooth.name))
        if groups is not None:
            if groups.lower:
                axes.vlines(groups.x, groups.lower, groups.upper, color=LOW, linewidth=1.4)
            axes.plot(groups.x, groups.y, "o", color=LOW, markersize=6, label=label_text(groups.name))
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_aspect("equal")
        axes.grid()
        axes.set_xlabel("predicted risk")
        axes.set_ylabel("observed risk")
        drawn.figure.legend(loc="outside upper left", ncols=2)
    return drawn.svg


def benefit_plot(key: str, title: str, alt: str, lines: Sequence[Line]) -> Markup:
    """Net benefit over the threshold probability; the first line is the model's, with its band.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not lines or not lines[0].x:
        raise ValueError(f"figure {key!r}: nothing to draw")
    with canvas(key, 3.4, title, alt) as drawn:
        axes = drawn.figure.subplots()
        for index, line in enumerate(lines):
            colour, dashes, _ = palette.series_style(index)
            if line.lower:
                axes.fill_between(line.x, line.lower, line.upper, color=colour, alpha=0.16, linewidth=0)
            axes.plot(line.x, line.y, color=colour, linestyle=dashes, label=label_text(line.name))
        highest = max(max(line.y) for line in lines)
        lowest = min(lines[0].y)
        # Treating everybody falls without limit; what lies far below the model says nothing.
        axes.set_ylim(min(-0.05, lowest - 0.05), max(highest, 0.05) * 1.1 + 0.01)
        axes.axhline(0, color=palette.MUTED.light, linewidth=1, linestyle=":")
        axes.grid(axis="y")
        axes.set_xlabel("threshold: the risk from which one would treat")
        axes.set_ylabel("net benefit")
        # Above the axes: with four lines there is no corner that they leave free.
        drawn.figure.legend(loc="outside upper left", ncols=2, handlelength=2.6)
    return drawn.svg


@dataclass(frozen=True)
class Swarm:
    """One feature's SHAP values, and where each patient's value lies between the lowest (0) and the highest (1)."""

    feature: str
    values: tuple[float, ...]
    place: tuple[float, ...]


def beeswarm_plot(key: str, title: str, alt: str, swarms: Sequence[Swarm]) -> Markup:
    """A row of dots for each feature: across, how far it moves a patient's score; colour and shape, its own value.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not swarms or not swarms[0].values:
        raise ValueError(f"figure {key!r}: nothing to draw")
    with canvas(key, 1.2 + 0.42 * len(swarms), title, alt) as drawn:
        axes = drawn.figure.subplots()
        axes.axvline(0, color=palette.MUTED.light, linewidth=1)
        for row, swarm in enumerate(swarms):
            values, place = np.array(swarm.values), np.array(swarm.place)
            heights = row + _spread(values)
            # Two shades and two shapes, so that neither colour vision nor paper loses the difference.
            for low, colour, marker in ((True, LOW, "o"), (False, HIGH, "D")):
                chosen = (place < 0.5) == low
                name = "value in the lower half of its range" if low else "value in the upper half"
                axes.plot(
                    *(values[chosen], heights[chosen], marker),
                    **{"color": colour, "markersize": 3.6, "alpha": 0.75, "label": name if row == 0 else None},
                )
        axes.set_yticks(range(len(swarms)), [wrapped_label(one.feature, LABEL_WIDTH) for one in swarms])
        axes.set_ylim(len(swarms) - 0.5, -0.5)
        axes.set_xlabel("SHAP value: change of the score (log hazard)")
        axes.grid(axis="x")
        drawn.figure.legend(loc="outside upper left", ncols=2)
    return drawn.svg


def _spread(values: Any) -> Any:
    """Heights in [-0.35, 0.35]: dots of nearly equal value stand above and below each other, in a fixed order."""
    heights = np.zeros(values.size)
    width = float(np.ptp(values))
    bins = np.zeros(values.size, dtype=int) if width == 0 else ((values - values.min()) / width * 60).astype(int)
    most = max(1, int(np.bincount(bins).max()) - 1)
    for one in np.unique(bins):
        rows = np.flatnonzero(bins == one)
        steps = np.arange(rows.size)
        signed = np.where(steps % 2 == 0, steps // 2, -(steps // 2 + 1))
        heights[rows] = signed / (most / 2 + 0.5) * 0.35 if rows.size > 1 else 0.0
    return heights


def parts_plot(key: str, title: str, alt: str, parts: Sequence[tuple[str, float]]) -> Markup:
    """Bars to the right for what raises a patient's risk, to the left for what lowers it.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not parts:
        raise ValueError(f"figure {key!r}: nothing to draw")
    with canvas(key, 0.9 + 0.32 * len(parts), title, alt) as drawn:
        axes = drawn.figure.subplots()
        heights = list(range(len(parts)))
        for height, (_, value) in zip(heights, parts, strict=True):
            raised = value >= 0
            axes.barh(height, value, height=0.62, color=HIGH if raised else LOW, hatch="" if raised else "//")
        axes.axvline(0, color=palette.MUTED.light, linewidth=1)
        axes.set_yticks(heights, [wrapped_label(name, LABEL_WIDTH) for name, _ in parts])
        axes.set_ylim(len(parts) - 0.5, -0.5)
        axes.set_xlabel("SHAP value: lowers (left, hatched) or raises (right) the score")
        axes.grid(axis="x")
    return drawn.svg


def bars_plot(key: str, title: str, alt: str, bars: Sequence[tuple[str, float]], axis: str) -> Markup:
    """Horizontal bars from 0.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not bars:
        raise ValueError(f"figure {key!r}: nothing to draw")
    with canvas(key, 0.9 + 0.32 * len(bars), title, alt) as drawn:
        axes = drawn.figure.subplots()
        heights = list(range(len(bars)))
        axes.barh(heights, [value for _, value in bars], height=0.62, color=LOW)
        axes.set_yticks(heights, [wrapped_label(name, LABEL_WIDTH) for name, _ in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel(axis)
        axes.grid(axis="x")
    return drawn.svg


@dataclass(frozen=True)
class Moved:
    """A feature's place before and after."""

    name: str
    before: float
    after: float


def moved_plot(key: str, title: str, alt: str, rows: Sequence[Moved]) -> Markup:
    """A row for each feature: where it was (round), where it is (diamond), and the way between.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not rows:
        raise ValueError(f"figure {key!r}: nothing to draw")
    with canvas(key, 1.2 + 0.42 * len(rows), title, alt) as drawn:
        axes = drawn.figure.subplots()
        heights = list(range(len(rows)))
        before, after = [row.before for row in rows], [row.after for row in rows]
        axes.axvline(0, color=palette.MUTED.light, linewidth=1)
        axes.hlines(heights, before, after, color=palette.BAND.light, linewidth=2)
        axes.plot(before, heights, "o", color=LOW, markersize=6, label="before")
        axes.plot(after, heights, "D", color=HIGH, markersize=6, label="after")
        axes.set_yticks(heights, [wrapped_label(row.name, LABEL_WIDTH) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("difference to the pooled mean (pooled SD)")
        axes.grid(axis="x")
        drawn.figure.legend(loc="outside upper left", ncols=2)
    return drawn.svg


def diagonal_plot(key: str, title: str, alt: str, before: Sequence[float], after: Sequence[float]) -> Markup:
    """Distances after against before; what lies above the diagonal grew, and has another colour and shape.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not before:
        raise ValueError(f"figure {key!r}: nothing to draw")
    with canvas(key, 4.2, title, alt) as drawn:
        axes = drawn.figure.subplots()
        x, y = np.array(before), np.array(after)
        top = max(float(x.max()), float(y.max()), 0.1) * 1.06
        axes.plot([0, top], [0, top], color=palette.MUTED.light, linestyle=":", linewidth=1.2)
        for grown, colour, marker, name in ((False, LOW, "o", "nearer or as before"), (True, HIGH, "D", "farther")):
            chosen = (y > x + 1e-9) == grown
            axes.plot(x[chosen], y[chosen], marker, color=colour, markersize=4.5, alpha=0.8, label=name)
        axes.set_xlim(-0.02 * top, top)
        axes.set_ylim(-0.02 * top, top)
        axes.set_aspect("equal")
        axes.grid()
        axes.set_xlabel("distance before (pooled SD)")
        axes.set_ylabel("distance after (pooled SD)")
        drawn.figure.legend(loc="outside upper left", ncols=2)
    return drawn.svg
