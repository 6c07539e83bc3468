"""One table cut into virtual sites: small centres are merged, names are unique, and all of it is said in notes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctfed.cohort import load_cohort, load_cohorts
from ctfed.config import ConfigError
from ctfed.site import Site, load_site
from ctfed.study import Study, load_study

MakeStudy = Callable[..., Study]
MakeSite = Callable[..., Site]
SHIPPED = Path(__file__).parents[2] / "site_config"

PARTITION: dict[str, Any] = {
    "site": None,
    "secret": None,
    "fixture_secret": "a fixture",
    "partition": {"by": "centre", "minimum": 3, "remainder": "others"},
}


def centres(*levels: str) -> str:
    """A table with one patient per level; ages count up from 20."""
    lines = [f"p{i},300,{i % 2},{20 + i},M,1,{level}" for i, level in enumerate(levels)]
    return "\n".join(["pid,days,dead,age,geschlecht,stage,centre", *lines]) + "\n"


def test_small_centres_are_merged_and_named(site: MakeSite, study: MakeStudy) -> None:
    levels = ["12", "3", "12", "3.0", "7", "12", "", "3", "100", "NA"]
    loaded = load_cohorts(site(centres(*levels), PARTITION), study())
    members = {cohort.site: (cohort.columns["age"] - 20).tolist() for cohort in loaded.cohorts}
    assert members == {
        "institution-003": [1.0, 3.0, 7.0],
        "institution-012": [0.0, 2.0, 5.0],
        "others": [4.0, 6.0, 8.0, 9.0],
    }
    assert list(members) == sorted(members)
    assert loaded.notes == (
        "10 patients were cut by column 'centre' into 3 sites",
        "site 'others' holds 4 patients: institution-007 (1), institution-100 (1), 2 without a value in column "
        "'centre'; sites of fewer than 3 patients are merged",
    )
    assert {label for cohort in loaded.cohorts for label in cohort.stratum} == set(members)


def test_the_minimum_counts_patients_who_take_part(site: MakeSite, study: MakeStudy) -> None:
    text = centres("1", "1", "1", "2", "2", "2").replace("p0,300", "p0,")
    loaded = load_cohorts(site(text, PARTITION), study())
    assert {cohort.site: cohort.patients for cohort in loaded.cohorts} == {"institution-02": 3, "others": 2}
    assert loaded.notes[1].endswith("sites of fewer than 3 patients are merged; it has fewer than 3 patients itself")


def test_a_table_of_large_centres_has_no_remainder(site: MakeSite, study: MakeStudy) -> None:
    changes = {**PARTITION, "partition": {"by": "centre", "minimum": 3, "prefix": "clinic"}}
    loaded = load_cohorts(site(centres(*["St. Mary"] * 3, *["GSE1"] * 3), changes), study())
    assert [cohort.site for cohort in loaded.cohorts] == ["clinic-GSE1", "clinic-St-Mary"]
    assert loaded.notes == ("6 patients were cut by column 'centre' into 2 sites",)


def test_a_partition_has_many_sites(site: MakeSite, study: MakeStudy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_cohort(site(changes=PARTITION), study())
    wanted = "partition: found a partition, expected site: the name of one site"
    assert str(caught.value) == f"{tmp_path / 'site.yaml'}: {wanted}"


@pytest.mark.parametrize(
    ("levels", "changes", "fault"),
    [
        (["a b", "a-b"] * 3, {}, "partition.by: found 'a b' and 'a-b' in column 'centre', expected levels that give"),
        (
            ["1"] * 3 + ["2"],
            {"remainder": "institution-01"},
            "partition.remainder: found 'institution-01', expected a name that no other site has",
        ),
    ],
)
def test_two_virtual_sites_cannot_share_a_name(
    site: MakeSite, study: MakeStudy, levels: list[str], changes: dict[str, str], fault: str
) -> None:
    described = site(centres(*levels), {**PARTITION, "partition": PARTITION["partition"] | changes})
    with pytest.raises(ConfigError) as caught:
        load_cohorts(described, study())
    assert f"site.yaml: {fault}" in str(caught.value)


def test_a_simulation_has_the_whole_roster(site: MakeSite, study: MakeStudy) -> None:
    described = site(centres(*["1"] * 3, *["2"] * 3), PARTITION)
    assert len(load_cohorts(described, study({"sites": ["institution-01", "institution-02"]})).cohorts) == 2
    with pytest.raises(ConfigError) as caught:
        load_cohorts(described, study({"sites": ["institution-01", "institution-3"]}))
    assert [fault.split("partition: ")[1] for fault in caught.value.faults] == [
        "found site 'institution-02', expected one of the study's sites: institution-01, institution-3",
        "found no site 'institution-3', expected it, because the study's roster names it",
    ]


def test_the_ncctg_trial_becomes_ten_virtual_sites() -> None:
    study = load_study(SHIPPED / "studies" / "ncctg_lung.yaml")
    loaded = load_cohorts(load_site(SHIPPED / "sites" / "ncctg_lung.yaml"), study)
    sizes = {cohort.site.removeprefix("institution-"): cohort.patients for cohort in loaded.cohorts}
    assert sizes == {
        "01": 36, "03": 19, "06": 14, "11": 18, "12": 23, "13": 20, "16": 16, "21": 13, "22": 17,
        "other-institutions": 52,
    }  # fmt: skip
    assert sum(int(cohort.event.sum()) for cohort in loaded.cohorts) == 165
    assert (loaded.exclusions, loaded.warnings) == ((), ())
    assert "institution-02 (5), institution-04 (4)" in loaded.notes[1]
    assert "1 without a value in column 'inst'" in loaded.notes[1]


def test_the_ncctg_cohorts_hold_the_trials_values(shared_data: Path) -> None:
    """R's copy of the trial, read on its own: 1 = censored, 2 = dead there."""
    lines = [line.split(",") for line in (shared_data / "survival" / "ncctg_lung.csv").read_text().split()]
    raw = {name: [row[i] for row in lines[1:]] for i, name in enumerate(lines[0])}
    ours = load_cohorts(
        load_site(SHIPPED / "sites" / "ncctg_lung.yaml"), load_study(SHIPPED / "studies" / "ncctg_lung.yaml")
    )
    rows_of_12 = [i for i, institution in enumerate(raw["inst"]) if institution == "12"]
    cohort = next(cohort for cohort in ours.cohorts if cohort.site == "institution-12")
    assert cohort.time.tolist() == [float(raw["time"][i]) / 30.4375 for i in rows_of_12]
    assert cohort.event.tolist() == [raw["status"][i] == "2" for i in rows_of_12]
    assert cohort.columns["sex"].tolist() == [float(raw["sex"][i]) - 1 for i in rows_of_12]
    calories = [float(raw["meal.cal"][i] or "nan") for i in rows_of_12]
    np.testing.assert_array_equal(cohort.columns["calories"], calories)
    assert np.isnan(calories).any()
