"""Survival data for the Cox tests, and a partial likelihood that is slow and obviously right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from ctfed.federation import Cohort, Feature, FloatArray, View
from ctfed.statistics.cox import ElasticNet


@dataclass(frozen=True)
class Survival:
    """Right-censored data. ``x``: (n, p); ``time``, ``event``, ``stratum``: (n,)."""

    names: tuple[str, ...]
    x: FloatArray
    time: FloatArray
    event: np.ndarray
    stratum: np.ndarray

    @classmethod
    def of(cls, x: FloatArray, time: Any, event: Any, names: Sequence[str] = (), stratum: Any = None) -> Survival:
        """One stratum and features x0, x1, ... unless told otherwise."""
        n, p = x.shape
        return cls(
            tuple(names) or tuple(f"x{j}" for j in range(p)),
            np.asarray(x, dtype=np.float64),
            np.asarray(time, dtype=np.float64),
            np.asarray(event, dtype=bool),
            np.full(n, "all") if stratum is None else np.asarray(stratum).astype(str),
        )

    def standardised(self) -> Survival:
        """Features with mean 0 and standard deviation 1 (dividing by n)."""
        return replace(self, x=(self.x - self.x.mean(axis=0)) / self.x.std(axis=0))

    def rows(self, chosen: np.ndarray) -> Survival:
        """Some patients, or all of them in another order."""
        return Survival(self.names, self.x[chosen], self.time[chosen], self.event[chosen], self.stratum[chosen])

    def cohort(self) -> Cohort:
        """All patients at one site."""
        columns = dict(zip(self.names, self.x.T, strict=True))
        return Cohort.of("pooled", columns, self.time, self.event, stratum=self.stratum)

    def over(self, assignment: np.ndarray) -> list[Cohort]:
        """The patients at sites 0 ... max(assignment); some may hold nobody. Strata are kept."""
        whole = self.cohort()
        return [whole.subset(assignment == k, f"site-{k}") for k in range(int(assignment.max(initial=0)) + 1)]

    def spread(self, sites: int, seed: int = 0) -> list[Cohort]:
        """The patients dealt at random to some sites."""
        return self.over(np.random.default_rng(seed).permutation(self.time.size) % sites)

    def view(self, exponents: Sequence[int] | None = None) -> View:
        """All features."""
        scales = [0] * len(self.names) if exponents is None else [int(e) for e in exponents]
        return View(tuple(Feature(name, scale) for name, scale in zip(self.names, scales, strict=True)))


def reference(folder: Path) -> dict[str, Any]:
    """The stored reference fits."""
    loaded: dict[str, Any] = json.loads((folder / "survival" / "reference_results.json").read_text())
    return loaded


def load(folder: Path, case: str, names: Sequence[str]) -> Survival:
    """The data of one stored reference case, restricted to the features it was fitted on."""
    name, time, event = {
        "ncctg": ("ncctg_lung.csv", "time", "dead"),
        "rossi": ("rossi.csv", "week", "arrest"),
        "nsclc": ("nsclc_geo_7centres.csv", "time_months", "event"),
        "lung1": ("lung1_clinical_plus_pyradiomics.csv", "Survival.time", "deadstatus.event"),
    }[case.split("_")[0]]
    frame = pd.read_csv(folder / "survival" / name)
    stratum = None
    if name == "ncctg_lung.csv":
        frame = frame.assign(dead=frame.status - 1).dropna(subset=["ph.ecog"])
        if case == "ncctg_lung_age_sex_ecog":  # the fits by centre need to know the centre
            frame = frame.dropna(subset=["inst"])
            stratum = frame.inst
    if name == "nsclc_geo_7centres.csv":
        frame = frame[frame.stage.notna() & (frame.time_months > 0)]
        stratum = frame.centre
    x = frame[list(names)].to_numpy(dtype=np.float64)
    return Survival.of(x, frame[time], frame[event], names, stratum)


def cox_example(folder: Path) -> Survival:
    """glmnet's CoxExample: 1000 patients, 30 features."""
    frame = pd.read_csv(folder / "survival" / "glmnet" / "cox-example.csv")
    names = [f"X{j}" for j in range(1, 31)]
    return Survival.of(frame[names].to_numpy(dtype=np.float64), frame["time"], frame["status"], names)


