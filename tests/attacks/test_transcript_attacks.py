"""Each attack succeeds on messages that nothing protects, and is held against the transcript of the example study."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from attack_support import no_rule_on_domination, site_cohorts, study_of, told, training_view
from lifelines.datasets import load_lung

from ctfed import node
from ctfed.cli import main
from ctfed.cohort import load_cohorts
from ctfed.federation import Cohort, Feature, View, Within
from ctfed.site import load_site
from ctfed.statistics.cox.pooled import RiskSetSums
from ctfed.statistics.describe import Moments
from ctfed.statistics.impute import CountsBelow
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.scores import ScoresBelow
from ctfed.statistics.select import CrossMoments
from ctfed.statistics.timegrid import TimeGrid
from ctfed.study import load_study
from server.audit.attacks.bins import rebuild_bins
from server.audit.attacks.carriers import carried
from server.audit.attacks.dominance import dominated
from server.audit.attacks.levels import read_levels
from server.audit.attacks.linear import solve_linear
from server.audit.attacks.nested import small_sets
from server.audit.attacks.nonlinear import search
from server.audit.attacks.subtraction import added, risk_set_messages, subtract, subtract_risk_sets
from server.audit.attacks.thresholds import cut_apart
from server.audit.knowledge import Known, values_of
from server.audit.patients import Candidate, Truth
from server.audit.report import Audit, audit_transcript, levels_of
from server.audit.statements import statements, with_differences
from server.audit.transcript import Transcript, replay
from server.commands import DEMO, EXAMPLES
from server.simulate import simulate

STUDY_FILE, SITE_FILE = EXAMPLES / "studies" / DEMO, EXAMPLES / "sites" / DEMO
STUDY = study_of()
COHORTS = site_cohorts(STUDY)
VIEW = training_view(STUDY)
LEVELS = levels_of(STUDY)

# -- positive controls


def exact_times(cohorts: Sequence[Cohort] = COHORTS) -> TimeGrid:
    return TimeGrid.exact(np.concatenate([cohort.time for cohort in cohorts]))


def given(transcript: Transcript) -> list:  # type: ignore[type-arg]
    return with_differences(statements(transcript))


def by_subtraction() -> Sequence[Candidate]:
    """Weighted sums at every time."""
    return subtract(given(told([RiskSetSums(VIEW, np.zeros((1, 3)), exact_times(), (0,))], COHORTS)), 1).candidates


def by_levels() -> Sequence[Candidate]:
    """A score of irrational weights at every time; whole years, whole grades, 0/1."""
    beta = np.array([[np.sqrt(2) / 50, 1 / np.pi, np.sqrt(3) / 3], [0, 0, 0]])
    alone = subtract(given(told([RiskSetSums(VIEW, beta, exact_times())], COHORTS)), 1)
    return read_levels(alone.partly, LEVELS, 1).candidates


def by_bins() -> Sequence[Candidate]:
    """Bins of two or three patients at twenty coefficient vectors of two standardised columns."""
    rng = np.random.default_rng(1)
    scaled = [
        Cohort.of(
            "one", {"a": rng.normal(size=12), "b": rng.normal(size=12)}, np.arange(1.0, 13), np.ones(12, dtype=bool)
        )
    ]
    BINS_TRUTH.append(Truth(scaled))
    beta = np.vstack([np.zeros(2), rng.normal(0, 0.7, (19, 2))])
    view = View((Feature("a"), Feature("b")))
    return rebuild_bins(given(told([RiskSetSums(view, beta, TimeGrid(np.arange(2.5, 11, 2)))], scaled)), 1).candidates


BINS_TRUTH: list[Truth] = []


def by_nested_rows() -> Sequence[Candidate]:
    """Sums with and without everybody over an age that one patient alone has reached."""
    younger = replace(VIEW, rows=(Within("age", 0, 109),))
    return small_sets(given(told([Moments(v, np.zeros(3)) for v in (VIEW, younger)], alone_in_age())), 1).candidates


def alone_in_age() -> list[Cohort]:
    """The oldest training patient is older than everybody else."""
    oldest = max(COHORTS, key=lambda c: c.columns["age"][c.split == "train"].max())
    place = int(np.argmax(np.where(oldest.split == "train", oldest.columns["age"], 0)))
    age = oldest.columns["age"].copy()
    age[place] = 110
    changed = replace(oldest, columns={**oldest.columns, "age": age}, _cache={})
    return [changed if cohort is oldest else cohort for cohort in COHORTS]


def by_carriers() -> Sequence[Candidate]:
    """Products with a 0/1 column that one patient alone carries."""
    return carried(given(told([CrossMoments(VIEW, np.zeros(3))], one_carrier())), 1)


def one_carrier() -> list[Cohort]:
    found = []
    for cohort in COHORTS:
        carrier = np.zeros(cohort.patients)
        if cohort is COHORTS[0]:
            carrier[np.flatnonzero(cohort.split == "train")[3]] = 1.0
        found.append(replace(cohort, columns={**cohort.columns, "carrier": carrier}, _cache={}))
    return found


def by_dominance() -> Sequence[Candidate]:
    """A weighted mean at a coefficient of the carrier that leaves nobody else any weight."""
    point = np.array([[0.0, 0.0, 29.0]])
    grid = TimeGrid(np.array([500.0]))
    with no_rule_on_domination():
        return dominated(given(told([RiskSetSums(VIEW, point, grid, (0,))], one_carrier())), 1).candidates


def by_thresholds() -> Sequence[Candidate]:
    """Counts below every digit-coded score of age, grade and carrier."""
    coded = VIEW.then(LinearPredictor(np.array([[1000.0, 10.0, 1.0]])))
    cuts = np.arange(18_000, 110_000.0)[None, ::1] + 0.5
    return cut_apart(given(told([ScoresBelow(coded, cuts)], COHORTS)), LEVELS, 1).candidates


def by_close_cuts() -> Sequence[Candidate]:
    """Two cuts around one patient's age, a millionth apart."""
    view = replace(VIEW, columns=VIEW.columns[:1])
    below = CountsBelow(view, ("age",), np.array([109.99999]))
    return cut_apart(
        given(told([below, CountsBelow(view, ("age",), np.array([110.0]))], alone_in_age())), {}, 1
    ).candidates


