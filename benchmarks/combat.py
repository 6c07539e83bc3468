"""What ComBat costs a federation, and what it does to a survival model.

First a made federation of five sites of 278, 142, 82, 102 and 30 patients with 4,096 features and three covariates:
rounds, bytes up per site, and the seconds of fitting and applying it at all sites in this process (messages encoded,
decoded and added) beside neuroCombat 0.2.12 on the pooled rows. Then two public NSCLC cohorts: a ridge Cox model
learned on all scanner batches but one and judged on that one by Harrell's C, with and without ComBat, as found.

    .venv/bin/python benchmarks/combat.py
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from neuroCombat import neuroCombat
from survival_data import folder
from threadpoolctl import threadpool_limits

from ctfed.federation import Cohort, Feature, FloatArray, View, run_pooled
from ctfed.federation.algorithm import Algorithm
from ctfed.federation.pooled import Traffic
from ctfed.statistics.combat import CombatOptions, Covariate, Harmonized, combat, restandardise
from ctfed.statistics.concordance import within_site_concordance
from ctfed.statistics.cox import ElasticNet, fit_cox
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.standardise import standardise

SIZES = (278, 142, 82, 102, 30)
FEATURES, COVARIATES = 4096, 3
MOST_KILOBYTES = 500
PEER_FEATURES = 1024  # of the non-parametric comparison: neuroCombat takes minutes at 4,096
PENALIZER = 0.1  # of the ridge Cox models: chosen beforehand, the same everywhere


def made(p: int) -> tuple[list[Cohort], FloatArray, np.ndarray, FloatArray]:
    """Cohorts, and the same as (n, p) features, (n,) sites and (n, q) 0/1 covariates: neuroCombat rounds others."""
    rng = np.random.default_rng(0)
    n = sum(SIZES)
    site = np.repeat(np.arange(len(SIZES)), SIZES)
    x = (rng.random((n, COVARIATES)) < rng.uniform(0.2, 0.8, (len(SIZES), COVARIATES))[site]).astype(float)
    y = rng.normal(size=(n, p)) * np.sqrt(rng.gamma(9, 1 / 9, (len(SIZES), p)))[site]
    y += 0.5 * rng.normal(size=(len(SIZES), p))[site] + x @ (0.3 * rng.normal(size=(COVARIATES, p)))
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    cohorts = []
    for k in range(len(SIZES)):
        rows = site == k
        columns = {f"f{j}": y[rows, j] for j in range(p)} | {f"x{j}": x[rows, j] for j in range(COVARIATES)}
        cohorts.append(Cohort.of(f"site-{k}", columns, np.ones(rows.sum()), np.zeros(rows.sum())))
    return cohorts, y, site, x


def federated(cohorts: list[Cohort], p: int, prior: str, traffic: Traffic) -> FloatArray:
    """(n, p) harmonized at all sites."""
    names = [f"f{j}" for j in range(p)]
    covariates = [Covariate(f"x{j}") for j in range(COVARIATES)]
    view = View(tuple(Feature(name) for name in (*names, *(one.name for one in covariates))))
    found = run_pooled(combat(view, names, covariates, CombatOptions(prior)), cohorts, traffic)
    return np.concatenate([found.view.table(cohort).values[:, :p] for cohort in cohorts])


def pooled(y: FloatArray, site: np.ndarray, x: FloatArray, prior: str) -> FloatArray:
    """(n, p) by neuroCombat, which needs all rows in one place."""
    covariates = pd.DataFrame({"site": site} | {f"x{j}": x[:, j] for j in range(COVARIATES)})
    with contextlib.redirect_stdout(io.StringIO()):
        result = neuroCombat(
            y.T.copy(), covariates, "site", [f"x{j}" for j in range(COVARIATES)], parametric=prior == "parametric"
        )
    return np.asarray(result["data"]).T


def timed(work: Callable[[], FloatArray]) -> tuple[float, FloatArray]:
    """Seconds of the second of two runs, and its result."""
    work()
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def cost() -> bool:
    """Print rounds, bytes and seconds; whether the targets are met."""
    print(f"ComBat with {COVARIATES} covariates over sites of {', '.join(map(str, SIZES))} patients")
    heads = ("features", "rounds", "kB up/site", "federated s", "neuroCombat s", "differ")
    print(f"{'prior':14}" + "".join(f"{head:>15}" for head in heads))
    met = True
    for prior, p, peer in (
        ("parametric", FEATURES, True),
        ("nonparametric", PEER_FEATURES, True),
        ("nonparametric", FEATURES, False),
    ):
        cohorts, y, site, x = made(p)
        traffic = Traffic()

        def ours_once(cohorts=cohorts, p=p, prior=prior, traffic=traffic) -> FloatArray:  # type: ignore[no-untyped-def]
            fresh = [cohort.subset(cohort.time > 0) for cohort in cohorts]  # without what was cached before
            return federated(fresh, p, prior, traffic)

        seconds, ours = timed(ours_once)
        rounds, kilobytes = traffic.rounds // 2, traffic.bytes_up / 2 / 1000
        line = f"{prior:14}{p:15}{rounds:15}{kilobytes:15.0f}{seconds:15.2f}"
        if peer:
            theirs_s, theirs = timed(lambda y=y, site=site, x=x, prior=prior: pooled(y, site, x, prior))
            line += f"{theirs_s:15.2f}{np.abs(ours - theirs).max():15.0e}"
        print(line)
        met = met and rounds == 1 and (p < FEATURES or kilobytes <= MOST_KILOBYTES)
    print(f"target: 1 round, at most {MOST_KILOBYTES} kB up per site before masking: {'met' if met else 'MISSED'}\n")
    return met


@dataclass(frozen=True)
class Survival:
    """A public cohort: (n, p) features, (n,) batches, follow-up; ``covariates`` are 0/1 columns."""

    name: str
    features: pd.DataFrame
    covariates: pd.DataFrame
    batch: np.ndarray
    time: np.ndarray
    event: np.ndarray

    def sites(self, left_out: str) -> list[Cohort]:
        """Each batch a site; the one left out has test rows alone."""
        both = pd.concat([self.features, self.covariates], axis=1)
        columns = {name: values.to_numpy(dtype=float) for name, values in both.items()}
        whole = Cohort.of(
            "all",
            columns,
            self.time,
            self.event,
            stratum=self.batch,
            batch=self.batch,
            split=np.where(self.batch == left_out, "test", "train"),
        )
        return [whole.subset(self.batch == label, label) for label in np.unique(self.batch)]


def radiogenomics() -> Survival:
    """TCIA NSCLC Radiogenomics: 158 patients, 102 CaPTk features, four scanner batches, 33 deaths."""
    place = folder().parent / "harmonization" / "nsclc_radiogenomics_captk" / "oracle"
    features = pd.read_csv(place / "features.csv", index_col=0)
    table = pd.read_csv(place / "covariates.csv", index_col=0).loc[features.index]
    covariates = pd.DataFrame({"sex": table["sex"], "smoker": table["smoking"] > 0}).astype(float)
    days, died = table["days"].to_numpy(), table["event"].to_numpy()
    return Survival(
        "radiogenomics",
        features,
        covariates,
        table["batch"].to_numpy(),
        days,
        died,
    )


def lung1() -> Survival:
    """TCIA NSCLC-Radiomics (LUNG1): 421 patients, 190 PyRadiomics features, two sources of planning scans."""
    table = pd.read_csv(folder().parent / "radiomics" / "lung1_pyradiomics_clinical_manufacturer.csv")
    source = np.where(table["manufacturer"].str.contains("SIEMENS"), "SIEMENS", "CMS or none")
    covariates = pd.DataFrame({"male": table["gender"] == "male", "old": table["age"] > 68}).astype(float)
    features = table[[name for name in table if name.startswith(("original_", "wavelet-"))]]
    return Survival(
        "LUNG1", features, covariates, source, table["Survival.time"].to_numpy(), table["deadstatus.event"].to_numpy()
    )


def model(view: View, data: Survival, prior: str | None) -> Algorithm[View]:
    """Standardise, harmonize or not, fit a ridge Cox model on the training rows; the view of its risk scores."""
    steps = yield from standardise(view)
    chosen = steps.view
    if prior is not None:
        covariates = [Covariate(name) for name in data.covariates]  # numbers, as standardisation has made of them
        found: Harmonized = yield from combat(chosen, tuple(data.features), covariates, CombatOptions(prior))
        again = yield from restandardise(found)
        chosen = again.view
    fit = yield from fit_cox(chosen, ElasticNet(PENALIZER, 0.0))
    return chosen.then(LinearPredictor(fit.coefficients[None]))


def survival(data: Survival) -> None:
    """Print C on each batch left out, without and with ComBat."""
    print(f"{data.name}: {data.event.size} patients, {int(data.event.sum())} deaths, {data.features.shape[1]} features")
    print(f"ridge Cox (penalizer {PENALIZER}) on the other batches; Harrell's C (95 % interval) on the one left out")
    labels = {"as they are": None, "ComBat": "parametric", "ComBat, no prior": "none"}
    print(f"{'left out':14}{'patients':>9}{'deaths':>8}" + "".join(f"{label:>24}" for label in labels))
    magnitude = {name: int(np.frexp(np.abs(values).max())[1]) for name, values in data.features.items()}
    view = View(tuple(Feature(name, magnitude.get(name, 0)) for name in (*data.features, *data.covariates)))
    for left_out in np.unique(data.batch):
        sites, cells = data.sites(left_out), []
        for prior in labels.values():
            scores = run_pooled(model(view, data, prior), sites)
            found = run_pooled(within_site_concordance(scores.test()), sites)
            low, high = found.intervals()[0]
            cells.append(f"{found.value[0]:.3f} ({low:.3f} to {high:.3f})")
        own = data.batch == left_out
        print(f"{left_out:14}{own.sum():9}{int(data.event[own].sum()):8}" + "".join(f"{cell:>24}" for cell in cells))
    print()


def main() -> None:
    """Everything; exit code 1 when a target is missed."""
    met = cost()
    for data in (radiogenomics(), lung1()):
        survival(data)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    warnings.simplefilter("ignore", RuntimeWarning)
    with threadpool_limits(1):
        main()
