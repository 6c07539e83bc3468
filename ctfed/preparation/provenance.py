"""What a run consisted of, in a file without names, dates or paths."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ctfed import __version__
from ctfed.preparation.code import installed
from ctfed.preparation.outcome import Aside, Outcome
from ctfed.preparation.patient import Plan

LIBRARIES = (
    "numpy",
    "scipy",
    "SimpleITK",
    "pydicom",
    "highdicom",
    "pyradiomics-bhklab",
    "torch",
    "nnunetv2",
    "TotalSegmentator",
    "monai",
    "pyarrow",
    "matplotlib",
)


def provenance(
    plan: Plan, dictionary: str, found: int, asides: Mapping[str, Aside], outcomes: Iterable[Outcome], partial: bool
) -> dict[str, Any]:
    """The content of provenance.json.

    Args:
        plan: of the run.
        dictionary: SHA-256 of the clinical dictionary.
        found: patients in scans or clinical data.
        asides: those without a row, by key.
        outcomes: of the patients with a row.
        partial: whether only some patients were asked for.
    """
    rows = list(outcomes)
    sources: dict[str, Counter[str]] = {}
    for outcome in rows:
        for model in outcome.provenance:
            sources.setdefault("models", Counter())[model] += 1
        for group in outcome.reasons:
            sources.setdefault("missing", Counter())[group] += 1
    return {
        "ctfed": __version__,
        "python": platform.python_version(),
        "libraries": {name: installed(name) for name in LIBRARIES},
        "code": {step: version[:16] for step, version in plan.code.items()},
        "settings": {"name": plan.settings.name, "sha256": plan.settings.sha256},
        "dictionary_sha256": dictionary,
        "models": [dict(identity) for identity in plan.identities],
        "foundation_model": None if plan.foundation is None else dict(plan.foundation),
        "partial": partial,
        "patients": {
            "found": found,
            "analysed": len(rows),
            "excluded": len(asides),
            "excluded_by_rule": dict(sorted(Counter(aside.rule for aside in asides.values()).items())),
            "masks_by_model": dict(sorted(sources.get("models", Counter()).items())),
            "missing_by_columns": dict(sorted(sources.get("missing", Counter()).items())),
        },
        "columns": len(plan.columns),
    }
