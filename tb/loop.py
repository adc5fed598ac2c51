# SPDX-License-Identifier: Apache-2.0
"""A program in C++ that drives a simulated system by nothing but a loop (``tb/loop.cpp``)."""

from pathlib import Path

from afternorm.memory_map import ADDRESS_BITS, Region, Register, address

_LOOP = Path(__file__).with_name("loop.cpp")
_USED = (
    Register.CONTROL,
    Register.PROGRAM_LOW,
    Register.PROGRAM_HIGH,
    Register.STATUS,
    Register.IRQ_ENABLE,
    Register.IRQ_CAUSE,
    Register.CYCLES,
)


def loop_source() -> str:
    """The program, with the memory map's numbers as macros before it."""
    numbers = {"ADDRESS_BITS": ADDRESS_BITS, "REGISTERS": address(Region.REGISTERS, 0)}
    numbers |= {register.name: int(register) for register in _USED}
    macros = "".join(f"#define {name} {number}u\n" for name, number in numbers.items())
    return macros + _LOOP.read_text(encoding="utf-8")
