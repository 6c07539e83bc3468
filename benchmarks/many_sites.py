"""What grows with the number of sites: the assembly that begins a masked run, and one site's masks.

Assemblies are of made openings and counts, in a first run and in one before which all sites have met (the session then
says where every ledger stood). The census is of five folds, 37 bins of time and one two-valued column: 936
limbs. Seconds are processor seconds of one process.

    .venv/bin/python benchmarks/many_sites.py [--sites 5 50 500 1000]
"""

from __future__ import annotations

import argparse
import hashlib
import time

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ctfed.federation import Feature, MalformedMessage, View
from ctfed.federation.arrays import frozen
from ctfed.federation.census import CensusPlan
from ctfed.federation.masking import Masks
from ctfed.federation.roster import Roster
from ctfed.federation.session import Assembly, LedgerMark, Opening, SealedCount, Session
from ctfed.federation.wire import decode_question, encode_question
from ctfed.statistics.describe import Moments

PLAN = CensusPlan(5, tuple(float(edge) for edge in range(1, 37)), ("female",))
LARGE, SMALL = 2**20, 128  # limbs: 8.4 MB and 1 kB


def made(*parts: object) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def assembly(sites: int, met: bool) -> Assembly:
    """A made assembly; ``met`` before, or in a first run."""
    names = [f"hospital-{index:04}" for index in range(sites)]
    marks = [LedgerMark(name, 7, made("mark", name)) for name in names] if met else []
    openings, counts = [], []
    for index, name in enumerate(names):
        seen = tuple(marks[:index] + marks[index + 1 :])
        openings.append(Opening(name, made(1, name), made(2, name), ("train", "test"), 7, made(3, name), seen))
        seals = tuple(made(name, other) for other in names if other != name)
        counts.append(SealedCount(name, "0123456789abcdef" * PLAN.limbs, seals))
    return Assembly.of(Session.of("run", made("study"), made("roster"), openings), counts)


def assemblies(sites: int) -> None:
    """Size of the first question, and how long a site reads it."""
    view = View((Feature("age", 7),))
    for met in (False, True):
        question = encode_question("run", 0, (Moments(view, frozen(np.zeros(1))),), frozenset(), assembly(sites, met))
        started = time.process_time()
        try:
            decode_question(question, {})
            read = f"read in {time.process_time() - started:.2f} s"
        except MalformedMessage as refusal:
            read = f"refused: {refusal}"
        before = "met before" if met else "first run"
        print(f"{sites:5} sites, {before:10}: {question.size / 1e6:7.2f} MB to each site, {read}", flush=True)


def masks(sites: int) -> None:
    """One site's keys and masks."""
    keys = {f"hospital-{index:04}": X25519PrivateKey.generate() for index in range(sites)}
    roster = Roster({name: key.public_key().public_bytes_raw() for name, key in keys.items()})
    first, private = next(iter(keys.items()))
    started = time.process_time()
    mine = Masks(first, private, roster, made("session"))
    taken = [time.process_time() - started]
    for size in (SMALL, LARGE):
        values = np.zeros(size, dtype=np.int64)
        started = time.process_time()
        for _ in range(3):
            mine.mask(values, "tag")
        taken.append((time.process_time() - started) / 3)
    print(f"{sites:5} sites, one site: keys {taken[0] * 1e3:.1f} ms, masks of 1 kB {taken[1] * 1e3:.2f} ms, ", end="")
    print(f"of 8.4 MB {taken[2] * 1e3:.0f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, nargs="+", default=[5, 50, 500, 1000])
    for sites in parser.parse_args().sites:
        assemblies(sites)
        masks(sites)


if __name__ == "__main__":
    main()
