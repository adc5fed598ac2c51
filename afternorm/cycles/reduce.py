# SPDX-License-Identifier: Apache-2.0
"""The time of REDUCE and SCAN, as `hdl.reduce.engine` documents it.

REDUCE reads a row a cycle and writes it a pipeline later; one that asks for the same follows
the one before without a gap.  SCAN reads column by column of blocks, as the third of the
scratchpad's readers, and runs alone.
"""

from afternorm.cycles.kernel import Process
from afternorm.cycles.machine import Machine
from afternorm.cycles.timing import SCRATCHPAD, STATISTICS
from afternorm.cycles.unit import Working
from afternorm.isa import Instruction, Opcode

_SCAN = 2
"""Priority at the scratchpad: after the vector engine."""
_KIND = ("mode", "tree", "inv_d", "eps")


class Reduce(Working):
    """The reduce engine."""

    BUSY_WHEN_DONE = False

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self._issued = 0
        self._kind: tuple[int, ...] | None = None

    def work(self, i: Instruction, accepted: int) -> Process:
        """Work on an instruction; the next one is staged when it starts."""
        m, t = self.machine, self.machine.timing
        rows = i["rows"]
        start = max(accepted + 1, self.finished)
        if i.opcode == Opcode.REDUCE:
            kind = tuple(i[name] for name in _KIND)
            if kind == self._kind and not i.drain:
                # Behind the last one: it was compared for a cycle, and that one's rows are read.
                start = min(start, max(accepted + 2, self._issued))
            self._kind = kind
            self._issued = start + rows
            self.release(start + 1)
            first = start + 1 + STATISTICS + (t.tree if i["tree"] else 0) + t.scales[i["mode"]]
            early, done = first + 1, first + rows
        else:
            self.release(start + 1)
            period = max(rows, t.tap_period)
            blocks = i["blocks"]
            end = start
            for block in range(blocks):
                low = i["a_base"] + block * i["a_block"]
                banks = m.banks(low, low + (rows - 1) * i["a_row"])
                first = end + 1
                last = yield from m.third.serve(first, rows, _SCAN, banks=banks)
                end = last + period - rows
            early = done = last + SCRATCHPAD + t.tap
            self._kind = None
        self.complete(i, done, early)
