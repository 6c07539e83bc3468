"""Largest difference of ctfed's Cox coefficients from R, lifelines, scikit-survival and glmnet, on 1 to 10 sites.

Pooled risk sets on the exact grid of times (one baseline hazard, whoever holds the patients); rounds are questions to
the sites, two for each evaluation in this mode. A second table has the fits stratified by centre, a third one whole
elastic-net paths. R fits now where Rscript has survival and glmnet (Debian: r-cran-survival, r-cran-glmnet); elsewhere
its place is taken by the stored fits, which scikit-survival made at a tolerance of 1e-12.

    .venv/bin/python benchmarks/cox_reference.py
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import r_fits
from lifelines import CoxPHFitter
from sksurv.linear_model import CoxnetSurvivalAnalysis, CoxPHSurvivalAnalysis
from sksurv.util import Surv
from survival_data import Survival, folder, generated, load, references
from threadpoolctl import threadpool_limits

from ctfed.federation import FloatArray, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.statistics.cox import CoxFit, ElasticNet, cox_path, fit_cox
from ctfed.statistics.timegrid import TimeGrid

SITES = (1, 2, 5, 10)
TIGHT = 1e-20  # of Coxnet and glmnet, a bound on squared changes: at 1e-14 their coefficients still err by 2e-7
STORED = {  # key of the stored reference: data set, key suffix, standardised
    "ncctg_lung_all_R_reference": ("ncctg_all", "", False),
    "ncctg_lung_age_sex_ecog": ("ncctg", "", False),
    "rossi": ("rossi", "", False),
    "nsclc_geo_7centres": ("geo", "", False),
    "lung1_aerts4": ("lung1", "_zscored", True),
}
# penalty factors and l1_ratio of glmnet's stored paths, as in scikit-survival's tests of the same files
PATHS: dict[str, tuple[float, dict[int, float]]] = {
    "cox-example-coef-1": (0.5, {}),
    "cox-example-coef-1-pf": (0.5, {4: 0.125}),
    "cox-example-coef-1-pf2": (0.5, {4: 0.125, 10: 1.25, 12: 0.75}),
    "cox-example-coef-1-unpen": (0.5, {0: 0.0, 29: 0.0}),
    "cox-example-coef-2": (0.9, {}),
}


def difference(found: FloatArray, expected: Sequence[float] | FloatArray) -> float:
    """Largest absolute difference."""
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max())


def pooled_row(label: str, data: Survival, expected: FloatArray, ties: str, penalty: ElasticNet | None = None) -> None:
    """Print one line: the difference with 1, 2, 5 and 10 sites, and the rounds of the first."""
    cells, rounds = [], set()
    for sites in SITES:
        traffic = Traffic()
        grid = TimeGrid.exact(data.time)
        fit = run_pooled(fit_cox(data.view, penalty, ties=ties, grid=grid), data.dealt(sites), traffic)
        cells.append(f"{difference(fit.coefficients, expected):9.1e}")
        rounds.add(traffic.rounds)
    print(f"{label:58}{'  '.join(cells)}  {'/'.join(str(r) for r in sorted(rounds)):>7}")


def against_references() -> None:
    """Unpenalised fits against R or the stored ones, and stored fits of Coxnet at one penalizer."""
    stored = references()
    for key, (name, suffix, standardise) in STORED.items():
        reference = stored[key]
        data = load(name, reference["cols"])
        data = data.standardised() if standardise else data
        for ties in ("breslow", "efron"):
            if r_fits.versions():
                pooled_row(f"{key}, {ties}, R", data, r_fits.coxph(data, ties)[0], ties)
            else:
                pooled_row(f"{key}, {ties}, stored", data, np.array(reference[f"coef_{ties}{suffix}"]), ties)
        expected = np.array(reference["coxnet_l1ratio0.5_alpha0.05_standardised(ddof0)"])
        pooled_row(f"{key}, Coxnet 0.05/0.5, stored", data.standardised(), expected, "breslow", ElasticNet(0.05, 0.5))


def against_fresh() -> None:
    """LUNG1's 90 features with a ridge, and generated data with an elastic net, against scikit-survival now."""
    data = load("lung1").standardised()
    outcome = Surv.from_arrays(data.event, data.time)
    for ties in ("breslow", "efron"):
        peer = CoxPHSurvivalAnalysis(alpha=50.0, ties=ties, tol=1e-14, n_iter=200).fit(data.x, outcome)
        penalty = ElasticNet(50 / data.time.size, 0.0)
        pooled_row(f"LUNG1 p=90, ridge alpha 50, {ties}, scikit-survival", data, peer.coef_, ties, penalty)
    made = generated(604, 60)
    outcome = Surv.from_arrays(made.event, made.time)
    net = CoxnetSurvivalAnalysis(alphas=[0.05], l1_ratio=0.5, tol=TIGHT, max_iter=10_000_000).fit(made.x, outcome)
    pooled_row(f"generated 604 x 60, Coxnet at {TIGHT:g}", made, net.coef_[:, 0], "breslow", ElasticNet(0.05, 0.5))


