"""Damage: of JSON values, of texts and of numbers. The same functions serve libFuzzer and the plain loop."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from worlds import registered

from ctfed.federation import FloatArray, MalformedMessage
from ctfed.federation.codec import Decoder, digest

SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 120, 121, -121, 2**31, 2**53 + 1, 2**63, -(2**63), 2**64, 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"), 1.0, 1e15),
    *("", "a", "b", "c", "train", "all", "test", "\ud800", "é", "\x00", "x" * 70_000, "0" * 64, "../../x", "a missing"),
    *([], {}, [[]], [{}], [0], [0, 0], [10**6], {"array": [0]}, {"array": [2]}, {"shared": "0" * 64}, {"kind": "view"}),
    *([1.0] * 5, list(range(50)), [None], ["a"], ["a", "a"], {"array": [3, 10**9]}, {"array": [-1]}),
)
KEYS = ("kind", "array", "shared", "view", "x", "", "open", "census", "missing", "question", "ctfed", "facts")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """What stands at a path."""
    for key in path:
        value = value[key]
    return value


def copied(value: Any) -> Any:
    """A deep copy of a JSON value."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def scalar(rng: random.Random, old: Any) -> Any:
    """Another value in place of ``old``: of the same type and near it, or anything."""
    if rng.random() < 0.5:
        if isinstance(old, bool):
            return not old
        if isinstance(old, int):
            return old + rng.choice([-1, 1, 2, -2, 10, 1000])
        if isinstance(old, float):
            return old * rng.choice([-1.0, 2.0, 1e-300, 1e300, 0.0])
        if isinstance(old, str) and old:
            where = rng.randrange(len(old))
            return rng.choice([old[:where], old + old, old[:where] + rng.choice("0aZ_. \u0000") + old[where + 1 :]])
    return copied(rng.choice(SCALARS))


def damage(value: Any, rng: random.Random, kinds: tuple[str, ...] = ()) -> Any:
    """The value, changed in place, with one thing replaced, removed, doubled, renamed or put elsewhere."""
    paths = [path for path in places(value) if path]
    if not paths:
        return scalar(rng, value)
    path = rng.choice(paths)
    parent, key = at(value, path[:-1]), path[-1]
    action = rng.choice(["scalar", "scalar", "remove", "double", "rename", "move", "grow", "kind"])
    if action == "remove":
        del parent[key]
    elif action == "double" and isinstance(parent, list):
        parent.insert(rng.randint(0, len(parent)), copied(parent[key]))
    elif action == "rename" and isinstance(parent, dict):
        parent[rng.choice([*KEYS, f"{key}s", str(key)[:-1]])] = parent.pop(key)
    elif action == "move":
        parent[key] = copied(at(value, rng.choice(paths)))
    elif action == "grow" and isinstance(parent, list) and len(parent) < 1000:
        parent.extend(copied(parent[key]) for _ in range(rng.choice([1, 2, 5, 40])))
    elif action == "kind" and kinds:
        tables = [at(value, one) for one in paths if isinstance(at(value, one), dict)]
        if tables:
            rng.choice(tables)["kind"] = rng.choice(kinds)
    else:
        parent[key] = scalar(rng, parent[key])
    return value


def damaged_text(text: str, rng: random.Random) -> str:
    """A text cut, with a piece doubled, replaced or moved, or with deep nesting put in."""
    if not text:
        return rng.choice(["{}", "[", "null", "\x00"])
    a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    piece = text[a:b] if rng.random() < 0.5 else text[a : a + rng.randint(0, 12)]
    depth = rng.choice([1, 30, 40, 500, 990, 3000])
    token = rng.choice(
        [
            *("NaN", "Infinity", "-0", "1e999", "9" * 5000, '"\\ud800"', "\\u0000", "null", "true", ",", '"', "{", "}"),
            *("[" * depth + "]" * depth, '{"a":' * depth, "[" * depth, "é", "\x00", "- ", ": ", "&a ", "*a", "!!int "),
            *('"kind":"view",', "? ", "|\n", "%YAML 9.9\n", "\t", "---\n", "'", "#"),
        ]
    )
    action = rng.randrange(5)
    if action == 0:
        return text[:a]
    if action == 1:
        return text[:b] + piece + text[b:]
    if action == 2:
        return text[:a] + token + text[a:]
    if action == 3:
        return text[:a] + token + text[b:]
    return text[:a] + text[a + len(piece) :]


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes with some flipped, cut or put in."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        where = rng.randrange(len(changed) + 1)
        action = rng.randrange(4)
        if action == 0 and where < len(changed):
            changed[where] ^= 1 << rng.randrange(8)
        elif action == 1:
            del changed[where : where + rng.choice([1, 2, 8, 100])]
        elif action == 2:
            changed[where:where] = rng.randbytes(rng.choice([1, 2, 8]))
        elif where < len(changed):
            changed[where] = rng.choice([0, 255, 0x7B, 0x5B, 0x22, 0x30])
    return bytes(changed)


