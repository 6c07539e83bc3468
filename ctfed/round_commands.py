"""`ctfed round`: a study as files that people carry. `answer` is the site's; ask, collect and plan are the server's."""

from __future__ import annotations

import argparse
from pathlib import Path

ACTIONS = "round_actions"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ctfed round` and its action `answer` to the command line."""
    rounds = commands.add_parser(
        "round",
        help="a study as files in a folder, for centres without a network",
        description="Questions and masked answers as folders of files, which people carry through an output review.",
    )
    actions = rounds.add_subparsers(title="actions", metavar="ACTION", required=True)
    rounds.set_defaults(**{ACTIONS: actions})  # the server's package adds its own
    answer = actions.add_parser(
        "answer",
        help="at a site: answer the question that was brought in",
        description="Read this site's newest question, judge it by the site's limits, and write the masked answer into "
        "the folder of what may leave. Run again, it writes the same bits.",
    )
    answer.add_argument("--site", type=Path, required=True, help="the site's YAML file")
    answer.add_argument("--study", type=Path, required=True, help="the study file that this site has approved")
    answer.add_argument("--folder", type=Path, required=True, help="the folder with the packages that came in")
    answer.add_argument(
        "--egress", type=Path, help="the folder for what may leave, and nothing else (default: egress in --folder)"
    )
    answer.add_argument("--exchange", type=int, help="answer this earlier exchange once more, with the same bits")
    answer.set_defaults(command=_answer)


def actions_of(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """The actions of `ctfed round`, for those who add to them."""
    actions: argparse._SubParsersAction[argparse.ArgumentParser] = commands.choices["round"].get_default(ACTIONS)
    return actions


def _answer(options: argparse.Namespace) -> int:
    from ctfed.rounds.answering import answer_packages

    egress = options.egress or options.folder / "egress"
    answer_packages(options.site, options.study, options.folder, egress, options.exchange)
    return 0
