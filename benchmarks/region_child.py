"""One extractor on one region; started by region_features.py, prints one JSON object as its last line.

    python region_child.py {ctfed,pyradiomics,cropped,flash} IMAGE MASK

Reading the files is not timed. ``pyradiomics`` is PyRadiomics as it is called everywhere: all features, default
settings, whole images; ``cropped`` is the same on the region's box, without the diagnostics. The peers are run without
anything of ctfed.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import SimpleITK as sitk


def ctfed(image: sitk.Image, mask: sitk.Image) -> Callable[[], dict[str, Any]]:
    import radiomics.featureextractor  # noqa: F401 - loading libraries is timed for nobody
    import scipy.spatial  # noqa: F401

    from ctfed.imaging.radiomics import RadiomicsSettings, extract
    from ctfed.imaging.volume import Volume

    scan, region = Volume.from_sitk(image), Volume.from_sitk(mask)
    return lambda: dict(extract(scan, region, RadiomicsSettings(), shape=True).values)


def pyradiomics(image: sitk.Image, mask: sitk.Image, **settings: Any) -> Callable[[], dict[str, Any]]:
    import radiomics
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    radiomics.setVerbosity(logging.CRITICAL)
    extractor = RadiomicsFeatureExtractor(**settings)
    return lambda: dict(extractor.execute(image, mask))


def cropped(image: sitk.Image, mask: sitk.Image) -> Callable[[], dict[str, Any]]:
    where = np.argwhere(sitk.GetArrayViewFromImage(mask))[:, ::-1]
    low, high = np.maximum(where.min(axis=0) - 1, 0), np.minimum(where.max(axis=0) + 2, image.GetSize())
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return pyradiomics(image[x, y, z], mask[x, y, z], additionalInfo=False)


def flash(image: sitk.Image, mask: sitk.Image) -> Callable[[], dict[str, Any]]:
    from flash_radiomics.featureextractor import RadiomicsFeatureExtractor

    extractor = RadiomicsFeatureExtractor(backend="cpu")
    extractor.enableAllFeatures()
    return lambda: dict(extractor.execute(image, mask))


ENGINES = {"ctfed": ctfed, "pyradiomics": pyradiomics, "cropped": cropped, "flash": flash}


def peak_mib() -> float:
    """Largest resident memory of this process so far; rusage would count that of the parent before exec."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def main() -> None:
    engine, image_path, mask_path = sys.argv[1:]
    run = ENGINES[engine](sitk.ReadImage(image_path), sitk.ReadImage(mask_path))
    before = peak_mib()
    started, worked = time.perf_counter(), time.process_time()
    found = run()
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    peak = peak_mib()
    values = {}
    for name, value in found.items():
        if name.startswith("original_") and np.ndim(value) == 0:
            values[name] = float(value)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mib": peak, "read_mib": before, "values": values}))


if __name__ == "__main__":
    main()
