"""Whole elastic-net paths on glmnet's CoxExample, against scikit-survival's Coxnet and glmnet's own stored paths.

Coxnet minimises the same objective (Breslow's ties, one baseline hazard) and rescales penalty factors to sum to p. Run
to a tolerance of 1e-14 it supports 1e-6. glmnet stopped its stored paths at KKT residuals of 3e-5 to 1e-4; an exact
solver agrees with them to 1.3e-3. Its files hold no lambdas, but they are Coxnet's: log-spaced over four decades
from the smallest one that keeps every penalised coefficient at zero, and given explicitly in two files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from cox_data import Survival, cox_example, glmnet_path
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv

from ctfed.federation import FloatArray, run_pooled
from ctfed.statistics.cox import CoxFit, cox_path, penalizer_path
from ctfed.statistics.timegrid import TimeGrid

FEATURES = 30


def factors(**changed: float) -> FloatArray:
    """Ones, except for the features named x<index> from 0."""
    values = np.ones(FEATURES)
    for name, value in changed.items():
        values[int(name[1:])] = value
    return values


@dataclass(frozen=True)
class StoredPath:
    """One of glmnet's stored paths.

    Attributes:
        l1_ratio: glmnet's alpha.
        factors: penalty factors as handed to glmnet.
        scale: what the features were divided by: 'sd', 'norm' (Euclidean norm of the centred column) or nothing.
        lambdas: given explicitly, or the number of points of the whole path and its smallest ratio.
    """

    l1_ratio: float
    factors: FloatArray | None = None
    scale: str = ""
    lambdas: tuple[float, ...] = ()
    points: tuple[int, float] = (100, 1e-4)


# Factors and options as in scikit-survival's own tests of these files (tests/test_coxnet.py).
STORED = {
    "cox-example-coef-1": StoredPath(0.5),
    "cox-example-coef-1-pf": StoredPath(0.5, factors(x4=0.125)),
    "cox-example-coef-1-pf2": StoredPath(0.5, factors(x4=0.125, x10=1.25, x12=0.75)),
    "cox-example-coef-1-unpen": StoredPath(0.5, factors(x0=0.0, x29=0.0)),
    "cox-example-coef-2": StoredPath(0.9),
    "cox-example-coef-2-std": StoredPath(0.9, scale="sd"),
    "cox-example-coef-2-norm": StoredPath(0.9, scale="norm"),
    "cox-example-coef-2-alpha": StoredPath(0.9, scale="norm", lambdas=(0.45, 0.4, 0.35, 0.25, 0.1, 0.05, 0.001)),
    "cox-example-coef-2-nalpha": StoredPath(0.9, points=(11, 1e-3)),
    "cox-example-coef-2-nalpha-norm": StoredPath(0.9, scale="norm", points=(11, 1e-3)),
}


def divisor(data: Survival, how: str) -> FloatArray:
    """(p,) what ``StoredPath.scale`` divides by."""
    spread = data.x.std(axis=0)
    return {"sd": spread, "norm": spread * np.sqrt(data.time.size), "": np.ones(FEATURES)}[how]


@dataclass(frozen=True)
class Exact:
    """Coxnet at a tolerance of 1e-14: lambdas (K,), and coefficients (K, p) per ``divisor`` (p,) of a feature."""

    data: Survival
    divisor: FloatArray
    lambdas: FloatArray
    coefficients: FloatArray


@cache
def coxnet(folder: Path, name: str) -> Exact:
    option = STORED[name]
    data = cox_example(folder)
    divided = divisor(data, option.scale)
    data = replace(data, x=(data.x - data.x.mean(axis=0)) / divided)
    stored = glmnet_path(folder, name).shape[0]
    count, smallest = option.points
    peer = CoxnetSurvivalAnalysis(
        l1_ratio=option.l1_ratio,
        penalty_factor=option.factors,
        alphas=list(option.lambdas) or None,
        n_alphas=count,
        alpha_min_ratio=smallest,
        tol=1e-14,
        max_iter=10_000_000,
    )
    peer.fit(data.x, Surv.from_arrays(data.event, data.time))
    return Exact(data, divided, np.asarray(peer.alphas_[:stored]), np.asarray(peer.coef_.T[:stored]))


def fit(exact: Exact, option: StoredPath, sites: int) -> tuple[CoxFit, ...]:
    """ctfed's path over some sites that share one baseline hazard."""
    weights = None
    if option.factors is not None:
        weights = tuple(option.factors * FEATURES / option.factors.sum())
    path = cox_path(
        exact.data.view(),
        exact.lambdas,
        option.l1_ratio,
        factors=weights,
        ties="breslow",
        grid=TimeGrid.exact(exact.data.time),
    )
    return run_pooled(path, exact.data.spread(sites))


@pytest.mark.parametrize("sites", [1, 2, 5, 10])
def test_the_path_is_that_of_coxnet_however_many_sites(shared_data: Path, sites: int) -> None:
    name = "cox-example-coef-1"
    exact = coxnet(shared_data, name)
    fits = fit(exact, STORED[name], sites)
    assert len(fits) == 51
    assert max(model.residual for model in fits) <= 1e-9
    found = np.stack([model.coefficients for model in fits])
    np.testing.assert_allclose(found, exact.coefficients, rtol=0, atol=1e-6)
    assert ((found != 0) == (exact.coefficients != 0)).all()


@pytest.mark.parametrize("name", STORED)
def test_glmnet_s_own_path(shared_data: Path, name: str) -> None:
    option = STORED[name]
    exact = coxnet(shared_data, name)
    fits = fit(exact, option, 1)
    assert all(model.converged for model in fits)
    found = np.stack([model.coefficients for model in fits])
    np.testing.assert_allclose(found / exact.divisor, exact.coefficients / exact.divisor, rtol=0, atol=1e-6)
    original = found / exact.divisor
    expected = glmnet_path(shared_data, name)
    np.testing.assert_allclose(original, expected, rtol=0, atol=1.3e-3)
    # supports may differ only where glmnet stopped early, on coefficients that hardly left zero
    differing = (original != 0) != (expected != 0)
    assert np.maximum(np.abs(original), np.abs(expected))[differing].max(initial=0.0) < 1e-3


def test_the_path_starts_where_glmnet_s_does(shared_data: Path) -> None:
    exact = coxnet(shared_data, "cox-example-coef-1")
    path = penalizer_path(exact.data.view(), 0.5, count=100, smallest_ratio=1e-4, ties="breslow")
    found = run_pooled(path, [exact.data.cohort()])
    np.testing.assert_allclose(found[:51], exact.lambdas, rtol=1e-12)
    assert exact.lambdas[0] == pytest.approx(0.468899812444165, rel=1e-12)  # as glmnet printed it


def test_an_unpenalised_feature_is_in_from_the_start(shared_data: Path) -> None:
    name = "cox-example-coef-1-unpen"
    fits = fit(coxnet(shared_data, name), STORED[name], 2)
    # the path starts at the lambda at which the next feature is about to enter: it may hold 1e-10 of it
    assert np.flatnonzero(np.abs(fits[0].coefficients) > 1e-6).tolist() == [0, 29]
