# SPDX-License-Identifier: Apache-2.0
"""The reduce engine's units and the whole engine against `golden.units` and `golden.machine`.

A test a unit: `tap`, `tree`, `scale`, `memory`, and `engine` for all of them together.
Results are compared bit by bit in the very cycle in which they are promised.
"""

from collections import Counter
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from afternorm.config import Config
from afternorm.isa import HEADER, Instruction, Opcode, Scale
from golden import units
from golden.machine import Machine
from golden.mx import ZERO_EXPONENT, Blocks
from golden.number import Floats, Format
from hdl.interfaces import SCALE_LATENCY, SCRATCHPAD_LATENCY
from tb.stream import Driver, bounded, finish, parameters, rng, seed, start, ticks


def config() -> Config:
    return Config(**parameters()["config"])


def random_blocks(random: np.random.Generator, shape: tuple[int, ...], block: int) -> Blocks:
    """Blocks of all sorts: random, corner mantissas, zero, one element, cancelling, constant."""
    mantissas = random.integers(-128, 128, (*shape, block))
    corners = random.choice([-128, -127, 127, -1, 0, 1], (*shape, block))
    one = np.where(np.arange(block) == random.integers(0, block, (*shape, 1)), mantissas, 0)
    cancelling = np.where(np.arange(block) % 2, np.roll(-mantissas, 1, axis=-1), mantissas)
    constant = np.broadcast_to(random.choice([-128, 127, 64], (*shape, 1)), mantissas.shape)
    zero = np.zeros_like(mantissas)
    kind = random.integers(0, 8, (*shape, 1))
    mantissas = np.choose(
        kind,
        [mantissas, mantissas, mantissas, corners, one, cancelling, constant, zero],
    ).clip(-128, 127)
    wide = random.integers(-512, 512, shape)
    edge = random.choice([-512, -511, -256, 250, 252, 255, 258, 500, 505, 511], shape)
    near = random.integers(-4, 5, shape)
    exponents = np.choose(random.integers(0, 8, shape), [wide, edge] + 6 * [near])
    exponents = np.where(kind[..., 0] == 7, ZERO_EXPONENT, exponents)
    return Blocks(mantissas.astype(np.int8), exponents.astype(np.int16))


def block_bits(blocks: Blocks, index: Any) -> int:
    mantissas = blocks.mantissas[index].astype(np.uint8).tobytes()
    return int.from_bytes(mantissas, "little") | (int(blocks.exponents[index]) & 1023) << (
        8 * len(mantissas)
    )


def pack(fmt: Format, values: Any) -> int:
    """Floats side by side, the first one lowest."""
    word = 0
    for n, bits in enumerate(fmt.encode(np.ravel(values))):
        word |= int(bits) << (n * fmt.width)
    return word


def random_floats(random: np.random.Generator, fmt: Format, shape: Any) -> Floats:
    """Floats of all sorts: near each other, equal and opposite, zero, of any exponent, largest."""
    exponents = np.choose(
        random.integers(0, 8, shape),
        [random.integers(-511, 512, shape), *(7 * [random.integers(-3, 4, shape)])],
    )
    x = fmt.round(np.ldexp(random.uniform(1, 2, shape), exponents))
    x = np.where(random.random(shape) < 0.5, -x, x)
    x = np.where(random.random(shape) < 0.1, 0.0, x)
    x = np.where(random.random(shape) < 0.15, random.choice([1.0, -1.0, 1.5, -1.5], shape), x)
    largest = random.choice([fmt.max, -fmt.max, 2.0**-511, -(2.0**-511)], shape)
    return np.where(random.random(shape) < 0.25, largest, x)


