# amaranth: UnusedElaboratable=no
# SPDX-License-Identifier: Apache-2.0
"""The matrix engine: bit by bit against the golden machine, and its cycles."""

from typing import Any

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from afternorm.config import Config, preset
from afternorm.isa import Flag, Opcode
from hdl.arith.delay import delay
from hdl.interfaces import SCRATCHPAD_LATENCY, AccumulatorRead, block_layout, engine_members
from hdl.matmul.array import psum_width
from hdl.matmul.engine import MatmulEngine
from hdl.matmul.pe import ProcessingElement
from hdl.matmul.sequencer import Sequencer
from hdl.memory.scratchpad import bank_of
from tb.runner import BenchError, build

TILE = 1


class Bench(wiring.Component):
    """The engine with a scratchpad that reads a bank once a cycle."""

    def __init__(self, *, config: Config, tap_period: int | None = None) -> None:
        self.config = config
        self.engine = MatmulEngine(config=config, tile=TILE, tap_period=tap_period)
        block = block_layout(config.block)
        super().__init__(
            {
                "i": engine_members(Opcode.MATMUL)["i"],
                "exp_read": In(AccumulatorRead(config)),
                "vector_read": In(AccumulatorRead(config)),
                "seen": Out(10),
                "tapped": Out(block.size + len(self.engine.tap.entry) + 3),
                "write_valid": In(1),
                "write_address": In(len(self.engine.a.address)),
                "write_data": In(block.size),
                "corrupt": In(2),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = engine = self.engine
        block = block_layout(self.config.block)
        m.submodules.scratchpad = memory = Memory(
            shape=block.size, depth=self.config.scratchpad_depth, init=[]
        )
        write_port = memory.write_port()
        m.d.comb += [
            write_port.en.eq(self.write_valid),
            write_port.addr.eq(self.write_address),
            write_port.data.eq(self.write_data),
        ]

        banks = [bank_of(self.config, port.address) for port in (engine.a, engine.b)]
        same_bank = engine.a.valid & (banks[0] == banks[1])
        for port, reads in (
            (engine.a, engine.a.valid),
            (engine.b, engine.b.valid & ~same_bank),
        ):
            read_port = memory.read_port()
            # What nobody asked for is rubbish.
            read = delay(m, reads, 1, name="read")
            data = Mux(read, read_port.data, ~read_port.data)
            m.d.comb += [
                read_port.addr.eq(port.address),
                port.data.eq(delay(m, data, SCRATCHPAD_LATENCY - 1, name="data")),
            ]

        stuck, flipped_bit = self.corrupt[1], self.corrupt[0]
        m.d.comb += [
            engine.i.payload.eq(self.i.payload),
            engine.i.valid.eq(self.i.valid & ~stuck),
            self.i.ready.eq(engine.i.ready & ~stuck),
        ]
        connect(m, flipped(self.exp_read), engine.exp_read)
        m.d.comb += [
            engine.vector_read.valid.eq(self.vector_read.valid),
            engine.vector_read.bank.eq(self.vector_read.bank),
            engine.vector_read.row.eq(self.vector_read.row),
            engine.vector_read.tile.eq(self.vector_read.tile),
            self.vector_read.data.eq(engine.vector_read.data.as_value() ^ flipped_bit),
            self.seen.eq(
                Cat(
                    engine.row_issued,
                    engine.result_written,
                    engine.operand_read,
                    engine.early,
                    engine.done,
                    engine.busy,
                    engine.conflict,
                    engine.tap.valid,
                    engine.flags[Flag.ACCUMULATOR_OVERFLOW],
                    (engine.flags & ~(1 << Flag.ACCUMULATOR_OVERFLOW)).any(),
                )
            ),
            self.tapped.eq(
                Cat(
                    engine.tap.block,
                    engine.tap.entry,
                    engine.tap.first,
                    engine.tap.owned,
                    engine.tap.squares,
                )
            ),
        ]
        return m


DEPTH = 1024


def config(rows: int, columns: int, **changes: int) -> Config:
    """A small machine around an array of that size."""
    sizes = {
        "block": rows,
        "columns": columns,
        "tiles": 2,
        "lanes": 4,
        "rows_max": 16,
        "acc_width": 2 * max(rows, columns),
        "scratchpad_depth": DEPTH,
    }
    return preset("tiny").with_(**(sizes | changes))


CONFIGS = {
    "8x4": config(8, 4, fraction_bits=9),
    "8x8": config(8, 8, acc_banks=3, rows_max=20, acc_width=24),
    "8x16": config(8, 16, fraction_bits=23, acc_banks=2),
    "16x16": config(16, 16, rows_max=64, acc_width=64, acc_banks=2, stat_depth=64),
    "32x16": config(32, 16, rows_max=64, acc_width=128, acc_banks=2, stat_depth=128),
    "32x32": config(32, 32, rows_max=64, acc_width=256, acc_banks=2, stat_depth=256),
}

TAP_PERIODS = {"8x8": 13}
"""Where the tap is slower than the accumulators."""


def run(name: str, testcase: Any, seed: int, workdir: Any = None, **settings: Any) -> None:
    top = Bench(config=CONFIGS[name], tap_period=TAP_PERIODS.get(name))
    settings |= {
        "config": CONFIGS[name].to_dict(),
        "tile": TILE,
        "tap_period": top.engine.min_period,
        "tap_latency": top.engine.TAP_LATENCY,
    }
    build(top, name=f"matmul_{name}").run(
        "tb.bench_matmul", parameters=settings, seed=seed, testcase=testcase, workdir=workdir
    )


RANDOM = ("matches_golden", "flags_one_by_one", "statistics_go_on", "drains_at_once")


@pytest.mark.parametrize(
    "name", ["8x4", *(pytest.param(n, marks=pytest.mark.slow) for n in ("8x8", "8x16", "32x16"))]
)
def test_matches_golden(name: str, seed: int) -> None:
    run(name, RANDOM, seed)


def job(
    name: str, what: str, *, tiles: int, period: int, rows: int, instructions: list[dict[str, int]]
) -> dict[str, Any]:
    """A job of `tiles` weight tiles, `period` cycles apart, with the cycles it must take."""
    columns = CONFIGS[name].columns
    latency = MatmulEngine(config=CONFIGS[name], tile=0).latency
    streaming = (tiles - 1) * period + rows
    return {
        "name": what,
        "instructions": instructions,
        "span": columns + streaming + latency + columns - 1,
        "idle": streaming - tiles * rows,
        "latency": latency + columns - 1,
    }


def product(rows: int, blocks: int, cols: int, **fields: int) -> dict[str, int]:
    """A product whose A and B lie in different banks."""
    where = {"b_base": DEPTH // 2, "a_row": 1, "a_block": rows, "b_col": 1, "b_block": cols}
    return {"rows": rows, "blocks": blocks, "cols": cols, **where, **fields}


@pytest.mark.parametrize("name", ["16x16", "32x16", pytest.param("32x32", marks=pytest.mark.slow)])
def test_cycles_of_gemm(name: str, seed: int) -> None:
    """K = M = 64 and 16 weight tiles: no idle slot, and a span close to the ideal."""
    c = CONFIGS[name]
    rows, blocks = 64, 64 // c.rows
    tiles = 16
    gemm = job(
        name,
        "GEMM",
        tiles=tiles,
        period=rows,
        rows=rows,
        instructions=[product(rows, blocks, tiles // blocks * c.columns, stats=1, stat_first=1)],
    )
    assert gemm["idle"] == 0
    assert gemm["span"] == tiles * rows + c.rows + 2 * c.columns + 13

    # Instructions of one tile each: the next one's weights are loaded beside the current one.
    short = job(
        name,
        "M = C, back to back",
        tiles=12,
        period=c.columns,
        rows=c.columns,
        instructions=[
            product(c.columns, 1, c.columns, bank=n % c.acc_banks, accumulate=int(n > 4))
            for n in range(12)
        ],
    )
    assert short["idle"] == 0
    run(name, "cycles", seed, jobs=[gemm, short])


def test_cycles_of_interlock(seed: int) -> None:
    """Fewer rows than the accumulators' latency: tiles are `min_period` apart, or C."""
    name = "8x4"
    c = CONFIGS[name]
    period = MatmulEngine(config=c, tile=0).min_period
    assert period == 8
    jobs = [
        job(
            name,
            f"M = {rows}, one column tile",
            tiles=5,
            period=max(rows, period),
            rows=rows,
            instructions=[product(rows, 5, c.columns)],
        )
        for rows in (1, 4, period - 1, period, period + 1)
    ]
    jobs += [
        job(
            name,
            f"M = {rows}, nothing to add to",
            tiles=12,
            period=c.columns,
            rows=rows,
            instructions=[product(rows, 1, c.acc_width)] * 3,
        )
        for rows in (1, c.columns)
    ]
    run(name, "cycles", seed, jobs=jobs)


def test_utilization(seed: int) -> None:
    """M = N = K = 256 on 16 x 16: instructions of 64 x 64 outputs."""
    name = "16x16"
    instructions = [product(64, 16, 64, a_block=16, b_block=16, bank=n % 2) for n in range(16)]
    large = job(name, "256", tiles=16 * 64, period=64, rows=64, instructions=instructions)
    assert 256**3 / (16 * 16) / large["span"] >= 0.995
    run(name, "cycles", seed, jobs=[large])


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [("bit", "accumulators of bank 0 differ"), ("valid", "0 of 32 instructions done")],
)
def test_bench_sees(corrupt: str, message: str, seed: int, tmp_path: Any) -> None:
    with pytest.raises(BenchError, match=message):
        run("8x4", "matches_golden", seed, workdir=tmp_path, corrupt=corrupt)


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="tile must be 0 to 1, not 2"):
        MatmulEngine(config=CONFIGS["8x4"], tile=2)
    with pytest.raises(ValueError, match="periods must be positive, not 8 and 0"):
        Sequencer(config=CONFIGS["8x4"], tile=0, min_period=8, tap_period=0)
    with pytest.raises(ValueError, match=r"psum_width must hold .* not 17 and 16"):
        ProcessingElement(psum_width=17, sum_width=16)


@pytest.mark.parametrize("rows", range(1, 34))
def test_psum_width(rows: int) -> None:
    largest = rows * 128 * 128
    assert 1 << (psum_width(rows) - 2) <= largest < 1 << (psum_width(rows) - 1)
