"""What is wrong with one patient: a named fault, which sets the patient aside while the run goes on."""

from __future__ import annotations

import re

from ctfed.federation.errors import CtfedError

_RULE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class CaseFault(CtfedError):
    """One patient cannot be used.

    ``rule`` is a short kebab-case name, the same for all patients with this fault; the message is one sentence, 'found
    X, expected Y', without identifiers of the patient, paths, dates or DICOM UIDs, because both are written into
    ``exclusions.csv`` and into provenance.
    """

    def __init__(self, rule: str, sentence: str) -> None:
        if not _RULE.fullmatch(rule):
            raise ValueError(f"found rule {rule!r}, expected lower-case words joined by hyphens")
        super().__init__(sentence)
        self.rule = rule
        self.sentence = sentence

    def __reduce__(self) -> tuple[type[CaseFault], tuple[str, str]]:
        """Pickled by its two arguments, so that it comes back whole from a process of the pool."""
        return type(self), (self.rule, self.sentence)
