"""The files of a site's report: for each edition the JSON, the page made from it, a PDF, and figures for a paper.

Beside the edition that may leave stand the data of its figures and what an output checker's tools read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctfed.airlock import CHECKSUMS
from ctfed.report.components import Chart, Page
from ctfed.report.drawing import keeping_pictures
from ctfed.report.drawing_values import svg_file
from ctfed.report.exports import json_text, write_text
from ctfed.report.page import render_page
from ctfed.report.site_airlock import DATA, checker_files, figure_data
from ctfed.report.site_egress import site_egress
from ctfed.report.site_page import site_page
from ctfed.report.site_pdf import write_pdf

LOCAL, EGRESS = "local", "egress"
JSON, PAGE, PDF, FIGURES, CAPTIONS = "report.json", "report.html", "report.pdf", "figures", "captions.txt"


@dataclass(frozen=True)
class Written:
    """What was written: the pages of both editions, and every file."""

    local: Path
    egress: Path
    files: tuple[Path, ...]


def write_site_report(content: Mapping[str, Any], folder: Path, printer: str | None) -> Written:
    """Write both editions of a site's report: ``folder/local`` stays, ``folder/egress`` may leave.

    Args:
        content: of ``site_content``.
        folder: made when it is not there; files of the same names are replaced.
        printer: see ``site_pdf.pdf_printer``; None writes no PDF.

    Raises:
        OSError: ``folder`` cannot be written.
        CtfedError: the printer failed.
    """
    local = _write_edition(content, folder / LOCAL, printer, leaves=False)
    egress = _write_edition(site_egress(content), folder / EGRESS, printer, leaves=True)
    return Written(folder / LOCAL / PAGE, folder / EGRESS / PAGE, (*local, *egress))


def _write_edition(content: Mapping[str, Any], folder: Path, printer: str | None, leaves: bool) -> list[Path]:
    """One edition. What ``leaves`` has neither scripts nor vector files, which output checkers do not take."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json_text(content)
    write_text(folder / JSON, text)
    pictures: dict[str, bytes] = {}
    vector: dict[str, bytes] = {}
    with keeping_pictures(pictures, None if leaves else vector):
        # What is shown is what stands in the file: the page is made from the text that was just written.
        page = site_page(json.loads(text))
    write_text(folder / PAGE, render_page(page, scripts=not leaves))
    files = [folder / JSON, folder / PAGE, *_write_figures(page, pictures, vector, folder / FIGURES)]
    (folder / PDF).unlink(missing_ok=True)  # that of an earlier report, where this one has none
    if printer is not None:
        write_pdf(folder / PAGE, folder / PDF, printer)
        files.append(folder / PDF)
    return [*files, *_write_for_checkers(json.loads(text), page, pictures, files, folder)] if leaves else files


def _write_for_checkers(
    content: Mapping[str, Any], page: Page, pictures: Mapping[str, bytes], files: Sequence[Path], folder: Path
) -> list[Path]:
    """The data of each figure, and what output checkers' tools read."""
    charts = dict(zip(_names(pictures), _charts(page), strict=True))
    data = figure_data(charts)
    written = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files} | data
    beside = data | checker_files(content, written, charts)
    for part in (DATA, CHECKSUMS):
        shutil.rmtree(folder / part, ignore_errors=True)  # of an earlier report
    for name, value in beside.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(value)
    return [folder / name for name in beside]


def _names(pictures: Mapping[str, bytes]) -> list[str]:
    """Names of the figures' files, in the order of the page."""
    return [f"{number:02d}-{key}" for number, key in enumerate(pictures, 1)]


def _charts(page: Page) -> list[Chart]:
    return [block for section in page.sections for block in section.blocks if isinstance(block, Chart)]


def _write_figures(page: Page, pictures: Mapping[str, bytes], vector: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Of each figure the PNG and, where ``vector`` has its PDF, that and the SVG; the captions beside them."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        # A figure of an earlier report that this one does not have must not stay and pass for its own.
        if old.suffix in (".png", ".svg", ".pdf"):
            old.unlink()
    files: list[Path] = []
    captions = []
    for name, key, chart in zip(_names(pictures), pictures, _charts(page), strict=True):
        (folder / f"{name}.png").write_bytes(pictures[key])
        files.append(folder / f"{name}.png")
        if key in vector:
            write_text(folder / f"{name}.svg", svg_file(chart.svg))
            (folder / f"{name}.pdf").write_bytes(vector[key])
            files += [folder / f"{name}.svg", folder / f"{name}.pdf"]
        captions.append(f"{name}. {chart.caption}")
    write_text(folder / CAPTIONS, "\n\n".join(captions) + "\n")
    return [*files, folder / CAPTIONS]
