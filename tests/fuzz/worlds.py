"""The surroundings in which an object is made: the view, the lengths of axes, and what numbers it may hold."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import random
from dataclasses import dataclass

import numpy as np

import ctfed.federation
import ctfed.statistics
from ctfed.federation import Feature, FloatArray, View
from ctfed.federation import codec as codec_module
from ctfed.federation.arrays import frozen

for package in (ctfed.federation, ctfed.statistics):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if "flower" not in module.name:
            importlib.import_module(module.name)


@dataclass(frozen=True)
class World:
    """The surroundings of an object: everything that its sizes may depend on.

    Attributes:
        rng: makes every choice.
        view: the view that queries are about; its width and its names are those of the transforms in it.
        sizes: lengths of axes that several fields have to agree on: models, bins, cuts.
        wild: arrays may hold any finite number, texts and whole numbers come from a longer list.
        learns: choices that a class accepts are remembered; not while hypothesis draws, which repeats itself.
    """

    rng: random.Random
    view: View
    sizes: dict[str, int]
    wild: bool = True
    learns: bool = True

    @classmethod
    def of(cls, rng: random.Random, *, wild: bool = True, learns: bool = True, columns: int | None = None) -> World:
        """A world with ``columns`` raw columns 'a', 'b', 'c', 'd0', ... (at most six when left out)."""
        count = rng.randint(1, 6) if columns is None else columns
        names = ["a", "b", "c", *(f"d{index}" for index in range(count))][:count]
        features = tuple(Feature(name, rng.choice([0, 0, 3, -5]) if wild else 0) for name in names)
        models, bins, cuts = rng.sample(range(2, 6), 3)
        return cls(rng, View(features), {"models": models, "bins": bins, "edges": bins - 1, "cuts": cuts}, wild, learns)

    def on(self, view: View) -> World:
        """The same with another view."""
        return dataclasses.replace(self, view=view)

    @property
    def short(self) -> World:
        """The same with no axis longer than five: what stands inside a long list must not be as long itself."""
        sizes = {name: min(size, 5) for name, size in self.sizes.items()}
        view = self.view if self.view.width <= 6 else View(self.view.columns[:5])
        return dataclasses.replace(self, view=view, sizes=sizes)

    def axis(self, name: str) -> int:
        """The length of a named axis."""
        return {**self.sizes, "width": self.view.width, "none": 0, "one": 1}[name]


def registered(base: type = object) -> dict[str, type]:
    """Wire name -> class, for the classes of ctfed itself that are subclasses of ``base``."""
    found = {name: cls for name, cls in codec_module._classes.items() if cls.__module__.startswith("ctfed.")}
    return {name: cls for name, cls in sorted(found.items()) if issubclass(cls, base)}


# -- numbers


def _rising(shape: tuple[int, ...]) -> FloatArray:
    """Positive, distinct and increasing along the last axis: what the strictest class wants."""
    return frozen(1.0 + np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.float64).reshape(shape))


def numbers(world: World, shape: tuple[int, ...]) -> FloatArray:
    """An array of any finite numbers, or of strict ones in a tame world."""
    if not world.wild:
        return _rising(shape)
    rng = np.random.default_rng(world.rng.randrange(2**32))
    kind = world.rng.randrange(6)
    if kind == 0:
        values = np.sort(rng.normal(size=shape), axis=-1) if shape else rng.normal(size=shape)
    elif kind == 1:
        values = rng.normal(size=shape)
    elif kind == 2:
        values = np.full(shape, world.rng.choice([0.0, -0.0, 1.0, -1.0, 5e-324, 1e308, -1e308]))
    elif kind == 3:
        values = rng.choice([0.0, 1.0, -1.0, 1e-308, 1e154, -1e308, 30.0, 1e15], size=shape)
    else:
        return _rising(shape)
    return frozen(values)
