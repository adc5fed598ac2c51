# SPDX-License-Identifier: Apache-2.0
"""The model of cycles by itself: its latencies against the RTL's, known times, and its ports."""

import gc
import random
from collections.abc import Generator, Iterator

import pytest
from amaranth.hdl import UnusedElaboratable

from afternorm.bench.layers import Shape, hollow_model
from afternorm.compiler.kernels import compile_gemm, compile_norm_linear
from afternorm.compiler.model import ModelCompiler
from afternorm.config import PRESETS, Config, preset
from afternorm.cycles import predict
from afternorm.cycles.dram import Load
from afternorm.cycles.kernel import Kernel, Waiters
from afternorm.cycles.ports import Port, next_free
from afternorm.cycles.timing import (
    BURST,
    BURSTS_AHEAD,
    BURSTS_UNSENT,
    ENTER_TO_GRANT,
    FIFO,
    IN_FLIGHT,
    LEAVE_TO_OFFER,
    RUN,
    TILER_PERIOD,
    timing,
)
from afternorm.errors import AfternormError
from afternorm.isa import Engine, Instruction, Opcode, Scale, Source
from hdl.dma import arbiter, bursts, load, store
from hdl.exp.engine import ExpEngine
from hdl.matmul.engine import MatmulEngine, offer_to_row
from hdl.matmul.tiler import ColumnTiler
from hdl.reduce.engine import ReduceEngine
from hdl.reduce.tree import tree_latency
from hdl.scheduler import frontend, lost_slots
from hdl.scheduler.checker import Checker
from hdl.vector.engine import VectorEngine
from tb.machine import CONFIGS

TINY = preset("tiny")


