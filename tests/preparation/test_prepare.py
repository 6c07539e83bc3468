"""`ctfed prepare` as centres run it: a command with processes, killed, resumed, and read by the federation."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prepare_support import finish, kill_at_random, start, tables, write_site

SiteFile = Callable[..., Path]
Prepared = tuple[Path, str, str]
NO_FILES = {"csv": True, "nifti": False, "dicom_seg": False, "sheets": False}  # tables do not depend on them


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_tells_what_it_found_and_how_far_it_is(prepared: Prepared) -> None:
    _, out, err = prepared
    assert out.splitlines()[0] == "6 patients found = 6 analysed + 0 excluded"
    assert err.splitlines()[-1].startswith("prepare: 6 of 6 patients, in ")
    assert "\r" not in err  # no terminal: plain lines


def test_the_table_has_units_groups_and_one_row_per_patient(prepared: Prepared) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(prepared[0] / "local" / "features.parquet")
    names = table.schema.names
    assert names[:8] == ["patient", "time", "event", "age", "female", "smoking", "stage", "ecog"]
    keys = table.column("patient").to_pylist()
    assert keys == sorted(keys)
    assert len(keys) == 6
    units = {field.name: (field.metadata or {}).get(b"unit", b"").decode() for field in table.schema}
    assert units["time"] == "days"
    assert units["age"] == "years"
    assert units["tumour.original_shape_MeshVolume"] == "mm3"
    assert units["lung.rkn.original_firstorder_Mean"] == "HU"
    assert units["scan.spacing_z"] == "mm"
    about = table.schema.metadata
    assert about[b"settings_sha256"].decode() == provenance(prepared)["settings"]["sha256"]  # type: ignore[index]
    text = rows(prepared[0] / "local" / "features.csv")
    for name in ("tumour.original_glcm_Contrast", "coronaries.agatston"):
        assert [float(row[name]) for row in text] == table.column(name).to_pylist()


def provenance(prepared: Prepared) -> dict[str, object]:
    content: dict[str, object] = json.loads((prepared[0] / "local" / "provenance.json").read_text())
    return content


def test_nothing_but_keys_csv_names_a_patient_a_date_or_a_path(prepared: Prepared, centre: Path) -> None:
    local = prepared[0] / "local"
    for path in [*local.glob("*.csv"), local / "provenance.json", local / "features.parquet"]:
        content = path.read_bytes()
        if path.name != "keys.csv":
            assert b"PHANTOM-A" not in content, path.name
            assert str(centre).encode() not in content, path.name
            assert not re.search(rb"\b(19|20)\d\d-[01]\d-[0-3]\d\b", content), path.name
    assert (local / "keys.csv").stat().st_mode & 0o777 == 0o600
    assert local.stat().st_mode & 0o777 == 0o700
    known = {row["patient"]: row["identifier"] for row in rows(local / "keys.csv")}
    assert sorted(known.values()) == [f"PHANTOM-A-{i:04d}" for i in range(1, 7)]
    assert all(re.fullmatch("[0-9a-f]{32}", key) for key in known)


def test_masks_are_written_for_other_programs(prepared: Prepared) -> None:
    import highdicom
    import SimpleITK as sitk

    local = prepared[0] / "local"
    folder = sorted((local / "masks").iterdir())[0]
    seg = highdicom.seg.segread(folder / "masks.dcm")
    labels = [seg.get_segment_description(n).segment_label for n in seg.segment_numbers]
    for number, label in zip(seg.segment_numbers, labels, strict=True):
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{label}.nii.gz")))
        pixels = seg.get_volume(segment_numbers=[number], combine_segments=True).array
        assert int(mask.sum()) == int((pixels > 0).sum()) > 0
    assert (local / "qc" / f"{folder.name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_does_nothing_and_leaves_the_same_bytes(done: Path, site_file: SiteFile) -> None:
    before = tables(done)
    code, out, err = finish(start(site_file(), "--workers", "1"))
    assert code == 0, err
    assert "0 steps were computed" in out
    assert tables(done) == before


def test_a_killed_run_gives_the_table_of_a_clean_run(prepared: Prepared, site_file: SiteFile, tmp_path: Path) -> None:
    site = site_file({"files": NO_FILES})
    left = kill_at_random(site, 1, seed=3, longest=1.0)
    code, out, err = finish(start(site))
    assert code == 0, err
    assert left >= 1
    files = 6 * 6  # steps that write files, of all patients
    assert computed(out) < computed(prepared[1]) - files  # what the killed run had finished was not done again
    assert tables(tmp_path / "out" / "local") == tables(prepared[0] / "local")
    assert not list((tmp_path / "out").rglob(".writing-*"))


def computed(out: str) -> int:
    """The number of steps that a run says it computed."""
    found = re.search(r"(\d+) steps were computed", out)
    assert found is not None
    return int(found.group(1))


@pytest.mark.slow
def test_forty_patients_killed_ten_times_give_the_table_of_a_clean_run(tmp_path: Path) -> None:
    from ctfed.phantom import PhantomCohort, write_cohort

    write_cohort(tmp_path / "cohort", PhantomCohort(patients=40, sites=1, matrix=64, seed=11))
    local = {}
    for name in ("clean", "killed"):
        (tmp_path / name).mkdir()
        site = write_site(tmp_path / name, tmp_path / "cohort" / "phantom-a")
        if name == "killed":
            left = kill_at_random(site, 10, seed=17, longest=4.0)
            print(f"10 kills left {left} results in the cache")
        code, out, err = finish(start(site))
        assert code == 0, err
        local[name] = tmp_path / name / "out" / "local"
        print(name, out)
    assert tables(local["killed"]) == tables(local["clean"])


def test_ctrl_c_stops_promptly_with_a_sentence(site_file: SiteFile) -> None:
    process = start(site_file())
    time.sleep(2.5)
    assert process.poll() is None
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert time.monotonic() - begun < 3
    assert code == 130
    assert "interrupted; the same command goes on where it was" in err
    assert "Traceback" not in err


def test_everyone_is_analysed_or_excluded_by_name(
    centre: Path, tmp_path: Path, site_file: SiteFile, done: Path
) -> None:
    scans = tmp_path / "scans"
    shutil.copytree(centre / "scans", scans)
    folders = sorted((scans / "CTFED-PHANTOM").iterdir())
    shutil.rmtree(folders[1])  # a row without scans
    slices = sorted(p for p in folders[2].rglob("*.dcm") if "SYNTHETIC CT" in p.parent.name)
    slices[20].unlink()  # a missing slice
    lines = (centre / "clinical.csv").read_text().splitlines()
    header = lines[0].split(",")
    cells = [line.split(",") for line in lines[1:]]
    cells[3][header.index("date_last_contact")] = ""
    del cells[4]  # scans without a row
    (tmp_path / "clinical.csv").write_text("\n".join(",".join(row) for row in [header, *cells]) + "\n")
    site = site_file({"files": NO_FILES}, scans=scans, clinical=tmp_path / "clinical.csv")
    code, out, err = finish(start(site, "--workers", "1"))
    assert code == 0, err
    assert out.splitlines()[0] == "6 patients found = 2 analysed + 4 excluded"
    names = {row["patient"]: row["identifier"] for row in rows(done / "keys.csv")}
    found = {names[row["patient"]][-1]: (row["stage"], row["rule"]) for row in rows(done / "exclusions.csv")}
    assert found["2"] == ("scan", "no-scan")
    assert found["3"][0] == "scan"
    assert found["4"][0] == "clinical"
    assert found["5"] == ("clinical", "no-clinical-row")
    assert [row["patient"] for row in rows(done / "features.csv")] == sorted(
        k for k, n in names.items() if n[-1] in "16"
    )
    assert "0 steps were computed" not in out  # the patient with a missing slice was looked at again


def test_a_part_of_the_patients_stands_apart_from_the_whole_table(done: Path, site_file: SiteFile) -> None:
    whole = tables(done)
    code, out, _ = finish(
        start(site_file(), "--only", "PHANTOM-A-0002", "PHANTOM-A-0005", "--limit", "1", "--workers", "1")
    )
    assert code == 0
    assert out.splitlines()[0] == "6 patients found = 1 analysed + 0 excluded + 5 not asked for"
    assert tables(done) == whole
    assert len(rows(done / "partial" / "features.csv")) == 1
    code, _, err = finish(start(site_file(), "--only", "PHANTOM-A-9999"))
    assert code == 2
    assert "--only: found 'PHANTOM-A-9999', expected the identifier or the key of a patient" in err


def test_a_dry_run_lists_the_patients_and_changes_nothing(done: Path, site_file: SiteFile) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file() and path.suffix != ".lock"}
    code, out, _ = finish(start(site_file({"connectivity": 4}), "--dry-run"))
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "PHANTOM-A-0001: 53 image files in 2 series, to do, from calcium on"
    assert lines[-1].startswith("6 patients would be prepared, 0 are set aside; memory allows ")
    code, out, _ = finish(start(site_file(), "--dry-run"))
    assert all(line.endswith("nothing to do") for line in out.splitlines()[:-1])
    after = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert after == before


STUDY = """
ctfed_study: 1
name: phantoms
title: Phantoms
endpoint: {name: overall survival, time_unit: months}
variables:
  age: {type: continuous, unit: years, range: [18, 110], impute: median}
  tumour.original_shape_MeshVolume: {type: continuous, unit: mm3, range: [0, 1e6], impute: median}
  lung.rkn.original_firstorder_Mean: {type: continuous, unit: HU, range: [-1024, 3000], impute: median}
