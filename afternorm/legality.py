# SPDX-License-Identifier: Apache-2.0
"""Which instructions are legal: written once, for the golden machine and for the RTL's checker.

The rules are expressions over an instruction's fields that work on plain
integers as well as on Amaranth values, so both evaluate the very same ones:
only ``+ - * >> & | ^ == != > >=`` are used, and conditions are combined with
``&`` and ``|``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from afternorm.config import Config
from afternorm.isa import (
    Engine,
    Error,
    Function,
    Opcode,
    Operand,
    Pair,
    Source,
    Stats,
    Target,
)
from afternorm.memory_map import EXPONENT_BYTES, float_word_bytes

Fields = Any
"""Something that gives a field by its name: an `Instruction` or a view of a signal."""
Expression = Callable[[Fields], Any]


@dataclass(frozen=True)
class Extent:
    """Addresses ``base + i*stride_i + ...``, 0 <= i < count, that must lie below `depth`.

    `terms` are pairs of ``count - 1`` and stride; the extent is looked at only `when`.
    """

    depth: int
    base: Expression
    terms: tuple[tuple[Expression, Expression], ...]
    when: Expression = lambda i: 1


@dataclass(frozen=True)
class Rules:
    """What makes an instruction illegal.

    `operands` are conditions that are nonzero for a bad operand; `extents` give the
    address ranges.  Operands are looked at first.
    """

    operands: tuple[Expression, ...] = ()
    extents: tuple[Extent, ...] = ()

    def violation(self, i: Fields) -> tuple[Error, str] | None:
        """The first rule that an instruction breaks, and how; None if it is legal."""
        for number, bad in enumerate(self.operands):
            if bad(i):
                return Error.OPERAND, f"it breaks operand rule {number}"
        for extent in self.extents:
            if extent.when(i):
                top = extent.base(i) + sum(count(i) * stride(i) for count, stride in extent.terms)
                if top >= extent.depth:
                    return Error.ADDRESS, f"address {top} in a memory of {extent.depth} words"
        return None


def _log2(n: int) -> int:
    return n.bit_length() - 1


def rules(config: Config) -> dict[Opcode, Rules]:
    """The rules of every opcode for this configuration."""
    c = config
    block_shift, lane_shift = _log2(c.block), _log2(c.lanes)

    def out_of(name: str, low: int, high: int) -> Expression:
        return lambda i: (i[name] < low) | (i[name] > high)

    def last_block(i: Fields) -> Any:
        """The last of the blocks that cover the columns, counted from 0."""
        return (i["cols"] - 1) >> block_shift

    def last_chunk(i: Fields) -> Any:
        """The last of a vector pass's chunks of E lanes; of a whole block where it makes blocks."""
        return ((i["cols"] - 1) >> lane_shift) | i["to_blocks"] * (c.block // c.lanes - 1)

    def offset(i: Fields) -> Any:
        """Chunks between the two columns that a gate multiplies."""
        return (i["pair"] == Pair.GATE) * i["gate_offset"]

    def minus_one(name: str) -> Expression:
        return lambda i: i[name] - 1

    def field(name: str) -> Expression:
        return lambda i: i[name]

    def one(_: Fields) -> Any:
        return 1

    def blocks_of(prefix: str, columns: Expression, column: str, rows: str = "rows") -> Extent:
        return Extent(
            c.scratchpad_depth,
            field(f"{prefix}_base"),
            ((minus_one(rows), field(f"{prefix}_row")), (columns, field(f"{prefix}_{column}"))),
        )

    def entries(depth: int, base: str, last: Expression, when: Expression = lambda i: 1) -> Extent:
        return Extent(depth, field(base), ((last, one),), when)

    rows_in_bank = out_of("rows", 1, c.rows_max)
    bank = out_of("bank", 0, c.acc_banks - 1)
    a_blocks = blocks_of("a", minus_one("blocks"), "block")

    def vector_words(name: str, when: Expression) -> Extent:
        shift = (
            (lambda i: i[f"{name}_base"])
            if name == "y"
            else (lambda i: i[f"{name}_base"] + offset(i))
        )
        return Extent(
            c.vector_depth,
            shift,
            ((minus_one("rows"), field(f"{name}_row")), (last_chunk, one)),
            when,
        )

    def uses(operand: Operand) -> Expression:
        return lambda i: (i["a"] == operand) | (i["b"] == operand)

    def unaligned(name: str, block: int, floats: int) -> Expression:
        """A word in DRAM lies at a multiple of its size."""
        return lambda i: (
            (i["target"] == Target.BLOCKS) & ((i[name] & (block - 1)) != 0)
            | (i["target"] == Target.FLOATS) & ((i[name] & (floats - 1)) != 0)
        )

    word = float_word_bytes(c)
    transfer = Rules(
        (
            lambda i: i["count"] == 0,
            unaligned("dram", c.block, word),
            unaligned("dram_tile", c.block, word),
            unaligned("exponents", EXPONENT_BYTES, 1),
            unaligned("exponents_tile", EXPONENT_BYTES, 1),
        ),
        (
            Extent(
                c.scratchpad_depth,
                field("base"),
                ((one, minus_one("count")),),
                lambda i: i["target"] == Target.BLOCKS,
            ),
            Extent(
                c.vector_depth,
                field("base"),
                ((one, minus_one("count")),),
                lambda i: i["target"] == Target.FLOATS,
            ),
        ),
    )

    return {
        Opcode.SYNC: Rules((out_of("engine", 0, len(Engine) - 1),)),
        Opcode.MATMUL: Rules(
            (
                rows_in_bank,
                out_of("blocks", 1, (1 << 12) - 1),
                out_of("cols", 1, c.acc_width),
                bank,
                lambda i: i["acc_tile"] * c.columns + i["cols"] > c.acc_width,
                out_of("stats", 0, Stats.B),
            ),
            (
                a_blocks,
                Extent(
                    c.scratchpad_depth,
                    field("b_base"),
                    (
                        (minus_one("cols"), field("b_col")),
                        (minus_one("blocks"), field("b_block")),
                    ),
                ),
                entries(
                    c.stat_depth, "stat_base", minus_one("rows"), lambda i: i["stats"] == Stats.A
                ),
                entries(
                    c.stat_depth, "stat_base", minus_one("cols"), lambda i: i["stats"] == Stats.B
                ),
            ),
        ),
        Opcode.EXP: Rules(
            (
                rows_in_bank,
                out_of("cols", 1, c.acc_width),
                bank,
                lambda i: (
                    i["acc_tile"] * c.columns + last_block(i) * c.block > c.acc_width - c.block
                ),
            ),
            (blocks_of("p", last_block, "block"),),
        ),
        Opcode.VECTOR: Rules(
            (
                rows_in_bank,
                out_of("cols", 1, (1 << 12) - 1),
                out_of("source", 0, Source.BLOCKS),
                out_of("pair", 0, Pair.GATE),
                out_of("function", 0, Function.RSQRT),
                lambda i: (i["pair"] == Pair.ROTATE) & uses(Operand.VECTOR)(i),
                lambda i: (i["source"] == Source.ACC) & (i["bank"] >= c.acc_banks),
                lambda i: (
                    (i["source"] == Source.ACC)
                    & (
                        i["acc_tile"] * c.columns + (last_chunk(i) + offset(i)) * c.lanes
                        >= c.acc_width
                    )
                ),
                lambda i: uses(Operand.COLUMN_SCALE)(i) & ((i["scale_base"] & (c.lanes - 1)) != 0),
            ),
            (
                vector_words("x", lambda i: i["source"] == Source.VECTOR),
                Extent(
                    c.scratchpad_depth,
                    field("x_base"),
                    (
                        (minus_one("rows"), field("x_row")),
                        (
                            lambda i: (last_chunk(i) + offset(i)) >> (block_shift - lane_shift),
                            field("x_block"),
                        ),
                    ),
                    lambda i: i["source"] == Source.BLOCKS,
                ),
                vector_words(
                    "p", lambda i: (i["a"] == Operand.VECTOR) | (i["pair"] == Pair.ROTATE)
                ),
                vector_words(
                    "q", lambda i: (i["b"] == Operand.VECTOR) | (i["pair"] == Pair.ROTATE)
                ),
                entries(c.scale_depth, "scale_base", minus_one("rows"), uses(Operand.ROW_SCALE)),
                entries(
                    c.scale_depth,
                    "scale_base",
                    lambda i: (last_chunk(i) + offset(i)) * c.lanes + (c.lanes - 1),
                    uses(Operand.COLUMN_SCALE),
                ),
                vector_words("y", field("to_vector")),
                Extent(
                    c.scratchpad_depth,
                    field("m_base"),
                    (
                        (minus_one("rows"), field("m_row")),
                        (last_block, field("m_block")),
                    ),
                    field("to_blocks"),
                ),
            ),
        ),
        Opcode.REDUCE: Rules(
            (rows_in_bank,),
            (
                entries(c.stat_depth, "stat_base", minus_one("rows")),
                entries(c.scale_depth, "scale_base", minus_one("rows")),
            ),
        ),
        Opcode.SCAN: Rules(
            (rows_in_bank, out_of("blocks", 1, (1 << 12) - 1)),
            (a_blocks, entries(c.stat_depth, "stat_base", minus_one("rows"))),
        ),
        Opcode.GATHER: Rules(
            (out_of("rows", 1, (1 << 12) - 1), out_of("blocks", 1, (1 << 12) - 1)),
            (
                blocks_of("src", minus_one("blocks"), "block"),
                Extent(
                    c.scratchpad_depth,
                    field("dst_base"),
                    (
                        (minus_one("rows"), field("dst_row")),
                        (minus_one("blocks"), field("dst_block")),
                        (lambda i: c.tiles - 1, field("dst_tile")),
                    ),
                ),
            ),
        ),
        Opcode.LOAD: transfer,
        Opcode.STORE: transfer,
        Opcode.END: Rules(),
    }
