"""All back ends at once, on small models that their own libraries made: nnU-Net for lung, tumour and nodes,
TotalSegmentator for the coronary arteries, the foundation model at its real size with random weights."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

MODELS = ("bamf-lung-nodule", "mediastinal-nodes", "totalsegmentator-coronary-arteries")
SETTINGS: dict[str, Any] = {
    "segmentation": [{"model": name, "mirroring": False, "tile_step": 1.0, "device": "cpu"} for name in MODELS],
    "foundation": {"cubes": [50, 96, 128], "device": "cpu"},
    "required": [],
}
_RUN = "import sys; from ctfed.cli import main; sys.exit(main(sys.argv[1:]))"
SUPPORT = Path(__file__).parents[1] / "imaging" / "segment"


def write_weights(folder: Path) -> None:
    sys.path.insert(0, str(SUPPORT))
    from nnunet_support import write_model  # type: ignore[import-not-found]

    from ctfed.imaging.foundation import build_network
    from ctfed.imaging.segment import load_card
    from ctfed.imaging.segment.weights import write_manifest

    grid: dict[str, Any] = {"patch": [16, 32, 32], "spacing": [8, 8, 8]}
    write_model(folder / MODELS[0], {"background": 0, "lung": 1, "nodule": 2}, {1: -0.5, 2: 1.5}, **grid)
    write_model(folder / MODELS[1], {"background": 0, "nodes": 1}, {1: 1.5}, **grid)
    folders = load_card(MODELS[2]).folders
    organs = {"background": 0, **{f"organ {number}": number for number in range(1, 118)}}
    write_model(
        folder / MODELS[2] / folders[298],
        organs,
        {51: 1.0},  # the heart
        patch=[32, 48, 48],
        spacing=[6, 6, 6],
        trainer="nnUNetTrainer_4000epochs_NoMirroring",
        manifest=False,
    )
    write_model(
        folder / MODELS[2] / folders[509],
        {"background": 0, "coronary_arteries": 1},
        {1: 1.0},
        patch=[48, 48, 48],
        spacing=[8, 8, 8],
        trainer="nnUNetTrainerSkeletonRecall",
        configuration="3d_fullres_high",
        manifest=False,
    )
    write_manifest(folder / MODELS[2], "totalsegmentator-coronary-arteries")
    import torch

    torch.manual_seed(0)
    (folder / "fmcib").mkdir()
    torch.save({"trunk_state_dict": build_network().state_dict()}, folder / "fmcib" / "model_weights.torch")
    write_manifest(folder / "fmcib", "fmcib")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_everything_runs_and_no_system_call_reaches_for_a_network(
    tmp_path: Path, site_file: Callable[..., Path]
) -> None:
    for library in ("torch", "nnunetv2", "totalsegmentator", "monai"):
        pytest.importorskip(library)
    write_weights(tmp_path / "weights")
    site = site_file(SETTINGS, weights=tmp_path / "weights", licence_number="not-a-licence-0000")
    trace = tmp_path / "trace"
    watch = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace)]
    command = [sys.executable, "-c", _RUN, "prepare", "--site", str(site), "--limit", "1"]
    done = subprocess.run([*watch, *command], capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace processes here")
    print(done.stdout, done.stderr[-2000:])
    assert done.returncode == 0
    calls = [line for line in trace.read_text().splitlines() if re.search(r"\b(connect|send\w+)\(", line)]
    assert [line for line in calls if "AF_UNIX" not in line and "AF_INET" in line] == []
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "out" / "local" / "partial" / "features.parquet")
    for name in ("lung.original_glcm_Contrast", "fm50_0000", "fm96_4095", "fm128_2048"):
        assert table.column(name).null_count == 0, name