model:
  features: [age, tumour.original_shape_MeshVolume, lung.rkn.original_firstorder_Mean]
penalty: {penalizer: 0.1, l1_ratio: 0.5}
split: {test_fraction: 0.3}
evaluation: {horizons: [12], time_bin: 12}
"""


def test_the_federation_reads_what_was_prepared(done: Path, site_file: SiteFile, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from ctfed.cohort import load_cohort
    from ctfed.site import load_site
    from ctfed.study import load_study

    (tmp_path / "study.yaml").write_text(STUDY)
    cohort = load_cohort(load_site(site_file()), load_study(tmp_path / "study.yaml"))
    table = pq.read_table(done / "features.parquet")
    assert cohort.site == "phantom-a"
    assert cohort.patients == 6
    np.testing.assert_array_equal(cohort.time, table.column("time").to_numpy() / 30.4375)
    np.testing.assert_array_equal(cohort.event, table.column("event").to_numpy() == 1)
    for name in ("age", "tumour.original_shape_MeshVolume", "lung.rkn.original_firstorder_Mean"):
        np.testing.assert_array_equal(cohort.columns[name], table.column(name).to_numpy())


def test_a_site_without_prepared_features_says_so(site_file: SiteFile, tmp_path: Path) -> None:
    from ctfed.cohort import DataError, load_cohort
    from ctfed.site import load_site
    from ctfed.study import load_study

    (tmp_path / "study.yaml").write_text(STUDY)
    with pytest.raises(DataError, match=r"features\.parquet: found no file, expected .*run `ctfed prepare` first"):
        load_cohort(load_site(site_file()), load_study(tmp_path / "study.yaml"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_system_call_reaches_for_a_network(site_file: SiteFile, tmp_path: Path) -> None:
    """What the kernel sees of all processes of a run from an empty cache: nothing is connected, asked or sent.

    pydicom loads urllib3, which makes one IPv6 socket to see whether the machine knows IPv6, and closes it unused.
    """
    trace = tmp_path / "trace"
    command = [sys.executable, "-c", "import sys; from ctfed.cli import main; sys.exit(main(sys.argv[1:]))"]
    run = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace), *command]
    site = site_file()
    done = subprocess.run(
        [*run, "prepare", "--site", str(site), "--limit", "1"], capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace processes here")
    assert done.returncode == 0, done.stderr
    assert "1 analysed" in done.stdout
    calls = [line for line in trace.read_text().splitlines() if re.search(r"\b(connect|send\w+)\(", line)]
    assert [line for line in calls if "AF_UNIX" not in line] == []


def test_help_is_immediate() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "from ctfed.cli import build_parser; build_parser()"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert modules.isdisjoint(
        {"pandas", "scipy", "SimpleITK", "pydicom", "torch", "radiomics", "matplotlib", "pyarrow"}
    )
