# SPDX-License-Identifier: Apache-2.0
"""Requests out of received bytes; the form of a frame is `afternorm.board.protocol`'s.

A frame is kept until its CRC has been seen to be right: header in registers,
payload in a memory.  All others are dropped.  While a request is being served,
bytes are dropped too, and frames are found again after the next `END`.

Takes a byte a cycle; a request is offered in the cycle after its last byte.
"""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from afternorm.board.protocol import CRC, END, ESC, ESC_END, ESC_ESC, HEADER, MAX_PAYLOAD, Command

HEADER_LAYOUT = data.StructLayout({"command": 8, "number": 8, "count": 16, "address": 32})


class FrameReceiver(wiring.Component):
    """Takes requests out of bytes.

    Members
    -------
    valid, data : in. Bytes.
    request : out. There is a request; it holds until `served`.
    served : in. Look for the next one.
    header : out. The request's header.
    place : in. Of a byte in the payload.
    payload : out. That byte, a cycle later.
    """

    def __init__(self):
        super().__init__(
            {
                "valid": In(1),
                "data": In(8),
                "request": Out(1),
                "served": In(1),
                "header": Out(HEADER_LAYOUT),
                "place": In(range(MAX_PAYLOAD)),
                "payload": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = crc = CRC32_ISO_HDLC(data_width=8).create()
        # The CRC follows the payload into the memory, but for what is then overwritten.
        memory = Memory(shape=8, depth=MAX_PAYLOAD + CRC.size, init=[])
        m.submodules.memory = memory
        write, read = memory.write_port(), memory.read_port()

        body = HEADER.size + MAX_PAYLOAD + CRC.size
        length = Signal(range(body + 1))
        escaped = Signal()
        byte = Signal(8)
        takes = Signal()
        m.d.comb += [
            crc.start.eq(self.valid & (self.data == END)),
            crc.data.eq(byte),
            crc.valid.eq(takes),
            write.addr.eq(length - HEADER.size),
            write.data.eq(byte),
            write.en.eq(takes & (length >= HEADER.size)),
            read.addr.eq(self.place),
            self.payload.eq(read.data),
        ]
        with m.If(takes):
            m.d.sync += length.eq(length + 1)
            with m.If(length < HEADER.size):
                m.d.sync += self.header.eq(Cat(self.header.as_value()[8:], byte))

        carried = Mux(self.header.command == Command.WRITE, self.header.count, 0)
        whole = length == carried + (HEADER.size + CRC.size)
        with m.FSM():
            with m.State("LOST"):
                m.d.sync += [length.eq(0), escaped.eq(0)]
                with m.If(self.valid & (self.data == END)):
                    m.next = "BODY"
            with m.State("BODY"):
                with m.If(self.valid):
                    m.d.sync += escaped.eq(0)
                    with m.If(self.data == END):
                        m.d.sync += length.eq(0)
                        with m.If(whole & ~escaped & crc.match_detected):
                            m.next = "REQUEST"
                    with m.Elif(length == body):
                        m.next = "LOST"
                    with m.Elif(escaped):
                        is_end = self.data == ESC_END
                        m.d.comb += [
                            byte.eq(Mux(is_end, END, ESC)),
                            takes.eq(is_end | (self.data == ESC_ESC)),
                        ]
                        with m.If(~takes):
                            m.next = "LOST"
                    with m.Elif(self.data == ESC):
                        m.d.sync += escaped.eq(1)
                    with m.Else():
                        m.d.comb += [byte.eq(self.data), takes.eq(1)]
            with m.State("REQUEST"):
                m.d.comb += self.request.eq(1)
                with m.If(self.served):
                    m.next = "LOST"
        return m
