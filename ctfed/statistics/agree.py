"""Binary classification at horizons, and the strict agreement of several models, from totals.

Each model calls a patient an 'event by h' when its predicted survival S(h) falls to its threshold or below, which is
score > cut. The cut maximises Youden's index (sensitivity + specificity - 1) over the training patients whose state at
h is known. A set of models agrees on a patient when all members call the same; the consensus is evaluated on those
patients alone, and its coverage is their share of the patients whose state is known.

The best cut is sought among the quantiles that one table of training totals has; the Youden index of any other cut is
at most ``bound``. As in the study that this follows, proportions are over patients with known state; the weighted ones
beside them (see ``horizons``) also stand for those whose follow-up ended before.

References: Youden 1950, Cancer 3:32; Wilson 1927, JASA 22:209 (intervals of proportions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import BoolArray, FloatArray, IntArray, frozen
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import View
from ctfed.statistics.evaluation_tables import EvaluationTable
from ctfed.statistics.horizons import FollowUp, HorizonWeights
from ctfed.statistics.scores import require_scores, score_moments, score_quantiles
from ctfed.statistics.select import Select
from ctfed.statistics.tails import normal_isf
from ctfed.statistics.timegrid import TimeGrid

MOST_SCORE_BINS = 50
STATES = 3  # case, control, unknown


@dataclass(frozen=True, eq=False)
class YoudenCuts:
    """The cuts of m models at H horizons, found on the training patients with known state.

    Attributes:
        times: (H,).
        cut: (m, H) score above which an event is predicted; NaN where there is no case or no control.
        youden, sensitivity, specificity: (m, H) at the cut.
        bound: (m, H) no other cut has a higher Youden index than this.
    """

    times: FloatArray
    cut: FloatArray
    youden: FloatArray
    sensitivity: FloatArray
    specificity: FloatArray
    bound: FloatArray

    def survival(self, hazard: FloatArray) -> FloatArray:
        """(m, H) the thresholds as survival probabilities S(h), from (m, H) cumulative baseline hazards."""
        return np.exp(-hazard * np.exp(self.cut))


def youden_cuts(
    view: View, horizons: Sequence[float], *, minimum: int = 10, score_bins: int = MOST_SCORE_BINS
) -> Algorithm[YoudenCuts]:
    """Youden's cuts of all models and horizons; rounds: one, those of ``score_quantiles``, one.

    Args:
        view: training rows and m scores.
        horizons: edges of the study's time grid.
        minimum: patients that a cell by horizon and score should hold on average.
        score_bins: the most score bins.

    Raises:
        CtfedError: when there are too few patients for two score bins.
    """
    times = frozen(sorted(horizons))
    found: Total = yield score_moments(view)
    bins = int(min(score_bins, found.number("patients") // (max(1, minimum) * max(2, times.size))))
    if bins < 2:
        raise CtfedError(
            f"{found.number('patients'):.0f} patients are too few for a threshold at {times.size} horizons"
        )
    levels = (np.arange(1, bins) / bins).tolist()
    least = max(1, minimum, int(found.number("patients") / (2 * bins)))
    quantiles = yield from score_quantiles(view, levels, least, found)
    edges = frozen(quantiles.value)
    total: Total = yield EvaluationTable(view, TimeGrid(times), edges)
    return youden_of(total["counts"], times, edges)


def youden_of(counts: FloatArray, times: FloatArray, edges: FloatArray) -> YoudenCuts:
    """Youden's cuts from a table by horizon: counts (m, H + 1, B, 2), score edges (m, B - 1)."""
    shape = (edges.shape[0], times.size)
    parts = np.full((5, *shape), np.nan)
    for h in range(times.size):
        cases = counts[:, : h + 1, :, 0].sum(axis=1)
        controls = counts[:, h + 1 :].sum(axis=(1, 3))
        true, false = _rates(cases), _rates(controls)
        best = np.argmax(true[:, 1:-1] - false[:, 1:-1], axis=1)[:, None]
        sensitivity, fallout = (np.take_along_axis(part[:, 1:-1], best, axis=1)[:, 0] for part in (true, false))
        # A cut inside a bin has at most the true positives of the bin's lower edge, at least the false of its upper.
        bound = (true[:, :-1] - false[:, 1:]).max(axis=1)
        cut = np.take_along_axis(edges, best, axis=1)[:, 0]
        known = np.where((cases.sum(axis=1) > 0) & (controls.sum(axis=1) > 0), 1.0, np.nan)
        found = (cut, sensitivity - fallout, sensitivity, 1 - fallout, bound)
        parts[:, :, h] = np.stack(found) * known
    return YoudenCuts(times, *parts)


