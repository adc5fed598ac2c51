# SPDX-License-Identifier: Apache-2.0
"""Predicts the cycles of a program: its instructions' way from DRAM to the end of the last one.

Instructions are fetched and checked in order, dispatched to their engines' queues, granted their
semaphores and executed, each stage at the pace that the RTL documents.  Engines are processes
of `afternorm.cycles.kernel`; what an instruction takes is a formula of its fields and of the
configuration (`afternorm.cycles.timing`).  Exact but for memory ports that are wanted by several
engines at a time, whose cycles are shared out on average (`afternorm.cycles.ports`).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop

from afternorm.config import Config
from afternorm.cycles.dram import Fetch, Load, ReadPort, Store
from afternorm.cycles.exp import Exp
from afternorm.cycles.gather import Gather
from afternorm.cycles.kernel import Process, Waiters
from afternorm.cycles.lost import Passage, lost_slots
from afternorm.cycles.machine import Machine
from afternorm.cycles.matmul import Matmul
from afternorm.cycles.reduce import Reduce
from afternorm.cycles.timing import (
    ENTER_TO_GRANT,
    FIFO,
    IN_FLIGHT,
    LEAVE_TO_ENTER,
    LEAVE_TO_OFFER,
    timing,
)
from afternorm.cycles.unit import Unit
from afternorm.cycles.vector import Vector
from afternorm.errors import AfternormError
from afternorm.isa import Engine, Instruction, Opcode


@dataclass(frozen=True)
class EngineTime:
    """An engine's cycles, as its performance counters would show them.

    Attributes
    ----------
    busy : an instruction was being executed.
    waiting : the next instruction waited for a semaphore, and none was executed.
    starved : there was no instruction.
    """

    busy: int
    waiting: int
    starved: int


@dataclass(frozen=True)
class Prediction:
    """What a program is predicted to cost, in cycles, as `afternorm.results.Run` counts them.

    Attributes
    ----------
    cycles : from start to the end of the program.
    engines : by engine.
    rows : rows of A that enter the array.
    idle_slots : cycles between the first and the last row of A in which none enters.
    lost : these, by whom they are lost to (`afternorm.memory_map.Lost`).
    span : from the first operand read to the last accumulator write; 0 without a product.
    """

    cycles: int
    engines: dict[Engine, EngineTime]
    rows: int
    idle_slots: int
    lost: dict[str, int]
    span: int


class _Frontend:
    """An engine's queue and semaphores, as `hdl.scheduler.frontend`."""

    def __init__(self, machine: Machine, unit: Unit) -> None:
        self.machine = machine
        self.unit = unit
        self.queue: deque[tuple[Instruction, int]] = deque()
        self.written: list[int] = []
        self.entered: list[int] = []
        """When instructions left the queue for its head."""
        self.arrivals: Waiters = []
        self.departures: Waiters = []
        self._head: deque[tuple[Instruction, int]] = deque()
        self._enters: Waiters = []
        self._leaves: Waiters = []
        self._left: list[int] = []
        self.blocked: Instruction | None = None
        self.heads: list[int] = []
        self.grants: list[int] = []
        self.offers: list[int] = []
        """When instructions that are no SYNC came to the head, were granted, and offered."""
        self.passages: list[Passage] = []
        """Of all instructions."""

    def enter(self) -> Process:
        """Take instruction by instruction from the queue: when the one before left the head."""
        while True:
            while not self.queue:
                yield self.arrivals
            instruction, written = self.queue.popleft()
            while len(self._left) < len(self.entered):
                yield self._leaves
            entered = written + FIFO
            if self._left:
                entered = max(entered, self._left[-1] + LEAVE_TO_ENTER)
            self.entered.append(entered)
            self._head.append((instruction, entered))
            self.machine.kernel.wake(self.departures)
            self.machine.kernel.wake(self._enters)

    def run(self) -> Process:
        """Grant instruction by instruction, and have it executed."""
        m, unit = self.machine, self.unit
        passed = -1
        while True:
            while not self._head:
                yield self._enters
            instruction, entered = self._head.popleft()
            grant = entered + ENTER_TO_GRANT
            self.blocked = instruction
            before = len(self.grants) - IN_FLIGHT
            if before >= 0:
                while len(unit.done) <= before:
                    yield unit.changes
                grant = max(grant, unit.done[before] + 1)
            taken: dict[int, int] = {}
            for semaphore in set(instruction.waits):
                tokens = m.tokens[semaphore]
                while not tokens:
                    yield m.waiters[semaphore]
                taken[semaphore] = heappop(tokens)
                grant = max(grant, taken[semaphore])
            left = max(grant, passed)
            yield left
            self._left.append(left)
            m.kernel.wake(self._leaves)
            if instruction.opcode == Opcode.SYNC:
                while len(unit.done) < len(self.grants):
                    yield unit.changes
                passed = max(left, unit.finished) + LEAVE_TO_OFFER
                for semaphore in set(instruction.signals):
                    m.signal(semaphore, passed)
                if instruction.early is not None:
                    m.signal(instruction.early, passed)
            else:
                self.grants.append(grant)
                self.heads.append(entered + 1)
                self.offers.append(left + LEAVE_TO_OFFER)
                passed = yield from unit.execute(instruction, self.offers[-1])
                unit.accepted.append(passed)
            self.passages.append(Passage(instruction, entered, left, taken, passed))
            self.blocked = None

    def time(self, cycles: int) -> EngineTime:
        """How the engine spent a program's cycles."""
        busy = waiting = starved = 0
        idle_from = 1
        unit = self.unit
        for head, grant, offered, accepted, done in zip(
            self.heads, self.grants, self.offers, unit.accepted, unit.done, strict=True
        ):
            if grant > idle_from:
                waiting += grant - max(idle_from, min(head, grant))
            starved += max(0, head - 1 - idle_from)
            begin = offered if unit.BUSY_WHEN_OFFERED else accepted + 1
            end = done + unit.BUSY_WHEN_DONE
            busy += max(0, end - max(idle_from, begin))
            idle_from = max(idle_from, end)
        return EngineTime(busy, waiting, starved + max(0, cycles + 1 - idle_from))


