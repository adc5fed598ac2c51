# SPDX-License-Identifier: Apache-2.0
"""The time of GATHER: a block a cycle, where no engine wants the scratchpad's ports."""

from afternorm.cycles.kernel import Steps
from afternorm.cycles.machine import Machine
from afternorm.cycles.ports import Use, next_free
from afternorm.cycles.timing import FIFO, SCRATCHPAD, log2_ceil
from afternorm.cycles.unit import Unit
from afternorm.isa import Instruction

_READ = 3
"""Priority at the scratchpad's third port: after vector engine and SCAN."""
_WRITE = 2
"""At the write port: after exp and vector engine."""
_WINDOW = 2 * SCRATCHPAD + 4
"""Blocks that are read and not yet written, at most."""
_SLICE = 32
"""Blocks that are looked at together."""


class Gather(Unit):
    """The gather network."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)

    def execute(self, i: Instruction, offered: int) -> Steps:
        """Execute an instruction that is offered from a cycle on; when it is accepted."""
        m, c = self.machine, self.machine.config
        accepted = max(offered, self.finished + 1)
        distance = SCRATCHPAD + 1 + FIFO + m.hops * log2_ceil(c.tiles)
        left = c.tiles * i["rows"] * i["blocks"]
        read, written = accepted, -1
        number, every = 0, i["rows"] * i["blocks"]
        window = [-1] * (_WINDOW + m.hops * log2_ceil(c.tiles))
        while left:
            count = min(_SLICE, left)
            left -= count
            # What goes before in the cycles of a slice is known when they are over.
            first = read + 1
            yield read + count + distance
            known: dict[int, list[Use]] = {}
            writes = m.writes.others(_WRITE, first)
            for _ in range(count):
                row, block = divmod(number % every, i["blocks"])
                number += 1
                bank = m.bank(i["src_base"] + row * i["src_row"] + block * i["src_block"])
                if bank not in known:
                    known[bank] = m.third.others(_READ, first, 1 << bank)
                read = next_free(known[bank], max(read + 1, window[0] + 1))
                written = next_free(writes, max(read + distance, written + 1))
                while written > m.kernel.now:
                    yield written
                    known = {bank: m.third.others(_READ, first, 1 << bank)}
                    writes = m.writes.others(_WRITE, first)
                    read = next_free(known[bank], read)
                    written = next_free(writes, max(read + distance, written))
                del window[0]
                window.append(written)
            m.third.announce(first, read + 1, _READ, period=(read + 1 - first) / count)
            period = (written + 1 - first - distance) / count
            m.writes.announce(first + distance, written + 1, _WRITE, period=period)
        self.complete(i, written)
        return accepted
