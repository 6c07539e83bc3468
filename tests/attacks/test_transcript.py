"""The attacker's material: recorded, replayed from a journal, and with colluding sites' sums taken away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from attack_support import site_cohorts, study_of, told, training_view

from ctfed.cohort import load_cohorts
from ctfed.federation import View, Within
from ctfed.site import load_site
from ctfed.statistics.describe import Counts, Moments
from ctfed.study import Study, load_study
from server.audit.rows import TEST, Rows
from server.audit.statements import SUMS, sizes, statements, with_differences
from server.audit.transcript import Exchange, Transcript, record, replay
from server.commands import DEMO, EXAMPLES
from server.journal import JournalError
from server.study_algorithm import study_algorithm

STUDY, SITE = EXAMPLES / "studies" / DEMO, EXAMPLES / "sites" / DEMO


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(STUDY)


@pytest.fixture(scope="module")
def recorded(study: Study) -> Transcript:
    cohorts = load_cohorts(load_site(SITE), study).cohorts
    return record(study_algorithm(study), cohorts, study.folds)[1]


def same(a: Sequence[Exchange], b: Sequence[Exchange]) -> bool:
    def bits(one: Exchange) -> bytes:
        return b"".join(array.tobytes() for array in one.total.values())

    return [(e.round, e.query.kind, bits(e)) for e in a] == [(e.round, e.query.kind, bits(e)) for e in b]


def test_a_masked_run_s_journal_replays_to_what_an_unmasked_recording_holds(
    demo_run: Path, study: Study, recorded: Transcript
) -> None:
    replayed = replay(demo_run, study)
    assert replayed.complete
    assert replayed.session is not None
    assert (replayed.rounds, replayed.folds) == (recorded.rounds, recorded.folds)
    assert same(replayed.exchanges, recorded.exchanges)


def test_a_run_that_has_not_ended_is_replayed_as_far_as_it_went(demo_run: Path, study: Study, tmp_path: Path) -> None:
    lines = (demo_run / "journal" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "journal.jsonl").write_bytes(b"".join(lines[:12]))
    part = replay(tmp_path, study)
    assert not part.complete
    assert part.rounds == 10  # behind header and assembly
    assert {one.round for one in part.exchanges} == set(range(10))


def test_a_journal_of_another_study_or_none_is_refused_in_words(demo_run: Path, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal of a run"):
        replay(tmp_path, study_of())
    assert list(tmp_path.iterdir()) == []  # nothing was begun in its place
    with pytest.raises(JournalError, match="this journal has study ="):
        replay(demo_run, study_of())
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "journal.jsonl").write_text("[1]\n")
    with pytest.raises(JournalError, match="not the header of a journal"):
        replay(tmp_path, study_of())


def test_a_question_asked_twice_is_one_statement(study: Study) -> None:
    small = study_of()
    transcript = told([Counts(training_view(small)), Counts(training_view(small))], site_cohorts(small))
    assert len(transcript.exchanges) == 2
    assert len(transcript.distinct) == 1


def test_without_its_colluders_a_total_is_the_sum_of_the_others() -> None:
    study = study_of()
    cohorts = site_cohorts(study)
    query = Moments(training_view(study), np.zeros(3))
    (whole,) = told([query], cohorts).minus(cohorts[:1]).exchanges
    (others,) = told([query], cohorts[1:]).exchanges
    assert whole.total.sites == 2
    for name, array in others.total.items():
        np.testing.assert_allclose(whole.total[name], array, rtol=1e-12)


def test_rows_know_what_lies_inside_what(study: Study) -> None:
    train = View(study.features, split="train")
    whole, fold, held = (Rows.of(view, 3) for view in (train, train.training_fold(1), train.held_out_fold(1)))
    test, everybody = Rows.of(train.test(), 3), Rows.of(View(study.features, split="all"), 3)
    assert fold.inside(whole)
    assert held.inside(whole)
    assert not fold.inside(held)
    assert test.inside(everybody)
    assert not test.inside(whole)
    assert whole.minus(fold) == held
    assert everybody.minus(whole) == test == Rows(frozenset({TEST}))
    assert [rows.label(3) for rows in (whole, fold, held, test, everybody)] == [
        "training rows",
        "training rows without fold 1",
        "fold 1",
        "test rows",
        "all rows",
    ]
    wide, narrow = (Rows.of(View((), rows=(Within("age", 50, high),)), 3) for high in (70, 60))
    assert narrow.inside(wide)
    assert not wide.inside(narrow)
    assert wide.minus(narrow).label(3) == f"{wide.label(3)} but not {narrow.label(3)}"


def test_column_sums_are_brought_back_from_every_fold_s_own_imputation_and_scale(
    recorded: Transcript, study: Study
) -> None:
    cohorts = load_cohorts(load_site(SITE), study).cohorts
    found = [one for one in with_differences(statements(recorded)) if one.kind == SUMS]
    assert len(found) >= 6  # training rows and five times without a fold, at least
    for one in found:
        raw = np.concatenate([np.stack([*c.columns.values()], axis=1)[one.rows.chosen(c)] for c in cohorts])
        order = [list(cohorts[0].columns).index(feature.name) for feature in one.query.view.columns]
        np.testing.assert_allclose(one.arrays["count"], (~np.isnan(raw[:, order])).sum(axis=0))
        np.testing.assert_allclose(one.arrays["sum"], np.nansum(raw[:, order], axis=0), rtol=1e-9)
        np.testing.assert_allclose(one.arrays["squares"], np.nansum(raw[:, order] ** 2, axis=0), rtol=1e-9)


def test_sizes_of_folds_follow_from_differences(recorded: Transcript, study: Study) -> None:
    cohorts = load_cohorts(load_site(SITE), study).cohorts
    for rows, count in sizes(with_differences(statements(recorded))).items():
        assert count == sum(int(rows.chosen(cohort).sum()) for cohort in cohorts)
