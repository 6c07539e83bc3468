"""One patient per process at a time; a process that dies takes nobody else's work with it.

Every slot is an executor of its own with a single process, so that it is known whose work a dead process was doing.
Processes are started afresh (spawn), compute with one thread, are replaced after some patients, open no connection to
anything, ignore Ctrl-C (the run's own process stops them) and end when the run's own process is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from typing import Any, Generic, TypeVar

from ctfed.federation.errors import CtfedError

Job = TypeVar("Job")
Answer = TypeVar("Answer")

TRIES = 2
RECYCLED = 16  # patients after which a process is replaced: libraries that leak do not add up over days
_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")


@dataclass(frozen=True)
class Died(Generic[Job]):
    """A job whose process died every time that it was tried (out of memory, or a crash in a library)."""

    job: Job


def run_jobs(
    work: Callable[[Job], Answer],
    jobs: Iterable[Job],
    workers: int,
    *,
    prepare: Callable[..., None] | None = None,
    arguments: Sequence[Any] = (),
    recycled: int = RECYCLED,
) -> Iterator[tuple[Job, Answer | Died[Job]]]:
    """Do ``work`` on every job in processes, and yield each job with its answer as soon as it is there.

    Args:
        work: a function of a module; its argument and answer are pickled.
        jobs: in the order in which they begin.
        workers: number of processes.
        prepare: a function of a module that each process runs once, with ``arguments``.
        arguments: pickled.
        recycled: jobs after which a process is replaced.

    Raises:
        Exception: what ``work`` raises, at once; the processes are stopped.
    """
    slots: _Slots[Job, Answer] = _Slots(work, (_begin, (prepare, tuple(arguments))), recycled)
    with _environment():
        try:
            yield from slots.run(deque((job, 1) for job in jobs), workers)
        except BaseException:
            slots.kill()  # nothing is waited for; the cache has only whole entries
            raise
        finally:
            slots.close()


class _Slots(Generic[Job, Answer]):
    """Executors of one process each, and what they are doing."""

    def __init__(self, work: Callable[[Job], Answer], beginning: tuple[Any, Any], recycled: int) -> None:
        self._work = work
        self._beginning = beginning
        self._recycled = recycled
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: dict[Future[Answer], tuple[ProcessPoolExecutor, Job, int]] = {}
        self._others = set(multiprocessing.active_children())

    def run(self, waiting: deque[tuple[Job, int]], workers: int) -> Iterator[tuple[Job, Answer | Died[Job]]]:
        """Answers as they come; ``waiting`` holds jobs with the number of their next try."""
        self._idle = [self._started() for _ in range(min(workers, len(waiting)))]
        while waiting or self._busy:
            while self._idle and waiting:
                self._submit(*waiting.popleft())
            for future in wait(self._busy, return_when=FIRST_COMPLETED).done:
                executor, job, tries = self._busy.pop(future)
                self._idle.append(executor)
                try:
                    answer: Answer | Died[Job] = future.result()
                except BrokenProcessPool:
                    self._replace()
                    if tries < TRIES:
                        waiting.append((job, tries + 1))
                        continue
                    answer = Died(job)
                yield job, answer

    def _started(self) -> ProcessPoolExecutor:
        initializer, arguments = self._beginning
        return ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=initializer,
            initargs=arguments,
            max_tasks_per_child=self._recycled,
        )

    def _submit(self, job: Job, tries: int) -> None:
        try:
            future = self._idle[-1].submit(self._work, job)
        except BrokenProcessPool:  # its process died between two jobs
            self._replace()
            future = self._idle[-1].submit(self._work, job)
        self._busy[future] = self._idle.pop(), job, tries

    def _replace(self) -> None:
        """A new executor in place of the last idle one, whose process died."""
        self._idle.pop().shutdown(wait=False, cancel_futures=True)
        self._idle.append(self._started())

    def kill(self) -> None:
        """End all processes at once."""
        for process in set(multiprocessing.active_children()) - self._others:
            process.kill()

    def close(self) -> None:
        """Wait for the ends of all processes, and let go of what they shared."""
        for executor in [*self._idle, *(entry[0] for entry in self._busy.values())]:
            executor.shutdown(wait=True, cancel_futures=True)
        self._idle.clear()
        self._busy.clear()


def _begin(prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    refuse_network()
    if prepare is not None:
        prepare(*arguments)


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def refuse_network() -> None:
    """Let this process, from now on, reach no other machine, whatever a library tries."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _NETWORK:
            return
        family = getattr(arguments[0], "family", None) if event in ("socket.connect", "socket.sendto") else None
        if family is None or family.name != "AF_UNIX":
            raise CtfedError(f"a library tried to open a connection ({event}); nothing of ctfed prepare needs one")

    sys.addaudithook(refuse)


@contextmanager
def _environment() -> Iterator[None]:
    """The environment that the processes inherit: one thread for every library."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
