"""Algorithms are generators that ask questions: they yield a Query and receive its Total.

An algorithm knows nothing of networks, masks or retries. ``gather`` advances many of them in lock-step and packs their
pending queries into one round trip, because round trips are what a federation pays for.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ctfed.federation.query import Query
from ctfed.federation.summary import Total, layout_size

R = TypeVar("R")

BYTES_PER_NUMBER = 16  # two int64 limbs
ROUND_BUDGET = 64 * 2**20  # bytes that one site sends in one round, unless a caller says otherwise


@dataclass(frozen=True)
class Bundle:
    """Queries asked together; answered by a tuple of Totals in the same order."""

    queries: tuple[Query, ...]


# Yields a Query (and receives a Total) or a Bundle (and receives a tuple of Totals); returns its result.
Algorithm = Generator[Query | Bundle, Any, R]


def queries_of(asked: Query | Bundle) -> tuple[Query, ...]:
    """The queries of whatever an algorithm yielded."""
    return asked.queries if isinstance(asked, Bundle) else (asked,)


def reply_to(asked: Query | Bundle, totals: Sequence[Total]) -> Total | tuple[Total, ...]:
    """The totals in the form in which the algorithm that yielded ``asked`` expects them."""
    return tuple(totals) if isinstance(asked, Bundle) else totals[0]


def answer_bytes(query: Query) -> int:
    """Bytes that one site sends to answer, before any envelope: two limbs a number, and the contributor's count."""
    return BYTES_PER_NUMBER * (layout_size(query.layout) + 1)


@dataclass
class _Running:
    """One algorithm inside a gather: what it waits for, and what it returned."""

    algorithm: Algorithm[Any]
    asked: Query | Bundle | None = None
    result: Any = None

    def advance(self, reply: Any) -> None:
        try:
            self.asked = self.algorithm.send(reply)
            while not queries_of(self.asked):  # an empty bundle needs no round
                self.asked = self.algorithm.send(())
        except StopIteration as stop:
            self.asked, self.result = None, stop.value


def gather(*algorithms: Algorithm[R], budget: int = ROUND_BUDGET) -> Algorithm[list[R]]:
    """Run algorithms side by side, their pending queries packed into one round up to ``budget`` bytes per site.

    The packing is a pure function of the queries, in the order of ``algorithms``: an algorithm whose queries no longer
    fit waits for the next round; a single one larger than the budget travels alone. Returns all results in order.
    """
    running = [_Running(algorithm) for algorithm in algorithms]
    for item in running:
        item.advance(None)
    while waiting := [item for item in running if item.asked is not None]:
        packed = _pack(waiting, budget)
        totals: tuple[Total, ...] = yield Bundle(tuple(q for item in packed for q in _asked(item)))
        start = 0
        for item in packed:
            count = len(_asked(item))
            assert item.asked is not None
            item.advance(reply_to(item.asked, totals[start : start + count]))
            start += count
    return [item.result for item in running]


def beside(*algorithms: Algorithm[Any], budget: int = ROUND_BUDGET) -> Algorithm[Any]:
    """``gather`` for algorithms whose results have different types; the caller annotates what it unpacks."""
    results = yield from gather(*algorithms, budget=budget)
    return results


def _asked(item: _Running) -> tuple[Query, ...]:
    return queries_of(item.asked) if item.asked is not None else ()


def _pack(waiting: Sequence[_Running], budget: int) -> list[_Running]:
    packed: list[_Running] = []
    used = 0
    for item in waiting:
        size = sum(answer_bytes(query) for query in _asked(item))
        if packed and used + size > budget:
            continue
        packed.append(item)
        used += size
    return packed
