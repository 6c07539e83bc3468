"""Studies of many models on real tables: LUNG1 radiomics and clinical data in made sites, GEO in its seven centres.

Prints every model as found, with intervals; and what asking Optuna for ten trials at once costs against one by one.

    ../.venv/bin/python real_models.py [lung1] [geo] [batches]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import survival_data

from ctfed.cohort import assign_folds, assign_split
from ctfed.federation import Cohort, run_pooled
from ctfed.federation.pooled import Traffic
from ctfed.study import DAYS_PER_MONTH, Study
from server.many.algorithm import ManyResult, many_algorithm, scores_by_name

STAGES = {"I": 1.0, "II": 2.0, "IIIa": 3.0, "IIIb": 4.0}
SEARCH = {"trials": 40, "batch": 10, "startup": 20, "folds": 5, "penalizer": (0.003, 1.0), "seed": 1}


def base(name: str, variables: dict[str, Any], **sections: Any) -> Study:
    """A study of many models with the settings that all of these share."""
    content = {
        "ctfed_study": 1,
        "name": name,
        "title": name,
        "endpoint": {"name": "overall survival", "time_unit": "months"},
        "variables": variables,
        "search": SEARCH,
        "split": {"test_fraction": 0.3},
        "evaluation": {"horizons": (24, 60), "time_bin": 2, "min_cell": 5, "bootstrap": 1000, "seed": 1},
        "time_grid": {"width": 2, "end": 60},
    }
    return Study.model_validate(content | sections)


def lung1() -> tuple[Study, list[Cohort]]:
    """421 patients at three simulated sites; their planning scans come from two sources, which are the batches."""
    path = survival_data.folder().parent / "radiomics" / "lung1_pyradiomics_clinical_manufacturer.csv"
    table = pd.read_csv(path)
    features = [name for name in table if name.startswith(("original_", "wavelet-"))]
    values = table[features].to_numpy(dtype=np.float64)
    names = [f"r{j:03d}" for j in range(len(features))]
    # A column's own magnitude: the file's values were normalised by those who published them.
    large = float(np.abs(values).max())
    study = base(
        "lung1",
        {
            "age": {"type": "continuous", "range": (18, 110), "impute": "median"},
            "male": {"type": "binary", "range": (0, 1), "impute": "mode"},
            "stage": {
                "type": "ordinal",
                "range": (1, 4),
                "levels": {1: "I", 2: "II", 3: "IIIa", 4: "IIIb"},
                "impute": "mode",
            },
        },
        groups={
            "clinical": {"variables": ("age", "male", "stage")},
            "radiomics": {"columns": tuple(names), "magnitude": max(1.0, large / 16)},
        },
        models={
            "clinical": {"groups": ("clinical",)},
            "radiomics": {"groups": ("radiomics",)},
            "radiomics-combat": {"groups": ("radiomics",), "combat": ("radiomics",)},
            "clinical-radiomics": {"groups": ("clinical", "radiomics")},
            "clinical-radiomics-combat": {"groups": ("clinical", "radiomics"), "combat": ("radiomics",)},
        },
        ensembles={"mean": {"models": ("clinical", "radiomics-combat")}},
        consensus={"models": ("clinical", "radiomics-combat")},
    )
    columns = {"age": table["age"].to_numpy(float), "male": (table["gender"] == "male").to_numpy(float)}
    columns["stage"] = table["Overall.Stage"].map(STAGES).to_numpy(float)
    columns |= {name: values[:, j] for j, name in enumerate(names)}
    batch = np.where(table["manufacturer"].astype(str).str.contains("SIEMENS"), "SIEMENS", "CMS")
    place = np.random.default_rng(0).integers(0, 3, len(table))
    months = table["Survival.time"].to_numpy(float) / DAYS_PER_MONTH
    return study, dealt(study, columns, months, table["deadstatus.event"].to_numpy() == 1, place, batch)


def geo() -> tuple[Study, list[Cohort]]:
    """Seven real centres with four clinical variables."""
    data = survival_data.load("geo", ["age", "male", "stage", "squamous"])
    binary = {"type": "binary", "range": (0, 1), "impute": "mode"}
    study = base(
        "geo",
        {
            "age": {"type": "continuous", "range": (18, 110), "impute": "median"},
            "male": binary,
            "stage": {"type": "ordinal", "range": (1, 4), "levels": {i: str(i) for i in range(1, 5)}, "impute": "mode"},
            "squamous": binary,
        },
        groups={
            "all": {"variables": ("age", "male", "stage", "squamous")},
            "staging": {"variables": ("stage",)},
            "patient": {"variables": ("age", "male")},
        },
        models={
            "clinical": {"groups": ("all",)},
            "stage": {"groups": ("staging",)},
            "age-sex": {"groups": ("patient",)},
            "early-stage": {
                "groups": ("all",),
                "without": ("stage",),
                "subgroup": {"variable": "stage", "low": 1, "high": 1},
            },
        },
        ensembles={"mean": {"models": ("stage", "age-sex")}},
        consensus={"models": ("stage", "age-sex")},
    )
    columns = {name: data.x[:, j] for j, name in enumerate(data.names)}
    return study, dealt(study, columns, data.time, data.event, pd.factorize(data.centre)[0], None)


def dealt(
    study: Study,
    columns: dict[str, np.ndarray],
    months: np.ndarray,
    event: np.ndarray,
    place: np.ndarray,
    batch: np.ndarray | None,
) -> list[Cohort]:
    """The patients at their sites, with splits and folds as sites draw them."""
    assert study.split.test_fraction is not None
    found = []
    for k in range(int(place.max()) + 1):
        rows = np.flatnonzero((place == k) & (months > 0))
        keys, secret = [str(row) for row in rows], f"fixture of site {k}".encode()
        split = assign_split(keys, event[rows], secret, study.name, study.split.test_fraction)
        found.append(
            Cohort.of(
                f"site-{k}",
                {name: values[rows] for name, values in columns.items()},
                months[rows],
                event[rows],
                batch=None if batch is None else np.array([f"site-{k} {label}" for label in batch[rows]]),
                split=split,
                fold=assign_folds(keys, event[rows], split, secret, study.name, study.folds),
                pseudonym=np.array(keys),
            )
        )
    return found


def report(name: str, study: Study, cohorts: Sequence[Cohort]) -> ManyResult:
    """Run a study and print its models."""
    traffic, start = Traffic(), time.perf_counter()
    result: ManyResult = run_pooled(many_algorithm(study), cohorts, traffic)
    seconds = time.perf_counter() - start
    print(
        f"\n{name}: {sum(c.patients for c in cohorts)} patients, {len(cohorts)} sites, {traffic.rounds} rounds, ",
        end="",
    )
    print(f"{seconds:.0f} s, {traffic.bytes_up / 1e6:.1f} MB up per site")
    heads = ("model", "patients", "features", "C within sites (95 %)", "pooled C (95 %), certified", "AUC at 24")
    print("| " + " | ".join((*heads, "HR of the median split", "O/E at 24")) + " |")
    print("|" + "---|" * (len(heads) + 2))
    where, fitted = scores_by_name(result), {model.name: model for model in result.models}
    for label, (one, k) in where.items():
        print("| " + " | ".join([label, *_row(one, k, fitted.get(label))]) + " |")
    print(f"notes: {'; '.join(result.notes) or 'none'}")
    if result.consensus is not None:
        found = result.consensus.classified
        for h, horizon in enumerate(found.times):
            print(
                f"consensus at {horizon:g}: accuracy {found.accuracy[-1, h]:.3f}, coverage {found.coverage[-1, h]:.3f}"
            )
    return result


def _row(one: Any, k: int, model: Any) -> list[str]:
    within = one.paired.concordance
    low, high = within.intervals()[k]
    cells = ["" if model is None else f"{model.train.patients} + {model.test.patients}"]
    cells += ["" if model is None else f"{np.count_nonzero(model.fit.coefficients)} of {model.fit.view.width}"]
    cells += [f"{within.value[k]:.3f} ({low:.3f} to {high:.3f})"]
    if one.pooled is None:
        return [*cells, "", "", "", ""]
    c, limits = one.pooled.c, one.pooled.limits["c"][k]
    cells += [f"{c.value[k]:.3f} ({limits[0]:.3f} to {limits[1]:.3f}), {c.lower[k]:.3f} to {c.upper[k]:.3f}"]
    cells += [f"{one.pooled.auc[24].value[k]:.3f}" if 24 in one.pooled.auc else ""]
    ratio = None if one.groups is None else one.groups.ratios[k]
    if ratio is None:
        cells.append("")
    else:
        limits = np.exp(ratio.intervals()[0])
        cells.append(f"{np.exp(ratio.coefficients[0]):.2f} ({limits[0]:.2f} to {limits[1]:.2f})")
    return [*cells, "" if one.predictions is None else f"{one.predictions.errors.ratio[k, 0]:.2f}"]


def batches() -> None:
    """The same searches, ten trials at once and one by one."""
    study, cohorts = lung1()
    content = study.model_dump(mode="python", exclude_none=True)
    content["models"] = {name: content["models"][name] for name in ("clinical", "clinical-radiomics-combat")}
    content.pop("ensembles"), content.pop("consensus")
    print("\n| trials at once | seed | rounds | held-out C of the best trial: " + ", ".join(content["models"]) + " |")
    print("|---|---|---|---|")
    for seed in range(3):
        for batch in (10, 1):
            content["search"] = SEARCH | {"batch": batch, "seed": seed}
            traffic = Traffic()
            result = run_pooled(many_algorithm(Study.model_validate(content)), cohorts, traffic)
            scores = ", ".join(f"{model.found.best.score:.4f}" for model in result.models)
            print(f"| {batch} | {seed} | {traffic.rounds} | {scores} |")


def main() -> None:
    """The parts that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["lung1", "geo", "batches", []])
    parts = parser.parse_args().parts or ["lung1", "geo", "batches"]
    if "lung1" in parts:
        report("LUNG1", *lung1())
    if "geo" in parts:
        report("GEO", *geo())
    if "batches" in parts:
        batches()


if __name__ == "__main__":
    main()
