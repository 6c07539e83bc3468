"""The tuning curve: held-out score against the penalizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ctfed.report import palette
from ctfed.report.drawing import canvas, decade_ticks

MOST_PATHS = 5


@dataclass(frozen=True)
class Trial:
    """One setting that was tried: its penalty (penalizer > 0), its held-out score, and how many features stayed.

    ``nonzero`` may be a mean over folds and so need not be whole.
    """

    penalizer: float
    l1_ratio: float | None
    score: float
    score_se: float | None = None
    nonzero: float | None = None


def tuning_plot(key: str, title: str, alt: str, trials: Sequence[Trial], chosen: Trial | None, score: str) -> Markup:
    """Score, plus and minus its standard error, on a logarithmic axis; above it the number of non-zero coefficients.

    Args:
        key: unique on the page.
        title: name for a screen reader.
        alt: description for a screen reader.
        trials: at least one; those of one l1_ratio are joined by a line, unless a search tried more than MOST_PATHS.
        chosen: the trial to mark.
        score: label of the vertical axis.

    Raises:
        ValueError: there is no trial, or a penalizer is not positive and has no place on a logarithmic axis.
    """
    if not trials or min(trial.penalizer for trial in trials) <= 0:
        raise ValueError(f"figure {key!r}: expected at least one trial, all with a positive penalizer")
    ratios = sorted({trial.l1_ratio for trial in trials}, key=lambda ratio: -1.0 if ratio is None else ratio)
    searched = len(ratios) > MOST_PATHS
    with canvas(key, 3.4, title, alt) as drawn:
        axes = drawn.figure.subplots()
        axes.set_xscale("log")
        if searched:
            _draw_path(axes, 0, trials, "trials of any l1_ratio", joined=False)
        for index, ratio in enumerate(() if searched else ratios):
            path = sorted((trial for trial in trials if trial.l1_ratio == ratio), key=lambda trial: trial.penalizer)
            _draw_path(axes, index, path, "trials" if ratio is None else f"l1_ratio {ratio:g}", joined=True)
        if chosen is not None:
            _mark(axes, chosen)
        low, high = min(t.penalizer for t in trials) / 1.25, max(t.penalizer for t in trials) * 1.25
        ticks = decade_ticks(low, high)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(low, high)
        axes.grid(axis="y")
        axes.set_xlabel("penalizer (logarithmic axis)")
        axes.set_ylabel(score)
        # Counts belong to a penalizer only when there is one path; with several, the table has them.
        if len(ratios) == 1:
            _draw_counts(axes, trials)
        drawn.figure.legend(loc="outside lower left", ncols=3, handletextpad=0.5, columnspacing=1.4)
    return drawn.svg


def _draw_path(axes: Any, index: int, trials: Sequence[Trial], name: str, joined: bool) -> None:
    colour, dashes, marker = palette.series_style(index)
    x = [trial.penalizer for trial in trials]
    y = [trial.score for trial in trials]
    spread = [trial.score_se or 0.0 for trial in trials]
    if any(spread):
        axes.errorbar(x, y, yerr=spread, fmt="none", ecolor=colour, elinewidth=1.1, capsize=2.5, alpha=0.6)
    axes.plot(x, y, color=colour, linestyle=dashes if joined else "none", marker=marker, markersize=5, label=name)


def _mark(axes: Any, chosen: Trial) -> None:
    axes.axvline(chosen.penalizer, color=palette.MUTED.light, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.plot(
        [chosen.penalizer],
        [chosen.score],
        "o",
        markersize=12,
        markerfacecolor="none",
        markeredgecolor=palette.INK.light,
        markeredgewidth=1.6,
        label="chosen",
    )


def _draw_counts(axes: Any, trials: Sequence[Trial]) -> None:
    """The top axis: how many coefficients are not zero, as many labels as have room."""
    counted = sorted((trial.penalizer, trial.nonzero) for trial in trials if trial.nonzero is not None)
    if not counted:
        return
    written = [(penalizer, f"{count:.0f}" if count >= 10 else f"{round(count, 1):g}") for penalizer, count in counted]
    room = 20 if max(len(text) for _, text in written) < 3 else 17
    # On a logarithmic axis the distance of two labels is a ratio.
    apart = (counted[-1][0] / counted[0][0]) ** (1 / room) * 0.999
    shown = written[:1]
    for penalizer, text in written[1:]:
        if penalizer / shown[-1][0] >= max(apart, 1.0001):
            shown.append((penalizer, text))
    top = axes.secondary_xaxis("top")
    top.set_xticks([penalizer for penalizer, _ in shown], [text for _, text in shown])
    top.set_xticks([], minor=True)
    top.set_xlabel("non-zero coefficients")
