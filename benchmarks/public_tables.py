"""C of published public tables at virtual centres by scanner, with and without ComBat, as found.

LUNG1 (NSCLC-Radiomics) is cut by the manufacturer and by the model of the scanner, which the index of the Imaging Data
Commons knows; NSCLC Radiogenomics by the manufacturer and kernel of its own table. The studies are
site_config/studies/lung1_tables.yaml and radiogenomics_tables.yaml: penalties by Optuna in cross-validation, C on the
30 % of patients that each centre has put aside. Each is run with five draws of these test patients, because one draw of
a hundred patients tells little. The centres' answers are added in this process, not masked.

    .venv/bin/python benchmarks/public_tables.py [--draws 5]
"""

from __future__ import annotations

import argparse
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
from ctfed.federation.pooled import run_pooled
from ctfed.site import load_site
from ctfed.study import load_study
from ctfed.tcia.centres import summarise, write_table
from ctfed.tcia.clinical import Joined, find_dictionary, map_tables
from ctfed.tcia.index import read_series
from ctfed.tcia.patients import ORIGIN, patients_of
from ctfed.tcia.plan import lines_of
from ctfed.tcia.split import CENTRE, Rule, assign
from server.many.algorithm import many_algorithm

STUDIES = Path(__file__).resolve().parents[1] / "site_config" / "studies"
PUBLISHED = (0.58, 0.65)  # C of published models on these cohorts
RECODED = {  # of the recoded table of Radiogenomics; what 0, 1 and 2 mean follows from the published counts
    "age": "age",
    "female": {"column": "sex", "codes": {"0": 1, "1": 0}},
    "smoking": {"column": "smoking", "codes": {"0": 0, "1": 1, "2": 2}},
}


@dataclass(frozen=True)
class Cohort:
    """A public cohort: its table, its patients with where their scans come from, and its study."""

    name: str
    frame: pd.DataFrame
    patients: pd.DataFrame
    rule: Rule
    study: str


def lung1(by: str, minimum: int) -> Cohort:
    """LUNG1 by a column of the index."""
    place = folder().parent / "radiomics"
    features = Joined(place / "lung1_pyradiomics_clinical_manufacturer.csv", "PatientID", ("original_*",))
    clinical = place / "lung1_clinical_and_seed.csv"
    frame = map_tables([(find_dictionary("nsclc_radiomics"), clinical)], [features]).frame
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


def run(cohort: Cohort, work: Path, draws: int) -> None:
    """Print sizes and events of the centres, and C of every model over the draws."""
    patients = cohort.patients.assign(**{CENTRE: assign(cohort.patients, cohort.rule)})
    print(f"{cohort.name}")
    print(*lines_of(summarise(patients, cohort.frame)), sep="\n")
    study = load_study(STUDIES / cohort.study)
    c: dict[str, list[float]] = {}
    first: dict[str, tuple[float, float]] = {}
    started = time.perf_counter()
    for draw in range(draws):
        site = write_table(work / f"draw-{draw}", patients, cohort.frame, draw)
        result = run_pooled(many_algorithm(study), list(load_cohorts(load_site(site), study).cohorts))
        for one in result.evaluated:
            found = one.paired.concordance
            low, high = np.asarray(found.intervals()).reshape(-1, 2).T
            for k, name in enumerate(one.names):
                c.setdefault(name, []).append(float(found.value[k]))
                first.setdefault(name, (float(low[k]), float(high[k])))
    print(f"{'model':18}{'C of the first draw':>26}{'mean of all':>14}{'lowest':>9}{'highest':>9}")
    for name, values in c.items():
        low, high = first[name]
        own = f"{values[0]:.3f} ({low:.3f} to {high:.3f})"
        print(f"{name:18}{own:>26}{np.mean(values):14.3f}{min(values):9.3f}{max(values):9.3f}")
    print(f"published: {PUBLISHED[0]} to {PUBLISHED[1]}; {(time.perf_counter() - started) / draws:.0f} s a draw\n")


def main() -> None:
    """Everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=5)
    draws = parser.parse_args().draws
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        cohorts = [lung1("manufacturer", 10), lung1("model", 10), radiogenomics(work)]
        for number, cohort in enumerate(cohorts):
            run(cohort, work / str(number), draws)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
