"""What a server and some sites know together. Nothing is promised of all sites but one; it is measured and said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ctfed.cohort import load_cohorts
from ctfed.federation import Cohort
from ctfed.site import load_site
from ctfed.study import Study, load_study
from server.audit.findings import attack_transcript, attack_with_outcomes
from server.audit.patients import Truth
from server.audit.report import levels_of
from server.audit.transcript import Transcript, replay
from server.commands import DEMO, EXAMPLES


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(EXAMPLES / "studies" / DEMO)


@pytest.fixture(scope="module")
def cohorts(study: Study) -> tuple[Cohort, ...]:
    return load_cohorts(load_site(EXAMPLES / "sites" / DEMO), study).cohorts


@pytest.fixture(scope="module")
def transcript(demo_run: Path, study: Study) -> Transcript:
    return replay(demo_run, study)


def determined(transcript: Transcript, study: Study, patients: Sequence[Cohort]) -> int:
    """Patients whom the attacks on a transcript determine."""
    findings, _ = attack_transcript(transcript, [levels_of(study)])
    return len(Truth(patients).determined(*(one.candidates for one in findings)))


def test_one_colluding_site_helps_the_server_to_nobody(
    transcript: Transcript, study: Study, cohorts: tuple[Cohort, ...]
) -> None:
    for index, site in enumerate(cohorts):
        others = [*cohorts[:index], *cohorts[index + 1 :]]
        assert determined(transcript.minus([site]), study, others) == 0, site.site


def test_all_sites_but_one_hold_that_one_s_sums(
    transcript: Transcript, study: Study, cohorts: tuple[Cohort, ...]
) -> None:
    """The masks protect a sum of sites, and the rest here is one site's own: small enough to be taken apart."""
    victim = min(cohorts, key=lambda cohort: cohort.patients)
    left = transcript.minus([cohort for cohort in cohorts if cohort is not victim])
    assert {exchange.total.sites for exchange in left.exchanges} == {1}
    for exchange in left.exchanges[::7]:
        for name, array in exchange.query.answer(victim).items():
            np.testing.assert_allclose(exchange.total[name], array, rtol=0, atol=1e-9 * max(1.0, np.abs(array).max()))
    assert determined(left, study, [victim]) >= 1
    known = attack_with_outcomes(left, [victim])
    train = int((victim.split == "train").sum())
    assert known[-1].bound == train  # and whoever knows their outcomes has all of them


def test_a_site_below_its_minimum_added_nothing_that_could_be_taken_away(
    transcript: Transcript, cohorts: tuple[Cohort, ...]
) -> None:
    counts = next(exchange for exchange in transcript.exchanges if exchange.query.kind == "counts")
    part = transcript.minus([cohorts[0]], contributes=lambda cohort, view: False)
    same = next(exchange for exchange in part.exchanges if exchange.query.kind == "counts")
    assert same.total["patients"] == counts.total["patients"]
    assert same.total.sites == counts.total.sites
