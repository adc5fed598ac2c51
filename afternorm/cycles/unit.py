# SPDX-License-Identifier: Apache-2.0
"""What an engine of the model is, seen from its front end."""

from abc import ABC, abstractmethod

from afternorm.cycles.kernel import Steps, Waiters
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

    def complete(self, i: Instruction, done: int, early: int | None = None) -> None:
        """An instruction is done; `early`, where that is another cycle."""
        machine = self.machine
        for semaphore in set(i.signals):
            machine.signal(semaphore, done)
        if i.early is not None:
            machine.signal(i.early, done if early is None else early)
        self.done.append(done)
        machine.kernel.wake(self.changes)
