"""`ctfed prepare` on a centre where nearly everything is broken: nothing crashes, and everyone is named."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "cohort" / "scans"))

import dicom_maker as maker
from broken_inputs import CASES, WANTED
from prepare_support import finish, start, write_site

SOUND = "sound"
# Without a mask of the tumour the reader of masks says that its file has none, and the run that no source has one.
SAID_BY_PREPARE = {"no-mask": "region-missing"}
# Who is not known by the folder's name: by PatientID, and by the name of a file that stands alone.
KNOWN_AS = {"unicode_names_and_a_missing_slice": "Šárka-患者", "mask_without_image": "tumour"}
EXTRACTION = {
    "scan": {"slices": WANTED.slices, "coverage": WANTED.coverage},
    "segmentation": [{"model": "given"}],
    "regions": {"tumour": {"shape": True}},
    "required": ["tumour"],
    "files": {"nifti": False, "dicom_seg": False, "sheets": False},
}
DICTIONARY = {
    "ctfed_dictionary": 1,
    "name": "broken",
    "title": "follow-up alone",
    "variables": {"age": {"type": "continuous", "unit": "years", "range": [18, 110], "impute": "median"}},
    "source": {
        "kind": "csv",
        "patient": "id",
        "follow_up": {"time": {"column": "days", "unit": "days"}, "event": {"column": "dead", "codes": {"1": 1}}},
        "columns": {"age": "age"},
    },
}


def build_all(scans: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """All broken patients and a sound one in one folder, those of indices under one index beside it; the rule of each.

    Returns:
        The rule by the identifier of the patient.
    """
    rules = {}
    studies = []
    for name, (rule, build) in CASES.items():
        monkeypatch.setattr(maker, "PATIENT", name)
        folder = scans / name
        folder.mkdir(parents=True)
        build(folder)
        rules[KNOWN_AS.get(name, name)] = SAID_BY_PREPARE.get(rule, rule)
        if (folder / "index.json").exists():
            [study] = json.loads((folder / "index.json").read_text())
            inside = not study["path"].startswith(("/", ".."))
            studies.append(study | {"path": f"{name}/{study['path']}" if inside else study["path"]})
            indexed = scans.parent / "indexed"
            indexed.mkdir(exist_ok=True)
            folder.rename(indexed / name)
            (indexed / name / "index.json").unlink()
    (indexed / "index.json").write_text(json.dumps(studies))
    monkeypatch.setattr(maker, "PATIENT", SOUND)
    slices = maker.ct()
    maker.write(scans / SOUND, slices)
    maker.rtstruct(slices[0]).save_as(scans / SOUND / "rt.dcm")
    return rules


def prepared(folder: Path, scans: Path, identifiers: list[str]) -> tuple[dict[str, tuple[str, str]], str]:
    """(stage, rule) by identifier of everyone who is in exclusions.csv, and what the command said."""
    centre = folder / scans.name
    centre.mkdir()
    rows = "\n".join(f"{name},64,{100 + number},1" for number, name in enumerate(identifiers))
    (folder / "clinical.csv").write_text(f"id,age,days,dead\n{rows}\n", encoding="utf-8")
    (folder / "dictionary.yaml").write_text(yaml.safe_dump(DICTIONARY))
    site = write_site(centre, folder, EXTRACTION, scans=scans)
    code, out, err = finish(start(site, "--workers", "1"))
    assert code == 0, err
    local = centre / "out" / "local"
    with (local / "keys.csv").open(newline="", encoding="utf-8") as file:
        names = {row["patient"]: row["identifier"] for row in csv.DictReader(file)}
    with (local / "exclusions.csv").open(newline="", encoding="utf-8") as file:
        found = {names[row["patient"]]: (row["stage"], row["rule"]) for row in csv.DictReader(file)}
    said = (local / "exclusions.csv").read_text(encoding="utf-8")
    assert str(folder) not in said
    assert not any(name in said for name in identifiers if len(name) > 12)
    return found, out


@pytest.mark.slow
def test_every_broken_patient_is_excluded_by_name_and_the_sound_one_analysed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = build_all(tmp_path / "scans", monkeypatch)
    indexed = sorted(path.name for path in (tmp_path / "indexed").iterdir() if path.is_dir())
    alone = [name for name in rules if name not in indexed]
    folder = tmp_path / "run"
    folder.mkdir()
    found, out = prepared(folder, tmp_path / "scans", [*alone, SOUND])
    assert out.splitlines()[0] == f"{len(alone) + 1} patients found = 1 analysed + {len(alone)} excluded"
    more, out = prepared(folder, tmp_path / "indexed", indexed)
    assert out.splitlines()[0] == f"{len(indexed)} patients found = 0 analysed + {len(indexed)} excluded"
    found |= more
    assert len(found) == len(CASES) >= 60
    assert {name: rule for name, (_, rule) in found.items()} == rules
    assert {stage for stage, _ in found.values()} == {"scan", "masks"}
