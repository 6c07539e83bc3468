"""Studies behind the default gate: those that it is made for pass unrefused, with room; budgets outlive a restart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

from ctfed import node
from ctfed.cohort import load_cohorts
from ctfed.federation import Cohort, Query, Refusal, View
from ctfed.federation.algorithm import Algorithm
from ctfed.federation.guard import Guard
from ctfed.federation.policy import Policy
from ctfed.federation.responder import Responder
from ctfed.federation.rules.budget import TOGETHER
from ctfed.federation.wire import Answer, Question
from ctfed.site import load_site
from ctfed.statistics.describe import Counts
from ctfed.study import Study, census_of, load_study
from server.assembly import Agreement, left_out
from server.commands import DEMO, EXAMPLES
from server.conductor import Conductor
from server.journal import Journal
from server.simulate import simulated_guards
from server.study_algorithm import StudyResult, study_algorithm

TRAIN, TEST = (278, 142, 82, 102, 0), (111, 44, 81, 30, 6)  # patients of five centres; the last one is too small
TRAINING, TESTED = 604, 266  # of the four others


class Sites:
    """A transport to guarded responders in this process."""

    runner = "in-process"

    def __init__(self, cohorts: Mapping[str, Cohort], guards: Mapping[str, Guard]) -> None:
        node.register_queries()
        self.sites = tuple(cohorts)
        self.guards = guards
        self._responders = {site: Responder(cohort, guards[site]) for site, cohort in cohorts.items()}

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        return {site: self._responders[site].answer(question) for site, question in questions.items()}


def conducted(study: Study, cohorts: Mapping[str, Cohort], folder: Path, policy: Policy) -> tuple[Conductor, Sites]:
    """Everything opened from its folder, as after a restart of server and sites."""
    roster, guards = simulated_guards(cohorts, study, folder / "sites", policy)
    sites = Sites(cohorts, guards)
    agreement = Agreement(study.sha256, roster.digest, census_of(study))
    journal = Journal(folder / "journal.jsonl", {"study": study.sha256})
    return Conductor(sites, journal, agreement=agreement, tell=lambda _: None), sites


def spent(sites: Sites) -> Mapping[str, int]:
    """What the first site's ledger has counted; that no site refused anything."""
    for guard in sites.guards.values():
        (state,) = guard.ledger.runs.values()
        assert state.refusals == 0
    (state,) = sites.guards[sites.sites[0]].ledger.runs.values()
    return state.spent


@pytest.fixture(scope="module")
def demo() -> tuple[Study, dict[str, Cohort]]:
    study = load_study(EXAMPLES / "studies" / DEMO)
    cohorts = load_cohorts(load_site(EXAMPLES / "sites" / DEMO), study).cohorts
    return study, {cohort.site: cohort for cohort in cohorts}


def test_the_example_study_passes_the_default_policy(demo: tuple[Study, dict[str, Cohort]], tmp_path: Path) -> None:
    study, cohorts = demo
    conductor, sites = conducted(study, cohorts, tmp_path, Policy())
    result = conductor.run(study_algorithm(study))
    assert result.evaluated.table is not None
    assert result.evaluated.groups is not None
    assert spent(sites)["rounds"] == len(conductor.journal.rounds)


def paper_study(folder: Path, features: int) -> Study:
    """Five folds, thirty penalties, monthly bins; cells of the policy's own minimum."""
    names = [f"x{j}" for j in range(features)]
    variable = {"type": "continuous", "range": [-1000, 1000], "magnitude": 4, "impute": "median"}
    content = {
        "ctfed_study": 1,
        "name": "paper",
        "title": "A study of the paper's sizes",
        "endpoint": {"name": "overall survival", "time_unit": "months"},
        "variables": dict.fromkeys(names, variable),
        "model": {"features": names},
        "tuning": {"folds": 5, "penalizers": {"count": 30}},
        "split": {"column": "split"},
        "evaluation": {"horizons": [24, 60], "time_bin": 1, "min_cell": 5, "bootstrap": 50},
        "time_grid": {"width": 1, "end": 72},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.dump(content, Dumper=_Plain))
    return load_study(path)


