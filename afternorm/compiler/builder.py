# SPDX-License-Identifier: Apache-2.0
"""What all compiled kernels need: places for data, how to slice it over tiles, and emitters.

The scratchpad fills from both ends: what streams as A lies low, what is loaded
as B lies high, so that the two reads of a product meet different banks as long
as each side fills less than half.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afternorm.addressing import Indices, grid
from afternorm.compiler.accesses import Memory
from afternorm.compiler.assembler import Assembler
from afternorm.config import Config
from afternorm.errors import CapacityError
from afternorm.isa import Opcode, Operand, Scale, Source, Stats
from afternorm.job import Assemble, Image, Job, Memories
from golden.mx import Blocks, dequantize, quantize
from golden.number import Format

Floats = NDArray[np.float64]


def ceil_div(n: int, d: int) -> int:
    """``ceil(n / d)``."""
    return -(-n // d)


def round_up(n: int, d: int) -> int:
    """The smallest multiple of `d` from `n` on."""
    return ceil_div(n, d) * d


def pieces(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and length of consecutive pieces of at most `size`."""
    for start in range(0, total, size):
        yield start, min(size, total - start)


@dataclass(frozen=True)
class Matrix:
    """MX blocks of a matrix in the scratchpad, blocks along its rows' elements.

    Block k of row r lies at ``base + r + k * rows``.
    """

    base: int
    rows: int
    blocks: int

    def at(self, row: int, block: int = 0) -> int:
        """Address of a block."""
        return self.base + row + block * self.rows

    @property
    def addresses(self) -> Indices:
        """``[row, block]``."""
        return grid(self.base, (self.rows, 1), (self.blocks, self.rows))

    def part(self, first: int, blocks: int) -> "Matrix":
        """Blocks `first` and on of all rows."""
        return Matrix(self.at(0, first), self.rows, blocks)


@dataclass(frozen=True)
class Shared:
    """An activation whose columns are produced in slices, one a tile.

    `local` is a tile's own slice; `full` has the slices of all tiles side by side.  With a
    single tile they are the same.
    """

    local: Matrix
    full: Matrix


@dataclass(frozen=True)
class Table:
    """Rows of floats in the vector memory, `row` words apart."""

    base: int
    row: int

    def at(self, row: int, word: int = 0) -> int:
        """Address of a word."""
        return self.base + row * self.row + word


@dataclass(frozen=True)
class Spread:
    """How features lie in the tiles: ``index[tile, position]`` is a feature, or -1 for padding."""

    index: Indices

    @property
    def width(self) -> int:
        """Positions in a tile."""
        return int(self.index.shape[1])

    def tiles(self, array: Floats, axis: int) -> Floats:
        """``[tile, ...]``: every tile's part of `array` along `axis`, padded with zeros."""
        taken = np.take(array, np.maximum(self.index, 0), axis=axis)
        shape = [1] * taken.ndim
        shape[axis], shape[axis + 1] = self.index.shape
        return np.moveaxis(np.where(self.index.reshape(shape) < 0, 0.0, taken), axis, 0)

    def flat(self, array: Floats, axis: int) -> Floats:
        """`array` with the tiles' parts side by side along `axis`, padded with zeros."""
        index = self.index.ravel()
        taken = np.take(array, np.maximum(index, 0), axis=axis)
        shape = [1] * taken.ndim
        shape[axis] = len(index)
        return np.where(index.reshape(shape) < 0, 0.0, taken)

    def gather(self, parts: Floats) -> Floats:
        """Features in order from ``parts[tile, row, position]``: ``[row, feature]``."""
        total = int(self.index.max()) + 1
        result = np.zeros((parts.shape[1], total))
        for part, index in zip(parts, self.index, strict=True):
            result[:, index[index >= 0]] = part[:, : len(index)][:, index >= 0]
        return result


def slices(total: int, tiles: int, block: int) -> Spread:
    """Features in equal slices, each padded to blocks."""
    each = ceil_div(total, tiles)
    index = np.full((tiles, round_up(each, block)), -1, dtype=np.int64)
    features = grid(0, (tiles, each), (each, 1))
    index[:, :each] = np.where(features < total, features, -1)
    return Spread(index)


def grouped(heads: int, size: int, per_tile: int, tiles: int, stride: int, width: int) -> Spread:
    """Heads of `size` features, `per_tile` in each tile, `stride` positions apart."""
    index = np.full((tiles, width), -1, dtype=np.int64)
    for head in range(heads):
        tile, local = divmod(head, per_tile)
        index[tile, local * stride : local * stride + size] = head * size + np.arange(size)
    return Spread(index)


