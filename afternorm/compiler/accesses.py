# SPDX-License-Identifier: Apache-2.0
"""What an instruction reads and writes, word by word.

The assembler orders instructions by these sets, so they must cover whatever the
hardware touches.  All tiles run the same instruction on memories of their own,
so one set of addresses stands for all of them; a GATHER writes every tile's
part into all of them.

DRAM is touched by LOAD and STORE alone, in ranges of bytes.

Besides memory words there are resources that two engines must not use at once:
an accumulator bank (it has a single read port), the reduction tree and the
statistics tap.  They count as words of `Memory.RESOURCE` that are written.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache

import numpy as np

from afternorm.addressing import Indices, grid
from afternorm.config import Config
from afternorm.isa import Instruction, Opcode, Operand, Pair, Source, Stats, Target
from afternorm.legality import Rules, rules
from afternorm.memory_map import EXPONENT_BYTES, float_word_bytes


class Memory(IntEnum):
    """Memories of a tile; their words are numbered as instructions address them."""

    SCRATCHPAD = 0
    VECTOR = 1
    SCALE = 2
    STAT = 3
    RESOURCE = 4
    """The accumulator banks, then the reduction tree, then the statistics tap."""


def words(config: Config, memory: Memory) -> int:
    """Words of a memory."""
    return {
        Memory.SCRATCHPAD: config.scratchpad_depth,
        Memory.VECTOR: config.vector_depth,
        Memory.SCALE: config.scale_depth,
        Memory.STAT: config.stat_depth,
        Memory.RESOURCE: config.acc_banks + 2,
    }[memory]


def tree(config: Config) -> int:
    """The reduction tree's number among the resources."""
    return config.acc_banks


def tap(config: Config) -> int:
    """The statistics tap's number among the resources."""
    return config.acc_banks + 1


@dataclass
class Accesses:
    """Words that one instruction reads and writes.

    Attributes
    ----------
    reads, writes : flat arrays of words by memory; `reads` may name a word repeatedly.
    dram : ranges of bytes in DRAM that it reads (LOAD) or writes (STORE): (first, end) each.
    row_scale_base : the first entry, where row scales are read in the order of the rows.
    """

    reads: dict[Memory, Indices] = field(default_factory=dict)
    writes: dict[Memory, Indices] = field(default_factory=dict)
    dram: list[tuple[int, int]] = field(default_factory=list)
    row_scale_base: int | None = None


@cache
def _rules(config: Config) -> dict[Opcode, Rules]:
    return rules(config)


class _Collector:
    """Collects the address streams of one instruction and checks them."""

    def __init__(self, config: Config, instruction: Instruction) -> None:
        self.config = config
        self.instruction = instruction
        self.reads: list[tuple[Memory, Indices]] = []
        self.writes: list[tuple[Memory, Indices]] = []

    def fail(self, message: str) -> ValueError:
        return ValueError(f"{self.instruction.opcode.name}: {message}")

    def legal(self) -> None:
        """Apply the rules that the hardware checks, so that what follows stays in bounds."""
        i = self.instruction
        if violation := _rules(self.config)[i.opcode].violation(i):
            raise self.fail(f"{violation[1]}: {i.body}")

    def read(self, memory: Memory, base: int, *dimensions: tuple[int, int]) -> None:
        self.reads.append((memory, grid(base, *dimensions)))

    def write(self, memory: Memory, base: int, *dimensions: tuple[int, int]) -> None:
        self.writes.append((memory, grid(base, *dimensions)))

    def resource(self, number: int) -> None:
        self.writes.append((Memory.RESOURCE, np.array([number])))

    def finish(self, row_scale_base: int | None = None) -> Accesses:
        """Merge the streams by memory; check that no write disturbs a read or another write."""
        result = Accesses(row_scale_base=row_scale_base)
        for memory in Memory:
            writes = [a for m, a in self.writes if m == memory]
            reads = [a for m, a in self.reads if m == memory]
            if writes:
                result.writes[memory] = self._check_writes(memory, writes, reads)
            if reads:
                result.reads[memory] = np.concatenate([a.ravel() for a in reads])
        return result

    def _check_writes(self, memory: Memory, writes: list[Indices], reads: list[Indices]) -> Indices:
        written = np.concatenate([a.ravel() for a in writes])
        if memory in (Memory.RESOURCE, Memory.STAT):
            return written  # statistics are read and written entry by entry
        unique = np.sort(written)
        if (unique[1:] == unique[:-1]).any():
            raise self.fail(f"writes a word of the {memory.name.lower()} twice")
        for read in reads:
            in_place = len(writes) == 1 and np.array_equal(read, writes[0])
            if not in_place and np.isin(read, unique).any():
                raise self.fail(
                    f"reads words of the {memory.name.lower()} that it writes, "
                    "and not element by element in place"
                )
        return written


def accesses(config: Config, instruction: Instruction) -> Accesses:
    """The words that `instruction` reads and writes on an accelerator of `config`.

    Raises
    ------
    ValueError
        If a count or an address is out of range, or the result would depend on the
        engine's timing: the instruction writes words that it reads (except element by
        element in place), or writes a word twice.
    """
    collector = _Collector(config, instruction)
    collector.legal()
    handlers = {
        Opcode.MATMUL: _matmul,
        Opcode.EXP: _exp,
        Opcode.VECTOR: _vector,
        Opcode.REDUCE: _reduce,
        Opcode.SCAN: _scan,
        Opcode.GATHER: _gather,
        Opcode.LOAD: _transfer,
        Opcode.STORE: _transfer,
    }
    if instruction.opcode in handlers:
        handlers[instruction.opcode](collector, config, instruction)
    by_row = instruction.opcode == Opcode.VECTOR and Operand.ROW_SCALE in (
        instruction["a"],
        instruction["b"],
    )
    result = collector.finish(instruction["scale_base"] if by_row else None)
    if instruction.opcode in (Opcode.LOAD, Opcode.STORE):
        result.dram = dram_ranges(config, instruction)
    return result


