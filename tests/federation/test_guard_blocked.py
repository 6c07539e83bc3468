"""A refusal that a site's own data cause is a bit about that site alone, so a run has few of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from masked_support import VIEW, Federation, moments

from ctfed.federation import Refusal
from ctfed.federation.arrays import frozen
from ctfed.federation.guard import MOST_BLOCKED
from ctfed.federation.session import Assembly
from ctfed.statistics.describe import Moments


def probe(exponent: int) -> Moments:
    """Sums that leave their range where a site's largest value is above a power of two."""
    return Moments(VIEW, frozen([0.0] * VIEW.width), (exponent,) * VIEW.width)


def rule_of(federation: Federation, number: int, query: Moments, assembly: Assembly, site: str) -> str:
    with pytest.raises(Refusal) as caught:
        federation.responders[site].answer(federation.question(number, [query], assembly))
    return caught.value.rule


def test_a_run_that_probes_the_range_of_a_site_ends_after_a_few_questions(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    assembly = federation.begin()
    site = federation.sites[0]
    for exponent in range(MOST_BLOCKED):
        assert rule_of(federation, 0, probe(-60 - exponent), assembly, site) == "fixed-point-range"
    assert rule_of(federation, 0, probe(-59), assembly, site) == "too-many-refusals"
    assert rule_of(federation, 0, moments(0.0), assembly, site) == "too-many-refusals"
    federation.restart(site)
    assert rule_of(federation, 0, probe(-58), assembly, site) == "too-many-refusals"


def test_the_same_question_asked_again_counts_once(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    assembly = federation.begin()
    site = federation.sites[0]
    for _ in range(3 * MOST_BLOCKED):
        assert rule_of(federation, 0, probe(-60), assembly, site) == "fixed-point-range"
    federation.totals(1, [moments(0.0)], assembly)
