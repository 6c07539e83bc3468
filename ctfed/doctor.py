"""`ctfed doctor`: whether a site's container can do its work, on one screen and with one exit code.

Each check is one line: 'ok', 'look' (it works, and a person should know), 'WRONG' (something will fail), or '-' (not
checked, with the reason). The exit code is 2 when a line says WRONG, else 0. Nothing is changed but for a probe file
that is written and removed in folders that must be writable, and nothing about patients is printed. Paths are: the
page is for eyes at this site.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from ctfed.federation.errors import CtfedError

if TYPE_CHECKING:
    from ctfed.site import Site
    from ctfed.study import Study

HEALTHY, UNWELL = 0, 2

CHECKS = (
    *("user", "versions", "temporary", "machine", "inputs", "outputs", "gpu", "weights", "policy", "keys", "approval"),
    *("certificates", "server", "egress"),
)


class Mark(StrEnum):
    """How a check ended."""

    OK = "ok"
    LOOK = "look"
    WRONG = "WRONG"
    SKIPPED = "-"


@dataclass(frozen=True)
class Finding:
    """One line of the screen.

    Attributes:
        check: what was looked at, one or two words.
        mark: how it ended.
        sentence: what was found and, unless all is well, what to do.
    """

    check: str
    mark: Mark
    sentence: str


@dataclass(frozen=True)
class Subject:
    """What is examined.

    Attributes:
        site_file: the site's YAML file.
        site: its content.
        study: the study to be joined, where one was named.
        folder: the folder with supernode.key, ca.crt and join.json, where one was named.
        state: the folder in which `ctfed join` keeps Flower's files, where one was named.
    """

    site_file: Path
    site: Site
    study: Study | None = None
    folder: Path | None = None
    state: Path | None = None


Check = Callable[[Subject], Iterable[Finding]]


def ok(check: str, sentence: str) -> Finding:
    """A finding that all is well."""
    return Finding(check, Mark.OK, sentence)


def look(check: str, sentence: str) -> Finding:
    """A finding that a person should know."""
    return Finding(check, Mark.LOOK, sentence)


def wrong(check: str, sentence: str) -> Finding:
    """A finding that something will fail."""
    return Finding(check, Mark.WRONG, sentence)


def skipped(check: str, reason: str) -> Finding:
    """A check that was not made."""
    return Finding(check, Mark.SKIPPED, reason)


def checks() -> dict[str, Check]:
    """Every check by its name, in the order of the screen."""
    from ctfed import doctor_machine as machine
    from ctfed import doctor_network as network
    from ctfed import doctor_site as centre

    functions: tuple[Check, ...] = (
        *(machine.user, machine.versions, machine.temporary, machine.resources),
        *(centre.inputs, centre.outputs, machine.gpu, centre.weights, centre.policy, centre.keys, centre.approval),
        *(network.certificates, network.server, network.egress),
    )
    return dict(zip(CHECKS, functions, strict=True))


def examine(subject: Subject, skip: Sequence[str] = ()) -> Iterator[Finding]:
    """Every check's findings; a CtfedError of a check is its finding."""
    for name, check in checks().items():
        if name in skip:
            yield skipped(name, "left out with --skip")
            continue
        try:
            yield from check(subject)
        except CtfedError as error:
            yield from (wrong(name, line) for line in str(error).splitlines())


def screen(findings: Iterable[Finding]) -> list[str]:
    """The lines to print."""
    found = list(findings)
    width = max((len(finding.check) for finding in found), default=0)
    lines = [f"{finding.mark:<5}  {finding.check:<{width}}  {_plain(finding.sentence)}" for finding in found]
    count = {mark: sum(finding.mark is mark for finding in found) for mark in Mark}
    verdict = "this site cannot work yet" if count[Mark.WRONG] else "this site can work"
    return [*lines, f"{verdict}: {count[Mark.WRONG]} wrong, {count[Mark.LOOK]} to look at, {count[Mark.OK]} ok"]


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ctfed doctor` to the command line."""
    doctor = commands.add_parser(
        "doctor",
        help="check mounts, rights, disk, GPU, weights, keys, certificates, clock and network of a site",
        description="Check all that a site needs, before anything else is run. Exit code 0: it can work; 2: not yet.",
    )
    doctor.add_argument("--site", type=Path, required=True, help="the site's YAML file")
    doctor.add_argument("--study", type=Path, help="the study to be joined: also check its approval")
    doctor.add_argument(
        "--folder", type=Path, help="folder with supernode.key, ca.crt and join.json, as `ctfed join` takes it"
    )
    doctor.add_argument("--state", type=Path, help="folder for logs and Flower's files, as `ctfed join` takes it")
    left_out = "leave out: " + ", ".join(CHECKS)
    doctor.add_argument("--skip", nargs="+", default=[], choices=CHECKS, metavar="CHECK", help=left_out)
    doctor.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from ctfed.site import load_site
    from ctfed.study import load_study

    try:
        study = None if options.study is None else load_study(options.study)
        subject = Subject(options.site, load_site(options.site), study, options.folder, options.state)
    except CtfedError as error:
        findings = [wrong("files", line) for line in str(error).splitlines()]
    else:
        findings = [ok("files", f"{options.site} is a site file"), *examine(subject, options.skip)]
    for line in screen(findings):
        print(line)
    return UNWELL if any(finding.mark is Mark.WRONG for finding in findings) else HEALTHY


def _plain(text: str) -> str:
    """One line that a terminal only prints: a certificate's names come from outside."""
    return "".join(character if character.isprintable() else "?" for character in text)
