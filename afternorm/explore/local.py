# SPDX-License-Identifier: Apache-2.0
"""Evaluates tasks in processes of this machine."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool

from afternorm.explore.tasks import Finished, Outcome, Task, evaluate
from afternorm.workers import worker_pool

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
        with worker_pool(min(workers, len(waiting))) as pool:
            running: dict[Future[Outcome], Task] = {}
            broken = False
            while (waiting or running) and not broken:
                # No more than are worked on: those are the ones that a loss concerns.
                while waiting and len(running) < workers:
                    try:
                        future = pool.submit(evaluate, waiting[0])
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
