"""Dots and intervals: the forest plot of hazard ratios, the plot of C and AUC, and whatever else is an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ctfed.report import palette
from ctfed.report.drawing import canvas, label_text, ratio_ticks, wrapped_label

LABEL_WIDTH = 26  # characters of one line
# A hazard ratio of a nearly separated fit may be 1e9; the axis ends here and an arrow says that the interval goes on.
RATIO_LIMITS = (1 / 32, 32.0)


@dataclass(frozen=True)
class Effect:
    """An estimate with its interval, if it has one, and wider bounds drawn as a band behind it, if it has such."""

    label: str
    value: float
    lower: float | None = None
    upper: float | None = None
    bound_lower: float | None = None
    bound_upper: float | None = None


@dataclass(frozen=True)
class Series:
    """Estimates of one kind, for instance those of one fit."""

    name: str
    effects: tuple[Effect, ...]


def effect_plot(
    key: str, title: str, alt: str, series: Sequence[Series], axis: str, reference: float, ratio: bool
) -> Markup:
    """One row for each label, in the order of first appearance; several series stand one under the other in a row.

    Args:
        key: unique on the page.
        title: name for a screen reader.
        alt: description for a screen reader.
        series: at least one effect in all; ratios must be positive.
        axis: label of the horizontal axis.
        reference: where 'no effect' is; a vertical line.
        ratio: logarithmic axis.

    Raises:
        ValueError: there is nothing to draw.
    """
    labels = list(dict.fromkeys(effect.label for group in series for effect in group.effects))
    if not labels:
        raise ValueError(f"figure {key!r}: no estimate to draw")
    written = [wrapped_label(label, LABEL_WIDTH) for label in labels]
    spread = 0.44 if len(series) > 1 or any("\n" in label for label in written) else 0.34
    with canvas(key, 1.0 + 0.3 * (len(series) > 1) + spread * len(labels), title, alt) as drawn:
        axes = drawn.figure.subplots()
        low, high = _limits(series, reference, ratio)
        axes.axvline(reference, color=palette.MUTED.light, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        shared = len(labels) < sum(len(group.effects) for group in series)
        for index, group in enumerate(series):
            offset = (index / (len(series) - 1) - 0.5) * 0.42 if shared else 0.0
            _draw_series(axes, index, group, [labels.index(e.label) + offset for e in group.effects], (low, high))
        axes.set_yticks(range(len(labels)), written)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0, pad=9)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        beyond = any(_is_beyond(end, (low, high)) for group in series for e in group.effects for end in _ends(e))
        axes.set_xlabel(f"{axis} (arrow: beyond this axis)" if beyond else axis)
        _scale(axes, low, high, ratio)
        if len(series) > 1:
            drawn.figure.legend(loc="outside upper left", ncols=len(series), handletextpad=0.4, columnspacing=1.4)
    return drawn.svg


def _limits(series: Sequence[Series], reference: float, ratio: bool) -> tuple[float, float]:
    """The range of the axis: everything drawn and the reference, with a margin."""
    values = [reference]
    for group in series:
        for effect in group.effects:
            values.extend(_ends(effect))
    low, high = min(values), max(values)
    if ratio:
        low, high = max(low, RATIO_LIMITS[0]), min(high, RATIO_LIMITS[1])
        margin = max((high / low) ** 0.05, 1.05)
        return low / margin, high * margin
    margin = max(0.05 * (high - low), 0.02)
    return low - margin, high + margin


def _ends(effect: Effect) -> list[float]:
    ends = (effect.value, effect.lower, effect.upper, effect.bound_lower, effect.bound_upper)
    return [end for end in ends if end is not None]


def _is_beyond(value: float, limits: tuple[float, float]) -> bool:
    return not limits[0] <= value <= limits[1]


def _draw_series(axes: Any, index: int, group: Series, heights: Sequence[float], limits: tuple[float, float]) -> None:
    colour, _, marker = palette.series_style(index)
    low, high = limits
    for effect, height in zip(group.effects, heights, strict=True):
        if effect.bound_lower is not None and effect.bound_upper is not None:
            band = (effect.bound_upper - effect.bound_lower,)
            axes.barh(height, band, left=effect.bound_lower, height=0.5, color=palette.BAND.light, zorder=1.5)
        if effect.lower is not None and effect.upper is not None:
            shown = [max(effect.lower, low), min(effect.upper, high)]
            axes.plot(shown, [height, height], color=colour, linewidth=1.6, zorder=2)
        if min(_ends(effect)) < low:
            axes.plot([low], [height], "<", color=colour, markersize=6, clip_on=False, zorder=2)
        if max(_ends(effect)) > high:
            axes.plot([high], [height], ">", color=colour, markersize=6, clip_on=False, zorder=2)
    placed = zip(group.effects, heights, strict=True)
    inside = [(effect.value, height) for effect, height in placed if not _is_beyond(effect.value, limits)]
    axes.plot(
        [value for value, _ in inside],
        [height for _, height in inside],
        linestyle="none",
        marker=marker,
        markersize=6.5,
        color=colour,
        markeredgecolor=palette.SURFACE.light,
        markeredgewidth=0.8,
        label=label_text(group.name),
        zorder=3,
    )


def _scale(axes: Any, low: float, high: float, ratio: bool) -> None:
    if ratio:
        axes.set_xscale("log")
        ticks = ratio_ticks(low, high)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
