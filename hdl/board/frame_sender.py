# SPDX-License-Identifier: Apache-2.0
"""Frames onto a line of bytes; their form is `afternorm.board.protocol`'s.

Adds `END` before and after, the escapes, and the CRC.  A byte of the frame takes
a cycle, or two if it is escaped, and waits for the line.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

from afternorm.board.protocol import CRC, END, ESC, ESC_END, ESC_ESC

BYTE_LAYOUT = data.StructLayout({"data": 8, "last": 1})


class FrameSender(wiring.Component):
    """Puts frames onto a line.

    Members
    -------
    i : stream in. Header and payload of a frame; `last` with the last byte.
    o : stream out. The line.
    """

    def __init__(self):
        super().__init__({"i": In(stream.Signature(BYTE_LAYOUT)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = crc = CRC32_ISO_HDLC(data_width=8).create()
        byte = Signal(8)
        place = Signal(range(CRC.size))
        escaped = Signal()
        special = (byte == END) | (byte == ESC)
        sent = Signal()
        m.d.comb += [
            crc.data.eq(byte),
            sent.eq(self.o.valid & self.o.ready & (~special | escaped)),
        ]

        def send() -> None:
            code = Mux(byte == END, ESC_END, ESC_ESC)
            m.d.comb += self.o.payload.eq(Mux(special, Mux(escaped, code, ESC), byte))
            with m.If(self.o.valid & self.o.ready):
                m.d.sync += escaped.eq(special & ~escaped)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    self.o.payload.eq(END),
                    self.o.valid.eq(self.i.valid),
                    crc.start.eq(1),
                ]
                m.d.sync += place.eq(0)
                with m.If(self.i.valid & self.o.ready):
                    m.next = "BODY"
            with m.State("BODY"):
                m.d.comb += [
                    byte.eq(self.i.payload.data),
                    self.o.valid.eq(self.i.valid),
                    self.i.ready.eq(sent),
                    crc.valid.eq(sent),
                ]
                send()
                with m.If(sent & self.i.payload.last):
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [byte.eq(crc.crc.word_select(place, 8)), self.o.valid.eq(1)]
                send()
                with m.If(sent):
                    m.d.sync += place.eq(place + 1)
                    with m.If(place == CRC.size - 1):
                        m.next = "END"
            with m.State("END"):
                m.d.comb += [self.o.payload.eq(END), self.o.valid.eq(1)]
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m
