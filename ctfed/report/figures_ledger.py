"""What left one site over time: numbers of each round, and their sum in each run against the site's budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ctfed.report import palette
from ctfed.report.drawing import canvas
from ctfed.report.figures_rounds import MOST_BARS

SHOWN_BUDGET = 20.0  # a budget further away than so many times what was spent would flatten the line; the page says it


@dataclass(frozen=True)
class Spending:
    """One run's numbers about the same rows.

    Attributes:
        first: position of the run's first round among all rounds of the ledger.
        numbers: (rounds,) told by then.
        budget: the most that the site allows, None when it is not known.
    """

    first: int
    numbers: tuple[int, ...]
    budget: float | None = None


def ledger_plot(key: str, title: str, alt: str, sent: Sequence[int], runs: Sequence[Spending]) -> Markup:
    """Two panels over the answered rounds in order: numbers sent in each, and told so far in each run.

    Args:
        key: unique on the page.
        title: name for a screen reader.
        alt: description for a screen reader.
        sent: numbers of each round, at least one.
        runs: one line each; a budget within reach is drawn as a dashed line.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not sent:
        raise ValueError(f"figure {key!r}: no round to draw")
    order = list(range(1, len(sent) + 1))
    with canvas(key, 3.6, title, alt) as drawn:
        upper, lower = drawn.figure.subplots(2, 1, sharex=True)
        colour = palette.SERIES[0].light
        if len(sent) <= MOST_BARS:
            upper.bar(order, sent, width=0.8, color=colour)
        else:
            upper.fill_between(order, sent, step="mid", color=colour, linewidth=0.6, edgecolor=colour)
        upper.set_title("numbers sent in each round", loc="left", fontsize=10)
        _draw_runs(lower, runs)
        lower.set_title("numbers told so far, in each run", loc="left", fontsize=10)
        for axes in (upper, lower):
            axes.set_ylim(bottom=0)
            axes.grid(axis="y")
            axes.locator_params(axis="y", nbins=4)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        lower.set_xlabel("answered rounds, in the order of the ledger")
        lower.set_xlim(0.25, len(sent) + 0.75)
        lower.xaxis.get_major_locator().set_params(integer=True)
    return drawn.svg


def _draw_runs(axes: Any, runs: Sequence[Spending]) -> None:
    most = max((run.numbers[-1] for run in runs), default=0)
    for run in runs:
        order = [run.first + 1 + k for k in range(len(run.numbers))]
        marker = "o" if len(order) == 1 else None
        axes.plot(order, run.numbers, color=palette.SERIES[1].light, marker=marker, markersize=5)
        if run.budget is not None and run.budget <= SHOWN_BUDGET * most:
            ends = [order[0] - 0.5, order[-1] + 0.5]
            axes.plot(ends, [run.budget] * 2, color=palette.MUTED.light, linestyle="--", linewidth=1.2)
