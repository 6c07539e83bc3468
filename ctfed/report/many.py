"""The pooled report of a study of many models: one page, results.json, and the CSV files beside them.

It is made from the results mapping that ``server.many.results`` describes; any section may be missing or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

from ctfed.report import wording as say
from ctfed.report.components import Block, Definitions, Headline, Page, Section, Verdict
from ctfed.report.many_evaluation import (
    best_of_tables,
    calibration_blocks,
    difference_blocks,
    forest_blocks,
    optimism_notice,
    survival_blocks,
)
from ctfed.report.many_models import (
    ensemble_blocks,
    harmonization_blocks,
    search_blocks,
    selection_blocks,
    shap_blocks,
)
from ctfed.report.many_patients import patient_blocks
from ctfed.report.many_tables import consensus_blocks, note_blocks, table_blocks
from ctfed.report.pooled import Tables, write_report
from ctfed.report.pooled_study import RUNNERS, masking_blocks, not_finite_blocks, sites_blocks
from ctfed.report.pooled_traffic import MODELS, provenance_blocks, rounds_blocks, sharing_blocks
from ctfed.report.reader import Reader

SectionBuilder = Callable[[Reader], tuple[Block, ...]]

SECTIONS: tuple[tuple[str, str, SectionBuilder], ...] = (
    ("sites", "Who took part", sites_blocks),
    ("patients", "The patients", patient_blocks),
    ("tables", "Performance of all models", table_blocks),
    ("forest", "All models at a glance", forest_blocks),
    ("survival", "Survival by risk group", survival_blocks),
    ("calibration", "Calibration and net benefit", calibration_blocks),
    ("differences", "Differences between models", difference_blocks),
    ("consensus", "Consensus", consensus_blocks),
    ("ensembles", "Ensembles", ensemble_blocks),
    ("search", "Search for penalties", search_blocks),
    ("selection", "Selected columns", selection_blocks),
    ("shap", "What moves the scores", shap_blocks),
    ("harmonization", "Harmonization", harmonization_blocks),
    ("rounds", "What left the sites", rounds_blocks),
)
RULE = (
    "A model ranks better than chance where the lower limit of its C within sites in the test patients lies above 0.5, "
    "at 95 % confidence for all models together (Bonferroni's correction); it differs from the first model where p is "
    "below 0.05 after Holm's correction for all comparisons."
)


def write_many_report(results: Mapping[str, Any], folder: Path, tables: Tables) -> Path:
    """Write report.html, results.json and the CSV files into ``folder``; return the page's path.

    Args:
        results: see ``server.many.results``.
        folder: made when it is not there. Files of the same names are replaced, the page last.
        tables: names and texts of the CSV files, made of the plain results.

    Raises:
        MalformedResults: a value has another type than its place; nothing is written then.
        OSError: ``folder`` cannot be written.
    """
    return write_report(results, folder, tables, many_page)


def many_page(results: Reader, not_finite: tuple[str, ...], files: tuple[str, ...], digest: str) -> Page:
    """The components of the page; arguments as those of ``pooled.pooled_page``."""
    study = results.section("study")
    sections = [Section(key, title, build(results)) for key, title, build in SECTIONS]
    provenance = (*provenance_blocks(results, files, digest), _seeds(study))
    sections.append(Section("provenance", "Provenance", provenance))
    return Page(
        title=study.text("title") or study.text("name") or "Untitled study",
        subtitle="Pooled report of a federated study of many models",
        head=(*_head(results, not_finite), *sharing_blocks(files, MODELS)),
        sections=tuple(sections),
        footer=("Research software. Not a medical device; not for decisions about a patient.",),
    )


def _head(results: Reader, not_finite: tuple[str, ...]) -> tuple[Block, ...]:
    models = results.rows("models")
    best = max(
        best_of_tables(results), key=lambda model: model.section("c_within").number("value") or 0.0, default=None
    )
    above = [model for model in models if _above_chance(model.section("c_within"), len(models))]
    verdict = Verdict(
        _summary(results, best, len(above)),
        (_best_headline(best), _models_headline(models), _patients_headline(results)),
        level="good" if above else "warning",
        label="Signal found" if above else "No model ranks better than chance",
        rule=RULE,
    )
    return (
        verdict,
        *masking_blocks(results.section("run")),
        *optimism_notice(models),
        *note_blocks(results),
        *not_finite_blocks(not_finite),
    )


def _above_chance(within: Reader, models: int) -> bool:
    """Whether the lower limit of log(C / (1 - C)) is above 0 at 95 % confidence for all models together."""
    value, error = within.number("value"), within.number("se")
    if value is None or error is None or not 0 < value < 1:
        return False
    reach = NormalDist().inv_cdf(1 - 0.025 / models) * error / (value * (1 - value))
    return math.log(value / (1 - value)) - reach > 0


def _summary(results: Reader, best: Reader | None, above: int) -> str:
    models, run = results.rows("models"), results.section("run")
    endpoint = results.section("study").section("endpoint").text("name") or "the endpoint"
    singles = [model for model in models if model.text("kind") == "model"]
    sites = say.counted(results.section("sites").count("count"), "site")
    ensembles = say.counted(len(models) - len(singles), "ensemble")
    sentences = [
        f"{say.counted(len(singles), 'elastic-net Cox model')} of {endpoint} and {ensembles} were fitted and compared "
        f"over {sites}; {above} of {len(models)} rank test patients better than chance."
    ]
    if best is not None:
        sentences.append(f"The highest C within sites has {best.text('title')} (table {best.text('table')}).")
    sentences.append(_against_first(results))
    sentences.append("Every number rests on sums that the sites computed; no question asked for a patient's row.")
    if run:
        how = RUNNERS.get(run.text("runner") or "", "by a runner that the results do not name")
        sentences.append(f"The study ran {how}, in {say.counted(run.count('rounds'), 'round')} of question and answer.")
    return " ".join(sentence for sentence in sentences if sentence)


def _against_first(results: Reader) -> str:
    models = results.rows("models")
    if len(models) < 2:
        return ""
    first = models[0]
    rows = [row for one in results.rows("evaluations") for row in one.rows("differences")]
    own = [row for row in rows if row.text("first") == first.text("name")]
    known = [p for row in own if (p := row.number("p_holm")) is not None]
    surer = sum(p < 0.05 for p in known)
    return f"{surer} of {len(own)} others differ from the first model, {first.text('title')}." if own else ""


def _best_headline(best: Reader | None) -> Headline:
    label = "Highest C within sites"
    if best is None:
        return Headline(label, say.MISSING, "not among the results")
    found = best.section("c_within")
    interval = say.interval(found.number("lower"), found.number("upper"))
    return Headline(label, say.fixed(found.number("value")), f"95 % CI {interval}; {best.text('title')}; test split")


def _models_headline(models: tuple[Reader, ...]) -> Headline:
    ensembles = sum(model.text("kind") == "ensemble" for model in models)
    return Headline("Models", say.whole(len(models)), f"of them {say.counted(ensembles, 'ensemble')}")


def _patients_headline(results: Reader) -> Headline:
    """Of the model with most training patients: models of subgroups have fewer."""
    sizes = [(model.section("train").count("patients") or 0, model) for model in results.rows("models")]
    if not sizes:
        return Headline("Patients", say.MISSING, "not among the results")
    _, largest = max(sizes, key=lambda item: item[0])
    train, test = largest.section("train"), largest.section("test")
    patients, events = (sum(part.count(key) or 0 for part in (train, test)) for key in ("patients", "events"))
    detail = f"{say.whole(train.count('patients'))} in training, {say.whole(test.count('patients'))} in test"
    return Headline("Patients", say.whole(patients), f"{say.counted(events, 'event')}; {detail}")


def _seeds(study: Reader) -> Block:
    projections = study.section("projections")
    items = [
        ("Seed of the searches", say.whole(study.section("search").count("seed"))),
        ("Seed of the bootstrap", say.whole(study.section("evaluation").count("seed"))),
    ]
    items += [
        (f"Seed of the projection of {name}", say.whole(projections.section(name).count("seed")))
        for name in projections.values
    ]
    return Definitions(tuple(items))
