"""The leak figures: what transcripts of whole studies give away to the named attacks, beside an unprotected control.

    python benchmarks/leak_figures.py [ncctg] [lung1-3] [lung1-5] [geo] [--deep] [--json FILE]

Every study runs with masks and the default policy of a site. 'determined' counts patients of whom an attack knows
every value that the model uses to a millionth, from the transcript alone; the control is the subtraction attack on
WebDISCO-style messages (S0 and S1 at every event time, at beta = 0) of the same patients, site by site and added up.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import survival_data
from paper_study import paper_cohorts

from ctfed import node
from ctfed.cohort import assign_folds, assign_split, load_cohorts
from ctfed.federation import Algorithm, Cohort, Feature, View
from ctfed.federation.errors import CtfedError
from ctfed.federation.policy import Policy
from ctfed.federation.responder import Responder
from ctfed.federation.wire import Answer, Question
from ctfed.site import load_site
from ctfed.study import DAYS_PER_MONTH, Study, census_of, load_study
from server.assembly import Agreement
from server.audit.attacks.subtraction import added, risk_set_messages, subtract_risk_sets
from server.audit.patients import Truth
from server.audit.report import Audit, as_mapping, as_text, audit_transcript
from server.audit.transcript import Exchange, Transcript, recording
from server.commands import DEMO, EXAMPLES
from server.conductor import Conductor
from server.journal import Journal
from server.many.algorithm import many_algorithm
from server.simulate import simulated_guards
from server.study_algorithm import study_algorithm

TUNING = {"folds": 5, "penalizers": {"count": 30}}


@dataclass(frozen=True)
class Case:
    """A study and its sites; ``control`` names the columns that the control attack is shown, () for all."""

    name: str
    study: Study
    cohorts: tuple[Cohort, ...]
    control: tuple[str, ...] = ()


class _Sites:
    """A transport to guarded responders in this process."""

    runner = "in-process"

    def __init__(self, responders: Mapping[str, Responder]) -> None:
        self.sites = tuple(responders)
        self._responders = responders

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        return {site: self._responders[site].answer(question) for site, question in questions.items()}


def transcript_of(case: Case, policy: Policy) -> Transcript:
    """The transcript of the study, run with masks and gates."""
    node.register_queries()
    by_site = {cohort.site: cohort for cohort in case.cohorts}
    with tempfile.TemporaryDirectory() as folder:
        roster, guards = simulated_guards(by_site, case.study, Path(folder), policy)
        sites = _Sites({site: Responder(cohort, guards[site]) for site, cohort in by_site.items()})
        agreement = Agreement(case.study.sha256, roster.digest, census_of(case.study))
        journal = Journal(Path(folder) / "journal.jsonl", {})
        conductor = Conductor(sites, journal, agreement=agreement, tell=lambda _: None)
        exchanges: list[Exchange] = []
        conductor.run(recording(_algorithm(case.study), exchanges))
        assert conductor.assembly is not None
        session = conductor.assembly.session
    return Transcript(tuple(exchanges), case.study.folds, len(journal.rounds), True, session)


def _algorithm(study: Study) -> Algorithm[Any]:
    return many_algorithm(study) if study.model is None else study_algorithm(study)


def control(case: Case) -> tuple[float, float]:
    """Share of patients whom subtraction rebuilds from each site's risk-set sums, and from their totals."""
    names = list(case.control or case.study.used)
    complete = [_filled(cohort, names) for cohort in case.cohorts]
    view = View(tuple(Feature(name) for name in names), split="all")
    truth = Truth(complete)
    messages = risk_set_messages(view, complete, np.zeros(view.width))
    each = sum(
        len(Truth([cohort]).determined(subtract_risk_sets(one))) for cohort, one in zip(complete, messages, strict=True)
    )
    return each / truth.patients, len(truth.determined(subtract_risk_sets(added(messages)))) / truth.patients


def _filled(cohort: Cohort, names: Sequence[str]) -> Cohort:
    """Missing values at the site's median: such messages need complete columns."""
    columns = {name: np.where(np.isnan(x := cohort.columns[name]), np.nanmedian(x), x) for name in names}
    return replace(cohort, columns=columns, _cache={})


# -- the cases


def ncctg() -> Case:
    """The demo, with its tuning."""
    study = load_study(EXAMPLES / "studies" / DEMO)
    return Case("NCCTG, 10 virtual sites", study, load_cohorts(load_site(EXAMPLES / "sites" / DEMO), study).cohorts)


def lung1(sites: int) -> Case:
    """90 radiomic features; a test split that leaves 273 training patients outside every fold (0.33 a parameter)."""
    data = survival_data.load("lung1").standardised()
    rng = np.random.default_rng(0)
    place = rng.integers(0, 3, data.time.size)
    if sites == 5:  # the second draw of the same generator
        place = rng.integers(0, 5, data.time.size)
    study = _study("lung1", data.names, data.x, fraction=0.15, width=2)
    return Case(f"LUNG1, {sites} sites", study, _cohorts(study, data, place, data.time / DAYS_PER_MONTH))


