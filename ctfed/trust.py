"""Trust: what a site has approved, and the guard that holds it to that.

    mask.key        this site's key                              (trust.key in the site file)
    roster.json     the public keys of all sites                 (trust.roster)
    policy.yaml     this site's limits                           (trust.policy; absent: the defaults)
    ledger/         ledger.jsonl, answers/, approvals.json       (trust.ledger)

An approval pins the study, the roster and the policy by their digests; when one of them changes, nothing is answered
until a person has approved again. It is in the ledger, too, and counts only where both agree.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ctfed.approval_page import plan
from ctfed.cohort import PartitionedCohorts, load_cohorts
from ctfed.config import canonical_sha256
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import CtfedError, Refusal
from ctfed.federation.gate import StudyGate
from ctfed.federation.guard import Approval, Guard
from ctfed.federation.ledger import STEWARD, Ledger
from ctfed.federation.masking import read_mask_key
from ctfed.federation.policy import Policy, load_policy
from ctfed.federation.roster import Roster, read_roster
from ctfed.site import Site, Trust
from ctfed.study import Study, census_of, scope_of

APPROVALS = "approvals.json"
FORMAT = 1

# What a steward can allow when the gate has refused a run, and what that means.
ALLOWANCES: Mapping[str, str] = {
    "cohort-difference": (
        "a run with a cohort that differs by few patients from one that was asked before: whoever sees both totals "
        "learns the sums of those few patients, over all sites that changed theirs in between"
    ),
    "roster-difference": (
        "a run with other sites than one that was asked before: whoever sees both totals learns what the sites hold "
        "that came or left; from one site alone, its own sums"
    ),
    "more-runs": (
        "more runs than the policy's budget: every run tells further totals of the same patients, and from enough of "
        "them single patients can be worked out"
    ),
}


class NotApproved(Refusal):
    """Nothing may be answered yet: a person has to look and approve first.

    Rules: 'study-not-approved', 'roster-not-approved', 'policy-not-approved', 'approval-not-in-ledger'.
    """


@dataclass(frozen=True)
class Approved:
    """One line of approvals.json.

    Attributes:
        study, roster, policy: their digests (hex).
        at: ISO time, UTC.
    """

    study: str
    roster: str
    policy: str
    at: str


# -- reading


def trust_of(site: Site) -> Trust | None:
    """The site's section ``trust``; None where the site file says that its data are public.

    Raises:
        CtfedError: when it says neither.
    """
    if site.trust is None and not site.unmasked:
        raise CtfedError(
            f"{site.origin}: trust: found nothing, expected key, roster and ledger (`ctfed keygen` makes the key), or "
            "'unmasked: true' where the server may see each sum of this site, because its data are public"
        )
    return site.trust


def policy_of(trust: Trust) -> Policy:
    """The site's limits: those of its policy file, or the defaults.

    Raises:
        ConfigError: when the policy file is not one.
    """
    return Policy() if trust.policy is None else load_policy(trust.policy)


def roster_of(site: Site, path: Path) -> Roster:
    """The roster in a file, in which this site is with its own key.

    Raises:
        CtfedError: when the file is no roster, or holds no key or another key for this site.
    """
    roster, name = read_roster(path), str(site.site)
    if name not in roster.keys:
        raise CtfedError(f"the roster {path} names {', '.join(roster.sites)}, and not {name!r}; ask for a new roster")
    assert site.trust is not None
    if roster.keys[name] != read_mask_key(site.trust.key).public_key().public_bytes_raw():
        raise CtfedError(
            f"the roster {path} holds another key for {name!r} than {site.trust.key}; send this site's public.json to "
            "who provisions the federation, and ask for a new roster"
        )
    return roster


def read_approvals(folder: Path) -> dict[str, Approved]:
    """Study -> its approval.

    Raises:
        CtfedError: when the file is damaged.
    """
    path = folder / APPROVALS
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {entry["study"]: Approved(**entry) for entry in content["approvals"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CtfedError(f"{path} is not a file of approvals ({error}); remove it and approve again") from error


# -- the guard


def gate_of(policy: Policy, study: Study) -> StudyGate:
    """The site's gate for a study."""
    return StudyGate(policy, scope_of(study))


def guard_of(site: Site, study: Study) -> Guard | None:
    """The guard of a site that has approved the study; None for a site whose data are public.

    Raises:
        NotApproved: when the study, the roster or the policy is not what was approved.
        CtfedError: when a file is missing or wrong, or the site says neither how it masks nor that it does not.
    """
    trust = trust_of(site)
    if trust is None:
        return None
    return _guard(site, study, trust, Ledger(trust.ledger))


def standing(site: Site, study: Study) -> str:
    """One sentence on how this site will answer.

    Raises:
        NotApproved, CtfedError: as ``guard_of``.
    """
    trust = trust_of(site)
    if trust is None:
        return (
            f"UNMASKED: {site.origin} says that the data of {site.site!r} are public; the server sees each of its "
            "sums, and no limits apply"
        )
    ledger = Ledger(trust.ledger)
    _guard(site, study, trust, ledger)
    approved = read_approvals(trust.ledger)[study.sha256]
    return (
        f"masked: study {study.name} ({study.sha256[:12]}) and roster {approved.roster[:12]} were approved at "
        f"{approved.at}; the ledger has {ledger.length} entries"
    )


