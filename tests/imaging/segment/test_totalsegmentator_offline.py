"""TotalSegmentator: its real code, on small models in the layout it expects, with every way out watched.

Each process that it starts is watched by an audit hook (``sitecustomize``), which notes and refuses name look-ups and
connections that leave the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ctfed.config import ConfigError
from ctfed.imaging.segment import SegmenterSettings, build, load_card
from ctfed.imaging.segment.totalseg import LicenceError, to_nifti
from ctfed.imaging.segment.weights import WeightsError, write_manifest
from ctfed.imaging.volume import Volume

pytest.importorskip("torch", reason="torch is not installed (pip install ctfed[segmentation])")
pytest.importorskip("totalsegmentator", reason="TotalSegmentator is not installed (pip install ctfed[segmentation])")
sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed (pip install ctfed[imaging])")

from nnunet_support import write_model  # noqa: E402
from totalsegmentator_child import LICENCE  # noqa: E402

CARD = load_card("totalsegmentator-coronary-arteries")
HEART = 51  # of TotalSegmentator's 117 labels
WATCH = """
import os, sys

def watch(event, arguments):
    leaves = event in ("socket.getaddrinfo", "socket.gethostbyname") or (
        event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple)
    )
    if leaves:
        note(f"{event} {arguments[1:]}")
        raise OSError("no network in this test")

def note(line):
    with open(os.environ["CTFED_TEST_WATCH"], "a") as log:
        log.write(line + "\\n")

sys.addaudithook(watch)
note("watched")
"""


@pytest.fixture(scope="module")
def scan(shared_data: Path) -> Volume:
    """14 x 14 x 8 voxels of 3 mm of a real CT."""
    path = shared_data / "imaging" / "totalsegmentator" / "example_ct_sm.nii.gz"
    image = Volume.from_sitk(sitk.ReadImage(str(path)))
    return image.crop((slice(3, 11), slice(24, 38), slice(20, 34)))


def write_weights(folder: Path, heart: float) -> Path:
    """Both models of the task; the heart is where a voxel's normalised value exceeds ``heart``."""
    organs = {"background": 0, **{f"organ {number}": number for number in range(1, 118)}}
    write_model(
        folder / CARD.folders[298],
        organs,
        {HEART: heart},
        patch=[16, 16, 16],
        spacing=[6, 6, 6],
        trainer="nnUNetTrainer_4000epochs_NoMirroring",
        manifest=False,
    )
    write_model(
        folder / CARD.folders[509],
        {"background": 0, "coronary_arteries": 1},
        {1: 0.8},
        patch=[40, 64, 64],
        spacing=[0.7, 0.7, 0.7],
        trainer="nnUNetTrainerSkeletonRecall",
        configuration="3d_fullres_high",
        manifest=False,
    )
    write_manifest(folder, CARD.name)
    return folder


