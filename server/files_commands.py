"""`ctfed round ask|collect|plan`: the server's side of a study as files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ctfed.round_commands import actions_of

if TYPE_CHECKING:
    from server.files_transport import Settings, Waiting

DONE, MISSING = 0, 1


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the server's actions to `ctfed round`."""
    actions = actions_of(commands)
    description = (
        "Read the answers that have come back, and write one package with the next question for each site into the "
        "folder. Run again before all answers are there, it writes the same packages and says who is missing; when "
        "nothing is left to ask, it writes the report."
    )
    ask = actions.add_parser("ask", help="write the next question for every site", description=description)
    _add_settings(ask)
    ask.set_defaults(command=_ask)
    description = "Read and check the answers that have come back, and ask nothing. Exit code 1: some are missing."
    collect = actions.add_parser("collect", help="check and add up the answers", description=description)
    _add_settings(collect)
    collect.set_defaults(command=_collect)
    description = "Estimate how many exchanges a study needs, by a run over invented patients on this machine."
    plan = actions.add_parser("plan", help="how many exchanges a study will need", description=description)
    plan.add_argument("--study", type=Path, required=True, help="the study's YAML file")
    plan.add_argument("--sites", type=int, help="how many sites (default: those that the study names, or 3)")
    plan.add_argument("--patients", type=int, default=100, help="patients of each site (default: 100)")
    plan.set_defaults(command=_plan)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--study", type=Path, required=True, help="the study's YAML file")
    parser.add_argument("--roster", type=Path, required=True, help="roster.json, made by `ctfed provision`")
    parser.add_argument("--folder", type=Path, required=True, help="the folder of packages, both ways")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for journal and results (default: out)")
    parser.add_argument(
        "--no-lookahead",
        action="store_true",
        help="ask in the order of a live run, and nothing early; the same choice from the first exchange to the last",
    )


def _settings(options: argparse.Namespace) -> Settings:
    from server.files_transport import Settings

    return Settings(options.study, options.roster, options.folder, options.out, not options.no_lookahead)


def _ask(options: argparse.Namespace) -> int:
    from server.files_transport import advance

    waiting = advance(_settings(options))
    if waiting is not None:
        print(waiting)
        print(
            f"carry each folder in {waiting.written[0].parent} to its site, and bring the answers back to this folder"
        )
    return DONE


def _collect(options: argparse.Namespace) -> int:
    from server.files_transport import advance

    settings = _settings(options)
    waiting: Waiting | None = advance(settings, write=False)
    if waiting is None:
        return DONE
    if not waiting.asked:
        print(f"all answers are added up; exchange {waiting.exchange} is next: ctfed round ask")
        return DONE
    print(waiting)
    return MISSING


def _plan(options: argparse.Namespace) -> int:
    from ctfed.study import load_study
    from server.files_plan import plan_of

    study = load_study(options.study)
    sites = options.sites or (len(study.sites) if study.sites else 3)
    for line in plan_of(study, sites, options.patients).lines():
        print(line)
    return DONE
