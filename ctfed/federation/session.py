"""Session: what the sites of a run agree on before the first question, and what every mask is bound to.

    opening   each site tells a fresh nonce, a commitment to its cohort, the splits it contributes to, where its
              ledger stands, and where it last saw those of the others
    session   the openings of all sites, with the run, the study and the roster; its digest salts every mask
    census    each site's masked counts of its patients, sealed for every other site (``census``)
    assembly  session and census: travels with the questions as a view does, by its digest

Session and assembly grow with the number of sites and not with its square: what several sites have seen of a ledger is
said once, and the seals that are meant for one site are added up (XOR) to one.

From the census each site computes the federation's counts itself, so that its thresholds do not rest on what the
server says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import xor

import numpy as np

from ctfed.federation.arrays import IntArray
from ctfed.federation.codec import digest, register
from ctfed.federation.roster import SITE_NAME
from ctfed.federation.view import View

_HEX64 = re.compile(r"[0-9a-f]{64}")
_LIMBS = re.compile(r"([0-9a-f]{16})+")
RUN_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")  # also a folder's name in the ledger
CENSUS = "census"  # the tag of its masks, in place of a round's number


@register("ledger-mark")
@dataclass(frozen=True)
class LedgerMark:
    """Where the ledger of ``site`` stood when another site last began a run with it: its length and last hash."""

    site: str
    entries: int
    head: str

    def __post_init__(self) -> None:
        if not (SITE_NAME.fullmatch(self.site) and _HEX64.fullmatch(self.head)) or self.entries < 0:
            raise ValueError("a mark of a ledger names a site, a number of entries >= 0 and 64 hexadecimal digits")


@register("opening")
@dataclass(frozen=True)
class Opening:
    """What one site says when a run begins.

    Attributes:
        site: its name in the roster.
        nonce: 32 random bytes (hex), never used in another run.
        cohort: commitment (hex) to the frozen cohort, an HMAC with a key that stays at the site.
        splits: 'train' and 'test', where the site holds enough patients to contribute.
        entries, head: length and last hash of the site's ledger; a peer refuses a ledger that has not grown.
        seen: where the ledgers of the others stood when this site last saw them; empty in a session, which says them
            once for all sites.
    """

    site: str
    nonce: str
    cohort: str
    splits: tuple[str, ...]
    entries: int
    head: str
    seen: tuple[LedgerMark, ...] = ()

    def __post_init__(self) -> None:
        if not SITE_NAME.fullmatch(self.site):
            raise ValueError("an opening names its site")
        for value in (self.nonce, self.cohort, self.head):
            if not _HEX64.fullmatch(value):
                raise ValueError("nonce, cohort and head of an opening are 64 hexadecimal digits")
        if self.splits not in ((), ("train",), ("test",), ("train", "test")) or self.entries < 0:
            raise ValueError("an opening's splits are 'train' and 'test', its entries a number >= 0")


@register("session")
@dataclass(frozen=True)
class Session:
    """The openings of all sites of a run.

    Attributes:
        run: the server's name for the run.
        study, roster: digests (hex) that every site compares with what it has approved.
        openings: one per site of the roster, in alphabetical order.
        marks: where any site last saw the ledger of another, each mark once. A site finds all marks of its own opening
            here, or it does not join; and it refuses to go on when its own ledger is not where a mark says, because
            that was restored or written anew.
    """

    run: str
    study: str
    roster: str
    openings: tuple[Opening, ...]
    marks: tuple[LedgerMark, ...] = ()

    @classmethod
    def of(cls, run: str, study: str, roster: str, openings: Sequence[Opening]) -> Session:
        """The session of these openings, whose marks are put together."""
        marks = {mark for opening in openings for mark in opening.seen}
        return cls(
            run, study, roster, tuple(replace(one, seen=()) for one in openings), tuple(sorted(marks, key=_place))
        )

    def __post_init__(self) -> None:
        if not (_HEX64.fullmatch(self.study) and _HEX64.fullmatch(self.roster)):
            raise ValueError("study and roster of a session are 64 hexadecimal digits")
        if not RUN_NAME.fullmatch(self.run):
            raise ValueError("a run's name has 1 to 64 letters, digits or '-'")
        names = [opening.site for opening in self.openings]
        if not names or names != sorted(set(names)):
            raise ValueError("a session has one opening per site, in alphabetical order")
        places = [_place(mark) for mark in self.marks]
        if any(opening.seen for opening in self.openings) or places != sorted(set(places)):
            raise ValueError("a session says each mark once and in order, and none in its openings")

    @property
    def sites(self) -> tuple[str, ...]:
        """All sites, contributing or not."""
        return tuple(opening.site for opening in self.openings)

    def opening(self, site: str) -> Opening | None:
        """What a site said, None for a site that is not in the session."""
        return next((opening for opening in self.openings if opening.site == site), None)

    def contributors(self, view: View) -> tuple[str, ...]:
        """The sites that add something to a total over this view; all others add zeros.

        A total over the split 'all' holds every site that contributes to either: were a site without test patients
        left out of it, 'train' plus 'test' minus 'all' would be that one site's sums.
        """
        wanted = {"train", "test"} if view.split == "all" else {view.split}
        return tuple(opening.site for opening in self.openings if wanted & set(opening.splits))


def _place(mark: LedgerMark) -> tuple[str, int, str]:
    return mark.site, mark.entries, mark.head


@register("masked-count")
@dataclass(frozen=True)
class MaskedCount:
    """One site's masked census without its seals.

    Attributes:
        site: who sent it.
        limbs: the masked int64 limbs, little-endian, in hexadecimal.
    """

    site: str
    limbs: str

    def __post_init__(self) -> None:
        if not _LIMBS.fullmatch(self.limbs):
            raise ValueError("a census holds whole numbers of 8 bytes in hexadecimal")

    @property
    def data(self) -> bytes:
        """The limbs as bytes, which the seals are of."""
        return bytes.fromhex(self.limbs)

    @property
    def numbers(self) -> IntArray:
        """(n,) the limbs."""
        return np.frombuffer(self.data, dtype="<i8").astype(np.int64)


@register("sealed-count")
@dataclass(frozen=True)
class SealedCount:
    """One site's masked census.

    Attributes:
        site: who sent it.
        limbs: the masked int64 limbs, little-endian, in hexadecimal.
        seals: MACs (hex) for the other sites, in the session's order without the sender.
    """

    site: str
    limbs: str
    seals: tuple[str, ...]

    def __post_init__(self) -> None:
        if not _LIMBS.fullmatch(self.limbs):
            raise ValueError("a census holds whole numbers of 8 bytes in hexadecimal")
        if not all(_HEX64.fullmatch(seal) for seal in self.seals):
            raise ValueError("a seal is 64 hexadecimal digits")

    @property
    def masked(self) -> MaskedCount:
        """The census without its seals."""
        return MaskedCount(self.site, self.limbs)


@register("assembly", shared=True)
@dataclass(frozen=True)
class Assembly:
    """A session and the census of all its sites.

    Attributes:
        session: the session.
        counts: the masked census of each site, in the session's order.
        seals: for each site, in the same order, the XOR of the seals that all others have made for it. Nobody can
            make it for another census without the key of each pair of which a count was changed (Katz and Lindell
            2008, Aggregate message authentication codes, section 3).
    """

    session: Session
    counts: tuple[MaskedCount, ...]
    seals: tuple[str, ...]

    def __post_init__(self) -> None:
        if tuple(count.site for count in self.counts) != self.session.sites:
            raise ValueError("an assembly has one census per site of its session, in the same order")
        if len(self.seals) != len(self.counts) or not all(_HEX64.fullmatch(seal) for seal in self.seals):
            raise ValueError("an assembly has one seal of 64 hexadecimal digits for every site")

    @classmethod
    def of(cls, session: Session, counts: Sequence[SealedCount]) -> Assembly:
        """What the sites have sent, with the seals for each of them added up.

        Raises:
            ValueError: when a census is not sealed for every other site.
        """
        if any(len(count.seals) != len(counts) - 1 for count in counts):
            raise ValueError("a census is sealed for every other site")
        columns = [
            [count.seals[place - (place > index)] for index, count in enumerate(counts) if index != place]
            for place in range(len(counts))
        ]
        return cls(session, tuple(count.masked for count in counts), tuple(added_seals(column) for column in columns))

    @cached_property
    def session_digest(self) -> str:
        """What the masks are bound to."""
        return digest(self.session)


def added_seals(seals: Iterable[str]) -> str:
    """The XOR (hex) of seals."""
    return f"{reduce(xor, (int(seal, 16) for seal in seals), 0):064x}"
