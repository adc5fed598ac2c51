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
        read, written = accepted, accepted + distance
        window = [-1] * (_WINDOW + m.hops * log2_ceil(c.tiles))
        # Who goes after is told at first of all cycles that are wanted.
        reading = m.third.announce(read + 1, read + 1 + left, _READ)
        writing = m.writes.announce(written + 1, written + 1 + left, _WRITE)
        while left:
            count = min(_SLICE, left)
            left -= count
            # What goes before in the cycles of a slice is known when they are over.
            first = read + 1
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
            for rest in range(left + count, left, -1):
                row, block = divmod(number % every, blocks)
                number += 1
                bank = m.bank(base + row * row_step + block * block_step)
                if bank not in known:
                    known[bank] = m.third.others(_READ, first, 1 << bank)
                earlier = read, written
                wanted = max(read + 1, window[0] + 1)
                read = next_free(known[bank], wanted)
                arrived = max(read + distance, written + 1)
                written = next_free(writes, arrived)
                while written > m.kernel.now:
                    yield written
                    known = {bank: m.third.others(_READ, first, 1 << bank)}
                    writes = m.writes.others(_WRITE, first)
                    read = next_free(known[bank], read)
                    arrived = max(read + distance, earlier[1] + 1)
                    written = next_free(writes, max(arrived, written))
                # Refused, it keeps the ports from all that go later.
                if wanted > earlier[0] + 1:
                    reading.end = earlier[0] + 1
                    reading = m.third.announce(wanted, read + rest, _READ)
                reading.end = read + rest
                if arrived > earlier[1] + 1:
                    writing.end = earlier[1] + 1
                    writing = m.writes.announce(arrived, written + rest, _WRITE)
                writing.end = written + rest
                del window[0]
                window.append(written)
        self.complete(i, written)
        self.release(written + 1)
