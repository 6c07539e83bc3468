"""A site answers what a person has approved there, masked, and nothing else."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from ctfed import node, trust
from ctfed.approval_page import QUESTIONS, kinds_of, objections, stages
from ctfed.cohort import load_cohort
from ctfed.federation import View
from ctfed.federation.codec import _classes
from ctfed.federation.errors import CtfedError, Refusal
from ctfed.federation.guard import Guard
from ctfed.federation.ledger import FILE, read_ledger
from ctfed.federation.policy import Policy
from ctfed.federation.query import Query
from ctfed.federation.roster import Roster, read_roster
from ctfed.federation.wire import Invitation, encode_question
from ctfed.keys import MASK_KEY, NODE_KEY, NODE_PUBLIC, PUBLIC, make_site_keys, read_public_keys
from ctfed.site import Site, load_site
from ctfed.statistics.describe import Counts
from ctfed.study import Study, load_study, scope_of
from server.simulate import simulate

SHIPPED = Path(__file__).parents[1] / "site_config"
STUDY = SHIPPED / "studies" / "ncctg_lung.yaml"
SITES = ("north", "south", "west")
COLUMNS = ("age", "sex", "ecog", "karnofsky", "karnofsky_patient", "calories", "weight_loss")


def table(patients: int, seed: int = 0) -> str:
    """A clinical table of the study's columns; a longer one begins with the patients of a shorter one."""
    rng = np.random.default_rng(seed)
    rows = [",".join(("patient_id", "time", "status", *COLUMNS))]
    for number in range(patients):
        values = [rng.integers(30, 900), number % 2, rng.integers(40, 85), rng.integers(0, 2), rng.integers(0, 3)]
        values += [10 * rng.integers(5, 11), 10 * rng.integers(5, 11), rng.integers(300, 1500), rng.integers(-10, 30)]
        rows.append(",".join([f"patient-{number}", *map(str, values)]))
    return "\n".join(rows) + "\n"


@dataclass
class Centre:
    """The files of the site 'north', whose peers are 'south' and 'west'."""

    folder: Path

    def write(self, **changes: object) -> None:
        document = {
            "ctfed_site": 1,
            "site": "north",
            "data": {"csv": "clinical.csv"},
            "columns": {"id": "patient_id", "time": "time", "event": "status"},
            "time_unit": "days",
            "secret": "site.secret",
            "trust": {"key": "keys/mask.key", "roster": "roster.json", "ledger": "ledger"},
            **changes,
        }
        content = {key: value for key, value in document.items() if value is not None}
        (self.folder / "site.yaml").write_text(yaml.safe_dump(content))

    def limits(self, **values: object) -> None:
        """A policy file that the site file names."""
        (self.folder / "policy.yaml").write_text(yaml.safe_dump({"ctfed_policy": 1, **values}))
        paths = {"key": "keys/mask.key", "roster": "roster.json", "ledger": "ledger", "policy": "policy.yaml"}
        self.write(trust=paths)

    @property
    def site(self) -> Site:
        return load_site(self.folder / "site.yaml")

    @property
    def roster(self) -> Roster:
        return read_roster(self.folder / "roster.json")

    def approve(self, study: Study) -> None:
        trust.approve(self.site, study, trust.propose(self.site, study).roster)

    def guard(self, study: Study) -> Guard:
        guard = trust.guard_of(self.site, study)
        assert guard is not None
        return guard

    def open(self, study: Study, run: str) -> None:
        """Begin a run, as the site's node does when it is invited."""
        invitation = Invitation(run, study.sha256, self.roster.digest)
        self.guard(study).open(invitation, load_cohort(self.site, study))


