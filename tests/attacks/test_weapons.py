"""A server that chooses what it asks: each weapon works on sites without a gate, and then meets the real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from attack_support import (
    COLUMNS,
    Guarded,
    no_rule_on_domination,
    site_cohorts,
    study_of,
    told,
    training_view,
    with_column,
)

from ctfed.federation import Cohort, Feature, FloatArray, Query, Refusal, View
from ctfed.statistics.cox.likelihood import strata_of, value_and_gradient
from ctfed.statistics.cox.pooled import PooledGradient, RiskSetSums
from ctfed.statistics.cox.stratified import CoxDerivatives, feature_exponents
from ctfed.statistics.describe import Counts, Moments
from ctfed.statistics.standardise import Standardise
from ctfed.statistics.timegrid import TimeGrid
from ctfed.statistics.timegrid_merge import TimeCounts
from ctfed.study import Study
from server.audit.attacks.dominance import dominated
from server.audit.attacks.nested import small_sets
from server.audit.attacks.subtraction import subtract
from server.audit.patients import Candidate, Truth
from server.audit.statements import between_runs, statements, with_differences
from server.audit.transcript import Transcript

STUDY = study_of()
COHORTS = site_cohorts(STUDY)
VIEW = training_view(STUDY)
SCALED = VIEW.then(Standardise(COLUMNS, np.array([65.0, 4.5, 0.0]), np.array([9.0, 3.0, 1.0])))


def answered(folder: Path, study: Study, cohorts: Sequence[Cohort], queries: Sequence[Query]) -> Transcript | None:
    """What guarded sites tell; None when a rule refuses the round."""
    try:
        return Guarded(folder, study, list(cohorts)).transcript([queries])
    except Refusal:
        return None


# -- a bin of one, in a question that the study needs for its baseline hazard


def lonely_bin(cohorts: Sequence[Cohort]) -> TimeGrid:
    """Edges on the study's grid, of which two enclose a single death or a single censored patient."""
    rows = [(c.time[c.split == "train"], c.event[c.split == "train"]) for c in cohorts]
    time, event = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    for month in range(1, 36):
        inside = (time > month) & (time <= month + 1)
        if 1 in ((inside & event).sum(), (inside & ~event).sum()):
            edges = sorted({month, month + 1} - {0})
            return TimeGrid(np.array(edges, dtype=float))
    raise AssertionError("no month with a single death or censored patient; choose another seed")


def asked_of_a_lonely_bin() -> list[Query]:
    """The counts of months, and the weighted sums of one bin at one coefficient vector."""
    grid = lonely_bin(COHORTS)
    return [
        TimeCounts(VIEW, TimeGrid.regular(1, 36)),
        RiskSetSums(SCALED, np.array([[0.1, 0.2, 0.1], [0.0, 0.0, 0.0]]), grid, (0,)),
    ]


def test_weighted_sums_of_a_lonely_bin_are_its_patient_s_row() -> None:
    found = subtract(statements(told(asked_of_a_lonely_bin(), COHORTS)), 1).candidates
    assert len(Truth(COHORTS).determined(found)) >= 1


def test_a_gate_lets_nobody_ask_the_weighted_sums_of_a_lonely_bin(tmp_path: Path) -> None:
    transcript = answered(tmp_path, STUDY, COHORTS, asked_of_a_lonely_bin())
    found = () if transcript is None else subtract(statements(transcript), 1).candidates
    assert len(Truth(COHORTS).determined(found)) == 0


# -- one carrier of a 0/1 column, and a coefficient that leaves nobody else any weight


def one_carrier() -> list[Cohort]:
    values = {cohort.site: np.zeros(cohort.patients) for cohort in COHORTS}
    values["north"][np.flatnonzero(COHORTS[0].split == "train")[3]] = 1.0
    return with_column(COHORTS, "carrier", values)


def asked_of_a_carrier() -> list[Query]:
    points = np.array([[0.0, 0.0, 28.0], [0.0, 0.0, 0.0]])
    return [RiskSetSums(SCALED, points, TimeGrid(np.array([6.0, 12.0, 24.0])), (0,))]


