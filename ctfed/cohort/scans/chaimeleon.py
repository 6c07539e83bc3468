"""The index of a CHAIMELEON dataset: ``index.json`` lists studies, and only the series in it may be used.

Study folders are symbolic links into a datalake outside the dataset, so a place is judged by the path as written: it
must be relative and must not climb; where the links lead is the platform's matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ctfed.cohort.faults import CaseFault
from ctfed.federation.errors import CtfedError

INDEX = "index.json"


@dataclass(frozen=True)
class Listed:
    """One study of the index: the folders of its series, or what is wrong with it."""

    subject: str
    folders: tuple[Path, ...] = ()
    fault: CaseFault | None = None


def read_index(folder: Path) -> tuple[Listed, ...]:
    """The studies of ``folder/index.json``.

    Raises:
        CtfedError: when the file is no JSON list of studies with a ``subjectName``.
    """
    path = folder / INDEX
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CtfedError(f"{path}: found no readable file ({error.strerror}), expected the dataset's index") from error
    except (ValueError, RecursionError) as error:
        raise CtfedError(f"{path}: found no JSON ({type(error).__name__}), expected a list of studies") from error
    if not isinstance(content, list):
        raise CtfedError(f"{path}: found no list, expected a list of studies")
    return tuple(_study(path, number, entry, folder) for number, entry in enumerate(content))


def _study(path: Path, number: int, entry: Any, folder: Path) -> Listed:
    subject = entry.get("subjectName") if isinstance(entry, Mapping) else None
    if not isinstance(subject, str) or not subject.strip():
        raise CtfedError(f"{path}: [{number}].subjectName: found nothing, expected the name of a subject")
    place = _place(entry.get("path"))
    if place is None:
        return Listed(
            subject, fault=CaseFault("study-path", "found a study outside the dataset, expected a path in it")
        )
    series = entry.get("series")
    if not isinstance(series, list) or not series:
        return Listed(subject, fault=CaseFault("study-without-series", "found a study without series, expected some"))
    names = [_place(item.get("folderName")) if isinstance(item, Mapping) else None for item in series]
    if any(name is None for name in names):
        return Listed(
            subject, fault=CaseFault("study-path", "found a series without a folder in its study, expected one")
        )
    return Listed(subject, tuple(folder / place / name for name in names if name is not None))


def _place(written: object) -> PurePosixPath | None:
    """A relative path that does not climb; None of anything else."""
    if not isinstance(written, str) or not written.strip() or "\0" in written:
        return None
    place = PurePosixPath(written)
    return None if place.is_absolute() or ".." in place.parts else place
