"""nnU-Net model folders: real models by the library's own classes, run by the library's own predictor on a real CT.

The models label a voxel by its value alone (``nnunet_support``), so what must come out is known: labels that never
fall as HU rise. A mask that was turned, shifted or scaled wrongly cannot have that property on a real scan.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from ctfed.config import ConfigError
from ctfed.imaging.segment import SegmenterSettings, WeightsError, build, identity_digest
from ctfed.imaging.segment.base import reoriented
from ctfed.imaging.volume import Volume

pytest.importorskip("torch", reason="torch is not installed (pip install ctfed[segmentation])")
pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed (pip install ctfed[segmentation])")
sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed (pip install ctfed[imaging])")

from nnunet_support import write_model  # noqa: E402

LABELS = {"background": 0, "soft": 2, "bright": 1}  # not in the order of their values
ROUNDING = 8.0  # HU; nnU-Net adds logits up in half precision. A mask in the wrong place overlaps by hundreds.
CARD = """
ctfed_model_card: 1
name: own-model
title: a model of these tests
engine: nnunet
regions:
  lung: [soft]
  tumour: [bright]
licence: {code: none, weights: none}
source: these tests
reference: none
contrast: any
spacing: any
"""


@pytest.fixture(scope="module")
def scan(shared_data: Path) -> Volume:
    """56 x 48 x 24 voxels of 3 mm of a real CT."""
    path = shared_data / "imaging" / "totalsegmentator" / "example_ct_sm.nii.gz"
    image = Volume.from_sitk(sitk.ReadImage(str(path)))
    return image.crop((slice(3, 27), slice(20, 68), slice(20, 76)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds, with a patch as large as the scan."""
    folder = tmp_path_factory.mktemp("models") / "Dataset007_Tiny"
    return write_model(folder, LABELS, {2: 0.0, 1: 0.8}, patch=[24, 48, 56], spacing=[3, 3, 3], folds=2)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("card") / "own.yaml"
    path.write_text(CARD)
    return str(path)


def settings(card: str, model: Path, **choice: object) -> SegmenterSettings:
    options = {"mirroring": False, "device": "cpu", "tumour": "all", **choice}
    return SegmenterSettings(model=card, weights=model, **options)  # type: ignore[arg-type]


def levels(image: Volume, masks: Mapping[str, Volume]) -> list[tuple[float, float]]:
    """Lowest and highest HU of background, 'soft' and 'bright', as the model's normalisation clips them."""
    hu = np.clip(image.array, -1000, 400)
    soft, bright = masks["lung"].array, masks["tumour"].array
    return [(float(hu[part].min()), float(hu[part].max())) for part in (~(soft | bright), soft, bright)]


def rising(found: list[tuple[float, float]]) -> bool:
    return all(before[1] <= after[0] + ROUNDING for before, after in itertools.pairwise(found))


def test_a_real_model_runs_end_to_end_with_both_folds(card: str, model: Path, scan: Volume) -> None:
    segmenter = build(settings(card, model, mirroring=True))
    found = segmenter.segment(scan)
    assert rising(levels(scan, found.masks))
    assert all(mask.same_grid(scan) and mask.array.dtype == bool for mask in found.masks.values())
    said = found.provenance
    assert (said["folds"], said["labels"], said["device"]) == ([0, 1], {"lung": [2], "tumour": [1]}, "cpu")
    assert len(said["weights_sha256"]) == 64
    assert said["tumour_components"] > 1
    again = segmenter.segment(scan)
    assert all(np.array_equal(again.masks[region].array, mask.array) for region, mask in found.masks.items())
    json.dumps(dict(said), allow_nan=False)


@pytest.mark.parametrize("code", ["RAI", "PIR"])
def test_masks_come_back_in_the_scans_own_orientation(card: str, model: Path, scan: Volume, code: str) -> None:
    turned = reoriented(scan, code)
    found = build(settings(card, model, folds=(1,))).segment(turned)
    assert rising(levels(turned, found.masks))
    assert found.provenance["folds"] == [1]


def test_spacing_reaches_nnunet_in_the_order_of_the_array(card: str, scan: Volume, tmp_path: Path) -> None:
    """With the plans' own spacing nothing is resampled; another order of axes would blur the steps."""
    folder = write_model(
        tmp_path / "Dataset008_Thick", LABELS, {2: 0.0, 1: 0.8}, patch=[24, 48, 56], spacing=[6, 3, 1.5]
    )
    thick = Volume(scan.array, (1.5, 3.0, 6.0))
    assert rising(levels(thick, build(settings(card, folder)).segment(thick).masks))


def test_scans_are_turned_as_the_training_data_were(card: str, scan: Volume, tmp_path: Path) -> None:
    folder = write_model(
        tmp_path / "Dataset009_Ras",
        LABELS,
        {2: 0.0, 1: 0.8},
        patch=[24, 48, 56],
        spacing=[3, 3, 3],
        reader="NibabelIOWithReorient",
    )
    found = build(settings(card, folder)).segment(scan)
    assert found.provenance["orientation"] == "RAS"
    assert rising(levels(scan, found.masks))


def test_building_reads_labels_and_loads_no_network(card: str, model: Path) -> None:
    segmenter = build(settings(card, model))
    assert "_predictor" not in vars(segmenter)
    other = build(settings(card, model, folds=(0,)))
    assert identity_digest(segmenter) == identity_digest(build(settings(card, model)))
    assert identity_digest(segmenter) != identity_digest(other)


def test_names_of_labels_can_come_from_the_site(model: Path) -> None:
    own = SegmenterSettings(
        model="mediastinal-nodes", weights=model, labels={"nodes": ("bright",)}, unused=("soft",), device="cpu"
    )
    assert dict(build(own).identity["labels"]) == {"nodes": [1]}
    with pytest.raises(ConfigError, match="found 'soft' or 'bright', expected every label in a region"):
        build(SegmenterSettings(model="mediastinal-nodes", weights=model))


def test_a_fold_that_is_not_there_is_named(card: str, model: Path) -> None:
    with pytest.raises(WeightsError, match=r"found folds 0 or 1 with a checkpoint_final\.pth, expected 4"):
        build(settings(card, model, folds=(0, 4)))


@pytest.mark.parametrize("channels", [{"0": "MRI"}, {"0": "CT", "1": "distance"}, {}])
def test_a_model_with_other_inputs_than_a_ct_is_refused(card: str, tmp_path: Path, channels: dict[str, str]) -> None:
    from ctfed.imaging.segment.weights import write_manifest

    folder = tmp_path / "Dataset010_Other"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps({"channel_names": channels, "labels": LABELS}))
    (folder / "plans.json").write_text("{}")
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    write_manifest(folder, "other")
    with pytest.raises(ConfigError, match="expected 'CT' as the one channel"):
        build(settings(card, folder))
