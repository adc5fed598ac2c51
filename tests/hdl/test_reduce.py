# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""The reduce engine and the scale memory, bit by bit against golden."""

from functools import reduce
from operator import or_

import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from afternorm.config import Config, preset
from afternorm.isa import Opcode, Scale
from hdl.arith.delay import delay, delay_valid
from hdl.arith.format import float_layout
from hdl.interfaces import (
    SCRATCHPAD_LATENCY,
    ReadPort,
    ScaleRead,
    block_layout,
    engine_payload,
)
from hdl.memory.scale_memory import ScaleMemory, scale_word_layout
from hdl.reduce.engine import START_CYCLES, ReduceEngine
from hdl.reduce.scale import ScaleUnit
from hdl.reduce.tap import STATISTICS_LATENCY, StatisticsTap
from hdl.reduce.tree import ReductionTree
from tb.runner import build
from tb.stream import STALLS

TINY = preset("tiny").with_(acc_width=32, scratchpad_depth=64, scale_depth=64, stat_depth=32)


class Trees(wiring.Component):
    """Reduction trees of several sizes, tile `n` of each fed with the same floats."""

    def __init__(self, *, config: Config, sizes: list[int]) -> None:
        self.trees = [ReductionTree(config=config.with_(tiles=tiles)) for tiles in sizes]
        self.lanes = config.lanes
        self.layout = float_layout(config.fraction_bits)
        super().__init__(
            {
                "valid": In(1),
                "i": In(max(sizes) * self.lanes * self.layout.size),
                "o": Out(len(sizes) * (self.lanes * (self.layout.size + 1) + 1)),
                "agree": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.lanes * self.layout.size
        results = []
        agree = []
        for tree in self.trees:
            m.submodules += tree
            for n, tile in enumerate(tree.tiles):
                m.d.comb += [tile.valid.eq(self.valid), tile.o.eq(self.i.word_select(n, width))]
                agree.append(tile.i.as_value() == tree.tiles[0].i.as_value())
            results += [tree.tiles[0].i, tree.overflow, tree.valid]
        m.d.comb += [self.o.eq(Cat(*results)), self.agree.eq(Cat(*agree).all())]
        return m


class ScaleUnits(wiring.Component):
    """Scale units of several formats."""

    def __init__(self, *, formats: list[int]) -> None:
        self.units = {f"f{f}": ScaleUnit(fraction_bits=f) for f in formats}
        super().__init__({name: Out(unit.signature) for name, unit in self.units.items()})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name, unit in self.units.items():
            m.submodules[name] = unit
            wiring.connect(m, wiring.flipped(getattr(self, name)), unit)
        return m


class Cluster(wiring.Component):
    """The reduce engines of all tiles with their tree, scale memories and small scratchpads.

    The tiles run in step, so instructions, stalls and addresses are common.  The scratchpads also
    stand for the matmul engine: ``tap_*`` sends a block past the taps.
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        tiles = config.tiles
        self.engines = [ReduceEngine(config=config, tile=tile) for tile in range(tiles)]
        self.tree = ReductionTree(config=config)
        address = ceil_log2(config.scratchpad_depth)
        members = {
            "i": In(stream.Signature(engine_payload(Opcode.REDUCE, Opcode.SCAN))),
            "early": Out(1),
            "done": Out(1),
            "busy": Out(1),
            "conflict": Out(1),
            "flags": Out(6),
            "in_step": Out(1),
            "written": Out(1),
            "scan_stall": In(1),
            "load_valid": In(1),
            "load_tile": In(range(tiles)),
            "load_address": In(address),
            "load_data": In(block_layout(config.block)),
            "tap_valid": In(1),
            "tap_address": In(address),
            "tap_entry": In(ceil_log2(config.stat_depth)),
            "tap_first": In(1),
            "tap_owned": In(tiles),
            "tap_squares": In(1),
            "scales": In(ScaleRead(config)).array(tiles),
            "host": In(
                ReadPort(config.scale_depth // config.lanes, scale_word_layout(config))
            ).array(tiles),
        }
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.tree = self.tree
        m.d.comb += self.i.ready.eq(self.engines[0].i.ready)
        outputs = ("early", "done", "busy", "conflict")
        states = [
            Cat(engine.i.ready, *(getattr(engine, name) for name in outputs), engine.scan.address)
            for engine in self.engines
        ]
        m.d.comb += self.in_step.eq(Cat(state == states[0] for state in states).all())
        m.d.comb += [getattr(self, name).eq(getattr(self.engines[0], name)) for name in outputs]
        m.d.comb += self.written.eq(self.engines[0].scale.valid)
        m.d.comb += self.flags.eq(reduce(or_, (engine.flags for engine in self.engines)))
        for tile in range(self.config.tiles):
            self._tile(m, tile)
        return m

    def _tile(self, m: Module, tile: int) -> None:
        engine = self.engines[tile]
        m.submodules[f"engine_{tile}"] = engine
        m.d.comb += [
            engine.i.valid.eq(self.i.valid),
            engine.i.payload.eq(self.i.payload),
            engine.tree_overflow.eq(self.tree.overflow[:2].any()),
        ]
        wiring.connect(m, engine.tree, self.tree.tiles[tile])

        m.submodules[f"scales_{tile}"] = scales = ScaleMemory(config=self.config)
        wiring.connect(m, engine.scale, scales.write)
        wiring.connect(m, wiring.flipped(self.scales[tile]), scales.read)
        wiring.connect(m, wiring.flipped(self.host[tile]), scales.host_read)

        m.submodules[f"blocks_{tile}"] = blocks = Memory(
            shape=block_layout(self.config.block), depth=self.config.scratchpad_depth, init=[]
        )
        load, scan, tap = blocks.write_port(), blocks.read_port(), blocks.read_port()
        m.d.comb += [
            load.addr.eq(self.load_address),
            load.data.eq(self.load_data),
            load.en.eq(self.load_valid & (self.load_tile == tile)),
            engine.scan.ready.eq(~self.scan_stall),
            scan.addr.eq(engine.scan.address),
            engine.scan.data.eq(delay(m, scan.data, SCRATCHPAD_LATENCY - 1)),
            tap.addr.eq(self.tap_address),
            engine.tap.valid.eq(delay_valid(m, self.tap_valid, 1)),
            engine.tap.block.eq(tap.data),
            engine.tap.entry.eq(delay(m, self.tap_entry, 1)),
            engine.tap.first.eq(delay(m, self.tap_first, 1)),
            engine.tap.owned.eq(delay(m, self.tap_owned[tile], 1)),
            engine.tap.squares.eq(delay(m, self.tap_squares, 1)),
        ]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(TINY, id="block8", marks=pytest.mark.slow),
        pytest.param(TINY.with_(block=32, fraction_bits=9), id="block32"),
    ],
)
def test_tap(config: Config, seed: int) -> None:
    top = StatisticsTap(config=config)
    built = build(top, name="tap")
    timing = {"latency": top.latency, "period": top.min_period, "read": STATISTICS_LATENCY}
    for stall in STALLS:
        built.run(
            "tb.bench_reduce",
            parameters={"config": config.to_dict(), "stall": stall, **timing},
            seed=seed,
            testcase="tap",
        )


@pytest.mark.parametrize("fraction_bits", [9, pytest.param(23, marks=pytest.mark.slow)])
def test_tree(fraction_bits: int, seed: int) -> None:
    config = TINY.with_(lanes=2, fraction_bits=fraction_bits)
    top = Trees(config=config, sizes=[1, 2, 3, 4, 5, 16])
    trees = [{"tiles": tree.config.tiles, "latency": tree.latency} for tree in top.trees]
    built = build(top, name="trees")
    built.run(
        "tb.bench_reduce",
        parameters={"config": config.to_dict(), "trees": trees},
        seed=seed,
        testcase="tree",
    )


def test_scale(seed: int) -> None:
    formats = [9, 15, 23]
    top = ScaleUnits(formats=formats)
    unit = {
        f: {mode.name: top.units[f"f{f}"].mode_latency(mode) for mode in Scale} for f in formats
    }
    for latencies in unit.values():
        assert latencies["SUM"] < latencies["SOFTMAX"] < latencies["RMS"] < latencies["LAYER"]
    built = build(top, name="scales")
    for stall in STALLS:
        built.run(
            "tb.bench_reduce",
            parameters={"formats": unit, "stall": stall},
            seed=seed,
            testcase="scale",
        )


def test_scale_memory(seed: int) -> None:
    config = TINY.with_(scale_depth=24)
    built = build(ScaleMemory(config=config), name="scale_memory")
    for stall in STALLS:
        built.run(
            "tb.bench_reduce",
            parameters={"config": config.to_dict(), "stall": stall},
            seed=seed,
            testcase="memory",
        )


@pytest.mark.parametrize(
    ("tiles", "changes"),
    [
        pytest.param(1, {"block": 32, "fraction_bits": 9}, marks=pytest.mark.slow),
        pytest.param(2, {"block": 16, "fraction_bits": 23}, marks=pytest.mark.slow),
        (3, {}),
        pytest.param(4, {}, marks=pytest.mark.slow),
    ],
)
def test_engine(tiles: int, changes: dict[str, int], seed: int) -> None:
    config = TINY.with_(tiles=tiles, **changes)
    top = Cluster(config=config)
    built = build(top, name=f"reduce_{tiles}")
    timing = {
        "start": START_CYCLES,
        "tap_latency": top.engines[0].tap_latency,
        "period": top.engines[0].tap_min_period,
        "latencies": [top.engines[0].latency(mode, tree=tree) for mode in Scale for tree in (0, 1)],
    }
    for stall in STALLS:
        built.run(
            "tb.bench_reduce",
            parameters={"config": config.to_dict(), "stall": stall, **timing},
            seed=seed,
            testcase="engine",
        )


@pytest.mark.parametrize("tile", [-1, 2])
def test_tile_is_checked(tile: int) -> None:
    with pytest.raises(ValueError, match=f"tile must be 0 to 1, not {tile}"):
        ReduceEngine(config=TINY.with_(tiles=2), tile=tile)
