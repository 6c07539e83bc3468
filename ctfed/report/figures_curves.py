"""Curves over time: Kaplan-Meier by risk group with numbers at risk, and predicted survival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ctfed.report import palette
from ctfed.report.drawing import canvas, label_text, thinned

MOST_TICKS = 8
LONGEST_NAME = 16


@dataclass(frozen=True)
class Curve:
    """A step function of time and what stands beside it.

    Args:
        name: of the group.
        time: (points,) in the study's unit, ascending.
        survival: (points,) the probability from each time until the next.
        lower: (points,) lower limits of the band, or empty.
        upper: (points,) upper limits of the band, or empty.
        at_risk: pairs of a time and how many are at risk then; None where the number is withheld.
    """

    name: str
    time: tuple[float, ...]
    survival: tuple[float, ...]
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()
    at_risk: tuple[tuple[float, int | None], ...] = ()


def survival_plot(key: str, title: str, alt: str, curves: Sequence[Curve], axis: str, value: str) -> Markup:
    """Step curves with their bands; under the axis, at its ticks, the numbers at risk when the curves have them.

    Args:
        key: unique on the page.
        title: name for a screen reader.
        alt: description for a screen reader.
        curves: at least one, each with at least one point.
        axis: label of the time axis, with its unit.
        value: label of the vertical axis.

    Raises:
        ValueError: there is nothing to draw, or a band has another length than its curve.
    """
    _check(key, curves)
    with_table = any(curve.at_risk for curve in curves)
    table_height = 0.45 + 0.22 * len(curves) if with_table else 0.0
    with canvas(key, 3.3 + table_height, title, alt) as drawn:
        if with_table:
            axes, below = drawn.figure.subplots(2, 1, height_ratios=[3.3, table_height], sharex=True)
        else:
            axes, below = drawn.figure.subplots(), None
        for index, curve in enumerate(curves):
            _draw_curve(axes, index, curve)
        end = max(curve.time[-1] for curve in curves)
        if below is not None:
            ticks = _at_risk_ticks(curves)
            end = max(end, ticks[-1])
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            _draw_at_risk(below, curves, ticks)
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_xlim(-0.02 * end, 1.03 * end)
        axes.set_ylim(0, 1.02)
        axes.grid(axis="y")
        axes.set_xlabel(axis)
        axes.set_ylabel(value)
        if len(curves) > 1:
            axes.legend(loc="upper right", handlelength=2.6)
    return drawn.svg


def _check(key: str, curves: Sequence[Curve]) -> None:
    if not curves or not all(curve.time for curve in curves):
        raise ValueError(f"figure {key!r}: a curve without points cannot be drawn")
    for curve in curves:
        lengths = {len(curve.survival), len(curve.lower) or len(curve.time), len(curve.upper) or len(curve.time)}
        if lengths != {len(curve.time)} or bool(curve.lower) != bool(curve.upper):
            raise ValueError(f"figure {key!r}: curve {curve.name!r} has columns of different lengths")


def _draw_curve(axes: Any, index: int, curve: Curve) -> None:
    colour, dashes, _ = palette.series_style(index)
    # A survival curve begins at time 0 with everybody alive, even when the grid of the totals begins later.
    early = curve.time[0] > 0
    time = (0.0, *curve.time) if early else curve.time
    if curve.lower:
        lower = (1.0, *curve.lower) if early else curve.lower
        upper = (1.0, *curve.upper) if early else curve.upper
        axes.fill_between(time, lower, upper, step="post", color=colour, alpha=0.16, linewidth=0)
    survival = (1.0, *curve.survival) if early else curve.survival
    axes.step(time, survival, where="post", color=colour, linestyle=dashes, label=label_text(curve.name, 28))


def _at_risk_ticks(curves: Sequence[Curve]) -> list[float]:
    times = sorted({time for curve in curves for time, _ in curve.at_risk})
    return thinned(times, MOST_TICKS)


def _draw_at_risk(axes: Any, curves: Sequence[Curve], ticks: Sequence[float]) -> None:
    """The table of numbers at risk: its columns share the time axis above, so each number stands under its tick."""
    for index, curve in enumerate(curves):
        counts = dict(curve.at_risk)
        for tick in ticks:
            count = counts.get(tick)
            axes.text(tick, index, "–" if count is None else f"{count:,}", ha="center", va="center", fontsize=9.5)
    axes.set_yticks(range(len(curves)), [label_text(curve.name, LONGEST_NAME) for curve in curves])
    for index, label in enumerate(axes.get_yticklabels()):
        label.set_color(palette.series_style(index)[0])
    axes.set_ylim(len(curves) - 0.4, -0.6)
    axes.set_title("Number at risk", loc="left", fontsize=9.5, color=palette.MUTED.light, pad=3)
    # The first number stands at time 0, centred on the axis: the names must leave it room.
    axes.tick_params(axis="both", length=0, labelbottom=False)
    axes.tick_params(axis="y", pad=12)
    for spine in axes.spines.values():
        spine.set_visible(False)
