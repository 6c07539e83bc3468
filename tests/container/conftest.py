"""The images, built once for all tests of containers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engine import TARGETS, Engine, reason_to_skip


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with the images."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Engine(tmp_path_factory.mktemp("engine")) as made:
        for target, tag in TARGETS:
            built = made.build(target, tag)
            assert built.returncode == 0, built.stderr[-3000:]
        yield made