def glmnet_path(folder: Path, name: str) -> FloatArray:
    """glmnet's coefficients, (path, p)."""
    frame = pd.read_csv(folder / "survival" / "glmnet" / f"{name}.csv")
    return np.asarray(frame.to_numpy(dtype=np.float64).T)


def simulate(seed: int, n: int, p: int, *, strata: int = 1, ties: int = 20, events: float = 0.7) -> Survival:
    """Correlated standard features, exponential times rounded up to about ``ties`` distinct values, random strata."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) + 0.5 * rng.normal(size=(n, 1))
    effect = rng.normal(size=p) * (rng.random(p) < 0.5) / np.sqrt(p)
    time = rng.exponential(np.exp(-x @ effect))
    width = max(float(np.quantile(time, 0.9)), 1e-3) / ties
    stratum = rng.integers(0, strata, n)
    return Survival.of(x, np.ceil(time / width) * width, rng.random(n) < events, stratum=stratum)


@st.composite
def survivals(draw: st.DrawFn, *, max_patients: int = 60, max_features: int = 4, max_strata: int = 4) -> Survival:
    """Small data sets with at least one event that are not far from anything that can go wrong: heavy ties, strata
    without events, strata of one patient."""
    seed = draw(st.integers(0, 2**32 - 1))
    n = draw(st.integers(8, max_patients))
    p = draw(st.integers(1, max_features))
    strata = draw(st.integers(1, max_strata))
    data = simulate(
        seed, n, p, strata=strata, ties=draw(st.sampled_from([1, 3, 10, 1000])), events=draw(st.floats(0.2, 1.0))
    )
    event = data.event.copy()
    if draw(st.booleans()) and strata > 1:
        event[data.stratum == "0"] = False
    event[draw(st.integers(0, n - 1))] = True
    return replace(data, event=event)


def partial_likelihood(data: Survival, beta: FloatArray, ties: str) -> tuple[float, FloatArray, FloatArray]:
    """Log partial likelihood, gradient and negative Hessian from the textbook's sums, one event time after another."""
    risk = np.exp(data.x @ beta)
    loglik, gradient, information = 0.0, np.zeros(beta.size), np.zeros((beta.size, beta.size))
    for label in np.unique(data.stratum):
        mine = data.stratum == label
        for time in np.unique(data.time[mine & data.event]):
            at_risk = mine & (data.time >= time)
            dying = mine & data.event & (data.time == time)
            deaths = int(dying.sum())
            loglik += float((data.x[dying] @ beta).sum())
            gradient += data.x[dying].sum(axis=0)
            for place in range(deaths):
                share = place / deaths if ties == "efron" else 0.0
                weight = risk * at_risk - share * risk * dying
                s0, s1 = weight.sum(), weight @ data.x
                s2 = (data.x * weight[:, None]).T @ data.x
                loglik -= float(np.log(s0))
                gradient -= s1 / s0
                information += s2 / s0 - np.outer(s1, s1) / s0**2
    return loglik, gradient, information


def unit_of(data: Survival, ties: str) -> FloatArray:
    """(p,) root of the mean variance of each feature within risk sets, rounded to a power of two."""
    _, _, information = partial_likelihood(data, np.zeros(data.x.shape[1]), ties)
    variance = np.diag(information) / data.event.sum()
    return np.asarray(np.exp2(np.rint(0.5 * np.log2(np.where(variance > 1e-14, variance, 1.0)))))


def kkt_residual(data: Survival, beta: FloatArray, penalty: ElasticNet, ties: str) -> float:
    """Largest violation of the optimality conditions of the elastic net, per patient and unit of each feature."""
    n, p = data.x.shape
    unit = unit_of(data, ties)
    _, gradient, _ = partial_likelihood(data, beta, ties)
    factors = penalty.factors or (1.0,) * p
    worst = 0.0
    for j in range(p):
        l1 = penalty.penalizer * penalty.l1_ratio * factors[j]
        l2 = penalty.penalizer * (1 - penalty.l1_ratio) * factors[j]
        slope = -gradient[j] / n + l2 * beta[j]
        violation = max(abs(slope) - l1, 0.0) if beta[j] == 0 else abs(slope + l1 * np.sign(beta[j]))
        worst = max(worst, float(violation / unit[j]))
    return worst
