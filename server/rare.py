"""Two-valued features that too few patients have, or lack: sums of their products would be these patients' rows.

The 0/1 columns of a nominal variable's levels are such features, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ctfed.federation.algorithm import Algorithm, Bundle
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.census import MISSING
from ctfed.federation.nominal import Nominal, rare_indicators
from ctfed.federation.rules.scope import rows_of
from ctfed.federation.view import View
from ctfed.statistics.describe import Counts
from ctfed.statistics.impute import LevelCounts
from ctfed.study import Study


def rare_features(study: Study, view: View) -> Algorithm[dict[str, str]]:
    """The features of a raw view that sites would refuse, each with a sentence; in one round.

    Args:
        study: says which columns are of two values, which are nominal, and which get an indicator 'NAME missing'.
        view: raw columns of the rows that a model is fitted on.
    """
    minimum = study.evaluation.min_cell
    binary = tuple(name for name in view.names if study.columns[name].type == "binary")
    nominal = tuple(column for column in study.nominal if column.name in view.names)
    levels = tuple(frozen([0.0, 1.0]) for _ in binary) + tuple(frozen(column.levels) for column in nominal)
    asked = LevelCounts(view, (*binary, *(column.name for column in nominal)), levels)
    sizes, tables = yield Bundle((Counts(view), asked))
    counted = np.split(tables["level"], np.cumsum([one.size for one in levels])[:-1]) if levels else []
    present = dict(zip(view.names, sizes["count"], strict=True))
    patients = round(sizes.number("patients"))
    fewest = {name: round(pair.min()) for name, pair in zip(binary, counted[: len(binary)], strict=True)}
    for name in _indicators(study, view.names):
        missing = patients - round(present[name])
        fewest[f"{name}{MISSING}"] = min(missing, patients - missing)
    where = f"{patients} patients ({rows_of(view)} rows)"
    found = {
        name: f"{name!r} is left out of the model: it tells {held} of {where} from all others, a cell holds at least "
        f"{minimum}"
        for name, held in fewest.items()
        if 0 < held < minimum
    }
    for column, counts in zip(nominal, counted[len(binary) :], strict=True):
        found |= dict(_rare_levels(study, column, counts, where))
    return found


def _rare_levels(study: Study, column: Nominal, counts: FloatArray, where: str) -> Iterator[tuple[str, str]]:
    """The indicators of a nominal column that cannot stay, each with a sentence."""
    minimum = study.evaluation.min_cell
    reference = study.variables[column.name].level_label(column.reference)
    for name, (held, of_reference) in rare_indicators(column, counts, minimum).items():
        what = f"{study.label(name)!r} ({name}) is left out of the model"
        then = f"a cell holds at least {minimum}; its patients count with the reference {reference!r}"
        if of_reference:
            yield name, f"{what}: without it, {held} of {where} would be at the reference, {then}"
        elif held == 0:
            yield name, f"{what}: nobody or everybody of {where} is at this level"
        else:
            yield name, f"{what}: it tells {held} of {where} from all others, {then}"


def _indicators(study: Study, names: Sequence[str]) -> list[str]:
    return [name for name in study.indicators if name in names]