@pytest.fixture
def centre(tmp_path: Path) -> Centre:
    keys = {site: make_site_keys(tmp_path / ("keys" if site == "north" else site), site) for site in SITES}
    Roster({site: key.mask for site, key in keys.items()}).write(tmp_path / "roster.json")
    (tmp_path / "clinical.csv").write_text(table(40))
    made = Centre(tmp_path)
    made.write()
    return made


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Study]:
    """``study({'section.key': value})``: the shipped study, changed; None removes a key."""

    def make(changes: dict[str, object] | None = None) -> Study:
        document = yaml.safe_load(STUDY.read_text())
        for key, value in (changes or {}).items():
            *path, last = key.split(".")
            here = document
            for part in path:
                here = here[part]
            if value is None:
                del here[last]
            else:
                here[last] = value
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(document))
        return load_study(tmp_path / "study.yaml")

    return make


# -- keys


def test_a_site_makes_its_keys_once_and_sends_public_halves_alone(tmp_path: Path) -> None:
    made = make_site_keys(tmp_path / "keys", "north")
    folder = tmp_path / "keys"
    assert {path.name for path in folder.iterdir()} == {MASK_KEY, NODE_KEY, NODE_PUBLIC, PUBLIC}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE((folder / name).stat().st_mode) == 0o600 for name in (MASK_KEY, NODE_KEY))
    assert set(json.loads((folder / PUBLIC).read_text())) == {"ctfed_keys", "site", "mask", "supernode"}
    assert read_public_keys(folder / PUBLIC) == made
    (folder / NODE_PUBLIC).unlink()
    assert make_site_keys(folder, "north") == made
    assert (folder / NODE_PUBLIC).read_text().strip() == made.supernode
    assert made.supernode.startswith("ecdsa-sha2-nistp384 ")


def test_the_fingerprint_is_what_every_roster_shows(centre: Centre) -> None:
    assert read_public_keys(centre.folder / "keys" / PUBLIC).fingerprint == centre.roster.fingerprint("north")


def test_a_folder_holds_the_keys_of_one_site(tmp_path: Path) -> None:
    make_site_keys(tmp_path, "north")
    with pytest.raises(CtfedError, match=r"public\.json: found the keys of 'north', expected those of 'south'"):
        make_site_keys(tmp_path, "south")
    with pytest.raises(CtfedError, match="a site's name has 1 to 64"):
        make_site_keys(tmp_path / "other", "nor/th")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ctfed_keys": 2}, "begins with 'ctfed_keys': 1"),
        ({"site": "no/rth"}, "a site's name"),
        ({"site": 7}, "the texts 'site' and 'supernode'"),
        ({"mask": "AAAA"}, "32 bytes in base64"),
        ({"supernode": "no key"}, "not in OpenSSH's form"),
    ],
)
def test_public_keys_that_are_none_are_refused_in_words(tmp_path: Path, change: dict[str, object], words: str) -> None:
    make_site_keys(tmp_path, "north")
    path = tmp_path / PUBLIC
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CtfedError, match=words) as caught:
        read_public_keys(path)
    assert str(path) in str(caught.value)


# -- what is approved


def test_nothing_is_answered_before_somebody_approved(centre: Centre, study: Callable[..., Study]) -> None:
    with pytest.raises(trust.NotApproved, match=r"study-not-approved: the study ncctg_lung .* is not approved"):
        trust.guard_of(centre.site, study())
    centre.approve(study())
    assert trust.standing(centre.site, study()).startswith("masked: study ncctg_lung")
    centre.open(study(), "run-1")


def test_an_approval_is_kept_in_private_and_in_the_ledger(centre: Centre, study: Callable[..., Study]) -> None:
    centre.approve(study())
    path = centre.folder / "ledger" / trust.APPROVALS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [approval] = json.loads(path.read_text())["approvals"]
    [entry] = read_ledger(centre.folder / "ledger" / FILE)
    assert (entry.kind, entry.facts["approved"], entry.facts["roster"]) == (
        "steward",
        study().sha256,
        centre.roster.digest,
    )
    assert entry.facts["at"] == approval["at"]


