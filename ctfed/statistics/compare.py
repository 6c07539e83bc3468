"""Comparisons: C of every two models on the same patients, and how results of sites vary.

Differences of C need one round: the sums of cross-products of influence functions that ``WithinSitePairs`` gives with
``covariance``. Results of sites are combined by random effects in two ways:

* ``random_effects`` takes results that sites have released (a named exception of the study), for a forest plot;
* ``heterogeneity`` needs no release: DerSimonian and Laird's tau^2, I^2 and the Henmi-Copas estimate follow from four
  sums over sites (of w, w^2, w y and w y^2 with w = 1 / variance), so that no site's own result is told.

References: DeLong, DeLong, Clarke-Pearson 1988, Biometrics 44:837; Kang, Chen, Petrick, Gallas 2015, Statistics in
Medicine 34:685 (C by U-statistics); Holm 1979, Scand J Statist 6:65; DerSimonian, Laird 1986, Controlled Clinical
Trials 7:177; Viechtbauer 2005, J Educ Behav Stat 30:261 (REML); Knapp, Hartung 2003, Statistics in Medicine 22:2693;
Higgins, Thompson, Spiegelhalter 2009, JRSS A 172:137 (prediction interval); Henmi, Copas 2010, Statistics in Medicine
29:2969.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from ctfed.federation.algorithm import Algorithm
from ctfed.federation.arrays import FloatArray
from ctfed.federation.codec import register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError
from ctfed.federation.query import Exposure, Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import View
from ctfed.statistics.concordance import Concordance, count_pairs, within_site_concordance
from ctfed.statistics.scores import require_scores
from ctfed.statistics.tails import chi2_sf, normal_isf, normal_sf, t_isf

METHODS = ("reml", "dersimonian-laird", "paule-mandel")
FEWEST_SITES = 4  # of a sum over sites' results: with fewer its four numbers nearly determine each of them


@dataclass(frozen=True, eq=False)
class PairedDifferences:
    """C of each of m models minus C of each other one, on the same pairs of patients.

    Attributes:
        concordance: of the models.
        value, standard_error, z, p: (m, m); row minus column; NaN on the diagonal and where two models rank alike.
        p_adjusted: (m, m) by Holm's method over all m (m - 1) / 2 comparisons.
    """

    concordance: Concordance
    value: FloatArray
    standard_error: FloatArray
    z: FloatArray
    p: FloatArray
    p_adjusted: FloatArray

    def intervals(self, level: float = 0.95) -> FloatArray:
        """(m, m, 2) normal limits."""
        half = normal_isf((1 - level) / 2) * self.standard_error
        return np.stack([self.value - half, self.value + half], axis=-1)


def paired_differences(view: View) -> Algorithm[PairedDifferences]:
    """All differences of the within-site C of the m scores of a view, in one round."""
    found = yield from within_site_concordance(view, covariance=True)
    return differences_of(found)


def differences_of(found: Concordance) -> PairedDifferences:
    """All differences, from a concordance that was asked with its covariance.

    Raises:
        ValueError: when it was not.
    """
    v = found.covariance
    if v is None:
        raise ValueError("a difference needs the covariance; ask with covariance=True")
    value = found.value[:, None] - found.value[None, :]
    spread = np.diag(v)
    variance = spread[:, None] + spread[None, :] - 2 * v
    # Rounding of two models that rank alike must not look like a small error.
    known = variance > 1e-14 * (spread[:, None] + spread[None, :])
    error = np.sqrt(np.where(known, variance, np.nan))
    z = value / error
    p = 2 * normal_sf(np.abs(z))
    return PairedDifferences(found, value, error, z, p, _holm(p))


def _holm(p: FloatArray) -> FloatArray:
    """Adjusted p-values of the upper triangle of a symmetric matrix; NaN takes no part."""
    rows, columns = np.triu_indices(p.shape[0], 1)
    flat = p[rows, columns]
    known = np.flatnonzero(~np.isnan(flat))
    order = known[np.argsort(flat[known], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted = np.full(flat.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(flat[order] * factors), 1.0)
    found = np.full_like(p, np.nan)
    found[rows, columns] = found[columns, rows] = adjusted
    return found


@dataclass(frozen=True)
class RandomEffects:
    """A random-effects summary of k sites' results.

    Attributes:
        sites: k.
        estimate, standard_error, lower, upper: of the mean result.
        tau2: variance between sites.
        q, q_p: Cochran's heterogeneity and its p-value, k - 1 degrees of freedom.
        i2: share of the variation that is between sites, 0 to 1, from Q.
        prediction_lower, prediction_upper: where the result of a new site lies; NaN with fewer than three sites.
        method: how tau2 was estimated.
    """

    sites: int
    estimate: float
    standard_error: float
    lower: float
    upper: float
    tau2: float
    q: float
    q_p: float
    i2: float
    prediction_lower: float
    prediction_upper: float
    method: str


def random_effects(
    values: FloatArray,
    standard_errors: FloatArray,
    *,
    method: str = "reml",
    knapp_hartung: bool = True,
    at_least_normal: bool = False,
    level: float = 0.95,
) -> RandomEffects:
    """Pool results that sites have released.

    Args:
        values: (k,) results on a scale where they are about normal (C, log hazard ratio, logit of a share).
        standard_errors: (k,) > 0.
        method: 'reml', 'dersimonian-laird' or 'paule-mandel'.
        knapp_hartung: standard error from the residuals, interval from Student's t with k - 1 degrees of freedom;
            otherwise 1 / sqrt(sum of weights) and the normal distribution.
        at_least_normal: that standard error is never below 1 / sqrt(sum of weights), as it is by chance where sites
            agree better than their errors let expect (the 'ad hoc' correction of Jackson et al. 2017,
            doi:10.1002/sim.7411; metafor's test="adhoc").
        level: of the intervals. The prediction interval uses t with k - 2 degrees of freedom.

    Raises:
        CtfedError: with fewer than two sites, or an error that is not > 0.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, found {method!r}")
    y, v = np.asarray(values, dtype=np.float64), np.asarray(standard_errors, dtype=np.float64) ** 2
    if y.size < 2 or y.shape != v.shape:
        raise CtfedError(f"results of two sites or more can be pooled, found {y.size}")
    if not ((v > 0).all() and np.isfinite(v).all() and np.isfinite(y).all()):
        raise CtfedError("a site's result or its standard error is unknown or 0; leave that site out")
    k = y.size
    q = _q(y, v, 0.0)
    tau2 = {"reml": _reml, "dersimonian-laird": _dersimonian_laird, "paule-mandel": _paule_mandel}[method](y, v)
    w = 1 / (v + tau2)
    estimate = float((w * y).sum() / w.sum())
    error = float(1 / np.sqrt(w.sum()))
    tail = (1 - level) / 2
    reach = normal_isf(tail)
    if knapp_hartung:
        scale = float(np.sqrt((w * (y - estimate) ** 2).sum() / (k - 1)))
        error *= max(scale, 1.0) if at_least_normal else scale
        reach = float(t_isf(tail, k - 1))
    ahead = float(t_isf(tail, k - 2)) * float(np.sqrt(tau2 + error**2)) if k > 2 else float("nan")
    return RandomEffects(
        sites=k,
        estimate=estimate,
        standard_error=error,
        lower=estimate - reach * error,
        upper=estimate + reach * error,
        tau2=tau2,
        q=q,
        q_p=float(chi2_sf(q, k - 1)),
        i2=max(0.0, 1 - (k - 1) / q) if q > 0 else 0.0,
        prediction_lower=estimate - ahead,
        prediction_upper=estimate + ahead,
        method=method,
    )


def _q(y: FloatArray, v: FloatArray, tau2: float) -> float:
    w = 1 / (v + tau2)
    return float((w * (y - (w * y).sum() / w.sum()) ** 2).sum())


def _dersimonian_laird(y: FloatArray, v: FloatArray) -> float:
    w = 1 / v
    return max(0.0, (_q(y, v, 0.0) - (y.size - 1)) / float(w.sum() - (w**2).sum() / w.sum()))


def _highest(y: FloatArray, v: FloatArray) -> float:
    """A tau2 beyond every root: Q(tau2) < k - 1 and the restricted likelihood falls."""
    return float(np.ptp(y) ** 2 + v.max()) * 10


def _paule_mandel(y: FloatArray, v: FloatArray) -> float:
    def excess(tau2: float) -> float:
        return _q(y, v, tau2) - (y.size - 1)

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, _highest(y, v), xtol=1e-16, rtol=1e-14))


