"""Asking nodes and waiting for their replies: own poll interval, own deadline, and asking again.

Flower's ``send_and_receive`` polls every 3 s, never asks twice and returns what it has when time is up. This loop
uses the public ``push_messages`` and ``pull_messages`` of any Grid instead, and it ends only when every node has
given a reply that its reader accepts, or when its owner loses patience.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from ctfed.federation.errors import MalformedMessage

T = TypeVar("T")

MAX_REASON = 200  # characters of an error that came from outside
OFFLINE = "offline"


@dataclass(frozen=True)
class Patience:
    """How long the server waits; all in seconds.

    Attributes:
        deadline: for one round, until ``SiteLost``.
        refused: the same, while the last word of the site was a refusal by one of its rules.
        lasting: the same, while it was a refusal that follows from the question and will be repeated.
        join: for the roster to be complete at the start.
        silence: without any reply to a question, until it is asked again; doubles each time.
        ask_again: after an error, until the question is asked again; doubles up to ``ask_again_max``.
        progress: between two lines about what is being waited for.
        poll: between the first two looks for replies; grows to ``poll_max`` within one round.
    """

    deadline: float = 6 * 3600.0
    refused: float = 600.0
    lasting: float = 3.0
    join: float = 3600.0
    silence: float = 900.0
    ask_again: float = 1.0
    ask_again_max: float = 60.0
    progress: float = 5.0
    poll: float = 0.02
    poll_max: float = 0.5


@dataclass
class Pursuit:
    """One question to one node, until it is answered."""

    node_id: int
    records: RecordDict
    next_at: float
    outstanding: set[str] = field(default_factory=set)
    asked: int = 0
    failures: int = 0
    last: str = "not asked yet"

    @property
    def refused(self) -> bool:
        """Whether the site's last word was a refusal."""
        return self.last.startswith("refused:")


class Exchange(Generic[T]):
    """One message to each of several nodes, and one accepted reply from each.

    Attributes:
        waiting: name -> pursuit that has no accepted reply yet.
        answers: name -> accepted reply, as ``read`` returned it.
    """

    def __init__(
        self,
        grid: Grid,
        message_type: str,
        group_id: str,
        read: Callable[[str, RecordDict], T],
        patience: Patience,
    ) -> None:
        """``read`` gets the name and the reply's records; it raises MalformedMessage for a reply to ask for again."""
        self._grid = grid
        self._message_type = message_type
        self._group_id = group_id
        self._read = read
        self._patience = patience
        self._pause = patience.poll
        self._names: dict[str, str] = {}  # message id -> name, of every message that was sent
        self.started = time.monotonic()
        self.waiting: dict[str, Pursuit] = {}
        self.answers: dict[str, T] = {}

    def ask(self, name: str, node_id: int, records: RecordDict) -> None:
        """Have ``records`` sent to a node with the next step."""
        self.waiting[name] = Pursuit(node_id, records, time.monotonic())

    @property
    def elapsed(self) -> float:
        """Seconds since the exchange began."""
        return time.monotonic() - self.started

    def step(self) -> bool:
        """Send what is due and take in what has come; True when a reply was accepted."""
        self._send()
        outstanding = {message_id for pursuit in self.waiting.values() for message_id in pursuit.outstanding}
        if not outstanding:
            return False
        accepted = [self._take(reply) for reply in self._grid.pull_messages(outstanding)]
        if any(accepted):
            self._pause = self._patience.poll
        return any(accepted)

    def pause(self) -> None:
        """Sleep until the next look; each sleep is a little longer, up to ``poll_max``."""
        time.sleep(self._pause)
        self._pause = min(1.3 * self._pause, self._patience.poll_max)

    def _send(self) -> None:
        now = time.monotonic()
        due = {name: pursuit for name, pursuit in self.waiting.items() if now >= pursuit.next_at}
        if any(pursuit.failures for pursuit in due.values()):
            # A message to a node that is away is only turned into an error, so wait until it is back.
            online = set(self._grid.get_node_ids())
            for pursuit in due.values():
                if pursuit.failures and pursuit.node_id not in online:
                    self._fail(pursuit, OFFLINE)
        due = {name: pursuit for name, pursuit in due.items() if now >= pursuit.next_at}
        if not due:
            return
        messages = [
            Message(pursuit.records, pursuit.node_id, self._message_type, group_id=self._group_id)
            for pursuit in due.values()
        ]
        ids = list(self._grid.push_messages(messages)) or [None] * len(messages)
        for (name, pursuit), message_id in zip(due.items(), ids, strict=True):
            if not message_id:
                self._fail(pursuit, "the SuperLink did not take the message")
                continue
            self._names[message_id] = name
            pursuit.outstanding.add(message_id)
            pursuit.next_at = now + self._patience.silence * 2**pursuit.asked
            pursuit.asked += 1
            if pursuit.asked == 1:
                pursuit.last = "no reply yet"

    def _take(self, reply: Message) -> bool:
        name = self._names.get(reply.metadata.reply_to_message_id, "")
        pursuit = self.waiting.get(name)
        if pursuit is None:
            return False  # a duplicate of a reply that was accepted already, or nobody's
        pursuit.outstanding.discard(reply.metadata.reply_to_message_id)
        if reply.has_error():
            self._fail(pursuit, (reply.error.reason or f"error {reply.error.code}")[:MAX_REASON])
            return False
        try:
            self.answers[name] = self._read(name, reply.content)
        except MalformedMessage as error:
            self._fail(pursuit, f"dropped its reply: {error}")
            return False
        del self.waiting[name]
        return True

    def _fail(self, pursuit: Pursuit, reason: str) -> None:
        pursuit.last = reason
        wait = min(self._patience.ask_again * 2**pursuit.failures, self._patience.ask_again_max)
        pursuit.failures += 1
        pursuit.next_at = time.monotonic() + wait
