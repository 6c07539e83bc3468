"""What the headers say about how a scan was made: kernel and contrast medium."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctfed.cohort.scans.model import Header

SHARPEST_SOFT = 45  # number in a Siemens kernel, B19f to B45f are soft and medium, from B46 on sharp
_NUMBERED = re.compile(r"[A-Z][A-Z]?[A-Z]?(\d\d)[A-Z]?(?:[\\ _/].*)?", re.IGNORECASE)
_CANON = re.compile(r"FC(\d\d)(?:[-\\ _].*)?", re.IGNORECASE)
_SOFT_WORDS = frozenset({"SOFT", "STANDARD", "STND", "DETAIL", "CHST", "CHEST", "A", "B", "C", "SB", "CB"})
_SHARP_WORDS = frozenset(
    {"LUNG", "BONE", "BONEPLUS", "EDGE", "SHARP", "D", "E", "L", "YA", "YB", "YC", "YD", "YL", "YE", "HRES"}
)

_NONE_GIVEN = re.compile(r"none|no|n|not? given|without|oe|kein[e]?|sans|sin|0", re.IGNORECASE)
_WITHOUT = re.compile(
    r"non?[ _-]?contrast|without[ _-]?(iv[ _-]?)?contrast|un-?enhanced|w/?o[ _-]?(iv[ _-]?)?contrast|\bw/?o\b|\bnativ|"
    r"\bohne\b|\bsans\b|\bsin[ _-]?(civ|contraste)|\bsenza|\bblanco\b|plain|low[ _-]?dose|(?<![a-z])c[-](?![a-z0-9])",
    re.IGNORECASE,
)
_WITH = re.compile(
    r"contrast|enhanced|(?<![a-z])(ce|cect|cta|iv|i\.v\.|km|pv|angio|arterial|venous|portal|c\+)(?![a-z])|\+c(?![a-z])",
    re.IGNORECASE,
)


def kernel_class(kernel: str) -> str:
    """'soft', 'sharp' or 'unknown', of ConvolutionKernel in the spelling of Siemens, Canon, GE or Philips."""
    text = kernel.strip().upper()
    first = text.split("\\")[0].strip()
    canon = _CANON.fullmatch(text)
    if canon:
        return "soft" if int(canon.group(1)) < 30 else "sharp"
    numbered = _NUMBERED.fullmatch(text)
    if numbered:
        return "soft" if int(numbered.group(1)) <= SHARPEST_SOFT else "sharp"
    if first in _SOFT_WORDS:
        return "soft"
    return "sharp" if first in _SHARP_WORDS else "unknown"


def contrast(headers: Sequence[Header]) -> tuple[bool | None, str]:
    """Whether contrast medium was given, and the evidence: 'agent' (ContrastBolusAgent), 'text' (descriptions), 'none'.

    An absent ContrastBolusAgent says nothing: the agent is often not filled in, and de-identification removes it.
    """
    agents = {header.contrast_agent.strip() for header in headers if header.contrast_agent.strip()}
    if agents:
        return any(not _NONE_GIVEN.fullmatch(agent) for agent in agents), "agent"
    for text in headers[0].texts if headers else ():
        words = text.replace("_", " ")
        if _WITHOUT.search(words):
            return False, "text"
        if _WITH.search(words):
            return True, "text"
    return None, "none"
