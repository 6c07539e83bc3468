"""A bell between a site's SuperNode and its warm executor: rung when a message has come, so that nobody looks for one.

It is a pipe that both inherit from `ctfed join`. A look costs SuperNode and executor about 8 ms of a core together;
looking often enough to be quick kept a core busy at every site while a study ran.
"""

from __future__ import annotations

import os
import threading

VARIABLE = "CTFED_BELL"  # the process's end of the pipe, a file descriptor


class Bell:
    """Both ends of the pipe; held by `ctfed join` for as long as its children may be started again."""

    def __init__(self) -> None:
        self.listen, self.ring = os.pipe()
        os.set_blocking(self.ring, False)  # a bell that nobody hears must not stop the SuperNode

    def close(self) -> None:
        """Close both ends."""
        os.close(self.listen)
        os.close(self.ring)


def ring() -> None:
    """Ring the bell of this process's environment; nothing happens where there is none."""
    end = os.environ.get(VARIABLE)
    if end is None:
        return
    try:
        os.write(int(end), b"!")
    except BlockingIOError:
        return  # it has been rung 65,536 times and nobody came; one more would tell nothing


def heard() -> threading.Event | None:
    """An event that is set at each ring of this process's bell; None where there is none."""
    end = os.environ.get(VARIABLE)
    if end is None:
        return None
    event = threading.Event()

    def listen(descriptor: int) -> None:
        while os.read(descriptor, 4096):
            event.set()

    threading.Thread(target=listen, args=(int(end),), daemon=True, name="bell").start()
    return event
