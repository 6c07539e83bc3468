"""Clinical variables of a view, imputed and coded as the study's data dictionary says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import frozen
from ctfed.federation.census import MISSING
from ctfed.federation.nominal import indicator_name
from ctfed.federation.view import View
from ctfed.statistics.impute import Imputed, impute
from ctfed.statistics.indicators import Indicators
from ctfed.study import Study


def columns_in_use(study: Study, names: Sequence[str], left_out: Collection[str]) -> list[str]:
    """The raw columns that are left: not left out themselves, and nominal ones with an indicator that is not."""
    levels = {column.name: column.indicators for column in study.nominal}
    return [name for name in names if name not in left_out and not left_out_whole(levels.get(name, ()), left_out)]


def left_out_whole(indicators: Sequence[str], left_out: Collection[str]) -> bool:
    """Whether a nominal column's indicators are all left out."""
    return bool(indicators) and all(name in left_out for name in indicators)


def impute_variables(study: Study, view: View, left_out: Collection[str]) -> Algorithm[Imputed]:
    """Impute the columns of a raw view, then code the nominal ones.

    An indicator 'NAME missing' or 'NAME=level' that is ``left_out`` is not made; ``columns_in_use`` says which columns
    the view must be without.
    """
    chosen = {name: study.variables[name] for name in view.names}
    indicators = [name for name, variable in chosen.items() if variable.missing_indicator]
    imputed = yield from impute(
        view,
        methods={name: variable.impute for name, variable in chosen.items()},
        ranges={name: variable.range for name, variable in chosen.items()},
        levels={name: variable.possible_levels for name, variable in chosen.items() if variable.impute == "mode"},
        indicators=[name for name in indicators if f"{name}{MISSING}" not in left_out],
        minimum=study.evaluation.min_cell,
    )
    step = _coding(study, view, left_out)
    return imputed if step is None else replace(imputed, view=imputed.view.then(step))


def _coding(study: Study, view: View, left_out: Collection[str]) -> Indicators | None:
    columns = [column for column in study.nominal if column.name in view.names]
    if not columns:
        return None
    kept = [
        [level for level in c.levels if level != c.reference and indicator_name(c.name, level) not in left_out]
        for c in columns
    ]
    return Indicators(tuple(column.name for column in columns), tuple(frozen(levels) for levels in kept))
