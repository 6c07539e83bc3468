"""Whatever is wrong with a patient's scans is named, and never a crash."""

from __future__ import annotations

from pathlib import Path

import dicom_maker as maker
import pytest
from broken_inputs import CASES, WANTED

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans import choose_series, find_patients, read_masks, read_scan


def run(folder: Path) -> None:
    """All of a patient's way, as ``prepare`` goes it, with a tumour that must be there."""
    patients = find_patients(folder)
    assert len(patients) == 1
    choice = choose_series(patients[0], WANTED)
    scan = read_scan(choice.series)
    read_masks(patients[0], choice, scan, required=("tumour",))


@pytest.mark.parametrize("name", CASES)
def test_a_broken_input_is_refused_by_name(
    name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    rule, build = CASES[name]
    folder = tmp_path / maker.PATIENT
    folder.mkdir()
    build(folder)
    recwarn.clear()
    capfd.readouterr()
    with pytest.raises(CaseFault) as caught:
        run(tmp_path if not (folder / "index.json").exists() else folder)
    assert (caught.value.rule, caught.value.sentence) == (rule, str(caught.value))
    # What a run prints may leave the site, so the libraries' own warnings must not quote the files either.
    printed = [*capfd.readouterr(), *(str(warning.message) for warning in recwarn)]
    for secret in (maker.PATIENT, "Šárka", str(tmp_path), "1.2.826", "20200103"):
        assert all(secret not in text for text in (caught.value.sentence, *printed))
    assert "found" in caught.value.sentence
    assert "\n" not in caught.value.sentence


def test_the_corpus_is_large() -> None:
    assert len(CASES) >= 60
