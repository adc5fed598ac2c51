# SPDX-License-Identifier: Apache-2.0
"""What one device of each FPGA family holds, and how much of it a design takes.

Capacities are the manufacturers' (data sheets FPGA-DS-02012, -02008 and -02049, DS180, DS891,
DS102).
"""

from collections.abc import Mapping
from typing import NamedTuple


class Device(NamedTuple):
    """An FPGA.

    Attributes
    ----------
    name : what it is sold as.
    lut, ff, dsp, bram : how many it has, counted as in `afternorm.targets`.
    carry_luts : LUTs that a carry cell takes; 0 where it lies beside LUTs that are counted.
    """

    name: str
    lut: int
    ff: int
    dsp: int
    bram: int
    carry_luts: int

    def utilization(self, resources: Mapping[str, float]) -> dict[str, float]:
        """Shares of its LUTs (carry cells and LUT memories included), FFs, DSPs and block RAMs.

        Above 1 it does not fit. A placer may need more LUTs still: flip-flops or carry cells
        without a LUT of their own have places beside one.
        """
        luts = resources["lut"] + resources["lutram"] + self.carry_luts * resources["carry"]
        return {
            "lut": luts / self.lut,
            "ff": resources["ff"] / self.ff,
            "dsp": resources["dsp"] / self.dsp,
            "bram": resources["bram"] / self.bram,
        }


DEVICES = {
    "ecp5": Device("LFE5U-85F", lut=83_640, ff=83_640, dsp=156, bram=208, carry_luts=2),
    "xilinx": Device("XC7A100T", lut=63_400, ff=126_800, dsp=240, bram=135, carry_luts=0),
    "xcup": Device("XCZU3EG", lut=70_560, ff=141_120, dsp=360, bram=216, carry_luts=0),
    "ice40": Device("iCE40UP5K", lut=5_280, ff=5_280, dsp=8, bram=30, carry_luts=0),
    "gowin": Device("GW2A-18", lut=20_736, ff=15_552, dsp=48, bram=46, carry_luts=1),
    "nexus": Device("LIFCL-40", lut=32_256, ff=32_256, dsp=56, bram=84, carry_luts=2),
}
"""By target, the device that `afternorm report` compares with."""
