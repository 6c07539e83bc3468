"""What the foundation model's cubes cost, and how far they are from the published preprocessing.

MONAI's published pipeline resamples the whole scan of LUNG1-001 to 1 mm and cuts the cube out; ctfed resamples the cube
alone. Seconds of both from the scan in memory to the cube, and the largest difference in HU, at the tumour and at a
border of the scan.

    .venv/bin/python benchmarks/fm_crop.py [FOLDER WITH THE DICOM SLICES]
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tarfile
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ctfed.imaging.fm_crop import cube
from ctfed.imaging.volume import Volume

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "imaging"))
from monai_support import monai_cube, monai_scan  # noqa: E402

DATA = Path(os.environ.get("CTFED_SHARED_DATA", ROOT.parent / "shared" / "data"))
SEED = (82.30073006174621, -201.48108486783707, -456.8378905)  # published, of GTV-1
SIZES = (50, 96, 128)
MOST_HU = 1e-3
REPEATS = 5


def read(folder: Path) -> Volume:
    """The CT of the one folder below ``folder`` that holds at least 100 files."""
    slices = next(path.parent for path in sorted(folder.rglob("*.dcm")) if len(list(path.parent.iterdir())) >= 100)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(slices)))
    return Volume.from_sitk(reader.Execute())


def main(folder: Path) -> int:
    image = read(folder)
    print(f"scan: {image.grid}")
    start = time.perf_counter()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        whole = monai_scan(image)
    resampling = time.perf_counter() - start
    print(f"MONAI, whole scan to 1 mm: {resampling:.1f} s")
    seeds = {"tumour": SEED, "border": image.world(np.array(image.shape) * (0.02, 0.5, 0.97)).tolist()}
    worst = 0.0
    print("seed    cube  MONAI s  ctfed s  largest difference, HU")
    for name, seed in seeds.items():
        for size in SIZES:
            start = time.perf_counter()
            expected = monai_cube(whole, seed, size)
            theirs = resampling + time.perf_counter() - start
            start = time.perf_counter()
            for _ in range(REPEATS):
                found = cube(image, seed, size)
            ours = (time.perf_counter() - start) / REPEATS
            difference = float(np.abs(expected - found.array).max()) * 3072
            worst = max(worst, difference)
            print(
                f"{name:7} {size:4d} {theirs:8.1f} {ours:8.3f}  {difference:.1e}{'  clamped' if found.clamped else ''}"
            )
    print(f"{'met' if worst <= MOST_HU else 'NOT met'}: {worst:.1e} HU, target {MOST_HU:g}")
    return 0 if worst <= MOST_HU else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as place:
        with tarfile.open(DATA / "imaging" / "lung1_001" / "LUNG1-001.tar.xz") as tar:
            tar.extractall(place, filter="data")
        sys.exit(main(Path(place)))
