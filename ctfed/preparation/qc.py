"""Contact sheets: slices through every region with its outline, for a person's eyes at the centre."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ctfed.imaging.volume import Volume

LUNG_WINDOW = (-1150.0, 350.0)  # HU
SOFT_WINDOW = (-160.0, 240.0)
COLOURS = {"lung": "#4c9be8", "tumour": "#e8554c", "nodes": "#e8c14c", "coronaries": "#6fd08c"}
_SLICES = 4  # per region
_SIZE = 2.4  # inches
_GRID = {"left": 0.0, "right": 1.0, "bottom": 0.0, "top": 0.97, "wspace": 0.02, "hspace": 0.08}


def write_sheet(path: Path, image: Volume, masks: Mapping[str, Volume]) -> None:
    """Write one PNG: a row per region, slices at equal steps through it, all outlines on each; patients' feet first.

    It names no patient and no date.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(1, len(masks))
    figure = Figure(figsize=(_SIZE * _SLICES, _SIZE * rows), dpi=80, facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, _SLICES, squeeze=False, gridspec_kw=_GRID)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, (region, mask) in enumerate(masks.items()):
        window = LUNG_WINDOW if region in ("lung", "tumour") else SOFT_WINDOW
        for axis, k in zip(axes[row], _through(mask), strict=True):
            _draw(axis, image, masks, k, window)
            axis.set_title(f"{region}, slice {k + 1}", color="white", fontsize=7)
    figure.savefig(path, format="png", metadata={"Software": None})


def _through(mask: Volume) -> list[int]:
    """Slices at equal steps through a region, its ends left out."""
    found = np.flatnonzero(mask.array.any(axis=(1, 2)))
    places = np.linspace(0, len(found) - 1, _SLICES + 2)[1:-1]
    return [int(found[round(place)]) for place in places]


def _draw(axis: Any, image: Volume, masks: Mapping[str, Volume], k: int, window: tuple[float, float]) -> None:
    x, y, _ = image.spacing
    axis.imshow(image.array[k], cmap="gray", vmin=window[0], vmax=window[1], aspect=y / x, interpolation="nearest")
    for region, mask in masks.items():
        if mask.array[k].any():
            axis.contour(mask.array[k].astype(float), levels=[0.5], colors=COLOURS[region], linewidths=0.7)
