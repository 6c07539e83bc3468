"""`ctfed report`: a site's own validation report of a run; several centres' released reports, or two runs, compared."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctfed.federation.errors import CtfedError

if TYPE_CHECKING:
    from ctfed.cohort.clinical import PartitionedCohorts
    from ctfed.federation.cohort import Cohort
    from ctfed.site import Site
    from ctfed.study import Study

SMALLEST_MINIMUM = 10  # patients of whatever the egress edition shows, unless the study or the site wants more


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    report = commands.add_parser(
        "report",
        help="how a run's model does on this centre's own patients; or centres, or two runs, beside each other",
        description="Write this centre's validation report, as pages, JSON, PDF and figures: OUT/local for its own "
        "eyes, OUT/egress with aggregates alone. With --compare: two runs beside each other. With --centres: what "
        "centres have released (egress/report.json of each), pooled with random effects.",
    )
    report.add_argument("--site", type=Path, help="the site's YAML file")
    report.add_argument("--results", type=Path, help="results.json of the run, with model.json beside it")
    report.add_argument("--model", type=Path, help="the model's file (default: model.json beside the results)")
    report.add_argument("--study", type=Path, help="the study's YAML file, if it shall be checked against the model's")
    report.add_argument("--virtual", metavar="NAME", help="which site of a file with a partition")
    report.add_argument("--rows", choices=("test", "train", "all"), default="test", help="(default: test)")
    report.add_argument("--ledger", type=Path, help="folder of the site's ledger (default: as the site file says)")
    report.add_argument("--minimum", type=int, help="fewest patients of what leaves (default: 10, or the study's)")
    report.add_argument("--no-pdf", action="store_true", help="write no PDF")
    report.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"), help="results.json of two runs")
    report.add_argument(
        "--centres", type=Path, nargs="+", metavar="REPORT", help="egress/report.json of three centres or more"
    )
    report.add_argument("--out", type=Path, required=True, help="folder for the report")
    report.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Run `ctfed report`.

    Raises:
        CtfedError: in words.
    """
    if options.compare is not None:
        return _compare(options)
    if options.centres is not None:
        return _centres(options)
    if options.site is None or options.results is None:
        raise CtfedError("ctfed report: found no --site or no --results, expected both, --compare or --centres")
    return _report(options)


def _report(options: argparse.Namespace) -> int:
    from ctfed.model_file import FILE, read_model
    from ctfed.report.site_content import site_content
    from ctfed.report.site_files import EGRESS, LOCAL, write_site_report
    from ctfed.report.site_pdf import NO_PRINTER, pdf_printer
    from ctfed.report.site_rows import SiteRows

    results, digest = read_results(options.results)
    path = options.model or options.results.parent / FILE
    if not path.is_file() and (folder := options.results.parent / "models").is_dir():
        names = ", ".join(sorted(file.name for file in folder.glob("*.json")))
        raise CtfedError(f"--model: found none, expected one of the files in {folder}: {names}")
    model, model_digest = read_model(path)
    if model.study.sha256 != results["study"].get("sha256"):
        raise CtfedError(f"{path}: found a model of another study than that of {options.results}, expected the same")
    if options.study is not None:
        _check_study(options.study, model.study.sha256)
    chosen = choose_site(options.site, model.study, options.virtual)
    rows = SiteRows(chosen.cohort, model, options.rows)
    facts = _facts(options, chosen, results, {"results.json": digest, path.name: model_digest})
    content = site_content(rows, facts)
    printer = None if options.no_pdf else pdf_printer()
    try:
        written = write_site_report(content, options.out, printer)
    except OSError as error:
        raise CtfedError(f"{options.out} cannot be written: {error.strerror}") from error
    # Some platforms show what a job prints: no path and no number of this site is in it.
    print(f"{chosen.cohort.site}: the report is written into the folder of --out")
    print(f"for this site's eyes: {LOCAL}/{written.local.name}")
    print(f"may leave with the check of outputs: {EGRESS}")
    if printer is None and not options.no_pdf:
        print(NO_PRINTER)
    return 0


