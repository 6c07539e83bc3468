"""gather: many algorithms in the rounds of the longest one, and the same results as one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctfed.federation import Algorithm, Bundle, Cohort, Query, Summary, gather, run_pooled
from ctfed.federation.algorithm import BYTES_PER_NUMBER, answer_bytes
from ctfed.federation.codec import register
from ctfed.federation.pooled import Traffic, drive
from ctfed.federation.summary import Entry, Layout


@register("test-sums")
@dataclass(frozen=True)
class Sums(Query):
    """``width`` sums of time ** power."""

    power: int
    width: int = 1

    @property
    def layout(self) -> Layout:
        return {"sums": Entry((self.width,), 20)}

    def answer(self, cohort: Cohort) -> Summary:
        return Summary(self.layout, {"sums": np.full(self.width, (cohort.time**self.power).sum())})


COHORTS = [Cohort.of(f"s{i}", {}, np.arange(1.0, 6.0) + i, np.ones(5)) for i in range(3)]


def steps(*powers: int, width: int = 1) -> Algorithm[list[float]]:
    """Asks for one power after the other."""
    found = []
    for power in powers:
        total = yield Sums(power, width)
        found.append(float(total["sums"][0]))
    return found


def pairs(*powers: int) -> Algorithm[list[float]]:
    """Asks for two neighbouring powers at once."""
    found: list[float] = []
    for power in powers:
        totals = yield Bundle((Sums(power), Sums(power + 1)))
        assert isinstance(totals, tuple)
        found.extend(float(total["sums"][0]) for total in totals)
    return found


def expected(power: int) -> float:
    return float(sum((cohort.time**power).sum() for cohort in COHORTS))


def run(algorithm: Algorithm[Any]) -> tuple[Any, Traffic]:
    traffic = Traffic()
    return run_pooled(algorithm, COHORTS, traffic), traffic


def packings(algorithm: Algorithm[Any]) -> list[tuple[Query, ...]]:
    """The queries of every round."""
    rounds: list[tuple[Query, ...]] = []

    def ask(queries: tuple[Query, ...]) -> Any:
        rounds.append(queries)
        return run_pooled(whole(queries), COHORTS)

    def whole(queries: tuple[Query, ...]) -> Algorithm[Any]:
        return (yield Bundle(queries))

    drive(algorithm, ask)
    return rounds


powers = st.lists(st.integers(0, 6), max_size=5)


@given(st.lists(st.tuples(st.booleans(), powers), max_size=6))
def test_gathered_algorithms_give_what_they_give_alone(plans: list[tuple[bool, list[int]]]) -> None:
    def algorithms() -> list[Algorithm[list[float]]]:
        return [pairs(*plan) if paired else steps(*plan) for paired, plan in plans]

    together, traffic = run(gather(*algorithms()))
    assert together == [run(algorithm)[0] for algorithm in algorithms()]
    assert traffic.rounds == max((len(plan) for _, plan in plans), default=0)


@given(st.lists(st.lists(powers, min_size=1, max_size=3), min_size=1, max_size=4))
def test_nested_gathers_take_the_rounds_of_the_longest(groups: list[list[list[int]]]) -> None:
    together, traffic = run(gather(*(gather(*(steps(*plan) for plan in group)) for group in groups)))
    assert together == [[[expected(power) for power in plan] for plan in group] for group in groups]
    assert traffic.rounds == max(len(plan) for group in groups for plan in group)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=7), st.integers(1, 30))
def test_a_round_keeps_to_its_bytes_and_loses_nobody(plans: list[tuple[int, int]], numbers: int) -> None:
    budget = numbers * BYTES_PER_NUMBER

    def algorithm() -> Algorithm[Any]:
        return gather(*(steps(*range(length), width=width) for width, length in plans), budget=budget)

    rounds = packings(algorithm())
    for queries in rounds:
        size = sum(answer_bytes(query) for query in queries)
        assert size <= budget or len(queries) == 1, "only a query that is too large by itself exceeds the budget"
    assert sum(len(queries) for queries in rounds) == sum(length for _, length in plans)
    assert run(algorithm())[0] == [[expected(power) for power in range(length)] for _, length in plans]


def test_a_round_is_as_full_as_the_order_allows() -> None:
    budget = 8 * BYTES_PER_NUMBER  # of 3 + 1 numbers and 6 + 1 numbers: two small ones, or a large one
    rounds = packings(gather(*(steps(1, width=width) for width in (3, 6, 3, 20)), budget=budget))
    assert [[query.width for query in queries] for queries in rounds] == [[3, 3], [6], [20]]  # type: ignore[attr-defined]


def test_packing_is_a_pure_function_of_the_queries() -> None:
    def algorithm() -> Algorithm[Any]:
        return gather(*(steps(*range(k % 4), width=1 + k % 5) for k in range(20)), budget=20 * BYTES_PER_NUMBER)

    assert packings(algorithm()) == packings(algorithm())


def test_a_bundle_is_never_torn_apart() -> None:
    rounds = packings(gather(steps(5), pairs(0), pairs(2), budget=5 * BYTES_PER_NUMBER))
    assert rounds == [(Sums(5),), (Sums(0), Sums(1)), (Sums(2), Sums(3))]


def test_gathering_nothing_or_algorithms_that_ask_nothing_takes_no_round() -> None:
    result, traffic = run(gather(*[steps() for _ in range(3)]))
    assert (result, traffic.rounds) == ([[], [], []], 0)
    nothing: list[Algorithm[int]] = []
    assert run(gather(*nothing)) == ([], Traffic())


def test_an_error_inside_one_algorithm_is_not_swallowed() -> None:
    def failing() -> Algorithm[list[float]]:
        yield Sums(1)
        raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        run(gather(steps(1, 2, 3), failing()))


def test_algorithms_see_how_many_sites_contributed() -> None:
    def count() -> Algorithm[int]:
        total = yield Sums(0)
        return int(total.sites)

    assert run(gather(count(), count()))[0] == [3, 3]
