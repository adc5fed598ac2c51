# SPDX-License-Identifier: Apache-2.0
"""Serves the host's requests: DRAM and registers, read and written over a line of bytes.

What requests there are, and what makes repeated ones harmless, is told in
`afternorm.board.protocol`.  Nothing is done before a request has come whole.  A
byte of DRAM that is written takes two cycles, one that is read five: less than
it takes on the line.  Registers are written whole, with the last of their four
bytes, and read whole, with the first.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from afternorm.board.protocol import ANSWER, HEADER, REGISTERS_BASE, Command
from afternorm.config import Config
from afternorm.memory_map import ADDRESS_BITS, INDEX_BITS, REGISTER_BITS, host_width
from hdl.board.bytes_port import BytesPort
from hdl.board.frame_receiver import HEADER_LAYOUT, FrameReceiver
from hdl.board.frame_sender import FrameSender


class Link(wiring.Component):
    """The board's side of the link.

    Parameters
    ----------
    config : sizes, for the host port's width.

    Members
    -------
    valid, data : in. Received bytes.
    line : stream out. Bytes to send.
    memory : out. DRAM.
    request, response : streams out and in. The accelerator's host port.
    """

    def __init__(self, *, config: Config):
        width = host_width(config)
        request = data.StructLayout({"address": ADDRESS_BITS, "write": 1, "data": width})
        super().__init__(
            {
                "valid": In(1),
                "data": In(8),
                "line": Out(stream.Signature(8)),
                "memory": Out(BytesPort()),
                "request": Out(stream.Signature(request)),
                "response": In(stream.Signature(width)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = FrameReceiver()
        m.submodules.sender = sender = FrameSender()
        wiring.connect(m, sender.o, wiring.flipped(self.line))
        header = receiver.header
        m.d.comb += [receiver.valid.eq(self.valid), receiver.data.eq(self.data)]

        # The request before, whose repetition must not be done again.
        known = Signal()
        number = Signal(8)
        repeated = known & (header.number == number)

        place = Signal(header.count.shape())
        address = Signal(32)
        last = place + 1 == header.count
        in_registers = address >= REGISTERS_BASE
        lane = address[:2]  # of a byte in its register
        word = Signal(REGISTER_BITS)
        byte = Signal(8)
        answer = Signal(HEADER_LAYOUT)
        m.d.comb += [
            receiver.place.eq(place),
            answer.eq(header),
            answer.command.eq(header.command | ANSWER),
            self.memory.address.eq(address),
            self.memory.data.eq(receiver.payload),
            self.request.payload.address[:INDEX_BITS].eq(address[2:-1]),
            self.request.payload.data.eq(word),
        ]

        def go_on(following: str, end: str) -> None:
            m.d.sync += [place.eq(place + 1), address.eq(address + 1)]
            with m.If(last):
                m.next = end
            with m.Else():
                m.next = following

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [place.eq(0), address.eq(header.address)]
                with m.If(receiver.request):
                    m.d.sync += [known.eq(header.command != Command.SYNC), number.eq(header.number)]
                    with m.If((header.command == Command.WRITE) & (header.count != 0) & ~repeated):
                        m.next = "FETCH"
                    with m.Else():
                        m.next = "HEADER"

            with m.State("FETCH"):
                m.next = "WRITE"
            with m.State("WRITE"):
                with m.If(in_registers):
                    m.d.sync += word.eq(Cat(word[8:], receiver.payload))
                    with m.If(lane == 3):
                        m.next = "WRITE_REGISTER"
                    with m.Else():
                        go_on("FETCH", "REPLY")
                with m.Else():
                    m.d.comb += [self.memory.valid.eq(1), self.memory.write.eq(1)]
                    with m.If(self.memory.ready):
                        go_on("FETCH", "REPLY")
            with m.State("WRITE_REGISTER"):
                m.d.comb += [self.request.valid.eq(1), self.request.payload.write.eq(1)]
                with m.If(self.request.ready):
                    go_on("FETCH", "REPLY")
            with m.State("REPLY"):
                m.d.sync += place.eq(0)
                m.next = "HEADER"

            with m.State("HEADER"):
                final = place == HEADER.size - 1
                empty = (header.command != Command.READ) | (header.count == 0)
                m.d.comb += [
                    sender.i.valid.eq(1),
                    sender.i.payload.data.eq(answer.as_value().word_select(place[:3], 8)),
                    sender.i.payload.last.eq(final & empty),
                ]
                with m.If(sender.i.ready):
                    m.d.sync += place.eq(place + 1)
                    with m.If(final):
                        m.d.sync += place.eq(0)
                        with m.If(empty):
                            m.next = "SERVED"
                        with m.Else():
                            m.next = "READ"
            with m.State("READ"):
                with m.If(in_registers):
                    m.d.sync += [byte.eq(word[8:16]), word.eq(word[8:])]
                    with m.If(lane == 0):
                        m.next = "READ_REGISTER"
                    with m.Else():
                        m.next = "SEND"
                with m.Else():
                    m.d.comb += self.memory.valid.eq(1)
                    with m.If(self.memory.ready):
                        m.next = "WAIT"
            with m.State("READ_REGISTER"):
                m.d.comb += self.request.valid.eq(1)
                with m.If(self.request.ready):
                    m.next = "REGISTER"
            with m.State("REGISTER"):
                m.d.comb += self.response.ready.eq(1)
                m.d.sync += [word.eq(self.response.payload), byte.eq(self.response.payload)]
                with m.If(self.response.valid):
                    m.next = "SEND"
            with m.State("WAIT"):
                m.d.sync += byte.eq(self.memory.answer)
                with m.If(self.memory.answered):
                    m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += [
                    sender.i.valid.eq(1),
                    sender.i.payload.data.eq(byte),
                    sender.i.payload.last.eq(last),
                ]
                with m.If(sender.i.ready):
                    go_on("READ", "SERVED")
            with m.State("SERVED"):
                m.d.comb += receiver.served.eq(1)
                m.next = "IDLE"
        return m
