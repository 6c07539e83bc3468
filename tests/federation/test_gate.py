"""The gate's rules on a round: each refuses its smallest case by name and lets the case beside it pass."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

import ctfed.statistics
from ctfed.federation import Cohort, Feature, FloatArray, Layout, Query, Refusal, Summary, View, Within
from ctfed.federation.census import Census, CensusPlan
from ctfed.federation.codec import register
from ctfed.federation.gate import Scope, StudyGate
from ctfed.federation.nominal import Nominal
from ctfed.federation.policy import Policy
from ctfed.federation.query import Exposure
from ctfed.federation.rules import question
from ctfed.federation.rules.budget import TOGETHER
from ctfed.federation.session import Opening, Session
from ctfed.federation.summary import Entry
from ctfed.statistics.combat.named import CombatReference
from ctfed.statistics.concordance import WithinSitePairs
from ctfed.statistics.cox.pooled import PooledGradient, RiskSetSums
from ctfed.statistics.cox.stratified import CoxDerivatives
from ctfed.statistics.curves import GroupCounts, StratifiedLogRank
from ctfed.statistics.describe import Counts, Moments
from ctfed.statistics.evaluation_tables import EvaluationTable
from ctfed.statistics.impute import CountsBelow, Impute, LevelCounts
from ctfed.statistics.indicators import Indicators
from ctfed.statistics.predict import LinearPredictor
from ctfed.statistics.scores import ScoresBelow, ThresholdGroup
from ctfed.statistics.standardise import Standardise
from ctfed.statistics.timegrid import TimeGrid
from ctfed.statistics.timegrid_merge import TimeCounts
from ctfed.study import load_study, scope_of
from server.commands import DEMO, EXAMPLES

NAMES = tuple(f"x{j}" for j in range(40))
TRAIN = View(tuple(Feature(name, 3) for name in NAMES[:2]))
SCORE = TRAIN.then(LinearPredictor(np.array([[0.5, -0.2]])))
ZERO = np.zeros((1, 2))

# Five folds of 20 patients with 10 events; 40 test patients with 20 events. All leave in the first two bins; 2 in a
# fold and 3 of the test split have x2, 4 and 3 lack x3. At the levels of x38 are 10, 6, 3 and 1 in a fold and
# 3, 12, 20 and 5 of the test split.
LEVELS = Nominal("x38", (0.0, 1.0, 2.0, 5.0), 0.0)
PLAN = CensusPlan(5, tuple(np.arange(1.0, 31.0).tolist()), ("x2",), ("x3",), nominal=(LEVELS,))
LATER = [0.0] * (2 * PLAN.bins - 4)
FOLD = [20.0, 10.0, *(6.0, 4.0, 4.0, 6.0), *LATER, *(2.0, 18.0), 4.0, *(10.0, 6.0, 3.0, 1.0)]
TEST = [40.0, 20.0, *(18.0, 2.0, 2.0, 18.0), *LATER, *(3.0, 37.0), 3.0, *(3.0, 12.0, 20.0, 5.0)]
CENSUS = Census(PLAN, np.array([[FOLD] * 5 + [TEST]]))


@register("test-undeclared")
@dataclass(frozen=True)
class Undeclared(Query):
    """A question that does not say what it tells."""

    view: View

    @property
    def layout(self) -> Layout:
        return {"patients": Entry(())}

    def answer(self, cohort: Cohort) -> Summary:
        return Summary(self.layout, {"patients": self.view.table(cohort).rows})


@register("test-declared")
@dataclass(frozen=True)
class Declared(Undeclared):
    """The same question, which says so."""

    @property
    def exposure(self) -> Exposure:
        return Exposure()


SCOPE = Scope(
    kinds=frozenset(
        (
            *("test-undeclared", "test-declared", "counts", "counts-below", "level-counts", "moments", "impute"),
            *("standardise", "cox-derivatives", "time-counts", "risk-set-sums", "linear-predictor", "threshold-group"),
            *("within-site-pairs", "scores-below", "evaluation-table", "group-counts", "stratified-log-rank"),
            "indicators",
        )
    ),
    columns=frozenset(Feature(name, 3) for name in NAMES),
    folds=5,
    time_widths=(1.0, 0.25),
    risk_sets="stratified",
    min_cell=5,
    indicators=frozenset(LEVELS.indicators),
)
POOLED = replace(SCOPE, risk_sets="pooled", kinds=SCOPE.kinds | {"pooled-gradient"})
FINE_STUDY = replace(SCOPE, fine_tables=True)
FINE_SITE = Policy(exceptions=("fine_evaluation_tables",))


def session(*splits: tuple[str, ...]) -> Session:
    """Sites that contribute to these splits."""
    openings = tuple(Opening(f"site-{k}", "0" * 64, "0" * 64, each, 0, "0" * 64) for k, each in enumerate(splits))
    return Session("run", "0" * 64, "0" * 64, openings)


FOUR = session(("train", "test"), ("train", "test"), ("train", "test"), ())


def grid(bins: int, width: float = 1.0) -> TimeGrid:
    return TimeGrid(width * np.arange(1.0, bins))


def cuts(count: int, view: View = SCORE, start: float = 0.0) -> ScoresBelow:
    return ScoresBelow(view, start + np.arange(count)[None, :] / 64)


def table(times: int, scores: int, view: View = SCORE) -> EvaluationTable:
    return EvaluationTable(view, grid(times), np.arange(scores - 1.0)[None, :])


def gradient(place: float = 0.0, seen: float = 0.0) -> PooledGradient:
    return PooledGradient(TRAIN, np.full((1, 2), place), grid(3), np.full((3, 1), seen), np.zeros((3, 1)))


def risks(view: View = TRAIN, points: int = 1, bins: int = 3, *, tied: bool = False) -> RiskSetSums:
    return RiskSetSums(view, np.arange(float(points))[:, None] + np.zeros((points, view.width)), grid(bins), tied=tied)


ASKED = {f"point|{name}": 1 for name in gradient().exposure.weighed}
WEIGHED = ASKED | {f"weighed|{name}": 2 for name in gradient().exposure.weighed}


@dataclass(frozen=True, eq=False)
class Case:
    """A question that is refused, and one beside it that is not."""

    rule: str
    refused: Query
    passed: Query
    policy: Policy = field(default_factory=Policy)
    scope: Scope = SCOPE
    spent: Mapping[str, int] = field(default_factory=dict)
    session: Session = FOUR


def columns(count: int, exponent: int = 3) -> View:
    return View(tuple(Feature(name, exponent) for name in NAMES[:count]))


WITH = View((Feature("x1", 3), Feature("x2", 3)))
LACKING = View((Feature("x3", 3),)).then(Impute(("x3",), np.zeros(1), ("x3",)))
CODED = View((Feature("x38", 3),))


def levels(*codes: float, view: View = CODED) -> View:
    return view.then(Indicators(("x38",), (np.array(codes, dtype=float),)))


AGREED = Policy(exceptions=("reference_batch",))
REFERENCED = replace(SCOPE, kinds=SCOPE.kinds | {"combat-reference"}, reference="south")


def reference(label: str) -> CombatReference:
    return CombatReference(TRAIN, NAMES[:2], (), label)


CASES = {
    "no exposure": Case("undeclared-query", Undeclared(TRAIN), Declared(TRAIN)),
    "another kind": Case("outside-study", gradient(), risks()),
    "another transform": Case(
        "outside-study", Counts(SCORE), Counts(TRAIN), scope=replace(SCOPE, kinds=frozenset({"counts"}))
    ),
    "another column": Case("outside-study", Counts(View((Feature("x40", 3),))), Counts(View((Feature("x39", 3),)))),
    "another scale": Case("outside-study", Counts(columns(1, exponent=-60)), Counts(columns(1))),
    "a fold too many": Case("outside-study", Counts(TRAIN.training_fold(5)), Counts(TRAIN.training_fold(4))),
    "a negative fold": Case("outside-study", Counts(TRAIN.held_out_fold(-1)), Counts(TRAIN.held_out_fold(0))),
    "folds without tuning": Case(
        "outside-study", Counts(TRAIN.training_fold(0)), Counts(TRAIN), scope=replace(SCOPE, folds=1)
    ),
    "a fold of the test split": Case("outside-study", Counts(replace(TRAIN.test(), fold=0)), Counts(TRAIN.test())),
    "all rows": Case("outside-study", Counts(replace(TRAIN, split="all")), Counts(TRAIN)),
    "a row filter": Case("outside-study", Counts(replace(TRAIN, rows=(Within("x0", 0, 1),))), Counts(TRAIN)),
    "two contributors": Case(
        "too-few-sites",
        Counts(TRAIN.test()),
        Counts(TRAIN),
        session=session(("train", "test"), ("train", "test"), ("train",), ()),
    ),
    "patients of a fold": Case(
        "too-few-patients", Counts(TRAIN.held_out_fold(0)), Counts(TRAIN.test()), policy=Policy(min_patients=21)
    ),
    "events of a fold": Case(
        "too-few-events", Counts(TRAIN.held_out_fold(0)), Counts(TRAIN.test()), policy=Policy(min_events=11)
    ),
    "34 parameters": Case(
        "too-many-parameters",
        CoxDerivatives(columns(34), np.zeros((1, 34))),
        CoxDerivatives(columns(33), np.zeros((1, 33))),
    ),
    "time by score": Case("too-many-cells", table(8, 3), table(6, 4)),
    "two by three": Case("too-many-cells", table(2, 5, SCORE.test()), table(2, 4, SCORE.test())),
    "the study's cells": Case("too-many-cells", table(6, 4), table(6, 2), scope=replace(SCOPE, min_cell=10)),
    "fine for the site alone": Case("too-many-cells", table(30, 10), table(5, 5), policy=FINE_SITE),
    "fine for the study alone": Case("too-many-cells", table(30, 10), table(5, 5), scope=FINE_STUDY),
    "fine, but no table of the evaluation": Case(
        "too-many-cells",
        risks(bins=22),
        table(30, 10),
        policy=FINE_SITE,
        scope=FINE_STUDY,
    ),
    "time by group": Case(
        "too-many-cells", GroupCounts(SCORE, grid(12), np.zeros(1)), GroupCounts(SCORE, grid(11), np.zeros(1))
    ),
    "levels": Case(
        "too-many-cells",
        LevelCounts(TRAIN, ("x0",), (np.arange(21.0),)),
        LevelCounts(TRAIN, ("x0", "x1"), (np.arange(20.0), np.arange(20.0))),
    ),
    "risk sets": Case("too-many-cells", risks(bins=22), risks(bins=21)),
    "an edge between": Case(
        "off-grid", TimeCounts(TRAIN, TimeGrid(np.array([1.0, 2.1]))), TimeCounts(TRAIN, grid(3, 0.25))
    ),
    "an edge beside": Case(
        "off-grid",
        TimeCounts(TRAIN, TimeGrid(np.array([1.0, np.nextafter(2.0, 3.0)]))),
        TimeCounts(TRAIN, TimeGrid(np.array([1.0, 2.0]))),
    ),
    "a table off the grid": Case(
        "off-grid", GroupCounts(SCORE, grid(3, 0.3), np.zeros(1)), GroupCounts(SCORE, grid(3, 0.5), np.zeros(1))
    ),
    "bins of time": Case("too-many-bins", TimeCounts(TRAIN, grid(101)), TimeCounts(TRAIN, grid(100))),
    "bins of earlier rounds": Case(
        "too-many-bins",
        TimeCounts(TRAIN, grid(4)),
        risks(),
        spent={"edges|train": 97},
    ),
    "thresholds": Case("too-many-cuts", cuts(34), cuts(33)),
    "thresholds of two scores": Case(
        "too-many-cuts",
        ScoresBelow(TRAIN.then(LinearPredictor(np.eye(2))), np.arange(34.0).reshape(2, 17)),
        ScoresBelow(TRAIN, np.arange(34.0).reshape(2, 17)),  # two raw columns have a budget each
    ),
    "thresholds of earlier rounds": Case("too-many-cuts", cuts(2), cuts(1), spent={"cuts|train|scores": 32}),
    "thresholds of a column": Case(
        "too-many-cuts",
        CountsBelow(TRAIN, ("x0",), np.zeros(1)),
        CountsBelow(TRAIN, ("x1",), np.zeros(1)),
        spent={"cuts|train|x0": 33},
    ),
    "a level is a threshold": Case(
        "too-many-cuts",
        LevelCounts(TRAIN, ("x0",), (np.arange(3.0),)),
        LevelCounts(TRAIN, ("x0",), (np.arange(2.0),)),
        spent={"cuts|train|x0": 31},
    ),
    "a threshold of a test": Case(
        "too-many-cuts",
        StratifiedLogRank(SCORE, np.zeros(1)),
        StratifiedLogRank(SCORE.test(), np.zeros(1)),
        spent={"cuts|train|scores": 33},
    ),
    "a threshold in a transform": Case(
        "too-many-cuts",
        Moments(SCORE.then(ThresholdGroup(np.zeros(1))), np.zeros(1)),
        Moments(SCORE, np.zeros(1)),
        spent={"cuts|train|scores": 33},
    ),
    "fine tables for the site alone": Case("too-many-cuts", cuts(34), cuts(33), policy=FINE_SITE),
    "fine cuts": Case(
        "too-many-cuts",
        ScoresBelow(TRAIN, np.arange(68.0).reshape(2, 34)),
        cuts(60),
        policy=FINE_SITE,
        scope=FINE_STUDY,
    ),
    "another table": Case("too-many-tables", table(5, 2), table(5, 2, SCORE.test()), spent={"tables|train": 6}),
    "a third vector": Case("too-many-points", risks(points=3), CoxDerivatives(TRAIN, np.eye(3, 2))),
    "vectors of pooled risk sets": Case(
        "too-many-points", risks(columns(12), 41), risks(columns(12), 40), scope=replace(POOLED, min_cell=10)
    ),
    "vectors of earlier rounds": Case(
        "too-many-points", risks(columns(12), 2), risks(columns(12)), scope=POOLED, spent={"points": 39}
    ),
    "as many numbers of a bin as values": Case("numbers-per-bin", risks(points=10), risks(points=9), scope=POOLED),
    "means of a bin": Case(
        "numbers-per-bin",
        RiskSetSums(TRAIN, np.arange(8.0).reshape(4, 2), grid(3), (0, 1, 2)),
        risks(points=4),
        scope=POOLED,
    ),
    "weighted columns by time": Case(
        "needs-pooled",
        RiskSetSums(TRAIN, ZERO, grid(3), (0,), tied=False),
        RiskSetSums(TRAIN, ZERO, grid(3), tied=False),
    ),
    "the risk of those who die": Case("needs-pooled", risks(tied=True), risks()),
    "two censored patients of a bin": Case("small-bin", risks(TRAIN.test(), tied=True), risks(tied=True), scope=POOLED),
    "a bin that nobody counted": Case("small-bin", RiskSetSums(TRAIN, ZERO, grid(3, 0.25), tied=False), risks()),
    "three who have a feature": Case("rare-level", CoxDerivatives(WITH.test(), ZERO), CoxDerivatives(WITH, ZERO)),
    "three who lack a value": Case("rare-level", CoxDerivatives(LACKING.test(), ZERO), CoxDerivatives(LACKING, ZERO)),
    "three at a level": Case(
        "rare-level",
        CoxDerivatives(levels(1, 2).held_out_fold(0), ZERO),
        CoxDerivatives(levels(1, 2), ZERO),
    ),
    "three at the reference": Case(
        "rare-level", CoxDerivatives(levels(1, 5).test(), ZERO), CoxDerivatives(levels(1, 2).test(), ZERO)
    ),
    "codes of a level that three are at": Case(
        "rare-level", CoxDerivatives(CODED.test(), ZERO[:, :1]), CoxDerivatives(CODED, ZERO[:, :1])
    ),
    "an indicator of a value": Case("outside-study", Counts(levels(3)), Counts(levels(5))),
    "an indicator of another column": Case(
        "outside-study",
        Counts(View((Feature("x5", 3),)).then(Indicators(("x5",), (np.array([1.0]),)))),
        Counts(levels(1)),
    ),
    "an indicator of a shifted column": Case(
        "outside-study",
        Counts(levels(1, view=CODED.then(Standardise(("x38",), np.ones(1), np.ones(1))))),
        Counts(levels(1, view=CODED.then(Impute(("x38",), np.ones(1))))),
    ),
    "another batch than the study's reference": Case(
        "published-batch", reference("north"), reference("south"), policy=AGREED, scope=REFERENCED
    ),
    "a reference to which the site has not agreed": Case(
        "published-batch", reference("south"), Counts(TRAIN), scope=REFERENCED
    ),
    "hazards at a vector of no risk sets": Case(
        "hazards-on-faith", gradient(1.0), gradient(), scope=POOLED, spent=ASKED
    ),
    "a third hazard at a vector": Case(
        "hazards-on-faith", gradient(seen=0.25), CoxDerivatives(TRAIN, ZERO), scope=POOLED, spent=WEIGHED
    ),
    "numbers": Case(  # 12 per value of 100 patients x 40 columns; 3 + 4 numbers per vector
        "released-budget",
        CoxDerivatives(TRAIN, np.zeros((2, 2))),
        CoxDerivatives(TRAIN, np.zeros((1, 2))),
        spent={"numbers|train": 48_000 - 6},
    ),
    "numbers of the same rows": Case(
        "released-budget",
        Counts(TRAIN.held_out_fold(0).then(Standardise(NAMES[:2], np.zeros(2), np.array([1.0, 1 + 1e-12])))),
        Counts(TRAIN.training_fold(0)),
        spent={"numbers|train in fold 0": 9_600 - 3},
    ),
}


def ask(case: Case, *queries: Query, spent: Mapping[str, int] | None = None) -> Mapping[str, int]:
    gate = StudyGate(case.policy, case.scope)
    return gate.check_round(queries, case.session, CENSUS, case.spent if spent is None else spent)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_rule_refuses_by_name_and_lets_its_neighbour_pass(case: Case) -> None:
    assert ask(case, case.passed)["rounds"] == 1
    with pytest.raises(Refusal) as caught:
        ask(case, case.refused)
    assert caught.value.rule == case.rule
    assert case.refused.kind in caught.value.sentence
    with pytest.raises(Refusal):
        ask(case, case.passed, case.refused)  # one of them refuses the round


def check(*queries: Query, spent: Mapping[str, int], policy: Policy | None = None) -> Mapping[str, int]:
    return StudyGate(policy or Policy(), SCOPE).check_round(queries, FOUR, CENSUS, spent)


def test_the_rounds_of_a_run_are_counted() -> None:
    few = Policy(max_rounds=2)
    spent = Counter(check(Counts(TRAIN), spent={}, policy=few))
    spent.update(check(Counts(TRAIN), spent=spent, policy=few))
    with pytest.raises(Refusal, match="too-many-rounds"):
        check(Counts(TRAIN), spent=spent, policy=few)


def test_a_study_may_want_larger_cells_than_the_site_and_not_smaller_ones() -> None:
    check(Counts(TRAIN), spent={}, policy=Policy(min_cell=5))
    with pytest.raises(Refusal, match=r"raise evaluation\.min_cell to 6") as caught:
        check(Counts(TRAIN), spent={}, policy=Policy(min_cell=6))
    assert caught.value.rule == "cell-minimum"


def test_what_was_told_before_is_not_counted_again() -> None:
    spent = Counter(check(cuts(33), table(5, 2), risks(points=2), spent={}))
    assert (spent["cuts|train|scores"], spent["tables|train"], spent["points"]) == (33, 2, 2)
    again = check(cuts(33), table(5, 2), risks(points=2), spent=spent)
    assert spent["edges|train"] == 4
    assert {name: count for name, count in again.items() if count} == {
        "rounds": 1,
        "numbers|train": again["numbers|train"],
        f"numbers|{TOGETHER}": again["numbers|train"],
    }
    with pytest.raises(Refusal, match="too-many-cuts"):
        check(cuts(1, start=0.5 + 1 / 128), spent=spent)


def test_all_scores_share_one_budget_whoever_names_their_coefficients() -> None:
    spent: Counter[str] = Counter()
    for k in range(33):
        view = TRAIN.then(LinearPredictor(np.array([[1.0, k / 1e6]])))
        spent.update(check(cuts(1, view), spent=spent))
    with pytest.raises(Refusal, match="too-many-cuts"):
        check(cuts(1, TRAIN.then(LinearPredictor(np.array([[1.0, 1.0]])))), spent=spent)


def test_equal_queries_of_a_round_are_counted_once_as_they_are_answered_once() -> None:
    one, three = check(Counts(TRAIN), spent={}), check(*[Counts(TRAIN)] * 3, spent={})
    assert one == three


def test_imputed_and_standardised_columns_keep_their_own_budget() -> None:
    view = TRAIN.then(Impute(NAMES[:2], np.zeros(2), NAMES[:1]))
    view = view.then(Standardise((*NAMES[:2], "x0 missing"), np.zeros(3), np.ones(3)))
    spent = check(CountsBelow(view, ("x1", "x0 missing"), np.zeros(2)), spent={})
    assert {name for name in spent if name.startswith("cuts|")} == {"cuts|train|x1", "cuts|train|x0 missing"}


def test_tables_of_shifted_bins_are_one_finer_table_and_end_with_the_policy_s_number() -> None:
    spent: Counter[str] = Counter()
    for shift in range(6):
        bins = TimeGrid(shift / 4 + np.array([1.0, 5.0]))
        spent.update(check(EvaluationTable(SCORE, bins, np.zeros((1, 1))), spent=spent))
    with pytest.raises(Refusal, match="too-many-tables"):
        check(EvaluationTable(SCORE, TimeGrid(np.array([2.5, 7.0])), np.zeros((1, 1))), spent=spent)


def queries_of(kind: type[Query]) -> Iterator[type[Query]]:
    for each in kind.__subclasses__():
        yield each
        yield from queries_of(each)


def test_every_rule_has_a_case() -> None:
    of_budget = {"too-many-bins", "too-many-cuts", "too-many-tables", "too-many-points", "released-budget"}
    of_budget |= {"numbers-per-bin", "hazards-on-faith"}
    assert {case.rule for case in CASES.values()} == {"undeclared-query", "outside-study", *question.RULES, *of_budget}


def test_whatever_the_example_study_may_ask_is_declared() -> None:
    for module in pkgutil.walk_packages(ctfed.statistics.__path__, "ctfed.statistics."):
        importlib.import_module(module.name)
    declared = {each._wire_name for each in queries_of(Query) if each.exposure is not Query.exposure}
    transforms = {"impute", "standardise", "linear-predictor", "threshold-group"}
    scope = scope_of(load_study(EXAMPLES / "studies" / DEMO))
    assert scope.kinds <= declared | transforms
    assert "pooled-gradient" not in scope.kinds


@pytest.mark.parametrize(
    ("query", "exposure"),
    [
        (CoxDerivatives(TRAIN, ZERO), Exposure(parameters=2)),
        (Counts(TRAIN), Exposure()),
        (Moments(TRAIN, np.zeros(2)), Exposure()),
        (WithinSitePairs(SCORE), Exposure()),
        (RiskSetSums(TRAIN, np.eye(2), grid(4)), Exposure(2, 3, {}, np.arange(1.0, 4), ("", ""), apart=True)),
        (TimeCounts(TRAIN, grid(4)), Exposure(times=np.arange(1.0, 4))),
        (table(4, 3), Exposure(cells=9, cuts={"risk-0": np.array([0.0, 1.0])}, times=np.arange(1.0, 4))),
        (
            GroupCounts(SCORE, grid(4), np.ones(1)),
            Exposure(cells=6, cuts={"risk-0": np.ones(1)}, times=np.arange(1.0, 4)),
        ),
        (StratifiedLogRank(SCORE, np.ones(1)), Exposure(cuts={"risk-0": np.ones(1)})),
        (CountsBelow(TRAIN, ("x1",), np.ones(1)), Exposure(cuts={"x1": np.ones(1)})),
        (ScoresBelow(SCORE, np.ones((1, 2))), Exposure(cuts={"risk-0": np.ones(2)})),
        (LevelCounts(TRAIN, ("x1",), (np.arange(3.0),)), Exposure(cells=3, cuts={"x1": np.arange(3.0)})),
        (LevelCounts(TRAIN, (), ()), Exposure()),
    ],
    ids=lambda value: value.kind if isinstance(value, Query) else "",
)
def test_a_query_declares_what_its_total_tells(query: Query, exposure: Exposure) -> None:
    found = query.exposure
    assert found is not None
    assert (found.parameters, found.cells, found.apart) == (exposure.parameters, exposure.cells, exposure.apart)
    assert len(found.points) == len(exposure.points)
    assert {name: list(cut) for name, cut in found.cuts.items()} == {n: list(c) for n, c in exposure.cuts.items()}
    assert _listed(found.times) == _listed(exposure.times)


def _listed(times: FloatArray | None) -> list[float] | None:
    return None if times is None else times.tolist()
