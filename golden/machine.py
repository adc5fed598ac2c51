# SPDX-License-Identifier: Apache-2.0
"""The golden machine: executes the accelerator's programs bit for bit, without time.

Instructions run one after the other in program order.  A program whose
semaphores order every pair of dependent instructions (`afternorm.compiler`
inserts them) gives the same memories on the RTL, however its engines overlap.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afternorm.addressing import Indices, grid
from afternorm.config import Config
from afternorm.isa import (
    INSTRUCTION_BYTES,
    Error,
    Flag,
    Function,
    Instruction,
    Opcode,
    Operand,
    Pair,
    Scale,
    Source,
    Stats,
    Target,
    unpack,
)
from afternorm.legality import rules
from afternorm.memory_map import EXPONENT_BYTES, float_slot, float_word_bytes
from golden import functions, units
from golden.mx import ZERO_EXPONENT, Blocks, dequantize, quantize
from golden.number import Bools, Floats, Format

_ELEMENTS = 1 << 22
"""Mantissas that one step of a product takes from the scratchpads: bounds numpy's memory."""


class MachineError(Exception):
    """The machine stopped: `code` says why, `index` which instruction did it."""

    def __init__(self, code: Error, index: int, detail: str) -> None:
        super().__init__(f"instruction {index}: {code.name.lower()} error, {detail}")
        self.code = code
        self.index = index


