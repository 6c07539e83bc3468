"""Study: what is computed. One YAML file that every site reads, approves and pins by its SHA-256."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from ctfed.config import Faults, Section, canonical_sha256, did_you_mean, listed, load
from ctfed.federation.arrays import FloatArray
from ctfed.federation.census import MISSING, CensusPlan
from ctfed.federation.errors import CtfedError
from ctfed.federation.gate import Scope
from ctfed.federation.nominal import Nominal, column_of
from ctfed.federation.view import Feature, RowFilter
from ctfed.study_models import (
    Consensus,
    EnsembleSpec,
    Group,
    Harmonization,
    ModelSpec,
    Name,
    Search,
    Selection,
    SiteName,
    Text,
    UnitInterval,
    check_models,
)
from ctfed.study_variables import Variable as Variable

T = TypeVar("T", float, FloatArray)
TimeUnit = Literal["days", "months"]

DAYS_PER_MONTH = 30.4375  # 365.25 / 12: the same length for every month, so that conversion keeps ties and order
# What every study asks, by the names of its queries and transforms.
_DESCRIPTION = ("counts", "counts-below", "level-counts", "moments", "impute", "standardise")
_MODEL = ("cox-derivatives", "cox-score-products", "time-counts", "risk-set-sums", "linear-predictor")
_EVALUATION = ("within-site-pairs", "scores-below", "evaluation-table", "group-counts", "threshold-group")
# What a study of many models asks beside: harmonization, selection and projection, and a longer evaluation.
_MANY = (
    *("combat-moments", "combat", "cross-moments", "select", "covariance-products", "project", "random-projection"),
    *("ensemble", "horizon-losses", "binned-risks", "recalibration-derivatives", "survival-deciles", "decision-sums"),
    *("agreement-counts", "absolute-deviations", "section-counts"),
)
# Of a study with nominal variables.
_NOMINAL = ("indicators",)
_MOST_BINS = 10_000
MEASURED = 1e36  # a bound on what is measured in images, which is no bound


def converted(times: T, source: TimeUnit, target: TimeUnit) -> T:
    """A time, or an array of times of any shape, from one unit to another."""
    if source == target:
        return times
    return times / DAYS_PER_MONTH if source == "days" else times * DAYS_PER_MONTH


class Endpoint(Section):
    """The event whose time is modelled."""

    name: Text = Field(description="the endpoint in words, such as overall survival")
    time_unit: TimeUnit = Field(description="'days' or 'months', the unit of every time in the study")


class Model(Section):
    """The Cox model: which columns, which risk sets, how its optimum is reached."""

    features: tuple[Name, ...] = Field(min_length=1, description="a list of at least one variable's name")
    risk_sets: Literal["stratified", "pooled"] = Field(default="stratified", description="'stratified' or 'pooled'")
    ties: Literal["efron", "breslow"] = Field(default="efron", description="'efron' or 'breslow'")
    updates: Literal["newton", "gradient"] = Field(default="newton", description="'newton' or 'gradient'")
    standardise: bool = Field(default=True, description="true or false")
    penalty_factors: Mapping[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="a mapping of features, or levels such as 'histology=2', to numbers >= 0 (0: not penalised)",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        for i, name in enumerate(self.features):
            if name in self.features[:i]:
                faults.add(("features", i), f"found {name!r} for the second time, expected each feature once")
        faults.require()
        return self


class PenalizerPath(Section):
    """Penalizers in equal ratios, from the smallest that empties the model down to ``smallest_ratio`` times that."""

    count: int = Field(default=30, ge=2, le=1000, description="a whole number from 2 to 1000")
    smallest_ratio: float = Field(default=0.01, gt=0, lt=1, description="a number between 0 and 1 (both excluded)")


class Tuning(Section):
    """How the penalty is chosen: by cross-validation over the sites' own folds."""

    folds: int = Field(default=5, ge=2, le=20, description="a whole number from 2 to 20")
    # A path starts where the model is empty; a pure ridge (l1_ratio 0) never is.
    l1_ratios: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.5,), min_length=1, description="a list of at least one number > 0 and <= 1"
    )
    penalizers: PenalizerPath = Field(default_factory=PenalizerPath, description="a mapping: count, smallest_ratio")
    rule: Literal["best", "one_standard_error"] = Field(default="best", description="'best' or 'one_standard_error'")
    score: Literal["within_site_c"] = Field(default="within_site_c", description="'within_site_c'")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        for i, ratio in enumerate(self.l1_ratios):
            if ratio in self.l1_ratios[:i]:
                faults.add(("l1_ratios", i), f"found {ratio} for the second time, expected each ratio once")
        faults.require()
        return self


