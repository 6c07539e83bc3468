"""The pooled report: what a study found over all its sites, as one page and the numbers behind it.

It is made from a results mapping, any section of which may be missing or None:

    study: name, title, sha256, endpoint {name, time_unit}
    run: ctfed_version, runner ('in-process', 'flower-simulation' or 'flower-deployment'), masked, seconds, rounds,
        bytes_up_per_site, bytes_down_per_site, versions {package: version}, started (ISO time)
    sites: names, count, notes
    cohort: splits [{split, patients, events}], features [{feature, missing, imputed_with, method, mean, sd}]
    tuning: folds, score (its name), l1_ratio, best (index of a trial), rule,
        trials [{penalizer, l1_ratio, score, score_se, nonzero (of one fit, or a mean over folds)}]
    model: penalizer, l1_ratio, ties, risk_sets ('stratified' or 'pooled'), kkt_residual, rounds, patients, events,
        warnings; coefficients and unpenalised [{feature, coef, coef_per_sd, hazard_ratio, lower, upper, se, z, p,
        robust_lower, robust_upper, robust_se, robust_z, robust_p}], where coef is per unit of the feature and
        everything else per standard deviation; what is robust comes from the sandwich covariance
    baseline: time, cumulative_hazard, survival: (points,) at the mean of every feature
    curves: groups [{name, patients, events, time, survival, lower, upper: (points,), at_risk [{time, count}]}],
        logrank {chi2, df, p}, hazard_ratio {hr, lower, upper, p}, threshold, split, note
    discrimination: split, interval (how the intervals were made), c_within {value, lower, upper, pairs},
        c_pooled {value, lower, upper, bound_lower, bound_upper, time_bins, score_bins},
        auc [{horizon, auc, lower, upper}]
    rounds: [{round, queries ['CoxDerivatives x 5', ...], bytes_down, bytes_up, seconds}]

Times are in endpoint.time_unit, intervals are 95 % intervals, bytes are those of one site. Keys beyond these are kept
in results.json and not shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ctfed.report.components import Block, Page, Section
from ctfed.report.exports import csv_tables, json_text, write_text
from ctfed.report.page import render_page
from ctfed.report.pooled_evaluation import curves_blocks, discrimination_blocks
from ctfed.report.pooled_model import baseline_blocks, model_blocks, tuning_blocks
from ctfed.report.pooled_study import cohort_blocks, head_blocks, sites_blocks
from ctfed.report.pooled_traffic import MODEL, provenance_blocks, rounds_blocks, sharing_blocks
from ctfed.report.reader import Reader, to_plain

PAGE = "report.html"
RESULTS = "results.json"

SectionBuilder = Callable[[Reader], tuple[Block, ...]]
Tables = Callable[[Reader], Mapping[str, str]]
PageBuilder = Callable[[Reader, tuple[str, ...], tuple[str, ...], str], Page]

SECTIONS: tuple[tuple[str, str, SectionBuilder], ...] = (
    ("sites", "Who took part", sites_blocks),
    ("cohort", "Cohort", cohort_blocks),
    ("model", "Model", model_blocks),
    ("tuning", "Tuning", tuning_blocks),
    ("curves", "Survival by risk group", curves_blocks),
    ("discrimination", "Discrimination", discrimination_blocks),
    ("baseline", "Predicted survival", baseline_blocks),
    ("rounds", "What left the sites", rounds_blocks),
)


def write_pooled_report(results: Mapping[str, Any], folder: Path) -> Path:
    """Write report.html, results.json and the CSV files of a pooled analysis into ``folder``; return the page's path.

    The same results give the same bytes on every machine with the same version of matplotlib.

    Args:
        results: the mapping that this module's docstring describes. Any number may be None; numpy numbers and
            arrays are welcome.
        folder: made when it is not there. Files of the same names are replaced, the page last.

    Raises:
        MalformedResults: a value has another type than its place; nothing is written then.
        OSError: ``folder`` cannot be written.
    """
    return write_report(results, folder, csv_tables, pooled_page)


def write_report(results: Mapping[str, Any], folder: Path, tables: Tables, page_of: PageBuilder) -> Path:
    """Write results.json, the CSV files that ``tables`` makes of the plain results, and last the page; its path.

    Raises:
        MalformedResults: a value has another type than its place; nothing is written then.
        OSError: ``folder`` cannot be written.
    """
    plain, not_finite = to_plain(results)
    reader = Reader(plain)
    text = json_text(plain)
    files = {RESULTS: text, **tables(reader)}
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    page = render_page(page_of(reader, not_finite, (*files,), digest))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_text(folder / name, content)
    write_text(folder / PAGE, page)
    return folder / PAGE


def pooled_page(results: Reader, not_finite: tuple[str, ...], files: tuple[str, ...], digest: str) -> Page:
    """The components of the page.

    Args:
        results: plain results, as ``to_plain`` returns them.
        not_finite: paths of numbers that were not finite and are shown as missing.
        files: names of the files beside the page, results.json first.
        digest: SHA-256 of results.json, in hexadecimal.
    """
    study = results.section("study")
    sections = [Section(key, title, build(results)) for key, title, build in SECTIONS]
    sections.append(Section("provenance", "Provenance", provenance_blocks(results, files, digest)))
    return Page(
        title=study.text("title") or study.text("name") or "Untitled study",
        subtitle="Pooled report of a federated analysis",
        head=(*head_blocks(results, not_finite), *sharing_blocks(files, MODEL)),
        sections=tuple(sections),
        footer=("Research software. Not a medical device; not for decisions about a patient.",),
    )
