"""Published clinical tables become one table that the same dictionary reads back."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctfed.cli import main
from ctfed.cohort.clinical_sources import load_dictionary, read_clinical
from ctfed.cohort.table import DataError
from ctfed.config import ConfigError
from ctfed.tcia.clinical import Joined, find_dictionary, map_tables, read_mapped

LUNG1 = (
    "PatientID,age,clinical.T.Stage,Clinical.N.Stage,Clinical.M.Stage,Overall.Stage,Histology,gender,Survival.time,"
    """deadstatus.event
LUNG1-001,78.75,2,3,0,IIIb,large cell,male,2165,1
LUNG1-002,NA,2,0,0,I,NA,female,155,0
"""
)
RADIOGENOMICS = (
    "Case ID,Age at Histological Diagnosis,Gender,Smoking status,Pack Years,Histology ,Pathological T stage,"
    "Pathological N stage,Pathological M stage,Survival Status,Date of Death,Date of Last Known Alive,"
    """CT Date
R01-001,66,Male,Former,Not Collected,Squamous cell carcinoma,T2a,N0,M0,Dead,11/21/1994,11/21/1994,8/31/1994
AMC-001,34,Female,Nonsmoker,,Adenocarcinoma,Not Collected,Not Collected,Not Collected,Alive,,1/1/1996,1/1/1995
AMC-002,50,Female,Current,20,Adenocarcinoma,Tis,N1,M1b,Alive,,1/1/1996,
"""
)


@pytest.fixture
def tables(tmp_path: Path) -> list[tuple[Path, Path]]:
    (tmp_path / "lung1.csv").write_text(LUNG1)
    (tmp_path / "rg.csv").write_text(RADIOGENOMICS)
    return [
        (find_dictionary("NSCLC-Radiomics"), tmp_path / "lung1.csv"),
        (find_dictionary("nsclc_radiogenomics"), tmp_path / "rg.csv"),
    ]


def test_two_collections_are_one_table_of_the_studys_variables(tables: list[tuple[Path, Path]]) -> None:
    mapped = map_tables(tables)
    rows = mapped.frame.set_index("patient")
    assert list(rows.index) == ["LUNG1-001", "LUNG1-002", "R01-001", "AMC-001"]
    assert rows.loc["R01-001", ["time", "event", "female", "smoking", "t_category", "squamous_cell"]].tolist() == [
        82,  # 31 August to 21 November
        1,
        0,
        1,
        2,
        1,
    ]
    assert rows.loc["AMC-001", ["time", "event"]].tolist() == [365, 0]
    assert rows.loc["AMC-001", ["t_category", "pack_years", "stage"]].isna().all()
    assert rows.loc["LUNG1-001", ["stage", "n_category", "large_cell"]].tolist() == [3, 3, 1]
    assert mapped.set_aside == {("nsclc_radiogenomics", "baseline-missing"): 1}
    assert "pdl1" not in rows  # neither table has it


def test_the_table_and_its_dictionary_are_any_centres(tables: list[tuple[Path, Path]], tmp_path: Path) -> None:
    mapped = map_tables(tables)
    mapped.write(tmp_path / "out")
    again = read_clinical(
        tmp_path / "out" / "clinical.csv", load_dictionary(tmp_path / "out" / "dictionary.yaml"), "days"
    )
    assert not again.set_aside
    own = mapped.frame.set_index("patient")
    assert own[list(again.frame)].astype(float).equals(again.frame.astype(float))


def test_published_features_are_joined_by_name_or_pattern(tables: list[tuple[Path, Path]], tmp_path: Path) -> None:
    (tmp_path / "features.csv").write_text("ID,original_a,original_b,other\nR01-001,1.5,2,3\n")
    join = Joined(tmp_path / "features.csv", "ID", ("original_*",))
    frame = map_tables(tables, [join]).frame.set_index("patient")
    assert frame.loc["R01-001", ["original_a", "original_b"]].tolist() == [1.5, 2]
    assert frame.loc["LUNG1-001", ["original_a"]].isna().all()
    assert "other" not in frame
    for wrong, said in (
        (Joined(tmp_path / "features.csv", "Id"), "column 'Id': found no such column"),
        (Joined(tmp_path / "features.csv", "ID", ("wavelet*",)), "found no column like wavelet"),
    ):
        with pytest.raises(DataError, match=said):
            map_tables(tables, [wrong])


def test_what_cannot_be_is_refused_in_words(tables: list[tuple[Path, Path]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'LUNG1-001' in two tables"):
        map_tables([tables[0], tables[0]])
    with pytest.raises(ConfigError, match=r"'nsclc_radiomic'.*'nsclc_radiomics'"):
        find_dictionary("nsclc_radiomic")
    (tmp_path / "other.csv").write_text("patient,time\nA,1\n")
    with pytest.raises(Exception, match="column 'event': found no such column"):
        read_mapped(tmp_path / "other.csv")


def test_the_command_says_patients_events_and_who_was_set_aside(
    tables: list[tuple[Path, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [word for name, table in tables for word in ("--table", name.stem, str(table))]
    assert main(["tcia", "clinical", *arguments, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == [
        "nsclc_radiogenomics: 2 patients, 1 events",
        "nsclc_radiomics: 2 patients, 1 events",
        "set aside: nsclc_radiogenomics: 1 (baseline-missing)",
    ]


def test_the_real_lung1_table_has_421_patients_and_373_deaths(shared_data: Path) -> None:
    table = shared_data / "radiomics" / "lung1_clinical_and_seed.csv"
    mapped = map_tables([(find_dictionary("nsclc_radiomics"), table)])
    assert (len(mapped.frame), int(mapped.frame["event"].sum())) == (421, 373)
