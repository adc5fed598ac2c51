# SPDX-License-Identifier: Apache-2.0
"""The time of EXP: min(C, block) scores a cycle, without a gap between instructions."""

from afternorm.cycles.kernel import Steps
from afternorm.cycles.machine import Machine
from afternorm.cycles.timing import EXP_SETUP
from afternorm.cycles.unit import Unit
from afternorm.isa import Instruction

_EXP = 0
"""Priority at the scratchpad's write port: the first."""


class Exp(Unit):
    """The exp engine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self._free = 0
        self._last_read = 0

    def execute(self, i: Instruction, offered: int) -> Steps:
        """Execute an instruction that is offered from a cycle on; when it is accepted."""
        m, t, c = self.machine, self.machine.timing, self.machine.config
        chunks = c.block // min(c.columns, c.block)
        reads = i["rows"] * -(-i["cols"] // c.block) * chunks
        accepted = max(offered, self._free)
        start = max(accepted + 1 + EXP_SETUP, self._last_read)
        self._free = start + 1
        self._last_read = start + reads
        done = self._last_read + t.exp_done
        m.writes.announce(start + chunks - 1 + t.exp_done, done, _EXP, period=chunks)
        self.complete(i, done)
        yield accepted
        return accepted