CONTROLS: Mapping[str, tuple[Callable[[], Sequence[Candidate]], Callable[[], Sequence[Cohort]], int]] = {
    "subtraction": (by_subtraction, lambda: COHORTS, 90),
    "levels": (by_levels, lambda: COHORTS, 20),
    "nested rows": (by_nested_rows, alone_in_age, 1),
    "carriers": (by_carriers, one_carrier, 1),
    "dominance": (by_dominance, one_carrier, 1),
    "thresholds": (by_thresholds, lambda: COHORTS, 50),
    "close cuts": (by_close_cuts, alone_in_age, 1),
}


@pytest.mark.parametrize("attack", CONTROLS)
def test_an_attack_rebuilds_patients_from_messages_that_nothing_protects(attack: str) -> None:
    run, patients, least = CONTROLS[attack]
    assert len(Truth(patients()).determined(run())) >= least


def test_the_attack_on_bins_rebuilds_patients_of_small_bins_at_many_vectors() -> None:
    candidates = by_bins()
    assert len(BINS_TRUTH[-1].determined(candidates)) >= 6


def small_known() -> tuple[list[Cohort], Transcript, Known]:
    """Twelve patients with two columns whose every time is told at some vectors."""
    rng = np.random.default_rng(2)
    columns = {"a": rng.normal(size=12), "b": rng.normal(size=12)}
    cohorts = [Cohort.of("one", columns, np.arange(1.0, 13), np.ones(12, dtype=bool))]
    view = View((Feature("a"), Feature("b")))
    grid = TimeGrid(np.arange(2.5, 11, 2))
    beta = np.vstack([np.zeros(2), rng.normal(0, 0.7, (9, 2))])
    transcript = told([Moments(view, np.zeros(2)), RiskSetSums(view, beta, grid, tuple(range(10)))], cohorts)
    return cohorts, transcript, Known.of(cohorts, view)


def test_the_search_rebuilds_patients_whose_outcomes_are_known_from_many_vectors() -> None:
    cohorts, transcript, known = small_known()
    view = transcript.exchanges[0].query.view
    near = values_of(cohorts, known) + np.random.default_rng(0).normal(0, 0.05, (12, 2))
    found = search(transcript, known, view, near=near)
    assert len(Truth(cohorts).determined(found.candidates)) == 12


def test_the_linear_system_rebuilds_patients_whose_outcomes_are_known_from_fine_bins() -> None:
    query = RiskSetSums(VIEW, np.zeros((1, 3)), exact_times(), (0,))
    solved = solve_linear(told([query], COHORTS), Known.of(COHORTS, VIEW), VIEW)
    assert len(Truth(COHORTS).determined(solved.candidates)) > 80


# -- the control that the literature's messages give


