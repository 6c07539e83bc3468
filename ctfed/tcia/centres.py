"""Virtual centres on disk: for scans a folder per centre with what `ctfed prepare` needs, for a table one site file.

CENTRES/centres.csv                         which patient is at which centre, and where its scans come from
CENTRES/dictionary.yaml, extraction.yaml    for all of them
CENTRES/siemens/site.yaml                   for `ctfed prepare` and `ctfed simulate`
CENTRES/siemens/clinical.csv                its rows of the clinical table
CENTRES/siemens/scans/...                   links to its series; nothing is copied
CENTRES/siemens/site.secret                 from the partition's seed: the same folds for everyone (public data)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ctfed.federation.errors import CtfedError
from ctfed.preparation.atomic import write_text
from ctfed.tcia.clinical import CLINICAL, DICTIONARY, EVENT, PATIENT, TIME
from ctfed.tcia.split import CENTRE, slug

if TYPE_CHECKING:
    import pandas as pd

CENTRES, EXTRACTION, SITE = "centres.csv", "extraction.yaml", "site.yaml"
TABLE = "table.csv"


def summarise(patients: pd.DataFrame, clinical: pd.DataFrame | None) -> pd.DataFrame:
    """One row per centre: patients, and as far as known: series, images, gigabytes, masks, with follow-up, events."""
    groups = patients.groupby(CENTRE, sort=True)
    table = groups.size().rename("patients").to_frame()
    for name in ("series", "images", "masks"):
        if name in patients:
            table[name] = groups[name].sum()
    if "megabytes" in patients:
        table["gigabytes"] = groups["megabytes"].sum() / 1e3
    if clinical is not None:
        both = patients[[PATIENT, CENTRE]].merge(clinical[[PATIENT, EVENT]], on=PATIENT)
        own = both.groupby(CENTRE)[EVENT]
        table["with follow-up"] = own.size().reindex(table.index, fill_value=0)
        table["events"] = own.sum().reindex(table.index, fill_value=0).astype(int)
    return table.reset_index()


def write_centres(
    out: Path,
    patients: pd.DataFrame,
    series: pd.DataFrame,
    clinical: Path,
    frame: pd.DataFrame,
    extraction: Path,
    seed: int,
) -> list[Path]:
    """Write a folder per centre; the paths of the site files.

    Args:
        out: absent or empty.
        patients: with the column 'centre'.
        series: of folders, with the column 'folder'.
        clinical: the clinical table's path; a dictionary stands beside it.
        frame: its content.
        extraction: the settings of the extraction.
        seed: of the secrets.

    Raises:
        CtfedError: when ``out`` is not empty, or a file is missing.
    """
    _require_empty(out)
    dictionary = clinical.parent / DICTIONARY
    for path in (dictionary, extraction):
        if not path.is_file():
            raise CtfedError(f"{path}: found no file, expected it beside the clinical table or by --extraction")
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / DICTIONARY, dictionary.read_text(encoding="utf-8"))
    write_text(out / EXTRACTION, extraction.read_text(encoding="utf-8"))
    _write_list(out, patients)
    files = []
    for centre, own in patients.groupby(CENTRE, sort=True):
        folder = out / str(centre)
        folder.mkdir()
        _link(folder / "scans", series[series[PATIENT].isin(own[PATIENT])])
        rows = frame[frame[PATIENT].isin(own[PATIENT])]
        if rows.empty:
            raise CtfedError(f"{clinical}: found no row for centre {centre!r}, expected follow-up of its patients")
        write_text(folder / CLINICAL, rows.to_csv(index=False, lineterminator="\n"))
        _write_secret(folder / "site.secret", f"{seed}|{centre}")
        write_text(folder / SITE, _yaml(_site(str(centre)), f"A virtual centre of public data: {centre}."))
        files.append(folder / SITE)
    return files


def read_prepared(centres: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `ctfed prepare` made at the centres of ``write_centres``, to be cut anew without measuring again.

    Returns:
        The features by the patients' identifiers (patient, time in days, event, ...), and where their scans come from.

    Raises:
        CtfedError: when a centre was not prepared, or there is none.
    """
    import pandas as pd

    from ctfed.site import site_files

    frames = []
    for site in site_files(centres):
        local = site.parent / "out" / "local"
        for name in ("features.parquet", "keys.csv"):
            if not (local / name).is_file():
                raise CtfedError(f"{local / name}: found no file, expected it; run `ctfed prepare --site {centres}`")
        keys = pd.read_csv(local / "keys.csv", dtype=str).set_index("patient")["identifier"]
        frame = pd.read_parquet(local / "features.parquet")
        frames.append(frame.assign(**{PATIENT: frame[PATIENT].map(keys)}))
    patients = pd.read_csv(centres / CENTRES, dtype={PATIENT: str}, keep_default_na=False).drop(columns=[CENTRE])
    whole = pd.concat(frames, ignore_index=True)
    return whole, patients[patients[PATIENT].isin(whole[PATIENT])].reset_index(drop=True)


