# SPDX-License-Identifier: Apache-2.0
"""Evaluates tasks in processes of this machine."""

import os
import shutil
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context, parent_process
from tempfile import TemporaryDirectory

from afternorm.explore.tasks import Finished, Outcome, Task, evaluate

LOST = "its worker was lost twice, the second time with nothing beside it; is memory short?"


def run_local(tasks: Sequence[Task], workers: int) -> Finished:
    """Evaluate tasks in so many processes; they come as they are finished.

    A lost worker (one that is killed, or for which there is no memory) costs no result: what
    was being evaluated is evaluated again, one task at a time, and has failed if that loses its
    worker too.  When the iteration is left, the processes are killed.
    """
    suspects: list[Task] = []
    yield from _evaluate(tasks, workers, suspects)
    for task in suspects:
        lost: list[Task] = []
        yield from _evaluate([task], 1, lost)
        if lost:
            yield task, Outcome("failed", {}, LOST)


def _evaluate(tasks: Sequence[Task], workers: int, lost: list[Task]) -> Finished:
    """Evaluate tasks, but those in `lost`, which were running when a worker was lost."""
    waiting = deque(tasks)
    while waiting:
        with _pool(min(workers, len(waiting))) as pool:
            running: dict[Future[Outcome], Task] = {}
            broken = False
            while (waiting or running) and not broken:
                # No more than are worked on: those are the ones that a loss concerns.
                while waiting and len(running) < workers:
                    try:
                        future = pool.submit(waiting[0])
                    except BrokenProcessPool:
                        broken = True
                        break
                    running[future] = waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    if isinstance(future.exception(), BrokenProcessPool):
                        broken = True
                    else:
                        yield running.pop(future), future.result()
            lost += running.values()


class _Pool:
    """Processes for tasks, each the leader of a group.

    Parameters
    ----------
    workers : how many.
    scratch : folder of their temporary files.
    """

    def __init__(self, workers: int, scratch: str) -> None:
        self._others = set(active_children())
        self._groups: set[int] = set()
        # Spawned, not forked: BLAS and progress bars have threads.
        self._executor = ProcessPoolExecutor(
            workers,
            mp_context=get_context("spawn"),
            initializer=_start_worker,
            initargs=(scratch,),
        )

    def submit(self, task: Task) -> Future[Outcome]:
        """Have a task evaluated."""
        # Workers inherit that SIGINT is blocked, so that only this process hears of Ctrl-C.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            future = self._executor.submit(evaluate, task)
            started = set(active_children()) - self._others
            self._groups |= {process.pid for process in started if process.pid is not None}
            return future
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def kill(self) -> None:
        """Kill the processes, and what they have started."""
        for process in set(active_children()) - self._others:
            process.kill()
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._executor.shutdown(cancel_futures=True)


@contextmanager
def _pool(workers: int) -> Iterator[_Pool]:
    """A pool that leaves no process and no file behind."""
    with TemporaryDirectory(prefix="afternorm-explore-", ignore_cleanup_errors=True) as scratch:
        pool = _Pool(workers, scratch)
        try:
            yield pool
        finally:
            pool.kill()


def _start_worker(scratch: str) -> None:
    """Make a group of this process and what it starts, and let it end with its parent."""
    tempfile.tempdir = scratch
    os.setpgrp()
    threading.Thread(target=_end_with_parent, args=(scratch,), daemon=True).start()


def _end_with_parent(scratch: str) -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(ProcessLookupError):
            os.killpg(os.getpgrp(), signal.SIGKILL)
