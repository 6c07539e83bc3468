"""Extraction settings: one sentence for what is wrong, one digest for what features depend on."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from ctfed.config import ConfigError
from ctfed.preparation import memory
from ctfed.preparation.columns import imaging_columns, unit
from ctfed.preparation.progress import Progress, duration
from ctfed.preparation.settings import ExtractionSettings, at_site, load_extraction
from ctfed.study import Name

SHIPPED = Path(__file__).parents[2] / "site_config" / "extraction"
BASE: dict[str, Any] = {
    "ctfed_extraction": 1,
    "name": "trial",
    "segmentation": [{"model": "given"}],
    "regions": {"lung": {"kernels": ["original", "rkn"]}, "tumour": {"shape": True}},
}


def load(folder: Path, **changes: Any) -> ExtractionSettings:
    path = folder / "extraction.yaml"
    path.write_text(yaml.safe_dump(BASE | changes, sort_keys=False))
    return load_extraction(path)


BAD = [
    ({"regions": {"liver": {}}}, r"regions\.liver: found 'liver', expected a mapping of lung, tumour"),
    ({"regions": {"lung": {"kernels": ["soft"]}}}, r"regions\.lung\.kernels\[0\]: found 'soft', expected a list of"),
    (
        {"regions": {"nodes": {"kernels": ["rkn"]}}},
        r"regions\.nodes\.kernels: found 'rkn' of nodes, expected it of lung",
    ),
    (
        {"regions": {"lung": {"calcium": True}}},
        r"regions\.lung\.calcium: found true of lung, expected it of coronaries",
    ),
    ({"radiomics": {"binwidth": 25}}, r"radiomics\.binwidth: found an unknown key.*did you mean 'bin_width'"),
    ({"radiomics": {"bin_width": 0}}, r"radiomics: found a mapping, expected something else: bins: found width 0"),
    ({"radiomics": {"bin_width": "wide"}}, r"radiomics\.bin_width: found 'wide', expected"),
    ({"kernel": {"sigmas": [2, 1]}}, r"kernel: found a mapping, expected something else: sigmas must be > 0 and rise"),
    ({"scan": {"slices": 4.5}}, r"scan\.slices: found 4\.5, expected"),
    (
        {"given": {"lung": {"patterns": ["("]}}},
        r"given\.lung\.patterns\[0\]: found '\(' .*expected a regular expression",
    ),
    ({"required": ["nodes"]}, r"required\[0\]: found 'nodes', expected a region that is measured"),
    ({"segmentation": [{"model": "threshold-lung"}]}, r"segmentation: found no source of tumour, expected a model"),
    (
        {
            "segmentation": [{"model": "threshold-lung"}],
            "regions": {"lung": {}},
            "given": {"lung": {"patterns": ["x"]}},
        },
        r"given: found names of masks, expected model: given among segmentation as well",
    ),
    ({"foundation": {"cubes": [51]}}, r"foundation\.cubes\[0\]: found 51, expected a list of even numbers"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD)
def test_a_wrong_value_gives_one_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **changes)
    assert len(caught.value.faults) == 1
    assert re.search(r"extraction\.yaml, line \d+: " + sentence, caught.value.faults[0])


def test_the_shipped_settings_load_with_their_columns() -> None:
    paper = load_extraction(SHIPPED / "pixels_to_prognosis.yaml")
    columns = imaging_columns(paper)
    groups: dict[str, int] = {}
    for column in columns:
        groups[column.group] = groups.get(column.group, 0) + 1
    assert groups == {
        "scan": 3,
        "lung.original": 93,
        "lung.rkn": 93,
        "tumour.original": 107,
        "tumour.rkn": 93,
        "nodes.original": 107,
        "coronaries.original": 93,
        "coronaries.calcium": 7,
        "fm50": 4096,
        "fm96": 4096,
        "fm128": 4096,
    }
    names = TypeAdapter(tuple[Name, ...])  # what a study file takes for a variable
    assert len(names.validate_python(tuple(column.name for column in columns))) == len(columns)
    assert load_extraction(SHIPPED / "phantom.yaml").foundation is None


def test_the_digest_covers_what_features_depend_on_and_nothing_else(tmp_path: Path) -> None:
    base = load(tmp_path).sha256
    assert load(tmp_path, files={"csv": True}).sha256 == base
    assert load(tmp_path, radiomics={"bin_width": 25}).sha256 == base  # a default that is written out
    assert load(tmp_path, regions=dict(reversed(BASE["regions"].items()))).sha256 == base
    settings = load(tmp_path)
    assert at_site(settings, tmp_path / "weights", "a licence").sha256 == base
    for changes in (
        {"radiomics": {"bin_width": 10}},
        {"kernel": {"erode": 1}},
        {"connectivity": 4},
        {"segmentation": [{"model": "given", "tumour": "all"}]},
        {"given": {"lung": {"patterns": ["x"]}}},
        {"scan": {"slices": 41}},
        {"required": ["tumour"]},
        {"foundation": {}},
    ):
        assert load(tmp_path, **changes).sha256 != base, changes


def test_a_site_adds_its_own_weights_and_licence(tmp_path: Path) -> None:
    paper = at_site(load_extraction(SHIPPED / "pixels_to_prognosis.yaml"), tmp_path, "number")
    found = {model.model: (model.weights, model.licence_number) for model in paper.segmentation}
    assert found == {
        "given": (None, None),
        "bamf-lung-nodule": (tmp_path / "bamf-lung-nodule", None),
        "mediastinal-nodes": (tmp_path / "mediastinal-nodes", None),
        "totalsegmentator-coronary-arteries": (tmp_path / "totalsegmentator-coronary-arteries", "number"),
    }
    assert paper.foundation is not None
    assert paper.foundation.weights == tmp_path / "fmcib"


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        ("original_shape_MeshVolume", "mm3"),
        ("original_shape_Maximum3DDiameter", "mm"),
        ("original_shape_Sphericity", "1"),
        ("original_firstorder_Variance", "HU2"),
        ("original_firstorder_90Percentile", "HU"),
        ("original_firstorder_TotalEnergy", "HU2 mm3"),
        ("original_firstorder_Entropy", "1"),
        ("original_glcm_Contrast", "1"),
    ],
)
def test_units(feature: str, expected: str) -> None:
    assert unit(feature) == expected


def test_memory_bounds_the_number_of_processes() -> None:
    needed = memory.per_patient(512 * 512 * 400, networks=False, foundation=False)
    assert 4 * memory.GIB < needed < 9 * memory.GIB
    assert memory.workers_that_fit(64, needed, free=64 * memory.GIB) == int(memory.SHARE * 64 * memory.GIB // needed)
    assert memory.workers_that_fit(64, needed, free=memory.GIB) == 1
    assert memory.workers_that_fit(2, needed, free=1000 * memory.GIB) == 2
    assert memory.available() > 0


def test_progress_says_how_long_the_rest_takes() -> None:
    now = [0.0]
    stream = io.StringIO()
    progress = Progress(4, stream, lambda: now[0])
    for seconds, computed, aside in (
        (0.0, False, False),
        (60.0, True, True),
        (61.0, True, False),
        (180.0, True, False),
    ):
        now[0] = seconds
        progress.advance(computed=computed, set_aside=aside)
    assert stream.getvalue().splitlines() == [
        "prepare: 1 of 4 patients",
        "prepare: 2 of 4 patients, 1 set aside, about 2 min left",
        "prepare: 4 of 4 patients, 1 set aside, in 3 min",
    ]
    assert [duration(s) for s in (40, 720, 12600, 190000)] == ["40 s", "12 min", "3.5 h", "2.2 days"]
