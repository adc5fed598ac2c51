# SPDX-License-Identifier: Apache-2.0
"""All that is on the board's chip, between a UART's lines: accelerator, memory, link.

The light-emitting diodes: 0 blinks with the clock, 1 and 2 are lit while bytes come
and go, 3 while an enabled interrupt is pending, 4 after a burst beyond the memory.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from afternorm.board.memory import BoardMemory
from afternorm.config import Config
from hdl.accelerator import Accelerator
from hdl.board.block_dram import BlockDram
from hdl.board.link import Link
from hdl.board.uart_receiver import UartReceiver
from hdl.board.uart_transmitter import UartTransmitter

LEDS = 8
_BLINK_BITS = 26
_GLOW_BITS = 20


class BoardSystem(wiring.Component):
    """An accelerator with memory, behind a UART.

    Parameters
    ----------
    config : sizes of the accelerator.
    memory : windows of its DRAM, which is block RAM.
    divisor : cycles of a bit on the line.

    Members
    -------
    rx, tx : in, out. The UART's lines.
    leds : out. See above.
    """

    def __init__(self, *, config: Config, memory: BoardMemory, divisor: int):
        self.config = config
        self.memory = memory
        self.divisor = divisor
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "leds": Out(LEDS)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.accelerator = accelerator = Accelerator(config=self.config)
        m.submodules.dram = dram = BlockDram(config=self.config, memory=self.memory)
        m.submodules.link = link = Link(config=self.config)
        m.submodules.receiver = receiver = UartReceiver(divisor=self.divisor)
        m.submodules.transmitter = transmitter = UartTransmitter(divisor=self.divisor)
        wiring.connect(m, accelerator.dram_read, dram.read)
        wiring.connect(m, accelerator.dram_write, dram.write)
        wiring.connect(m, link.memory, dram.bytes)
        wiring.connect(m, link.request, accelerator.request)
        wiring.connect(m, accelerator.response, link.response)
        wiring.connect(m, link.line, transmitter.i)
        m.d.comb += [
            accelerator.bus_error.eq(dram.bus_error),
            accelerator.bus_error_address.eq(dram.bus_error_address),
            dram.bus_reset.eq(accelerator.bus_reset),
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            link.valid.eq(receiver.valid),
            link.data.eq(receiver.data),
        ]

        blink = Signal(_BLINK_BITS)
        m.d.sync += blink.eq(blink + 1)
        lit = []
        for event in (receiver.valid, transmitter.i.valid):
            glow = Signal(_GLOW_BITS)
            with m.If(event):
                m.d.sync += glow.eq(-1)
            with m.Elif(glow != 0):
                m.d.sync += glow.eq(glow - 1)
            lit.append(glow != 0)
        m.d.sync += self.leds.eq(Cat(blink[-1], *lit, accelerator.interrupt, dram.bus_error))
        return m
