"""A small clinical table with the study and site files that read it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctfed.site import Site, load_site
from ctfed.study import Study, load_study

STUDY: dict[str, Any] = {
    "ctfed_study": 1,
    "name": "demo",
    "title": "A demonstration",
    "endpoint": {"name": "overall survival", "time_unit": "months"},
    "variables": {
        "age": {"type": "continuous", "unit": "years", "range": [18, 110], "impute": "median"},
        "sex": {"type": "binary", "range": [0, 1], "impute": "mode"},
        "stage": {"type": "ordinal", "range": [1, 4], "levels": {1: "I", 2: "II", 4: "IV"}, "impute": "none"},
    },
    "model": {"features": ["age", "sex"]},
    "tuning": {"folds": 2},
    "split": {"test_fraction": 0.5},
    "evaluation": {"horizons": [6], "time_bin": 1},
}
SITE: dict[str, Any] = {
    "ctfed_site": 1,
    "site": "hospital-a",
    "data": {"csv": "clinical.csv"},
    "columns": {"id": "pid", "time": "days", "event": "dead"},
    "features": {"sex": {"column": "geschlecht", "codes": {"M": 0, "F": 1}}},
    "time_unit": "days",
    "secret": "site.secret",
}
TABLE = """pid,days,dead,age,geschlecht,stage,centre
p1,304.375,1,61,M,1,3
p2,608.75,0,72.5,F,2,3
p3,30.4375,1,55,F,4,12
p4,913.125,0,48,M,,12
"""


def _with(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(base)
    for key, value in changes.items():
        *path, last = key.split(".")
        here = document
        for part in path:
            here = here[part]
        if value is None:
            here.pop(last, None)
        else:
            here[last] = value
    return document


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Study]:
    """``study({'dotted.key': value})``: the demonstration study, changed; None removes a key."""

    def make(changes: dict[str, Any] | None = None) -> Study:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(_with(STUDY, changes or {})))
        return load_study(path)

    return make


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Site]:
    """``site(table=text or bytes, changes={...})``: the demonstration site with this table as its CSV file."""

    def make(table: str | bytes = TABLE, changes: dict[str, Any] | None = None) -> Site:
        data = table if isinstance(table, bytes) else table.encode()
        (tmp_path / "clinical.csv").write_bytes(data)
        path = tmp_path / "site.yaml"
        path.write_text(yaml.safe_dump(_with(SITE, changes or {})))
        return load_site(path)

    return make


@pytest.fixture
def table() -> str:
    """The demonstration table: four patients of two centres, one without a stage."""
    return TABLE
