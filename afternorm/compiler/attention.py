# SPDX-License-Identifier: Apache-2.0
"""Attention: scores, max-free softmax and the product with the values, software-pipelined.

A unit is one head's scores of a group of queries with a group of keys (what one
accumulator bank holds).  The product of a unit's probabilities with the values
is issued after the scores of later units, so that the array works while the exp
engine makes the probabilities, one key block at a time.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from afternorm.compiler.buffers import Matrix, ceil_div, pieces
from afternorm.compiler.builder import Banks, Builder
from afternorm.errors import CapacityError
from afternorm.isa import Opcode, Operand, Scale, Source, Stats

Softmax = Literal["deferred", "serial", "none"]
"""`deferred`: divide what leaves the product with the values by the sum; `serial`: divide the
probabilities before it; `none`: do not divide."""

Finish = Callable[[int, int, tuple[int, int], int, dict[str, int]], None]
"""Drains a part of a head's result: row group, head, its features (first, count), bank, and the
fields that scale it."""


@dataclass(frozen=True)
class Unit:
    """Scores of one head: a group of queries, a group of keys."""

    order: int
    """Number of the head, counted through all groups."""
    group: int
    head: int
    keys: tuple[int, int]
    first: bool
    last: bool


class Attention:
    """Emits the attention of a tile's heads.

    Parameters
    ----------
    q, k, v : queries ``[token, head x feature]`` and keys alike, heads padded to blocks; values
        ``[head x feature, token]``.
    heads, sharing : a tile's query heads, and how many of them share a key head.
    head_dim : features of a head.
    groups : queries in groups of (first, count).
    position : of the first query among the keys.
    length : keys; those behind are masked.
    keys : keys in each tile; `length`, or less where the tiles split them.
    split : whether each tile has a slice of the keys and all heads, not a slice of the heads.
    finish : drains a head's result.
    """

    def __init__(
        self,
        builder: Builder,
        *,
        q: Matrix,
        k: Matrix,
        v: Matrix,
        heads: int,
        sharing: int,
        head_dim: int,
        groups: list[tuple[int, int]],
        position: int = 0,
        length: int,
        keys: int,
        split: bool,
        causal: bool,
        softmax: Softmax,
        finish: Finish,
    ) -> None:
        c = builder.config
        self.b = builder
        self.q, self.k, self.v = q, k, v
        self.sharing, self.head_dim = sharing, head_dim
        self.groups, self.position = groups, position
        self.length, self.causal = length, causal
        self.split, self.softmax, self.finish = split, softmax, finish
        self.keys = keys
        self.blocks = ceil_div(head_dim, c.block)
        self.step = max(c.block, c.columns)
        """Keys in an EXP: whole blocks and whole array widths."""
        width = c.acc_width // self.step * self.step
        self.heads = heads
        self.units = [
            unit
            for group in range(len(groups))
            for head in range(heads)
            for unit in self._units(group, head, width)
        ]
        # The division by the sum is a long way through three engines: it is hidden behind the
        # scores of three more heads.  Without it, those of one more unit do.
        serial = softmax == "serial"
        self.lead = 3 * max(Counter(unit.order for unit in self.units).values()) if serial else 1
        """Units whose scores come before the first product with the values."""
        count = min(3, (c.acc_banks + 1) // 2)
        self.score_banks = Banks(range(count))
        self.other_banks = Banks(range(count, c.acc_banks))
        self.parts = list(pieces(head_dim, c.acc_width))
        """A head's features, a bank each."""
        if len(self.parts) > c.acc_banks - count:
            raise CapacityError(
                f"a head of {head_dim} features needs {len(self.parts)} accumulator banks of "
                f"acc_width={c.acc_width} beside {count} for scores; there are "
                f"acc_banks={c.acc_banks}"
            )
        rows = max(count for _, count in groups)
        self._p = [
            builder.streamed(rows, ceil_div(min(width, keys), c.block))
            for _ in range(min(self.lead + 2, len(self.units)))
        ]
        slots = max(1, min(4, (c.stat_depth - builder.stats_used) // rows))
        self._stats = [builder.stat_rows(rows) for _ in range(slots)]
        self._scales = [builder.scale_rows(rows) for _ in range(slots)]
        self._banks: list[int] = []

    def _units(self, group: int, head: int, width: int) -> list[Unit]:
        first, count = self.groups[group]
        seen = self.length
        if self.causal:
            seen = min(seen, self.position + first + count)
        parts = list(pieces(min(self.keys, seen), width))
        return [
            Unit(group * self.heads + head, group, head, part, index == 0, index + 1 == len(parts))
            for index, part in enumerate(parts)
        ]

    def boundary(self, unit: int) -> int:
        """The last unit from `unit` back that begins a head: hooks may run before it."""
        while unit > 0 and not self.units[unit].first:
            unit -= 1
        return max(unit, 0)

    def run(self, hooks: Mapping[int, list[Callable[[], None]]]) -> None:
        """Emit everything; the hooks of a unit run before its product with the values.

        Only units that begin a head have hooks, so that a hook may use all of `other_banks`.
        """
        for step in range(len(self.units) + self.lead):
            if step < len(self.units):
                self._scores(step)
            if step >= self.lead:
                for hook in hooks.get(step - self.lead, ()):
                    hook()
                self._values(step - self.lead)

    def _probabilities(self, number: int) -> Matrix:
        return self._p[number % len(self._p)]

    def _scores(self, number: int) -> None:
        """Scores, probabilities, and in the serial order their division by the sum."""
        c, unit = self.b.config, self.units[number]
        rows = self.groups[unit.group]
        bank = self.score_banks.take()
        self.b.product(
            self.q.part(unit.head * self.blocks, self.blocks),
            rows,
            self.k.part(unit.head // self.sharing * self.blocks, self.blocks),
            unit.keys,
            bank,
        )
        p = self._probabilities(number)
        for start, count in pieces(unit.keys[1], self.step):
            self.b.emit(
                Opcode.EXP,
                rows=rows[1],
                cols=count,
                bank=bank,
                acc_tile=start // c.columns,
                query_base=self.position + rows[0],
                key_base=unit.keys[0] + start,
                key_tile=self.keys if self.split else 0,
                length=self.length,
                causal=int(self.causal),
                p_base=p.at(0, start // c.block),
                p_row=p.row_step,
                p_block=p.block_step,
            )
        if self.softmax == "serial":
            self._divide(number)

    def _divide(self, number: int) -> None:
        """Divide the probabilities of a head, whose last unit this is, by their sum."""
        unit = self.units[number]
        rows = self.groups[unit.group][1]
        slot = self._slot(unit)
        p = self._probabilities(number)
        blocks = ceil_div(unit.keys[1], self.b.config.block)
        self.b.scan(p.part(0, blocks), (0, rows), self._stats[slot], stat_first=int(unit.first))
        if not unit.last:
            return
        self._reduce(unit)
        first = number
        while not self.units[first].first:
            first -= 1
        for member in range(first, number + 1):
            p = self._probabilities(member)
            self.b.vector(
                rows,
                self.units[member].keys[1],
                Source.BLOCKS,
                a=Operand.ROW_SCALE,
                scale_base=self._scales[slot],
                x_base=p.base,
                x_row=p.row_step,
                x_block=p.block_step,
                **self.b.to_blocks(p, 0),
            )

    def _slot(self, unit: Unit) -> int:
        return unit.order % len(self._stats)

    def _reduce(self, unit: Unit) -> None:
        slot = self._slot(unit)
        self.b.reduce(
            Scale.SOFTMAX,
            self.groups[unit.group][1],
            self._stats[slot],
            self._scales[slot],
            tree=self.split,
            d=1,
            eps=0.0,
        )

    def _values(self, number: int) -> None:
        """The product with the values, a key block at a time; at the end drain it."""
        c, unit = self.b.config, self.units[number]
        rows = (0, self.groups[unit.group][1])
        slot = self._slot(unit)
        p = self._probabilities(number)
        if unit.first:
            self._banks = [self.other_banks.take() for _ in self.parts]
        deferred = self.softmax == "deferred"
        for start, count in pieces(unit.keys[1], self.step):
            begins = unit.first and start == 0
            blocks = ceil_div(count, c.block)
            keys = self.v.part((unit.keys[0] + start) // c.block, blocks)
            head = unit.head // self.sharing * self.head_dim
            for (first, features), bank in zip(self.parts, self._banks, strict=True):
                fields = {"accumulate": int(not begins)}
                if deferred and first == 0:
                    fields |= {
                        "stats": Stats.A,
                        "stat_base": self._stats[slot],
                        "stat_first": int(begins),
                    }
                probabilities = p.part(start // c.block, blocks)
                self.b.product(probabilities, rows, keys, (head + first, features), bank, **fields)
        if unit.last:
            scale = {"tree": int(self.split and c.tiles > 1)}
            if deferred:
                self._reduce(unit)
                scale |= {"a": Operand.ROW_SCALE, "scale_base": self._scales[slot]}
            for part, bank in zip(self.parts, self._banks, strict=True):
                self.finish(unit.group, unit.head, part, bank, scale)
