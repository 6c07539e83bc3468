"""Small ledgers with a fixed clock, written as the guard writes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ctfed.federation.ledger import (
    ANSWERED,
    FILE,
    JOINED,
    OPENED,
    STEWARD,
    Ledger,
    limb_bytes,
)

AT = "2030-01-01T00:00:00+00:00"


def clock() -> str:
    return AT


def opened(ledger: Ledger, run: str = "run") -> None:
    ledger.append(OPENED, run, {"entries": ledger.length, "head": ledger.head, "cohort": "c"})


def answered(ledger: Ledger, number: int, run: str = "run", size: int = 3) -> np.ndarray:
    """Store and write down an answer of two arrays, as the guard does."""
    limbs = np.arange(2 * (size + 1), dtype=np.int64) + 1000 * number
    ledger.store(run, number, limbs)
    facts = {
        "round": number,
        "question": f"{number}" * 8,
        "queries": [{"kind": "counts", "arrays": {"count": [size]}, "contributed": True, "times": 1}],
        "numbers": size,
        "bytes": limbs.nbytes,
        "sent": hashlib.sha256(limb_bytes(limbs)).hexdigest(),
        "spent": {"rounds": 1},
    }
    ledger.append(ANSWERED, run, facts)
    return limbs


def small_ledger(folder: Path, rounds: int = 3) -> Ledger:
    """Six lines: opened, joined, three answers, a steward's yes."""
    ledger = Ledger(folder, clock)
    opened(ledger)
    ledger.append(JOINED, "run", {"session": "s", "ledgers": {"peer": [4, "5" * 64]}})
    for number in range(rounds):
        answered(ledger, number)
    ledger.append(STEWARD, "", {"allow": "more-runs"})
    return ledger


def lines_of(folder: Path) -> list[bytes]:
    return (folder / FILE).read_bytes().splitlines(keepends=True)


def rewrite(folder: Path, lines: list[bytes]) -> None:
    (folder / FILE).write_bytes(b"".join(lines))
