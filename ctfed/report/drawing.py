"""From a matplotlib figure to SVG text that may stand in a page: the same input gives the same bytes."""

from __future__ import annotations

import io
import math
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import matplotlib.style
from markupsafe import Markup
from matplotlib.figure import Figure

from ctfed.report import palette
from ctfed.report.drawing_values import Value, value_elements, values_of

WIDTH = 5.6  # inches; text of 10 points stays readable when the figure is shown 350 pixels wide on a phone
SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"

_STYLE: dict[str, Any] = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.family": "sans-serif",
    # Text stays text: it can be read aloud, searched and copied. DejaVu, which measures it, is wider than the fonts
    # that browsers put in its place, so what does not overlap here does not overlap there.
    "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",
    "pdf.fonttype": 42,  # TrueType: journals refuse matplotlib's Type 3
    "text.parse_math": False,  # a feature may have a dollar sign in its name
    "font.size": 10.0,
    "axes.labelsize": 10.0,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "text.color": palette.INK.light,
    "axes.labelcolor": palette.INK.light,
    "axes.edgecolor": palette.MUTED.light,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "xtick.color": palette.MUTED.light,
    "ytick.color": palette.MUTED.light,
    "xtick.labelcolor": palette.INK.light,
    "ytick.labelcolor": palette.INK.light,
    "grid.color": palette.GRID.light,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    # Also for what a figure does not colour itself: every colour must have its partner for a dark screen.
    "axes.prop_cycle": f"cycler('color', {[shade.light for shade in palette.SERIES]})",
    "axes.unicode_minus": True,
}


PAPER_DPI = 300


Files = dict[str, bytes]
_kept: ContextVar[tuple[Files, Files | None] | None] = ContextVar("kept", default=None)


@contextmanager
def keeping_pictures(pictures: Files, vector: Files | None = None) -> Iterator[None]:
    """Inside the block every figure also leaves files for a paper under its key.

    Args:
        pictures: receives a PNG of each figure: 300 dpi, white ground.
        vector: receives a PDF of each figure, with its fonts in it; None makes no PDF.
    """
    token = _kept.set((pictures, vector))
    try:
        yield
    finally:
        _kept.reset(token)


@contextmanager
def canvas(key: str, height: float, title: str, alt: str) -> Iterator[Canvas]:
    """A figure to draw on; after the block its ``svg`` is ready.

    Args:
        key: short name of letters, digits and dashes, unique on the page; every id in the SVG begins with it.
        height: inches; the width is WIDTH.
        title: the figure's name for a screen reader.
        alt: what the figure shows, in a sentence or two.

    Raises:
        ValueError: ``key`` has other characters.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]*", key):
        raise ValueError(f"figure key {key!r}: expected lower-case letters, digits and dashes")
    # 'default' first: a matplotlibrc on this machine must not change the report.
    with matplotlib.style.context(["default", {**_STYLE, "svg.hashsalt": key}]):
        drawn = Canvas(Figure(figsize=(WIDTH, height), layout="constrained"))
        yield drawn
        _keep_labels_inside(drawn.figure)
        values = values_of(drawn.figure)
        buffer = io.StringIO()
        drawn.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        if (kept := _kept.get()) is not None:
            _keep(drawn.figure, key, label_text(title), label_text(alt), *kept)
    drawn.svg = _inline(buffer.getvalue(), key, label_text(title), label_text(alt), values)


class Canvas:
    """A matplotlib figure and, once drawn, its SVG."""

    def __init__(self, figure: Any) -> None:
        self.figure = figure
        self.svg = Markup("")


def _keep(figure: Any, key: str, title: str, alt: str, pictures: Files, vector: Files | None) -> None:
    pixels, drawing = io.BytesIO(), io.BytesIO()
    words = {"Software": None, "Title": title, "Description": alt}
    figure.savefig(pixels, format="png", dpi=PAPER_DPI, facecolor="white", metadata=words)
    pictures[key] = pixels.getvalue()
    if vector is not None:
        words = {"Title": title, "Subject": alt, "Creator": None, "Producer": None, "CreationDate": None}
        figure.savefig(drawing, format="pdf", metadata=words)
        vector[key] = drawing.getvalue()


def _keep_labels_inside(figure: Any) -> None:
    """Break the label of an axis that is longer than the figure into two lines; the layout does not look at that."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        label = axes.xaxis.label
        box = label.get_window_extent()
        if "\n" not in label.get_text() and (box.x0 < 0 or box.x1 > figure.bbox.width):
            words = label.get_text().split(" ")
            breaks = range(1, len(words))
            halves = [(" ".join(words[:k]), " ".join(words[k:])) for k in breaks]
            if halves:
                label.set_text("\n".join(min(halves, key=lambda pair: max(map(len, pair)))))


