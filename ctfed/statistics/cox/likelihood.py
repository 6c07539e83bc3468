"""The Cox partial likelihood of one stratum: value, gradient and Hessian for a stack of coefficient vectors.

Rows are sorted by descending time, so that every risk set is a prefix and every risk-set sum a cumulative sum.
With r_i = exp(x_i beta), S0 = sum of r over the risk set, T0 = sum of r over the d tied events of one time:

    Breslow  loglik = sum_events x beta - sum_times d log S0
    Efron    loglik = sum_events x beta - sum_times sum_{l<d} log(S0 - l/d T0)

The gradient needs no p-vector per event time: it is X' (delta - w), where w_i collects r_i / S0 over the event times
that patient i lives to see. Only the Hessian needs S1, and it is accumulated block by block of rows.

References: Cox 1972; Breslow 1974; Efron 1977; Therneau & Grambsch 2000, chapter 3.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray, IntArray
from ctfed.federation.view import Table

TIES = ("efron", "breslow")

BLOCK_ROWS = 8192  # rows whose S1 is held at once: 3 MB at 50 features
COLUMNS_AT_ONCE = 8  # reordered together: one cache line of a row
STACK_VALUES = 4_000_000  # patients x models evaluated at once: 32 MB per temporary

# exp() of a wider range loses the smallest risks against the largest; no fitted model of standardised features comes
# near it, only diverging or hostile coefficients do.
MAX_PREDICTOR_RANGE = 500.0

# Where one patient carries nearly all of the risk, the mean covariates of the risk set are that patient's, and the
# gradient tells them. Constants, so that no site file and no server can lower them.
JUDGED_RISK_SET = 10  # patients; smaller risk sets, the last ones of a stratum, tell of few whatever the coefficients
DOMINANT_SHARE = 0.9  # of the risk of a risk set
DOMINATED_EVENTS = 0.1  # of the events with judged risk sets
# One patient against nine others carries more than 0.9 only at more than 9 x 9 times the risk of the least of them.
SAFE_PREDICTOR_RANGE = float(np.log(DOMINANT_SHARE / (1 - DOMINANT_SHARE) * (JUDGED_RISK_SET - 1)))


@dataclass(frozen=True, eq=False)
class Stratum:
    """Rows that share a baseline hazard, by descending time (events before censored at equal times).

    Attributes:
        x: (n, p) features, shifted to mean zero.
        died: (E,) rows of the events, ascending.
        last: (K,) last row of the risk set of each distinct event time, ascending (times descend).
        first: (K,) position in ``died`` where the events of each distinct event time begin.
        deaths: (K,) number of tied events.
        rank: (E,) l/d of each event inside its tie for Efron, 0 for Breslow.
        event_sum: (p,) sum of x over the events.
    """

    x: FloatArray
    died: IntArray
    last: IntArray
    first: IntArray
    deaths: FloatArray
    rank: FloatArray
    event_sum: FloatArray

    @property
    def tie_of_event(self) -> IntArray:
        """(E,) index of the event time of each event."""
        return np.repeat(np.arange(self.deaths.size), self.deaths.astype(np.int64))


def strata_of(table: Table, ties: str) -> tuple[Stratum, ...]:
    """The strata of a table. The matrix is sorted and shifted in place: hand over one that nobody else reads."""
    order = np.lexsort((~table.event, -table.time, table.stratum))
    for j in range(0, table.values.shape[1], COLUMNS_AT_ONCE):  # no second copy of a large matrix
        columns = slice(j, j + COLUMNS_AT_ONCE)
        table.values[:, columns] = table.values[order, columns]
    time, event, label = table.time[order], table.event[order], table.stratum[order]
    if label.size == 0:
        return ()
    bounds = np.flatnonzero(np.concatenate([[True], label[1:] != label[:-1], [True]]))
    return tuple(_stratum(table.values[a:b], time[a:b], event[a:b], ties) for a, b in itertools.pairwise(bounds))


def _stratum(x: FloatArray, time: FloatArray, event: BoolArray, ties: str) -> Stratum:
    # The partial likelihood of a stratum does not change when its features are shifted; its sums lose fewer digits.
    x -= x[0].copy()  # a constant column becomes exactly zero
    x -= x.mean(axis=0)
    died = np.flatnonzero(event)
    times = time[died]
    first = np.flatnonzero(np.concatenate([[True], times[1:] != times[:-1]])) if died.size else died
    deaths = np.diff(np.append(first, died.size))
    last = time.size - 1 - np.searchsorted(time[::-1], times[first], side="left")
    rank = np.zeros(died.size)
    if ties == "efron":
        rank = (np.arange(died.size) - np.repeat(first, deaths)) / np.repeat(deaths, deaths)
    return Stratum(x, died, last.astype(np.int64), first, deaths.astype(np.float64), rank, event.astype(np.float64) @ x)


@dataclass(frozen=True, eq=False)
class Weights:
    """What value, gradient and Hessian of m models share.

    Attributes:
        loglik: (m,) partial log-likelihood.
        risk: (n, m) exp(x beta) up to a factor per model.
        weight: (n, m) expected number of events of each row: w.
        inverse: (E, m) 1 / (S0 - rank T0) of each event, with the same factor.
        inside: (m,) whether exp(x beta) spans at most e**500 and no single patient dominates the risk sets of more
            than a tenth of the events; what stands elsewhere is of no use where it is not so.
    """

    loglik: FloatArray
    risk: FloatArray
    weight: FloatArray
    inverse: FloatArray
    inside: BoolArray


def weights(stratum: Stratum, coefficients: FloatArray) -> Weights:
    """Risk-set sums of (m, p) coefficient vectors."""
    eta = stratum.x @ coefficients.T
    top = eta.max(axis=0)
    spread = top - eta.min(axis=0)
    inside = np.asarray(spread <= MAX_PREDICTOR_RANGE)
    eta[:, ~inside], top[~inside] = 0.0, 0.0
    eta -= top
    event_eta = eta[stratum.died].sum(axis=0)
    risk = np.exp(eta, out=eta)
    at_risk = np.cumsum(risk, axis=0)[stratum.last]
    inside &= ~_dominated(stratum, risk, at_risk, spread)
    tie = stratum.tie_of_event
    denominator = at_risk[tie]
    efron = bool(stratum.rank.any())
    if efron:
        tied = np.add.reduceat(risk[stratum.died], stratum.first, axis=0)
        denominator = denominator - stratum.rank[:, None] * tied[tie]
    inverse = 1.0 / denominator
    per_time = np.add.reduceat(inverse, stratum.first, axis=0)
    seen = np.cumsum(per_time[::-1], axis=0)[::-1]  # summed over this and all earlier event times
    seen = np.concatenate([seen, np.zeros((1, seen.shape[1]))])
    weight = seen[np.searchsorted(stratum.last, np.arange(risk.shape[0]), side="left")]
    if efron:
        spared = np.add.reduceat(inverse * stratum.rank[:, None], stratum.first, axis=0)
        weight[stratum.died] -= spared[tie]
    weight *= risk
    return Weights(event_eta - np.log(denominator).sum(axis=0), risk, weight, inverse, inside)


def answerable(strata: Sequence[Stratum], coefficients: FloatArray) -> BoolArray:
    """(m,) where exp(x beta) spans no more than MAX_PREDICTOR_RANGE and nobody dominates the risk sets of a stratum."""
    found = np.ones(coefficients.shape[0], dtype=bool)
    for stratum in strata:
        if stratum.died.size:
            found &= weights(stratum, coefficients).inside
    return found


def _dominated(stratum: Stratum, risk: FloatArray, at_risk: FloatArray, spread: FloatArray) -> BoolArray:
    """(m,) whether single patients carry most of the risk at too many events, from S0 (K, m) and risk (n, m) <= 1."""
    found = np.zeros(spread.size, dtype=bool)
    start = int(np.searchsorted(stratum.last, JUDGED_RISK_SET - 1))
    last, deaths, at_risk = stratum.last[start:], stratum.deaths[start:], at_risk[start:]
    most = DOMINATED_EVENTS * deaths.sum()
    doubtful = np.flatnonzero(spread > SAFE_PREDICTOR_RANGE)
    if doubtful.size == 0 or last.size == 0:
        return found
    # Nobody's risk is above 1, so nobody dominates where S0 is large; that settles nearly all models of real data.
    doubtful = doubtful[(deaths @ (at_risk < 1 / DOMINANT_SHARE))[doubtful] > most]
    largest = np.maximum.accumulate(risk[:, doubtful], axis=0)[last]
    found[doubtful] = deaths @ (largest > DOMINANT_SHARE * at_risk[:, doubtful]) > most
    return found


def value_and_gradient(stratum: Stratum, coefficients: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Log-likelihood (m,) and gradient (m, p) at (m, p) coefficient vectors, and where they are ``inside`` (m,)."""
    models, width = coefficients.shape
    loglik, gradient, inside = np.zeros(models), np.zeros((models, width)), np.ones(models, dtype=bool)
    if stratum.died.size == 0:
        return loglik, gradient, inside
    step = max(1, STACK_VALUES // max(1, stratum.x.shape[0]))
    for start in range(0, models, step):
        chunk = slice(start, min(start + step, models))
        shared = weights(stratum, coefficients[chunk])
        loglik[chunk], inside[chunk] = shared.loglik, shared.inside
        gradient[chunk] = stratum.event_sum - shared.weight.T @ stratum.x
    return loglik, gradient, inside


def information(stratum: Stratum, coefficients: FloatArray) -> FloatArray:
    """Negative Hessian (p, p) at one coefficient vector (p,): X' diag(w) X - sum over events of z z'.

    z = (S1 - l/d T1) / (S0 - l/d T0) is the mean covariate vector of the risk set that the event was drawn from.
    """
    width = coefficients.size
    total = np.zeros((width, width))
    if stratum.died.size == 0:
        return total
    shared = weights(stratum, coefficients[None, :])
    for rows, risk_sums, times in prefix_sums(stratum, shared.risk[:, 0]):
        block = stratum.x[rows]
        total += (block * shared.weight[rows]).T @ block
        means = risk_set_means(stratum, shared, risk_sums, times)
        total -= means.T @ means
    return total


def row_blocks(rows: int) -> Iterator[slice]:
    """Slices of at most ``BLOCK_ROWS`` rows."""
    for start in range(0, rows, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, rows))


