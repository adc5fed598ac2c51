# SPDX-License-Identifier: Apache-2.0
"""Processes in simulated time: generators that sleep until a cycle or until they are woken."""

from collections import deque
from collections.abc import Generator
from heapq import heapify, heappop, heappush

Waiters = list["Process"]
Process = Generator[int | Waiters, None, None]
"""Yields the cycle to sleep to, or a list of waiters that it joins until `Kernel.wake`."""
Steps = Generator[int | Waiters, None, int]
"""A part of a process that ends with a cycle."""
NEVER = 1 << 60


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

    def alone(self, process: Process) -> int:
        """The cycle up to which, beside who runs, only a sleeping `process` does anything."""
        if self._ready:
            return self.now
        return min(
            (wake for wake, _, other in self._sleeping if other is not process), default=NEVER
        )

    def skip(self, cycles: int, process: Process) -> None:
        """Let cycles pass in which, beside who runs, only `process` would have done anything.

        It sleeps so much longer, as if it had gone to sleep after all others.
        """
        self.now += cycles
        self._order += 1
        self._sleeping[:] = [
            (wake + cycles, self._order, one) if one is process else (wake, order, one)
            for wake, order, one in self._sleeping
        ]
        heapify(self._sleeping)

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
