# SPDX-License-Identifier: Apache-2.0
"""Memories become block RAM.

Deep ones must.  One of up to `SHALLOW` words may be LUT RAM instead: queues, delay lines and
reorder buffers are 8 to 64 words of up to 400 bits, and as a block RAM has 512 words and more at
its widest, they would leave at least seven eighths of it empty.  Small tables of constants are
logic on Xilinx: a LUT6 holds 64 bits, so the exp table's 256 words of 11 bits take 44.
"""

import re
from math import ceil
from typing import NamedTuple

import pytest

from afternorm.config import preset
from afternorm.report import synthesize
from afternorm.units import make_unit
from hdl.verilog import emit_rtlil

SHALLOW = 64
LARGE = 1024
"""Bits; an ECP5's LUT RAM of this size takes 64 LUTs."""

CONFIG = preset("tiny").with_(rows_max=64, vector_depth=4096, scale_depth=1024, stat_depth=256)
"""Memories as deep as in `small`, beside an array that is quick to synthesize."""


class Ram(NamedTuple):
    """What a family makes of memories.

    Attributes
    ----------
    synthesis : up to the step by which Yosys has chosen.
    block, lut : cells, and their bits.
    table : tables of constants up to so many bits may be logic.
    """

    synthesis: str
    block: dict[str, int]
    lut: dict[str, int]
    table: int


FAMILIES = {
    "ecp5": Ram(
        "synth_ecp5 -noflatten -run begin:map_ffram",
        {"DP16KD": 18432, "PDPW16KD": 18432},
        {"TRELLIS_DPR16X4": 64},
        0,
    ),
    "xilinx": Ram(
        "synth_xilinx -family xc7 -noiopad -noclkbuf -run begin:map_ffram",
        {"RAMB36E1": 36864, "RAMB18E1": 18432},
        # Of four LUTs, one has the write port's address and what it reads is left.
        {"RAM32M": 192, "RAM64M": 192, "RAM16X1D": 16, "RAM32X1D": 32, "RAM64X1D": 64},
        4096,
    ),
}


class Shape(NamedTuple):
    """Of a memory.

    Attributes
    ----------
    constant : nothing writes to it.
    """

    width: int
    depth: int
    constant: bool

    @property
    def bits(self) -> int:
        return self.width * self.depth


def memories(design: str) -> dict[str, list[Shape]]:
    """The memories of every module of RTLIL `design` that has some."""
    found = {}
    for module in re.finditer(r"^module \\(\S+)$(.*?)^end$", design, re.M | re.S):
        shapes = re.findall(r"^  memory width (\d+) size (\d+) (\S+)$", module[2], re.M)
        writes = re.findall(r'^  cell \$memwr.*?MEMID "(\S+)"', module[2], re.M | re.S)
        written = {name.replace("\\\\", "\\") for name in writes}
        if shapes:
            found[module[1]] = [
                Shape(int(width), int(depth), name not in written) for width, depth, name in shapes
            ]
    return found


@pytest.fixture(scope="module")
def design() -> str:
    return emit_rtlil(make_unit("accelerator", CONFIG), name="accelerator")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ecp5", "xilinx"])
def test_deep_memories_are_block_ram(design: str, family: str) -> None:
    ram = FAMILIES[family]
    cells = synthesize(design, synthesis=ram.synthesis)
    deep = 0
    for module, shapes in memories(design).items():
        found = cells[module]
        tables = [shape for shape in shapes if shape.constant and shape.bits <= ram.table]
        others = [shape for shape in shapes if shape not in tables]
        # What is left as a memory becomes logic: of what is written to, registers.
        left = sum(number for cell, number in found.items() if cell.startswith("$mem"))
        assert left <= len(tables), module
        large = [shape for shape in others if shape.depth > SHALLOW and shape.bits > LARGE]
        small = [shape for shape in others if shape not in large]
        block = sum(bits * found.get(cell, 0) for cell, bits in ram.block.items())
        assert block >= sum(shape.bits for shape in large), module
        # Not more LUT RAM than the others take, each rounded up to the cells.
        lut = sum(bits * found.get(cell, 0) for cell, bits in ram.lut.items())
        assert lut <= sum(4 * ceil(s.width / 4) * 64 * ceil(s.depth / 64) for s in small), module
        deep += len(large)
    # scratchpad, vector memory, scales, accumulators, statistics, function table
    assert deep >= 8 + 1 + 2 + CONFIG.acc_banks + 1 + 1
