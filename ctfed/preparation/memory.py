"""How many patients fit into memory at once."""

from __future__ import annotations

import os
from pathlib import Path

from ctfed.cohort.scans.model import Series

GIB = 2**30
# Bytes per voxel at the peak: the scan as int16 and float32, five frequency bands, their sum and a resampled copy.
PER_VOXEL = 48
BASE = 0.6 * GIB  # Python and the imaging libraries
RADIOMICS = 1.2 * GIB  # whole lungs at 1 mm, measured
FOUNDATION = 2.5 * GIB  # weights (0.74 GB) while they are loaded, and the activations of the largest cube
NETWORK = 6.0 * GIB  # an nnU-Net of a chest CT: logits of all labels on the whole image
SHARE = 0.85  # of what is available; the rest is the system's


def available() -> int:
    """Bytes that new processes can take: what the system has, or what the container's limit leaves."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if (most := _read(limit).strip()).isdigit() and (now := _read(used).strip()).isdigit():
            free = min(free, int(most) - int(now))
    return max(free, 0)


def voxels(series: Series) -> int:
    """Of a series, from its headers; of a file, from its size (int16, compressed to a third at best)."""
    if series.file is None:
        return sum((header.rows or 0) * (header.columns or 0) for header in series.headers)
    try:
        size = series.file.stat().st_size
    except OSError:
        return 0
    return size // 2 * (3 if series.file.suffix == ".gz" else 1)


def per_patient(voxels: int, *, networks: bool, foundation: bool) -> float:
    """Bytes that the largest scan needs at its peak; an estimate on the safe side."""
    extra = (NETWORK if networks else 0.0) + (FOUNDATION if foundation else 0.0)
    # Small scans (phantoms) need a small share of what radiomics of whole lungs takes.
    return BASE + PER_VOXEL * voxels + RADIOMICS * min(1.0, voxels / 5e7) + extra


def workers_that_fit(wanted: int | None, needed: float, free: int | None = None) -> int:
    """Number of processes: as many as wanted (default: one per core), fewer where memory would not do, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    room = available() if free is None else free
    return max(1, min(wanted or cores, int(SHARE * room // needed)))


def _read(path: str) -> str:
    try:
        return Path(path).read_text("ascii")
    except OSError:
        return ""