class _Plain(yaml.SafeDumper):
    """Without aliases, which a study file may not have."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def paper_cohorts(features: int) -> dict[str, Cohort]:
    """Correlated features of which eight matter, one value in fifty missing; about 60 % die."""
    rng = np.random.default_rng(0)
    effect = np.concatenate([rng.normal(0, 0.3, 8), np.zeros(features - 8)])
    cohorts = {}
    for number, (training, tested) in enumerate(zip(TRAIN, TEST, strict=True)):
        n = training + tested
        x = rng.normal(size=(n, features)) + 0.3 * rng.normal(size=(n, 1))
        death, censoring = rng.exponential(30 * np.exp(-x @ effect)), rng.exponential(50, n)
        x[rng.random(x.shape) < 0.02] = np.nan
        split = np.repeat(["train", "test"], [training, tested])
        fold = np.where(split == "train", np.arange(n) % 5, -1)
        site = f"centre-{number}"
        columns = {f"x{j}": x[:, j] for j in range(features)}
        time = np.minimum(death, censoring) + 0.03
        cohorts[site] = Cohort.of(site, columns, time, death <= censoring, split=split, fold=fold)
    return cohorts


@pytest.mark.parametrize("features", [8, 60])
def test_a_study_of_the_paper_s_sizes_takes_at_most_half_of_every_budget(features: int, tmp_path: Path) -> None:
    policy, study = Policy(), paper_study(tmp_path, features)
    conductor, sites = conducted(study, paper_cohorts(features), tmp_path, policy)
    result: StudyResult = conductor.run(study_algorithm(study))
    assert conductor.assembly is not None
    assert left_out(conductor.assembly.session) == {"train": ("centre-4",), "test": ("centre-4",)}
    assert [(size.patients, size.split) for size in result.sizes] == [(TRAINING, "train"), (TESTED, "test")]
    assert result.tuned is not None
    assert result.evaluated.table is not None
    told = spent(sites)
    assert 2 * told["rounds"] <= policy.max_rounds
    rows = {"train": TRAINING, "test": TESTED}
    rows |= {f"train outside fold {k}": 483 for k in range(5)} | {f"train in fold {k}": 120 for k in range(5)}
    together = told.pop(f"numbers|{TOGETHER}")
    assert 2 * together <= policy.released_together * TRAINING * features
    assert {name.split("|")[1] for name in told if name.startswith("numbers|")} == set(rows)
    for name, count in told.items():
        kind, *where = name.split("|")
        if kind == "numbers":
            assert 2 * count <= policy.released_per_value * rows[where[0]] * features, name
        elif kind == "cuts":
            assert 2 * count <= policy.cuts_per_patient * rows[where[0]], name
        elif kind == "tables":
            assert 2 * count <= policy.max_tables, name


def asked(*queries: Query) -> Algorithm[None]:
    for query in queries:  # noqa: UP028  # a tuple takes no answers
        yield query


def test_a_budget_outlives_a_restart_of_server_and_sites(demo: tuple[Study, dict[str, Cohort]], tmp_path: Path) -> None:
    study, cohorts = demo
    policy, view = Policy(max_rounds=2), View(study.features)
    rounds = Counts(view), Counts(view.test()), Counts(view.training_fold(0))
    conducted(study, cohorts, tmp_path, policy)[0].run(asked(*rounds[:2]))
    conductor, sites = conducted(study, cohorts, tmp_path, policy)
    with pytest.raises(Refusal, match="too-many-rounds"):
        conductor.run(asked(*rounds))
    assert sum(guard.ledger.runs[conductor.journal.run].refusals for guard in sites.guards.values()) == 1


def test_a_second_run_without_one_patient_is_refused(demo: tuple[Study, dict[str, Cohort]], tmp_path: Path) -> None:
    study, cohorts = demo
    conducted(study, cohorts, tmp_path, Policy())[0].run(asked(Counts(View(study.features))))
    (tmp_path / "journal.jsonl").unlink()
    site, cohort = next(iter(cohorts.items()))
    fewer = {**cohorts, site: cohort.subset(np.arange(cohort.patients) > 0)}
    with pytest.raises(Refusal, match="cohort-difference: 1 patients differ"):
        conducted(study, fewer, tmp_path, Policy())[0].run(asked(Counts(View(study.features))))
