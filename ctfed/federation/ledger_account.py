"""A ledger's entries as what people ask about: runs, rounds, what each told of how many patients, refusals, decisions.

Nothing here is about a patient of this site: the digests by which it compares cohorts stay in the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ctfed.federation.ledger import (
    ACCEPTED,
    ANSWERED,
    FILE,
    JOINED,
    OPENED,
    REFUSED,
    STEWARD,
    Entry,
    LedgerError,
)
from ctfed.federation.ledger_check import array_size

# Facts that may be shown outside the ledger, by kind of entry; whatever is not named here stays in it: the digests of
# patients, and the sentences of refusals, which may hold a number of this site alone.
PUBLIC: Mapping[str, tuple[str, ...]] = {
    OPENED: ("study", "roster", "nonce", "cohort", "splits", "sites", "entries", "head", "seen"),
    JOINED: ("session", "ledgers"),
    ANSWERED: ("round", "question", "queries", "numbers", "bytes", "statistics", "sent", "spent"),
    REFUSED: ("rule", "round"),
    STEWARD: ("approved", "allow", "study", "cohort", "roster", "policy", "at", ACCEPTED),
}
BUDGETS = ("rounds", "points", "numbers|", "tables|", "cuts|")  # the others are marks of what was told already


@dataclass(frozen=True)
class Told:
    """Queries of one round that differ in their parameters alone.

    Attributes:
        kind: registered name of the query.
        rows: which rows of the study, in words.
        arrays: name -> shape.
        times: how many were asked.
        numbers: how many numbers were sent in answer, all times together.
        contributed: False when this site sent zeros.
        sites, patients, events: of the federation's total, before the row filters of its view.
        smallest: the fewest deaths, or censored patients, of a time bin that is told; None where no bins are.
    """

    kind: str
    rows: str
    arrays: Mapping[str, tuple[int, ...]]
    times: int
    numbers: int
    contributed: bool
    sites: int
    patients: int
    events: int
    smallest: int | None = None

    @property
    def shapes(self) -> str:
        """The arrays in words: 'patients, gradient 100 x 60'."""
        return ", ".join(f"{name} {' x '.join(map(str, shape))}".strip() for name, shape in self.arrays.items())


@dataclass(frozen=True)
class Round:
    """One answered round.

    Attributes:
        line: of the ledger, from 1.
        at: ISO time, UTC.
        run, number: which round.
        numbers, bytes: sent by this site.
        told: what was answered.
        spent: what the run had spent when the round was over, budgets alone.
    """

    line: int
    at: str
    run: str
    number: int
    numbers: int
    bytes: int
    told: tuple[Told, ...]
    spent: Mapping[str, int]


@dataclass(frozen=True)
class Refused:
    """One refusal; the sentence stays at the site."""

    line: int
    at: str
    run: str
    number: int | None
    rule: str
    sentence: str


@dataclass(frozen=True)
class Decision:
    """What a steward has decided, in words."""

    line: int
    at: str
    words: str


@dataclass
class Run:
    """One run as this site knows it.

    Attributes:
        line, at, name: its opening.
        study, roster: digests (hex).
        sites: of the roster.
        splits: to which this site contributes; none for a site below its own minimum.
        joined: whether the run went beyond its opening.
        rounds, refusals: what came of it.
    """

    line: int
    at: str
    name: str
    study: str
    roster: str
    sites: tuple[str, ...]
    splits: tuple[str, ...]
    joined: bool = False
    rounds: list[Round] = field(default_factory=list)
    refusals: int = 0
    spent: Counter[str] = field(default_factory=Counter)


@dataclass
class Account:
    """What a ledger tells, in its order."""

    runs: dict[str, Run] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    @property
    def numbers(self) -> int:
        """How many numbers have left the site."""
        return sum(one.numbers for one in self.rounds)

    @property
    def bytes(self) -> int:
        """How many bytes have left the site in answers."""
        return sum(one.bytes for one in self.rounds)


def account_of(entries: Iterable[Entry]) -> Account:
    """Read the entries of a ledger that was checked.

    Raises:
        LedgerError: naming the line, when an entry lacks what it must hold.
    """
    account = Account()
    for entry in entries:
        try:
            _add(account, entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LedgerError(
                f"{FILE}, line {entry.number + 1}: this entry lacks what it must hold: {error}"
            ) from error
    return account


def _add(account: Account, entry: Entry) -> None:
    line, facts = entry.number + 1, entry.facts
    run = account.runs.get(entry.run)
    if entry.kind == OPENED:
        account.runs[entry.run] = _run(entry)
    elif entry.kind == JOINED and run is not None:
        run.joined = True
    elif entry.kind == ANSWERED and run is not None:
        run.spent.update({name: count for name, count in facts["spent"].items() if name.startswith(BUDGETS)})
        run.rounds.append(_round(entry, dict(run.spent)))
        account.rounds.append(run.rounds[-1])
    elif entry.kind == REFUSED:
        if run is not None:
            run.refusals += 1
        number, sentence = facts.get("round"), str(facts.get("sentence", ""))
        account.refused.append(Refused(line, entry.at, entry.run, number, str(facts["rule"]), sentence))
    elif entry.kind == STEWARD:
        account.decisions.append(Decision(line, entry.at, _decision(facts)))


def _run(entry: Entry) -> Run:
    facts = entry.facts
    sites, splits = (tuple(str(item) for item in facts[name]) for name in ("sites", "splits"))
    return Run(entry.number + 1, entry.at, entry.run, str(facts["study"]), str(facts["roster"]), sites, splits)


def _round(entry: Entry, spent: Mapping[str, int]) -> Round:
    facts = entry.facts
    told = tuple(_told(item) for item in facts["queries"])
    return Round(
        entry.number + 1,
        entry.at,
        entry.run,
        int(facts["round"]),
        int(facts["numbers"]),
        int(facts["bytes"]),
        told,
        spent,
    )


def _told(item: Mapping[str, Any]) -> Told:
    arrays = {str(name): tuple(int(length) for length in shape) for name, shape in item["arrays"].items()}
    times = int(item["times"])
    numbers = times * sum(array_size(list(shape)) for shape in arrays.values())
    sites, patients, events = (int(item[name]) for name in ("sites", "patients", "events"))
    contributed, smallest = bool(item["contributed"]), item.get("smallest")
    cell = None if smallest is None else int(smallest)
    return Told(
        str(item["kind"]), str(item["rows"]), arrays, times, numbers, contributed, sites, patients, events, cell
    )


def _decision(facts: Mapping[str, Any]) -> str:
    short = {name: str(value)[:12] for name, value in facts.items()}
    if "approved" in facts:
        found = [f"{name} {short[name]}" for name in ("roster", "policy") if name in facts]
        return f"approved the study {short['approved']}{' with ' if found else ''}{' and '.join(found)}"
    if "allow" in facts:
        found = [f"{name} {short[name]}" for name in ("study", "cohort", "roster") if name in facts]
        return f"allowed {facts['allow']!s}{' for ' if found else ''}{', '.join(found)}"
    if ACCEPTED in facts:
        return f"accepted the ledger that {facts[ACCEPTED]!s} has now, although it is not the one that was seen before"
    return "decided something that this version of ctfed does not know"


def public_entry(entry: Entry) -> dict[str, Any]:
    """An entry as it may be shown outside the ledger; 'withheld' names the facts that stay in it."""
    public = PUBLIC[entry.kind]
    shown = {name: value for name, value in entry.facts.items() if name in public}
    return {**entry.body, "facts": shown, "withheld": sorted(set(entry.facts) - set(shown)), "hash": entry.hash}