def test_a_changed_study_is_another_study(centre: Centre, study: Callable[..., Study]) -> None:
    centre.approve(study())
    changed = study({"evaluation.min_cell": 6})
    with pytest.raises(trust.NotApproved, match="study-not-approved"):
        trust.guard_of(centre.site, changed)
    centre.approve(changed)
    centre.guard(changed)
    centre.guard(study())  # the first approval stands


def test_a_changed_roster_is_refused_until_it_is_approved(centre: Centre, study: Callable[..., Study]) -> None:
    centre.approve(study())
    keys = dict(centre.roster.keys) | {"west": make_site_keys(centre.folder / "another west", "west").mask}
    Roster(keys).write(centre.folder / "roster.json")
    with pytest.raises(trust.NotApproved, match=r"roster-not-approved: .* sites or keys have changed"):
        trust.guard_of(centre.site, study())
    centre.approve(study())
    centre.guard(study())


def test_a_changed_policy_is_refused_until_it_is_approved(centre: Centre, study: Callable[..., Study]) -> None:
    centre.approve(study())
    centre.limits(min_patients=11)
    with pytest.raises(trust.NotApproved, match="policy-not-approved"):
        trust.guard_of(centre.site, study())
    centre.approve(study())
    centre.guard(study())


def test_an_approval_that_the_ledger_does_not_hold_counts_for_nothing(
    centre: Centre, study: Callable[..., Study]
) -> None:
    centre.approve(study())
    path = centre.folder / "ledger" / trust.APPROVALS
    content = json.loads(path.read_text())
    other = study({"evaluation.min_cell": 6})
    content["approvals"].append(content["approvals"][0] | {"study": other.sha256})
    path.write_text(json.dumps(content))
    with pytest.raises(trust.NotApproved, match="approval-not-in-ledger"):
        trust.guard_of(centre.site, other)
    (centre.folder / "ledger" / FILE).unlink()
    with pytest.raises(trust.NotApproved, match="approval-not-in-ledger"):
        trust.guard_of(centre.site, study())


def test_a_damaged_file_of_approvals_is_a_sentence(centre: Centre, study: Callable[..., Study]) -> None:
    centre.approve(study())
    (centre.folder / "ledger" / trust.APPROVALS).write_text('{"approvals": [{"study": "x"}]}')
    with pytest.raises(CtfedError, match=r"approvals\.json is not a file of approvals .* approve again"):
        trust.guard_of(centre.site, study())


def test_the_server_is_refused_what_was_not_approved(centre: Centre, study: Callable[..., Study]) -> None:
    centre.approve(study())
    guard, cohort = centre.guard(study()), load_cohort(centre.site, study())
    for invitation, rule in (
        (Invitation("run-1", "0" * 64, centre.roster.digest), "study-not-approved"),
        (Invitation("run-1", study().sha256, "0" * 64), "roster-not-approved"),
    ):
        with pytest.raises(Refusal) as refused:
            guard.open(invitation, cohort)
        assert refused.value.rule == rule


def test_a_new_roster_becomes_the_sites_own_when_it_is_approved(centre: Centre, study: Callable[..., Study]) -> None:
    keys = dict(centre.roster.keys) | {"east": make_site_keys(centre.folder / "east", "east").mask}
    new = centre.folder / "came by mail.json"
    Roster(keys).write(new)
    proposal = trust.propose(centre.site, study(), new)
    assert "east" not in centre.roster.keys, "looking changes nothing"
    trust.approve(centre.site, study(), proposal.roster)
    assert centre.roster.digest == proposal.roster.digest
    centre.guard(study())


def test_a_roster_without_this_site_or_with_another_key_is_refused(centre: Centre, study: Callable[..., Study]) -> None:
    keys = dict(centre.roster.keys)
    Roster({site: key for site, key in keys.items() if site != "north"}).write(centre.folder / "roster.json")
    with pytest.raises(CtfedError, match="names south, west, and not 'north'"):
        trust.propose(centre.site, study())
    Roster(keys | {"north": make_site_keys(centre.folder / "other", "north").mask}).write(centre.folder / "roster.json")
    with pytest.raises(CtfedError, match="holds another key for 'north'"):
        trust.propose(centre.site, study())