def _rates(counts: FloatArray) -> FloatArray:
    """(m, B + 1) share above each edge, from minus to plus infinity."""
    whole = counts.sum(axis=1, keepdims=True)
    below = np.concatenate([np.zeros_like(whole), np.cumsum(counts, axis=1)], axis=1)
    return np.asarray(1 - below / np.maximum(whole, 1.0))


@register("agreement-counts")
@dataclass(frozen=True, eq=False)
class AgreementCounts(Query):
    """What m models and K sets of them call at H horizons, against what is known of the patients then.

    counts = patients by call (no event, event) and state (case, control, unknown), sums of 1; weighted = sums of the
    weights of cases and controls by call; first for the m models, then for the K sets, where patients on whom the
    members differ are in no cell. ranked = weights of cases and controls by bin of each set's own score, among those on
    whom its members agree. The total discloses those (m + K) H 10 + 2 K H B numbers.

    Attributes:
        view: rows and at least m scores: the models first.
        weights: of cases and controls, see ``horizons``.
        cuts: (m, H).
        members: (K, m) of 0 and 1; a set without members agrees on nobody.
        scores: (K,) index of the view's column by which each set ranks patients, such as its ensemble; empty for none.
        edges: (K, B - 1) of these scores, not decreasing; None for no ranking.
    """

    view: View
    weights: HorizonWeights
    cuts: FloatArray
    members: FloatArray
    scores: tuple[int, ...] = ()
    edges: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.members.ndim != 2 or not np.isin(self.members, (0.0, 1.0)).all():
            raise ValueError("members must be a (sets, models) array of 0 and 1")
        sets, models = self.members.shape
        if self.cuts.shape != (models, len(self.weights.horizons)) or models > self.view.width:
            raise ValueError(f"cuts must be ({models}, {len(self.weights.horizons)}), found {self.cuts.shape}")
        if self.edges is None:
            if self.scores:
                raise ValueError("a ranking needs edges")
            return
        if len(self.scores) != sets or not all(0 <= index < self.view.width for index in self.scores):
            raise ValueError(f"each of {sets} sets is ranked by one of the {self.view.width} scores")
        if self.edges.ndim != 2 or self.edges.shape[0] != sets or not (np.diff(self.edges, axis=1) >= 0).all():
            raise ValueError(f"edges must be ({sets}, B - 1), not decreasing")

    @property
    def bins(self) -> int:
        """B, 0 without a ranking."""
        return 0 if self.edges is None else self.edges.shape[1] + 1

    @property
    def layout(self) -> Layout:
        """patients (), counts (m + K, H, 6), weighted (m + K, H, 4), ranked (K, H, 2 B): call or bin first."""
        models, horizons = self.cuts.shape
        sets, bins = self.members.shape[0], self.bins
        return {
            "patients": Entry(()),
            "counts": Entry((models + sets, horizons, 2 * STATES)),
            "weighted": Entry((models + sets, horizons, 4)),
            "ranked": Entry((sets, horizons, 2 * bins)),
        }

    @property
    def exposure(self) -> Exposure:
        """Cells of one set's table by time bin and score bin, with one cell more for those who are not agreed on."""
        names = self.view.names
        cuts = {names[k]: list(row) for k, row in enumerate(self.cuts)}
        for index, row in zip(self.scores, () if self.edges is None else self.edges, strict=True):
            cuts.setdefault(names[index], []).extend(row)
        cells = self.weights.cells * (max(2, self.bins) + 1)
        told = {name: np.unique(np.array(row)) for name, row in cuts.items()}
        return Exposure(cells=cells, cuts=told, times=self.weights.edges, plain=False)

    def answer(self, cohort: Cohort) -> Summary:
        """This site's sums."""
        table = self.view.table(cohort)
        require_scores(table)
        case, control = self.weights.of(table)
        models = self.cuts.shape[0]
        sums = {name: np.zeros(entry.shape) for name, entry in self.layout.items()}
        sums["patients"] = np.array(float(table.rows))
        for h in range(self.cuts.shape[1]):
            called = table.values[:, :models] > self.cuts[:, h]
            state = np.where(case[h] > 0, 0, np.where(control[h] > 0, 1, 2))
            weight = case[h] + control[h]
            votes = called.astype(np.float64) @ self.members.T
            size = self.members.sum(axis=1)
            agreed = ((votes == 0) | (votes == size)) & (size > 0)
            rows = [(called[:, k], np.ones(table.rows, dtype=bool)) for k in range(models)]
            rows += [(votes[:, k] > 0, agreed[:, k]) for k in range(self.members.shape[0])]
            for row, (call, kept) in enumerate(rows):
                cell = (call * STATES + state)[kept]
                sums["counts"][row, h] = np.bincount(cell, minlength=2 * STATES)
                weighted = np.bincount(cell, weight[kept], minlength=2 * STATES).reshape(2, STATES)
                sums["weighted"][row, h] = weighted[:, :2].ravel()
            if self.edges is not None:
                sums["ranked"][:, h] = self._ranked(table.values, agreed & (state < 2)[:, None], state, weight)
        return Summary(self.layout, sums)

    def _ranked(self, scores: FloatArray, kept: BoolArray, state: IntArray, weight: FloatArray) -> FloatArray:
        """(K, 2 B) weights of cases and controls by score bin, of the (n, K) patients kept."""
        assert self.edges is not None
        found = np.zeros((len(self.scores), 2 * self.bins))
        for k, index in enumerate(self.scores):
            place = np.searchsorted(self.edges[k], scores[:, index], side="left") * 2 + state
            rows = kept[:, k]
            found[k] = np.bincount(place[rows], weight[rows], minlength=2 * self.bins)
        return found


