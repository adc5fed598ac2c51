# SPDX-License-Identifier: Apache-2.0
"""The exp engine against `golden.machine`: blocks, addresses, flags and cycles.

The bench plays the accumulators (right data only in the cycle in which it is due) and the
scratchpad's write port.  Every block written is compared in order with what the golden machine
leaves at its address; the flag must be raised in exactly as many cycles as chunks were saturated.
"""

from collections import Counter, deque
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from afternorm.config import Config
from afternorm.isa import BODIES, Flag, Instruction, Opcode
from golden.machine import Machine, grid
from golden.number import EXPONENT_MAX, EXPONENT_MIN, Floats, Format
from tb.stream import STALLS, Driver, bounded, parameters, rng, seed, start, ticks

ACC_LATENCY = 2
UNIT = 256
"""Steps of a score."""


def payload(instruction: Instruction) -> int:
    """The bits of `hdl.interfaces.engine_payload`."""
    word, shift = int(instruction.opcode) | int(instruction.drain) << 4, 5
    for name, width in BODIES[instruction.opcode]:
        word |= instruction[name] << shift
        shift += width
    return word


def scores(generator: np.random.Generator, fmt: Format, shape: tuple[int, ...]) -> Floats:
    """Scores: usual, near -131 and +-300, ties, tiny, at the ends of the range, beyond it."""
    g = generator
    kinds = [
        g.normal(0, 4, shape),
        g.normal(-131, 3, shape),
        g.normal(300, 5, shape) * g.choice([-1, 1], shape),
        (g.integers(-2000, 2000, shape) + 0.5) / UNIT,
        g.choice([-1, 1], shape) * np.ldexp(g.random(shape) + 1, g.integers(-12, -6, shape)),
        g.uniform(-513, 513, shape),
        np.ldexp(g.random(shape) + 1, g.integers(8, EXPONENT_MAX, shape))
        * g.choice([-1, 1], shape),
        g.choice(
            [
                *(0.0, 0.5 / UNIT, -0.5 / UNIT, 1.5 / UNIT, -1.5 / UNIT, 0.75 / UNIT),
                *(2.0**EXPONENT_MIN, -(2.0**EXPONENT_MIN), fmt.max, -fmt.max),
                *(-511.0, -511 - 0.5 / UNIT, -511 - 0.75 / UNIT, -511 - 1 / UNIT, -512.0),
                *(512 - 1 / UNIT, 512 - 0.5 / UNIT, 512 - 0.625 / UNIT, 512.0, 511.0),
            ],
            shape,
        ),
    ]
    # A row of one kind (the usual case), or any kind next to any other.
    weights = [0.25, 0.15, 0.2, 0.1, 0.1, 0.05, 0.05, 0.1]
    by_row = g.choice(len(kinds), (*shape[:-1], 1), p=weights)
    alone = g.choice(len(kinds), shape, p=weights)
    kind = np.where(g.random((*shape[:-1], 1)) < 0.6, by_row, alone)
    return fmt.round(np.choose(kind, kinds))


