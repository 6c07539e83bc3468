"""The sections of a site file for `ctfed prepare`, and for what it made."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctfed.config import ConfigError
from ctfed.site import Columns, load_site

PREPARED: dict[str, Any] = {
    "ctfed_site": 1,
    "site": "hospital-a",
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


def written(folder: Path, changes: dict[str, Any]) -> Path:
    document = copy.deepcopy(PREPARED)
    for key, value in changes.items():
        *path, last = key.split(".")
        here = document
        for part in path:
            here = here.setdefault(part, {})
        if value is None:
            del here[last]
        else:
            here[last] = value
    file = folder / "site.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file


def test_paths_are_beside_the_file_and_the_table_has_its_own_columns(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, {"prepare.weights": "/models"}))
    assert site.prepare is not None
    assert site.prepare.scans == tmp_path / "scans"
    assert site.prepare.local == tmp_path / "out" / "local"
    assert site.prepare.weights == Path("/models")
    assert site.columns == Columns(id="patient", time="time", event="event")
    assert site.time_unit == "days"


def test_the_licence_number_is_not_shown(tmp_path: Path) -> None:
    site = load_site(written(tmp_path, {"prepare.licence_number": "aca_secret"}))
    assert "aca_secret" not in repr(site)


def test_a_site_may_prepare_and_still_read_another_table(tmp_path: Path) -> None:
    columns = {"id": "pid", "time": "days", "event": "dead"}
    site = load_site(written(tmp_path, {"data": {"csv": "own.csv"}, "columns": columns, "time_unit": "days"}))
    assert site.data.csv == tmp_path / "own.csv"
    assert site.prepare is not None


BAD = [
    ({"prepare": None}, "prepare: found nothing, expected a mapping with scans and output, as data is prepared"),
    ({"prepare.scans": None}, "prepare.scans: found nothing, expected the path of the folder with the patients' scans"),
    ({"prepare.worker": 2}, "prepare.worker: found an unknown key, expected .*did you mean 'workers'"),
    ({"prepare.workers": 0}, "prepare.workers: found 0, expected a whole number from 1 to 1024"),
    ({"data.csv": "x.csv"}, "data.prepared: found true beside csv or package, expected one source of data"),
    ({"time_unit": "days"}, "time_unit: found it beside data.prepared, expected none"),
    ({"event_codes": {"dead": 1}}, "event_codes: found it beside data.prepared, expected none"),
    ({"columns": {"id": "a", "time": "b", "event": "c"}}, "columns: found it beside data.prepared, expected none"),
    ({"data": {"csv": "x.csv"}, "time_unit": "days"}, "columns: found nothing, expected a mapping: id, time, event"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD)
def test_a_wrong_value_gives_one_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_site(written(tmp_path, changes))
    assert len(caught.value.faults) == 1
    assert re.search(sentence, caught.value.faults[0])


def test_virtual_sites_prepare_nothing(tmp_path: Path) -> None:
    changes = {"site": None, "secret": None, "partition": {"by": "x"}, "fixture_secret": "x"}
    with pytest.raises(ConfigError, match="prepare: found it beside partition, expected none"):
        load_site(written(tmp_path, changes))
