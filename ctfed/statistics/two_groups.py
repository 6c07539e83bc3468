"""Comparisons of two groups from totals: t test, chi-square, Fisher's exact test, Mann-Whitney's rank sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray, IntArray
from ctfed.statistics.sections import SectionTable
from ctfed.statistics.tails import normal_sf, t_sf

SMALL_EXPECTED = 5.0  # an expected count below it makes Fisher's test the better one, of 2 x 2 tables


@dataclass(frozen=True)
class Comparison:
    """A test of two groups.

    Attributes:
        test: its name.
        statistic: t, chi-square, odds ratio or U of the first group.
        p: two-sided.
        p_low, p_high: within which the p-value of the patients' own values lies; equal to p where it is exact.
        degrees: of freedom, where the test has them.
        note: what a reader must know, '' for nothing.
    """

    test: str
    statistic: float
    p: float
    p_low: float
    p_high: float
    degrees: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Sample:
    """Size, mean and standard deviation (ddof 1) of one group."""

    count: int
    mean: float
    sd: float


def t_test(a: Sample, b: Sample, equal_variances: bool = False) -> Comparison | None:
    """Welch's t test, or Student's; exact, because it needs no more than means and variances.

    None where a group has fewer than two values or neither group varies.
    """
    if min(a.count, b.count) < 2 or (a.sd == 0 and b.sd == 0):
        return None
    va, vb = a.sd**2 / a.count, b.sd**2 / b.count
    if equal_variances:
        degrees = float(a.count + b.count - 2)
        pooled = ((a.count - 1) * a.sd**2 + (b.count - 1) * b.sd**2) / degrees
        error = np.sqrt(pooled * (1 / a.count + 1 / b.count))
    else:
        degrees = float((va + vb) ** 2 / (va**2 / (a.count - 1) + vb**2 / (b.count - 1)))
        error = np.sqrt(va + vb)
    t = float((a.mean - b.mean) / error)
    p = float(2 * t_sf(abs(t), degrees))
    return Comparison("Student's t test" if equal_variances else "Welch's t test", t, p, p, p, degrees)


def table_test(table: IntArray) -> Comparison | None:
    """Chi-square test of an (L, 2) table of counts, with Yates' correction when it is 2 x 2.

    A 2 x 2 table with an expected count below 5 is tested by Fisher's exact test. Empty levels are left out. None where
    fewer than two levels or a whole group is empty.
    """
    counts = table[table.sum(axis=1) > 0]
    if counts.shape[0] < 2 or (counts.sum(axis=0) == 0).any():
        return None
    from scipy import stats  # a second of imports, which sites have no use for

    found = stats.chi2_contingency(counts)
    expected = np.asarray(found.expected_freq, dtype=np.float64)
    few = int((expected < SMALL_EXPECTED).sum())
    if few and counts.shape == (2, 2):
        exact = stats.fisher_exact(counts)
        p = float(exact.pvalue)
        return Comparison("Fisher's exact test", float(exact.statistic), p, p, p)
    note = f"expected counts below {SMALL_EXPECTED:g} in {few} of {expected.size} cells" if few else ""
    p = float(found.pvalue)
    return Comparison("chi-square test", float(found.statistic), p, p, p, float(found.dof), note)


def rank_test(table: SectionTable) -> Comparison | None:
    """Mann-Whitney's U of the first of two groups, from the sections that both share.

    With a and b patients in a section, U = sum a (b below + b / 2). Inside a section the order is not known: the U of
    the patients' own values lies within sum a b / 2 of it (nothing for a section of a single value). The p-value is
    that of the normal approximation with tie and continuity correction (scipy's ``mannwhitneyu``, 'asymptotic');
    [p_low, p_high] holds the one of the patients' own values: from the U nearest to, and furthest from, its
    expectation, and from the widest and narrowest variance that ties inside the sections leave open.

    None where a group is empty or all values may be tied.
    """
    counts = np.array([section.counts for section in table.sections], dtype=np.float64)
    a, b = counts[:, 0], counts[:, 1]
    m, n = float(a.sum()), float(b.sum())
    if m == 0 or n == 0:
        return None
    below = np.cumsum(b) - b
    u = float((a * (below + b / 2)).sum())
    narrow = np.array([section.last - section.first == 1 for section in table.sections])
    tied = narrow if table.scale.step else np.zeros_like(narrow)
    doubt = float((a * b / 2)[~tied].sum())
    ties = (counts.sum(axis=1) ** 3 - counts.sum(axis=1)).astype(np.float64)
    widest, likely, narrowest = (_spread(m, n, ties[chosen]) for chosen in (tied, narrow, np.ones_like(narrow)))
    if likely == 0:
        return None
    distance = abs(u - m * n / 2)
    low = _two_sided(min(distance + doubt, m * n / 2), narrowest)
    high = _two_sided(max(distance - doubt, 0.0), widest)
    by_chance = 2 * float(np.sqrt((a * b * (a + b + 1) / 12)[~tied].sum()))
    note = (
        f"U of the patients' own values lies in [{u - doubt:.1f}, {u + doubt:.1f}], and within {by_chance:.1f} of the "
        "statistic with 95 % if the order inside the sections is random"
    )
    return Comparison("Mann-Whitney U test", u, _two_sided(distance, likely), low, high, None, note if doubt else "")


def _spread(m: float, n: float, ties: FloatArray) -> float:
    """Standard deviation of U with groups of ties, given as t^3 - t."""
    total = m + n
    return float(np.sqrt(max(m * n / 12 * (total + 1 - ties.sum() / (total * (total - 1))), 0.0)))


def _two_sided(distance: float, spread: float) -> float:
    if spread == 0:
        return 0.0 if distance > 0 else 1.0
    return float(min(1.0, 2 * float(normal_sf((distance - 0.5) / spread))))
