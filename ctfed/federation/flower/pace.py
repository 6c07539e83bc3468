"""Flower's pace: shorter waits where Flower 1.41 sleeps for seconds between two messages.

Uses of Flower's inside: the defaults of ``pull_objects``, the name ``time`` inside
``flwr.supernode.start_client_internal``, and the name ``make_simple_http_retry_invoker`` inside
``flwr.supernode.fleet_http_connection``. All are checked, so that another flwr fails here and not in the field.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable

from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.retry import RetryInvoker

OBJECT_BACKOFF = 0.05  # s; Flower waits 1 s before it asks again for an object that is still on its way

IDLE_SLEEP = 3.0  # s; how long Flower's SuperNode sleeps when there is no message for it
FIRST_REST = 0.2  # s; how long ours sleeps first; each look costs the SuperLink about 15 ms of one core
BUSY_REST = 0.03  # s; between two looks for the reply of a ClientApp at work (Flower: 0.5 s)
GROWTH = 1.02  # 0.2 s grows to 3 s in 137 looks: after about two idle minutes
RETRY_GROWTH = 1.1  # of the longest wait before the next try to reach the server; Flower doubles it, to 20 s


def quicken_object_pulls() -> None:
    """Look again after 50 ms, not 1 s, for an object that has not arrived yet.

    Raises:
        RuntimeError: when this flwr has no such default.
    """
    for function in (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree):
        defaults = function.__kwdefaults__
        if not defaults or "initial_backoff" not in defaults:
            raise RuntimeError(f"flwr's {function.__name__} has no 'initial_backoff'; ctfed is made for flwr 1.41.0")
        defaults["initial_backoff"] = OBJECT_BACKOFF


class Rest:
    """Short sleeps while a study runs, growing while nothing comes.

    An idle node costs the hub one request per look, so it must not look ten times a second for ever.
    """

    def __init__(
        self, first: float = FIRST_REST, longest: float = IDLE_SLEEP, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        """``first`` and ``longest`` idle sleep in seconds."""
        self._first = first
        self._longest = longest
        self._sleep = sleep
        self._next = first

    def idle(self) -> None:
        """Nothing came: sleep a little longer than the last time."""
        self._sleep(self._next)
        self._next = min(self._next * GROWTH, self._longest)

    def busy(self, seconds: float = 0.0) -> None:
        """Something came: sleep for ``seconds`` at most, and start again with short sleeps."""
        self.restart()
        self._sleep(min(seconds, BUSY_REST))

    def restart(self) -> None:
        """Something came: the next sleep is a short one."""
        self._next = self._first

    def as_flower_sleeps(self, seconds: float) -> None:
        """In place of ``time.sleep`` in Flower's loop, which asks for 3 s only when it has found no message."""
        if seconds >= IDLE_SLEEP:
            self.idle()
        else:
            self.busy(seconds)


def quicken_supernode() -> None:
    """Let the SuperNode of this process rest as ``Rest`` does.

    Raises:
        RuntimeError: when this flwr does not sleep where 1.41.0 does.
    """
    from flwr.supernode import start_client_internal

    if getattr(start_client_internal, "time", None) is not time:
        raise RuntimeError("flwr's SuperNode loop has changed; ctfed is made for flwr 1.41.0")
    start_client_internal.time = types.SimpleNamespace(sleep=Rest().as_flower_sleeps)


def quicken_retries() -> None:
    """Try again to reach a server that is away after up to a tenth of the time that it has been away, and 20 s at most.

    Flower's wait is about as long as the server was away: sites that came 10 s before their server joined 8 s after it.

    Raises:
        RuntimeError: when this flwr does not try again as 1.41.0 does.
    """
    from flwr.common.constant import MAX_RETRY_DELAY
    from flwr.supercore.retry.retry_invoker import exponential
    from flwr.supernode import fleet_http_connection

    make = getattr(fleet_http_connection, "make_simple_http_retry_invoker", None)
    if make is None or not hasattr(make(), "wait_gen_factory"):
        raise RuntimeError("flwr's SuperNode tries again in another way; ctfed is made for flwr 1.41.0")

    def made() -> RetryInvoker:
        invoker = make()
        invoker.wait_gen_factory = lambda: exponential(1.0, RETRY_GROWTH, MAX_RETRY_DELAY)
        return invoker

    fleet_http_connection.make_simple_http_retry_invoker = made