def damaged_numbers(values: FloatArray, rng: random.Random) -> FloatArray:
    """Numbers of a question, cut, grown, spoiled or in another order."""
    if not values.size:
        return np.array([rng.choice([0.0, np.nan, 1e308])])
    action = rng.randrange(12)
    values = values.copy()
    if action == 0:
        return values[: rng.randrange(values.size)]
    if action == 1:
        return np.append(values, rng.choice([0.0, np.nan, 1e308]))
    if action == 2:
        return np.asarray(values[::-1].copy())
    for _ in range(rng.choice([1, 1, 3])):
        values[rng.randrange(values.size)] = rng.choice(
            [np.nan, np.inf, 1e308, -1e308, 5e-324, 0.0, 1.0, -1.0, 2.0, 1e6, 1e155, -0.5, 30.0, 700.0]
        )
    return values


def repaired(header: Any, values: FloatArray) -> Any:
    """A question's header with the names of its shared objects made those of what they have become.

    A view that was changed has another digest, and a question that still calls it by the old one goes no further.
    """
    shared = header.get("shared") if isinstance(header, dict) else None
    if not isinstance(shared, dict) or not shared:
        return header
    decoder, names = Decoder(values), {}
    for key in sorted(shared):
        try:
            if shared[key] is not None:
                names[key] = digest(decoder.build(shared[key], object, "shared"))
        except MalformedMessage:
            return header
    header["shared"] = {names.get(key, key): body for key, body in shared.items()}
    if sorted(header["shared"]) != [names.get(key, key) for key in sorted(shared)]:
        return header  # in another order its arrays would belong to other views
    return _renamed(header, names)


def asked_part(header: Any, rng: random.Random) -> Any:
    """The queries of a round, or one of the views that they are about; the whole where there are none."""
    if not isinstance(header, dict) or rng.random() < 0.2:
        return header
    shared = header.get("shared")
    bodies = list(shared.values()) if isinstance(shared, dict) else []
    parts = [body for body in bodies if isinstance(body, dict) and body.get("kind") != "assembly"]
    parts += [header["queries"]] if isinstance(header.get("queries"), list) else []
    return rng.choice(parts) if parts else header


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"shared"} and isinstance(value["shared"], str):
        return {"shared": names.get(value["shared"], value["shared"])}
    return {key: _renamed(item, names) for key, item in value.items()}


def damaged_json(
    text: str,
    rng: random.Random,
    fix: Callable[[Any], Any] = copied,
    part: Callable[[Any, random.Random], Any] = lambda value, rng: value,
) -> str:
    """A text of JSON with one to four things changed inside it, or inside ``part`` of it.

    ``fix`` is applied to the value before it is written. A text that is no JSON is damaged as text.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return damaged_text(text, rng)
    kinds = tuple(registered())  # not those that other tests have registered in this process
    try:
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            inner = part(value, rng)
            if inner is value:
                value = damage(value, rng, kinds)
            else:
                damage(inner, rng, kinds)
        with suppress(AttributeError, KeyError, TypeError, ValueError):  # it may be too damaged to be fixed
            value = fix(value)
        text = json.dumps(value)
    except RecursionError:  # nested as deep as a guided search likes it; the decoders have their own limit
        return damaged_text(text, rng)
    return damaged_text(text, rng) if rng.random() < 0.1 else text
