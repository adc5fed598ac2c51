# SPDX-License-Identifier: Apache-2.0
"""The simulated system: an accelerator, and DRAM behind it (``tb/dram.v``)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS
from afternorm.simulation import DRAM_BYTES
from hdl.accelerator import Accelerator
from hdl.interfaces import BURST_BITS
from tb.emission import emitted

_DRAM = Path(__file__).with_name("dram.v")


class System(wiring.Component):
    """An accelerator with its DRAM.

    Parameters
    ----------
    config : sizes.
    dram_bytes : size of the DRAM, a power of two.

    Members
    -------
    request, response, interrupt : as the accelerator's.
    back_enable, back_write, back_address, back_data : in. The DRAM's back door: a beat is written,
        or read for the next cycle; addresses count beats.
    back_answer : out. What was read.
    """

    def __init__(self, *, config: Config, dram_bytes: int = DRAM_BYTES):
        self.config = config
        self.accelerator = Accelerator(config=config)
        self.shift = exact_log2(config.dram_width // 8)
        self.depth = exact_log2(dram_bytes) - self.shift
        host = self.accelerator.signature.members
        super().__init__(
            {
                **{name: host[name] for name in ("request", "response", "interrupt")},
                "back_enable": In(1),
                "back_write": In(1),
                "back_address": In(self.depth),
                "back_data": In(config.dram_width),
                "back_answer": Out(config.dram_width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.accelerator = accelerator = self.accelerator
        wiring.connect(m, wiring.flipped(self.request), accelerator.request)
        wiring.connect(m, wiring.flipped(self.response), accelerator.response)
        m.d.comb += self.interrupt.eq(accelerator.interrupt)
        read, write = accelerator.dram_read, accelerator.dram_write
        m.submodules.dram = Instance(
            "afternorm_dram",
            p_WIDTH=self.config.dram_width,
            p_ADDRESS=DRAM_ADDRESS,
            p_BEATS=BURST_BITS,
            p_DEPTH=self.depth,
            p_SHIFT=self.shift,
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            i_read_request_valid=read.request.valid,
            o_read_request_ready=read.request.ready,
            i_read_request_address=read.request.payload.address,
            i_read_request_beats=read.request.payload.beats,
            o_read_beats_valid=read.beats.valid,
            i_read_beats_ready=read.beats.ready,
            o_read_beats_data=read.beats.payload,
            i_write_request_valid=write.request.valid,
            o_write_request_ready=write.request.ready,
            i_write_request_address=write.request.payload.address,
            i_write_request_beats=write.request.payload.beats,
            i_write_beats_valid=write.beats.valid,
            o_write_beats_ready=write.beats.ready,
            i_write_beats_data=write.beats.payload.data,
            i_write_beats_strobe=write.beats.payload.strobe,
            i_write_beats_last=write.beats.payload.last,
            o_written=write.written,
            i_back_enable=self.back_enable,
            i_back_write=self.back_write,
            i_back_address=self.back_address,
            i_back_data=self.back_data,
            o_back_answer=self.back_answer,
        )
        return m


def system_verilog(config: Config, *, name: str) -> str:
    """Verilog of a `System` whose top module is `name`, with its DRAM."""
    return emitted(System, name=name, config=config) + _DRAM.read_text(encoding="utf-8")


def dram_text(pieces: Iterable[tuple[int, bytes]], dram_width: int) -> str:
    """Contents of DRAM as ``$readmemh`` takes them.

    Parameters
    ----------
    pieces : byte addresses, multiples of a beat's bytes, and what lies from there on.

    Raises
    ------
    ValueError
        If an address is no such multiple, or a piece does not fit.
    """
    width = dram_width // 8
    lines = []
    for address, data in pieces:
        if address % width:
            raise ValueError(f"address {address:#x} is no multiple of the beat's {width} bytes")
        if address + len(data) > DRAM_BYTES:
            raise ValueError(
                f"{len(data)} bytes at {address:#x} exceed the DRAM's {DRAM_BYTES} bytes"
            )
        padded = data + bytes(-len(data) % width)
        beats = np.frombuffer(padded, dtype=np.uint8).reshape(-1, width)[:, ::-1]
        lines += [f"@{address // width:x}", beats.tobytes().hex("\n", width)]
    return "\n".join([*lines, ""])
