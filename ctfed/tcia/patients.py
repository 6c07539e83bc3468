"""From series to patients: which scanner, kernel and institution a patient's CT comes from, and how much there is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ctfed.federation.errors import CtfedError

if TYPE_CHECKING:
    import pandas as pd

# Institutions that an identifier carries where the headers were emptied. NSCLC Radiogenomics: the Palo Alto cohort R01
# and the Stanford cohort AMC; TCGA: the tissue source site, the second part of TCGA-05-4244.
_IN_IDENTIFIER = {
    "nsclc_radiogenomics": re.compile(r"^(R01|AMC)-"),
    "tcga_luad": re.compile(r"^TCGA-([0-9A-Z]{2})-"),
    "tcga_lusc": re.compile(r"^TCGA-([0-9A-Z]{2})-"),
}
ORIGIN = ("collection", "manufacturer", "model", "kernel", "institution")


def patients_of(series: pd.DataFrame) -> pd.DataFrame:
    """One row per patient that has a CT, in the order of their identifiers.

    A patient's scan is the CT that a mask refers to, where that is known, else the one with most images; its
    manufacturer, model and kernel are the patient's. Counts and sizes are of all series.

    Returns:
        Columns patient, collection, manufacturer, model, kernel, institution, series, images, megabytes, masks (number
        of RTSTRUCT and SEG series).

    Raises:
        CtfedError: when two collections have a patient of the same name, or none has a CT.
    """
    if "referred" not in series:
        series = series.assign(referred=False)
    ct = series[series["modality"] == "CT"]
    if ct.empty:
        raise CtfedError("found no CT series, expected at least one")
    ordered = ct.sort_values(["patient", "referred", "images", "series"], ascending=[True, False, False, True])
    scans = ordered.groupby("patient", sort=True).first().reset_index()
    own = series[series["patient"].isin(scans["patient"])]
    both = own.groupby("patient")["collection"].nunique()
    if (both > 1).any():
        raise CtfedError(f"found patient {both[both > 1].index[0]!r} in two collections, expected each in one")
    sums = own.groupby("patient").agg(
        count=("series", "size"),
        total=("images", "sum"),
        size=("megabytes", "sum"),
        masks=("modality", lambda kinds: int(kinds.isin(("RTSTRUCT", "SEG")).sum())),
    )
    table = scans[["patient", *ORIGIN]].merge(sums, left_on="patient", right_index=True)
    table = table.rename(columns={"count": "series", "total": "images", "size": "megabytes"})
    table["manufacturer"] = table["manufacturer"].str.strip()
    origins = zip(table["institution"], table["collection"], table["patient"], strict=True)
    table["institution"] = [own or _from_identifier(str(where), str(who)) for own, where, who in origins]
    return table.reset_index(drop=True)


def _from_identifier(collection: str, patient: str) -> str:
    pattern = _IN_IDENTIFIER.get(collection)
    found = pattern.match(patient) if pattern else None
    return found.group(1) if found else ""


def read_folders(folders: Iterable[Path]) -> pd.DataFrame:
    """The series of folders that were downloaded, in the layout of the NBIA downloader or of IDC.

    NBIA: COLLECTION/PatientID/STUDY/SERIES/*.dcm; IDC: collection/PatientID/StudyUID/CT_SeriesUID/*.dcm. A folder with
    files holds one series: its first DICOM file is read, the others are counted. The collection is the name of the
    folder above the one that is called as the patient, else that of the folder given.

    Returns:
        As ``read_series``, and: folder (a Path), referred (a mask of the patient names this series).

    Raises:
        CtfedError: when a folder is not there or has no DICOM file.
    """
    import pandas as pd

    rows: list[dict[str, object]] = []
    references: set[str] = set()
    for folder in folders:
        if not folder.is_dir():
            raise CtfedError(f"{folder}: found no folder, expected one with downloaded scans")
        for place, files in _by_folder(folder):
            if found := _series(place, files, folder):
                row, refers_to = found
                rows.append(row)
                references.update(refers_to)
    if not rows:
        raise CtfedError(f"{', '.join(map(str, folders))}: found no DICOM file, expected downloaded scans")
    table = pd.DataFrame(rows)
    table["referred"] = table["series"].isin(references)
    return table.sort_values(["collection", "patient", "series"]).reset_index(drop=True)


def _by_folder(folder: Path) -> list[tuple[Path, list[Path]]]:
    from ctfed.cohort.scans.find import walk

    found: dict[Path, list[Path]] = {}
    for path in walk(folder):
        found.setdefault(path.parent, []).append(path)
    return sorted(found.items())


def _series(place: Path, files: list[Path], root: Path) -> tuple[dict[str, object], tuple[str, ...]] | None:
    from ctfed.cohort.scans.headers import NotDicom, Unreadable, read_header

    for path in files:
        try:
            header = read_header(path)
        except (NotDicom, Unreadable):
            continue  # a later file of the folder tells; a wholly unreadable series is named by `ctfed prepare`
        break
    else:
        return None
    row: dict[str, object] = {
        "collection": _collection(place, header.patient, root),
        "patient": header.patient,
        "study": header.study_uid,
        "series": header.series_uid,
        "modality": header.modality,
        "manufacturer": header.manufacturer,
        "model": header.device,
        "kernel": header.kernel,
        "institution": _institution(path),
        "images": len(files),
        "megabytes": sum(file.stat().st_size for file in files) / 1e6,
        "licence": "",
        "analysis": "",
        "folder": place,
    }
    return row, header.refers_to


def _institution(path: Path) -> str:
    import pydicom

    from ctfed.cohort.scans.headers import quietly

    with quietly():
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["InstitutionName"])
        return str(dataset.get("InstitutionName") or "").strip()


def _collection(place: Path, patient: str, root: Path) -> str:
    for folder in (place, *place.parents):
        if folder.name == patient and folder != root:
            return folder.parent.name if folder.parent != root else root.name
        if folder == root:
            break
    return root.name
