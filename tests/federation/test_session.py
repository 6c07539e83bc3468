"""Session and census: what all sites agree on, and counts that nobody can change on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masked_support import (
    FOLDS,
    SESSION,
    STUDY,
    VIEW,
    Federation,
    SmallSiteGate,
    all_masks,
    opening,
    site_cohorts,
)

from ctfed.federation import Cohort, MalformedMessage, Refusal, View, pool
from ctfed.federation.census import Census, CensusPlan, add_census, open_census, sealed_count
from ctfed.federation.codec import Decoder, Encoder, canonical_json, digest
from ctfed.federation.masking import Masks
from ctfed.federation.session import (
    Assembly,
    LedgerMark,
    Opening,
    SealedCount,
    Session,
    added_seals,
)

SITES = ("site-00", "site-01", "site-02")
SPLITS = ("train", "test")
PLAN = CensusPlan(FOLDS)


def session_of(openings: Sequence[Opening], run: str = "run-1") -> Session:
    return Session.of(run, STUDY, "7" * 64, openings)


class Sealed:
    """The census of some cohorts, sealed without guards."""

    def __init__(self, cohorts: Sequence[Cohort], splits: Sequence[tuple[str, ...]] | None = None) -> None:
        told = splits or [SPLITS] * len(cohorts)
        self.session = session_of([opening(c.site, splits=s) for c, s in zip(cohorts, told, strict=True)])
        self.masks = all_masks(len(cohorts), digest(self.session))
        self.counts = tuple(
            sealed_count(cohort, one, PLAN, masks, digest(self.session))
            for cohort, one, masks in zip(cohorts, self.session.openings, self.masks, strict=True)
        )

    @property
    def assembly(self) -> Assembly:
        return Assembly.of(self.session, self.counts)

    def open(self, assembly: Assembly, site: int = 0, plan: CensusPlan = PLAN) -> Census:
        return open_census(assembly, self.masks[site], plan, self.counts[site])


@pytest.fixture
def sealed() -> Sealed:
    return Sealed(site_cohorts())


# -- the census


def test_every_site_opens_the_same_counts(sealed: Sealed) -> None:
    everyone = pool(site_cohorts())
    for site in range(3):
        census = sealed.open(sealed.assembly, site)
        for fold in range(FOLDS):
            rows = (everyone.split == "train") & (everyone.fold == fold)
            assert census.table[0, fold].tolist() == [rows.sum(), everyone.event[rows].sum()]
        rows = everyone.split == "test"
        assert census.table[0, -1].tolist() == [rows.sum(), everyone.event[rows].sum()]


def all_views() -> list[View]:
    folds = (None, *range(FOLDS), FOLDS, -1)
    return [
        replace(VIEW, split=split, fold=fold, held_out=held_out)
        for split in ("train", "test", "all")
        for fold in folds
        for held_out in (False, True)
        if fold is not None or not held_out
    ]


@pytest.mark.parametrize("view", all_views(), ids=lambda view: f"{view.split}-{view.fold}-{view.held_out}")
def test_the_census_of_a_view_is_what_its_tables_hold(sealed: Sealed, view: View) -> None:
    tables = [view.table(cohort) for cohort in site_cohorts()]
    expected = (sum(table.rows for table in tables), sum(int(table.event.sum()) for table in tables))
    assert sealed.open(sealed.assembly).of(view) == expected


@given(st.lists(st.integers(0, 40), min_size=3, max_size=8), st.integers(0, 1000))
def test_the_census_of_any_sites_is_that_of_their_pool(patients: list[int], seed: int) -> None:
    cohorts = site_cohorts(patients, seed)
    sealed = Sealed(cohorts)
    census = sealed.open(sealed.assembly, len(patients) - 1)
    for view in all_views():
        rows = view.table(pool(cohorts))
        assert census.of(view) == (rows.rows, int(rows.event.sum()))


def test_a_site_below_its_minimum_counts_nothing_and_adds_nothing(tmp_path: Path) -> None:
    cohorts = site_cohorts((40, 30, 25, 6))
    federation = Federation(tmp_path, cohorts, SmallSiteGate())
    assembly = federation.begin()
    assert assembly.session.openings[3].splits == ()
    larger = Sealed(cohorts[:3])
    for split in (*SPLITS, "all"):
        view = replace(VIEW, split=split)
        assert assembly.session.contributors(view) == SITES
        found = add_census([count.numbers for count in assembly.counts], PLAN).of(view)
        assert found == larger.open(larger.assembly).of(view)


def test_train_and_test_and_all_tell_nothing_of_a_site_that_has_no_test_patients() -> None:
    """'train' plus 'test' minus 'all' must be zero, or it is the sums of the sites that are not in all three."""
    cohorts = [*site_cohorts((40, 30, 25)), site_cohorts((1, 1, 1, 20), test=0.0)[3]]
    told = [SPLITS, SPLITS, SPLITS, ("train",)]
    sealed = Sealed(cohorts, told)
    total = {split: np.zeros(2) for split in ("train", "test", "all")}
    for split, sums in total.items():
        view = replace(VIEW, split=split)
        for cohort in cohorts:
            if cohort.site in sealed.session.contributors(view):
                table = view.table(cohort)
                sums += [table.rows, table.values[:, 0].sum()]
        assert sealed.open(sealed.assembly).of(view)[0] == sums[0]
    np.testing.assert_allclose(total["train"] + total["test"], total["all"], rtol=1e-12)


def test_one_sites_count_is_masked(sealed: Sealed) -> None:
    values = np.abs(sealed.assembly.counts[0].numbers.astype(float))
    assert (values > 2.0**52).mean() > 0.9  # in the clear the limbs of these counts are below 2**23 and zero


@pytest.mark.parametrize("site", [0, 1, 2])
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_count_that_was_changed_on_the_way_is_refused_by_every_site(sealed: Sealed, site: int, victim: int) -> None:
    """Also the site's own: adding patients that nobody holds would lift every threshold."""
    numbers = sealed.assembly.counts[victim].numbers.copy()
    numbers[0] += 1000 * 2**16  # 1,000 more patients in the first fold
    masked = list(sealed.assembly.counts)
    masked[victim] = replace(masked[victim], limbs=numbers.astype("<i8").tobytes().hex())
    with pytest.raises(Refusal) as refused:
        sealed.open(replace(sealed.assembly, counts=tuple(masked)), site)
    assert refused.value.rule == "census-seal"


