# SPDX-License-Identifier: Apache-2.0
"""What all compiled kernels need: buffers for data, and emitters of instructions.

What streams as A and what is loaded as B lie at different ends of the scratchpad, so that the two
reads of a product meet different banks as long as each side fills less than half.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from afternorm.addressing import Indices, grid
from afternorm.compiler.accesses import Memory, words
from afternorm.compiler.assembler import Assembler
from afternorm.compiler.buffers import (
    Buffer,
    Floats,
    Matrix,
    Shared,
    Table,
    Weights,
    ceil_div,
    hollow,
    pieces,
    round_up,
)
from afternorm.compiler.planner import UNITS, Buffers, Operation, fixed_plan, translate
from afternorm.config import Config
from afternorm.errors import CapacityError
from afternorm.isa import BODIES, Instruction, Opcode, Operand, Scale, Source, Stats
from afternorm.job import Assemble, Image, Job, Memories
from golden.mx import Blocks, dequantize, quantize
from golden.number import Format

_BLOCKS = (1 << dict(BODIES[Opcode.MATMUL])["blocks"]) - 1
"""The most blocks along K of one product."""
_COLUMNS = (1 << dict(BODIES[Opcode.VECTOR])["cols"]) - 1
"""The most columns of one vector pass."""
_JOINED = 1024
"""Blocks of a tile from which on an instruction to load them counts for nothing, while what waits
for a larger piece would wait longer."""


class Builder:
    """Collects the buffers, initial data and instructions of one program.

    Parameters
    ----------
    config : the accelerator.
    piece : blocks of a piece of weights, if they are loaded piece by piece; else they lie
        together.
    """

    def __init__(self, config: Config, *, piece: int | None = None) -> None:
        self.config = config
        self.piece = piece
        self.fmt = Format(config.fraction_bits)
        self.buffers = Buffers()
        self.operations: list[Operation] = []
        self.outputs: dict[str, Assemble] = {}
        self.ideal = 0
        """Array cycles of the padded products."""
        self._scales = self._stats = 0
        self._marked = (0, 0, 0)

    # Programs that share buffers

    def mark(self) -> None:
        """Keep what there is for all programs from here on."""
        self._marked = len(self.buffers), self._scales, self._stats

    def rewind(self) -> None:
        """Begin another program: all but what `mark` kept is forgotten."""
        buffers, self._scales, self._stats = self._marked
        self.buffers.truncate(buffers)
        self.operations, self.outputs, self.ideal = [], {}, 0

    def reuse_rows(self) -> None:
        """Let what follows use the row scales and statistics again."""
        _, self._scales, self._stats = self._marked

    # Buffers

    def streamed(self, rows: int, blocks: int) -> Matrix:
        """Room for an operand that is read as A."""
        return Matrix.by_block(self._blocks(rows * blocks), rows, blocks)

    def stationary(self, rows: int, blocks: int) -> Matrix:
        """Room for an operand that is read as B."""
        return Matrix.by_block(self._blocks(rows * blocks, high=True), rows, blocks)

    def cache(self, rows: int, blocks: int) -> Matrix:
        """Room for an operand that grows row by row and is read as B."""
        return Matrix.by_row(self._blocks(rows * blocks, high=True), rows, blocks)

    def kept(self, rows: int, blocks: int) -> Matrix:
        """Room for an operand that grows row by row and is read as A."""
        return Matrix.by_row(self._blocks(rows * blocks), rows, blocks)

    def _blocks(self, size: int, *, high: bool = False) -> int:
        return self.buffers.add(Memory.SCRATCHPAD, size, high=high).start

    def shared(self, rows: int, blocks: int) -> Shared:
        """Room for an activation of `blocks` blocks in each tile."""
        full = self.streamed(rows, blocks * self.config.tiles)
        # Apart from what streams as A, which would keep a gather from reading it.
        return Shared(full if self.config.tiles == 1 else self.stationary(rows, blocks), full)

    def table(self, rows: int, words: int) -> Table:
        """Room for `rows` rows of floats; what reads them may round up to whole blocks."""
        slack = self.config.block // self.config.lanes - 1
        return Table(self.buffers.add(Memory.VECTOR, rows * words + slack).start, words)

    def buffer(self, operand: Matrix | Table) -> Buffer:
        """The buffer that an operand lies in."""
        return self.buffers.at(operand.base)

    def scale_rows(self, rows: int) -> int:
        """Room for row scales, aligned so that they can be column scales, too."""
        base = self._scales
        self._scales += round_up(rows, self.config.block)
        return base

    def stat_rows(self, rows: int) -> int:
        """Room for row statistics."""
        base = self._stats
        self._stats += rows
        return base

    @property
    def stats_used(self) -> int:
        """Row statistics that have a place."""
        return self._stats

    # Data

    def load_blocks(self, matrix: Matrix, values: Floats) -> None:
        """Initial values ``[tile, row, element]`` of a matrix (or ``[row, element]`` for all)."""
        block = self.config.block
        shape = (*values.shape[:-1], values.shape[-1] // block, block)
        by_block = values.reshape(shape).swapaxes(-2, -3)
        buffer = self.buffer(matrix)
        buffer.contents = by_block.reshape(*values.shape[:-2], buffer.size, block)

    def load_table(self, table: Table, values: Floats) -> None:
        """Initial values ``[tile, row, lane]`` of a table (or ``[row, lane]`` for all tiles)."""
        buffer, lanes = self.buffer(table), self.config.lanes
        if hollow(values):
            buffer.contents = np.broadcast_to(0.0, (*values.shape[:-2], buffer.size, lanes))
            return
        contents = np.zeros((*values.shape[:-2], buffer.size, lanes))
        numbers = self.fmt.round(values).reshape(*values.shape[:-2], -1, lanes)
        contents[..., : numbers.shape[-2], :] = numbers
        buffer.contents = contents

    def weights(
        self, values: Floats, columns: Sequence[tuple[int, int]] = (), *, joined: bool = True
    ) -> Weights:
        """A matrix of constants ``[tile, row, element]``.

        If weights are loaded piece by piece, `columns` are the pieces that its products take at
        once: (first, count) each; what is larger than a piece is cut along the blocks.  Small
        neighbours are `joined`, which saves instructions, but the first product waits for all.
        """
        c, rows = self.config, values.shape[-2]
        blocks = values.shape[-1] // c.block
        if self.piece is None or not columns:
            columns = [(0, rows)]
        if joined:
            columns = _joined(columns, blocks, min(_JOINED, self.piece or 0))
        parts = []
        for first, count in columns:
            depth = blocks if self.piece is None else max(1, self.piece // count)
            depth = min(depth, _BLOCKS)
            some = values[..., first : first + count, :]
            piece = []
            for start, length in pieces(blocks, ceil_div(blocks, ceil_div(blocks, depth))):
                matrix = self.stationary(count, length)
                span = slice(start * c.block, (start + length) * c.block)
                self.load_blocks(matrix, some[..., span])
                piece.append(matrix)
            parts.append(tuple(piece))
        return Weights(tuple(columns), tuple(parts))

    def vectors(self, values: Floats) -> Table:
        """A table of a single row with initial values ``[tile, lane]``."""
        table = self.table(1, values.shape[-1] // self.config.lanes)
        self.load_table(table, values[:, None, :])
        return table

    # Instructions

    def emit(self, opcode: Opcode, **fields: int) -> None:
        """Append an instruction to the sequential program."""
        self.operations.append(Operation(opcode, fields))

    def product(
        self,
        a: Matrix | Weights,
        rows: tuple[int, int],
        b: Matrix | Weights,
        cols: tuple[int, int],
        bank: int,
        **fields: int,
    ) -> None:
        """Rows of A times rows (columns of the result) of B, each given as (first, count).

        One of both may be weights; if they come in parts, the products add up.
        """
        if isinstance(a, Weights):
            a_parts, first = a.of(rows)
            rows, b_parts = (first, rows[1]), _cut(b, a_parts)
        elif isinstance(b, Weights):
            b_parts, first = b.of(cols)
            cols, a_parts = (first, cols[1]), _cut(a, b_parts)
        else:
            a_parts, b_parts = (a,), (b,)
        for number, (left, right) in enumerate(zip(a_parts, b_parts, strict=True)):
            self.ideal += rows[1] * left.blocks * ceil_div(cols[1], self.config.columns)
            self.emit(
                Opcode.MATMUL,
                rows=rows[1],
                blocks=left.blocks,
                cols=cols[1],
                bank=bank,
                a_base=left.at(rows[0]),
                a_row=left.row_step,
                a_block=left.block_step,
                b_base=right.at(cols[0]),
                b_col=right.row_step,
                b_block=right.block_step,
                **({"accumulate": 1} if number else {}) | fields,
            )

    def tap(
        self,
        weights: Weights,
        columns: tuple[int, int],
        x: Matrix,
        rows: tuple[int, int],
        stat: int,
        *,
        owned: int,
        operand: Stats = Stats.A,
    ) -> dict[str, int]:
        """Fields of the product of `x` with a piece of weights that fills row statistics.

        Tiles own `owned` blocks of a row each.  The tap counts whole rows: if the weights come
        in parts, a pass beside their products does it.
        """
        fields = {
            "stat_owned": owned if self.config.tiles > 1 else 0,
            "stat_first": 1,
            "stat_squares": 1,
        }
        if len(weights.of(columns)[0]) > 1:
            self.scan(x, rows, stat, **fields)
            return {}
        return {"stats": operand, "stat_base": stat, **fields}

    def scan(self, x: Matrix, rows: tuple[int, int], stat: int, **fields: int) -> None:
        """Statistics of rows in a pass of their own."""
        self.emit(
            Opcode.SCAN,
            rows=rows[1],
            blocks=x.blocks,
            a_base=x.at(rows[0]),
            a_row=x.row_step,
            a_block=x.block_step,
            stat_base=stat,
            **fields,
        )

    def reduce(
        self, mode: Scale, rows: int, stat: int, scale: int, *, tree: bool, d: int, eps: float
    ) -> None:
        """Row scales from row statistics."""
        inv_d, epsilon = self.fmt.encode(self.fmt.round([1.0 / d, eps]))
        self.emit(
            Opcode.REDUCE,
            rows=rows,
            mode=mode,
            tree=int(tree and self.config.tiles > 1),
            stat_base=stat,
            scale_base=scale,
            inv_d=int(inv_d),
            eps=int(epsilon),
        )

    def vector(self, rows: int, cols: int, source: Source, **fields: int) -> None:
        """A vector pass; what is wider than an instruction takes is cut.

        A pass that is cut has no pairs and no column scales.
        """
        c = self.config
        size = round_up(ceil_div(cols, ceil_div(cols, _COLUMNS // c.block * c.block)), c.block)
        for first, count in pieces(cols, size):
            words, blocks = first // c.lanes, first // c.block
            steps = {"x_base": words, "p_base": words, "q_base": words, "y_base": words}
            steps["m_base"] = blocks * fields.get("m_block", 0)
            if source == Source.BLOCKS:
                steps["x_base"] = blocks * fields.get("x_block", 0)
            moved = {name: fields[name] + step for name, step in steps.items() if name in fields}
            self.emit(Opcode.VECTOR, rows=rows, cols=count, source=source, **fields | moved)

    def to_blocks(self, matrix: Matrix, row: int, block: int = 0) -> dict[str, int]:
        """Fields of a vector pass that writes blocks."""
        return {
            "to_blocks": 1,
            "m_base": matrix.at(row, block),
            "m_row": matrix.row_step,
            "m_block": matrix.block_step,
        }

    def to_table(self, table: Table, row: int, word: int = 0) -> dict[str, int]:
        """Fields of a vector pass that writes floats."""
        return {"to_vector": 1, "y_base": table.at(row, word), "y_row": table.row}

    def add(self, table: Table, row: int, word: int = 0) -> dict[str, int]:
        """Fields of a vector pass that adds rows of floats."""
        return {"b": Operand.VECTOR, "q_base": table.at(row, word), "q_row": table.row}

    def add_vector(self, table: Table, word: int = 0) -> dict[str, int]:
        """Fields of a vector pass that adds one vector to all rows."""
        return {"b": Operand.VECTOR, "q_base": table.at(0, word), "q_row": 0}

    def publish(
        self, activation: Shared, rows: tuple[int, int], blocks: tuple[int, int] | None = None
    ) -> None:
        """Send rows of the tiles' slices, or only blocks (first, count) of them, to all tiles."""
        if self.config.tiles == 1:
            return
        local, full = activation.local, activation.full
        first, count = blocks or (0, local.blocks)
        self.emit(
            Opcode.GATHER,
            rows=rows[1],
            blocks=count,
            src_base=local.at(rows[0], first),
            src_row=local.row_step,
            src_block=local.block_step,
            dst_base=full.at(rows[0], first),
            dst_row=full.row_step,
            dst_block=full.block_step,
            dst_tile=local.blocks * full.block_step,
        )

    # Results

    def read_blocks(self, memories: Memories, matrix: Matrix) -> Floats:
        """``[tile, row, element]``."""
        addresses = matrix.addresses + self._offset(matrix)
        return dequantize(
            Blocks(memories.mantissas[:, addresses], memories.exponents[:, addresses])
        )

    def read_table(self, memories: Memories, table: Table, rows: int) -> Floats:
        """``[tile, row, lane]``."""
        addresses = grid(table.base, (rows, table.row), (table.row, 1)) + self._offset(table)
        words = memories.vector[:, addresses]
        return words.reshape(*words.shape[:2], -1)

    def _offset(self, operand: Matrix | Table) -> int:
        """From virtual to real addresses, after `job`."""
        buffer = self.buffer(operand)
        assert buffer.base is not None
        return buffer.base - buffer.start

    def check(self, *needs: tuple[str, int, int]) -> None:
        """Check row scales, row statistics, and what else is needed of what there is.

        Raises
        ------
        CapacityError
            If it does not fit; with what is needed of each memory that is too small.
        """
        c = self.config
        rows = [("row scales", self._scales, c.scale_depth)]
        rows.append(("row statistics", self._stats, c.stat_depth))
        short = [f"{need} {name} of {has}" for name, need, has in (*needs, *rows) if need > has]
        if short:
            raise CapacityError(f"the work needs {', '.join(short)} in each tile")

    def place(self) -> None:
        """Give all buffers so far places of their own.

        Raises
        ------
        CapacityError
            As `check`.
        """
        used = fixed_plan(self.config, self.buffers)
        self.check(*((UNITS[m], need, words(self.config, m)) for m, need in used.items()))

    def job(self, macs: int, **info: object) -> Job:
        """The finished job, all buffers in places of their own; `macs`: what its results need.

        Raises
        ------
        CapacityError
            As `check`.
        """
        program, written = self.program()
        image, loaded = self._image()
        return Job(
            self.config,
            program,
            image,
            loaded,
            written,
            outputs=self.outputs,
            info={"ideal": self.ideal, "macs": macs, **info},
        )

    def program(self) -> tuple[list[Instruction], dict[Memory, Indices]]:
        """The instructions of the job, and the words that they write, by memory.

        Raises
        ------
        CapacityError
            As `check`.
        """
        self.place()
        assembler = Assembler(self.config)
        for operation in translate(self.buffers, self.operations):
            assembler.emit(operation.opcode, **operation.fields)
        return assembler.finish(), assembler.written

    def _image(self) -> tuple[Image, dict[Memory, Indices]]:
        """The memories before the start, and the words of them that matter."""
        contents = [b.contents for b in self.buffers if b.contents is not None]
        image = Image.empty(self.config, hollow=bool(contents) and all(map(hollow, contents)))
        loaded: dict[Memory, list[Indices]] = {m: [] for m in UNITS}
        for buffer in self.buffers:
            if buffer.contents is None:
                continue
            assert buffer.base is not None
            at = grid(buffer.base, (buffer.size, 1))
            loaded[buffer.memory].append(at)
            if hollow(buffer.contents):
                continue
            if buffer.memory == Memory.VECTOR:
                image.vector[:, at] = buffer.contents
            else:
                blocks = quantize(buffer.contents, self.config.block)
                image.mantissas[:, at] = blocks.mantissas[..., 0, :]
                image.exponents[:, at] = blocks.exponents[..., 0]
        empty = np.zeros(0, dtype=np.int64)
        return image, {m: np.sort(np.concatenate([empty, *at])) for m, at in loaded.items()}


def _joined(columns: Sequence[tuple[int, int]], blocks: int, piece: int) -> list[tuple[int, int]]:
    """Neighbours in one, as long as they are not more than a piece."""
    joined = [columns[0]]
    for first, count in columns[1:]:
        start, length = joined[-1]
        if (length + count) * blocks <= piece:
            joined[-1] = (start, length + count)
        else:
            joined.append((first, count))
    return joined


def _cut(matrix: Matrix | Weights, like: Sequence[Matrix]) -> tuple[Matrix, ...]:
    """The other operand in parts of as many blocks."""
    assert isinstance(matrix, Matrix)
    starts = np.cumsum([0, *(part.blocks for part in like)]).tolist()
    return tuple(matrix.part(first, part.blocks) for first, part in zip(starts, like, strict=False))


class Banks:
    """Hands out accumulator banks in turn."""

    def __init__(self, banks: Sequence[int]) -> None:
        self._banks = deque(banks)

    def take(self) -> int:
        """The bank that was taken longest ago."""
        self._banks.rotate(-1)
        return self._banks[-1]
