"""The hazard ratio of two groups in two rounds: a Cox model of one 0/1 column, from derivatives at many points at once.

Newton's method asks at one coefficient after the other, four or five times. Here the first round asks for gradient and
Hessian at ``POINTS`` coefficients. As a function of t = 1 / (1 + exp(-b)) the gradient is nearly a straight line (it
is one where both groups are equally many at risk), so that Hermite's polynomial through these points has its zero
within about 1e-10 of the maximum likelihood. The second round begins a Newton fit there, which as a rule finds its KKT
residual small enough at once; where it does not, it goes on as ever.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.interpolate import KroghInterpolator
from scipy.optimize import brentq
from scipy.special import expit, logit

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray, frozen
from ctfed.federation.summary import Total
from ctfed.federation.view import View
from ctfed.statistics.cox import CoxFit, ElasticNet, fit_cox_stack
from ctfed.statistics.cox.stratified import CoxDerivatives

POINTS = 12
FARTHEST = 2.5  # log hazard ratio up to which is asked at once: ratios from 0.08 to 12; others take Newton's rounds


def hazard_ratio(view: View, ties: str = "efron") -> Algorithm[CoxFit]:
    """The unpenalised Cox model, with stratified risk sets, of a view with one 0/1 column; to the KKT residual of
    ``fit_cox``, with its warnings and its errors, as a rule in two rounds.

    Raises:
        CtfedError: when the view has no event anywhere.
    """
    points = trial_points()
    total: Total = yield CoxDerivatives(view, frozen(points[:, None]), tuple(range(points.size)), ties)
    usable = total["declined"] == 0
    start = near_maximum(points[usable], total["gradient"][usable, 0], -total["hessian"][usable, 0])
    fits = yield from fit_cox_stack(view, (ElasticNet(),), ties=ties, start=np.array([[start]]))
    return replace(fits[0], rounds=fits[0].rounds + 1)


def trial_points() -> FloatArray:
    """(POINTS,) ascending coefficients: Chebyshev's nodes in t."""
    low, high = expit(-FARTHEST), expit(FARTHEST)
    nodes = np.cos((2 * np.arange(POINTS)[::-1] + 1) * np.pi / (2 * POINTS))
    return np.asarray(logit(low + (high - low) * (nodes + 1) / 2))


def near_maximum(points: FloatArray, gradient: FloatArray, slope: FloatArray) -> float:
    """Where the log-likelihood is largest: the zero of the polynomial through ascending points with these gradients
    and these slopes of the gradient; the point nearest to it where they do not enclose it, 0 without points."""
    if points.size == 0 or not gradient.any():
        return 0.0
    if gradient[0] <= 0 or gradient[-1] >= 0:
        return float(points[0] if gradient[0] <= 0 else points[-1])
    t = expit(points)
    pairs = np.stack([gradient, slope / (t * (1 - t))], axis=1)
    polynomial = KroghInterpolator(np.repeat(t, 2), pairs.ravel())
    after = int(np.argmax(gradient <= 0))
    if gradient[after] == 0:
        return float(points[after])
    return float(logit(brentq(lambda x: float(polynomial(x)), t[after - 1], t[after], xtol=1e-15)))
