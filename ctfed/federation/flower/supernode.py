"""``python -m ctfed.federation.flower.supernode``: Flower's SuperNode with ctfed's rests between two messages.

Takes the arguments of ``flower-supernode``.

Uses of Flower's inside: the name ``pull_objects`` inside ``flwr.supernode.start_client_internal``, and
``FleetHttpClient.ActivateNode``; both checked.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from ctfed.federation.flower import bell

ACTIVATION_RESTS = (1.0, 1.0, 2.0, 2.0, 2.0)  # s until a node that the server did not take in asks again


class RunEnded(Exception):
    """A message's run ended before all of the message had come."""


def receive_whole_messages() -> None:
    """Ring the executor's bell when a message has come, and let go of a message whose run ends before it has.

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
            pulled = pull(*arguments, **options)
        except RunNotRunningException as error:
            raise RunEnded("the run has ended") from error
        bell.ring()  # the message's task is there since before the pull; now the message is there, too
        return pulled

    start_client_internal.pull_objects = pull_or_fail


def ask_to_be_taken_in() -> None:
    """Ask a few times within 8 s to be taken in by the server, before the process ends with Flower's code 305.

    A server registers its sites a moment after it has begun to listen, and sites that waited for it are there at once.

    Raises:
        RuntimeError: when this flwr does not activate nodes as 1.41.0 does.
    """
    import httpx
    from flwr.supercore.error import ApiErrorCode, FlowerError
    from flwr.supernode.fleet_http_client import FleetHttpClient

    activate = getattr(FleetHttpClient, "ActivateNode", None)
    if activate is None:
        raise RuntimeError("flwr's SuperNode is activated in another way; ctfed is made for flwr 1.41.0")

    def activate_patiently(client: FleetHttpClient, request: Any) -> Any:
        for rest in ACTIVATION_RESTS:
            try:
                return activate(client, request)
            except httpx.HTTPStatusError as error:
                told = FlowerError.from_json(error.response.text)
                if told is None or told.code != ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
                    raise
            time.sleep(rest)
        return activate(client, request)

    FleetHttpClient.ActivateNode = activate_patiently


def main() -> None:
    """Run Flower's SuperNode until it is stopped."""
    from flwr.supernode.cli import flower_supernode

    from ctfed.federation.flower.pace import quicken_object_pulls, quicken_retries, quicken_supernode

    quicken_object_pulls()
    quicken_supernode()
    quicken_retries()
    receive_whole_messages()
    ask_to_be_taken_in()
    sys.argv[0] = "flower-supernode"  # Flower looks at its own name
    flower_supernode()


if __name__ == "__main__":
    main()