def test_a_large_coefficient_turns_a_weighted_mean_into_the_carrier_s_row() -> None:
    cohorts = one_carrier()
    with no_rule_on_domination():
        found = dominated(statements(told(asked_of_a_carrier(), cohorts)), 1)
    assert found.fewest < 1 + 1e-6
    (row,) = Truth(cohorts).determined(found.candidates)
    assert np.concatenate([cohort.columns["carrier"] for cohort in cohorts])[row] == 1


def test_a_site_declines_a_coefficient_at_which_one_carrier_is_the_mean(tmp_path: Path) -> None:
    cohorts = one_carrier()
    total = told(asked_of_a_carrier(), cohorts).exchanges[0].total
    assert total["declined"].tolist() == [1, 0]
    assert not total["leaving_x"][0].any() or total["declined"][0] < len(cohorts)
    transcript = answered(tmp_path, STUDY, cohorts, asked_of_a_carrier())
    found = () if transcript is None else dominated(statements(transcript), 1).candidates
    assert len(Truth(cohorts).determined(found)) == 0


# -- extreme coefficients of a stratified fit: gradients jump by multiples of a difference between two rows


def plateaus(cohort: Cohort, view: View) -> FloatArray:
    """(k, 2) gradients that stay the same while a large coefficient vector turns: one patient is each risk set's mean.

    The gradients are those of a site without the rule on domination.
    """
    (stratum,) = strata_of(view.build(cohort), "breslow")
    angle = np.linspace(0, 2 * np.pi, 4000)
    points = 100.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found: FloatArray = value_and_gradient(stratum, points)[1]
    flat = np.abs(np.diff(found, axis=0)).max(axis=1) < 1e-12
    return np.unique(np.round(found[1:][flat], 9), axis=0)


def test_gradients_at_extreme_coefficients_differ_by_multiples_of_two_patients_difference() -> None:
    """Between two neighbouring plateaus somebody else dominates: the step is a whole number times x_a - x_b."""
    rng = np.random.default_rng(1)
    columns = {"a": rng.normal(size=12), "b": rng.normal(size=12)}
    cohort = Cohort.of("one", columns, np.arange(1.0, 13.0), np.ones(12))
    view = View((Feature("a"), Feature("b")))
    steps = plateaus(cohort, view)
    steps = (steps[:, None, :] - steps[None, :, :]).reshape(-1, 2)
    rows = view.build(cohort).values
    pairs = (rows[:, None, :] - rows[None, :, :])[~np.eye(12, dtype=bool)]
    counted = (pairs[:, None, :] * np.arange(1, 12)[:, None]).reshape(-1, 2)
    apart = np.abs(steps[:, None, :] - counted).max(axis=2).min(axis=1) < 1e-7
    assert apart.sum() >= 4


