"""Files that are their owner's alone, and that are on the disk when the function returns."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


def private(path: str, flags: int) -> int:
    """An ``opener`` whose new files have mode 0600."""
    return os.open(path, flags, 0o600)


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, with mode 0700."""
    for one in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        one.mkdir(mode=0o700, exist_ok=True)
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk; a file's own fsync does not have to."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(file: BinaryIO, content: bytes | memoryview) -> None:
    """Write everything to an unbuffered file, however much of it one call takes."""
    view = memoryview(content)
    while view.nbytes:
        view = view[file.write(view) :]