def test_study_and_roster_must_name_the_same_sites(centre: Centre, study: Callable[..., Study]) -> None:
    assert trust.propose(centre.site, study({"sites": list(SITES)})).roster.sites == SITES
    with pytest.raises(CtfedError, match="is for the sites east, north, south, west, the roster"):
        trust.propose(centre.site, study({"sites": [*SITES, "east"]}))


# -- sites without masks


def test_a_site_says_how_it_masks_or_that_its_data_are_public(centre: Centre, study: Callable[..., Study]) -> None:
    centre.write(trust=None)
    with pytest.raises(CtfedError, match=r"site\.yaml: trust: found nothing, expected .* or 'unmasked: true'"):
        trust.guard_of(centre.site, study())
    centre.write(trust=None, unmasked=True)
    assert trust.guard_of(centre.site, study()) is None
    assert trust.standing(centre.site, study()).startswith("UNMASKED")
    with pytest.raises(CtfedError, match="approves nothing"):
        trust.propose(centre.site, study())


def test_a_node_masks_or_refuses(centre: Centre, study: Callable[..., Study]) -> None:
    study()
    config = {"site-file": str(centre.folder / "site.yaml"), "study-file": str(centre.folder / "study.yaml")}
    seat = node.seat_from_site_file(config)
    assert seat.site == "north"
    with pytest.raises(trust.NotApproved):
        seat.open()
    centre.approve(study())
    asked = encode_question("run", 0, (Counts(View(study().features)),), frozenset())
    with pytest.raises(Refusal) as refused:
        seat.open().answer(asked)
    assert refused.value.rule in ("not-joined", "unmasked")
    centre.write(trust=None, unmasked=True)
    assert seat.open().answer(asked).limbs.size


# -- what a steward allows


def test_a_stewards_yes_lets_one_more_run_through(centre: Centre, study: Callable[..., Study]) -> None:
    centre.limits(max_runs=1)
    centre.approve(study())
    centre.open(study(), "run-1")
    with pytest.raises(Refusal, match="too-many-runs"):
        centre.open(study(), "run-2")
    trust.allow(centre.site, study(), load_cohort(centre.site, study()), "more-runs")
    centre.open(study(), "run-2")
    with pytest.raises(Refusal, match="too-many-runs"):
        centre.open(study(), "run-3")


def test_a_stewards_yes_is_for_one_cohort(centre: Centre, study: Callable[..., Study]) -> None:
    centre.approve(study())
    centre.open(study(), "run-1")
    (centre.folder / "clinical.csv").write_text(table(41))
    with pytest.raises(Refusal, match="cohort-difference: 1 patients differ"):
        centre.open(study(), "run-2")
    trust.allow(centre.site, study(), load_cohort(centre.site, study()), "cohort-difference")
    centre.open(study(), "run-2")
    (centre.folder / "clinical.csv").write_text(table(42))
    with pytest.raises(Refusal, match="cohort-difference"):
        centre.open(study(), "run-3")


def test_only_what_the_gate_knows_can_be_allowed_and_only_of_an_approved_study(
    centre: Centre, study: Callable[..., Study]
) -> None:
    cohort = load_cohort(centre.site, study())
    with pytest.raises(CtfedError, match="expected cohort-difference, roster-difference, more-runs"):
        trust.allow(centre.site, study(), cohort, "everything")
    with pytest.raises(trust.NotApproved):
        trust.allow(centre.site, study(), cohort, "more-runs")


def test_every_allowance_of_the_gate_can_be_given() -> None:
    from ctfed.federation.rules.runs import RULES

    assert set(trust.ALLOWANCES) == {allowed for allowed, _ in RULES.values()}


