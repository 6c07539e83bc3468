"""Non-linear least squares on the whole transcript, given outcomes, sites, folds and missing values.

Log-likelihoods, gradients and Hessians of Cox models at many coefficient vectors, and sums over time bins, are smooth
functions of the unknown values. As many of them as there are unknown values determine these locally, as a rule. Two
questions are answered apart:

``search`` starts from random values and shows what an attacker finds without knowing any covariate.
``bound`` linearises at the true values: how many patients are determined for an attacker who starts near enough. It
uses the truth, so it is a bound on such attacks and not an attack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import BoolArray, FloatArray
from ctfed.federation.view import View
from server.audit.attacks.least_squares import minimise
from server.audit.attacks.likelihoods import Equation, equations_of
from server.audit.knowledge import Known
from server.audit.patients import TOLERANCE, Candidate
from server.audit.statements import SUMS, raw, statements
from server.audit.transcript import Transcript

NOISE = 1e-15  # of a total, relative: what rounding leaves
MOST_UNKNOWN = 3000  # values at once; the dense solver is cubic in them
SOLVED = 1e-9

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Searched:
    """What the search found.

    Attributes:
        candidates: if some start solved the equations, the rows that these determine there.
        equations, unknown: how many.
        residual: the smallest relative residual (root mean square) of any start.
    """

    candidates: tuple[Candidate, ...]
    equations: int
    unknown: int
    residual: float


@dataclass(frozen=True, eq=False)
class Bound:
    """What the equations determine near the truth.

    Attributes:
        equations, unknown, rank: of the linearised system; the rank at rounding's level.
        patients: those of whom every value is determined to a millionth.
        values: single values that are.
    """

    equations: int
    unknown: int
    rank: int
    patients: int
    values: int


class System:
    """The equations of a transcript as functions of the unknown values: those observed, of patients in some total."""

    def __init__(self, transcript: Transcript, known: Known) -> None:
        self.equations: list[Equation] = equations_of(transcript, known)
        used = np.zeros(known.patients, dtype=bool)
        for one in self.equations:
            used |= one.rows
        self.unknown: BoolArray = used[:, None] & ~known.missing
        self._shape = known.missing.shape
        self._target = np.concatenate([one.target for one in self.equations]) if self.equations else np.zeros(0)
        self._size = np.maximum(np.abs(self._target), 1.0)

    @property
    def count(self) -> int:
        """Number of equations."""
        return int(self._target.size)

    @property
    def unknowns(self) -> int:
        """Number of unknown values."""
        return int(self.unknown.sum())

    def values(self, flat: FloatArray) -> FloatArray:
        """(n, p) raw values from the (u,) unknown ones, 0 elsewhere."""
        x = np.zeros(self._shape)
        x[self.unknown] = flat
        return x

    def __call__(self, flat: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(e,) relative residuals and (e, u) Jacobian."""
        x = self.values(flat)
        parts = [one.evaluate(x) for one in self.equations]
        value = np.concatenate([part[0] for part in parts])
        jacobian = np.vstack([part[1].reshape(part[0].size, -1)[:, self.unknown.ravel()] for part in parts])
        return (value - self._target) / self._size, jacobian / self._size[:, None]


