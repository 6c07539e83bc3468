"""Clinical sources: every form gives the same table; nothing is guessed; who cannot take part is named with a rule.

All tables here are SYNTHETIC.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ctfed.cohort import load_cohort
from ctfed.cohort.clinical_sources import ClinicalTable, load_dictionary, read_clinical
from ctfed.cohort.table import DataError
from ctfed.site import load_site
from ctfed.study import DAYS_PER_MONTH, load_study

SHIPPED = Path(__file__).parents[2] / "site_config" / "dictionary"

DATES: dict[str, Any] = {
    "ctfed_dictionary": 1,
    "name": "demo",
    "variables": {
        "age": {"type": "continuous", "unit": "years", "range": [18, 110], "impute": "median"},
        "female": {"type": "binary", "range": [0, 1], "impute": "mode"},
        "stage": {"type": "ordinal", "range": [1, 4], "levels": {1: "I", 2: "II", 3: "III", 4: "IV"}, "impute": "mode"},
    },
    "source": {
        "kind": "csv",
        "patient": "pid",
        "follow_up": {
            "start": {"column": "ct", "format": "%Y-%m-%d"},
            "last_contact": {"column": "seen", "format": "%Y-%m-%d"},
            "death": {"column": "died", "format": "%Y-%m-%d"},
            "event": {"column": "status", "codes": {"alive": 0, "dead": 1, "lost": None}},
        },
        "columns": {
            "age": "age",
            "female": {"column": "sex", "codes": {"M": 0, "F": 1}},
            "stage": {"column": "stage", "codes": {"I": 1, "II": 2, "III": 3, "IV": 4, "X": None}},
        },
    },
}
HEADER = ("pid", "ct", "seen", "died", "status", "age", "sex", "stage")
ROW = {
    "pid": "p1",
    "ct": "2018-01-01",
    "seen": "2019-01-01",
    "died": "",
    "status": "alive",
    "age": "61",
    "sex": "F",
    "stage": "II",
}
DEAD = {"status": "dead", "died": "2018-03-02", "seen": ""}

Read = Callable[..., ClinicalTable]


def table(*rows: dict[str, str]) -> str:
    lines = [",".join(HEADER)]
    lines += [",".join((ROW | {"pid": f"p{i}"} | row)[name] for name in HEADER) for i, row in enumerate(rows, start=1)]
    return "\n".join(lines) + "\n"


def changed(**source: Any) -> dict[str, Any]:
    content = copy.deepcopy(DATES)
    content["source"].update(source)
    return content


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(text: str, content: dict[str, Any] = DATES, unit: Any = "days") -> ClinicalTable:
        (tmp_path / "clinical.csv").write_text(text, encoding="utf-8")
        (tmp_path / "dictionary.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return read_clinical(tmp_path / "clinical.csv", load_dictionary(tmp_path / "dictionary.yaml"), unit)

    return read


def rules(found: ClinicalTable) -> dict[str, str]:
    return {entry.patient: entry.rule for entry in found.set_aside}


def test_dates_become_follow_up_and_codes_become_numbers(read: Read) -> None:
    found = read(table({}, DEAD, {"age": "", "stage": "X"}))
    assert list(found.frame.columns) == ["time", "event", "age", "female", "stage"]
    assert list(found.frame.index) == ["p1", "p2", "p3"]
    assert found.frame["time"].tolist() == [365.0, 60.0, 365.0]
    assert found.frame["event"].tolist() == [0, 1, 0]
    assert found.frame["stage"].tolist()[:2] == [2.0, 2.0]
    assert math.isnan(found.frame.loc["p3", "stage"])  # type: ignore[arg-type]
    assert math.isnan(found.frame.loc["p3", "age"])  # type: ignore[arg-type]
    assert found.set_aside == ()


def test_times_come_back_in_the_unit_that_is_asked_for(read: Read) -> None:
    assert read(table({}), unit="months").frame["time"].tolist() == [365.0 / DAYS_PER_MONTH]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ({"pid": ""}, "patient-missing"),
        ({"status": ""}, "event-missing"),
        ({"status": "lost"}, "event-missing"),
        ({"seen": ""}, "follow-up-missing"),
        ({"ct": ""}, "baseline-missing"),
        ({"ct": "2018-02-30"}, "date-impossible"),
        ({"seen": "0000-00-00"}, "date-impossible"),
        ({"seen": "March 2019"}, "date-impossible"),
        ({"seen": "2017-12-31"}, "follow-up-negative"),
        ({"seen": "2018-01-01"}, "follow-up-zero"),
        ({"seen": "2918-01-01"}, "follow-up-too-long"),
        ({"status": "dead"}, "death-date-missing"),
        ({"died": "2018-06-01"}, "event-contradicts-death"),
        (DEAD | {"seen": "2018-03-03"}, "contact-after-death"),
    ],
)
def test_a_patient_with_a_fault_is_set_aside_by_name_and_the_others_stay(
    read: Read, row: dict[str, str], rule: str
) -> None:
    found = read(table({}, row, DEAD))
    assert list(found.frame.index) == ["p1", "p3"]
    [aside] = found.set_aside
    assert (aside.rule, aside.row) == (rule, 3)
    assert "p2" not in aside.reason
    assert "20" not in aside.reason  # no date either


def test_all_rows_of_a_patient_who_stands_there_twice_are_set_aside(read: Read) -> None:
    found = read(table({}, {"pid": "p9"}, {}, {"pid": "p9", "age": "44"}))
    assert list(found.frame.index) == ["p1", "p3"]
    assert [(a.patient, a.rule, a.row) for a in found.set_aside] == [
        ("p9", "patient-duplicate", 3),
        ("p9", "patient-duplicate", 5),
    ]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            table({}, {"stage": "IIIc"}, {"stage": "?"}),
            ["column 'stage': found '?' in row 4, 'IIIc' in row 3, expected"],
        ),
        (table({"status": "tot"}, {}), ["column 'status': found 'tot' in row 2", "'alive' or 'dead' or 'lost'"]),
        (table({"age": "sixty"}), ["column 'age': found 'sixty' in row 2, expected a number"]),
        (table({"age": "610"}), ["column 'age': found '610' in row 2, expected 18 to 110 years"]),
        (table({}).replace("stage", "stadium"), ["column 'stage': found no such column, expected it"]),
        (table({}).replace("pid", "id"), ["column 'pid': found no such column, expected the patients"]),
        (table({"ct": "01.01.2018"}), ["column 'ct': found '01.01.2018' and no date of the format in any row"]),
        (table({"age": "x", "sex": "d"}), ["column 'age': found 'x'", "column 'sex': found 'd'"]),
    ],
)
def test_what_the_dictionary_does_not_explain_refuses_the_table(read: Read, text: str, sentences: list[str]) -> None:
    with pytest.raises(DataError) as error:
        read(text)
    for sentence in sentences:
        assert sentence in str(error.value)


def test_relative_days_count_from_the_baseline_that_all_share(read: Read) -> None:
    moments = {
        "last_contact": {"column": "seen", "unit": "days"},
        "death": {"column": "died", "unit": "months"},
    }
    rows = ({"seen": "400"}, {"seen": "", "died": "2"}, {"seen": "", "died": ""}, {"seen": "-3"})
    found = read(table(*rows), changed(follow_up=moments))
    assert found.frame["time"].tolist() == [400.0, 2 * DAYS_PER_MONTH]
    assert found.frame["event"].tolist() == [0, 1]
    assert rules(found) == {"p3": "follow-up-missing", "p4": "follow-up-negative"}
    moments["start"] = {"column": "ct", "unit": "days"}
    assert read(table({"ct": "-10", "seen": "400"}), changed(follow_up=moments)).frame["time"].tolist() == [410.0]


def test_a_stated_time_needs_a_stated_event(read: Read) -> None:
    stated = {"time": {"column": "seen", "unit": "months"}, "event": DATES["source"]["follow_up"]["event"]}
    rows = ({"seen": "12"}, {"seen": ""}, {"seen": "0"}, {"seen": "-1"}, {"seen": "9", "status": ""})
    found = read(table(*rows), changed(follow_up=stated))
    assert found.frame["time"].tolist() == [12 * DAYS_PER_MONTH]
    assert rules(found) == {
        "p2": "follow-up-missing",
        "p3": "follow-up-zero",
        "p4": "follow-up-negative",
        "p5": "event-missing",
    }


def test_a_factor_brings_numbers_to_the_variables_unit(read: Read) -> None:
    content = changed()
    content["source"]["columns"]["age"] = {"column": "age", "factor": 1 / 12}
    assert read(table({"age": "732"}), content).frame["age"].tolist() == [61.0]


def test_what_is_not_collected_is_a_column_of_missing_values(read: Read) -> None:
    content = changed(not_collected=["stage"])
    del content["source"]["columns"]["stage"]
    assert read(table({}), content).frame["stage"].isna().all()


def test_the_table_that_is_written_is_a_sites_table(read: Read, tmp_path: Path) -> None:
    found = read(table({}, DEAD, {"sex": "M", "age": "55.5"}, DEAD | {"stage": "X"}), unit="months")
    found.write_csv(tmp_path / "variables.csv")
    study = {
        "ctfed_study": 1,
        "name": "demo",
        "title": "A demonstration",
        "endpoint": {"name": "overall survival", "time_unit": "months"},
        "variables": DATES["variables"],
        "model": {"features": ["age", "stage"]},
        "penalty": {"penalizer": 0.1, "l1_ratio": 0.5},
        "split": {"test_fraction": 0.5},
        "evaluation": {"horizons": [6], "time_bin": 1},
    }
    site = {
        "ctfed_site": 1,
        "site": "a",
        "data": {"csv": "variables.csv"},
        "columns": {"id": "patient", "time": "time", "event": "event"},
        "time_unit": "months",
        "secret": "site.secret",
    }
    for name, content in (("study", study), ("site", site)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    cohort = load_cohort(load_site(tmp_path / "site.yaml"), load_study(tmp_path / "study.yaml"))
    np.testing.assert_array_equal(cohort.time, found.frame["time"].to_numpy())
    np.testing.assert_array_equal(cohort.event, found.frame["event"].to_numpy() == 1)
    for name in DATES["variables"]:
        np.testing.assert_array_equal(cohort.columns[name], found.frame[name].to_numpy())


def form(subject: str, **changes: Any) -> dict[str, Any]:
    """A subject in the layout of CHAIMELEON's eforms.json."""
    values = {
        "date_baseline_ct": "2018-01-01",
        "age_at_baseline": 66,
        "gender": "MALE",
        "smoking_status": "former",
        "ecog_performance_status": 1,
        "tumor_histotype": "adenocarcinoma",
        "clinical_stage_group": "III",
        "tumor_clinical_category": "T2",
        "regional_nodes_clinical_category": "N2",
        "metastasis_clinical_category": "M0",
        "pd_l1": None,
        "death_date": None,
    }
    organs = ("lung", "pleura", "lymph_nodes", "adrenal_gland", "liver", "brain", "bone", "other")
    values |= {f"metastasis_{organ}": False for organ in organs} | changes
    entries = {name: {"var_label": name, "value": value, "value_type": "text"} for name, value in values.items()}
    first = {name: entries.pop(name) for name in ("date_baseline_ct", "age_at_baseline")}
    pages = [
        {"page_name": "inclusion_criteria", "page_label": "SYNTHETIC", "page_data": first, "lists": []},
        {"page_name": "other", "page_label": "SYNTHETIC", "page_data": entries, "lists": []},
    ]
    return {"subjectName": subject, "eForm": {"metaproject": "SYNTHETIC", "pages": pages}}


