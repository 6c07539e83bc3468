"""Values that a browser tells where the pointer rests on a figure: read off what was drawn, so they cannot differ.

A transparent circle lies on every point, a transparent rectangle on every bar; each has an SVG title, which browsers
show without any script. The same numbers, and those that cannot be pointed at, stand in the table of the figure.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

POINTS_PER_INCH = 72.0
REACH = 5.0  # points around the middle of a dot
MOST = 150  # of one line; of more, every n-th
GROUP = "values"


@dataclass(frozen=True)
class Value:
    """A place in the figure, in points from its top left corner, and what is said there."""

    x: float
    y: float
    width: float
    height: float
    text: str


def values_of(figure: Any) -> tuple[Value, ...]:
    """Of every named line and every bar that begins at zero. The figure has been laid out before."""
    return tuple(value for axes in figure.axes for value in (*_bars(figure, axes), *_points(figure, axes)))


def value_elements(values: Sequence[Value]) -> ElementTree.Element:
    """An SVG group with a shape and a title for each value; it draws nothing."""
    group = ElementTree.Element("g", {"class": GROUP, "fill": "none", "stroke": "none"})
    for value in values:
        if value.width:
            size = {"x": value.x, "y": value.y, "width": value.width, "height": value.height}
            shape = ElementTree.SubElement(group, "rect", {name: f"{number:.1f}" for name, number in size.items()})
        else:
            place = {"cx": f"{value.x:.1f}", "cy": f"{value.y:.1f}", "r": f"{REACH:g}"}
            shape = ElementTree.SubElement(group, "circle", place)
        ElementTree.SubElement(shape, "title").text = value.text
    return group


def svg_file(svg: Markup) -> str:
    """The figure as a file: with its size in points, and without shapes that nobody sees in a drawing program."""
    alone = re.sub(rf'<g class="{GROUP}".*?</g>', "", svg, flags=re.DOTALL)
    sized = re.sub(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', r'width="\1pt" height="\2pt" \g<0>', alone, count=1)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{sized}\n'


def _points(figure: Any, axes: Any) -> Iterator[Value]:
    for line in axes.lines:
        name = str(line.get_label())
        drawn = line.get_marker() not in ("None", "", None) or line.get_linestyle() not in ("None", "", " ")
        if name.startswith("_") or not drawn or line.get_transform() != axes.transData:
            continue
        points = [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]
        known = [(x, y) for x, y in points if x == x and y == y]
        (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
        inside = [(x, y) for x, y in known if left <= x <= right and low <= y <= high]
        for x, y in inside[:: -(-len(inside) // MOST) or 1]:
            place_x, place_y = _place(figure, axes, x, y)
            yield Value(place_x, place_y, 0.0, 0.0, f"{name}: {_said(axes, x, y)}")


def _bars(figure: Any, axes: Any) -> Iterator[Value]:
    for container in axes.containers:
        for bar in getattr(container, "patches", ()):
            lying = getattr(container, "orientation", "vertical") == "horizontal"
            if (bar.get_x() if lying else bar.get_y()) != 0:
                continue  # a band between two limits: its length is no value
            ends = [(bar.get_x(), bar.get_y()), (bar.get_x() + bar.get_width(), bar.get_y() + bar.get_height())]
            (x0, y0), (x1, y1) = (_place(figure, axes, *end) for end in ends)
            if lying:
                text = _said(axes, bar.get_width(), bar.get_y() + bar.get_height() / 2)
            else:
                text = _said(axes, bar.get_x() + bar.get_width() / 2, bar.get_height())
            yield Value(min(x0, x1), min(y0, y1), max(abs(x1 - x0), 1.0), max(abs(y1 - y0), 1.0), text)


def _place(figure: Any, axes: Any, x: float, y: float) -> tuple[float, float]:
    right, up = figure.transFigure.inverted().transform(axes.transData.transform((x, y)))
    width, height = (inches * POINTS_PER_INCH for inches in figure.get_size_inches())
    return float(right * width), float((1 - up) * height)


def _said(axes: Any, x: float, y: float) -> str:
    """'time (months) 6, survival probability 0.53'; 'Age: 0.21' where the axis has names in the place of numbers."""
    row = _named(axes.yaxis, y)
    if row:
        return f"{row}: {_short(x)}"
    # Of figures one above the other, the lowest alone has a label under its axis.
    across = next((label for other in axes.figure.axes if (label := other.get_xlabel())), "")
    up = ", ".join(part for part in (axes.get_title(loc="left"), axes.get_ylabel()) if part)
    parts = ((across, _named(axes.xaxis, x) or _short(x)), (up, _short(y)))
    text = ", ".join(f"{label} {value}".strip() for label, value in parts)
    return text.replace("\n", " ").replace(" (logarithmic axis)", "")


def _named(axis: Any, value: float) -> str:
    """The name at a tick near ``value``; '' on an axis of numbers."""
    labels = [(tick, label.get_text()) for tick, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)]
    near = [text for tick, text in labels if abs(tick - value) < 0.5]
    return near[0].replace("\n", " ").strip() if near and not re.fullmatch(r"[-\u2212+\d.,e %]*", near[0]) else ""


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "\u2212")