def search(
    transcript: Transcript,
    known: Known,
    view: View,
    *,
    starts: int = 3,
    iterations: int = 200,
    seed: int = 0,
    tell: Progress = lambda _: None,
    near: FloatArray | None = None,
) -> Searched:
    """Look for values that explain all totals, from random starts.

    Args:
        transcript: of the run.
        known: the attacker's side knowledge.
        view: names the raw columns.
        starts, iterations, seed: of the search.
        tell: receives a line per start.
        near: (n, p) raw values to start around with a tenth of their spread, for an attacker who guesses well.
    """
    system = System(transcript, known)
    if not 0 < system.unknowns <= MOST_UNKNOWN:
        return Searched((), system.count, system.unknowns, float("nan"))
    rng = np.random.default_rng(seed)
    centre, spread = _scale(transcript, known)
    scale = np.broadcast_to(spread, known.missing.shape)[system.unknown]
    middle = np.broadcast_to(centre, known.missing.shape)[system.unknown] if near is None else near[system.unknown]

    def scaled(z: FloatArray) -> tuple[FloatArray, FloatArray]:
        residual, jacobian = system(middle + scale * z)
        return residual, jacobian * scale

    best = np.inf
    for start in range(starts):
        tell(f"search: start {start + 1} of {starts}")
        width = 1.0 if near is None else 0.1
        found = minimise(scaled, width * rng.normal(size=scale.size), iterations=iterations, enough=1e-22)
        best = min(best, float(np.sqrt(found.loss / max(1, system.count))))
        if best < SOLVED:
            flat = middle + scale * found.x
            sure, _ = _sure(system, flat, scale, max(NOISE, best))
            values = system.values(flat)
            values[known.missing] = np.nan
            people = np.flatnonzero((sure | known.missing).all(axis=1) & system.unknown.any(axis=1))
            rows = [Candidate(raw(view), values[i], f"patient {i} of the search") for i in people]
            return Searched(tuple(rows), system.count, system.unknowns, best)
    return Searched((), system.count, system.unknowns, best)


def bound(transcript: Transcript, known: Known, truth: FloatArray) -> Bound | None:
    """What is determined locally; None when there are too many unknown values to say.

    Args:
        transcript, known: as for ``search``.
        truth: (n, p) the true raw values, 0 where missing.
    """
    system = System(transcript, known)
    if system.unknowns > MOST_UNKNOWN:
        return None
    if system.unknowns == 0 or system.count == 0:
        return Bound(system.count, system.unknowns, 0, 0, 0)
    people = system.unknown.any(axis=1)
    spread = np.sqrt((truth[people] ** 2).mean(axis=0))
    scale = np.broadcast_to(np.where(spread > 0, spread, 1.0), truth.shape)[system.unknown]
    sure, rank = _sure(system, truth[system.unknown], scale, NOISE)
    complete = (sure | known.missing).all(axis=1) & people
    return Bound(system.count, system.unknowns, rank, int(complete.sum()), int(sure.sum()))


def _sure(system: System, flat: FloatArray, scale: FloatArray, noise: float) -> tuple[BoolArray, int]:
    """(n, p) unknown values that equations with this relative noise determine to a millionth, and their rank."""
    _, jacobian = system(flat)
    scaled = jacobian * scale
    size = np.maximum(np.abs(scaled).max(axis=1, keepdims=True), 1e-300)
    whitened = scaled / (noise * np.maximum(1.0, 1.0 / size))
    if whitened.shape[0] > whitened.shape[1]:
        whitened = np.linalg.qr(whitened, mode="r")
    _, singular, right = np.linalg.svd(whitened, full_matrices=False)
    kept = singular > 1.0
    share = (right[kept] ** 2).sum(axis=0)
    error = np.sqrt(((right[kept] / singular[kept, None]) ** 2).sum(axis=0))
    sure = np.zeros(system.unknown.shape, dtype=bool)
    sure[system.unknown] = (share > 1 - 1e-9) & (error < TOLERANCE)
    return sure, int(kept.sum())


def _scale(transcript: Transcript, known: Known) -> tuple[FloatArray, FloatArray]:
    """(p,) means and standard deviations of the raw columns as the transcript tells them; 0 and 1 where it does not."""
    centre, spread = np.zeros(len(known.columns)), np.ones(len(known.columns))
    for one in statements(transcript):
        names = [feature.name for feature in one.query.view.columns]
        if one.kind != SUMS or tuple(names) != known.columns:
            continue
        count = np.maximum(one.arrays["count"], 1.0)
        centre = one.arrays["sum"] / count
        variance = one.arrays["squares"] / count - centre**2
        spread = np.sqrt(np.where(variance > 1e-20, variance, 1.0))
        break
    return centre, spread
