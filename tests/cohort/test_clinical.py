"""Clinical tables: wrong ones are refused in words, patients without an endpoint are set aside, nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from ctfed.cohort import DataError, Exclusion, load_cohort, load_cohorts
from ctfed.config import ConfigError
from ctfed.site import Site, load_site
from ctfed.study import Study, load_study

MakeStudy = Callable[..., Study]
MakeSite = Callable[..., Site]
SHIPPED = Path(__file__).parents[2] / "site_config"

HEADER = "pid,days,dead,age,geschlecht,stage,centre\n"
ROW = "{0},300,1,61,M,1,3\n"


def rows(*changes: dict[str, str]) -> str:
    """A table with one row per mapping of column to cell; the other cells are fine."""
    names = HEADER.strip().split(",")
    lines = []
    for i, change in enumerate(changes):
        cells = dict(zip(names, ROW.format(f"p{i + 1}").strip().split(","), strict=True)) | change
        lines.append(",".join(cells[name] for name in names))
    return HEADER + "\n".join(lines) + "\n"


# table, column that is named (None: the whole table), what is found, what is expected
BAD = [
    (rows({"age": "sixty"}), "age", "'sixty' in row 2", "a number"),
    (rows({}, {"age": "61"}, {"age": "6l"}), "age", "'6l' in row 4", "a number"),
    (rows({"age": "1_0"}), "age", "'1_0' in row 2", "a number"),
    (rows({"age": '"61,5"'}), "age", "'61,5' in row 2", "a number (set data.decimal: ','?)"),
    (rows({"age": "inf"}), "age", "'inf' in row 2", "a finite number"),
    (rows({"age": "-Infinity"}), "age", "'-Infinity' in row 2", "a finite number"),
    (rows({"age": "1e999"}), "age", "'1e999' in row 2", "a finite number"),
    (rows({"age": "17"}, {}, {"age": "111"}), "age", "'17' in rows 2 and 4", "18 to 110 years"),
    (rows(*[{"age": "6"}] * 5), "age", "'6' in rows 2, 3, 4 and 2 more", "18 to 110 years"),
    (rows({"stage": "3"}), "stage", "'3' in row 2", "one of 1, 2, 4"),
    (rows({"geschlecht": "W"}, {}, {"geschlecht": "W"}), "geschlecht", "'W' in rows 2 and 4", "'F' or 'M' as in"),
    (rows({"geschlecht": "W"}, {"geschlecht": "D"}), "geschlecht", "'D' in row 3, 'W' in row 2", "as in features.sex"),
    (rows(*[{"geschlecht": c} for c in "uvwxyz"]), "geschlecht", "'u' in row 2", "'F' or 'M'"),
    (rows({"days": "0"}), "days", "'0' in row 2", "a follow-up time > 0"),
    (rows({}, {"days": "-3"}), "days", "'-3' in row 3", "a follow-up time > 0"),
    (rows({"days": "36526"}), "days", "'36526' in row 2", "at most 100 years (time_unit is 'days')"),
    (rows({"days": "inf"}), "days", "'inf' in row 2", "a finite number"),
    (rows({"dead": "2"}), "dead", "'2' in row 2", "0 or 1 (other codes go into event_codes)"),
    (rows({"dead": "yes"}, {"dead": "no"}), "dead", "'no' in row 3, 'yes' in row 2", "0 or 1"),
    (rows({}, {"pid": "p1"}), "pid", "'p1' in rows 2 and 3", "each patient once"),
    (HEADER, None, "no rows below the header", "patients"),
    (HEADER + ",,,,,,\n\n", None, "no rows below the header", "patients"),
    ("", None, "no header", "names of columns in the first row"),
    (rows({}).replace("stage", "age"), "age", "twice in the header", "once"),
    (rows({}, {}).replace("M,1,3\n", "M,1\n", 1), None, "6 cells in row 2", "7 as in the header"),
    (rows({}, {}).replace("M,1,3", "M,1,3,,"), None, "9 cells in row 2 (and in 1 more rows)", "7 as in the header"),
    (rows({}).replace(",", ";"), None, "one column", "columns between ',' (set data.separator: ';'?)"),
    (
        rows({"days": ""}, {"dead": "NA"}),
        None,
        "no patient who can take part (row 2: the follow-up time",
        "at least one",
    ),
]


@pytest.mark.parametrize(("text", "column", "found", "expected"), BAD)
def test_a_wrong_table_gives_one_sentence(
    site: MakeSite, study: MakeStudy, tmp_path: Path, text: str, column: str | None, found: str, expected: str
) -> None:
    with pytest.raises(DataError) as caught:
        load_cohort(site(text), study())
    assert len(caught.value.faults) == 1
    [fault] = caught.value.faults
    subject, _, rest = fault.partition("found ")
    where = f"{tmp_path / 'clinical.csv'}: "
    assert subject == (where if column is None else f"{where}column {column!r}: ")
    assert rest.startswith(found)
    assert expected in rest.split(", expected ")[-1]


@pytest.mark.parametrize("column", ["pid", "days", "dead", "age", "geschlecht", "stage"])
def test_a_missing_column_is_named_with_the_closest(
    site: MakeSite, study: MakeStudy, table: str, tmp_path: Path, column: str
) -> None:
    with pytest.raises(DataError) as caught:
        load_cohort(site(table.replace(column, column.upper(), 1)), study())
    where = f"{tmp_path / 'clinical.csv'}: column {column!r}: found no such column, expected it"
    assert str(caught.value) == f"{where} (did you mean '{column.upper()}'?)"


def test_all_faults_of_a_table_are_listed(site: MakeSite, study: MakeStudy) -> None:
    text = rows({"age": "x", "dead": "9"}, {"days": "-1", "stage": "7"})
    with pytest.raises(DataError) as caught:
        load_cohort(site(text), study())
    named = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert named == ["column 'days'", "column 'dead'", "column 'age'", "column 'stage'"]


def test_many_unknown_codes_are_counted(site: MakeSite, study: MakeStudy) -> None:
    with pytest.raises(DataError, match=r"'y' in row 6 and 1 more codes, expected 'F' or 'M'"):
        load_cohort(site(rows(*[{"geschlecht": code} for code in "uvwxyz"])), study())


def test_a_code_that_decodes_outside_the_range_shows_both(site: MakeSite, study: MakeStudy, table: str) -> None:
    codes = {"column": "geschlecht", "codes": {"M": 1, "F": 2}}
    with pytest.raises(
        DataError, match=r"found 'F' \(decoded as 2\) in row 3, expected one of 0, 1 for variable 'sex'"
    ):
        load_cohort(
            site(table.replace("p3,30.4375,1,55,F", "p3,30.4375,1,55,M"), {"features": {"sex": codes}}), study()
        )


@pytest.mark.parametrize(
    ("data", "line", "found"),
    [
        (b"pid,days\n\xe9,1\n", ", line 2", "a byte that is not UTF-8"),
        (b'pid,days\na,1\n"b"c,2\n', ", line 3", "invalid CSV"),
        (b'pid,days\n"b,2\n', ", line 2", "invalid CSV"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_with_its_line(
    site: MakeSite, study: MakeStudy, tmp_path: Path, data: bytes, line: str, found: str
) -> None:
    with pytest.raises(DataError) as caught:
        load_cohort(site(data), study())
    assert str(caught.value).startswith(f"{tmp_path / 'clinical.csv'}{line}: found {found}")


def test_a_table_that_is_absent_is_named(site: MakeSite, study: MakeStudy, tmp_path: Path) -> None:
    described = site()
    (tmp_path / "clinical.csv").unlink()
    with pytest.raises(
        DataError, match=r"clinical\.csv: found no readable file \(No such file or directory\), expected"
    ):
        load_cohort(described, study())


def test_the_cohort_holds_what_the_table_says(site: MakeSite, study: MakeStudy) -> None:
    cohort = load_cohort(site(), study())
    assert cohort.site == "hospital-a"
    assert cohort.time.tolist() == [10.0, 20.0, 1.0, 30.0]
    assert cohort.event.tolist() == [True, False, True, False]
    assert list(cohort.columns) == ["age", "sex", "stage"]
    assert cohort.columns["age"].tolist() == [61.0, 72.5, 55.0, 48.0]
    assert cohort.columns["sex"].tolist() == [0.0, 1.0, 1.0, 0.0]
    np.testing.assert_array_equal(cohort.columns["stage"], [1.0, 2.0, 4.0, np.nan])
    assert set(cohort.stratum) == set(cohort.batch) == {"hospital-a"}
    assert sorted(cohort.split[cohort.event]) == sorted(cohort.split[~cohort.event]) == ["test", "train"]
    assert sorted(cohort.fold) == [-1, -1, 0, 1]


@pytest.mark.parametrize(
    ("table_unit", "study_unit", "expected"),
    [
        ("days", "days", 304.375),
        ("days", "months", 10.0),
        ("months", "months", 304.375),
        ("months", "days", 9264.4140625),
    ],
)
def test_times_are_converted_to_the_studys_unit(
    site: MakeSite, study: MakeStudy, table_unit: str, study_unit: str, expected: float
) -> None:
    described = site(changes={"time_unit": table_unit})
    assert load_cohort(described, study({"endpoint.time_unit": study_unit})).time[0] == expected


def test_patients_without_an_endpoint_are_set_aside_with_a_reason(site: MakeSite, study: MakeStudy) -> None:
    text = rows({}, {"days": ""}, {"dead": " NA "}, {"pid": ""}, {"age": "NaN", "geschlecht": "null"}, {"pid": "n/a"})
    loaded = load_cohorts(site(text), study())
    assert loaded.exclusions == (
        Exclusion(3, "the follow-up time is missing"),
        Exclusion(4, "the event is missing"),
        Exclusion(5, "the patient's identifier is missing"),
        Exclusion(7, "the patient's identifier is missing"),
    )
    [cohort] = loaded.cohorts
    np.testing.assert_array_equal(cohort.columns["age"], [61.0, np.nan])
    np.testing.assert_array_equal(cohort.columns["sex"], [0.0, np.nan])
    assert loaded.notes == ()


def test_a_feature_that_is_not_imputed_must_be_there(site: MakeSite, study: MakeStudy) -> None:
    demanding = study({"model.features": ["age", "stage"]})
    loaded = load_cohorts(site(), demanding)
    assert loaded.exclusions == (Exclusion(5, "stage is missing and the study does not impute it"),)
    assert loaded.cohorts[0].patients == 3
    assert load_cohorts(site(), study()).exclusions == ()  # the other study's model does not use it


def test_a_row_number_counts_empty_rows_as_a_spreadsheet_does(site: MakeSite, study: MakeStudy) -> None:
    text = rows({}, {"days": ""}).replace("p2", "\n,,,,,,\np2")
    assert load_cohorts(site(text), study()).exclusions == (Exclusion(5, "the follow-up time is missing"),)


def test_a_cell_may_hold_line_breaks_and_a_mark_for_byte_order(site: MakeSite, study: MakeStudy) -> None:
    text = "\ufeff" + rows({"pid": '"two\nlines"'}, {"pid": "p\u2028q"}, {"days": "x"})
    with pytest.raises(DataError, match="column 'days': found 'x' in row 4, expected a number") as caught:
        load_cohort(site(text), study())
    assert len(caught.value.faults) == 1


def test_other_separators_and_decimal_marks(site: MakeSite, study: MakeStudy, table: str) -> None:
    text = table.replace(",", ";").replace(".", ",")
    described = site(text, {"data": {"csv": "clinical.csv", "separator": ";", "decimal": ","}})
    assert load_cohort(described, study()).time.tolist() == [10.0, 20.0, 1.0, 30.0]


def test_a_site_names_its_own_texts_for_missing(site: MakeSite, study: MakeStudy) -> None:
    described = site(rows({"age": "Unknown"}, {"stage": "999"}, {}), {"missing": ["unknown", "999"]})
    cohort = load_cohort(described, study())
    assert np.isnan(cohort.columns["age"]).tolist() == [True, False, False]
    assert np.isnan(cohort.columns["stage"]).tolist() == [False, True, False]


def test_codes_match_however_whole_numbers_are_spelled_and_win_over_missing(site: MakeSite, study: MakeStudy) -> None:
    codes = {"sex": {"column": "geschlecht", "codes": {1: 0, "none": 1}}}
    text = rows({"geschlecht": "1.0", "dead": "1.0"}, {"geschlecht": "none", "dead": "0.0"}, {"geschlecht": "NA"})
    cohort = load_cohort(site(text, {"features": codes}), study())
    np.testing.assert_array_equal(cohort.columns["sex"], [0.0, 1.0, np.nan])
    assert cohort.event.tolist() == [True, False, True]


def test_event_codes_are_the_sites_own(site: MakeSite, study: MakeStudy, tmp_path: Path) -> None:
    codes = {"alive": 0, "dead": 1, "lost": 0}
    text = rows({"dead": "alive"}, {"dead": "dead"}, {"dead": "lost"}, {"dead": ""})
    assert load_cohort(site(text, {"event_codes": codes}), study()).event.tolist() == [False, True, False]
    with pytest.raises(DataError) as caught:
        load_cohort(site(rows({"dead": "Dead"}), {"event_codes": codes}), study())
    wanted = "column 'dead': found 'Dead' in row 2, expected 'alive' or 'dead' or 'lost' as in event_codes"
    assert str(caught.value) == f"{tmp_path / 'clinical.csv'}: {wanted}"


def test_warnings_do_not_stop_a_site(site: MakeSite, study: MakeStudy) -> None:
    text = rows({"dead": "0", "stage": "", "age": "50"}, {"dead": "0", "stage": "", "age": "60"})
    loaded = load_cohorts(site(text), study())
    assert loaded.warnings == (
        "hospital-a: found no event among 2 patients",
        "hospital-a: variable 'sex' is 0 for all 2 patients who have it",
        "hospital-a: variable 'stage' is missing for all 2 patients",
    )
    assert loaded.cohorts[0].patients == 2


def test_the_split_can_be_a_column(site: MakeSite, study: MakeStudy) -> None:
    by_column = study({"split": {"column": "stage"}, "variables.stage": None})
    loaded = load_cohorts(
        site(rows({"stage": "train"}, {"stage": "test"}, {"stage": "train"}, {"stage": ""})), by_column
    )
    assert loaded.cohorts[0].split.tolist() == ["train", "test", "train"]
    assert loaded.cohorts[0].fold[1] == -1
    assert sorted(loaded.cohorts[0].fold[[0, 2]]) == [0, 1]
    assert loaded.exclusions == (Exclusion(5, "the split is missing"),)
    with pytest.raises(DataError, match="column 'stage': found 'Train' in row 2, expected 'train' or 'test'"):
        load_cohort(site(rows({"stage": "Train"})), by_column)


def test_folds_follow_the_patients_not_the_rows(site: MakeSite, study: MakeStudy) -> None:
    text = rows(*[{"dead": str(i % 2), "age": str(20 + i)} for i in range(30)])
    turned = HEADER + "\n".join(reversed(text.strip().split("\n")[1:])) + "\n"
    forwards, backwards = load_cohort(site(text), study()), load_cohort(site(turned), study())
    assert forwards.fold.tolist() == backwards.fold[::-1].tolist()
    assert forwards.split.tolist() == backwards.split[::-1].tolist()
    assert forwards.columns["age"].tolist() == backwards.columns["age"][::-1].tolist()


def test_a_site_file_must_fit_the_study(site: MakeSite, study: MakeStudy, tmp_path: Path) -> None:
    described = site(changes={"features": {"agee": "age"}})
    with pytest.raises(ConfigError) as caught:
        load_cohort(described, study())
    wanted = "features.agee: found 'agee', expected a variable of study 'demo' (did you mean 'age'?)"
    assert str(caught.value) == f"{tmp_path / 'site.yaml'}: {wanted}"


def test_a_site_outside_the_roster_is_refused(site: MakeSite, study: MakeStudy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_cohort(site(), study({"sites": ["hospital-b", "hospital-c"]}))
    wanted = "site: found site 'hospital-a', expected one of the study's sites: hospital-b, hospital-c"
    assert str(caught.value) == f"{tmp_path / 'site.yaml'}: {wanted}"
    assert load_cohort(site(), study({"sites": ["hospital-a", "hospital-b"]})).patients == 4


def test_the_example_site_reads_a_table_of_its_columns(tmp_path: Path) -> None:
    described = yaml.safe_load((SHIPPED / "sites" / "example_site.yaml").read_text())
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(described))
    (tmp_path / "clinical.csv").write_text(
        "patient_id,follow_up_days,vital_status,age_at_diagnosis,sex,ecog,karnofsky,karnofsky_patient,"
        "calories_at_meals,weight_loss\n"
        "a,61,dead,70,F,1,90,80,unknown,3\nb,365,alive,64,M,0,100,999,1200,-2\n"
    )
    cohort = load_cohort(load_site(tmp_path / "site.yaml"), load_study(SHIPPED / "studies" / "ncctg_lung.yaml"))
    assert cohort.site == "example-hospital"
    assert cohort.columns["sex"].tolist() == [1.0, 0.0]
    np.testing.assert_array_equal(cohort.columns["calories"], [np.nan, 1200.0])
    np.testing.assert_array_equal(cohort.columns["karnofsky_patient"], [80.0, np.nan])
    assert cohort.event.tolist() == [True, False]


def test_whole_sites_can_be_kept_for_testing() -> None:
    study = load_study(Path(__file__).parents[2] / "site_config/studies/ncctg_lung.yaml")
    site = load_site(Path(__file__).parents[2] / "site_config/sites/ncctg_lung.yaml")
    names = [cohort.site for cohort in load_cohorts(site, study).cohorts]
    content = study.model_dump(mode="python", exclude_none=True)
    content["split"] = {"test_sites": tuple(names[:3])}
    for cohort in load_cohorts(site, Study.model_validate(content)).cohorts:
        assert set(cohort.split) == {"test" if cohort.site in names[:3] else "train"}
