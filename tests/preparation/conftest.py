"""A small phantom centre, written once, and its site file; each test gets an output folder of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for prepare_support

from prepare_support import finish, start, write_site

PATIENTS = 6


@pytest.fixture(scope="session")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a phantom centre with 6 patients: scans, clinical.csv and dictionary.yaml."""
    for library in ("pydicom", "SimpleITK", "radiomics", "pyarrow", "highdicom", "matplotlib"):
        pytest.importorskip(library)
    from ctfed.phantom import PhantomCohort, write_cohort

    folder = tmp_path_factory.mktemp("phantoms") / "cohort"
    write_cohort(folder, PhantomCohort(patients=PATIENTS, sites=1, matrix=64, seed=7))
    return folder / "phantom-a"


@pytest.fixture(scope="session")
def prepared(centre: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The output folder of one run of the command over all patients, what it said, and what it said on stderr."""
    folder = tmp_path_factory.mktemp("prepared")
    code, out, err = finish(start(write_site(folder, centre), "--workers", "1"))
    assert code == 0, err
    return folder / "out", out, err


@pytest.fixture
def done(prepared: tuple[Path, str, str], tmp_path: Path) -> Path:
    """A copy of that output folder, where ``site_file`` expects it."""
    shutil.copytree(prepared[0], tmp_path / "out")
    return tmp_path / "out" / "local"


@pytest.fixture
def site_file(centre: Path, tmp_path: Path) -> Callable[..., Path]:
    """``site_file(scans=..., extraction={...})``: a site file beside ``tmp_path/out``; settings are merged in."""

    def write(extraction: dict[str, Any] | None = None, **where: Any) -> Path:
        return write_site(tmp_path, centre, extraction, **where)

    return write
