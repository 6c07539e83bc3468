"""Figures of a study of many models alone: differences of every two models, and the progress of the searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ctfed.report import palette
from ctfed.report.drawing import canvas, label_text

LONGEST_NAME = 34
# From 'the row has the lower C' to 'the higher C': seven steps that stand out on white and on dark ground.
STEPS = ("#b35806", "#d98a3d", "#e8b889", "#b9bec4", "#92b4d6", "#4f8ac0", "#1f5f9e")


@dataclass(frozen=True)
class Cell:
    """The difference of the models at two places, row < column, and whether it holds after correction."""

    row: int
    column: int
    difference: float
    significant: bool


def difference_plot(key: str, title: str, alt: str, names: Sequence[str], cells: Sequence[Cell]) -> Markup:
    """A triangle of coloured cells: C of the row's model minus C of the column's; a dot where it is significant.

    Raises:
        ValueError: there is no difference to draw.
    """
    if not cells:
        raise ValueError(f"figure {key!r}: no difference to draw")
    from matplotlib.colors import BoundaryNorm, ListedColormap

    n = len(names)
    reach = max(0.02, max(abs(cell.difference) for cell in cells))
    bounds = np.linspace(-reach, reach, len(STEPS) + 1)
    values = np.full((n, n), np.nan)
    for cell in cells:
        values[cell.row, cell.column] = cell.difference
    with canvas(key, 1.6 + max(0.17 * n, 1.2), title, alt) as drawn:
        axes = drawn.figure.subplots()
        shades = ListedColormap(list(STEPS))
        mesh = axes.pcolormesh(
            np.ma.masked_invalid(values), cmap=shades, norm=BoundaryNorm(bounds, len(STEPS)), edgecolors="none"
        )
        marked = [cell for cell in cells if cell.significant]
        if marked:
            axes.plot(
                [cell.column + 0.5 for cell in marked],
                [cell.row + 0.5 for cell in marked],
                linestyle="none",
                marker="o",
                markersize=max(1.2, min(4.0, 60 / n)),
                color=palette.INK.light,
            )
        written = [f"{label_text(name, LONGEST_NAME)}  {place}" for place, name in enumerate(names, 1)]
        axes.set_yticks(np.arange(n) + 0.5, written, fontsize=8)
        axes.set_xticks(np.arange(n) + 0.5, [str(place) for place in range(1, n + 1)], fontsize=7, rotation=90)
        axes.set_ylim(n, 0)
        axes.set_xlim(0, n)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        bar = drawn.figure.colorbar(mesh, ax=axes, location="bottom", shrink=0.7, aspect=36, pad=0.02)
        bar.set_ticks(bounds[[0, 2, 5, 7]], labels=[f"{bound:+.2f}" for bound in bounds[[0, 2, 5, 7]]])
        bar.set_label("C of the row minus C of the column")
    return drawn.svg


@dataclass(frozen=True)
class Progress:
    """The best score of a search after each of its trials."""

    name: str
    best: tuple[float, ...]


def progress_plot(key: str, title: str, alt: str, searches: Sequence[Progress]) -> Markup:
    """Steps of the best held-out score so far; at most as many searches as there are series styles.

    Raises:
        ValueError: there is none, or there are too many to tell apart.
    """
    if not 1 <= len(searches) <= len(palette.SERIES):
        raise ValueError(f"figure {key!r}: expected 1 to {len(palette.SERIES)} searches, found {len(searches)}")
    with canvas(key, 3.2 + 0.2 * len(searches), title, alt) as drawn:
        axes = drawn.figure.subplots()
        for index, search in enumerate(searches):
            colour, dashes, _ = palette.series_style(index)
            trials = range(1, len(search.best) + 1)
            axes.step(
                trials, search.best, where="post", color=colour, linestyle=dashes, label=label_text(search.name, 60)
            )
        axes.grid(axis="y")
        axes.set_xlabel("trials")
        axes.set_ylabel("best held-out C so far")
        drawn.figure.legend(loc="outside lower left", ncols=1, handlelength=2.6)
    return drawn.svg
