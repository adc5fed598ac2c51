# SPDX-License-Identifier: Apache-2.0
"""``2**(i / 256)`` for two lanes: a table of 256 significands with 11 fraction bits.

The contents are `golden.units.exp_table`, of which the leading ones are not stored.  The latency
is one cycle, the throughput two lookups a cycle.

A table shared by two lanes fills one of an ECP5's two-ported memories (256 x 11 bits of 18
Kbit); in logic it takes 172 LUT4 a lane (yosys 0.70).
"""

from amaranth.hdl import Cat, Const, Module
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from golden.units import EXP_FRACTION_BITS, EXP_TABLE_BITS, exp_table

PORTS = 2
SIGNIFICAND_BITS = 1 + EXP_TABLE_BITS


class ExpTable(wiring.Component):
    """The table of significands, with two read ports.

    Members
    -------
    i : In(ArrayLayout(8, 2))
        Fractions.
    o : Out(ArrayLayout(12, 2))
        Significands, leading one included, one cycle later.

    Attributes
    ----------
    latency : int
        Cycles from fraction to significand.
    """

    i: In(data.ArrayLayout(EXP_FRACTION_BITS, PORTS))
    o: Out(data.ArrayLayout(SIGNIFICAND_BITS, PORTS))

    @property
    def latency(self) -> int:
        """Cycles from fraction to significand."""
        return 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fractions = [int(entry) - (1 << EXP_TABLE_BITS) for entry in exp_table()]
        m.submodules.memory = memory = Memory(
            shape=EXP_TABLE_BITS, depth=len(fractions), init=fractions
        )
        for port in range(PORTS):
            read = memory.read_port()
            m.d.comb += [read.addr.eq(self.i[port]), self.o[port].eq(Cat(read.data, Const(1, 1)))]
        return m