def test_a_seal_that_was_changed_is_refused(sealed: Sealed) -> None:
    counts = list(sealed.counts)
    counts[1] = replace(counts[1], seals=("0" * 64, counts[1].seals[1]))
    assembly = Assembly.of(sealed.session, counts)
    with pytest.raises(Refusal, match="census of another site"):
        sealed.open(assembly, 0)
    assert sealed.open(assembly, 2).of(VIEW) == sealed.open(sealed.assembly).of(VIEW)  # not the seal for this one


def test_counts_that_were_swapped_between_sites_are_refused(sealed: Sealed) -> None:
    first, second, third = sealed.counts
    swapped = (replace(second, site="site-00"), replace(first, site="site-01"), third)
    for site in range(3):
        with pytest.raises(Refusal) as refused:
            sealed.open(Assembly.of(sealed.session, swapped), site)
        assert refused.value.rule == "census-seal"


def test_seals_that_were_swapped_between_receivers_are_refused(sealed: Sealed) -> None:
    counts = tuple(replace(count, seals=count.seals[::-1]) for count in sealed.counts)
    for site in range(3):
        with pytest.raises(Refusal) as refused:
            sealed.open(Assembly.of(sealed.session, counts), site)
        assert refused.value.rule == "census-seal"


def test_a_count_from_another_session_is_refused(sealed: Sealed) -> None:
    cohorts = site_cohorts()
    openings = (replace(sealed.session.openings[0], nonce="9" * 64), *sealed.session.openings[1:])
    other = Session("run-1", STUDY, "7" * 64, openings)
    masks = all_masks(3, digest(other))
    replayed = sealed_count(cohorts[1], other.openings[1], PLAN, masks[1], digest(other))
    with pytest.raises(Refusal) as refused:
        sealed.open(Assembly.of(sealed.session, (sealed.counts[0], replayed, sealed.counts[2])))
    assert refused.value.rule == "census-seal"


