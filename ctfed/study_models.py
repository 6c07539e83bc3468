"""The sections of a study of many models: groups of features, how they are prepared, which models are made of them.

A study names either one ``model``, or ``groups`` and ``models``. A group is a set of columns that are prepared together
(imputed, standardised, harmonized, projected); a model is a combination of groups with a penalty that is searched for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ctfed.config import Faults, Section, did_you_mean, shown
from ctfed.federation.view import RowFilter, Within

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,127}$")]
SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Text = Annotated[str, Field(min_length=1)]
UnitInterval = Annotated[float, Field(ge=0, le=1)]
Region = Literal["lung", "tumour", "nodes", "coronaries"]
Cube = Literal[50, 96, 128]

FM_WIDTH = 4096
FM_MAGNITUDE = 16.0  # of a deep feature; what is larger than 16,384 times as much is refused


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] >= value[1]:
        raise ValueError("found them in another order, expected [low, high] with low < high")
    return value


class Projection(Section):
    """Principal components, or a random projection, of a group that has more columns than there are patients."""

    method: Literal["pca", "random"] = Field(default="pca", description="'pca' or 'random'")
    components: tuple[Annotated[int, Field(ge=1, le=500)], ...] = Field(
        min_length=1, description="a list of numbers of components, rising, among which the search chooses"
    )
    seed: int = Field(default=0, ge=0, description="a whole number >= 0, public")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        if list(self.components) != sorted(set(self.components)):
            faults.add(("components",), f"found {shown(self.components)}, expected rising whole numbers")
        faults.require()
        return self


class Group(Section):
    """Columns that are prepared together: clinical variables, the radiomics of a region, a cube, or any columns."""

    label: Text | None = Field(default=None, description="the name that tables and figures show")
    variables: tuple[Name, ...] | None = Field(default=None, description="a list of names of variables")
    region: Region | None = Field(default=None, description="'lung', 'tumour', 'nodes' or 'coronaries'")
    image: Literal["original", "rkn"] = Field(default="original", description="'original' or 'rkn'")
    classes: tuple[Literal["texture", "shape"], ...] = Field(
        default=("texture",), description="a list of 'texture' and 'shape'"
    )
    cube: Cube | None = Field(default=None, description="50, 96 or 128, the edge of the foundation model's cube in mm")
    columns: tuple[Name, ...] | None = Field(default=None, description="a list of names of columns")
    magnitude: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="a number > 0 that the values of columns are about as large as"
    )
    projection: Projection | None = Field(default=None, description="a mapping: method, components, seed")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        given = [key for key in ("variables", "region", "cube", "columns") if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            faults.add((), f"found {found}, expected exactly one of variables, region, cube or columns")
        for key in ("variables", "columns"):
            values = getattr(self, key) or ()
            faults_of = [i for i, name in enumerate(values) if name in values[:i]]
            for i in faults_of:
                faults.add((key, i), f"found {values[i]!r} for the second time, expected each once")
        if self.image == "rkn" and self.region not in ("lung", "tumour"):
            faults.add(("image",), "found 'rkn', expected it with region: lung or tumour")
        if self.projection is not None and self.variables is not None:
            faults.add(("projection",), "found a projection of clinical variables, expected it of features of images")
        faults.require()
        return self

    @property
    def clinical(self) -> bool:
        """Whether its columns are variables of the data dictionary."""
        return self.variables is not None

    def sized(self) -> Iterator[tuple[str, float]]:
        """The columns that are no variables, with the magnitude of their values."""
        if self.region is not None:
            yield from _radiomics(self.region, self.image, self.classes)
        elif self.cube is not None:
            yield from ((f"fm{self.cube}_{i:04d}", FM_MAGNITUDE) for i in range(FM_WIDTH))
        else:
            yield from ((name, self.magnitude) for name in self.columns or ())


def _radiomics(region: str, image: str, classes: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    from ctfed.imaging.magnitudes import MAGNITUDES

    for feature, magnitude in MAGNITUDES.items():
        shape = feature.startswith("original_shape_")
        if ("shape" if shape else "texture") in classes:
            # Shape does not depend on intensities: it stands once, beside the original's.
            yield (f"{region}.{feature}" if shape or image == "original" else f"{region}.rkn.{feature}"), magnitude


class Harmonization(Section):
    """ComBat, for the groups that a model harmonizes. Batches are the sites."""

    prior: Literal["parametric", "nonparametric", "none"] = Field(
        default="parametric", description="'parametric', 'nonparametric' or 'none'"
    )
    mean_only: bool = Field(default=False, description="true or false")
    reference: SiteName | None = Field(
        default=None, description="the name of the site whose features stay as they are (it publishes their moments)"
    )
    minimum: int = Field(default=10, ge=2, le=30, description="a whole number from 2 to 30, fewest rows of a batch")
    unseen: Literal["identity", "local"] = Field(default="identity", description="'identity' or 'local'")


class Selection(Section):
    """Which features of images stay: those that vary, and of two that say the same, one."""

    single: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, description="a number > 0 and <= 1, the largest |r| of two features of a model of one group"
    )
    combined: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.7, description="a number > 0 and <= 1, the same of a model of several groups"
    )
    share: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.5, description="a number >= 0 and < 1: features selected in more than this share of folds stay"
    )
    near_zero: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=1e-4, description="a number >= 0 and < 1, the smallest spread in units of the mean"
    )


class Subgroup(Section):
    """Patients of a model: those whose variable lies between two values, both included."""

    variable: Name = Field(description="the name of a variable")
    low: float = Field(description="a number, the lowest value")
    high: float = Field(description="a number, the highest value")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        if self.low > self.high:
            faults.add(("high",), f"found {self.high:g} below low {self.low:g}, expected a value >= low")
        faults.require()
        return self

    @property
    def rule(self) -> RowFilter:
        """The same as a row filter."""
        return Within(self.variable, self.low, self.high)


class ModelSpec(Section):
    """One Cox model: the groups that it is made of."""

    label: Text | None = Field(default=None, description="the name that tables and figures show")
    table: Annotated[str, AfterValidator(str.strip)] = Field(
        default="models", description="the name of the table in which it stands"
    )
    groups: tuple[Name, ...] = Field(min_length=1, description="a list of at least one group's name")
    combat: tuple[Name, ...] = Field(default=(), description="a list of the groups that are harmonized by ComBat")
    subgroup: Subgroup | None = Field(default=None, description="a mapping: variable, low, high")
    without: tuple[Name, ...] = Field(default=(), description="a list of variables of its groups that are left out")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        for i, name in enumerate(self.groups):
            if name in self.groups[:i]:
                faults.add(("groups", i), f"found {name!r} for the second time, expected each group once")
        for i, name in enumerate(self.combat):
            if name not in self.groups:
                faults.add(("combat", i), f"found {name!r}, expected one of the model's groups")
        faults.require()
        return self


class Search(Section):
    """How every model's penalty (and number of components) is chosen: Optuna over the sites' own folds."""

    sampler: Literal["tpe", "random"] = Field(default="tpe", description="'tpe' or 'random'")
    trials: int = Field(default=100, ge=1, le=2000, description="a whole number from 1 to 2000")
    batch: int = Field(default=10, ge=1, le=10, description="a whole number from 1 to 10, trials asked at once")
    startup: int = Field(default=20, ge=1, description="a whole number >= 1, random trials at the beginning")
    folds: int = Field(default=5, ge=2, le=20, description="a whole number from 2 to 20")
    penalizer: Annotated[tuple[float, float], AfterValidator(_rising)] = Field(
        default=(1e-3, 1.0), description="a list of two numbers [low, high] > 0, searched on a log scale"
    )
    l1_ratio: Annotated[tuple[UnitInterval, UnitInterval], AfterValidator(_rising)] = Field(
        default=(0.0, 1.0), description="a list of two numbers [low, high] from 0 to 1"
    )
    seed: int = Field(default=0, ge=0, description="a whole number >= 0")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        if self.penalizer[0] <= 0:
            faults.add(("penalizer",), f"found {self.penalizer[0]:g}, expected numbers > 0")
        faults.require()
        return self


class EnsembleSpec(Section):
    """The mean of the standardised risks of several models."""

    label: Text | None = Field(default=None, description="the name that tables and figures show")
    table: str = Field(default="ensembles", description="the name of the table in which it stands")
    models: tuple[Name, ...] = Field(min_length=2, description="a list of at least two models' names")


class Consensus(Section):
    """Classification at the horizons by several models that must agree."""

    models: tuple[Name, ...] = Field(min_length=2, description="a list of at least two models' names")
    table: str = Field(default="consensus", description="the name of the table in which it stands")


def check_models(
    faults: Faults,
    variables: Mapping[str, object],
    groups: Mapping[str, Group],
    models: Mapping[str, ModelSpec],
    ensembles: Mapping[str, EnsembleSpec],
    consensus: Consensus | None,
) -> None:
    """Note every name that is not one, and every combination that cannot be."""
    for name, group in groups.items():
        for i, variable in enumerate(group.variables or ()):
            if variable not in variables:
                hint = did_you_mean(variable, variables)
                faults.add(("groups", name, "variables", i), f"found {variable!r}, expected a name of variables{hint}")
    for name, model in models.items():
        _check_model(faults, name, model, variables, groups)
    whole = [name for name, model in models.items() if model.subgroup is None]
    parts: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
        (("ensembles", name, "models"), spec.models) for name, spec in ensembles.items()
    ]
    parts += [] if consensus is None else [(("consensus", "models"), consensus.models)]
    for key, names in parts:
        for i, name in enumerate(names):
            if name not in whole:
                hint = did_you_mean(name, whole)
                faults.add((*key, i), f"found {name!r}, expected the name of a model of all patients{hint}")
    for name in ensembles:
        if name in models:
            faults.add(("ensembles", name), "found the name of a model, expected another name")


def _check_model(
    faults: Faults, name: str, model: ModelSpec, variables: Mapping[str, object], groups: Mapping[str, Group]
) -> None:
    for i, group in enumerate(model.groups):
        if group not in groups:
            hint = did_you_mean(group, groups)
            faults.add(("models", name, "groups", i), f"found {group!r}, expected a name of groups{hint}")
    known = [groups[group] for group in model.groups if group in groups]
    for i, group in enumerate(model.combat):
        if group in groups and groups[group].clinical:
            faults.add(("models", name, "combat", i), f"found {group!r}, expected a group of features of images")
    if sum(group.projection is not None for group in known) > 1:
        faults.add(("models", name, "groups"), "found two groups with a projection, expected at most one")
    named = [variable for group in known for variable in group.variables or ()]
    for i, variable in enumerate(model.without):
        if variable not in named:
            faults.add(("models", name, "without", i), f"found {variable!r}, expected a variable of its groups")
    if model.subgroup is not None and model.subgroup.variable not in variables:
        found = model.subgroup.variable
        hint = did_you_mean(found, variables)
        faults.add(("models", name, "subgroup", "variable"), f"found {found!r}, expected a name of variables{hint}")
