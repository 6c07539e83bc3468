"""Policy: a site's own limits on what may be asked of it. A server can ask for less, never for more."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from ctfed.config import Faults, Section, load

ExceptionName = Literal["fine_evaluation_tables", "reference_batch", "release_own_evaluation"]


class Policy(Section):
    """A site's limits; the defaults are those of ACRO and DataSHIELD where these have one.

    Numbers of patients and events are judged on the totals of the federation in the rows that a question is about.
    """

    ctfed_policy: Literal[1] = Field(default=1, description="1, the version of this format")
    min_sites: int = Field(default=3, ge=3, description="a whole number >= 3, the fewest sites of a sum")
    min_patients: int = Field(
        default=10, ge=1, description="a whole number >= 1, the fewest patients of a sum and of a site"
    )
    min_events: int = Field(
        default=5, ge=0, description="a whole number >= 0, the fewest events of a sum and of a site"
    )
    min_cell: int = Field(default=5, ge=1, description="a whole number >= 1, the fewest patients of a cell on average")
    parameters_per_patient: float = Field(
        default=0.33, gt=0, le=1, description="a number > 0 and <= 1, the most parameters of a model per patient"
    )
    time_bins_per_patient: float = Field(
        default=1.0, gt=0, description="a number > 0, the most time bins per patient, of all questions together"
    )
    cuts_per_patient: float = Field(
        default=0.33, gt=0, le=1, description="a number > 0 and <= 1, the most thresholds of a column per patient"
    )
    max_tables: int = Field(default=6, ge=1, description="a whole number >= 1, the most tables about the same rows")
    max_points: int = Field(
        default=40, ge=2, description="a whole number >= 2, the most coefficient vectors of pooled risk sets"
    )
    max_rounds: int = Field(default=500, ge=1, description="a whole number >= 1, the most rounds of a run")
    released_per_value: float = Field(
        default=12.0, gt=0, description="a number > 0, the most numbers told about the same rows per patient and column"
    )
    released_together: float = Field(
        default=24.0,
        gt=0,
        description="a number > 0, the most numbers told about the training rows and their folds together, per value",
    )
    max_runs: int = Field(default=5, ge=1, description="a whole number >= 1, the most runs with the same patients")
    min_difference: int | None = Field(
        default=None,
        ge=1,
        description="a whole number >= 1 or null (min_patients), the fewest patients by which two runs differ",
    )
    exceptions: tuple[ExceptionName, ...] = Field(
        default=(), description=f"a list of {' / '.join(get_args(ExceptionName))}, the exceptions that this site allows"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        for i, name in enumerate(self.exceptions):
            if name in self.exceptions[:i]:
                faults.add(("exceptions", i), f"found {name!r} for the second time, expected each exception once")
        faults.require()
        return self

    @property
    def difference(self) -> int:
        """The fewest patients by which the cohorts of two runs differ, unless they are the same."""
        return self.min_patients if self.min_difference is None else self.min_difference


def load_policy(path: Path | str) -> Policy:
    """Read a policy file.

    Raises:
        ConfigError: one sentence per fault: file, line, key, what was found, what was expected.
    """
    return load(Policy, Path(path), "ctfed_policy")
