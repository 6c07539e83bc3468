"""Model cards: what ctfed brings is whole, and a model's own label names decide what its numbers mean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ctfed.config import ConfigError
from ctfed.imaging.segment import REGIONS, SegmenterSettings, build, card_names, load_card
from ctfed.imaging.segment.card import region_labels

NAMES = {"lung": ("lung",), "tumour": ("nodule", "large nodule")}


@pytest.mark.parametrize("name", card_names())
def test_every_card_says_licence_source_and_its_own_name(name: str) -> None:
    card = load_card(name)
    assert card.name == name
    assert all((card.licence.code, card.licence.weights, card.source, card.reference))
    assert set(card.regions) <= set(REGIONS)


def test_numbers_come_from_the_models_own_labels() -> None:
    found = region_labels(
        {"labels": {"background": 0, "Nodule": 1, "Large_Nodule": 5, "LUNG": 2}}, NAMES, (), "dataset.json"
    )
    assert found == {"lung": (2,), "tumour": (1, 5)}


def test_labels_of_overlapping_regions_are_lists_of_numbers() -> None:
    labels = {"background": 0, "lung": [1, 2], "nodule": [2], "ignore": 3}
    assert region_labels({"labels": labels}, NAMES, (), "dataset.json") == {"lung": (1, 2), "tumour": (2,)}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"background": 0, "lung": 1}, "expected one of nodule or large nodule"),
        ({"background": 0, "lung": 1, "nodule": 2, "heart": 3}, "found 'heart', expected every label in a region"),
        ({"background": 0, "lung": "1", "nodule": 2}, "labels.lung: found '1', expected whole numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused_by_name(labels: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        region_labels({"labels": labels}, NAMES, (), "dataset.json")


def test_an_unused_label_is_allowed_when_it_is_declared() -> None:
    labels = {"background": 0, "lung": 1, "nodule": 2, "heart": 3}
    assert region_labels({"labels": labels}, NAMES, ("Heart",), "d")["lung"] == (1,)


def test_a_name_in_two_regions_is_refused(tmp_path: Path) -> None:
    text = (Path(build.__code__.co_filename).parent / "cards" / "bamf-lung-nodule.yaml").read_text()
    path = tmp_path / "own.yaml"
    path.write_text(text.replace("lung: [lung, ", "lung: [lung, nodule, "))
    with pytest.raises(ConfigError, match="'nodule' in lung too, expected it in one region"):
        load_card(str(path))


def test_an_unknown_model_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'threshold-lung'"):
        build(SegmenterSettings(model="treshold-lung"))


def test_a_model_that_does_not_segment_is_refused() -> None:
    with pytest.raises(ConfigError, match="engine 'fmcib', which does not segment"):
        build(SegmenterSettings(model="fmcib"))


def test_importing_the_back_ends_imports_no_heavy_library() -> None:
    code = (
        "import sys, ctfed.imaging.segment, ctfed.imaging.segment.nnunet, ctfed.imaging.segment.totalseg, "
        "ctfed.imaging.foundation; "
        "print(sorted({'torch', 'SimpleITK', 'nnunetv2', 'totalsegmentator', 'monai', 'nibabel'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
