# SPDX-License-Identifier: Apache-2.0
"""The vector engine against the golden machine, in `tb.vector_harness.VectorHarness`.

Random legal instructions run in batches; then the whole vector memory and
scratchpad, and the overflow flag, must be those of the machine.  An
instruction that depends on an earlier one that may still be under way drains.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise, zip_longest
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from numpy.typing import NDArray

from afternorm.config import Config
from afternorm.isa import BODIES, Function, Instruction, Opcode, Operand, Pair, Source
from golden.machine import Machine
from golden.mx import MANTISSA_MAX, ZERO_EXPONENT
from golden.number import EXPONENT_MAX, EXPONENT_MIN, Floats, Format
from hdl.interfaces import SCRATCHPAD_LATENCY, VECTOR_MEMORY_LATENCY
from tb.stream import STALLS, Driver, bounded, parameters, seed, start, ticks

FUNCTIONS = tuple(Function)
BOUNDED = FUNCTIONS[: Function.EXP]
"""Functions that never overflow."""
MARGIN = 200
"""Cycles within which an instruction without refusals passes the pipeline, and more."""


def words_of(instruction: Instruction) -> int:
    """Slots of a chunk: words of the vector memory, or of the scale memory."""
    by_scale = {Operand.ROW_SCALE, Operand.COLUMN_SCALE}
    a, b = Operand(instruction["a"]), Operand(instruction["b"])
    rotate = instruction["pair"] == Pair.ROTATE
    words = (
        int(instruction["source"] == Source.VECTOR)
        + int(a == Operand.VECTOR or rotate)
        + int(b == Operand.VECTOR or rotate)
    )
    return max(1, words, 2 * int({a, b} == by_scale))


def chunks_of(config: Config, instruction: Instruction) -> int:
    """Chunks of a row."""
    unit = config.block if instruction["to_blocks"] else config.lanes
    return -(-instruction["cols"] // unit) * unit // config.lanes


def slots_of(config: Config, instruction: Instruction) -> int:
    """Cycles in which an instruction issues."""
    halves = 2 if instruction["pair"] == Pair.GATE else 1
    chunks = instruction["rows"] * chunks_of(config, instruction)
    return chunks * words_of(instruction) * halves


Access = tuple[str, int]


def accesses(config: Config, i: Instruction) -> Iterator[tuple[list[Access], list[Access]]]:
    """What each chunk reads and writes, in order; a block is read for each of its chunks."""
    c = config
    per_block = c.block // c.lanes
    rotate = i["pair"] == Pair.ROTATE
    halves = (0, i["gate_offset"]) if i["pair"] == Pair.GATE else (0,)
    words = ["x"] if i["source"] == Source.VECTOR else []
    words += ["p"] if i["a"] == Operand.VECTOR or rotate else []
    words += ["q"] if i["b"] == Operand.VECTOR or rotate else []
    for row in range(i["rows"]):
        for chunk in range(chunks_of(c, i)):
            reads = [
                ("vector", i[f"{name}_base"] + row * i[f"{name}_row"] + chunk + first)
                for name in words
                for first in halves
            ]
            if i["source"] == Source.BLOCKS:
                reads += [
                    (
                        "block",
                        i["x_base"]
                        + row * i["x_row"]
                        + (chunk + first) // per_block * i["x_block"],
                    )
                    for first in halves
                ]
            writes = []
            if i["to_vector"]:
                writes.append(("vector", i["y_base"] + row * i["y_row"] + chunk))
            if i["to_blocks"] and chunk % per_block == per_block - 1:
                address = i["m_base"] + row * i["m_row"] + chunk // per_block * i["m_block"]
                writes.append(("block", address))
            yield reads, writes


class Generator:
    """Random legal instructions for one configuration."""

    def __init__(
        self, config: Config, rng: np.random.Generator, functions: tuple[Function, ...]
    ) -> None:
        self.config = config
        self.rng = rng
        self.functions = functions
        self.pending: set[Access] = set()
        """What was written since the last drain."""

    def below(self, limit: int, low: int = 0) -> int:
        return int(self.rng.integers(low, max(limit, low + 1)))

    def flip(self, probability: float = 0.5) -> int:
        return int(self.rng.random() < probability)

    def instruction(self) -> Instruction:
        """One that overwrites nothing that it has still to read."""
        while True:
            i = Instruction(Opcode.VECTOR, self.fields())
            written: set[Access] = set()
            good, dependent = True, False
            for reads, writes in accesses(self.config, i):
                good = good and written.isdisjoint(reads)
                dependent = dependent or not self.pending.isdisjoint(reads)
                written.update(writes)
            if good:
                break
        i.drain = bool(dependent or self.flip(0.1))
        self.pending = written | (set() if i.drain else self.pending)
        return i

    def fields(self) -> dict[str, int]:
        c = self.config
        chunk_limit = c.acc_width // c.lanes
        pair = Pair([0, 0, 1, 2][self.below(4)])
        cols = self.below(c.acc_width + 1, 1)
        if pair == Pair.GATE and self.flip(0.8):
            cols = self.below(c.acc_width // 2 + 1, 1)
        to_vector, to_blocks = [(1, 0), (0, 1), (1, 1), (1, 1), (0, 0)][self.below(5)]
        unit = c.block if to_blocks else c.lanes
        chunks = -(-cols // unit) * unit // c.lanes
        rows = self.below(5, 1) if self.flip(0.8) else self.below(c.rows_max + 1, 1)
        operands = [Operand.NONE, Operand.ROW_SCALE, Operand.COLUMN_SCALE, Operand.VECTOR]
        if pair == Pair.ROTATE:
            operands.pop()
        a, b = (operands[self.below(len(operands))] for _ in "ab")
        gate = self.below(chunk_limit - chunks + 1) if pair == Pair.GATE else 0
        source = Source(self.below(3))
        span = max(rows, (chunks + gate) * c.lanes)
        base = self.below(c.scale_depth - span + 1)
        if Operand.COLUMN_SCALE in (a, b):
            base = base // c.lanes * c.lanes
        fields: dict[str, int] = {
            "rows": rows,
            "cols": cols,
            "source": source,
            "tree": self.flip(0.25),
            "a": a,
            "b": b,
            "scale_base": base,
            "function": self.functions[self.below(len(self.functions)) if self.flip(0.7) else 0],
            "pair": pair,
            "gate_offset": gate if pair == Pair.GATE else self.below(256),
            "to_vector": to_vector,
            "to_blocks": to_blocks,
        }
        if source == Source.ACC:
            fields["bank"] = self.below(c.acc_banks)
            free = c.acc_width - (chunks + gate) * c.lanes
            fields["acc_tile"] = self.below(free // c.columns + 1)
        blocks = -(-(chunks + gate) * c.lanes // c.block)
        if source == Source.BLOCKS:
            fields |= self.place(c.scratchpad_depth, "x", rows, blocks, "x_block")
        else:
            fields |= self.place(c.vector_depth, "x", rows, chunks + gate)
        for name in "pqy":
            fields |= self.place(c.vector_depth, name, rows, chunks + gate)
        fields |= self.place(c.scratchpad_depth, "m", rows, blocks, "m_block")
        if self.flip(0.3):  # in place
            if source == Source.BLOCKS:
                fields |= {f"m_{part}": fields[f"x_{part}"] for part in ("base", "row", "block")}
            else:
                name = "xpq"[self.below(3)]
                fields |= {f"y_{part}": fields[f"{name}_{part}"] for part in ("base", "row")}
        widths = dict(BODIES[Opcode.VECTOR])
        for name in widths:  # what does not matter is random
            fields.setdefault(name, self.below(1 << min(widths[name], 8)))
        return fields

    def place(
        self, depth: int, name: str, rows: int, columns: int, inner: str = ""
    ) -> dict[str, int]:
        """Base and strides within a memory; 0 strides and wide ones among them."""
        most = (depth - 1 - 2 * columns) // max(1, rows - 1)
        row = [0, columns, columns + 1, most][self.below(4)]
        row = max(0, min(row, most))
        step = self.below(3) if inner else 1
        top = (rows - 1) * row + (columns - 1) * step
        result = {f"{name}_base": self.below(depth - top), f"{name}_row": row}
        return result | ({inner: step} if inner else {})


def random_floats(
    rng: np.random.Generator, fmt: Format, shape: tuple[int, ...], extreme: float
) -> Floats:
    """Numbers of a few units, corner values, and a share of any size."""
    exponent = rng.integers(-4, 4, shape)
    whole = rng.integers(EXPONENT_MIN, EXPONENT_MAX + 1, shape)
    exponent = np.where(rng.random(shape) < extreme, whole, exponent)
    numbers = np.ldexp(rng.uniform(1.0, 2.0, shape) * rng.choice([-1.0, 1.0], shape), exponent)
    corners = rng.choice([0.0, 1.0, -1.0, 0.5], shape)
    numbers = np.where(rng.random(shape) < 0.05, corners, numbers)
    limits = rng.choice([fmt.max, -fmt.max, 2.0**EXPONENT_MIN, -(2.0**EXPONENT_MIN)], shape)
    return fmt.round(np.where(rng.random(shape) < extreme / 4, limits, numbers))


def randomize(machine: Machine, rng: np.random.Generator, extreme: float) -> None:
    """Fill all memories of a machine of one tile."""
    fmt = machine.fmt
    for memory in (machine.vector, machine.scales, machine.acc):
        memory[:] = random_floats(rng, fmt, memory.shape, extreme)
    shape = machine.mantissas.shape
    mantissas = rng.integers(-MANTISSA_MAX, MANTISSA_MAX + 1, shape)
    corner = rng.choice([-128, 127, -127, 0, 1], shape)
    mantissas = np.where(rng.random(shape) < 0.1, corner, mantissas)
    exponents = rng.integers(-5, 3, shape[:2])
    whole = rng.choice([EXPONENT_MIN, EXPONENT_MIN + 3, EXPONENT_MAX, 200, -200], shape[:2])
    exponents = np.where(rng.random(shape[:2]) < extreme, whole, exponents)
    zero = rng.random(shape[:2]) < 0.05
    machine.mantissas[:] = np.where(zero[..., None], 0, mantissas)
    machine.exponents[:] = np.where(zero, ZERO_EXPONENT, exponents)


def joined(values: Any, width: int) -> int:
    """Integers side by side, the first one lowest."""
    word = 0
    for n, value in enumerate(np.asarray(values).tolist()):
        word |= (int(value) & ((1 << width) - 1)) << (n * width)
    return word


class Bench:
    """Clock, memories and monitors of one harness."""

    def __init__(self, dut: Any, config: Config) -> None:
        self.dut = dut
        self.config = config
        self.fmt = Format(config.fraction_bits)
        self.driver = Driver(dut, "i")
        self.cycle = 0
        self.accepted: list[int] = []
        self.done: list[int] = []
        self.conflicts = 0
        self.host_waits = 0
        self.overflow = False
        for name in ("vector_write", "vector_read", "scale_write", "acc_write"):
            getattr(dut, f"{name}__valid").value = 0
        dut.block_write__valid.value = 0
        dut.block_read__valid.value = 0
        self.refuse(0.0, 0.0)

    def refuse(self, reads: float, writes: float) -> None:
        """How often the scratchpad refuses."""
        self.dut.refuse_reads.value = int(256 * reads)
        self.dut.refuse_writes.value = int(256 * writes)

    async def start(self) -> None:
        await start(self.dut)
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            self.cycle += 1
            if int(self.dut.accepted.value):
                self.accepted.append(self.cycle)
            if int(self.dut.done.value):
                self.done.append(self.cycle)
            assert self.dut.early.value == self.dut.done.value
            self.host_waits += int(self.dut.vector_read__valid.value) & ~int(
                self.dut.vector_read__ready.value
            )
            self.conflicts += int(self.dut.conflict.value)
            self.overflow = self.overflow or bool(int(self.dut.overflow.value))

    async def load(self, machine: Machine) -> None:
        """Write all memories."""
        c, width = self.config, self.fmt.width
        encode = self.fmt.encode
        vector = [joined(word, width) for word in encode(machine.vector[0])]
        scales = encode(machine.scales[0]).reshape(-1, c.lanes, 2)
        scale = [joined(np.concatenate([word[:, 0], word[:, 1]]), width) for word in scales]
        acc = {}
        row_bits = (c.rows_max - 1).bit_length()
        tile_bits = (c.column_tiles - 1).bit_length()
        tiles = encode(machine.acc[0]).reshape(c.acc_banks, c.rows_max, -1, c.columns)
        for bank, row, tile in np.ndindex(tiles.shape[:3]):
            address = (bank << row_bits | row) << tile_bits | tile
            acc[address] = joined(tiles[bank, row, tile], width)
        blocks = [
            joined(mantissas, 8) | (int(exponent) & 0x3FF) << (8 * c.block)
            for mantissas, exponent in zip(machine.mantissas[0], machine.exponents[0], strict=True)
        ]
        await self._write("vector_write", dict(enumerate(vector)))
        await self._write("scale_write", dict(enumerate(scale)))
        await self._write("acc_write", acc)
        await self._write("block_write", dict(enumerate(blocks)))

    async def _write(self, port: str, words: dict[int, int]) -> None:
        valid, address, payload = (
            getattr(self.dut, f"{port}__{part}") for part in ("valid", "address", "data")
        )
        ready = getattr(self.dut, f"{port}__ready")
        valid.value = 1
        for place, word in words.items():
            address.value = place
            payload.value = word
            await RisingEdge(self.dut.clk)
            assert int(ready.value), f"{port} is not ready while the engine is idle"
        valid.value = 0

    async def _read(self, port: str, count: int, latency: int) -> list[int]:
        valid, address, data, ready = (
            getattr(self.dut, f"{port}__{part}") for part in ("valid", "address", "data", "ready")
        )
        words: list[int] = []
        valid.value = 1
        for cycle in range(count + latency):  # one more drives the address
            address.value = min(cycle, count - 1)
            await RisingEdge(self.dut.clk)
            assert int(ready.value), f"{port} is not ready while the engine is idle"
            words.append(int(data.value))
        valid.value = 0
        return words[latency:]

    async def run(self, program: list[Instruction], bound: int, pauses: Iterable[int] = ()) -> None:
        """Send the instructions, with pauses, and wait until all are done and nothing moves."""
        before, sent = len(self.done), len(self.accepted)
        layout = BODIES[Opcode.VECTOR]
        words: list[int] = []
        for i in program:
            word, shift = 0, 0
            for name, bits in layout:
                word |= i[name] << shift
                shift += bits
            words.append(word << 5 | int(i.drain) << 4 | int(Opcode.VECTOR))

        async def all_done() -> None:
            for word, pause in zip_longest(words, pauses, fillvalue=0):
                if pause:
                    await ticks(self.dut, pause)
                self.driver.send([word])
            while len(self.done) < before + len(program):
                await RisingEdge(self.dut.clk)

        await bounded(all_done(), cycles=bound)
        await ticks(self.dut, 2)
        for _ in range(60):
            assert not int(self.dut.busy.value), "busy after the last instruction"
            assert not int(self.dut.touches.value), "a memory is touched after the last is done"
            await ticks(self.dut, 1)
        assert len(self.done) == before + len(program), "more instructions done than sent"
        assert len(self.accepted) == sent + len(program)

    async def compare(self, machine: Machine, corrupt: str | None = None) -> None:
        """The memories must be the machine's."""
        c, width = self.config, self.fmt.width
        mask = (1 << width) - 1
        words = await self._read("vector_read", c.vector_depth, VECTOR_MEMORY_LATENCY)
        got = np.array([[word >> n * width & mask for n in range(c.lanes)] for word in words])
        if corrupt == "vector":
            got[3, 1] ^= 1
        _equal("vector memory", got, self.fmt.encode(machine.vector[0]).astype(got.dtype))
        words = await self._read("block_read", c.scratchpad_depth, SCRATCHPAD_LATENCY)
        got = np.array(
            [
                [word >> 8 * n & (0xFF if n < c.block else 0x3FF) for n in range(c.block + 1)]
                for word in words
            ]
        )
        if corrupt == "blocks":
            got[5, 2] ^= 1
        want = np.concatenate(
            [
                machine.mantissas[0].astype(np.int64) & 0xFF,
                machine.exponents[0].astype(np.int64)[:, None] & 0x3FF,
            ],
            axis=1,
        )
        _equal("scratchpad", got, want)


