"""Content digests of input files, remembered by path, size and time of change, so that a second run reads no pixels.

A file that was changed within the last seconds before it was read is not remembered: a further change could leave size
and time as they are.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

from ctfed.cohort.faults import CaseFault
from ctfed.preparation.atomic import write_text

SETTLED = 2.0  # seconds; coarser than the clocks of file systems


def file_digests(files: Iterable[Path], root: Path, memory: Path) -> dict[str, str]:
    """SHA-256 (hex) of each file by its path below ``root``.

    Args:
        files: what one patient's results depend on.
        root: the folder of scans.
        memory: the JSON file that remembers digests of this patient.

    Raises:
        CaseFault: 'unreadable-file', when one cannot be read.
    """
    known = _remembered(memory)
    digests, remembered = {}, {}
    for path in sorted(set(files)):
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        try:
            state = path.stat()
            stamp = [state.st_size, state.st_mtime_ns, state.st_ino]
            entry = known.get(name)
            digests[name] = entry[1] if entry and entry[0] == stamp else _digest(path)
        except OSError as error:
            raise CaseFault("unreadable-file", f"found a file that cannot be read ({error.strerror})") from error
        if time.time() - state.st_mtime > SETTLED:
            remembered[name] = [stamp, digests[name]]
    if remembered != known:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_text(memory, json.dumps(remembered))
    return digests


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remembered(memory: Path) -> dict[str, list]:  # type: ignore[type-arg]
    try:
        content = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
