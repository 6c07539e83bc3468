"""Masks as they are kept in the cache: the bits of the smallest box around a region, and where the box lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ctfed.imaging.segment.card import Region
from ctfed.imaging.volume import Volume
from ctfed.preparation.cache import Array, Result


def packed(masks: Mapping[Region, Volume]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Values and arrays of a result that holds masks; regions without a voxel are left out."""
    boxes: dict[str, Any] = {}
    bits: dict[str, Array] = {}
    for region, mask in masks.items():
        box = mask.box()
        if box is None:
            continue
        part = mask.array[box].astype(bool)
        boxes[region] = {"box": [[int(s.start), int(s.stop)] for s in box], "voxels": int(part.sum())}
        bits[region] = np.packbits(part)
    return boxes, bits


def unpacked(result: Result, region: str, grid: Volume) -> Volume:
    """The mask (bool) of a region that ``packed`` has packed, on the grid of the scan."""
    box = tuple(slice(start, stop) for start, stop in result.values["masks"][region]["box"])
    shape = tuple(part.stop - part.start for part in box)
    array = np.zeros(grid.shape, dtype=bool)
    count = int(np.prod(shape))
    array[box] = np.unpackbits(result.arrays[region], count=count).astype(bool).reshape(shape)
    return grid.with_array(array)


def identity(result: Result, region: str) -> Result:
    """What the mask of one region is, apart from where it came from: the later steps' basis."""
    return Result({"region": region, **result.values["masks"][region]}, {region: result.digests[region]})
