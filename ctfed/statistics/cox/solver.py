"""Proximal Newton and quasi-Newton for many penalised fits in lock-step, each round one question to the sites.

All fits of a stack share a view (one design matrix), and so they share curvature: a round asks for the gradient at
every fit's trial point, and for the Hessian at a few of them only (anchors). A fit uses the Hessian of the nearest
anchor and learns the difference by BFGS updates. With one fit this is the plain proximal Newton method; without any
Hessian (``updates='gradient'``) it is proximal BFGS from a scaled identity.

Reference: Lee, Sun & Saunders 2014, Proximal Newton-type methods for minimizing composite functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import BoolArray, FloatArray, IntArray
from ctfed.statistics.cox.penalty import PenaltyStack, minimise_quadratic

ARMIJO = 1e-4
ROUNDING = 1e-13  # relative noise of a summed log-likelihood: steps below it are not judged by their decrease
LONGEST_STEP = 10.0  # of any coefficient in one step, per standard deviation of its feature
MOST_DECLINED = 20  # steps that sites may decline before a fit stops: its optimum lies beyond what they answer
DECLINED_STEP = 0.3  # share of a declined step that is tried next
RUNAWAY = 30.0  # coefficient per standard deviation at which a fit stops: no data support it, separation produces it


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Totals at m points.

    Attributes:
        patients, events: of the view, over all sites.
        loglik: (m,); -inf at points that a site declined, because they spread its linear predictors too widely.
        gradient: (m, p) of the log-likelihood.
        information: point index -> (p, p) negative Hessian, for the points asked and not declined.
    """

    patients: int
    events: int
    loglik: FloatArray
    gradient: FloatArray
    information: dict[int, FloatArray]


# Asks for derivatives at (m, p) points, with the Hessian at some of them.
Oracle = Callable[[FloatArray, tuple[int, ...]], Algorithm[Derivatives]]


@dataclass(frozen=True)
class Settings:
    """How to solve.

    Attributes:
        updates: 'newton' asks for Hessians, 'gradient' never does.
        tolerance: largest KKT violation of a finished fit, in the unit of each feature's spread.
        max_rounds: evaluations after which the remaining fits are returned as not converged.
        anchors: Hessians asked per round when there are more fits than that.
    """

    updates: str = "newton"
    tolerance: float = 1e-9
    max_rounds: int = 500
    anchors: int = 4

    def __post_init__(self) -> None:
        if self.updates not in ("newton", "gradient"):
            raise ValueError(f"updates must be 'newton' or 'gradient', found {self.updates!r}")


@dataclass(frozen=True, eq=False)
class Solution:
    """Where the K fits ended.

    Attributes:
        beta: (K, p).
        loglik, residual: (K,) log-likelihood and KKT residual there (per patient and unit of spread).
        information: (K, p, p) negative Hessian of the log-likelihood per patient; exact where ``exact``.
        exact: (K,) whether ``information`` was evaluated at ``beta`` itself.
        converged: (K,).
        runaway: (K, p) coefficients beyond any that data could support, where a fit was stopped.
        declined: (K,) whether the fit was stopped because sites declined step after step.
        unit: (p,) spread of each feature within risk sets, as a power of two; 1 where no Hessian was asked.
        patients, events: of the view.
        rounds: evaluations used.
    """

    beta: FloatArray
    loglik: FloatArray
    residual: FloatArray
    information: FloatArray
    exact: BoolArray
    converged: BoolArray
    runaway: BoolArray
    declined: BoolArray
    unit: FloatArray
    patients: int
    events: int
    rounds: int


