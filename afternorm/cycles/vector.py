# SPDX-License-Identifier: Apache-2.0
"""The time of VECTOR: a slot a cycle, as `hdl.vector.walk` cuts a pass into slots.

Three processes follow a pass: it is accepted, to be decoded while the one before is walked; its
slots are issued, where they may have to wait for the scratchpad or for a place in the queue of
blocks to write; its blocks are written.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from afternorm.cycles.kernel import Process, Steps, Waiters
from afternorm.cycles.machine import Machine
from afternorm.cycles.ports import next_free
from afternorm.cycles.unit import Working
from afternorm.isa import Instruction, Operand, Pair, Source

_READ = 1
"""Priority at the scratchpad's third port: the first after A and B."""
_WRITE = 1
"""At the write port, and at the vector memory's ports: after the exp engine."""
_ROOM = 2
"""Cycles from a block's write to the first slot that may take its place in the queue."""


@dataclass(slots=True)
class _Pass:
    """A pass on its way through the pipeline.

    Attributes
    ----------
    first, slots : its first slot as far as it depends on nothing else, and slots.
    chunk, block : slots of a chunk and of a block.
    reads, into : blocks that it reads, each so many slots into its chunk or the chunk's half.
    banks : that they are in.
    words : of the vector memory that it reads in a chunk.
    arrivals : of its blocks at the write port.
    """

    instruction: Instruction
    first: int
    slots: int
    chunk: int
    block: int
    reads: int
    into: int
    banks: int
    words: int
    last: int = 0
    arrivals: list[int] = field(default_factory=list)


