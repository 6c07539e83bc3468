"""What lies beside the egress edition of a site's report for the output checker: figures' data and a checker's files.

Made from the files of the edition and its JSON alone, never from the local edition.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctfed import __version__
from ctfed.airlock import CHECKSUMS, CONFIG, CRATE, RESULTS, Output, acro_results, checksums, crate, json_bytes, sha256
from ctfed.report.components import Chart
from ctfed.report.exports import csv_text

DATA, DISCLOSURE = "data", "disclosure.json"
COMMAND = "ctfed report"
RULES = (
    "Every number is an aggregate over patients of one site; none is one patient's.",
    "A count is 0 or at least the smallest cell, and so is what can be worked out from it and its neighbours.",
    "A statistic is over at least that many patients with, and without, the event.",
    "There are no quantiles, extremes, exact times, identifiers, paths, pictures of scans, or digests of the cohort.",
)


def figure_data(charts: Mapping[str, Chart]) -> dict[str, bytes]:
    """``data/NAME.csv`` of each figure: the numbers that it was drawn from, as the page prints them."""
    return {
        f"{DATA}/{name}.csv": csv_text([column.name for column in chart.data.columns], chart.data.rows).encode()
        for name, chart in charts.items()
    }


def checker_files(
    content: Mapping[str, Any], files: Mapping[str, bytes], charts: Mapping[str, Chart]
) -> dict[str, bytes]:
    """The checker's files: relative name -> bytes.

    Args:
        content: the egress edition.
        files: everything else in the folder, figures' data included: relative name -> bytes.
        charts: the figures by the names of their files.
    """
    site, made, minimum = str(content["site"]["name"]), str(content["made"]), int(content["minimum"])
    outputs = _outputs(files, charts, minimum)
    found = {RESULTS: json_bytes(acro_results(outputs, made)), CONFIG: json_bytes(_config(minimum))}
    found |= checksums({**files, **found})
    found[DISCLOSURE] = json_bytes(_disclosure(content, {**files, **found}))
    about = crate(
        {**files, **found},
        others=(),
        name=f"validation report of {site}",
        description=f"how a model of the study {content['study']['name']} does at {site}: aggregates alone",
        at=made,
        site=site,
        action=COMMAND,
        results=sorted(files),
    )
    return {**found, CRATE: json_bytes(about)}


def _outputs(files: Mapping[str, bytes], charts: Mapping[str, Chart], minimum: int) -> list[Output]:
    """The report as one output, and one for each figure with its data."""
    method = {"method": "aggregates of one site", "smallest_cell": minimum}
    figures = []
    for name, chart in charts.items():
        own = tuple(one for one in sorted(files) if one.endswith((f"/{name}.png", f"/{name}.csv")))
        figures.append(Output(name, own, COMMAND, chart.caption, method))
    rest = tuple(sorted(set(files).difference(*(one.files for one in figures))))
    summary = f"validation report; every cell is 0 or at least {minimum}"
    return [Output("report", rest, COMMAND, summary, method, RULES), *figures]


def _config(minimum: int) -> dict[str, object]:
    """The thresholds under ACRO's names, where the report has the same."""
    return {
        "safe_threshold": minimum,
        "survival_safe_threshold": minimum,
        "zeros_are_disclosive": False,
        "federated": False,
        "blocked_extensions": [".svg", ".gph"],
        "suppress": True,
    }


def _disclosure(content: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, object]:
    return {
        "ctfed_disclosure": 1,
        "in_words": list(RULES),
        "smallest_cell": content["minimum"],
        "site": content["site"]["name"],
        "study": content["study"]["sha256"],
        "made": content["made"],
        "withheld": _withheld(content),
        "tools": {"ctfed": __version__, "numpy": np.__version__, "python": platform.python_version()},
        "files": {name: sha256(value) for name, value in sorted(files.items()) if not name.startswith(CHECKSUMS)},
    }


def _withheld(content: Mapping[str, Any]) -> list[str]:
    """Places of the edition that hold nothing: not shown for their few patients, or not there at all."""
    found: list[str] = []

    def look(value: Any, path: str) -> None:
        if value is None:
            found.append(path)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                look(item, f"{path}.{key}" if path else str(key))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for place, item in enumerate(value):
                look(item, f"{path}[{place}]")

    look(content, "")
    return found
