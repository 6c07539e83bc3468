"""Lungs without weights: on a phantom of known truth, on a real thorax, and honest about what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctfed.cohort.faults import CaseFault
from ctfed.imaging.segment import SegmenterSettings, build
from ctfed.imaging.volume import Volume

pytest.importorskip("SimpleITK", reason="SimpleITK is not installed (pip install ctfed[imaging])")


def body() -> tuple[Volume, np.ndarray]:
    """A phantom: body in air, two lungs with vessels and an inner nodule, stomach gas; and the lungs' truth."""
    z, y, x = np.indices((30, 80, 120))
    hu = np.full(z.shape, -1000.0)
    hu[((y - 40) / 34) ** 2 + ((x - 60) / 54) ** 2 <= 1] = 40.0
    lungs = (((y - 40) / 22) ** 2 + ((x - 35) / 18) ** 2 <= 1) | (((y - 40) / 22) ** 2 + ((x - 85) / 18) ** 2 <= 1)
    lungs &= z >= 4
    hu[lungs] = -850.0
    hu[:, 40, 35] = 30.0  # a vessel along z
    hu[(z - 15) ** 2 + (y - 40) ** 2 + (x - 85) ** 2 <= 9] = 20.0
    hu[1:3, 30:36, 40:46] = -950.0
    return Volume(hu, (2.0, 2.0, 3.0)), lungs


def test_a_phantoms_lungs_are_found_with_vessels_and_nodules() -> None:
    image, truth = body()
    found = build(SegmenterSettings(model="threshold-lung")).segment(image)
    mask = found.masks["lung"].array
    assert np.array_equal(mask & truth, truth)
    assert (mask & ~truth).sum() <= 0.01 * truth.sum()
    assert "not by a trained model" in found.notes[0]
    assert found.provenance["model"] == "threshold-lung"


def test_turned_axes_make_no_difference() -> None:
    image, _ = body()
    expected = build(SegmenterSettings(model="threshold-lung")).segment(image).masks["lung"]
    # The same voxels stored with z first reversed and x and z swapped.
    turned = Volume(
        np.ascontiguousarray(image.array.transpose(2, 1, 0)[:, :, ::-1]),
        (image.spacing[2], image.spacing[1], image.spacing[0]),
        origin=(0.0, 0.0, image.spacing[2] * (image.shape[0] - 1)),
        direction=(0.0, 0.0, 1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0),
    )
    found = build(SegmenterSettings(model="threshold-lung")).segment(turned).masks["lung"]
    assert np.array_equal(found.array[:, :, ::-1].transpose(2, 1, 0), expected.array)


def test_no_lungs_are_a_missing_region() -> None:
    hu = np.full((4, 20, 20), -1000.0)
    hu[:, 5:15, 5:15] = 40.0
    found = build(SegmenterSettings(model="threshold-lung")).segment(Volume(hu, (1.0, 1.0, 1.0)))
    assert not found.masks["lung"].array.any()
    assert any("the region is missing" in note for note in found.notes)


@pytest.mark.parametrize(
    ("value", "rule"), [(np.nan, "image-not-finite"), (np.inf, "image-not-finite"), (40.0, "image-without-contrast")]
)
def test_scans_that_no_model_can_use_are_named(value: float, rule: str) -> None:
    hu = np.full((3, 4, 5), 40.0)
    hu[1, 1, 1] = value
    with pytest.raises(CaseFault) as caught:
        build(SegmenterSettings(model="threshold-lung")).segment(Volume(hu, (1.0, 1.0, 1.0)))
    assert caught.value.rule == rule


@pytest.mark.slow
def test_lungs_of_lung1_001_are_near_the_published_contours(lung1_001_folder: Path) -> None:
    """The tumour touches the wall and is not air, so the two cannot agree fully."""
    pytest.importorskip("pydicom", reason="pydicom is not installed (pip install ctfed[imaging])")
    from ctfed.cohort.scans import choose_series, find_patients, read_masks, read_scan

    patient = find_patients(lung1_001_folder)[0]
    choice = choose_series(patient)
    scan = read_scan(choice.series)
    contours = [read_masks(patient, choice, scan, {"lung": name})["lung"] for name in ("Lung-Left", "Lung-Right")]
    truth = contours[0].array | contours[1].array
    found = build(SegmenterSettings(model="threshold-lung")).segment(scan.volume).masks["lung"].array
    dice = 2.0 * float((found & truth).sum()) / float(found.sum() + truth.sum())
    assert dice > 0.94