def stratified() -> None:
    """Fits whose strata are the real centres, each centre a site, against lifelines and R with strata."""
    print(f"\n{'stratified by centre, Efron':58}{'coef':>9}  {'SE':>9}  {'loglik':>9}  {'rounds':>7}")
    for key in ("ncctg_lung_age_sex_ecog", "nsclc_geo_7centres"):
        columns = references()[key]["cols"]
        data = load(STORED[key][0], columns)
        _, place = np.unique(data.centre, return_inverse=True)
        fit: CoxFit = run_pooled(fit_cox(data.view), data.sites(place))
        frame = pd.DataFrame(data.x, columns=columns).assign(time=data.time, event=data.event, centre=data.centre)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = CoxPHFitter().fit(frame, "time", "event", strata="centre", fit_options={"precision": 1e-14})
        peers = {"lifelines at 1e-14": (peer.params_, peer.standard_errors_, peer.log_likelihood_)}
        if r_fits.versions():
            peers["R"] = r_fits.coxph(data, "efron", stratified=True)
        assert fit.standard_errors is not None
        for name, (coefficients, errors, loglik) in peers.items():
            cells = [
                difference(fit.coefficients, coefficients),
                difference(fit.standard_errors, errors),
                abs(fit.loglik - loglik),
            ]
            print(f"{key}, {name}".ljust(58) + "  ".join(f"{c:9.1e}" for c in cells) + f"  {fit.rounds:7}")


def paths() -> None:
    """Whole paths on glmnet's CoxExample, against Coxnet, glmnet and the coefficients that glmnet ships."""
    data = load("coxexample")
    outcome = Surv.from_arrays(data.event, data.time)
    heads = f"{'Coxnet':>9}{'glmnet':>10}{'shipped':>10}{'support':>9}{'rounds':>8}{'KKT':>9}"
    print(f"\n{f'path (10 sites, one baseline; peers at {TIGHT:g})':50}{'models':>8}{heads}")
    for name, (l1_ratio, changed) in PATHS.items():
        factors = np.ones(data.x.shape[1])
        for index, value in changed.items():
            factors[index] = value
        stored = pd.read_csv(folder() / "glmnet" / f"{name}.csv").to_numpy().T
        peer = CoxnetSurvivalAnalysis(
            l1_ratio=l1_ratio, penalty_factor=factors, n_alphas=100, alpha_min_ratio=1e-4, tol=TIGHT, max_iter=10**8
        ).fit(data.x, outcome)
        expected = peer.coef_.T[: len(stored)]
        rescaled = tuple(factors * factors.size / factors.sum())
        path = cox_path(
            data.view, peer.alphas_[: len(stored)], l1_ratio, factors=rescaled, ties="breslow",
            grid=TimeGrid.exact(data.time),
        )  # fmt: skip
        traffic = Traffic()
        fits = run_pooled(path, data.dealt(10), traffic)
        found = np.stack([fit.coefficients for fit in fits])
        tight = "-"
        if r_fits.versions():
            made = r_fits.glmnet_path(data, peer.alphas_[: len(stored)], l1_ratio, factors, TIGHT)
            tight = f"{difference(found, made):.1e}"
        same = int(((np.abs(found) > 1e-9) != (expected != 0)).sum())
        print(
            f"{name:50}{len(stored):8}{difference(found, expected):9.1e}{tight:>10}{difference(found, stored):10.1e}"
            f"{'same' if same == 0 else f'{same} off':>9}{traffic.rounds:8}{max(f.residual for f in fits):9.1e}"
        )


def main() -> None:
    """Print the three tables."""
    print(r_fits.versions() or "no Rscript with survival and glmnet: stored fits take the place of R")
    print(f"{'largest |difference|; sites:':58}" + "  ".join(f"{s:9}" for s in SITES) + f"  {'rounds':>7}")
    against_references()
    against_fresh()
    stratified()
    paths()


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
