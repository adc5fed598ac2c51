# SPDX-License-Identifier: Apache-2.0
"""Processes in simulated time: generators that sleep until a cycle or until they are woken."""

from collections import deque
from collections.abc import Generator
from heapq import heappop, heappush

Waiters = list["Process"]
Process = Generator[int | Waiters, None, None]
"""Yields the cycle to sleep to, or a list of waiters that it joins until `Kernel.wake`."""
Steps = Generator[int | Waiters, None, int]
"""A part of a process that ends with a cycle."""


class Kernel:
    """Runs processes in the order of their cycles."""

    def __init__(self) -> None:
        self.now = 0
        self._sleeping: list[tuple[int, int, Process]] = []
        self._ready: deque[Process] = deque()
        self._order = 0

    def start(self, process: Process) -> None:
        """Add a process, which runs in this cycle."""
        self._ready.append(process)

    def wake(self, waiters: Waiters) -> None:
        """Let all `waiters` look again in this cycle."""
        if waiters:
            self._ready.extend(waiters)
            waiters.clear()

    def run(self) -> None:
        """Run until nothing sleeps; who waits for more waits in vain."""
        ready, sleeping = self._ready, self._sleeping
        while ready or sleeping:
            if ready:
                process = ready.popleft()
            else:
                self.now, _, process = heappop(sleeping)
            for wish in process:
                if isinstance(wish, list):
                    wish.append(process)
                    break
                if wish > self.now:
                    self._order += 1
                    heappush(sleeping, (wish, self._order, process))
                    break
