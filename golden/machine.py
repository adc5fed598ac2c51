# SPDX-License-Identifier: Apache-2.0
"""The golden machine: executes the accelerator's programs bit for bit, without time.

Instructions run one after the other in program order.  A program whose
semaphores order every pair of dependent instructions (`afternorm.compiler`
inserts them) gives the same memories on the RTL, however its engines overlap.
"""

from collections.abc import Sequence

import numpy as np

from afternorm.addressing import Indices, grid
from afternorm.config import Config
from afternorm.isa import (
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
)
from afternorm.legality import rules
from golden import functions, units
from golden.mx import ZERO_EXPONENT, Blocks, dequantize, quantize
from golden.number import Bools, Floats, Format


class MachineError(Exception):
    """The machine stopped: `code` says why, `index` which instruction did it."""

    def __init__(self, code: Error, index: int, detail: str) -> None:
        super().__init__(f"instruction {index}: {code.name.lower()} error, {detail}")
        self.code = code
        self.index = index


class Machine:
    """Memories of one accelerator, all zero at first, and the means to run programs.

    Attributes
    ----------
    mantissas, exponents : scratchpads, ``[tile, depth, block]`` and ``[tile, depth]``.
    vector : vector memories, ``[tile, depth, lanes]`` floats.
    scales, stats : row scales and row statistics, ``[tile, depth, 2]``.
    acc : accumulators, ``[tile, bank, rows_max, acc_width]``.
    flags : the sticky flags, a bit each (`afternorm.isa.Flag`).
    """

    def __init__(self, config: Config) -> None:
        self.config = c = config
        self.fmt = Format(c.fraction_bits)
        self.mantissas = np.zeros((c.tiles, c.scratchpad_depth, c.block), dtype=np.int8)
        self.exponents = np.full((c.tiles, c.scratchpad_depth), ZERO_EXPONENT, dtype=np.int16)
        self.vector = np.zeros((c.tiles, c.vector_depth, c.lanes))
        self.scales = np.zeros((c.tiles, c.scale_depth, 2))
        self.stats = np.zeros((c.tiles, c.stat_depth, 2))
        self.acc = np.zeros((c.tiles, c.acc_banks, c.rows_max, c.acc_width))
        self.flags = 0
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

    def blocks(self, tile: int, addresses: Indices) -> Blocks:
        """Scratchpad blocks of a tile."""
        return Blocks(self.mantissas[tile, addresses], self.exponents[tile, addresses])

    def write_blocks(self, tile: int, addresses: Indices, blocks: Blocks) -> None:
        """Store blocks into a tile's scratchpad."""
        self.mantissas[tile, addresses] = blocks.mantissas
        self.exponents[tile, addresses] = blocks.exponents

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
        c = self.config
        rows, blocks, cols = i["rows"], i["blocks"], i["cols"]
        columns = self._columns(i, cols)
        a = grid(i["a_base"], (blocks, i["a_block"]), (rows, i["a_row"]))
        b = grid(i["b_base"], (blocks, i["b_block"]), (cols, i["b_col"]))
        for tile in range(c.tiles):
            acc = self.acc[tile, i["bank"], :rows, columns]
            for k in range(blocks):
                entry, overflow = units.products(
                    self.fmt, self.blocks(tile, a[k]), self.blocks(tile, b[k])
                )
                self._flag(Flag.ACCUMULATOR_OVERFLOW, overflow)
                if k or i["accumulate"]:
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
        rows = addresses.shape[1]
        entries = grid(i["stat_base"], (rows, 1))
        for tile in range(self.config.tiles):
            for k, row_addresses in enumerate(addresses):
                owned = not i["stat_owned"] or k // i["stat_owned"] == tile
                entry, overflow = units.statistics(
                    self.fmt, self.blocks(tile, row_addresses), bool(i["stat_squares"])
                )
                if not owned:
                    entry, overflow = np.zeros_like(entry), np.zeros_like(overflow)
                self._flag(Flag.STATISTICS_OVERFLOW, overflow)
                if k or not i["stat_first"]:
                    entry, overflow = self.fmt.round_flag(self.stats[tile, entries] + entry)
                    self._flag(Flag.STATISTICS_OVERFLOW, overflow)
                self.stats[tile, entries] = entry

    def _reduce(self, i: Instruction) -> None:
        rows = i["rows"]
        stats = grid(i["stat_base"], (rows, 1))
        scales = grid(i["scale_base"], (rows, 1))
        sums = self.stats[:, stats]
        if i["tree"]:
            total, overflow = units.tree_sum(self.fmt, sums)
            self._flag(Flag.SCALE_OVERFLOW, overflow)
            sums = np.broadcast_to(total, sums.shape)
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
        columns = self._columns(i, width)
        p = grid(i["p_base"], (i["rows"], i["p_row"]), (blocks, i["p_block"]))
        query = i["query_base"] + np.arange(i["rows"])[:, None]
        for tile in range(c.tiles):
            key = i["key_base"] + tile * i["key_tile"] + np.arange(width)
            masked = (np.arange(width) >= i["cols"]) | (key >= i["length"])
            masked = masked | (bool(i["causal"]) & (key > query))
            scores = self.acc[tile, i["bank"], : i["rows"], columns]
            result, saturated = units.exp2_blocks(scores, masked, c.block)
            self.write_blocks(tile, p, result)
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
            for tile in range(c.tiles):
                self.write_blocks(tile, m, quantize(y[tile], c.block))

    def _round(self, x: Floats, valid: Bools) -> Floats:
        """One rounded operation of the vector lanes."""
        y, overflow = self.fmt.round_flag(x)
        self._flag(Flag.VECTOR_OVERFLOW, overflow & valid)
        return y

    def _affine(self, i: Instruction, first: int, width: int, valid: Bools) -> Floats:
        """``x * a + b`` for the source columns `first` and on: ``[tile, row, width]``."""
        x = np.where(valid, self._source(i, first, width, valid), 0.0)
        if i["tree"]:
            total, overflow = units.tree_sum(self.fmt, x)
            self._flag(Flag.VECTOR_OVERFLOW, overflow & valid)
            x = np.broadcast_to(total, x.shape)
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
        x = np.stack([dequantize(self.blocks(tile, addresses)) for tile in range(c.tiles)])
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
        sources = [self.blocks(tile, src) for tile in range(c.tiles)]
        for source, addresses in zip(sources, dst, strict=True):
            for tile in range(c.tiles):
                self.write_blocks(tile, addresses, source)
