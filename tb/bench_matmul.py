# SPDX-License-Identifier: Apache-2.0
"""The matrix engine against the golden machine: accumulators, statistics tap, flags, cycles.

The top is `tests.hdl.test_matmul.Bench`: the engine, a scratchpad that reads a bank once a cycle
and may be written from here, and one packed port with all that is to be seen in each cycle.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from afternorm.config import Config
from afternorm.isa import HEADER, Flag, Instruction, Opcode, Stats
from golden.machine import Machine
from hdl.interfaces import ACC_LATENCY, EXPONENT_BITS
from tb.stream import Driver, bounded, parameters, rng, seed, start, ticks

SEEN = (
    "row_issued",
    "result_written",
    "operand_read",
    "early",
    "done",
    "busy",
    "conflict",
    "tap",
    "overflow",
    "other_flags",
)
"""Bits of the port `seen`, least significant first."""
TAP = 1 << SEEN.index("tap")
HEADER_BITS = sum(width for _, width in HEADER)


@dataclass(frozen=True)
class Passed:
    """A block at the statistics tap."""

    block: int
    entry: int
    first: int
    owned: int
    squares: int


@dataclass
class Record:
    """What was seen: the cycles of each event, and the tap's blocks."""

    cycles: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in SEEN})
    passed: list[Passed] = field(default_factory=list)
    cycle: int = 0

    def count(self, name: str) -> int:
        return len(self.cycles[name])

    def span(self) -> int:
        """Cycles from the first operand read to the last result written, inclusive."""
        return self.cycles["result_written"][-1] - self.cycles["operand_read"][0] + 1

    def idle(self) -> int:
        """Cycles without a row between the first and the last row."""
        rows = self.cycles["row_issued"]
        return rows[-1] - rows[0] + 1 - len(rows)


