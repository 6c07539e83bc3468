"""`ctfed ledger`: what has left this site, for people; and whether the ledger that says so is whole."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ctfed.federation.errors import CtfedError

if TYPE_CHECKING:
    from ctfed.federation.ledger_account import Account
    from ctfed.federation.ledger_account import Told as Asked
    from ctfed.federation.ledger_check import Check, WrittenDown

WHOLE, REFUSED, FAILED = 0, 1, 2
GAP = "  "
Row = tuple[str, ...]
Told = tuple[Row, tuple[str, ...]]  # a row of the table, and the lines under it

HEADINGS: Row = ("time (UTC)", "run", "round", "decision", "numbers", "bytes", "spent so far")
NUMERIC = {"round", "numbers", "bytes"}


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ctfed ledger` to the command line."""
    ledger = commands.add_parser(
        "ledger",
        help="what has left this site: show, verify or export its ledger",
        description="Look at a site's ledger of everything that it has sent or refused. Nothing but accept changes it.",
    )
    actions = ledger.add_subparsers(title="actions", metavar="ACTION", required=True)
    _register_show(actions)
    _register_verify(actions)
    _register_export(actions)
    _register_accept(actions)


def _add(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, words: str, description: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=words, description=description)
    parser.add_argument("folder", type=Path, help="the folder of the ledger (site file: trust.ledger)")
    return parser


