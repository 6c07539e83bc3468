"""One patient's chain of steps: right numbers, and only those steps again that depend on what changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prepare_support import KERNEL, write_site

from ctfed.preparation.outcome import Outcome
from ctfed.preparation.worker import outcome_of

SiteFile = Callable[..., Path]
RADIOMICS = {"lung.original", "lung.rkn", "tumour.original", "tumour.rkn", "nodes.original", "coronaries.original"}
FILES = {"nifti", "nifti files", "dicom-seg", "dicom-seg files", "sheet", "sheet files"}


@pytest.fixture
def site_file(centre: Path, tmp_path: Path) -> SiteFile:
    """As the others' fixture, of the centre's first patient alone: nobody else's headers are read."""

    def write(extraction: dict[str, Any] | None = None, **where: Any) -> Path:
        if "scans" not in where:
            alone = tmp_path / "first" / "CTFED-PHANTOM"
            if not alone.exists():
                alone.mkdir(parents=True)
                patient = min((centre / "scans" / "CTFED-PHANTOM").iterdir())
                (alone / patient.name).symlink_to(patient)
            where["scans"] = alone.parent
        return write_site(tmp_path, centre, extraction, **where)

    return write


def first(site: Path, **plan: Any) -> Outcome:
    """The outcome of the first patient, in this process."""
    from ctfed.prepare import _find, _plan, read_job

    job = read_job(site)
    _, cases = _find(job, b"phantom centre's secret")
    return outcome_of(cases.cases[0], replace(_plan(job), **plan))


def test_the_first_run_does_all_steps_and_the_second_none(site_file: SiteFile) -> None:
    before = first(site_file())
    assert set(before.computed) == {"scan", "given", "kernel", "calcium", *RADIOMICS, *FILES}
    assert (before.aside, before.reasons) == (None, {})
    again = first(site_file())
    assert again.computed == ()
    np.testing.assert_array_equal(again.values, before.values)
    assert (again.acquisition, again.notes, again.provenance) == (
        before.acquisition,
        before.notes,
        before.provenance,
    )


@pytest.mark.parametrize(
    ("changed", "steps"),
    [
        ({"radiomics": {"bin_width": 50}}, RADIOMICS),
        ({"connectivity": 4}, {"calcium"}),
        ({"kernel": KERNEL | {"max_iterations": 1}}, {"kernel", "lung.rkn", "tumour.rkn"}),
        ({"kernel": KERNEL | {"max_iterations": 51}}, {"kernel"}),  # the image is the same, and what rests on it stands
        ({"scan": {"slices": 21, "coverage": 150}}, {"scan"}),
        ({"given": {"nodes": {"patterns": ["no such name"]}}}, {"given", *FILES}),
        ({"files": {"csv": True}}, set()),
        ({"name": "another"}, set()),
    ],
)
def test_a_changed_setting_repeats_only_what_depends_on_it(
    site_file: SiteFile, done: Path, changed: dict[str, Any], steps: set[str]
) -> None:
    again = first(site_file(changed))
    assert set(again.computed) == steps
    assert first(site_file()).computed in ((), tuple(s for s in again.computed if s.endswith(" files")))


def test_new_code_of_one_step_repeats_it_and_what_its_result_changes(site_file: SiteFile, done: Path) -> None:
    from ctfed.preparation.steps import CODE

    code = {step: each.version for step, each in CODE.items()}
    assert first(site_file(), code=code).computed == ()
    assert first(site_file(), code=code | {"given": "x"}).computed == ("given",)
    assert set(first(site_file(), code=code | {"radiomics": "x"}).computed) == RADIOMICS


def test_the_numbers_are_those_of_the_measures_themselves(centre: Path, site_file: SiteFile, done: Path) -> None:
    from ctfed.cohort.scans import Wanted, choose_series, find_patients, read_masks, read_scan
    from ctfed.imaging.calcium import calcium_score
    from ctfed.imaging.kernel import KernelSettings, normalise_kernel
    from ctfed.imaging.radiomics import RadiomicsSettings, extract
    from ctfed.prepare import _plan, read_job

    patient = find_patients(centre / "scans")[0]
    choice = choose_series(patient, Wanted(slices=20, coverage=150))
    scan = read_scan(choice.series)
    masks = read_masks(patient, choice, scan)
    both = scan.volume.with_array(masks["lung"].array | masks["tumour"].array)
    normalised = normalise_kernel(scan.volume, both, KernelSettings(**KERNEL)).image
    expected = {f"scan.spacing_{a}": v for a, v in zip("xyz", scan.volume.spacing, strict=True)}
    for region, shape in (("lung", False), ("tumour", True), ("nodes", True), ("coronaries", False)):
        found = extract(scan.volume, masks[region], RadiomicsSettings(), shape).values
        expected |= {f"{region}.{name}": value for name, value in found.items()}
        if region in ("lung", "tumour"):
            found = extract(normalised, masks[region], RadiomicsSettings(), False).values
            expected |= {f"{region}.rkn.{name}": value for name, value in found.items()}
    score = calcium_score(scan.volume, masks["coronaries"], kernel=scan.acquisition.kernel)
    expected |= {f"coronaries.{name}": float(getattr(score, name)) for name in ("agatston", "agatston_3mm", "volume")}
    columns = [column.name for column in _plan(read_job(site_file())).columns]
    values = dict(zip(columns, first(site_file()).values, strict=True))  # type: ignore[arg-type]
    assert {name: values[name] for name in expected} == expected
    assert len(columns) == len(set(columns)) == 3 + 93 * 2 + 14 + 93 * 2 + 14 + 93 + 93 + 7