# -- the page


def test_the_page_shows_sites_columns_questions_counts_and_limits(centre: Centre, study: Callable[..., Study]) -> None:
    centre.limits(min_patients=12)
    page = "\n".join(trust.propose(centre.site, study()).page())
    for site in SITES:
        assert f"{site:<6}  {centre.roster.fingerprint(site)}" in page
    for words in (study().title, study().sha256, centre.roster.digest, "40 patients, 20 events", "min_patients", "12"):
        assert words in page
    for name in ("patient_id", "status", *COLUMNS):
        assert f"column {name}" in page
    for kind in kinds_of(study()):
        assert f"\n  {kind} " in page
    assert "NOT part" not in page
    assert "REFUSE" not in page


def test_the_page_says_what_will_not_be(centre: Centre, study: Callable[..., Study]) -> None:
    centre.limits(min_patients=41, min_cell=7)
    page = "\n".join(trust.propose(centre.site, study({"evaluation.fine_evaluation_tables": True})).page())
    assert page.count("NOT part of the totals") == 2
    assert "THESE LIMITS REFUSE" in page
    assert "cell-minimum" in page
    assert "EXCEPTION fine evaluation tables" in page
    assert "exceptions of the policy do not name fine_evaluation_tables" in page


POOLED = {"tuning": None, "penalty": {"penalizer": 0.05, "l1_ratio": 0.5}, "model.risk_sets": "pooled"}
PLAIN = {"model.features": ["age", "sex"], "variables.age.impute": "none", "model.standardise": False}


@pytest.mark.parametrize("changes", [{}, POOLED, PLAIN])
def test_every_question_that_the_gate_lets_through_is_explained(
    study: Callable[..., Study], centre: Centre, changes: dict[str, object]
) -> None:
    node.register_queries()
    queries = {name for name, one in _classes.items() if issubclass(one, Query)}
    assert set(QUESTIONS) <= queries
    wanted = study(changes)
    let_through = set(scope_of(wanted).kinds) & queries
    assert set(kinds_of(wanted)) <= let_through
    page = "\n".join(trust.propose(centre.site, wanted).page())
    for kind in let_through:
        assert f"\n  {kind} " in page


@pytest.mark.parametrize("changes", [{"tuning.penalizers.count": 2}, POOLED, PLAIN | POOLED])
def test_a_study_asks_what_its_plan_says(
    study: Callable[..., Study], tmp_path: Path, changes: dict[str, object]
) -> None:
    wanted = study(changes)
    site = SHIPPED / "sites" / "ncctg_lung.yaml"
    simulate(tmp_path / "study.yaml", [site], tmp_path / "out", masked=False, tell=lambda _: None)
    lines = (tmp_path / "out" / "journal" / "journal.jsonl").read_text().splitlines()[1:]
    asked = {kind for line in lines for kind in json.loads(line)["kinds"]}
    assert asked <= set(kinds_of(wanted))
    assert all(set(stage.kinds) & asked for stage in stages(wanted)), "no stage is there for nothing"


def test_objections_are_none_where_the_gate_has_none(study: Callable[..., Study]) -> None:
    assert list(objections(study(), Policy())) == []


# -- pseudonyms


def test_a_patient_is_known_again_by_the_site_and_nobody_else(centre: Centre, study: Callable[..., Study]) -> None:
    first = load_cohort(centre.site, study())
    (centre.folder / "clinical.csv").write_text(table(45, seed=1))
    other = study({"name": "another_study"})
    second = load_cohort(centre.site, other)
    assert list(second.pseudonym[:40]) == list(first.pseudonym)
    assert len(set(second.pseudonym)) == 45
    assert all(len(bytes.fromhex(name)) == 32 for name in first.pseudonym)
    (centre.folder / "site.secret").unlink()
    assert not set(load_cohort(centre.site, other).pseudonym) & set(second.pseudonym)
