"""Radiomics of the whole lungs and the tumour of LUNG1-001: seconds, peak memory, equality; and IBSI's phantoms.

    .venv/bin/python benchmarks/region_features.py [--plain-lungs] [--flash PYTHON] [--only WHAT] [--regions WHICH ...]

Each extractor describes each region in a process of its own, from images in memory to 107 features, with one thread.
'pyradiomics' is PyRadiomics as everyone calls it; 'cropped' the same on the region's box.
``--plain-lungs`` runs the former on the whole lungs too (minutes; each run ends after fifteen).
``--flash`` names the interpreter of an environment with flash-radiomics, the second opinion: it is independent C code.
Ratios are of processor seconds, which other work on the machine changes least. Differences are relative, from ctfed;
'bits' counts the 93 intensity and texture features that are equal in all bits. Needs the reference data.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ctfed.imaging.radiomics import RadiomicsSettings, extract
from ctfed.imaging.radiomics_names import ibsi_tags
from ctfed.imaging.volume import Volume

CHILD = Path(__file__).with_name("region_child.py")
DATA = Path(os.environ.get("CTFED_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "imaging"
LIMIT = 900  # seconds of one run
HEADS = (("seconds", 9), ("cpu s", 8), ("MiB", 8), ("of it image", 13), ("ratio", 9))
TARGETS = {"lung": 15, "tumour": 8}
IBSI = {
    "digital": {"bin_width": 1},
    "a": {"intensity_range": (-500, 400), "force_2d": True},
    "b": {"spacing": (2, 2, 0), "intensity_range": (-500, 400), "bin_count": 32, "force_2d": True},
    "c": {"spacing": (2, 2, 2), "intensity_range": (-1000, 400)},
    "d": {"spacing": (2, 2, 2), "outlier_sigma": 3, "bin_count": 32},
    "e": {"spacing": (2, 2, 2), "intensity_range": (-1000, 400), "outlier_sigma": 3, "bin_count": 32},
}


def lung1_001(folder: Path) -> dict[str, Path]:
    """The scan and its regions as NRRD files, by name."""
    import SimpleITK as sitk

    from ctfed.cohort.scans import choose_series, find_patients, read_masks, read_scan

    with tarfile.open(DATA / "lung1_001" / "LUNG1-001.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    (patient,) = find_patients(folder / "LUNG1-001")
    choice = choose_series(patient)
    scan = read_scan(choice.series)
    volumes = {"scan": scan.volume, **read_masks(patient, choice, scan)}
    written = {}
    for name, volume in volumes.items():
        written[name] = folder / f"{name}.nrrd"
        sitk.WriteImage(volume.to_sitk(), str(written[name]))
    return written


def run(python: str, engine: str, image: Path, mask: Path) -> dict[str, Any] | str:
    """What the child found, or why it found nothing."""
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if engine == "ctfed":
        environment["PYTHONPATH"] = str(root)
    command = [python, "-W", "ignore", str(CHILD), engine, str(image), str(mask)]
    with tempfile.TemporaryDirectory() as folder:  # flash-radiomics writes files where it is run
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LIMIT, env=environment, cwd=folder, check=False
            )
        except subprocess.TimeoutExpired:
            return f"not finished after {LIMIT} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compare(ours: dict[str, float], theirs: dict[str, float]) -> str:
    names = [name for name in ours if name in theirs]
    bits = sum(ours[name] == theirs[name] for name in names if "_shape_" not in name)
    off = {name: abs(ours[name] - theirs[name]) / max(abs(theirs[name]), 1e-12) for name in names}
    excess = theirs.get("original_firstorder_Kurtosis", 0) - ours["original_firstorder_Kurtosis"]
    note = ""
    if abs(excess + 3) < 1e-6:
        off.pop("original_firstorder_Kurtosis")
        note = ", Kurtosis less by 3"
    worst = max(off, key=lambda name: off[name])
    return f"{len(names)} names, {bits} bits, largest {off[worst]:.1e} ({worst.removeprefix('original_')}){note}"


def speed(regions: list[str], plain_lungs: bool, flash: str | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        files = lung1_001(Path(name))
        for region in regions:
            engines = [("ctfed", sys.executable)]
            engines += [("flash", flash)] if flash else []
            engines += [("cropped", sys.executable)] if region == "tumour" else []
            engines += [("pyradiomics", sys.executable)] if region == "tumour" or plain_lungs else []
            heads = "".join(f"{head:>{width}}" for head, width in HEADS)
            print(f"\n{region:14}{heads}   against ctfed", flush=True)
            ours: dict[str, Any] = {}
            for engine, python in engines:
                result = run(python, engine, files["scan"], files[region])
                if isinstance(result, str):
                    print(f"{engine:14}{result}", flush=True)
                    continue
                ours = ours or result
                figures = (
                    f"{result['seconds']:9.2f}{result['cpu']:8.2f}{result['peak_mib']:8.0f}{result['read_mib']:13.0f}"
                )
                ratio = result["cpu"] / ours["cpu"]
                against = "" if engine == "ctfed" else f"{ratio:8.1f}x   {compare(ours['values'], result['values'])}"
                print(f"{engine:14}{figures}{against}", flush=True)
                if engine == "pyradiomics" and ratio < TARGETS[region]:
                    print(f"{'':14}misses the target of {TARGETS[region]}x")


def agrees(found: float, value: float, tolerance: float) -> bool:
    """Within the tolerance, after rounding to the three digits that are printed."""
    last_digit = 10.0 ** (math.floor(math.log10(abs(value))) - 2) if value else 0.0
    return abs(found - value) <= tolerance * (1 + 1e-9) + last_digit / 2


def ibsi() -> None:
    """Consensus values within tolerance, by configuration."""
    import SimpleITK as sitk

    print("\nIBSI-1: consensus values within tolerance")
    for name, given in IBSI.items():
        digital = name == "digital"
        folder = DATA / "ibsi" / ("ibsi_1_digital_phantom" if digital else "ibsi_1_ct_radiomics_phantom") / "nifti"
        image = Volume.from_sitk(sitk.ReadImage(str(folder / "image" / "phantom.nii.gz")))
        mask = Volume.from_sitk(sitk.ReadImage(str(folder / "mask" / "mask.nii.gz")))
        table = (
            DATA / "ibsi" / "reference_values" / f"ibsi_1_{'dig_phantom' if digital else f'chest_config_{name}'}.csv"
        )
        with table.open(newline="") as file:
            rows = {row["tag"]: row for row in csv.DictReader(file, delimiter=";")}
        for weighting in (None, "no_weighting"):
            interpolator = "sitkBSpline" if name == "e" else "sitkLinear"
            settings = RadiomicsSettings(standard="ibsi", interpolator=interpolator, weighting=weighting, **given)  # type: ignore[arg-type]
            dimensions = "2_5D" if settings.force_2d else "3D"
            tags = ibsi_tags(f"{dimensions}_{'comb' if weighting else 'avg'}")  # type: ignore[arg-type]
            found = extract(image, mask, settings, shape=True).values
            off = {}
            for feature, tag in tags.items():
                value, tolerance = float(rows[tag]["reference value"]), float(rows[tag]["tolerance"] or 0)
                if not agrees(found[feature], value, tolerance):
                    off[feature.removeprefix("original_")] = f"{found[feature]:.4g}, not {value:.4g}"
            way = f"{dimensions.replace('_', '.')} {'merged' if weighting else 'averaged'}"
            listed = "; ".join(f"{feature} {text}" for feature, text in off.items())
            print(f"{name:9}{way:15}{len(tags) - len(off):4} of {len(tags)}   {listed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain-lungs", action="store_true", help="PyRadiomics on the whole lungs, too")
    parser.add_argument("--flash", metavar="PYTHON", help="interpreter of an environment with flash-radiomics")
    parser.add_argument("--regions", nargs="+", choices=("tumour", "lung"), default=["tumour", "lung"])
    parser.add_argument("--only", choices=("ibsi", "speed"))
    chosen = parser.parse_args()
    if chosen.only != "speed":
        ibsi()
    if chosen.only != "ibsi":
        speed(chosen.regions, chosen.plain_lungs, chosen.flash)


if __name__ == "__main__":
    main()