def write_table(out: Path, patients: pd.DataFrame, frame: pd.DataFrame, seed: int) -> Path:
    """Write ``table.csv`` (the clinical table with a column 'centre') and a site file that cuts it by that column.

    Returns:
        The path of the site file, for `ctfed simulate`.

    Raises:
        CtfedError: when ``out`` is not empty.
    """
    _require_empty(out)
    out.mkdir(parents=True, exist_ok=True)
    table = frame.drop(columns=[CENTRE], errors="ignore").merge(patients[[PATIENT, CENTRE]], on=PATIENT)
    write_text(out / TABLE, table.to_csv(index=False, lineterminator="\n"))
    _write_list(out, patients)
    content = {
        "ctfed_site": 1,
        "partition": {"by": CENTRE, "prefix": "centre", "minimum": 1, "remainder": "without-centre"},
        "data": {"csv": TABLE},
        "columns": {"id": PATIENT, "time": TIME, "event": EVENT},
        "time_unit": "days",
        "fixture_secret": f"public data, seed {seed}",
    }
    write_text(out / SITE, _yaml(content, "Virtual centres of a public table."))
    return out / SITE


def _site(name: str) -> dict[str, Any]:
    return {
        "ctfed_site": 1,
        "site": name,
        "data": {"prepared": True},
        "prepare": {
            "scans": "scans",
            "clinical": CLINICAL,
            "dictionary": f"../{DICTIONARY}",
            "extraction": f"../{EXTRACTION}",
            "output": "out",
        },
        "secret": "site.secret",
        "unmasked": True,
    }


def _yaml(content: Mapping[str, Any], title: str) -> str:
    return f"# {title}\n{yaml.safe_dump(dict(content), sort_keys=False)}"


def _write_list(out: Path, patients: pd.DataFrame) -> None:
    write_text(out / CENTRES, patients.to_csv(index=False, lineterminator="\n"))


def _require_empty(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise CtfedError(f"{out}: found files in it, expected an absent or empty folder")


def _link(scans: Path, series: pd.DataFrame) -> None:
    """scans/COLLECTION/PATIENT/NUMBER, a link to each series' folder."""
    for row in series.itertuples():
        place = scans / (slug(str(row.collection)) or "scans") / (slug(str(row.patient)) or "patient")
        place.mkdir(parents=True, exist_ok=True)
        name = f"{len(list(place.iterdir())) + 1:03d}-{slug(str(row.modality)) or 'series'}"
        (place / name).symlink_to(Path(str(row.folder)).resolve(), target_is_directory=True)


def _write_secret(path: Path, purpose: str) -> None:
    path.touch(mode=0o600)
    path.write_bytes(hashlib.sha256(f"ctfed public data|{purpose}".encode()).digest())