def rebuilt(cohorts: Sequence[Cohort], names: Sequence[str]) -> float:
    """Share of patients whom WebDISCO-style messages of each site give away."""
    view = View(tuple(Feature(name) for name in names), split="all")
    messages = risk_set_messages(view, cohorts, np.zeros(view.width))
    pairs = zip(cohorts, messages, strict=True)
    found = sum(len(Truth([cohort]).determined(subtract_risk_sets(one))) for cohort, one in pairs)
    assert len(Truth(cohorts).determined(subtract_risk_sets(added(messages)))) < found
    return found / sum(cohort.patients for cohort in cohorts)


def dealt(frame: pd.DataFrame, names: Sequence[str], time: str, event: np.ndarray, place: np.ndarray) -> list[Cohort]:
    x = frame[list(names)].to_numpy(dtype=float)
    return [
        Cohort.of(
            f"site-{k}",
            {name: x[place == k, j] for j, name in enumerate(names)},
            frame[time].to_numpy(dtype=float)[place == k],
            event[place == k],
        )
        for k in np.unique(place)
    ]


def test_subtraction_rebuilds_most_of_ncctg_from_risk_set_messages() -> None:
    names = ["age", "sex", "ph.ecog", "wt.loss"]
    frame = load_lung().dropna(subset=["inst", "ph.ecog"])
    frame = frame.fillna(frame.median())
    place = pd.factorize(frame["inst"])[0]
    assert rebuilt(dealt(frame, names, "time", (frame["status"] == 1).to_numpy(), place), names) > 0.8


@pytest.mark.parametrize("sites", [3, 5])
def test_subtraction_rebuilds_four_in_five_of_lung1_from_risk_set_messages(shared_data: Path, sites: int) -> None:
    frame = pd.read_csv(shared_data / "survival" / "lung1_clinical_plus_pyradiomics.csv")
    names = [name for name in frame.columns if "__" in name]
    frame[names] = (frame[names] - frame[names].mean()) / frame[names].std()
    place = np.random.default_rng(0).integers(0, sites, len(frame))
    event = frame["deadstatus.event"].to_numpy().astype(bool)
    assert rebuilt(dealt(frame, names, "Survival.time", event, place), names) > 0.8


# -- the transcript of the example study, run with masks and gates


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    simulate(STUDY_FILE, [SITE_FILE], folder, masked=True, tell=lambda _: None)
    return folder


@pytest.fixture(scope="module")
def audit(run_folder: Path) -> Audit:
    node.register_queries()
    study = load_study(STUDY_FILE)
    transcript = replay(run_folder, study)
    assert transcript.complete
    assert transcript.session is not None
    return audit_transcript(transcript, study, cohorts=load_cohorts(load_site(SITE_FILE), study).cohorts, whole=True)


# A bin of the baseline has five leavers, of whom one alone may be censored: the sums over leavers and over deaths
# differ by that patient's exp(x beta), and a score of whole numbers has one explanation.
ATTACKS = [
    "subtraction",
    "levels",
    *("bins", "nested rows", "carriers", "dominance", "thresholds", "linear system"),
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_determines_a_patient_of_the_example_study(audit: Audit, attack: str) -> None:
    (finding,) = [one for one in audit.findings if one.attack == attack]
    assert audit.determined(finding) == 0


def test_every_attack_of_the_audit_is_held_against_the_example_study(audit: Audit) -> None:
    named = {getattr(one, "values", (one,))[0] for one in ATTACKS}
    assert {one.attack for one in audit.findings if one.bound is None} == named


def test_the_numbers_of_the_example_study_stay_below_the_policys_budget(audit: Audit) -> None:
    from ctfed.federation.policy import Policy

    assert {one.rows for one in audit.release.rows} >= {"training rows", "test rows"}
    assert all(0 < one.ratio < Policy().released_per_value for one in audit.release.rows)


# -- the command


def test_the_command_audits_a_runs_folder(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["audit", str(run_folder), "--study", str(STUDY_FILE), "--site", str(SITE_FILE)])
    written = json.loads((run_folder / "audit.json").read_text())
    assert code == (1 if written["patients_determined"] else 0)
    assert written["checked_against"] == "all patients"
    assert {one["attack"] for one in written["attacks"]} >= {"subtraction", "levels", "linear system"}
    assert f"patients determined: {written['patients_determined']}" in capsys.readouterr().out


def test_the_command_refuses_another_study(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "study.yaml"
    other.write_text(STUDY_FILE.read_text().replace("bootstrap: 1000", "bootstrap: 999"))
    assert main(["audit", str(run_folder), "--study", str(other)]) != 0
    assert "this journal has study" in capsys.readouterr().err
