"""Table 1 of a study of many models: what the training and the test patients are like, and whether they differ."""

from __future__ import annotations

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.errors import CtfedError
from ctfed.federation.view import View
from ctfed.statistics.sections import Scale
from ctfed.statistics.table_one import Categorical, Measured, TableOne, table_one
from ctfed.study import Study, Variable


def characteristics(study: Study) -> Algorithm[tuple[TableOne | None, str]]:
    """The study's clinical variables by split, in about ten rounds; or why there is no table."""
    names = [name for name in study.used if name in study.variables]
    view = View(tuple(study.columns[name].feature(name) for name in names))
    rows = [_row(name, study.variables[name]) for name in names]
    try:
        table = yield from table_one({"train": view, "test": view.test()}, rows, study.evaluation.min_cell)
    except CtfedError as error:  # the models stand without it
        return None, f"no table of the patients' characteristics: {error}"
    return table, ""


def _row(name: str, variable: Variable) -> Measured | Categorical:
    levels = variable.possible_levels
    if levels:
        return Categorical(name, {level: variable.level_label(level) for level in levels})
    low, high = variable.range
    return Measured(Scale(name, low, high))
