# SPDX-License-Identifier: Apache-2.0
"""Evaluates tasks on a Dask cluster."""

import logging
from collections.abc import Sequence
from socket import gethostname
from typing import Any

from afternorm.errors import AfternormError, ToolError
from afternorm.explore.tasks import Finished, Outcome, Task, evaluate

_REMEDY = "install the version there from which the sweep is started, and restart the worker"
_TIMEOUT = 10
"""Seconds in which the scheduler must answer."""


def run_cluster(tasks: Sequence[Task], address: str) -> Finished:
    """Evaluate tasks on the workers of the Dask scheduler at `address`, as they are finished.

    A lost worker costs no result: the scheduler gives its tasks to others, until one has taken
    several workers with it, which has failed then.  Workers need afternorm, in the same version,
    and checkpoints under the same paths.

    Raises
    ------
    ToolError
        If Dask is missing.
    AfternormError
        If no scheduler answers, it is lost, or its workers cannot run the tasks.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ToolError(
            "--scheduler needs Dask: run `pip install 'afternorm[distributed]'`"
        ) from error
    # What it has to say of a lost scheduler is said below, in one line.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=_TIMEOUT)
    except (OSError, ValueError) as error:
        reason = str(error) or f"no answer in {_TIMEOUT} s"
        raise AfternormError(
            f"--scheduler: there is no Dask scheduler at {address}: {reason}"
        ) from error
    with client:
        yield from _evaluate(client, tasks, address)


def evaluate_there(task: Task) -> Outcome:
    """Evaluate a task on a worker, which may have another installation."""
    if task.code != task.sources():
        return Outcome("fatal", {}, f"the worker {gethostname()} has another afternorm: {_REMEDY}")
    return evaluate(task)


def _evaluate(client: Any, tasks: Sequence[Task], address: str) -> Finished:
    from distributed import KilledWorker, as_completed

    futures = client.map(evaluate_there, tasks, key=[f"afternorm-{task.key}" for task in tasks])
    known = dict(zip((future.key for future in futures), tasks, strict=True))
    try:
        completed = as_completed(futures)
        for future in completed:
            if future.status == "finished":
                yield known[future.key], future.result()
                continue
            if future.status in ("lost", "pending"):
                # Its worker was lost with the result; another one works on it.
                completed.add(future)
                continue
            error = future.exception() if future.status == "error" else None
            if isinstance(error, KilledWorker):
                reason = f"it was lost with {error.last_worker.address}, not the first worker"
                yield known[future.key], Outcome("failed", {}, reason)
            elif error is not None:
                raise AfternormError(
                    f"the workers of {address} cannot run the tasks; is this afternorm installed "
                    f"there? {type(error).__name__}: {error}"
                )
            else:
                raise AfternormError(
                    f"the scheduler at {address} was lost; what is finished is kept, and the same "
                    "command goes on from there"
                )
    finally:
        client.cancel(futures)