class _Scheduler:
    """Fetches, checks and dispatches, as `hdl.scheduler.scheduler`."""

    FETCH_TO_DISPATCH = 5
    """Cycles from the fetch of an instruction to its dispatch, beside those of the checker."""

    def __init__(
        self,
        machine: Machine,
        program: Sequence[Instruction],
        fetch: Fetch,
        frontends: dict[Engine, _Frontend],
    ) -> None:
        self.machine = machine
        self.program = program
        self.fetch = fetch
        self.frontends = frontends
        self.end: int | None = None
        """When all is dispatched."""
        self.blocked: list[tuple[int, int, Engine]] = []
        """From when to when an instruction had no place in the queue of its engine."""

    def run(self) -> Process:
        """Dispatch the program."""
        fetch, kernel = self.fetch, self.machine.kernel
        depth = self.machine.config.queue_depth
        checks = self.machine.timing.checks
        time = 1
        for number, instruction in enumerate(self.program):
            while len(fetch.available) <= number:
                yield fetch.arrivals
            time = max(time, fetch.available[number])
            yield time
            fetch.hand(time)
            dispatch = time + self.FETCH_TO_DISPATCH + checks[instruction.opcode]
            engine = instruction.engine
            if engine is None:
                fetch.end(time)
                self.end = dispatch
                return
            frontend = self.frontends[engine]
            place = len(frontend.written) - depth
            if place >= 0:
                while len(frontend.entered) <= place:
                    yield frontend.departures
                moved = max(frontend.written[place + 1] + 1, frontend.entered[place])
                if moved + 1 > dispatch:
                    self.blocked.append((dispatch, moved + 1, engine))
                    dispatch = moved + 1
            yield dispatch
            frontend.written.append(dispatch)
            frontend.queue.append((instruction, dispatch))
            kernel.wake(frontend.arrivals)
            time = dispatch + 1
        raise AfternormError("the program has no END; put one behind its last instruction")


def predict(
    config: Config,
    program: Sequence[Instruction],
    *,
    dram_latency: int = 32,
    hop_latency: int = 0,
) -> Prediction:
    """Predict a program's cycles.

    Parameters
    ----------
    config
        The accelerator.
    program
        Legal instructions, to END.
    dram_latency
        Cycles from a read request to its first beat, and from a burst's last beat to its end.
    hop_latency
        Cycles more for a level of the reduction tree and of the gather network, for wires that
        are longer than the generated RTL's.

    Raises
    ------
    AfternormError
        If the program never ends, because it lacks END or waits for what is never signalled.
    """
    if dram_latency < 2 or hop_latency < 0:
        raise AfternormError(
            f"dram_latency={dram_latency} must be 2 or more, hop_latency={hop_latency} 0 or more"
        )
    machine = Machine(config, timing(config, hop_latency=hop_latency), dram_latency, hop_latency)
    port = ReadPort(machine)
    fetch = Fetch(machine, port)
    matmul = Matmul(machine)
    units: dict[Engine, Unit] = {
        Engine.MATMUL: matmul,
        Engine.EXP: Exp(machine),
        Engine.VECTOR: Vector(machine),
        Engine.REDUCE: Reduce(machine),
        Engine.GATHER: Gather(machine),
        Engine.LOAD: Load(machine, port),
        Engine.STORE: Store(machine),
    }
    frontends = {engine: _Frontend(machine, unit) for engine, unit in units.items()}
    scheduler = _Scheduler(machine, program, fetch, frontends)
    kernel = machine.kernel
    processes = [port.process, fetch.run(), scheduler.run()]
    for frontend in frontends.values():
        processes += [frontend.enter(), frontend.run(), *frontend.unit.processes()]
    for process in processes:
        kernel.start(process)
    kernel.run()
    for engine, frontend in frontends.items():
        if frontend.blocked is not None:
            raise AfternormError(
                f"the program never ends: its {engine.name} engine waits for semaphores "
                f"{frontend.blocked.waits}, of which one is signalled too rarely"
            )
    if scheduler.end is None:
        raise AssertionError("nothing waits, and END was not reached")
    cycles = max(scheduler.end, *(unit.finished + 1 for unit in units.values()))
    first, last = matmul.first_row, matmul.last_row
    idle = last - first + 1 - matmul.rows if matmul.rows else 0
    passages = frontends[Engine.MATMUL].passages
    return Prediction(
        cycles=cycles,
        engines={engine: frontend.time(cycles) for engine, frontend in frontends.items()},
        rows=matmul.rows,
        idle_slots=idle,
        lost=lost_slots(config, program, passages, scheduler.blocked, matmul.gaps, idle),
        span=matmul.last_result - matmul.first_read + 1 if matmul.rows else 0,
    )
