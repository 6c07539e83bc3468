"""Two-valued features that too few patients have, or lack: sums of their products would be these patients' rows."""

from __future__ import annotations

from collections.abc import Sequence

from ctfed.federation.algorithm import Algorithm, Bundle
from ctfed.federation.arrays import frozen
from ctfed.federation.census import MISSING
from ctfed.federation.rules.scope import rows_of
from ctfed.federation.view import View
from ctfed.statistics.describe import Counts
from ctfed.statistics.impute import LevelCounts
from ctfed.study import Study


def rare_features(study: Study, view: View) -> Algorithm[dict[str, str]]:
    """The features of a raw view that sites would refuse, each with a sentence; in one round.

    Args:
        study: says which columns are of two values, and which get an indicator 'NAME missing'.
        view: raw columns of the rows that a model is fitted on.
    """
    minimum = study.evaluation.min_cell
    binary = tuple(name for name in view.names if study.columns[name].type == "binary")
    levels = tuple(frozen([0.0, 1.0]) for _ in binary)
    sizes, tables = yield Bundle((Counts(view), LevelCounts(view, binary, levels)))
    present = dict(zip(view.names, sizes["count"], strict=True))
    patients = round(sizes.number("patients"))
    fewest = {name: round(pair.min()) for name, pair in zip(binary, tables["level"].reshape(-1, 2), strict=True)}
    for name in _indicators(study, view.names):
        missing = patients - round(present[name])
        fewest[f"{name}{MISSING}"] = min(missing, patients - missing)
    return {
        name: f"{name!r} is left out of the model: it tells {held} of {patients} patients ({rows_of(view)} rows) from "
        f"all others, a cell holds at least {minimum}"
        for name, held in fewest.items()
        if 0 < held < minimum
    }


def _indicators(study: Study, names: Sequence[str]) -> list[str]:
    return [name for name in study.indicators if name in names]
