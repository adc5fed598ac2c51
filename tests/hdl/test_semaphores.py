# SPDX-License-Identifier: Apache-2.0
"""Semaphores: who is granted what, and that counts are never lost."""

from hdl.scheduler.semaphores import Semaphores
from tb.runner import build


def test_semaphores(seed: int) -> None:
    sizes = {"count": 12, "waiters": 5, "signallers": 10}
    build(Semaphores(**sizes), name="semaphores").run(
        "tb.bench_semaphores", parameters=sizes, seed=seed
    )
