"""A Flower grid inside one process: the same ServerApp and ClientApp, the same serialised objects, no Ray, no ports.

Every message is deflated into Flower's content-addressed objects and inflated again, both ways, exactly as a
SuperLink and a SuperNode do it. Faults can be injected per site and round, so that the server's patience is tested
where it is cheap.

Uses of Flower's inside: TaskIdentity (a Message cannot be built outside a run without it), the deflate/inflate
helpers of flwr.supercore.inflatable, and ``metadata._message_id`` (set by the SuperLink, read-only in public).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from ctfed import node
from ctfed.federation.flower.records import scrubbed_reply

log = logging.getLogger(__name__)

SERVER_NODE = 1  # Flower's own id for the SuperLink
FIRST_NODE = 1001

FaultKind = Literal["drop", "error", "delay", "duplicate", "corrupt", "stale", "restart", "crash"]


class SimulatedCrash(BaseException):
    """The server 'dies' after a site has answered and before the answer was taken in; nothing may catch it."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong for one site in one round.

    Attributes:
        kind: 'drop' (question lost), 'error' (the ClientApp raises), 'delay' (the reply comes late), 'duplicate' (the
            reply comes three times), 'corrupt' (a bit of the reply flips), 'stale' (the site's previous reply comes
            instead), 'restart' (the site's process dies: reply lost, memory gone), 'crash' (the server dies).
        site: name of the node that it happens to.
        round_number: round in which it happens; None is the greeting.
        times: how many of that round's messages to the site it happens to.
        seconds: how late, for 'delay'.
    """

    kind: FaultKind
    site: str
    round_number: int | None
    times: int = 1
    seconds: float = 0.2

    @property
    def group_id(self) -> str:
        """The Flower group id of the messages it strikes."""
        return group_id(self.round_number)


def group_id(round_number: int | None) -> str:
    """Flower's name for a round; the greeting has its own."""
    return "hello" if round_number is None else str(round_number)


class _InjectedFault(RuntimeError):
    """What a ClientApp 'raises' under the fault 'error'."""


@dataclass
class _Reply:
    """A reply on its way back, as objects on the wire."""

    message_id: str
    contents: dict[str, bytes]
    ready_at: float
    copies: int = 1
    crash: bool = False


@dataclass
class InProcessGrid(Grid):  # type: ignore[misc]  # flwr is untyped for mypy here
    """Runs a ClientApp for every node of a small federation, in this process.

    Attributes:
        client_app: the ClientApp that every node runs.
        nodes: site name -> node_config, as a SuperNode would be started with.
        run_config: the run's configuration, as the nodes see it.
        faults: what goes wrong, and when.
        workers: threads that answer at the same time; 1 answers in the order of the messages.
    """

    client_app: ClientApp
    nodes: Mapping[str, UserConfig]
    run_config: UserConfig = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    workers: int = 1
    run_id: int = 1

    def __post_init__(self) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, self.run_id, SERVER_NODE
        self._names = dict(enumerate(self.nodes, start=FIRST_NODE))
        self._contexts = {
            node_id: Context(self.run_id, node_id, dict(self.nodes[name]), RecordDict(), dict(self.run_config))
            for node_id, name in self._names.items()
        }
        self._struck: Counter[Fault] = Counter()
        self._replies: dict[str, _Reply] = {}
        self._late_copies: list[_Reply] = []
        self._previous: dict[int, RecordDict] = {}
        self._run: Run | None = None

    # -- the interface that Flower asks of a grid

    def set_run(self, run: Run) -> None:
        """Set the run; nothing here needs it."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that was set, if any."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A new message; Flower's own grids still offer this older spelling."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The ids of all nodes; all are always online."""
        return list(self._names)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; every node answers before this returns, unless a fault says otherwise."""
        store: dict[str, bytes] = {}  # as at the SuperLink, equal objects of one push travel once
        with no_object_id_recompute():
            posted = [(_deflate(message, store), message.metadata.dst_node_id) for message in messages]
        if self.workers > 1:
            with ThreadPoolExecutor(self.workers) as pool:
                replies = list(pool.map(self._deliver, posted))
        else:
            replies = [self._deliver(item) for item in posted]
        for ((message_id, _), _), reply in zip(posted, replies, strict=True):
            if reply is not None:
                self._replies[message_id] = reply
        return [message_id for (message_id, _), _ in posted]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that have arrived.

        Raises:
            SimulatedCrash: when the fault 'crash' strikes one of them.
        """
        now = time.monotonic()
        arrived = [_inflate(reply) for reply in self._late_copies]
        self._late_copies.clear()
        for message_id in list(message_ids):
            reply = self._replies.get(message_id)
            if reply is None or reply.ready_at > now:
                continue
            del self._replies[message_id]
            if reply.crash:
                raise SimulatedCrash("the server dies before it takes in an answer")
            arrived.extend(_inflate(reply) for _ in range(reply.copies))
            if reply.copies > 1:
                self._late_copies.append(reply)
        return arrived

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and return the replies that are there at once or within ``timeout`` seconds."""
        waiting = set(self.push_messages(messages))
        until = time.monotonic() + (timeout or 0.0)
        replies: list[Message] = []
        while waiting:
            for reply in self.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
            if time.monotonic() >= until:
                break
            time.sleep(0.001)
        return replies

    # -- one node's side

    def _deliver(self, posted: tuple[tuple[str, dict[str, bytes]], int]) -> _Reply | None:
        (message_id, contents), node_id = posted
        message = _inflate(_Reply(message_id, contents, 0.0))
        fault = self._fault(self._names[node_id], message.metadata.group_id)
        kind = fault.kind if fault else None
        if kind == "drop":
            return None
        reply = self._run_client_app(message, self._contexts[node_id], kind)
        if kind == "restart":
            node.forget(self._contexts[node_id].node_config)
            return None
        with no_object_id_recompute():
            reply_id, reply_contents = _deflate(reply, {})
        if kind == "corrupt":
            _flip_a_bit(reply_contents)
        delay = fault.seconds if fault and kind == "delay" else 0.0
        copies = 2 if kind == "duplicate" else 1
        return _Reply(reply_id, reply_contents, time.monotonic() + delay, copies, kind == "crash")

    def _run_client_app(self, message: Message, context: Context, kind: FaultKind | None) -> Message:
        previous = self._previous.get(message.metadata.dst_node_id)
        if kind == "stale" and previous is not None:
            return Message(previous, reply_to=message)
        try:
            if kind == "error":
                raise _InjectedFault("injected")
            reply = self.client_app(message, context)
        except Exception as error:  # as both executors do: a message is always answered
            log.debug("the ClientApp raised", exc_info=True)
            return scrubbed_reply(error, message)
        if reply.has_content():
            self._previous[message.metadata.dst_node_id] = reply.content
        return reply

    def _fault(self, site: str, group: str) -> Fault | None:
        for fault in self.faults:
            if fault.site == site and fault.group_id == group and self._struck[fault] < fault.times:
                self._struck[fault] += 1
                return fault
        return None


def run_server_app(server_app: ServerApp, grid: InProcessGrid) -> None:
    """Run a ServerApp over an in-process grid, in this thread; its exceptions come through."""
    context = Context(grid.run_id, SERVER_NODE, {}, RecordDict(), dict(grid.run_config))
    server_app(grid, context)


def _deflate(message: Message, store: dict[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """A message as the objects that travel: its id, and object id -> bytes; ``store`` has what was deflated before."""
    message_id = message.object_id
    message.metadata.__dict__["_message_id"] = message_id
    contents = {}
    for key, part in get_all_nested_objects(message).items():
        if key not in store:
            store[key] = part.deflate()
        contents[key] = store[key]
    return message_id, contents


def _inflate(reply: _Reply) -> Message:
    message = inflate_object_from_contents(reply.message_id, dict(reply.contents))
    message.metadata.__dict__["_message_id"] = reply.message_id
    return message


def _flip_a_bit(contents: dict[str, bytes]) -> None:
    """Damage the last byte of the largest part that carries numbers; an error reply has none and stays as it is."""
    parts = [key for key, content in contents.items() if content.startswith((b"ArrayChunk", b"ConfigRecord"))]
    if not parts:
        return
    key = max(parts, key=lambda item: len(contents[item]))
    damaged = bytearray(contents[key])
    damaged[-1] ^= 1
    contents[key] = bytes(damaged)
