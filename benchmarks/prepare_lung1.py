"""`ctfed prepare` on the real patient LUNG1-001: seconds, peak memory, and its features against PyRadiomics.

    .venv/bin/python benchmarks/prepare_lung1.py

The centre's own contours (RTSTRUCT: lungs and GTV-1) are measured by the paper's settings of the extraction, without
the models whose weights cannot be had here: no nodes, no coronary arteries, no foundation model. From DICOM to the
table, masks as NIfTI and SEG, and the contact sheet; one patient, one process. Then PyRadiomics, as everyone calls it,
describes the tumour's mask that was written; and a second run says what nothing to do costs. Needs the reference data.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from region_features import DATA, run

ROOT = Path(__file__).resolve().parents[1]
PAPER = ROOT / "site_config" / "extraction" / "pixels_to_prognosis.yaml"
RUN = "import sys; from ctfed.cli import main; sys.exit(main(sys.argv[1:]))"
DICTIONARY = {
    "ctfed_dictionary": 1,
    "name": "lung1",
    "variables": {"age": {"type": "continuous", "unit": "years", "range": [18, 110], "impute": "median"}},
    "source": {
        "kind": "csv",
        "patient": "PatientID",
        "follow_up": {
            "time": {"column": "Survival.time", "unit": "days"},
            "event": {"column": "deadstatus.event", "codes": {"0": 0, "1": 1}},
        },
        "columns": {"age": "age"},
    },
}
ROW = "PatientID,age,Survival.time,deadstatus.event\nLUNG1-001,78.7515,2165,1\n"  # of the published table


def write_centre(folder: Path) -> Path:
    """Scans, clinical row, settings and site file; the site file's path."""
    with tarfile.open(DATA / "lung1_001" / "LUNG1-001.tar.xz") as tar:
        tar.extractall(folder / "scans", filter="data")
    settings: dict[str, Any] = yaml.safe_load(PAPER.read_text())
    settings["segmentation"] = settings["segmentation"][:1]
    settings["regions"] = {region: settings["regions"][region] for region in ("lung", "tumour")}
    del settings["foundation"]
    site = {
        "ctfed_site": 1,
        "site": "lung1",
        "data": {"prepared": True},
        "prepare": {
            "scans": "scans",
            "clinical": "clinical.csv",
            "dictionary": "dictionary.yaml",
            "extraction": "extraction.yaml",
            "output": "out",
        },
        "secret": "site.secret",
    }
    for name, content in (("extraction.yaml", settings), ("dictionary.yaml", DICTIONARY), ("site.yaml", site)):
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    (folder / "clinical.csv").write_text(ROW)
    return folder / "site.yaml"


def prepare(site: Path) -> None:
    """Run the command, and print what it took."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", RUN, "prepare", "--site", str(site), "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    steps = re.search(r"(\d+) steps were computed", done.stdout)
    print(f"{steps[1] if steps else '?'} steps: {seconds:.1f} s, {cpu:.1f} s of processor", flush=True)


def main() -> None:
    import pyarrow.parquet as pq
    import SimpleITK as sitk

    from ctfed.cohort.scans import choose_series, find_patients, read_scan

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site = write_centre(folder)
        prepare(site)
        # The largest of the run's processes; those of this benchmark that come later are not in it.
        print(f"peak memory {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB of one process")
        prepare(site)
        local = folder / "out" / "local"
        [row] = pq.read_table(local / "features.parquet").to_pylist()
        [mask] = (local / "masks").rglob("tumour.nii.gz")
        scan = folder / "scan.nrrd"
        sitk.WriteImage(read_scan(choose_series(find_patients(folder / "scans")[0]).series).volume.to_sitk(), str(scan))
        voxels = int(sitk.GetArrayFromImage(sitk.ReadImage(str(mask))).sum())
        theirs = run(sys.executable, "pyradiomics", scan, mask)
    if isinstance(theirs, str):
        sys.exit(theirs)
    numbers = {key.removeprefix("tumour."): v for key, v in row.items() if key.startswith("tumour.original_")}
    off = {key: abs(v - numbers[key]) / max(abs(v), 1e-12) for key, v in theirs["values"].items() if key in numbers}
    worst = max(off, key=lambda key: off[key])
    missing = sum(value is None or value != value for value in row.values())
    print(f"tumour: {voxels} voxels; {len(row)} columns, {missing} without a value")
    print(
        f"{len(off)} of {len(numbers)} features compared with PyRadiomics: largest relative difference {off[worst]:.1e}"
    )
    print(f"({worst}); {sum(value == 0 for value in off.values())} equal in all bits")


if __name__ == "__main__":
    main()