class Builder:
    """Allocates memories, collects initial data and emits instructions of one job."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.fmt = Format(config.fraction_bits)
        self.assembler = Assembler(config)
        self.image = Image.empty(config)
        self.outputs: dict[str, Assemble] = {}
        self.ideal = 0
        """Array cycles of the padded products."""
        self._low = self._high = self._vector = self._scales = self._stats = 0
        self._pending: list[Callable[[], None]] = []
        self._loaded = {
            Memory.SCRATCHPAD: np.zeros(config.scratchpad_depth, dtype=bool),
            Memory.VECTOR: np.zeros(config.vector_depth, dtype=bool),
        }

    # Places

    def streamed(self, rows: int, blocks: int) -> Matrix:
        """Room for an operand that is read as A."""
        matrix = Matrix(self._low, rows, blocks)
        self._low += rows * blocks
        return matrix

    def stationary(self, rows: int, blocks: int) -> Matrix:
        """Room for an operand that is read as B."""
        self._high += rows * blocks
        return Matrix(self.config.scratchpad_depth - self._high, rows, blocks)

    def shared(self, rows: int, blocks: int) -> Shared:
        """Room for an activation of `blocks` blocks in each tile."""
        full = self.streamed(rows, blocks * self.config.tiles)
        return Shared(full if self.config.tiles == 1 else self.streamed(rows, blocks), full)

    def table(self, rows: int, words: int) -> Table:
        """Room for `rows` rows of floats in the vector memory."""
        table = Table(self._vector, words)
        self._vector += rows * words
        return table

    def slack(self, words: int) -> None:
        """Room behind the last table, for reads whose padding reaches beyond it."""
        self._vector += words

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

        def load() -> None:
            addresses = matrix.addresses
            blocks = quantize(values, self.config.block)
            self.image.mantissas[:, addresses] = blocks.mantissas
            self.image.exponents[:, addresses] = blocks.exponents
            self._loaded[Memory.SCRATCHPAD][addresses] = True

        self._pending.append(load)

    def load_table(self, table: Table, values: Floats) -> None:
        """Initial values ``[tile, row, lane]`` of a table (or ``[row, lane]`` for all tiles)."""

        def load() -> None:
            lanes = self.config.lanes
            words = values.shape[-1] // lanes
            addresses = grid(table.base, (values.shape[-2], table.row), (words, 1))
            numbers = self.fmt.round(values).reshape(*values.shape[:-1], words, lanes)
            self.image.vector[:, addresses] = numbers
            self._loaded[Memory.VECTOR][addresses] = True

        self._pending.append(load)

    def weights(self, values: Floats) -> Matrix:
        """A stationary operand with initial values ``[tile, row, element]``."""
        matrix = self.stationary(values.shape[-2], values.shape[-1] // self.config.block)
        self.load_blocks(matrix, values)
        return matrix

    def vectors(self, values: Floats) -> Table:
        """A table of a single row with initial values ``[tile, lane]``."""
        table = self.table(1, values.shape[-1] // self.config.lanes)
        self.load_table(table, values[:, None, :])
        return table

    def place(self) -> None:
        """Fill the memories; what was asked for must fit them.

        Raises
        ------
        CapacityError
            If it does not; with what is needed of every memory that is too small.
        """
        c = self.config
        needs = {
            "scratchpad blocks": (self._low + self._high, c.scratchpad_depth),
            "vector memory words": (self._vector, c.vector_depth),
            "row scales": (self._scales, c.scale_depth),
            "row statistics": (self._stats, c.stat_depth),
        }
        short = [f"{need} {name} of {has}" for name, (need, has) in needs.items() if need > has]
        if short:
            raise CapacityError(f"the work needs {', '.join(short)} in each tile")
        for load in self._pending:
            load()
        self._pending.clear()

    # Instructions

    def emit(self, opcode: Opcode, **fields: int) -> None:
        """Append an instruction to the sequential program."""
        self.assembler.emit(opcode, **fields)

    def product(
        self,
        a: Matrix,
        rows: tuple[int, int],
        b: Matrix,
        cols: tuple[int, int],
        bank: int,
        **fields: int,
    ) -> None:
        """Rows of A times rows (columns of the result) of B, each given as (first, count)."""
        self.ideal += rows[1] * a.blocks * ceil_div(cols[1], self.config.columns)
        self.emit(
            Opcode.MATMUL,
            rows=rows[1],
            blocks=a.blocks,
            cols=cols[1],
            bank=bank,
            a_base=a.at(rows[0]),
            a_row=1,
            a_block=a.rows,
            b_base=b.at(cols[0]),
            b_col=1,
            b_block=b.rows,
            **fields,
        )

    def statistics(self, base: int, owned: int) -> dict[str, int]:
        """Fields of a product that taps A; tiles own `owned` blocks each."""
        return {
            "stats": Stats.A,
            "stat_base": base,
            "stat_owned": owned if self.config.tiles > 1 else 0,
            "stat_first": 1,
            "stat_squares": 1,
        }

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
        """A vector pass."""
        self.emit(Opcode.VECTOR, rows=rows, cols=cols, source=source, **fields)

    def to_blocks(self, matrix: Matrix, row: int, block: int = 0) -> dict[str, int]:
        """Fields of a vector pass that writes blocks."""
        return {
            "to_blocks": 1,
            "m_base": matrix.at(row, block),
            "m_row": 1,
            "m_block": matrix.rows,
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
            src_row=1,
            src_block=local.rows,
            dst_base=full.at(rows[0], first),
            dst_row=1,
            dst_block=full.rows,
            dst_tile=local.blocks * full.rows,
        )

    # Results

    def read_blocks(self, memories: Memories, matrix: Matrix) -> Floats:
        """``[tile, row, element]``."""
        addresses = matrix.addresses
        return dequantize(
            Blocks(memories.mantissas[:, addresses], memories.exponents[:, addresses])
        )

    def read_table(self, memories: Memories, table: Table, rows: int) -> Floats:
        """``[tile, row, lane]``."""
        words = memories.vector[:, grid(table.base, (rows, table.row), (table.row, 1))]
        return words.reshape(*words.shape[:2], -1)

    def job(self, macs: int, **info: object) -> Job:
        """The finished job; `macs` are the multiplications that its results need."""
        loaded = {memory: np.flatnonzero(flags) for memory, flags in self._loaded.items()}
        return Job(
            self.config,
            self.assembler.finish(),
            self.image,
            loaded,
            self.assembler.written,
            self.outputs,
            {"ideal": self.ideal, "macs": macs, **info},
        )


class Banks:
    """Hands out accumulator banks in turn."""

    def __init__(self, banks: Sequence[int]) -> None:
        self._banks = list(banks)
        self._next = 0

    def take(self) -> int:
        """The bank that was taken longest ago."""
        bank = self._banks[self._next % len(self._banks)]
        self._next += 1
        return bank
