# SPDX-License-Identifier: Apache-2.0
"""The accelerator as an IP core: AXI4 towards DRAM, AXI4-Lite for the registers, an interrupt.

The tiles' memories are not on the bus: programs move what they need (LOAD, STORE).
Instructions are fetched ahead of their turn: behind a program, `fetch_depth` instructions more
must be readable without an error.

A soft reset (`CONTROL`) waits until every burst under way is complete, so that the bus needs
none; `rst` resets at once and must reset the bus as well.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from afternorm.config import Config
from hdl.accelerator import Accelerator
from hdl.axi.lite import AxiLite
from hdl.axi.master import OUTSTANDING, AxiMaster
from hdl.axi.ports import lite_members, master_members


class AxiAccelerator(wiring.Component):
    """An accelerator between two buses.

    Parameters
    ----------
    config : sizes.
    outstanding : AXI bursts under way at most, in each direction.

    Members
    -------
    m_axi_* : DRAM: AXI4, `dram_width` bits, 40 bits of address; see `hdl.axi.master`.
    s_axil_* : registers: AXI4-Lite, 32 bits; see `hdl.axi.lite`.
    interrupt : out. An enabled cause is set; level.
    """

    def __init__(self, *, config: Config, outstanding: int = OUTSTANDING):
        self.config = config
        self.outstanding = outstanding
        super().__init__({**master_members(config), **lite_members(), "interrupt": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.accelerator = accelerator = Accelerator(config=self.config)
        m.submodules.master = master = AxiMaster(config=self.config, outstanding=self.outstanding)
        m.submodules.lite = lite = AxiLite(config=self.config)
        wiring.connect(m, lite.request, accelerator.request)
        wiring.connect(m, accelerator.response, lite.response)
        wiring.connect(m, accelerator.dram_read, master.read)
        wiring.connect(m, accelerator.dram_write, master.write)
        m.d.comb += [
            accelerator.bus_error.eq(master.error),
            accelerator.bus_error_address.eq(master.error_address),
            master.clear.eq(accelerator.bus_reset),
            self.interrupt.eq(accelerator.interrupt),
        ]
        for unit, members in ((master, master_members(self.config)), (lite, lite_members())):
            for name, member in members.items():
                mine, its = getattr(self, name), getattr(unit, name)
                m.d.comb += mine.eq(its) if member.flow == Out else its.eq(mine)
        return m