def test_a_missing_region_is_missing_values_with_a_reason(site_file: SiteFile, done: Path) -> None:
    nobody = {"given": {"coronaries": {"patterns": ["no such name"]}}}
    outcome = first(site_file(nobody | {"files": {"nifti": False, "dicom_seg": False, "sheets": False}}))
    assert outcome.aside is None
    assert set(outcome.reasons) == {"coronaries.original", "coronaries.calcium"}
    assert outcome.reasons["coronaries.calcium"].startswith("region-missing: ")
    assert outcome.values is not None
    assert int(np.isnan(outcome.values).sum()) == 93 + 7


def test_a_missing_region_that_is_required_sets_the_patient_aside(site_file: SiteFile, done: Path) -> None:
    outcome = first(site_file({"given": {"tumour": {"patterns": ["no such name"]}}}))
    assert outcome.values is None
    assert outcome.aside is not None
    assert (outcome.aside.stage, outcome.aside.rule) == ("masks", "region-missing")
    assert outcome.aside.reason.startswith("tumour: ")


def test_a_later_model_fills_what_an_earlier_one_left_empty(site_file: SiteFile, done: Path) -> None:
    outcome = first(site_file({"given": {"lung": {"patterns": ["no such name"]}}}))
    assert outcome.aside is None
    assert outcome.reasons == {}
    assert list(outcome.provenance) == ["given", "threshold-lung"]
    assert any("not by a trained model" in note for note in outcome.notes)


def test_another_kernel_in_the_headers_is_read_again_and_measured_again_where_it_counts(
    centre: Path, tmp_path: Path, site_file: SiteFile, done: Path
) -> None:
    import pydicom

    scans = tmp_path / "scans"
    before = first(site_file())
    shutil.copytree(tmp_path / "first", scans)
    patient = sorted((scans / "CTFED-PHANTOM").iterdir())[0]
    for path in patient.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        if header.Modality == "CT":
            header.ConvolutionKernel = "B70f"
            header.save_as(path)
    after = first(site_file(scans=scans))
    assert set(after.computed) == {"scan", "given", "calcium"}
    assert after.acquisition["kernel"] == "B70f"
    assert any("sharp" in note for note in after.notes)
    assert before.values is not None
    assert after.values is not None
    assert int((before.values != after.values).sum()) == 1  # coronaries.sharp_kernel


def test_lost_files_come_back_and_damaged_entries_are_made_again(site_file: SiteFile, done: Path) -> None:
    local, before = done, first(site_file())
    folder = local / "masks" / before.key
    kept = {path: path.read_bytes() for path in folder.rglob("*.*")}
    lost, changed = sorted(kept)[:2]
    lost.unlink()
    changed.write_bytes(b"other")
    for path in (local / "cache").rglob("arrays.npz"):
        path.write_bytes(path.read_bytes()[:-40])
    again = first(site_file())
    np.testing.assert_array_equal(again.values, before.values)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == kept
    assert first(site_file()).computed == ()


def test_an_error_that_nobody_foresaw_names_the_patient_and_is_not_kept(
    site_file: SiteFile, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctfed.preparation import steps

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(steps, "calcium", fail)
    changed = {"connectivity": 4}
    outcome = first(site_file(changed))
    assert outcome.aside is not None
    assert outcome.aside.rule == "unforeseen-error"
    assert "secret detail" not in outcome.aside.reason
    assert "ZeroDivisionError: secret detail" in outcome.detail
    monkeypatch.undo()
    again = first(site_file(changed))
    assert again.aside is None
    assert again.computed == ("calcium",)


def test_patients_without_a_readable_file_keep_their_own_faults(site_file: SiteFile, tmp_path: Path) -> None:
    from ctfed.cohort.faults import CaseFault
    from ctfed.cohort.scans.model import PatientScans
    from ctfed.preparation.patient import Case
    from ctfed.prepare import _needed, _plan, read_job

    plan = _plan(read_job(site_file()))
    for rule in ("study-path", "series-not-there", "study-path"):
        scans = PatientScans("nobody", (), (), faults=(CaseFault(rule, f"found {rule}, expected none"),))
        case = Case("0" * 32, scans)
        aside = outcome_of(case, plan).aside
        assert aside is not None
        assert (aside.stage, aside.rule) == ("scan", rule)
        assert _needed(plan, [case]) > 0
