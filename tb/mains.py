# SPDX-License-Identifier: Apache-2.0
"""Programs in C++ that drive a simulated system in place of cocotb's own."""

from collections.abc import Mapping
from pathlib import Path

from afternorm.memory_map import ADDRESS_BITS, Region, Register, address
from tb.runner import Main
from tb.stream import PERIOD_NS

_STEPS_PER_NS = 1000
"""Simulated time is counted in picoseconds (see `tb.runner`)."""
_USED = (
    Register.CONTROL,
    Register.PROGRAM_LOW,
    Register.PROGRAM_HIGH,
    Register.STATUS,
    Register.IRQ_ENABLE,
    Register.IRQ_CAUSE,
    Register.CYCLES,
)


def clocked_main() -> Main:
    """Runs cocotb, and makes the clock itself (``tb/clocked.cpp``)."""
    return _main("clocked.cpp", {"HALF_PERIOD": PERIOD_NS * _STEPS_PER_NS // 2}, cocotb=True)


def loop_main() -> Main:
    """Nothing but a loop that starts programs (``tb/loop.cpp``)."""
    numbers = {"ADDRESS_BITS": ADDRESS_BITS, "REGISTERS": address(Region.REGISTERS, 0)}
    numbers |= {register.name: int(register) for register in _USED}
    return _main("loop.cpp", numbers, cocotb=False)


def _main(name: str, numbers: Mapping[str, int], *, cocotb: bool) -> Main:
    """A program of this folder, with numbers as macros before it."""
    macros = "".join(f"#define {name} {number}u\n" for name, number in numbers.items())
    return Main(macros + Path(__file__).with_name(name).read_text(encoding="utf-8"), cocotb)