@cocotb.test()
async def tap(dut: Any) -> None:
    """Every block's effect is read back exactly `latency` cycles later, its flag with it."""
    p, c, random = parameters(), config(), np.random.default_rng(seed())
    fmt = Format(c.fraction_bits)
    count = 1500
    blocks = random_blocks(random, (count,), c.block)
    stats = np.zeros((c.stat_depth, 2))
    ready_at = np.zeros(c.stat_depth, dtype=np.int64)
    started = np.zeros(c.stat_depth, dtype=bool)
    reads: dict[int, tuple[int, int]] = {}  # cycle: entry, expected
    expected: dict[int, int] = {}  # cycle: bits at the read port
    flags: dict[int, bool] = {}
    for name in ("i__valid", "read__valid"):
        getattr(dut, name).value = 0
    await start(dut)

    n = cycle = checked = overflows = 0
    while n < count or expected or reads or flags:
        sending = n < count and random.random() >= p["stall"]
        entries = np.flatnonzero(ready_at <= cycle)
        sending = sending and len(entries) > 0
        dut.i__valid.value = int(sending)
        if sending:
            # Mostly the entry that was free for the shortest time, to meet the smallest period.
            if random.random() < 0.7:
                entry = int(max(entries, key=lambda e: ready_at[e]))
            else:
                entry = int(random.choice(entries))
            owned, squares = random.random() < 0.8, random.random() < 0.8
            first = bool(not started[entry] or random.random() < 0.3)
            value, overflow = units.statistics(
                fmt, Blocks(blocks.mantissas[n : n + 1], blocks.exponents[n : n + 1]), squares
            )
            value, overflow = value[0] * owned, overflow[0] & owned
            if not first:
                value, more = fmt.round_flag(stats[entry] + value)
                overflow = overflow | more
            stats[entry], started[entry] = value, True
            ready_at[entry] = cycle + p["period"]
            dut.i__block.value = block_bits(blocks, n)
            dut.i__entry.value = entry
            dut.i__first.value = int(first)
            dut.i__owned.value = int(owned)
            dut.i__squares.value = int(squares)
            reads[cycle + p["latency"]] = entry, pack(fmt, value)
            flags[cycle + p["latency"]] = bool(overflow.any())
            n += 1
        else:
            dut.i__first.value, dut.i__owned.value = 1, 1  # must not matter
        dut.read__valid.value = int(cycle in reads)
        if cycle in reads:
            entry, bits = reads.pop(cycle)
            dut.read__address.value = entry
            expected[cycle + p["read"]] = bits
        await RisingEdge(dut.clk)
        assert int(dut.overflow.value) == flags.pop(cycle, False), f"overflow of cycle {cycle}"
        overflows += int(dut.overflow.value)
        if cycle in expected:
            assert int(dut.read__data.value) == expected.pop(cycle), f"entry of cycle {cycle}"
            checked += 1
        cycle += 1
        assert cycle < 20 * count + 100
    assert checked == count
    assert overflows > 10


@cocotb.test()
async def tree(dut: Any) -> None:
    """Sums of every tree, their flags and their time."""
    p, c, random = parameters(), config(), np.random.default_rng(seed())
    fmt = Format(c.fraction_bits)
    tiles = max(t["tiles"] for t in p["trees"])
    x = random_floats(random, fmt, (tiles, 1200, c.lanes))
    valid = random.random(1200) < 0.7
    sums = [units.tree_sum(fmt, x[: t["tiles"]]) for t in p["trees"]]
    dut.valid.value = 0
    await start(dut)
    flagged: Counter[int] = Counter()
    for cycle in range(1200 + max(t["latency"] for t in p["trees"])):
        dut.valid.value = int(cycle < 1200 and valid[cycle])
        if cycle < 1200:
            dut.i.value = pack(fmt, x[:, cycle])
        await RisingEdge(dut.clk)
        assert int(dut.agree.value) == 1
        results = int(dut.o.value)
        for t, (total, overflow) in zip(p["trees"], sums, strict=True):
            bits = results & ((1 << (c.lanes * fmt.width)) - 1)
            flags = results >> (c.lanes * fmt.width) & ((1 << c.lanes) - 1)
            out_valid = results >> (c.lanes * (fmt.width + 1)) & 1
            results >>= c.lanes * (fmt.width + 1) + 1
            n = cycle - t["latency"]
            inside = 0 <= n < 1200 and bool(valid[n])
            assert out_valid == inside, f"valid of {t} in cycle {cycle}"
            expected = sum(int(f) << lane for lane, f in enumerate(overflow[n])) if inside else 0
            assert flags == expected, f"overflow of {t} in cycle {cycle}"
            if inside:
                assert bits == pack(fmt, total[n]), f"sum {n} of {t}"
                flagged[t["tiles"]] += flags != 0
    assert all(flagged[t["tiles"]] > 5 for t in p["trees"] if t["tiles"] > 1), flagged