@dataclass(frozen=True, eq=False)
class Classified:
    """Classification of R = m + K rows (models, then sets) at H horizons.

    Attributes:
        times: (H,).
        models: m.
        counts: (R, H, 2, 3) patients by call (no event, event) and state (case, control, unknown).
        weighted: (R, H, 2, 2) weights by call and state.
        valid: (H,) patients with known state.
        auc, auc_lower, auc_upper: (K, H) AUC of each set's score among those agreed on, cases weighted; the certified
            limits cover pairs in one score bin.
    """

    times: FloatArray
    models: int
    counts: FloatArray
    weighted: FloatArray
    valid: FloatArray
    auc: FloatArray
    auc_lower: FloatArray
    auc_upper: FloatArray

    @property
    def coverage(self) -> FloatArray:
        """(R, H) share of the valid patients who have a call; 1 for single models."""
        return _share(self.counts[..., :2].sum(axis=(-1, -2)), np.broadcast_to(self.valid, self.counts.shape[:2]))

    @property
    def accuracy(self) -> FloatArray:
        """(R, H) share of right calls among the valid patients with a call."""
        known = self.counts[..., :2]
        return _share(known[..., 1, 0] + known[..., 0, 1], known.sum(axis=(-1, -2)))

    @property
    def sensitivity(self) -> FloatArray:
        """(R, H) share of the cases that are called so."""
        return _share(self.counts[..., 1, 0], self.counts[..., 0].sum(axis=-1))

    @property
    def specificity(self) -> FloatArray:
        """(R, H) share of the controls that are called so."""
        return _share(self.counts[..., 0, 1], self.counts[..., 1].sum(axis=-1))

    @property
    def weighted_sensitivity(self) -> FloatArray:
        """(R, H) with the weights of censoring."""
        return _share(self.weighted[..., 1, 0], self.weighted[..., 0].sum(axis=-1))

    @property
    def weighted_specificity(self) -> FloatArray:
        """(R, H) with the weights of censoring, which are the same for all controls of a horizon."""
        return _share(self.weighted[..., 0, 1], self.weighted[..., 1].sum(axis=-1))


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)


