# SPDX-License-Identifier: Apache-2.0
"""Attention: scores, max-free softmax and the product with the values, software-pipelined.

A unit is one head's scores of some queries with some keys (what one accumulator
bank holds).  The product of a unit's probabilities with the values is issued after
the scores of later units, so that the array works while the exp engine makes the
probabilities, one key block at a time.

Causal queries are cut into rows that need as many blocks of keys.  A single query
has the query heads of a key head as its rows: they meet the same keys and values.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from afternorm.compiler.attention_order import (
    LEADS,
    LEADS_SERIAL,
    Order,
    Pace,
    Rows,
    Work,
    causal_rows,
    order,
)
from afternorm.compiler.buffers import Matrix, ceil_div, pieces
from afternorm.compiler.builder import Banks, Builder
from afternorm.isa import Opcode, Operand, Scale, Source, Stats

Softmax = Literal["deferred", "serial", "none"]
"""`deferred`: divide what leaves the product with the values by the sum; `serial`: divide the
probabilities before it; `none`: do not divide."""

Finish = Callable[[Rows, Rows, Rows, int, dict[str, int]], None]
"""Drains a part of a result: queries, heads, the features of a head, the bank, and the fields that
scale it.  Several heads, of a single query then, are the rows of the bank."""

_EXP_LEAST = 32
"""Cycles of an EXP that are worth an instruction of their own, and one for the values."""
_SERIAL_RESULTS = 3
"""Results whose scores hide the division of one by its sum."""


@dataclass(frozen=True)
class Unit:
    """Scores of a head, or of those that share a key head: some queries, some keys."""

    order: int
    """Number of its result, counted through all groups."""
    group: int
    head: int
    """The first one."""
    rows: Rows
    keys: Rows
    first: bool
    last: bool
    begins: bool
    """It is the first of its head in its group."""


@dataclass(frozen=True)
class Plan:
    """What products an attention makes, in which order, and where.

    Attributes
    ----------
    units : in the order of their scores.
    due : by unit, after which unit's scores its product with the values comes.
    score_banks, value_banks : accumulator banks, in the order in which they are taken, in turn.
    least : array cycles without waiting.
    """

    units: list[Unit]
    due: list[int]
    score_banks: Sequence[int]
    value_banks: Sequence[int]
    least: int


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
    batch : keys and values by group, if each is the query of a sequence of its own; `k` and `v`
        are not looked at then, and `position` is that of all queries.
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
        batch: Sequence[tuple[Matrix, Matrix]] = (),
    ) -> None:
        c = builder.config
        self.b = builder
        self.q, self.batch = q, batch or [(k, v)] * len(groups)
        self.batched = bool(batch)
        self.sharing, self.head_dim = sharing, head_dim
        self.groups, self.position = groups, position
        self.length, self.causal = length, causal
        self.split, self.softmax, self.finish = split, softmax, finish
        self.keys = keys
        self.blocks = ceil_div(head_dim, c.block)
        self.heads = heads
        self.single = all(count == 1 for _, count in groups)
        """Single queries: the heads that share a key head are rows, and nothing else is masked
        than what comes behind; the values wait for all keys."""
        self.stacked = 1
        if self.single:
            self.stacked = max(n for n in range(1, c.rows_max + 1) if sharing % n == 0)
        self._pace = pace = Pace(c, head_dim)
        self.parts = list(pieces(head_dim, c.acc_width))
        """A head's features, a bank each."""
        units = self._all_units()
        due = self._order(units, pooled=False).due if self.single else self._leads(units)
        banks = range(c.acc_banks)
        self.usual = Plan(
            units, due, banks[: pace.score_banks], banks[pace.score_banks :], self._least(units)
        )
        """The plan beside other work."""
        self.follow(self.usual)

    def follow(self, plan: Plan) -> None:
        """Make room for a plan, which `run` emits then."""
        c, builder = self.b.config, self.b
        self.units, self._due = plan.units, plan.due
        self.score_banks, self.other_banks = Banks(plan.score_banks), Banks(plan.value_banks)
        rows = max(self._height(unit) for unit in self.units)
        self._places = [
            unit.order if self.single else number for number, unit in enumerate(self.units)
        ]
        """By unit, which probabilities it has: its own, or with single queries, of all keys."""
        ahead = max(self._places[due] - at for at, due in zip(self._places, self._due, strict=True))
        most = self.keys if self.single else min(self._pace.width, self.keys)
        self._p = [
            builder.streamed(rows, ceil_div(most, c.block))
            for _ in range(min(ahead + 2, self._places[-1] + 1))
        ]
        slots = max(1, min(4, (c.stat_depth - builder.stats_used) // rows))
        self._stats = [builder.stat_rows(rows) for _ in range(slots)]
        self._scales = [builder.scale_rows(rows) for _ in range(slots)]
        self._banks: list[int] = []

    def plans(self, groupings: Sequence[list[Rows]]) -> Iterator[Plan]:
        """Plans that are worth a try if nothing else is done between the products.

        Those that take the array the least time come first; of these, those whose result that is
        drained last is the shortest.  Single queries have their usual one.

        Parameters
        ----------
        groupings : ways to group the queries.
        """
        if self.single:
            yield self.usual
            return
        ways = {tuple(self._work(units)): units for units in self._ways(groupings)}
        for work, units in sorted(
            ways.items(), key=lambda way: (self._pace.total(way[0]), way[0][-1].rows)
        ):
            for lead in LEADS_SERIAL if self.softmax == "serial" else LEADS:
                found = self._order(units, pooled=True, lead=lead)
                yield Plan(
                    units, found.due, found.score_banks, found.value_banks, self._pace.total(work)
                )

    def _all_units(self) -> list[Unit]:
        """The units, in the order of their scores, a group after the other."""
        units: list[Unit] = []
        for group, rows in enumerate(self.groups):
            for head in range(0, self.heads, self.stacked):
                self._add_units(units, group, head, self._cut(rows), self._pace.width)
        return units

    def _ways(self, groupings: Sequence[list[Rows]]) -> Iterator[list[Unit]]:
        """Units in different orders, a head after the other.

        From one unit to the next, the keys become more, or fewer; or from head to head in turn; or
        in every other head the most, the fewest, the next to most and so on.
        """
        widths = {self._pace.width, self._pace.step}
        cuts = {tuple(cut for rows in groups for cut in self._cut(rows)) for groups in groupings}
        if self.causal:
            everything = groupings[0][0][0], sum(count for _, count in groupings[0])
            cuts.add(tuple(self._cut(everything, waits=False)))
        for rows in cuts:
            count, fewer = len(rows), rows[::-1]
            mixed = tuple(rows[n // 2] if n % 2 else fewer[n // 2] for n in range(count))
            turns = dict.fromkeys(((rows, rows), (fewer, fewer), (rows, fewer), (mixed, rows)))
            for width in widths:
                for turn in turns:
                    units: list[Unit] = []
                    for head in range(self.heads):
                        self._add_units(units, 0, head, turn[head % 2], width)
                    yield units

    def _order(self, units: list[Unit], *, pooled: bool, lead: int | None = None) -> Order:
        serial = self.softmax == "serial"
        if lead is None:
            lead = (LEADS_SERIAL if serial else LEADS)[0]
        return order(self._pace, self._work(units), serial=serial, pooled=pooled, lead=lead)

    def _least(self, units: list[Unit]) -> int:
        return self._pace.total(self._work(units))

    def _cut(self, rows: Rows, *, waits: bool = True) -> list[Rows]:
        """Causal queries are cut by how many keys they need (see `causal_rows`)."""
        if not self.causal or self.single:
            return [rows]
        position, keys = self.position, self.keys
        return causal_rows(self._pace, rows, position=position, keys=keys, waits=waits)

    def _add_units(
        self, units: list[Unit], group: int, head: int, rows: Sequence[Rows], width: int
    ) -> None:
        """Add the units of a head and a group: `width` keys of some rows each."""
        for number, some in enumerate(rows):
            result = units[-1].order + 1 if units else 0
            parts = list(pieces(min(self.keys, self._seen(some)), width))
            units += [
                Unit(
                    order=result,
                    group=group,
                    head=head,
                    rows=some,
                    keys=part,
                    first=index == 0,
                    last=index + 1 == len(parts),
                    begins=number == index == 0,
                )
                for index, part in enumerate(parts)
            ]

    def _seen(self, rows: Rows) -> int:
        """Keys that the last one of some queries sees."""
        if not self.causal:
            return self.length
        return min(self.length, self.position + (1 if self.batched else sum(rows)))

    def _height(self, unit: Unit) -> int:
        """Rows of a unit's products."""
        return self.stacked * unit.rows[1]

    def _leads(self, units: list[Unit]) -> list[int]:
        """By unit, after which unit's scores its product with the values comes, without a search.

        Behind those of one more unit; in the serial order behind those of three more heads, for
        the division by the sum is a long way through three engines.
        """
        count, results = len(units), Counter(unit.order for unit in units)
        lead = _SERIAL_RESULTS * max(results.values()) if self.softmax == "serial" else 1
        return [min(count - 1, number + lead) for number in range(count)]

    def _pieces(self, unit: Unit) -> Iterator[Rows]:
        """The keys of each EXP of a unit."""
        pace = self._pace
        if self.head_dim <= self.b.config.columns:
            # All of the product's rows pass the tap: another one at once would have to wait.
            return pieces(unit.keys[1], pace.width)
        least = ceil_div(_EXP_LEAST, pace.exp(self._height(unit), pace.step))
        return pieces(unit.keys[1], pace.step * least)

    def _work(self, units: list[Unit]) -> list[Work]:
        return [
            Work(
                rows=self._height(unit),
                keys=unit.keys[1],
                pieces=tuple(count for _, count in self._pieces(unit)),
                first=unit.first,
                last=unit.last,
            )
            for unit in units
        ]

    def before(self, unit: int) -> int:
        """The unit whose hooks are the last ones before the scores of `unit`; -1 if there is none.

        Only units that begin a result have hooks, so that a hook may use all of `other_banks`.
        """
        number = bisect_left(self._due, unit) - 1
        while number >= 0 and not self.units[number].first:
            number -= 1
        return number

    def run(self, hooks: Mapping[int, list[Callable[[], None]]]) -> None:
        """Emit everything; the hooks of a unit run before its product with the values."""
        number = 0
        for step in range(len(self.units)):
            self._scores(step)
            while number < len(self.units) and self._due[number] == step:
                for hook in hooks.get(number, ()):
                    hook()
                self._values(number)
                number += 1

    def _probabilities(self, number: int) -> Matrix:
        return self._p[self._places[number] % len(self._p)]

    def _queries(self, unit: Unit) -> tuple[Matrix, Rows]:
        q = self.q.part(unit.head * self.blocks, self.blocks)
        if not self.single:
            return q, unit.rows
        base, step = q.at(unit.rows[0]), self.blocks * q.block_step
        return Matrix(base, self.stacked, q.blocks, step, q.block_step), (0, self.stacked)

    def _scores(self, number: int) -> None:
        """Scores, probabilities, and in the serial order their division by the sum."""
        c, unit = self.b.config, self.units[number]
        bank = self.score_banks.take()
        k, _ = self.batch[unit.group]
        keys = k.part(unit.head // self.sharing * self.blocks, self.blocks)
        self.b.product(*self._queries(unit), keys, unit.keys, bank)
        p, first = self._probabilities(number), unit.keys[0] if self.single else 0
        for start, count in self._pieces(unit):
            self.b.emit(
                Opcode.EXP,
                rows=self._height(unit),
                cols=count,
                bank=bank,
                acc_tile=start // c.columns,
                query_base=self.position + unit.rows[0],
                key_base=unit.keys[0] + start,
                key_tile=self.keys if self.split else 0,
                length=self._seen(unit.rows) if self.single else self.length,
                causal=int(self.causal and not self.single),
                p_base=p.at(0, (first + start) // c.block),
                p_row=p.row_step,
                p_block=p.block_step,
            )
        if self.softmax == "serial":
            self._divide(number)

    def _divide(self, number: int) -> None:
        """Divide the probabilities of a head, whose last unit this is, by their sum."""
        unit = self.units[number]
        rows, slot = self._height(unit), self._slot(unit)
        first = number
        while not self.units[first].first:
            first -= 1
        if self.single:
            if not unit.last:
                return
            parts = [(number, sum(unit.keys))]
        else:
            parts = [(other, self.units[other].keys[1]) for other in range(first, number + 1)]
        last, keys = parts[-1]
        p = self._probabilities(last).part(0, ceil_div(keys, self.b.config.block))
        self.b.scan(p, (0, rows), self._stats[slot], stat_first=int(len(parts) == 1))
        if not unit.last:
            return
        self._reduce(unit)
        for member, keys in parts:
            p = self._probabilities(member)
            self.b.vector(
                rows,
                keys,
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
            self._height(unit),
            self._stats[slot],
            self._scales[slot],
            tree=self.split,
            d=1,
            eps=0.0,
        )

    def _values(self, number: int) -> None:
        """The product with the values, a key block at a time; at the end drain it."""
        c, unit = self.b.config, self.units[number]
        rows = (0, self._height(unit))
        slot = self._slot(unit)
        p = self._probabilities(number)
        parts = [(start, count, unit.keys[0] + start) for start, count in self._pieces(unit)]
        begins = unit.first
        if self.single:
            if not unit.last:
                return
            parts, begins = [(0, sum(unit.keys), 0)], True
        if begins:
            self._banks = [self.other_banks.take() for _ in self.parts]
        deferred = self.softmax == "deferred"
        for start, count, key in parts:
            fresh = begins and start == 0
            blocks = ceil_div(count, c.block)
            keys = self.batch[unit.group][1].part(key // c.block, blocks)
            head = unit.head // self.sharing * self.head_dim
            for (first, features), bank in zip(self.parts, self._banks, strict=True):
                fields = {"accumulate": int(not fresh)}
                if deferred and first == 0:
                    fields |= {
                        "stats": Stats.A,
                        "stat_base": self._stats[slot],
                        "stat_first": int(fresh),
                    }
                probabilities = p.part(start // c.block, blocks)
                self.b.product(probabilities, rows, keys, (head + first, features), bank, **fields)
        if unit.last:
            scale = {"tree": int(self.split and c.tiles > 1)}
            if deferred:
                self._reduce(unit)
                scale |= {"a": Operand.ROW_SCALE, "scale_base": self._scales[slot]}
            heads = unit.head, self.stacked
            for part, bank in zip(self.parts, self._banks, strict=True):
                self.finish(unit.rows, heads, part, bank, scale)