def random_sums(random: np.random.Generator, fmt: Format, count: int, inv_d: float) -> Floats:
    """Sums of rows: usual ones, constant rows, extremes, a zero row at the end; s2 >= 0."""
    x = random_floats(random, fmt, (count, 2))
    s1, s2 = x[:, 0], np.abs(x[:, 1])
    nearly = 1 + random.integers(-2, 3, count) * 2.0**-fmt.fraction_bits
    constant = fmt.round(s1 * s1 * inv_d * nearly)
    usual = fmt.round(s1 * s1 * inv_d * random.uniform(1, 9, count))
    kind = random.integers(0, 4, count)
    s2 = np.choose(kind, [s2, constant, usual, usual])
    zero = (random.random(count) < 0.05) | (np.arange(count) == count - 1)
    return np.stack([np.where(zero, 0.0, s1), np.where(zero, 0.0, s2)], axis=-1)


def random_constants(random: np.random.Generator, fmt: Format) -> tuple[float, float]:
    """inv_d, one in four so large that products overflow, and eps, zero or not."""
    inv_d = 1 / random.integers(1, 5000) if random.random() < 0.75 else 2.0**400
    eps = random.choice([0.0, 0.0, 1e-5, 1e-12, 2.0**-511, fmt.max])
    return float(fmt.round(inv_d)), float(fmt.round(eps))