def paper() -> Case:
    """The study of 47 models on made cohorts of the paper's size; the control sees clinical and tumour columns."""
    study = load_study(EXAMPLES / "studies" / "pixels_to_prognosis.yaml")
    cohorts = tuple(paper_cohorts(study))
    return Case("paper, 47 models", study, cohorts, (*study.names_of("clinical"), *study.names_of("tumour_texture")))


def geo() -> Case:
    """Seven real cohorts."""
    names = ["age", "male", "stage", "squamous"]
    data = survival_data.load("geo", names)
    study = _study("geo", names, data.x, fraction=0.3)
    place = pd.factorize(data.centre)[0]
    return Case("GEO, 7 sites", study, _cohorts(study, data, place, data.time))


CASES: dict[str, Callable[[], Case]] = {
    "ncctg": ncctg,
    "lung1-3": lambda: lung1(3),
    "lung1-5": lambda: lung1(5),
    "geo": geo,
    "paper": paper,
}


def _study(name: str, names: Sequence[str], x: np.ndarray, fraction: float, width: int = 1) -> Study:
    """A tuned study; months are cut into bins of ``width``."""
    variables: dict[str, Any] = {}
    for column, values in zip(names, x.T, strict=True):
        low, high = float(np.floor(np.nanmin(values))) - 1, float(np.ceil(np.nanmax(values))) + 1
        variables[column] = {"type": "continuous", "range": (low, high), "impute": "none"}
        if set(np.unique(values)) <= {0.0, 1.0}:
            variables[column] = {"type": "binary", "range": (0, 1), "impute": "none"}
    return Study.model_validate(
        {
            "ctfed_study": 1,
            "name": name,
            "title": name,
            "endpoint": {"name": "overall survival", "time_unit": "months"},
            "variables": variables,
            "model": {"features": tuple(names)},
            "tuning": TUNING,
            "split": {"test_fraction": fraction},
            "evaluation": {"horizons": (24, 60), "time_bin": width, "min_cell": 5, "bootstrap": 10},
            "time_grid": {"width": width, "end": 60 if width > 1 else 72},
        }
    )


def _cohorts(study: Study, data: survival_data.Survival, place: np.ndarray, time: np.ndarray) -> tuple[Cohort, ...]:
    found = []
    for index in range(int(place.max()) + 1):
        rows = np.flatnonzero((place == index) & (time > 0))
        keys, event = [str(row) for row in rows], data.event[rows]
        secret = f"fixture of site {index}".encode()
        fraction = study.split.test_fraction
        assert fraction is not None
        split = assign_split(keys, event, secret, study.name, fraction)
        fold = assign_folds(keys, event, split, secret, study.name, study.folds)
        columns = {name: data.x[rows, j] for j, name in enumerate(data.names)}
        site = f"site-{index}"
        found.append(Cohort.of(site, columns, time[rows], event, split=split, fold=fold, pseudonym=np.array(keys)))
    return tuple(found)


# -- the table


def row(case: Case, audit: Audit, shares: tuple[float, float], seconds: float) -> str:
    """One line of the table."""
    transcript = sum(one.knows == "transcript" for one in audit.findings)
    outcomes = sum(audit.determined(one) for one in audit.findings if one.knows == "outcomes")
    bounds = [f"{one.bound}" for one in audit.findings if one.bound is not None]
    assert audit.truth is not None
    found = len(audit.truth.determined(*(one.candidates for one in audit.findings if one.knows == "transcript")))
    together, largest = audit.release.splits[0], audit.largest
    assert largest is not None
    return (
        f"| {case.name} | {sum(c.patients for c in case.cohorts)} | {len(case.study.used)} "
        f"| {shares[0]:.1%} | {shares[1]:.1%} | {found} ({transcript} attacks) | {outcomes} "
        f"| {bounds[0] if bounds else 'too large'} | {largest.ratio:.2f} ({largest.rows}) | {together.ratio:.2f} "
        f"| {audit.rounds} | {seconds:.0f} s |"
    )


HEAD = (
    "| study | patients | columns | control, sites | control, totals | determined | with outcomes | bound "
    "| numbers per value, largest rows | training rows together | rounds | time |\n" + "|---" * 12 + "|"
)


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description="the leak figures of whole studies")
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="all by default")
    parser.add_argument("--deep", action="store_true", help="also the search from random starts")
    parser.add_argument("--details", action="store_true", help="also every attack's line")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    lines, figures = [HEAD], {}
    for name in options.cases or CASES:
        started = time.perf_counter()
        case = CASES[name]()
        try:
            transcript = transcript_of(case, Policy())
        except CtfedError as error:
            lines.append(f"| {case.name} | refused: {error} |")
            continue
        audit = audit_transcript(
            transcript, case.study, cohorts=case.cohorts, whole=True, deep=options.deep, tell=print
        )
        shares = control(case)
        figures[name] = {**as_mapping(audit), "control_sites": shares[0], "control_totals": shares[1]}
        lines.append(row(case, audit, shares, time.perf_counter() - started))
        if options.details:
            print("\n".join(as_text(audit)))
    print("\n".join(lines))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
