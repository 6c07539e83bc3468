"""Data dictionaries: those that ship are whole, and a wrong one is refused with file, line and key."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctfed.cohort.clinical_sources import load_dictionary, read_clinical
from ctfed.config import ConfigError
from ctfed.study import Study

SHIPPED = Path(__file__).parents[2] / "site_config" / "dictionary"
# Table 1 of the paper without event and time: 20 characteristics; categories without an order are one variable each.
TABLE_1 = {
    "Age": ["age"],
    "Gender": ["female"],
    "Packs year": ["pack_years"],
    "Smoking status": ["smoking"],
    "PDL1 expression value": ["pdl1"],
    "Clinical stage group": ["stage"],
    "ECOG performance status": ["ecog"],
    "Clinical metastasis staging": ["m_category"],
    "Clinical regional nodes staging": ["n_category", "n_not_assessable"],
    "Clinical tumor staging": ["t_category", "t_not_assessable"],
    "Personal cancer history": ["cancer_history"],
    "Tumor histotype": ["adenocarcinoma", "squamous_cell", "non_small_cell", "large_cell"],
    "Metastases": [
        f"metastasis_{organ}"
        for organ in ("adrenal", "bone", "brain", "liver", "lung", "lymph_nodes", "muscle", "pleura", "other")
    ],
}

OWN: dict[str, Any] = {
    "ctfed_dictionary": 1,
    "name": "own",
    "variables": {
        "age": {"type": "continuous", "unit": "years", "range": [18, 110], "impute": "median"},
        "female": {"type": "binary", "range": [0, 1], "impute": "mode"},
    },
    "source": {
        "kind": "csv",
        "patient": "pid",
        "follow_up": {
            "time": {"column": "days", "unit": "days"},
            "event": {"column": "dead", "codes": {"0": 0, "1": 1}},
        },
        "columns": {"age": "age", "female": "female"},
    },
}


def refused(tmp_path: Path, change: Any) -> str:
    content = copy.deepcopy(OWN)
    change(content)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError) as error:
        load_dictionary(tmp_path / "own.yaml")
    assert str(tmp_path) in str(error.value)
    return str(error.value)


def test_the_papers_table_is_whole() -> None:
    dictionary = load_dictionary(SHIPPED / "pixels_to_prognosis.yaml")
    assert list(dictionary.variables) == [name for names in TABLE_1.values() for name in names]
    assert all(variable.label for variable in dictionary.variables.values())


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_dictionary_that_ships_has_the_papers_variables(path: Path) -> None:
    dictionary = load_dictionary(path)
    assert list(dictionary.variables) == [name for names in TABLE_1.values() for name in names]
    assert (dictionary.source is None) == (path.stem == "pixels_to_prognosis")


def test_the_variables_fit_a_study_as_they_are() -> None:
    content = yaml.safe_load((SHIPPED / "pixels_to_prognosis.yaml").read_text())
    variables = {
        name: entry | ({"levels": {str(k): v for k, v in entry["levels"].items()}} if "levels" in entry else {})
        for name, entry in content["variables"].items()
    }
    study = Study.model_validate_json(
        json.dumps(
            {
                "ctfed_study": 1,
                "name": "p2p",
                "title": "Table 1",
                "endpoint": {"name": "overall survival", "time_unit": "months"},
                "variables": variables,
                "model": {"features": list(variables)},
                "penalty": {"penalizer": 0.1, "l1_ratio": 0.5},
                "split": {"test_fraction": 0.3},
                "evaluation": {"horizons": [60], "time_bin": 1},
            }
        )
    )
    assert dict(study.variables) == dict(load_dictionary(SHIPPED / "pixels_to_prognosis.yaml").variables)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["source"]["columns"].pop("age"), "source.columns: found nothing for age, expected a column"),
        (
            lambda c: c["source"]["columns"].update(sex="x"),
            "source.columns.sex: found 'sex', expected a name of variables",
        ),
        (lambda c: c["source"].update(not_collected=["age"]), "not_collected: found 'age', which has a column"),
        (lambda c: c["source"].pop("patient"), "source.patient: found nothing, expected the name of the column"),
        (lambda c: c["source"].update(kind="chaimeleon-eforms"), "source.patient: found a column, expected none"),
        (lambda c: c["source"].update(kind="eucaim-cdm"), "source.tables: found 0 tables, expected at least one"),
        (lambda c: c["source"]["follow_up"].pop("event"), "source.follow_up.event: found nothing, expected a mapping"),
        (lambda c: c["source"]["follow_up"].pop("time"), "source.follow_up.last_contact: found nothing, expected when"),
        (
            lambda c: c["source"]["follow_up"].update(start={"column": "ct", "format": "%Y"}),
            "source.follow_up.start: found a moment beside time",
        ),
        (
            lambda c: c["source"].update(follow_up={"last_contact": {"column": "l", "format": "%Y-%m-%d"}}),
            "source.follow_up.event: found nothing, expected a mapping: column, codes (or the moment of death)",
        ),
        (
            lambda c: c["source"].update(
                follow_up={
                    "last_contact": {"column": "l", "format": "%Y-%m-%d"},
                    "death": {"column": "d", "format": "%Y-%m-%d"},
                }
            ),
            "source.follow_up.start: found nothing, expected the baseline's date",
        ),
        (
            lambda c: c["source"].update(
                follow_up={"last_contact": {"column": "l", "unit": "days"}, "death": {"column": "d", "format": "%Y"}}
            ),
            "source.follow_up: found dates beside relative numbers",
        ),
        (
            lambda c: c["source"]["follow_up"]["event"].update(codes={"0": 0, "1": 2}),
            "source.follow_up.event.codes.1: found 2",
        ),
        (
            lambda c: c["source"]["columns"].update(age={"column": "age", "factor": 2, "codes": {"1": 1}}),
            "source.columns.age.factor: found a factor beside codes",
        ),
        (lambda c: c.pop("variables"), "expected at least one (or extends: a file)"),
        (lambda c: c.update(extends="absent.yaml"), "absent.yaml: found no readable file"),
        (lambda c: c.update(extends=str(SHIPPED / "pixels_to_prognosis.yaml")), "variables.age: found 'age', which"),
        (lambda c: c.update(extends=str(SHIPPED / "eucaim_cdm.yaml")), "which extends another itself"),
    ],
)
def test_a_wrong_dictionary_is_refused_with_its_key(tmp_path: Path, change: Any, sentence: str) -> None:
    assert sentence in refused(tmp_path, change)


def test_a_dictionary_without_a_source_reads_no_table(tmp_path: Path) -> None:
    dictionary = load_dictionary(SHIPPED / "pixels_to_prognosis.yaml")
    with pytest.raises(ConfigError, match=r"pixels_to_prognosis.yaml: source: found nothing, expected where"):
        read_clinical(tmp_path / "clinical.csv", dictionary)
