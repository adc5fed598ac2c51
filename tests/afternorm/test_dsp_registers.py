# SPDX-License-Identifier: Apache-2.0
"""Registers of products that become those of the multipliers, and registers that must not."""

import json
from pathlib import Path

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from afternorm.pnr import write_netlist
from hdl.verilog import emit_rtlil


class Products(wiring.Component):
    """Registers behind multipliers, of which only `plain` is one that a multiplier has."""

    a: In(signed(8))
    b: In(signed(8))
    enable: In(1)
    plain: Out(signed(16))
    enabled: Out(signed(16))
    started: Out(signed(16), init=5)
    resettable: Out(signed(16))
    read_twice: Out(signed(16))
    unregistered: Out(signed(16))
    inside: Out(signed(16))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.free = ClockDomain(reset_less=True)
        m.d.comb += ClockSignal("free").eq(ClockSignal())
        free = m.d.free
        free += [
            self.plain.eq(self.a * self.b),
            self.started.eq((self.a + 1)[:8].as_signed() * self.b),
        ]
        with m.If(self.enable):
            free += self.enabled.eq((self.a + 2)[:8].as_signed() * self.b)
        m.d.sync += self.resettable.eq((self.a + 3)[:8].as_signed() * self.b)
        m.d.comb += self.unregistered.eq((self.a + 4)[:8].as_signed() * self.b)
        free += self.read_twice.eq(self.unregistered)
        free += self.inside.eq(self.plain + 1)
        return m


def test_only_plain_registers_move(tmp_path: Path) -> None:
    path = write_netlist(emit_rtlil(Products(), name="products"), "products", tmp_path)
    module = json.loads(path.read_text("utf-8"))["modules"]["products"]
    multipliers = [cell for cell in module["cells"].values() if cell["type"] == "MULT18X18D"]
    assert len(multipliers) == 5
    (registered,) = [cell for cell in multipliers if "REG_OUTPUT_CLK" in cell["parameters"]]
    ports = {name: port["bits"] for name, port in module["ports"].items()}
    connections = registered["connections"]
    assert [connections[f"P{bit}"] for bit in range(16)] == [[bit] for bit in ports["plain"]]
    assert connections["CLK0"] == ports["clk"]
    assert (connections["CE0"], connections["RST0"]) == (["1"], ["0"])
    registers = [cell for cell in module["cells"].values() if cell["type"] == "TRELLIS_FF"]
    others = ("enabled", "started", "resettable", "read_twice", "inside")
    assert {cell["connections"]["Q"][0] for cell in registers} == {
        bit for name in others for bit in ports[name]
    }
