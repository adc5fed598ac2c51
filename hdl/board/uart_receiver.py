# SPDX-License-Identifier: Apache-2.0
"""Bytes from a UART's line: a start bit, eight data bits, the lowest first, a stop bit.

The line passes two registers and is then looked at in each cycle.  A bit is what
two of three samples around its middle say, an eighth of a bit apart.  A start
bit that is not one (a glitch) is passed over; a byte without its stop bit is
dropped, and the next start is waited for once the line was high again.

A byte comes in the middle of its stop bit.  It is offered for one cycle: a UART
cannot be held up.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

MIN_DIVISOR = 4
"""Cycles of a bit, at least."""


class UartReceiver(wiring.Component):
    """A UART's receiver, 8N1.

    Parameters
    ----------
    divisor : cycles of a bit, at least `MIN_DIVISOR`.

    Members
    -------
    rx : in. The line, asynchronous.
    valid, data : out. A byte, for one cycle.
    """

    def __init__(self, *, divisor: int):
        if divisor < MIN_DIVISOR:
            raise ValueError(f"divisor must be at least {MIN_DIVISOR}, not {divisor}")
        self.divisor = divisor
        super().__init__({"rx": In(1, init=1), "valid": Out(1), "data": Out(8)})

    def elaborate(self, platform):
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)

        apart = max(1, self.divisor // 8)
        middle = self.divisor // 2
        place = Signal(range(self.divisor))
        ends = place == self.divisor - 1
        first = Signal()
        second = Signal()
        with m.If(place == middle - apart):
            m.d.sync += first.eq(line)
        with m.If(place == middle):
            m.d.sync += second.eq(line)
        decides = place == middle + apart
        bit = (first & second) | (first & line) | (second & line)
        m.d.sync += place.eq(Mux(ends, 0, place + 1))

        bits = Signal(range(8))
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [place.eq(1), bits.eq(0)]
                with m.If(~line):
                    m.next = "START"
            with m.State("START"):
                with m.If(decides & bit):
                    m.next = "IDLE"
                with m.Elif(ends):
                    m.next = "DATA"
            with m.State("DATA"):
                with m.If(decides):
                    m.d.sync += self.data.eq(Cat(self.data[1:], bit))
                with m.If(ends):
                    m.d.sync += bits.eq(bits + 1)
                    with m.If(bits == 7):
                        m.next = "STOP"
            with m.State("STOP"):
                with m.If(decides):
                    m.d.comb += self.valid.eq(bit)
                    with m.If(bit):
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "BREAK"
            with m.State("BREAK"):
                with m.If(line):
                    m.next = "IDLE"
        return m
