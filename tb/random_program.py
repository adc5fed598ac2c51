# SPDX-License-Identifier: Apache-2.0
"""Random legal programs over all opcodes and modes, to run on RTL and golden machine alike.

Addresses are drawn from small windows (one at the start of each scratchpad
bank, and a few arrays in DRAM), so that instructions often touch each other's
words; the assembler orders them.  Counts are small, so that a program of a
hundred instructions takes a few thousand cycles.  Every accumulator, statistic
and scale is written before it is read: a program does not depend on what those
memories held.

DRAM has an array of mantissas, one of exponents and one of floats, each of words
of every tile: a STORE's words are what a later LOAD of them is to see.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from afternorm.compiler.accesses import Memory
from afternorm.compiler.assembler import Assembler
from afternorm.config import Config
from afternorm.isa import Function, Opcode, Operand, Pair, Scale, Source, Stats, Target
from afternorm.job import DATA, Image, Job
from afternorm.memory_map import EXPONENT_BYTES, float_word_bytes
from afternorm.simulation import HostWords
from golden.mx import MANTISSA_MAX, ZERO_EXPONENT
from golden.number import EXPONENT_MAX, EXPONENT_MIN, Format

WINDOW = 48
"""Words of a scratchpad window, and of the vector memory's."""
DRAM_WORDS = 128
"""Words of each array in DRAM."""
_MOVED = 20
"""Words of a LOAD or a STORE, at most."""
_ATTEMPTS = 1000

OPCODES = (
    Opcode.MATMUL,
    Opcode.EXP,
    Opcode.VECTOR,
    Opcode.REDUCE,
    Opcode.SCAN,
    Opcode.GATHER,
    Opcode.LOAD,
    Opcode.STORE,
)


def random_job(
    config: Config,
    seed: int,
    count: int = 80,
    *,
    opcodes: Sequence[Opcode] = OPCODES,
    functions: Sequence[Function] = tuple(Function),
    extreme: float = 0.02,
) -> Job:
    """A random program of about `count` instructions and random memories.

    Parameters
    ----------
    opcodes : which operations to use; a few others make the first values.
    functions : which functions vector passes use.
    extreme : how often a block has an exponent, or a number a size, from the whole range.
    """
    generator = _Generator(config, np.random.default_rng(seed), functions)
    image = random_image(config, generator.rng, extreme)
    generator.prefix()
    for _ in range(count):
        generator.one(opcodes)
    loaded = {
        Memory.SCRATCHPAD: _windows(config),
        Memory.VECTOR: np.arange(min(4 * WINDOW, config.vector_depth)),
    }
    assembler = generator.assembler
    dram = random_dram(config, generator.rng, extreme)
    return Job(
        config,
        assembler.finish(),
        image,
        loaded,
        assembler.written,
        dram=dram,
        dram_written=[(DATA, len(dram))],
    )


def random_image(config: Config, rng: np.random.Generator, extreme: float = 0.02) -> Image:
    """Memories with random numbers and corner values in the windows, zeros elsewhere."""
    image = Image.empty(config)
    words = _windows(config)
    shape = (config.tiles, len(words))
    mantissas = rng.integers(-MANTISSA_MAX, MANTISSA_MAX + 1, (*shape, config.block))
    corner = rng.choice([-128, 127, -127, 0, 1], mantissas.shape)
    mantissas = np.where(rng.random(mantissas.shape) < 0.1, corner, mantissas)
    exponents = rng.integers(-9, 4, shape)  # scores of a few units, mostly
    whole = rng.integers(EXPONENT_MIN, EXPONENT_MAX + 1, shape)
    whole = np.where(rng.random(shape) < 0.2, EXPONENT_MIN, whole)
    whole = np.where(rng.random(shape) < 0.2, EXPONENT_MAX, whole)
    exponents = np.where(rng.random(shape) < extreme, whole, exponents)
    zero = rng.random(shape) < 0.05
    image.mantissas[:, words] = np.where(zero[..., None], 0, mantissas)
    image.exponents[:, words] = np.where(zero, ZERO_EXPONENT, exponents)

    fmt = Format(config.fraction_bits)
    depth = min(4 * WINDOW, config.vector_depth)
    size = (config.tiles, depth, config.lanes)
    exponent = rng.integers(-6, 7, size)
    whole = rng.integers(EXPONENT_MIN, EXPONENT_MAX + 1, size)
    exponent = np.where(rng.random(size) < extreme, whole, exponent)
    numbers = np.ldexp(rng.uniform(1.0, 2.0, size) * rng.choice([-1.0, 1.0], size), exponent)
    corners = rng.choice([0.0, 1.0, -1.0, 0.5], size)
    numbers = np.where(rng.random(size) < 0.1, corners, numbers)
    limits = rng.choice([fmt.max, -fmt.max, 2.0**EXPONENT_MIN, -(2.0**EXPONENT_MIN)], size)
    numbers = np.where(rng.random(size) < extreme / 4, limits, numbers)
    image.vector[:, :depth] = fmt.round(numbers)
    return image


