"""A 'study' of a few rounds: moments around a centre that moves with each total, so that every round needs the last."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ctfed.federation import Algorithm, Total, View
from ctfed.federation.arrays import frozen
from ctfed.federation.roster import Roster
from ctfed.statistics.describe import Moments
from ctfed.study import Study, census_of, load_study
from server.assembly import Agreement
from server.conductor import Conductor
from server.journal import Journal, RoundRecord
from server.transport import FlowerTransport

COLUMNS = ("age", "weight_loss")


def wandering_moments(study: Study, rounds: int) -> Algorithm[bytes]:
    """The bytes of every total of ``rounds`` rounds, about columns of the study."""
    view = View(tuple(study.variables[name].feature(name) for name in COLUMNS))
    centre, seen = np.zeros(len(COLUMNS)), b""
    for number in range(rounds):
        total: Total = yield Moments(view, frozen(centre))
        flat = np.concatenate([np.ravel(total[name]) for name in sorted(total)])
        seen += flat.tobytes()
        centre = centre + np.resize(flat, len(COLUMNS)) / (1000.0 + number)
    return seen


def run_study(
    study: Path,
    out: Path,
    transport: FlowerTransport,
    journal: Path,
    tell: Callable[[str], None] = print,
    notes: Sequence[str] = (),
    roster: Roster | None = None,
) -> bytes:
    """As server.study_run.run_study; writes the totals as hexadecimal text."""
    approved = load_study(study)
    agreement = None if roster is None else Agreement(approved.sha256, roster.digest, census_of(approved))

    def progress(record: RoundRecord, replayed: bool) -> None:
        tell(f"round {record.number} {'replayed' if replayed else f'asked in {record.seconds:.3f} s'}")

    book = Journal(journal / "journal.jsonl", {"sites": list(transport.sites)})
    rounds = int(os.environ.get("STAND_IN_ROUNDS", "3"))
    conductor = Conductor(transport, book, progress, agreement=agreement, tell=tell)
    seen = conductor.run(wandering_moments(approved, rounds))
    (out / "totals.txt").write_text(seen.hex(), encoding="utf-8")
    return seen
