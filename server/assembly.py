"""How a masked run begins: every site opens it, and seals its census for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ctfed.federation.census import Census, CensusPlan, add_census
from ctfed.federation.codec import Decoder, Encoder
from ctfed.federation.errors import CtfedError, MalformedMessage
from ctfed.federation.session import Assembly, Opening, SealedCount, Session
from ctfed.federation.wire import (
    Answer,
    Invitation,
    Question,
    answer_of,
    encode_invitation,
    encode_session,
    read_census,
    read_opening,
)

T = TypeVar("T", Opening, SealedCount)

OPENING_ROUND, CENSUS_ROUND = -2, -1  # what transports call the two exchanges before the first round
FEWEST_SITES = 3  # with two, each one knows the other's sums


class Asking(Protocol):
    """What is needed of a transport."""

    sites: tuple[str, ...]

    def ask(self, round_number: int, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        """The answers of exactly the sites in ``questions``."""
        ...


@dataclass(frozen=True)
class Agreement:
    """What the sites have approved, as the server knows it.

    Attributes:
        study: SHA-256 of the study.
        roster: digest of the roster of keys.
        census: what is counted of the study before its first question.
    """

    study: str
    roster: str
    census: CensusPlan


def assemble(transport: Asking, run: str, agreement: Agreement, tell: Callable[[str], None]) -> Assembly:
    """Open a run with all sites of the transport, in two exchanges.

    Raises:
        CtfedError: when there are too few sites, or an answer is not what it should be.
    """
    if len(transport.sites) < FEWEST_SITES:
        raise CtfedError(
            f"secure summation needs at least {FEWEST_SITES} sites, found {len(transport.sites)}: the sum of two tells "
            "each what the other holds"
        )
    asked = encode_invitation(Invitation(run, agreement.study, agreement.roster))
    answers = transport.ask(OPENING_ROUND, dict.fromkeys(transport.sites, asked))
    openings = tuple(_read(site, read_opening, answers, asked) for site in sorted(transport.sites))
    session = Session.of(run, agreement.study, agreement.roster, openings)
    asked = encode_session(session)
    answers = transport.ask(CENSUS_ROUND, dict.fromkeys(transport.sites, asked))
    counts = tuple(_read(site, read_census, answers, asked) for site in session.sites)
    for count in counts:
        _check_sizes(count, len(counts) - 1, agreement.census)
    assembly = Assembly.of(session, counts)
    census = opened_census(assembly, agreement.census)
    for line in _describe(session, census):
        tell(line)
    return assembly


def _read(site: str, read: Callable[[Answer, Question], T], answers: Mapping[str, Answer], asked: Question) -> T:
    with answer_of(site):
        item = read(answers[site], asked)
        if item.site != site:
            raise MalformedMessage(f"it answered in the name of {item.site!r}")
    return item


def _check_sizes(count: SealedCount, others: int, plan: CensusPlan) -> None:
    with answer_of(count.site):
        if len(count.seals) != others:
            raise MalformedMessage(f"its census has {len(count.seals)} seals, expected one for each of {others} sites")
        if len(count.limbs) != 16 * plan.limbs:
            raise MalformedMessage(f"its census has {len(count.limbs) // 16} limbs, expected {plan.limbs}")


def opened_census(assembly: Assembly, plan: CensusPlan) -> Census:
    """The totals that the sites know, too."""
    return add_census([count.numbers for count in assembly.counts], plan)


def left_out(session: Session) -> dict[str, tuple[str, ...]]:
    """Split -> the sites that hold too few patients to contribute to it; they send masked zeros."""
    return {
        split: tuple(one.site for one in session.openings if split not in one.splits) for split in ("train", "test")
    }


def _describe(session: Session, census: Census) -> list[str]:
    train, test = census.table[0, :-1].sum(axis=0), census.table[0, -1]
    lines = [
        f"masked: {len(session.sites)} sites have opened the run; {train[0]:.0f} training patients with {train[1]:.0f} "
        f"events, {test[0]:.0f} test patients with {test[1]:.0f} events"
    ]
    for split, sites in left_out(session).items():
        if sites:
            lines.append(f"below their own minimum, sending zeros to totals over the {split} split: {', '.join(sites)}")
    return lines


def assembly_body(assembly: Assembly) -> dict[str, Any]:
    """An assembly as JSON, for the journal."""
    body: dict[str, Any] = Encoder().body(assembly)
    return body


def read_assembly(body: object) -> Assembly:
    """An assembly from the journal.

    Raises:
        MalformedMessage: when it is not one.
    """
    assembly = Decoder(np.zeros(0)).build(body, Assembly, "assembly")
    assert isinstance(assembly, Assembly)
    return assembly
