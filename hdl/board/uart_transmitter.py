# SPDX-License-Identifier: Apache-2.0
"""Bytes onto a UART's line: a start bit, eight data bits, the lowest first, a stop bit.

A byte takes ten bits' time from when it is accepted, the next follows at once.
The line comes from a register.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

BITS = 10
"""Of a byte on the line."""


class UartTransmitter(wiring.Component):
    """A UART's transmitter, 8N1.

    Parameters
    ----------
    divisor : cycles of a bit, at least 1.

    Members
    -------
    i : stream in. Bytes.
    tx : out. The line.
    """

    def __init__(self, *, divisor: int):
        if divisor < 1:
            raise ValueError(f"divisor must be at least 1, not {divisor}")
        self.divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        place = Signal(range(self.divisor))
        left = Signal(range(BITS + 1))
        following = Signal(BITS - 1, init=-1)
        ends = place == self.divisor - 1
        m.d.comb += self.i.ready.eq((left == 0) | ((left == 1) & ends))
        with m.If(self.i.ready):
            m.d.sync += [place.eq(0), left.eq(0)]
            with m.If(self.i.valid):
                m.d.sync += [
                    left.eq(BITS),
                    self.tx.eq(0),
                    following.eq(Cat(self.i.payload, 1)),
                ]
        with m.Elif(ends):
            m.d.sync += [
                place.eq(0),
                left.eq(left - 1),
                self.tx.eq(following[0]),
                following.eq(Cat(following[1:], 1)),
            ]
        with m.Else():
            m.d.sync += place.eq(place + 1)
        return m