class Penalty(Section):
    """A penalty that is known beforehand."""

    penalizer: float = Field(ge=0, description="a number >= 0")
    l1_ratio: UnitInterval = Field(description="a number from 0 (ridge) to 1 (lasso)")


class Split(Section):
    """Which patients are kept for testing: a share that each site draws, a column of its table, or whole sites.

    Sites kept for testing are three at least: a total over fewer is refused. What a model does at a single site that
    took no part in training, that site's own report says (`ctfed report`).
    """

    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="a number between 0 and 1 (both excluded)"
    )
    column: Text | None = Field(default=None, description="the name of a column that holds train or test")
    test_sites: Annotated[tuple[SiteName, ...], Field(min_length=3)] | None = Field(
        default=None, description="a list of at least three sites' names, all of whose patients are for testing"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        given = [key for key in ("test_fraction", "column", "test_sites") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            faults.add((), f"found {found}, expected exactly one of test_fraction, column or test_sites")
        faults.require()
        return self

    def __str__(self) -> str:
        if self.column is not None:
            return f"the column {self.column!r} of the table"
        if self.test_sites is not None:
            return f"all patients of {listed(self.test_sites)} are for testing"
        return f"{self.test_fraction:g} of the patients are for testing; this site draws them itself"


class Evaluation(Section):
    """Horizons, bins and intervals of the evaluation. Times are in the study's unit."""

    horizons: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        min_length=1, description="a list of at least one time > 0"
    )
    time_bin: float = Field(gt=0, description="a number > 0, the width of a time bin")
    score_bins: int = Field(default=50, ge=2, le=1000, description="a whole number from 2 to 1000")
    min_cell: int = Field(default=10, ge=1, description="a whole number >= 1, the fewest patients in a cell of a table")
    fine_evaluation_tables: bool = Field(default=False, description="true or false")
    bootstrap: int = Field(default=1000, ge=10, le=100_000, description="a whole number from 10 to 100000")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="a number between 0.5 and 1 (both excluded)")
    seed: int = Field(default=0, ge=0, description="a whole number >= 0")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        for i, horizon in enumerate(self.horizons):
            if i and horizon <= self.horizons[i - 1]:
                faults.add(("horizons", i), f"found {horizon:g} after {self.horizons[i - 1]:g}, expected rising times")
            if not _multiple(horizon, self.time_bin):
                below = math.floor(horizon / self.time_bin) * self.time_bin
                nearest = [edge for edge in (below, below + self.time_bin) if edge > 0]
                bins = f"a multiple of time_bin {self.time_bin:g}, such as {listed(f'{edge:g}' for edge in nearest)}"
                faults.add(("horizons", i), f"found {horizon:g}, expected {bins}")
        if max(self.horizons) / self.time_bin > _MOST_BINS:
            faults.add(
                ("time_bin",), f"found {self.time_bin:g}, expected at most {_MOST_BINS} bins to the last horizon"
            )
        faults.require()
        return self


class TimeGrid(Section):
    """The intervals of the baseline hazard, in the study's time unit; what comes after ``end`` is one interval."""

    width: float = Field(gt=0, description="a number > 0, the width of an interval")
    end: float = Field(gt=0, description="a number > 0, a multiple of the width")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        if not _multiple(self.end, self.width):
            faults.add(("end",), f"found {self.end:g}, expected a multiple of the width {self.width:g}")
        elif self.end / self.width > _MOST_BINS:
            faults.add(("width",), f"found {self.width:g}, expected at most {_MOST_BINS} intervals")
        faults.require()
        return self


