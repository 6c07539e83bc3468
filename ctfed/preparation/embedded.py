"""Settings dataclasses of the imaging modules as sections of a YAML file, with the same sentences for what is wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError, ValidationInfo

from ctfed.config import Faults, did_you_mean, listed, shown


def reader(kind: type) -> Callable[[Any, ValidationInfo], Any]:
    """A pydantic validator that reads a mapping as the dataclass ``kind``; its relative paths are beside the file."""

    def read(value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise ValueError("expected a mapping")
        names = [field.name for field in dataclasses.fields(kind)]
        faults = Faults()
        for name in value:
            if name not in names:
                hint = did_you_mean(str(name), names)
                faults.add((str(name),), f"found an unknown key, expected {listed(names)}{hint}")
        faults.require()
        try:
            made: Any = TypeAdapter(kind).validate_json(json.dumps(dict(value)), strict=True)
        except ValidationError as error:
            for detail in error.errors():
                # A check of the whole dataclass finds the whole mapping; its sentence names what is wrong.
                found = shown(detail["input"])
                said = detail["msg"].removeprefix("Value error, ")
                faults.add(detail["loc"], f"found {found}, expected something else: {said[:1].lower()}{said[1:]}")
        faults.require()
        return _beside(made, (info.context or {}).get("folder"))

    return read


def plain(value: Any) -> Any:
    """A dataclass as JSON content for a key of the cache: paths count by their last name, where they lie does not."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, float) and value.is_integer():  # a default 25 and a file's 25.0 are one setting
        return int(value)
    return value.name if isinstance(value, Path) else value


def _beside(made: Any, folder: Any) -> Any:
    if folder is None:
        return made
    paths = {
        field.name: Path(folder) / value
        for field in dataclasses.fields(made)
        if isinstance(value := getattr(made, field.name), Path)
    }
    return dataclasses.replace(made, **paths) if paths else made
