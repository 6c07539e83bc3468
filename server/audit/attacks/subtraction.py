"""Subtraction: neighbouring risk sets differ by who left in between, and where that is one patient, by that patient.

    S0(t) - S0(t') = exp(x beta),   S1(t) - S1(t') = x exp(x beta)

On messages that hold a site's S0 and S1 at every event time (WebDISCO and its descendants) this rebuilds most patients
of a federation in its first round; those messages are made here to show that the attack works. On ctfed's totals
the same subtraction is tried on everything with a time axis, for leavers, deaths and censored patients apart.

Reference: Lu et al. 2015, WebDISCO, Journal of the American Medical Informatics Association 22:1212 (the messages).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctfed.federation.arrays import FloatArray
from ctfed.federation.cohort import Cohort
from ctfed.federation.view import View
from server.audit.patients import Candidate
from server.audit.statements import Statement
from server.audit.timebins import Group, disjoint, time_groups


@dataclass(frozen=True, eq=False)
class Isolated:
    """What subtraction tells of patients who stand alone.

    Attributes:
        candidates: whole rows.
        partly: patients of whom a weighted sum of their values is known exactly (a risk score), but not the row.
    """

    candidates: tuple[Candidate, ...]
    partly: tuple[Group, ...]


def subtract(given: Sequence[Statement], folds: int) -> Isolated:
    """Rows of the patients who alone leave, die or are censored in an interval between two known totals."""
    candidates, partly = [], []
    for group in disjoint(time_groups(given)):
        if group.count != 1:
            continue
        row = _row(group)
        if row is not None:
            candidates.append(Candidate(group.view, row, f"the only one of {group.label(folds)}"))
        elif any(seen.beta.any() and seen.amount > 0 for seen in group.seen):
            partly.append(group)
    return Isolated(tuple(candidates), tuple(partly))


def _row(group: Group) -> FloatArray | None:
    for seen in group.seen:
        if seen.weighted is not None and seen.amount > 0:
            return np.asarray(seen.weighted / seen.amount)
    told = [seen for seen in group.seen if seen.amount > 0]
    if not told:
        return None
    design, scores = np.stack([seen.beta for seen in told]), np.log([seen.amount for seen in told])
    if np.linalg.matrix_rank(design, tol=1e-6) < design.shape[1]:
        return None
    row, *_ = np.linalg.lstsq(design, scores, rcond=None)
    return np.asarray(row)


@dataclass(frozen=True, eq=False)
class RiskSetMessage:
    """A WebDISCO-style message: risk-set sums at every event time of the federation.

    Attributes:
        view: columns of x.
        time: (E,) distinct event times, rising.
        s0: (E,) sum of exp(x beta) over the patients at risk.
        s1: (E, p) sum of x exp(x beta).
        beta: (p,).
    """

    view: View
    time: FloatArray
    s0: FloatArray
    s1: FloatArray
    beta: FloatArray


def risk_set_messages(view: View, cohorts: Sequence[Cohort], beta: FloatArray) -> list[RiskSetMessage]:
    """The message of each site, as WebDISCO would send it, over the event times of all sites."""
    tables = [view.table(cohort) for cohort in cohorts]
    time = np.unique(np.concatenate([table.time[table.event] for table in tables]))
    found = []
    for table in tables:
        risk = np.exp(table.values @ beta)
        at_risk = (table.time >= time[:, None]).astype(np.float64)
        found.append(RiskSetMessage(view, time, at_risk @ risk, at_risk @ (risk[:, None] * table.values), beta))
    return found


def added(messages: Sequence[RiskSetMessage]) -> RiskSetMessage:
    """The total of messages over the same event times, as a secure sum would show it."""
    first = messages[0]
    s0, s1 = sum(one.s0 for one in messages), sum(one.s1 for one in messages)
    return RiskSetMessage(first.view, first.time, np.asarray(s0), np.asarray(s1), first.beta)


def subtract_risk_sets(message: RiskSetMessage) -> tuple[Candidate, ...]:
    """Rows of the patients who alone leave between two neighbouring event times.

    A step of one patient is recognised without knowing anything: at beta = 0 its S0 is 1, at any other beta its
    weighted x and its exp(x beta) agree with each other.
    """
    steps = message.s0 - np.append(message.s0[1:], 0.0)
    sums = message.s1 - np.vstack([message.s1[1:], np.zeros(message.s1.shape[1])])
    found = []
    for index in np.flatnonzero(steps > 1e-9):
        row = sums[index] / steps[index]
        alone = abs(steps[index] - 1) if not message.beta.any() else abs(np.log(steps[index]) - row @ message.beta)
        if alone < 1e-8:
            found.append(Candidate(message.view, row, f"leaves alone from time {message.time[index]:g} on"))
    return tuple(found)
