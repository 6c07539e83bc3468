"""Valid messages of every registered class, made from the type annotations of its fields.

Nothing here names a query: a class that is registered tomorrow is made, sent and damaged without a new line. Every
field has a short list of options that follows from its annotation and its surroundings (the width of the view, the
names of its columns, the words that the class's module knows). A class says what it accepts by raising ValueError, so a
first instance is found by trying the options in order; later ones vary those that were accepted.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import random
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Union, get_args, get_origin

import numpy as np
from hypothesis import strategies as st
from worlds import World, numbers, registered

from ctfed.federation import Feature, FloatArray, Query, View
from ctfed.federation import codec as codec_module
from ctfed.federation.arrays import frozen
from ctfed.federation.view import Transform

REJECTED = (ArithmeticError, LookupError, TypeError, ValueError)
HEX64 = "0123456789abcdef" * 4
MOST_TRIES = 200_000  # until a class counts as one whose fields cannot be found
KINDS = 6  # that a search finds, where there are so many
EQUAL = {"models": 3, "bins": 3, "edges": 2, "cuts": 3}  # and the width
UNEQUAL = {"models": 2, "bins": 5, "edges": 4, "cuts": 2}
FINE_TRIES = 5_000  # to tell axes apart that are equally long
VARIANTS = 40  # accepted choices that are remembered of each class

Option = Callable[["World"], Any]
# -- the options of a field


SHAPES: tuple[tuple[str, ...], ...] = (
    *(("models", "width"), ("bins", "models"), ("width", "cuts"), ("width",), ("edges",), ("cuts",), ("models",)),
    *((), ("none",), ("none", "width"), ("one", "width"), ("width", "width"), ("cuts", "width"), ("width", "models")),
    *(("bins", "width"), ("width", "none"), ("none", "none"), ("bins", "cuts"), ("bins",), ("one",)),
)
PLANES = tuple(axes for axes in SHAPES if len(axes) == 2 and "none" not in axes)
LENGTHS: tuple[str, ...] = ("none", "one", "width", "cuts", "models")


def _words(cls: type) -> list[str]:
    """The texts in the tuples that the class's module knows, such as the ways to treat ties."""
    known = vars(sys.modules[cls.__module__]).values()
    found = [word for value in known if isinstance(value, tuple) for word in value if isinstance(word, str)]
    return list(dict.fromkeys(found))


def _whole(world: World) -> int:
    return world.rng.choice([0, 1, 2, 3, 7, 10, 100, -1, -120, 120, 2**31, 2**53 + 1, 2**63 - 1, -(2**63 - 1)])


PLAIN: dict[Any, list[Option]] = {
    bool: [lambda world: False, lambda world: True],
    int: [
        *(lambda world: 0, lambda world: 1, lambda world: 2, lambda world: 10),
        *(lambda world: world.view.width, lambda world: world.sizes["models"]),
        _whole,
    ],
    float: [lambda world: 1.0, lambda world: 0.0, lambda world: float(numbers(world, ()))],
}


def _options(cls: type, hint: Any) -> list[Option]:
    """What a field of ``cls`` with this annotation may be; the tamest first."""
    origin, inner = get_origin(hint), [one for one in get_args(hint) if one is not ...]
    if origin in (Union, types.UnionType):
        rest = [one for one in inner if one is not type(None)]
        return [lambda world: None, *_options(cls, rest[0])]
    if origin is np.ndarray:
        return [*(partial(_array, axes=axes) for axes in SHAPES), *(partial(_unit, axes=axes) for axes in PLANES)]
    if origin is tuple:
        return _tuple_options(cls, inner[0])
    if hint is str:
        fixed = [*_words(cls), "a", HEX64, "", "b"]
        strange = ["é", "a missing", "risk-0", "x" * 300, "0" * 64, " "]
        return [
            *(partial(_fixed, value=word) for word in fixed),
            lambda world: world.rng.choice(strange),
            *[_any_name] * 4,
        ]
    if hint in PLAIN:
        return PLAIN[hint]
    if hint is View:
        return [lambda world: world.view]
    names = concrete(hint)
    return [*(partial(_object, name=name) for name in names), *(_nth(name, n) for n in range(1, 6) for name in names)]


def _tuple_options(cls: type, item: Any) -> list[Option]:
    if item is str:
        words = _words(cls)
        return [
            lambda world: world.view.names,
            lambda world: (),
            lambda world: world.view.names[: world.sizes["cuts"]],
            lambda world: world.view.names[:1],
            lambda world: _sample(world, world.view.names),
            lambda world: _sample(world, words),
            lambda world: (HEX64,),
            lambda world: (HEX64,) * world.rng.randint(0, 3),
            lambda world: ("x", "y", "z", "w", "v")[: world.sizes["cuts"]],
        ]
    if item is int:
        return [
            *(partial(_range, axis=axis) for axis in LENGTHS),
            lambda world: tuple(_whole(world) for _ in range(world.rng.randint(0, 4))),
        ]
    short = get_origin(item) is not np.ndarray
    options = _options(cls, item)[:12]
    return [partial(_several, axis=axis, option=option, short=short) for option in options for axis in LENGTHS]