def eforms(folder: Path, forms: list[dict[str, Any]], contacts: str) -> ClinicalTable:
    folder.mkdir(exist_ok=True)
    for name in ("pixels_to_prognosis.yaml", "chaimeleon_lung.yaml"):
        (folder / name).write_bytes((SHIPPED / name).read_bytes())
    (folder / "last_contact.csv").write_text("subjectName,last_contact\n" + contacts, encoding="utf-8")
    (folder / "eforms.json").write_text(json.dumps(forms, ensure_ascii=False), encoding="utf-8")
    return read_clinical(folder, load_dictionary(folder / "chaimeleon_lung.yaml"), "days")


def test_chaimeleons_forms_are_read_with_the_follow_up_that_the_centre_adds(tmp_path: Path) -> None:
    forms = [
        form("SYNTH1"),
        form("SYNTH2", death_date="2018-07-01", metastasis_brain=True, pd_l1=80.0, gender="FEMALE"),
        form("SYNTH3"),
        {"subjectName": "SYNTH4", "eForm": None},
        form("SYNTH5", regional_nodes_clinical_category="NX", smoking_status="unknown"),
        form("SYNTH6"),
    ]
    contacts = "SYNTH1,2020-01-01\nSYNTH5,2018-02-01\nSYNTH6,2019-01-01\nSYNTH6,2019-02-01\nELSE,2019-01-01\n"
    found = eforms(tmp_path, forms, contacts)
    frame = found.frame
    assert frame["time"].to_dict() == {"SYNTH1": 730.0, "SYNTH2": 181.0, "SYNTH5": 31.0}
    assert frame["event"].tolist() == [0, 1, 0]
    assert frame["female"].tolist() == [0, 1, 0]
    assert frame["pdl1"].tolist()[1] == 80
    assert frame["metastasis_brain"].tolist() == [0, 1, 0]
    assert frame["n_not_assessable"].tolist() == [0, 0, 1]
    assert math.isnan(frame.loc["SYNTH5", "n_category"])  # type: ignore[arg-type]
    assert math.isnan(frame.loc["SYNTH5", "smoking"])  # type: ignore[arg-type]
    assert frame["metastasis_muscle"].isna().all()
    assert rules(found) == {"SYNTH3": "follow-up-missing", "SYNTH4": "form-unreadable", "SYNTH6": "several-records"}


