"""Files that are whole or absent: written beside their place, put on the disk, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctfed.federation.disk import sync_folder
from ctfed.federation.errors import CtfedError

TEMPORARY = ".writing-"


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path`` (with its suffixes), which then takes its place."""
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY, suffix="".join(path.suffixes), dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """A whole UTF-8 file."""
    write_file(path, lambda temporary: temporary.write_bytes(text.encode()))


def write_json(path: Path, content: Any) -> None:
    """Readable JSON with sorted keys."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary folder, which then becomes ``path``; one that is already there stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    try:
        write(temporary)
        for file in temporary.iterdir():
            _sync(file)
        sync_folder(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(path.parent)


def remove_unfinished(folder: Path) -> int:
    """Remove what a killed run left half written anywhere below ``folder``; how many files and folders that were."""
    found = sorted(folder.rglob(f"{TEMPORARY}*"), key=lambda path: len(path.parts))
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(found)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other run out of ``folder`` while the block lasts; a killed run holds nothing.

    Raises:
        CtfedError: when another run holds it.
    """
    import fcntl

    with (folder / "prepare.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CtfedError(f"{folder}: found another `ctfed prepare` at work here, expected none") from error
        yield


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
