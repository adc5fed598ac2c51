# SPDX-License-Identifier: Apache-2.0
"""The time of GATHER: a block a cycle, where no engine wants the scratchpad's ports."""

from afternorm.cycles.kernel import Process
from afternorm.cycles.ports import Use, next_free
from afternorm.cycles.timing import FIFO, SCRATCHPAD, log2_ceil
from afternorm.cycles.unit import Working
from afternorm.isa import Instruction

_READ = 3
"""Priority at the scratchpad's third port: after vector engine and SCAN."""
_WRITE = 2
"""At the write port: after exp and vector engine."""
_WINDOW = 2 * SCRATCHPAD + 4
"""Blocks that are read and not yet written, at most."""
_SLICE = 8
"""Blocks that are looked at together."""


class Gather(Working):
    """The gather network."""

    def work(self, i: Instruction, accepted: int) -> Process:
        """Gather blocks; the next instruction is accepted when this one is done."""
        m, c = self.machine, self.machine.config
        distance = SCRATCHPAD + 1 + FIFO + m.hops * log2_ceil(c.tiles)
        body = i.body
        base, row_step, block_step = body["src_base"], body["src_row"], body["src_block"]
        rows, blocks = body["rows"], body["blocks"]
        banks = m.banks(base, base + (rows - 1) * row_step + (blocks - 1) * block_step)
        number, every = 0, rows * blocks
        left = c.tiles * every
        read, written = accepted, -1
        window = [-1] * (_WINDOW + m.hops * log2_ceil(c.tiles))
        while left:
            count = min(_SLICE, left)
            left -= count
            # What goes before in the cycles of a slice is known when they are over; who goes after
            # is told at first of the cycles that are wanted.
            first = read + 1
            reading = m.third.announce(first, first + count, _READ)
            begin = max(first + distance, written + 1)
            writing = m.writes.announce(begin, begin + count, _WRITE)
            yield read + count + distance
            known: dict[int, list[Use]] = {}
            writes = m.writes.others(_WRITE, first)
            on_time = written <= read + distance and all(
                before <= read + n for n, before in enumerate(window[:count])
            )
            if on_time and not writes and not m.third.others(_READ, first, banks):
                number += count
                read, written = read + count, read + count + distance
                del window[:count]
                window += range(written - count + 1, written + 1)
                continue
            for rest in range(count, 0, -1):
                row, block = divmod(number % every, blocks)
                number += 1
                bank = m.bank(base + row * row_step + block * block_step)
                if bank not in known:
                    known[bank] = m.third.others(_READ, first, 1 << bank)
                earlier = read, written
                wanted = max(read + 1, window[0] + 1)
                read = next_free(known[bank], wanted)
                written = next_free(writes, max(read + distance, written + 1))
                while written > m.kernel.now:
                    yield written
                    known = {bank: m.third.others(_READ, first, 1 << bank)}
                    writes = m.writes.others(_WRITE, first)
                    read = next_free(known[bank], read)
                    written = next_free(writes, max(read + distance, written))
                if wanted > earlier[0] + 1:
                    reading.end = earlier[0] + 1
                    reading = m.third.announce(wanted, read + rest, _READ)
                else:
                    # Refused, it keeps the port from all that go later.
                    reading.end = max(reading.end, read + rest)
                if written > max(earlier[1], begin - 1) + 1:
                    writing.end = max(earlier[1] + 1, begin)
                    writing = m.writes.announce(written, written + rest, _WRITE)
                del window[0]
                window.append(written)
            reading.end, writing.end = read + 1, written + 1
        self.complete(i, written)
        self.release(written + 1)