@cocotb.test()
async def scale(dut: Any) -> None:
    """Scales of every mode and format in the promised cycle; the flags of each batch of rows."""
    p = parameters()
    for f in p["formats"]:
        for name in ("valid", "s1", "s2", "mode"):
            getattr(dut, f"f{f}__{name}").value = 0
    await start(dut)
    for f, latencies in p["formats"].items():
        fmt = Format(int(f))
        random = np.random.default_rng([seed(), int(f)])
        port = {
            name: getattr(dut, f"f{f}__{name}")
            for name in (
                *("mode", "inv_d", "eps", "valid", "s1", "s2"),
                *("o_valid", "scale0", "scale1", "overflow", "zero"),
            )
        }
        flagged: Counter[tuple[str, str]] = Counter()
        for batch in range(32):
            mode = Scale(batch % 4)
            rows = (1, 20, 40, 20)[batch // 4 % 4]
            inv_d, eps = random_constants(random, fmt)
            if batch // 4 == 1:  # each norm's flags at least once
                eps = 0.0
            elif batch // 4 == 2:
                inv_d = 2.0**400
            sums = random_sums(random, fmt, rows, inv_d)
            result = units.row_scales(fmt, mode, sums[:, 0], sums[:, 1], inv_d, eps)
            port["mode"].value = int(mode)
            port["inv_d"].value = pack(fmt, inv_d)
            port["eps"].value = pack(fmt, eps)
            await RisingEdge(dut.clk)
            latency = latencies[mode.name]
            sums_bits = [tuple(int(bits) for bits in row) for row in fmt.encode(sums)]
            due: dict[int, int] = {}
            row = cycle = overflow = zeros = 0
            while row < rows or due:
                sending = row < rows and random.random() >= p["stall"]
                port["valid"].value = int(sending)
                if sending:  # else the former sums stay
                    port["s1"].value, port["s2"].value = sums_bits[row]
                    due[cycle + latency] = row
                    row += 1
                await RisingEdge(dut.clk)
                overflow |= int(port["overflow"].value)
                zeros += int(port["zero"].value)
                assert int(port["o_valid"].value) == (cycle in due), (mode, cycle)
                if cycle in due:
                    n = due.pop(cycle)
                    where = f"{mode.name}, F={f}: row {n}, s1={sums[n, 0]}, s2={sums[n, 1]}"
                    assert int(port["scale0"].value) == pack(fmt, result.scale0[n]), where
                    assert int(port["scale1"].value) == pack(fmt, result.scale1[n]), where
                    expected = result.overflow[: n + 1].any()
                    assert overflow or not expected, f"no overflow until {where}"
                cycle += 1
                assert cycle < 1000 + 100 * rows
            assert overflow == result.overflow.any(), f"{mode.name}, F={f}: overflow"
            assert zeros == result.zero.sum(), f"{mode.name}, F={f}: zero"
            flagged["overflow", mode.name] += overflow
            flagged["zero", mode.name] += zeros
            port["valid"].value = 0
        seen = {name for name, count in flagged.items() if count}
        assert seen >= {
            *(("overflow", "RMS"), ("overflow", "LAYER")),
            *(("zero", "SOFTMAX"), ("zero", "RMS"), ("zero", "LAYER")),
        }, seen


@cocotb.test()
async def memory(dut: Any) -> None:
    """Random traffic on all ports against an array; a read sees the writes of earlier cycles."""
    p, c, random = parameters(), config(), np.random.default_rng(seed())
    width = c.float_width
    words = c.scale_depth // c.lanes
    lane = (1 << width) - 1
    memories = [[[0] * c.lanes for _ in range(words)] for _ in range(2)]

    def word(which: int, n: int) -> int:
        return sum(bits << (k * width) for k, bits in enumerate(memories[which][n]))

    def bits() -> int:
        return int.from_bytes(random.bytes(8), "little") & lane

    for name in ("write", "read", "host_read", "host_write"):
        getattr(dut, f"{name}__valid").value = 0
    await start(dut)
    expected: dict[int, tuple[str, int, int]] = {}
    host_read: int | None = None
    host_write: tuple[int, list[list[int]]] | None = None
    counts: Counter[str] = Counter()
    for cycle in range(2500):
        reading, writing = (random.random(2) >= p["stall"]).tolist()
        entry, read_word = int(random.integers(c.scale_depth)), int(random.integers(words))
        scales = bits(), bits()
        if host_read is None and random.random() < 0.5:
            host_read = int(random.integers(words))
        if host_write is None and random.random() < 0.5:
            new = [[bits() for _ in range(c.lanes)] for _ in range(2)]
            host_write = int(random.integers(words)), new
        dut.write__valid.value, dut.read__valid.value = int(writing), int(reading)
        dut.write__entry.value, dut.read__word.value = entry, read_word
        dut.write__scale0.value, dut.write__scale1.value = scales
        dut.host_read__valid.value = int(host_read is not None)
        dut.host_read__address.value = host_read or 0
        dut.host_write__valid.value = int(host_write is not None)
        if host_write is not None:
            dut.host_write__address.value = host_write[0]
            dut.host_write__data.value = sum(
                value << (k * width) for k, value in enumerate(host_write[1][0] + host_write[1][1])
            )
        await RisingEdge(dut.clk)
        assert int(dut.host_read__ready.value) == (not reading)
        assert int(dut.host_write__ready.value) == (not writing)
        if cycle in expected:
            port, *both = expected.pop(cycle)
            if port == "read":
                assert [int(dut.read__scale0.value), int(dut.read__scale1.value)] == both
            else:
                assert int(dut.host_read__data.value) == both[0] | both[1] << (c.lanes * width)
            counts[port] += 1
        if reading:
            expected[cycle + SCALE_LATENCY] = "read", word(0, read_word), word(1, read_word)
        elif host_read is not None:
            expected[cycle + SCALE_LATENCY] = "host", word(0, host_read), word(1, host_read)
            host_read = None
        if writing:
            for which in range(2):
                memories[which][entry // c.lanes][entry % c.lanes] = scales[which]
        elif host_write is not None:
            for which in range(2):
                memories[which][host_write[0]] = host_write[1][which]
            host_write = None
            counts["host_write"] += 1
    assert counts["host"] > 50 or p["stall"] == 0
    assert counts["read"] > 100


class Bench:
    """The cluster of `tests.hdl.test_reduce`, and the golden machine beside it."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.c = config()
        self.p = parameters()
        self.random = np.random.default_rng(seed())
        self.machine = Machine(self.c)
        self.fmt = self.machine.fmt
        self.driver = Driver(dut, "i", stall=self.p["stall"])
        self.cycle = 0
        self.accepted: list[int] = []  # cycle in which an instruction was accepted
        self.early: list[int] = []
        self.done: list[int] = []
        self.flags = 0
        self.conflicts = self.scans = self.written = 0
        self.reads: dict[int, tuple[int, Floats]] = {}  # cycle: entry and its value at each tile
        self.rows_after_early: list[tuple[int, Floats]] = []  # entry, values [tile, row, 2]
        self.due: dict[int, tuple[int, Floats]] = {}
        self.read_back = 0
        for name in ("scan_stall", "load_valid", "tap_valid"):
            getattr(dut, name).value = 0
        for tile in range(self.c.tiles):
            self.port("scales", tile, "valid").value = 0
            self.port("host", tile, "valid").value = 0

    def port(self, name: str, tile: int, member: str) -> Any:
        return getattr(self.dut, f"{name}__{tile}__{member}")

    async def watch(self) -> None:
        """Each cycle: what the engine says, and the reads that `early` allows."""
        dut = self.dut
        stalls = rng("scan")
        while True:
            reading = self.reads.pop(self.cycle, None)
            for tile in range(self.c.tiles):
                self.port("scales", tile, "valid").value = int(reading is not None)
                if reading is not None:
                    self.port("scales", tile, "word").value = reading[0] // self.c.lanes
            if reading is not None:
                self.due[self.cycle + SCALE_LATENCY] = reading
            dut.scan_stall.value = int(stalls.random() < self.p["stall"])
            await RisingEdge(dut.clk)
            assert int(dut.in_step.value) == 1, "the tiles differ"
            if int(dut.i__valid.value) and int(dut.i__ready.value):
                self.accepted.append(self.cycle)
            self.flags |= int(dut.flags.value)
            self.conflicts += int(dut.conflict.value)
            self.written += int(dut.written.value)
            if (due := self.due.pop(self.cycle, None)) is not None:
                self.check_read(*due)
            if int(dut.early.value):
                base, values = self.rows_after_early[len(self.early)]
                for row in range(values.shape[1]):
                    # Driven in the cycle after `early` for row 0
                    assert self.cycle + 1 + row not in self.reads
                    self.reads[self.cycle + 1 + row] = base + row, values[:, row]
                self.early.append(self.cycle)
            if int(dut.done.value):
                self.done.append(self.cycle)
                assert len(self.done) <= len(self.early), "done before early"
            self.cycle += 1

    def check_read(self, entry: int, values: Floats) -> None:
        lane = entry % self.c.lanes
        for tile in range(self.c.tiles):
            for which in range(2):
                word = int(self.port("scales", tile, f"scale{which}").value)
                bits = word >> (lane * self.fmt.width) & ((1 << self.fmt.width) - 1)
                assert bits == pack(self.fmt, values[tile, which]), f"scale{which} of {entry}"
        self.read_back += 1

    async def load(self, blocks: Blocks) -> None:
        """Fill the scratchpads, ``blocks[tile, address]``."""
        dut = self.dut
        self.machine.write_blocks(np.arange(self.c.scratchpad_depth), blocks)
        for tile in range(self.c.tiles):
            for address in range(self.c.scratchpad_depth):
                dut.load_valid.value = 1
                dut.load_tile.value = tile
                dut.load_address.value = address
                dut.load_data.value = block_bits(blocks, (tile, address))
                await RisingEdge(dut.clk)
        dut.load_valid.value = 0

    def golden(self, instruction: Instruction) -> None:
        self.machine.run([instruction, Instruction(Opcode.END)])

    async def run(self, instructions: list[Instruction]) -> None:
        """Execute instructions on both, and compare their flags."""
        before = len(self.done)
        rows = 0
        for instruction in instructions:
            self.golden(instruction)
            values = np.zeros((self.c.tiles, 0, 2))
            if instruction.opcode == Opcode.REDUCE:
                entries = instruction["scale_base"] + np.arange(instruction["rows"])
                values = self.machine.scales[:, entries].copy()
                rows += instruction["rows"]
            self.rows_after_early.append((instruction.body.get("scale_base", 0), values))
        written = self.written
        self.driver.send(payload(instruction) for instruction in instructions)

        async def all_done() -> None:
            while len(self.done) < before + len(instructions):
                await RisingEdge(self.dut.clk)

        await bounded(all_done(), cycles=2000 + 100 * len(instructions))
        assert int(self.dut.flags.value) == 0
        await ticks(self.dut, 20)
        assert len(self.done) == len(self.early) == before + len(instructions)
        assert self.written - written == rows
        assert int(self.dut.busy.value) == 0
        self.check_flags(instructions)

    def check_flags(self, what: Any) -> None:
        assert self.flags == self.machine.flags, f"flags {self.flags:b} of {what}"
        self.flags = self.machine.flags = 0

    async def stream(self, scan: Instruction) -> None:
        """What the matmul engine does for the tap, as densely as it may."""
        self.golden(scan)
        dut = self.dut
        stalls = rng("tap")
        last: dict[int, int] = {}
        for k in range(scan["blocks"]):
            for row in range(scan["rows"]):
                entry = scan["stat_base"] + row
                ready = last.get(entry, -1000) + self.p["period"]
                while self.cycle < ready or stalls.random() < self.p["stall"]:
                    dut.tap_valid.value = 0
                    await RisingEdge(dut.clk)
                last[entry] = self.cycle
                owner = k // scan["stat_owned"] if scan["stat_owned"] else None
                owners = (1 << self.c.tiles) - 1 if owner is None else 1 << owner
                dut.tap_valid.value = 1
                dut.tap_address.value = scan["a_base"] + k * scan["a_block"] + row * scan["a_row"]
                dut.tap_entry.value = entry
                dut.tap_first.value = int(k == 0 and scan["stat_first"])
                dut.tap_owned.value = owners & ((1 << self.c.tiles) - 1)
                dut.tap_squares.value = scan["stat_squares"]
                await RisingEdge(dut.clk)
        dut.tap_valid.value = 0
        # The block passes the tap a cycle later; a REDUCE is accepted and started after that.
        await ticks(dut, self.p["tap_latency"] - 1)

    async def check_scales(self) -> None:
        """The whole scale memories, by the host."""
        words = self.c.scale_depth // self.c.lanes
        for word in range(words + SCALE_LATENCY + 1):
            for tile in range(self.c.tiles):
                self.port("host", tile, "valid").value = int(word < words)
                self.port("host", tile, "address").value = word % words
            await RisingEdge(self.dut.clk)
            if (n := word - SCALE_LATENCY) in range(words):
                for tile in range(self.c.tiles):
                    assert self.port("host", tile, "ready").value == 1
                    entries = n * self.c.lanes + np.arange(self.c.lanes)
                    expected = pack(self.fmt, self.machine.scales[tile, entries].T)
                    assert int(self.port("host", tile, "data").value) == expected, (n, tile)


def payload(instruction: Instruction) -> int:
    body = instruction.pack() >> sum(width for _, width in HEADER)
    return int(instruction.opcode) | int(instruction.drain) << 4 | body << 5


def random_scan(bench: Bench, **fixed: int) -> Instruction:
    c, random = bench.c, bench.random
    body = {
        "rows": int(random.integers(1, c.rows_max + 1)),
        "blocks": int(random.integers(1, 5)),
        "stat_owned": int(random.integers(0, 3)),
        "stat_first": int(random.random() < 0.7),
        "stat_squares": int(random.random() < 0.8),
    } | fixed
    for _ in range(1000):
        body["a_row"] = int(random.integers(0, 9))
        body["a_block"] = int(random.integers(0, 17))
        reach = (body["rows"] - 1) * body["a_row"] + (body["blocks"] - 1) * body["a_block"]
        if reach < c.scratchpad_depth:
            break
    body["a_base"] = int(random.integers(0, c.scratchpad_depth - reach))
    body["stat_base"] = int(random.integers(0, c.stat_depth - body["rows"] + 1))
    return Instruction(Opcode.SCAN, body | fixed)


def random_reduces(bench: Bench) -> list[Instruction]:
    """Reductions to disjoint entries, most of them of one kind, so that they overlap."""
    c, random = bench.c, bench.random
    base = int(random.integers(0, 4))
    result = []
    kind: dict[str, int] = {}
    while True:
        rows = int(random.choice([1, 1, 2, random.integers(1, c.rows_max + 1)]))
        if base + rows > c.scale_depth or len(result) > 24:
            return result
        if not kind or random.random() < 0.25:
            inv_d, eps = random_constants(random, bench.fmt)
            kind = {
                "mode": int(random.integers(0, 4)),
                "tree": int(random.random() < 0.5),
                "inv_d": pack(bench.fmt, inv_d),
                "eps": pack(bench.fmt, eps),
            }
        where = {
            "rows": rows,
            "stat_base": int(random.integers(0, c.stat_depth - rows + 1)),
            "scale_base": base,
        }
        drain = bool(random.random() < 0.1)
        result.append(Instruction(Opcode.REDUCE, kind | where, drain=drain))
        base += rows


@cocotb.test()
async def engine(dut: Any) -> None:
    """Random programs, flags batch by batch, each row read as soon as `early` allows."""
    bench = Bench(dut)
    await start(dut)
    cocotb.start_soon(bench.watch())
    c, random = bench.c, bench.random
    await bench.load(random_blocks(random, (c.tiles, c.scratchpad_depth), c.block))
    for turn in range(8):
        if turn % 3 == 2:  # tame blocks, or everything saturates
            blocks = random_blocks(random, (c.tiles, c.scratchpad_depth), c.block)
            tame = random.integers(-2, 3, blocks.exponents.shape).astype(np.int16)
            await bench.load(Blocks(blocks.mantissas, tame))
        scan = random_scan(bench)
        if turn % 2:
            await bench.stream(scan)
        else:
            more = [scan] + [random_scan(bench) for _ in range(int(random.integers(0, 2)))]
            await bench.run(more)
        await bench.run(random_reduces(bench))
        await bench.run([random_scan(bench, stat_first=1, rows=3), *random_reduces(bench)[:3]])
        await bench.check_scales()
    assert bench.read_back == bench.written
    assert (bench.conflicts > 0) == (bench.p["stall"] > 0)

    # Timing, with the driver's pauses only before the first of each
    await bench.run([random_scan(bench, rows=c.rows_max, stat_first=1, blocks=1)])
    latencies = iter(bench.p["latencies"])
    for mode in Scale:
        for tree in (0, 1):
            body = {"mode": int(mode), "tree": tree, "rows": 3}
            bodies = [body | {"scale_base": 3 * n, "stat_base": n} for n in range(6)]
            first = len(bench.done)
            await bench.run([Instruction(Opcode.REDUCE, b) for b in bodies])
            assert bench.early[first] - bench.accepted[first] == next(latencies)
            assert bench.done[first] - bench.early[first] == 2
            if not bench.p["stall"]:
                spans = np.diff(bench.done[first:])
                assert (spans == 3).all(), f"gaps between reductions: {spans}"
    for rows in (1, bench.p["period"] - 1, bench.p["period"], c.rows_max):
        first = len(bench.done)
        await bench.run([random_scan(bench, rows=rows, blocks=3)])
        if not bench.p["stall"]:
            issued = 2 * max(rows, bench.p["period"]) + rows
            settled = bench.p["start"] + issued + SCRATCHPAD_LATENCY + bench.p["tap_latency"] - 1
            assert bench.done[first] - bench.accepted[first] == settled
    await finish(dut, drivers=[bench.driver], cycles=1)
    assert len(bench.accepted) == bench.driver.sent == len(bench.done)