def _fixed(world: World, value: Any) -> Any:
    return value


def _any_name(world: World) -> str:
    return world.rng.choice(world.view.names or ("a",))


def _sample(world: World, words: Sequence[str]) -> tuple[str, ...]:
    return tuple(world.rng.sample(list(words), world.rng.randint(0, len(words))))


def _array(world: World, axes: tuple[str, ...]) -> FloatArray:
    return numbers(world, tuple(map(world.axis, axes)))


def _unit(world: World, axes: tuple[str, ...]) -> FloatArray:
    """Rows and columns of length 1, at right angles: directions of a projection."""
    rows, columns = map(world.axis, axes)
    return frozen(np.eye(rows, columns))


def _range(world: World, axis: str) -> tuple[int, ...]:
    return tuple(range(world.axis(axis)))


def _several(world: World, axis: str, option: Option, short: bool) -> tuple[Any, ...]:
    return tuple(option(world.short if short else world) for _ in range(world.axis(axis)))


def _object(world: World, name: str) -> Any:
    return make(name, world)


def _nth(name: str, n: int) -> Option:
    """An object by the n-th kind of choice that its class accepts."""

    def option(world: World) -> Any:
        accepted = recipes_of(name).kinds if name != "view" else []
        if n >= len(accepted):
            raise ValueError(f"{name!r} has fewer kinds")
        made = attempt(name, recipes_of(name), accepted[n], world)
        if made is None:
            raise ValueError(f"{name!r} is not made here")
        return made

    return option


# -- the choices that a class accepts


