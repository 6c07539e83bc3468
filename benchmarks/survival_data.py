"""The survival data that several benchmarks read, found by $CTFED_SHARED_DATA or beside the project's folder."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ctfed.federation import Cohort, Feature, FloatArray, View


@dataclass(frozen=True)
class Survival:
    """Right-censored data. ``x``: (n, p); ``time``, ``event``, ``centre``: (n,)."""

    names: tuple[str, ...]
    x: FloatArray
    time: FloatArray
    event: np.ndarray
    centre: np.ndarray

    @property
    def view(self) -> View:
        """All features."""
        return View(tuple(Feature(name) for name in self.names))

    def standardised(self) -> Survival:
        """Features with mean 0 and standard deviation 1 (dividing by n)."""
        x = (self.x - self.x.mean(axis=0)) / self.x.std(axis=0)
        return Survival(self.names, x, self.time, self.event, self.centre)

    def rows(self, chosen: np.ndarray) -> Survival:
        """Some patients."""
        return Survival(self.names, self.x[chosen], self.time[chosen], self.event[chosen], self.centre[chosen])

    def sites(self, place: np.ndarray, fold: np.ndarray | None = None) -> list[Cohort]:
        """The patients at sites 0 ... max(place), with their folds; each site is its own stratum."""
        columns = {name: self.x[:, j] for j, name in enumerate(self.names)}
        return [
            Cohort.of(
                f"site-{k}",
                {name: values[place == k] for name, values in columns.items()},
                self.time[place == k],
                self.event[place == k],
                fold=None if fold is None else fold[place == k],
            )
            for k in range(int(place.max()) + 1)
        ]

    def dealt(self, sites: int) -> list[Cohort]:
        """The patients dealt at random to some sites."""
        return self.sites(np.random.default_rng(0).permutation(self.time.size) % sites)


def folder() -> Path:
    """Where the reference data are; ends the script in words when they are not there."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    found = Path(os.environ.get("CTFED_SHARED_DATA", beside)) / "survival"
    if not found.is_dir():
        sys.exit(f"no reference data at {found}; set CTFED_SHARED_DATA to the folder that holds survival/")
    return found


def references() -> dict[str, Any]:
    """Stored fits of scikit-survival and lifelines at a tolerance of 1e-12."""
    loaded: dict[str, Any] = json.loads((folder() / "reference_results.json").read_text())
    return loaded


FILES = {  # file, time, event, centre
    "ncctg": ("ncctg_lung.csv", "time", "dead", "inst"),
    "ncctg_all": ("ncctg_lung.csv", "time", "dead", None),
    "rossi": ("rossi.csv", "week", "arrest", None),
    "geo": ("nsclc_geo_7centres.csv", "time_months", "event", "centre"),
    "lung1": ("lung1_clinical_plus_pyradiomics.csv", "Survival.time", "deadstatus.event", None),
    "coxexample": ("glmnet/cox-example.csv", "time", "status", None),
}


def load(name: str, columns: list[str] | None = None) -> Survival:
    """A data set by its short name; by default all features of CoxExample, or LUNG1's 90 radiomic ones."""
    file, time, event, centre = FILES[name]
    frame = pd.read_csv(folder() / file)
    if name in ("ncctg", "ncctg_all"):
        frame = frame.assign(dead=frame["status"] - 1).dropna(subset=["ph.ecog", *([centre] if centre else [])])
    if name == "geo":
        frame = frame[frame["stage"].notna() & (frame["time_months"] > 0)]
    if columns is None:
        columns = [c for c in frame.columns if "__" in c or (name == "coxexample" and c.startswith("X"))]
    place = frame[centre].astype(str).to_numpy() if centre else np.full(len(frame), "all")
    return Survival(
        tuple(columns),
        frame[columns].to_numpy(dtype=np.float64),
        frame[time].to_numpy(dtype=np.float64),
        frame[event].to_numpy().astype(bool),
        place,
    )


def generated(patients: int, features: int, seed: int = 0) -> Survival:
    """Correlated standardised features of which eight matter, exponential deaths, about a third censored."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(features) + 0.15 * rng.standard_normal((features, features))
    x = rng.standard_normal((patients, features)) @ mixing
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    beta = np.concatenate([rng.normal(0, 0.35, min(8, features)), np.zeros(max(0, features - 8))])
    death, censoring = rng.exponential(24 * np.exp(-x @ beta)), rng.exponential(40, patients)
    time = np.round(np.minimum(death, censoring), 2) + 0.01
    names = tuple(f"x{j}" for j in range(features))
    return Survival(names, x, time, death <= censoring, np.full(patients, "all"))
