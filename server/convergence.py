"""When the next evaluation of a Cox fit will be its last: Newton's prediction, and how far off it can be.

Newton's step from a point leads to where the quadratic model of the log-likelihood has its maximum. What the model
leaves out grows with the square of the step, by a factor that the step before has shown. Where that is far below the
tolerance of a final fit, the fit ends at the point that is about to be asked, and what follows it may be asked beside.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.codec import digest
from ctfed.federation.query import Query
from ctfed.federation.summary import Total
from ctfed.statistics.cox.stratified import CoxDerivatives, pack_triangles, unpack_triangles

SAFE = 1e-10  # predicted KKT residual per patient that counts as an end: a tenth of a final fit's tolerance


@dataclass(frozen=True, eq=False)
class _Point:
    """What one evaluation has told, of a coefficient vector at which the Hessian was asked."""

    beta: FloatArray
    loglik: float
    gradient: FloatArray
    information: FloatArray


class Fits:
    """The evaluations of all Cox fits so far."""

    def __init__(self) -> None:
        self._points: dict[tuple[str, str], list[_Point]] = defaultdict(list)
        self._sizes: dict[tuple[str, str], Total] = {}

    def learn(self, query: Query, total: Total) -> None:
        """Remember an evaluation."""
        if not isinstance(query, CoxDerivatives):
            return
        key = digest(query.view), query.ties
        self._sizes[key] = total
        for index, matrix in zip(query.hessians, unpack_triangles(total["hessian"], query.view.width), strict=True):
            if not total["declined"][index]:
                point = query.coefficients[index]
                self._points[key].append(_Point(point, float(total["loglik"][index]), total["gradient"][index], matrix))

    def last(self, query: Query) -> Total | None:
        """The total that a question will have if it is the last of its fit; None where that is not to be expected."""
        if not isinstance(query, CoxDerivatives):
            return None
        key = digest(query.view), query.ties
        points = self._points[key]
        if len(points) < 2 or not query.coefficients.size:
            return None
        patients = self._sizes[key].number("patients")
        bases = [_base(points, beta, patients) for beta in query.coefficients]
        if any(base is None for base in bases):
            return None
        return self._predicted(query, [base for base in bases if base is not None], self._sizes[key])

    def _predicted(self, query: CoxDerivatives, bases: list[_Point], sizes: Total) -> Total:
        moved = [beta - base.beta for beta, base in zip(query.coefficients, bases, strict=True)]
        pairs = list(zip(moved, bases, strict=True))
        value = [base.loglik + base.gradient @ d - d @ base.information @ d / 2 for d, base in pairs]
        matrices = np.array([bases[index].information for index in query.hessians]).reshape(-1, *[query.view.width] * 2)
        arrays = {
            "patients": sizes["patients"],
            "events": sizes["events"],
            "declined": np.zeros(len(bases)),
            "loglik": np.array(value),
            "gradient": np.stack([base.gradient - base.information @ d for d, base in pairs]),
            "hessian": pack_triangles(matrices),
        }
        return Total(arrays, sizes.sites)


def _base(points: list[_Point], beta: FloatArray, patients: float) -> _Point | None:
    """The point from which Newton's step led to ``beta``, if its model is exact enough there."""
    scale = np.sqrt(np.maximum(np.diag(points[-1].information) / patients, 1e-300))

    def far(one: FloatArray, other: FloatArray) -> float:
        return float(np.linalg.norm((one - other) * scale))

    base, *others = sorted(points, key=lambda point: far(point.beta, beta))
    before = min(others, key=lambda point: far(point.beta, base.beta))
    step = far(before.beta, base.beta)
    if step == 0:
        return None
    left_out = base.gradient - (before.gradient - before.information @ (base.beta - before.beta))
    error = float((np.abs(left_out) / scale).max()) / patients
    return base if error * (far(base.beta, beta) / step) ** 2 <= SAFE else None
