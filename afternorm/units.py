# SPDX-License-Identifier: Apache-2.0
"""The accelerator and its units by name, each as a configuration makes it.

`report --unit` synthesizes one of them; `generate` takes the cycle counts from them.
"""

import gc
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from amaranth.hdl import UnusedElaboratable

from afternorm.config import Config
from afternorm.errors import AfternormError

TIMINGS = ("latency", "overhead", "period")
"""What the names of the components' cycle counts end with."""


class Unit(NamedTuple):
    """Where a unit's component is, and what it is made with."""

    module: str
    component: str
    arguments: Callable[[Config], dict[str, Any]]


def _config(config: Config) -> dict[str, Any]:
    return {"config": config}


def _tile(config: Config) -> dict[str, Any]:
    return {"config": config, "tile": 0}


def _float(config: Config) -> dict[str, Any]:
    return {"fraction_bits": config.fraction_bits}


def _vector(config: Config) -> dict[str, Any]:
    tree_latency = import_module("hdl.reduce.tree").tree_latency(config)
    return {**_config(config), "tree_latency": tree_latency}


def _scheduler(config: Config) -> dict[str, Any]:
    offer_to_row = import_module("hdl.matmul.engine").offer_to_row(config)
    return {**_config(config), "offer_to_row": offer_to_row}


def _psum_width(config: Config) -> int:
    return int(import_module("hdl.matmul.array").psum_width(config.rows))


UNITS = {
    "accelerator": Unit("hdl.accelerator", "Accelerator", _config),
    "host": Unit("hdl.host", "HostPort", _config),
    "scheduler": Unit("hdl.scheduler.scheduler", "Scheduler", _scheduler),
    "gather": Unit("hdl.gather", "Gather", _config),
    "fetch": Unit("hdl.dma.fetch", "Fetch", _config),
    "load": Unit("hdl.dma.load", "LoadEngine", _config),
    "store": Unit("hdl.dma.store", "StoreEngine", _config),
    "tree": Unit("hdl.reduce.tree", "ReductionTree", _config),
    "tile": Unit("hdl.tile", "Tile", _config),
    "matmul": Unit("hdl.matmul.engine", "MatmulEngine", _tile),
    "array": Unit(
        "hdl.matmul.array",
        "SystolicArray",
        lambda c: {"rows": c.rows, "columns": c.columns},
    ),
    "pe": Unit(
        "hdl.matmul.pe",
        "ProcessingElement",
        lambda c: {"psum_width": _psum_width(c), "sum_width": _psum_width(c)},
    ),
    "exp": Unit("hdl.exp.engine", "ExpEngine", _tile),
    "vector": Unit("hdl.vector.engine", "VectorEngine", _vector),
    "reduce": Unit("hdl.reduce.engine", "ReduceEngine", _tile),
    "tap": Unit("hdl.reduce.tap", "StatisticsTap", _config),
    "scale": Unit("hdl.reduce.scale", "ScaleUnit", _float),
    "quantizer": Unit(
        "hdl.mx.quantizer",
        "MXQuantizer",
        lambda c: {
            "block": c.block,
            "lanes": c.lanes,
            "significand_bits": c.fraction_bits + 1,
        },
    ),
    "scratchpad": Unit("hdl.memory.scratchpad", "Scratchpad", _config),
    "float_add": Unit("hdl.arith.float_add", "FloatAdd", _float),
    "float_multiply": Unit("hdl.arith.float_multiply", "FloatMultiply", _float),
    "float_divide": Unit("hdl.arith.float_divide", "FloatDivide", _float),
    "float_sqrt": Unit("hdl.arith.float_sqrt", "FloatSqrt", _float),
    "int_to_float": Unit(
        "hdl.arith.int_to_float",
        "IntToFloat",
        lambda c: {**_float(c), "width": _psum_width(c)},
    ),
}


def make_unit(name: str, config: Config) -> Any:
    """The component of the unit `name`, an `amaranth.lib.wiring.Component`.

    Raises
    ------
    AfternormError
        If there is no such unit; the message lists them.
    """
    if name not in UNITS:
        raise AfternormError(f"unknown unit {name!r}; there are {', '.join(UNITS)}")
    unit = UNITS[name]
    return getattr(import_module(unit.module), unit.component)(**unit.arguments(config))


def multipliers(name: str, config: Config) -> int | None:
    """The int8 multipliers of the array or arrays in the unit `name`, if it has any."""
    if name == "accelerator":
        return config.macs
    return config.macs // config.tiles if name in ("tile", "matmul", "array") else None


def timings(config: Config) -> dict[str, dict[str, int]]:
    """Cycle counts that the units guarantee: their public attributes named as in `TIMINGS`."""
    found = {}
    with warnings.catch_warnings():
        # Amaranth warns of components that are not elaborated when they are deleted.
        warnings.simplefilter("ignore", UnusedElaboratable)
        for name in UNITS:
            component = make_unit(name, config)
            found[name] = {
                attribute: value
                for attribute in dir(component)
                if attribute.endswith(TIMINGS) and not attribute.startswith("_")
                if isinstance(value := getattr(component, attribute), int)
            }
        del component
        gc.collect()
    return {name: cycles for name, cycles in found.items() if cycles}
