"""Totals as smooth functions of the patients' values, with derivatives: the equations of the non-linear attack."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray
from ctfed.statistics.cox.pooled import PooledGradient, RiskSetSums
from ctfed.statistics.cox.stratified import CoxDerivatives
from server.audit.knowledge import Design, Known, design
from server.audit.rows import Rows
from server.audit.statements import SUMS, statements
from server.audit.transcript import Exchange, Transcript

Evaluated = tuple[FloatArray, FloatArray]  # (e,) values and (e, n, p) derivatives by the raw values


class Equation:
    """Some totals as a function of all raw values.

    Attributes:
        rows: (n,) patients on whom they depend.
        target: (e,) the totals.
    """

    rows: BoolArray
    target: FloatArray

    def evaluate(self, values: FloatArray) -> Evaluated:
        """At (n, p) raw values, 0 where missing."""
        raise NotImplementedError


def equations_of(transcript: Transcript, known: Known) -> list[Equation]:
    """Every total of a transcript that the attack can use."""
    found: list[Equation] = [
        ColumnSums(known.chosen(one.rows), known.missing, one.arrays["sum"], one.arrays["squares"])
        for one in statements(transcript)
        if one.kind == SUMS and tuple(feature.name for feature in one.query.view.columns) == known.columns
    ]
    risk_sets: dict[tuple[Rows, str], FloatArray] = {}
    for exchange in transcript.distinct:
        found += _of_exchange(exchange, transcript.folds, known, risk_sets)
    return found


def _of_exchange(
    exchange: Exchange, folds: int, known: Known, risk_sets: dict[tuple[Rows, str], FloatArray]
) -> Iterator[Equation]:
    query = exchange.query
    if not isinstance(query, CoxDerivatives | RiskSetSums | PooledGradient):
        return
    step = design(query.view, known)
    if step is None:
        return
    asked = Rows.of(query.view, folds)
    rows = known.chosen(asked)
    if isinstance(query, CoxDerivatives):
        if (asked, query.ties) not in risk_sets:
            risk_sets[asked, query.ties] = _risk_sets(known, rows, query.ties)
        share = risk_sets[asked, query.ties]
        for index in range(query.coefficients.shape[0]):
            if exchange.total["declined"][index] == 0:
                yield CoxPoint(exchange, query, index, rows, step, known, share)
        return
    for index in range(query.coefficients.shape[0]):
        if isinstance(query, PooledGradient):
            yield GradientPoint(exchange, query, index, rows, step, known)
        elif exchange.total["declined"][index] == 0:
            yield BinPoint(exchange, query, index, rows, step, known)


class ColumnSums(Equation):
    """Sums and sums of squares of every raw column over some rows."""

    def __init__(self, rows: BoolArray, missing: BoolArray, sums: FloatArray, squares: FloatArray) -> None:
        self.rows = rows
        self.target = np.concatenate([sums, squares])
        self._member = rows[:, None] & ~missing

    def evaluate(self, values: FloatArray) -> Evaluated:
        """(2 p,) and (2 p, n, p)."""
        width = values.shape[1]
        x = np.where(self._member, values, 0.0)
        slopes = np.zeros((2 * width, *values.shape))
        for column in range(width):
            slopes[column, :, column] = self._member[:, column]
            slopes[width + column, :, column] = 2 * x[:, column]
        return np.concatenate([x.sum(axis=0), (x * x).sum(axis=0)]), slopes


def _risk_sets(known: Known, rows: BoolArray, ties: str) -> FloatArray:
    """(E, n) share with which each patient is in the risk set of each event: 0, 1, or 1 - l/d among tied deaths."""
    found = []
    for label in np.unique(known.stratum[rows]):
        mine = rows & (known.stratum == label)
        for time in np.unique(known.time[mine & known.event]):
            dying = mine & known.event & (known.time == time)
            deaths = int(dying.sum())
            for place in range(deaths):
                share = (mine & (known.time >= time)).astype(np.float64)
                share[dying] -= place / deaths if ties == "efron" else 0.0
                found.append(share)
    return np.array(found).reshape(-1, known.patients)


class CoxPoint(Equation):
    """Log-likelihood, gradient and maybe Hessian of stratified risk sets at one coefficient vector.

    With P (E, n) the weights of the risk sets, w = P' 1 and m = delta - w:
    loglik' = m beta', gradient_k' = m e_k' - H x_k beta' with H = diag(w) - P' P, and the Hessian's by the same rules.
    """

    def __init__(
        self,
        exchange: Exchange,
        query: CoxDerivatives,
        index: int,
        rows: BoolArray,
        step: Design,
        known: Known,
        share: FloatArray,
    ) -> None:
        total = exchange.total
        self.rows = rows
        self._step = step
        self._share = share
        self._event = (known.event & rows).astype(np.float64)
        self._beta = query.coefficients[index]
        self._hessian = index in query.hessians
        parts = [total["loglik"][[index]], total["gradient"][index]]
        if self._hessian:
            parts.append(total["hessian"][query.hessians.index(index)])
        self.target = np.concatenate(parts)

    def evaluate(self, values: FloatArray) -> Evaluated:
        """(1 + q [+ q (q + 1) / 2],) and their derivatives."""
        x, beta = self._step.matrix(values), self._beta
        eta = x @ beta
        top = eta[self.rows].max(initial=-np.inf) if self.rows.any() else 0.0
        weighted = self._share * np.exp(np.minimum(eta - top, 0.0))
        sums = weighted.sum(axis=1, keepdims=True)
        p = weighted / sums
        w = p.sum(axis=0)
        m = self._event - w
        means = p @ x
        loglik = self._event @ eta - float(np.log(sums).sum()) - sums.size * top
        moved = w[:, None] * x - p.T @ means
        found = [np.array([loglik]), x.T @ m]
        slopes = [np.outer(m, beta)[None], -moved.T[:, :, None] * beta]
        slopes[1][np.arange(beta.size), :, np.arange(beta.size)] += m
        if self._hessian:
            value, slope = self._information(x, p, w, means)
            found.append(value)
            slopes.append(slope)
        return np.concatenate(found), _by_raw(np.concatenate(slopes), self._step)

    def _information(self, x: FloatArray, p: FloatArray, w: FloatArray, means: FloatArray) -> Evaluated:
        rows, columns = np.triu_indices(x.shape[1])
        matrix = (x * w[:, None]).T @ x - means.T @ means
        slopes = np.zeros((rows.size, *x.shape))
        centred = w[:, None] * x - p.T @ means
        for place, (a, b) in enumerate(zip(rows, columns, strict=True)):
            slopes[place, :, a] += centred[:, b]
            slopes[place, :, b] += centred[:, a]
            product = (x[:, a] - means[:, a, None]) * (x[:, b] - means[:, b, None]) * p
            spread = product.sum(axis=1, keepdims=True)
            slopes[place] += np.outer((product - p * spread).sum(axis=0), self._beta)
        return matrix[rows, columns], slopes


class BinPoint(Equation):
    """Sums of exp(x beta), and maybe x exp(x beta), over each bin's leavers and deaths, and of x beta over events."""

    def __init__(
        self, exchange: Exchange, query: RiskSetSums, index: int, rows: BoolArray, step: Design, known: Known
    ) -> None:
        total = exchange.total
        self.rows = rows
        self._step, self._beta = step, query.coefficients[index]
        member = np.zeros((query.grid.bins, known.patients))
        member[query.grid.bin_of(known.time), np.arange(known.patients)] = rows
        apart = "dying" in total
        self._member = np.vstack([member, member * known.event]) if apart else member
        self._event = (known.event & rows).astype(np.float64)
        names = ("leaving", "dying") if apart else ("leaving",)
        parts = [total["event_eta"][[index]], *(total[name][:, index] for name in names)]
        self._means = index in query.means
        if self._means:
            place = query.means.index(index)
            parts.append(np.vstack([total[f"{name}_x"][place] for name in names]).ravel())
        self.target = np.concatenate(parts)

    def evaluate(self, values: FloatArray) -> Evaluated:
        """The event sum, then the sums of every bin and population, then the weighted ones."""
        x, beta = self._step.matrix(values), self._beta
        eta = x @ beta
        risk = np.exp(np.clip(eta, -700, 700)) * self.rows
        amounts = self._member * risk
        found = [np.array([self._event @ eta]), amounts.sum(axis=1)]
        slopes = [np.outer(self._event, beta)[None], amounts[:, :, None] * beta]
        if self._means:
            found.append((amounts @ x).ravel())
            slope = np.einsum("gi,ik,j->gkij", amounts, x, beta)
            diagonal = np.arange(beta.size)
            slope[:, diagonal, :, diagonal] += amounts
            slopes.append(slope.reshape(-1, *x.shape))
        return np.concatenate(found), _by_raw(np.concatenate(slopes), self._step)