class Machine:
    """Memories of one accelerator, all zero at first, and the means to run programs.

    Parameters
    ----------
    config : sizes.
    dram : bytes of DRAM.
    batch : machines that run the same programs side by side on data of their own.  They are one
        more axis of every array operation, so that 40 sequences take little longer than one.

    Attributes
    ----------
    mantissas, exponents : scratchpads, ``[unit, depth, block]`` and ``[unit, depth]``, where
        ``unit = machine * tiles + tile``.
    vector : vector memories, ``[unit, depth, lanes]`` floats.
    scales, stats : row scales and row statistics, ``[unit, depth, 2]``.
    acc : accumulators, ``[unit, bank, rows_max, acc_width]``.
    dram : ``[machine, byte]``.
    flags : the sticky flags, a bit each (`afternorm.isa.Flag`).
    moved : bytes that LOAD and STORE moved in one machine.
    """

    def __init__(self, config: Config, *, dram: int = 0, batch: int = 1) -> None:
        self.config = c = config
        self.fmt = Format(c.fraction_bits)
        self.batch, units_ = batch, batch * c.tiles
        self.mantissas = np.zeros((units_, c.scratchpad_depth, c.block), dtype=np.int8)
        self.exponents = np.full((units_, c.scratchpad_depth), ZERO_EXPONENT, dtype=np.int16)
        self.vector = np.zeros((units_, c.vector_depth, c.lanes))
        self.scales = np.zeros((units_, c.scale_depth, 2))
        self.stats = np.zeros((units_, c.stat_depth, 2))
        self.acc = np.zeros((units_, c.acc_banks, c.rows_max, c.acc_width))
        self.dram = np.zeros((batch, dram), dtype=np.uint8)
        self.flags = 0
        self.moved = 0
        self._tile = np.tile(np.arange(c.tiles), batch)
        """The tile's number, by unit."""
        self._index = 0
        self._rules = rules(config)

    def run(self, program: Sequence[Instruction]) -> None:
        """Execute until END.

        Raises
        ------
        MachineError
            Where the hardware would stop: an illegal operand or address, a semaphore
            that does not exist, a wait that nobody signals, or a program without END.
        """
        counts = [0] * self.config.semaphores
        for self._index, instruction in enumerate(program):
            self.check(instruction)
            if instruction.opcode == Opcode.END:
                return
            self._semaphores(counts, instruction)
            getattr(self, f"_{instruction.opcode.name.lower()}")(instruction)
        self._index = len(program)
        self._check(False, Error.OPCODE, "the program has no END")

    def program(self, address: int) -> list[Instruction]:
        """The program that lies at a byte address of the first machine's DRAM.

        Raises
        ------
        MachineError
            If an instruction has no legal opcode.
        """
        program: list[Instruction] = []
        while not program or program[-1].opcode != Opcode.END:
            word = self.dram[0, address : address + INSTRUCTION_BYTES].tobytes()
            try:
                program.append(unpack(int.from_bytes(word, "little")))
            except ValueError as error:
                raise MachineError(Error.OPCODE, len(program), str(error)) from error
            address += INSTRUCTION_BYTES
        return program

    def blocks(self, addresses: Indices) -> Blocks:
        """Scratchpad blocks of all tiles."""
        # Several times as fast as indexing, which does the same.
        return Blocks(
            self.mantissas.take(addresses, axis=1), self.exponents.take(addresses, axis=1)
        )

    def write_blocks(self, addresses: Indices, blocks: Blocks) -> None:
        """Store blocks into all tiles' scratchpads."""
        self.mantissas[:, addresses] = blocks.mantissas
        self.exponents[:, addresses] = blocks.exponents

    def _check(self, good: bool, code: Error, detail: str) -> None:
        if not good:
            raise MachineError(code, self._index, detail)

    def check(self, i: Instruction) -> None:
        """Raise the `MachineError` that stops the machine before it executes `i`, if any."""
        early = () if i.early is None else (i.early,)
        for semaphore in (*i.waits, *i.signals, *early):
            self._check(
                semaphore < self.config.semaphores, Error.SEMAPHORE, f"there is no {semaphore}"
            )
        if violation := self._rules[i.opcode].violation(i):
            code, detail = violation
            raise MachineError(code, self._index, f"{detail}: {i.opcode.name} {i.body}")

    def _semaphores(self, counts: list[int], i: Instruction) -> None:
        for semaphore in set(i.waits):
            self._check(counts[semaphore] > 0, Error.DEADLOCK, f"nobody signals {semaphore}")
            counts[semaphore] -= 1
        for semaphore in set(i.signals):
            counts[semaphore] += 1
        if i.early is not None:
            counts[i.early] += 1

    def _flag(self, flag: Flag, flags: Bools) -> None:
        self.flags |= int(bool(flags.any())) << flag

    def _columns(self, i: Instruction, width: int) -> slice:
        first = i["acc_tile"] * self.config.columns
        return slice(first, first + width)

    def _sync(self, i: Instruction) -> None:
        """Only its semaphores matter."""

    def _matmul(self, i: Instruction) -> None:
        rows, blocks, cols = i["rows"], i["blocks"], i["cols"]
        a = grid(i["a_base"], (blocks, i["a_block"]), (rows, i["a_row"]))
        b = grid(i["b_base"], (blocks, i["b_block"]), (cols, i["b_col"]))
        acc = self.acc[:, i["bank"], :rows, self._columns(i, cols)]
        together = max(1, _ELEMENTS // (len(acc) * (rows + cols) * self.config.block))
        for first in range(0, blocks, together):
            some = slice(first, first + together)
            entries, overflow = units.products(self.fmt, self.blocks(a[some]), self.blocks(b[some]))
            self._flag(Flag.ACCUMULATOR_OVERFLOW, overflow)
            for k in range(entries.shape[1]):
                entry = entries[:, k]
                if first or k or i["accumulate"]:
                    entry, overflow = self.fmt.round_flag(acc + entry)
                    self._flag(Flag.ACCUMULATOR_OVERFLOW, overflow)
                acc[:] = entry
        if i["stats"] != Stats.NONE:
            self._statistics(i, a if i["stats"] == Stats.A else b)

    def _scan(self, i: Instruction) -> None:
        self._statistics(
            i,
            grid(i["a_base"], (i["blocks"], i["a_block"]), (i["rows"], i["a_row"])),
        )

    def _statistics(self, i: Instruction, addresses: Indices) -> None:
        """Statistics of ``addresses[block, row]``; a tile adds only the blocks it owns."""
        span = slice(i["stat_base"], i["stat_base"] + addresses.shape[1])
        for k, row_addresses in enumerate(addresses):
            entry, overflow = units.statistics(
                self.fmt, self.blocks(row_addresses), bool(i["stat_squares"])
            )
            if i["stat_owned"]:
                owned = np.equal(self._tile, k // i["stat_owned"])[:, None, None]
                entry, overflow = np.where(owned, entry, 0.0), overflow & owned
            self._flag(Flag.STATISTICS_OVERFLOW, overflow)
            if k or not i["stat_first"]:
                entry, overflow = self.fmt.round_flag(self.stats[:, span] + entry)
                self._flag(Flag.STATISTICS_OVERFLOW, overflow)
            self.stats[:, span] = entry

    def _over_tiles(self, x: Floats) -> tuple[Floats, Bools]:
        """The sum over the tiles of ``x[unit, ...]``, at every unit."""
        by_tile = np.moveaxis(x.reshape(self.batch, -1, *x.shape[1:]), 1, 0)
        total, overflow = units.tree_sum(self.fmt, by_tile)
        return np.repeat(total, self.config.tiles, axis=0), overflow

    def _reduce(self, i: Instruction) -> None:
        stats = slice(i["stat_base"], i["stat_base"] + i["rows"])
        scales = slice(i["scale_base"], i["scale_base"] + i["rows"])
        sums = self.stats[:, stats]
        if i["tree"]:
            sums, overflow = self._over_tiles(sums)
            self._flag(Flag.SCALE_OVERFLOW, overflow)
        inv_d, eps = self.fmt.decode([i["inv_d"], i["eps"]])
        result = units.row_scales(
            self.fmt, Scale(i["mode"]), sums[..., 0], sums[..., 1], inv_d, eps
        )
        self.scales[:, scales] = np.stack([result.scale0, result.scale1], axis=-1)
        self._flag(Flag.SCALE_OVERFLOW, result.overflow)
        self._flag(Flag.ZERO_SUM, result.zero)

    def _exp(self, i: Instruction) -> None:
        c = self.config
        blocks = -(-i["cols"] // c.block)
        width = blocks * c.block
        p = grid(i["p_base"], (i["rows"], i["p_row"]), (blocks, i["p_block"]))
        query = i["query_base"] + np.arange(i["rows"])[:, None]
        key = i["key_base"] + self._tile[:, None, None] * i["key_tile"] + np.arange(width)
        masked = (np.arange(width) >= i["cols"]) | (key >= i["length"])
        masked = masked | (bool(i["causal"]) & (key > query))
        scores = self.acc[:, i["bank"], : i["rows"], self._columns(i, width)]
        result, saturated = units.exp2_blocks(scores, masked, c.block)
        self.write_blocks(p, result)
        self._flag(Flag.EXP_RANGE, saturated)

    def _vector(self, i: Instruction) -> None:
        c = self.config
        unit = c.block if i["to_blocks"] else c.lanes
        width = -(-i["cols"] // unit) * unit
        valid = np.arange(width) < i["cols"]
        x = self._affine(i, 0, width, valid)
        y, overflow = functions.apply(self.fmt, Function(i["function"]), x)
        self._flag(Flag.VECTOR_OVERFLOW, overflow & valid)
        if i["pair"] == Pair.GATE:
            y = self._round(y * self._affine(i, i["gate_offset"] * c.lanes, width, valid), valid)
        elif i["pair"] == Pair.ROTATE:
            swapped = y.reshape(*y.shape[:-1], -1, 2)[..., ::-1].reshape(y.shape)
            u = self._vector_words(i, "p", 0, width)
            v = self._vector_words(i, "q", 0, width)
            y = self._round(self._round(y * u, valid) + self._round(swapped * v, valid), valid)
        y = np.where(valid, y, 0.0)
        if i["to_vector"]:
            words = grid(i["y_base"], (i["rows"], i["y_row"]), (width // c.lanes, 1))
            self.vector[:, words] = y.reshape(*y.shape[:-1], -1, c.lanes)
        if i["to_blocks"]:
            m = grid(i["m_base"], (i["rows"], i["m_row"]), (width // c.block, i["m_block"]))
            self.write_blocks(m, quantize(y, c.block))

    def _round(self, x: Floats, valid: Bools) -> Floats:
        """One rounded operation of the vector lanes."""
        y, overflow = self.fmt.round_flag(x)
        self._flag(Flag.VECTOR_OVERFLOW, overflow & valid)
        return y

    def _affine(self, i: Instruction, first: int, width: int, valid: Bools) -> Floats:
        """``x * a + b`` for the source columns `first` and on: ``[tile, row, width]``."""
        x = np.where(valid, self._source(i, first, width, valid), 0.0)
        if i["tree"]:
            x, overflow = self._over_tiles(x)
            self._flag(Flag.VECTOR_OVERFLOW, overflow & valid)
        if i["a"] != Operand.NONE:
            x = self._round(x * self._operand(i, "a", first, width), valid)
        if i["b"] != Operand.NONE:
            x = self._round(x + self._operand(i, "b", first, width), valid)
        return x

    def _source(self, i: Instruction, first: int, width: int, valid: Bools) -> Floats:
        c = self.config
        if i["source"] == Source.ACC:
            columns = self._columns(i, first + width)
            return self.acc[:, i["bank"], : i["rows"], columns][..., first:]
        if i["source"] == Source.VECTOR:
            return self._vector_words(i, "x", first, width)
        covered = -(-(first + width) // c.block)
        addresses = grid(i["x_base"], (i["rows"], i["x_row"]), (covered, i["x_block"]))
        x = dequantize(self.blocks(addresses))
        return self._round(x[..., first : first + width], valid)

    def _operand(self, i: Instruction, name: str, first: int, width: int) -> Floats:
        if i[name] == Operand.VECTOR:
            return self._vector_words(i, {"a": "p", "b": "q"}[name], first, width)
        by_row = i[name] == Operand.ROW_SCALE
        entries = grid(
            i["scale_base"] + (0 if by_row else first), (i["rows"] if by_row else width, 1)
        )
        scale = self.scales[:, entries, {"a": 0, "b": 1}[name]]
        return scale[:, :, None] if by_row else scale[:, None, :]

    def _vector_words(self, i: Instruction, name: str, first: int, width: int) -> Floats:
        lanes = self.config.lanes
        words = grid(
            i[f"{name}_base"] + first // lanes,
            (i["rows"], i[f"{name}_row"]),
            (width // lanes, 1),
        )
        x = self.vector[:, words]
        return x.reshape(*x.shape[:-2], -1)

    def _gather(self, i: Instruction) -> None:
        c = self.config
        rows, blocks = i["rows"], i["blocks"]
        src = grid(i["src_base"], (rows, i["src_row"]), (blocks, i["src_block"]))
        dst = grid(
            i["dst_base"],
            (c.tiles, i["dst_tile"]),
            (rows, i["dst_row"]),
            (blocks, i["dst_block"]),
        )
        for memory in (self._by_tile(self.mantissas), self._by_tile(self.exponents)):
            sources = memory[:, :, src]
            for tile in range(c.tiles):
                memory[:, :, dst[tile]] = sources[:, tile, None]

    def _by_tile(self, memory: NDArray[Any]) -> NDArray[Any]:
        """A memory as ``[machine, tile, ...]``."""
        return memory.reshape(self.batch, self.config.tiles, *memory.shape[1:])

    def _load(self, i: Instruction) -> None:
        words = slice(i["base"], i["base"] + i["count"])
        for tile in range(1 if i["shared"] else self.config.tiles):
            to = slice(None) if i["shared"] else slice(tile, tile + 1)
            data = self._dram(i, "dram", tile, self._word_bytes(i))
            if i["target"] == Target.BLOCKS:
                exponents = self._dram(i, "exponents", tile, EXPONENT_BYTES)
                low = exponents.view("<i2")[:, None, :, 0] & 0x3FF
                self._by_tile(self.mantissas)[:, to, words] = data.view(np.int8)[:, None]
                self._by_tile(self.exponents)[:, to, words] = np.where(low >= 512, low - 1024, low)
            else:
                bits = data.view(self._slot)[:, None].astype(np.uint64)
                bits &= np.uint64((1 << self.fmt.width) - 1)
                self._by_tile(self.vector)[:, to, words] = self.fmt.decode(bits)

    def _store(self, i: Instruction) -> None:
        words = slice(i["base"], i["base"] + i["count"])
        for tile in range(1 if i["shared"] else self.config.tiles):
            data = self._dram(i, "dram", tile, self._word_bytes(i))
            if i["target"] == Target.BLOCKS:
                exponents = self._dram(i, "exponents", tile, EXPONENT_BYTES)
                data.view(np.int8)[:] = self._by_tile(self.mantissas)[:, tile, words]
                exponents.view("<i2")[..., 0] = self._by_tile(self.exponents)[:, tile, words]
                self._keep(i, "exponents", tile, exponents)
            else:
                data.view(self._slot)[:] = self.fmt.encode(
                    self._by_tile(self.vector)[:, tile, words]
                )
            self._keep(i, "dram", tile, data)

    @property
    def _slot(self) -> str:
        """A float's slot in DRAM."""
        return f"<u{float_slot(self.config) // 8}"

    def _word_bytes(self, i: Instruction) -> int:
        blocks = i["target"] == Target.BLOCKS
        return self.config.block if blocks else float_word_bytes(self.config)

    def _range(self, i: Instruction, name: str, tile: int, size: int) -> slice:
        first = i[name] + tile * i[f"{name}_tile"]
        end = first + i["count"] * size
        if end > self.dram.shape[1]:
            raise ValueError(
                f"{i.opcode.name} of bytes {first:#x} to {end - 1:#x}: DRAM has "
                f"{self.dram.shape[1]:#x}"
            )
        return slice(first, end)

    def _dram(self, i: Instruction, name: str, tile: int, size: int) -> NDArray[np.uint8]:
        """A copy of a transfer's bytes, ``[machine, word, byte]``."""
        self.moved += i["count"] * size
        data = self.dram[:, self._range(i, name, tile, size)]
        return data.reshape(self.batch, i["count"], size).copy()

    def _keep(self, i: Instruction, name: str, tile: int, data: NDArray[np.uint8]) -> None:
        """Write a transfer's bytes back."""
        span = self._range(i, name, tile, data.shape[2])
        self.dram[:, span] = data.reshape(self.batch, -1)
