"""`ctfed predict`: a run's model on this centre's own patients, as a table that stays at the centre."""

from __future__ import annotations

import argparse
import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctfed.federation.errors import CtfedError

if TYPE_CHECKING:
    from ctfed.federation.cohort import Cohort
    from ctfed.model_file import PortableModel


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    predict = commands.add_parser(
        "predict",
        help="a run's model on this centre's own patients: a score and risks for each, in a file that stays here",
        description="Write a table with each patient's score, risk group and risk at the study's horizons. It names "
        "patients by this site's pseudonyms and must not leave the site.",
    )
    predict.add_argument("--model", type=Path, required=True, help="model.json of a run")
    predict.add_argument("--site", type=Path, required=True, help="the site's YAML file")
    predict.add_argument("--virtual", metavar="NAME", help="which site of a file with a partition")
    predict.add_argument("--out", type=Path, required=True, help="the CSV file to write")
    predict.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Run `ctfed predict`.

    Raises:
        CtfedError: in words.
    """
    from ctfed.model_file import read_model
    from ctfed.report_command import choose_site

    model, _ = read_model(options.model)
    chosen = choose_site(options.site, model.study, options.virtual)
    try:
        _write_private(options.out, risks_text(model, chosen.cohort))
    except OSError as error:
        raise CtfedError(f"{options.out} cannot be written: {error.strerror}") from error
    print(f"{options.out}: {chosen.cohort.patients} patients of {chosen.cohort.site}; this file stays at the site")
    return 0


def risks_text(model: PortableModel, cohort: Cohort) -> str:
    """CSV: pseudonym, split, score, group, and the risk at each horizon; a row per patient, in the cohort's order.

    Raises:
        Refusal: the cohort lacks a column of the model.
    """
    horizons = model.study.evaluation.horizons
    scores = model.table(cohort).values[:, 0]
    risks = model.risk(scores, np.asarray(horizons))
    kept = np.ones(cohort.patients, dtype=bool)
    for rule in model.view.rows:
        kept &= rule.keep(cohort)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    unit = model.study.endpoint.time_unit
    writer.writerow(["pseudonym", "split", "score", "group", *(f"risk at {h:g} {unit}" for h in horizons)])
    for key, split, score, risk in zip(cohort.pseudonym[kept], cohort.split[kept], scores, risks, strict=True):
        group = "" if model.threshold is None else ("higher risk" if score > model.threshold else "lower risk")
        writer.writerow([key, split, repr(float(score)), group, *(repr(float(value)) for value in risk)])
    return buffer.getvalue()


def _write_private(path: Path, text: str) -> None:
    """For the owner of the file alone, from its first byte on."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    os.replace(partial, path)
