"""The index that ships with idc-index-data, read offline."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ctfed.cli import main
from ctfed.federation.errors import CtfedError
from ctfed.tcia.index import collection_id, read_series
from ctfed.tcia.patients import patients_of

pytest.importorskip("idc_index_data", reason="the index of public collections: pip install ctfed[tcia]")


@pytest.fixture(scope="module")
def series() -> pd.DataFrame:
    return read_series(["NSCLC-Radiomics", "NSCLC Radiogenomics"])


def test_lung1_is_422_patients_of_three_makers_each_with_contours(series: pd.DataFrame) -> None:
    patients = patients_of(series).query("collection == 'nsclc_radiomics'")
    assert len(patients) == 422
    assert patients["manufacturer"].value_counts().to_dict() == {"SIEMENS": 324, "CMS, Inc.": 97, "Plastimatch": 1}
    assert (patients["masks"] >= 1).all()


def test_what_others_derived_is_left_out_unless_it_is_asked_for(series: pd.DataFrame) -> None:
    whole = read_series(["nsclc_radiomics"], analyses=True)
    assert set(whole["analysis"]) == {"", "nnu_net_bpr_annotations"}
    assert set(series["analysis"]) == {""}


def test_radiogenomics_tells_its_two_institutions_by_the_identifiers(series: pd.DataFrame) -> None:
    patients = patients_of(series).query("collection == 'nsclc_radiogenomics'")
    assert set(patients["institution"]) == {"R01", "AMC"}


def test_kernels_come_from_idcs_second_table(series: pd.DataFrame, tmp_path: Path) -> None:
    scan = series[(series["patient"] == "LUNG1-001") & (series["modality"] == "CT")]["series"].iloc[0]
    file = tmp_path / "ct_index.parquet"
    pd.DataFrame({"SeriesInstanceUID": [scan], "ConvolutionKernel": [["B19f"]]}).to_parquet(file)
    found = read_series(["nsclc_radiomics"], kernels=file)
    assert found.set_index("series")["kernel"].loc[scan] == "B19f"
    with pytest.raises(CtfedError, match="found no table with ConvolutionKernel"):
        read_series(["nsclc_radiomics"], kernels=Path(__file__))


def test_an_unknown_collection_is_named_with_the_closest() -> None:
    with pytest.raises(CtfedError, match=r"'nsclc_radiomcs' in the index .* 'nsclc_radiomics'"):
        read_series(["NSCLC-Radiomcs"])
    assert collection_id("NSCLC Radiogenomics") == "nsclc_radiogenomics"


def test_a_plan_shows_collections_and_virtual_centres(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tcia", "plan", "--collection", "NSCLC-Radiomics", "--by", "model", "--minimum", "20"]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("nsclc_radiomics"))
    assert row.split()[1:5] == ["422", "422", "1265", "422"]
    assert "CC BY-NC 3.0" in row
    centres = {line.split()[0]: int(line.split()[1]) for line in said.split("virtual centres")[1].splitlines()[2:]}
    assert centres == {
        "biograph-40": 184,
        "sensation-open": 111,
        "xio": 97,
        "sensation-16": 25,
        "other-centres": 5,
    }


def test_a_dry_run_says_what_would_be_fetched(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["tcia", "download", "--collection", "NSCLC-Radiomics", "--patients", "LUNG1-001", "--dry-run"]
    assert main([*arguments, "--out", str(tmp_path / "scans")]) == 0
    assert capsys.readouterr().out.startswith("1 patients, 3 series, 0.0")
    assert not (tmp_path / "scans").exists()
    assert main([*arguments[:-3], "--patients", "LUNG1-999", "--out", str(tmp_path)]) == 2