def test_a_forms_code_that_is_not_mapped_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'smoking_status': found 'occasionally' in row 1, expected 'never'"):
        eforms(tmp_path, [form("SYNTH1", smoking_status="occasionally")], "SYNTH1,2019-01-01\n")


def test_a_variable_on_two_pages_is_addressed_by_its_page(tmp_path: Path) -> None:
    entry = form("SYNTH1")
    entry["eForm"]["pages"][0]["page_data"]["gender"] = {"value": "FEMALE"}
    with pytest.raises(DataError, match=r"column 'gender': found no such column, .*did you mean 'other.gender'"):
        eforms(tmp_path, [entry], "SYNTH1,2019-01-01\n")
    content = yaml.safe_load((SHIPPED / "chaimeleon_lung.yaml").read_text())
    content["source"]["columns"]["female"]["column"] = "inclusion_criteria.gender"
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    found = read_clinical(tmp_path, load_dictionary(tmp_path / "own.yaml"))
    assert found.frame["female"].tolist() == [1]


@pytest.mark.parametrize("text", ["{", "[]", "{}", "[1]", "\x80"])
def test_what_is_not_a_list_of_forms_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "eforms.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match="expected a list of subjects"):
        read_clinical(tmp_path, load_dictionary(SHIPPED / "chaimeleon_lung.yaml"))


