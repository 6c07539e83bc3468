"""Patients with a nominal variable: histology in four codes, of which the last is rare, and the studies about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ctfed.federation import Cohort, FloatArray
from ctfed.study import Study

SITES = ("east", "north", "south", "west")
LEVELS = {1: "adenocarcinoma", 2: "squamous", 3: "large cell", 7: "other"}
HISTOLOGY: dict[str, Any] = {"type": "nominal", "levels": LEVELS, "impute": "mode", "label": "Histology"}
FOLDS = 3
MIN_CELL = 5
RARE = 2  # training patients with the last code, at the first sites


def content(**changes: Any) -> dict[str, Any]:
    """A study of one model."""
    found: dict[str, Any] = {
        "ctfed_study": 1,
        "name": "nominal",
        "title": "A study with a nominal variable",
        "endpoint": {"name": "overall survival", "time_unit": "months"},
        "variables": {
            "age": {"type": "continuous", "range": (20, 110), "impute": "median"},
            "histology": HISTOLOGY,
            "female": {"type": "binary", "range": (0, 1), "impute": "none"},
        },
        "model": {"features": ("age", "histology", "female")},
        "penalty": {"penalizer": 0.05, "l1_ratio": 0.3},
        "split": {"test_fraction": 0.3},
        "evaluation": {"horizons": (12, 24), "time_bin": 1, "score_bins": 4, "min_cell": MIN_CELL, "bootstrap": 10},
        "time_grid": {"width": 1, "end": 36},
    }
    return found | changes


def study(**changes: Any) -> Study:
    return Study.model_validate(content(**changes))


def cohorts(
    sizes: tuple[int, ...] = (90, 80, 70, 60), seed: int = 0, missing: float = 0.08, folds: int = 1
) -> list[Cohort]:
    """Squamous and large cell carcinomas kill sooner; splits and folds are drawn at random."""
    rng = np.random.default_rng(seed)
    found = []
    for site, n in zip(SITES, sizes, strict=True):
        age, female = np.round(rng.normal(65, 9, n)), (rng.random(n) < 0.4).astype(float)
        histology = rng.choice([1.0, 2.0, 3.0], n, p=(0.45, 0.3, 0.25))
        eta = 0.03 * (age - 65) + 0.6 * (histology == 2) + 0.9 * (histology == 3) - 0.3 * female
        death, censoring = rng.exponential(20 * np.exp(-eta)), rng.exponential(40, n)
        histology[rng.random(n) < missing] = np.nan
        age[rng.random(n) < missing] = np.nan
        split = np.where(rng.random(n) < 0.3, "test", "train")
        if site in SITES[:RARE]:
            histology[np.argmax(split == "train")] = 7.0
        found.append(
            Cohort.of(
                site,
                {"age": age, "histology": histology, "female": female},
                np.round(np.minimum(death, censoring), 1) + 0.1,
                death <= censoring,
                split=split,
                fold=np.where(split == "test", -1, rng.integers(0, folds, n)),
                pseudonym=np.array([f"{site}-{row}" for row in range(n)]),
            )
        )
    return found


def with_column(cohort: Cohort, columns: Mapping[str, FloatArray]) -> Cohort:
    """The same patients with some columns replaced or added."""
    return replace(cohort, columns={**cohort.columns, **columns}, _cache={})
