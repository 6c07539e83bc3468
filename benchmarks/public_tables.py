"""C of published public tables at virtual centres by scanner, with and without ComBat, as found: one table of all.

LUNG1 (NSCLC-Radiomics) is cut by its table's column 'manufacturer', and by the model of the scanner, which the index of
the Imaging Data Commons knows; NSCLC Radiogenomics by the manufacturer and kernel of its own table. The studies are
site_config/studies/lung1_tables.yaml and radiogenomics_tables.yaml: five models and an ensemble, penalties by Optuna in
cross-validation, C on the 30 % of patients that each centre has put aside. Each is run with five draws of these test
patients, because one draw of a hundred patients tells little.

Manufacturers make two centres of LUNG1 (and one patient without), and a masked sum needs three: of two, each could
subtract its own. Public data need no masks, so the answers are added in this process. With --masked those cohorts that
have three centres are run once more, masked, through `ctfed simulate`, and must give the same bits; the sites' limits
are then those of LIMITS.

    .venv/bin/python benchmarks/public_tables.py [--draws 5] [--masked]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from survival_data import folder
from threadpoolctl import threadpool_limits

from ctfed.cohort import load_cohorts
from ctfed.federation.policy import Policy
from ctfed.federation.pooled import run_pooled
from ctfed.site import load_site
from ctfed.study import load_study
from ctfed.tcia.centres import summarise, write_table
from ctfed.tcia.clinical import Joined, find_dictionary, map_tables
from ctfed.tcia.index import read_series
from ctfed.tcia.patients import ORIGIN, patients_of
from ctfed.tcia.plan import lines_of
from ctfed.tcia.split import CENTRE, Rule, assign
from server.assembly import FEWEST_SITES
from server.many.algorithm import ManyResult, many_algorithm
from server.simulate import simulate

STUDIES = Path(__file__).resolve().parents[1] / "site_config" / "studies"
PUBLISHED = (0.58, 0.65)  # C of published models on these cohorts
RECODED = {  # of the recoded table of Radiogenomics; what 0, 1 and 2 mean follows from the published counts
    "age": "age",
    "female": {"column": "sex", "codes": {"0": 1, "1": 0}},
    "smoking": {"column": "smoking", "codes": {"0": 0, "1": 1, "2": 2}},
}


LIMITS = Policy(min_patients=5, min_events=1, cuts_per_patient=1.0)  # six models' thresholds on a hundred patients


@dataclass(frozen=True)
class Cohort:
    """A public cohort: its table, its patients with where their scans come from, and its study."""

    name: str
    frame: pd.DataFrame
    patients: pd.DataFrame
    rule: Rule
    study: str


def lung1(by: str, minimum: int) -> Cohort:
    """LUNG1 by a column of its published table, or of the index."""
    place = folder().parent / "radiomics"
    table = place / "lung1_pyradiomics_clinical_manufacturer.csv"
    features = Joined(table, "PatientID", ("original_*",))
    clinical = place / "lung1_clinical_and_seed.csv"
    frame = map_tables([(find_dictionary("nsclc_radiomics"), clinical)], [features]).frame
    if by == "source":
        source = pd.read_csv(table, usecols=["PatientID", "manufacturer"]).rename(columns={"PatientID": "patient"})
        patients = frame[["patient"]].merge(source, how="left").fillna({"manufacturer": ""})
        return Cohort("LUNG1 by its source", frame, patients, Rule(("manufacturer",), minimum), "lung1_tables.yaml")
    found = patients_of(read_series(["NSCLC-Radiomics"]))[["patient", *ORIGIN]]
    return Cohort(f"LUNG1 by {by}", frame, found.merge(frame[["patient"]]), Rule((by,), minimum), "lung1_tables.yaml")


def radiogenomics(work: Path) -> Cohort:
    """NSCLC Radiogenomics by manufacturer and kernel."""
    place = folder().parent / "harmonization" / "nsclc_radiogenomics_captk"
    clinical = pd.read_csv(place / "clinical-demographics.csv", index_col=0).rename_axis("case")
    clinical.to_csv(work / "clinical.csv")
    base = yaml.safe_load(find_dictionary("pixels_to_prognosis").read_text())
    follow_up = {
        "time": {"column": "days", "unit": "days"},
        "event": {"column": "event", "codes": {"0": 0, "1": 1}},
    }
    base |= {
        "name": "radiogenomics_recoded",
        "variables": {name: base["variables"][name] for name in RECODED},
        "source": {"kind": "csv", "patient": "case", "follow_up": follow_up, "columns": RECODED},
    }
    (work / "dictionary.yaml").write_text(yaml.safe_dump(base, sort_keys=False))
    scans = pd.read_csv(place / "Sandy-CT-parameters.csv").drop_duplicates("clc")
    scans = scans.rename(columns={"clc": "patient", "Manufacturer": "manufacturer", "ConvolutionKernel": "kernel"})
    features = pd.read_csv(place / "Sandy-Captk.csv", encoding="utf-8-sig", na_values=["#NAME?"])
    features.to_csv(work / "features.csv", index=False)  # a spreadsheet has left an error in one cell
    joined = Joined(work / "features.csv", "SubjectID")
    frame = map_tables([(work / "dictionary.yaml", work / "clinical.csv")], [joined]).frame
    frame = frame[frame["patient"].isin(features["SubjectID"])]
    patients = frame[["patient"]].merge(scans[["patient", "manufacturer", "kernel"]], on="patient", how="left")
    patients = patients.fillna({"manufacturer": "", "kernel": ""}).replace("0", "")
    rule = Rule(("manufacturer", "kernel"), 15)
    return Cohort("Radiogenomics by manufacturer and kernel", frame, patients, rule, "radiogenomics_tables.yaml")


@dataclass(frozen=True)
class Drawn:
    """One model's C on the test patients of one draw, within centres and over all pairs, with 95 % intervals."""

    within: tuple[float, float, float]
    pooled: tuple[float, float, float] | None