def wilson(part: FloatArray, whole: FloatArray, level: float = 0.95) -> FloatArray:
    """(..., 2) Wilson's limits of a proportion; NaN where there is nobody."""
    z = normal_isf((1 - level) / 2)
    n = np.where(whole > 0, whole, np.nan)
    centre = (part + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(part * (n - part) / n + z**2 / 4)
    return np.stack([centre - half, centre + half], axis=-1)


def agreement(
    view: View,
    followed: FollowUp,
    cuts: FloatArray,
    members: FloatArray,
    scores: Sequence[int],
    *,
    minimum: int = 10,
    score_bins: int = MOST_SCORE_BINS,
) -> Algorithm[Classified]:
    """Classify by the cuts and by agreement; rounds: those of ``score_quantiles`` and one.

    Args:
        view: rows (the test split), m scores and what the sets rank by (see ``ensemble.Ensemble`` with ``keep``).
        followed: of the same rows, at the H horizons.
        cuts: (m, H) of ``youden_cuts``; finite.
        members: (K, m) of 0 and 1.
        scores: (K,) index of each set's ranking column.
        minimum: patients that a cell by time and score bin should hold on average; 0 merges nothing.
        score_bins: the most bins of a ranking score.

    Raises:
        CtfedError: when a cut is unknown, or there are too few patients for two score bins.
    """
    if not np.isfinite(cuts).all():
        raise CtfedError(
            "a model has no threshold at a horizon, because no training patient is a case or a control there"
        )
    horizons, sets = followed.times.size, len(scores)

    def room(time_bins: int) -> int:
        """Score bins, beside the cell of those who are not agreed on."""
        return int(min(score_bins, followed.patients // (minimum * time_bins) - 1)) if minimum else score_bins

    coarse = followed.coarser(minimum * (room(horizons) + 1))
    bins = room(coarse.weights.cells)
    if bins < 2:
        raise CtfedError(f"{followed.patients:.0f} patients are too few for an AUC at {horizons} horizons")
    least = max(1, minimum, int(followed.patients / (2 * bins)))
    # Thresholds of the ranking scores alone: a site counts every one that it is asked.
    places = sorted({int(index) for index in scores})
    ranking = view.then(Select(tuple(view.names[index] for index in places)))
    quantiles = yield from score_quantiles(ranking, (np.arange(1, bins) / bins).tolist(), least)
    edges = frozen(quantiles.value[[places.index(int(index)) for index in scores]])
    total: Total = yield AgreementCounts(
        view, coarse.weights, frozen(cuts), frozen(members), tuple(int(index) for index in scores), edges
    )
    rows = total["counts"].shape[:2]
    counts = total["counts"].reshape(*rows, 2, STATES)
    ranked = total["ranked"].reshape(sets, horizons, bins, 2)
    valid = counts[0, ..., :2].sum(axis=(-1, -2))
    weighted = total["weighted"].reshape(*rows, 2, 2)
    return Classified(followed.times, cuts.shape[0], counts, weighted, valid, *_auc(ranked))


def _auc(ranked: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """AUC and its limits from (..., B, 2) weights of cases and controls by score bin."""
    cases, controls = ranked[..., 0], ranked[..., 1]
    below = np.cumsum(controls, axis=-1) - controls
    pairs = cases.sum(axis=-1) * controls.sum(axis=-1)
    sure, tied = (cases * below).sum(axis=-1), (cases * controls).sum(axis=-1)
    return _share(sure + tied / 2, pairs), _share(sure, pairs), _share(sure + tied, pairs)