def prefix_sums(stratum: Stratum, risk: FloatArray) -> Iterator[tuple[slice, FloatArray, slice]]:
    """Blocks of rows, with S1 (k, p) of the event times whose risk sets end inside the block, and which times."""
    running = np.zeros(stratum.x.shape[1])
    for rows in row_blocks(stratum.x.shape[0]):
        sums = stratum.x[rows] * risk[rows, None]
        np.cumsum(sums, axis=0, out=sums)
        times = slice(*np.searchsorted(stratum.last, [rows.start, rows.stop]))
        yield rows, running + sums[stratum.last[times] - rows.start], times
        running = running + sums[-1]


def risk_set_means(stratum: Stratum, shared: Weights, risk_sums: FloatArray, times: slice) -> FloatArray:
    """z (e, p) of the events at some ``times``, of which ``risk_sums`` (k, p) are S1; ``shared`` is of one model."""
    deaths = stratum.deaths[times].astype(np.int64)
    if deaths.size == 0:
        return risk_sums
    events = slice(int(stratum.first[times][0]), int(stratum.first[times][0] + deaths.sum()))
    means = np.repeat(risk_sums, deaths, axis=0)
    if stratum.rank[events].any():
        rows = stratum.died[events]
        tied = np.add.reduceat(
            stratum.x[rows] * shared.risk[rows], stratum.first[times] - stratum.first[times][0], axis=0
        )
        means -= stratum.rank[events, None] * np.repeat(tied, deaths, axis=0)
    means *= shared.inverse[events]
    return means
