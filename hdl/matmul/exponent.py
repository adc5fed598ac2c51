# SPDX-License-Identifier: Apache-2.0
"""The exponents' element below a column of the array: ``o_sum = i_a + weight``.

It moves, loads and swaps exponents exactly as `hdl.matmul.pe.ProcessingElement` does
mantissas, and adds them where that multiplies.  The latency is two cycles, the throughput one
sum a cycle.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class ExponentElement(wiring.Component):
    """One element of the exponents' row.

    Parameters
    ----------
    a_width, b_width
        Bits of the two exponents with their signs.

    Members
    -------
    i_a, o_a : In(signed(a_width)), Out(signed(a_width))
        Exponents of A's blocks from the left, and on to the right one cycle later.
    swap : In(1)
        From `i_a` of this cycle on, add the exponent that lies in the shadow register.
    i_b, o_b : In(signed(b_width)), Out(signed(b_width))
        Exponents of B's blocks from the left; the shadow register.
    shift : In(1)
        Take `i_b` into the shadow register.
    o_sum : Out(signed)
        The sum.
    """

    latency = 2
    """Cycles from exponent to sum."""

    def __init__(self, *, a_width: int, b_width: int) -> None:
        self.a_width = a_width
        self.b_width = b_width
        self.sum_width = max(a_width, b_width) + 1
        super().__init__(
            {
                "i_a": In(signed(a_width)),
                "o_a": Out(signed(a_width)),
                "swap": In(1),
                "i_b": In(signed(b_width)),
                "o_b": Out(signed(b_width)),
                "shift": In(1),
                "o_sum": Out(signed(self.sum_width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a = Signal(signed(self.a_width), reset_less=True)
        shadow = Signal(signed(self.b_width), reset_less=True)
        weight = Signal(signed(self.b_width), reset_less=True)
        total = Signal(signed(self.sum_width), reset_less=True)

        m.d.sync += [a.eq(self.i_a), total.eq(a + weight)]
        with m.If(self.shift):
            m.d.sync += shadow.eq(self.i_b)
        with m.If(self.swap):
            m.d.sync += weight.eq(shadow)
        m.d.comb += [self.o_a.eq(a), self.o_b.eq(shadow), self.o_sum.eq(total)]
        return m
