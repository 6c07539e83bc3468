"""run_study: one study over one transport, from its file to its report; interrupted, it goes on where it was.

A study of one model and a study of many differ in their algorithm, their report and their headline alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from ctfed import __version__
from ctfed.federation.algorithm import Algorithm
from ctfed.federation.errors import CtfedError
from ctfed.federation.roster import Roster
from ctfed.report import write_pooled_report
from ctfed.report.many import write_many_report
from ctfed.study import Study, census_of, load_study
from server.assembly import Agreement, left_out
from server.conductor import Conductor, Transport
from server.journal import Journal, RoundRecord
from server.many.algorithm import ManyResult, many_algorithm
from server.many.model_card import write_model_card
from server.many.model_file import write_model_files
from server.many.results import many_results_of
from server.many.tables import table_files
from server.model_file import write_model_file
from server.privacy import epsilon, privacy_spent
from server.results import RunFacts, results_of
from server.study_algorithm import StudyResult, study_algorithm

Tell = Callable[[str], None]
R = TypeVar("R")
Make = Callable[[], Algorithm[R]]
Result = StudyResult | ManyResult


def plainly(make: Make[R]) -> Algorithm[R]:
    """The algorithm as it is."""
    return make()


def run_study(
    study_path: Path,
    out: Path,
    transport: Transport,
    journal_folder: Path,
    tell: Tell = print,
    notes: Sequence[str] = (),
    roster: Roster | None = None,
    around: Callable[[Make[Result]], Algorithm[Result]] = plainly,
) -> Result:
    """Run the study at ``study_path`` over all sites of ``transport`` and write its report into ``out``.

    Args:
        study_path: the study file, on this machine.
        out: folder of the results.
        transport: how the sites are reached; all of its sites take part.
        journal_folder: where the journal of totals is kept; one that exists is gone on with.
        tell: receives the lines of progress.
        notes: sentences on how the sites came about, for the report.
        roster: the sites' public keys; with it every answer is masked, without it this server sees each site's sums.
        around: makes the algorithm that is run of a function that begins the study's; its result must be the same.

    Raises:
        CtfedError: in words; what was journalled is kept.
    """
    study = load_study(study_path)
    started = time.perf_counter()
    header = {
        "study": study.sha256,
        "sites": list(transport.sites),
        "roster": None if roster is None else roster.digest,
        "ctfed": __version__,
    }
    journal = Journal(journal_folder / "journal.jsonl", header)
    if journal.rounds:
        tell(f"going on after round {len(journal.rounds)} of {journal.path}")
    how = UNMASKED if roster is None else MASKED
    tell(f"study {study.name} ({study.sha256[:12]}) with {len(transport.sites)} sites, {how}")
    if study.differential_privacy is not None:
        if roster is None:
            raise CtfedError("differential_privacy needs masked answers: sites add their noise before they mask")
        epsilon(study.noise, study.differential_privacy.delta, 1)  # fails now when the accountant is not installed
    agreement = None if roster is None else Agreement(study.sha256, roster.digest, census_of(study))
    conductor = Conductor(transport, journal, _reporter(tell), agreement=agreement, tell=tell)
    result = conductor.run(around(lambda: algorithm_of(study)))
    spent = [] if study.differential_privacy is None else [privacy_spent(study.differential_privacy, journal.rounds)]
    for item in spent:
        tell(str(item))
    facts = RunFacts(
        runner=transport.runner,
        sites=transport.sites,
        notes=(*notes, *map(str, spent)),
        seconds=time.perf_counter() - started,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        rounds=tuple(journal.rounds),
        masked=conductor.assembly is not None,
        left_out={} if conductor.assembly is None else left_out(conductor.assembly.session),
    )
    page = write_outputs(result, facts, out)
    tell(_headline(result, facts))
    tell(f"report: {page}")
    return result


def algorithm_of(study: Study) -> Algorithm[Result]:
    """The algorithm of a study, of one model or of many."""
    result: Result
    if study.model is None:
        result = yield from many_algorithm(study)
    else:
        result = yield from study_algorithm(study)
    return result


def write_outputs(result: Result, facts: RunFacts, out: Path) -> Path:
    """Write report, tables, model files and model card into ``out``; return the report's path."""
    if isinstance(result, ManyResult):
        page = write_many_report(many_results_of(result, facts), out, table_files)
        write_model_files(result, out)
        write_model_card(out)
        return page
    page = write_pooled_report(results_of(result, facts), out)
    write_model_file(result, out)
    write_model_card(out)
    return page


MASKED = "masked: this server learns the totals of all sites alone"
UNMASKED = "unmasked: this server can see each site's sums; for simulations and data that may be shared"


def _reporter(tell: Tell) -> Callable[[RoundRecord, bool], None]:
    def report(record: RoundRecord, replayed: bool) -> None:
        kinds = ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in sorted(record.kinds.items()))
        how = "from the journal" if replayed else f"{record.seconds:.2f} s"
        tell(f"round {record.number + 1:>3}  {how:>16}  {record.bytes_up / 1000:>8.1f} kB a site  {kinds}")

    return report


def _headline(result: Result, facts: RunFacts) -> str:
    if isinstance(result, ManyResult):
        return _headline_of_many(result, facts)
    fit, within = result.fit, result.evaluated.within
    c = "not defined" if within.value is None else f"{within.value:.3f}"
    if within.lower is not None and within.upper is not None:
        c += f" ({within.lower:.3f} to {within.upper:.3f})"
    return (
        f"{result.study.title}: {fit.patients} training patients with {fit.events} events at {len(facts.sites)} sites; "
        f"{int((fit.coefficients != 0).sum())} of {fit.view.width} features kept; C within sites on the test patients "
        f"{c}; {len(facts.rounds)} rounds"
    )


def _headline_of_many(result: ManyResult, facts: RunFacts) -> str:
    found = [
        (float(value), name)
        for one in result.evaluated
        for name, value in zip(one.names, one.paired.concordance.value, strict=True)
    ]
    value, best = max((item for item in found if math.isfinite(item[0])), default=(math.nan, "none"))
    models, ensembles = (
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((len(result.models), "model"), (len(result.study.ensembles), "ensemble"))
    )
    return (
        f"{result.study.title}: {models} and {ensembles} at "
        f"{len(facts.sites)} sites; the highest C within sites on the test patients is {value:.3f} ({best}); "
        f"{len(facts.rounds)} rounds"
    )