class DifferentialPrivacy(Section):
    """Gaussian noise on the tables that an evaluation publishes: counts by time and score, and by risk group."""

    noise_multiplier: float = Field(
        ge=0.1, le=100, description="a number from 0.1 to 100, the noise of a total per patient who can move it"
    )
    delta: float = Field(default=1e-5, gt=0, lt=0.1, description="a number between 0 and 0.1 (both excluded)")


class Study(Section):
    """What is computed, validated. ``sha256`` is what a site approves."""

    ctfed_study: Literal[1] = Field(description="1, the version of this format")
    name: Name = Field(description="an identifier: a letter, then letters, digits, '_', '.' or '-'")
    title: Text = Field(description="the title of the study in words")
    endpoint: Endpoint = Field(description="a mapping: name, time_unit")
    variables: Mapping[Name, Variable] = Field(min_length=1, description="a mapping of names to variables")
    model: Model | None = Field(default=None, description="a mapping with at least the list features")
    groups: Mapping[Name, Group] = Field(default_factory=dict, description="a mapping of names to groups of columns")
    models: Mapping[Name, ModelSpec] = Field(default_factory=dict, description="a mapping of names to models")
    search: Search | None = Field(default=None, description="a mapping: sampler, trials, batch, folds, penalizer ...")
    selection: Selection = Field(default_factory=Selection, description="a mapping: single, combined, share, near_zero")
    harmonization: Harmonization = Field(
        default_factory=Harmonization, description="a mapping: prior, mean_only, reference, minimum, unseen"
    )
    ensembles: Mapping[Name, EnsembleSpec] = Field(
        default_factory=dict, description="a mapping of names to ensembles of models"
    )
    consensus: Consensus | None = Field(default=None, description="a mapping: models, table")
    tuning: Tuning | None = Field(default=None, description="a mapping: folds, l1_ratios, penalizers, rule, score")
    penalty: Penalty | None = Field(default=None, description="a mapping: penalizer, l1_ratio")
    split: Split = Field(description="a mapping with test_fraction or column")
    evaluation: Evaluation = Field(description="a mapping with at least horizons and time_bin")
    time_grid: TimeGrid | None = Field(default=None, description="a mapping: width, end")
    differential_privacy: DifferentialPrivacy | None = Field(
        default=None, description="a mapping: noise_multiplier, delta"
    )
    sites: Annotated[tuple[SiteName, ...], Field(min_length=1)] | None = Field(
        default=None, description="a list of at least one site's name: letters, digits, '_', '.' or '-'"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        if (self.model is None) == (not self.models):
            found = "neither" if self.model is None else "both"
            faults.add((), f"found {found}, expected exactly one of model or models")
        elif self.model is not None:
            self._check_one(faults, self.model)
        else:
            self._check_many(faults)
        for i, site in enumerate(self.split.test_sites or ()):
            if self.sites is not None and site not in self.sites:
                faults.add(("split", "test_sites", i), f"found {site!r}, expected one of sites")
        for i, site in enumerate(self.sites or ()):
            if self.sites and site in self.sites[:i]:
                faults.add(("sites", i), f"found {site!r} for the second time, expected each site once")
        faults.require()
        return self

    def _check_one(self, faults: Faults, model: Model) -> None:
        for i, name in enumerate(model.features):
            if name not in self.variables:
                hint = did_you_mean(name, self.variables)
                faults.add(("model", "features", i), f"found {name!r}, expected a name of variables{hint}")
        penalised = [*model.features, *(f"{name}{MISSING}" for name in self.indicators)]
        penalised += [level for column in self.nominal for level in column.indicators]
        for name in model.penalty_factors:
            if name not in penalised:
                hint = did_you_mean(name, penalised)
                wanted = f"a name of model.features, 'NAME missing' or 'NAME=level' for an indicator{hint}"
                faults.add(("model", "penalty_factors", name), f"found {name!r}, expected {wanted}")
        if (self.tuning is None) == (self.penalty is None):
            found = "neither" if self.penalty is None else "both"
            faults.add((), f"found {found}, expected exactly one of tuning or penalty")
        if self.tuning is not None and model.risk_sets == "pooled":
            # Neighbouring totals over time differ by single patients; every further fit adds equations about them.
            faults.add(("tuning",), "found tuning with risk_sets: pooled, expected penalty, or risk_sets: stratified")
        for key in ("groups", "search", "ensembles", "consensus"):
            if getattr(self, key):
                faults.add((key,), f"found {key} beside model, expected it beside models")

    def _check_many(self, faults: Faults) -> None:
        for key in ("tuning", "penalty"):
            if getattr(self, key) is not None:
                faults.add((key,), f"found {key} beside models, expected search")
        if self.search is None:
            faults.add(("search",), "found nothing, expected a mapping: trials, folds, penalizer, l1_ratio ...")
        check_models(faults, self.variables, self.groups, self.models, self.ensembles, self.consensus)
        self._check_subgroups(faults)
        seen: dict[str, str] = {}
        for group, spec in self.groups.items():
            for name, _ in spec.sized():
                if name in self.variables:
                    faults.add(("groups", group), f"found the column {name!r}, which is a variable, too")
                elif seen.setdefault(name, group) != group:
                    faults.add(("groups", group), f"found the column {name!r}, which group {seen[name]!r} holds, too")
                    break

    def _check_subgroups(self, faults: Faults) -> None:
        """Codes have no order: a subgroup on a nominal variable is one of its levels."""
        for name, model in self.models.items():
            chosen = model.subgroup
            variable = None if chosen is None else self.variables.get(chosen.variable)
            if chosen is None or variable is None or variable.type != "nominal":
                continue
            if chosen.low != chosen.high or chosen.low not in variable.possible_levels:
                found = f"found {chosen.low:g} to {chosen.high:g} of a nominal variable"
                levels = listed(f"{level:g}" for level in variable.possible_levels)
                faults.add(("models", name, "subgroup"), f"{found}, expected low and high to be one level: {levels}")

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the validated content; comments, formatting and the order of keys do not matter."""
        return canonical_sha256(self)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The model's raw columns with their scales, in the model's order."""
        return tuple(self.columns[name].feature(name) for name in self.used)

    @cached_property
    def used(self) -> tuple[str, ...]:
        """Names of the columns of its model, or of all its models, each once."""
        if self.model is not None:
            return self.model.features
        groups = dict.fromkeys(group for model in self.models.values() for group in model.groups)
        names = [name for group in groups for name in self.names_of(group)]
        filters = [model.subgroup.variable for model in self.models.values() if model.subgroup is not None]
        return tuple(dict.fromkeys([*names, *filters]))

    def names_of(self, group: str) -> tuple[str, ...]:
        """Names of the raw columns of a group, in their order."""
        found = self.groups[group]
        return found.variables if found.variables is not None else tuple(name for name, _ in found.sized())

    @cached_property
    def columns(self) -> Mapping[str, Variable]:
        """All columns that a site's table must have: the variables, and those of the groups' images."""
        found = dict(self.variables)
        for group in self.groups.values():
            for name, magnitude in group.sized():
                found[name] = _measured(magnitude)
        return found

    @property
    def single(self) -> Model:
        """The model of a study of one.

        Raises:
            CtfedError: for a study of many models.
        """
        if self.model is None:
            raise CtfedError(f"the study {self.name!r} has {len(self.models)} models; this needs a study of one model")
        return self.model

    @property
    def subgroups(self) -> tuple[RowFilter, ...]:
        """The row filters of its models, each once."""
        rules = [model.subgroup.rule for model in self.models.values() if model.subgroup is not None]
        return tuple({repr(rule): rule for rule in rules}.values())

    @property
    def indicators(self) -> tuple[str, ...]:
        """The features that get a 0/1 column 'NAME missing' when imputed, in the order of the columns."""
        names = (name for name in self.used if name in self.variables)
        return tuple(name for name in names if self.variables[name].missing_indicator)

    @property
    def nominal(self) -> tuple[Nominal, ...]:
        """The nominal variables that are used, in the order of the columns."""
        names = (name for name in self.used if name in self.variables)
        columns = ((name, self.variables[name]) for name in names)
        return tuple(variable.nominal(name) for name, variable in columns if variable.type == "nominal")

    @property
    def folds(self) -> int:
        """Number of cross-validation folds; 1 when the study does not tune."""
        if self.search is not None:
            return self.search.folds
        return 1 if self.tuning is None else self.tuning.folds

    @property
    def noise(self) -> float:
        """Standard deviation of the noise on released tables, in units of their sensitivity; 0 for none."""
        return 0.0 if self.differential_privacy is None else self.differential_privacy.noise_multiplier

    @property
    def grid(self) -> TimeGrid:
        """The baseline hazard's intervals; by default months, up to the first that holds the last horizon."""
        if self.time_grid is not None:
            return self.time_grid
        month = converted(1.0, "months", self.endpoint.time_unit)
        return TimeGrid(width=month, end=month * math.ceil(max(self.evaluation.horizons) / month))

    def label(self, name: str) -> str:
        """The display name of a column of a view: of a variable, of an indicator of it, or of another column."""
        column = name.removesuffix(MISSING)
        variable, suffix = self.variables.get(column_of(column)), name[len(column) :]
        if variable is None:
            return name
        shown_as = variable.label or column_of(column)
        if column in self.variables:
            return f"{shown_as}{suffix}"
        level = column.partition("=")[2]
        return f"{shown_as}: {(variable.levels or {}).get(int(level), level)}"


@lru_cache(maxsize=1024)
def _measured(magnitude: float) -> Variable:
    """The entry of a column that was measured in images: any number, mean-imputed with its group."""
    return Variable(type="continuous", range=(-MEASURED, MEASURED), magnitude=magnitude, impute="median")


def load_study(path: Path | str) -> Study:
    """Read a study file.

    Raises:
        ConfigError: one sentence per fault: file, line, key, what was found, what was expected.
    """
    return load(Study, Path(path), "ctfed_study")


def scope_of(study: Study) -> Scope:
    """What a site that approves the study lets itself be asked."""
    risk_sets = "stratified" if study.model is None else study.model.risk_sets
    kinds = (*_DESCRIPTION, *_MODEL, *_EVALUATION, *(("pooled-gradient",) if risk_sets == "pooled" else ()))
    reference = ("combat-reference",) if study.harmonization.reference else ()
    nominal = study.nominal
    return Scope(
        kinds=frozenset((*kinds, *(_MANY if study.models else ()), *reference, *(_NOMINAL if nominal else ()))),
        columns=frozenset(study.features),
        folds=study.folds,
        time_widths=(study.evaluation.time_bin, study.grid.width),
        risk_sets=risk_sets,
        min_cell=study.evaluation.min_cell,
        fine_tables=study.evaluation.fine_evaluation_tables,
        rows=study.subgroups,
        models=max(1, len(study.models) + len(study.ensembles)),
        reference=study.harmonization.reference if any(model.combat for model in study.models.values()) else None,
        indicators=frozenset(name for column in nominal for name in column.indicators),
    )


def census_of(study: Study) -> CensusPlan:
    """What the sites count together before the first question, so that their gates can judge small cells."""
    names = [name for name in study.used if name in study.variables]
    bins = math.ceil(study.grid.end / study.grid.width - 1e-9)
    return CensusPlan(
        folds=study.folds,
        edges=tuple(study.grid.width * (index + 1) for index in range(bins)),
        binary=tuple(name for name in names if study.variables[name].type == "binary"),
        missing=study.indicators,
        subgroups=study.subgroups,
        nominal=study.nominal,
    )


def study_json_schema() -> dict[str, Any]:
    """The JSON Schema of a study file, for editors."""
    return Study.model_json_schema()


def _multiple(value: float, width: float) -> bool:
    ratio = value / width
    return round(ratio) >= 1 and math.isclose(ratio, round(ratio), rel_tol=1e-9, abs_tol=0.0)
