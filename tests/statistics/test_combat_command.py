"""``ctfed combat``: plain CSV files in, harmonized CSV files and a summary out; every fault is one sentence."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from combat_data import Rows, made, pooled_combat

from ctfed import cli
from ctfed.statistics.combat import CombatOptions


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["combat", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


ROWS = made((30, 24, 6), p=5, q=2, seed=1)
SEX = np.where(ROWS.x[:, 1] > 0, "M", "F")
DESIGN = np.column_stack([np.round(ROWS.x[:, 0], 3), SEX == "M"]).astype(float)


def tables(folder: Path, separator: str = ",", **more: Any) -> list[Path]:
    """b0.csv, b1.csv and b2.csv with a text identifier, age, sex, follow-up, five features and a remark."""
    frame = pd.DataFrame({"PatientID": [f"P{i:03}" for i in range(60)], "age": DESIGN[:, 0], "sex": SEX})
    frame["days"], frame["event"] = np.arange(60) + 0.5, np.arange(60) % 2
    for j in range(5):
        frame[f"original_f{j}"] = ROWS.y[:, j]
    frame["remark"] = "as scanned, twice"
    for name, values in more.items():
        frame[name] = values
    paths = []
    for label in ("b0", "b1", "b2"):
        paths.append(folder / f"{label}.csv")
        frame[ROWS.batch == label].to_csv(paths[-1], index=False, sep=separator)
    return paths


USUAL = ("--covariates", "age,sex", "--outcome", "days,event")


def features(paths: list[Path], **read: Any) -> np.ndarray:
    frame = pd.concat([pd.read_csv(path, **read) for path in paths])
    return frame[[f"original_f{j}" for j in range(5)]].to_numpy()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_three_files_are_harmonized_as_if_pooled(tmp_path: Path, capsys: Any, separator: str) -> None:
    paths, out = tables(tmp_path, separator), tmp_path / "out"
    code, shown, _ = run(capsys, *paths, *USUAL, "--minimum", 2, "--out", out)
    assert code == 0
    expected = pooled_combat(Rows(ROWS.y, DESIGN, ROWS.batch), CombatOptions())
    np.testing.assert_allclose(features([out / path.name for path in paths], sep=separator), expected, atol=1e-12)
    for path in paths:
        before, after = (pd.read_csv(where, sep=separator, dtype=str) for where in (path, out / path.name))
        assert before.columns.tolist() == after.columns.tolist()
        kept = [name for name in before if not name.startswith("original_")]
        pd.testing.assert_frame_equal(before[kept], after[kept])
    assert shown.startswith("60 rows in 3 batches took part in the fit; 5 features; prior parametric; 1 round of sums")
    assert "variance explained by the batch" in shown
    assert (out / "combat.txt").read_text() in shown


def test_the_summary_says_what_was_done(tmp_path: Path, capsys: Any) -> None:
    paths, out = tables(tmp_path), tmp_path / "out"
    run(capsys, *paths, *USUAL, "--out", out)
    summary = json.loads((out / "combat.json").read_text())
    assert summary["fit"] == {"rows": 54, "batches": 2}
    assert [batch["treatment"] for batch in summary["batches"]] == ["harmonized", "harmonized", "unchanged"]
    assert [batch["rows"] for batch in summary["batches"]] == [30, 24, 6]
    assert summary["levels"] == {"sex": ["F", "M"]}
    assert summary["features"] == 5
    assert summary["traffic"]["rounds"] == 1
    assert summary["warnings"] == ["6 rows in 1 batch of fewer than 10 rows took no part in the fit"]
    assert summary["notes"] == [
        "column 'PatientID' stays as it is: b0.csv has 'P000' in row 2, which is not a number",
        "column 'remark' stays as it is: b0.csv has 'as scanned, twice' in row 2, which is not a number",
    ]
    effect = summary["variance_explained_by_batch"]
    assert set(effect["before"]) == set(effect["after"]) == {f"original_f{j}" for j in range(5)}
    assert max(effect["after"].values()) < effect["chance"] < max(effect["before"].values())
    # The site of six stays as it was, to the letter.
    assert (out / "b2.csv").read_text().split() == paths[2].read_text().split()


def test_a_small_site_can_be_adjusted_by_its_own_rows(tmp_path: Path, capsys: Any) -> None:
    paths, out = tables(tmp_path), tmp_path / "out"
    code, shown, _ = run(capsys, *paths, *USUAL, "--unseen", "local", "--out", out)
    summary = json.loads((out / "combat.json").read_text())
    assert code == 0
    assert summary["batches"][2]["treatment"] == "harmonized"
    assert (out / "b2.csv").read_text() != paths[2].read_text()
    assert "took no part in the fit" in shown


def test_one_file_with_a_column_of_scanners(tmp_path: Path, capsys: Any) -> None:
    paths = tables(tmp_path, scanner=ROWS.batch)
    whole = tmp_path / "whole.csv"
    pd.concat([pd.read_csv(path) for path in paths]).to_csv(whole, index=False)
    out = tmp_path / "out"
    code, _, _ = run(capsys, whole, *USUAL, "--batch", "scanner", "--reference", "b1", "--minimum", 2, "--out", out)
    assert code == 0
    options = CombatOptions(reference="b1")
    expected = pooled_combat(Rows(ROWS.y, DESIGN, ROWS.batch), options)
    np.testing.assert_allclose(features([out / "whole.csv"]), expected, atol=1e-12)
    before, after = (list(csv.reader(path.open())) for path in (whole, out / "whole.csv"))
    scanner = before[0].index("scanner")
    reference = [index for index, row in enumerate(before) if row[scanner] == "b1"]
    assert len(reference) == 24
    assert [before[index] for index in reference] == [after[index] for index in reference]


@pytest.mark.parametrize("prior", ["parametric", "nonparametric", "none"])
def test_a_label_in_several_files_is_one_batch_if_told_so(tmp_path: Path, capsys: Any, prior: str) -> None:
    scanner = np.where(np.arange(60) % 2, "GE", "SIEMENS")
    paths, out = tables(tmp_path, scanner=scanner), tmp_path / "out"
    more = ("--batch", "scanner", "--prior", prior, "--minimum", 2)
    assert run(capsys, *paths, *USUAL, *more, "--shared", "--out", out)[0] == 0
    expected = pooled_combat(Rows(ROWS.y, DESIGN, scanner), CombatOptions(prior))
    np.testing.assert_allclose(features([out / path.name for path in paths]), expected, atol=1e-12)
    assert run(capsys, *paths, *USUAL, *more, "--out", out)[0] == 0
    each = np.array([f"{file} {label}" for file, label in zip(ROWS.batch, scanner, strict=True)])
    expected = pooled_combat(Rows(ROWS.y, DESIGN, each), CombatOptions(prior))
    np.testing.assert_allclose(features([out / path.name for path in paths]), expected, atol=1e-12)


def test_test_rows_are_adjusted_and_not_learned_from(tmp_path: Path, capsys: Any) -> None:
    split = np.where(np.arange(60) % 4 == 0, "test", "train")
    paths, out = tables(tmp_path, split=split), tmp_path / "out"
    more = ("--fit-on", "split=train", "--prior", "none", "--minimum", 2)
    assert run(capsys, *paths, *USUAL, *more, "--out", out)[0] == 0
    train = split == "train"
    got = features([out / path.name for path in paths])
    expected = pooled_combat(Rows(ROWS.y[train], DESIGN[train], ROWS.batch[train]), CombatOptions("none"))
    np.testing.assert_allclose(got[train], expected, atol=1e-12)
    assert np.abs(got[~train] - ROWS.y[~train]).min() > 0
    assert json.loads((out / "combat.json").read_text())["fit"]["rows"] == 45


def test_numbers_that_are_categories(tmp_path: Path, capsys: Any) -> None:
    stage = np.array([1, 2, 10])[np.arange(60) % 3]
    paths, out = tables(tmp_path, stage=stage), tmp_path / "out"
    more = ("--covariates", "stage", "--categorical", "stage", "--leave", "age,sex,days,event", "--minimum", 2)
    assert run(capsys, *paths, *more, "--out", out)[0] == 0
    dummies = np.column_stack([stage == 2, stage == 10]).astype(float)
    expected = pooled_combat(Rows(ROWS.y, dummies, ROWS.batch), CombatOptions())
    np.testing.assert_allclose(features([out / path.name for path in paths]), expected, atol=1e-12)
    assert json.loads((out / "combat.json").read_text())["levels"] == {"stage": ["1", "2", "10"]}


def test_features_by_pattern_and_constant_ones(tmp_path: Path, capsys: Any) -> None:
    paths, out = tables(tmp_path, original_flat=0.1), tmp_path / "out"
    code, shown, _ = run(capsys, *paths, "--features", "original_f[0-2],original_flat", "--out", out)
    assert code == 0
    summary = json.loads((out / "combat.json").read_text())
    assert summary["features"] == 4
    assert summary["not_harmonized"] == ["original_flat"]
    assert "not harmonized: original_flat" in shown
    before, after = features(paths), features([out / path.name for path in paths])
    np.testing.assert_array_equal(before[:, 3:], after[:, 3:])


def wrong(tmp_path: Path, name: str, **more: Any) -> list[Path]:
    folder = tmp_path / name
    folder.mkdir()
    return tables(folder, **more)


def test_faults_are_sentences(tmp_path: Path, capsys: Any) -> None:
    paths = tables(tmp_path)
    gone = ROWS.y[:, 0].copy()
    gone[40] = np.nan
    missing = wrong(tmp_path, "missing", original_f0=gone)
    text = wrong(tmp_path, "text", original_f0=np.where(np.arange(60) == 40, "1,5", ROWS.y[:, 0].astype(str)))
    blank = wrong(tmp_path, "blank", scanner=np.where(np.arange(60) == 40, "", "GE"))
    men = wrong(tmp_path, "men", gender="M")
    number = wrong(tmp_path, "number", id=np.arange(60))
    site = wrong(tmp_path, "site", female=(ROWS.batch == "b0").astype(int))
    b1 = "b1.csv"
    cases: list[tuple[list[Path], tuple[object, ...], str]] = [
        (paths[:1], USUAL, "found a single batch 'b0', expected two or more to harmonize"),
        ([*paths, tmp_path / "none.csv"], USUAL, "none.csv: found no readable file"),
        ([paths[0], missing[0]], USUAL, "two files are called 'b0'; their names are those of the sites, so rename one"),
        (paths, (*USUAL, "--batch", "scaner"), "b0.csv: column 'scaner': found no such column, expected it"),
        (
            paths,
            ("--covariates", "aeg", "--outcome", "days,event"),
            "column 'aeg': found no such column, expected it (did",
        ),
        (paths, ("--covariates", "age,event", "--outcome", "days,event"), "--covariates: 'event' carries the outcome"),
        (paths, ("--covariates", "age"), "column 'days' looks like an outcome: name it with --outcome"),
        (number, USUAL, "column 'id' looks like an identifier: name it with --leave"),
        (missing, USUAL, f"{b1}: column 'original_f0': found no value in row 12, expected a number; impute it"),
        (text, (*USUAL, "--features", "original_*"), f"{b1}: column 'original_f0': found '1,5' in row 12, expected a"),
        (blank, (*USUAL, "--batch", "scanner"), f"{b1}: column 'scanner': found no value in row 12, expected a batch"),
        (
            blank,
            ("--covariates", "scanner", *USUAL[2:]),
            f"{b1}: column 'scanner': found no value in row 12, expected a c",
        ),
        (men, ("--covariates", "gender", *USUAL[2:]), "covariate 'gender' is 'M' for every patient; leave it out"),
        (
            site,
            ("--covariates", "female", *USUAL[2:]),
            "covariate 'female' does not vary within any batch; leave it out",
        ),
        (paths, (*USUAL, "--reference", "b7"), "--reference: found no batch 'b7', expected one of b0, b1, b2"),
        (paths, (*USUAL, "--minimum", 1), "--minimum: found 1, expected 2 to 30"),
        (
            paths,
            (*USUAL, "--minimum", 30, "--reference", "b1"),
            "no site has a reference batch 'b1' of at least 30 rows",
        ),
        (paths, (*USUAL, "--fit-on", "sex"), "--fit-on: found 'sex', expected COLUMN=VALUE"),
        (paths, (*USUAL, "--fit-on", "remark=x"), "--fit-on: no row has 'x' in column 'remark'"),
        (paths, (*USUAL, "--leave", "age"), "column 'age' is named for two roles, expected one"),
        (paths, (*USUAL, "--categorical", "remark"), "--categorical names 'remark', which --covariates does not"),
        (paths, (*USUAL, "--features", "wavelet_*"), "column 'wavelet_*': found no such column, expected it"),
        (paths, (*USUAL, "--features", "age"), "--features: 'age' has another role already"),
    ]
    for files, arguments, sentence in cases:
        code, _, err = run(capsys, *files, *arguments, "--out", tmp_path / "out")
        assert (code, sentence in err, err.count("\n")) == (2, True, 1), (sentence, err)
    code, _, err = run(capsys, *paths, *USUAL, "--out", tmp_path)
    assert code == 2
    assert "b0.csv is an input and would be written over; choose another folder" in err


def test_radiomics_of_real_patients(shared_data: Path, tmp_path: Path, capsys: Any) -> None:
    """Four scanner batches in one file, as neuroCombat harmonizes them; 102 features of 22 decades."""
    folder = shared_data / "harmonization" / "nsclc_radiogenomics_captk" / "oracle"
    frame = pd.read_csv(folder / "features.csv", float_precision="round_trip")
    with_roles = frame.merge(pd.read_csv(folder / "covariates.csv"), on="SubjectID")
    with_roles.to_csv(tmp_path / "captk.csv", index=False)
    arguments = ("--batch", "batch", "--covariates", "sex,smoking", "--categorical", "sex,smoking", "--minimum", 2)
    code, shown, _ = run(
        capsys,
        tmp_path / "captk.csv",
        *arguments,
        "--outcome",
        "event,days",
        "--leave",
        "histology",
        "--out",
        tmp_path / "out",
    )
    assert code == 0, shown
    got = pd.read_csv(tmp_path / "out" / "captk.csv", float_precision="round_trip")
    expected = pd.read_csv(folder / "cov.csv", float_precision="round_trip")
    names = frame.columns[1:]
    difference = (got[names] - expected[names]).abs().max() / frame[names].std()
    assert difference.max() <= 1e-12