class _State:
    """The K fits: accepted points with their values, and the steps under trial."""

    def __init__(self, penalty: PenaltyStack, start: FloatArray) -> None:
        self.penalty = penalty
        self.beta = start.copy()
        fits, width = start.shape
        self.loss = np.full(fits, np.inf)
        self.gradient = np.zeros((fits, width))
        self.curvature = np.zeros((fits, width, width))
        self.exact = np.zeros(fits, dtype=bool)
        self.anchor = np.full((fits, width), np.nan)  # point at which the curvature was last exact
        self.direction = np.zeros((fits, width))
        self.slope = np.zeros(fits)
        self.step = np.ones(fits)
        self.declines = np.zeros(fits, dtype=np.int64)
        self.running = np.ones(fits, dtype=bool)
        self.updated = np.zeros(fits, dtype=bool)
        self.unit = np.ones(width)

    def trial(self) -> FloatArray:
        """(K, p) points to evaluate next."""
        return self.beta + self.step[:, None] * self.direction

    def runaway(self) -> BoolArray:
        """(K, p) coefficients that separation is driving to infinity."""
        return np.asarray(np.abs(self.beta) * self.unit > RUNAWAY)

    def begin(self, found: Derivatives, anchors: list[tuple[FloatArray, FloatArray]]) -> None:
        """Scales, from the first round: where no Hessian is known, features count as standardised.

        Units are powers of two, so that standardised features (spread about 1) are judged exactly as they are.
        """
        share = max(found.events, 1) / found.patients
        known = [*found.information.values(), *(matrix * found.patients for _, matrix in anchors)]
        for information in known[:1]:
            diagonal = np.diag(information) / max(found.events, 1)
            self.unit = np.exp2(np.rint(0.5 * np.log2(np.where(diagonal > 0, diagonal, 1.0))))
        self.curvature[:] = np.diag(share * self.unit**2)


@dataclass(eq=False)
class Curvatures:
    """Hessians of one view that outlive a stack of fits: a search asks ``most`` of them in all, not some in each batch.

    Attributes:
        most: how many are asked in all.
        known: points, and negative Hessians of the log-likelihood per patient.
    """

    most: int
    known: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether no more are asked; the fits then learn curvature from their gradients."""
        return len(self.known) >= self.most


def minimise(
    oracle: Oracle, penalty: PenaltyStack, start: FloatArray, settings: Settings, curvatures: Curvatures | None = None
) -> Algorithm[Solution]:
    """Fit K penalised models to KKT residuals <= ``settings.tolerance``; ``curvatures`` are used, and added to."""
    state = _State(penalty, start)
    rounds = 0
    scale = 1.0
    anchors: list[tuple[FloatArray, FloatArray]] = [] if curvatures is None else list(curvatures.known)
    while True:
        rows = np.flatnonzero(state.running)
        points, where = _distinct(state.trial()[rows])
        full = curvatures is not None and curvatures.full
        asked = () if full else _choose_anchors(points, anchors, state.unit, settings)
        found = yield from oracle(points, asked)
        rounds += 1
        if rounds == 1:
            scale = 1.0 / found.patients
            state.begin(found, anchors)
        new = [(points[i], matrix * scale) for i, matrix in found.information.items()]
        anchors = (anchors + new)[-64:]
        if curvatures is not None:
            curvatures.known += new
        accepted = _accept(state, rows, -found.loglik[where] * scale, -found.gradient[where] * scale)
        _update_curvature(state, rows, accepted, points, where, found, scale, anchors, settings)
        residual = state.penalty.residual(state.gradient, state.beta, state.unit)
        state.running &= ~((residual <= settings.tolerance) & np.isfinite(state.loss))
        state.running &= ~state.runaway().any(axis=1) & (state.declines < MOST_DECLINED)
        if not state.running.any() or rounds >= settings.max_rounds:
            break
        _directions(state, np.flatnonzero(state.updated & state.running))
    residual = state.penalty.residual(state.gradient, state.beta, state.unit)
    return Solution(
        state.beta,
        -state.loss / scale,
        residual,
        state.curvature,
        state.exact,
        residual <= settings.tolerance,
        state.runaway(),
        state.declines >= MOST_DECLINED,
        state.unit,
        found.patients,
        found.events,
        rounds,
    )


def _distinct(points: FloatArray) -> tuple[FloatArray, IntArray]:
    """The distinct rows, and where each row is among them."""
    if points.shape[1] == 0:  # all rows of no columns are equal; NumPy does not say so
        return points[:1], np.zeros(points.shape[0], dtype=np.int64)
    distinct, where = np.unique(points, axis=0, return_inverse=True)
    return distinct, where.reshape(-1)


def _choose_anchors(
    points: FloatArray, anchors: list[tuple[FloatArray, FloatArray]], unit: FloatArray, settings: Settings
) -> tuple[int, ...]:
    """Trial points at which to ask for the Hessian: all if few, else those farthest from every known anchor."""
    if settings.updates == "gradient":
        return ()
    if points.shape[0] <= settings.anchors:
        return tuple(range(points.shape[0]))
    distance = np.full(points.shape[0], np.inf)
    for point, _ in anchors:
        distance = np.minimum(distance, np.linalg.norm((points - point) * unit, axis=1))
    chosen: list[int] = []
    for _ in range(settings.anchors):
        index = int(np.argmax(distance))
        if distance[index] == 0:
            break
        chosen.append(index)
        distance = np.minimum(distance, np.linalg.norm((points - points[index]) * unit, axis=1))
    return tuple(sorted(chosen))


def _accept(state: _State, rows: IntArray, loss: FloatArray, gradient: FloatArray) -> BoolArray:
    """Judge the trial points of ``rows``; accepted ones become current, the others get a shorter step."""
    trial = state.trial()[rows]
    penalised = loss + state.penalty.take(rows).value(trial)
    before = state.loss[rows] + state.penalty.take(rows).value(state.beta[rows])
    step, slope = state.step[rows], state.slope[rows]
    noise = ROUNDING * (1.0 + np.abs(penalised))
    first = np.isinf(state.loss[rows])
    good = np.isfinite(penalised) & (first | (penalised <= before + ARMIJO * step * slope + noise))
    with np.errstate(divide="ignore", invalid="ignore"):
        shorter = -slope * step / (2 * ((penalised - before) / step - slope))
    factor = np.where(np.isfinite(shorter), np.clip(shorter / step, 0.1, 0.5), 0.1)
    declined = np.isinf(loss)
    factor[declined] = DECLINED_STEP
    state.declines[rows[declined]] += 1
    state.beta[rows[first & declined]] = 0.0  # a warm start out of range is dropped
    state.step[rows[~good]] = (step * factor)[~good]
    state.updated[:] = False
    chosen = rows[good]
    state.updated[chosen] = True
    moved = trial[good] - state.beta[chosen]
    change = gradient[good] - state.gradient[chosen]
    first = first[good]
    _bfgs(state, chosen[~first], moved[~first], change[~first])
    state.beta[chosen], state.loss[chosen], state.gradient[chosen] = trial[good], loss[good], gradient[good]
    return np.asarray(good)


def _bfgs(state: _State, rows: IntArray, moved: FloatArray, change: FloatArray) -> None:
    """BFGS update of the curvature of ``rows`` from steps and changes of the smooth loss's gradient."""
    curvature = state.curvature[rows]
    product = np.einsum("kij,kj->ki", curvature, moved)
    bend, model = (moved * change).sum(axis=1), (moved * product).sum(axis=1)
    usable = (bend > 1e-10 * model) & (model > 0)
    rows, product, change = rows[usable], product[usable], change[usable]
    bend, model = bend[usable][:, None, None], model[usable][:, None, None]
    state.curvature[rows] += change[:, :, None] * change[:, None, :] / bend
    state.curvature[rows] -= product[:, :, None] * product[:, None, :] / model
    state.exact[rows] = False


