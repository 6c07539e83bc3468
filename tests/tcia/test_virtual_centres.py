"""From a downloaded tree to centres that `ctfed prepare` and `ctfed simulate` take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctfed.cli import main
from ctfed.cohort import load_cohorts
from ctfed.cohort.scans import find_patients
from ctfed.phantom import PhantomCohort, write_cohort
from ctfed.site import load_site, site_files
from ctfed.study import load_study
from ctfed.tcia.patients import patients_of, read_folders

for library in ("pydicom", "highdicom", "SimpleITK", "radiomics", "pyarrow", "contourpy"):
    pytest.importorskip(library, reason="scans are read and measured: pip install ctfed[imaging]")

DEMO = Path(__file__).parents[2] / "site_config" / "studies" / "tcia_demo.yaml"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with scans in the archive's layout (RTSTRUCT and SEG) and clinical.csv of all six patients."""
    folder = tmp_path_factory.mktemp("tree")
    write_cohort(folder / "phantoms", PhantomCohort(patients=6, sites=3, matrix=64, seed=5))
    tables = []
    for letter in "abc":
        centre = folder / "phantoms" / f"phantom-{letter}"
        tables += ["--table", str(centre / "dictionary.yaml"), str(centre / "clinical.csv")]
    assert main(["tcia", "clinical", *tables, "--out", str(folder / "clinical")]) == 0
    return folder


@pytest.fixture(scope="module")
def centres(tree: Path) -> Path:
    """The same cut by manufacturer."""
    arguments = ["--clinical", str(tree / "clinical" / "clinical.csv"), "--by", "manufacturer", "--minimum", "2"]
    folder = ["--folder", str(tree / "phantoms")]
    assert main(["tcia", "partition", *folder, *arguments, "--out", str(tree / "centres")]) == 0
    return tree / "centres"


def test_a_downloaded_tree_tells_collection_scanner_kernel_and_institution(tree: Path) -> None:
    series = read_folders([tree / "phantoms"])
    patients = patients_of(series).set_index("patient")
    assert set(patients["collection"]) == {"CTFED-PHANTOM"}
    row = patients.loc["PHANTOM-A-0001"]
    assert (row["manufacturer"], row["kernel"], row["institution"]) == ("SIEMENS", "B30f", "SYNTHETIC phantom-a")
    assert row["series"] == 3  # scout, CT and RTSTRUCT
    assert series[series["modality"].isin(["SEG", "RTSTRUCT"])]["patient"].nunique() == 6
    files = list((tree / "phantoms").rglob("*.dcm"))
    assert series["images"].sum() == len(files)
    assert series["megabytes"].sum() * 1e6 == pytest.approx(sum(path.stat().st_size for path in files))


def test_idcs_layout_names_the_same_collection(tree: Path, tmp_path: Path) -> None:
    source = next((tree / "phantoms").rglob("PHANTOM-B-0001"))
    scan = next(path for path in source.rglob("*SYNTHETIC CT*") if path.is_dir())
    place = tmp_path / "some_collection" / "PHANTOM-B-0001" / "2.25.1" / "CT_2.25.2"
    place.parent.mkdir(parents=True)
    place.symlink_to(scan, target_is_directory=True)
    assert read_folders([tmp_path])["collection"].tolist() == ["some_collection"]
    assert read_folders([tmp_path / "some_collection"])["collection"].tolist() == ["some_collection"]


def test_each_centre_holds_its_own_scans_and_rows_and_no_others(tree: Path, centres: Path) -> None:
    assert [path.parent.name for path in site_files(centres)] == ["ge-medical-systems", "philips", "siemens"]
    seen: list[str] = []
    for file in site_files(centres):
        own = sorted(patient.patient for patient in find_patients(file.parent / "scans"))
        assert own == sorted(pd.read_csv(file.parent / "clinical.csv")["patient"])
        assert load_site(file).site == file.parent.name
        seen += own
    assert sorted(seen) == sorted(pd.read_csv(tree / "clinical" / "clinical.csv")["patient"])


def test_folds_are_the_same_for_everyone_who_cuts_with_the_same_seed(tree: Path, centres: Path, tmp_path: Path) -> None:
    common = ["tcia", "partition", "--folder", str(tree / "phantoms"), "--by", "manufacturer", "--minimum", "2"]
    common += ["--clinical", str(tree / "clinical" / "clinical.csv")]
    for seed in ("0", "1"):
        assert main([*common, "--seed", seed, "--out", str(tmp_path / seed)]) == 0
    secrets = [
        (folder / "philips" / "site.secret").read_bytes() for folder in (centres, tmp_path / "0", tmp_path / "1")
    ]
    assert secrets[0] == secrets[1] != secrets[2]


def test_a_prepared_centre_is_read_by_the_demo_study(centres: Path) -> None:
    site = centres / "siemens" / "site.yaml"
    assert main(["prepare", "--site", str(site), "--workers", "1"]) == 0
    cohort = load_cohorts(load_site(site), load_study(DEMO)).cohorts[0]
    assert cohort.patients == 2
    diameters = cohort.columns["tumour.original_shape_Maximum3DDiameter"]
    assert np.all((diameters > 10) & (diameters < 90))


def test_a_table_is_cut_with_a_column_and_one_site_file(tree: Path, tmp_path: Path) -> None:
    arguments = ["--clinical", str(tree / "clinical" / "clinical.csv"), "--by", "table", "--minimum", "2"]
    assert main(["tcia", "partition", *arguments, "--out", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert table["centre"].value_counts().to_dict() == {"phantom-a": 2, "phantom-b": 2, "phantom-c": 2}
    site = load_site(tmp_path / "out" / "site.yaml")
    assert site.partition is not None
    assert site.partition.by == "centre"


def test_what_cannot_be_is_refused_in_words(
    tree: Path, centres: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["tcia", "partition", "--clinical", str(tree / "clinical" / "clinical.csv"), "--by", "manufacturer"]
    folder = ["--folder", str(tree / "phantoms")]
    assert main([*common, *folder, "--out", str(centres)]) == 2
    assert "found files in it, expected an absent or empty folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([*common, "--folder", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 2
    assert "found no DICOM file" in capsys.readouterr().err
    assert main(["prepare", "--site", str(tmp_path / "empty")]) == 2
    assert "found no file CENTRE/site.yaml" in capsys.readouterr().err


def test_prepared_centres_are_cut_anew_without_measuring_again(centres: Path, tmp_path: Path) -> None:
    assert main(["prepare", "--site", str(centres), "--workers", "1"]) == 0
    draw = ["--by", "dirichlet", "--sites", "2", "--minimum", "3"]
    assert main(["tcia", "partition", "--prepared", str(centres), *draw, "--out", str(tmp_path / "out")]) == 0
    cohorts = load_cohorts(load_site(tmp_path / "out" / "site.yaml"), load_study(DEMO)).cohorts
    assert [cohort.patients for cohort in cohorts] == [3, 3]
    whole = [load_cohorts(load_site(file), load_study(DEMO)).cohorts[0] for file in site_files(centres)]
    name = "tumour.original_shape_Sphericity"
    assert np.array_equal(
        np.sort(np.concatenate([cohort.columns[name] for cohort in cohorts])),
        np.sort(np.concatenate([cohort.columns[name] for cohort in whole])),
    )
