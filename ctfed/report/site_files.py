"""The files of a site's report: for each edition the JSON, the page made from it, a PDF, and figures for a paper."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctfed.report.components import Chart, Page
from ctfed.report.drawing import keeping_pictures
from ctfed.report.exports import json_text, write_text
from ctfed.report.page import render_page
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
    local = _write_edition(content, folder / LOCAL, printer, vector=True)
    egress = _write_edition(site_egress(content), folder / EGRESS, printer, vector=False)
    return Written(folder / LOCAL / PAGE, folder / EGRESS / PAGE, (*local, *egress))


def _write_edition(content: Mapping[str, Any], folder: Path, printer: str | None, vector: bool) -> list[Path]:
    """One edition; ``vector`` also writes figures as SVG, which output checkers do not take."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json_text(content)
    write_text(folder / JSON, text)
    pictures: dict[str, bytes] = {}
    with keeping_pictures(pictures):
        # What is shown is what stands in the file: the page is made from the text that was just written.
        page = site_page(json.loads(text))
    write_text(folder / PAGE, render_page(page))
    files = [folder / JSON, folder / PAGE, *_write_figures(page, pictures, folder / FIGURES, vector)]
    if printer is not None:
        write_pdf(folder / PAGE, folder / PDF, printer)
        files.append(folder / PDF)
    return files


def _write_figures(page: Page, pictures: Mapping[str, bytes], folder: Path, vector: bool) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        # A figure of an earlier report that this one does not have must not stay and pass for its own.
        if old.suffix in (".png", ".svg"):
            old.unlink()
    charts = [block for section in page.sections for block in section.blocks if isinstance(block, Chart)]
    files: list[Path] = []
    captions = []
    for number, (key, chart) in enumerate(zip(pictures, charts, strict=True), 1):
        name = f"{number:02d}-{key}"
        (folder / f"{name}.png").write_bytes(pictures[key])
        files.append(folder / f"{name}.png")
        if vector:
            write_text(folder / f"{name}.svg", f'<?xml version="1.0" encoding="UTF-8"?>\n{chart.svg}\n')
            files.append(folder / f"{name}.svg")
        captions.append(f"{name}. {chart.caption}")
    write_text(folder / CAPTIONS, "\n\n".join(captions) + "\n")
    return [*files, folder / CAPTIONS]
