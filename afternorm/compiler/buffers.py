# SPDX-License-Identifier: Apache-2.0
"""Operands of the compiled kernels: where they lie, and how features are sliced over the tiles.

Kernels are written with virtual addresses: every buffer has a range of its own,
whatever the memories' sizes.  `afternorm.compiler.planner` gives them places.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from afternorm.addressing import Indices, grid
from afternorm.compiler.accesses import Memory

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
class Home:
    """Where DRAM keeps a buffer: the fields of the LOAD or STORE that moves it as a whole.

    Attributes
    ----------
    dram, dram_tile : byte address of tile 0's mantissas or floats, and bytes between tiles.
    exponents, exponents_tile : the same of the exponents.
    shared : all tiles have the same.
    """

    dram: int
    dram_tile: int
    exponents: int = 0
    exponents_tile: int = 0
    shared: bool = False


@dataclass(eq=False)
class Buffer:
    """Words of one memory that are placed together.

    Attributes
    ----------
    memory : scratchpad or vector memory.
    start, size : its virtual addresses.
    high : it is loaded as B, and should lie far from what streams as A.
    contents : ``[tile, word, element]``, or ``[word, element]`` for all tiles, of what it holds
        from the beginning.
    home : where DRAM keeps them; only then can the buffer make room for others.
    base : its address, if it is the same in all programs.
    """

    memory: Memory
    start: int
    size: int
    high: bool = False
    contents: Floats | None = field(default=None, repr=False)
    home: Home | None = None
    base: int | None = None


@dataclass(frozen=True)
class Matrix:
    """MX blocks of a matrix in the scratchpad, blocks along its rows' elements.

    Block k of row r lies at ``base + r * row_step + k * block_step``.
    """

    base: int
    rows: int
    blocks: int
    row_step: int
    block_step: int

    @classmethod
    def by_block(cls, base: int, rows: int, blocks: int) -> "Matrix":
        """The blocks of the same number lie together: what streams reads one after the other."""
        return cls(base, rows, blocks, 1, rows)

    @classmethod
    def by_row(cls, base: int, rows: int, blocks: int) -> "Matrix":
        """A row's blocks lie together: rows can be moved to DRAM and back."""
        return cls(base, rows, blocks, blocks, 1)

    def at(self, row: int, block: int = 0) -> int:
        """Address of a block."""
        return self.base + row * self.row_step + block * self.block_step

    @property
    def addresses(self) -> Indices:
        """``[row, block]``."""
        return grid(self.base, (self.rows, self.row_step), (self.blocks, self.block_step))

    def part(self, first: int, blocks: int) -> "Matrix":
        """Blocks `first` and on of all rows."""
        return Matrix(self.at(0, first), self.rows, blocks, self.row_step, self.block_step)

    def below(self, row: int) -> "Matrix":
        """Rows `row` and on."""
        return Matrix(self.at(row), self.rows - row, self.blocks, self.row_step, self.block_step)

    def every(self, step: int) -> "Matrix":
        """Every `step`-th row, from the first one on."""
        rows = ceil_div(self.rows, step)
        return Matrix(self.base, rows, self.blocks, step * self.row_step, self.block_step)


@dataclass(frozen=True)
class Weights:
    """A matrix of constants in pieces that are loaded one by one.

    Attributes
    ----------
    columns : rows of the matrix (columns of a product) in each piece: (first, count).
    parts : by piece, the matrices that hold it, side by side along the blocks.
    """

    columns: tuple[tuple[int, int], ...]
    parts: tuple[tuple[Matrix, ...], ...]

    def of(self, columns: tuple[int, int]) -> tuple[tuple[Matrix, ...], int]:
        """The parts of the piece that has those columns, and where they begin in it."""
        for (first, count), parts in zip(self.columns, self.parts, strict=True):
            if first <= columns[0] and columns[0] + columns[1] <= first + count:
                return parts, columns[0] - first
        raise AssertionError(f"columns {columns} are cut by the pieces {self.columns}")


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

    @property
    def features(self) -> int:
        """How many there are."""
        return int(self.index.max()) + 1

    def tiles(self, array: Floats, axis: int) -> Floats:
        """``[tile, ...]``: every tile's part of `array` along `axis`, padded with zeros."""
        if hollow(array):
            sizes = list(array.shape)
            sizes[axis] = self.width
            return np.broadcast_to(0.0, (len(self.index), *sizes))
        taken = np.take(array, np.maximum(self.index, 0), axis=axis)
        shape = [1] * taken.ndim
        shape[axis], shape[axis + 1] = self.index.shape
        return np.moveaxis(np.where(self.index.reshape(shape) < 0, 0.0, taken), axis, 0)

    def flat(self, array: Floats, axis: int) -> Floats:
        """`array` with the tiles' parts side by side along `axis`, padded with zeros."""
        if hollow(array):
            sizes = list(array.shape)
            sizes[axis] = self.index.size
            return np.broadcast_to(0.0, sizes)
        index = self.index.ravel()
        taken = np.take(array, np.maximum(index, 0), axis=axis)
        shape = [1] * taken.ndim
        shape[axis] = len(index)
        return np.where(index.reshape(shape) < 0, 0.0, taken)

    def gather(self, parts: Floats) -> Floats:
        """Features in order from ``parts[tile, row, position]``: ``[row, feature]``."""
        result = np.zeros((parts.shape[1], self.features))
        for part, index in zip(parts, self.index, strict=True):
            result[:, index[index >= 0]] = part[:, : len(index)][:, index >= 0]
        return result


def hollow(array: Floats) -> bool:
    """Whether an array is zeros that take no memory, as where only the program matters."""
    return bool(array.size) and not any(array.strides) and not array.flat[0]


def scaled(array: Floats, factor: Floats | float) -> Floats:
    """``array * factor``; what is `hollow` stays so."""
    return array if hollow(array) else array * factor


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
