# SPDX-License-Identifier: Apache-2.0
"""Processes of this machine that work for this one, and leave nothing behind."""

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context, parent_process
from tempfile import TemporaryDirectory
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Workers:
    """Processes, each the leader of a group.

    Parameters
    ----------
    count : how many.
    scratch : folder of their temporary files.
    """

    def __init__(self, count: int, scratch: str) -> None:
        self._others = set(active_children())
        self._groups: set[int] = set()
        # Spawned, not forked: BLAS and progress bars have threads.
        self._executor = ProcessPoolExecutor(
            count,
            mp_context=get_context("spawn"),
            initializer=_start_worker,
            initargs=(scratch,),
        )

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have a function called."""
        # Workers inherit that SIGINT is blocked, so that only this process hears of Ctrl-C.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            future = self._executor.submit(function, *args, **kwargs)
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
def worker_pool(count: int) -> Iterator[Workers]:
    """So many processes; no process and no file is left behind."""
    with TemporaryDirectory(prefix="afternorm-workers-", ignore_cleanup_errors=True) as scratch:
        some = Workers(count, scratch)
        try:
            yield some
        finally:
            some.kill()


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
