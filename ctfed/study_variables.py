"""The data dictionary of a study: what its clinical variables are, and how they enter a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ctfed.config import Faults, Section, shown
from ctfed.federation.nominal import Nominal
from ctfed.federation.view import Feature
from ctfed.study_models import Text

_LARGEST_EXPONENT = 120  # of a Feature
_FEWEST_LEVELS = 3  # of a nominal variable
_RANGE = "a list of two numbers [low, high], the plausible values"


def _of_levels(known: dict[str, Any]) -> tuple[float, float]:
    """The range of a nominal variable that states none; any other variable must state it."""
    levels = (known.get("levels") or {}) if known.get("type") == "nominal" else {}
    return (float(min(levels)), float(max(levels))) if levels else (0.0, 1.0)


class Variable(Section):
    """One entry of the data dictionary.

    ``range`` bounds what is plausible (a site refuses values outside) and is where medians are bisected; of a nominal
    variable its levels say it. A nominal variable enters a model as one 0/1 column 'NAME=level' for each level but the
    reference, by default the lowest.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"type": {"const": "nominal"}}},
            "then": {"required": ["levels"]},
            "else": {"required": ["range"]},
        }
    )

    type: Literal["continuous", "binary", "ordinal", "nominal"] = Field(
        description="'continuous', 'binary', 'ordinal' or 'nominal'"
    )
    unit: Text | None = Field(default=None, description="the unit in words, such as years")
    levels: Mapping[int, Text] | None = Field(default=None, description="a mapping of whole numbers to labels")
    range: tuple[float, float] = Field(default_factory=_of_levels, description=_RANGE)
    reference: int | None = Field(
        default=None,
        description="a whole number, the level without a column of its own (the lowest when left out)",
        exclude_if=lambda value: value is None,  # studies that name none keep their digest
    )
    magnitude: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="a number > 0 that typical values are about as large as"
    )
    impute: Literal["median", "mode", "none"] = Field(description="'median', 'mode' or 'none'")
    missing_indicator: bool = Field(default=False, description="true or false")
    label: Text | None = Field(default=None, description="the name that tables and figures show")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = Faults()
        low, high = self.range
        if self.type != "nominal" and "range" not in self.model_fields_set:
            faults.add(("range",), f"found nothing, expected {_RANGE}")
        elif low >= high and "range" in self.model_fields_set:
            faults.add(("range",), f"found {shown(self.range)}, expected [low, high] with low < high")
        elif self.type == "binary" and self.range != (0, 1):
            faults.add(("range",), f"found {shown(self.range)}, expected [0, 1], because the variable is binary")
        if self.type == "nominal":
            self._check_nominal(faults)
        elif self.reference is not None:
            faults.add(("reference",), f"found a reference of a variable that is {self.type}, expected none")
        if self.levels is not None:
            self._check_levels(faults, self.levels)
        self._check_imputation(faults)
        if abs(self.exponent) > _LARGEST_EXPONENT:
            key = "range" if self.magnitude is None else "magnitude"
            limit = f"values between 2^-{_LARGEST_EXPONENT} and 2^{_LARGEST_EXPONENT}"
            faults.add((key,), f"found a magnitude of 2^{self.exponent}, expected {limit}")
        faults.require()
        return self

    def _check_nominal(self, faults: Faults) -> None:
        levels = self.levels or {}
        if len(levels) < _FEWEST_LEVELS:
            found = f"found {len(levels)} levels" if levels else "found nothing"
            hint = " (of two, say type: binary)" if len(levels) == 2 else ""
            wanted = f"at least {_FEWEST_LEVELS} levels of a nominal variable"
            faults.add(("levels",), f"{found}, expected {wanted}{hint}")
        elif len(set(levels.values())) < len(levels):
            faults.add(("levels",), "found a label for the second time, expected another for each level")
        if self.reference is not None and levels and self.reference not in levels:
            faults.add(("reference",), f"found {self.reference}, expected one of its levels: {shown(sorted(levels))}")
        if any(abs(level) > 2**53 for level in levels):
            faults.add(("levels",), "found a level beyond 2^53, expected smaller codes")

    def _check_levels(self, faults: Faults, levels: Mapping[int, str]) -> None:
        low, high = self.range
        if self.type == "continuous":
            faults.add(("levels",), "found levels of a continuous variable, expected none")
        elif self.type == "binary":
            if set(levels) != {0, 1}:
                faults.add(("levels",), f"found {shown(sorted(levels))}, expected labels for 0 and 1")
        elif outside := [level for level in levels if not low <= level <= high]:
            faults.add(("levels",), f"found {shown(outside)}, expected levels inside the range {shown(self.range)}")

    def _check_imputation(self, faults: Faults) -> None:
        if self.type == "nominal" and self.impute == "median":
            faults.add(("impute",), "found 'median' of a nominal variable, expected mode or none")
        elif self.impute == "mode" and not self.possible_levels and self.type != "nominal":
            # The mode is the level with the largest total, and totals are asked of levels that are known beforehand.
            wanted = "median or none" if self.type == "continuous" else "median or none, or levels to count"
            faults.add(("impute",), f"found 'mode' of a variable without levels, expected {wanted}")
        if self.missing_indicator and self.impute == "none":
            wanted = "impute: mode" if self.type == "nominal" else "impute: median or mode"
            faults.add(("missing_indicator",), f"found true with impute: none, expected {wanted}")

    @property
    def exponent(self) -> int:
        """The power of two that the variable's magnitude is about; fixes the scale of its fixed-point sums."""
        magnitude = self.magnitude if self.magnitude is not None else max(abs(self.range[0]), abs(self.range[1]), 1.0)
        return math.ceil(math.log2(magnitude))

    @property
    def possible_levels(self) -> tuple[float, ...]:
        """The values that the variable can take, rising; empty where the dictionary does not list them."""
        levels = sorted(self.levels or ((0, 1) if self.type == "binary" else ()))
        return tuple(float(level) for level in levels)

    def level_label(self, level: float) -> str:
        """The label of a value; the value itself where it has none."""
        named = (self.levels or {}).get(int(level)) if level == int(level) else None
        return named or f"{level:g}"

    def nominal(self, name: str) -> Nominal:
        """The variable as a nominal column.

        Raises:
            ValueError: when it is of another type.
        """
        levels = self.possible_levels
        if self.type != "nominal":
            raise ValueError(f"variable {name!r} is {self.type}, not nominal")
        return Nominal(name, levels, levels[0] if self.reference is None else float(self.reference))

    def feature(self, name: str) -> Feature:
        """The variable as a column of a view."""
        return Feature(name, self.exponent)
