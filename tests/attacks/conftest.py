"""One run of the demo for all tests that look at a run's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.commands import DEMO, EXAMPLES
from server.simulate import simulate


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of the demo study, run with masks and the default policy."""
    out = tmp_path_factory.mktemp("demo")
    simulate(EXAMPLES / "studies" / DEMO, [EXAMPLES / "sites" / DEMO], out, tell=lambda _: None)
    return out
