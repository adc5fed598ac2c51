# SPDX-License-Identifier: Apache-2.0
"""Sequential programs in, synchronized programs out.

A program is written as if its instructions ran one after the other.  The
assembler finds every pair of instructions of different engines that touch the
same word (one of them writing) and orders it with a counting semaphore; within
an engine it sets `drain`.  What an engine already knows through earlier waits,
its own or those of whom it waited for, is tracked with vector clocks (Mattern
1989), so that only those tokens are left that order something new.

There is one semaphore for each pair of a producing event and a consuming
engine.  Producer and consumer are both in order, and each token orders a later
event than the one before it, so the k-th wait matches the k-th signal.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from afternorm.addressing import Indices
from afternorm.compiler.accesses import Accesses, Memory, accesses, tap, words
from afternorm.config import Config
from afternorm.errors import CapacityError
from afternorm.isa import SIGNALS, WAITS, Engine, Instruction, Opcode

TOKENS_MAX = 255
"""What a semaphore's counter holds."""

_ENGINES = len(Engine)
_IN_ORDER = (Engine.MATMUL, Engine.EXP, Engine.LOAD, Engine.STORE)
"""Engines whose pipelines keep the order of their own accesses."""
_MEMORIES = (Memory.SCRATCHPAD, Memory.VECTOR, Memory.SCALE, Memory.STAT)

Clock = NDArray[np.int64]
"""``[done or early, engine]``: how many of an engine's instructions are known to be there."""
_DONE, _EARLY = 0, 1


@dataclass
class _Event:
    """What the other engines wait for: `early` or `done` of an engine's `position`-th."""

    engine: Engine
    position: int
    early: bool


@dataclass
class _Node:
    """An instruction, and what the assembler knows of it."""

    instruction: Instruction
    engine: Engine
    position: int
    order: int
    done: Clock
    """What is known once it is done."""
    early: Clock
    """What is known once its early event happened."""
    waits: list[int] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)


class _Ranges:
    """Ranges of bytes, (first, end) each."""

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self.first, self.end = np.array(sorted(ranges), dtype=np.int64).T
        self._reach = np.maximum.accumulate(self.end)

    def overlap(self, other: "_Ranges") -> bool:
        """Whether a byte is in both."""
        if self._reach[-1] <= other.first[0] or other._reach[-1] <= self.first[0]:
            return False
        before = np.searchsorted(self.first, other.end)
        return bool(((before > 0) & (self._reach[before - 1] > other.first)).any())


@dataclass
class _Semaphore:
    """A semaphore's number, and where in the program its tokens are signalled and taken."""

    number: int
    waits: list[int] = field(default_factory=list)


