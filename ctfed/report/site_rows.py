"""One site's patients as a fitted model sees them: what every number of a site's report is computed from.

Statistics are those of the federation, asked of this one site with a time bin for each distinct time, so nothing is
merged and nothing is rounded. That would tell every patient's time, which is why the numbers stay at the site.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import BoolArray, FloatArray, IntArray, frozen
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.pooled import run_pooled
from ctfed.federation.view import Feature, Table, View
from ctfed.model_file import PortableModel
from ctfed.statistics.horizons import FollowUp, follow_up
from ctfed.statistics.timegrid import TimeGrid

T = TypeVar("T")

SPLITS = ("test", "train", "all")
SCORE = "score"
MISSING_SUFFIX = " missing"  # of the indicators that imputation adds


@dataclass(frozen=True, eq=False)
class SiteRows:
    """The rows of one site on which a model is judged.

    Attributes:
        cohort: the site's patients.
        model: to be judged.
        split: 'test', 'train' or 'all'.
    """

    cohort: Cohort
    model: PortableModel
    split: str

    @cached_property
    def view(self) -> View:
        """The model's score, on these rows."""
        return self.model.scores(self.split)

    @cached_property
    def table(self) -> Table:
        """Score, time and event of each row."""
        return self.view.table(self.cohort)

    @property
    def patients(self) -> int:
        """Number of rows."""
        return self.table.rows

    @property
    def events(self) -> int:
        """Number of rows with the event."""
        return int(self.table.event.sum())

    @property
    def scores(self) -> FloatArray:
        """(n,) linear predictors."""
        return self.table.values[:, 0]

    @property
    def level(self) -> float:
        """Of every interval."""
        return self.model.study.evaluation.confidence

    @property
    def horizons(self) -> tuple[float, ...]:
        """Of the study."""
        return self.model.study.evaluation.horizons

    @property
    def ties(self) -> str:
        """How tied times count in Cox models; Efron's in a study of many models."""
        own = self.model.study.model
        return "efron" if own is None else own.ties

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the site that the model's features are made of, also in views beside each other.

        A column that is prepared with others and left out by a selection is not among them.
        """
        view = self.model.view
        return tuple(dict.fromkeys(_raw_columns(view, set(view.names))))

    @property
    def variables(self) -> tuple[str, ...]:
        """The columns that the study's data dictionary names; what is measured in images is not among them."""
        return tuple(name for name in self.columns if name in self.model.study.variables)

    @property
    def kept(self) -> BoolArray:
        """(patients of the cohort,) True for these rows."""
        cohort = self.cohort
        keep = np.ones(cohort.patients, dtype=bool) if self.split == "all" else cohort.split == self.split
        for rule in self.model.view.rows:
            keep = keep & rule.keep(cohort)
        return np.asarray(keep, dtype=bool)

    @cached_property
    def grid(self) -> TimeGrid:
        """A bin for each distinct time, with an edge at every horizon."""
        return TimeGrid.exact(np.concatenate([self.table.time, np.asarray(self.horizons)]))

    def ask(self, algorithm: Algorithm[T]) -> T:
        """The result of a statistic over this site alone.

        Raises:
            CtfedError: it cannot be computed; the sentence says why.
        """
        return run_pooled(algorithm, [self.cohort])

    def of(self, rows: BoolArray) -> SiteRows:
        """Some of these patients, with the scores that they have among all: ComBat's step at this site rests on all of
        the site's training patients, whoever is looked at.

        Args:
            rows: (patients of the cohort,).
        """
        part = self.cohort.subset(rows & self.kept)
        columns = {SCORE: self.scores[rows[self.kept]]}
        return ScoredRows(replace(part, columns=columns, _cache={}), self.model, "all")

    def followed(self, horizon: float) -> FollowUp:
        """When patients leave, and their weights at one horizon.

        Raises:
            CtfedError: nearly nobody is followed until then.
        """
        if self.patients == 0:
            raise CtfedError("there are no patients")
        if float(self.table.time.max()) < horizon:
            # Whether the last patients die or are lost: nobody was seen alive at the horizon.
            raise CtfedError(f"nobody was followed beyond {self.table.time.max():g}")
        return self.ask(follow_up(self.view, self.grid, [horizon], minimum=0))

    def hazard(self, horizon: float) -> FloatArray:
        """(1, 1) cumulative baseline hazard of the model at a horizon.

        Raises:
            CtfedError: the model predicts no event by then.
        """
        found = frozen(self.model.hazard_at(np.array([horizon]))[None, :])
        if not found[0, 0] > 0:
            raise CtfedError(f"the model predicts no event by {horizon:g}")
        return found


def _raw_columns(view: View, wanted: set[str]) -> list[str]:
    """The raw columns from which the columns ``wanted`` of a view are made.

    A step keeps a column under its name, adds 'NAME missing', or makes new ones of all that it is given.
    """
    stages = [view.sources]
    for step in view.transforms:
        stages.append(step.features(stages[-1]))
    for stage in reversed(stages[:-1]):
        names = {feature.name for feature in stage}
        before = {name.removesuffix(MISSING_SUFFIX) if name not in names else name for name in wanted}
        wanted = names if before - names else before
    found = [feature.name for feature in view.columns if feature.name in wanted]
    for other in view.beside:
        found += _raw_columns(other, wanted & set(other.names))
    return found


class ScoredRows(SiteRows):
    """Rows whose score is known already: a column of their cohort."""

    @cached_property
    def view(self) -> View:
        """The score."""
        return View((Feature(SCORE),), split="all")

    @property
    def kept(self) -> BoolArray:
        """(patients of the cohort,) True for all."""
        return np.ones(self.cohort.patients, dtype=bool)


def leaving(
    grid: TimeGrid, time: FloatArray, event: BoolArray, group: IntArray | None = None, groups: int = 1
) -> FloatArray:
    """(T, G, 2) patients with the event and censored, by time bin and group (one group by default)."""
    place = (grid.bin_of(time) * groups + (0 if group is None else group)) * 2 + ~event
    counts = np.bincount(place, minlength=grid.bins * groups * 2)
    return counts.reshape(grid.bins, groups, 2).astype(np.float64)


def attempt(make: Callable[[], T]) -> tuple[T | None, str]:
    """What ``make`` gives, or None and the sentence that says why it cannot be had."""
    try:
        return make(), ""
    except CtfedError as error:
        return None, str(error)


def number(value: object) -> float | None:
    """A finite float for JSON, None for everything else."""
    found = float(value)  # type: ignore[arg-type]
    return found if np.isfinite(found) else None


def estimate(value: object, lower: object = np.nan, upper: object = np.nan) -> dict[str, float | None]:
    """A value with its limits."""
    return {"value": number(value), "lower": number(lower), "upper": number(upper)}
