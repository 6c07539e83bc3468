"""What became of one patient, as it comes back from the process that worked on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Aside:
    """Why a patient has no row.

    Attributes:
        stage: 'clinical', 'scan', 'masks' or 'process'.
        rule: kebab-case name of the fault.
        reason: one sentence without identifiers or paths.
    """

    stage: str
    rule: str
    reason: str


@dataclass(frozen=True, eq=False)
class Outcome:
    """One patient's features, or why there are none.

    Attributes:
        key: the patient's key in all outputs.
        values: (columns,) in the order of the run's imaging columns; NaN where missing. None for a patient set aside.
        reasons: why a group of columns is missing, by the group's name.
        notes: what a person may want to know: the choice of series, flags, what a back end said.
        acquisition: a row of acquisition.csv; empty when no scan was read.
        provenance: what made the masks, by back end.
        aside: None for a patient with a row.
        computed: the steps that were not in the cache.
        detail: of an error that was not foreseen, its traceback for the site's own log.
    """

    key: str
    values: FloatArray | None
    reasons: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    acquisition: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    aside: Aside | None = None
    computed: tuple[str, ...] = ()
    detail: str = ""