def _register_show(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    description = "One line for each round, refusal and decision. With this site's own words: for eyes at this site."
    show = _add(actions, "show", "print what was asked, sent and refused", description)
    show.add_argument("--run", help="lines of this run alone")
    show.add_argument("--last", type=_count, metavar="N", help="the last N lines alone")
    show.set_defaults(command=_show)


def _register_verify(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    description = "Check the chain of lines and every stored answer. Exit code 0: whole; 2: not, with the line."
    verify = _add(actions, "verify", "check that nothing was changed, removed or put in", description)
    verify.add_argument("--entries", type=_count, metavar="N", help="how many entries it had when --head was kept")
    verify.add_argument("--head", type=_digest, metavar="HASH", help="its last hash then, from paper or another site")
    verify.set_defaults(command=_verify)


def _register_export(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    description = "Write ledger.html, ledger.csv and ledger.json. They hold no patient data, the ledger itself does."
    export = _add(actions, "export", "write the steward's page, and its numbers as CSV and JSON", description)
    export.add_argument("--out", type=Path, required=True, help="folder for the three files")
    export.add_argument("--policy", type=Path, help="the site's policy file, to show its limits beside what was spent")
    export.add_argument("--study", type=Path, help="the approved study, to show the limits that depend on it")
    export.add_argument("--site", default="", help="the site's name, for the title")
    export.set_defaults(command=_export)


def _register_accept(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    description = (
        "Go on with a site whose ledger was lost or restored, after a call with its steward: what it sent before is no "
        "longer counted there. The decision is written into this site's ledger."
    )
    accept = _add(actions, "accept", "go on with another site's ledger that is not the one seen before", description)
    accept.add_argument("--site", required=True, help="the other site's name")
    accept.add_argument("--yes", action="store_true", help="do not ask")
    accept.set_defaults(command=_accept)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number >= 0")
    return int(text)


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text.lower()):
        raise argparse.ArgumentTypeError(f"found {text!r:.80}, expected 64 hexadecimal digits")
    return text.lower()


# -- show


def _show(options: argparse.Namespace) -> int:
    from ctfed.federation.ledger_account import account_of

    check = _checked(options.folder)
    account = account_of(check.entries)
    if options.run is not None and options.run not in account.runs:
        known = ", ".join(map(_plain, account.runs)) or "no run"
        raise CtfedError(f"{options.folder}: found no run {options.run!r}; the ledger knows {known}")
    rows = [told for _, run, told in _rows(account) if options.run in (None, run)]
    shown = rows if options.last is None else rows[len(rows) - min(options.last, len(rows)) :]
    try:
        for line in _table(shown):
            print(line)
        if len(shown) < len(rows):
            print(f"({len(rows) - len(shown)} earlier lines are not shown)")
        print()
        print(_summary(account))
        return _tell(check, options.folder)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WHOLE if check.whole else FAILED


def _rows(account: Account) -> list[tuple[int, str, Told]]:
    """Line of the ledger, run, and what is shown of it; in the ledger's order."""
    found: list[tuple[int, str, Told]] = []
    for run in account.runs.values():
        what = f"study {run.study[:12]}, roster {run.roster[:12]}, {len(run.sites)} sites; contributes to "
        what += " and ".join(run.splits) or "nothing (zeros)"
        found.append((run.line, run.name, _row(run.at, run.name, "", "opened", under=(what,))))
    for one in account.rounds:
        cells = (f"{one.numbers:,}", f"{one.bytes:,}", _spent(one.spent))
        row = _row(one.at, one.run, str(one.number), "sent", *cells, under=tuple(map(_asked, one.told)))
        found.append((one.line, one.run, row))
    for no in account.refused:
        number = "" if no.number is None else str(no.number)
        found.append((no.line, no.run, _row(no.at, no.run, number, f"refused: {no.rule}", under=(no.sentence,))))
    found += [(one.line, "", _row(one.at, "", "", "steward", under=(one.words,))) for one in account.decisions]
    return sorted(found)


def _row(
    at: str,
    run: str,
    number: str,
    decision: str,
    numbers: str = "",
    size: str = "",
    spent: str = "",
    *,
    under: tuple[str, ...],
) -> Told:
    cells = (at[:19].replace("T", " "), run, number, decision, numbers, size, spent)
    return tuple(map(_plain, cells)), tuple(map(_plain, under))


def _asked(told: Asked) -> str:
    times = f" x {told.times}" if told.times > 1 else ""
    zeros = "" if told.contributed else "; ZEROS from this site"
    total = f"{told.rows}, {told.patients} patients of {told.sites} sites{zeros}"
    return f"{told.kind}{times}: {total}; {told.shapes}"


def _spent(spent: Mapping[str, int]) -> str:
    """Rounds, and the numbers told about the rows of which most was told."""
    numbers = {name.partition("|")[2]: count for name, count in spent.items() if name.startswith("numbers|")}
    parts = [f"rounds {spent['rounds']:,}"] if "rounds" in spent else []
    if numbers:
        rows = max(numbers, key=lambda name: numbers[name])
        parts.append(f"numbers {numbers[rows]:,} ({rows})")
    return ", ".join(parts)


def _table(rows: Sequence[Told]) -> Iterator[str]:
    body = [(HEADINGS, ()), *rows]
    widths = [max(len(row[k]) for row, _ in body) for k in range(len(HEADINGS))]
    for row, under in body:
        cells = [
            cell.rjust(width) if name in NUMERIC else cell.ljust(width)
            for name, cell, width in zip(HEADINGS, row, widths, strict=True)
        ]
        yield GAP.join(cells).rstrip()
        yield from (f"    {line}" for line in under)


def _plain(text: str) -> str:
    """A text that a terminal only prints: names of runs come from a server."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _summary(account: Account) -> str:
    from ctfed.report.wording import counted

    runs, rounds = counted(len(account.runs), "run"), counted(len(account.rounds), "round")
    return (
        f"{runs}, {rounds} answered: {account.numbers:,} numbers in {account.bytes:,} bytes; "
        f"{len(account.refused)} refused"
    )


# -- verify


def _verify(options: argparse.Namespace) -> int:
    from ctfed.federation.ledger_check import WrittenDown

    if (options.entries is None) != (options.head is None):
        raise CtfedError("--entries and --head were written down together, and are checked together; found one of them")
    before = None if options.head is None else WrittenDown(options.entries, options.head)
    check = _checked(options.folder, before)
    if before is not None and check.whole:
        print(f"the ledger goes on from entry {before.entries} as it was written down")
    return _tell(check, options.folder)


def _checked(folder: Path, before: WrittenDown | None = None) -> Check:
    from ctfed.federation.ledger_check import check_ledger

    return check_ledger(folder, before)


def _tell(check: Check, folder: Path) -> int:
    """Say whether a ledger is whole, and what to write down of it."""
    for line in _listed("note", check.notes):
        print(line)
    for line in _listed("WRONG", check.faults):
        print(line)
    if not check.whole:
        print(f"{folder}: the ledger is not whole")
        return FAILED
    print(f"{folder}: whole, {len(check.entries)} entries, {check.answers} stored answers as they were sent")
    print(f"to be written down: --entries {len(check.entries)} --head {check.head}")
    return WHOLE


def _listed(word: str, sentences: Iterable[str]) -> Iterator[str]:
    return (f"{word}: {_plain(sentence)}" for sentence in sentences)


# -- export


def _export(options: argparse.Namespace) -> int:
    from ctfed.federation.policy import load_policy
    from ctfed.node import register_queries
    from ctfed.report.steward import write_ledger_export
    from ctfed.report.steward_terms import Limits
    from ctfed.study import load_study, scope_of

    policy = None if options.policy is None else load_policy(options.policy)
    scope = None if options.study is None else scope_of(load_study(options.study))
    check = _checked(options.folder)
    register_queries()
    try:
        files = write_ledger_export(check, options.out, Limits(policy, scope), options.site)
    except OSError as error:
        raise CtfedError(f"{options.out} cannot be written: {error.strerror}") from error
    for path in files:
        print(path)
    return _tell(check, options.folder)


# -- accept


def _accept(options: argparse.Namespace) -> int:
    from ctfed.federation.ledger import ACCEPTED, FILE, STEWARD, Ledger

    if not (options.folder / FILE).is_file():
        raise CtfedError(f"{options.folder} holds no {FILE}, expected the folder of a site's ledger")
    ledger = Ledger(options.folder)
    if options.site not in ledger.witnessed:
        known = ", ".join(sorted(ledger.witnessed)) or "none"
        raise CtfedError(f"this site has seen no ledger of {options.site!r}, and has nothing to accept; seen: {known}")
    entries, head = ledger.witnessed[options.site]
    print(f"The ledger of {options.site} had more than {entries} entries when it was last seen ({head[:12]}...).")
    print("Its budgets and its memory of earlier runs begin anew. Ask its steward what happened.")
    if not (options.yes or _agreed()):
        print("not accepted")
        return REFUSED
    ledger.append(STEWARD, "", {ACCEPTED: options.site})
    print(f"accepted: the next run takes the ledger that {options.site} has then")
    return WHOLE


def _agreed() -> bool:
    """Whether a person types y or yes; no terminal is no."""
    try:
        return input("accept? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False
