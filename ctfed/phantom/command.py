"""``ctfed phantom``: write a cohort of synthetic chest CTs with known truth."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    phantom = commands.add_parser(
        "phantom",
        help="write synthetic chest CTs of a few sites, with known truth, to try things on",
        description="Write synthetic chest CTs as DICOM series with masks, clinical tables in each site's own columns, "
        "and truth.json with what was planted. Equal arguments give equal files.",
    )
    phantom.add_argument("--out", type=Path, required=True, help="folder for the cohort, absent or empty")
    phantom.add_argument("--patients", type=int, default=40, help="of all sites together (default: 40)")
    phantom.add_argument("--sites", type=int, default=3, help="number of sites (default: 3)")
    phantom.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: 0)")
    phantom.add_argument("--matrix", type=int, default=96, help="pixels along the edge of a slice (default: 96)")
    phantom.set_defaults(command=_phantom)


def _phantom(options: argparse.Namespace) -> int:
    from ctfed.phantom import PhantomCohort, write_cohort

    cohort = PhantomCohort(patients=options.patients, sites=options.sites, seed=options.seed, matrix=options.matrix)
    shown = sys.stderr.isatty()

    def progress(done: int) -> None:
        if shown:
            print(f"\r{done} of {cohort.patients} patients", end="", file=sys.stderr, flush=True)

    truth = write_cohort(options.out, cohort, progress)
    if shown:
        print(file=sys.stderr)
    print(f"{options.out}: {cohort.patients} SYNTHETIC patients at {cohort.sites} sites, seed {cohort.seed}")
    print(f"what was planted: {truth}")
    return 0
