"""The version of a step's code: what of it changes results, and nothing else.

It covers the statements of the modules that a step runs (comments, docstrings and formatting left out, so that a better
sentence does not cost a centre days) and the installed versions of the libraries that compute for it.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Code:
    """What a step runs.

    Attributes:
        modules: ctfed's modules or packages (then all modules in it), by their dotted names.
        libraries: distributions by their names; one that is not installed counts as 'absent'.
    """

    modules: tuple[str, ...]
    libraries: tuple[str, ...] = ("numpy",)

    @cached_property
    def version(self) -> str:
        """SHA-256 (hex)."""
        digest = hashlib.sha256()
        for name in self.modules:
            for path in _sources(name):
                digest.update(f"{name}|{path.name}|{statements(path.read_text('utf-8'))}".encode())
        for name in self.libraries:
            digest.update(f"{name}=={installed(name)}".encode())
        return digest.hexdigest()


def statements(source: str) -> str:
    """The source without comments, docstrings and formatting."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


@cache
def installed(distribution: str) -> str:
    """The version of an installed distribution, or 'absent'."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


@cache
def _sources(name: str) -> tuple[Path, ...]:
    return tuple(_found(name))


def _found(name: str) -> Iterator[Path]:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {name!r}", name=name)
    if spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            yield from sorted(Path(folder).rglob("*.py"))
    else:
        yield Path(spec.origin)
