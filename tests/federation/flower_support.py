"""Small sites and questions for the tests of everything that touches Flower."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from ctfed import node
from ctfed.federation.client_app import app as client_app
from ctfed.federation.codec import canonical_json
from ctfed.federation.flower.exchange import Patience
from ctfed.federation.flower.grid import Fault, InProcessGrid
from ctfed.federation.wire import Answer, Question
from server.transport import FlowerTransport

SITES = ("bern", "lyon", "oslo")

QUICK = Patience(
    deadline=5.0, refused=0.2, join=0.3, silence=0.1, ask_again=0.01, ask_again_max=0.05, progress=0.05, poll=0.001
)


class Doubler:
    """A site that answers every number times two, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, question: Question) -> Answer:
        self.asked += 1
        return Answer(canonical_json({"question": question.digest}), (2 * question.values).astype(np.int64))


class Failing:
    """A site whose ``answer`` raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def answer(self, question: Question) -> Answer:
        raise self.error


@contextmanager
def sites(answerers: Mapping[str, Callable[[], node.Answerer]]) -> Iterator[None]:
    """Let the nodes of this process answer with these responders."""
    node.set_responder_factory(lambda config: node.Seat(str(config["site"]), answerers[str(config["site"])]))
    try:
        yield
    finally:
        node.set_responder_factory(None)


def in_process(names: Sequence[str] = SITES, faults: Sequence[Fault] = (), workers: int = 1) -> InProcessGrid:
    """An in-process grid with one node per site name."""
    return InProcessGrid(client_app, {name: {"site": name} for name in names}, faults=faults, workers=workers)


def connect(grid: InProcessGrid, patience: Patience = QUICK, lines: list[str] | None = None) -> FlowerTransport:
    """A transport whose lines go to ``lines``."""
    said = lines if lines is not None else []
    return FlowerTransport.connect(grid, list(grid.nodes), runner="in-process", patience=patience, tell=said.append)


def question(round_number: int, size: int = 3) -> Question:
    """A question whose values tell which round it belongs to."""
    header = canonical_json({"round": round_number, "queries": [{"kind": "cox_derivatives"}] * 2})
    return Question(header, np.arange(size, dtype=np.float64) + 10 * round_number)