def drawn(result: ManyResult) -> dict[str, Drawn]:
    """C of every model and ensemble."""
    found = {}
    for one in result.evaluated:
        c = one.paired.concordance
        for k, (name, limits) in enumerate(zip(one.names, c.intervals(), strict=True)):
            pooled = None
            if one.pooled is not None:
                low, high = one.pooled.limits["c"][k]
                pooled = (float(one.pooled.c.value[k]), float(low), float(high))
            found[name] = Drawn((float(c.value[k]), float(limits[0]), float(limits[1])), pooled)
    return found


def run(cohort: Cohort, work: Path, draws: int, masked: bool) -> list[str]:
    """Print sizes and events of the centres; the rows of the table of all."""
    patients = cohort.patients.assign(**{CENTRE: assign(cohort.patients, cohort.rule)})
    print(f"{cohort.name}: {patients[CENTRE].nunique()} centres")
    print(*lines_of(summarise(patients, cohort.frame)), sep="\n")
    study = load_study(STUDIES / cohort.study)
    every: list[dict[str, Drawn]] = []
    started = time.perf_counter()
    for draw in range(draws):
        site = write_table(work / f"draw-{draw}", patients, cohort.frame, draw)
        cohorts = load_cohorts(load_site(site), study).cohorts
        result: ManyResult = run_pooled(many_algorithm(study), list(cohorts))
        every.append(drawn(result))
        large = sum(cohort.patients >= LIMITS.min_patients for cohort in cohorts)
        if draw == 0 and masked and large < FEWEST_SITES:
            print(f"not masked: {large} centres have patients enough to contribute, a sum needs {FEWEST_SITES}")
        elif draw == 0 and masked:
            print(f"masked: {_same_when_masked(STUDIES / cohort.study, site, work / 'masked', every[0])}")
    print(f"{(time.perf_counter() - started) / draws:.0f} s a draw\n", flush=True)
    return [_row(cohort.name, name, [one[name] for one in every]) for name in every[0]]


def _row(cohort: str, model: str, found: list[Drawn]) -> str:
    within = [one.within[0] for one in found]
    first = found[0]
    pooled = "" if first.pooled is None else "{:.3f} ({:.3f} to {:.3f})".format(*first.pooled)
    spread = f"{np.mean(within):.3f} | {min(within):.3f} to {max(within):.3f}"
    return f"| {cohort} | {model} | {'{:.3f} ({:.3f} to {:.3f})'.format(*first.within)} | {pooled} | {spread} |"


def _same_when_masked(study: Path, site: Path, out: Path, expected: dict[str, Drawn]) -> str:
    simulate(study, [site], out, masked=True, policy=LIMITS, tell=lambda line: None)
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    if not results["run"]["masked"]:
        raise SystemExit("the run was not masked")
    told = {model["name"]: model["c_within"]["value"] for model in results["models"]}
    differing = [name for name, value in told.items() if value != expected[name].within[0]]
    if differing:
        raise SystemExit(f"masked, {', '.join(differing)} differ")
    return f"the same bits of {len(told)} models' C"


def main() -> None:
    """Everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--masked", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        cohorts = [lung1("source", 10), lung1("model", 10), radiogenomics(work)]
        for number, cohort in enumerate(cohorts):
            rows += run(cohort, work / str(number), options.draws, options.masked)
    print(f"C on the test patients; published models of these cohorts: {PUBLISHED[0]} to {PUBLISHED[1]}")
    print("| centres | model | within centres, first draw (95 %) | all pairs, first draw (95 %) | mean | all draws |")
    print("|---|---|---|---|---|---|")
    print(*rows, sep="\n")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
