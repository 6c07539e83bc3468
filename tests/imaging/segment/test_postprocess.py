"""Post-processing to the published intent, on phantoms; above all for a tumour of 40 mm."""

from __future__ import annotations

import numpy as np
import pytest

from ctfed.cohort.faults import CaseFault
from ctfed.imaging.segment import SegmenterSettings, build
from ctfed.imaging.segment.card import Cleaning
from ctfed.imaging.segment.postprocess import clean, components, keep_lungs, slice_axis
from ctfed.imaging.volume import IDENTITY, Volume

BAMF = Cleaning(smallest_tumour=3.0, second_lung=0.2)
SPACING = (1.0, 1.0, 2.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0)  # k runs to the back, j to the head


def volume(array: np.ndarray, direction: tuple[float, ...] = IDENTITY) -> Volume:
    return Volume(array.astype(bool), SPACING, direction=direction)


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], diameter: float) -> np.ndarray:
    """Voxels of a ball; centre and diameter in mm, z, y, x."""
    z, y, x = np.indices(shape)
    place = (z * SPACING[2] - centre[0], y * SPACING[1] - centre[1], x * SPACING[0] - centre[2])
    return np.asarray(sum(axis**2 for axis in place) <= (diameter / 2) ** 2)


@pytest.fixture(scope="module")
def phantom() -> dict[str, Volume]:
    """Two lungs with a tumour of 40 mm, a nodule of 10 mm and a speck of 2 mm; a bubble of air below."""
    shape = (60, 100, 160)
    lungs = np.zeros(shape, dtype=bool)
    lungs[5:55, 20:80, 10:70] = True
    lungs[5:55, 20:80, 90:150] = True
    large, small = ball(shape, (60, 50, 40), 40), ball(shape, (60, 50, 120), 10)
    speck = np.zeros(shape, dtype=bool)
    speck[20, 30, 100:102] = True
    bubble = np.zeros(shape, dtype=bool)
    bubble[0:3, 2:8, 2:8] = True
    tumour = large | small | speck
    return {
        "lung": volume((lungs & ~tumour) | bubble),
        "tumour": volume(tumour),
        "clean lungs": volume(lungs & ~(large | small)),
        "large": volume(large),
        "small": volume(small),
    }


def test_a_tumour_of_40_mm_stays_a_tumour_and_the_lung_a_lung(phantom: dict[str, Volume]) -> None:
    found = clean({"lung": phantom["lung"], "tumour": phantom["tumour"]}, BAMF, "all")
    assert np.array_equal(found.masks["tumour"].array, phantom["large"].array | phantom["small"].array)
    assert np.array_equal(found.masks["lung"].array, phantom["clean lungs"].array)
    first, second, third = found.tumours
    assert (first.kind, first.extent, first.kept) == ("mass", 41.0, True)
    assert first.volume == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.02)
    assert second.distance == pytest.approx(80.0, abs=1e-9)
    assert (second.kind, second.kept, third.kept) == ("nodule", True, False)
    assert "1 components below 3 mm in the plane were dropped" in found.notes[0]


def test_the_policy_largest_keeps_one_component_and_reports_all(phantom: dict[str, Volume]) -> None:
    found = clean({"lung": phantom["lung"], "tumour": phantom["tumour"]}, BAMF, "largest")
    assert np.array_equal(found.masks["tumour"].array, phantom["large"].array)
    assert np.array_equal(found.masks["lung"].array, phantom["clean lungs"].array)
    report = found.report()
    assert report["tumour_components"] == 3
    assert [part["kept"] for part in report["tumours"]] == [True, False, False]
    assert "the largest of 2 components was kept" in found.notes[1]


def test_the_lung_can_include_the_tumour_that_is_kept(phantom: dict[str, Volume]) -> None:
    masks = {"lung": phantom["lung"], "tumour": phantom["tumour"]}
    found = clean(masks, BAMF, "largest", lung_includes_tumour=True)
    assert np.array_equal(found.masks["lung"].array, phantom["clean lungs"].array | phantom["large"].array)


@pytest.mark.parametrize(("share", "kept"), [(0.19, 1), (0.2, 1), (0.21, 2)])
def test_the_second_lung_needs_more_than_a_fifth_of_the_first(share: float, kept: int) -> None:
    array = np.zeros((1, 12, 100), dtype=bool)
    array[0, 1, :] = True
    array[0, 5, : round(100 * share)] = True
    array[0, 9, :5] = True
    assert len(components(keep_lungs(volume(array), 0.2))[1]) == kept


@pytest.mark.parametrize(
    ("direction", "axis"), [(IDENTITY, 0), (CORONAL, 1), ((0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 1)]
)
def test_the_axial_plane_comes_from_the_direction(direction: tuple[float, ...], axis: int) -> None:
    assert slice_axis(volume(np.ones((2, 2, 2)), direction)) == axis


def test_the_extent_in_the_plane_ignores_the_height() -> None:
    """A rod of 2 mm along z is a speck however long; in isotropic spacing no guess from spacing could tell."""
    array = np.zeros((20, 20, 20), dtype=bool)
    array[2:18, 10, 10:12] = True
    rod = Volume(array, (1.0, 1.0, 1.0))
    assert components(rod)[1][0].extent == 2.0
    lying = Volume(array, (1.0, 1.0, 1.0), direction=CORONAL)
    assert components(lying)[1][0].extent == 16.0
    assert not clean({"tumour": rod}, BAMF, "all").masks["tumour"].array.any()


def test_components_of_equal_size_keep_their_order() -> None:
    array = np.zeros((1, 1, 9), dtype=bool)
    array[0, 0, [1, 2, 4, 5, 7]] = True
    labels, found = components(volume(array))
    assert labels.array[0, 0].tolist() == [0, 1, 1, 0, 2, 2, 0, 3, 0]
    assert [part.voxels for part in found] == [2, 2, 1]


def test_an_empty_tumour_is_missing_and_said() -> None:
    found = clean({"tumour": volume(np.zeros((2, 3, 4)))}, BAMF, "largest")
    assert found.tumours == ()
    assert found.report() == {}
    assert found.notes == ("tumour: found no voxel; the region is missing, its measures are missing too",)


def test_given_masks_follow_the_same_policy(phantom: dict[str, Volume]) -> None:
    image = phantom["tumour"].with_array(np.zeros(phantom["tumour"].shape, dtype=np.int16))
    found = build(SegmenterSettings(model="given"), {"tumour": phantom["tumour"]}).segment(image)
    assert np.array_equal(found.masks["tumour"].array, phantom["large"].array)
    assert found.provenance["model"] == "given"


def test_given_masks_on_another_grid_are_refused(phantom: dict[str, Volume]) -> None:
    image = Volume(np.zeros(phantom["tumour"].shape), SPACING, origin=(0.0, 0.0, 5.0))
    with pytest.raises(CaseFault) as caught:
        build(SegmenterSettings(model="given"), {"tumour": phantom["tumour"]}).segment(image)
    assert caught.value.rule == "mask-on-another-grid"
