# SPDX-License-Identifier: Apache-2.0
"""The top of the ULX3S: clock, reset, and the pins around `hdl.board.system`.

A PLL makes the machine's clock of the board's 25 MHz.  The machine is in reset until
the PLL has locked, and while the button FIRE1 is pressed.  `wifi_gpio0` is held high:
low, it would have the board's other chip load another bitstream.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In, Out

from afternorm.board.boards import Board
from afternorm.config import Config
from hdl.board.system import LEDS, BoardSystem


class Ulx3s(wiring.Component):
    """What is in the ULX3S's chip.

    Parameters
    ----------
    config : sizes of the accelerator.
    board : clocks, link and memory.

    Members
    -------
    oscillator : in. 25 MHz.
    rx, tx : in, out. The UART, seen from the chip.
    button : in. Resets while high.
    leds : out. As in `BoardSystem`.
    wifi_gpio0 : out. High.
    """

    def __init__(self, *, config: Config, board: Board):
        self.config = config
        self.board = board
        super().__init__(
            {
                "oscillator": In(1),
                "rx": In(1),
                "tx": Out(1),
                "button": In(1),
                "leds": Out(LEDS),
                "wifi_gpio0": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        board = self.board
        clock = Signal()
        locked = Signal()
        m.submodules.pll = Instance(
            "EHXPLLL",
            a_FREQUENCY_PIN_CLKI=f"{board.oscillator:g}",
            a_FREQUENCY_PIN_CLKOP=f"{board.clock:g}",
            p_CLKI_DIV=board.pll.reference,
            p_CLKFB_DIV=board.pll.feedback,
            p_CLKOP_DIV=board.pll.output,
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_CPHASE=board.pll.output - 1,
            p_CLKOP_FPHASE=0,
            p_FEEDBK_PATH="CLKOP",
            i_CLKI=self.oscillator,
            i_CLKFB=clock,
            i_RST=0,
            i_STDBY=0,
            i_PHASESEL0=0,
            i_PHASESEL1=0,
            i_PHASEDIR=1,
            i_PHASESTEP=1,
            i_PHASELOADREG=1,
            i_PLLWAKESYNC=0,
            i_ENCLKOP=0,
            o_CLKOP=clock,
            o_LOCK=locked,
        )
        m.domains.sync = ClockDomain()
        m.d.comb += ClockSignal().eq(clock)
        m.submodules.reset = ResetSynchronizer(~locked | self.button)
        m.submodules.system = system = BoardSystem(
            config=self.config, memory=board.memory, divisor=board.divisor
        )
        m.d.comb += [
            system.rx.eq(self.rx),
            self.tx.eq(system.tx),
            self.leds.eq(system.leds),
            self.wifi_gpio0.eq(1),
        ]
        return m
