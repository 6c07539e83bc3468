"""The study of 47 models on made cohorts of the paper's size: rounds, seconds and bytes, and where they go.

876 patients at 5 sites (278/142/82/102/0 for training, 111/44/81/30/6 for test), 107 radiomic features of 4 regions,
two of them also after kernel normalisation, and 3 x 4096 deep features. Scanners shift and stretch what is measured in
images; a few features carry the risk.

    ../.venv/bin/python paper_study.py [--trials 100] [--masked] [--models NAME ...]
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ctfed import node
from ctfed.federation import Cohort, run_pooled
from ctfed.federation.algorithm import Algorithm, Bundle
from ctfed.federation.policy import Policy
from ctfed.federation.pooled import Traffic
from ctfed.federation.responder import Responder
from ctfed.federation.wire import Answer, Question
from ctfed.study import Study, census_of, load_study
from server.assembly import Agreement
from server.conductor import Conductor
from server.journal import Journal
from server.many.algorithm import ManyResult, many_algorithm, scores_by_name
from server.simulate import simulated_guards

SITES = ("centre-1", "centre-2", "centre-3", "centre-4", "centre-5")
TRAIN, TEST = (278, 142, 82, 102, 0), (111, 44, 81, 30, 6)
STUDY = Path(__file__).resolve().parents[1] / "site_config/studies/pixels_to_prognosis.yaml"
LATENT = 20
# Share of patients with a 1, of the two-valued variables; of the others the levels are equally frequent.
SHARES = {
    **{"female": 0.3, "m_category": 0.45, "n_not_assessable": 0.03, "t_not_assessable": 0.03, "cancer_history": 0.82},
    **{"adenocarcinoma": 0.69, "squamous_cell": 0.2, "non_small_cell": 0.1, "large_cell": 0.01},
    **{"metastasis_adrenal": 0.08, "metastasis_bone": 0.19, "metastasis_brain": 0.14, "metastasis_liver": 0.08},
    **{"metastasis_lung": 0.14, "metastasis_lymph_nodes": 0.16, "metastasis_muscle": 0.015},
    **{"metastasis_pleura": 0.05, "metastasis_other": 0.05},
}
MISSING = {"pack_years": 0.4, "pdl1": 0.5, "stage": 0.25, "ecog": 0.53, "m_category": 0.17, "smoking": 0.06}


def paper_cohorts(study: Study, seed: int = 0) -> list[Cohort]:
    """Cohorts of the paper's layout with every column of the study."""
    rng = np.random.default_rng(seed)
    loadings = {name: rng.normal(size=(LATENT, len(study.names_of(name)))) for name in study.groups}
    return [_site(study, rng, k, loadings) for k in range(len(SITES))]