def _inline(source: str, key: str, title: str, alt: str, values: Sequence[Value]) -> Markup:
    """Matplotlib's SVG document as an element of a page: named for a screen reader, its ids unique to it."""
    root = ElementTree.fromstring(source)
    for parent in list(root.iter()):
        for child in list(parent):
            # The style element would apply to the whole page; its one rule moves to the root, below.
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    # A marker's shape repeats the stroke of the places that use it; there it would escape the exchange of colours for a
    # dark screen, which reaches the places alone. Without its own stroke it takes theirs.
    for shape in root.iterfind(f".//{{{SVG}}}defs/{{{SVG}}}path[@style]"):
        shape.set("style", re.sub(r"stroke: #[0-9a-f]{6};? ?", "", shape.get("style", "")))
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        for name, value in list(element.attrib.items()):
            if name == f"{{{XLINK}}}href":
                del element.attrib[name]
                element.set("href", value.replace("#", f"#{key}-", 1))
            elif name == "id":
                element.set(name, f"{key}-{value}")
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{key}-"))
    view_box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update(
        {
            "xmlns": SVG,
            "class": "chart",
            "viewBox": view_box,
            "role": "img",
            "aria-labelledby": f"{key}-title {key}-desc",
            "stroke-linejoin": "round",
            "stroke-linecap": "butt",
        }
    )
    for place, (tag, text) in enumerate((("title", title), ("desc", alt))):
        element = ElementTree.Element(tag, {"id": f"{key}-{tag}"})
        element.text = text
        root.insert(place, element)
    if values:
        root.append(value_elements(values))
    # Markup is right here and only here: ElementTree has just escaped every text and attribute.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def label_text(text: str, longest: int | None = None) -> str:
    """``text`` without what XML forbids or a line cannot hold, shortened in its middle to ``longest`` characters."""
    kept = "".join(" " if unicodedata.category(character).startswith("C") else character for character in text)
    if longest is None or len(kept) <= longest:
        return kept
    head = longest // 2
    return f"{kept[:head]}…{kept[len(kept) - (longest - 1 - head) :]}"


def wrapped_label(text: str, width: int) -> str:
    """``text`` in at most two lines of ``width`` characters, broken after a separator where there is one.

    Radiomic features share their first words and differ in their last ones, so neither end may be lost.
    """
    kept = label_text(text)
    if len(kept) <= width:
        return kept
    # A break in the first half would leave a stub and squeeze the rest.
    breaks = [place for place in range(width // 2, width + 1) if kept[place - 1] in "_.-/: "]
    place = breaks[-1] if breaks else width
    return f"{kept[:place].rstrip()}\n{label_text(kept[place:], width)}"


_RATIOS = (
    (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0),
    (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0),
    (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)


def ratio_ticks(low: float, high: float) -> list[float]:
    """At most seven readable ticks for ratios between ``low`` and ``high`` (both positive) on a logarithmic axis."""
    for candidates in _RATIOS:
        inside = [tick for tick in candidates if low <= tick <= high]
        covers = candidates[0] <= low * 1.4 and high <= candidates[-1] * 1.4
        if 2 <= len(inside) <= 7 and covers:
            return inside
    return decade_ticks(low, high)


def decade_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between ``low`` and ``high``, with 2 and 5 times them where fewer than three would be left."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
        inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(inside) >= 3:
            return thinned(inside, 7)
    return inside or [low, high]


def thinned(values: Sequence[float], most: int) -> list[float]:
    """Every n-th of ``values``, from the first, such that at most ``most`` are left."""
    step = max(1, math.ceil(len(values) / most))
    return list(values[::step])
