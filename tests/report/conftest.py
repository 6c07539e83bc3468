"""A small result of every kind, as a study would leave it."""

from __future__ import annotations

from typing import Any

import pytest


def _coefficient(feature: str, coef_per_sd: float, ratio: float, **inference: float) -> dict[str, Any]:
    names = ("lower", "upper", "se", "z", "p")
    nothing = dict.fromkeys([*names, *(f"robust_{name}" for name in names)])
    return {"feature": feature, "coef": coef_per_sd / 8, "coef_per_sd": coef_per_sd, "hazard_ratio": ratio} | (
        nothing | inference
    )


def _group(name: str, survival: list[float]) -> dict[str, Any]:
    return {
        "name": name,
        "patients": 34,
        "events": 22,
        "time": [0.0, 180.0, 360.0],
        "survival": survival,
        "lower": [1.0, survival[1] - 0.2, None],
        "upper": [1.0, survival[1] + 0.1, None],
        "at_risk": [{"time": 0.0, "count": 34}, {"time": 360.0, "count": None}],
    }


@pytest.fixture
def results() -> dict[str, Any]:
    """Every section of a results mapping, filled."""
    return {
        "study": {
            "name": "lung",
            "title": "Lung cancer",
            "sha256": "ab" * 32,
            "endpoint": {"name": "overall survival", "time_unit": "days"},
        },
        "run": {
            "ctfed_version": "0.1.0",
            "runner": "flower-simulation",
            "masked": False,
            "seconds": 41.7,
            "rounds": 2,
            "bytes_up_per_site": 81_300,
            "bytes_down_per_site": 1_900,
            "versions": {"python": "3.11.2", "numpy": "2.4.6"},
            "started": "2026-01-15T09:30:00+00:00",
        },
        "sites": {"names": ["a", "b", "c"], "count": 3, "notes": ["small institutions were merged into one site"]},
        "cohort": {
            "splits": [
                {"split": "train", "patients": 160, "events": 115},
                {"split": "test", "patients": 68, "events": 50},
            ],
            "features": [
                {"feature": "age", "missing": 0, "imputed_with": None, "method": "none", "mean": 62.4, "sd": 9.1},
                {"feature": "sex", "missing": 2, "imputed_with": 1.0, "method": "mode", "mean": 1.4, "sd": 0.5},
            ],
        },
        "tuning": {
            "folds": 5,
            "score": "Harrell's C over within-site pairs, held out",
            "l1_ratio": 0.5,
            "trials": [
                {"penalizer": 0.01, "l1_ratio": 0.5, "score": 0.64, "score_se": 0.03, "nonzero": 2},
                {"penalizer": 0.1, "l1_ratio": 0.5, "score": 0.66, "score_se": 0.02, "nonzero": 1.4},
                {"penalizer": 1.0, "l1_ratio": 0.5, "score": None, "score_se": None, "nonzero": 0},
            ],
            "best": 1,
            "rule": "highest mean held-out score",
        },
        "model": {
            "penalizer": 0.1,
            "l1_ratio": 0.5,
            "ties": "efron",
            "risk_sets": "stratified",
            "kkt_residual": 3.2e-11,
            "rounds": 6,
            "patients": 160,
            "events": 115,
            "coefficients": [_coefficient("age", 0.0, 1.0), _coefficient("sex", -0.24, 0.787)],
            "unpenalised": [
                _coefficient(
                    "age",
                    0.1,
                    1.105,
                    lower=0.9,
                    upper=1.36,
                    se=0.105,
                    z=0.95,
                    p=0.342,
                    robust_lower=0.88,
                    robust_upper=1.38,
                    robust_se=0.114,
                    robust_z=0.88,
                    robust_p=0.38,
                ),
                _coefficient(
                    "sex",
                    -0.36,
                    0.698,
                    lower=0.57,
                    upper=0.86,
                    se=0.105,
                    z=-3.43,
                    p=0.0006,
                    robust_lower=0.58,
                    robust_upper=0.84,
                    robust_se=0.096,
                    robust_z=-3.75,
                    robust_p=0.0002,
                ),
            ],
            "warnings": [],
        },
        "baseline": {"time": [30.0, 60.0], "cumulative_hazard": [0.1, 0.25], "survival": [0.905, 0.779]},
        "curves": {
            "groups": [_group("lower risk", [1.0, 0.8, 0.6]), _group("higher risk", [1.0, 0.5, 0.3])],
            "logrank": {"chi2": 4.78, "df": 1, "p": 0.029},
            "hazard_ratio": {"hr": 1.94, "lower": 1.06, "upper": 3.55, "p": 0.032},
            "threshold": 0.09657,
            "split": "test",
            "note": "The threshold is the training median.",
        },
        "discrimination": {
            "split": "test",
            "c_within": {"value": 0.632, "lower": 0.554, "upper": 0.71, "pairs": 209},
            "c_pooled": {
                "value": 0.631,
                "lower": 0.57,
                "upper": 0.69,
                "bound_lower": 0.597,
                "bound_upper": 0.663,
                "time_bins": 12,
                "score_bins": 10,
            },
            "auc": [{"horizon": 365.0, "auc": 0.64, "lower": 0.52, "upper": 0.76}],
            "interval": "percentiles of 1,000 bootstrap replicates",
        },
        "rounds": [
            {"round": 1, "queries": ["Counts"], "bytes_down": 900, "bytes_up": 1_300, "seconds": 0.2},
            {
                "round": 2,
                "queries": ["CoxDerivatives x 5", "PairCounts x 1"],
                "bytes_down": 1_000,
                "bytes_up": 80_000,
                "seconds": 1.4,
            },
        ],
    }
