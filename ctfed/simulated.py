"""Simulated sites that mask: a folder for each with its key and its ledger, and the guard that a real site would have.

<folder>/<site>/mask.key      this simulated site's key
<folder>/<site>/roster.json   the public keys of all; only where every site may be a process of its own
<folder>/<site>/ledger.jsonl  its ledger, and beside it the answers that it has given
<folder>/policy.yaml          the limits of every simulated site (absent: the defaults)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import yaml

from ctfed.federation.gate import StudyGate
from ctfed.federation.guard import Approval, Guard
from ctfed.federation.ledger import Ledger
from ctfed.federation.masking import make_mask_key, read_mask_key
from ctfed.federation.policy import Policy, load_policy
from ctfed.federation.roster import Roster, read_roster
from ctfed.study import Study, census_of, scope_of

KEY, ROSTER, POLICY = "mask.key", "roster.json", "policy.yaml"


def simulated_roster(sites: Sequence[str], folder: Path) -> Roster:
    """A key for every simulated site, made at the first call, and the roster of them."""
    for site in sites:
        (folder / site).mkdir(mode=0o700, parents=True, exist_ok=True)
    return Roster({site: make_mask_key(folder / site / KEY) for site in sites})


def simulated_guard(site: str, study: Study, folder: Path, roster: Roster, policy: Policy) -> Guard:
    """The guard of a simulated site, which approves every study; its secret follows from its key."""
    key = read_mask_key(folder / site / KEY)
    secret = hashlib.sha256(b"simulated site|" + key.private_bytes_raw()).digest()
    approval = Approval(study.sha256, roster.digest, census_of(study), study.noise)
    return Guard(key, roster, approval, StudyGate(policy, scope_of(study)), Ledger(folder / site), secret)


def write_simulated(folder: Path, roster: Roster, policy: Policy) -> None:
    """What processes of their own need beside the keys: the roster for the server and every site, and the limits."""
    for place in (folder, *(folder / site for site in roster.sites)):
        roster.write(place / ROSTER)
    text = yaml.safe_dump(policy.model_dump(mode="json"), sort_keys=False)
    (folder / POLICY).write_text(text, encoding="utf-8")


def read_simulated_guard(site: str, study: Study, folder: Path) -> Guard:
    """The guard of a simulated site from the files in ``folder``.

    Raises:
        CtfedError: when a file is missing or is not what it should be.
    """
    policy = load_policy(folder / POLICY) if (folder / POLICY).exists() else Policy()
    return simulated_guard(site, study, folder, read_roster(folder / site / ROSTER), policy)
