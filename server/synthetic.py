"""Invented patients with the shape of a study: columns, ranges, levels, missing values, follow-up. Nobody's data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.census import MISSING
from ctfed.federation.cohort import Cohort
from ctfed.federation.nominal import indicator_name
from ctfed.study import Study, Variable

MISSING_SHARE = 0.1
EFFECT = 0.25  # log hazard ratio per standard deviation of the first columns
MOST_PROGNOSTIC = 5
GROUP_EFFECT = 0.3  # log hazard ratio per standard deviation of each group of features
RARE = 2  # patients of each site's first that carry a rare feature; of the first site alone


def synthetic_cohorts(
    study: Study, sites: int, patients: int, seed: int, rare: frozenset[str] = frozenset()
) -> tuple[Cohort, ...]:
    """Cohorts of ``sites`` sites with ``patients`` patients each; the same for the same arguments.

    Args:
        seed: other seeds give other values, other commonest levels and other times.
        rare: two-valued features ('NAME', or 'NAME missing') that hardly anybody has, and levels of nominal ones
            ('NAME=level') that nobody is at.
    """
    rng = np.random.default_rng([seed, 20])
    return tuple(_cohort(study, f"site-{index:02d}", patients, rng, seed, rare, index) for index in range(sites))


def shortened(study: Study, batches: int) -> Study:
    """The study with so many batches of its search at most; one without a search as it is."""
    if study.search is None:
        return study
    trials = min(study.search.trials, batches * study.search.batch)
    return study.model_copy(update={"search": study.search.model_copy(update={"trials": trials})})


def with_effects(study: Study, cohort: Cohort) -> Cohort:
    """The same patients, whose lives depend on every group of features: a model without an effect has no score."""
    risk = np.zeros(cohort.patients)
    for name in study.groups:
        values = np.stack([cohort.columns[column] for column in study.names_of(name)], axis=1)
        values = np.where(np.isnan(values), 0.0, values)
        spread = values.std(axis=0)
        sums = ((values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).sum(axis=1)
        risk += GROUP_EFFECT * sums / max(float(sums.std()), 1e-300)
    return replace(cohort, time=cohort.time * np.exp(-risk), _cache={})


def _cohort(
    study: Study, site: str, n: int, rng: np.random.Generator, seed: int, rare: frozenset[str], index: int
) -> Cohort:
    columns: dict[str, FloatArray] = {}
    risk = np.zeros(n)
    for place, name in enumerate(study.used):
        variable = study.columns[name]
        few = np.arange(n) < (RARE if index == 0 else 0)
        levels = [level for level in variable.possible_levels if indicator_name(name, level) not in rare]
        values = few.astype(np.float64) if name in rare else _values(variable, levels, n, rng, seed)
        if place < MOST_PROGNOSTIC:
            spread = values.std()
            risk += EFFECT * (values - values.mean()) / (spread if spread > 0 else 1.0)
        if variable.impute != "none" and name not in rare:
            gone = few if f"{name}{MISSING}" in rare else rng.random(n) < MISSING_SHARE * (1 + seed / 4)
            values = np.where(gone, np.nan, values)
        columns[name] = values
    last = max(study.evaluation.horizons)
    death = rng.exponential(last * (0.5 + 0.1 * seed), n) * np.exp(-risk)
    censored = rng.uniform(0.2, 1.5 + 0.2 * seed, n) * last
    test = rng.random(n) < (study.split.test_fraction or 0.3)
    return Cohort.of(
        site,
        columns,
        np.maximum(np.minimum(death, censored), last / 1000),
        death <= censored,
        batch=np.full(n, site),
        split=np.where(test, "test", "train"),
        fold=np.where(test, -1, rng.integers(0, study.folds, n)),
    )


def _values(variable: Variable, levels: list[float], n: int, rng: np.random.Generator, seed: int) -> FloatArray:
    """(n,) values among the levels, or inside the dictionary's range; the commonest level is another for every seed."""
    low, high = variable.range
    if not levels and variable.type == "ordinal":
        levels = [float(level) for level in np.unique(np.round(np.linspace(low, high, 5)))]
    if levels:
        weight = np.ones(len(levels))
        weight[seed % len(levels)] += 0.5 * len(levels)
        return np.asarray(rng.choice(levels, n, p=weight / weight.sum()))
    if variable.magnitude is not None:
        return np.clip(rng.normal(0.1 * seed, 1.0, n) * variable.magnitude, low, high)
    return np.clip(rng.normal(low + (high - low) * (0.4 + 0.05 * seed), (high - low) / 8, n), low, high)
