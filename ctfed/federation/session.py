"""Session: what the sites of a run agree on before the first question, and what every mask is bound to.

    opening   each site tells a fresh nonce, a commitment to its cohort, the splits it contributes to, and where its
              ledger stands
    session   the openings of all sites, with the run, the study and the roster; its digest salts every mask
    census    each site's masked counts of patients and events, sealed for every other site
    assembly  session and census: travels with the questions as a view does, by its digest

From the census each site computes the federation's patients and events itself, so that its thresholds do not rest on
what the server says.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ctfed.federation.arrays import FloatArray, IntArray
from ctfed.federation.codec import digest, register
from ctfed.federation.cohort import Cohort
from ctfed.federation.errors import MalformedMessage, Refusal
from ctfed.federation.fixedpoint import add_limbs, from_limbs, to_limbs
from ctfed.federation.masking import Masks
from ctfed.federation.roster import SITE_NAME
from ctfed.federation.view import View

_HEX64 = re.compile(r"[0-9a-f]{64}")
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
        seen: where the ledgers of the others stood when this site last saw them; each finds its own there, and refuses
            to go on from a ledger that was restored or written anew.
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
    """

    run: str
    study: str
    roster: str
    openings: tuple[Opening, ...]

    def __post_init__(self) -> None:
        if not (_HEX64.fullmatch(self.study) and _HEX64.fullmatch(self.roster)):
            raise ValueError("study and roster of a session are 64 hexadecimal digits")
        if not RUN_NAME.fullmatch(self.run):
            raise ValueError("a run's name has 1 to 64 letters, digits or '-'")
        names = [opening.site for opening in self.openings]
        if not names or names != sorted(set(names)):
            raise ValueError("a session has one opening per site, in alphabetical order")

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
        if not re.fullmatch(r"([0-9a-f]{16})+", self.limbs):
            raise ValueError("a census holds whole numbers of 8 bytes in hexadecimal")
        if not all(_HEX64.fullmatch(seal) for seal in self.seals):
            raise ValueError("a seal is 64 hexadecimal digits")

    @property
    def numbers(self) -> IntArray:
        """(n,) the limbs."""
        return np.frombuffer(bytes.fromhex(self.limbs), dtype="<i8").astype(np.int64)


@register("assembly", shared=True)
@dataclass(frozen=True)
class Assembly:
    """A session and the sealed census of all its sites."""

    session: Session
    counts: tuple[SealedCount, ...]

    def __post_init__(self) -> None:
        if tuple(count.site for count in self.counts) != self.session.sites:
            raise ValueError("an assembly has one census per site of its session, in the same order")
        if any(len(count.seals) != len(self.counts) - 1 for count in self.counts):
            raise ValueError("a census is sealed for every other site")

    @cached_property
    def session_digest(self) -> str:
        """What the masks are bound to."""
        return digest(self.session)


@dataclass(frozen=True, eq=False)
class Census:
    """Patients and events of the federation's contributing sites.

    Attributes:
        fold: (K, 2) patients and events of the training rows in each fold.
        test: (2,) of the test rows.
    """

    fold: FloatArray
    test: FloatArray

    def of(self, view: View) -> tuple[int, int]:
        """Patients and events of a view's rows, before its row filters."""
        chosen = [
            counts
            for split, fold, counts in self._parts
            if view.split in (split, "all") and (view.fold is None or (fold == view.fold) == view.held_out)
        ]
        return sum(patients for patients, _ in chosen), sum(events for _, events in chosen)

    @cached_property
    def _parts(self) -> list[tuple[str, int, tuple[int, int]]]:
        """Split, fold (that of test rows is -1, as in a Cohort), and patients and events there."""
        table = [*self.fold.tolist(), self.test.tolist()]
        counts = [(round(patients), round(events)) for patients, events in table]
        return [*(("train", fold, part) for fold, part in enumerate(counts[:-1])), ("test", -1, counts[-1])]


def _flat_counts(cohort: Cohort, splits: tuple[str, ...], folds: int) -> FloatArray:
    counts = np.zeros((folds + 1, 2))
    train = (cohort.split == "train") & ("train" in splits)
    for fold in range(folds):
        rows = train & (cohort.fold == fold)
        counts[fold] = rows.sum(), cohort.event[rows].sum()
    rows = (cohort.split == "test") & ("test" in splits)
    counts[folds] = rows.sum(), cohort.event[rows].sum()
    return counts.reshape(-1)


def sealed_count(cohort: Cohort, opening: Opening, folds: int, masks: Masks, session: str) -> SealedCount:
    """This site's census, masked, with a seal for every other site."""
    values = _flat_counts(cohort, opening.splits, folds)
    masked = masks.mask(to_limbs(values, np.zeros(values.size, dtype=np.int64)), CENSUS)
    data = masked.astype("<i8").tobytes()
    message = session.encode() + data
    return SealedCount(
        masks.site, data.hex(), tuple(masks.seal(peer, masks.site, message) for peer in sorted(masks.peers))
    )


def open_census(assembly: Assembly, masks: Masks, folds: int, own: SealedCount) -> Census:
    """The federation's counts, from what every other site sealed for this one, and from its ``own``.

    Raises:
        Refusal: rule 'census-seal' when a count is not what its site sent; 'census-sum' when the counts do not add up.
    """
    sites = assembly.session.sites
    for count in assembly.counts:
        if count.site == masks.site:
            if count.limbs != own.limbs:  # or the server could add patients that nobody holds
                raise Refusal("census-seal", "the census in this site's own name is not the one that it gave")
            continue
        message = assembly.session_digest.encode() + bytes.fromhex(count.limbs)
        position = [site for site in sites if site != count.site].index(masks.site)
        if not hmac.compare_digest(masks.seal(count.site, count.site, message), count.seals[position]):
            raise Refusal("census-seal", f"the census of {count.site!r} is not what that site sent to this one")
    return add_census([count.numbers for count in assembly.counts], folds)


def census_limbs(folds: int) -> int:
    """Limbs of one site's census: patients and events of every fold and of the test split."""
    return 4 * (folds + 1)


def add_census(counts: list[IntArray], folds: int) -> Census:
    """The counts of all sites added up.

    Raises:
        Refusal: rule 'census-sum' when they do not open: a site took part in another session.
        MalformedMessage: when their sizes differ from what the number of folds needs.
    """
    size = census_limbs(folds)
    if any(count.shape != (size,) for count in counts):
        raise MalformedMessage(f"a census of {folds} folds has {size} limbs")
    total = counts[0]
    for count in counts[1:]:
        total = add_limbs(total, count)
    values = from_limbs(total, np.zeros(size // 2, dtype=np.int64))
    if not ((values >= 0).all() and (values == np.rint(values)).all() and (values < 1e9).all()):
        raise Refusal("census-sum", "the masked counts of the sites do not add up to counts: their sessions differ")
    table = values.reshape(folds + 1, 2)
    return Census(table[:-1], table[-1])


def views_of(queries: Mapping[str, object]) -> list[View]:
    """The views among named fields of a query."""
    return [value for value in queries.values() if isinstance(value, View)]
