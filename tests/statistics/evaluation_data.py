"""Cohorts with scores, and real centres, for the tests of evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ctfed.federation import Cohort, Feature, View
from ctfed.federation.arrays import frozen
from ctfed.statistics.horizons import FollowUp, follow_up_of
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.timegrid import TimeGrid

RAW = View((Feature("a", 4), Feature("b", 4)), split="all")
MODELS = np.array([[0.9, 0.0], [0.5, 0.6], [0.0, -1.0]])
SCORES = RAW.then(LinearPredictor(frozen(MODELS)))
HORIZONS = (1.0, 2.0)
HAZARD = np.array([[0.6, 1.1], [0.5, 1.3], [0.4, 0.9]])  # (models, horizons)
GRID = TimeGrid.regular(0.25, 6.0)
# A sum travels with 68 bits after the point, so a total differs from the pooled one by rounding of float64 sums alone.
SUM = 1e-12


def cohort_of(seed: int, n: int = 150, *, ties: bool = False, censored: float = 0.4) -> Cohort:
    """Survival that depends on two columns; with ``ties`` all of it on a coarse lattice."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    time = rng.exponential(1.6 * np.exp(-0.7 * a - 0.4 * b), n) + 0.01
    leave = rng.exponential(1.6 * (1 - censored) / censored, n) + 0.01
    event, time = time <= leave, np.minimum(time, leave)
    if ties:
        a, b, time = np.round(a * 2) / 2, np.round(b), np.ceil(time * 4) / 4
    return Cohort.of("s", {"a": a, "b": b}, time, event, split=np.where(np.arange(n) % 3 == 0, "test", "train"))


def split_over(cohort: Cohort, seed: int, sites: int) -> list[Cohort]:
    """Rows at random sites, of which some may hold nobody."""
    owner = np.random.default_rng(seed).integers(0, sites, cohort.patients)
    return [cohort.subset(owner == index, f"site-{index}") for index in range(sites)]


def exact_follow_up(cohort: Cohort, horizons: tuple[float, ...] = HORIZONS) -> FollowUp:
    """Phase one on the grid of all times: nothing is binned."""
    grid = TimeGrid(frozen(np.unique(np.concatenate([cohort.time, horizons]))))
    return followed_on(cohort, grid, horizons, 0)


def followed_on(cohort: Cohort, grid: TimeGrid, horizons: tuple[float, ...], minimum: int) -> FollowUp:
    """Phase one of one cohort, counted here."""
    place = grid.bin_of(cohort.time)
    counts = np.stack([np.bincount(place[rows], minlength=grid.bins) for rows in (cohort.event, ~cohort.event)], axis=1)
    return follow_up_of(counts.astype(np.float64), grid, horizons, minimum=minimum)


def seven_centres(shared_data: Path) -> tuple[list[Cohort], View, dict[str, Any]]:
    """GEO: seven real centres (1,306 patients), the view of their published score, and the reference results."""
    rows = pd.read_csv(shared_data / "survival" / "nsclc_geo_7centres.csv").dropna(subset=["stage"])
    rows = rows[rows.time_months > 0]
    reference = json.loads((shared_data / "survival" / "reference_results.json").read_text())
    cox = reference["nsclc_geo_7centres"]
    cohorts = [
        Cohort.of(str(name), {k: d[k] for k in cox["cols"]}, d.time_months, d.event)
        for name, d in rows.groupby("centre")
    ]
    view = View(tuple(Feature(name, 4) for name in cox["cols"]), split="all")
    beta = np.array(cox["coef_efron"])
    return cohorts, view.then(LinearPredictor(frozen([beta, beta * [1, 1, 0.5, 0], beta * [0, 0, 1, 0]]))), reference