def _guard(site: Site, study: Study, trust: Trust, ledger: Ledger) -> Guard:
    roster, policy = roster_of(site, trust.roster), policy_of(trust)
    _require_approved(read_approvals(trust.ledger).get(study.sha256), study, roster, policy, ledger, trust)
    approval = Approval(study.sha256, roster.digest, census_of(study), study.noise)
    secret = site.secret_of(str(site.site))
    return Guard(read_mask_key(trust.key), roster, approval, gate_of(policy, study), ledger, secret)


def _require_approved(
    found: Approved | None, study: Study, roster: Roster, policy: Policy, ledger: Ledger, trust: Trust
) -> None:
    again = "look at it again with `ctfed approve`"
    if found is None:
        raise NotApproved(
            "study-not-approved",
            f"the study {study.name} ({study.sha256[:12]}) is not approved at this site, or was changed since; "
            "`ctfed approve` shows what it will ask",
        )
    if found.roster != roster.digest:
        raise NotApproved(
            "roster-not-approved",
            f"the roster {trust.roster} ({roster.digest[:12]}) is not the one that was approved with the study "
            f"({found.roster[:12]}): sites or keys have changed; {again}",
        )
    if found.policy != canonical_sha256(policy):
        raise NotApproved("policy-not-approved", f"this site's policy has changed since the approval; {again}")
    written = [facts for facts in ledger.approvals if facts.get("approved") == found.study]
    if not written or written[-1] != _facts(found):
        sentence = f"the approval in {trust.ledger / APPROVALS} is not in the ledger beside it; {again}"
        raise NotApproved("approval-not-in-ledger", sentence)


# -- approving


@dataclass(frozen=True, eq=False)
class Proposal:
    """What a person looks at before approving."""

    site: Site
    study: Study
    roster: Roster
    policy: Policy
    loaded: PartitionedCohorts

    def page(self) -> list[str]:
        """The plan, line by line."""
        splits = gate_of(self.policy, self.study).splits(self.loaded.cohorts[0])
        return plan(self.site, self.study, self.roster, self.policy, self.loaded, splits)


def propose(site: Site, study: Study, roster: Path | None = None) -> Proposal:
    """What approving the study would mean for this site, with its own roster or another one.

    Raises:
        CtfedError: when the site has no section ``trust``, a file is missing or wrong, or study and roster name other
            sites.
    """
    trust = _required(site)
    found = roster_of(site, roster or trust.roster)
    if study.sites is not None and set(study.sites) != set(found.sites):
        raise CtfedError(
            f"the study {study.name} is for the sites {', '.join(sorted(study.sites))}, the roster "
            f"{roster or trust.roster} names {', '.join(found.sites)}; ask for a roster of the study's sites"
        )
    return Proposal(site, study, found, policy_of(trust), load_cohorts(site, study))


def approve(site: Site, study: Study, roster: Roster) -> Approved:
    """Write down that a person has approved the study with this roster, which becomes the site's roster.

    Raises:
        CtfedError: when the site has no section ``trust``, or a file cannot be written.
    """
    trust = _required(site)
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    approved = Approved(study.sha256, roster.digest, canonical_sha256(policy_of(trust)), now)
    ledger = Ledger(trust.ledger)
    with ledger.hold():  # two people who approve at once must not lose each other's lines
        approvals = read_approvals(trust.ledger) | {study.sha256: approved}
        ledger.append(STEWARD, "", _facts(approved))
        if not trust.roster.exists() or read_roster(trust.roster).digest != roster.digest:
            _replace(trust.roster, roster.write)
        content = {"ctfed_approvals": FORMAT, "approvals": [asdict(entry) for entry in approvals.values()]}
        text = json.dumps(content, indent=2) + "\n"
        _replace(trust.ledger / APPROVALS, lambda path: _write(path, text))
    return approved


def _facts(approved: Approved) -> dict[str, str]:
    """An approval as the ledger has it."""
    return {"approved": approved.study, "roster": approved.roster, "policy": approved.policy, "at": approved.at}


def allow(site: Site, study: Study, cohort: Cohort, what: str) -> None:
    """Write down the steward's yes to a run that the gate would refuse, for this cohort and the approved roster alone.

    Raises:
        CtfedError: when the study is not approved, or ``what`` is no allowance.
    """
    if what not in ALLOWANCES:
        raise CtfedError(f"found {what!r}, expected {', '.join(ALLOWANCES)}")
    trust = _required(site)
    ledger = Ledger(trust.ledger)
    guard = _guard(site, study, trust, ledger)
    roster = read_approvals(trust.ledger)[study.sha256].roster
    facts = {"allow": what, "study": study.sha256, "cohort": guard.commitment(cohort), "roster": roster}
    ledger.append(STEWARD, "", facts)


def _required(site: Site) -> Trust:
    trust = trust_of(site)
    if trust is None:
        raise CtfedError(f"{site.origin}: unmasked: found true; such a site has no keys and approves nothing")
    return trust


# -- files


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8", opener=_private) as file:
        file.write(text)


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside the old one and put it in its place: a reader finds one or the other, whole."""
    partial = path.with_name(path.name + ".part")
    partial.unlink(missing_ok=True)
    write(partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