def _facts(options: argparse.Namespace, chosen: Chosen, results: Mapping[str, Any], digests: dict[str, str]) -> Any:
    from ctfed.report.site_content import SiteFacts
    from ctfed.report.site_description import read_prepared

    prepare = chosen.site.prepare
    virtual = chosen.site.partition is not None
    minimum = max(SMALLEST_MINIMUM, chosen.min_cell) if options.minimum is None else options.minimum
    if minimum < max(3, chosen.min_cell):
        raise CtfedError(
            f"--minimum: found {minimum}, expected at least {max(3, chosen.min_cell)}, the study's min_cell"
        )
    return SiteFacts(
        results=results,
        digests=digests,
        excluded=chosen.loaded.exclusions,
        prepared=None if prepare is None or not chosen.site.data.prepared else read_prepared(prepare.local),
        ledger=_ledger(options, chosen),
        virtual=virtual,
        minimum=minimum,
        model="" if chosen.study.model is not None or options.model is None else options.model.stem,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        others=_others(options, chosen.study),
    )


def _others(options: argparse.Namespace, study: Study) -> Any:
    """The models that a study of many left beside its results."""
    from ctfed.report.site_models import ModelFolder

    folder = options.results.parent / "models"
    return ModelFolder(folder if study.model is None and folder.is_dir() else None, study.sha256)


def _ledger(options: argparse.Namespace, chosen: Chosen) -> Path | None:
    """The ledger that was named, the site file's, or the one that a simulation left beside its results."""
    from ctfed.federation.ledger import FILE

    if options.ledger is not None:
        if not (options.ledger / FILE).is_file():
            raise CtfedError(f"--ledger: found no {FILE} in {options.ledger}, expected the folder of a site's ledger")
        return Path(options.ledger)
    trust = chosen.site.trust
    folder = trust.ledger if trust is not None else options.results.parent / "sites" / chosen.cohort.site
    return folder if (folder / FILE).is_file() else None


@dataclass(frozen=True)
class Chosen:
    """One cohort of a site file.

    Attributes:
        site: the file.
        loaded: all of its cohorts.
        cohort: the one that is meant.
        study: of the model.
    """

    site: Site
    loaded: PartitionedCohorts
    cohort: Cohort
    study: Study

    @property
    def min_cell(self) -> int:
        """Fewest patients of a cell, as the study has it."""
        return self.study.evaluation.min_cell


def choose_site(path: Path, study: Study, virtual: str | None) -> Chosen:
    """The cohort of a site file that is meant.

    Raises:
        CtfedError: a file with a partition and no name of one of its sites, or the other way round.
    """
    from ctfed.cohort import load_cohorts
    from ctfed.site import load_site

    site = load_site(path)
    loaded = load_cohorts(site, study)
    names = [cohort.site for cohort in loaded.cohorts]
    if site.partition is None and virtual is not None:
        raise CtfedError(f"--virtual: found {virtual!r}, expected none: {path} describes one real site")
    if site.partition is not None and virtual not in names:
        raise CtfedError(f"--virtual: found {virtual!r}, expected one of the sites of {path}: {', '.join(names)}")
    place = names.index(virtual) if virtual is not None else 0
    return Chosen(site, loaded, loaded.cohorts[place], study)


def read_results(path: Path) -> tuple[dict[str, Any], str]:
    """The content of a results.json, and its SHA-256 (hex).

    Raises:
        CtfedError: it cannot be read, or is something else.
    """
    try:
        raw = path.read_bytes()
        content = json.loads(raw)
    except OSError as error:
        raise CtfedError(
            f"{path}: found no readable file ({error.strerror}), expected results.json of a run"
        ) from error
    except ValueError as error:
        raise CtfedError(f"{path}: found no JSON ({error}), expected results.json of a run") from error
    if not isinstance(content, dict) or not isinstance(content.get("study"), dict):
        raise CtfedError(f"{path}: found another kind of file, expected results.json of a run")
    return content, hashlib.sha256(raw).hexdigest()


def _check_study(path: Path, expected: str) -> None:
    from ctfed.study import load_study

    found = load_study(path).sha256
    if found != expected:
        raise CtfedError(f"{path}: found a study of SHA-256 {found[:12]}, expected the model's, {expected[:12]}")


def _compare(options: argparse.Namespace) -> int:
    from ctfed.report.site_compare import write_comparison

    first, second = (read_results(path)[0] for path in options.compare)
    names = tuple(str(path.parent.name or path.name) for path in options.compare)
    if names[0] == names[1]:
        names = ("first run", "second run")
    print(write_comparison((names[0], first), (names[1], second), options.out))
    return 0


def _centres(options: argparse.Namespace) -> int:
    from ctfed.report.centres import centres_content, read_released
    from ctfed.report.centres_page import write_centres

    released = read_released(options.centres)
    content = centres_content(released, datetime.now(UTC).isoformat(timespec="seconds"))
    try:
        print(write_centres(content, options.out)[0])
    except OSError as error:
        raise CtfedError(f"{options.out} cannot be written: {error.strerror}") from error
    return 0