def run(scan: Volume, weights: Path, folder: Path) -> tuple[np.ndarray, dict[str, object], list[str], str]:
    """The mask, what is said about it, what the watch noted, and all that was printed."""
    (folder / "watch").mkdir()
    (folder / "watch" / "sitecustomize.py").write_text(WATCH)
    sitk.WriteImage(scan.to_sitk(), str(folder / "scan.nrrd"))
    log = folder / "watch.log"
    places = [str(folder / "watch"), str(Path(__file__).parent), *sys.path]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "CTFED_TEST_WATCH": str(log),
        "HOME": str(folder),
    }
    names = ["scan.nrrd", "mask.npy", "said.json"]
    scan_path, mask_path, said_path = (str(folder / name) for name in names)
    child = Path(__file__).with_name("totalsegmentator_child.py")
    done = subprocess.run(
        [sys.executable, str(child), scan_path, str(weights), mask_path, said_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(Path(said_path).read_text())
    return np.load(mask_path), said, log.read_text().splitlines(), done.stdout + done.stderr


def test_the_real_code_finds_what_the_models_mark_and_never_leaves_the_machine(scan: Volume, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "weights", heart=0.5)
    before = sorted(path.name for path in weights.rglob("*"))
    mask, said, log, printed = run(scan, weights, tmp_path)
    assert mask.shape == scan.shape
    marked = float(scan.array[mask].mean() - scan.array[~mask].mean())
    mirrored = mask[:, :, ::-1]
    assert marked > 50  # HU; the model marks what is bright
    assert marked > 2 * float(scan.array[mirrored].mean() - scan.array[~mirrored].mean())
    assert set(log) == {"watched"}
    assert len(log) >= 2  # the processes that nnU-Net starts were watched too
    assert LICENCE not in json.dumps(said) + printed
    assert not (tmp_path / ".totalsegmentator").exists()
    assert sorted(path.name for path in weights.rglob("*")) == before


@pytest.mark.slow
def test_no_heart_is_an_empty_mask_that_says_missing(scan: Volume, tmp_path: Path) -> None:
    mask, said, log, _ = run(scan, write_weights(tmp_path / "weights", heart=50.0), tmp_path)
    assert not mask.any()
    assert "coronaries: found no voxel; the region is missing" in str(said["notes"])
    assert set(log) == {"watched"}


def test_a_missing_folder_of_the_task_is_named(tmp_path: Path) -> None:
    (tmp_path / CARD.folders[509]).mkdir()
    settings = SegmenterSettings(model=CARD.name, weights=tmp_path, licence_number=LICENCE)
    with pytest.raises(WeightsError, match=r"Dataset298_\w+: found no such folder, expected the weights of TotalSeg"):
        build(settings)


def empty_weights(folder: Path) -> Path:
    for name in CARD.folders.values():
        (folder / name).mkdir(parents=True)
        (folder / name / "plans.json").write_text("{}")
    write_manifest(folder, CARD.name)
    return folder


def test_the_environment_and_home_are_as_before(scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when TotalSegmentator does not take the number; the sentence does not show it."""
    monkeypatch.delenv("TOTALSEG_HOME_DIR", raising=False)
    import totalsegmentator.python_api  # noqa: F401  (what it imports sets variables of its own)

    before = dict(os.environ)
    settings = SegmenterSettings(model=CARD.name, weights=empty_weights(tmp_path), licence_number="short", device="cpu")
    with pytest.raises(LicenceError, match=r"does not take for one \(invalid_license\)") as caught:
        build(settings).segment(scan)
    assert "short" not in str(caught.value)
    assert dict(os.environ) == before


def test_a_card_that_the_installed_version_does_not_follow_is_refused(scan: Volume, tmp_path: Path) -> None:
    """Or TotalSegmentator would try to download what it wants instead."""
    text = (Path(build.__code__.co_filename).parent / "cards" / f"{CARD.name}.yaml").read_text()
    own = tmp_path / "own.yaml"
    own.write_text(text.replace("  298: Dataset298", "  298: Dataset298_of_old"))
    folder = tmp_path / "weights"
    for name in load_card(str(own)).folders.values():
        (folder / name).mkdir(parents=True)
        (folder / name / "plans.json").write_text("{}")
    write_manifest(folder, CARD.name)
    settings = SegmenterSettings(model=str(own), weights=folder, licence_number=LICENCE, device="cpu")
    with pytest.raises(ConfigError, match="expected those of the installed TotalSegmentator"):
        build(settings).segment(scan)


def test_a_nifti_image_lies_where_its_volume_does(scan: Volume) -> None:
    image = to_nifti(scan)
    index = np.array([5, 7, 11])  # z, y, x
    lps = scan.world(index)
    ras = image.affine @ np.array([11, 7, 5, 1.0])
    assert ras[:3] == pytest.approx([-lps[0], -lps[1], lps[2]], abs=1e-4)
    assert image.get_fdata()[11, 7, 5] == scan.array[5, 7, 11]