def test_the_platforms_own_sample_is_read(shared_data: Path, tmp_path: Path) -> None:
    forms = json.loads((shared_data / "platform" / "synthetic_eforms_lung.json").read_text())
    for entry in forms:
        pages = entry["eForm"]["pages"]
        organs = ("lung", "pleura", "lymph_nodes", "adrenal_gland", "liver", "brain", "bone", "other")
        pages[-1]["page_data"] |= {f"metastasis_{organ}": {"value": None} for organ in organs}
    found = eforms(tmp_path, forms, "SYNTH0001,2018-12-31\n")
    [row] = found.frame.to_dict("records")
    assert (row["age"], row["smoking"], row["stage"], row["time"], row["event"]) == (66, 1, 3, 364, 0)


def cdm(folder: Path, **files: str) -> ClinicalTable:
    content = {
        "clinical_mandatory_view.csv": "patient_id,dataset_id,patient_birth_sex,cancer_condition_age_at_diagnosis\n"
        "E1,SYNTHETIC,COM1001366,61\nE2,SYNTHETIC,COM1001370,72\nE3,SYNTHETIC,COM1001370,58\n",
        "patient.csv": "patient_id,patient_deceased,patient_date_of_last_contact\n"
        "E1,false,2020-01-11\nE2,true,2019-06-01\nE3,,2019-06-01\n",
        "cancer_condition.csv": "patient_id,cancer_condition_asserted_date\n"
        "E1,2020-01-01\nE2,2019-05-01\nE3,2019-05-01\n",
    } | files
    (folder / "clinical_data").mkdir(exist_ok=True)
    for name, text in content.items():
        (folder if "view" in name else folder / "clinical_data").joinpath(name).write_text(text)
    return read_clinical(folder, load_dictionary(SHIPPED / "eucaim_cdm.yaml"), "days")


