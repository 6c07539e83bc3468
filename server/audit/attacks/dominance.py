"""Dominance: coefficients so large that one patient is the whole weighted mean, and the mean is that patient's row.

For weights w_i = exp(x_i beta) / S0 the entropy of the weights is log S0 - beta S1 / S0 (Jensen), which the attacker
reads off the totals: exp(entropy) is the number of patients that a mean rests on. Where it is one, S1 / S0 is a row.
The same happens where one patient alone carries a covariate and its coefficient is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.codec import digest
from server.audit.patients import Candidate
from server.audit.rows import Rows
from server.audit.statements import Statement
from server.audit.timebins import Group, Seen, time_groups

ALONE = 1e-9  # entropy below which the mean differs from the row by less than its own millionth


@dataclass(frozen=True, eq=False)
class Dominated:
    """What the weighted means rest on.

    Attributes:
        candidates: rows that are a mean.
        fewest: the smallest number of patients that any weighted mean of a group or risk set rests on; inf if none.
    """

    candidates: tuple[Candidate, ...]
    fewest: float


def dominated(given: Sequence[Statement], folds: int) -> Dominated:
    """Rows that are weighted means, over bins and over risk sets (a bin and all later ones)."""
    candidates: list[Candidate] = []
    fewest = np.inf
    for group in _with_risk_sets(time_groups(given)):
        if group.count == 1:  # subtraction's, whatever the coefficients
            continue
        for seen in group.seen:
            if seen.weighted is None or seen.amount <= 0 or not seen.beta.any():
                continue
            row = seen.weighted / seen.amount
            entropy = float(np.log(seen.amount) - row @ seen.beta)
            fewest = min(fewest, float(np.exp(max(entropy, 0.0))))
            if abs(entropy) < ALONE:
                candidates.append(Candidate(group.view, row, f"outweighs {group.label(folds)}"))
    return Dominated(tuple(candidates), float(fewest))


def _with_risk_sets(groups: Sequence[Group]) -> list[Group]:
    """The groups, and for everybody who leaves the sums over each bin and all later ones."""
    found = list(groups)
    families: dict[tuple[Rows, str], list[Group]] = {}
    for group in groups:
        if group.population == "leave":
            families.setdefault((group.rows, digest(group.view)), []).append(group)
    for members in families.values():
        members.sort(key=lambda group: -group.low)
        running: dict[bytes, Seen] = {}
        for group in members:
            for seen in group.seen:
                if seen.weighted is None:
                    continue
                key = seen.beta.tobytes()
                before = running.get(key, Seen(seen.beta, 0.0, np.zeros(seen.beta.size)))
                assert before.weighted is not None
                running[key] = Seen(seen.beta, before.amount + seen.amount, before.weighted + seen.weighted)
            found.append(Group(group.rows, group.view, group.low, np.inf, "leave", seen=list(running.values())))
    return found
