"""The cache: the result of every step under the SHA-256 of all that it depends on. An entry is whole or absent.

A key covers the step's name, its code, its settings, the content of the input files and the digests of the results it
builds on. A setting that changes therefore gives new keys to its step and to those that depend on it, and to no other;
a step that is repeated with an equal result does not make later steps repeat theirs.

A fault of a patient is a result as well: it follows from the same inputs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ctfed.cohort.faults import CaseFault
from ctfed.preparation.atomic import write_folder

Array = npt.NDArray[Any]

_VALUES = "result.json"
_ARRAYS = "arrays.npz"


class DamagedEntry(Exception):
    """The arrays of an entry are not those that were written. The entry is gone; the step can be repeated."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a step found out.

    Attributes:
        values: JSON content; numbers keep all their bits, NaN included.
        digests: of the arrays, by name.
        fault: (rule, sentence) of the patient's fault in place of values; None (default) for none.
        load: gives the arrays; those of an entry are read when they are asked for.
    """

    values: Mapping[str, Any]
    digests: Mapping[str, str] = field(default_factory=dict)
    fault: tuple[str, str] | None = None
    load: Callable[[], Mapping[str, Array]] = dict

    @classmethod
    def of(cls, values: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> Result:
        """A new result, as the cache will give it back: keys sorted, tuples as lists."""
        held = dict(arrays or {})
        return cls(
            json.loads(canonical(values)),
            {name: array_digest(array) for name, array in held.items()},
            None,
            lambda: held,
        )

    @classmethod
    def of_fault(cls, fault: CaseFault) -> Result:
        """The fault of a patient, which is a result too."""
        return cls({}, {}, (fault.rule, fault.sentence))

    @cached_property
    def arrays(self) -> Mapping[str, Array]:
        """Masks and other arrays by name.

        Raises:
            DamagedEntry: when they are not those that were written.
        """
        return self.load()

    @cached_property
    def text(self) -> str:
        """Canonical JSON of all but the arrays, for which their digests stand."""
        return canonical({"values": self.values, "arrays": self.digests, "fault": self.fault})

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything in it."""
        return sha256(self.text)

    def require(self) -> Result:
        """Itself.

        Raises:
            CaseFault: when it holds the fault of a patient.
        """
        if self.fault is not None:
            raise CaseFault(*self.fault)
        return self


class Cache:
    """Results of steps in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Result | None:
        """The result under ``key``; None when it is absent, or damaged, which removes it."""
        place = self._place(key)
        try:
            content = json.loads((place / _VALUES).read_bytes())
            fault = content["fault"]
            return Result(
                content["values"],
                content["arrays"],
                None if fault is None else (fault[0], fault[1]),
                lambda: _arrays(place, content["arrays"]),
            )
        except FileNotFoundError:
            shutil.rmtree(place, ignore_errors=True)
            return None
        except (ValueError, KeyError):  # a disk that lost bytes; nothing is lost but time
            shutil.rmtree(place)
            return None

    def put(self, key: str, result: Result) -> None:
        """Keep a result under ``key``."""

        def write(folder: Path) -> None:
            (folder / _VALUES).write_bytes(result.text.encode())
            if result.digests:
                arrays: dict[str, Any] = dict(result.arrays)
                np.savez_compressed(folder / _ARRAYS, **arrays)

        write_folder(self._place(key), write)

    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / key


def _arrays(place: Path, digests: Mapping[str, str]) -> Mapping[str, Array]:
    if not digests:
        return {}
    try:
        with np.load(place / _ARRAYS, allow_pickle=False) as file:
            arrays = {name: file[name] for name in digests}
        if all(array_digest(array) == digests[name] for name, array in arrays.items()):
            return arrays
        reason = "other values"
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        reason = type(error).__name__
    shutil.rmtree(place)
    raise DamagedEntry(reason)


def key_of(step: str, code: str, settings: Any, inputs: Mapping[str, str], after: Mapping[str, Result]) -> str:
    """The key (SHA-256, hex) of a step.

    Args:
        step: its name.
        code: the version of its code.
        settings: JSON content.
        inputs: digests of what it reads, by name.
        after: results that it builds on, by name.
    """
    digests = {name: result.digest for name, result in after.items()}
    return sha256(canonical({"step": step, "code": code, "settings": settings, "inputs": inputs, "after": digests}))


def array_digest(array: Array) -> str:
    """SHA-256 (hex) of an array's type, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def canonical(content: Any) -> str:
    """JSON with sorted keys and no spaces; floats round-trip, and NaN is written as NaN."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def sha256(text: str) -> str:
    """SHA-256 (hex) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