def test_the_common_data_models_files_are_joined_on_the_patient(tmp_path: Path) -> None:
    found = cdm(tmp_path)
    assert found.frame["time"].to_dict() == {"E1": 10.0, "E2": 31.0}
    assert found.frame["event"].tolist() == [0, 1]
    assert found.frame["female"].tolist() == [0, 1]
    assert found.frame["age"].tolist() == [61, 72]
    assert rules(found) == {"E3": "event-missing"}


def test_two_cancers_of_one_patient_are_not_chosen_from(tmp_path: Path) -> None:
    # E1's two records differ in a column that the dictionary does not use.
    rows = "patient_id,id,cancer_condition_asserted_date\n"
    rows += "E1,1,2020-01-01\nE1,2,2020-01-01\nE2,3,2019-05-01\nE2,4,2011-05-01\n"
    found = cdm(tmp_path, **{"cancer_condition.csv": rows})
    assert found.frame["time"].to_dict() == {"E1": 10.0}
    assert rules(found) == {"E2": "several-records", "E3": "event-missing"}


def test_where_chooses_among_the_rows_of_a_table(tmp_path: Path) -> None:
    cdm(tmp_path)
    content = yaml.safe_load((SHIPPED / "eucaim_cdm.yaml").read_text())
    content["extends"] = str(SHIPPED / "pixels_to_prognosis.yaml")
    content["source"]["tables"]["cancer"]["where"] = {"type": "lung"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    rows = "patient_id,type,cancer_condition_asserted_date\nE2,lung,2019-05-01\nE2,skin,2011-05-01\n"
    (tmp_path / "clinical_data" / "cancer_condition.csv").write_text(rows)
    found = read_clinical(tmp_path, load_dictionary(tmp_path / "own.yaml"), "days")
    assert found.frame["time"].to_dict() == {"E2": 31.0}
    assert rules(found)["E1"] == "baseline-missing"


def test_lung1_as_published_is_read_whole(shared_data: Path) -> None:
    path = shared_data / "radiomics" / "lung1_clinical_and_seed.csv"
    found = read_clinical(path, load_dictionary(SHIPPED / "nsclc_radiomics.yaml"), "days")
    frame = found.frame
    assert len(frame) == 421
    assert found.set_aside == ()
    assert frame["event"].sum() == 373
    assert frame.loc["LUNG1-001", ["time", "event", "age", "stage", "female"]].tolist() == [2165, 1, 78.7515, 3, 0]
    assert frame["age"].isna().sum() == 22
    assert frame[["adenocarcinoma", "squamous_cell", "non_small_cell", "large_cell"]].sum().tolist() == [
        51,
        152,
        62,
        114,
    ]
