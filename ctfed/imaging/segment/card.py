"""Model cards: what a segmentation model is, as data. One YAML file each, in ``cards/`` or in a site's folder.

A card never says which number a label has: it lists the names under which a region may appear in the model's own
``dataset.json``. Names are compared without regard to case, and '_', '-' and spaces are one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ctfed.config import ConfigError, Faults, Section, did_you_mean, listed, load
from ctfed.imaging.segment.weights import Origin

CARDS = Path(__file__).parent / "cards"
Region = Literal["lung", "tumour", "nodes", "coronaries"]
REGIONS: tuple[Region, ...] = ("lung", "tumour", "nodes", "coronaries")
Text = Annotated[str, Field(min_length=1)]
Labels = Annotated[tuple[Text, ...], Field(min_length=1)]


class Licence(Section):
    """Under which terms code and weights may be used; both matter to a hospital's lawyers."""

    code: Text = Field(description="the licence of the code")
    weights: Text = Field(description="the licence of the weights")


class Cleaning(Section):
    """What the model's authors do to its masks, in words of their intent.

    ``smallest_tumour``: components of the tumour whose extent in the axial plane is below this many mm are not lesions
    and become lung. ``second_lung``: the second largest component of the lungs is kept when it has more than this
    fraction of the largest one's voxels; all smaller ones go.
    """

    smallest_tumour: float = Field(default=0.0, ge=0, le=100, description="millimetres from 0 to 100")
    second_lung: float | None = Field(default=None, ge=0, le=1, description="a fraction from 0 to 1")


class ModelCard(Section):
    """One model."""

    ctfed_model_card: Literal[1] = Field(description="1")
    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")] = Field(
        description="a name in lower-case words joined by hyphens"
    )
    title: Text = Field(description="what the model is called")
    engine: Literal["nnunet", "totalsegmentator", "given", "threshold", "fmcib"] = Field(
        description="nnunet, totalsegmentator, given, threshold or fmcib"
    )
    regions: Mapping[Region, Labels] = Field(
        default={}, description=f"a mapping of regions ({listed(REGIONS)}) to lists of label names"
    )
    unused: tuple[Text, ...] = Field(default=(), description="a list of names of labels that belong to no region")
    configuration: Text | None = Field(default=None, description="the name of an nnU-Net configuration")
    task: Text | None = Field(default=None, description="the name of a task of TotalSegmentator")
    folders: Mapping[int, Text] = Field(
        default={}, description="a mapping of nnU-Net's dataset numbers to folder names"
    )
    cleaning: Cleaning = Field(default_factory=Cleaning, description="a mapping")
    licence: Licence = Field(description="a mapping with the keys code and weights")
    source: Text = Field(description="where the weights can be had")
    reference: Text = Field(description="who to cite")
    contrast: Text = Field(description="what the model needs to know about contrast medium, in words")
    spacing: Text = Field(description="what the model needs to know about spacing, in words")
    notes: tuple[Text, ...] = Field(default=(), description="a list of sentences that users should read")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        if self.engine in ("nnunet", "totalsegmentator", "threshold") and not self.regions:
            faults.add(("regions",), f"found nothing, expected at least one region of engine {self.engine}")
        if self.engine == "totalsegmentator" and not (self.task and self.folders):
            faults.add((), "found no task or no folders, expected both of engine totalsegmentator")
        owner: dict[str, str] = {}
        for region, names in self.regions.items():
            for name in names:
                other = owner.setdefault(plain(name), region)
                if other != region:
                    faults.add(("regions", region), f"found {name!r} in {other} too, expected it in one region")
        faults.require()
        return self

    @property
    def origin(self) -> Origin:
        """For messages about its weights."""
        return Origin(self.title, self.source, self.licence.weights)


def plain(name: str) -> str:
    """A label's name without case and with single spaces for '_', '-' and spaces."""
    return " ".join(re.split(r"[\s_\-]+", name.strip().lower()))


def card_names() -> tuple[str, ...]:
    """The names of the cards that ctfed brings."""
    return tuple(sorted(path.stem for path in CARDS.glob("*.yaml")))


def load_card(model: str) -> ModelCard:
    """A card by the name of one that ctfed brings, or by the path of a YAML file.

    Raises:
        ConfigError: when there is none, or it is not one.
    """
    if model.endswith((".yaml", ".yml")):
        return load(ModelCard, Path(model), "ctfed_model_card")
    names = card_names()
    if model not in names:
        hint = did_you_mean(model, names)
        raise ConfigError(f"found model {model!r}, expected {listed(names)}, or the path of a model card's YAML{hint}")
    return load(ModelCard, CARDS / f"{model}.yaml", "ctfed_model_card")


def region_labels(
    dataset: Mapping[str, Any], regions: Mapping[Region, Sequence[str]], unused: Sequence[str], origin: str
) -> dict[Region, tuple[int, ...]]:
    """The numbers that stand for each region in a model's output.

    Args:
        dataset: the content of nnU-Net's ``dataset.json``; a label is a number, or a list of them for models trained
            on overlapping regions.
        regions: names under which each region may appear.
        unused: names that belong to no region.
        origin: the file, for messages.

    Raises:
        ConfigError: when a region has no label, or a label has no region; with the labels that were found.
    """
    found = {str(name): _numbers(value, name, origin) for name, value in dict(dataset.get("labels", {})).items()}
    wanted = {plain(name): region for region, names in regions.items() for name in names}
    skipped = {plain(name) for name in (*unused, "background", "ignore")}
    numbers: dict[Region, list[int]] = {region: [] for region in regions}
    stray = []
    for name, values in found.items():
        if plain(name) in wanted:
            numbers[wanted[plain(name)]] += values
        elif plain(name) not in skipped:
            stray.append(name)
    spelled = listed(repr(name) for name in found)
    if stray:
        raise ConfigError(
            f"{origin}: labels: found {listed(repr(name) for name in stray)}, expected every label in a region or "
            f"under 'unused' of the model card"
        )
    for region, members in numbers.items():
        if not members:
            raise ConfigError(
                f"{origin}: labels: found {spelled}, expected one of {listed(regions[region])} ({region})"
            )
    return {region: tuple(sorted(set(members))) for region, members in numbers.items()}


def _numbers(value: Any, name: object, origin: str) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(type(item) is int and item >= 0 for item in values):
        raise ConfigError(f"{origin}: labels.{name}: found {value!r}, expected whole numbers from 0")
    return tuple(values)