@pytest.fixture(autouse=True)
def components_are_only_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Amaranth warns of components that nobody elaborates, when they are collected."""
    monkeypatch.setattr(UnusedElaboratable, "_MustUse__silence", True)
    yield
    gc.collect()


ALL = {**PRESETS, **CONFIGS}


@pytest.mark.parametrize("name", ALL)
def test_latencies_are_the_hardwares(name: str) -> None:
    config = ALL[name]
    t = timing(config)
    reduce = ReduceEngine(config=config, tile=0)
    matmul = MatmulEngine(config=config, tile=0, tap_period=reduce.tap_min_period)
    exp = ExpEngine(config, 0)
    vector = VectorEngine(config=config, tree_latency=tree_latency(config))
    assert t.tree == tree_latency(config)
    assert t.dot_control + t.product_write == matmul.latency
    assert t.product_done == t.product_write + config.columns - 1
    assert (t.tile_period, t.tap_period) == (matmul.min_period, reduce.tap_min_period)
    assert t.tap == reduce.tap_latency
    assert offer_to_row(config) == TILER_PERIOD + config.columns
    before_the_reads = 5
    assert before_the_reads + t.exp_done - 1 == exp.overhead
    assert t.vector_write == vector.latency
    before_the_slots = 3
    assert before_the_slots + t.vector_write + t.vector_block == vector.blocks_latency
    start, statistics, early = 2, 2, 1
    for mode in Scale:
        for tree in (False, True):
            expected = start + statistics + tree * t.tree + t.scales[mode] + early
            assert expected == reduce.latency(mode, tree=tree)
    assert 3 + max(t.checks.values()) == Checker(config=config).latency


def test_depths_are_the_hardwares() -> None:
    assert frontend.IN_FLIGHT == IN_FLIGHT
    assert (bursts.RUN, bursts.BURST) == (RUN, BURST)
    assert arbiter.OUTSTANDING == load.AHEAD == store.UNWRITTEN == BURSTS_AHEAD
    assert store.UNSENT == BURSTS_UNSENT
    assert ColumnTiler.period == TILER_PERIOD
    assert frontend.LEAVE_TO_OFFER == LEAVE_TO_OFFER
    assert lost_slots.DISPATCH_TO_HEAD == FIFO + ENTER_TO_GRANT


@pytest.mark.parametrize(
    ("config", "m", "n", "k"),
    [
        (TINY, 16, 16, 24),
        (preset("small"), 64, 64, 96),
        (preset("large"), 128, 64, 256),
        (preset("small").with_(block=16, columns=16), 64, 64, 64),
    ],
)
def test_the_span_of_a_product(config: Config, m: int, n: int, k: int) -> None:
    """It is the ideal and a known constant, and no slot is idle."""
    job = compile_gemm(config, m, n * config.tiles, k)
    prediction = predict(config, job.program)
    ideal = -(-k // config.block) * -(-n // config.columns) * m
    assert prediction.rows == ideal
    assert prediction.idle_slots == 0
    assert prediction.span == ideal + config.rows + 2 * config.columns + 13


def test_few_rows_wait_for_the_columns() -> None:
    """A row of A needs C columns of B each time."""
    config = preset("large")
    columns = 64 * config.tiles
    programs = [compile_gemm(config, m, columns, 32 * 40).program for m in (1, 32)]
    times = [predict(config, program).span for program in programs]
    assert times[1] - times[0] == 31


def test_latency_of_dram_and_of_hops() -> None:
    """A program waits for DRAM once; a conventional norm waits for the tree, a deferred one not."""
    config = preset("medium").with_(columns=16, lanes=8)
    deferred, serial = (
        compile_norm_linear(config, "rms", 512, 256, 64, schedule=schedule).program
        for schedule in ("deferred", "serial")
    )
    for program, hops in ((deferred, 0), (serial, 2)):
        near = predict(config, program).cycles
        assert predict(config, program, dram_latency=132).cycles == near + 100
        far = predict(config, program, hop_latency=50).cycles
        assert far >= near + 50 * hops
        assert hops or far <= near + 2 * 50 * 2  # what follows the last product


def sync(engine: Engine, **signals: tuple[int, ...]) -> Instruction:
    return Instruction(Opcode.SYNC, {"engine": engine}, **signals)


END = Instruction(Opcode.END)


def test_the_shortest_program() -> None:
    # Start to fetch, DRAM, the instruction's beats, the buffer; then fetch, check, finish.
    beats = 512 // TINY.dram_width
    assert predict(TINY, [END]).cycles == 5 + 32 + beats - 1 + 2 + 5
    prediction = predict(TINY, [END])
    assert (prediction.rows, prediction.span, prediction.idle_slots) == (0, 0, 0)
    assert all(time.starved == prediction.cycles for time in prediction.engines.values())


def test_programs_that_never_end() -> None:
    with pytest.raises(AfternormError, match=r"EXP engine waits for semaphores \(3, 4\)"):
        signals = sync(Engine.LOAD, signals=(3,))
        predict(TINY, [signals, sync(Engine.EXP, waits=(3, 4)), END])
    with pytest.raises(AfternormError, match="no END"):
        predict(TINY, [sync(Engine.EXP)])
    with pytest.raises(AfternormError, match="no END"):
        predict(TINY, [])
    full = [sync(Engine.EXP, waits=(3,))] * 40
    with pytest.raises(AfternormError, match="EXP engine waits"):
        predict(TINY, [*full, END])


@pytest.mark.parametrize(("dram_latency", "hop_latency"), [(1, 0), (32, -1)])
def test_impossible_latencies(dram_latency: int, hop_latency: int) -> None:
    with pytest.raises(AfternormError, match="must be"):
        predict(TINY, [END], dram_latency=dram_latency, hop_latency=hop_latency)


def test_a_token_that_comes_before_or_after_its_wait() -> None:
    """Two cycles after a signal it may be taken, in whichever order the instructions come."""
    for order in (1, -1):
        pair = [sync(Engine.EXP, waits=(3,)), sync(Engine.LOAD, signals=(3,))][::order]
        assert predict(TINY, [*pair, END]).cycles < 80


def test_ports_against_a_simulation_by_cycles(seed: int) -> None:
    """Accesses that go last take the first cycles that nobody else has."""
    rng = random.Random(seed)
    for _ in range(200):
        kernel = Kernel()
        port = Port(kernel)
        taken = set()
        for _ in range(rng.randrange(4)):
            period, first, end = rng.randrange(1, 9), rng.randrange(60), rng.randrange(20, 200)
            width, priority, bank = rng.randrange(1, 4), rng.randrange(4), rng.randrange(2)
            port.announce(first, end, priority, period=period, width=width, banks=1 << bank)
            if priority < 2 and bank == 0:
                taken |= {t for t in range(first, end) if (t - first) % period < width}
        first, count, spacing = rng.randrange(40), rng.randrange(1, 50), rng.randrange(1, 4)
        time = first
        for _ in range(count):
            while time in taken:
                time += 1
            last, time = time, time + spacing
        result = []

        def access(
            port: Port = port,
            result: list[int] = result,
            first: int = first,
            count: int = count,
            spacing: int = spacing,
        ) -> Generator[int | Waiters, None, None]:
            result.append((yield from port.serve(first, count, 2, spacing=spacing, banks=1)))

        kernel.start(access())
        kernel.run()
        assert result == [last]
        assert next_free(port.others(2, 0, 1), last) == last


def test_a_use_that_never_was_is_not_gone_on_with() -> None:
    """One that shrank to its end before its first cycle leaves the next one whole."""
    port = Port(Kernel())
    port.announce(45, 50, 0).end = 35
    port.announce(35, 70, 0)
    assert next_free(port.others(1, 0), 35) == 70


def program_of_transfers(rng: random.Random, config: Config) -> list[Instruction]:
    """Long loads, and what meets them at the ports, in whatever order it happens to run."""
    size, exponent = config.block, 2
    program = []
    for _ in range(rng.randrange(3, 9)):
        count = rng.choice([1, 31, 32, 33, rng.randrange(300), rng.randrange(2000)])
        load = {"target": rng.randrange(2), "count": count + 1, "shared": rng.randrange(2)}
        load |= {"dram": size * rng.randrange(100), "exponents": exponent * rng.randrange(100)}
        load |= {"dram_tile": 64 * rng.randrange(100), "exponents_tile": 64 * rng.randrange(100)}
        sizes = {"rows": rng.randrange(1, 17), "blocks": rng.randrange(1, 9)}
        strides = {"src_row": 8, "src_block": 1, "dst_row": 8, "dst_block": 1, "dst_tile": 128}
        cols = rng.randrange(1, 9) * config.block
        some = [
            Instruction(Opcode.LOAD, load),
            Instruction(Opcode.GATHER, sizes | strides),
            Instruction(Opcode.EXP, {"rows": 16, "cols": rng.randrange(1, 2000), "p_block": 16}),
            Instruction(
                Opcode.VECTOR,
                {"rows": sizes["rows"], "cols": cols, "source": Source.VECTOR, "x_row": 8}
                | rng.choice([{"to_blocks": 1, "m_row": 8, "m_block": 1}, {"to_vector": 1}]),
            ),
            Instruction(
                Opcode.MATMUL,
                sizes | {"cols": cols, "a_row": 8, "a_block": 1, "b_col": 8, "b_block": 1},
            ),
        ]
        program += [some[0], *rng.sample(some, rng.randrange(len(some)))]
    return [*program, END]


def test_runs_that_are_skipped_change_no_cycle(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is predicted run by run is predicted with runs skipped, to the cycle."""
    rng = random.Random(seed)
    shapes = [
        hollow_model("prompt", Shape("llama", 1024, 2048, 8, 4), 512),
        hollow_model("text", Shape("bert", 768, 3072, 8, 8), 64),
    ]
    config = preset("medium").with_(scratchpad_depth=1 << 15, vector_depth=1 << 13)
    compilers = [ModelCompiler(config, one, tokens=one.context, chunk=128) for one in shapes]
    assert not any(compiler.resident for compiler in compilers)
    long = [compilers[0].step(384, 128).instructions, compilers[1].encode(64).instructions]
    cases = [(config, program) for program in long]
    for name in ("tiny", "T2-B16-F9", "T4-B32-F15"):
        cases += [(CONFIGS[name], program_of_transfers(rng, CONFIGS[name])) for _ in range(25)]
    skip, skipped = Load._skip, 0

    def counted(load: Load, period: int, words: int, most: int) -> int:
        nonlocal skipped
        count = skip(load, period, words, most)
        skipped += count
        return count

    for number, (some, program) in enumerate(cases):
        latency = rng.choice((5, 32, 150))
        monkeypatch.setattr(Load, "_skip", counted)
        fast = predict(some, program, dram_latency=latency)
        monkeypatch.setattr(Load, "_skip", lambda *_: 0)
        assert predict(some, program, dram_latency=latency) == fast, f"program {number}"
    assert skipped > 2000
