"""The typed codec: registered frozen dataclasses to JSON plus one flat float64 array, and back.

Nothing is ever unpickled or evaluated. A class travels as its registered name and its plain fields; decoding checks
every field against the class's own annotations and refuses whatever does not fit. Classes registered as ``shared``
(a View) travel as their SHA-256, with the body beside them only where the receiver does not know it yet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.errors import MalformedMessage

C = TypeVar("C", bound=type)

MAX_ITEMS = 1_000_000  # entries of one tuple
MAX_VALUES = 50_000_000  # float64 values in one message: 400 MB
MAX_DEPTH = 32
MAX_AXES = 4
MAX_INTEGER = 2**63 - 1  # of a whole number's magnitude
MAX_TEXT = 4 * 2**20  # characters of one text: the census of a study with many bins and subgroups is one

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no file and no terminal takes

_classes: dict[str, type] = {}
_shared: set[type] = set()


def register(name: str, *, shared: bool = False) -> Callable[[C], C]:
    """Class decorator: let this frozen dataclass travel under ``name``."""

    def add(cls: C) -> C:
        if _classes.get(name, cls) is not cls:
            raise ValueError(f"the name {name!r} is already registered for {_classes[name].__qualname__}")
        if not dataclasses.is_dataclass(cls):
            raise TypeError(f"{cls.__qualname__} must be a dataclass to be registered")
        _classes[name] = cls
        cls._wire_name = name  # type: ignore[attr-defined]
        if shared:
            _shared.add(cls)
        return cls

    return add


def is_shared(obj: object) -> bool:
    """Whether an object travels by its digest."""
    return type(obj) in _shared


def wire_name(obj: object) -> str:
    """The registered name of an object's class.

    Raises:
        MalformedMessage: when the class is not registered.
    """
    name = getattr(type(obj), "_wire_name", None)
    if name is None or _classes.get(name) is not type(obj):
        raise MalformedMessage(f"{type(obj).__qualname__} is not registered and cannot travel")
    return str(name)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


class Encoder:
    """Collects the arrays and the shared objects of one message while values turn into JSON."""

    def __init__(self) -> None:
        self.arrays: list[FloatArray] = []
        self.shared: dict[str, object] = {}

    def encode(self, value: Any, expected: Any = None) -> Any:
        """The JSON value of ``value``; arrays are appended to ``self.arrays`` in order of appearance.

        With ``expected``, a field's annotation, 1 in a field of floats is written 1.0, as the receiver will hold it:
        both ends hash the same text.
        """
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, tuple):
            if value and type(value[0]) is str and all(type(item) is str for item in value):
                _check_texts(value, "message")
                return list(value)
            if value and not _holds_floats(expected) and all(type(item) is int for item in value):
                _check_plain(max(value, key=abs), "message")
                return list(value)
            return [self.encode(item, expected) for item in value]
        if type(value) is int and _holds_floats(expected):
            return float(value)
        if value is None or type(value) in (bool, int, str):
            _check_plain(value, "message")
            return value
        if isinstance(value, float):
            if not math.isfinite(value):
                raise MalformedMessage(f"a number must be finite, found {value}")
            return float(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._object(value)
        raise MalformedMessage(f"a value of type {type(value).__qualname__} cannot travel")

    def _array(self, value: np.ndarray[Any, Any]) -> Any:
        if value.dtype != np.float64:
            raise MalformedMessage(f"only float64 arrays travel, found {value.dtype}")
        if not np.isfinite(value).all():
            raise MalformedMessage("an array must hold finite numbers only")
        self.arrays.append(np.ascontiguousarray(value).reshape(-1))
        return {"array": list(value.shape)}

    def _object(self, value: Any) -> Any:
        if type(value) in _shared:
            key = digest(value)
            self.shared.setdefault(key, value)
            return {"shared": key}
        return self.body(value)

    def body(self, value: Any) -> Any:
        """The fields of a registered dataclass, in their declared order."""
        body: dict[str, Any] = {"kind": wire_name(value)}
        for name, expected in _field_types(body["kind"]).items():
            body[name] = self.encode(getattr(value, name), expected)
        return body

    def flat(self) -> FloatArray:
        """All arrays, concatenated."""
        return np.concatenate(self.arrays) if self.arrays else np.zeros(0)


def digest(value: Any) -> str:
    """SHA-256 (hex) of a registered object: its canonical JSON and its arrays' bytes. Cached on the object."""
    known = getattr(value, "_digest", None)
    if known is None:
        encoder = Encoder()
        text = canonical_json(encoder.body(value))
        known = hashlib.sha256(text.encode() + encoder.flat().astype("<f8").tobytes()).hexdigest()
        object.__setattr__(value, "_digest", known)
    return str(known)