def _reml(y: FloatArray, v: FloatArray) -> float:
    """The highest restricted likelihood: the best of the roots of its derivative, and 0."""

    def slope(tau2: float) -> float:
        w = 1 / (v + tau2)
        rest = y - (w * y).sum() / w.sum()
        return float((w**2 * rest**2).sum() - w.sum() + (w**2).sum() / w.sum())

    def loglik(tau2: float) -> float:
        w = 1 / (v + tau2)
        return float(np.log(w).sum() - np.log(w.sum()) - _q(y, v, tau2)) / 2

    grid = np.concatenate([[0.0], np.geomspace(float(v.min()) * 1e-6, _highest(y, v), 400)])
    slopes = np.array([slope(x) for x in grid])
    roots = [0.0]
    for i in np.flatnonzero((slopes[:-1] > 0) & (slopes[1:] <= 0)):
        roots.append(float(brentq(slope, grid[i], grid[i + 1], xtol=1e-16, rtol=1e-14)))
    return max(roots, key=loglik)


@register("site-concordance-sums")
@dataclass(frozen=True, eq=False)
class SiteConcordanceSums(Query):
    """Sums over sites of w, w^2, w d and w d^2, for each of m models: d = C - 1/2 of the site, w = 1 / its variance.

    A site with fewer than ``minimum`` patients or deaths, or whose C has no error, adds nothing and is not counted.
    C and its variance are those of ``concordance`` over the site's own pairs. Weights are bounded by 10^6 (an error of
    0.001), so that no site is all that is seen.

    The total discloses 5 m numbers for 2 m unknowns of each site: with four sites or more they determine none; with
    fewer the algorithm gives no result. Models that hardly differ do not add equations, since their results do not
    either; a study that asks this about many different models comes near to releasing each site's own results, and its
    steward should know.

    Attributes:
        view: rows and scores.
        minimum: the fewest patients and deaths of a site that counts.
    """

    view: View
    minimum: int

    def __post_init__(self) -> None:
        if self.minimum < 1:
            raise ValueError(f"the smallest site must have >= 1 patient, found {self.minimum}")

    @property
    def layout(self) -> Layout:
        """sites, weight, weight_squares, first, second (m,)."""
        shape = (self.view.width,)
        return {
            "sites": Entry(shape),
            "weight": Entry(shape, 8),
            "weight_squares": Entry(shape, 20),
            "first": Entry(shape, 8),
            "second": Entry(shape, 8),
        }

    @property
    def exposure(self) -> Exposure:
        """Results over all rows of a site, added over sites."""
        return Exposure()

    def answer(self, cohort: Cohort) -> Summary:
        """This site's contribution."""
        table = self.view.table(cohort)
        require_scores(table)
        sums = {name: np.zeros(entry.shape) for name, entry in self.layout.items()}
        if min(table.rows, int(table.event.sum())) >= self.minimum:
            pairs = count_pairs(table.time, table.event, table.values)
            total = pairs.comparable.sum() / 2
            if total > 0:
                c = pairs.concordance.sum(axis=1) / (2 * total)
                influence = (pairs.concordance - c[:, None] * pairs.comparable) / total
                variance = (influence**2).sum(axis=1)
                known = variance > 1e-12
                w = np.where(known, 1 / np.maximum(variance, 1e-6), 0.0)
                parts = (known.astype(np.float64), w, w**2, w * (c - 0.5), w * (c - 0.5) ** 2)
                sums = dict(zip(sums, parts, strict=True))
        return Summary(self.layout, sums)