@dataclass
class Recipes:
    """Choices of options, one index per field, that a class has accepted.

    Attributes:
        options: field -> what it may be; where the field has a default, that comes first.
        defaults: of each field, whether it has one.
        accepted: choices, the first of them found by search.
        kinds: the first few found by search.
    """

    options: dict[str, list[Option]]
    defaults: list[bool]
    kinds: list[tuple[int, ...]] = field(default_factory=list)
    accepted: list[tuple[int, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, name: str) -> Recipes:
        """All options of a class; no choice yet."""
        owner = codec_module._classes[name]
        options = {key: _options(owner, hint) for key, hint in codec_module._field_types(name).items()}
        defaults = [item.default is not dataclasses.MISSING for item in dataclasses.fields(owner)]
        for item, plain in zip(dataclasses.fields(owner), defaults, strict=True):
            if plain:
                options[item.name] = [partial(_fixed, value=item.default), *options[item.name]]
        return cls(options, defaults)

    def varied(self, choice: tuple[int, ...], rng: random.Random) -> tuple[int, ...]:
        """The choice with one to three fields changed."""
        varied = list(choice)
        sizes = [len(options) for options in self.options.values()]
        for position in rng.sample(range(len(varied)), min(len(varied), rng.randint(1, 3))):
            varied[position] = rng.randrange(sizes[position])
        return tuple(varied)

    def keep(self, choice: tuple[int, ...], rng: random.Random) -> None:
        """Remember a choice; when there are many, in place of another one, but never of the first."""
        if choice in self.accepted:
            return
        if len(self.accepted) < VARIANTS:
            self.accepted.append(choice)
        else:
            self.accepted[rng.randrange(1, VARIANTS)] = choice


_recipes: dict[str, Recipes] = {}
_hopeless: set[str] = set()


def recipes_of(name: str) -> Recipes:
    """The accepted choices of a class; the first of them is found by search.

    Axes of equal length leave few kinds of shape to try. Among the options that look alike then, those that are also
    accepted where all axes differ tell which axis a field means.

    Raises:
        LookupError: when no choice of options is accepted: a class whose fields hang together in a new way needs an
            option in this module.
    """
    if name in _hopeless:
        raise LookupError(f"no options of tests/fuzz/instances.py make a {name!r}")
    if name not in _recipes:
        found = Recipes.of(name)
        _search(name, found)
        if not found.accepted:
            _hopeless.add(name)
            return recipes_of(name)
        found.kinds += found.accepted
        _recipes[name] = found
    return _recipes[name]


def searched() -> World:
    """The tame world in which a search finds the first choices."""
    return World(random.Random(0), View((Feature("a"), Feature("b"), Feature("c"))), UNEQUAL, wild=False)


def _search(name: str, found: Recipes) -> None:
    unequal = searched()
    equal = dataclasses.replace(unequal, sizes=EQUAL)
    alike = [_alike(options, equal) for options in found.options.values()]
    for choice in itertools.islice(_in_order([len(kinds) for kinds in alike]), MOST_TRIES):
        members = [kinds[index] for kinds, index in zip(alike, choice, strict=True)]
        if attempt(name, found, tuple(member[0] for member in members), equal) is None:
            continue
        # A default stays what it is; of all others, those that looked alike are told apart.
        finer = [m[:1] if m[0] == 0 and plain else m for m, plain in zip(members, found.defaults, strict=True)]
        for fine in itertools.islice(itertools.product(*finer), FINE_TRIES):
            if attempt(name, found, fine, unequal) is not None:
                found.accepted.append(fine)
                break
        if len(found.accepted) == KINDS:
            break


def _alike(options: list[Option], world: World) -> list[list[int]]:
    """The indices of options in groups that give the same kind of value in this world."""
    groups: dict[Any, list[int]] = {}
    for index, option in enumerate(options):
        try:
            groups.setdefault(_kind(option(world), index), []).append(index)
        except REJECTED:
            continue
    return list(groups.values())


def _kind(value: Any, index: int) -> Any:
    if isinstance(value, np.ndarray):
        return value.shape, bool(value.size > 1 and value.flat[0] + 1 == value.flat[1])
    if isinstance(value, tuple) and not (value and isinstance(value[0], str)):
        return len(value), _kind(value[0], index) if value else None
    return value if isinstance(value, bool | int | float | str | tuple | None) else index


def _in_order(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All choices of one index per field, those with small indices first."""
    for total in range(sum(sizes)):
        yield from _with_sum(sizes, total)


def _with_sum(sizes: Sequence[int], total: int) -> Iterator[tuple[int, ...]]:
    if not sizes:
        if total == 0:
            yield ()
        return
    for index in range(min(sizes[0], total + 1)):
        for rest in _with_sum(sizes[1:], total - index):
            yield (index, *rest)


def attempt(name: str, recipes: Recipes, choice: tuple[int, ...], world: World) -> Any:
    """The object that a choice gives, None when its class does not accept it."""
    try:
        fields = {key: some[index](world) for (key, some), index in zip(recipes.options.items(), choice, strict=True)}
        made = codec_module._classes[name](**fields)
        if isinstance(made, Query):
            made.layout  # noqa: B018
        if isinstance(made, Transform):
            made.features(world.view.features)
        return made
    except REJECTED:
        return None


# -- objects


def make(name: str, world: World) -> Any:
    """An object of the class registered as ``name``.

    Raises:
        LookupError: when none is found that its class accepts.
    """
    if name == "view":
        return make_view(world)
    recipes = recipes_of(name)
    for _ in range(20 if world.wild else 0):
        choice = world.rng.choice(recipes.accepted)
        if world.rng.random() < 0.5:
            choice = recipes.varied(choice, world.rng)
        made = attempt(name, recipes, choice, world)
        if made is not None:
            if world.learns:
                recipes.keep(choice, world.rng)
            return made
    made = attempt(name, recipes, recipes.accepted[0], dataclasses.replace(world, wild=False))
    if made is None:
        raise LookupError(f"{name!r} is not made on a view of {world.view.width} columns")
    return made


def make_view(world: World) -> View:
    """A view of the world's columns with up to three transforms that fit them."""
    view = dataclasses.replace(world.view, transforms=())
    if not world.wild:
        return view
    rng = world.rng
    rows = tuple(make(rng.choice(list(row_filters())), world) for _ in range(rng.choice([0, 0, 1, 2])))
    fold = rng.choice([None, None, 0, 1, 4])
    choice: dict[str, Any] = {"fold": fold, "held_out": fold is not None and rng.random() < 0.5, "rows": rows}
    try:
        view = dataclasses.replace(view, split=rng.choice(["train", "test", "all"]), **choice)
    except REJECTED:
        view = dataclasses.replace(view, split="train", **choice)
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        kind = rng.choice(list(registered(Transform)))
        try:
            view = view.then(make(kind, world.on(view)))
        except REJECTED:
            continue
    return view


def row_filters() -> dict[str, type]:
    """The registered rules of eligibility."""
    from ctfed.federation.view import RowFilter

    return registered(RowFilter)


def make_any(name: str, rng: random.Random, *, learns: bool = True) -> Any:
    """An object of any registered class, in a world of its own; a query's view has transforms."""
    for _ in range(5):
        world = World.of(rng, learns=learns)
        try:
            return make(name, world.on(make_view(world)) if issubclass(codec_module._classes[name], Query) else world)
        except LookupError:
            continue  # some need a column, or more of them than models
    return make(name, dataclasses.replace(searched(), rng=rng))


@cache
def learn(name: str) -> None:
    """Make a few dozen objects, so that more than the first choices of a class are known."""
    for seed in range(60):
        make_any(name, random.Random(seed))


def objects(name: str) -> st.SearchStrategy[Any]:
    """Objects of the class registered as ``name``."""
    for kind in concrete(object):
        learn(kind)
    return st.randoms(use_true_random=False).map(lambda rng: make_any(name, rng, learns=False))


def concrete(base: type) -> list[str]:
    """Wire names of the registered classes below ``base`` that can be made."""
    return [name for name, cls in registered(base).items() if not inspect.isabstract(cls)]
