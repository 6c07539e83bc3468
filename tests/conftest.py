"""What all tests share: reference data, random cohorts, and how long hypothesis searches."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from ctfed.federation import Cohort, Feature, View, pool

settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("long", max_examples=1000, deadline=None, database=None, print_blob=True)
settings.load_profile(os.environ.get("CTFED_HYPOTHESIS", "ci"))

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of reference data and results: $CTFED_SHARED_DATA, or shared/data beside the project's folder."""
    folder = Path(os.environ.get("CTFED_SHARED_DATA", SHARED_DATA))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}; set CTFED_SHARED_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def lung1_001_folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CT (134 DICOM slices) and RTSTRUCT of patient LUNG1-001, unpacked from the reference data."""
    archive = shared_data / "imaging" / "lung1_001" / "LUNG1-001.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no scan of LUNG1-001 at {archive}")
    folder = tmp_path_factory.mktemp("lung1")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "LUNG1-001"


def random_cohort(
    rng: np.random.Generator, columns: Mapping[str, np.ndarray], *, folds: int = 3, test_fraction: float = 0.0
) -> Cohort:
    """One cohort with these columns and random follow-up (tied, partly censored), splits and folds."""
    n = next(iter(columns.values())).shape[0]
    test = rng.random(n) < test_fraction
    return Cohort.of(
        "pooled",
        columns,
        np.ceil(rng.exponential(24.0, n) * 2) / 2 + 0.5,
        rng.random(n) < 0.6,
        split=np.where(test, "test", "train"),
        fold=np.where(test, -1, rng.integers(0, folds, n)),
    )


def split_over_sites(cohort: Cohort, assignment: np.ndarray, sites: int) -> list[Cohort]:
    """The rows of ``cohort`` at sites 0 ... sites - 1, labels kept; a site may get none."""
    return [cohort.subset(assignment == index, f"site-{index}") for index in range(sites)]


@st.composite
def federations(
    draw: st.DrawFn,
    *,
    columns: Sequence[str] = ("a", "b", "c"),
    min_patients: int = 1,
    max_patients: int = 120,
    missing: bool = True,
) -> list[Cohort]:
    """Random cohorts of 1 to 6 sites, of which some may hold no patient or a single one.

    Columns differ in magnitude (1e-6 to 1e12), spread (mean up to 1e6 standard deviations), ties and missing values;
    in every column at least one patient has a value.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sites = draw(st.integers(1, 6))
    n = draw(st.integers(min_patients, max_patients))
    values: dict[str, np.ndarray] = {}
    for name in columns:
        scale = 10.0 ** draw(st.integers(-6, 12))
        offset = draw(st.sampled_from([0.0, 1.0, -30.0, 1e6]))
        x = rng.normal(offset, 1.0, n)
        if draw(st.booleans()):
            x = np.round(x, 1)
        if missing and draw(st.booleans()):
            gone = rng.random(n) < draw(st.sampled_from([0.02, 0.3, 0.95]))
            gone[rng.integers(n)] = False
            x[gone] = np.nan
        values[name] = x * scale
    uneven = rng.dirichlet(np.full(sites, 0.7))
    return split_over_sites(random_cohort(rng, values), rng.choice(sites, n, p=uneven), sites)


def magnitude_view(cohorts: Sequence[Cohort], **choice: object) -> View:
    """A view of all columns, with the exponents that a data dictionary would declare."""
    pooled = pool(cohorts)
    exponents = {
        name: int(np.ceil(np.log2(max(float(np.nanmax(np.abs(x), initial=0.0)), 1e-30))))
        for name, x in pooled.columns.items()
    }
    return View(tuple(Feature(name, exponent) for name, exponent in exponents.items()), **choice)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_cohort() -> Callable[..., Cohort]:
    """``random_cohort(rng, columns, folds=, test_fraction=)``."""
    return random_cohort


@pytest.fixture(scope="session")
def split_cohort() -> Callable[[Cohort, np.ndarray, int], list[Cohort]]:
    """``split_over_sites(cohort, assignment, sites)``."""
    return split_over_sites


@pytest.fixture(scope="session")
def make_federation() -> Callable[..., st.SearchStrategy[list[Cohort]]]:
    """``federations(...)``: a hypothesis strategy of random cohorts, for ``data.draw``."""
    return federations


@pytest.fixture(scope="session")
def view_of() -> Callable[..., View]:
    """``magnitude_view(cohorts, split=, fold=, ...)``."""
    return magnitude_view
