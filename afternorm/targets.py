# SPDX-License-Identifier: Apache-2.0
"""FPGA families: how Yosys maps to them, and what their cells count as."""

import re
from typing import NamedTuple

KINDS = ("lut", "lutram", "ff", "carry", "dsp", "bram")
"""LUTs, LUTs used as memory, flip-flops, carry cells, multipliers, block RAMs."""


FREE = re.compile(r"PFUMX|L6MUX21|MUXF[5-9]|MUX2_LUT[5-8]|VCC|GND|V(HI|LO)|INV|\$scopeinfo")
"""Cells that take nothing of their own: multiplexers beside LUTs, constants, inverters that are
absorbed."""


class Target(NamedTuple):
    """An FPGA family: how Yosys maps to it, and what its cells count as."""

    device: str
    synthesis: str
    carry: str
    cells: tuple[tuple[str, str, float], ...]


TARGETS = {
    "ecp5": Target(
        "Lattice ECP5",
        "synth_ecp5 -noflatten -nowidelut",
        "CCU2C",
        (
            (r"LUT4", "lut", 1),
            (r"TRELLIS_DPR16X4", "lutram", 4),
            (r"TRELLIS_FF", "ff", 1),
            (r"CCU2C", "carry", 1),
            (r"MULT18X18D", "dsp", 1),
            (r"MULT9X9D", "dsp", 0.5),
            (r"(DP16KD|PDPW16KD)", "bram", 1),
        ),
    ),
    "xilinx": Target(
        "AMD 7 series",
        "synth_xilinx -family xc7 -noiopad -noclkbuf",
        "CARRY4",
        (
            (r"LUT[1-6]|LUT6_2", "lut", 1),
            (r"SRL16E|SRLC32E|SRLC16E|RAM(16|32|64)X1S", "lutram", 1),
            (r"RAM(16|32|64)X1D|RAM128X1S", "lutram", 2),
            (r"RAM(32|64)M|RAM128X1D|RAM256X1S", "lutram", 4),
            (r"FD[RSCP]E(_1)?", "ff", 1),
            (r"CARRY4", "carry", 1),
            (r"DSP48E1", "dsp", 1),
            (r"RAMB36E1", "bram", 1),
            (r"RAMB18E1", "bram", 0.5),
        ),
    ),
    "xcup": Target(
        "AMD UltraScale+",
        "synth_xilinx -family xcup -noiopad -noclkbuf",
        "CARRY4",  # as Yosys 0.70 counts them; the device packs two into a CARRY8
        (
            (r"LUT[1-6]|LUT6_2", "lut", 1),
            (r"SRL16E|SRLC32E|SRLC16E|RAM(16|32|64)X1S", "lutram", 1),
            (r"RAM(16|32|64)X1D|RAM128X1S", "lutram", 2),
            (r"RAM(32|64)M|RAM128X1D|RAM256X1S", "lutram", 4),
            (r"RAM32M16|RAM64M8|RAM256X1D|RAM512X1S", "lutram", 8),
            (r"FD[RSCP]E(_1)?", "ff", 1),
            (r"CARRY4", "carry", 1),
            (r"CARRY8", "carry", 2),
            (r"DSP48E2", "dsp", 1),
            (r"RAMB36E2", "bram", 1),
            (r"RAMB18E2", "bram", 0.5),
        ),
    ),
    "ice40": Target(
        "Lattice iCE40",
        # Without -dsp: Yosys 0.70 then drops a multiplier that is followed by two registers, as
        # those of the array's first row are.
        "synth_ice40 -noflatten",
        "SB_CARRY",
        (
            (r"SB_LUT4", "lut", 1),
            (r"SB_DFF\w*", "ff", 1),
            (r"SB_CARRY", "carry", 1),
            (r"SB_RAM40_4K\w*", "bram", 1),
        ),
    ),
    "gowin": Target(
        "Gowin GW2A",
        "synth_gowin -family gw2a -noflatten -noiopads",
        "ALU",
        (
            (r"LUT[1-4]", "lut", 1),
            (r"RAM16S(DP)?4", "lutram", 4),
            (r"RAM16S(DP)?2", "lutram", 2),
            (r"RAM16S(DP)?1", "lutram", 1),
            (r"DFF\w*", "ff", 1),
            (r"ALU", "carry", 1),
            (r"MULT9X9", "dsp", 0.5),
            (r"MULT18X18", "dsp", 1),
            (r"(SDP|DP|SP)(X9)?B?|pROM(X9)?", "bram", 1),
        ),
    ),
    "nexus": Target(
        "Lattice Nexus",
        "synth_nexus -noflatten -noiopad",
        "CCU2",
        (
            (r"LUT4", "lut", 1),
            (r"WIDEFN9", "lut", 2),  # two LUTs and their multiplexer
            (r"DPR16X4", "lutram", 4),
            (r"FD1P3[BDIJ]X", "ff", 1),
            (r"CCU2", "carry", 1),
            (r"MULT(PREADD)?9X9", "dsp", 0.5),
            (r"MULT(PREADD|ADDSUB)?18X18", "dsp", 1),
            (r"MULT(ADDSUB)?18X36", "dsp", 2),
            (r"MULT(ADDSUB)?36X36", "dsp", 4),
            (r"(PDPSC|PDP|DP|SP)16K", "bram", 1),
        ),
    ),
}
"""FPGA families by name."""