class Decoder:
    """Turns JSON and the flat array of one message back into registered objects, checking every field."""

    def __init__(self, values: FloatArray, shared: Mapping[str, object] | None = None) -> None:
        if values.ndim != 1 or values.dtype != np.float64 or values.size > MAX_VALUES:
            raise MalformedMessage(f"expected at most {MAX_VALUES} float64 values in one flat array")
        self._values = values
        self._next = 0
        self._shared = dict(shared or {})

    def share(self, objects: Mapping[str, object]) -> None:
        """Let ``{"shared": digest}`` stand for these objects from now on."""
        self._shared.update(objects)

    @property
    def exhausted(self) -> bool:
        """True when every value of the flat array was used."""
        return self._next == self._values.size

    def decode(self, value: Any, expected: Any, where: str = "message", depth: int = 0) -> Any:
        """The object that ``value`` stands for, which must fit the annotation ``expected``.

        Raises:
            MalformedMessage: naming the place, what was found and what was expected.
        """
        if depth > MAX_DEPTH:
            raise MalformedMessage(f"{where}: nested more than {MAX_DEPTH} deep")
        origin = get_origin(expected)
        if origin in (Union, types.UnionType):
            return self._optional(value, expected, where, depth)
        if origin is tuple:
            return self._tuple(value, expected, where, depth)
        if origin is np.ndarray:
            return self._take(value, where)
        if expected in (bool, int, str, float):
            return self._plain(value, expected, where)
        if isinstance(expected, type):
            return self._object(value, expected, where, depth)
        raise MalformedMessage(f"{where}: a field of type {expected} cannot travel")

    def _optional(self, value: Any, expected: Any, where: str, depth: int) -> Any:
        options = get_args(expected)
        if value is None and type(None) in options:
            return None
        remaining = [option for option in options if option is not type(None)]
        if len(remaining) != 1:
            raise MalformedMessage(f"{where}: only 'X | None' may travel")
        return self.decode(value, remaining[0], where, depth)

    def _tuple(self, value: Any, expected: Any, where: str, depth: int) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise MalformedMessage(f"{where}: expected a list of at most {MAX_ITEMS} items")
        item, *rest = get_args(expected)
        if rest != [...]:
            raise MalformedMessage(f"{where}: only tuples of one type may travel")
        if item is str and all(type(text) is str for text in value):
            _check_texts(value, where)
            return tuple(value)
        if item is int and value and all(type(number) is int for number in value):
            _check_plain(max(value, key=abs), where)
            return tuple(value)
        return tuple(self.decode(v, item, f"{where}[{i}]", depth + 1) for i, v in enumerate(value))

    def _take(self, value: Any, where: str) -> FloatArray:
        shape = value.get("array") if isinstance(value, dict) and set(value) == {"array"} else None
        if not isinstance(shape, list) or len(shape) > MAX_AXES:
            raise MalformedMessage(f"{where}: expected an array with its shape of at most {MAX_AXES} axes")
        if not all(type(s) is int and s >= 0 for s in shape) or math.prod(s or 1 for s in shape) > MAX_VALUES:
            raise MalformedMessage(f"{where}: a shape holds whole numbers >= 0 and at most {MAX_VALUES} values")
        size = math.prod(shape)
        if size > self._values.size - self._next:
            raise MalformedMessage(f"{where}: the message holds fewer numbers than the shape {shape} needs")
        taken = self._values[self._next : self._next + size].reshape(shape)
        self._next += size
        if not np.isfinite(taken).all():
            raise MalformedMessage(f"{where}: an array must hold finite numbers only")
        return frozen(taken)

    def _plain(self, value: Any, expected: type, where: str) -> Any:
        if expected is float and type(value) is int and abs(value) <= 2**53:
            return float(value)
        if type(value) is not expected:
            raise MalformedMessage(f"{where}: expected {expected.__name__}, found {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise MalformedMessage(f"{where}: a number must be finite")
        _check_plain(value, where)
        return value

    def _object(self, value: Any, expected: type, where: str, depth: int) -> Any:
        if isinstance(value, dict) and set(value) == {"shared"}:
            found = self._shared.get(value["shared"]) if isinstance(value["shared"], str) else None
            if not isinstance(found, expected):
                raise MalformedMessage(f"{where}: unknown shared {expected.__name__}")
            return found
        return self.build(value, expected, where, depth)

    def build(self, value: Any, expected: type, where: str, depth: int = 0) -> Any:
        """Build the registered dataclass named in ``value['kind']``, a subclass of ``expected``."""
        kind = value.get("kind") if isinstance(value, dict) else None
        cls = _classes.get(kind) if isinstance(kind, str) else None
        if cls is None or not issubclass(cls, expected):
            raise MalformedMessage(f"{where}: expected a {expected.__name__}, found the unknown kind {kind!r:.80}")
        hints = _field_types(str(kind))
        if set(value) != set(hints) | {"kind"}:
            found = sorted(map(str, value))
            raise MalformedMessage(f"{where}: {kind} has the fields {sorted(hints)}, found {found!r:.300}")
        fields = {n: self.decode(value[n], hint, f"{where}.{n}", depth + 1) for n, hint in hints.items()}
        try:
            return cls(**fields)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise MalformedMessage(f"{where}: {kind}: {error!s:.300}") from error


@cache
def _field_types(kind: str) -> dict[str, Any]:
    cls = _classes[kind]
    hints = get_type_hints(cls)
    return {item.name: hints[item.name] for item in dataclasses.fields(cls)}


def _check_texts(values: Sequence[str], where: str) -> None:
    """As ``_check_plain``, for many texts at once: names of thousands of columns."""
    if max(map(len, values), default=0) > MAX_TEXT or not "".join(values).isascii():
        for text in values:
            _check_plain(text, where)


def _check_plain(value: Any, where: str) -> None:
    """Whole numbers fit 64 bits; texts are short, and can be written down as UTF-8."""
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise MalformedMessage(f"{where}: a whole number must fit 64 bits")
    if isinstance(value, str) and (len(value) > MAX_TEXT or not (value.isascii() or _SURROGATE.search(value) is None)):
        raise MalformedMessage(f"{where}: a text holds Unicode of at most {MAX_TEXT} characters")


@cache
def _holds_floats(expected: Any) -> bool:
    """True for the annotation float, also inside a tuple or an optional field."""
    return expected is float or any(_holds_floats(inner) for inner in get_args(expected))