def dram_ranges(config: Config, i: Instruction) -> list[tuple[int, int]]:
    """Ranges of bytes, (first, end) each, that a LOAD or a STORE moves."""
    tiles = 1 if i["shared"] else config.tiles
    arrays = [("dram", float_word_bytes(config))]
    if i["target"] == Target.BLOCKS:
        arrays = [("dram", config.block), ("exponents", EXPONENT_BYTES)]
    return [
        (first, first + i["count"] * size)
        for name, size in arrays
        for first in (i[name] + tile * i[f"{name}_tile"] for tile in range(tiles))
    ]


def covered(ranges: Iterable[tuple[int, int]]) -> int:
    """Words, or bytes, that lie in at least one of the ranges (first, end)."""
    total = at = 0
    for first, end in sorted(ranges):
        total += max(0, end - max(first, at))
        at = max(at, end)
    return total


def _statistics(x: _Collector, c: Config, i: Instruction, rows: int) -> None:
    entries = (i["stat_base"], (rows, 1))
    x.write(Memory.STAT, *entries)
    if not i["stat_first"]:
        x.read(Memory.STAT, *entries)
    x.resource(tap(c))


def _matmul(x: _Collector, c: Config, i: Instruction) -> None:
    blocks = i["blocks"]
    x.read(Memory.SCRATCHPAD, i["a_base"], (blocks, i["a_block"]), (i["rows"], i["a_row"]))
    x.read(Memory.SCRATCHPAD, i["b_base"], (blocks, i["b_block"]), (i["cols"], i["b_col"]))
    x.resource(i["bank"])
    if i["stats"] != Stats.NONE:
        _statistics(x, c, i, i["rows"] if i["stats"] == Stats.A else i["cols"])


def _exp(x: _Collector, c: Config, i: Instruction) -> None:
    blocks = -(-i["cols"] // c.block)
    x.resource(i["bank"])
    x.write(Memory.SCRATCHPAD, i["p_base"], (i["rows"], i["p_row"]), (blocks, i["p_block"]))


def _vector(x: _Collector, c: Config, i: Instruction) -> None:
    rows = i["rows"]
    unit = c.block if i["to_blocks"] else c.lanes
    width = -(-i["cols"] // unit) * unit
    operands = (i["a"], i["b"])
    firsts = [0] + ([i["gate_offset"] * c.lanes] if i["pair"] == Pair.GATE else [])

    def vector_words(name: str, first: int) -> None:
        x.read(
            Memory.VECTOR,
            i[f"{name}_base"] + first // c.lanes,
            (rows, i[f"{name}_row"]),
            (width // c.lanes, 1),
        )

    for first in firsts:
        if i["source"] == Source.VECTOR:
            vector_words("x", first)
        elif i["source"] == Source.BLOCKS:
            covered = -(-(first + width) // c.block)
            x.read(Memory.SCRATCHPAD, i["x_base"], (rows, i["x_row"]), (covered, i["x_block"]))
        for operand, name in zip(operands, "pq", strict=True):
            if operand == Operand.VECTOR:
                vector_words(name, first)
        if Operand.COLUMN_SCALE in operands:
            x.read(Memory.SCALE, i["scale_base"] + first, (width, 1))
    if i["source"] == Source.ACC:
        x.resource(i["bank"])
    if Operand.ROW_SCALE in operands:
        x.read(Memory.SCALE, i["scale_base"], (rows, 1))
    if i["pair"] == Pair.ROTATE:
        vector_words("p", 0)
        vector_words("q", 0)
    if i["tree"]:
        x.resource(tree(c))
    if i["to_vector"]:
        x.write(Memory.VECTOR, i["y_base"], (rows, i["y_row"]), (width // c.lanes, 1))
    if i["to_blocks"]:
        x.write(
            Memory.SCRATCHPAD, i["m_base"], (rows, i["m_row"]), (width // c.block, i["m_block"])
        )


def _reduce(x: _Collector, c: Config, i: Instruction) -> None:
    x.read(Memory.STAT, i["stat_base"], (i["rows"], 1))
    x.write(Memory.SCALE, i["scale_base"], (i["rows"], 1))
    if i["tree"]:
        x.resource(tree(c))


def _scan(x: _Collector, c: Config, i: Instruction) -> None:
    x.read(Memory.SCRATCHPAD, i["a_base"], (i["blocks"], i["a_block"]), (i["rows"], i["a_row"]))
    _statistics(x, c, i, i["rows"])


def _gather(x: _Collector, c: Config, i: Instruction) -> None:
    blocks = i["blocks"]
    x.read(Memory.SCRATCHPAD, i["src_base"], (i["rows"], i["src_row"]), (blocks, i["src_block"]))
    x.write(
        Memory.SCRATCHPAD,
        i["dst_base"],
        (c.tiles, i["dst_tile"]),
        (i["rows"], i["dst_row"]),
        (blocks, i["dst_block"]),
    )


def _transfer(x: _Collector, c: Config, i: Instruction) -> None:
    memory = Memory.SCRATCHPAD if i["target"] == Target.BLOCKS else Memory.VECTOR
    move = x.write if i.opcode == Opcode.LOAD else x.read
    move(memory, i["base"], (i["count"], 1))