def test_sites_decline_such_coefficients_and_their_totals_say_so(tmp_path: Path) -> None:
    points = np.array([[80.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    transcript = answered(tmp_path, STUDY, COHORTS, [CoxDerivatives(SCALED, points, ())])
    assert transcript is not None
    total = transcript.exchanges[0].total
    assert total["declined"].tolist() == [3, 0]
    assert not total["gradient"][0].any()
    assert total["gradient"][1].any()


# -- weights of the server's choice


def test_sums_under_known_weights_are_a_linear_system_that_returns_every_patient() -> None:
    """Why no question takes weights: as many weighted sums as patients, such as bootstrap replicates, are the rows."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.stack(list(cohort.columns.values()), axis=1) for cohort in COHORTS])
    weights = rng.poisson(1.0, (x.shape[0], x.shape[0])).astype(float)
    rebuilt = np.linalg.solve(weights, weights @ x)
    plain = View(STUDY.features, split="all")
    found = [Candidate(plain, row, f"patient {i}") for i, row in enumerate(rebuilt)]
    assert len(Truth(COHORTS).determined(found)) == x.shape[0]


POOLED = study_of(risk_sets="pooled", min_cell=5)


def asked_with_weights(cohorts: Sequence[Cohort]) -> tuple[list[Query], float]:
    """Two gradients whose made-up hazards begin in neighbouring bins and spare the deaths of the first; and the bin."""
    grid = lonely_censored(cohorts)
    later, chosen = np.array([[0.0], [0.0], [1.0]]), np.array([[0.0], [1.0], [1.0]])
    spared = np.array([[0.0], [1.0], [0.0]])
    zero = np.zeros((1, 3))
    queries: list[Query] = [
        PooledGradient(VIEW, zero, grid, later, np.zeros((grid.bins, 1))),
        PooledGradient(VIEW, zero, grid, chosen, spared),
        TimeCounts(VIEW, TimeGrid.regular(1, 36)),
    ]
    return queries, float(grid.edges[0])


def lonely_censored(cohorts: Sequence[Cohort]) -> TimeGrid:
    rows = [(c.time[c.split == "train"], c.event[c.split == "train"]) for c in cohorts]
    time, event = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    for month in range(1, 35):
        if ((time > month) & (time <= month + 1) & ~event).sum() == 1:
            return TimeGrid(np.array([month, month + 1], dtype=float))
    raise AssertionError("no month with a single censored patient; choose another seed")


def weighed(transcript: Transcript, first: float) -> tuple[Candidate, ...]:
    """The difference of the two gradients, where the counts say that it is one patient's."""
    plain, chosen, counts = (exchange.total for exchange in transcript.exchanges)
    alone = round(float(counts["counts"][round(first), 1])) == 1
    row = plain["gradient"][0] - chosen["gradient"][0]
    return (Candidate(VIEW, row, "the only censored one of the bin"),) if alone else ()


def test_hazards_that_the_server_makes_up_are_weights() -> None:
    queries, first = asked_with_weights(COHORTS)
    found = weighed(told(queries, COHORTS), first)
    assert len(found) == 1
    assert len(Truth(COHORTS).determined(found)) == 1


def test_a_gate_does_not_take_hazards_on_faith(tmp_path: Path) -> None:
    cohorts = site_cohorts(POOLED)
    queries, first = asked_with_weights(cohorts)
    transcript = answered(tmp_path, POOLED, cohorts, queries)
    found = () if transcript is None else weighed(transcript, first)
    assert len(Truth(cohorts).determined(found)) == 0


# -- two runs that differ by one patient


def test_two_runs_with_and_without_a_patient_are_that_patient_s_row() -> None:
    query = Moments(VIEW, np.zeros(3))
    gone = int(np.flatnonzero(COHORTS[1].split == "train")[0])
    fewer = [*COHORTS]
    fewer[1] = COHORTS[1].subset(np.arange(COHORTS[1].patients) != gone)
    earlier = statements(told([query, Counts(VIEW)], COHORTS), "run 1")
    later = statements(told([query, Counts(VIEW)], fewer), "run 2")
    assert not small_sets([*earlier, *later], 1).candidates  # neither run alone
    found = small_sets(between_runs(later, earlier), 1).candidates
    (row,) = Truth(COHORTS).determined(found)
    assert row == COHORTS[0].patients + gone


# -- scales, which decide whether a sum leaves its range


def test_a_scale_that_only_one_value_exceeds_is_outside_the_study(tmp_path: Path) -> None:
    """A refusal for the range would tell that somebody's value is beyond it."""
    assert (feature_exponents(VIEW) > -40).all()
    small = replace(VIEW, columns=tuple(replace(feature, exponent=-40) for feature in VIEW.columns))
    sites = Guarded(tmp_path, STUDY, COHORTS)
    assembly = sites.begin()
    with pytest.raises(Refusal) as refused:
        sites.totals(0, [Counts(small)], assembly)
    assert refused.value.rule == "outside-study"


def test_differences_of_bins_are_looked_at_too() -> None:
    """Two questions whose bins are large, and whose difference is a bin of one."""
    time = np.sort(np.concatenate([cohort.time[cohort.split == "train"] for cohort in COHORTS]))
    edges = [float((time[k] + time[k + 1]) / 2) for k in (50, 51)]
    beta = np.zeros((1, 3))
    queries = [RiskSetSums(SCALED, beta, TimeGrid(np.array([edge])), (0,), tied=False) for edge in edges]
    transcript = told(queries, COHORTS)
    for one in queries:
        assert subtract(statements(told([one], COHORTS)), 1).candidates == ()
    found = subtract(with_differences(statements(transcript)), 1).candidates
    assert len(Truth(COHORTS).determined(found)) == 1