@dataclass(frozen=True, eq=False)
class Heterogeneity:
    """How C varies between sites, for m models, from sums over sites alone.

    Attributes:
        sites: (m,) that contribute.
        estimate, standard_error: (m,) mean C with fixed weights, its error with the variance between sites.
        tau2, q, i2: (m,) by DerSimonian and Laird.
        prediction: (m, 2) where the C of a new site lies.
    """

    sites: FloatArray
    estimate: FloatArray
    standard_error: FloatArray
    tau2: FloatArray
    q: FloatArray
    i2: FloatArray
    prediction: FloatArray


def heterogeneity(view: View, *, minimum: int = 10, level: float = 0.95) -> Algorithm[Heterogeneity]:
    """How the sites' own C vary, in one round.

    Raises:
        CtfedError: when fewer than four sites contribute.
    """
    total: Total = yield SiteConcordanceSums(view, minimum)
    k = np.rint(total["sites"])
    if (k < FEWEST_SITES).any():
        raise CtfedError(f"{k.min():.0f} sites have a C with an error, {FEWEST_SITES} are needed to compare them")
    w, ww = total["weight"], total["weight_squares"]
    mean = total["first"] / w
    q = np.maximum(total["second"] - w * mean**2, 0.0)
    tau2 = np.maximum(0.0, (q - (k - 1)) / (w - ww / w))
    error = np.sqrt(w + tau2 * ww) / w
    ahead = t_isf((1 - level) / 2, k - 2) * np.sqrt(tau2 + error**2)
    i2 = np.where(q > 0, np.maximum(0.0, 1 - (k - 1) / np.where(q > 0, q, 1.0)), 0.0)
    prediction = np.stack([mean - ahead, mean + ahead], axis=1) + 0.5
    return Heterogeneity(k, mean + 0.5, error, tau2, q, i2, prediction)
