"""Known: what an attacker with the best side knowledge has of every patient, all but the covariates.

A registry, a death certificate or a trial's publication can tell who was when in which hospital and when somebody died.
The attacks that take this as given bound from above what others can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray
from ctfed.federation.cohort import Cohort, Labels, pool
from ctfed.federation.view import Table, View
from server.audit.rows import Rows
from server.audit.statements import affine, applied


@dataclass(frozen=True, eq=False)
class Known:
    """Outcomes, strata, splits, folds and missing values of all n patients.

    Attributes:
        columns: names of the raw columns.
        time, event, stratum: (n,).
        missing: (n, p) where a raw column has no value.
        skeleton: the patients with these labels and no covariate but NaN and 0.
    """

    columns: tuple[str, ...]
    time: FloatArray
    event: BoolArray
    stratum: Labels
    missing: BoolArray
    skeleton: Cohort

    @classmethod
    def of(cls, cohorts: Sequence[Cohort], view: View) -> Known:
        """What is known of the patients of these sites, for the raw columns of a view. Values are not taken over."""
        whole = pool(cohorts)
        names = tuple(feature.name for feature in view.columns)
        missing = np.stack([np.isnan(whole.columns[name]) for name in names], axis=1)
        bare = dict.fromkeys(whole.columns, np.full(whole.patients, np.nan))
        bare |= {name: np.where(missing[:, j], np.nan, 0.0) for j, name in enumerate(names)}
        labels = {"stratum": whole.stratum, "batch": whole.batch, "split": whole.split, "fold": whole.fold}
        skeleton = Cohort.of("known", bare, whole.time, whole.event, **labels)
        return cls(names, whole.time, whole.event, whole.stratum, missing, skeleton)

    @property
    def patients(self) -> int:
        """n."""
        return int(self.time.size)

    def chosen(self, rows: Rows) -> BoolArray:
        """(n,) who is in some rows; row filters on covariates cannot be told and pass nobody."""
        return rows.chosen(self.skeleton)


@dataclass(frozen=True, eq=False)
class Design:
    """A view's matrix as a function of the raw values: slope x + offset, entry by entry, and constant columns.

    Attributes:
        slope: (p,) per raw column.
        constant: (n, q) the view's matrix with every unknown value at 0.
        position: (p,) column of the view that each raw column becomes.
    """

    slope: FloatArray
    constant: FloatArray
    position: tuple[int, ...]

    def matrix(self, values: FloatArray) -> FloatArray:
        """(n, q) of (n, p) raw values, 0 where missing."""
        x = self.constant.copy()
        x[:, self.position] += values * self.slope
        return x


def design(view: View, known: Known) -> Design | None:
    """How a view's matrix depends on the unknown values; None when it mixes columns or names others."""
    step = affine(view)
    if step is None or tuple(feature.name for feature in view.columns) != known.columns:
        return None
    bare = np.where(known.missing, np.nan, 0.0)
    return Design(step.slope, applied(view, bare), step.position)


def values_of(cohorts: Sequence[Cohort], known: Known) -> FloatArray:
    """(n, p) the true raw values, 0 where missing: for scoring and for bounds, never for an attack."""
    whole = pool(cohorts)
    return np.nan_to_num(np.stack([whole.columns[name] for name in known.columns], axis=1), nan=0.0)


def whole_table(known: Known, rows: BoolArray, x: FloatArray, view: View) -> Table:
    """A view's table of some patients, with the matrix ``x`` (n, q)."""
    stratum = known.stratum[rows]
    return Table(view.features, x[rows], known.time[rows], known.event[rows], stratum, stratum)
