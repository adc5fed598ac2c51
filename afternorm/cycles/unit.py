# SPDX-License-Identifier: Apache-2.0
"""What an engine of the model is, seen from its front end."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable

from afternorm.cycles.kernel import Process, Steps, Waiters
from afternorm.cycles.machine import Machine
from afternorm.isa import Instruction


class Unit(ABC):
    """An engine: executes instructions in order, and keeps record of when.

    Attributes
    ----------
    accepted, done : cycles, by instruction; `done` may come later than the next instruction.
    changes : processes that wait for the next one to be done.
    """

    BUSY_WHEN_OFFERED = False
    """Whether the engine is busy from the offer of an instruction on, or from its acceptance."""
    BUSY_WHEN_DONE = True
    """Whether it is still busy in the cycle in which an instruction is done."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.accepted: list[int] = []
        self.done: list[int] = []
        self.changes: Waiters = []

    @property
    def finished(self) -> int:
        """When the last instruction that is known to be done was done; -1 before there is one."""
        return self.done[-1] if self.done else -1

    @abstractmethod
    def execute(self, i: Instruction, offered: int) -> Steps:
        """Execute an instruction that is offered from a cycle on; when it is accepted."""

    def processes(self) -> Iterable[Process]:
        """The engine's own processes, beside its front end's."""
        return ()

    def complete(self, i: Instruction, done: int, early: int | None = None) -> None:
        """An instruction is done; `early`, where that is another cycle."""
        machine = self.machine
        for semaphore in set(i.signals):
            machine.signal(semaphore, done)
        if i.early is not None:
            machine.signal(i.early, done if early is None else early)
        self.done.append(done)
        machine.kernel.wake(self.changes)


class Working(Unit):
    """An engine that works on its own while its front end holds what comes next.

    What it has accepted is known in that cycle, not when it is done, so that nobody who waits
    for a place in a queue learns of it too late.
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self._jobs: deque[tuple[Instruction, int]] = deque()
        self._arrivals: Waiters = []
        self._releases: Waiters = []
        self._open = True
        self._from = 0

    def processes(self) -> Iterable[Process]:
        """The engine at work."""
        return (self._run(),)

    def execute(self, i: Instruction, offered: int) -> Steps:
        """Execute an instruction that is offered from a cycle on; when it is accepted."""
        while not self._open:
            yield self._releases
        self._open = False
        accepted = max(offered, self._from)
        self._jobs.append((i, accepted))
        self.machine.kernel.wake(self._arrivals)
        yield accepted
        return accepted

    def release(self, cycle: int) -> None:
        """The next instruction may be accepted from `cycle` on."""
        self._open, self._from = True, cycle
        self.machine.kernel.wake(self._releases)

    @abstractmethod
    def work(self, i: Instruction, accepted: int) -> Process:
        """Work on an instruction, up to the cycle in which the next one may begin."""

    def _run(self) -> Process:
        """Instruction by instruction."""
        while True:
            while not self._jobs:
                yield self._arrivals
            yield from self.work(*self._jobs.popleft())
