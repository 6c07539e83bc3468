"""A small study of many models, and cohorts with a planted signal that the sites' scanners hide."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctfed.federation import Cohort
from ctfed.study import Study

SITES = ("angers", "bologna", "cork", "delft")
SIZES = (120, 90, 80, 70)
TEXTURE = tuple(f"t{i}" for i in range(12))
WIDE = tuple(f"w{i:02d}" for i in range(40))
FOLDS = 3


def content(**changes: Any) -> dict[str, Any]:
    """The study file."""
    found: dict[str, Any] = {
        "ctfed_study": 1,
        "name": "many",
        "title": "A small study of many models",
        "endpoint": {"name": "overall survival", "time_unit": "months"},
        "variables": {
            "age": {"type": "continuous", "unit": "years", "range": (20, 110), "impute": "median"},
            "sex": {"type": "binary", "range": (0, 1), "impute": "mode"},
            "stage": {
                "type": "ordinal",
                "range": (1, 4),
                "levels": {1: "I", 2: "II", 3: "III", 4: "IV"},
                "impute": "mode",
                "missing_indicator": True,
            },
        },
        "groups": {
            "clinical": {"variables": ("age", "sex", "stage")},
            "texture": {"columns": TEXTURE, "magnitude": 4},
            "wide": {"columns": WIDE, "magnitude": 4, "projection": {"components": (2, 4)}},
        },
        "models": {
            "clinical": {"table": "3", "groups": ("clinical",), "label": "Clinical model"},
            "late-stage": {
                "table": "3",
                "groups": ("clinical",),
                "without": ("stage",),
                "subgroup": {"variable": "stage", "low": 3, "high": 4},
            },
            "texture": {"table": "4", "groups": ("texture",)},
            "texture-combat": {"table": "6", "groups": ("texture",), "combat": ("texture",)},
            "wide-combat": {"table": "6", "groups": ("wide",), "combat": ("wide",)},
            "clinical-texture-combat": {"table": "7", "groups": ("clinical", "texture"), "combat": ("texture",)},
        },
        "search": {"trials": 6, "batch": 3, "startup": 3, "folds": FOLDS, "penalizer": (0.003, 0.3)},
        "ensembles": {"both": {"table": "8", "models": ("texture-combat", "wide-combat")}},
        "consensus": {"models": ("clinical", "texture-combat"), "table": "9"},
        "split": {"column": "split"},
        "evaluation": {"horizons": (12, 24), "time_bin": 1, "score_bins": 4, "min_cell": 5, "bootstrap": 50},
        "time_grid": {"width": 1, "end": 36},
    }
    return found | changes


def study(**changes: Any) -> Study:
    return Study.model_validate(content(**changes))


def cohorts(sizes: tuple[int, ...] = SIZES, seed: int = 0, shift: float = 3.0) -> list[Cohort]:
    """Texture t0 carries the risk; a site's scanner shifts and stretches all texture, and sicker sites read lower."""
    rng = np.random.default_rng(seed)
    found = []
    for k, (site, n) in enumerate(zip(SITES, sizes, strict=False)):
        latent = rng.normal(size=(n, 3))
        texture = latent @ rng.normal(size=(3, len(TEXTURE))) * 0.2 + rng.normal(size=(n, len(TEXTURE)))
        texture[:, 1] = texture[:, 0] * 0.98 + 0.1 * rng.normal(size=n)  # says the same as t0
        wide = latent @ rng.normal(size=(3, len(WIDE))) + 0.5 * rng.normal(size=(n, len(WIDE)))
        age, sex = np.round(rng.normal(65, 9, n)), (rng.random(n) < 0.4).astype(float)
        stage = rng.integers(1, 5, n).astype(float)
        eta = 0.9 * texture[:, 0] + 0.4 * latent[:, 0] + 0.3 * (stage - 2.5) + 0.02 * (age - 65) + 0.5 * k
        death, censoring = rng.exponential(18 * np.exp(-eta)), rng.exponential(40, n)
        stage[rng.random(n) < 0.15] = np.nan
        texture[:, 3][rng.random(n) < 0.1] = np.nan
        scale, offset = 1 + 0.25 * k, -shift * k
        columns = {"age": age, "sex": sex, "stage": stage}
        columns |= {name: texture[:, j] * scale + offset for j, name in enumerate(TEXTURE)}
        columns |= {name: wide[:, j] * scale + offset for j, name in enumerate(WIDE)}
        split = np.where(rng.random(n) < 0.3, "test", "train")
        fold = np.where(split == "test", -1, rng.integers(0, FOLDS, n))
        keys = np.array([f"{site}-{row}" for row in range(n)])
        time = np.round(np.minimum(death, censoring), 2) + 0.01
        found.append(Cohort.of(site, columns, time, death <= censoring, split=split, fold=fold, pseudonym=keys))
    return found
