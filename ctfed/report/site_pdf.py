"""A page as PDF, by what is installed: WeasyPrint, or a Chromium on this machine. Neither reaches for a network."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from importlib import import_module
from pathlib import Path

from ctfed.federation.errors import CtfedError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120
NO_PRINTER = (
    "no PDF was made: neither a Chromium nor the package 'weasyprint' with Debian's libpangoft2-1.0-0 is installed; "
    "any browser prints the page"
)


def pdf_printer() -> str | None:
    """Path of a browser, 'weasyprint', or None when neither works here."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path is not None:
            return path
    try:
        import_module("weasyprint")
    except (ImportError, OSError):  # OSError: the package is there, the libraries that it loads are not
        return None
    return "weasyprint"


def write_pdf(page: Path, path: Path, printer: str) -> None:
    """Print an HTML page into a PDF file.

    Args:
        page: the HTML file.
        path: of the PDF; replaced.
        printer: what ``pdf_printer`` found.

    Raises:
        CtfedError: the printer failed.
    """
    # Paper can be neither unfolded nor sorted.
    unfolded = page.read_text(encoding="utf-8").replace("<details>", "<details open>")
    unfolded = unfolded.replace("<table data-sortable>", "<table>")
    if printer == "weasyprint":
        import_module("weasyprint").HTML(string=unfolded).write_pdf(str(path))
        return
    with tempfile.TemporaryDirectory(prefix="ctfed-print-") as profile:
        copy = Path(profile) / page.name
        copy.write_text(unfolded, encoding="utf-8")
        command = [
            *(printer, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "--no-pdf-header-footer"),
            "--generate-pdf-document-outline",
            *(f"--print-to-pdf={path.resolve()}", copy.as_uri()),
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise CtfedError(f"{printer} did not print {page} within {SECONDS} s") from error
    if done.returncode != 0 or not path.is_file():
        raise CtfedError(f"{printer} could not print {page} (exit code {done.returncode})")
