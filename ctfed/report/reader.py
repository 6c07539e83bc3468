"""Reading a results mapping: the one place that checks its types, so that the page and the CSV files need not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctfed.federation.errors import CtfedError


class MalformedResults(CtfedError):
    """A results mapping holds something other than what the report expects; says where, what and what was expected."""


def to_plain(results: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Copy ``results`` into plain dicts, lists, strings, booleans, integers and finite floats.

    numpy scalars and arrays become numbers and lists. A number that is not finite becomes None, because JSON has no
    word for it; its path is returned so that the report can say so.

    Args:
        results: nested mappings with string keys, sequences, numpy arrays of numbers, and scalars.

    Returns:
        The copy, and the paths (like 'results.model.coefficients[3].upper') of the numbers that were not finite.

    Raises:
        MalformedResults: a key that is not a string, or a value of any other type.
    """
    dropped: list[str] = []
    copy = _plain(results, "results", dropped)
    if not isinstance(copy, dict):
        raise MalformedResults(f"results: expected a mapping, found {type(results).__name__}")
    return copy, tuple(dropped)


def _plain(value: Any, path: str, dropped: list[str]) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        dropped.append(path)
        return None
    if isinstance(value, Mapping):
        strange = [key for key in value if not isinstance(key, str)]
        if strange:
            raise MalformedResults(f"{path}: expected keys that are strings, found {strange[0]!r}")
        return {key: _plain(item, f"{path}.{key}", dropped) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item, f"{path}[{index}]", dropped) for index, item in enumerate(value)]
    raise MalformedResults(
        f"{path}: expected a mapping, a sequence, a string, a number or None, found {type(value).__name__}"
    )


@dataclass(frozen=True)
class Reader:
    """One mapping of the results and where it stands; a missing key and None read the same.

    Every method raises MalformedResults when the value is there and has another type than the method's name says.
    """

    values: Mapping[str, Any]
    path: str = "results"

    def __bool__(self) -> bool:
        return bool(self.values)

    def _wrong(self, key: str, expected: str) -> MalformedResults:
        found = self.values[key]
        return MalformedResults(f"{self.path}.{key}: expected {expected}, found {found!r} ({type(found).__name__})")

    def section(self, key: str) -> Reader:
        """The mapping under ``key``; empty, and so false, when there is none."""
        value = self.values.get(key)
        if value is None:
            return Reader({}, f"{self.path}.{key}")
        if not isinstance(value, Mapping):
            raise self._wrong(key, "a mapping")
        return Reader(value, f"{self.path}.{key}")

    def rows(self, key: str) -> tuple[Reader, ...]:
        """The list of mappings under ``key``; empty when there is none."""
        rows = self._list(key, "a list of mappings")
        if not all(isinstance(row, Mapping) for row in rows):
            raise self._wrong(key, "a list of mappings")
        return tuple(Reader(row, f"{self.path}.{key}[{index}]") for index, row in enumerate(rows))

    def number(self, key: str) -> float | None:
        """The finite number under ``key``."""
        value = self.values.get(key)
        if value is None:
            return None
        if not _is_number(value):
            raise self._wrong(key, "a finite number or None")
        return float(value)

    def count(self, key: str) -> int | None:
        """The whole number under ``key``; a float that is whole is accepted."""
        value = self.number(key)
        if value is None:
            return None
        if value != int(value):
            raise self._wrong(key, "a whole number or None")
        return int(value)

    def text(self, key: str) -> str | None:
        """The string under ``key``; an empty one reads as None."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self._wrong(key, "a string or None")
        return value or None

    def flag(self, key: str) -> bool | None:
        """The truth value under ``key``; None stays None because 'not said' is not 'no'."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true, false or None")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of strings under ``key``; empty when there is none."""
        items = self._list(key, "a list of strings")
        if not all(isinstance(item, str) for item in items):
            raise self._wrong(key, "a list of strings")
        return tuple(items)

    def numbers(self, key: str, length: int | None = None) -> tuple[float | None, ...]:
        """The list of numbers or Nones under ``key``; empty when there is none.

        Args:
            key: name of the list.
            length: the length that it must have unless it is empty (that of the times it belongs to).
        """
        items = self._list(key, "a list of numbers")
        if not all(item is None or _is_number(item) for item in items):
            raise self._wrong(key, "a list of finite numbers")
        if length is not None and items and len(items) != length:
            raise MalformedResults(f"{self.path}.{key}: expected {length} numbers, found {len(items)}")
        return tuple(None if item is None else float(item) for item in items)

    def _list(self, key: str, expected: str) -> Sequence[Any]:
        value = self.values.get(key)
        if value is None:
            return ()
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise self._wrong(key, expected)
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