def _equal(name: str, got: NDArray[Any], want: NDArray[Any]) -> None:
    wrong = np.argwhere(got != want)
    if len(wrong):
        word, lane = wrong[0]
        raise AssertionError(
            f"{name}: {len(wrong)} wrong, first word {word} place {lane}: "
            f"{int(got[word, lane]):#x}, not {int(want[word, lane]):#x}"
        )


def setup(dut: Any) -> tuple[Config, dict[str, Any], np.random.Generator]:
    settings = parameters()
    return Config(**settings["config"]), settings, np.random.default_rng(seed())


@cocotb.test()
async def matches_machine(dut: Any) -> None:
    """Batches of random instructions, for all probabilities of refusal."""
    config, settings, rng = setup(dut)
    bench = Bench(dut, config)
    await bench.start()
    used: set[str] = set()
    overflows = 0
    for batch in range(settings["batches"]):
        refusal = STALLS[batch % len(STALLS)]
        bench.refuse(refusal, refusal)
        machine = Machine(config)
        randomize(machine, rng, 0.02 if batch % 2 else 0.0)
        await bench.load(machine)
        generator = Generator(config, rng, FUNCTIONS if batch % 2 else BOUNDED)
        program = [generator.instruction() for _ in range(settings["instructions"])]
        bench.conflicts, bench.overflow = 0, False
        slots = sum(slots_of(config, i) for i in program)
        bound = int((slots + MARGIN * len(program)) / (1 - refusal) * 2)
        pauses = rng.integers(1, 80, len(program)) * (rng.random(len(program)) < refusal)
        # The host reads on and on: it has only what the engine leaves.
        dut.vector_read__valid.value = batch % 2
        bench.host_waits = 0
        await bench.run(program, bound + int(pauses.sum()), pauses.tolist())
        dut.vector_read__valid.value = 0
        assert bool(bench.host_waits) == bool(batch % 2)
        machine.run([*program, Instruction(Opcode.END)])
        await bench.compare(machine, settings.get("corrupt"))
        assert bench.overflow == bool(machine.flags), f"batch {batch}: overflow flag"
        assert refusal or not bench.conflicts, "conflicts without a refusal"
        overflows += bench.overflow
        for i in program:
            used |= {Source(i["source"]).name, Pair(i["pair"]).name, Function(i["function"]).name}
            used |= {f"drain {i.drain}", f"tree {i['tree']}", f"words {words_of(i)}"}
        assert not refusal or bench.conflicts, "refusals without a conflict"
    if settings["batches"] >= 6:
        wanted = {each.name for kind in (Source, Pair, Function) for each in kind}
        wanted |= {"drain True", "drain False", "tree 0", "tree 1"}
        wanted |= {"words 1", "words 2", "words 3"}
        assert wanted <= used, f"never used: {wanted - used}"
        assert 0 < overflows < settings["batches"], "the overflow flag never changed"