class Vector(Working):
    """The vector engine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        c, t = machine.config, machine.timing
        self._in_block = c.block // c.lanes
        cycles = self._in_block + t.vector_write + t.vector_block + 1
        self._places = -(-cycles // self._in_block) + 1  # in the queue of blocks
        self._ahead = 4 + t.exp_done  # an EXP is known so long before its first write
        self._taken = 0  # by the walk
        self._walked = 0
        self._last_slot = 0
        self._passes = 0
        self._begun = 0  # blocks
        self._written: list[int] = []  # blocks, when
        self._issued: deque[_Pass] = deque()
        self._to_write: Waiters = []
        self._progress: Waiters = []

    def processes(self) -> Iterable[Process]:
        """The walk and the writer."""
        return *super().processes(), self._write()

    def _take(self, i: Instruction, accepted: int) -> _Pass:
        """The walk takes an instruction, when it has issued the last slot of the one before."""
        m, in_block = self.machine, self._in_block
        body = i.body
        chunks = -(-body["cols"] // m.config.lanes)
        if body["to_blocks"]:
            chunks = -(-chunks // in_block) * in_block
        gate = body["pair"] == Pair.GATE
        a, b, source = body["a"], body["b"], body["source"]
        rotates = body["pair"] == Pair.ROTATE
        words = (
            (source == Source.VECTOR)
            + (a == Operand.VECTOR or rotates)
            + (b == Operand.VECTOR or rotates)
        )
        mixed = {a, b} == {Operand.ROW_SCALE, Operand.COLUMN_SCALE}
        chunk = max(1, words, 2 * mixed) * (1 + gate)
        slots = body["rows"] * chunks * chunk
        decoding, reads, banks = 1, 0, 0
        if source == Source.BLOCKS:
            reads = body["rows"] * (chunks * 2 if gate else -(-chunks // in_block))
            high = body["x_base"] + (body["rows"] - 1) * body["x_row"]
            banks = m.banks(body["x_base"], high + (chunks - 1) // in_block * body["x_block"])
            if gate:
                decoding += (body["gate_offset"] // in_block).bit_length()
        self._taken = max(accepted + decoding, self._walked)
        self.release(self._taken + 1)
        first = max(self._taken + 2, self._last_slot + 1)
        width, into = words * (1 + gate), chunk // (1 + gate) - 1
        return _Pass(i, first, slots, chunk, chunk * in_block, reads, into, banks, width)

    def work(self, i: Instruction, accepted: int) -> Process:
        """Issue the slots of a pass."""
        one = self._take(i, accepted)
        if i.drain:
            while len(self.done) < self._passes:
                yield self.changes
            one.first = max(one.first, self.finished + 1)
        self._passes += 1
        if one.words:
            reads = self.machine.vector_reads
            end = one.first + one.slots
            reads.announce(one.first, end, _READ, period=one.chunk, width=one.words)
        self._issued.append(one)
        if i["to_blocks"]:
            end = yield from self._issue_blocks(one)
        elif one.reads:
            end = yield from self._read(one)
        else:
            end = one.first + one.slots - 1
        one.last = self._last_slot = end
        self._walked = end - 1 if one.slots > 2 else self._taken + one.slots
        self.machine.kernel.wake(self._to_write)

    def _read(self, one: _Pass) -> Steps:
        """The last slot of a pass that reads blocks and writes none."""
        port, banks, into, rows = self.machine.third, one.banks, one.into, one.instruction["rows"]
        slots, reads = one.slots // rows, one.reads // rows
        gate = one.instruction["pair"] == Pair.GATE
        pace = one.chunk // 2 if gate else min(one.block, slots)
        if reads * pace == slots:
            first = one.first + into
            last = yield from port.serve(first, one.reads, _READ, spacing=pace, banks=banks)
            return last - into + pace - 1
        slot = one.first
        for _ in range(rows):
            for length in (*(one.block,) * (reads - 1), slots - (reads - 1) * one.block):
                last = yield from port.serve(slot + into, 1, _READ, spacing=length, banks=banks)
                slot = last - into + length
        return slot - 1

    def _issue_blocks(self, one: _Pass) -> Steps:
        """The last slot of a pass that writes blocks: each has its place before it is begun."""
        t, port, spacing = self.machine.timing, self.machine.third, one.block
        latency = spacing - 1 + t.vector_write + t.vector_block
        blocks = one.slots // spacing
        behind = self._begun - self._places
        self._begun += blocks
        written, arrivals = self._written, one.arrivals
        reads = one.reads // blocks  # of a block; they come in equal distances
        pace = spacing // reads if reads else spacing
        use = None
        if reads:
            wanted = one.first + one.into
            use = port.announce(wanted, wanted + spacing, _READ, period=pace)
        slot, banks, body = one.first, one.banks, one.instruction.body
        spread = reads == 1 and banks & (banks - 1)
        wide = blocks // body["rows"]
        for number in range(blocks):
            if spread:
                row, column = divmod(number, wide)
                at = body["x_base"] + row * body["x_row"] + column * body["x_block"]
                banks = 1 << self.machine.bank(at)
            before = behind + number
            if before >= 0:
                while len(written) <= before:
                    self.machine.kernel.wake(self._to_write)
                    yield self._progress
                slot = max(slot, written[before] + _ROOM)
            if use is None:
                arrivals.append(slot + latency)
            else:
                for part in range(reads):
                    wanted = slot + part * pace + one.into
                    yield wanted
                    cycle = next_free(port.others(_READ, wanted, banks), wanted)
                    if cycle == wanted < use.end:
                        use.end = wanted + pace + 1
                        continue
                    # Refused, it keeps the port from all that go later.
                    use.end = min(use.end, wanted)
                    held = port.announce(wanted, cycle + 1, _READ)
                    while cycle > self.machine.kernel.now:
                        yield cycle
                        cycle = next_free(port.others(_READ, cycle, banks), cycle)
                        held.end = cycle + 1
                    use = port.announce(cycle + pace, cycle + 2 * pace, _READ, period=pace)
                    slot += cycle - wanted
                arrivals.append(slot + latency)
            slot += spacing
        if use is not None:
            use.end = min(use.end, slot)
        return slot - 1

    def _write(self) -> Process:
        """Write the blocks of the passes, and see to their ends."""
        m, t = self.machine, self.machine.timing
        written = self._written
        latest = -1
        while True:
            while not self._issued:
                yield self._to_write
            one = self._issued.popleft()
            i, arrivals = one.instruction, one.arrivals
            low = done = 0
            while low < len(arrivals) or not one.last:
                if low == len(arrivals):
                    yield self._to_write
                    continue
                part = arrivals[low : low + max(1, self._ahead // one.block)]
                low += len(part)
                use = m.writes.announce(part[0], part[-1] + 1, _WRITE, period=one.block)
                yield part[-1] - self._ahead
                uses = m.writes.others(_WRITE, part[0])
                if not uses and latest < part[0]:
                    written += part
                    latest = part[-1]
                else:
                    for arrival in part:
                        latest = next_free(uses, max(arrival, latest + 1))
                        while latest > m.kernel.now + self._ahead:
                            yield latest - self._ahead
                            uses = m.writes.others(_WRITE, arrival)
                            latest = next_free(uses, latest)
                        written.append(latest)
                    use.end = latest + 1
                m.kernel.wake(self._progress)
                done = latest
            if i["to_vector"] or not i["to_blocks"]:  # A pass that writes nothing ends with a slot.
                done = one.last + t.vector_write
            if i["to_vector"]:
                first = one.first + one.chunk - 1 + t.vector_write
                m.vector_writes.announce(first, done + 1, _WRITE, period=one.chunk)
                done = max(done, latest)
            self.complete(i, max(done, self.finished) + 1)
