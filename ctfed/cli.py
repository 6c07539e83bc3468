"""The command line. Site commands are here; the server's register themselves through the entry point 'ctfed.commands'.

Heavy modules are imported inside the commands, so that ``ctfed --help`` is immediate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from ctfed import __version__, combat_command, doctor, ledger_commands, predict_command, report_command, round_commands
from ctfed.federation.errors import CtfedError
from ctfed.phantom import command as phantom_command
from ctfed.tcia import command as tcia_command

Command = Callable[[argparse.Namespace], int]
Commands = argparse._SubParsersAction  # the type of what add_subparsers returns; argparse gives it no public name

REFUSED = 1  # a person said no
FAILED = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a CtfedError becomes its sentence and exit code 2, never a traceback."""
    options = build_parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except CtfedError as error:
        print(f"ctfed: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("ctfed: interrupted; the same command goes on where it was", file=sys.stderr)
        return INTERRUPTED


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command, the server's included."""
    parser = argparse.ArgumentParser(
        prog="ctfed",
        description="Federated prognosis models from chest CT: learned from sums over patients, never from patients.",
    )
    parser.add_argument("--version", action="version", version=f"ctfed {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    register_site_commands(commands)
    for entry in entry_points(group="ctfed.commands"):
        entry.load()(commands)
    return parser


def register_site_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """The commands of a centre."""
    check = commands.add_parser(
        "site", help="check a centre's site file and clinical table", description="Check a centre's files."
    )
    check.add_argument("site", type=Path, help="the site's YAML file")
    check.add_argument("--study", type=Path, required=True, help="the study's YAML file")
    check.set_defaults(command=_check_site)
    doctor.register(commands)
    _register_prepare(commands)
    _register_weights(commands)
    _register_keygen(commands)
    _register_approve(commands)
    _register_join(commands)
    ledger_commands.register(commands)
    combat_command.register(commands)
    round_commands.register(commands)
    phantom_command.register(commands)
    report_command.register(commands)
    predict_command.register(commands)
    tcia_command.register(commands)


def _register_prepare(commands: Commands[argparse.ArgumentParser]) -> None:
    prepare = commands.add_parser(
        "prepare",
        help="turn this centre's scans and clinical data into its local feature table",
        description="Segment and measure every scan, and join the clinical data. Stopped at any moment, the same "
        "command goes on where it was; run again, it does what has changed.",
    )
    prepare.add_argument(
        "--site",
        type=Path,
        required=True,
        help="the site's YAML file, with a section prepare, or a folder of CENTRE/site.yaml",
    )
    prepare.add_argument(
        "--only", nargs="+", default=[], metavar="PATIENT", help="these patients (identifiers or keys)"
    )
    prepare.add_argument("--limit", type=_count, help="at most so many patients")
    prepare.add_argument("--workers", type=_count, help="patients at once (default: as cores and memory allow)")
    prepare.add_argument("--dry-run", action="store_true", help="list the patients and what would be done")
    prepare.set_defaults(command=_prepare)


def _register_weights(commands: Commands[argparse.ArgumentParser]) -> None:
    weights = commands.add_parser(
        "weights",
        help="write the manifest of a folder of a model's weights",
        description="Write ctfed_weights.yaml, the SHA-256 of every file in a folder whose origin you trust. Without "
        "it, or when a file is another one, nothing in the folder is loaded.",
    )
    weights.add_argument("folder", type=Path, help="the folder with the weights")
    weights.add_argument("model", help="the model's name, as its card has it, such as bamf-lung-nodule")
    weights.add_argument("--source", help="where the files were had from, for the manifest")
    weights.set_defaults(command=_weights)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number >= 1")
    return number


def _register_keygen(commands: Commands[argparse.ArgumentParser]) -> None:
    keygen = commands.add_parser(
        "keygen",
        help="make a site's keys; only public.json leaves the site",
        description="Make this site's keys, or show those that the folder holds.",
    )
    keygen.add_argument("folder", type=Path, help="where they go; it is made readable by its owner alone")
    keygen.add_argument("--site", required=True, help="the site's name")
    keygen.set_defaults(command=_keygen)


def _register_approve(commands: Commands[argparse.ArgumentParser]) -> None:
    approve = commands.add_parser(
        "approve",
        help="look at what a study will ask of this site, and approve it",
        description="Show who takes part, what will be asked and by which limits; ask; write the answer down.",
    )
    approve.add_argument("study", type=Path, help="the study's YAML file")
    approve.add_argument("--site", type=Path, required=True, help="the site's YAML file")
    approve.add_argument(
        "--roster", type=Path, help="a roster that came from the server's side; once approved, it becomes the site's"
    )
    approve.add_argument(
        "--allow",
        choices=("cohort-difference", "roster-difference", "more-runs"),
        help="say yes to a run that this site's gate has refused by its rule",
    )
    how = approve.add_mutually_exclusive_group()
    how.add_argument("--yes", action="store_true", help="approve without being asked")
    how.add_argument("--plan-only", action="store_true", help="show the plan, and approve nothing")
    approve.set_defaults(command=_approve)


def _register_join(commands: Commands[argparse.ArgumentParser]) -> None:
    join = commands.add_parser(
        "join",
        help="take part in a federation: a Flower SuperNode that answers for this centre",
        description="Check data and approvals, then answer the server's questions until stopped (Ctrl-C).",
    )
    join.add_argument("site", type=Path, help="the site's YAML file")
    join.add_argument("--study", type=Path, required=True, help="the study file that this site has approved")
    join.add_argument(
        "--folder",
        type=Path,
        help="folder with supernode.key, ca.crt and join.json (else: the site file's section server)",
    )
    join.add_argument("--state", type=Path, default=Path("node"), help="folder for logs and Flower's files")
    join.add_argument(
        "--executor",
        choices=("warm", "stock"),
        default="warm",
        help="warm (default) keeps the features in memory; stock is Flower's own, a new process for every message",
    )
    join.set_defaults(command=_join)


def _prepare(options: argparse.Namespace) -> int:
    from ctfed.prepare import command
    from ctfed.site import site_files

    files = site_files(options.site)
    if len(files) == 1:
        return command(files[0], options.only, options.limit, options.workers, options.dry_run)
    failed = 0
    for site in files:  # what is wrong at one centre does not keep the others waiting
        print(f"{site}:", flush=True)
        try:
            command(site, options.only, options.limit, options.workers, options.dry_run)
        except CtfedError as error:
            print(f"ctfed: {site}: {error}", file=sys.stderr, flush=True)
            failed += 1
    if failed:
        raise CtfedError(f"{failed} of {len(files)} centres met an error; the lines above say which")
    return 0


def _weights(options: argparse.Namespace) -> int:
    from ctfed.imaging.segment.weights import command

    return command(options.folder, options.model, options.source)


def _keygen(options: argparse.Namespace) -> int:
    from ctfed.keys import PUBLIC, make_site_keys

    keys = make_site_keys(options.folder, options.site)
    print(f"{options.folder}: keys of {keys.site}")
    print(f"send this file, and no other, to who provisions the federation: {options.folder / PUBLIC}")
    print(f"fingerprint, to be compared on the telephone: {keys.fingerprint}")
    return 0


def _approve(options: argparse.Namespace) -> int:
    from ctfed import trust
    from ctfed.site import load_site
    from ctfed.study import load_study

    site, study = load_site(options.site), load_study(options.study)
    if options.allow is not None:
        return _allow(options)
    proposal = trust.propose(site, study, options.roster)
    for line in proposal.page():
        print(line)
    if options.plan_only:
        return 0
    if not (options.yes or _agreed()):
        print("not approved; this site answers nothing about this study")
        return REFUSED
    approved = trust.approve(site, study, proposal.roster)
    print(f"approved at {approved.at}: study {study.sha256[:12]}, roster {approved.roster[:12]}")
    return 0


def _allow(options: argparse.Namespace) -> int:
    from ctfed import trust
    from ctfed.cohort import load_cohort
    from ctfed.site import load_site
    from ctfed.study import load_study

    site, study = load_site(options.site), load_study(options.study)
    cohort = load_cohort(site, study)
    print(f"This site would let through {trust.ALLOWANCES[options.allow]}.")
    print(f"It holds for study {study.name} ({study.sha256[:12]}), the approved roster and this table as it is now.")
    if options.plan_only:
        return 0
    if not (options.yes or _agreed()):
        print("not allowed")
        return REFUSED
    trust.allow(site, study, cohort, options.allow)
    print(f"allowed: {options.allow}")
    return 0


def _agreed() -> bool:
    """Whether a person types y or yes; no terminal is no."""
    try:
        return input("approve? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _join(options: argparse.Namespace) -> int:
    from ctfed.node import join, join_settings

    _check_quietly(options)
    join(join_settings(options.site, options.study, options.folder, options.state, options.executor))
    return 0


def _check_quietly(options: argparse.Namespace) -> None:
    """Load the table, so that a fault in it is met before the server's first question.

    What `ctfed join` prints is shown outside on some platforms: no number, no row and no path of the table is in it.

    Raises:
        CtfedError: in words about the files of settings; about the table by its class, with the rest in node.log.
    """
    from ctfed.cohort import load_cohorts
    from ctfed.federation.disk import make_private, private
    from ctfed.site import load_site
    from ctfed.study import load_study

    site, study = load_site(options.site), load_study(options.study)
    try:
        load_cohorts(site, study)
    except CtfedError as error:
        make_private(options.state)
        with open(options.state / "node.log", "a", encoding="utf-8", opener=private) as file:
            file.write(f"{error}\n")
        raise CtfedError(
            f"the data of {site.site or 'the site'} cannot be used ({type(error).__name__}); `ctfed site` says why, "
            "and so does node.log in the folder of --state"
        ) from error
    print(f"{site.site or 'the site'}: the table fits study {study.name}; `ctfed site` shows what is in it")


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