@cocotb.test()
async def flags_as_machine(dut: Any) -> None:
    """The overflow flag, instruction by instruction."""
    config, settings, rng = setup(dut)
    bench = Bench(dut, config)
    await bench.start()
    machine = Machine(config)
    generator = Generator(config, rng, FUNCTIONS)
    flags = []
    for number in range(settings["flags"]):
        if number % 20 == 0:
            randomize(machine, rng, 0.03)
            await bench.load(machine)
        i = generator.instruction()
        machine.flags, bench.overflow = 0, False
        machine.run([i, Instruction(Opcode.END)])
        await bench.run([i], 2 * slots_of(config, i) + MARGIN)
        assert bench.overflow == bool(machine.flags), f"instruction {number}: {i}"
        flags.append(bench.overflow)
    assert 0.02 < np.mean(flags) < 0.9, f"{np.mean(flags)} of the instructions overflow"
    await bench.compare(machine)


@cocotb.test()
async def takes_its_cycles(dut: Any) -> None:
    """Without refusals a pass takes its slots and a constant; only one slot leaves a bubble."""
    config, settings, rng = setup(dut)
    bench = Bench(dut, config)
    await bench.start()
    machine = Machine(config)
    randomize(machine, rng, 0.0)
    await bench.load(machine)
    generator = Generator(config, rng, FUNCTIONS)
    for to_blocks in (0, 1):
        program = []
        while len(program) < 25:
            fields = generator.fields() | {"to_blocks": to_blocks, "to_vector": 1 - to_blocks}
            serial = fields["source"] == Source.BLOCKS and fields["pair"] == Pair.GATE
            i = Instruction(Opcode.VECTOR, fields)
            unit = config.block if to_blocks else config.lanes
            width = -(-i["cols"] // unit) * unit
            if i["pair"] == Pair.GATE:
                width += i["gate_offset"] * config.lanes
            first = i["acc_tile"] * config.columns
            if not serial and (i["source"] != Source.ACC or first + width <= config.acc_width):
                program.append(i)
        start_accepted, start_done = len(bench.accepted), len(bench.done)
        await bench.run(program, 100_000)
        accepted, done = bench.accepted[start_accepted:], bench.done[start_done:]
        slots = [slots_of(config, i) for i in program]
        constant = settings["blocks_latency"] if to_blocks else settings["vector_latency"]
        assert done[0] - accepted[0] == slots[0] + constant, (
            f"{done[0] - accepted[0]} cycles for {slots[0]} slots, not {constant} more"
        )
        taken = [later - earlier for earlier, later in pairwise(done)]
        expected = [own + (before == 1) for before, own in pairwise(slots)]
        assert taken == expected, f"cycles of the passes {taken}, not {expected}"
