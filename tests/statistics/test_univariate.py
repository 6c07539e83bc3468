"""Univariable Cox models against lifelines, one column after another."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cox_data import simulate
from lifelines import CoxPHFitter

from ctfed.federation import CtfedError, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.statistics.cox import ElasticNet, Settings, fit_cox
from ctfed.statistics.univariate import effects, univariable_cox


def test_hazard_ratios_are_those_of_lifelines() -> None:
    data = simulate(3, 240, 4, strata=3)
    cohorts = data.over(np.unique(data.stratum, return_inverse=True)[1])
    traffic = Traffic()
    found = run_pooled(univariable_cox(data.view(), level=0.9, settings=Settings(tolerance=1e-11)), cohorts, traffic)
    assert [effect.name for effect in found] == list(data.names)
    assert traffic.rounds <= 8
    frame = pd.DataFrame(data.x, columns=list(data.names))
    frame["time"], frame["event"], frame["stratum"] = data.time, data.event, data.stratum
    for effect in found:
        columns = frame[[effect.name, "time", "event", "stratum"]]
        tight = {"precision": 1e-12, "r_precision": 1e-14}
        fitter = CoxPHFitter(alpha=0.1).fit(columns, "time", "event", strata=["stratum"], fit_options=tight)
        row = fitter.summary.loc[effect.name]
        assert effect.hazard_ratio == pytest.approx(row["exp(coef)"], rel=1e-5)
        assert effect.low == pytest.approx(row["exp(coef) lower 90%"], rel=1e-5)
        assert effect.high == pytest.approx(row["exp(coef) upper 90%"], rel=1e-5)
        assert effect.p == pytest.approx(row["p"], rel=1e-4)
        assert (effect.patients, effect.events) == (240, int(data.event.sum()))


def test_a_term_of_several_columns_is_one_model() -> None:
    data = simulate(4, 150, 3)
    cohorts = data.spread(1)
    found = run_pooled(univariable_cox(data.view(), [("x2", "x0"), ("x1",)]), cohorts)
    assert [effect.name for effect in found] == ["x2", "x0", "x1"]
    both = run_pooled(fit_cox(data.view()), cohorts)
    alone = run_pooled(univariable_cox(data.view(), [data.names]), cohorts)
    np.testing.assert_allclose([effect.hazard_ratio for effect in alone], np.exp(both.coefficients), rtol=1e-8)


def test_what_has_no_hazard_ratio_is_refused_in_words() -> None:
    data = simulate(5, 60, 2)
    with pytest.raises(CtfedError, match="a term without a column"):
        run_pooled(univariable_cox(data.view(), [("x0",), ()]), data.spread(2))
    with pytest.raises(ValueError, match="no 'x9'"):
        run_pooled(univariable_cox(data.view(), [("x9",)]), data.spread(2))
    penalised = run_pooled(fit_cox(data.view(), ElasticNet(0.1)), data.spread(1))
    assert [(effect.low, effect.p) for effect in effects(penalised)] == [(None, None)] * 2
