"""A site file for phantoms; `ctfed prepare` as a process of its own, and killing it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

SECRET = b"phantom centre's secret"
SETTINGS = Path(__file__).parents[2] / "site_config" / "extraction" / "phantom.yaml"
_COMMAND = "import sys; from ctfed.cli import main; sys.exit(main(sys.argv[1:]))"
# Few passes; what is tested of the command does not depend on how near the bands come to the reference.
KERNEL: dict[str, Any] = {"tolerance": 0.3}
TABLES = (
    "features.parquet",
    "features.csv",
    "exclusions.csv",
    "reasons.csv",
    "acquisition.csv",
    "notes.csv",
    "keys.csv",
)


def start(site: Path, *options: str) -> subprocess.Popen[str]:
    """The command, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND, "prepare", "--site", str(site), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = process.communicate(timeout=1200)
    return process.returncode, out, err


def kill_at_random(site: Path, kills: int, seed: int, longest: float) -> int:
    """Start the command ``kills`` times and SIGKILL it in the midst of its work: up to ``longest`` seconds after it has
    put a first result into the cache. In turn its own process alone is killed, and all its processes at once. How many
    results the killed runs have left in the cache."""
    rng = random.Random(seed)
    cache = site.parent / "out" / "local" / "cache"
    for number in range(kills):
        before = _results(cache)
        process = start(site)
        while process.poll() is None and _results(cache) == before:
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, longest))
        assert process.poll() is None, "the run ended before it was killed"
        if number % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.communicate(timeout=60)
    return _results(cache)


def _results(cache: Path) -> int:
    return sum(1 for _ in cache.glob("??/*/result.json"))


def tables(local: Path) -> dict[str, bytes]:
    """The bytes of every table that a run leaves."""
    return {name: (local / name).read_bytes() for name in TABLES}


def write_site(folder: Path, centre: Path, extraction: dict[str, Any] | None = None, **where: Any) -> Path:
    """A site file in ``folder`` for a phantom centre, with the phantoms' settings and these changes."""
    (folder / "site.secret").write_bytes(SECRET)
    (folder / "site.secret").chmod(0o600)
    settings = yaml.safe_load(SETTINGS.read_text()) | {"kernel": KERNEL} | (extraction or {})
    (folder / "extraction.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    prepare = {
        "scans": str(centre / "scans"),
        "clinical": str(centre / "clinical.csv"),
        "dictionary": str(centre / "dictionary.yaml"),
        "extraction": "extraction.yaml",
        "output": "out",
    }
    site = {
        "ctfed_site": 1,
        "site": centre.name,
        "data": {"prepared": True},
        "prepare": prepare | {name: str(value) for name, value in where.items()},
        "secret": "site.secret",
        "unmasked": True,
    }
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(site, sort_keys=False))
    return path