class Bench:
    """One design, one golden machine and what connects them."""

    def __init__(self, dut: Any, *, name: str, p_stall: float = 0.0, i_stall: float = 0.0) -> None:
        settings = parameters()
        self.settings = settings
        self.config = Config(**settings["config"])
        self.tile: int = settings["tile"]
        self.dut = dut
        self.name = name
        self.machine = Machine(self.config)
        self.generator = np.random.default_rng(seed())
        # Another tile's scores are zeros: they raise no flag.
        shape = self.machine.acc.shape[1:]
        self.fill(scores(self.generator, self.machine.fmt, shape))

        self.driver = Driver(dut, "i", stall=i_stall)
        self.expected: deque[tuple[int, int]] = deque()
        self.dones = 0
        self.expected_dones: deque[int] = deque()  # blocks written by then
        self.flag_cycles = 0
        self.expected_flag_cycles = 0
        self.conflicts = 0
        self.written = 0
        self.cycle = 0
        self.accept_cycles: list[int] = []
        self.done_cycles: list[int] = []
        self.read_cycles: list[int] = []
        self.coverage: Counter[str] = Counter()
        self._p_stall = p_stall
        self._random = rng(name)
        dut.p__ready.value = 0
        cocotb.start_soon(self._observe())

    def fill(self, values: Floats) -> None:
        """Accumulators of the tile, ``[bank, row, column]``."""
        c = self.config
        self.machine.acc[self.tile] = values
        bits = self.machine.fmt.encode(values).reshape(*values.shape[:2], -1, c.columns).tolist()
        width = c.float_width
        self.words = [
            [
                [sum(b << (place * width) for place, b in enumerate(word)) for word in row]
                for row in bank
            ]
            for bank in bits
        ]

    def send(self, instructions: list[Instruction]) -> None:
        """Execute on the golden machine, and have the design do it."""
        c = self.config
        for instruction in instructions:
            self.machine.run([instruction, Instruction(Opcode.END)])
            blocks = -(-instruction["cols"] // c.block)
            addresses = grid(
                instruction["p_base"],
                (instruction["rows"], instruction["p_row"]),
                (blocks, instruction["p_block"]),
            ).ravel()
            mantissas, exponents = self.machine.blocks(addresses)
            for address, m, e in zip(
                addresses.tolist(),
                mantissas[self.tile].tolist(),
                exponents[self.tile].tolist(),
                strict=True,
            ):
                block = sum((value & 0xFF) << (8 * place) for place, value in enumerate(m))
                self.expected.append((address, block | (e & 0x3FF) << (8 * c.block)))
            self.expected_dones.append(self.written + len(self.expected))
            self._count_saturated(instruction)
            self.driver.send([payload(instruction)])

    def _count_saturated(self, i: Instruction) -> None:
        """Element by element, in plain integers."""
        c = self.config
        lanes = min(c.columns, c.block)
        width = -(-i["cols"] // c.block) * c.block
        first = i["acc_tile"] * c.columns
        key = i["key_base"] + self.tile * i["key_tile"]
        for m in range(i["rows"]):
            row = self.machine.acc[self.tile, i["bank"], m, first : first + width]
            open_ = [
                n < i["cols"]
                and key + n < i["length"]
                and not (i["causal"] and key + n > i["query_base"] + m)
                for n in range(width)
            ]
            steps = np.rint(row * UNIT)
            beyond = (steps < -EXPONENT_MAX * UNIT) | (steps > EXPONENT_MAX * UNIT + UNIT - 1)
            flagged = [bool(b) and o for b, o in zip(beyond, open_, strict=True)]
            for chunk in range(0, width, lanes):
                self.expected_flag_cycles += any(flagged[chunk : chunk + lanes])
            for block in range(0, width, c.block):
                lanes_open = sum(open_[block : block + c.block])
                self.coverage["full block"] += lanes_open == c.block
                self.coverage["fully masked block"] += lanes_open == 0
                self.coverage["partly masked block"] += 0 < lanes_open < c.block
            self.coverage["causal boundary"] += bool(i["causal"]) and 0 < sum(open_) < width
            self.coverage["masked beyond range"] += bool(beyond.any()) and not any(flagged)
            self.coverage["beyond range"] += any(flagged)

    async def finish(self, *, cycles: int) -> None:
        """Everything written and done, nothing after it."""

        async def done() -> None:
            while self.driver or self.expected or self.expected_dones:
                await RisingEdge(self.dut.clk)

        try:
            await bounded(done(), cycles=cycles)
        except TimeoutError:
            raise AssertionError(
                f"not done after {cycles} cycles: {len(self.driver)} instructions, "
                f"{len(self.expected)} blocks, {len(self.expected_dones)} dones missing"
            ) from None
        await ticks(self.dut, 50)
        assert int(self.dut.busy.value) == 0
        assert self.flag_cycles == self.expected_flag_cycles, (
            f"EXP_RANGE in {self.flag_cycles} cycles, not {self.expected_flag_cycles}"
        )

    async def _observe(self) -> None:
        dut = self.dut
        reads: deque[int | None] = deque([None] * (ACC_LATENCY - 1))
        corrupt = self.settings.get("corrupt")
        acc_tile = getattr(dut, "acc__tile", None)  # has no bits if a bank is one word wide
        held: tuple[int, int] | None = None
        ready = False
        while True:
            await RisingEdge(dut.clk)
            self.cycle += 1
            if int(dut.rst.value):
                continue
            if int(dut.i__valid.value) and int(dut.i__ready.value):
                self.accept_cycles.append(self.cycle)

            read = None
            if int(dut.acc__valid.value):
                self.read_cycles.append(self.cycle)
                word = 0 if acc_tile is None else int(acc_tile.value)
                read = self.words[int(dut.acc__bank.value)][int(dut.acc__row.value)][word]
            reads.append(read)
            due = reads.popleft()
            dut.acc__data.value = (
                self._random.getrandbits(len(dut.acc__data)) if due is None else due
            )

            valid = int(dut.p__valid.value) == 1 and corrupt != "valid"
            assert int(dut.conflict.value) == int(valid and not ready) or corrupt == "valid"
            if valid:
                write = (int(dut.p__address.value), int(dut.p__data.value))
                assert held in (None, write), "p changed before the transfer"
                held = None if ready else write
                if ready:
                    assert self.expected, "a block too many"
                    if corrupt == "bit" and self.written == 3:  # shows that the bench can fail
                        write = (write[0], write[1] ^ 1 << self._random.randrange(60))
                    want = self.expected.popleft()
                    assert write == want, (
                        f"block {self.written}: {write[1]:#x} to {write[0]}, "
                        f"not {want[1]:#x} to {want[0]}"
                    )
                    self.written += 1
                self.conflicts += not ready
            else:
                assert held is None, "p fell before the transfer"

            assert int(dut.early.value) == int(dut.done.value)
            if int(dut.done.value):
                assert self.expected_dones, "a done too many"
                want_blocks = self.expected_dones.popleft()
                now = self.written - int(valid and ready)  # the pulse follows the last transfer
                assert now == want_blocks, f"done after {now} blocks, not {want_blocks}"
                self.done_cycles.append(self.cycle)
            if len(self.done_cycles) < len(self.accept_cycles):
                assert int(dut.busy.value) or self.accept_cycles[-1] == self.cycle
            flags = int(dut.flags.value)
            assert flags & ~(1 << Flag.EXP_RANGE) == 0
            self.flag_cycles += flags >> Flag.EXP_RANGE & 1

            ready = self._random.random() >= self._p_stall
            dut.p__ready.value = int(ready)


def instruction(bench: Bench, **body: int) -> Instruction:
    """An EXP that writes its blocks side by side, with nothing masked unless `body` says so."""
    blocks = -(-body["cols"] // bench.config.block)
    defaults = {"length": 65535, "p_row": blocks, "p_block": 1}
    return Instruction(Opcode.EXP, defaults | body, drain=bool(body["rows"] & 1))


def random_instruction(bench: Bench) -> Instruction:
    """Any legal EXP, masks and ends of the fields' ranges included."""
    c, g = bench.config, bench.generator
    pick = lambda low, high: int(g.integers(low, high + 1))  # noqa: E731
    blocks = pick(1, c.acc_width // c.block)
    cols = blocks * c.block - (pick(0, c.block - 1) if g.random() < 0.7 else 0)
    rows = pick(1, c.rows_max) if g.random() < 0.3 else pick(1, 4)
    key_tile = pick(0, c.acc_width)
    key_base = int(g.choice([0, pick(0, 100), 65535 - pick(0, 100)]))
    first_key = key_base + bench.tile * key_tile
    width = blocks * c.block
    length = first_key + pick(-3, width + 5) if g.random() < 0.5 else 65535
    query = first_key + pick(-rows, width)
    if g.random() < 0.1:
        length, query, key_tile = (int(g.choice([0, 65535])) for _ in range(3))
    p_block, p_row = pick(1, 3), 0
    p_row = p_block * blocks + pick(0, 3)
    if g.random() < 0.3:  # blocks of a column side by side
        p_row, p_block = 1, rows + pick(0, 2)
    room = c.scratchpad_depth - (rows - 1) * p_row - (blocks - 1) * p_block
    return Instruction(
        Opcode.EXP,
        {
            "rows": rows,
            "cols": cols,
            "bank": pick(0, c.acc_banks - 1),
            "acc_tile": pick(0, (c.acc_width - width) // c.columns),
            "query_base": min(max(query, 0), 65535),
            "key_base": key_base,
            "key_tile": key_tile,
            "length": min(max(length, 0), 65535),
            "causal": pick(0, 1),
            "p_base": int(g.choice([0, room - 1, pick(0, room - 1)])),
            "p_row": p_row,
            "p_block": p_block,
        },
        drain=bool(pick(0, 1)),
    )


@cocotb.test()
@cocotb.parametrize(p_stall=STALLS, i_stall=(0.0, 0.9))
async def matches_golden(dut: Any, p_stall: float, i_stall: float) -> None:
    """Random instructions."""
    bench = Bench(dut, name=f"random {p_stall} {i_stall}", p_stall=p_stall, i_stall=i_stall)
    await start(dut)
    bench.send([random_instruction(bench) for _ in range(60)])
    blocks = len(bench.expected)
    per_block = bench.config.block // min(bench.config.columns, bench.config.block)
    await bench.finish(cycles=int(blocks * per_block / (1 - p_stall) * 2) + 3000)
    missing = [name for name, count in bench.coverage.items() if count == 0]
    assert not missing, f"no case for {missing}"
    assert bench.written == blocks
    assert bool(bench.conflicts) == bool(p_stall)


@cocotb.test()
async def every_step(dut: Any) -> None:
    """All fractions and, at the ends of the range, all roundings."""
    bench = Bench(dut, name="steps")
    c = bench.config
    shape = bench.machine.acc.shape[1:]
    count = int(np.prod(shape))
    finest = min(c.fraction_bits, 12)  # of scores from 0.5 to 1
    ends = np.concatenate(
        [s * (np.arange(-8, 8) / 4 / UNIT + e) for s in (1, -1) for e in (511, 512)]
    )
    ramp = np.arange(1 << finest) / (1 << finest)
    values = np.concatenate([ends, ramp, -ramp, np.arange(UNIT) / UNIT - 131])
    await start(dut)
    for first in range(0, len(values), count):
        part = np.resize(values[first:], count)
        bench.fill(bench.machine.fmt.round(part.reshape(shape)))
        bench.send(
            [
                instruction(bench, rows=c.rows_max, cols=c.acc_width, bank=bank)
                for bank in range(c.acc_banks)
            ]
        )
        await bench.finish(cycles=20 * count + 1000)


@cocotb.test()
async def takes_exact_cycles(dut: Any) -> None:
    """An idle engine takes one cycle a chunk and `overhead`; a busy one the chunks alone."""
    bench = Bench(dut, name="cycles")
    c = bench.config
    overhead = bench.settings["overhead"]
    chunks = c.block // min(c.columns, c.block)
    await start(dut)
    sizes = [(1, 1), (2, c.block), (3, c.acc_width), (c.rows_max, c.acc_width), (c.rows_max, 1)]
    for rows, cols in sizes:
        bench.send([instruction(bench, rows=rows, cols=cols)])
        await bench.finish(cycles=10_000)
        want = rows * -(-cols // c.block) * chunks + overhead
        took = bench.done_cycles[-1] - bench.accept_cycles[-1]
        assert took == want, f"{rows} x {cols}: {took} cycles, not {want}"

    sizes = [
        (c.rows_max, c.acc_width),
        (c.rows_max - 1, 1),
        (8, c.block),
        (c.rows_max, c.acc_width),
    ]
    done = len(bench.done_cycles)
    reads = len(bench.read_cycles)
    bench.send([instruction(bench, rows=rows, cols=cols, bank=1) for rows, cols in sizes])
    await bench.finish(cycles=10_000)
    for index, (rows, cols) in enumerate(sizes[1:], start=done + 1):
        want = rows * -(-cols // c.block) * chunks
        took = bench.done_cycles[index] - bench.done_cycles[index - 1]
        assert took == want, f"{rows} x {cols} after another: {took} cycles, not {want}"
    total = len(bench.read_cycles) - reads
    assert bench.read_cycles[-1] - bench.read_cycles[reads] == total - 1, "a bubble"


@cocotb.test()
async def waits_without_loss(dut: Any) -> None:
    """While `p` is not ready for long, exactly the queue's depth of blocks is begun."""
    bench = Bench(dut, name="waits", p_stall=1.0)
    c = bench.config
    chunks = c.block // min(c.columns, c.block)
    await start(dut)
    bench.send([instruction(bench, rows=c.rows_max, cols=c.acc_width)] * 4)
    await ticks(dut, 400)
    assert len(bench.read_cycles) == bench.settings["queue_depth"] * chunks
    bench._p_stall = 0.0
    await bench.finish(cycles=10_000)


@cocotb.test()
async def reset_forgets(dut: Any) -> None:
    """A reset amid instructions leaves nothing of them."""
    bench = Bench(dut, name="reset")
    c = bench.config
    await start(dut)
    bench.send([instruction(bench, rows=c.rows_max, cols=c.acc_width)] * 2)

    async def under_way() -> None:
        while bench.written < 2:
            await RisingEdge(dut.clk)

    await bounded(under_way(), cycles=1000)
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)  # in reset, nobody observes: forget what was before
    for queue in (bench.expected, bench.expected_dones, bench.driver._queue):
        queue.clear()
    bench.accept_cycles.clear()
    bench.done_cycles.clear()
    bench.written = bench.flag_cycles = bench.expected_flag_cycles = 0
    dut.rst.value = 0
    await ticks(dut, 100)
    assert bench.written == 0 and int(dut.busy.value) == 0
    bench.send([random_instruction(bench) for _ in range(5)])
    await bench.finish(cycles=20_000)
