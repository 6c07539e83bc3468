"""``python -m ctfed.federation.flower.supernode``: Flower's SuperNode with ctfed's rests between two messages.

Takes the arguments of ``flower-supernode``.

Uses of Flower's inside: the name ``pull_objects`` inside ``flwr.supernode.start_client_internal``, checked.
"""

from __future__ import annotations

import sys
from typing import Any


class RunEnded(Exception):
    """A message's run ended before all of the message had come."""


def let_go_of_ended_runs() -> None:
    """Count a message whose run ends while it is received as not received, so that its task ends too.

    A server that is killed leaves such messages. Flower 1.41 raises a BaseException there, which its own clean-up does
    not catch: the task stays, and the executor waits for the rest of the message for an hour and more.

    Raises:
        RuntimeError: when this flwr does not receive messages as 1.41.0 does.
    """
    from flwr.supercore.run import RunNotRunningException
    from flwr.supernode import start_client_internal

    pull = getattr(start_client_internal, "pull_objects", None)
    if pull is None:
        raise RuntimeError("flwr's SuperNode receives messages in another way; ctfed is made for flwr 1.41.0")

    def pull_or_fail(*arguments: Any, **options: Any) -> Any:
        try:
            return pull(*arguments, **options)
        except RunNotRunningException as error:
            raise RunEnded("the run has ended") from error

    start_client_internal.pull_objects = pull_or_fail


def main() -> None:
    """Run Flower's SuperNode until it is stopped."""
    from flwr.supernode.cli import flower_supernode

    from ctfed.federation.flower.pace import quicken_object_pulls, quicken_supernode

    quicken_object_pulls()
    quicken_supernode()
    let_go_of_ended_runs()
    sys.argv[0] = "flower-supernode"  # Flower looks at its own name
    flower_supernode()


if __name__ == "__main__":
    main()
