"""The page of a site's report, from its JSON and from nothing else: the same content gives the same page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ctfed.report.components import Block, Page, Section
from ctfed.report.reader import Reader
from ctfed.report.site_sections import (
    acquisition_blocks,
    cohort_blocks,
    head_blocks,
    segmentation_blocks,
    table_one_blocks,
)
from ctfed.report.site_sections_decision import consensus_blocks, decision_blocks
from ctfed.report.site_sections_harmonization import harmonization_blocks
from ctfed.report.site_sections_model import (
    baseline_blocks,
    calibration_blocks,
    discrimination_blocks,
    risk_group_blocks,
)
from ctfed.report.site_sections_more import (
    checklist_blocks,
    explanation_blocks,
    ledger_blocks,
    provenance_blocks,
    subgroup_blocks,
)

SECTIONS: tuple[tuple[str, str, Callable[[Reader], tuple[Block, ...]]], ...] = (
    ("cohort", "Cohort", cohort_blocks),
    ("table-one", "Table 1", table_one_blocks),
    ("acquisition", "Acquisition", acquisition_blocks),
    ("segmentation", "Segmentation", segmentation_blocks),
    ("harmonization", "Harmonization", harmonization_blocks),
    ("discrimination", "Discrimination", discrimination_blocks),
    ("calibration", "Calibration", calibration_blocks),
    ("baseline", "Baseline of this site", baseline_blocks),
    ("survival", "Survival by risk group", risk_group_blocks),
    ("decision", "Decision curve", decision_blocks),
    ("consensus", "Consensus", consensus_blocks),
    ("explanation", "Explanation", explanation_blocks),
    ("subgroups", "Subgroups", subgroup_blocks),
    ("ledger", "What left this site", ledger_blocks),
    ("provenance", "Provenance", provenance_blocks),
    ("checklists", "Reporting guidelines", checklist_blocks),
)


def site_page(content: Mapping[str, Any]) -> Page:
    """The components of the page of either edition.

    Raises:
        MalformedResults: a value has another type than its place.
    """
    reader = Reader(content, "report")
    site = reader.section("site").text("name") or "unnamed"
    title = reader.section("study").text("title") or reader.section("study").text("name") or "Untitled study"
    edition, model = reader.text("edition"), reader.section("site").text("model")
    title = f"{title}, model {model}" if model else title
    return Page(
        title=f"{site}: {title}",
        subtitle=f"Validation report of one site, {edition} edition",
        head=head_blocks(reader),
        sections=tuple(Section(key, name, build(reader)) for key, name, build in SECTIONS),
        footer=("Research software. Not a medical device; not for decisions about a patient.",),
    )