def test_sites_of_different_sessions_do_not_add_up(sealed: Sealed) -> None:
    """What the server sees, who has no seals to check."""
    other = all_masks(3, SESSION)
    counts = [count.numbers for count in sealed.assembly.counts[:2]]
    stranger = sealed_count(site_cohorts()[2], sealed.session.openings[2], PLAN, other[2], digest(sealed.session))
    with pytest.raises(Refusal) as refused:
        add_census([*counts, stranger.masked.numbers], PLAN)
    assert refused.value.rule == "census-sum"


@pytest.mark.parametrize("folds", [1, FOLDS - 1, FOLDS + 1, 10])
def test_a_census_of_another_number_of_folds_is_malformed(sealed: Sealed, folds: int) -> None:
    with pytest.raises(MalformedMessage, match=f"the census of this study has {4 * (folds + 1)} limbs"):
        sealed.open(sealed.assembly, 0, CensusPlan(folds))


def test_a_site_that_has_another_key_than_the_roster_says_is_found() -> None:
    """Its seals, and its masks, are worth nothing to the others."""
    from masked_support import private_keys, roster_of

    cohorts, keys = site_cohorts(), private_keys(4)
    right = roster_of({site: keys[site] for site in SITES})
    impostor = roster_of({**{site: keys[site] for site in SITES}, "site-02": keys["site-03"]})
    session = session_of([opening(site) for site in SITES])
    masks = [
        Masks(
            site,
            keys["site-03"] if site == "site-02" else keys[site],
            impostor if site == "site-02" else right,
            digest(session),
        )
        for site in SITES
    ]
    counts = tuple(
        sealed_count(cohort, one, PLAN, mask, digest(session))
        for cohort, one, mask in zip(cohorts, session.openings, masks, strict=True)
    )
    with pytest.raises(Refusal) as refused:
        open_census(Assembly.of(session, counts), masks[0], PLAN, counts[0])
    assert refused.value.rule == "census-seal"


@pytest.mark.parametrize("altered", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("site", range(4))
def test_seals_of_counts_in_any_other_number_do_not_add_up(site: int, altered: tuple[int, ...]) -> None:
    """Two changed counts are no better hidden in one sum of seals than one; nor is a seal that is used twice."""
    sealed = Sealed(site_cohorts((40, 30, 25, 20)))
    masked = list(sealed.assembly.counts)
    for victim in altered:
        masked[victim] = replace(masked[victim], limbs=masked[(victim + 1) % 4].limbs)
    with pytest.raises(Refusal) as refused:
        sealed.open(replace(sealed.assembly, counts=tuple(masked)), site)
    assert refused.value.rule == "census-seal"


def test_the_seal_of_a_site_needs_every_other_one(sealed: Sealed) -> None:
    """Without one of them, with one twice, or with another receiver's, it opens nothing."""
    first, second = sealed.counts[1].seals[0], sealed.counts[2].seals[0]  # those for site-00
    assert sealed.assembly.seals[0] == added_seals([first, second]) == added_seals([second, first])
    others = (first, second, "0" * 64, added_seals([first, second, first]), *sealed.assembly.seals[1:])
    for seal in others:
        with pytest.raises(Refusal) as refused:
            sealed.open(replace(sealed.assembly, seals=(seal, *sealed.assembly.seals[1:])))
        assert refused.value.rule == "census-seal"


# -- what a session is


def test_a_session_says_each_mark_once() -> None:
    mark, other = LedgerMark("site-00", 3, "8" * 64), LedgerMark("site-00", 4, "8" * 64)
    session = session_of(
        [opening("site-00"), opening("site-01", seen=(other,)), opening("site-02", seen=(mark, other))]
    )
    assert session.marks == (mark, other)
    assert not any(one.seen for one in session.openings)
    for marks in ((other, mark), (mark, mark)):
        with pytest.raises(ValueError, match="each mark once and in order"):
            replace(session, marks=marks)
    with pytest.raises(ValueError, match="none in its openings"):
        replace(session, openings=(opening("site-00", seen=(mark,)), *session.openings[1:]))


@pytest.mark.parametrize("sites", [10, 40])
def test_what_every_site_gets_grows_with_the_sites_and_not_with_their_square(sites: int) -> None:
    def size(count: int) -> int:
        names = [f"hospital-{index:04}" for index in range(count)]
        marks = [LedgerMark(name, 7, "8" * 64) for name in names]
        session = session_of([opening(name, seen=tuple(m for m in marks if m.site != name)) for name in names])
        counts = [SealedCount(name, "0" * 160, ("0" * 64,) * (count - 1)) for name in names]
        return len(canonical_json(Encoder().body(Assembly.of(session, counts))))

    assert size(4 * sites) < 4.01 * size(sites)


def test_the_session_changes_with_everything_that_a_site_said() -> None:
    base = session_of([opening(site) for site in SITES])
    changes: list[dict[str, object]] = [
        {"nonce": "9" * 64},
        {"cohort": "9" * 64},
        {"splits": ("train",)},
        {"splits": ()},
        {"entries": 1},
        {"head": "9" * 64},
        {"seen": (LedgerMark("site-00", 3, "8" * 64),)},
    ]
    digests = {digest(base), digest(replace(base, run="run-2")), digest(replace(base, study="6" * 64))}
    digests.add(digest(replace(base, roster="6" * 64)))
    digests |= {digest(session_of([*base.openings[:2], opening("site-02", **change)])) for change in changes}
    assert len(digests) == 4 + len(changes)


def test_an_assembly_travels_whole(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.begin("run-1")
    assembly = federation.begin("run-2")  # its marks say where the ledgers stood
    assert assembly.session.marks
    body = Encoder().body(assembly)
    again = Decoder(np.zeros(0)).build(body, Assembly, "assembly")
    assert again == assembly
    assert again.session_digest == assembly.session_digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nonce": "9" * 63}, "64 hexadecimal"),
        ({"cohort": "G" * 64}, "64 hexadecimal"),
        ({"head": ""}, "64 hexadecimal"),
        ({"splits": ("test", "train")}, "splits"),
        ({"splits": ("all",)}, "splits"),
        ({"entries": -1}, "number >= 0"),
    ],
)
def test_an_opening_that_cannot_be_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        opening("site-00", **change)