class Assembler:
    """Collects instructions in sequential order and synchronizes them.

    Parameters
    ----------
    config : the accelerator; its semaphores, queues and memories bound the program.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.nodes: list[_Node] = []
        self._of_engine: list[list[_Node]] = [[] for _ in Engine]
        self._writer = {m: self._positions(m) for m in Memory}
        self._reader = {m: self._positions(m) for m in Memory}
        self._known: list[Clock] = [np.zeros((2, _ENGINES), dtype=np.int64) for _ in Engine]
        self._semaphores: dict[tuple[Engine, bool, Engine], _Semaphore] = {}
        self._written = {m: np.zeros(words(config, m), dtype=bool) for m in _MEMORIES}
        self._dram: dict[Engine, list[tuple[_Ranges, int]]] = {Engine.LOAD: [], Engine.STORE: []}
        """What LOADs and STOREs moved, and their positions plus 1."""

    def _positions(self, memory: Memory) -> Indices:
        """Per word and engine one more than the position of its last access; 0 is none."""
        return np.zeros((words(self.config, memory), _ENGINES), dtype=np.int64)

    def emit(self, opcode: Opcode, **fields: int) -> None:
        """Append an instruction to the sequential program.

        Raises
        ------
        ValueError
            If the instruction is illegal (see `accesses`), or not an engine's operation.
        CapacityError
            If more semaphores are needed than the accelerator has.
        """
        instruction = Instruction(opcode, {name: int(value) for name, value in fields.items()})
        if opcode in (Opcode.SYNC, Opcode.END) or instruction.engine is None:
            raise ValueError(f"{opcode.name} is the assembler's own")
        engine = instruction.engine
        touched = accesses(self.config, instruction)
        known = self._known[engine]
        position = len(self._of_engine[engine])
        node = _Node(instruction, engine, position, len(self.nodes), known, known)
        own, events = self._hazards(engine, touched)
        if touched.dram:
            self._dram[engine].append((_Ranges(touched.dram), position + 1))
        if engine not in _IN_ORDER and own > known[_DONE, engine]:
            instruction.drain = True
            known = np.maximum(known, self._of_engine[engine][position - 1].done)
        for event in self._essential(events, known):
            known = np.maximum(known, self._order(event, node))
        self._known[engine] = known
        node.done, node.early = known.copy(), known.copy()
        if position:
            previous = self._of_engine[engine][position - 1]
            node.done = np.maximum(node.done, previous.done)
            node.early = np.maximum(node.early, previous.early)
        node.done[:, engine] = node.early[_EARLY, engine] = position + 1
        self.nodes.append(node)
        self._of_engine[engine].append(node)
        for memory, addresses in touched.reads.items():
            self._reader[memory][addresses, engine] = position + 1
        for memory, addresses in touched.writes.items():
            self._writer[memory][addresses, engine] = position + 1
            if memory in self._written:
                self._written[memory][addresses] = True

    def _hazards(self, engine: Engine, touched: Accesses) -> tuple[int, list[_Event]]:
        """The latest conflicting position (plus 1) of the own engine, and others' events."""
        done = np.zeros(_ENGINES, dtype=np.int64)
        early = np.zeros(_ENGINES, dtype=np.int64)
        for memory, addresses in touched.writes.items():
            latest = np.maximum(
                self._writer[memory][addresses].max(axis=0),
                self._reader[memory][addresses].max(axis=0),
            )
            if memory == Memory.RESOURCE:
                latest[engine] = 0  # an engine does not exclude itself
            self._collect(memory, addresses, latest, done, early)
        if touched.dram:
            other = Engine.STORE if engine == Engine.LOAD else Engine.LOAD
            ranges, earlier = _Ranges(touched.dram), reversed(self._dram[other])
            latest_overlap = (at for some, at in earlier if some.overlap(ranges))
            done[other] = max(done[other], next(latest_overlap, 0))
        own = int(done[engine])
        for memory, addresses in touched.reads.items():
            writers = self._writer[memory][addresses]
            if memory == Memory.SCALE and touched.row_scale_base is not None:
                column = writers[:, Engine.REDUCE]
                following = self._followed(column, touched.row_scale_base)
                early[Engine.REDUCE] = max(early[Engine.REDUCE], column[following].max(initial=0))
                column[following] = 0
            latest = writers.max(axis=0)
            own = max(own, int(latest[engine]))
            self._collect(memory, addresses, latest, done, early)
        events = []
        for other in Engine:
            if other != engine:
                first = max(int(done[other]), int(self._known[engine][_EARLY, other]))
                if early[other] > first and self._early_taken(other, int(early[other]) - 1):
                    done[other] = early[other]
                if done[other]:
                    events.append(_Event(other, int(done[other]) - 1, early=False))
                if early[other] > done[other]:
                    events.append(_Event(other, int(early[other]) - 1, early=True))
        return own, events

    def _early_taken(self, engine: Engine, position: int) -> bool:
        """Whether another consumer has the one early signal of an instruction."""
        return self._of_engine[engine][position].instruction.early is not None

    def _collect(
        self, memory: Memory, addresses: Indices, latest: Clock, done: Clock, early: Clock
    ) -> None:
        """Add the latest conflicting positions on a memory to those whose event they need."""
        if memory == Memory.STAT or (
            memory == Memory.RESOURCE and addresses[0] == tap(self.config)
        ):
            # A product's early event says that its statistics are complete.
            early[Engine.MATMUL] = max(early[Engine.MATMUL], latest[Engine.MATMUL])
            latest = latest.copy()
            latest[Engine.MATMUL] = 0
        np.maximum(done, latest, out=done)

    def _followed(self, writers: Indices, base: int) -> NDArray[np.bool_]:
        """Which scales come from a REDUCE whose rows the reader follows one by one."""
        result = np.zeros(len(writers), dtype=bool)
        for position in np.unique(writers):
            if position:
                reduce = self._of_engine[Engine.REDUCE][position - 1].instruction
                if reduce["scale_base"] == base:
                    result |= writers == position
        return result

    def _clock(self, event: _Event) -> Clock:
        node = self._of_engine[event.engine][event.position]
        return node.early if event.early else node.done

    def _essential(self, events: list[_Event], known: Clock) -> list[_Event]:
        """Those events that neither `known` nor the other events imply."""

        def implied(event: _Event, clock: Clock) -> bool:
            kind = _EARLY if event.early else _DONE
            return bool(clock[kind, event.engine] > event.position)

        left = [event for event in events if not implied(event, known)]
        for event in list(left):
            others = [self._clock(other) for other in left if other is not event]
            if others and implied(event, np.maximum.reduce(others)):
                left.remove(event)
        return left

    def _order(self, event: _Event, consumer: _Node) -> Clock:
        """Make `consumer` wait for `event`; what it then knows."""
        producer = self._of_engine[event.engine][event.position]
        semaphore = self._semaphore(event.engine, event.early, consumer.engine)
        # Producers dispatched before the consumer can run ahead of it by as many tokens as
        # are not taken by instructions that left its queue; a later producer thins them out.
        taken = int(np.searchsorted(semaphore.waits, producer.order))
        ahead = len(semaphore.waits) - taken
        if ahead + self.config.queue_depth + 3 > TOKENS_MAX:
            producer = self._latest(event.engine, event.early)
        if event.early:
            producer.instruction.early = semaphore.number
        else:
            producer.signals.append(semaphore.number)
        semaphore.waits.append(consumer.order)
        consumer.waits.append(semaphore.number)
        return producer.early if event.early else producer.done

    def _latest(self, engine: Engine, early: bool) -> _Node:
        """The engine's last instruction whose event can still be signalled."""
        for node in reversed(self._of_engine[engine]):
            if not early or node.instruction.early is None:
                return node
        raise AssertionError("an engine that is waited for has an instruction")

    def _semaphore(self, producer: Engine, early: bool, consumer: Engine) -> _Semaphore:
        key = (producer, early, consumer)
        if key not in self._semaphores:
            if len(self._semaphores) == self.config.semaphores:
                raise CapacityError(
                    f"the program needs more than the {self.config.semaphores} semaphores; "
                    "48 always suffice"
                )
            self._semaphores[key] = _Semaphore(len(self._semaphores))
        return self._semaphores[key]

    @property
    def written(self) -> dict[Memory, Indices]:
        """The words that the program writes, sorted, by memory."""
        return {memory: np.flatnonzero(flags) for memory, flags in self._written.items()}

    def finish(self) -> list[Instruction]:
        """The synchronized program, with its END."""
        program: list[Instruction] = []
        for node in self.nodes:
            instruction = node.instruction
            waits, signals = tuple(node.waits), tuple(node.signals)
            engine = {"engine": int(node.engine)}
            while len(waits) > WAITS:
                program.append(Instruction(Opcode.SYNC, dict(engine), waits[:WAITS]))
                waits = waits[WAITS:]
            program.append(
                Instruction(
                    instruction.opcode,
                    dict(instruction.body),
                    waits,
                    signals[:SIGNALS],
                    instruction.early,
                    instruction.drain,
                )
            )
            if len(signals) > SIGNALS:
                program.append(Instruction(Opcode.SYNC, dict(engine), (), signals[SIGNALS:]))
        program.append(Instruction(Opcode.END))
        return program


def listing(program: list[Instruction]) -> str:
    """A program as text: an instruction a line, `?n` waits, `!n` signals, `!n early`."""
    lines = []
    for number, instruction in enumerate(program):
        sync = [f"?{semaphore}" for semaphore in instruction.waits]
        if instruction.drain:
            sync.append("drain")
        body = [f"{name}={value}" for name, value in instruction.body.items() if value]
        if instruction.opcode == Opcode.SYNC:
            body = [f"engine={Engine(instruction['engine']).name.lower()}"]
        signals = [f"!{semaphore}" for semaphore in instruction.signals]
        if instruction.early is not None:
            signals.append(f"!{instruction.early}early")
        name = instruction.opcode.name.lower()
        lines.append(f"{number:5} {' '.join([*sync, name, *body, *signals])}")
    return "\n".join(lines)