def _update_curvature(
    state: _State,
    rows: IntArray,
    accepted: BoolArray,
    points: FloatArray,
    where: IntArray,
    found: Derivatives,
    scale: float,
    anchors: list[tuple[FloatArray, FloatArray]],
    settings: Settings,
) -> None:
    """Give every accepted fit the Hessian of its own point, or of an anchor much nearer than the one it has."""
    if settings.updates == "gradient" or not anchors:
        return
    places = np.stack([point for point, _ in anchors])
    for position in np.flatnonzero(accepted):
        row, index = rows[position], where[position]
        if index in found.information:
            state.curvature[row] = found.information[index] * scale
            state.anchor[row], state.exact[row] = points[index], True
            continue
        distance = np.linalg.norm((places - state.beta[row]) * state.unit, axis=1)
        nearest = int(np.argmin(distance))
        old = np.linalg.norm((state.anchor[row] - state.beta[row]) * state.unit)
        if not distance[nearest] > 0.5 * old:  # also when there is no anchor yet: nan compares false
            state.curvature[row], state.anchor[row] = anchors[nearest][1], places[nearest]
            state.exact[row] = False


def _directions(state: _State, rows: IntArray) -> None:
    """New steps for the fits that moved: the minimiser of the penalised quadratic model."""
    penalty = state.penalty.take(rows)
    beta, gradient = state.beta[rows], state.gradient[rows]
    target = minimise_quadratic(state.curvature[rows], gradient, beta, penalty)
    direction = target - beta
    longest = (np.abs(direction) * state.unit).max(axis=1, initial=0.0)
    direction *= np.minimum(1.0, LONGEST_STEP / np.maximum(longest, 1e-300))[:, None]
    state.direction[rows] = direction
    state.slope[rows] = (gradient * direction).sum(axis=1) + penalty.value(beta + direction) - penalty.value(beta)
    state.step[rows] = 1.0