@pytest.mark.parametrize("mark", [("a b", 0, "0" * 64), ("site", -1, "0" * 64), ("site", 0, "0" * 63)])
def test_a_mark_of_a_ledger_that_cannot_be_is_refused(mark: tuple[str, int, str]) -> None:
    with pytest.raises(ValueError, match="a mark of a ledger"):
        LedgerMark(*mark)


@pytest.mark.parametrize("site", ["", "a|b", "a/b", "../x", "x" * 65])
def test_an_opening_names_a_site(site: str) -> None:
    with pytest.raises(ValueError, match="names its site"):
        opening(site)


@pytest.mark.parametrize("run", ["", "a/b", "..", "a" * 65, "run\n1"])
def test_a_run_has_a_name_that_may_be_a_folder(run: str) -> None:
    with pytest.raises(ValueError, match="a run's name"):
        session_of([opening("site-00")], run)


def test_a_session_has_one_opening_per_site_in_order() -> None:
    for names in (("b", "a"), ("a", "a"), ()):
        with pytest.raises(ValueError, match="one opening per site"):
            session_of([opening(name) for name in names])


def test_an_assembly_has_the_counts_and_seals_of_its_session(sealed: Sealed) -> None:
    with pytest.raises(ValueError, match="one census per site"):
        Assembly.of(sealed.session, [replace(one, seals=one.seals[:1]) for one in sealed.counts[:2]])
    with pytest.raises(ValueError, match="one census per site"):
        Assembly.of(sealed.session, sealed.counts[::-1])
    with pytest.raises(ValueError, match="sealed for every other site"):
        Assembly.of(sealed.session, (*sealed.counts[:2], replace(sealed.counts[2], seals=sealed.counts[2].seals[:1])))
    for seals in (sealed.assembly.seals[:2], ("0" * 63, *sealed.assembly.seals[1:]), ()):
        with pytest.raises(ValueError, match="one seal of 64 hexadecimal digits for every site"):
            replace(sealed.assembly, seals=seals)


@pytest.mark.parametrize("limbs", ["", "0" * 15, "G" * 16, "A" * 16])
def test_a_sealed_count_is_whole_numbers_in_hexadecimal(limbs: str) -> None:
    with pytest.raises(ValueError, match="whole numbers of 8 bytes"):
        SealedCount("site-00", limbs, ())
