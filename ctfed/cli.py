"""The command line. Site commands are here; the server's register themselves through the entry point 'ctfed.commands'.

Heavy modules are imported inside the commands, so that ``ctfed --help`` is immediate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from ctfed import __version__
from ctfed.federation.errors import CtfedError

Command = Callable[[argparse.Namespace], int]
Commands = argparse._SubParsersAction  # the type of what add_subparsers returns; argparse gives it no public name

FAILED = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a CtfedError becomes its sentence and exit code 2, never a traceback."""
    parser = argparse.ArgumentParser(
        prog="ctfed",
        description="Federated prognosis models from chest CT: learned from sums over patients, never from patients.",
    )
    parser.add_argument("--version", action="version", version=f"ctfed {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    register_site_commands(commands)
    for entry in entry_points(group="ctfed.commands"):
        entry.load()(commands)
    options = parser.parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except CtfedError as error:
        print(f"ctfed: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("ctfed: interrupted; the same command goes on where it was", file=sys.stderr)
        return INTERRUPTED


def register_site_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """The commands of a centre."""
    check = commands.add_parser(
        "site", help="check a centre's site file and clinical table", description="Check a centre's files."
    )
    check.add_argument("site", type=Path, help="the site's YAML file")
    check.add_argument("--study", type=Path, required=True, help="the study's YAML file")
    check.set_defaults(command=_check_site)
    join = commands.add_parser(
        "join",
        help="take part in a federation: a Flower SuperNode that answers for this centre",
        description="Check this centre's data, then answer the server's questions until stopped (Ctrl-C).",
    )
    join.add_argument("site", type=Path, help="the site's YAML file")
    join.add_argument("--study", type=Path, required=True, help="the study file that this site takes part in")
    join.add_argument(
        "--folder", type=Path, help="the site's folder made by `ctfed provision` (else: site file's server)"
    )
    join.add_argument("--state", type=Path, default=Path("node"), help="folder for logs and Flower's files")
    join.add_argument(
        "--executor",
        choices=("warm", "stock"),
        default="warm",
        help="warm (default) keeps the features in memory; stock is Flower's own, a new process for every message",
    )
    join.set_defaults(command=_join)


def _join(options: argparse.Namespace) -> int:
    _check_site(options)  # a fault in the files is better told here than in answer to the server's first question
    from ctfed.node import join, join_settings

    join(join_settings(options.site, options.study, options.folder, options.state, options.executor))
    return 0


def _check_site(options: argparse.Namespace) -> int:
    from ctfed.cohort import load_cohorts
    from ctfed.site import load_site
    from ctfed.study import load_study

    loaded = load_cohorts(load_site(options.site), load_study(options.study))
    for cohort in loaded.cohorts:
        train = int((cohort.split == "train").sum())
        print(f"{cohort.site}: {cohort.patients} patients, {int(cohort.event.sum())} events, {train} for training")
    for line in loaded.notes:
        print(f"note: {line}")
    for line in loaded.warnings:
        print(f"look at: {line}")
    for row, reason in loaded.exclusions:
        print(f"set aside: row {row}: {reason}")
    return 0