def random_dram(config: Config, rng: np.random.Generator, extreme: float = 0.02) -> bytes:
    """The arrays in DRAM from `DATA` on, with words as in `random_image`."""
    image = random_image(config, rng, extreme)
    host = HostWords(config)
    blocks = rng.choice(_windows(config), DRAM_WORDS)
    floats = rng.integers(min(4 * WINDOW, config.vector_depth), size=DRAM_WORDS)
    arrays = (
        host.mantissas(image.mantissas[0, blocks])[:, : config.block],
        host.exponents(image.exponents[0, blocks])[:, :EXPONENT_BYTES],
        host.floats(image.vector[0, floats])[:, : float_word_bytes(config)],
    )
    return b"".join(array.tobytes() for array in arrays)


def _windows(config: Config) -> np.ndarray:
    """The scratchpad words that programs use."""
    bank = config.scratchpad_depth // config.scratchpad_banks
    starts = np.arange(config.scratchpad_banks) * bank
    return (starts[:, None] + np.arange(min(WINDOW, bank))).ravel()


@dataclass
class _Generator:
    """Draws instructions and emits those that are legal."""

    config: Config
    rng: np.random.Generator
    functions: Sequence[Function]

    def __post_init__(self) -> None:
        c = self.config
        self.fmt = Format(c.fraction_bits)
        self.assembler = Assembler(c)
        self.rows_limit = min(c.rows_max, 12)
        self.entries = min(c.stat_depth, c.scale_depth, max(2 * c.acc_width, 32))
        self.bank_words = c.scratchpad_depth // c.scratchpad_banks

    def prefix(self) -> None:
        """Write every accumulator, statistic and scale that the program may read."""
        c = self.config
        for bank in range(c.acc_banks):
            self.assembler.emit(
                Opcode.MATMUL,
                rows=self.rows_limit,
                blocks=1,
                cols=c.acc_width,
                bank=bank,
                a_base=bank,
                a_row=1,
                b_base=self.bank_words % c.scratchpad_depth,
                b_col=1 if c.acc_width <= WINDOW else 0,
            )
        step = min(c.rows_max, WINDOW)
        for first in range(0, self.entries, step):
            rows = min(step, self.entries - first)
            self.assembler.emit(
                Opcode.SCAN,
                rows=rows,
                blocks=1,
                a_base=0,
                a_row=1,
                stat_base=first,
                stat_first=1,
                stat_squares=1,
            )
            self.assembler.emit(
                Opcode.REDUCE, rows=rows, mode=Scale.SUM, stat_base=first, scale_base=first
            )

    def one(self, opcodes: Sequence[Opcode]) -> None:
        """Emit one random instruction."""
        draw: dict[Opcode, Callable[[], dict[str, int]]] = {
            Opcode.MATMUL: self._matmul,
            Opcode.EXP: self._exp,
            Opcode.VECTOR: self._vector,
            Opcode.REDUCE: self._reduce,
            Opcode.SCAN: self._scan,
            Opcode.GATHER: self._gather,
            Opcode.LOAD: self._load,
            Opcode.STORE: self._store,
        }
        opcode = opcodes[int(self.rng.integers(len(opcodes)))]
        for _ in range(_ATTEMPTS):
            try:
                self.assembler.emit(opcode, **draw[opcode]())
            except ValueError:
                continue
            return
        raise RuntimeError(f"no legal {opcode.name} in {_ATTEMPTS} attempts")

    def _below(self, limit: int, low: int = 0) -> int:
        return int(self.rng.integers(low, max(limit, low + 1)))

    def _flip(self, probability: float = 0.5) -> int:
        return int(self.rng.random() < probability)

    def _strided(
        self, prefix: str, outer: str, inner: str, rows: int, blocks: int
    ) -> dict[str, int]:
        """A base and two strides that stay within one window."""
        window = min(WINDOW, self.bank_words)
        orders = [(1, rows), (blocks, 1), (0, 1), (1, 0), (blocks + 1, 1), (1, rows + 1), (1, 1)]
        row, block = orders[self._below(len(orders))]
        top = (rows - 1) * row + (blocks - 1) * block
        base = self._below(window - top) + self._below(self.config.scratchpad_banks) * (
            self.bank_words
        )
        return {f"{prefix}_base": base, f"{prefix}_{outer}": row, f"{prefix}_{inner}": block}

    def _bank(self, width: int) -> dict[str, int]:
        c = self.config
        return {
            "bank": self._below(c.acc_banks),
            "acc_tile": self._below((c.acc_width - width) // c.columns + 1),
        }

    def _rows(self) -> int:
        return self._below(self.rows_limit + 1, 1)

    def _stat(self, rows: int) -> dict[str, int]:
        return {
            "stat_base": self._below(self.entries - rows + 1),
            "stat_owned": self._below(3),
            "stat_first": self._flip(),
            "stat_squares": self._flip(),
        }

    def _matmul(self) -> dict[str, int]:
        rows, blocks = self._rows(), self._below(4, 1)
        cols = self._below(self.config.acc_width + 1, 1)
        stats = Stats(self._below(3))
        fields = {"rows": rows, "blocks": blocks, "cols": cols, "accumulate": self._flip()}
        fields |= self._bank(cols)
        fields |= self._strided("a", "row", "block", rows, blocks)
        fields |= self._strided("b", "col", "block", cols, blocks)
        fields["stats"] = stats
        if stats != Stats.NONE:
            fields |= self._stat(rows if stats == Stats.A else cols)
        return fields

    def _scan(self) -> dict[str, int]:
        rows, blocks = self._rows(), self._below(4, 1)
        return {
            "rows": rows,
            "blocks": blocks,
            **self._strided("a", "row", "block", rows, blocks),
            **self._stat(rows),
        }

    def _exp(self) -> dict[str, int]:
        c = self.config
        rows, cols = self._rows(), self._below(c.acc_width + 1, 1)
        blocks = -(-cols // c.block)
        keys = 4 * c.block
        return {
            "rows": rows,
            "cols": cols,
            **self._bank(blocks * c.block),
            "query_base": self._below(keys),
            "key_base": self._below(keys),
            "key_tile": self._below(2) * c.block,
            "length": self._below(2 * keys),
            "causal": self._flip(),
            **self._strided("p", "row", "block", rows, blocks),
        }

    def _reduce(self) -> dict[str, int]:
        rows = self._rows()
        inv_d, eps = self.fmt.encode(
            self.fmt.round([1.0 / self._below(65, 1), [0.0, 1e-5, 1e-12][self._below(3)]])
        )
        return {
            "rows": rows,
            "mode": self._below(len(Scale)),
            "tree": self._flip(),
            "stat_base": self._below(self.entries - rows + 1),
            "scale_base": self._below(self.entries - rows + 1),
            "inv_d": int(inv_d),
            "eps": int(eps),
        }

    def _gather(self) -> dict[str, int]:
        rows, blocks = self._below(5, 1), self._below(4, 1)
        source = self._strided("src", "row", "block", rows, blocks)
        target = self._strided("dst", "row", "block", rows, blocks)
        tile = [rows * blocks, (rows + 1) * blocks, 1][self._below(3)]
        return {"rows": rows, "blocks": blocks, **source, **target, "dst_tile": tile}

    def _load(self) -> dict[str, int]:
        # Tiles may read the same words.
        return self._transfer([0, 1])

    def _store(self) -> dict[str, int]:
        return self._transfer([])

    def _transfer(self, strides: list[int]) -> dict[str, int]:
        """A transfer whose tiles' words in DRAM are apart, or one of `strides` words."""
        c = self.config
        target, count, shared = Target(self._below(2)), self._below(_MOVED + 1, 1), self._flip()
        blocks = target == Target.BLOCKS
        tiles = 1 if shared else c.tiles
        window = min(WINDOW, self.bank_words) if blocks else min(4 * WINDOW, c.vector_depth)
        base = self._below(window - count + 1)
        base += self._below(c.scratchpad_banks) * self.bank_words if blocks else 0

        def array(name: str, start: int, size: int) -> dict[str, int]:
            """Words of `size` bytes each, somewhere in the array that starts at `start`."""
            stride = [*strides, count, count + 1][self._below(len(strides) + 2)]
            first = self._below(DRAM_WORDS - (tiles - 1) * stride - count + 1)
            return {name: start + first * size, f"{name}_tile": stride * size}

        exponents = DATA + DRAM_WORDS * c.block
        floats = exponents + DRAM_WORDS * EXPONENT_BYTES
        fields = {"target": target, "count": count, "base": base, "shared": shared}
        if blocks:
            fields |= array("dram", DATA, c.block)
            fields |= array("exponents", exponents, EXPONENT_BYTES)
        else:
            fields |= array("dram", floats, float_word_bytes(c))
        return fields

    def _vector(self) -> dict[str, int]:
        c = self.config
        rows = self._rows()
        cols = self._below(c.acc_width + 1, 1)
        to_vector, to_blocks = [(1, 0), (0, 1), (1, 1)][self._below(3)]
        unit = c.block if to_blocks else c.lanes
        chunks = -(-cols // unit) * (unit // c.lanes)
        pair = Pair(self._below(3))
        operands = [Operand.NONE, Operand.ROW_SCALE, Operand.COLUMN_SCALE]
        operands += [] if pair == Pair.ROTATE else [Operand.VECTOR]
        a, b = (operands[self._below(len(operands))] for _ in "ab")
        gate = self._below(c.acc_width // c.lanes - chunks + 1, 1) if pair == Pair.GATE else 0
        base = self._below(self.entries - max(rows, (chunks + gate) * c.lanes) + 1)
        fields = {
            "rows": rows,
            "cols": cols,
            "source": Source(self._below(3)),
            "tree": self._flip(0.2),
            "a": a,
            "b": b,
            "scale_base": base // c.lanes * c.lanes if self._flip(0.7) else base,
            "function": self.functions[self._below(len(self.functions))],
            "pair": pair,
            "gate_offset": gate,
            "to_vector": to_vector,
            "to_blocks": to_blocks,
        }
        if fields["source"] == Source.ACC:
            fields |= self._bank((chunks + gate) * c.lanes)
        elif fields["source"] == Source.BLOCKS:
            covered = -(-((chunks + gate) * c.lanes) // c.block)
            fields |= self._strided("x", "row", "block", rows, covered)
        else:
            fields |= self._words("x", rows, chunks + gate)
        for name in "pqy":
            fields |= self._words(name, rows, chunks + gate)
        if to_blocks:
            fields |= self._strided("m", "row", "block", rows, chunks * c.lanes // c.block)
        if self._flip(0.2):  # element by element in place
            if fields["source"] == Source.VECTOR:
                fields |= {"y_base": fields["x_base"], "y_row": fields["x_row"]}
            elif fields["source"] == Source.BLOCKS:
                fields |= {f"m{k}": fields[f"x{k}"] for k in ("_base", "_row", "_block")}
        return fields

    def _words(self, name: str, rows: int, chunks: int) -> dict[str, int]:
        """A base and a row stride in the vector memory."""
        depth = min(4 * WINDOW, self.config.vector_depth)
        row = [0, chunks, chunks + 1][self._below(3)]
        return {
            f"{name}_base": self._below(depth - (rows - 1) * row - chunks + 1),
            f"{name}_row": row,
        }