class Engine:
    """Everything a test does with the device, with the golden machine beside it."""

    def __init__(self, dut: Any, *, stall: float = 0.0) -> None:
        p = parameters()
        self.dut = dut
        self.config = Config(**p["config"])
        self.tile = int(p["tile"])
        self.tap_period = int(p["tap_period"])
        self.tap_latency = int(p["tap_latency"])
        self.machine = Machine(self.config)
        self.np = np.random.default_rng(seed())
        self.record = Record()
        self.instructions: list[Instruction] = []
        dut.corrupt.value = {"bit": 1, "valid": 2}.get(p.get("corrupt", ""), 0)
        dut.write_valid.value = 0
        for port in ("exp_read", "vector_read"):
            getattr(dut, f"{port}__valid").value = 0
        self.driver = Driver(dut, "i", stall=stall)

    async def start(self) -> None:
        await start(self.dut)
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        dut, c = self.dut, self.config
        entry_bits = (c.stat_depth - 1).bit_length()
        block_bits = 8 * c.block + EXPONENT_BITS
        while True:
            await RisingEdge(dut.clk)
            record = self.record
            record.cycle += 1
            seen = int(dut.seen.value)
            for number, name in enumerate(SEEN):
                if seen >> number & 1:
                    record.cycles[name].append(record.cycle)
            if seen & TAP:
                bits = int(dut.tapped.value)
                rest = bits >> block_bits
                entry = rest & ((1 << entry_bits) - 1)
                first, owned, squares = (rest >> (entry_bits + n) & 1 for n in range(3))
                record.passed.append(
                    Passed(bits & ((1 << block_bits) - 1), entry, first, owned, squares)
                )

    # -- scratchpad

    async def fill(self, exponents: tuple[int, int]) -> None:
        """Write random blocks to the scratchpad; of each, the exponent lies in the range."""
        c, r = self.config, self.np
        shape = (c.scratchpad_depth, c.block)
        mantissas = r.integers(-128, 128, shape)
        kind = r.integers(0, 16, c.scratchpad_depth)
        corners = r.choice([-128, -127, 0, 1, 127], shape)
        for number, value in enumerate((-128, 127, 0)):
            mantissas[kind == number] = value
        mantissas[kind == 3] = corners[kind == 3]
        mantissas[kind == 4] //= 64
        low, high = exponents
        values = r.integers(low, high + 1, c.scratchpad_depth)
        values[kind == 5], values[kind == 6], values[kind == 2] = low, high, -512
        self.machine.mantissas[self.tile] = mantissas
        self.machine.exponents[self.tile] = values
        self.dut.write_valid.value = 1
        for address in range(c.scratchpad_depth):
            self.dut.write_address.value = address
            self.dut.write_data.value = self.bits(address)
            await RisingEdge(self.dut.clk)
        self.dut.write_valid.value = 0
        await RisingEdge(self.dut.clk)

    def bits(self, address: int) -> int:
        """A block of the scratchpad as the hardware packs it."""
        mantissas = self.machine.mantissas[self.tile, address].view(np.uint8).tobytes()
        exponent = int(self.machine.exponents[self.tile, address]) & ((1 << EXPONENT_BITS) - 1)
        return int.from_bytes(mantissas, "little") | exponent << 8 * self.config.block

    async def clear(self) -> None:
        """Overwrite all accumulators: they outlive a test, the golden machine does not."""
        c = self.config
        body = {"rows": c.rows_max, "blocks": 1, "cols": c.acc_width, "a_row": 1, "b_col": 1}
        instructions = [
            Instruction(Opcode.MATMUL, body | {"bank": bank}) for bank in range(c.acc_banks)
        ]
        self.golden(instructions)
        self.send(instructions)
        await self.idle()
        self.forget()

    # -- instructions

    def send(self, instructions: Iterable[Instruction]) -> None:
        for instruction in instructions:
            self.instructions.append(instruction)
            body = instruction.pack() >> HEADER_BITS
            self.driver.send([int(Opcode.MATMUL) | int(instruction.drain) << 4 | body << 5])

    def golden(self, instructions: Iterable[Instruction]) -> int:
        """Run `instructions` on the golden machine; returns whether one of them overflowed."""
        self.machine.flags = 0
        self.machine.run([*instructions, Instruction(Opcode.END)])
        return self.machine.flags >> Flag.ACCUMULATOR_OVERFLOW & 1

    def taps(self, i: Instruction) -> list[Passed]:
        """What must pass the tap for an instruction, in order."""
        columns = self.config.columns
        result = []
        for first in range(0, i["cols"], columns):
            last = min(first + columns, i["cols"])
            for k in range(i["blocks"]):
                if i["stats"] == Stats.B:
                    base, stride = i["b_base"] + k * i["b_block"], i["b_col"]
                    passing = range(last - 1, first - 1, -1)
                elif i["stats"] == Stats.A and first == 0:
                    base, stride = i["a_base"] + k * i["a_block"], i["a_row"]
                    passing = range(i["rows"])
                else:
                    continue
                owned = not i["stat_owned"] or k // i["stat_owned"] == self.tile
                result += [
                    Passed(
                        self.bits(base + n * stride),
                        i["stat_base"] + n,
                        int(k == 0 and bool(i["stat_first"])),
                        int(owned),
                        i["stat_squares"],
                    )
                    for n in passing
                ]
        return result

    async def idle(self) -> None:
        """Wait until all instructions are done and the engine is idle."""
        # B may wait for all rows of A, nine of ten instructions may be late, and then some.
        reads = (
            i["blocks"] * (i["rows"] * -(-i["cols"] // self.config.columns) + i["cols"])
            for i in self.instructions
        )
        cycles = 2000 + 16 * sum(reads) + 100 * len(self.instructions)

        async def done() -> None:
            while self.record.count("done") < len(self.instructions) or int(self.dut.seen.value):
                await RisingEdge(self.dut.clk)

        try:
            await bounded(done(), cycles=cycles)
        except TimeoutError:
            raise AssertionError(
                f"{self.record.count('done')} of {len(self.instructions)} instructions done "
                f"after {cycles} cycles"
            ) from None
        await ticks(self.dut, 20)

    # -- accumulators

    async def drain(self, port: str, bank: int, rows: int) -> np.ndarray:
        """The first rows of a bank, all columns, as bits; reads one address a cycle."""
        c, dut = self.config, self.dut
        valid, data = getattr(dut, f"{port}__valid"), getattr(dut, f"{port}__data")
        width = c.float_width
        words: list[int] = []
        places = [(row, tile) for row in range(rows) for tile in range(c.column_tiles)]
        for number in range(len(places) + ACC_LATENCY + 1):
            if number < len(places):
                valid.value = 1
                getattr(dut, f"{port}__bank").value = bank
                getattr(dut, f"{port}__row").value = places[number][0]
                if c.column_tiles > 1:
                    getattr(dut, f"{port}__tile").value = places[number][1]
            else:
                valid.value = 0
            await RisingEdge(dut.clk)
            # Driven in cycle n - 1 and sampled at its end, so ACC_LATENCY edges later.
            if number >= ACC_LATENCY and len(words) < len(places):
                words.append(int(data.value))
        floats = [
            word >> (width * column) & ((1 << width) - 1)
            for word in words
            for column in range(c.columns)
        ]
        return np.array(floats, dtype=np.uint64).reshape(rows, c.acc_width)

    def expected(self, bank: int, rows: int) -> np.ndarray:
        return self.machine.fmt.encode(self.machine.acc[self.tile, bank, :rows])

    async def check_banks(self, text: str) -> None:
        """All accumulators, through both ports at once."""
        banks = self.config.acc_banks
        for bank in range(banks):
            other = (bank + 1) % banks
            tasks = [
                cocotb.start_soon(self.drain("vector_read", bank, self.config.rows_max)),
                cocotb.start_soon(self.drain("exp_read", other, self.config.rows_max)),
            ]
            for task, which in zip(tasks, (bank, other), strict=True):
                self.compare(await task, which, text)

    def compare(self, bits: np.ndarray, bank: int, text: str) -> None:
        wrong = np.argwhere(bits != self.expected(bank, len(bits)))
        if len(wrong):
            row, column = (int(x) for x in wrong[0])
            raise AssertionError(
                f"{text}: {len(wrong)} accumulators of bank {bank} differ, the first at row {row} "
                f"column {column}: {int(bits[row, column]):#x} instead of "
                f"{int(self.expected(bank, len(bits))[row, column]):#x}"
            )

    # -- checks of a whole run

    def check_record(self, text: str, *, overflow: int) -> None:
        record = self.record
        count = len(self.instructions)
        assert record.count("done") == count, f"{text}: {record.count('done')} done of {count}"
        assert record.count("early") == count, f"{text}: {record.count('early')} early of {count}"
        assert bool(record.count("overflow")) == bool(overflow), f"{text}: overflow flag"
        assert record.count("other_flags") == 0, text
        total = rows = 0
        for number, i in enumerate(self.instructions):
            early = record.cycles["early"][number]
            expected = self.taps(i)
            passed = record.passed[total : total + len(expected)]
            for place, (got, want) in enumerate(zip(passed, expected, strict=False)):
                assert got == want, f"{text}: tap {place} of instruction {number}: {got} not {want}"
            total += len(expected)
            if i["stats"] == Stats.B:
                last = record.cycles["tap"][total - 1]
                assert last <= early, f"{text}: early {number} at {early}, last block at {last}"
            else:
                last = record.cycles["row_issued"][rows + i["rows"] * i["blocks"] - 1]
                assert early == last + self.tap_latency, (
                    f"{text}: early {number} at {early}, last row requested at {last}"
                )
                assert not expected or record.cycles["tap"][total - 1] == early, text
            rows += i["rows"] * i["blocks"] * -(-i["cols"] // self.config.columns)
        assert record.count("row_issued") == rows, f"{text}: rows issued"
        assert len(record.passed) == total, f"{text}: {len(record.passed)} taps, not {total}"
        assert all(
            early <= done
            for early, done in zip(record.cycles["early"], record.cycles["done"], strict=True)
        ), text

        latest: dict[int, int] = {}
        for cycle, passed in zip(record.cycles["tap"], record.passed, strict=True):
            before = latest.get(passed.entry, -(1 << 30))
            assert passed.first or cycle - before >= self.tap_period, (
                f"{text}: entry {passed.entry} passes the tap at {before} and {cycle}"
            )
            latest[passed.entry] = cycle

    def forget(self) -> None:
        """Begin a new record."""
        self.record = Record()
        self.instructions = []


def random_matmul(r: random.Random, c: Config, *, small: bool) -> Instruction:
    """A legal instruction; `small` ones come at the rate at which the engine has to wait."""
    rows = r.randint(1, min(4, c.rows_max)) if small else r.randint(1, c.rows_max)
    blocks = r.randint(1, 3 if small else 6)
    acc_tile = r.randrange(c.column_tiles)
    cols = r.randint(1, c.acc_width - acc_tile * c.columns)
    if small:
        cols = min(cols, r.randint(1, c.columns + 1))
    if r.random() < 0.2:
        rows, cols = c.rows_max, c.acc_width - acc_tile * c.columns

    def operand(name: str, inner: str, count: int) -> dict[str, int]:
        room = c.scratchpad_depth - 1
        stride = r.choice([0, 1, r.randint(0, room // count // 2)])
        along = r.choice([0, 1, r.randint(0, (room - stride * (count - 1)) // blocks)])
        base = r.randint(0, room - stride * (count - 1) - along * (blocks - 1))
        return {f"{name}_base": base, f"{name}_{inner}": stride, f"{name}_block": along}

    stats = r.choice(list(Stats))
    entries = cols if stats == Stats.B else rows
    return Instruction(
        Opcode.MATMUL,
        {
            "rows": rows,
            "blocks": blocks,
            "cols": cols,
            "bank": r.randrange(c.acc_banks),
            "acc_tile": acc_tile,
            "accumulate": r.randint(0, 1),
            **operand("a", "row", rows),
            **operand("b", "col", cols),
            "stats": stats,
            "stat_base": r.choice([0, r.randint(0, c.stat_depth - entries)]),
            "stat_owned": r.choice([0, 1, r.randint(1, 4)]),
            "stat_first": r.randint(0, 1),
            "stat_squares": r.randint(0, 1),
        },
        drain=r.random() < 0.2,
    )


@cocotb.test()
async def matches_golden(dut: Any) -> None:
    """Random instructions, back to back and spaced, with reads of B that wait for A."""
    r = rng("instructions")
    engine = Engine(dut)
    await engine.start()
    # stall of instructions, exponents, instructions, small ones
    rounds = [
        (0.0, (-20, 20), 32, False),
        (0.0, (-4, 4), 120, True),
        (0.9, (-300, 300), 16, True),
        (0.3, (-512, 511), 16, False),
        (0.3, (-512, 511), 30, True),
        (0.9, (200, 262), 16, False),
    ]
    overflows, conflicts = [], 0
    for number, (stall, exponents, count, small) in enumerate(rounds):
        text = f"round {number}"
        await engine.fill(exponents)
        engine.forget()
        engine.driver._stall = stall
        instructions = [random_matmul(r, engine.config, small=small) for _ in range(count)]
        overflow = engine.golden(instructions)
        overflows.append(overflow)
        engine.send(instructions)
        await engine.idle()
        engine.check_record(text, overflow=overflow)
        conflicts += engine.record.count("conflict")
        await engine.check_banks(text)
    assert set(overflows) == {0, 1}, "the rounds must overflow, and not"
    assert conflicts, "A and B must want the same bank at times"


@cocotb.test()
async def flags_one_by_one(dut: Any) -> None:
    """The overflow flag of single instructions, around the edge of the range."""
    r = rng("flags")
    engine = Engine(dut)
    await engine.start()
    await engine.fill((238, 262))
    await engine.clear()
    c = engine.config
    seen = []
    for number in range(64):
        body = {"rows": r.randint(1, 2), "blocks": r.randint(1, 2), "cols": r.randint(1, c.columns)}
        body |= {"bank": r.randrange(c.acc_banks), "accumulate": int(r.random() < 0.2)}
        for name in ("a_base", "b_base"):
            body[name] = r.randrange(c.scratchpad_depth // 2)
        body |= {"a_row": 1, "a_block": 3, "b_col": 1, "b_block": 7}
        i = Instruction(Opcode.MATMUL, body)
        overflow = engine.golden([i])
        seen.append(overflow)
        engine.send([i])
        await engine.idle()
        engine.check_record(f"instruction {number}", overflow=overflow)
        engine.forget()
    assert set(seen) == {0, 1}, "the instructions must overflow, and not"
    await engine.check_banks("at the end")


@cocotb.test()
async def statistics_go_on(dut: Any) -> None:
    """Instructions of one tile that go on with statistics at other places of their rows."""
    r = rng("statistics")
    engine = Engine(dut)
    await engine.start()
    await engine.fill((-10, 10))
    await engine.clear()
    instructions = []
    for number in range(200):
        stats = r.choice(list(Stats))
        rows = r.randint(1, 12 if stats == Stats.NONE else 3)
        body = {"rows": rows, "blocks": 1, "cols": r.randint(1, 3), "a_row": 1, "b_col": 1}
        body |= {"a_base": number, "b_base": 2 * number, "stats": stats}
        body |= {"stat_base": r.randint(0, 3), "stat_first": int(r.random() < 0.2)}
        instructions.append(Instruction(Opcode.MATMUL, body))
    overflow = engine.golden(instructions)
    engine.send(instructions)
    await engine.idle()
    engine.check_record("statistics", overflow=overflow)
    await engine.check_banks("statistics")


@cocotb.test()
async def drains_at_once(dut: Any) -> None:
    """`done` means that a drain read in the next cycle sees everything; the engine goes on."""
    r = rng("drain")
    engine = Engine(dut)
    c = engine.config
    await engine.start()
    await engine.fill((-10, 10))
    await engine.clear()
    for number in range(12):
        bank = number % c.acc_banks
        # One row, so that the last accumulators are among the first to be read.
        body = {"rows": 1, "blocks": 1 + number % 3, "cols": c.columns, "bank": bank}
        body |= {"a_base": r.randint(0, 100), "a_block": 1}
        body |= {"b_base": r.randint(0, 100), "b_block": 1, "b_col": 1}
        i = Instruction(Opcode.MATMUL, body)
        busy = Instruction(
            Opcode.MATMUL, body | {"bank": (bank + 1) % c.acc_banks, "cols": c.acc_width}
        )
        engine.send([i, busy])
        engine.golden([i])

        async def done(count: int) -> None:
            while engine.record.count("done") < count:
                await RisingEdge(dut.clk)

        await bounded(done(len(engine.instructions) - 1), cycles=20_000)
        port = ("exp_read", "vector_read")[number % 2]
        engine.compare(await engine.drain(port, bank, 1), bank, f"drain {number}")
        engine.golden([busy])
        await engine.idle()


@cocotb.test()
async def cycles(dut: Any) -> None:
    """Jobs whose cycles are given: exact spans, no idle slot."""
    engine = Engine(dut)
    await engine.start()
    await engine.fill((-10, 10))
    await engine.clear()
    for job in parameters()["jobs"]:
        engine.forget()
        instructions = [Instruction(Opcode.MATMUL, body) for body in job["instructions"]]
        overflow = engine.golden(instructions)
        engine.send(instructions)
        await engine.idle()
        engine.check_record(job["name"], overflow=overflow)
        await engine.check_banks(job["name"])
        record = engine.record
        dut._log.info(
            f"{job['name']}: {record.count('row_issued')} rows, span {record.span()}, "
            f"{record.idle()} idle slots"
        )
        assert record.span() == job["span"], f"{job['name']}: span {record.span()}"
        assert record.idle() == job["idle"], f"{job['name']}: {record.idle()} idle slots"
        assert record.count("conflict") == 0
        # From a row's request to the write of its last column, of which `done` is the sign.
        assert record.cycles["done"][-1] - record.cycles["row_issued"][-1] == job["latency"]
