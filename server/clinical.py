"""Clinical variables of a view, imputed as the study's data dictionary says."""

from __future__ import annotations

from collections.abc import Container

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.census import MISSING
from ctfed.federation.view import View
from ctfed.statistics.impute import Imputed, impute
from ctfed.study import Study


def impute_variables(study: Study, view: View, left_out: Container[str]) -> Algorithm[Imputed]:
    """Impute the columns of a raw view; an indicator 'NAME missing' that is ``left_out`` is not made."""
    chosen = {name: study.variables[name] for name in view.names}
    indicators = [name for name, variable in chosen.items() if variable.missing_indicator]
    return (
        yield from impute(
            view,
            methods={name: variable.impute for name, variable in chosen.items()},
            ranges={name: variable.range for name, variable in chosen.items()},
            levels={name: variable.possible_levels for name, variable in chosen.items() if variable.impute == "mode"},
            indicators=[name for name in indicators if f"{name}{MISSING}" not in left_out],
            minimum=study.evaluation.min_cell,
        )
    )