class GradientPoint(Equation):
    """The gradient of pooled risk sets at one coefficient vector, against totals that everybody knows."""

    def __init__(
        self, exchange: Exchange, query: PooledGradient, index: int, rows: BoolArray, step: Design, known: Known
    ) -> None:
        bins = query.grid.bin_of(known.time)
        self.rows = rows
        self._step, self._beta = step, query.coefficients[index]
        self._hazard = (query.seen[bins, index] - known.event * query.spared[bins, index]) * rows
        self._event = (known.event & rows).astype(np.float64)
        self._cross = index in query.hessians
        parts = [exchange.total["gradient"][index]]
        if self._cross:
            parts.append(exchange.total["cross"][query.hessians.index(index)])
        self.target = np.concatenate(parts)

    def evaluate(self, values: FloatArray) -> Evaluated:
        """(q [+ q (q + 1) / 2],) and their derivatives."""
        x, beta = self._step.matrix(values), self._beta
        weight = self._hazard * np.exp(np.clip(x @ beta, -700, 700))
        m = self._event - weight
        found = [x.T @ m]
        slope = -(weight[:, None] * x).T[:, :, None] * beta
        slope[np.arange(beta.size), :, np.arange(beta.size)] += m
        slopes = [slope]
        if self._cross:
            rows, columns = np.triu_indices(beta.size)
            found.append(((x * weight[:, None]).T @ x)[rows, columns])
            product = np.zeros((rows.size, *x.shape))
            for place, (a, b) in enumerate(zip(rows, columns, strict=True)):
                product[place] = np.outer(weight * x[:, a] * x[:, b], beta)
                product[place, :, a] += weight * x[:, b]
                product[place, :, b] += weight * x[:, a]
            slopes.append(product)
        return np.concatenate(found), _by_raw(np.concatenate(slopes), self._step)


def _by_raw(slopes: FloatArray, step: Design) -> FloatArray:
    """(e, n, p) derivatives by the raw values from (e, n, q) ones by the view's."""
    return slopes[:, :, list(step.position)] * step.slope