def _site(study: Study, rng: np.random.Generator, k: int, loadings: dict[str, np.ndarray]) -> Cohort:
    n = TRAIN[k] + TEST[k]
    columns = {name: _clinical(study, rng, name, n) for name in study.variables}
    tumour = rng.normal(size=(n, LATENT))
    eta = 0.5 * tumour[:, 0] + 0.3 * tumour[:, 1] + 0.6 * np.nan_to_num(columns["m_category"])
    eta += 0.3 * np.nan_to_num(columns["stage"] - 2.5) + 0.02 * (columns["age"] - 65)
    for name, group in study.groups.items():
        if group.clinical:
            continue
        own = tumour if name.startswith(("tumour", "fm", "cac")) else 0.3 * tumour + rng.normal(size=(n, LATENT))
        scanner = 0.4 if group.image == "rkn" else 1.0
        for j, (column, magnitude) in enumerate(group.sized()):
            # Deep features are many views of few factors; of three radiomic features one says something of its own.
            apart = 0.6 if group.cube is not None else 0.15
            factor = loadings[name][:, j if group.cube is not None else j // 3]
            value = own @ factor / np.sqrt(LATENT) + apart * rng.normal(size=n)
            value = value * (1 + 0.15 * k * scanner) + 0.8 * k * scanner
            columns[column] = 0.05 * magnitude * (value + 3)
    for column in list(study.names_of("nodes_texture")) + list(study.names_of("nodes_volume")):
        columns[column][: n // 7] = np.nan  # patients without a node
    death, censoring = rng.exponential(30 * np.exp(-eta)), rng.exponential(45, n)
    time, event = np.round(np.minimum(death, censoring), 1) + 0.1, death <= censoring
    split = np.array(["train"] * TRAIN[k] + ["test"] * TEST[k], dtype=np.str_)
    fold = np.where(split == "test", -1, rng.permutation(n) % study.folds)
    keys = np.array([f"{SITES[k]}-{row}" for row in range(n)])
    return Cohort.of(SITES[k], columns, time, event, split=split, fold=fold, pseudonym=keys)


def _clinical(study: Study, rng: np.random.Generator, name: str, n: int) -> np.ndarray:
    variable = study.variables[name]
    if name == "age":
        values = np.round(np.clip(rng.normal(65, 10, n), 30, 95))
    elif variable.type == "continuous":
        values = np.round(np.abs(rng.normal(0, 0.3 * variable.range[1], n)).clip(0, variable.range[1]))
    elif variable.type == "binary":
        values = (rng.random(n) < SHARES[name]).astype(float)
    else:
        values = rng.choice(variable.possible_levels, n)
    values[rng.random(n) < MISSING.get(name, 0.0)] = np.nan
    return values


@dataclass
class Profile:
    """Where rounds, seconds and bytes go, by the kinds of query of each round."""

    traffic: Traffic = field(default_factory=Traffic)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    rounds: Counter[str] = field(default_factory=Counter)
    numbers: Counter[str] = field(default_factory=Counter)

    def watch(self, algorithm: Algorithm[ManyResult]) -> Algorithm[ManyResult]:
        """The algorithm, with a clock between its rounds."""
        from ctfed.federation.summary import layout_size

        answer = None
        while True:
            start = time.perf_counter()
            try:
                asked = algorithm.send(answer)
            except StopIteration as stop:
                self.seconds["server: last"] += time.perf_counter() - start
                return stop.value
            queries = asked.queries if isinstance(asked, Bundle) else (asked,)
            main = Counter(query.kind for query in queries).most_common(1)[0][0]
            self.seconds[f"server: {main}"] += time.perf_counter() - start
            self.rounds[main] += 1
            for query in queries:
                self.numbers[query.kind] += layout_size(query.layout)
            start = time.perf_counter()
            answer = yield asked
            self.seconds[f"sites and wire: {main}"] += time.perf_counter() - start
            done = sum(self.rounds.values())
            if done % 10 == 0:
                print(f"round {done}: {main}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--models", nargs="*", help="only these")
    parser.add_argument("--masked", action="store_true", help="behind gates and masks, with ledgers")
    options = parser.parse_args()
    study = _chosen(load_study(STUDY), options.trials, options.models)
    cohorts = paper_cohorts(study)
    profile, start = Profile(), time.perf_counter()
    algorithm = profile.watch(many_algorithm(study))
    if options.masked:
        with tempfile.TemporaryDirectory() as folder:
            result = _masked(algorithm, study, cohorts, Path(folder), profile.traffic)
    else:
        result = run_pooled(algorithm, cohorts, profile.traffic)
    _report(result, profile, time.perf_counter() - start)


class _Sites:
    """A transport to guarded responders in this process, which counts the bytes of the last one."""

    runner = "in-process"

    def __init__(self, responders: dict[str, Responder], traffic: Traffic) -> None:
        self.sites = tuple(responders)
        self._responders, self._traffic = responders, traffic

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        found = {site: self._responders[site].answer(question) for site, question in questions.items()}
        last = next(reversed(found))
        self._traffic.bytes_down += questions[last].size
        self._traffic.bytes_up += found[last].size
        return found


def _masked(
    algorithm: Algorithm[ManyResult], study: Study, cohorts: list[Cohort], folder: Path, traffic: Traffic
) -> ManyResult:
    """The study asked of sites with masks, ledgers and gates of the default policy."""
    node.register_queries()
    by_site = {cohort.site: cohort for cohort in cohorts}
    roster, guards = simulated_guards(by_site, study, folder, Policy())
    sites = _Sites({site: Responder(cohort, guards[site]) for site, cohort in by_site.items()}, traffic)
    agreement = Agreement(study.sha256, roster.digest, census_of(study))
    conductor = Conductor(sites, Journal(folder / "journal.jsonl", {}), agreement=agreement)
    return conductor.run(algorithm)


def _chosen(study: Study, trials: int, models: list[str] | None) -> Study:
    content = study.model_dump(mode="python", exclude_none=True)
    content["search"]["trials"] = trials
    if models:
        content["models"] = {name: content["models"][name] for name in models}
        content.pop("ensembles"), content.pop("consensus")
    return Study.model_validate(content)


def _report(result: ManyResult, profile: Profile, seconds: float) -> None:
    where = scores_by_name(result)
    print("| model | table | patients | features | components | C within | C pooled |\n|---|---|---|---|---|---|---|")
    for model in result.models:
        one, k = where[model.name]
        pooled = "" if one.pooled is None else f"{one.pooled.c.value[k]:.3f}"
        print(
            f"| {model.name} | {model.design.spec.table} | {model.train.patients} + {model.test.patients} | "
            f"{np.count_nonzero(model.fit.coefficients)} of {model.fit.view.width} | {model.found.best.components} | "
            f"{one.paired.concordance.value[k]:.3f} | {pooled} |"
        )
    traffic = profile.traffic  # of one site
    print(f"\n{sum(profile.rounds.values())} rounds, {seconds:.0f} s, {traffic.bytes_up / 1e6:.1f} MB up and ", end="")
    print(f"{traffic.bytes_down / 1e6:.1f} MB down per site, ", end="")
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")
    print(f"notes: {'; '.join(result.notes) or 'none'}")
    for title, counts in (("rounds", profile.rounds), ("numbers per site", profile.numbers)):
        print(f"{title}: " + ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common(12)))
    slowest = sorted(profile.seconds.items(), key=lambda item: -item[1])[:12]
    print("seconds: " + ", ".join(f"{kind} {value:.0f}" for kind, value in slowest))


if __name__ == "__main__":
    main()
