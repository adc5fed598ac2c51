# SPDX-License-Identifier: Apache-2.0
"""Drivers of the accelerator behind its AXI wrapper: `afternorm.driver.python`, and C sources.

``afternorm.h`` and ``afternorm.c`` are written beside the Verilog by `afternorm generate`,
with ``afternorm_registers.h``, which `afternorm.package.header` makes from the register map.
"""

from importlib.resources import files

C_SOURCES = ("afternorm.h", "afternorm.c")
"""The parts of the C driver that are the same for every configuration."""


def c_sources() -> dict[str, str]:
    """Texts of `C_SOURCES`, by name."""
    folder = files("afternorm.driver")
    return {name: (folder / name).read_text(encoding="utf-8") for name in C_SOURCES}
